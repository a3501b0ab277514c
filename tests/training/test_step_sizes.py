"""The step-size rule and its bounds."""

import jax.numpy as jnp
import numpy as np

from ais_jax.training.step_sizes import StepSizeRule, update_step_sizes


def test_step_sizes_grow_from_the_target_on_and_shrink_below_it():
    accept_prob = jnp.array([0.9, 0.6, 0.59, 0.0])
    updated = update_step_sizes(StepSizeRule(), jnp.full(4, 0.1), accept_prob)
    np.testing.assert_allclose(updated, [0.1002, 0.1002, 0.0998, 0.0998], rtol=1e-6)


def test_step_sizes_stay_within_their_bounds():
    rule = StepSizeRule(smallest=0.01, largest=0.2)
    updated = update_step_sizes(rule, jnp.array([0.2, 0.01]), jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(updated, np.float32([0.2, 0.01]))


def test_the_default_rule_is_the_authors():
    assert StepSizeRule() == (0.6, 1.002, 0.998, 0.001, 0.3)
