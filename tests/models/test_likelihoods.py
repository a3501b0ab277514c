"""Likelihoods against scipy and numpyro: densities, totals, draws, starts."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as numpyro
import pytest
from scipy import special, stats

from ais_jax import likelihoods, log_normalizer
from ais_jax.evidence import plan as tuning
from ais_jax.models import latent, networks
from ais_jax.models.likelihoods import LIKELIHOODS, SMALLEST_SCALE
from tests.targets import errors_off, slow_but

OUTPUT = np.array([-1.3, 0.2, 0.9, 0.4], np.float32)
LOG_SCALE = np.array([-0.7, 0.3, -2.0, 0.1], np.float32)
LEVELS = np.arange(256) / 255
VALUES = {
    "bernoulli": np.array([1.0, 0.0, 1.0, 0.0]),
    "gaussian": np.array([-2.0, 0.3, 5.0, 0.0]),
    "discretized_logistic": np.array([0.0, 128 / 255, 1.0, 3 / 255]),
    "poisson": np.array([0.0, 3.0, 1.0, 12.0]),
    "negative_binomial": np.array([0.0, 3.0, 1.0, 12.0]),
}


def scipy_log_prob(name, x):
    """Log-probabilities of each value, by scipy in double precision."""
    output, scale = np.float64(OUTPUT), np.exp(np.float64(LOG_SCALE))
    if name == "bernoulli":
        return stats.bernoulli.logpmf(x, special.expit(output))
    if name == "gaussian":
        return stats.norm.logpdf(x, output, SMALLEST_SCALE + scale)
    if name == "poisson":
        return stats.poisson.logpmf(x, np.exp(output))
    if name == "negative_binomial":
        return stats.nbinom.logpmf(x, scale, scale / (scale + np.exp(output)))
    above = np.where(x == 1.0, np.inf, x + 0.5 / 255)
    below = np.where(x == 0.0, -np.inf, x - 0.5 / 255)
    logistic = stats.logistic(output, scale)
    return np.log(logistic.cdf(above) - logistic.cdf(below))


def log_prob(name, x, i=slice(None)):
    """Ours, of all the values or of one of them."""
    family = LIKELIHOODS[name]
    scale = LOG_SCALE[i] if family.has_scale else None
    return family.log_prob(OUTPUT[i], scale, jnp.float32(x))


each = pytest.mark.parametrize("name", VALUES)  # others: see test_counts.py


@each
def test_log_probabilities_are_scipys(name):
    expected = scipy_log_prob(name, VALUES[name]).sum()
    assert log_prob(name, VALUES[name]) == pytest.approx(expected, rel=2e-5)


def test_counts_are_numpyros():
    x = jnp.float32(VALUES["poisson"])
    poisson = numpyro.Poisson(jnp.exp(OUTPUT)).log_prob(x)
    assert log_prob("poisson", x) == pytest.approx(float(poisson.sum()), rel=1e-5)
    mean, r = jnp.exp(OUTPUT), jnp.exp(LOG_SCALE)
    negative = numpyro.NegativeBinomial2(mean, r).log_prob(x)
    expected = float(negative.sum())
    assert log_prob("negative_binomial", x) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bernoulli", [0.0, 1.0]),
        ("discretized_logistic", LEVELS),
        ("poisson", np.arange(60)),
        ("negative_binomial", np.arange(2000)),
    ],
)
def test_probabilities_of_discrete_values_add_up_to_one(name, values):
    for i in range(len(OUTPUT)):
        logs = jax.vmap(lambda x, i=i: log_prob(name, x[None], slice(i, i + 1)))(
            jnp.float32(values)
        )
        assert jnp.sum(jnp.exp(logs)) == pytest.approx(1.0, abs=2e-5)


@each
def test_draws_have_the_likelihoods_moments(name):
    """Their mean is `mean`, and their mean log-probability that of the entropy."""
    family = LIKELIHOODS[name]
    output = jnp.float32([0.4, 0.2, 0.6, 0.5]) if "logistic" in name else OUTPUT
    log_scale = jnp.full(4, -4.0) if "logistic" in name else LOG_SCALE
    scale = log_scale if family.has_scale else None
    keys = jax.random.split(jax.random.key(0), 20000)
    x = np.float64(jax.vmap(lambda key: family.sample(key, output, scale))(keys))
    assert family.is_value(x).all()
    mean = np.float64(family.mean(output))
    assert abs(errors_off(x - mean, 0.0)).max() < 4.5
    if name == "gaussian":
        variance = np.square(SMALLEST_SCALE + np.exp(LOG_SCALE))
    elif name == "discretized_logistic":
        variance = np.square(np.pi * np.exp(-4.0)) / 3 + 1 / (12 * 255**2)
    elif name == "negative_binomial":
        variance = mean + mean**2 / np.exp(LOG_SCALE)
    else:
        variance = mean * (1 - mean) if name == "bernoulli" else mean
    assert abs(errors_off((x - mean) ** 2 - variance, 0.0)).max() < 4.5


@each
def test_extreme_outputs_have_finite_log_probabilities_and_gradients(name):
    family, x = LIKELIHOODS[name], jnp.float32(VALUES[name])
    scale = jnp.full(4, -6.0) if family.has_scale else None
    value = lambda output: family.log_prob(output, scale, x)
    for output in (-30.0, 0.0, 30.0):
        log_p, gradient = jax.value_and_grad(value)(jnp.full(4, output))
        assert jnp.isfinite(log_p) and jnp.all(jnp.isfinite(gradient))


@each
def test_missing_values_have_no_part_in_the_likelihood(name):
    family, x = LIKELIHOODS[name], np.float32(VALUES[name])
    scale = LOG_SCALE if family.has_scale else None
    scale_seen = LOG_SCALE[1::2] if family.has_scale else None
    exact = jax.value_and_grad(family.log_prob)(OUTPUT[1::2], scale_seen, x[1::2])
    x[::2] = np.nan
    observed = likelihoods.of_observed(family)
    log_p, gradient = jax.value_and_grad(observed.log_prob)(OUTPUT, scale, x)
    np.testing.assert_allclose(log_p, exact[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[1::2], exact[1], rtol=1e-5)
    np.testing.assert_array_equal(gradient[::2], 0.0)
    np.testing.assert_array_equal(observed.encoder_input(x)[1::2], [0, 1, 0, 1])


@each
def test_the_start_is_the_mean_of_the_data(name):
    family = LIKELIHOODS[name]
    data = np.stack([VALUES[name], VALUES[name][::-1]]).astype(np.float32)
    output, log_scale = family.start(data)
    np.testing.assert_allclose(family.mean(output), data.mean(0), rtol=1e-3, atol=2e-3)
    assert (log_scale is not None) == family.has_scale


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("bernoulli", 1.5), ("bernoulli", -0.1), ("gaussian", np.inf)),
        *(("discretized_logistic", 0.5), ("discretized_logistic", 2.0)),
        *(("poisson", 0.5), ("poisson", -1.0), ("negative_binomial", 2.5)),
    ],
)
def test_values_without_a_probability_are_refused(name, value):
    likelihoods.check_values(name, VALUES[name])
    with pytest.raises(ValueError, match=f"the value {value:g} does not fit.*{name}"):
        likelihoods.check_values(name, np.array([VALUES[name][0], value]))
    with pytest.raises(ValueError, match="nan"):
        likelihoods.check_values(name, np.array([np.nan]))


def test_an_unknown_likelihood_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'poisson'"):
        likelihoods.check_values("poison", np.zeros(1))


@pytest.mark.parametrize("seen", slow_but([[0, 1, 2], [0, 2]], [0, 2]))
def test_a_linear_gaussian_model_has_its_exact_likelihood(seen):
    """X = W z + b + noise: log p(x) is a normal's of covariance W^T W + diag(s^2).

    Without the missing values of x it is the marginal's.
    """
    start = jnp.float32([0.3, -0.2, 0.1]), jnp.float32([-0.5, 0.2, 0.0])
    model = networks.latent_model(
        (3,),
        **{"likelihood": "gaussian", "latent_sizes": (2,), "widths": ((),)},
        start=start,
        missing=len(seen) < 3,
    )
    theta, phi = model.init(jax.random.key(0))
    w = np.float64(theta[0]["params"]["mean"]["kernel"])
    x = np.array([0.5, -0.4, 1.0])
    covariance = w.T @ w + np.diag((SMALLEST_SCALE + np.exp(start[1])) ** 2)
    mean, covariance = np.array(start[0])[seen], covariance[np.ix_(seen, seen)]
    exact = stats.multivariate_normal.logpdf(x[seen], mean, covariance)
    x[~np.isin(np.arange(3), seen)] = np.nan
    path = latent.prior_path(model, theta, phi, jnp.float32(x))
    plan = tuning.tune(jax.random.key(1), path, num_temperatures=20)
    result = log_normalizer(jax.random.key(2), path, plan, 400)
    assert abs(result.log_z - exact) < 4 * result.standard_error < 0.2


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["bernoulli", "discretized_logistic", "poisson"],
        *("discretized_logistic", "poisson"),
    ),
)
def test_convolutional_models_of_any_image(name):
    model = networks.latent_model(
        *((5, 7, 3),),
        **{"likelihood": name, "network": "convolution", "activation": "gelu"},
        **{"latent_sizes": (3, 2), "widths": ((4, 6), (5,))},
        missing=name == "poisson",
    )
    theta, phi = jax.jit(model.init)(jax.random.key(0))
    x, z = jax.jit(model.simulate)(jax.random.key(1), theta)
    assert x.shape == model.decode(theta, z).shape == (105,) and z.shape == (5,)
    gradient = jax.jit(jax.grad(model.log_joint))(theta, x, z)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(gradient[0]))
    mean = jax.jit(lambda x: model.proposal(phi, x).mean)
    assert mean(x).shape == (5,)
    one_by_one = jnp.stack([mean(each) for each in (x, 1 - x)])
    batch = jax.jit(jax.vmap(mean))(jnp.stack([x, 1 - x]))
    np.testing.assert_allclose(batch, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "widths"), [((6,), ((4,),)), ((4, 4), ((),)), ((4, 4, 1), ((),))]
)
def test_images_that_cannot_be_convolved_are_refused(shape, widths):
    with pytest.raises(ValueError, match="network='convolution'"):
        networks.latent_model(
            shape, network="convolution", latent_sizes=(2,), widths=widths
        )


@pytest.mark.parametrize(
    ("setting", "value"), [("network", "convolutio"), ("likelihood", "poison")]
)
def test_unknown_networks_and_likelihoods_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting}='{value}' is unknown"):
        networks.latent_model((4, 4), **{setting: value})
