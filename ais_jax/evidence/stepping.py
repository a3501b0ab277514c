"""Log Z at every temperature of a run, and its picture."""

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ais_jax.types import AnyArray, is_traced

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def log_z_at(
    increments: Float[AnyArray, "T K"],
) -> tuple[Float[AnyArray, "T"], Float[AnyArray, "T"]]:
    """Log Z at the end of each increment of K independent chains' log weights.

    Returns:
        (log Z of the path at its temperatures but the first, its standard error by the
        delta method), nats.
    """
    xp: Any = jnp if is_traced(increments) else np
    with np.errstate(invalid="ignore"):  # infinities of chains that weigh zero
        log_w = xp.cumsum(increments, axis=0)
    log_w = xp.where(xp.isnan(log_w), -xp.inf, log_w)
    top = xp.max(log_w, axis=1)
    top = xp.where(xp.isfinite(top), top, 0.0)
    w = xp.exp(log_w - top[:, None])
    mean, num = xp.mean(w, axis=1), increments.shape[1]
    is_live = mean > 0.0
    mean = xp.where(is_live, mean, 1.0)
    error = xp.std(w, axis=1) / mean / math.sqrt(max(num - 1, 1))
    log_z = xp.where(is_live, xp.log(mean) + top, -xp.inf)
    return log_z, xp.where(is_live, error, xp.inf)


def plot(result: Any, ax: "Axes | None" = None) -> "Axes":
    """Draws log Z of a `LogNormalizer` against the inverse temperature.

    Args:
        result: of one run.
        ax: where to, or None for a new figure.

    Raises:
        ValueError: where its chains were resampled, or it is of several runs.
    """
    if result.log_z_at is None or np.ndim(result.log_z) > 0:
        raise ValueError(
            "the result has no log Z at its temperatures: give one result, of chains "
            "that were not resampled"
        )
    import matplotlib.pyplot as plt

    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    betas, error = np.asarray(result.plan.betas), np.append(0.0, result.error_at)
    log_z = np.append(0.0, result.log_z_at)
    ax.plot(betas, log_z)
    ax.fill_between(betas, log_z - 2.0 * error, log_z + 2.0 * error, alpha=0.3)
    ax.set_xlabel("inverse temperature, from the base (0) to the target (1)")
    ax.set_ylabel("log Z so far, nats (band: 2 errors)")
    ax.set_title(f"log Z = {float(log_z[-1]):.2f}")
    return ax
