"""All posteriors of `benchmarks.evidence`, by name, with certified evidences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ais_jax import AnnealingPath, from_numpyro
from benchmarks.certified import (
    BOUNDS,
    CLOSED,
    GRID,
    Posterior,
    local,
    quadrature,
    table,
)
from benchmarks.densities import DENSITIES
from benchmarks.exact_posteriors import (
    brownian,
    cars,
    diabetes,
    discoveries,
    eight_schools,
    groups,
    hair_eye,
    motorcycle,
    nile,
    pine,
    rats,
)

UNIT = 0.0, 1.0  # normal priors, in the coordinates of `from_numpyro`


def binary(x, y, scale, log_z=None):
    """Logistic regression with an intercept; by quadrature where log Z is not given."""
    x = jnp.asarray(np.c_[np.ones(len(y)), x], float)

    def model():
        prior = dist.Normal(0.0, scale).expand([x.shape[1]]).to_event(1)
        logits = x @ numpyro.sample("b", prior)
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=jnp.asarray(y, int))

    path = from_numpyro(model)
    if log_z is None:
        return Posterior(path, quadrature(path), GRID, UNIT)
    return Posterior(path, log_z, BOUNDS, UNIT)


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
