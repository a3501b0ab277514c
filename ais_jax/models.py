"""Latent-variable models as bundles of pure functions, and the paths that they give.

Bring your own model by filling in a `LatentVariableModel`; nothing else in the library
knows what is inside.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ais_jax.path import AnnealingPath
from ais_jax.registry import lookup

PRECONDITIONERS = ("unit", "encoder")


class Distribution(NamedTuple):
    """A distribution over latent vectors, as closures built inside the traced function.

    Attributes:
        sample: key -> f32[D]; reparameterized where it depends on parameters.
        log_prob: f32[D] -> f32[], normalised, nats.
        mean: f32[D].
        scale: f32[D], standard deviations.
    """

    sample: Callable[[jax.Array], jax.Array]
    log_prob: Callable[[jax.Array], jax.Array]
    mean: jax.Array
    scale: jax.Array


class LatentVariableModel(NamedTuple):
    """A generative model p_theta(x, z) and its inference model q_phi(z|x).

    Every function is pure and takes one example x: f32[X] and one latent z: f32[D].

    Attributes:
        init: key -> (theta, phi), two pytrees of parameters.
        log_joint: (theta, x, z) -> f32[], log p(x, z), nats.
        prior: theta -> `Distribution` of z.
        proposal: (phi, x) -> `Distribution` of z given x, q_phi(z|x).
        decode: (theta, z) -> f32[X], the mean of p(x|z).
        simulate: (key, theta) -> (x, z), an exact draw from p(x, z).
        force: like log_joint, or None. Its gradient in z drives HMC in place of
            log_joint's (see `AnnealingPath.force`).
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    log_joint: Callable[[Any, jax.Array, jax.Array], jax.Array]
    prior: Callable[[Any], Distribution]
    proposal: Callable[[Any, jax.Array], Distribution]
    decode: Callable[[Any, jax.Array], jax.Array]
    simulate: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
    force: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None


def posterior_path(model, theta, phi, x, preconditioner="unit"):
    """The path from the encoder q_phi(z|x) to p_theta(x, z) for one example (Eq. 6).

    Args:
        model: a `LatentVariableModel`.
        theta: parameters of the generative model.
        phi: parameters of the inference model.
        x: f32[X].
        preconditioner: 'unit' for HMC of unit mass, as in the paper, or 'encoder' for
            HMC in units of the encoder's standard deviations.

    Returns:
        An `AnnealingPath` whose normalising constant is p(x).
    """
    q = model.proposal(phi, x)
    return _path(model, theta, x, q, _scale(q, preconditioner))


def prior_path(model, theta, phi, x, preconditioner="unit"):
    """The path from the prior p_theta(z) to p_theta(x, z) for one example.

    Args:
        model: a `LatentVariableModel`.
        theta: parameters of the generative model.
        phi: parameters of the inference model; read for its scale alone.
        x: f32[X].
        preconditioner: as for `posterior_path`.

    Returns:
        An `AnnealingPath` whose normalising constant is p(x).
    """
    scale = _scale(model.proposal(phi, x), preconditioner)
    return _path(model, theta, x, model.prior(theta), scale)


def _path(model, theta, x, base, scale):
    bind = lambda log_p: None if log_p is None else lambda z: log_p(theta, x, z)
    target, force = bind(model.log_joint), bind(model.force)
    return AnnealingPath(base.sample, base.log_prob, target, scale, force)


def _scale(proposal, preconditioner):
    lookup("preconditioner", preconditioner, PRECONDITIONERS)
    return proposal.scale if preconditioner == "encoder" else 1.0
