"""The data sets, as arrays: digits, MNIST, Omniglot and fixed-binarized MNIST.

Originals are looked for in `data_dir/NAME` and in `data_dir`, else downloaded, and
verified by digest. What was parsed is cached as `NAME.npz` in `data_dir/.cache` where
that may be written, else in the user's cache; with it, nothing else is needed. It is
rebuilt when an original that is there differs from the one it came from.
"""

import hashlib
import json
import logging
import os
import warnings

import numpy as np

from experiments.data import downloads, user_data
from experiments.data.catalogue import (
    CATALOGUE,
    REBUILT_DIGEST,
    STUDY_MD5,
    STUDY_SOURCE,
    TFDS,
)
from experiments.data.dataset import GIVEN, Dataset, digest
from experiments.system import files
from experiments.system.errors import DataError

NAMES = tuple(CATALOGUE)
_FORMAT = 1


def check_available(name: str, data_dir: str | os.PathLike | None = None) -> None:
    """Says at once, before any long work, whether `load` can find its data."""
    root, name = _root(data_dir), _catalogued(name)
    if name == GIVEN:
        raise DataError(
            f"dataset={GIVEN}: it is given in Python alone: train_and_evaluate(config, "
            "dataset=Dataset.from_arrays(train, test))"
        )
    if user_data.is_path(name):
        user_data.find(name, root)
        return
    if name.startswith(TFDS):
        downloads.require_packages(name, CATALOGUE["mnist"].packages)
        return
    if name not in NAMES:
        raise DataError(unknown(name))
    caches = _cache_paths(name, root)
    if name == "digits" or not any(path.is_file() for path in caches):
        downloads.require(name, root, caches)


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set, from its cache or else from its originals in `data_dir`.

    `data_dir` None or "" means `$AIS_JAX_DATA`, else `~/.cache/ais_jax/data`. A copy of
    Omniglot other than the IWAE study's is used with a warning that names both digests.
    A path is one of `user_data.load`; `tfds:NAME` one of `tfds_images.load`.

    Raises:
        DataError: the name is unknown, or the data are missing or damaged.
    """
    check_available(name, data_dir)
    root, name = _root(data_dir), _catalogued(name)
    if user_data.is_path(name):
        return user_data.load(name, root)
    if name.startswith(TFDS):
        from experiments.data import tfds_images

        return tfds_images.load(name.removeprefix(TFDS), root)
    if name == "digits":
        return _dataset(name, *_digits())
    dataset = _dataset(name, *(_read_caches(name, root) or _build(name, root)))
    if name == "omniglot" and dataset.source != STUDY_SOURCE:
        warnings.warn(
            "omniglot: chardata.mat is not the IWAE study's file (md5 "
            f"{STUDY_MD5}) but: {dataset.source}",
            stacklevel=2,
        )
    return dataset


def unknown(name: str) -> str:
    """One line that refuses an unknown name."""
    from ais_jax.checks import unknown_name

    near = unknown_name("dataset", name, NAMES)
    return f"{near} Or give a path (./NAME, NAME.npz, NAME.npy) or tfds:NAME."


def is_named(name: str) -> bool:
    """Whether `load` may know a data set by this name."""
    is_elsewhere = user_data.is_path(name) or name.startswith(TFDS)
    return name in (*NAMES, GIVEN) or is_elsewhere


def sizes(name: str, data_dir: str | os.PathLike | None = None):
    """(training images, an image's shape); what is not in the catalogue is loaded."""
    entry = CATALOGUE.get(_catalogued(name))
    if entry is not None:
        return entry.num_train, (entry.side, entry.side)
    dataset = load(name, data_dir)
    return len(dataset.train), dataset.image_shape


def _catalogued(name):
    """The name in the catalogue of what tensorflow-datasets calls the same."""
    bare = name.removeprefix(TFDS)
    return bare if bare in NAMES else name


def _root(data_dir):
    given = data_dir or os.environ.get("AIS_JAX_DATA")
    return files.user_path(given) if given else files.cache_home() / "ais_jax" / "data"


def _check_pixels(name, arrays):
    """Refuses what is no images of a data set, one a row, intensities in [0, 1]."""
    for split, x in arrays.items():
        shape = (len(x), CATALOGUE[name].num_pixels)
        if not len(x) or x.shape != shape or x.dtype != np.float32:
            raise DataError(f"{name}: {split} is {x.dtype}{list(x.shape)}, no images")
        if not (x.min() >= 0.0 and x.max() <= 1.0):  # nan is refused too
            raise DataError(
                f"{name}: {split} has pixels from {x.min()} to {x.max()}: intensities "
                "lie in [0, 1]; divide levels 0 to 255 by 255"
            )


def _dataset(name, arrays, source):
    entry = CATALOGUE[name]
    _check_pixels(name, arrays)
    return Dataset(
        name,
        arrays["train"],
        arrays["test"],
        arrays.get("valid"),
        (entry.side, entry.side),
        entry.is_binary,
        digest(arrays),
        source,
        levels=entry.levels,
    )


def _digits():
    from sklearn.datasets import load_digits

    images = (load_digits().data / 16.0).astype(np.float32)
    return {"train": images[:1500], "test": images[1500:]}, "scikit-learn digits"


def _omniglot(root):
    arrays, md5 = downloads.read_chardata(root)
    if md5 == STUDY_MD5:
        return arrays, STUDY_SOURCE
    kind = "rebuilt split" if digest(arrays) == REBUILT_DIGEST else "user's copy"
    return arrays, f"{kind} (md5 {md5})"


def _build(name, root):
    """Arrays and source from the originals, which are then cached."""
    downloads.require(name, root, _cache_paths(name, root))
    logging.getLogger(__name__).info("preparing %s, once", name)
    if name == "omniglot":
        arrays, source = _omniglot(root)
    else:
        from experiments.data import tfds_images

        arrays, source = tfds_images.build(name, root)
    meta = {
        "format": _FORMAT,
        "digest": digest(arrays),
        "source": source,
        "files": _fingerprint(name, root),
    }
    paths = [p for p in _cache_paths(name, root) if files.is_writable(p.parent)]
    try:
        if not paths:
            raise OSError("no folder for it may be written")
        compact = {split: _compact(x) for split, x in arrays.items()}
        files.write_arrays(paths[0], {"meta": np.array(json.dumps(meta)), **compact})
    except OSError as error:
        warnings.warn(f"{name} was not cached: {error}", stacklevel=3)
    return arrays, source


def _cache_paths(name, root):
    identity = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    folders = (root / ".cache", downloads.user_cache() / identity)
    return tuple(folder / f"{name}.npz" for folder in folders)


def _fingerprint(name, root):
    """File name -> sha256 of each original that is there."""
    return {f: _sha256(path) for f, path in downloads.find(name, root).items()}


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_caches(name, root):
    """Arrays and source from the first cache that is whole and up to date."""
    originals = _fingerprint(name, root)
    for path in _cache_paths(name, root):
        try:
            if path.is_file() and (content := _read_cache(path, originals)):
                return content
        except Exception as error:
            warnings.warn(
                f"the cache {path} is damaged ({error}) and is not used", stacklevel=3
            )
    return None


def _read_cache(path, originals):
    stored = files.load_arrays(path)
    meta = json.loads(str(stored.pop("meta")))
    if meta["format"] != _FORMAT or not originals.items() <= meta["files"].items():
        return None
    arrays = {split: _expand(x) for split, x in stored.items()}
    if digest(arrays) != (CATALOGUE[path.stem].digest or meta["digest"]):
        raise ValueError("its digest does not fit")
    _check_pixels(path.stem, arrays)
    return arrays, meta["source"]


def _compact(x):
    """uint8 where every intensity is exactly k/255, else float32."""
    levels = np.rint(x * 255).astype(np.uint8)
    return levels if np.array_equal(_expand(levels), x) else x


def _expand(x):
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
