"""Algorithm 1's order and bookkeeping, epochs, dispatches, replicates and memory."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training import train_state

from ais_jax import batching, epochs, estimators, optimizers, training
from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.numerics import effective_sample_size
from ais_jax.training import losses, step
from ais_jax.training.step_sizes import StepSizeRule
from tests.targets import linear_gaussian, slow_but

RULE = StepSizeRule(target=0.6, grow=1.1, shrink=0.8, smallest=0.05, largest=3.0)
OPTIMIZER = optimizers.make(schedule="constant", num_steps=100)
OPTIMIZERS = optimizers.Optimizers(OPTIMIZER, OPTIMIZER)
BATCH, NUM_IMAGES = 4, 16


def short(name, model):
    """An estimator of two samples whose chains, if any, are short."""
    settings = {"num_samples": 2, "num_temperatures": 2, "num_leapfrog": 2}
    read = estimators.settings_of(name)
    settings = {k: v for k, v in settings.items() if k in read}
    return estimators.make(name, model, **settings)


def first_state(key, model, estimator, rates=(0.01, 0.01), **settings):
    rates = jnp.asarray(rates)
    return training.init(
        key, model, estimator, OPTIMIZERS, 0.2, learning_rates=rates, **settings
    )


class Run(NamedTuple):
    """What a training run is made of, with its compiled dispatch."""

    estimator: estimators.Estimator
    state: training.TrainState
    step: object
    run_steps: object


@pytest.fixture(scope="module")
def ais_run(small_model):
    """AIS on the small model: one compilation of the dispatch for all tests."""
    estimator = short("ais", small_model)
    init = first_state(jax.random.key(0), small_model, estimator)
    step = training.make_train_step(estimator, RULE, binarize=False)
    run_steps = epochs.make_run_steps(step, BATCH, NUM_IMAGES)
    return Run(estimator, init, jax.jit(step), jax.jit(run_steps))


def dispatch(run, data, *lengths, state=None):
    """Runs dispatches of the given lengths: (state, list of metrics)."""
    state, metrics = run.state if state is None else state, []
    for length in lengths:
        state, measured = run.run_steps(
            state, jax.random.key(1), data, jnp.int32(length)
        )
        metrics.append(measured)
    return state, metrics


def assert_trees_close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


# One step.


def at_rates(state, theta, phi):
    """The state with other learning rates."""
    generative, inference = state.generative, state.inference
    return state.replace(
        generative=generative.replace(
            opt_state=optimizers.with_rate(generative.opt_state, theta)
        ),
        inference=inference.replace(
            opt_state=optimizers.with_rate(inference.opt_state, phi)
        ),
    )


@partial(jax.jit, static_argnums=(0, 1))
def step_by_hand(model, estimator, state, key, x):
    """Algorithm 1 with optax alone: (theta, phi, samples, phi of a mutant).

    The mutant's phi follows the ELBO at the old theta.
    """
    _, sample_key, phi_key = jax.random.split(key, 3)
    theta, phi = state.generative.params, state.inference.params
    sample_keys = batching.example_keys(sample_key, jnp.arange(len(x)))
    phi_keys = batching.example_keys(phi_key, jnp.arange(len(x)))
    sample = lambda k, x: estimator.sample(k, theta, phi, x, state.step_sizes)
    samples = jax.vmap(sample)(sample_keys, x)

    def theta_loss(theta):
        loss = lambda x, samples: losses.weighted_loss(model, theta, x, samples)
        return jnp.sum(jax.vmap(loss)(x, samples)) / len(x)

    def phi_loss(phi, theta):
        loss = lambda key, x: losses.elbo_loss(model, 1, phi, theta, key, x)[0]
        return jnp.sum(jax.vmap(loss)(phi_keys, x)) / len(x)

    def adam(grads, params, rate):
        optimizer = optax.adam(rate, eps=1e-4)
        updates, _ = optimizer.update(grads, optimizer.init(params))
        return optax.apply_updates(params, updates)

    new_theta = adam(jax.grad(theta_loss)(theta), theta, 0.1)
    new_phi = adam(jax.grad(phi_loss)(phi, new_theta), phi, 0.03)
    mutant = adam(jax.grad(phi_loss)(phi, theta), phi, 0.03)
    return new_theta, new_phi, samples, mutant


def test_a_step_is_algorithm_1(ais_run, small_model, images):
    """Theta first, then phi at the updated theta, the loss a mean over the batch."""
    args = at_rates(ais_run.state, 0.1, 0.03), jax.random.key(3), images[:BATCH]
    state, metrics = ais_run.step(*args)
    theta, phi, samples, mutant = step_by_hand(small_model, ais_run.estimator, *args)
    assert_trees_close(state.generative.params, theta)
    assert_trees_close(state.inference.params, phi)
    with pytest.raises(AssertionError):
        assert_trees_close(state.inference.params, mutant)
    ess = jax.vmap(effective_sample_size)(samples.log_w) / 2
    np.testing.assert_allclose(metrics.ess, np.mean(ess), rtol=1e-4)
    accept_prob = np.mean(samples.accept_prob, axis=0)
    np.testing.assert_allclose(metrics.accept_prob, accept_prob, rtol=1e-4)
    assert state.step == 1


def test_theta_and_phi_start_at_their_own_rates(ais_run, small_model):
    key, estimator = jax.random.key(0), ais_run.estimator
    state = first_state(key, small_model, estimator, (0.1, 0.03))
    assert_trees_close(state, at_rates(ais_run.state, 0.1, 0.03))


def test_step_sizes_follow_the_acceptance_at_each_temperature(ais_run, images):
    """Large steps shrink and small ones grow, each by its own acceptance."""
    state = ais_run.state.replace(step_sizes=jnp.array([0.29, 2.5]))
    x = images[:BATCH]
    state, metrics = ais_run.step(state, jax.random.key(3), x)
    assert metrics.accept_prob[0] > 0.6 > metrics.accept_prob[1]
    np.testing.assert_allclose(state.step_sizes, [0.29 * 1.1, 2.5 * 0.8], rtol=1e-6)


def test_block_size_does_not_change_a_step(ais_run, images):
    """Blocks of three leave one of the four examples over."""
    blocked = training.make_train_step(
        ais_run.estimator, RULE, binarize=False, block_size=3
    )
    args = ais_run.state, jax.random.key(3), images[:BATCH]
    assert_trees_close(jax.jit(blocked)(*args), ais_run.step(*args))


def test_blocks_do_not_change_a_step_whose_phi_takes_every_sample(small_model, images):
    estimator = short("dreg", small_model)
    init = first_state(jax.random.key(0), small_model, estimator)
    args = init, jax.random.key(3), images[:BATCH]
    whole, blocked = (
        jax.jit(training.make_train_step(estimator, RULE, binarize=True, block_size=n))
        for n in (None, 3)
    )
    assert_trees_close(blocked(*args), whole(*args))


def points(model, final_moves=2):
    """An estimator whose points are more than its chains."""
    return estimators.make(
        *("ais", model),
        num_samples=2,
        num_temperatures=1,
        num_leapfrog=3,
        final_moves=final_moves,
        average="points",
        phi_loss="stl",
        num_phi_samples=3,
    )


def test_blocks_do_not_change_a_step_of_many_points(small_model, images):
    estimator = points(small_model)
    init = first_state(jax.random.key(0), small_model, estimator)
    args = init, jax.random.key(3), images[:BATCH]
    whole, blocked = (
        jax.jit(training.make_train_step(estimator, RULE, binarize=True, block_size=n))
        for n in (None, 3)
    )
    assert_trees_close(blocked(*args), whole(*args))


def test_an_estimator_of_fewer_moves_leaves_the_others_its_last_step_size(
    small_model, images
):
    few, many = (points(small_model, final_moves=n) for n in (2, 4))
    step = jax.jit(training.make_train_step(few, RULE, binarize=True))
    own, others = (
        step(
            first_state(jax.random.key(0), small_model, e),
            jax.random.key(3),
            images[:BATCH],
        )
        for e in (few, many)
    )
    assert_trees_close(others[0].theta, own[0].theta, atol=0)
    np.testing.assert_array_equal(others[0].step_sizes[:2], own[0].step_sizes)
    np.testing.assert_array_equal(
        others[0].step_sizes[2:], np.repeat(own[0].step_sizes[1], 2)
    )


def test_the_average_of_theta_follows_it(ais_run, small_model, images):
    state = first_state(
        jax.random.key(0), small_model, ais_run.estimator, keep_average=True
    )
    step = training.make_train_step(
        ais_run.estimator, RULE, binarize=False, average_decay=0.75
    )
    after, _ = jax.jit(step)(state, jax.random.key(3), images[:BATCH])
    expected = jax.tree.map(
        lambda old, new: 0.75 * old + 0.25 * new,
        state.generative.params,
        after.generative.params,
    )
    assert_trees_close(after.theta, expected, atol=1e-6)
    assert ais_run.state.theta is ais_run.state.generative.params


def mean_of_pixels():
    """An estimator of nothing whose ELBO is the mean of the pixels it was given.

    A pixel of a half would give itself away.
    """

    def phi_gradient(phi, theta, keys, x, block_size):
        is_binary = jnp.all((x == 0.0) | (x == 1.0))
        elbo = jnp.where(is_binary, jnp.sum(jnp.mean(x, axis=1)), jnp.nan)
        return (0.0 * jnp.sum(phi), elbo), 0.0 * phi

    return estimators.Estimator(
        sample=lambda key, theta, phi, x, step_sizes: WeightedSamples(
            x[None], jnp.zeros(1), jnp.zeros(0)
        ),
        theta_gradient=lambda theta, *_, **__: (0.0 * jnp.sum(theta), 0.0 * theta),
        phi_gradient=phi_gradient,
        num_samples=1,
        num_points=1,
        num_phi_samples=1,
        num_moves=0,
        gradient_evaluations=1,
    )


def test_binarized_pixels_are_drawn_from_their_intensities_at_each_visit():
    step = training.make_train_step(mean_of_pixels(), RULE, binarize=True)
    params = train_state.TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=None,
        params=jnp.zeros(1),
        tx=OPTIMIZER,
        opt_state=OPTIMIZER.init(jnp.zeros(1)),
    )
    state = training.TrainState(params, params, jnp.zeros(0))
    images = jnp.full((200, 50), 0.3)
    means = [
        float(jax.jit(step)(state, jax.random.key(i), images)[1].elbo) for i in range(2)
    ]
    assert means[0] != means[1]
    np.testing.assert_allclose(means, 0.3, atol=4 * np.sqrt(0.21 / 10_000))


# Many steps.


def test_missing_pixels_stay_missing():
    images = jnp.array([[0.0, 1.0, jnp.nan], [jnp.nan, 1.0, 0.0]])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(step.draw_pixels(keys, images), images)


def test_one_dispatch_equals_many(ais_run, images):
    whole, (metrics,) = dispatch(ais_run, images, 4)
    parts, singles = dispatch(ais_run, images, 1, 1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    mean = jax.tree.map(lambda *a: np.mean(a, axis=0), *singles)
    assert_trees_close(metrics, mean)
    assert whole.step == 4
    assert metrics.bad_step == -1


def test_every_length_of_dispatch_shares_one_compilation(ais_run, images):
    state, _ = dispatch(ais_run, images, 1)
    dispatch(ais_run, images, 2, 3, state=state)
    assert ais_run.run_steps._cache_size() == 1


class Steps(NamedTuple):
    """The least state that a dispatch needs."""

    step: jax.Array


def report(state, key, images):
    """A step that does nothing but report its images and its key."""
    images = images[:, 0].astype(jnp.int32)
    key = jax.random.key_data(key).astype(jnp.int32)
    metrics = training.Metrics(images, 0.0, key, jnp.int32(-1))
    return Steps(state.step + 1), metrics


def test_every_epoch_is_another_permutation():
    data = jnp.arange(13.0)[:, None]
    run_steps = jax.jit(epochs.make_run_steps(report, 4, len(data)))

    def visits(seed):
        state, batches = Steps(jnp.int32(0)), []
        for _ in range(6):
            state, metrics = run_steps(state, jax.random.key(seed), data, jnp.int32(1))
            batches.append(np.asarray(metrics.elbo))
        return np.stack(batches).reshape(2, 12).astype(int)

    first, second = visits(0)
    for epoch in (first, second):
        assert len(set(epoch)) == 12
        assert set(epoch) < set(range(13))
        assert list(epoch) != sorted(epoch)
    assert list(first) != list(second)
    assert list(visits(1)[0]) != list(first)
    np.testing.assert_array_equal(visits(0)[0], first)


def test_every_step_has_its_own_key():
    data = jnp.zeros((8, 1))
    run_steps = jax.jit(epochs.make_run_steps(report, 4, len(data)))
    state, keys = Steps(jnp.int32(0)), []
    for _ in range(6):
        state, metrics = run_steps(state, jax.random.key(0), data, jnp.int32(1))
        keys.append(tuple(np.asarray(metrics.accept_prob)))
    assert len(set(keys)) == 6


def test_bad_step_is_the_first_that_is_not_finite(ais_run, images):
    data = images.at[3].set(jnp.nan)
    _, singles = dispatch(ais_run, data, 1, 1, 1, 1)
    bad_steps = [int(m.bad_step) for m in singles]
    first = next(i for i, bad in enumerate(bad_steps) if bad != -1)
    assert first > 0
    assert bad_steps == [-1] * first + list(range(first, 4))
    _, (metrics,) = dispatch(ais_run, data, 4)
    assert metrics.bad_step == first


@pytest.mark.parametrize("name", slow_but(estimators.ESTIMATORS, "ais", "dreg"))
def test_replicates_equal_their_lone_runs(name):
    model = linear_gaussian()
    theta, _ = model.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(6), NUM_IMAGES)
    data, _ = jax.vmap(model.simulate, (0, None))(keys, theta)
    estimator = short(name, model)
    step = training.make_train_step(estimator, RULE, binarize=False)
    run_steps = epochs.make_run_steps(step, BATCH, NUM_IMAGES)
    init = lambda key, rates: first_state(key, model, estimator, rates)
    seeds = jax.random.split(jax.random.key(7), 2)
    rates = jnp.array([[0.01, 0.02], [0.03, 0.01]])
    states, num_steps = jax.vmap(init)(seeds, rates), jnp.int32(3)
    together = jax.jit(epochs.replicate(run_steps))(states, seeds, data, num_steps)
    alone = jax.jit(run_steps)
    for i in range(2):
        lone = alone(init(seeds[i], rates[i]), seeds[i], data, num_steps)
        assert_trees_close(jax.tree.map(lambda a, i=i: a[i], together), lone)
    theta = together[0].generative.params[0]
    assert jnp.all(jnp.abs(theta[0] - theta[1]) > 1e-3)


def assert_improves(metrics):
    """Two fair halves have an entropy of 1.39 nats, six fair pixels of 4.16."""
    elbos = np.array([m.elbo for m in metrics])
    assert elbos[:2].mean() < -4.0
    assert elbos[-20:].mean() > -3.2


def test_training_with_ais_improves_the_elbo(ais_run, images):
    assert_improves(dispatch(ais_run, images, *[4] * 400)[1])


def test_training_with_iwae_improves_the_elbo(small_model, images):
    estimator = short("iwae", small_model)
    state = first_state(jax.random.key(0), small_model, estimator)
    step = training.make_train_step(estimator, RULE, binarize=False)
    run_steps = jax.jit(epochs.make_run_steps(step, BATCH, NUM_IMAGES))
    run = Run(estimator, state, step, run_steps)
    assert_improves(dispatch(run, images, *[4] * 400)[1])


# Memory.


def temporary_bytes(function, *args):
    """What the compiled program needs beside its arguments and results."""
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def growth(needed):
    """Bytes that 45 temperatures more need, by each of 16 * 4 chains."""
    return (needed(50) - needed(5)) / (45 * 16 * 4)


def at_temperatures(model, num_temperatures):
    return estimators.make(
        "ais", model, num_samples=4, num_temperatures=num_temperatures, num_leapfrog=3
    )


def test_memory_of_a_step_does_not_grow_with_temperatures(small_model, images):
    """Four numbers for each chain and temperature are allowed, as for acceptance."""

    def needed(num_temperatures):
        estimator = at_temperatures(small_model, num_temperatures)
        state = first_state(jax.random.key(0), small_model, estimator)
        step = training.make_train_step(estimator, RULE, binarize=False)
        return temporary_bytes(step, state, jax.random.key(1), images)

    assert growth(needed) <= 4 * 4


def test_a_gradient_through_the_chain_is_refused(monkeypatch):
    """Where samples and weights are not stopped, JAX has no way through the loop."""
    model = linear_gaussian()
    theta, phi = model.init(jax.random.key(0))
    estimator, step_sizes = at_temperatures(model, 3), jnp.full(3, 0.2)
    x = jnp.ones(2)

    def loss(phi):
        return jnp.sum(estimator.sample(key, theta, phi, x, step_sizes).log_w)

    key = jax.random.key(1)
    assert all(not leaf.any() for leaf in jax.tree.leaves(jax.grad(loss)(phi)))
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda tree: tree)
    with pytest.raises(ValueError, match="Reverse-mode differentiation"):
        jax.grad(loss)(phi)
