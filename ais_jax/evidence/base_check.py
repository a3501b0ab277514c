"""A look at a path's base before it is used: is it normalised, and sampled as it says?

A base without its constant, or draws of another width than its density's, shift log Z
and leave no trace in the weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.base import fit, student_path
from ais_jax.numerics import effective_sample_size, log_mean_exp, log_mean_exp_error
from ais_jax.types import AnyArray, PRNGKey

NUM = 1000  # draws of the base, and of a Student t that is fitted to them
FEWEST = 200.0  # of them that the weights must be worth for a verdict
SMALLEST = 0.1  # nats that an error is worth a word
CERTAIN = 6.0  # standard errors
AGREEMENT = 0.2  # between both ways of estimating the integral, of its logarithm


class Look(NamedTuple):
    """Log densities, nats, at draws of the base and at draws of the Student t.

    Attributes:
        base_at_base: of the base, at its own draws.
        fit_at_base: of the Student t there.
        base_at_fit: of the base, at draws of the Student t.
        fit_at_fit: of the Student t there.
    """

    base_at_base: Float[AnyArray, "N"]
    fit_at_base: Float[AnyArray, "N"]
    base_at_fit: Float[AnyArray, "N"]
    fit_at_fit: Float[AnyArray, "N"]


def look(key: PRNGKey, path: AnnealingPath) -> Look:
    """Draws from a flat path's base, and from what is fitted to them."""
    keys = jax.random.split(key, 2 * NUM)
    z = jax.vmap(path.sample_base)(keys[:NUM])
    fitted = student_path(fit(z, jnp.ones(NUM, z.dtype)), path.log_base)
    y = jax.vmap(fitted.sample_base)(keys[NUM:])
    base, of_fit = jax.vmap(path.log_base), jax.vmap(fitted.log_base)
    return Look(base(z), of_fit(z), base(y), of_fit(y))


def reason_against(seen: Look) -> str | None:
    """What is wrong with a base, and what to do; or None, also for no verdict.

    The integral is the mean of base / fit over draws of the fit, and one over the mean
    of fit / base over draws of the base. A verdict needs both: a narrow peak of the
    base is missed by the first, tails of the fit by the second.
    """
    seen = Look(*(np.asarray(a, float) for a in seen))
    back = seen.fit_at_base - seen.base_at_base
    forth = seen.base_at_fit - seen.fit_at_fit
    if not np.all(np.isfinite(back)) or effective_sample_size(forth) < FEWEST:
        return None
    log_back, log_integral = float(log_mean_exp(back)), float(log_mean_exp(forth))
    if abs(log_back) < SMALLEST + CERTAIN * float(log_mean_exp_error(back)):
        return None
    error = float(log_mean_exp_error(forth))
    if abs(log_integral) > SMALLEST + CERTAIN * error:
        if abs(log_integral + log_back) > SMALLEST + AGREEMENT * abs(log_integral):
            return None
        return (
            f"path.log_base integrates to about exp({log_integral:.2f}) and not to 1, "
            "which would shift log Z: add the constant that is missing"
        )
    weight = np.exp(forth - np.max(forth))
    weight /= weight.sum()
    values = np.where(weight > 0.0, seen.base_at_fit, 0.0)
    expected = float(weight @ values)
    error = np.hypot(
        np.sqrt(np.square(weight) @ np.square(values - expected)),
        seen.base_at_base.std() / np.sqrt(NUM),
    )
    found = float(seen.base_at_base.mean())
    if abs(found - expected) < SMALLEST + CERTAIN * error:
        return None
    return (
        f"path.sample_base does not draw from path.log_base: that is {found:.2f} at "
        f"its draws on average, where it should be {expected:.2f}"
    )
