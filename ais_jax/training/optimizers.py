"""Optimizers of optax by name, and the learning-rate schedules of the paper's runs."""

import inspect
import math
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, PyTree, ScalarLike

from ais_jax.checks import lookup

NUM_STAGES = 8
HELD_STEPS = 10_000  # of wsd: longer runs need a smaller rate


def staged(num_steps: int) -> optax.Schedule:
    """The IWAE study's stages: rate 10^(-i/7) during 3^i epochs, i = 0..7.

    The 1 + 3 + ... + 3^7 = 3,280 epochs are scaled to any number of steps.

    Args:
        num_steps: training steps in all.

    Returns:
        Factors of the peak learning rate.
    """
    total = (3**NUM_STAGES - 1) // 2
    ends = [(3 ** (i + 1) - 1) / 2 / total for i in range(NUM_STAGES - 1)]
    rates = [10.0 ** (-i / 7.0) for i in range(NUM_STAGES)]
    return optax.join_schedules(
        [optax.constant_schedule(rate) for rate in rates],
        [math.ceil(end * num_steps) for end in ends],
    )


def constant(num_steps: int) -> optax.Schedule:
    """The peak learning rate throughout."""
    del num_steps
    return optax.constant_schedule(1.0)


def cosine(num_steps: int) -> optax.Schedule:
    """Half a cosine from the peak learning rate to zero over the training steps."""
    return optax.cosine_decay_schedule(1.0, num_steps)


def wsd(num_steps: int) -> optax.Schedule:
    """The peak rate for 10,000 steps, then less, and in the last fifth down to zero.

    After these steps the rate falls as the inverse square root of their number, and in
    the last fifth along a straight line. The rates before that fifth do not depend on
    how many steps are to come, so that a longer run can go on from there. (The name is
    warm-up, stable, decay; a warm-up is made where it is asked for.)

    References:
        Zhai et al., Scaling Vision Transformers, 2022; Hägele et al., Scaling Laws and
        Compute-Optimal Training Beyond Fixed Training Durations, 2024.
    """
    num_stable = stable_steps("wsd", num_steps)

    def stable(step):
        return jnp.sqrt(HELD_STEPS / jnp.maximum(step, HELD_STEPS))

    last = math.sqrt(HELD_STEPS / max(num_stable, HELD_STEPS))
    decay = optax.linear_schedule(last, 0.0, num_steps - num_stable)
    return optax.join_schedules([stable, decay], [num_stable])


def stable_steps(schedule: str, num_steps: int) -> int:
    """How many of the first steps have rates that do not depend on `num_steps`."""
    decaying = {"constant": 0, "wsd": max(1, num_steps // 5)}
    return num_steps - decaying.get(schedule, num_steps)


LEARNING_RATE_SCHEDULES = {
    "stages": staged,
    "constant": constant,
    "cosine": cosine,
    "wsd": wsd,
}


def _as_matrices(params):
    """Flax's kernels as Muon's matrices: from all other axes to the last one."""
    return jax.tree.map(
        lambda p: (
            optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)
            if p.ndim > 1
            else None
        ),
        params,
    )


# Adam as the paper's authors set it; other optimizers keep optax's own defaults, but
# that Muon's matrices include the kernels of convolutions.
DEFAULTS = {
    "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-4},
    "muon": {"muon_weight_dimension_numbers": _as_matrices},
}
# Optimizers that need the loss, gradients of single examples, or other parameters for
# evaluation than for training.
NEED_MORE = ("lbfgs", "momo", "polyak_sgd", "dpsgd", "schedule_free")


class Optimizers(NamedTuple):
    """One optimizer for each network."""

    theta: optax.GradientTransformation
    phi: optax.GradientTransformation


def make(
    name: str = "adam",
    *,
    schedule: str,
    num_steps: int,
    warmup: float = 0.0,
    clip_norm: float | None = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """An optimizer of optax whose peak learning rate is a part of its state.

    So replicates of several rates share one program: see `with_rate`.

    Args:
        name: a function of optax or optax.contrib that takes a learning rate.
        schedule: one of `LEARNING_RATE_SCHEDULES`.
        num_steps: training steps in all.
        warmup: share of the steps in which the rate rises to the schedule's.
        clip_norm: the largest norm of the gradient, or None.
        **settings: of the optimizer; None leaves its default.

    Raises:
        ValueError: for an unknown optimizer or schedule, a setting that the optimizer
            does not read, or a value out of range.
    """
    factory = lookup("name", name, _factories())
    settings = {k: v for k, v in settings.items() if v is not None}
    _check_settings(name, settings)
    settings = {**DEFAULTS.get(name, {}), **settings}
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup={warmup}: use a number in [0, 1)")
    if clip_norm is not None and not clip_norm > 0.0:
        raise ValueError(f"clip_norm={clip_norm}: use more than 0")
    factor = lookup("schedule", schedule, LEARNING_RATE_SCHEDULES)(num_steps)
    num_warm = warmup * num_steps

    def build(learning_rate):
        def rate(step):
            warm = jnp.minimum(1.0, (step + 1) / num_warm) if num_warm else 1.0
            return learning_rate * factor(step) * warm

        optimizer = factory(rate, **settings)
        if clip_norm is None:
            return optimizer
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)

    return optax.inject_hyperparams(build)(learning_rate=1.0)


def with_rate(state: PyTree, learning_rate: ScalarLike | Float[Array, "R"]) -> PyTree:
    """An optimizer's state, or R replicates' states, with other peak learning rates."""
    rate = jnp.asarray(learning_rate, state.hyperparams["learning_rate"].dtype)
    return state._replace(hyperparams={**state.hyperparams, "learning_rate": rate})


def _factories():
    """Every optimizer of optax that a gradient and a learning rate are enough for."""
    named = {**vars(optax.contrib), **vars(optax)}
    return {
        name: factory
        for name, factory in named.items()
        if not name.startswith(("_", "scale_by_", *NEED_MORE))
        and isinstance(factory, FunctionType | partial)
        and next(iter(inspect.signature(factory).parameters), "") == "learning_rate"
    }


def settings_of(name: str) -> dict[str, Any]:
    """The settings that an optimizer reads, with the defaults that `make` gives them.

    Raises:
        ValueError: for an unknown optimizer.
    """
    _, *parameters = inspect.signature(
        lookup("name", name, _factories())
    ).parameters.values()
    return {p.name: p.default for p in parameters} | DEFAULTS.get(name, {})


def _check_settings(name, settings):
    known = settings_of(name)
    for setting, value in settings.items():
        if setting not in known:
            raise ValueError(
                f"{setting}={value!r} is not read by {name!r}, which reads "
                f"{', '.join(known)}: leave it out"
            )
