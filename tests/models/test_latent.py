"""Paths from the encoder and from the prior, against their ends and a grid."""

from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ais_jax import schedules
from ais_jax.annealing.ais import anneal
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.path import evaluate
from ais_jax.models import latent, networks
from tests.targets import errors_off, ratio_and_error, shaken, slow_but

X = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
PATHS = (latent.posterior_path, latent.prior_path, latent.wide_path)


def draws_of(path, key, num):
    """Draws from a path's base, with both ends' log-densities there."""

    @jax.jit
    @jax.vmap
    def draw(key):
        z = path.sample_base(key)
        return z, path.log_base(z), path.log_target(z)

    return draw(jax.random.split(key, num))


@pytest.fixture(scope="module")
def params(model):
    return shaken(jax.jit(model.init)(jax.random.key(0)), jax.random.key(1))


def test_paths_end_at_the_base_and_the_joint(model, params):
    theta, phi = params
    z = jnp.array([0.3, -1.2, 0.8])[: 1 + len(theta)]
    bases = {
        latent.posterior_path: model.proposal(phi, X),
        latent.prior_path: model.prior(theta),
    }
    for make, base in bases.items():
        path = make(model, theta, phi, X)
        assert path.log_base(z) == base.log_prob(z)
        assert path.log_target(z) == model.log_joint(theta, X, z)
        assert path.scale == 1.0
        assert evaluate(path, z).residuals is None
        path = make(model, theta, phi, X, "encoder")
        np.testing.assert_array_equal(path.scale, model.proposal(phi, X).scale)


def test_a_wide_start_is_at_most_as_wide_as_the_prior(model, params):
    theta, phi = params
    q, p = model.proposal(phi, X), model.prior(theta)
    narrow = model._replace(
        proposal=lambda phi, x: q._replace(scale=q.scale * jnp.float32(0.01))
    )
    for each, scale in (
        (model, jnp.maximum(q.scale, p.scale)),
        (narrow, 0.06 * q.scale),
    ):
        path = latent.wide_path(each, theta, phi, X)
        draws, log_base, _ = draws_of(path, jax.random.key(2), 4096)
        assert np.all(np.abs(errors_off(draws, q.mean)) < 4.0)
        np.testing.assert_allclose(np.std(draws, axis=0), scale, rtol=0.05)
        expected = stats.norm.logpdf(draws[0], q.mean, scale).sum()
        np.testing.assert_allclose(log_base[0], expected, rtol=1e-5)


def test_a_wide_start_finds_a_mode_that_the_encoder_misses(small_model):
    def normal(mean, scale):
        return latent.Distribution(
            lambda key: mean + scale * jax.random.normal(key, (1,)),
            lambda z: jax.scipy.stats.norm.logpdf(z[0], mean, scale),
            jnp.full(1, mean),
            jnp.full(1, scale),
        )

    def log_joint(theta, x, z):
        modes = jax.scipy.stats.norm.logpdf(z[0], jnp.array([-0.8, 0.8]), 0.1)
        return jax.nn.logsumexp(modes)  # the integral is two

    model = small_model._replace(
        log_joint=log_joint,
        prior=lambda theta: normal(0.0, 1.0),
        proposal=lambda phi, x: normal(0.8, 0.1),
    )

    def ratio(make):
        path = make(model, None, None, X)
        _, log_base, log_target = draws_of(path, jax.random.key(3), 2**15)
        return ratio_and_error(log_target - log_base, np.log(2.0))

    assert ratio(latent.posterior_path)[0] == pytest.approx(0.5, abs=0.01)
    found, error = ratio(latent.wide_path)
    assert abs(found - 1.0) < 4.0 * error < 0.2


@pytest.mark.parametrize("make", PATHS)
def test_an_unknown_hmc_scale_is_refused(small_model, make):
    theta, phi = jax.jit(small_model.init)(jax.random.key(0))
    with pytest.raises(ValueError, match="hmc_scale='mass'"):
        make(small_model, theta, phi, X, "mass")


@cache
def on_a_grid(latent_sizes):
    """A model, theta and phi, and log p(X) by a grid over two latents."""
    model = networks.bernoulli_model(
        6, latent_sizes=latent_sizes, widths=((3,),) * len(latent_sizes)
    )
    theta, phi = model.init(jax.random.key(5))
    theta = shaken(theta, jax.random.key(6), size=0.3)
    wider = lambda path, a: a + 0.25 if "'log_scale']['bias" in path else a
    phi = jax.tree.map_with_path(lambda p, a: wider(jax.tree_util.keystr(p), a), phi)
    axis = jnp.linspace(-9.0, 9.0, 241)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_joint = jax.jit(jax.vmap(partial(model.log_joint, theta, X)))(grid)
    log_p = special.logsumexp(log_joint) + 2.0 * np.log(axis[1] - axis[0])
    return model, theta, phi, log_p


@pytest.mark.parametrize(
    ("make", "latent_sizes", "hmc_scale"),
    slow_but(
        [
            (p, *each)
            for p, each in product(PATHS, [((2,), "unit"), ((1, 1), "encoder")])
        ],
        (latent.posterior_path, (2,), "unit"),
        (latent.prior_path, (1, 1), "encoder"),
        (latent.wide_path, (1, 1), "encoder"),
    ),
)
def test_all_paths_normalise_to_the_integral_over_z(make, latent_sizes, hmc_scale):
    model, theta, phi, log_p = on_a_grid(latent_sizes)

    def one(key):
        path = make(model, theta, phi, X, hmc_scale)
        start_key, key = jax.random.split(key)
        betas, step_sizes = schedules.linear(3), jnp.full(3, 0.5)
        move = partial(hmc_step, num_leapfrog=2)
        z0 = path.sample_base(start_key)
        return anneal(key, path, z0, betas, step_sizes, move).log_w

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), 2**16))
    ratio, error = ratio_and_error(log_w, log_p)
    assert error < 0.01
    assert abs(ratio - 1.0) < 4 * error
