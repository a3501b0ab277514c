"""Matrix products of a stated precision, the same on every device.

Densities enter weights and Metropolis tests and need float32; the force that drives HMC
may be coarse, since leapfrog stays reversible and volume-preserving with any
deterministic force. Matrix units multiply numbers of few mantissa bits exactly and add
in float32, so a product is described by how its inputs are rounded.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ais_jax.checks import lookup

# The mantissa bits of a product's inputs. JAX's own `DotAlgorithmPreset` names these
# precisions too, but on a CPU it refuses TF32 and computes bfloat16 in float32.
PRECISIONS = {"float32": None, "tf32": 10, "bf16": 7}


def dot_general(name: str) -> Callable[..., Array]:
    """A matrix product of a named precision, forward and backward.

    Args:
        name: 'float32' (full precision also where the device's default is coarser),
            'tf32' or 'bf16'.

    Returns:
        A function with the arguments of `jax.lax.dot_general` as `flax.linen.Dense`
        gives them: inputs [..., I] and weights [I, O] to [..., O].

    Raises:
        ValueError: for an unknown name.
    """
    bits = lookup("precision", name, PRECISIONS)
    product = _full if bits is None else partial(_rounded, bits)
    return lambda lhs, rhs, *_, **__: product(lhs, rhs)


def _full(lhs, rhs):
    return jnp.dot(lhs, rhs, precision=jax.lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded(bits, lhs, rhs):
    return _product(bits, lhs, rhs, ((lhs.ndim - 1,), (0,)))


def _rounded_forward(bits, lhs, rhs):
    return _rounded(bits, lhs, rhs), (lhs, rhs)


def _rounded_backward(bits, inputs, cotangent):
    lhs, rhs = inputs
    batch = tuple(range(lhs.ndim - 1))
    return (
        _product(bits, cotangent, rhs, ((lhs.ndim - 1,), (1,))),
        _product(bits, lhs, cotangent, (batch, batch)),
    )


_rounded.defvjp(_rounded_forward, _rounded_backward)


def _product(bits, lhs, rhs, contract):
    """The product of the rounded inputs, added up in float32."""
    dtype = jnp.bfloat16 if bits == PRECISIONS["bf16"] else jnp.float32
    lhs, rhs = (jax.lax.reduce_precision(a, 8, bits).astype(dtype) for a in (lhs, rhs))
    return jax.lax.dot_general(
        lhs, rhs, (contract, ((), ())), preferred_element_type=jnp.float32
    )
