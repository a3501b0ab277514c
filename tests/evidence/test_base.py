"""The fitted base: it is drawn as it is weighed, and its density is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.base import BaseFit, fit, with_base
from ais_jax.evidence.plan import Plan, resample_plan
from tests.targets import errors_off, normal_base

MEAN = jnp.array([30.0, -2.0])
FITS = {
    "full": BaseFit(MEAN, jnp.array([[0.7, 0.0], [0.6, 2.0]])),
    "diagonal": BaseFit(MEAN, jnp.array([0.7, 2.0])),
}
PATH = AnnealingPath(*normal_base(2, 3.0), lambda z: -jnp.sum(z**2))
each_fit = pytest.mark.parametrize("name", FITS)


def in_units(base, z):
    """Positions in the units of a fit, whose Student t they may be drawn from."""
    scale = base.scale if base.scale.ndim == 2 else jnp.diag(base.scale)
    return np.linalg.solve(np.asarray(scale), np.asarray(z - base.mean).T).T


@each_fit
def test_the_density_integrates_to_one(name):
    """On a grid of the prior's place and on one of the fit's."""
    log_base = jax.jit(jax.vmap(with_base(PATH, FITS[name]).log_base))
    total = 0.0
    for centre, half in (([0.0, 0.0], [15.0, 80.0]), ([30.0, 0.0], [15.0, 80.0])):
        x, y = (np.linspace(c - h, c + h, 801) for c, h in zip(centre, half))
        z = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
        density = np.exp(np.float64(log_base(z.reshape(-1, 2)))).reshape(801, 801)
        total += integrate.simpson(integrate.simpson(density, y), x)
    assert total == pytest.approx(1.0, abs=2e-3)


@each_fit
def test_it_is_drawn_as_it_is_weighed(name):
    """A tenth from the prior; radii of the others as a Student t of 8 degrees has."""
    base = FITS[name]
    draw = jax.jit(jax.vmap(with_base(PATH, base).sample_base))
    z = draw(jax.random.split(jax.random.key(0), 40_000))
    is_prior = z[:, 0] < 15.0
    assert abs(errors_off(is_prior, 0.1)) < 4.0
    u = in_units(base, z[~is_prior])
    for radius in (1.0, 2.0, 4.0):
        beyond = (1.0 + radius**2 / 8.0) ** -4  # of two dimensions
        assert abs(errors_off(np.sum(u**2, axis=1) > radius**2, beyond)) < 4.0
    assert np.all(np.abs(errors_off(u, 0.0)) < 4.0)


def test_a_fit_has_the_moments_of_what_weighs_anything():
    z = MEAN + jax.random.normal(jax.random.key(0), (4000, 2)) * jnp.array([0.5, 2.0])
    weight = jnp.ones(4000).at[:10].set(0.0)
    found = fit(z.at[:10].set(jnp.inf), weight)
    np.testing.assert_allclose(found.mean, MEAN, atol=0.15)
    sd = np.sqrt(np.diag(found.scale @ found.scale.T))
    np.testing.assert_allclose(sd, [0.5, 2.0], rtol=0.05)


def test_a_plan_of_other_temperatures_keeps_its_base():
    plan = Plan(jnp.linspace(0.0, 1.0, 9), jnp.ones(7), base=FITS["full"])
    for num in (1, 4, 12):
        assert resample_plan(plan, num).base is FITS["full"]
