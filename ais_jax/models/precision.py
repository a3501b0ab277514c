"""Matrix products of a stated precision, the same on every device.

Densities enter weights and Metropolis tests and need float32; the force that drives HMC
may be coarse, since leapfrog stays reversible and volume-preserving with any
deterministic force. Matrix units multiply numbers of few mantissa bits exactly and add
in float32, so a product is described by how its inputs are rounded: to one piece, or to
a sum of pieces whose cross products are added up.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ais_jax.checks import lookup


class Rounding(NamedTuple):
    """How the inputs of a product are rounded.

    Attributes:
        mantissa_bits: 10 for TF32, 7 for bfloat16.
        num_pieces: n; each input is a sum of n rounded pieces, and the products of
            pieces i and j with i + j < n are added: 1, 3 or 6 products.
    """

    mantissa_bits: int
    num_pieces: int


PRECISIONS = {
    "float32": None,
    "tf32": Rounding(10, 1),
    "tf32_x3": Rounding(10, 2),
    "bf16": Rounding(7, 1),
    "bf16_x6": Rounding(7, 3),
}


def dot_general(name: str) -> Callable[..., Array]:
    """A matrix product of a named precision, forward and backward.

    Args:
        name: 'float32' (full precision also where the device's default is coarser),
            'tf32', 'bf16', or emulations of float32 by three TF32 products ('tf32_x3')
            or six bfloat16 ones ('bf16_x6').

    Returns:
        A function with the arguments of `jax.lax.dot_general` as `flax.linen.Dense`
        gives them: inputs [..., I] and weights [I, O] to [..., O].

    Raises:
        ValueError: for an unknown name.
    """
    rounding = lookup("precision", name, PRECISIONS)
    product = _full if rounding is None else partial(_rounded, rounding)
    return lambda lhs, rhs, *_, **__: product(lhs, rhs)


def _full(lhs, rhs):
    return jnp.dot(lhs, rhs, precision=jax.lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded(rounding, lhs, rhs):
    return _sum_products(rounding, lhs, rhs, ((lhs.ndim - 1,), (0,)))


def _rounded_forward(rounding, lhs, rhs):
    return _rounded(rounding, lhs, rhs), (lhs, rhs)


def _rounded_backward(rounding, inputs, cotangent):
    lhs, rhs = inputs
    batch = tuple(range(lhs.ndim - 1))
    return (
        _sum_products(rounding, cotangent, rhs, ((lhs.ndim - 1,), (1,))),
        _sum_products(rounding, lhs, cotangent, (batch, batch)),
    )


_rounded.defvjp(_rounded_forward, _rounded_backward)


def _sum_products(rounding, lhs, rhs, contract):
    """The sum of the products of the inputs' pieces, small ones first."""
    n = rounding.num_pieces
    lefts, rights = _pieces(rounding, lhs), _pieces(rounding, rhs)
    pairs = [(i, j) for i in range(n) for j in range(n) if i + j < n]
    total = 0.0
    for i, j in sorted(pairs, key=sum, reverse=True):
        total += jax.lax.dot_general(
            lefts[i],
            rights[j],
            (contract, ((), ())),
            preferred_element_type=jnp.float32,
        )
    return total


def _pieces(rounding, x):
    """The input as a sum of rounded pieces, largest first."""
    dtype = jnp.bfloat16 if rounding.mantissa_bits == 7 else jnp.float32
    pieces = []
    for _ in range(rounding.num_pieces):
        piece = jax.lax.reduce_precision(x, 8, rounding.mantissa_bits)
        pieces.append(piece.astype(dtype))
        x = x - piece
    return pieces
