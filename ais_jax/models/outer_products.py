"""Both gradients of log p(x, z) from one pass: in z at once, in theta when asked for.

A dense layer's part of theta's gradient is the outer product of its input and of the
gradient at its output. The pass that gives the gradient in z computes both, and they
are kept. A weighted sum of theta's gradient over many z then costs one product a layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct, traverse_util
from jaxtyping import Array, Float, PyTree

from ais_jax.models.latent import LogJoint, TargetWithResiduals
from ais_jax.types import Params, Scalar


@struct.dataclass
class OuterProducts:
    """What passes in z leave for theta's gradient: `latent.Residuals`.

    Attributes:
        log_p: log p(x, z), nats.
        inputs: of each dense layer, by its path.
        grads: of log p in all parameters but the layers' kernels, by their paths.
        product: of matrices, [I, N] by [N, O].
    """

    # JAX rebuilds this class around placeholders too: a checker must take them all.
    log_p: PyTree
    inputs: PyTree
    grads: PyTree
    product: Callable[[Array, Array], Array] = struct.field(pytree_node=False)

    def gradient(
        self, theta: Params, weights: Float[Array, "N"]
    ) -> tuple[Scalar, Params]:
        """The weighted sum of N values of log p, and its gradient in theta."""
        grads = jax.tree.map(lambda a: jax.vmap(jnp.multiply)(weights, a), self.grads)
        kernels = {
            (*layer, "kernel"): self.product(a.T, grads[(*layer, "bias")])
            for layer, a in self.inputs.items()
        }
        sums = jax.tree.map(lambda a: jnp.sum(a, axis=0), grads)
        return jnp.sum(weights * self.log_p), _join(theta, {**kernels, **sums})


def of_dense_layers(log_joint: LogJoint, product: Callable) -> TargetWithResiduals:
    """A density whose matrices are kernels of Flax's dense layers, with residuals.

    Args:
        log_joint: (theta, x, z) -> log p(x, z), theta being a tuple of variables of
            Flax modules, which it applies in this order; each layer once.
        product: of matrices, [I, N] by [N, O].
    """

    def target_with_residuals(theta, x, z):
        kernels, others = _split(theta)

        def value(z, others):
            inputs, record = _recorder()
            with nn.intercept_methods(record):
                log_p = log_joint(_join(theta, {**kernels, **others}), x, z)
            return log_p, inputs

        both = jax.value_and_grad(value, (0, 1), has_aux=True)
        (log_p, inputs), (force, grads) = both(z, others)
        return log_p, force, OuterProducts(log_p, inputs, grads, product)

    return target_with_residuals


def _recorder():
    """A dict of dense layers' inputs by path, and the interceptor that fills it."""
    inputs, roots = {}, []

    def record(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Dense) and module.scope is not None:
            root = module.scope.root
            if root not in roots:
                roots.append(root)
            inputs[(str(roots.index(root)), "params", *module.path)] = args[0]
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
