"""Where temperatures go: the spread of log ratios and what is read off it."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ais_jax.types import AnyArray

SMOOTHING = 5  # temperatures over which a pilot's numbers are averaged
SMALLEST_SHARE = 0.1  # of the mean density, kept everywhere: spreads are noisy
SMALLEST_DENSITY = 1e-6  # where the base is the target and nothing spreads
OUTLIER = 50.0  # a penalty is this many times as far below as the bulk is wide


def is_sound(ratios: Float[AnyArray, "P K *N"]) -> Bool[Array, "P K *N"]:
    """Which log ratios say how fast weights spread, and not that a wall was hit.

    Left out are those of zero density, and penalties: outliers far below the bulk,
    judged by two quantiles of its upper part, where more than a third of the chains
    may be outliers.
    """
    is_finite = jnp.isfinite(ratios)
    falling = -jnp.sort(-jnp.where(is_finite, ratios, -jnp.inf), axis=1)
    num = jnp.sum(is_finite, axis=1, keepdims=True).astype(ratios.dtype)

    def quantile(share):
        place = jnp.floor(share * num).astype(int)
        value = jnp.take_along_axis(falling, place, axis=1)
        return jnp.where(jnp.isfinite(value), value, 0.0)

    top, bulk = quantile(0.1), quantile(0.4)
    least = bulk - jnp.maximum(OUTLIER * (top - bulk), 1.0)
    return is_finite & (ratios >= least)


def spread(ratios: Float[AnyArray, "P K *N"]) -> Float[Array, "*N"]:
    """Standard deviation of the log ratio over chains, averaged over examples."""
    sound = is_sound(ratios)
    mean = mean_where(ratios, sound, (1,), keepdims=True)
    deviations = jnp.where(sound, ratios - mean, 0.0)
    largest = jnp.max(jnp.abs(deviations), axis=(0, 1), keepdims=True)
    largest = jnp.maximum(largest, 1e-30)  # so that no square overflows
    free = jnp.sum(jnp.maximum(jnp.sum(sound, axis=1) - 1, 0), axis=0)
    free = jnp.maximum(free, 1).astype(ratios.dtype)
    squares = jnp.sum(jnp.square(deviations / largest), axis=(0, 1))
    return largest[0, 0] * jnp.sqrt(squares / free)


def place(
    betas: Float[AnyArray, "N_plus_1"], density: Float[AnyArray, "N"], num: int
) -> Float[Array, "T_plus_1"]:
    """Betas of `num` intervals, each holding an equal share of the density."""
    return place_at(betas, density, jnp.linspace(0.0, 1.0, num + 1))


def place_at(
    betas: Float[AnyArray, "N_plus_1"],
    density: Float[AnyArray, "N"],
    shares: Float[AnyArray, "S"],
) -> Float[Array, "S"]:
    """The betas below which are these shares of the density.

    A share of the mean density is added everywhere.
    """
    widths = jnp.diff(betas)
    density = density + SMALLEST_SHARE * jnp.sum(widths * density) + SMALLEST_DENSITY
    length = jnp.append(jnp.zeros_like(density[:1]), jnp.cumsum(widths * density))
    new = jnp.interp(shares * length[-1], length, betas)
    whole = 1.0 - jnp.finfo(new.dtype).eps  # XLA may make less than 1 of num / num
    return jnp.where(shares >= whole, 1.0, jnp.where(shares <= 0.0, 0.0, new))


def interpolate(
    x: Float[AnyArray, "T"],
    places: Float[AnyArray, "N"],
    rows: Float[AnyArray, "N ..."],
) -> Float[Array, "T ..."]:
    """Rows that stand at rising places, interpolated linearly to others."""
    right = jnp.sum(places[None] < x[:, None], axis=1)  # a searchsorted compiles slowly
    right = jnp.clip(right, 1, max(1, len(places) - 1))
    left, right = right - 1, jnp.minimum(right, len(places) - 1)
    width = places[right] - places[left]
    share = (x - places[left]) / jnp.where(width > 0.0, width, 1.0)
    share = jnp.clip(share, 0.0, 1.0).reshape(-1, *[1] * (rows.ndim - 1))
    return (1.0 - share) * rows[left] + share * rows[right]


def mean_where(
    values: Float[AnyArray, "P K *N"],
    where: Bool[Array, "P K *N"],
    axis: tuple[int, ...] = (0, 1),
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """Mean over chains and examples of what counts; of all of it where nothing does."""
    where = where | ~jnp.any(where, axis=axis, keepdims=True)
    total = jnp.sum(jnp.where(where, values, 0.0), axis=axis, keepdims=keepdims)
    return total / jnp.sum(where, axis=axis, keepdims=keepdims).astype(total.dtype)


def smooth(
    values: Float[AnyArray, "N ..."], width: int = SMOOTHING
) -> Float[Array, "N ..."]:
    """Moving average over the first axis that shortens its window at the ends."""
    num = values.shape[0]
    distance = jnp.abs(jnp.arange(num)[:, None] - jnp.arange(num)[None])
    window = (distance <= width // 2).astype(values.dtype)
    window = window / jnp.sum(window, axis=1, keepdims=True)
    return jnp.tensordot(window, values, 1)
