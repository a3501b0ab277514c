"""Files of older versions as this version would have written them.

Each step from one version to the next holds the values that were in force then, so that
later defaults and presets change no old run.
"""

import copy
from pathlib import Path

from experiments.system.files import damaged, read_json

VERSION = 6  # of config.json, results.json and variant.json

_EVALUATION = (  # of version 1, in the order of its presets' values
    *("num_examples", "num_chains", "num_temperatures", "num_leapfrog", "schedule"),
    *("preconditioner", "iwae_samples", "num_simulated"),
)
_PRESETS = {
    "quick": (1000, 8, 100, 4, "adaptive", "encoder", 100, 100),
    "standard": (1000, 16, 1000, 10, "adaptive", "encoder", 5000, 100),
    "paper": (0, 16, 10000, 10, "linear", "unit", 5000, 100),
}
_STEP_SIZES = {
    "unit": {"first": 0.1, "smallest": 0.001, "largest": 0.3},
    "encoder": {"first": 0.2, "smallest": 0.01, "largest": 1.5},
}

_MOVES = {  # settings that version 1 had not, at the values that it amounts to
    **{"average": "end", "num_averaged": 1, "point_stride": 1},
    **{"phi_loss": "elbo", "num_phi_samples": 1, "num_phi_steps": 1},
}


def read(path: Path, *names: str) -> dict:
    """A file of a run, of any version, as of this one.

    Raises:
        DamagedFile: it is not JSON, or lacks one of the names.
    """
    content = read_json(path)
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing or not isinstance(content, dict):
        raise damaged(path, f"it has no {missing[0] if missing else 'names'}")
    if not isinstance(content.get("config", {}), dict):
        raise damaged(path, "its config is none")
    try:
        return migrate(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def migrate(content: dict) -> dict:
    """A config.json, results.json or variant.json of any version, as of this one."""
    content = copy.deepcopy(content)
    if content.get("version", 1) == 1:
        _from_1(content)
    if content.get("version") == 2:
        _from_2(content)
    if content.get("version") == 3:
        _from_3(content)
    if content.get("version") == 4:
        _from_4(content)
    if content.get("version") == 5:
        _from_5(content)
    return {"version": VERSION, **content}


def _from_1(content):
    """Version 1 left None in its configs, and called T as printed num_temperatures."""
    if "num_moves" in content:  # variant.json
        content["printed_temperatures"] = content.pop("num_temperatures")
    content["version"] = 2
    config = content.get("config")
    if config is None:
        return
    model, evaluation = config["model"], config["evaluation"]
    model.pop("kernel", None)  # computed the same
    for name in ("precision", "force_precision"):
        model.setdefault(name, "float32")
    preset = dict(zip(_EVALUATION, _PRESETS[evaluation["preset"]]))
    _fill(evaluation, content.pop("evaluation", {}) | {"preset": evaluation["preset"]})
    _fill(evaluation, preset)
    sizes = _STEP_SIZES[evaluation["preconditioner"]]
    evaluation["first_step_size"] = sizes["first"]
    preconditioner = config["estimator"].get("preconditioner", "unit")
    _fill(config["step_size"], _STEP_SIZES[preconditioner])
    config["training"].setdefault("average_decay", 0.0)
    estimator, optimizer = config["estimator"], config["optimizer"]
    if "final_move" in estimator:
        estimator["final_moves"] = int(estimator.pop("final_move"))
    if "num_leapfrog" in estimator:
        config["estimator"] = {**_MOVES, **estimator}
    adam = {"name": "adam", "clip_norm": None, "weight_decay": None, **optimizer}
    phi = {k: v for k, v in adam.items() if k not in ("schedule", "warmup", "phi")}
    config["optimizer"] = {"warmup": 0.0, **adam, "phi": phi}


def _from_2(content):
    """Version 2 knew Bernoulli perceptrons, chains apart, and no run to start from."""
    content["version"] = 3
    config = content.get("config")
    if config is not None:
        model = {"factory": "", "likelihood": "bernoulli", "network": "perceptron"}
        config["model"] = {**model, **config["model"]}
        config.setdefault("init_from", "")
        if config["estimator"]["name"] == "ais":
            config["estimator"].setdefault("resample_below", 0.0)


def _from_3(content):
    """Version 3 evaluated by the force that it trained by, float32 by default."""
    content["version"] = 4
    config = content.get("config")
    if config is not None:
        force = config["model"]["force_precision"]
        config["evaluation"].setdefault("force_precision", force)


def _from_4(content):
    """Version 4 had no wake loss."""
    content["version"] = 5
    config = content.get("config")
    if config is not None and "phi_loss" in config["estimator"]:
        config["estimator"].setdefault("wake_share", 0.0)


def _from_5(content):
    """Version 5 evaluated the first test images."""
    content["version"] = 6
    config = content.get("config")
    if config is not None:
        config["evaluation"].setdefault("subset", "first")


def _fill(section, values):
    section.update({k: v for k, v in values.items() if section.get(k) is None})
