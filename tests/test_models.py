"""Paths from the encoder and from the prior, against their ends and a grid."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from targets import ratio_and_error, shaken

from ais_jax import models, networks, schedules
from ais_jax.ais import anneal
from ais_jax.hmc import hmc_step

X = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], np.float32)


@pytest.fixture
def params(model):
    return shaken(model.init(jax.random.key(0)), jax.random.key(1))


def test_paths_end_at_the_base_and_the_joint(model, params):
    theta, phi = params
    z = jnp.array([0.3, -1.2, 0.8])[: 1 + len(theta)]
    bases = {
        models.posterior_path: model.proposal(phi, X),
        models.prior_path: model.prior(theta),
    }
    for make, base in bases.items():
        path = make(model, theta, phi, X)
        assert path.log_base(z) == base.log_prob(z)
        assert path.log_target(z) == model.log_joint(theta, X, z)
        assert path.scale == 1.0
        assert path.force is None
        path = make(model, theta, phi, X, "encoder")
        np.testing.assert_array_equal(path.scale, model.proposal(phi, X).scale)


@pytest.mark.parametrize("make", [models.posterior_path, models.prior_path])
def test_unknown_preconditioner_is_refused(small_model, make):
    theta, phi = small_model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="preconditioner='mass'"):
        make(small_model, theta, phi, X, "mass")


@pytest.mark.parametrize("make", [models.posterior_path, models.prior_path])
@pytest.mark.parametrize(
    ("latent_sizes", "preconditioner"), [((2,), "unit"), ((1, 1), "encoder")]
)
def test_both_paths_normalise_to_the_integral_over_z(
    make, latent_sizes, preconditioner
):
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
    log_p = jax.nn.logsumexp(log_joint) + 2.0 * jnp.log(axis[1] - axis[0])

    def one(key):
        path = make(model, theta, phi, X, preconditioner)
        start_key, key = jax.random.split(key)
        betas, step_sizes = schedules.linear(3), jnp.full(3, 0.5)
        move = partial(hmc_step, num_leapfrog=2)
        z0 = path.sample_base(start_key)
        return anneal(key, path, z0, betas, step_sizes, move).log_w

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), 2**16))
    ratio, error = ratio_and_error(log_w, log_p)
    assert error < 0.01
    assert abs(ratio - 1.0) < 4 * error
