"""Long computations in chunks that survive a kill."""

import os

import jax
import numpy as np

from experiments.progress import Progress


def run_chunks(folder, num, size, examples, function):
    """Runs a function over examples chunk by chunk; finished chunks are read back.

    Args:
        folder: where each chunk's results are kept.
        num: number of examples.
        size: examples in a chunk; the last one is filled up with its last example.
        examples: indices i[C] -> the chunk's arrays, with a leading axis of C.
        function: (indices, *arrays) -> dict of arrays with a leading axis of C.

    Returns:
        dict of arrays with a leading axis of `num`.
    """
    size = min(size, num)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    name = f"{folder.parent.name} {folder.name}"
    with Progress(num, 0, "example") as progress:
        for start in range(0, num, size):
            path = folder / f"{start:06d}-{min(start + size, num):06d}.npz"
            part = read_arrays(path)
            if part is None:
                indices = np.minimum(np.arange(start, start + size), num - 1)
                inputs = examples(indices)
                inputs = inputs if isinstance(inputs, tuple) else (inputs,)
                part = jax.device_get(function(indices, *inputs))
                part = {k: v[: num - start] for k, v in part.items()}
                write_arrays(path, part)
            parts.append(part)
            progress.update(min(start + size, num), name)
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def write_arrays(path, arrays):
    """Writes a dict of arrays as npz, atomically."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_arrays(path):
    """Reads what `write_arrays` wrote, or None where there is no such file."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
