"""Learning-rate schedules and Adam, as the paper's runs used it."""

import math

import optax

from ais_jax.registry import lookup

NUM_STAGES = 8


def staged(num_steps):
    """The IWAE study's stages: rate 10^(-i/7) during 3^i epochs, i = 0..7.

    The 1 + 3 + ... + 3^7 = 3,280 epochs are scaled to any number of steps.

    Args:
        num_steps: training steps in all.

    Returns:
        step -> factor of the peak learning rate.
    """
    total = (3**NUM_STAGES - 1) // 2
    ends = [(3 ** (i + 1) - 1) / 2 / total for i in range(NUM_STAGES - 1)]
    rates = [10.0 ** (-i / 7.0) for i in range(NUM_STAGES)]
    return optax.join_schedules(
        [optax.constant_schedule(rate) for rate in rates],
        [math.ceil(end * num_steps) for end in ends],
    )


def constant(num_steps):
    """The peak learning rate throughout."""
    del num_steps
    return optax.constant_schedule(1.0)


def cosine(num_steps):
    """Half a cosine from the peak learning rate to zero over the training steps."""
    return optax.cosine_decay_schedule(1.0, num_steps)


LEARNING_RATE_SCHEDULES = {"stages": staged, "constant": constant, "cosine": cosine}


def make(schedule, num_steps, *, b1=0.9, b2=0.999, eps=1e-4):
    """Adam with a learning rate of one at its peak.

    The training step multiplies the updates by the learning rate itself, so that
    replicates of several rates share one program.

    Args:
        schedule: one of `LEARNING_RATE_SCHEDULES`.
        num_steps: training steps in all.
        b1: Adam's decay of the first moment.
        b2: Adam's decay of the second moment.
        eps: Adam's epsilon.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        ValueError: for an unknown schedule.
    """
    rate = lookup("schedule", schedule, LEARNING_RATE_SCHEDULES)(num_steps)
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.scale_by_schedule(lambda step: -rate(step)),
    )
