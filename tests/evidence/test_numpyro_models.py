"""Paths from the prior to the posterior of NumPyro models, against exact evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from scipy import integrate, special, stats

from ais_jax.evidence import (
    log_z,
    numpyro_models,
    positions,
)
from ais_jax.evidence.plan import Plan

PLAN = Plan(jnp.linspace(0.0, 1.0, 17) ** 2, jnp.full((15,), 0.3))
Y = np.array([0.3, 1.4, 0.8])
COUNTS = np.array([2, 0, 3])
X = np.array([[1.0, -1.0], [1.0, 0.5], [1.0, 2.0]])


def normal():
    mu = numpyro.sample("mu", dist.Normal(0.5, 2.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=Y)


def beta_binomial():
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    numpyro.sample("y", dist.Binomial(10, p), obs=7)


def gamma_poisson():
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.5))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Poisson(rate), obs=COUNTS)


def dirichlet():
    p = numpyro.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    numpyro.sample("y", dist.Multinomial(5, p), obs=COUNTS)


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def hierarchical():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 3):
        effect = numpyro.sample("effect", dist.Normal(0.0, scale))
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=Y)


def within():
    """A parameter whose bound is another one."""
    width = numpyro.sample("width", dist.HalfNormal(2.0))
    at = numpyro.sample("at", dist.Uniform(0.0, width))
    numpyro.factor("fit", -2.0 * (at - 0.7) ** 2)


def walk():
    def step(before, y):
        now = numpyro.sample("z", dist.Normal(0.5 * before, 1.0))
        return now, numpyro.sample("y", dist.Normal(now, 0.5), obs=y)

    scan(step, 0.0, jnp.asarray(Y))


def log_betas(a, b):
    return special.betaln(a, b)


def quadrature(f, end):
    return np.log(integrate.quad(f, 0.0, end)[0])


def of_walk():
    decay = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [0.25, 0.5, 1.0]])
    return stats.multivariate_normal.logpdf(Y, None, decay @ decay.T + np.eye(3) / 4)


def of_dirichlet():
    prior = np.array([1.0, 2.0, 3.0])
    ways = special.gammaln(6) - special.gammaln(COUNTS + 1).sum()
    terms = special.gammaln(prior + COUNTS) - special.gammaln(prior)
    return ways + terms.sum() + special.gammaln(6) - special.gammaln(11)


def of_counts():
    shape, rate, total = 2.0, 1.5, COUNTS.sum()
    terms = special.gammaln(shape + total) - special.gammaln(shape)
    terms += shape * np.log(rate) - (shape + total) * np.log(rate + 3)
    return terms - special.gammaln(COUNTS + 1).sum()


def of_groups(scale):
    fit = np.prod(stats.norm.pdf(Y, 0.0, np.hypot(1.0, scale)))
    return 2.0 * stats.norm.pdf(scale) * fit


def of_width(width):
    fit = integrate.quad(lambda at: np.exp(-2.0 * (at - 0.7) ** 2), 0.0, width)[0]
    return stats.norm.pdf(width / 2.0) * fit / width


MODELS = {
    normal: lambda: stats.multivariate_normal.logpdf(
        Y, 0.5 * np.ones(3), np.eye(3) + 4
    ),
    beta_binomial: lambda: np.log(120.0) + log_betas(9, 6) - log_betas(2, 3),
    gamma_poisson: of_counts,
    dirichlet: of_dirichlet,
    hierarchical: lambda: quadrature(of_groups, 10.0),
    within: lambda: quadrature(of_width, 20.0),
    walk: of_walk,
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_evidence_is_exact_within_its_error(model):
    path = numpyro_models.from_numpyro(model)
    result = log_z.log_normalizer(jax.random.key(0), path, PLAN, 2000)
    assert result.standard_error < 0.05
    assert abs(result.log_z - MODELS[model]()) < 4.0 * result.standard_error


def test_three_lines_give_the_evidence_of_a_regression():
    path = numpyro_models.from_numpyro(regression, X, y=Y)
    result = log_z.estimate_log_z(jax.random.key(0), path, num_temperatures=60)
    exact = stats.multivariate_normal.logpdf(Y, None, X @ X.T + 0.25 * np.eye(3))
    assert abs(result.log_z - exact) < 4.0 * result.standard_error
    assert result.standard_error < 0.2 and result.z["w"].shape == (100, 2)


def test_draws_come_back_as_the_models_parameters():
    """Weighted, they have the posterior's mean, here of a beta distribution."""
    path = numpyro_models.from_numpyro(beta_binomial)
    result = log_z.log_normalizer(jax.random.key(0), path, PLAN, 2000)
    p = result.z["p"]
    assert p.shape == (2000,) and p.min() > 0.0 and p.max() < 1.0
    mean = np.sum(jax.nn.softmax(result.log_w) * p)
    assert abs(mean - 9.0 / 15.0) < 4.0 * np.std(p) / np.sqrt(result.ess)


def test_simulated_parameters_give_an_upper_bound():
    path = numpyro_models.from_numpyro(beta_binomial)
    bounds = log_z.bidirectional_bounds(jax.random.key(0), path, {"p": 0.6}, PLAN, 500)
    exact = MODELS[beta_binomial]()
    assert bounds.lower - 4.0 * bounds.lower_error < exact
    assert exact < bounds.upper + 4.0 * bounds.upper_error
    with pytest.raises(ValueError, match="z_target has the shape"):
        log_z.bidirectional_bounds(jax.random.key(0), path, 0.6, PLAN, 500)


def test_the_base_is_the_priors_density_in_unbounded_coordinates():
    """By quadrature over logit p: one, and the evidence under the target."""
    path = positions.flatten(
        jax.random.key(0), numpyro_models.from_numpyro(beta_binomial)
    )[0]
    u = jnp.linspace(-15.0, 15.0, 2001)[:, None]
    base, target = (
        np.trapezoid(np.exp(jax.vmap(f)(u)), u[:, 0])
        for f in (path.log_base, path.log_target)
    )
    np.testing.assert_allclose(base, 1.0, rtol=1e-4)
    np.testing.assert_allclose(np.log(target), MODELS[beta_binomial](), rtol=1e-4)


def with_site(site):
    def model():
        site()
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=Y)

    return model


def subsampled():
    with numpyro.plate("data", 3, subsample_size=2):
        pass


def scaled():
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("a", dist.Normal(0.0, 1.0))


def masked():
    with numpyro.handlers.mask(mask=False):
        numpyro.sample("a", dist.Normal(0.0, 1.0))


def unknown(name, distribution):
    return lambda: numpyro.sample(name, distribution)


IMPROPER = dist.ImproperUniform(dist.constraints.real, (), ())


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (unknown("k", dist.Bernoulli(0.5)), "'k' of the model is discrete"),
        (unknown("a", IMPROPER), "give every parameter a proper prior"),
        (unknown("a", dist.Delta(0.0)), r"'a' .* without a normalised density"),
        (lambda: numpyro.param("a", 1.0), "'a' of the model is numpyro.param"),
        (subsampled, "'data' of the model is a plate that is subsampled"),
        (scaled, "'a' of the model has a prior scaled by 2.0"),
        (masked, r"'a' .* without a normalised density"),
    ],
    ids=["discrete", "improper", "delta", "param", "subsampled", "scaled", "masked"],
)
def test_models_without_a_path_are_refused_by_site(site, message):
    with pytest.raises(ValueError, match=message):
        numpyro_models.from_numpyro(with_site(site))


def test_models_without_data_or_parameters_are_refused():
    with pytest.raises(ValueError, match="has no data"):
        numpyro_models.from_numpyro(regression, X)
    with pytest.raises(ValueError, match="has no parameters"):
        numpyro_models.from_numpyro(
            lambda: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=Y)
        )
