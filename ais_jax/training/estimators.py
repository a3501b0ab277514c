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
import numpy as np
from jaxtyping import ArrayLike, Float

from ais_jax.annealing import averaging as averages
from ais_jax.annealing import (
    proposals,
    schedules,
)
from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.checks import (
    check_count,
    lookup,
)
from ais_jax.models.latent import (
    PRECONDITIONERS,
    LatentVariableModel,
    posterior_path,
)
from ais_jax.training.losses import (
    PHI_LOSSES,
    dreg_loss,
    elbo_loss,
    iwae_loss,
    make_phi_loss,
    stl_loss,
    weighted_gradient,
    weighted_loss,
)
from ais_jax.types import (
    Params,
    Scalar,
)


class Estimator(NamedTuple):
    """The gradient estimator of one method, for one example.

    Attributes:
        sample: (key, theta, phi, x, step_sizes) -> `WeightedSamples`, without gradient.
        theta_loss: (theta, x, samples) -> loss; minus its gradient is Eq. 8.
        phi_loss: (phi, theta, key, x, samples) -> (loss, elbo), `losses.make_phi_loss`.
        num_samples: K.
        num_points: N, the weighted points that enter theta's gradient: K, or more
            where points of trajectories are averaged.
        num_phi_samples: draws of q for each example in `phi_loss`.
        num_phi_steps: phi's updates in a training step.
        num_moves: M, the length of the step sizes.
        gradient_evaluations: passes forward and backward through log p(x, z) that one
            example costs a training step, those of the N points for theta's gradient
            and of the draws for phi's counted in.
        theta_gradient: (theta, samples of a batch) -> (loss, its gradient), summed over
            the batch, from the samples' factors; None where they have none.
    """

    sample: Callable[..., WeightedSamples]
    theta_loss: Callable[..., Scalar]
    phi_loss: Callable[..., tuple[Scalar, Scalar]]
    num_samples: int
    num_points: int
    num_phi_samples: int
    num_phi_steps: int
    num_moves: int
    gradient_evaluations: int
    theta_gradient: Callable[..., tuple[Scalar, Params]] | None = None


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
    final_moves: int = 1,
    preconditioner: str = "unit",
    average: str = "end",
    num_averaged: int = 1,
    point_stride: int = 1,
    phi_loss: str = "elbo",
    num_phi_samples: int = 1,
    num_phi_steps: int = 1,
    wake_share: float = 0.0,
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
        preconditioner: 'unit' or 'encoder', as for `models.posterior_path`.
        average: which points of the last moves enter theta's gradient: 'end', where
            the chain ends, as in the paper; 'ends', where each move ends; 'points',
            those of trajectories, along which all moves then are (`trajectory`).
        num_averaged: how many of the final moves these are.
        point_stride: every so many points of a trajectory enter; it divides L + 1.
        phi_loss: a name in `losses.PHI_LOSSES`.
        num_phi_samples: draws of q for phi's loss.
        num_phi_steps: updates of phi for each of theta.
        wake_share: of -log q at theta's samples in phi's loss (`losses.wake_loss`).
        resample_below: as for `proposals.annealed`.

    Returns:
        An estimator with T - 1 + final_moves moves.

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
    _check_final_moves(final_moves, average)
    return _with_moves(
        model,
        betas=np.append(betas, np.ones(max(0, final_moves - 1), np.float32)),
        num_moves=len(betas) - 2 + final_moves,
        num_samples=num_samples,
        num_leapfrog=num_leapfrog,
        preconditioner=preconditioner,
        weighting="importance",
        moves=averages.make(average, num_averaged, point_stride, num_leapfrog),
        phi=(phi_loss, num_phi_samples, num_phi_steps, wake_share),
        resample_below=resample_below,
    )


def mh_hmc(
    model: LatentVariableModel,
    *,
    num_samples: int = 1,
    num_temperatures: int = 5,
    num_leapfrog: int = 5,
    weighting: str = "uniform",
    preconditioner: str = "unit",
    average: str = "end",
    num_averaged: int = 1,
    point_stride: int = 1,
    phi_loss: str = "elbo",
    num_phi_samples: int = 1,
    num_phi_steps: int = 1,
    wake_share: float = 0.0,
) -> Estimator:
    """Hoffman's method: HMC on the posterior from the encoder, betas [0, 1, ..., 1].

    T is the number of moves, and settings that `ais` has too mean the same. With the
    weighting 'uniform' the chains are averaged, as in Table 2; 'importance' weighs them
    by Eq. 7, that is by the weights of their starting points.

    Returns:
        An estimator with T moves.

    Raises:
        ValueError: for a setting out of range.

    References:
        Hoffman, Learning deep latent Gaussian models with Markov chain Monte Carlo,
        2017.
    """
    return _with_moves(
        model,
        betas=schedules.all_target(num_temperatures),
        num_moves=num_temperatures,
        num_samples=num_samples,
        num_leapfrog=num_leapfrog,
        preconditioner=preconditioner,
        weighting=weighting,
        moves=averages.make(average, num_averaged, point_stride, num_leapfrog),
        phi=(phi_loss, num_phi_samples, num_phi_steps, wake_share),
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
    check_count("num_samples", num_samples)
    propose = proposals.importance(num_samples)

    def sample(key, theta, phi, x, step_sizes):
        samples = propose(key, posterior_path(model, theta, phi, x), step_sizes)
        if uniform:
            samples = samples._replace(log_w=jnp.zeros_like(samples.log_w))
        return jax.lax.stop_gradient(samples)

    return Estimator(
        sample=sample,
        theta_loss=partial(weighted_loss, model),
        phi_loss=make_phi_loss(phi_loss, model, num_samples),
        num_samples=num_samples,
        num_points=num_samples,
        num_phi_samples=num_samples,
        num_phi_steps=1,
        num_moves=0,
        gradient_evaluations=2 * num_samples,
    )


def _check_final_moves(final_moves, average):
    check_count("final_moves", final_moves, 0)
    if final_moves == 0 and average != "end":
        raise ValueError(
            f"final_moves=0 with average={average!r}: use at least 1, since the points "
            "that are averaged are those of moves at beta = 1"
        )


def _with_moves(
    model,
    *,
    betas,
    num_moves,
    num_samples,
    num_leapfrog,
    preconditioner,
    weighting,
    moves,
    phi,
    resample_below=0.0,
):
    phi_loss, num_phi_samples, num_phi_steps, wake_share = phi
    check_count("num_samples", num_samples)
    check_count("num_leapfrog", num_leapfrog)
    check_count("num_phi_samples", num_phi_samples)
    check_count("num_phi_steps", num_phi_steps)
    lookup("preconditioner", preconditioner, PRECONDITIONERS)
    loss = lookup("phi_loss", phi_loss, PHI_LOSSES)
    transition, averaging = moves
    settings = betas, transition, num_samples, weighting, averaging, resample_below
    propose = proposals.annealed(*settings)
    has_factors = averaging is not None and averaging.keeps_factors
    one_pass = model.one_pass if has_factors and model.force is None else None

    def sample(key, theta, phi, x, step_sizes):
        path = posterior_path(model, theta, phi, x, preconditioner)
        if one_pass is not None:
            path = path._replace(score=partial(one_pass.score, theta, x))
        return jax.lax.stop_gradient(propose(key, path, step_sizes))

    num_points = 1 if averaging is None else averaging.num_points
    per_chain = 1 + num_leapfrog * num_moves + num_points
    return Estimator(
        sample=sample,
        theta_loss=partial(weighted_loss, model),
        phi_loss=make_phi_loss(loss, model, num_phi_samples, wake_share),
        num_samples=num_samples,
        num_points=num_samples * num_points,
        num_phi_samples=num_phi_samples,
        num_phi_steps=num_phi_steps,
        num_moves=num_moves,
        gradient_evaluations=num_samples * per_chain + num_phi_samples * num_phi_steps,
        theta_gradient=one_pass and partial(weighted_gradient, one_pass),
    )
