"""Long computations in chunks that survive a kill."""

import math

import jax
import numpy as np

from ais_jax import sharding
from experiments.system.devices import is_first
from experiments.system.files import read_arrays, write_arrays
from experiments.system.progress import Progress


def run_chunks(folder, num, size, examples, function, multiple=1):
    """Runs a function over examples chunk by chunk; finished chunks are read back.

    Args:
        folder: where each chunk's results are kept.
        num: number of examples.
        size: examples in a chunk; the last one is filled up with its last example.
        examples: indices i[C] -> tuple of the chunk's arrays, a leading axis of C each.
        function: (indices, *arrays) -> dict of arrays with a leading axis of C.
        multiple: C is rounded up to a multiple of it, the number of devices.

    Returns:
        dict of arrays with a leading axis of `num`.
    """
    size = math.ceil(min(size, num) / multiple) * multiple
    starts = range(0, num, size)
    paths = [folder / f"{a:06d}-{min(a + size, num):06d}.npz" for a in starts]
    parts = [read_arrays(path) for path in paths]
    is_missing = sharding.any_process([part is None for part in parts])
    lengths = np.minimum(size, num - np.asarray(starts))
    done = int(np.sum(lengths[~is_missing]))
    name = f"{folder.parent.name} {folder.name}"
    with Progress(num, done, "example") as progress:
        for i in np.flatnonzero(is_missing):
            indices = np.minimum(np.arange(starts[i], starts[i] + size), num - 1)
            inputs = jax.device_get(examples(indices))
            part = sharding.fetch(function(indices, *inputs))
            parts[i] = {k: v[: lengths[i]] for k, v in part.items()}
            if is_first():
                write_arrays(paths[i], parts[i])
            done += int(lengths[i])
            progress.update(done, name)
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
