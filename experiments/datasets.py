"""The data sets, as arrays: digits, MNIST, Omniglot and fixed-binarized MNIST.

Originals are looked for in `data_dir/NAME` and in `data_dir`, else downloaded, and
always verified by digest. What was parsed is cached as `NAME.npz` in
`data_dir/.cache` where that may be written, else in `$XDG_CACHE_HOME/ais_jax/ID`
(`~/.cache/ais_jax/ID`), ID a digest of data_dir's path. With the cache there, neither
the originals nor tensorflow-datasets nor network is needed. The cache is rebuilt
when an original that is there differs from the one it was made of.
"""

import difflib
import hashlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import sources
from experiments.sources import DataError

NAMES = tuple(sources.FILES)
_FORMAT = 1


class Dataset(NamedTuple):
    """Images as flat rows, without labels.

    Attributes:
      name: One of `NAMES`.
      train: f32[N, D], intensities in [0, 1], upright images row by row.
      test: f32[N_test, D].
      valid: f32[N_valid, D], or None where the data set has none.
      image_shape: Height and width; D is their product.
      is_binary: Whether the pixels are 0 or 1 already (a fixed binarization).
      digest: 16 hex digits that name these arrays and their order.
      source: One line for reports: where the data come from.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    valid: np.ndarray | None
    image_shape: tuple[int, int]
    is_binary: bool
    digest: str
    source: str


def check_available(name: str, data_dir: str | os.PathLike | None = None) -> None:
    """Say at once, before any long work, whether `load` can find its data.

    Args:
      name: One of `NAMES`.
      data_dir: As in `load`.

    Raises:
      DataError: An unknown name; a missing package; or missing files without
        network (known within 5 seconds).
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.0)
        raise DataError(
            f"unknown data set {name!r}: did you mean {close[0]!r}? "
            f"Known: {', '.join(NAMES)}"
        )
    root = _root(data_dir)
    caches = _cache_paths(name, root)
    if name == "digits" or not any(path.is_file() for path in caches):
        sources.require_modules(name)
        sources.require_files(name, root, caches)


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Load a data set, from its cache or else from its originals.

    Args:
      name: One of `NAMES`.
      data_dir: Folder with the originals; None or "" means `$AIS_JAX_DATA`, else
        `~/.cache/ais_jax/data`. "digits" needs none.

    Returns:
      The data set. A copy of Omniglot other than the IWAE study's is used with a
      warning that names both md5 digests.

    Raises:
      DataError: The name is unknown, or the data are missing or damaged.
    """
    check_available(name, data_dir)
    if name == "digits":
        return _dataset(name, *sources.build(name, Path()))
    root = _root(data_dir)
    content = _read_caches(name, root)
    if content is None:
        content = _build_and_cache(name, root)
    dataset = _dataset(name, *content)
    if name == "omniglot" and dataset.source != sources.STUDY_SOURCE:
        warnings.warn(
            "omniglot: chardata.mat is not the IWAE study's file (md5 "
            f"{sources.STUDY_MD5}) but: {dataset.source}",
            stacklevel=2,
        )
    return dataset


def _root(data_dir):
    default = os.environ.get("AIS_JAX_DATA") or "~/.cache/ais_jax/data"
    return Path(data_dir or default).expanduser()


def _dataset(name, arrays, source):
    side = 8 if name == "digits" else 28
    return Dataset(
        name=name,
        train=arrays["train"],
        test=arrays["test"],
        valid=arrays.get("valid"),
        image_shape=(side, side),
        is_binary=name == "binarized_mnist",
        digest=sources.digest(arrays),
        source=source,
    )


def _cache_paths(name, root):
    identity = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    folders = (root / ".cache", sources.user_cache() / identity)
    return tuple(folder / f"{name}.npz" for folder in folders)


def _fingerprint(name, root):
    """File name -> sha256 of each original that is there."""
    found = sources.find(name, root)
    return {f: hashlib.sha256(p.read_bytes()).hexdigest() for f, p in found.items()}


def _build_and_cache(name, root):
    sources.require_modules(name)
    sources.require_files(name, root, _cache_paths(name, root))
    logging.getLogger(__name__).info("preparing %s, once", name)
    arrays, source = sources.build(name, root)
    meta = {
        "format": _FORMAT,
        "digest": sources.digest(arrays),
        "source": source,
        "files": _fingerprint(name, root),
    }
    path = next(
        (p for p in _cache_paths(name, root) if sources.writable(p.parent)), None
    )
    try:
        if path is None:
            raise OSError("no folder for it may be written")
        _write_cache(path, arrays, meta)
    except OSError as error:
        warnings.warn(f"{name} was not cached: {error}", stacklevel=3)
    return arrays, source


def _write_cache(path, arrays, meta):
    compact = {split: _compact(x) for split, x in arrays.items()}
    with sources.replacing(path) as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **compact)


def _read_caches(name, root):
    """Arrays and source from the first cache that is whole and up to date."""
    files = _fingerprint(name, root)
    for path in _cache_paths(name, root):
        try:
            if path.is_file() and (content := _read_cache(path, files)):
                return content
        except Exception as error:
            warnings.warn(
                f"the cache {path} is damaged ({error}) and is not used", stacklevel=3
            )
    return None


def _read_cache(path, files):
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        if meta["format"] != _FORMAT or not files.items() <= meta["files"].items():
            return None
        arrays = {k: _expand(stored[k]) for k in stored.files if k != "meta"}
    if sources.digest(arrays) != meta["digest"]:
        raise ValueError("its digest does not fit")
    return arrays, meta["source"]


def _compact(x):
    """Store uint8 where every intensity is exactly k/255, else float32."""
    levels = np.rint(x * 255).astype(np.uint8)
    return levels if np.array_equal(_expand(levels), x) else x


def _expand(x):
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
