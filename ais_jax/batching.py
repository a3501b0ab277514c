"""Keys by index, and functions of one example over batches.

A key is an example's, or a chain's, by its index alone: results do not depend on how
many there are, nor on how they are cut into blocks or spread over devices.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ais_jax.types import PRNGKey, PRNGKeys


def example_keys(key: PRNGKey, indices: Int[Array, "B"]) -> PRNGKeys:
    """The keys of examples, each by its index alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def chain_keys(key: PRNGKey, num_chains: int) -> PRNGKeys:
    """One key a chain, which does not depend on how many chains there are."""
    return example_keys(key, jnp.arange(num_chains))


def map_examples(
    function: Callable[..., PyTree], *args: PyTree, block_size: int | None = None
) -> PyTree:
    """Maps a function of one example over a batch, in blocks where asked for.

    Args:
        function: of one example.
        *args: arrays with a leading axis of B examples.
        block_size: examples at once, or None for all of them.

    Returns:
        The results with a leading axis of B.
    """

    def map_block(*block):
        return (), jax.vmap(function)(*block)

    return sum_blocks(map_block, *args, block_size=block_size)[1]


def sum_blocks(
    function: Callable[..., tuple[PyTree, PyTree]],
    *args: PyTree,
    block_size: int | None = None,
) -> tuple[PyTree, PyTree]:
    """Applies a function of a batch to blocks of it and adds up its first result.

    Args:
        function: (arrays with a leading axis of examples) -> (total, each). `total` is
            a pytree summed over the examples; `each` has a leading axis of examples.
        *args: arrays with a leading axis of B examples.
        block_size: the most examples that are taken at a time, or None for the whole
            batch. A block's activations should stay in the processor's cache. Blocks
            are as even as can be, since a smaller last one is a program of its own.

    Returns:
        (total, each with a leading axis of B).
    """
    batch = jax.tree.leaves(args)[0].shape[0]
    if block_size is None or block_size >= batch:
        return function(*args)
    even = math.ceil(batch / math.ceil(batch / block_size))
    whole = batch - batch % even

    def cut(a):
        return a[:whole].reshape(whole // even, even, *a.shape[1:])

    blocks = jax.tree.map(cut, args)
    shapes = jax.eval_shape(function, *jax.tree.map(lambda a: a[0], blocks))[0]

    def add_block(total, block):
        term, each = function(*block)
        return jax.tree.map(jnp.add, total, term), each

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    total, each = jax.lax.scan(add_block, zeros, blocks)
    each = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), each)
    if whole < batch:
        total, rest = add_block(total, jax.tree.map(lambda a: a[whole:], args))
        each = jax.tree.map(lambda *parts: jnp.concatenate(parts), each, rest)
    return total, each
