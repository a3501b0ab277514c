"""Files: written whole or not at all, JSON with infinities, arrays, locks.

JSON has no NaN or infinity, so non-finite numbers are written as the strings "nan",
"inf" and "-inf", which `float` reads; `from_plain` turns them back.
"""

import contextlib
import errno
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments.system.errors import ConfigError, DamagedFile, InputError

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def user_path(path: str | os.PathLike) -> Path:
    """A path whose ~ is the home folder."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise InputError(f"{path}: there is no home folder ~ here: give the whole path")
    return Path(expanded)


def cache_home() -> Path:
    """The folder ~/.cache, or .cache in the working folder where there is no home."""
    home = os.path.expanduser("~")
    return Path("" if home == "~" else home) / ".cache"


def timestamp() -> str:
    """The time in a folder's name: two starts, even of one process, differ in it."""
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that takes the place of `path` once it is complete.

    Readers see the old file or the new one; the folder is created if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file by `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, obj: Any) -> None:
    """Writes what `to_plain` converts as indented JSON, by `replacing`."""
    write_text(path, json.dumps(to_plain(obj), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote; arrays come back as nested lists."""
    try:
        return from_plain(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: object) -> DamagedFile:
    """The error of a file that cannot be used."""
    text = " ".join(str(reason).split())[:200]
    return DamagedFile(f"{path} is damaged ({text}): put a copy back, or delete it")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that nothing more can be written."""
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
    while error is not None:
        if any(text in str(error) for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False


def to_plain(obj: Any) -> Any:
    """Converts dicts, lists, numbers and arrays to what JSON can hold."""
    if isinstance(obj, Mapping):
        return {str(key): to_plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_plain(value) for value in obj]
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else str(float(obj))
    if obj is None or isinstance(obj, str | int):
        return obj
    if hasattr(obj, "tolist"):
        return to_plain(obj.tolist())
    raise TypeError(f"cannot write {type(obj).__name__} as JSON: {obj!r}")


def from_plain(obj: Any) -> Any:
    """Turns the strings of non-finite numbers back into numbers."""
    if isinstance(obj, dict):
        return {key: from_plain(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [from_plain(value) for value in obj]
    return _NON_FINITE.get(obj, obj) if isinstance(obj, str) else obj


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a dict of arrays as npz, by `replacing`."""
    with replacing(path) as file:
        np.savez(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote; whatever is wrong with it is raised."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        if any(member.compress_type for member in arrays.zip.infolist()):
            raise ValueError("its arrays are compressed, and not by this program")
        return dict(arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Reads what `write_arrays` wrote, or None where there is no sound file."""
    try:
        return load_arrays(path)
    except Exception:  # zip and npy readers raise nearly any
        return None


def prepare(workdir: Path) -> None:
    """Makes a folder to write results in, and proves that it can be written."""
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise ConfigError(
            f"workdir={workdir} cannot be written ({error.strerror}): choose another "
            "--workdir"
        ) from error


@contextlib.contextmanager
def prepared(workdir: Path) -> Iterator[None]:
    """Does as `prepare`; where bad input is refused inside, new empty folders go."""
    new = [path for path in (workdir, *workdir.parents) if not path.exists()]
    prepare(workdir)
    try:
        yield
    except InputError:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


def is_writable(folder: Path) -> bool:
    """Whether `folder`, or the folder it would be created in, may be written.

    A folder without any write permission bit counts as read-only for root too.
    """
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    allowed = os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_mode & 0o222
    return folder.is_dir() and bool(allowed)


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[bool]:
    """Holds a folder's lock; yields False where another process holds it."""
    import filelock

    lock = filelock.FileLock(folder / name, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        pass  # this file system has no locks
    try:
        yield True
    finally:
        lock.release()
