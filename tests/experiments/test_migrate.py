"""Old runs' files: their values are those that were in force when they were written."""

from pathlib import Path

import pytest

from configs import presets
from experiments.paper.results import collect
from experiments.run.folder import saved_config
from experiments.run.migrate import VERSION, migrate
from experiments.run.settings import flatten, resolve
from experiments.system.files import read_json

RESULTS = Path(__file__).parents[2] / "results"
CONFIGS = sorted(RESULTS.rglob("config.json"))
UNREAD = {"adam": ("clip_norm", "weight_decay"), "muon": ("clip_norm", "b1", "b2")}
VERSION_1 = {
    "preset": "quick",
    "num_examples": 1000,
    "num_chains": 8,
    "num_temperatures": 100,
    "num_leapfrog": 4,
    "schedule": "adaptive",
    "preconditioner": "encoder",
    "iwae_samples": 100,
    "num_simulated": 100,
    "first_step_size": 0.2,
}
AS_OF_NOW = VERSION_1 | {"force_precision": "float32", "subset": "first"}


def old_config(**evaluation):
    """The parts of a config of version 1 that it left open."""
    return {
        "model": {"kernel": "xla"},
        "estimator": {"name": "ais", "preconditioner": "unit"},
        "evaluation": {**dict.fromkeys(VERSION_1), "preset": "quick", **evaluation},
        "step_size": {"first": None, "smallest": 0.02, "largest": None},
        "optimizer": {"learning_rate": [1e-3], "schedule": "stages", "b1": 0.9},
        "training": {"steps_per_row": 100},
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parent.name)
def test_committed_runs_resolve_to_the_values_of_their_time(path):
    assert CONFIGS
    given = read_json(path)["config"]
    settings = resolve(saved_config(path.parent))
    old, new = flatten(given), flatten(settings.saved)
    assert old.keys() - new.keys() <= {"model.kernel", "estimator.final_move"}
    left = {k for k, v in new.items() if v is None}
    assert left <= {  # to the machine, or without a meaning for the optimizer
        *("sharding.data", "sharding.replicate", "training.block_rows"),
        *(f"optimizer.{k}" for k in UNREAD[new["optimizer.name"]]),
        *(f"optimizer.phi.{k}" for k in UNREAD[new["optimizer.phi.name"]]),
    }
    assert {k: new[k] for k, v in old.items() if v is not None and k in new} == {
        k: v for k, v in old.items() if v is not None and k in new
    }


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(RESULTS.rglob("results.json")) if "evaluation" in read_json(p)],
    ids=lambda path: path.parent.name,
)
def test_committed_results_were_evaluated_as_their_configs_say(path):
    results = read_json(path)
    recorded = results.pop("evaluation")  # of version 1 alone
    evaluation = migrate(results)["config"]["evaluation"]
    assert {k: evaluation[k] for k in recorded} == recorded


def test_committed_results_are_read_as_of_this_version():
    runs = collect([RESULTS])
    assert len(runs) > 10
    for run in runs:
        assert run.results["version"] == VERSION
        assert None not in run.results["config"]["evaluation"].values()


def test_later_presets_change_no_old_run(monkeypatch):
    monkeypatch.setitem(presets.EVALUATION, "quick", {"num_chains": 99})
    monkeypatch.setitem(presets.STEP_SIZES, "unit", {"first": 99.0})
    config = migrate({"config": old_config()})["config"]
    assert config["evaluation"] == AS_OF_NOW
    assert config["step_size"] == {"first": 0.1, "smallest": 0.02, "largest": 0.3}
    assert config["init_from"] == ""
    assert config["model"] == {
        **{"precision": "float32", "force_precision": "float32"},
        **{"factory": "", "likelihood": "bernoulli", "network": "perceptron"},
    }


def test_what_an_old_run_asked_for_stays():
    config = migrate({"config": old_config(num_chains=3)})["config"]
    assert config["evaluation"] == AS_OF_NOW | {"num_chains": 3}


def test_old_results_say_how_they_were_evaluated():
    evaluation = VERSION_1 | {"num_chains": 5}
    content = {"config": old_config(), "evaluation": evaluation, "steps": 1}
    new = migrate(content)
    assert new["config"]["evaluation"] == AS_OF_NOW | evaluation and new["steps"] == 1
    assert "evaluation" not in new and "evaluation" in content


def test_later_settings_change_no_old_run():
    config = migrate({"config": old_config()})["config"]
    adam = {"name": "adam", "learning_rate": [1e-3], "b1": 0.9}
    adam |= {"clip_norm": None, "weight_decay": None}
    expected = {**adam, "schedule": "stages", "warmup": 0.0, "phi": adam}
    assert config["optimizer"] == expected
    assert config["training"] == {"steps_per_row": 100, "average_decay": 0.0}
    moves = {"name": "ais", "num_leapfrog": 5, "final_move": False}
    estimator = migrate({"config": {**old_config(), "estimator": moves}})["config"]
    estimator = estimator["estimator"]
    assert estimator["final_moves"] == 0 and "final_move" not in estimator
    assert (estimator["average"], estimator["phi_loss"]) == ("end", "elbo")


def test_a_run_of_version_3_is_evaluated_by_the_force_that_it_trained_by():
    config = migrate({"config": old_config()})["config"]
    config["model"]["force_precision"] = "bf16"
    del config["evaluation"]["force_precision"]
    config = migrate({"version": 3, "config": config})["config"]
    assert config["evaluation"]["force_precision"] == "bf16"


def test_a_run_of_version_4_goes_on_without_a_wake_loss():
    config = old_config()
    config["estimator"] = {"name": "ais", "num_leapfrog": 5, "phi_loss": "dreg"}
    config = migrate({"config": config})["config"]
    del config["estimator"]["wake_share"]
    new = migrate({"version": 4, "config": config})
    assert new["config"]["estimator"]["wake_share"] == 0.0
    assert "wake_share" not in migrate({"config": old_config()})["config"]["estimator"]


def test_a_run_of_version_5_is_evaluated_on_the_first_images():
    config = migrate({"config": old_config()})["config"]
    del config["evaluation"]["subset"]
    new = migrate({"version": 5, "config": config})
    assert new["config"]["evaluation"]["subset"] == "first"


def test_t_as_printed_gets_its_name():
    old = {"method": "ais", "num_temperatures": 11, "num_moves": 10}
    new = migrate(old)
    assert new["printed_temperatures"] == 11 and "num_temperatures" not in new


def test_files_of_this_version_stay_as_they_are():
    content = {"version": VERSION, "config": {"model": {}}, "data_digest": "a"}
    assert migrate(content) == content
