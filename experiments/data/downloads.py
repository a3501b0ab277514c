"""The original files of the data sets: where they are, and Omniglot's download.

Nothing is parsed before its digest is known, and no pickle is read. Omniglot is
`chardata.mat` of the IWAE study (Burda et al., 2016).
"""

import contextlib
import hashlib
import http.client
import importlib.util
import io
import os
import struct
import threading
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from experiments.data.catalogue import CATALOGUE, STUDY_MD5
from experiments.system.errors import DataError
from experiments.system.files import cache_home, is_writable, user_path

_COMPRESSED = 15  # type of an element of a .mat file
_LARGEST = 784 * 24345 * 8 + 2**16  # bytes: `data`, and its names and sizes


def find(name: str, root: Path) -> dict[str, Path]:
    """Name -> path of each original in `root/name` or `root`; .amat may be gzipped."""
    paths = {}
    for file in CATALOGUE[name].files.values():
        places = (root / name / file, root / file)
        if name in ("fashion_mnist", "kmnist"):  # their files have MNIST's names
            places = places[:1]
        ends = ("", ".gz") if file.endswith(".amat") else ("",)
        for path in [p.with_name(p.name + end) for end in ends for p in places]:
            if path.is_file():
                paths.setdefault(file, path)
    return paths


def require(name: str, root: Path, looked: tuple[Path, ...] = ()) -> None:
    """Raises `DataError`, within 5 seconds, where a data set cannot be prepared.

    The message names the further paths that were `looked` at.
    """
    entry = CATALOGUE[name]
    require_packages(name, entry.packages)
    here = find(name, root)
    missing = [file for file in entry.files.values() if file not in here]
    if not missing or _is_reachable(entry.home + missing[0]):
        return
    places = ", ".join(map(str, (root / name, root, *looked)))
    raise DataError(
        f"data set {name!r}: not here and {entry.home} cannot be reached.\n"
        f"  missing: {', '.join(missing)}\n"
        f"  looked in: {places}\n"
        f"  put the missing files into {root / name} (or name the folder that holds "
        "them with --config.data_dir), or run once on a machine with network."
    )


def require_packages(name: str, packages: tuple[str, ...]) -> None:
    """Raises `DataError` where a package that a data set needs is missing."""
    absent = [m for m in packages if importlib.util.find_spec(m) is None]
    if absent:
        extra = "digits" if name == "digits" else "experiments"
        raise DataError(
            f"data set {name!r} needs {', '.join(absent)}, which is not installed: "
            f'pip install -e ".[{extra}]"'
        )


def user_cache() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME`, or ~/.cache, /ais_jax."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (user_path(home) if home else cache_home()) / "ais_jax"


def read_chardata(root: Path) -> tuple[dict[str, np.ndarray], str]:
    """Omniglot's splits f32[N, 784] and its file's md5; it is downloaded if missing."""
    from scipy.io import loadmat

    path = find("omniglot", root).get("chardata.mat") or _download_chardata(root)
    content = path.read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    try:
        _check_expansion(content)
        matrices = loadmat(io.BytesIO(content), variable_names=("data", "testdata"))
        arrays = {"train": matrices["data"], "test": matrices["testdata"]}
        arrays = {split: _upright(x) for split, x in arrays.items()}
    except Exception as error:
        raise DataError(
            f"{path} is truncated or damaged ({error}): {len(content)} bytes, md5 "
            f"{md5}, where matrices data [784, 24345] and testdata [784, 8070] are "
            f"expected (the IWAE study's file has md5 {STUDY_MD5}).\n  Replace it by a "
            "fresh copy, or delete it and it is downloaded."
        ) from error
    return arrays, md5


def _check_expansion(content):
    """Refuses compressed parts that expand to more than the largest known matrix."""
    order = "<" if content[126:128] == b"IM" else ">"
    start = 128  # the first element follows the header
    while start + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, start)
        start += 8
        if kind == _COMPRESSED:
            expander = zlib.decompressobj()
            expander.decompress(content[start : start + size], _LARGEST)
            if expander.unconsumed_tail:
                raise ValueError(f"a matrix expands to more than {_LARGEST} bytes")
        start += size


def _upright(x):
    """[784, N], pixels column by column, to f32[N, 784], row by row."""
    if x.ndim != 2 or x.shape[0] != 784 or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"a matrix {list(x.shape)}, or intensities outside [0, 1]")
    images = x.T.reshape(-1, 28, 28).swapaxes(1, 2)
    return np.ascontiguousarray(images, dtype=np.float32).reshape(-1, 784)


def _download_chardata(root):
    import pooch

    url = CATALOGUE["omniglot"].home + "chardata.mat"
    folder = root / "omniglot"
    if not is_writable(folder):
        folder = user_cache() / "omniglot"
    fetch = pooch.HTTPDownloader(timeout=30)
    try:
        path = pooch.retrieve(
            url, f"md5:{STUDY_MD5}", "chardata.mat", folder, None, fetch
        )
    except (OSError, ValueError) as error:  # no network, or another digest
        raise DataError(
            f"data set 'omniglot': {url} could not be downloaded ({error}); not used.\n"
            f"  Try again, or put a copy into {root / 'omniglot'}."
        ) from error
    return Path(path)


def _is_reachable(url: str, seconds: float = 4.0) -> bool:
    """One short attempt, in a thread because name resolution has no timeout."""
    answers = []

    def probe():
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(url)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)
