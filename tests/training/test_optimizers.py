"""The learning-rate stages, and optax's optimizers at rates of their own."""

from functools import partial

import jax
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


def test_wsd_begins_alike_at_any_length_and_falls_to_zero():
    short, long = optimizers.wsd(100), optimizers.wsd(1000)
    num = optimizers.stable_steps("wsd", 100)
    assert [short(step) for step in range(num)] == [long(s) for s in range(num)]
    np.testing.assert_allclose([short(90), short(100)], [0.5, 0.0], atol=1e-6)
    long = optimizers.wsd(100_000)
    steps = 10_000, 40_000, 80_000, 90_000, 100_000
    expected = 1.0, 0.5, 8**-0.5, 0.5 * 8**-0.5, 0.0
    np.testing.assert_allclose([long(s) for s in steps], expected, atol=1e-6)


def updates(optimizer, num_steps, rate=None):
    """The updates of a few steps of growing gradients."""
    params = jnp.array([1.0, -2.0])
    state, steps = optimizer.init(params), []
    if rate is not None:
        state = optimizers.with_rate(state, rate)
    for i in range(num_steps):
        grads = jnp.array([0.5, -1.0]) * (i + 1)
        update, state = optimizer.update(grads, state, params)
        steps.append(update)
    return np.stack(steps)


@pytest.mark.parametrize("schedule", optimizers.LEARNING_RATE_SCHEDULES)
def test_updates_are_adams_at_the_scheduled_rate(schedule):
    ours = optimizers.make(schedule=schedule, num_steps=8, b1=0.8, b2=0.9, eps=1e-3)
    rate = optimizers.LEARNING_RATE_SCHEDULES[schedule](8)
    theirs = optax.adam(lambda t: 0.1 * rate(t), b1=0.8, b2=0.9, eps=1e-3)
    np.testing.assert_allclose(updates(ours, 8, 0.1), updates(theirs, 8), rtol=1e-5)


def test_adam_has_the_authors_epsilon_and_others_have_their_own():
    make = partial(optimizers.make, schedule="constant", num_steps=8)
    authors = optax.adam(1.0, eps=1e-4)
    np.testing.assert_allclose(updates(make(), 3), updates(authors, 3), rtol=1e-5)
    np.testing.assert_allclose(
        updates(make("nadam"), 3), updates(optax.nadam(1.0), 3), rtol=1e-5
    )


def test_the_rate_warms_up():
    constant = optimizers.make("sgd", schedule="constant", num_steps=10)
    warm = optimizers.make("sgd", schedule="constant", num_steps=10, warmup=0.4)
    ratio = updates(warm, 6) / updates(constant, 6)
    np.testing.assert_allclose(ratio[:, 0], [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-6)


def test_gradients_are_clipped_by_their_norm():
    clipped = optimizers.make("sgd", schedule="constant", num_steps=10, clip_norm=0.1)
    norms = np.linalg.norm(updates(clipped, 3), axis=1)
    np.testing.assert_allclose(norms, 0.1, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "lion", "muon", "adan"])
def test_optimizers_of_optax_are_known_by_name(name):
    optimizer = optimizers.make(name, schedule="constant", num_steps=10)
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    state = optimizers.with_rate(optimizer.init(params), 1e-3)
    update, _ = jax.jit(optimizer.update)(params, state, params)
    assert all(jnp.all(a < 0.0) for a in jax.tree.leaves(update))


def test_muon_takes_a_convolution_as_the_matrix_from_its_inputs_to_its_outputs():
    optimizer = optimizers.make("muon", schedule="constant", num_steps=10)
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    ours, _ = optimizer.update(kernel, optimizer.init(kernel), kernel)
    matrix = kernel.reshape(18, 4)
    muon = optax.contrib.muon(1.0)
    theirs, _ = muon.update(matrix, muon.init(matrix), matrix)
    np.testing.assert_allclose(ours.reshape(18, 4), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "schedule='cosin'.*'cosine'"),
        ({"name": "adma"}, "name='adma' is unknown: did you mean"),
        ({"name": "sgd", "b1": 0.9}, "b1=0.9 is not read by 'sgd'"),
        ({"warmup": 1.0}, "warmup=1.0: use a number in"),
        ({"clip_norm": 0.0}, "clip_norm=0.0: use more than 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optimizers.make(**{"schedule": "constant", "num_steps": 10, **settings})
