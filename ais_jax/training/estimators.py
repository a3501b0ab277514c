"""Gradient estimators of every method behind one registry.

An `Estimator` is a tuple of pure functions. Minus a loss's gradient is the estimator
that the paper's equation names; samples and weights carry no gradient.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ais_jax.annealing import proposals, schedules
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.proposals import AVERAGES, WeightedSamples
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.checks import check_count, lookup
from ais_jax.models.latent import HMC_SCALES, LatentVariableModel, posterior_path
from ais_jax.training.losses import (
    PHI_LOSSES,
    dreg_loss,
    elbo_loss,
    iwae_loss,
    phi_gradient,
    stl_loss,
    theta_gradient,
)
from ais_jax.types import AnyArray, Params, Scalar


class Estimator(NamedTuple):
    """The gradient estimator of one method.

    Attributes:
        sample: (key, theta, phi, x, step_sizes) -> `WeightedSamples` of one example,
            without gradient.
        theta_gradient: (theta, x, samples, block_size) -> (loss, its gradient), summed
            over a batch and its samples. `block_size` examples are computed at a time.
            Minus the gradient is Eq. 8.
        phi_gradient: (phi, theta, keys, x, block_size) -> ((loss, elbo), the loss's
            gradient), summed over a batch, `block_size` examples at a time.
        num_samples: K.
        num_points: N, the weighted points that enter theta's gradient: K, or more
            where points of trajectories are averaged.
        num_phi_samples: draws of q for each example in `phi_gradient`.
        num_moves: M, the length of the step sizes.
        gradient_evaluations: passes forward and backward through log p(x, z) that one
            example costs a training step. It counts the N points of theta's gradient
            and the draws of phi's.
    """

    sample: Callable[..., WeightedSamples]
    theta_gradient: Callable[..., tuple[Scalar, Params]]
    phi_gradient: Callable[..., tuple[tuple[Scalar, Scalar], Params]]
    num_samples: int
    num_points: int
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
    schedule: str | Float[AnyArray, "T_plus_1"] | Sequence = "linear",
    final_moves: int = 1,
    weighting: str = "importance",
    hmc_scale: str = "unit",
    average: str = "end",
    phi_loss: str = "elbo",
    num_phi_samples: int = 1,
    resample_below: float = 0.0,
) -> Estimator:
    """The paper's method: theta by Eq. 8 on K annealed chains, phi by the ELBO.

    Args:
        model: what is trained.
        num_samples: K, chains for each example.
        num_temperatures: T, weight increments of the schedule.
        num_leapfrog: L, leapfrog steps of each move.
        schedule: a name in `schedules.SCHEDULES`, or betas from 0 to 1.
        final_moves: moves at beta_T = 1, after the last weight; 1 in the paper.
        weighting: 'importance' for the weights of Eq. 7, 'uniform' for weights of one.
        hmc_scale: 'unit' for HMC of unit mass, as in the paper, or 'encoder' for HMC
            in units of the encoder's standard deviations.
        average: which points enter theta's gradient. 'end' takes the one where a chain
            ends, as in the paper. 'points' takes all points of the last move's
            trajectory; all moves are then of that kind (`trajectory`).
        phi_loss: a name in `losses.PHI_LOSSES`.
        num_phi_samples: draws of q for phi's loss.
        resample_below: the chains are resampled where their effective sample size falls
            below this share of K; 0 leaves them independent.

    Returns:
        An estimator with T - 1 + final_moves moves.

    Raises:
        ValueError: for a setting out of range.
    """
    betas = _betas(schedule, num_temperatures)
    check_count("num_samples", num_samples)
    check_count("num_leapfrog", num_leapfrog)
    check_count("final_moves", final_moves, 0)
    check_count("num_phi_samples", num_phi_samples)
    lookup("hmc_scale", hmc_scale, HMC_SCALES)
    loss = lookup("phi_loss", phi_loss, PHI_LOSSES)
    keeps_points = lookup("average", average, AVERAGES) == "points"
    if keeps_points and not final_moves:
        raise ValueError(
            "final_moves=0 with average='points': use at least 1, since the points "
            "are those of a move at beta = 1"
        )
    step = trajectory_step if keeps_points else hmc_step
    propose = proposals.annealed(
        np.append(betas, np.ones(max(0, final_moves - 1), np.float32)),
        partial(step, num_leapfrog=num_leapfrog),
        num_samples,
        weighting=weighting,
        average=average,
        resample_below=resample_below,
    )
    target = model.target_with_residuals

    def sample(key, theta, phi, x, step_sizes):
        path = posterior_path(model, theta, phi, x, hmc_scale)
        if keeps_points and target is not None:
            path = path._replace(target_with_residuals=partial(target, theta, x))
        return jax.lax.stop_gradient(propose(key, path, step_sizes))

    num_moves = num_temperatures - 1 + final_moves
    num_points = num_leapfrog + 1 if keeps_points else 1
    per_chain = 1 + num_leapfrog * num_moves + num_points
    return Estimator(
        sample=sample,
        theta_gradient=partial(theta_gradient, model),
        phi_gradient=partial(phi_gradient, partial(loss, model, num_phi_samples)),
        num_samples=num_samples,
        num_points=num_samples * num_points,
        num_phi_samples=num_phi_samples,
        num_moves=num_moves,
        gradient_evaluations=num_samples * per_chain + num_phi_samples,
    )


mh_hmc = partial(ais, schedule="all_target", weighting="uniform")
"""Hoffman's method: HMC on the posterior from the encoder, betas [0, 1, ..., 1].

T is the number of moves. The chains are averaged, as in Table 2; the weighting
'importance' weighs them by Eq. 7, that is by the weights of their starting points.

References:
    Hoffman, Learning deep latent Gaussian models with Markov chain Monte Carlo, 2017.
"""


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
    check_count("num_samples", num_samples)
    propose = proposals.importance(num_samples)

    def sample(key, theta, phi, x, step_sizes):
        samples = propose(key, posterior_path(model, theta, phi, x), step_sizes)
        if uniform:
            samples = samples._replace(log_w=jnp.zeros_like(samples.log_w))
        return jax.lax.stop_gradient(samples)

    return Estimator(
        sample=sample,
        theta_gradient=partial(theta_gradient, model),
        phi_gradient=partial(phi_gradient, partial(phi_loss, model, num_samples)),
        num_samples=num_samples,
        num_points=num_samples,
        num_phi_samples=num_samples,
        num_moves=0,
        gradient_evaluations=2 * num_samples,
    )


def _betas(schedule, num_temperatures):
    """The betas of a named schedule, or those given."""
    if isinstance(schedule, str):
        return schedules.make(schedule, num_temperatures)
    betas = schedules.check_betas(schedule)
    if len(betas) != num_temperatures + 1:
        raise ValueError(
            f"schedule has {len(betas) - 1} temperatures after the first and "
            f"num_temperatures={num_temperatures}: make them equal"
        )
    return betas
