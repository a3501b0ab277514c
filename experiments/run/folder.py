"""The folder of a run: its config, and where its results come from."""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

import ais_jax
from ais_jax import optimizers, sharding
from configs import presets
from configs.default import SETTINGS
from experiments.run import build
from experiments.run.checkpoint import Checkpointer
from experiments.run.settings import FREE, flatten, override, resolve
from experiments.system.devices import is_first
from experiments.system.errors import ConfigError
from experiments.system.files import (
    damaged,
    locked,
    read_arrays,
    read_json,
    timestamp,
    write_json,
)
from experiments.system.progress import log

VERSION = 7  # config.json, results.json and variant.json have it
SAVED = ("config", "image_shape", "levels")  # what config.json has
# Settings that came later, as runs of this version without them behaved.
_LATER = {
    "model": {"missing": False},
    "training": {"keep_best": False},
    "evaluation": {"num_pilot": 32},
}


def read(path: Path, *names: str) -> dict:
    """A JSON file of a run, which has these names."""
    return _checked(read_json(path), path, *names)


def exported(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What a file that `export` wrote holds: what config.json would, and the arrays."""
    arrays = read_arrays(path)
    if arrays is None or "config" not in arrays:
        raise ConfigError(f"{path} is no run: name one that experiments.export wrote")
    content = json.loads(str(arrays.pop("config")))
    return _checked(content, path, *SAVED, "step"), arrays


def saved(workdir: Path | None) -> dict:
    """What config.json says of the run in a folder, or in an exported file."""
    if is_exported(workdir):
        return exported(workdir)[0]
    path = Path(workdir or "") / "config.json"
    if not workdir or not path.exists():
        raise ConfigError(f"workdir={workdir} holds no run: give the --workdir of one")
    return read(path, *SAVED)


def is_exported(workdir: Path | None) -> bool:
    """Whether it is a file and no folder."""
    path = Path(workdir or "")
    return path.suffix == ".npz" and not path.is_dir()


def _checked(content, path, *names):
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing or not isinstance(content, dict):
        raise damaged(path, f"it has no {missing[0] if missing else 'names'}")
    if not isinstance(content.get("config", {}), dict):
        raise damaged(path, "its config is none")
    for section, later in _LATER.items():
        if isinstance(given := content.get("config", {}).get(section), dict):
            content["config"][section] = later | given
    if (version := content.get("version", VERSION)) != VERSION:
        raise ConfigError(
            f"{path} has version={version}, and this program reads {VERSION}: use the "
            "commit that wrote it, or start a new --workdir"
        )
    return content


def default_workdir(settings):
    """A fresh folder name under runs/, for a run of one process without --workdir."""
    if jax.process_count() > 1:
        raise ConfigError(
            "several processes need --workdir, a folder that all of them share"
        )
    path = os.path.abspath(os.path.expanduser(settings.dataset))
    dataset = re.sub(r"[^\w.-]", "_", Path(path).stem)
    return Path("runs") / f"{timestamp()}-{dataset}-{method(settings)}"


def method(settings):
    """The name that a config's argument has for the estimator."""
    is_best = presets.BEST["estimator"].items() <= settings.estimator.items()
    return "best" if is_best else settings.estimator["name"]


def claim(workdir, settings, dataset, write=True):
    """Writes config.json, or checks that the folder holds this very run.

    The settings in `FREE` may change when a run goes on, and num_epochs may be raised
    where the learning rate does not depend on it until the end; the run then goes back
    to there. All others are refused. An evaluation with other settings checks alone,
    without `write`.
    """
    path = Path(workdir) / "config.json"
    content = {
        "config": settings.saved,
        "data_digest": dataset.digest,
        "image_shape": list(dataset.image_shape),
        "levels": dataset.levels,
        "num_covariates": dataset.num_covariates,
    }
    _check_same_everywhere(content)
    if path.exists():
        saved = read(path, "config", "data_digest")
        old = {**saved["config"], "data_digest": saved["data_digest"]}
        new = {**settings.saved, "data_digest": dataset.digest}
        check_same(workdir, old, new)
        before = saved["config"]["num_epochs"]
        if write and before < settings.num_epochs:
            _go_back(workdir, settings._replace(num_epochs=before), len(dataset.train))
    if write and is_first():
        write_json(path, {"version": VERSION, **content})


def check_same(workdir, old, new):
    """Refuses a folder whose saved config differs from a new one where it may not."""
    for name, before, now in differences(old, new):
        is_new = name in SETTINGS and (before, now) == (None, SETTINGS[name].default)
        if now == build.AUTO or name.startswith(FREE) or is_new:
            continue
        if not _goes_on(name, before, now, new):
            raise ConfigError(
                f"workdir={workdir} holds a run with {name}={before!r}, not {now!r}: "
                f"choose another --workdir, or run with {name}={before!r}"
            )


def check_config(workdir, config):
    """Does as `check_same` for a config and the run that a folder holds."""
    saved = read(Path(workdir) / "config.json", "config")
    check_same(workdir, saved["config"], resolve(config).saved)


def _goes_on(name, before, now, saved):
    """Whether a run goes on for more epochs, whose rates begin as its own did."""
    if name != "num_epochs" or now < before:
        return False
    theta = saved["optimizer"]
    is_warmed_up = any(s["settings"].get("warmup") for s in (theta, theta["phi"]))
    return not is_warmed_up and optimizers.stable_steps(theta["schedule"], 2) > 0


def _go_back(workdir, before, num_train):
    """Takes a run back to where the learning rate of a longer one was still its own."""
    folder, step = Path(workdir) / "checkpoints", build.num_kept(before, num_train)
    if not folder.exists():
        return
    with alone(workdir), Checkpointer(folder) as checkpointer:
        if checkpointer.go_back(step):
            log.info("Going on from step %d, before the learning rate fell.", step)


@contextlib.contextmanager
def alone(workdir):
    """Holds a folder's lock during a training; evaluations need none."""
    with contextlib.ExitStack() as stack:
        is_free = True
        if is_first():
            is_free = stack.enter_context(locked(workdir, ".training.lock"))
        if sharding.any_process(not is_free):
            raise ConfigError(
                f"workdir={workdir} is in use by another training: wait for its end, "
                "or choose another --workdir"
            )
        yield


def differences(old, new):
    """[(dotted name, old value, new value)] where two saved configs differ."""
    old, new = flatten(old), flatten(new)
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _check_same_everywhere(content):
    """Refuses processes of other settings, whose collectives would not fit."""
    settings = {k: v for k, v in flatten(content).items() if k != "config.data_dir"}
    text = json.dumps(settings, sort_keys=True)
    identity = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    first = sharding.from_first(identity)
    if sharding.any_process(np.any(identity != first)):
        raise ConfigError(
            "the processes of this run differ in their --config or their data: give "
            "all of them the same"
        )


def saved_config(workdir: Path | None, overrides: dict | None = None) -> ConfigDict:
    """The config of the run in a folder, changed by `settings.override`."""
    if is_exported(workdir):
        raise ConfigError(
            f"workdir={workdir} is a file, which takes no results: name a run's "
            f"folder, or call experiments.load_run('{workdir}').log_likelihood(x)"
        )
    return override(saved(workdir)["config"], overrides or {})


def provenance():
    """Versions, commit and device, for results.json."""
    root = Path(ais_jax.__file__).parents[1]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = None  # an installed copy may lie within a repository of something else
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (root / ".git").exists():
            done = subprocess.run(git, capture_output=True, text=True, check=True)
            commit = done.stdout.strip()
    device = jax.devices()[0]
    return {
        "ais_jax": ais_jax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": commit,
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }
