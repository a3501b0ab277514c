"""Both gradients of log p(x, z) from one pass: in z at once, in theta when asked for.

A dense layer's part of theta's gradient is the outer product of its input and of the
gradient at its output. The pass that gives the gradient in z computes both, so they are
kept, and weighted sums of theta's gradient over many z cost one product a layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float, PyTree

from ais_jax.types import (
    Params,
    Scalar,
)


class OnePass(NamedTuple):
    """Log p(x, z) with gradients in z, and in theta from what these computed.

    Attributes:
        score: (theta, x, z) -> (log p(x, z) in nats, its gradient in z, factors).
        gradient: (theta, factors with a leading axis of N, weights f32[N]) -> (the
            weighted sum of the N values, its gradient in theta).
    """

    score: Callable[..., tuple]
    gradient: Callable[..., tuple]


def of_dense_layers(log_joint: Callable, product: Callable) -> OnePass:
    """`OnePass` of a density whose matrices are kernels of Flax's dense layers.

    Args:
        log_joint: (theta, x, z) -> log p(x, z), theta being a tuple of variables of
            Flax modules, which it applies in this order; each layer once.
        product: of matrices, [I, N] by [N, O].
    """

    def score(theta, x, z):
        kernels, others = _split(theta)

        def value(z, others):
            inputs, record = _recorder()
            with nn.intercept_methods(record):
                log_p = log_joint(_join(theta, {**kernels, **others}), x, z)
            return log_p, inputs

        both = jax.value_and_grad(value, (0, 1), has_aux=True)
        (log_p, inputs), (grad_z, grads) = both(z, others)
        return log_p, grad_z, (log_p, inputs, grads)

    def gradient(
        theta: Params, factors: PyTree, weights: Float[Array, "N"]
    ) -> tuple[Scalar, Params]:
        log_p, inputs, grads = factors
        grads = jax.tree.map(lambda a: jax.vmap(jnp.multiply)(weights, a), grads)
        kernels = {
            (*layer, "kernel"): product(a.T, grads[(*layer, "bias")])
            for layer, a in inputs.items()
        }
        sums = jax.tree.map(lambda a: jnp.sum(a, axis=0), grads)
        return jnp.sum(weights * log_p), _join(theta, {**kernels, **sums})

    return OnePass(score, gradient)


def _recorder():
    """A dict of dense layers' inputs by path, and the interceptor that fills it."""
    inputs, roots = {}, []

    def record(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Dense):
            if module.scope.root not in roots:
                roots.append(module.scope.root)
            net = str(roots.index(module.scope.root))
            inputs[(net, "params", *module.path)] = args[0]
        return call(*args, **kwargs)

    return inputs, record


def _split(theta):
    """The kernels, and all other parameters, by their paths."""
    flat = {
        (str(i), *path): leaf
        for i, net in enumerate(theta)
        for path, leaf in traverse_util.flatten_dict(net).items()
    }
    kernels = {path: leaf for path, leaf in flat.items() if path[-1] == "kernel"}
    return kernels, {path: leaf for path, leaf in flat.items() if path not in kernels}


def _join(theta, flat):
    """Parameters of theta's form from their paths."""
    nets = traverse_util.unflatten_dict(flat)
    return tuple(nets[str(i)] for i in range(len(theta)))
