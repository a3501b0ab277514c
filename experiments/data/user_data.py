"""Data sets by path: arrays in .npz and .npy, folders of images."""

import os
import re
from itertools import chain
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from experiments.data.catalogue import TFDS
from experiments.data.dataset import Dataset
from experiments.system.errors import DataError, InputError
from experiments.system.files import user_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
_SPLITS = {  # word in the name of an array or folder -> split
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
}
_BESIDE = {"mask": "masks", "covariates": "covariates"}  # word -> what goes with rows
_LABELS = {"y", "label", "labels", "target", "targets"}  # arrays so named are left out


def is_path(name: str) -> bool:
    """Whether a data set is named by a path."""
    if name.startswith(TFDS):
        return False
    return "/" in name or name.startswith(("~", ".")) or name.endswith((".npz", ".npy"))


def find(name: str, root: Path) -> Path:
    """The path as it is given, or else the file of that name in `root`."""
    path = user_path(name)
    for place in (path, root / path.name):
        if place.exists():
            return place
    raise DataError(
        f"dataset={name}: there is no such file or folder, nor {root / path.name}"
    )


def load(name: str, root: Path) -> Dataset:
    """The data set of an .npz, an .npy or a folder of images.

    An .npz holds one array, or an array for each split; a folder holds images, or
    folders for each split. A split is a word of the name: train, training, test,
    testing, val, valid, validation. An array whose name has y, label or target, and
    what a Macintosh adds, is left out. An array called mask says which values of its
    split are there; one called covariates is given with its rows. Without a split for
    tests the training images are split by `dataset.SPLIT_SEED`.
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
        with path.open("rb") as file:
            return _arrays_of(name, np.load(file, allow_pickle=False))
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"dataset={name} cannot be read: {reason}") from error


def _arrays_of(name, content):
    """Split -> array of what `np.load` gives."""
    if isinstance(content, np.ndarray):
        return {"train": content}
    keys = [key for key in content.files if _is_own(key)]
    beside = {
        kind: {s: content[key] for s, key in _beside(name, keys, word).items()}
        for word, kind in _BESIDE.items()
    }
    rest = [key for key in keys if not _words(key) & _BESIDE.keys()]
    return {s: content[key] for s, key in _by_split(name, rest).items()} | beside


def _beside(name, keys, word):
    """Split -> name of its array of masks, or of covariates."""
    found = {}
    for key in keys:
        if word in _words(key):
            first = found.setdefault(_split(key) or "train", key)
            if first != key:
                raise DataError(f"dataset={name} holds {first} and {key}: give one")
    return found


def _by_split(name, keys):
    """Split -> name of its array; of one array without a split, train."""
    images = [key for key in keys if not _words(key) & _LABELS]
    splits = {key: _split(key) for key in images}
    if len(images) == 1 and splits[images[0]] is None:
        return {"train": images[0]}
    found = {split: key for key, split in splits.items()}
    if None in found or "train" not in found or len(found) < len(images):
        raise DataError(
            f"dataset={name} holds {', '.join(keys) or 'nothing'}: name them train, "
            "test and perhaps valid, or give one array"
        )
    return found


def _words(name):
    return set(re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower()))


def _split(name):
    """The one split that a name's words say, such as Train or x_val, or None."""
    splits = {_SPLITS[word] for word in _words(name) & _SPLITS.keys()}
    return splits.pop() if len(splits) == 1 else None


def _is_own(path):
    """Whether no part of a path is hidden, or what a Macintosh adds."""
    parts = Path(path).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _read_folder(name, path):
    """Split -> [N, H, W(, 3)] of a folder's images, in the order of names."""
    files = _files_by_split(name, path)
    images = {split: [_pixels(f) for f in each] for split, each in files.items()}
    _check_alike(name, files, images)
    if (
        len({image.ndim for image in chain(*images.values())}) > 1
    ):  # some are grey, others not
        for each in images.values():
            each[:] = [x if x.ndim == 3 else np.stack([x] * 3, -1) for x in each]
    return {split: np.stack(each) for split, each in images.items()}


def _files_by_split(name, path):
    """Split -> its images, by the outermost folder that names one; else all train."""
    files = {}
    for file in sorted(_files(path)):
        inner = file.relative_to(path)
        if _is_own(inner) and file.suffix.lower() in SUFFIXES:
            splits = filter(None, map(_split, inner.parts[:-1]))
            files.setdefault(next(splits, None), []).append(file)
    named = {_split(p.name) for p in path.iterdir() if p.is_dir()} - {None}
    if files.keys() == {None} and not named:
        if len(words := {_split(f.stem) for f in files[None]} - {None}) > 1:
            raise DataError(
                f"dataset={name}: images are called {' and '.join(sorted(words))}: "
                "put them into folders so called"
            )
        return {"train": files[None]}
    if None in files and len(files) > 1:
        raise DataError(
            f"dataset={name}: {files.pop(None)[0]} is in no folder of a split, as "
            f"others are of {min(files)}: put all into train, test or valid"
        )
    if missing := ({"train"} | named) - files.keys():
        raise DataError(
            f"dataset={name} has no images for {min(missing)} ({', '.join(SUFFIXES)})"
        )
    return files


def _files(path):
    """The files of a folder and of those within it, also by links, each folder once."""
    seen = set()
    for folder, inner, names in os.walk(path, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort()  # the same one of two links on every machine
        yield from (Path(folder) / name for name in names)


def _pixels(file):
    """An upright image: [H, W] of a grey one, [H, W, 3] of others."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            is_deep = opened.mode == "RGB" and ";16" in str(opened.tile)
            is_film = getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO"
            image = ImageOps.exif_transpose(opened)
        alpha = 255
        if image.mode[-1] in "Aa" or "transparency" in image.info:
            alpha, _ = image.convert("RGBA").getchannel("A").getextrema()
        if not image.mode.startswith(("I", "F")):  # those have more than 8 bits
            image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read: {error}") from error
    if is_film or alpha < 255:
        what = "has several frames" if is_film else "is transparent in places"
        raise DataError(f"{file} {what}: save it as one opaque image")
    if is_deep:
        raise DataError(
            f"{file} has 16 bits for each colour, of which 8 would be read: save it "
            "with 8, or the numbers in an .npz"
        )
    is_wide = image.mode == "I" and opened.format == "PPM"  # 16 bits, read as 32
    return np.asarray(image, np.uint16 if is_wide else None)


def _check_alike(name, files, images):
    """Refuses images that differ in size, or in the numbers of their levels."""
    like = [(x.shape[:2], x.dtype.name) for x in chain(*images.values())]
    for file, this in zip(chain(*files.values()), like):
        if this != like[0]:
            raise DataError(
                f"dataset={name}: {file.name} is {this[0]} of {this[1]}, not "
                f"{like[0][0]} of {like[0][1]} as the first: make all alike"
            )
