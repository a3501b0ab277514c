"""Priors near the edges of their support, in float32, against exact values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from ais_jax.evidence import gamma_laws, log_z, priors
from ais_jax.evidence.numpyro_models import from_numpyro
from ais_jax.evidence.plan import Plan

BETAS = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-4, 1.0, 48)])
ORDINARY = {
    "Beta": dist.Beta(0.7, 3.0),
    "Dagum": dist.Dagum(2.0, 3.0, 1.5),
    "Dirichlet": dist.Dirichlet(jnp.array([2.0, 3.0, 1.5])),
    "Exponential": dist.Exponential(2.0),
    "Gamma": dist.Chi2(3),
    "HalfCauchy": dist.HalfCauchy(2.0),
    "HalfNormal": dist.HalfNormal(2.0),
    "InverseGamma": dist.InverseGamma(2.0, 3.0),
    "Kumaraswamy": dist.Kumaraswamy(2.0, 3.0),
    "Levy": dist.Levy(1.0, 3.0),
    "Pareto": dist.Pareto(2.0, 3.0),
    "Uniform": dist.Uniform(-1, 4),
    "Weibull": dist.Weibull(2.0, 3.0),
}


def prior_of(distribution):
    return priors.prior_of({"fn": distribution, "kwargs": {"sample_shape": (500,)}})


LOCATED = (
    dist.Normal(3.0, 2.0),
    dist.Laplace(3.0, 2.0),
    dist.Logistic(3.0, 2.0),
    dist.Gumbel(3.0, 2.0),
    dist.StudentT(5.0, 3.0, 2.0),
    dist.LogNormal(3.0, 2.0),
)


@pytest.mark.parametrize("distribution", LOCATED, ids=lambda d: type(d).__name__)
def test_location_and_scale_are_no_part_of_the_coordinate(distribution):
    prior, bijection = prior_of(distribution), dist.biject_to(distribution.support)
    u = prior.sample(jax.random.key(1))
    y = prior.constrain(u)
    real = 3.0 + 2.0 * u
    volume = bijection.log_abs_det_jacobian(real, y) + jnp.log(2.0)
    exact = jnp.sum(distribution.log_prob(y) + volume)
    np.testing.assert_allclose(prior.log_prob(u), exact, rtol=1e-4)
    np.testing.assert_allclose(prior.unconstrain(y), u, rtol=1e-4, atol=1e-4)
    others = distribution.sample(jax.random.key(2), (500,))
    assert stats.ks_2samp(y, others).pvalue > 1e-3


def test_a_scale_of_nearly_zero_makes_no_neck():
    prior = prior_of(dist.Normal(5.0, 1e-30))
    u = prior.sample(jax.random.key(1))
    assert np.std(u) > 0.9
    assert prior.log_prob(u) == prior_of(dist.Normal(0.0, 1.0)).log_prob(u)
    np.testing.assert_array_equal(prior.constrain(u), 5.0)


@pytest.mark.parametrize("name", ORDINARY)
def test_laws_are_those_of_numpyro_where_it_has_digits(name):
    """Draws by NumPyro's own, and densities by its own with the bijection's volume."""
    distribution = ORDINARY[name]
    assert priors.is_exact(distribution)
    prior, bijection = prior_of(distribution), dist.biject_to(distribution.support)

    @jax.jit
    def both(key):
        x = prior.sample(key)
        y = bijection(x)
        exact = jnp.sum(distribution.log_prob(y))
        exact += jnp.sum(bijection.log_abs_det_jacobian(x, y))
        others = distribution.sample(jax.random.key(2), (500,))
        return (prior.log_prob(x), prior.constrain(x)), (exact, y), others

    ours, theirs, others = both(jax.random.key(1))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
    draws = (np.reshape(a, (500, -1)).T for a in (theirs[1], others))
    for a, b in zip(*draws, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_every_law_is_compared():
    assert set(ORDINARY) == set(gamma_laws.FAMILIES)


def log_gamma(x, a, rate):
    """In float64, as the log-densities below."""
    return a * (x + np.log(rate)) - rate * np.exp(x) - special.gammaln(a)


def logit_beta(x, a, b):
    sides = a * special.log_expit(x) + b * special.log_expit(-x)
    return sides - special.betaln(a, b)


EXTREME = {
    "beta": (dist.Beta(0.02, 0.02), lambda x: logit_beta(x, 0.02, 0.02)),
    "wide_beta": (dist.Beta(1e-3, 1e3), lambda x: logit_beta(x, 1e-3, 1e3)),
    "gamma": (dist.Gamma(1e-3, 1e-3), lambda x: log_gamma(x, 1e-3, 1e-3)),
    "inverse": (dist.InverseGamma(0.01, 2), lambda x: log_gamma(-x, 0.01, 2.0)),
    "lognormal": (dist.LogNormal(1.0, 90.0), stats.norm.logpdf),  # of u
    "cauchy": (
        dist.HalfCauchy(1.0),
        lambda x: np.log(2.0 / np.pi) + x - np.logaddexp(0.0, 2.0 * x),
    ),
}


@pytest.mark.parametrize("name", EXTREME)
def test_densities_are_exact_at_the_edges(name):
    """Alone, in a plate and in an event."""
    distribution, log_density = EXTREME[name]
    x = np.array([-500.0, -90.0, -30.0, 2.0, 30.0, 80.0])

    def model():
        numpyro.sample("one", distribution)
        with numpyro.plate("three", 3):
            numpyro.sample("plate", distribution)
        numpyro.sample("event", distribution.expand([2]).to_event(1))
        numpyro.factor("data", 0.0)

    def log_base(x):
        sites = {"one": x, "plate": jnp.repeat(x, 3), "event": jnp.repeat(x, 2)}
        return path.log_base(sites)

    path = from_numpyro(model)
    exact = np.maximum(6.0 * log_density(x), np.finfo(np.float32).min)
    got = np.maximum(jax.jit(jax.vmap(log_base))(x), np.finfo(np.float32).min)
    np.testing.assert_allclose(got, exact, rtol=1e-5)


def gamma_cdf(x, a):
    """Of the logarithm of a gamma variate, by its power law where exp(x) underflows."""
    low = np.exp(a * np.minimum(x, -50.0) - special.gammaln(a + 1.0))
    return np.where(x < -50.0, low, special.gammainc(a, np.exp(np.minimum(x, 50.0))))


def beta_cdf(x, a, b):
    """Of the logit of a beta variate."""
    low = np.exp(a * np.minimum(x, -50.0) - np.log(a) - special.betaln(a, b))
    return np.where(x < -50.0, low, special.betainc(a, b, special.expit(x)))


@pytest.mark.parametrize("a", [1e-3, 0.02, 1e3])
def test_draws_are_exact_at_the_edges(a):
    """By their distribution functions, in float64."""
    x = np.float64(prior_of(dist.Gamma(a, 1.0)).sample(jax.random.key(0)))
    assert stats.kstest(gamma_cdf(x, a), "uniform").pvalue > 1e-3
    x = np.float64(prior_of(dist.Beta(a, 2.0 * a)).sample(jax.random.key(1)))
    uniform = np.where(
        x < 0.0, beta_cdf(x, a, 2.0 * a), 1.0 - beta_cdf(-np.abs(x), 2.0 * a, a)
    )
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


COUNTS = np.array([3, 0, 1, 2])
NUM_COUNTED = 6


def beta_binomial(a, k, n):
    p = numpyro.sample("p", dist.Beta(a, a))
    numpyro.sample("y", dist.Binomial(n, p), obs=k)


def gamma_poisson(a, y):
    with numpyro.plate("data", len(y)):
        rate = numpyro.sample("rate", dist.Gamma(a, a))
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def precision(a, y):
    tau = numpyro.sample("tau", dist.Gamma(a, a))
    numpyro.sample("y", dist.Normal(0.0, 1.0 / jnp.sqrt(tau)), obs=y)


def shares(a, counts):
    p = numpyro.sample("p", dist.Dirichlet(a * jnp.ones(len(counts))))
    numpyro.sample("y", dist.Multinomial(NUM_COUNTED, p), obs=counts)


def of_beta_binomial(a, k, n):
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return ways + special.betaln(a + k, a + n - k) - special.betaln(a, a)


def of_gamma_poisson(a, y):
    return stats.nbinom.logpmf(y, a, a / (a + 1.0)).sum()


def of_precision(a, y):
    """A t distribution's, of 2 a degrees of freedom."""
    return stats.multivariate_t.logpdf(y, shape=np.eye(len(y)), df=2.0 * a)


def of_shares(a, counts):
    return stats.dirichlet_multinomial.logpmf(
        counts, a * np.ones(len(counts)), counts.sum()
    )


Y = np.array([0.3, 1.4, 0.8])
CONJUGATE = [
    (beta_binomial, of_beta_binomial, (1e-3, 5, 5)),
    (beta_binomial, of_beta_binomial, (0.02, 2, 5)),
    (beta_binomial, of_beta_binomial, (1e3, 2, 5)),
    (gamma_poisson, of_gamma_poisson, (1e-3, np.array([0, 0]))),
    (gamma_poisson, of_gamma_poisson, (0.05, np.array([0, 2]))),
    (gamma_poisson, of_gamma_poisson, (1e3, np.array([0, 2]))),
    (precision, of_precision, (0.02, Y)),
    (shares, of_shares, (0.05, COUNTS)),
    (shares, of_shares, (50.0, COUNTS)),
]


@partial(jax.jit, static_argnames="model")
def evidence(model, data, steps):
    path = from_numpyro(model, *data)
    return log_z.log_normalizer(jax.random.key(0), path, Plan(BETAS, steps), 2000)


def slow_where(is_slow, *case):
    return pytest.param(*case, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(
    ("model", "exact", "data"),
    [
        slow_where(m is beta_binomial and data[0] > 0.01, m, f, data)
        for m, f, data in CONJUGATE
    ],
)
def test_evidence_of_vague_and_of_sharp_priors(model, exact, data):
    """In steps of about the width of what is between the prior and the posterior."""
    a = data[0]
    steps = 0.4 / (a + BETAS[1:-1]) if a < 1.0 else 0.4 * a**-0.5 * BETAS[1:-1] ** 0.0
    if model is beta_binomial:  # whose 1 - p is found where numbers are known
        path, plan = from_numpyro(model, *data), Plan(BETAS, steps)
        result = log_z.log_normalizer(jax.random.key(0), path, plan, 2000)
    else:
        result = evidence(model, data, steps)
    assert abs(result.log_z - exact(*data)) < 4.0 * result.standard_error
    assert result.standard_error < 0.2


def bernoulli(change):
    p = numpyro.sample("p", dist.Beta(0.02, 0.02))
    with numpyro.plate("data", 2):
        probs = change(p) * jnp.ones(2)
        numpyro.sample("y", dist.Bernoulli(probs), obs=jnp.array([0, 1]))


@pytest.mark.parametrize("x", [-30.0, 3.0, 30.0])
def test_complements_of_shares_are_not_rounded(x):
    """Of p itself and of label noise, for which 1 - f(p) = f(1 - p); not of p^2."""

    def log_likelihood(change):
        path = from_numpyro(bernoulli, change)
        return jax.jit(lambda p: path.log_target(p) - path.log_base(p))({"p": x})

    exact = special.log_expit(x) + special.log_expit(-x)
    np.testing.assert_allclose(log_likelihood(lambda p: p), exact, rtol=1e-5)
    if x < 10.0:
        square = 2.0 * special.log_expit(x)
        exact = square + np.log1p(-np.exp(square))
        np.testing.assert_allclose(log_likelihood(lambda p: p**2), exact, rtol=1e-4)
    noisy = 0.98 * special.expit(x) + 0.01
    got = log_likelihood(lambda p: 0.98 * p + 0.01)
    np.testing.assert_allclose(got, np.log(noisy) + np.log1p(-noisy), rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        slow_where(m in (beta_binomial, gamma_poisson) and data[0] > 0.01, m, data)
        for m, _, data in CONJUGATE
        if data[0] < 0.1
    ],
)
def test_values_and_forces_are_finite_where_a_prior_draws(model, data):
    path = from_numpyro(model, *data)
    keys = jax.random.split(jax.random.key(0), 500)
    x = jax.jit(jax.vmap(path.sample_base))(keys)
    for function in (path.log_base, path.log_target):
        value, force = jax.jit(jax.vmap(jax.value_and_grad(function)))(x)
        assert jnp.all(jnp.isfinite(value))
        assert all(jnp.all(jnp.isfinite(f)) for f in force.values())
    y = jax.jit(jax.vmap(path.coordinates.constrain))(x)
    assert all(jnp.all(v > 0.0) and jnp.all(jnp.isfinite(v)) for v in y.values())


def test_a_parameter_at_its_bound_has_a_position():
    path = from_numpyro(beta_binomial, 0.02, 5, 5)
    for p in (0.0, 1.0):
        assert jnp.isfinite(path.coordinates.unconstrain({"p": p})["p"])


def test_densities_that_users_give_a_family_are_theirs():
    class Twice(dist.Gamma):
        def log_prob(self, value):
            return 2.0 * super().log_prob(value)

    assert not priors.is_exact(Twice(2.0, 1.0))
    x = jnp.zeros(500)
    exact = 2.0 * prior_of(dist.Gamma(2.0, 1.0)).log_prob(x)
    np.testing.assert_allclose(prior_of(Twice(2.0, 1.0)).log_prob(x), exact, rtol=1e-5)
