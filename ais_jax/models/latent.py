"""Latent-variable models as bundles of pure functions, and the paths that they give.

Bring your own model by filling in a `LatentVariableModel`; nothing else in the library
knows what is inside.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.annealing.path import AnnealingPath, without_residuals
from ais_jax.checks import lookup
from ais_jax.numerics import normal_log_prob
from ais_jax.types import AnyArray, Params, PRNGKey, Scalar

HMC_SCALES = ("unit", "encoder")
WIDTH = 6.0  # of the wide start, in the encoder's standard deviations
LogJoint = Callable[[Params, Real[Array, "X"], Float[Array, "D"]], Scalar]


class Residuals(Protocol):
    """A pytree that a pass through log p(x, z) in z leaves for theta's gradient."""

    def gradient(
        self, theta: Params, weights: Float[Array, "N"]
    ) -> tuple[Scalar, Params]:
        """The weighted sum of N values of log p(x, z), and its gradient in theta.

        The residuals' arrays lead with an axis of N.
        """
        ...


TargetWithResiduals = Callable[
    [Params, Real[Array, "X"], Float[Array, "D"]],
    tuple[Scalar, Float[Array, "D"], Residuals | None],
]
"""(theta, x, z) -> (log p(x, z) in nats, force, residuals): see `path`.

With residuals, the force is the gradient of log p(x, z).
"""


class Distribution(NamedTuple):
    """A distribution over latent vectors, as closures built inside the traced function.

    Attributes:
        sample: a draw, reparameterized where it depends on parameters.
        log_prob: normalised, nats.
        mean: of each latent.
        scale: standard deviations.
    """

    sample: Callable[[PRNGKey], Float[Array, "D"]]
    log_prob: Callable[[Float[Array, "D"]], Scalar]
    mean: Float[Array, "D"]
    scale: Float[Array, "D"]


class LatentVariableModel(NamedTuple):
    """A generative model p_theta(x, z) and its inference model q_phi(z|x).

    Every function is pure and takes one example x and one latent vector z.

    Attributes:
        init: key -> (theta, phi), two pytrees of parameters.
        log_joint: (theta, x, z) -> log p(x, z), nats.
        prior: theta -> `Distribution` of z.
        proposal: (phi, x) -> `Distribution` of z given x, q_phi(z|x).
        decode: (theta, z) -> the mean of p(x|z).
        simulate: (key, theta) -> (x, z), an exact draw from p(x, z).
        target_with_residuals: what HMC evaluates in place of log_joint and its gradient
            in z, or None.
        observe: (key, theta, z) -> x, an exact draw from p(x|z), or None.
        of_row: row -> the model whose decode, simulate and observe are given what the
            row is: covariates and a library size, which follow its values; None where
            rows are values alone. See `given`.
    """

    init: Callable[[PRNGKey], tuple[Params, Params]]
    log_joint: LogJoint
    prior: Callable[[Params], Distribution]
    proposal: Callable[[Params, Real[Array, "X"]], Distribution]
    decode: Callable[[Params, Float[Array, "D"]], Float[Array, "X"]]
    simulate: Callable[[PRNGKey, Params], tuple[Real[Array, "X"], Float[Array, "D"]]]
    target_with_residuals: TargetWithResiduals | None = None
    observe: Callable[..., Real[Array, "X"]] | None = None
    of_row: Callable[..., "LatentVariableModel"] | None = None

    def given(self, row: Real[AnyArray, "X"] | None) -> "LatentVariableModel":
        """The model given a row's covariates and library size, where it has them."""
        return self if row is None or self.of_row is None else self.of_row(row)


def posterior_path(
    model: LatentVariableModel,
    theta: Params,
    phi: Params,
    x: Real[Array, "X"],
    hmc_scale: str = "unit",
) -> AnnealingPath:
    """The path from the encoder q_phi(z|x) to p_theta(x, z) for one example (Eq. 6).

    Args:
        model: gives the densities.
        theta: parameters of the generative model.
        phi: parameters of the inference model.
        x: the example.
        hmc_scale: 'unit' for HMC of unit mass, as in the paper, or 'encoder' for HMC
            in units of the encoder's standard deviations.

    Returns:
        A path whose normalising constant is p(x).
    """
    q = model.proposal(phi, x)
    return _path(model, theta, x, q, _scale(q, hmc_scale))


def prior_path(
    model: LatentVariableModel,
    theta: Params,
    phi: Params,
    x: Real[Array, "X"],
    hmc_scale: str = "unit",
) -> AnnealingPath:
    """The path from the prior p_theta(z) to p_theta(x, z) for one example.

    Args:
        model: gives the densities.
        theta: parameters of the generative model.
        phi: parameters of the inference model; read for its scale alone.
        x: the example.
        hmc_scale: 'unit' for HMC of unit mass, or 'encoder' for HMC in units of the
            encoder's standard deviations.

    Returns:
        A path whose normalising constant is p(x).
    """
    scale = _scale(model.proposal(phi, x), hmc_scale)
    return _path(model, theta, x, model.prior(theta), scale)


def wide_path(
    model: LatentVariableModel,
    theta: Params,
    phi: Params,
    x: Real[Array, "X"],
    hmc_scale: str = "unit",
) -> AnnealingPath:
    """The path from the encoder, widened, to p_theta(x, z) for one example.

    It starts from a normal distribution at q's mean with `WIDTH` times q's standard
    deviations, but no wider than the prior. Where the posterior has modes that the
    encoder misses, chains from here find more of them, on a longer way.

    Args:
        model: gives the densities.
        theta: parameters of the generative model.
        phi: parameters of the inference model.
        x: the example.
        hmc_scale: 'unit' for HMC of unit mass, or 'encoder' for HMC in units of the
            encoder's standard deviations.

    Returns:
        A path whose normalising constant is p(x).
    """
    q = model.proposal(phi, x)
    widened = jnp.minimum(WIDTH * q.scale, model.prior(theta).scale)
    scale = jnp.maximum(q.scale, widened)
    base = Distribution(
        lambda key: q.mean + scale * jax.random.normal(key, scale.shape, scale.dtype),
        lambda z: normal_log_prob(z, q.mean, scale),
        q.mean,
        scale,
    )
    return _path(model, theta, x, base, _scale(q, hmc_scale))


def _path(model, theta, x, base, scale):
    target = model.target_with_residuals
    path = AnnealingPath(
        sample_base=base.sample,
        log_base=base.log_prob,
        log_target=lambda z: model.log_joint(theta, x, z),
        scale=scale,
        target_with_residuals=None if target is None else partial(target, theta, x),
    )
    return without_residuals(path)


def _scale(proposal, hmc_scale):
    lookup("hmc_scale", hmc_scale, HMC_SCALES)
    return proposal.scale if hmc_scale == "encoder" else 1.0
