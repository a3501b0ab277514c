"""Where the images come from: local originals, packages, downloads.

`datasets.py` is the interface; here each data set is found, verified by digest,
and parsed. Nothing is parsed before its digest is known, and no pickle is read.
MNIST and its fixed binarization go through `tfds_images.py`; Omniglot is
`chardata.mat` of the IWAE study (Burda et al., 2016).
"""

import contextlib
import hashlib
import http.client
import importlib.util
import io
import os
import threading
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.cli import InputError

FILES = {
    "digits": {},
    "mnist": {
        "train": "train-images-idx3-ubyte.gz",
        "test": "t10k-images-idx3-ubyte.gz",
    },
    "omniglot": {"both": "chardata.mat"},
    "binarized_mnist": {
        "train": "binarized_mnist_train.amat",
        "validation": "binarized_mnist_valid.amat",
        "test": "binarized_mnist_test.amat",
    },
}
HOMES = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "omniglot": (
        "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/"
    ),
    "binarized_mnist": (
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
    ),
}
_TFDS_MODULES = ("tensorflow_datasets", "array_record", "importlib_resources")
_MODULES = {
    "digits": ("sklearn",),
    "mnist": _TFDS_MODULES,
    "omniglot": ("scipy",),
    "binarized_mnist": _TFDS_MODULES,
}
STUDY_SOURCE = "IWAE study's split"
STUDY_GIT_BLOB = "016a3536ffe5e1d38e42563a18d7a78bfaf643ec"
STUDY_MD5 = "21ecaf34373511aa7691cf2e0802aa3d"
# A rebuild of the study's file from the 105x105 originals, known by its arrays
# (`digest`): a .mat file's header holds a date, so its md5 is no identity.
REBUILT_DIGEST = "dfaa8628627647c6"


class DataError(InputError):
    """Data that are missing, damaged or unknown; the message says the mend."""


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """First 16 hex digits of a sha256 over names, shapes, values and order.

    Args:
      arrays: Split name -> array, hashed as little-endian float32 by sorted name.

    Returns:
      The digest; equal digests mean the same images in the same order.
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        sha.update(f"{name}{array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()[:16]


def find(name: str, root: Path) -> dict[str, Path]:
    """Local originals of a data set, in `root/name` or in `root` itself.

    Args:
      name: A data set's name.
      root: The data directory.

    Returns:
      File name -> path of each original that is there; an .amat file may be gzipped.
    """
    found = {}
    for file in FILES[name].values():
        places = (root / name / file, root / file)
        ends = ("", ".gz") if file.endswith(".amat") else ("",)
        for path in [p.with_name(p.name + end) for end in ends for p in places]:
            if path.is_file():
                found.setdefault(file, path)
    return found


def require_modules(name: str) -> None:
    """Raise `DataError` where a package that prepares this data set is missing."""
    missing = [m for m in _MODULES[name] if importlib.util.find_spec(m) is None]
    if missing:
        extra = '-e ".[digits]"' if name == "digits" else "-e ."
        raise DataError(
            f"data set {name!r} needs {', '.join(missing)}, which is not installed: "
            f"pip install {extra}"
        )


def require_files(name: str, root: Path, looked: tuple[Path, ...] = ()) -> None:
    """Raise `DataError`, within 5 seconds, where originals cannot be had.

    Args:
      name: A data set's name.
      root: The data directory.
      looked: Further paths that were tried, for the message.
    """
    found = find(name, root)
    missing = [file for file in FILES[name].values() if file not in found]
    if not missing or _is_reachable(HOMES[name] + missing[0]):
        return
    places = ", ".join(map(str, (root / name, root, *looked)))
    raise DataError(
        f"data set {name!r}: not here and {HOMES[name]} cannot be reached.\n"
        f"  missing: {', '.join(missing)}\n"
        f"  looked in: {places}\n"
        f"  mend: put the missing files into {root / name} (or name the folder that "
        "holds them with --config.data_dir), or run once on a machine with network."
    )


def build(name: str, root: Path) -> tuple[dict[str, np.ndarray], str]:
    """Find or download a data set's originals, verify and parse them.

    Args:
      name: One of `FILES`.
      root: The data directory.

    Returns:
      Split ("train", "test", maybe "valid") -> f32[N, D] in [0, 1], and a line
      that says where it comes from.

    Raises:
      DataError: A file is damaged, or neither here nor to be downloaded.
    """
    require_modules(name)
    if name == "digits":
        return _digits()
    if name == "omniglot":
        return _omniglot(root)
    from experiments import tfds_images

    return tfds_images.build(name, root)


def writable(folder: Path) -> bool:
    """Whether `folder`, or the folder it would be made in, may be written.

    A folder without any write permission bit counts as read-only for root too.
    """
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    allowed = os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_mode & 0o222
    return folder.is_dir() and bool(allowed)


def user_cache() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME`, or ~/.cache, /ais_jax."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "ais_jax"


@contextlib.contextmanager
def replacing(path: Path):
    """Open a temporary file that takes the place of `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _digits():
    from sklearn.datasets import load_digits

    images = (load_digits().data / 16.0).astype(np.float32)
    return {"train": images[:1500], "test": images[1500:]}, "scikit-learn digits"


def _omniglot(root):
    path = find("omniglot", root).get("chardata.mat") or _download_chardata(root)
    content = path.read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    arrays = _read_chardata(path, content, md5)
    if _git_blob(content) == STUDY_GIT_BLOB:
        return arrays, STUDY_SOURCE
    kind = "rebuilt split" if digest(arrays) == REBUILT_DIGEST else "user's copy"
    return arrays, f"{kind} (md5 {md5})"


def _read_chardata(path, content, md5):
    from scipy.io import loadmat

    try:
        matrices = loadmat(io.BytesIO(content), variable_names=("data", "testdata"))
        arrays = {"train": matrices["data"], "test": matrices["testdata"]}
        arrays = {split: _upright(x) for split, x in arrays.items()}
    except Exception as error:
        raise DataError(
            f"{path} is truncated or damaged ({error}): {len(content)} bytes, md5 "
            f"{md5}, where matrices data [784, 24345] and testdata [784, 8070] are "
            f"expected (the IWAE study's file has md5 {STUDY_MD5}).\n  mend: replace "
            "it by a fresh copy, or delete it and it is downloaded."
        ) from error
    return arrays


def _upright(x):
    """[784, N], pixels column by column, to f32[N, 784], row by row."""
    if x.ndim != 2 or x.shape[0] != 784 or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"a matrix {list(x.shape)}, or intensities outside [0, 1]")
    images = x.T.reshape(-1, 28, 28).swapaxes(1, 2)
    return np.ascontiguousarray(images, dtype=np.float32).reshape(-1, 784)


def _download_chardata(root):
    url = HOMES["omniglot"] + "chardata.mat"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"data set 'omniglot': {url} could not be downloaded ({error}).\n  mend: "
            f"put the file into {root / 'omniglot'}, or try again."
        ) from error
    if _git_blob(content) != STUDY_GIT_BLOB:
        raise DataError(
            f"data set 'omniglot': {url} gave {len(content)} bytes with git blob "
            f"{_git_blob(content)}, expected {STUDY_GIT_BLOB}; not used.\n  mend: try "
            f"again, or put your own copy into {root / 'omniglot'}."
        )
    path = root / "omniglot" / "chardata.mat"
    if not writable(path.parent):
        path = user_cache() / "omniglot" / "chardata.mat"
    with replacing(path) as file:
        file.write(content)
    return path


def _git_blob(content):
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
