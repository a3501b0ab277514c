"""Data sets by path: arrays in .npz and .npy, folders of images."""

from pathlib import Path

import numpy as np

from experiments.data.catalogue import TFDS
from experiments.data.dataset import Dataset
from experiments.system.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_SPLITS = ("train", "test", "valid")


def is_path(name: str) -> bool:
    """Whether a data set is named by a path."""
    if name.startswith(TFDS):
        return False
    return "/" in name or name.startswith(("~", ".")) or name.endswith((".npz", ".npy"))


def find(name: str, root: Path) -> Path:
    """The path as it is given, or else the file of that name in `root`.

    Raises:
        DataError: there is neither.
    """
    path = Path(name).expanduser()
    for place in (path, root / path.name):
        if place.exists():
            return place
    raise DataError(
        f"dataset={name}: there is no such file or folder, nor {root / path.name}"
    )


def load(name: str, root: Path) -> Dataset:
    """The data set of an .npz, an .npy or a folder of images.

    An .npz holds `train`, `test` and perhaps `valid`, or one array; a folder holds
    images, or the folders train, test and perhaps valid. One array, or one folder, is
    split by `dataset.SPLIT_SEED`.

    Raises:
        DataError: for a file or a folder that holds something else.
    """
    path = find(name, root)
    if path.is_dir():
        arrays = _read_folder(name, path)
    elif path.suffix in (".npz", ".npy"):
        arrays = _read_arrays(name, path)
    else:
        raise DataError(f"dataset={name}: use an .npz, an .npy or a folder of images")
    return Dataset.from_arrays(**arrays, name=name, source=path.name)


def _read_arrays(name, path):
    """Split -> array of a file of NumPy's."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"train": content}
        with content:
            arrays = {key: content[key] for key in content.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"dataset={name} cannot be read: {reason}") from error
    if len(arrays) == 1:
        return {"train": next(iter(arrays.values()))}
    if not {"train", "test"} <= arrays.keys():
        raise DataError(
            f"dataset={name} holds {', '.join(arrays) or 'nothing'}: use train and "
            "test, or one array"
        )
    return {split: arrays[split] for split in _SPLITS if split in arrays}


def _read_folder(name, path):
    """Split -> bytes [N, H, W(, 3)] of a folder's images, in the order of names."""
    parts = {split: path / split for split in _SPLITS if (path / split).is_dir()}
    if not parts:
        parts = {"train": path}
    files = {
        split: sorted(f for f in part.rglob("*") if f.suffix.lower() in SUFFIXES)
        for split, part in parts.items()
    }
    empty = [str(parts[split]) for split, each in files.items() if not each]
    if empty or "train" not in files:
        raise DataError(
            f"dataset={name}: {empty[0] if empty else path / 'train'} has no images "
            f"({', '.join(SUFFIXES)})"
        )
    is_grey = all(_mode(f) in ("1", "L") for each in files.values() for f in each)
    mode = "L" if is_grey else "RGB"
    images = {split: [_pixels(f, mode) for f in each] for split, each in files.items()}
    _check_sizes(name, files, images)
    return {split: np.stack(each) for split, each in images.items()}


def _mode(file):
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.mode
    except OSError as error:
        raise DataError(f"{file} is no image that can be read: {error}") from error


def _pixels(file, mode):
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode))
    except OSError as error:
        raise DataError(f"{file} is no image that can be read: {error}") from error


def _check_sizes(name, files, images):
    first = images["train"][0].shape
    for split, each in images.items():
        for file, image in zip(files[split], each):
            if image.shape != first:
                raise DataError(
                    f"dataset={name}: {file.name} is {image.shape[:2]}, not "
                    f"{first[:2]} as {files['train'][0].name}: make all of one size"
                )
