"""The pilot: rounds that go on while they must, and the plan that is read off."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.budget import MOST_ROUNDS
from ais_jax.evidence.log_z import estimate_log_z
from ais_jax.evidence.plan import tune
from ais_jax.evidence.spacing import place_at
from tests.targets import normal_base

KEY = jax.random.key(0)
WIDE, NARROW = 3.0, 0.3  # standard deviations of a base and of a target
PATH = AnnealingPath(*normal_base(2, WIDE), lambda z: -0.5 * jnp.sum((z / NARROW) ** 2))


def test_a_share_that_rounds_below_one_ends_a_schedule():
    below = np.nextafter(np.float32(1.0), np.float32(0.0))
    betas, density = jnp.linspace(0.0, 1.0, 5), jnp.ones(4)
    assert place_at(betas, density, jnp.array([0.5, below]))[-1] == 1.0


def never_settled(key, path, point, beta, step_size):
    """A transition that stays, and whose acceptance no step size brings to 0.8."""
    return point, SimpleNamespace(accept_prob=jnp.full((), 0.5))


def test_rounds_are_extended_while_the_acceptance_is_off():
    """A pass begins at draws from the base, which are counted for all chains."""
    draws = []

    def sample(key):
        jax.debug.callback(lambda: draws.append(1))
        return PATH.sample_base(key)

    def num_passes(num_rounds):
        draws.clear()
        path = PATH._replace(sample_base=sample)
        settings = {"num_rounds": num_rounds, "transition": never_settled}
        plan = tune(KEY, path, num_temperatures=4, num_chains=2, **settings)
        jax.block_until_ready(plan)
        jax.effects_barrier()
        return len(draws)

    assert num_passes(1) == 1 + 4
    assert num_passes(2) == 1 + 8


def test_the_pilot_of_a_search_is_extended_too():
    stages = []
    estimate_log_z(
        KEY,
        PATH,
        num_temperatures=4,
        num_chains=10,
        transition=never_settled,
        fit_base=False,
        progress=lambda p: stages.append(p.stage),
    )
    assert stages.count("pilot") == 1 + MOST_ROUNDS


def test_a_search_moves_in_the_widths_of_its_own_temperatures():
    """The path's widths are known; those of one temperature before are others."""
    settings = {"num_chains": 400, "mass_matrix": "diagonal", "fit_base": False}
    result = estimate_log_z(KEY, PATH, num_temperatures=6, **settings)
    betas = np.asarray(result.plan.betas)
    widths = ((1.0 - betas) / WIDE**2 + betas / NARROW**2) ** -0.5
    found = np.exp(np.mean(np.log(result.plan.scale), axis=1))
    own, before = np.log(widths[1:-1] / found), np.log(widths[:-2] / found)
    assert abs(np.mean(own)) < 0.2 * abs(np.mean(before))
