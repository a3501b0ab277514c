"""Annotated shapes are checked: a batch where one example is expected is an error."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import ais_jax
from ais_jax import batching, numerics
from ais_jax.evidence import plan
from ais_jax.training import step_sizes
from tests.targets import skewed

KEY = jax.random.key(0)
PATH = skewed(3).path
BATCH = jnp.zeros((5, 3))
BETAS, STEPS = jnp.linspace(0.0, 1.0, 5), jnp.full((4,), 0.1)


def move(key, path, point, beta, step_size):
    """HMC of one leapfrog step."""
    return ais_jax.hmc_step(key, path, point, beta, step_size, num_leapfrog=1)


def hmc(step_size):
    return move(KEY, PATH, ais_jax.evaluate(PATH, BATCH[0]), 0.5, step_size)


def posterior(model, images):
    return ais_jax.posterior_path(model, *model.init(KEY), images)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ais_jax.evaluate(PATH, BATCH),
        lambda: ais_jax.anneal(KEY, PATH, BATCH[None], BETAS, STEPS, move),
        lambda: ais_jax.anneal(KEY, PATH, BATCH[0], BETAS[None], STEPS, move),
        lambda: ais_jax.reverse_anneal(KEY, PATH, BATCH, BETAS, STEPS, move),
        lambda: ais_jax.anneal(BETAS, PATH, BATCH[0], BETAS, STEPS, move),
        lambda: hmc(step_size=STEPS),
        lambda: step_sizes.update_step_sizes(step_sizes.StepSizeRule(), STEPS, BETAS),
        lambda: batching.example_keys(KEY, 2),
        lambda: numerics.bernoulli_log_prob(BATCH, BETAS),
        lambda: plan.tune(KEY, PATH, num_temperatures="4"),
    ],
)
def test_a_wrong_shape_or_type_is_refused(call):
    with pytest.raises(TypeCheckError):
        call()


def test_a_batch_of_images_has_no_single_posterior(small_model, images):
    posterior(small_model, images[0])
    with pytest.raises(TypeCheckError, match="posterior_path"):
        posterior(small_model, images)


def test_chains_and_examples_are_added_by_vmap():
    points = jax.vmap(lambda z: ais_jax.evaluate(PATH, z))(BATCH)
    assert points.log_target.shape == (5,)


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_new_and_old_keys_are_keys(make_key):
    info = move(make_key(0), PATH, ais_jax.evaluate(PATH, BATCH[0]), 0.5, 0.1)[1]
    assert info.accept_prob.shape == ()
    assert len(batching.chain_keys(make_key(0), 3)) == 3
