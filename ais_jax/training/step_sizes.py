"""Step sizes that follow the acceptance rate."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class StepSizeRule(NamedTuple):
    """The authors' rule: one small multiplicative step after every batch.

    Attributes:
        target: the acceptance probability at or above which the step size grows.
        grow: factor where the acceptance is at least the target.
        shrink: factor where it is below.
        smallest: lower bound of the step sizes.
        largest: upper bound of the step sizes.
    """

    target: float = 0.6
    grow: float = 1.002
    shrink: float = 0.998
    smallest: float = 0.001
    largest: float = 0.3


def update_step_sizes(
    rule: StepSizeRule, step_sizes: Float[Array, "M"], accept_prob: Float[Array, "M"]
) -> Float[Array, "M"]:
    """One step of the rule at each temperature.

    Args:
        rule: where to go and how fast.
        step_sizes: of each move.
        accept_prob: mean acceptance over chains and examples.

    Returns:
        The next step sizes, within [smallest, largest].
    """
    factor = jnp.where(accept_prob >= rule.target, rule.grow, rule.shrink)
    return jnp.clip(step_sizes * factor, rule.smallest, rule.largest)
