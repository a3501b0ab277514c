"""The folder of a run: its config, provenance, and stopping in good order."""

import hashlib
import json
import platform
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

import ais_jax
from ais_jax import sharding
from configs import default
from experiments.builders import ConfigError
from experiments.cli import Ended
from experiments.metrics import read_json, write_json

FREE = ("evaluation", "data_dir", "sharding", "training.checkpoint_seconds")


def default_workdir(config):
    """A fresh folder name under runs/, for a run of one process without --workdir.

    Raises:
        ConfigError: where there are several processes, which would differ in it.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            "several processes need --workdir, a folder that all of them share"
        )
    name = f"{config.dataset}-{config.estimator.name}"
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


def prepare(workdir):
    """Makes the folder of a run and proves that it can be written.

    Raises:
        ConfigError: where it cannot be.
    """
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise ConfigError(
            f"workdir={workdir} cannot be written ({error.strerror}): choose another "
            "--workdir"
        ) from error


def claim(workdir, config, data_digest, write=True):
    """Writes config.json, or checks that the folder holds this very run.

    The settings in `FREE` may change when a run goes on; all others are refused.

    Args:
        workdir: the run's folder.
        config: a checked ConfigDict.
        data_digest: of the data set.
        write: False to check alone, as an evaluation with other settings does.

    Raises:
        ConfigError: where the folder holds a run of another config or other data, or
            where the processes of a run differ in theirs.
    """
    path = Path(workdir) / "config.json"
    mine = {"config": plain(config), "data_digest": data_digest}
    _check_same_everywhere(mine)
    if path.exists():
        saved = read_json(path)
        old, new = flatten(complete(saved["config"])), flatten(mine["config"])
        old["data_digest"], new["data_digest"] = saved["data_digest"], data_digest
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name) and not name.startswith(FREE):
                raise ConfigError(
                    f"workdir={workdir} holds a run with {name}={old.get(name)!r}, not "
                    f"{new.get(name)!r}: choose another --workdir, or run with "
                    f"{name}={old.get(name)!r}"
                )
    if write and is_first():
        write_json(path, mine)


def _check_same_everywhere(mine):
    """Refuses processes of other settings, whose collectives would not fit."""
    settings = {k: v for k, v in flatten(mine).items() if k != "config.data_dir"}
    text = json.dumps(settings, sort_keys=True)
    identity = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    first = sharding.from_first(identity)
    if sharding.any_process(np.any(identity != first)):
        raise ConfigError(
            "the processes of this run differ in their --config or their data: give "
            "all of them the same"
        )


def saved_config(workdir, overrides):
    """The config of the run in a folder, with other settings of the evaluation.

    Args:
        workdir: the run's folder, or None.
        overrides: dict of dotted names to values; only settings in `FREE`.

    Returns:
        A ConfigDict.

    Raises:
        ConfigError: where there is no run, or for another override.
    """
    path = Path(workdir or "") / "config.json"
    if not workdir or not path.exists():
        raise ConfigError(f"workdir={workdir} holds no run: give the --workdir of one")
    config = ConfigDict(_tuples(complete(read_json(path)["config"])))
    for name, value in overrides.items():
        if not name.startswith(FREE):
            raise ConfigError(
                f"{name}={value!r} cannot be changed in an evaluation: leave it out; "
                f"only {', '.join(FREE)} can"
            )
        config.update_from_flattened_dict({name: value})
    return config


def complete(saved):
    """A saved config with the settings that later versions added, at their defaults.

    Args:
        saved: the config as nested dicts.

    Returns:
        Nested dicts of `configs/default.py`'s shape.
    """

    def merge(defaults, own):
        both = {k: (defaults[k], own[k]) for k in defaults.keys() & own.keys()}
        inner = {k: merge(*v) for k, v in both.items() if isinstance(v[0], dict)}
        return {**defaults, **own, **inner}

    return merge(plain(default.get_config(saved["estimator"]["name"])), saved)


def plain(config):
    """A ConfigDict as nested dicts and lists, as JSON would give it back."""
    as_lists = lambda v: [as_lists(x) for x in v] if isinstance(v, tuple) else v
    return {
        k: plain(v) if isinstance(v, dict) else as_lists(v)
        for k, v in (config if isinstance(config, dict) else config.to_dict()).items()
    }


def _tuples(value):
    """Undoes `plain`: lists back to tuples."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def flatten(nested, prefix=""):
    """Nested dicts as one dict of dotted names."""
    flat = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def is_first():
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def provenance():
    """Versions, commit and device, for results.json."""
    root = Path(ais_jax.__file__).parents[1]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=True)
        commit = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    device = jax.devices()[0]
    return {
        "ais_jax": ais_jax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": commit,
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }


class StopSignals:
    """Turns SIGTERM and Ctrl-C into a flag, so that a run can save and leave.

    A second signal is not held back.
    """

    def __enter__(self):
        self.requested = False
        self._old = {s: signal.signal(s, self._on_signal) for s in _SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number, _):
        self.requested = True
        signal.signal(number, self._old[number])


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Ended):
    """A signal stopped the run after its state was saved: exit status 3."""

    def __init__(self, message):
        super().__init__(message, 3)


class NonFiniteLoss(Ended):
    """The loss was not finite; what came before is kept: exit status 1."""

    def __init__(self, message):
        super().__init__(message, 1)
