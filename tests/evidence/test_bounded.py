"""Bounded parameters, whose paths run over all real numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats
from jax.scipy.special import gammaln
from numpyro.distributions import biject_to, constraints

from ais_jax.annealing.path import AnnealingPath, evaluate
from ais_jax.evidence import log_z
from ais_jax.evidence.bounded import bounded
from ais_jax.evidence.plan import Plan
from ais_jax.evidence.positions import flatten, ravel

KEY = jax.random.key(0)
PLAN = Plan(jnp.linspace(0.0, 1.0, 17), jnp.full((15,), 0.3))
BIJECTIONS = {
    "rate": biject_to(constraints.positive),
    "shares": biject_to(constraints.simplex),
    "mean": None,
}


def sample(key):
    keys = jax.random.split(key, 3)
    return {
        "rate": jax.random.gamma(keys[0], 2.0, (2,)),
        "shares": jax.random.dirichlet(keys[1], jnp.ones(3)),
        "mean": jax.random.normal(keys[2]),
    }


def log_base(z):
    rate = jnp.sum(stats.gamma.logpdf(z["rate"], 2.0))
    return rate + jnp.log(2.0) + stats.norm.logpdf(z["mean"])


def log_target(z):
    """Two exponentials, a Dirichlet and a wider normal, without their constants."""
    shares = jnp.sum(jnp.array([1.0, 0.0, 2.0]) * jnp.log(z["shares"]))
    return shares - 2.0 * jnp.sum(z["rate"]) - 0.2 * z["mean"] ** 2


LOG_Z = -2.0 * np.log(2.0) + 0.5 * np.log(np.pi / 0.2)
LOG_Z += float(gammaln(2.0) + gammaln(1.0) + gammaln(3.0) - gammaln(6.0))
PATH = AnnealingPath(sample, log_base, log_target)


def test_log_z_is_that_of_the_bounded_parameters_in_their_shape():
    path = bounded(PATH, BIJECTIONS)
    result = log_z.log_normalizer(jax.random.key(0), path, PLAN, 2000)
    assert abs(result.log_z - LOG_Z) < 4.0 * result.standard_error < 0.2
    assert {name: z.shape for name, z in result.z.items()} == {
        "rate": (2000, 2),
        "shares": (2000, 3),
        "mean": (2000,),
    }
    assert result.z["rate"].min() > 0.0
    np.testing.assert_allclose(result.z["shares"].sum(axis=1), 1.0, rtol=1e-4)
    mean = np.sum(jax.nn.softmax(result.log_w)[:, None] * result.z["rate"], axis=0)
    np.testing.assert_allclose(mean, 0.5, atol=4.0 * 0.5 / np.sqrt(result.ess))


def test_exact_draws_are_taken_as_bounded_parameters():
    z = {"rate": 0.5 * jnp.ones(2), "shares": jnp.array([0.3, 0.2, 0.5]), "mean": 0.1}
    path = bounded(PATH, BIJECTIONS)
    bounds = log_z.bidirectional_bounds(jax.random.key(0), path, z, PLAN, 300)
    assert bounds.lower < LOG_Z + 4.0 * bounds.lower_error
    assert bounds.upper > LOG_Z - 4.0 * bounds.upper_error


def test_a_force_of_bounded_parameters_is_moved_as_their_gradient():
    def target(z):
        return *jax.value_and_grad(log_target)(z), z["mean"]

    own = PATH._replace(target_with_residuals=target)
    x = {"mean": 0.1, "rate": jnp.array([0.3, -1.0]), "shares": jnp.array([0.2, 0.5])}
    flat = (flatten(KEY, bounded(path, BIJECTIONS))[0] for path in (own, PATH))
    found, expected = (evaluate(path, ravel(x)) for path in flat)
    assert found.residuals == x["mean"]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, found._replace(residuals=None), expected)


def test_bijections_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="bijections="):
        bounded(PATH, {"rate": biject_to(constraints.positive)})
    with pytest.raises(ValueError, match="unbounded already"):
        bounded(bounded(PATH, BIJECTIONS), BIJECTIONS)


def test_draws_that_round_to_a_bound_are_refused():
    """A third of the draws of Gamma(0.01) are below what float32 holds."""
    path = PATH._replace(
        sample_base=lambda key: (
            sample(key) | {"rate": jax.random.gamma(key, 0.01, (2,))}
        )
    )
    with pytest.raises(ValueError, match=r"of its draws rate, \d+% round to a bound"):
        bounded(path, BIJECTIONS)
