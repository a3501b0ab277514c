"""Places and ways to start: no home, no streams, no GPU, ~ in flags, threads."""

import math
import os
import pwd
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import ais_jax
from configs import digits
from experiments.data import load
from experiments.run import factory, folder
from experiments.run.folder import default_workdir
from experiments.run.settings import resolve
from experiments.system import command_line, devices, files, progress
from experiments.system.errors import InputError
from experiments.system.signals import SIGNALS, StopSignals

ROOT = Path(__file__).parents[2]


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the password file."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "AIS_JAX_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        *(("digits", "digits"), ("tfds:cifar10", "tfds_cifar10")),
        *(("/data/faces/mine.npz", "mine"), ("./faces/", "faces"), ("~/x.npy", "x")),
        (".", ROOT.name),
    ],
)
def test_a_new_folder_is_right_under_runs_whatever_the_data_set(
    monkeypatch, dataset, name
):
    monkeypatch.chdir(ROOT)
    settings = SimpleNamespace(dataset=dataset, estimator={"name": "vae"})
    first, second = (default_workdir(settings) for _ in range(2))
    assert first.parent == Path("runs") and first.name.endswith(f"-{name}-vae")
    assert first != second


def test_a_new_folder_of_the_best_preset_says_so():
    for name in ("best", "ais"):
        settings = resolve(digits.get_config(name))
        assert default_workdir(settings).name.endswith(f"-digits-{name}")


def test_without_a_home_caches_are_here_and_other_paths_are_refused(homeless):
    with pytest.raises(InputError, match="~/runs: there is no home"):
        files.user_path("~/runs")
    assert files.user_path("runs/~") == Path("runs/~")
    assert files.cache_home() == Path(".cache")
    assert len(load.load("digits").test) == 297
    before = jax.config.jax_compilation_cache_dir
    devices.use_compile_cache("~/.cache/ais_jax/xla")
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--workdir=~/runs/a", "--workdir=/home/me/runs/a"),
        ("-out=~", "-out=/home/me"),
        ("--config.dataset=~/x.npz", "--config.dataset=~/x.npz"),
        ("--workdir=runs/~", "--workdir=runs/~"),
        ("~/runs/a", "~/runs/a"),
    ],
)
def test_a_flag_knows_the_home_folder(monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/me")
    assert command_line._in_place(given) == expected


def test_a_config_that_is_not_here_is_the_installed_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = command_line._in_place("--config=configs/default.py:vae")
    assert found == f"--config={ROOT}/configs/default.py:vae"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/default.py").touch()
    mine = "--config=configs/default.py:vae"
    assert command_line._in_place(mine) == mine


@pytest.mark.parametrize("place", ["here", "data"])
def test_a_factory_lies_here_or_beside_the_data(monkeypatch, tmp_path, place):
    for name in ("here", "data"):
        (tmp_path / name).mkdir()
    module = f"factory_of_{place}"
    (tmp_path / place / f"{module}.py").write_text("def make(image_shape): ...")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path / "here")
    factory.check(f"{module}:make", str(tmp_path / "data/mine.npz"))
    with pytest.raises(InputError, match="lies here or beside the data"):
        factory.check("nowhere:make", str(tmp_path / "data/mine.npz"))


def test_a_copy_within_another_repository_has_no_commit(monkeypatch):
    assert folder.provenance()["commit"] or not (ROOT / ".git").exists()
    monkeypatch.setattr(ais_jax, "__file__", str(ROOT / "docs/ais_jax/__init__.py"))
    assert folder.provenance()["commit"] is None


PROGRAM = """
import sys, warnings
from experiments.run.settings import resolve
from experiments.system import command_line
class Notebook:
    def write(self, text): pass
    def flush(self): pass
if sys.argv.pop() == "notebook":
    sys.stdout = Notebook()
def main(names):
    print("a line")
    warnings.warn("one line")
    command_line.devices.require_device()
command_line.run(main)
"""


@pytest.mark.parametrize("stdout", ["closed", "notebook"])
def test_a_program_without_stdout_and_devices_ends_in_a_line(stdout):
    """What it warns of is a line too."""
    command = f'"$0" -c "$1" {stdout}' + " >&-" * (stdout == "closed")
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
        capture_output=True,
        text=True,
    )
    warned, refused = done.stderr.splitlines()
    assert warned == "Warning: one line"
    assert refused.startswith("Error: JAX_PLATFORMS=nowhere: JAX cannot use such")
    assert done.returncode == 2


def test_a_missing_plugin_is_refused_where_jax_only_asserts(monkeypatch):
    def devices_of_none():
        raise AssertionError

    devices.require_device()
    monkeypatch.setattr(jax, "devices", devices_of_none)
    with pytest.raises(InputError, match="it finds none here"):
        devices.require_device()


def test_systems_that_tell_neither_cores_nor_memory(monkeypatch):
    assert 1e8 < devices.memory() < math.inf
    assert devices.num_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sysconf")
    assert devices.num_cores() == os.cpu_count()
    assert devices.memory() == math.inf


def test_without_stderr_progress_is_silent(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.Progress("training", 2) as shown:
        shown.advance("epoch 1", 1)
    assert not progress.is_terminal()


def test_a_thread_leaves_the_signals_alone():
    held, handlers = [], lambda: [signal.getsignal(number) for number in SIGNALS]

    def work():
        with StopSignals() as stop:
            held.append((stop.requested, handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [(False, handlers())]
