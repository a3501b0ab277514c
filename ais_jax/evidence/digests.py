"""A fingerprint of the data that a model observes, by which `compare` tells others."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike

from ais_jax.types import is_traced


def digest(observed: Sequence[ArrayLike]) -> int:
    """A number for what a model observes, which models of the same data share.

    Values count as float32 and in any order, so it does not matter how a model shares
    them out among its sites.

    Args:
        observed: values of each site.

    Returns:
        At least 1 and within 32 bits; 0, for unknown, where a value is traced or there
        is none.
    """
    if is_traced(list(observed)) or not observed:
        return 0
    values = [np.ravel(np.asarray(a, np.float32)) for a in observed]
    ordered = np.sort(np.concatenate(values) + np.float32(0.0))  # -0 is 0
    found = hashlib.sha256(ordered.astype("<f4").tobytes()).digest()
    return int.from_bytes(found[:4]) // 2 or 1
