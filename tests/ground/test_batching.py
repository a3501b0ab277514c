"""Keys by index, and blocks that add up to the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import batching


def test_a_key_depends_on_its_index_alone():
    key = jax.random.key(0)
    few, many = batching.chain_keys(key, 3), batching.chain_keys(key, 7)
    picked = batching.example_keys(key, jnp.array([2, 5]))
    data = jax.random.key_data
    np.testing.assert_array_equal(data(few), data(many)[:3])
    np.testing.assert_array_equal(data(picked), data(many)[jnp.array([2, 5])])
    assert len(np.unique(data(many), axis=0)) == 7


def test_sum_blocks_adds_and_stacks():
    x = jnp.arange(7.0)
    for block_size in (None, 1, 3, 7, 100):
        total, each = batching.sum_blocks(
            lambda x: ({"sum": jnp.sum(x)}, (2 * x, jnp.zeros((len(x), 0)))),
            x,
            block_size=block_size,
        )
        assert total["sum"] == 21.0
        np.testing.assert_array_equal(each[0], 2 * np.arange(7.0))
        assert each[1].shape == (7, 0)


def test_map_examples_maps_every_argument_in_blocks():
    x, y = jnp.arange(7.0), jnp.arange(14.0).reshape(7, 2)
    function = lambda x, y: {"sum": x + jnp.sum(y)}
    expected = np.arange(7.0) + np.arange(14.0).reshape(7, 2).sum(1)
    for block_size in (None, 1, 3, 7, 100):
        result = batching.map_examples(function, x, y, block_size=block_size)
        np.testing.assert_array_equal(result["sum"], expected)


@pytest.mark.parametrize("block_size", [10, 11, 19])
def test_blocks_are_even_so_that_the_last_one_needs_no_program_of_its_own(block_size):
    traces = []

    def function(x):
        traces.append(x)
        return x

    batching.map_examples(function, jnp.arange(20.0), block_size=block_size)
    assert len(traces) == 2  # the shapes and one block
