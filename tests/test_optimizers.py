"""The learning-rate stages, and Adam at a learning rate of one."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ais_jax import optimizers


def test_stages_last_three_to_the_i_epochs():
    rate = optimizers.staged(3280)
    starts = np.cumsum([0] + [3**i for i in range(8)])
    assert starts[-1] == 3280
    for i in range(8):
        for step in (starts[i], starts[i + 1] - 1):
            np.testing.assert_allclose(rate(step), 10.0 ** (-i / 7.0), rtol=1e-6)


def test_stages_scale_to_any_number_of_steps():
    rate = optimizers.staged(32800)
    np.testing.assert_allclose([rate(9), rate(10)], [1.0, 10.0 ** (-1 / 7)], rtol=1e-6)
    np.testing.assert_allclose(rate(32799), 0.1, rtol=1e-6)


def test_cosine_falls_to_zero_and_constant_stays():
    cosine, constant = optimizers.cosine(100), optimizers.constant(100)
    np.testing.assert_allclose(
        [cosine(0), cosine(50), cosine(100)], [1, 0.5, 0], atol=1e-6
    )
    assert constant(0) == constant(100) == 1.0


@pytest.mark.parametrize("name", optimizers.LEARNING_RATE_SCHEDULES)
def test_updates_are_adams_at_the_scheduled_rate(name):
    ours = optimizers.make(name, 8, b1=0.8, b2=0.9, eps=1e-3)
    rate = optimizers.LEARNING_RATE_SCHEDULES[name](8)
    theirs = optax.adam(rate, b1=0.8, b2=0.9, eps=1e-3)
    params = jnp.array([1.0, -2.0])
    states = ours.init(params), theirs.init(params)
    for i in range(8):
        grads = jnp.array([0.5, -1.0]) * (i + 1)
        mine, state = ours.update(grads, states[0], params)
        other, other_state = theirs.update(grads, states[1], params)
        states = state, other_state
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_unknown_schedule_names_the_nearest():
    with pytest.raises(ValueError, match=r"schedule='cosin'.*'cosine'"):
        optimizers.make("cosin", 10)
