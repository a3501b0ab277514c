"""Paths from the prior to the posterior of NumPyro models, against exact evidence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import linen as nn
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import random_flax_module
from numpyro.infer.reparam import LocScaleReparam
from scipy import integrate, special, stats

from ais_jax.evidence import log_z, numpyro_models, positions
from ais_jax.evidence.plan import Plan
from tests.compilations import compilations
from tests.targets import slow_but

KEY = jax.random.key(0)
PLAN = Plan(jnp.linspace(0.0, 1.0, 17) ** 2, jnp.full((15,), 0.3))
Y = np.array([0.3, 1.4, 0.8])
PAIRS = np.array([[0.3, 0.5], [-1.4, -0.9]])
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


def truncated():
    mu = numpyro.sample("mu", dist.TruncatedNormal(0.0, 1.0, low=0.5))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=Y)


def correlated():
    chol = numpyro.sample("chol", dist.LKJCholesky(2, 2.0))
    numpyro.sample("y", dist.MultivariateNormal(scale_tril=chol), obs=PAIRS)


def network():
    prior = dist.Normal(0.0, 1.0)
    net = random_flax_module("nn", nn.Dense(1), prior=prior, input_shape=(1,))
    numpyro.sample("y", dist.Normal(net(X[:, 1:])[:, 0], 0.5).to_event(1), obs=Y)


decentred = handlers.reparam(hierarchical, {"effect": LocScaleReparam(0.0)})


def log_betas(a, b):
    return special.betaln(a, b)


def quadrature(f, low, high):
    return np.log(integrate.quad(f, low, high)[0])


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


def of_truncated(mu):
    return stats.norm.pdf(mu) / stats.norm.sf(0.5) * np.prod(stats.norm.pdf(Y, mu))


def of_correlation(r):
    """The density of r is proportional to 1 - r^2."""
    pair = stats.multivariate_normal(np.zeros(2), np.array([[1.0, r], [r, 1.0]]))
    return 0.75 * (1.0 - r**2) * np.prod(pair.pdf(PAIRS))


def of_regression():
    return stats.multivariate_normal.logpdf(Y, None, X @ X.T + 0.25 * np.eye(3))


MODELS = {
    normal: lambda: stats.multivariate_normal.logpdf(
        Y, 0.5 * np.ones(3), np.eye(3) + 4
    ),
    beta_binomial: lambda: np.log(120.0) + log_betas(9, 6) - log_betas(2, 3),
    gamma_poisson: of_counts,
    dirichlet: of_dirichlet,
    hierarchical: lambda: quadrature(of_groups, 0.0, 10.0),
    within: lambda: quadrature(of_width, 0.0, 20.0),
    walk: of_walk,
    truncated: lambda: quadrature(of_truncated, 0.5, 8.0),
    correlated: lambda: quadrature(of_correlation, -1.0, 1.0),
    network: of_regression,
    decentred: lambda: quadrature(of_groups, 0.0, 10.0),
}


@functools.cache
def weighed(model):
    """2,000 chains of a model."""
    path = numpyro_models.from_numpyro(model)
    return log_z.log_normalizer(KEY, path, PLAN, 2000)


KINDS = beta_binomial, dirichlet, hierarchical, within, walk


@pytest.mark.parametrize(
    "model", slow_but(MODELS, *KINDS), ids=lambda m: getattr(m, "__name__", "")
)
def test_evidence_is_exact_within_its_error(model):
    result = weighed(model)
    assert result.standard_error < 0.05
    assert abs(result.log_z - MODELS[model]()) < 4.0 * result.standard_error


@pytest.mark.slow
def test_three_lines_give_the_evidence_of_a_regression():
    path = numpyro_models.from_numpyro(regression, X, y=Y)
    result = log_z.estimate_log_z(jax.random.key(0), path, num_temperatures=60)
    assert abs(result.log_z - of_regression()) < 4.0 * result.standard_error
    assert result.standard_error < 0.2 and result.z["w"].shape == (100, 2)


def trend(x, y, group, has_slope=True):
    """The size of the plate is read from the data, where group is given."""
    mean = numpyro.sample("start", dist.Normal(0.0, 1.0))
    if has_slope:
        mean = mean + x * numpyro.sample("slope", dist.Normal(0.0, 1.0))
    if group is not None:
        with numpyro.plate("groups", int(np.max(group)) + 1):
            mean = mean + numpyro.sample("effects", dist.Normal(0.0, 1.0))[group]
    numpyro.deterministic("first", (mean + 0.0 * x)[0])
    numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def test_other_data_of_the_same_shapes_compile_nothing():
    settings = {"num_chains": 25, "num_temperatures": 4}

    def count(*args, **options):
        before = compilations()
        path = numpyro_models.from_numpyro(trend, *args, **options)
        result = log_z.estimate_log_z(jax.random.key(0), path, **settings)
        return compilations() - before, result

    line = np.array([0.0, 1.0, 2.0])
    assert count(line, Y, None)[0] > 0
    num, result = count(line + 1.0, Y - 1.0, None)
    assert num == 0
    np.testing.assert_allclose(
        result.z["first"], result.z["start"] + result.z["slope"], rtol=1e-4
    )
    level = numpyro_models.from_numpyro(trend, line, Y, None, has_slope=False)
    assert level.sample_base(KEY).keys() == {"start"}
    groups = numpyro_models.from_numpyro(trend, line, Y, np.array([0, 1, 1]))
    assert groups.sample_base(KEY)["effects"].shape == (2,)


READ = {"scale": 1.0}  # by the model below, and no argument of it


def reader(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, READ["scale"]))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def test_what_a_model_reads_beside_its_arguments_may_change(monkeypatch):
    def estimate():
        path = numpyro_models.from_numpyro(reader, Y)
        settings = {"num_chains": 100, "num_temperatures": 10}
        return log_z.estimate_log_z(jax.random.key(0), path, **settings)

    before = estimate()
    monkeypatch.setitem(READ, "scale", 10.0)
    cov = np.eye(len(Y)) + 100.0
    exact = stats.multivariate_normal.logpdf(Y, np.zeros(len(Y)), cov)
    assert abs(estimate().log_z - exact) < 5.0 * estimate().standard_error
    monkeypatch.setitem(READ, "scale", 1.0)
    num = compilations()
    assert estimate().log_z == before.log_z and compilations() == num


def test_draws_have_the_mean_and_the_effective_size_that_they_say():
    path = numpyro_models.from_numpyro(beta_binomial)
    result = log_z.log_normalizer(jax.random.key(0), path, PLAN, 500)
    draws = result.draws(jax.random.key(1), 2000)
    assert draws.z["p"].shape == (2000,)
    assert 300 < draws.ess < min(500, result.ess)
    error = np.std(draws.z["p"]) / np.sqrt(draws.ess)
    assert abs(np.mean(draws.z["p"]) - 9.0 / 15.0) < 4.0 * error


def test_draws_come_back_as_the_models_parameters():
    """Weighted, they have the posterior's mean, here of a beta distribution."""
    result = weighed(beta_binomial)
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


def test_a_path_can_be_made_of_data_that_are_traced():
    def log_target(y):
        path = numpyro_models.from_numpyro(regression, X, y=y)
        return path.log_target({"w": jnp.ones(2)})

    exact = stats.norm.logpdf(1.0) * 2.0 + stats.norm.logpdf(Y, X.sum(1), 0.5).sum()
    np.testing.assert_allclose(jax.jit(log_target)(Y), exact, rtol=1e-5)


def test_models_of_the_same_data_have_one_digest():
    """However the data come in: whole, in loops, under other names."""

    def halves():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("last", dist.Normal(mu, 1.0).expand([2]), obs=jnp.asarray(Y[1:]))
        numpyro.sample("first", dist.Normal(mu, 1.0), obs=Y[0])

    paths = [numpyro_models.from_numpyro(model) for model in (normal, walk, halves)]
    paths.append(numpyro_models.from_numpyro(regression, X, Y))
    assert len({path.digest for path in paths}) == 1 and paths[0].digest > 0
    others = (regression, X, Y + 0.1), (beta_binomial,), (gamma_poisson,)
    digests = {numpyro_models.from_numpyro(*args).digest for args in others}
    assert len(digests | {paths[0].digest}) == 4


def test_data_of_a_factor_or_of_traced_arrays_have_no_digest():
    def digest(y):
        return jnp.asarray(numpyro_models.from_numpyro(regression, X, y).digest)

    assert numpyro_models.from_numpyro(within).digest == 0
    assert jax.jit(digest)(Y) == 0 < digest(Y)


def test_results_keep_the_digest_of_their_data():
    path = numpyro_models.from_numpyro(normal)
    result = log_z.log_normalizer(jax.random.key(0), path, PLAN, 10)
    assert result.digest == path.digest
