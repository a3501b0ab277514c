"""Files: whole or not at all, JSON with infinities, arrays, locks."""

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.system import files
from experiments.system.errors import ConfigError, DamagedFile, InputError
from experiments.system.files import read_json, write_json


def test_json_round_trip(tmp_path):
    obj = {
        "name": "ais",
        "seeds": (1, 2),
        "log_p": jnp.array([-1.5, 2.5]),
        "bfloat16": jnp.bfloat16(0.5),
        "float64": np.float64(0.1),
        "int": np.int32(7),
        "flag": np.bool_(True),
        "none": None,
        "gap": np.array([np.inf, 1.0]),
        10: {"nested": jnp.zeros((1, 2))},
    }
    path = tmp_path / "results" / "digits.json"
    write_json(path, {"old": 1})
    write_json(path, obj)
    expected = {
        "name": "ais",
        "seeds": [1, 2],
        "log_p": [-1.5, 2.5],
        "bfloat16": 0.5,
        "float64": 0.1,
        "int": 7,
        "flag": True,
        "none": None,
        "gap": [math.inf, 1.0],
        "10": {"nested": [[0.0, 0.0]]},
    }
    assert read_json(path) == expected
    assert list(json.loads(path.read_text())) == list(expected)
    assert [file.name for file in path.parent.iterdir()] == ["digits.json"]


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError, match="cannot write object as JSON"):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == [1]


def test_a_file_that_is_not_completed_leaves_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_arrays_come_back_and_damaged_ones_do_not(tmp_path):
    path = tmp_path / "chunks" / "a.npz"
    assert files.read_arrays(path) is None
    files.write_arrays(path, {"x": np.arange(3.0)})
    np.testing.assert_array_equal(files.read_arrays(path)["x"], np.arange(3.0))
    path.write_bytes(path.read_bytes()[:-5])
    assert files.read_arrays(path) is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1', "[" * 100_000, "\x00\xff", "nan,"]
)
def test_damaged_json_is_one_line_that_names_the_file(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(DamagedFile) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path} is damaged (")
    assert "delete it" in str(error.value) and "\n" not in str(error.value)


def _npz_of_4_tb(path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    header = header.ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", array + header.encode())


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", bytes(300), b"\x93NUMPY", None]
)
def test_nonsense_arrays_are_none(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is None:
        _npz_of_4_tb(path)
    else:
        path.write_bytes(content)
    assert files.read_arrays(path) is None


def test_a_lock_is_held_by_one_and_then_free_again(tmp_path):
    for _ in range(2):
        with files.locked(tmp_path) as first, files.locked(tmp_path) as second:
            assert first and not second


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run cannot be written .*--workdir"):
        files.prepare(tmp_path / "file" / "run")


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_refusal_leaves_no_new_folder(tmp_path, is_refused):
    workdir = tmp_path / "runs" / "new"
    with contextlib.suppress(InputError), files.prepared(workdir):
        assert workdir.exists()
        if is_refused:
            raise InputError
    assert workdir.exists() == (tmp_path / "runs").exists() == (not is_refused)
    assert tmp_path.exists()


def test_a_full_disk_is_known_by_any_error_that_comes_from_it():
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ValueError("cannot save") from error
    except ValueError as error:
        assert files.is_disk_full(error)
    assert files.is_disk_full(ValueError("RESOURCE_EXHAUSTED: No space left on device"))
    assert not files.is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))


FULL = """
from tensorboardX import SummaryWriter
from experiments.system import command_line

def main(names):
    events = SummaryWriter(names[0])
    writer = events.file_writer.event_writer._ev_writer._py_recordio_writer
    writer._writer = open("/dev/full", "wb")
    for step in range(100):
        events.add_scalar("elbo", 0.0, step)
    events.flush()

command_line.run(main)
"""


def test_a_full_disk_under_tensorboard_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "events"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the disk is full. Free some space")
    assert done.stderr.count("\n") == 1
