"""The parameters of a run in one file, for other programs."""

import json
from pathlib import Path

import numpy as np

from experiments.run import folder, manifest
from experiments.system.errors import InputError
from experiments.system.files import replacing, write_arrays

SUFFIXES = (".npz", ".safetensors")


def export(run, path):
    """Writes theta and phi of a `run.Run`, with its config.json.

    Arrays, whose names are returned, are called `theta/...` and `phi/...` by their
    places in the pytrees; an .npz holds `config`, a text, beside them, and .safetensors
    has it in its metadata. `Run.load` opens an .npz.
    """
    content = {
        "version": folder.VERSION,
        "config": run.settings.saved,
        "image_shape": run.image_shape,
        "levels": run.levels,
        "num_covariates": run.settings.model["num_covariates"],
        "step": run.step,
    }
    path, config = Path(path), json.dumps(content)
    if path.suffix not in SUFFIXES:
        raise InputError(f"to={path}: use a name that ends in {' or '.join(SUFFIXES)}")
    trees = {"theta": run.theta, "phi": run.phi}
    leaves = manifest.leaves_by_path(trees)
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    if path.suffix == ".npz":
        write_arrays(path, {**arrays, "config": np.array(config)})
        return list(arrays)
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise InputError(
            f"to={path} needs safetensors: pip install safetensors, or use .npz"
        ) from error
    with replacing(path) as file:
        file.write(save(arrays, metadata={"config": config}))
    return list(arrays)
