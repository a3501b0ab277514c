"""Images in the units of data that a run was trained on."""

import numpy as np

from experiments.data.dataset import WHITE
from experiments.system.errors import DataError


def in_units(x, levels: int, likelihood: str) -> np.ndarray:
    """Images in the units of data whose whole numbers were divided by `levels`.

    The same numbers are the same images in any type: whole ones are divided, unless all
    of them are 0 or 1, and others are intensities already.
    """
    from ais_jax import likelihoods

    x = np.asarray(x)
    seen = x[~np.isnan(x)] if x.dtype.kind in "uif" else x[:0]
    if not seen.size or (seen != np.rint(seen)).any():
        return x
    low, high = seen.min(), seen.max()
    is_count = likelihoods.LIKELIHOODS[likelihood].is_count
    if levels > 1 and not 0 <= low <= high <= levels:
        raise DataError(
            f"x has whole numbers from {low:g} to {high:g}: those of this run's images "
            f"are 0 to {levels}; give these, or intensities from 0 to 1"
        )
    if x.dtype.name in WHITE and high > 1 and levels == 1 and not is_count:
        raise DataError(
            f"x is {x.dtype}, and this run was trained on numbers in other units: give "
            "floats as its training images had"
        )
    scale = levels if high > 1 else 1
    return x.astype(np.float32) / np.float32(scale)
