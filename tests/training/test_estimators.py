"""Every estimator against the linear-Gaussian model's exact answers, and the registry.

The expected gradients are those of the exact log p(x), and of the K-sample bound by
quadrature; none comes from the code under test.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import estimators, schedules
from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import chain_keys
from ais_jax.training import losses
from tests.targets import (
    errors_off,
    exact_bound,
    exact_log_p,
    exact_posterior,
    flatten,
    linear_gaussian,
    slow_but,
)

LINEAR = linear_gaussian()
THETA, PHI = LINEAR.init(jax.random.key(0))
X = jnp.array([1.5, -0.4])
STEP = 0.4

each_estimator = pytest.mark.parametrize("name", estimators.ESTIMATORS)


def theta_gradient(estimator, theta, x, samples):
    """The loss and its gradient of one example."""
    samples = jax.tree.map(lambda a: a[None], samples)
    return estimator.theta_gradient(theta, x[None], samples)


def phi_gradient(estimator, phi, theta, key, x):
    """((loss, elbo), the loss's gradient) of one example."""
    return estimator.phi_gradient(phi, theta, key[None], x[None])


def gradients(estimator, num, seed=0):
    """Draws of minus the gradients for theta and for phi: f64[N, P] each."""
    step_sizes = jnp.full(estimator.num_moves, STEP)

    def one(key):
        sample_key, phi_key = jax.random.split(key)
        samples = estimator.sample(sample_key, THETA, PHI, X, step_sizes)
        _, theta_grad = theta_gradient(estimator, THETA, X, samples)
        _, phi_grad = phi_gradient(estimator, PHI, THETA, phi_key, X)
        return jax.tree.map(jnp.negative, (theta_grad, phi_grad))

    keys = jax.random.split(jax.random.key(seed), num)
    return tuple(map(flatten, jax.jit(jax.vmap(one))(keys)))


def bound_gradients(num_samples):
    """The gradients in theta and phi of the K-sample bound."""
    gradient = jax.jit(jax.grad(exact_bound, (0, 1)), static_argnums=3)
    grads = gradient(THETA, PHI, X, num_samples)
    return tuple(flatten(jax.tree.map(lambda a: a[None], g))[0] for g in grads)


ELBO_GRADS, BOUND_GRADS = bound_gradients(1), bound_gradients(2)
LOG_P_GRAD = flatten([g[None] for g in jax.jit(jax.grad(exact_log_p))(THETA, X)])[0]


LONG = {"num_samples": 2, "num_temperatures": 12, "num_leapfrog": 2}
POINTS = {"average": "points", "num_leapfrog": 5}
CASES = {
    "vae": ("vae", {}, ELBO_GRADS[0], ELBO_GRADS[1]),
    "vae K=2": ("vae", {"num_samples": 2}, ELBO_GRADS[0], ELBO_GRADS[1]),
    "stl": ("stl", {}, ELBO_GRADS[0], ELBO_GRADS[1]),
    "iwae": ("iwae", {"num_samples": 2}, BOUND_GRADS[0], BOUND_GRADS[1]),
    "dreg": ("dreg", {"num_samples": 2}, BOUND_GRADS[0], BOUND_GRADS[1]),
    "ais": ("ais", LONG, LOG_P_GRAD, ELBO_GRADS[1]),
    "ais encoder": (
        "ais",
        # Without a final move the ends are of the temperature before the last.
        {**LONG, "num_temperatures": 48, "hmc_scale": "encoder", "final_moves": 0},
        LOG_P_GRAD,
        ELBO_GRADS[1],
    ),
    "ais points": (
        "ais",
        {**LONG, **POINTS, "final_moves": 5, "phi_loss": "stl"},
        LOG_P_GRAD,
        ELBO_GRADS[1],
    ),
    "mh_hmc points": (
        "mh_hmc",
        {**LONG, **POINTS, "num_phi_samples": 3},
        LOG_P_GRAD,
        ELBO_GRADS[1],
    ),
    "mh_hmc": ("mh_hmc", LONG, LOG_P_GRAD, ELBO_GRADS[1]),
    "mh_hmc encoder": (
        "mh_hmc",
        {**LONG, "hmc_scale": "encoder"},
        LOG_P_GRAD,
        ELBO_GRADS[1],
    ),
}


def test_the_expected_gradients_can_be_told_apart():
    """The tolerances below are a tenth of the smallest of these distances."""
    for a, b in [
        (ELBO_GRADS[0], BOUND_GRADS[0]),
        (ELBO_GRADS[0], LOG_P_GRAD),
        (BOUND_GRADS[0], LOG_P_GRAD),
        (ELBO_GRADS[1], BOUND_GRADS[1]),
    ]:
        assert np.max(np.abs(a - b)) > 0.1


def test_the_exact_answers_agree_with_each_other():
    mean, scale = exact_posterior(THETA, X)
    slope = jnp.zeros(2)
    posterior = (slope, mean, jnp.log(scale))
    for num_samples in (1, 2):
        bound = exact_bound(THETA, posterior, X, num_samples)
        np.testing.assert_allclose(bound, exact_log_p(THETA, X), rtol=1e-5)


REPEATED = {"vae", "ais encoder", "mh_hmc", "mh_hmc points"}


@pytest.mark.parametrize("case", slow_but(CASES, *(CASES.keys() - REPEATED)))
def test_gradients_have_their_expected_values(case):
    name, settings, theta_grad, phi_grad = CASES[case]
    estimator = estimators.make(name, LINEAR, **settings)
    theta_draws, phi_draws = gradients(estimator, 20000)
    assert np.abs(errors_off(theta_draws, theta_grad)).max() < 4
    assert np.abs(errors_off(phi_draws, phi_grad)).max() < 4
    errors = np.std(np.concatenate([theta_draws, phi_draws], axis=1), axis=0)
    assert np.max(errors) / np.sqrt(20000) < 0.04


def test_all_points_of_a_trajectory_have_less_noise_than_its_end():
    settings = {"num_temperatures": 1, "num_leapfrog": 5, "final_moves": 8}
    end, points = (
        gradients(estimators.make("ais", LINEAR, **settings, average=average), 20000)[0]
        for average in ("end", "points")
    )
    assert np.abs(points.mean(axis=0) - LOG_P_GRAD).max() < 0.02
    assert np.all(points.var(axis=0) < 0.7 * end.var(axis=0))


def test_points_share_the_weight_of_their_chain():
    """A further move leaves the weights as they are."""
    weights = []
    for settings in ({}, {"final_moves": 3}):
        estimator = estimators.make(
            "ais", LINEAR, num_samples=3, num_temperatures=2, **POINTS, **settings
        )
        step_sizes = jnp.full(estimator.num_moves, STEP)
        sample = jax.jit(estimator.sample)
        samples = sample(jax.random.key(0), THETA, PHI, X, step_sizes)
        assert samples.log_w.shape == (estimator.num_points,)
        weights.append(jax.nn.logsumexp(samples.log_w.reshape(3, -1), axis=1))
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-5)
    assert np.ptp(weights[0]) > 0.1


def test_short_chains_lie_between_the_elbo_and_log_p():
    """AIS of two temperatures is biased towards the encoder, of twelve it is not."""
    settings = {"num_temperatures": 2, "num_leapfrog": 1}
    draws, _ = gradients(estimators.make("ais", LINEAR, **settings), 20000)
    distance = np.abs(draws.mean(axis=0) - LOG_P_GRAD).max()
    assert 0.05 < distance < 0.9 * np.abs(ELBO_GRADS[0] - LOG_P_GRAD).max()


@pytest.mark.parametrize(
    ("better", "worse", "num_samples"), [("dreg", "iwae", 5), ("stl", "vae", 1)]
)
def test_path_derivatives_have_the_same_mean_and_less_variance(
    better, worse, num_samples
):
    pair = [
        gradients(estimators.make(name, LINEAR, num_samples=num_samples), 20000)[1]
        for name in (better, worse)
    ]
    assert np.abs(errors_off(pair[0] - pair[1], 0.0)).max() < 4
    assert np.any(pair[0] != pair[1])
    assert np.all(pair[0].var(axis=0) < 0.8 * pair[1].var(axis=0))


def test_dreg_at_one_sample_is_stl():
    def run(name):
        estimator = estimators.make(name, LINEAR, num_samples=1)
        one = lambda key: phi_gradient(estimator, PHI, THETA, key, X)[1]
        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 10))

    for a, b in zip(*map(flatten, map(run, ("dreg", "stl")))):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_stl_is_without_noise_at_the_exact_posterior():
    mean, scale = exact_posterior(THETA, X)
    phi = (jnp.zeros(2), mean, jnp.log(scale))
    grads = {}
    for name in ("stl", "vae", "dreg", "iwae"):
        estimator = estimators.make(name, LINEAR, num_samples=2)
        gradient = jax.jit(partial(phi_gradient, estimator))
        _, grad = gradient(phi, THETA, jax.random.key(1), X)
        grads[name] = max(float(jnp.max(jnp.abs(g))) for g in grad)
    assert max(grads["stl"], grads["dreg"]) < 1e-4 < 1e-2
    assert min(grads["vae"], grads["iwae"]) > 1e-2


# Gradients stop where the equations say.


def weighted_samples(num=4):
    z_key, w_key = jax.random.split(jax.random.key(0))
    z, log_w = jax.random.normal(z_key, (num, 1)), jax.random.normal(w_key, (num,))
    return WeightedSamples(z, log_w, jnp.zeros(0))


@pytest.mark.parametrize("name", slow_but(estimators.ESTIMATORS, "ais", "dreg"))
def test_theta_gradient_is_the_weighted_sum(name):
    samples = weighted_samples()
    w = np.exp(np.float64(samples.log_w))
    weight, bias = map(np.float64, THETA)
    residuals = (np.float64(X) - weight * samples.z - bias) / 0.7**2
    by_hand = ((w / w.sum()) @ (residuals * samples.z), (w / w.sum()) @ residuals)
    gradient = partial(theta_gradient, estimators.make(name, LINEAR))
    _, grad = jax.jit(gradient)(THETA, X, samples)
    for ours, expected in zip(grad, by_hand):
        np.testing.assert_allclose(-ours, expected, rtol=1e-5)


def test_thetas_loss_ignores_how_the_samples_depend_on_theta():
    loss, samples = partial(losses.weighted_loss, LINEAR), weighted_samples()

    def entangled(theta):
        return loss(
            theta,
            X,
            samples._replace(
                z=samples.z + theta[0][0], log_w=samples.log_w * theta[1][0]
            ),
        )

    moved = samples._replace(z=samples.z + 1.0, log_w=samples.log_w * 0.2)
    (value, grad), (expected, expected_grad) = (
        jax.jit(jax.value_and_grad(entangled))(THETA),
        jax.jit(jax.value_and_grad(loss))(THETA, X, moved),
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, b in zip(grad, expected_grad):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", slow_but(estimators.ESTIMATORS, "ais", "iwae"))
def test_no_gradient_flows_through_the_samples(name):
    estimator = estimators.make(name, LINEAR)

    @jax.jit
    def through(theta, phi, x, step_sizes):
        samples = estimator.sample(jax.random.key(0), theta, phi, x, step_sizes)
        return jnp.sum(samples.z) + jnp.sum(samples.log_w * samples.z[:, 0])

    step_sizes = jnp.full(estimator.num_moves, STEP)
    args = THETA, PHI, X, step_sizes
    other_phi = jax.tree.map(lambda a: a + 0.1, PHI)
    assert through(*args) != through(THETA, other_phi, X, step_sizes)
    grads = jax.jit(jax.grad(through, (0, 1, 2, 3)))(*args)
    assert all(jnp.all(g == 0.0) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_the_reported_elbo_is_the_mean_log_weight(name):
    estimator, key = estimators.make(name, LINEAR, num_samples=3), jax.random.key(1)
    gradient = jax.jit(partial(phi_gradient, estimator))
    (loss, elbo), _ = gradient(PHI, THETA, key, X)
    q = LINEAR.proposal(PHI, X)

    @jax.jit
    @jax.vmap
    def log_weight(key):
        z = q.sample(key)
        return LINEAR.log_joint(THETA, X, z) - q.log_prob(z)

    log_w = log_weight(chain_keys(key, 3))
    np.testing.assert_allclose(elbo, jnp.mean(log_w), rtol=1e-5)
    if name == "iwae":
        expected = -np.log(np.mean(np.exp(np.float64(log_w))))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["vae", "stl"])
def test_samples_of_the_encoder_weigh_the_same(name):
    estimator = estimators.make(name, LINEAR, num_samples=3)
    args = jax.random.key(0), THETA, PHI, X, jnp.zeros(0)
    samples = jax.jit(estimator.sample)(*args)
    np.testing.assert_array_equal(samples.log_w, np.zeros(3))


def test_mh_hmc_weighs_by_name():
    def log_w(**settings):
        estimator = estimators.make("mh_hmc", LINEAR, num_samples=3, **settings)
        key, step_sizes = jax.random.key(0), jnp.full(estimator.num_moves, STEP)
        return jax.jit(estimator.sample)(key, THETA, PHI, X, step_sizes).log_w

    np.testing.assert_array_equal(log_w(), np.zeros(3))
    assert jnp.all(log_w(weighting="importance") != 0.0)


# Conformance over the registry.


def short(name, model, num_samples=1):
    """An estimator of K samples whose chains, if any, are short."""
    settings = {"num_temperatures": 2, "num_leapfrog": 2}
    read = estimators.settings_of(name)
    settings = {k: v for k, v in settings.items() if k in read}
    return estimators.make(name, model, num_samples=num_samples, **settings)


def everything(estimator, key, theta, phi, x):
    """Samples, losses and gradients of one example."""
    step_sizes = jnp.full(estimator.num_moves, 0.2)
    samples = estimator.sample(key, theta, phi, x, step_sizes)
    of_theta = theta_gradient(estimator, theta, x, samples)
    return samples, of_theta, phi_gradient(estimator, phi, theta, key, x)


@pytest.mark.parametrize(
    ("name", "model"),
    slow_but(
        itertools.product(estimators.ESTIMATORS, ["one_layer", "two_layers"]),
        *(("ais", "two_layers"), ("dreg", "two_layers")),
        *((name, "one_layer") for name in ("mh_hmc", "stl", "vae")),
    ),
    indirect=["model"],
)
def test_estimators_conform(name, model):
    """Shapes, dtypes, finite values, and one trace for three calls."""
    theta, phi = model.init(jax.random.key(0))
    size = model.prior(theta).mean.size
    num_samples = {2: 1, 3: 3}[size]  # of the model of one and of two layers
    estimator = short(name, model, num_samples)
    traces = []

    @jax.jit
    def run(key, theta, phi, x):
        traces.append(name)
        return everything(estimator, key, theta, phi, x)

    x = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    results = [run(jax.random.key(i), theta, phi, x) for i in range(3)]
    assert len(traces) == 1
    samples, (theta_value, theta_grad), ((phi_value, elbo), phi_grad) = results[1]
    assert samples.z.shape == (num_samples, size)
    assert samples.log_w.shape == (num_samples,)
    assert samples.accept_prob.shape == (estimator.num_moves,)
    assert estimator.num_samples == num_samples
    assert theta_value.shape == phi_value.shape == elbo.shape == ()
    same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype
    assert jax.tree.all(jax.tree.map(same, (theta_grad, phi_grad), (theta, phi)))
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(results))
    assert jnp.all(results[0][0].z != results[1][0].z)


@pytest.mark.parametrize("name", slow_but(estimators.ESTIMATORS, "dreg"))
def test_jit_changes_nothing(name):
    run = partial(everything, short(name, LINEAR, num_samples=3))
    args = jax.random.key(1), THETA, PHI, X
    close = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    jax.tree.map(close, jax.jit(run)(*args), run(*args))


def test_settings_are_those_that_each_estimator_reads():
    assert estimators.settings_of("vae") == {"num_samples": 1}
    assert set(estimators.settings_of("ais")) == {
        *("num_samples", "num_temperatures", "num_leapfrog", "schedule"),
        *("final_moves", "weighting", "hmc_scale", "average", "phi_loss"),
        *("num_phi_samples", "resample_below"),
    }
    assert estimators.settings_of("mh_hmc")["schedule"] == "all_target"


@each_estimator
def test_a_setting_that_is_not_read_is_refused(name):
    with pytest.raises(ValueError, match=rf"momentum=0.9 is not read by '{name}'"):
        estimators.make(name, LINEAR, momentum=0.9)


@pytest.mark.parametrize(
    ("name", "nearest"), [("aiss", "ais"), ("iwea", "iwae"), ("mh-hmc", "mh_hmc")]
)
def test_an_unknown_estimator_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"'{name}'.*did you mean '{nearest}'"):
        estimators.make(name, LINEAR)


def numbers():
    for name in estimators.ESTIMATORS:
        for setting in estimators.settings_of(name):
            if setting.startswith("num_"):
                yield name, setting


@pytest.mark.parametrize(("name", "setting"), [*numbers()])
def test_numbers_below_one_are_refused(name, setting):
    with pytest.raises(ValueError, match=f"{setting}=0: use at least 1"):
        estimators.make(name, LINEAR, **{setting: 0})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("ais", "schedule", "linaer"),
        ("ais", "hmc_scale", "encoders"),
        ("mh_hmc", "hmc_scale", "units"),
        ("mh_hmc", "weighting", "equal"),
    ],
)
def test_unknown_choices_are_refused(name, setting, value):
    with pytest.raises(ValueError, match=f"{setting}='{value}'"):
        estimators.make(name, LINEAR, **{setting: value})


def test_moves_and_gradients_are_counted():
    make = partial(estimators.make, "ais", LINEAR, num_samples=3, num_leapfrog=4)
    full, cut = make(), make(final_moves=0)
    assert (full.num_moves, cut.num_moves) == (5, 4)
    # K (1 + L M) for the chains, K for theta's gradient and one for phi's.
    assert full.gradient_evaluations == 3 * (1 + 4 * 5) + 3 + 1
    assert cut.gradient_evaluations == 3 * (1 + 4 * 4) + 3 + 1
    iwae = estimators.make("iwae", LINEAR, num_samples=3)
    assert (iwae.num_moves, iwae.gradient_evaluations) == (0, 6)


def test_points_of_trajectories_are_counted():
    make = partial(estimators.make, "ais", LINEAR, num_temperatures=1, num_leapfrog=11)
    averaged = make(final_moves=2, average="points", num_phi_samples=4)
    # 1 + L M for the chain, the points of one trajectory, and phi's draws.
    assert averaged.num_points == 12
    assert averaged.gradient_evaluations == (1 + 11 * 2) + 12 + 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": "all"}, "average='all' is unknown"),
        ({"final_moves": 0, "average": "points"}, "final_moves=0.*average='points'"),
        ({"final_moves": -1}, "final_moves=-1: use at least 0"),
        ({"phi_loss": "elbow"}, "phi_loss='elbow' is unknown"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        estimators.make("ais", LINEAR, **settings)


def test_betas_take_the_place_of_a_schedules_name():
    key, step_sizes = jax.random.key(0), jnp.full(3, STEP)
    make = partial(estimators.make, "ais", LINEAR, num_temperatures=3)
    by_name, by_hand = (
        jax.jit(make(schedule=schedule).sample)(key, THETA, PHI, X, step_sizes)
        for schedule in ("sigmoid", schedules.sigmoid(3))
    )
    jax.tree.map(np.testing.assert_array_equal, by_name, by_hand)


@pytest.mark.parametrize(
    ("betas", "message"),
    [([0.0, 1.0], "num_temperatures=3"), ([0.0, 0.6, 0.4, 1.0], r"betas\[1\]=0.6")],
)
def test_betas_that_do_not_fit_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        estimators.make("ais", LINEAR, num_temperatures=3, schedule=betas)
