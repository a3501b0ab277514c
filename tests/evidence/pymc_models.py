"""Models of PyMC against closed forms; a program, since PyTensor switches JAX to x64.

python -m tests.evidence.pymc_models
"""

import sys
import warnings

import jax
import numpy as np
from scipy import integrate, stats

with warnings.catch_warnings(action="ignore"):  # of ArviZ, and of PyTensor without BLAS
    import pymc as pm

from ais_jax import estimate_log_z, from_pymc, importance_log_weights
from ais_jax.evidence.digests import digest
from ais_jax.numerics import log_mean_exp, log_mean_exp_error

KEY = jax.random.key(0)


def normal():
    y = np.array([1.2, 0.3, 2.2, -0.4])
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mean", 0.0, 2.0), 1.0, observed=y)
    covariance = np.eye(4) + 4.0
    return model, stats.multivariate_normal(np.zeros(4), covariance).logpdf(y)


def beta():
    with pm.Model() as model:
        pm.Binomial("k", 10, pm.Beta("p", 2.0, 3.0), observed=7)
    return model, stats.betabinom(10, 2.0, 3.0).logpmf(7)


def gamma():
    with pm.Model() as model:
        pm.Poisson("n", pm.Gamma("rate", 3.0, 2.0), observed=4)
    return model, stats.nbinom(3.0, 2.0 / 3.0).logpmf(4)


def dirichlet():
    prior, counts = np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3])
    with pm.Model() as model:
        pm.Multinomial("n", 6, pm.Dirichlet("share", prior), observed=counts)
    return model, stats.dirichlet_multinomial(prior, 6).logpmf(counts)


def interval():
    with pm.Model() as model:
        pm.Normal("y", pm.Uniform("mean", -1.0, 3.0), 0.5, observed=1.0)
    inside = np.diff(stats.norm(1.0, 0.5).cdf([-1.0, 3.0]))[0]
    return model, np.log(inside / 4.0)


def hierarchy():
    y, sd = np.array([1.0, 3.0, -2.0]), np.array([1.0, 2.0, 1.5])
    with pm.Model() as model:
        scale = pm.HalfCauchy("scale", 1.0)
        effect = pm.Normal("effect", 0.0, scale, shape=3)
        pm.Normal("y", effect, sd, observed=y)
        pm.Potential("known", -scale)

    def density(t):
        data = stats.norm.pdf(y, 0.0, np.hypot(sd, t)).prod()
        return data * stats.halfcauchy.pdf(t) * np.exp(-t)

    return model, np.log(integrate.quad(density, 0.0, np.inf)[0])


MODELS = (normal, beta, gamma, dirichlet, interval, hierarchy)


def check_model(make):
    """Draws from the prior weigh to the evidence, and come back as they were."""
    model, right = make()
    path = from_pymc(model)
    observed = [model.rvs_to_values[rv].eval() for rv in model.observed_RVs]
    assert path.digest == (0 if model.potentials else digest(observed))
    log_w = importance_log_weights(KEY, path, 20_000, 20_000)
    off, error = log_mean_exp(log_w) - right, log_mean_exp_error(log_w)
    assert abs(off) < 4.0 * error < 0.2, (make, off, error)
    z = path.sample_base(KEY)
    again = path.coordinates.unconstrain(path.coordinates.constrain(z))
    jax.tree.map(np.testing.assert_allclose, again, z)


def check_estimate():
    model, right = hierarchy()
    result = estimate_log_z(KEY, from_pymc(model), num_chains=50)
    assert abs(result.log_z - right) < 4.0 * result.standard_error < 0.4
    assert result.z["effect"].shape == (len(result.log_w), 3)
    assert np.all(result.z["scale"] > 0.0)


REFUSED = {
    "'x' of the model has the discrete prior": lambda: pm.Poisson("x", 3.0),
    "'x' of the model has the improper prior Flat": lambda: pm.Flat("x"),
    "'x' of the model has the transform Ordered": lambda: pm.Normal(
        "x", shape=2, transform=pm.distributions.transforms.ordered, initval=[0.0, 1.0]
    ),
    "'x' of the model has the transform Circular": lambda: pm.VonMises("x", 0.0, 1.0),
    "the transform CholeskyCovPacked": lambda: pm.LKJCholeskyCov(
        "x", eta=1.0, n=2, sd_dist=pm.Exponential.dist(1.0)
    )[0][0, 0],
    "no draws in JAX: No JAX implementation for the given": lambda: pm.Truncated(
        "x", pm.Normal.dist(), lower=0.0
    ),
}


def check_refusals():
    for text, prior in REFUSED.items():
        with pm.Model() as model:
            pm.Normal("y", prior(), 1.0, observed=np.zeros(2))
        refuse(model, text)
    with pm.Model() as model:
        pm.Normal("x")
    refuse(model, "the model has no data")
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("x"), 1.0, observed=np.zeros(2), total_size=9)
    refuse(model, "'y' of the model is a minibatch")
    with pm.Model() as model:
        latent = pm.Normal.dist(pm.Normal("x"), 1.0)
        pm.Censored("y", latent, lower=0.0, upper=None, observed=np.zeros(2))
    refuse(model, "PyTensor cannot give the model to JAX: No JAX implementation")


def refuse(model, text):
    try:
        from_pymc(model)
    except ValueError as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"taken, where {text!r} was to be said")


if __name__ == "__main__":
    for make in [hierarchy] if sys.argv[1:] == ["short"] else MODELS:
        check_model(make)
    if sys.argv[1:] != ["short"]:
        check_estimate()
    check_refusals()
