"""Long computations in chunks that survive a kill."""

import math

import jax
import numpy as np

from ais_jax import sharding
from experiments.system.devices import is_first
from experiments.system.errors import NonFiniteResult
from experiments.system.files import read_arrays, write_arrays


def run_chunks(folder, examples, function, names, *, load, size, multiple=1, tell=None):
    """Runs a function over examples chunk by chunk; finished chunks are read back.

    Args:
        folder: where each chunk's results are kept, or None to keep nothing.
        examples: i[N] or i[N, 2], indices of the examples, and what else names them.
        function: (indices i[C], *arrays) -> dict of arrays [C, ...].
        names: of these arrays. They are finite, but for log weights and an `_error` of
            one chain.
        load: indices i[C] -> tuple of the chunk's arrays [C, ...].
        size: examples in a chunk; the last one is filled up with its last example.
        multiple: C is rounded up to a multiple of it, the number of devices.
        tell: called with the number of examples of each chunk that is there.

    Returns:
        dict of arrays [N, ...].
    """
    num = len(examples)
    size = math.ceil(min(size, num) / multiple) * multiple
    starts = range(0, num, size)
    ends = [f"{a:06d}-{min(a + size, num):06d}.npz" for a in starts]
    lengths = np.minimum(size, num - np.asarray(starts))
    parts = [folder and read_arrays(folder / end) for end in ends]
    is_missing = sharding.any_process(
        [not _is_sound(part, names, n) for part, n in zip(parts, lengths)]
    )
    tell = tell or (lambda _: None)
    tell(int(np.sum(lengths[~is_missing])))
    stage = "" if folder is None else f"{folder.parent.name}/{folder.name}"
    for i in np.flatnonzero(is_missing):
        places = np.minimum(np.arange(starts[i], starts[i] + size), num - 1)
        indices = examples[places]
        inputs = jax.device_get(load(indices))
        part = sharding.fetch(function(indices, *inputs))
        parts[i] = {k: part[k][: lengths[i]] for k in names}
        _check_finite(parts[i], indices, stage)
        if folder is not None and is_first():
            write_arrays(folder / ends[i], parts[i])
        tell(int(lengths[i]))
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _is_sound(part, names, length):
    """Whether a chunk that was read back holds what this computation would write."""
    return (
        part is not None
        and part.keys() == set(names)
        and all(v.ndim and len(v) == length for v in part.values())
        and _first_non_finite(part) is None
    )


def _first_non_finite(part):
    """(name, row) of a value that is not finite, or None."""
    for name, values in part.items():
        rows = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if not name.endswith(("error", "log_w")) and not rows.all():
            return name, int(np.argmin(rows))
    return None


def _check_finite(part, indices, stage):
    if (place := _first_non_finite(part)) is not None:
        name, row = place
        raise NonFiniteResult(
            f"{name} of example {np.ravel(indices[row])[0]} is not finite ({stage}): "
            "nothing is reported. Evaluate with evaluation.preconditioner=unit, or an "
            "earlier checkpoint."
        )
