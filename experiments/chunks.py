"""Long computations in chunks that survive a kill."""

import math
import os
import zipfile

import jax
import numpy as np

from ais_jax import sharding
from experiments import runs
from experiments.progress import Progress


def run_chunks(folder, num, size, examples, function, multiple=1):
    """Runs a function over examples chunk by chunk; finished chunks are read back.

    Args:
        folder: where each chunk's results are kept.
        num: number of examples.
        size: examples in a chunk; the last one is filled up with its last example.
        examples: indices i[C] -> the chunk's arrays, with a leading axis of C.
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
    done = sum(
        min(size, num - a) for a, is_left in zip(starts, is_missing) if not is_left
    )
    name = f"{folder.parent.name} {folder.name}"
    with Progress(num, done, "example") as progress:
        for i in np.flatnonzero(is_missing):
            indices = np.minimum(np.arange(starts[i], starts[i] + size), num - 1)
            inputs = jax.device_get(examples(indices))
            inputs = inputs if isinstance(inputs, tuple) else (inputs,)
            part = sharding.fetch(function(indices, *inputs))
            parts[i] = {k: v[: num - starts[i]] for k, v in part.items()}
            if runs.is_first():
                write_arrays(paths[i], parts[i])
            done += min(size, num - starts[i])
            progress.update(done, name)
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def write_arrays(path, arrays):
    """Writes a dict of arrays as npz, atomically; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_arrays(path):
    """Reads what `write_arrays` wrote, or None where there is no sound file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
