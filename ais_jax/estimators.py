"""Gradient estimators of every method, as losses behind one registry.

An `Estimator` is a tuple of pure functions for one example. `jax.grad` of a loss is the
estimator that the paper's equation names; samples and weights carry no gradient.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from ais_jax import proposals, schedules
from ais_jax.hmc import hmc_step
from ais_jax.losses import (
    dreg_loss,
    elbo_loss,
    iwae_loss,
    stl_loss,
    weighted_loss,
)
from ais_jax.models import PRECONDITIONERS, LatentVariableModel, posterior_path
from ais_jax.proposals import WeightedSamples
from ais_jax.registry import lookup
from ais_jax.types import Scalar


class Estimator(NamedTuple):
    """The gradient estimator of one method, for one example.

    Attributes:
        sample: (key, theta, phi, x, step_sizes) -> `WeightedSamples`, without gradient.
        theta_loss: (theta, x, samples) -> loss; minus its gradient is Eq. 8.
        phi_loss: (phi, theta, key, x) -> (loss, elbo).
        num_samples: K.
        num_phi_samples: draws of q for each example in `phi_loss`.
        num_moves: M, the length of the step sizes.
        gradient_evaluations: passes forward and backward through log p(x, z) that one
            example costs a training step, those for theta and phi counted in.
    """

    sample: Callable[..., WeightedSamples]
    theta_loss: Callable[..., Scalar]
    phi_loss: Callable[..., tuple[Scalar, Scalar]]
    num_samples: int
    num_phi_samples: int
    num_moves: int
    gradient_evaluations: int


def vae(model: LatentVariableModel, *, num_samples: int = 1) -> Estimator:
    """Variational auto-encoder: theta by Eq. 3 and phi by Eq. 2, each on K samples."""
    return _without_moves(model, num_samples, elbo_loss, uniform=True)


def stl(model: LatentVariableModel, *, num_samples: int = 1) -> Estimator:
    """The VAE with the path-derivative gradient for phi.

    References:
        Roeder, Wu & Duvenaud, Sticking the Landing, 2017.
    """
    return _without_moves(model, num_samples, stl_loss, uniform=True)


def iwae(model: LatentVariableModel, *, num_samples: int = 1) -> Estimator:
    """Importance weighted auto-encoder: theta by Eq. 4, phi by Eq. 5."""
    return _without_moves(model, num_samples, iwae_loss)


def dreg(model: LatentVariableModel, *, num_samples: int = 1) -> Estimator:
    """IWAE with the doubly reparameterized gradient for phi.

    References:
        Tucker, Lawson, Gu & Maddison, Doubly Reparameterized Gradient Estimators for
        Monte Carlo Objectives, 2019.
    """
    return _without_moves(model, num_samples, dreg_loss)


def ais(
    model: LatentVariableModel,
    *,
    num_samples: int = 1,
    num_temperatures: int = 5,
    num_leapfrog: int = 5,
    schedule: str | Float[ArrayLike, "T_plus_1"] | Sequence = "linear",
    final_move: bool = True,
    preconditioner: str = "unit",
) -> Estimator:
    """The paper's method: theta by Eq. 8 on K annealed chains, phi by the ELBO.

    Args:
        model: what is trained.
        num_samples: K, chains for each example.
        num_temperatures: T, weight increments of the schedule.
        num_leapfrog: L, leapfrog steps of each HMC move.
        schedule: a name in `schedules.SCHEDULES`, or betas from 0 to 1.
        final_move: whether to move at beta_T = 1, after the last weight.
        preconditioner: 'unit' or 'encoder', as for `models.posterior_path`.

    Returns:
        An estimator with T moves, or T - 1 without the final one.

    Raises:
        ValueError: for a setting out of range.
    """
    if isinstance(schedule, str):
        betas = schedules.make(schedule, num_temperatures)
    else:
        betas = schedules.check_betas(schedule)
        if len(betas) != num_temperatures + 1:
            raise ValueError(
                f"schedule has {len(betas) - 1} temperatures after the first and "
                f"num_temperatures={num_temperatures}: make them equal"
            )
    num_moves = len(betas) - 1 - (not final_move)
    return _with_moves(
        model, betas, num_moves, num_samples, num_leapfrog, preconditioner, "importance"
    )


def mh_hmc(
    model: LatentVariableModel,
    *,
    num_samples: int = 1,
    num_temperatures: int = 5,
    num_leapfrog: int = 5,
    weighting: str = "uniform",
    preconditioner: str = "unit",
) -> Estimator:
    """Hoffman's method: HMC on the posterior from the encoder, betas [0, 1, ..., 1].

    Args:
        model: what is trained.
        num_samples: K, chains for each example.
        num_temperatures: T, the number of HMC moves.
        num_leapfrog: L, leapfrog steps of each move.
        weighting: 'uniform' averages the chains, as in Table 2; 'importance' weighs
            them by Eq. 7, that is by the weights of their starting points.
        preconditioner: 'unit' or 'encoder', as for `models.posterior_path`.

    Returns:
        An estimator with T moves.

    Raises:
        ValueError: for a setting out of range.

    References:
        Hoffman, Learning deep latent Gaussian models with Markov chain Monte Carlo,
        2017.
    """
    betas = schedules.all_target(num_temperatures)
    return _with_moves(
        model,
        betas,
        num_temperatures,
        num_samples,
        num_leapfrog,
        preconditioner,
        weighting,
    )


ESTIMATORS = {
    "ais": ais,
    "dreg": dreg,
    "iwae": iwae,
    "mh_hmc": mh_hmc,
    "stl": stl,
    "vae": vae,
}


def settings_of(name: str) -> dict[str, Any]:
    """The settings that an estimator of `ESTIMATORS` reads, with their defaults.

    Raises:
        ValueError: for an unknown estimator.
    """
    estimator = lookup("estimator", name, ESTIMATORS)
    parameters = inspect.signature(estimator).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def make(name: str, model: LatentVariableModel, **settings: Any) -> Estimator:
    """Builds a named estimator.

    Args:
        name: one of `ESTIMATORS`.
        model: what is trained.
        **settings: keyword arguments of that estimator; none that it does not read.

    Raises:
        ValueError: for an unknown name, an unread setting or a value out of range.
    """
    known = settings_of(name)
    for key, value in settings.items():
        if key not in known:
            raise ValueError(
                f"{key}={value!r} is not read by {name!r}, which reads "
                f"{', '.join(known)}: leave it out"
            )
    return ESTIMATORS[name](model, **settings)


def _without_moves(model, num_samples, phi_loss, uniform=False):
    _check_positive(num_samples=num_samples)
    propose = proposals.importance(num_samples)

    def sample(key, theta, phi, x, step_sizes):
        samples = propose(key, posterior_path(model, theta, phi, x), step_sizes)
        if uniform:
            samples = samples._replace(log_w=jnp.zeros_like(samples.log_w))
        return jax.lax.stop_gradient(samples)

    return Estimator(
        sample=sample,
        theta_loss=partial(weighted_loss, model),
        phi_loss=partial(phi_loss, model, num_samples),
        num_samples=num_samples,
        num_phi_samples=num_samples,
        num_moves=0,
        gradient_evaluations=2 * num_samples,
    )


def _with_moves(
    model, betas, num_moves, num_samples, num_leapfrog, preconditioner, weighting
):
    _check_positive(num_samples=num_samples, num_leapfrog=num_leapfrog)
    lookup("preconditioner", preconditioner, PRECONDITIONERS)
    transition = partial(hmc_step, num_leapfrog=num_leapfrog)
    propose = proposals.annealed(betas, transition, num_samples, weighting)

    def sample(key, theta, phi, x, step_sizes):
        path = posterior_path(model, theta, phi, x, preconditioner)
        return jax.lax.stop_gradient(propose(key, path, step_sizes))

    return Estimator(
        sample=sample,
        theta_loss=partial(weighted_loss, model),
        phi_loss=partial(elbo_loss, model, 1),
        num_samples=num_samples,
        num_phi_samples=1,
        num_moves=num_moves,
        gradient_evaluations=num_samples * (2 + num_leapfrog * num_moves) + 1,
    )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value}: use at least 1")
