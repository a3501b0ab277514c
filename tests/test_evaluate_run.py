"""Evaluations of a trained run: what they depend on, and what they refuse."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import test_experiments as launcher
from test_experiments import SHORT, log_of, main, make_config, refused, started

from ais_jax.tuning import Plan
from experiments import builders, datasets, evaluate, runs, train
from experiments.builders import ConfigError
from experiments.checkpoint import CheckpointError
from experiments.evaluator import Evaluator
from experiments.metrics import read_json, write_json

cache = launcher.cache
EVALUATION = SHORT | {"evaluation.num_examples": 12}


@pytest.fixture(scope="module")
def evaluated(cache, tmp_path_factory):
    """A short run, trained and evaluated: its workdir."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    main.run("train_and_evaluate", make_config(**EVALUATION), workdir, cache)
    return workdir


@pytest.fixture
def workdir(evaluated, tmp_path):
    """A copy of it, to change."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def evaluate_again(workdir, cache, **settings):
    """Evaluates with other settings: the results, and the arrays of its chunks."""
    before = set(workdir.glob("evaluation/*"))
    main.run("evaluate", make_config(**(EVALUATION | settings)), workdir, cache)
    (folder,) = set(workdir.glob("evaluation/*")) - before
    return read_json(workdir / "results.json"), per_example(folder)


def per_example(folder):
    """Stage -> name -> the array over all examples, from the chunks on disk."""
    found = {}
    for stage in ("ais", "encoder"):
        parts = [dict(np.load(p)) for p in sorted(folder.glob(f"*/{stage}/*.npz"))]
        found[stage] = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return found


def first_evaluation(workdir):
    (folder,) = workdir.glob("evaluation/*")
    return read_json(workdir / "results.json"), per_example(folder)


def assert_same_examples(found, expected, num):
    for stage, arrays in expected.items():
        for name, array in arrays.items():
            mine, theirs = found[stage][name][:num], array[:num]
            assert len(mine) == num
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)


def test_results_are_the_moments_of_the_examples(evaluated):
    results, found = first_evaluation(evaluated)
    test = results["replicates"][0]["test"]
    log_p = found["ais"]["log_p"].astype(np.float64)
    assert log_p.shape == (12,)
    np.testing.assert_allclose(test["log_p"]["per_example"], log_p, atol=1e-4)
    assert test["log_p"]["mean"] == pytest.approx(np.mean(log_p))
    error = np.std(log_p, ddof=1) / np.sqrt(12)
    assert test["log_p"]["standard_error"] == pytest.approx(error)
    squares = np.mean(found["ais"]["standard_error"].astype(np.float64) ** 2)
    assert test["log_p"]["monte_carlo"] == pytest.approx(np.sqrt(squares / 12))
    assert test["elbo"]["mean"] == pytest.approx(np.mean(found["encoder"]["elbo"]))
    assert np.all(found["encoder"]["elbo"] <= found["encoder"]["iwae"])
    assert np.all((found["ais"]["ess"] >= 1.0) & (found["ais"]["ess"] <= 4.0))


def test_an_examples_numbers_do_not_depend_on_the_chunk_nor_on_the_others(
    workdir, cache
):
    _, expected = first_evaluation(workdir)
    other = {"evaluation.chunk_size": 7, "evaluation.num_examples": 9}
    results, found = evaluate_again(workdir, cache, **other)
    assert results["replicates"][0]["test"]["num_examples"] == 9
    assert len(found["ais"]["log_p"]) == 9
    assert_same_examples(found, expected, 9)


def test_adding_chains_leaves_the_others_weights_as_they_are(evaluated):
    config = make_config(**EVALUATION)
    dataset = datasets.load("digits")
    setup = builders.build_training(config, dataset)
    trained = train.restore(config, setup, evaluated)
    params = evaluate.parameters(jax.device_get(trained.state), 0)
    settings = builders.evaluation_settings(config)
    evaluator = Evaluator(config, setup.model, dataset, settings)
    (saved,) = evaluated.glob("evaluation/*/replicate_0/plan.npz")
    plan = Plan(**np.load(saved))
    x = evaluator.test_images(np.arange(1))[0]

    @jax.jit
    def log_weights(params):
        key, path = jax.random.key(3), evaluator.path(*params, x)
        few, many = (
            evaluate.evaluation.log_normalizer(key, path, plan, k, evaluator.transition)
            for k in (3, 5)
        )
        return few.log_w, many.log_w

    few, many = log_weights(params)
    np.testing.assert_allclose(few, many[:3], rtol=1e-5)
    assert len(set(many.tolist())) == 5


def test_another_start_is_another_evaluation_of_the_same_examples(workdir, cache):
    _, expected = first_evaluation(workdir)
    _, found = evaluate_again(workdir, cache, **{"evaluation.start": "prior"})
    assert_same_examples(
        {"encoder": found["encoder"]}, {"encoder": expected["encoder"]}, 12
    )
    difference = found["ais"]["log_p"] - expected["ais"]["log_p"]
    assert np.all(difference != 0.0)
    assert np.all(np.abs(difference) < 10.0)


def test_an_evaluation_of_its_own_takes_the_runs_config_and_new_settings(
    workdir, cache
):
    expected, before = first_evaluation(workdir)
    settings = {"evaluation.num_examples": 5, "evaluation.gap_threshold": 0.2}
    with started(cache, workdir, settings, "--mode=evaluate") as process:
        assert process.wait() == 0, log_of(workdir)
    results = read_json(workdir / "results.json")
    assert results["steps"] == expected["steps"]
    assert results["config"]["model"] == expected["config"]["model"]
    assert results["evaluation"] == expected["evaluation"] | {
        "num_examples": 5,
        "gap_threshold": 0.2,
    }
    log_p = results["test_log_p"]["mean"]
    assert log_p == pytest.approx(np.mean(before["ais"]["log_p"][:5]), abs=1e-3)
    assert f"test log p(x) = {log_p:.2f} +-" in log_of(workdir)


def test_the_same_evaluation_again_reads_back_every_chunk(workdir, cache):
    times = lambda: {
        p: p.stat().st_mtime_ns for p in workdir.glob("evaluation/**/*.npz")
    }
    before, expected = times(), read_json(workdir / "results.json")
    results = main.run("evaluate", make_config(**EVALUATION), workdir, cache)
    assert times() == before
    assert results["test_log_p"] == expected["test_log_p"]


@pytest.mark.parametrize("setting", ["batch_size=50", "model.activation=relu"])
def test_an_evaluation_refuses_to_change_the_training(evaluated, setting):
    message = refused(
        f"--workdir={evaluated}", "--mode=evaluate", f"--config.{setting}"
    )
    assert setting.split("=")[0] in message
    assert "cannot be changed in an evaluation" in message


@pytest.mark.parametrize(
    "name, value", [("num_chains", 0), ("target", 1.5), ("start", "middle")]
)
def test_an_evaluation_refuses_settings_out_of_range(evaluated, name, value):
    config = runs.saved_config(evaluated, {f"evaluation.{name}": value})
    with pytest.raises(ConfigError, match=f"evaluation.{name}={value!r}"):
        main.run("evaluate", config, evaluated)


def test_a_checkpoint_of_another_models_shape_is_refused(workdir):
    identity = read_json(workdir / "config.json")
    identity["config"]["model"]["widths"] = [[17]]
    write_json(workdir / "config.json", identity)
    config = runs.saved_config(workdir, {})
    for mode in ("evaluate", "train"):
        with pytest.raises(CheckpointError, match="is of another model"):
            main.run(mode, config, workdir)


def test_a_run_of_a_version_that_had_fewer_settings_goes_on(workdir, cache):
    identity = read_json(workdir / "config.json")
    del identity["config"]["model"]["force_precision"]
    write_json(workdir / "config.json", identity)
    before = read_json(workdir / "results.json")["test_log_p"]
    for mode in ("evaluate", "train_and_evaluate"):
        config = runs.saved_config(workdir, {})
        assert config.model.force_precision == "float32"
        assert main.run(mode, config, workdir, cache)["test_log_p"] == before
    identity["config"]["model"]["force_precision"] = "bf16"
    write_json(workdir / "config.json", identity)
    with pytest.raises(
        ConfigError, match=r"model\.force_precision='bf16', not 'float32'"
    ):
        main.run("train", make_config(**EVALUATION), workdir, cache)


def test_a_run_without_a_checkpoint_cannot_be_evaluated(workdir):
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        main.run("evaluate", runs.saved_config(workdir, {}), workdir)
