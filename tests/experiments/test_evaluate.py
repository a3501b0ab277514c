"""Evaluations of a trained run: what they depend on, and what they refuse."""

import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from ais_jax.evidence.row_estimates import gap_of
from ais_jax.numerics import log_mean_exp
from configs import presets
from experiments.data import load
from experiments.evaluate import diagnostics, evaluate
from experiments.evaluate.chunks import run_chunks
from experiments.evaluate.evaluator import Evaluator
from experiments.run import launch
from experiments.run.checkpoint import Checkpointer
from experiments.run.folder import saved_config
from experiments.run.launch import train_and_evaluate
from experiments.run.settings import resolve
from experiments.system.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    NonFiniteResult,
)
from experiments.system.files import read_json, write_arrays, write_json
from tests.experiments import test_launch as launcher
from tests.experiments.test_launch import SHORT, log_of, make_config, refused, started

cache = launcher.cache
EVALUATION = SHORT | {"estimator": "ais", "evaluation.num_examples": 12}


@pytest.fixture(scope="module")
def evaluated(cache, tmp_path_factory):
    """A short run, trained and evaluated: its workdir."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    train_and_evaluate(make_config(**EVALUATION), workdir)
    return workdir


@pytest.fixture(scope="module")
def evaluated_alone(evaluated, cache, tmp_path_factory):
    """A copy of it, evaluated again by a process with other settings: its workdir."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(evaluated, workdir)
    other = {"evaluation.chunk_size": 7}
    with started(cache, workdir, other, "--mode=evaluate") as process:
        assert process.wait() == 0, log_of(workdir)
    return workdir


@pytest.fixture
def workdir(evaluated, tmp_path):
    """A copy of it, to change."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def evaluate_again(workdir, cache, **settings):
    """Evaluates with other settings: the results, and the arrays of its chunks."""
    before = set(workdir.glob("evaluation/*"))
    train_and_evaluate(make_config(**(EVALUATION | settings)), workdir, mode="evaluate")
    (folder,) = set(workdir.glob("evaluation/*")) - before
    return read_json(workdir / "results.json"), per_example(folder)


def per_example(folder):
    """Stage -> name -> the array over all examples, of one evaluation."""
    test = read_json(folder / "evaluation.json")["replicates"][0]["test"]
    parts = [dict(np.load(p)) for p in sorted(folder.glob("encoder/*.npz"))]
    encoder = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    log_p = np.array(test["log_p"]["per_example"])
    return {"ais": {"log_p": log_p}, "encoder": encoder}


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
    log_p = found["ais"]["log_p"]
    parts = sorted(evaluated.glob("evaluation/*/test_T=16/*.npz"))
    log_w = np.concatenate([np.load(path)["log_w"] for path in parts])
    own = [log_mean_exp(log_w[row::12].ravel()) for row in range(12)]
    np.testing.assert_allclose(log_p, own, atol=1e-4)
    assert test["log_p"]["mean"] == pytest.approx(np.mean(log_p), abs=1e-4)
    error = np.std(log_p, ddof=1) / np.sqrt(12)
    assert test["log_p"]["standard_error"] == pytest.approx(error, abs=1e-4)
    assert test["elbo"]["mean"] == pytest.approx(np.mean(found["encoder"]["elbo"]))
    assert np.all(found["encoder"]["elbo"] <= found["encoder"]["iwae"])


def test_the_first_images_are_evaluated_where_that_is_asked_for(
    evaluated, workdir, cache
):
    results, found = evaluate_again(workdir, cache, **{"evaluation.subset": "first"})
    test = results["replicates"][0]["test"]
    assert test["images"] == list(range(12))
    _, others = first_evaluation(evaluated)
    near = found["encoder"]["elbo"] - others["encoder"]["elbo"]
    assert np.std(near) > 0.5 * np.std(found["encoder"]["elbo"])


def test_an_examples_numbers_do_not_depend_on_the_chunk(evaluated, evaluated_alone):
    _, expected = first_evaluation(evaluated)
    (first,) = evaluated.glob("evaluation/*")
    (other,) = set(evaluated_alone.glob("evaluation/*")) - {
        evaluated_alone / "evaluation" / first.name
    }
    found, results = per_example(other), read_json(evaluated_alone / "results.json")
    assert_same_examples(found, expected, 12)
    kept = [read_json(p) for p in evaluated_alone.glob("evaluation/*/evaluation.json")]
    assert len(kept) == 2 and results in kept


def test_pilot_scouts_and_both_bounds_are_one_program(evaluated):
    settings = resolve(make_config(**EVALUATION))
    run, dataset = launch.open_run(settings, evaluated)
    asked = {"error": 0.2, "num_temperatures": None}
    evaluator = Evaluator(run, dataset, settings.evaluation._replace(**asked))
    search = evaluator.search(run.params)
    estimate = search.estimate("test", 12, evaluator.rows(run.params))
    pairs = partial(evaluator.simulate, run.params)
    gap = gap_of(search.estimate("pairs", 8, pairs, is_paired=True))
    assert evaluator._chains._cache_size() == 1
    assert estimate.error == 0.2 and abs(gap.mean) < 0.2 + 4.0 * gap.standard_error


@pytest.mark.parametrize(
    "start", [pytest.param("prior", marks=pytest.mark.slow), "wide"]
)
def test_another_start_is_another_evaluation_of_the_same_examples(
    workdir, cache, start
):
    _, expected = first_evaluation(workdir)
    _, found = evaluate_again(workdir, cache, **{"evaluation.start": start})
    assert_same_examples(
        {"encoder": found["encoder"]}, {"encoder": expected["encoder"]}, 12
    )
    difference = found["ais"]["log_p"] - expected["ais"]["log_p"]
    assert np.all(difference != 0.0)
    assert np.all(np.abs(difference) < 10.0)


def test_an_evaluation_of_its_own_takes_the_runs_config_and_new_settings(
    evaluated, evaluated_alone
):
    expected, before = first_evaluation(evaluated)
    results = read_json(evaluated_alone / "results.json")
    assert results["steps"] == expected["steps"]
    assert results["config"]["model"] == expected["config"]["model"]
    assert results["config"]["evaluation"] == (
        expected["config"]["evaluation"] | {"chunk_size": 7}
    )
    log_p = results["test_log_p"]["mean"]
    assert log_p == pytest.approx(np.mean(before["ais"]["log_p"]), abs=1e-3)
    assert f"test log p(x) = {log_p:.2f} +-" in log_of(evaluated_alone)


def test_the_same_evaluation_again_reads_back_every_chunk(workdir, cache):
    times = lambda: {
        p: p.stat().st_mtime_ns for p in workdir.glob("evaluation/**/*.npz")
    }
    before, expected = times(), read_json(workdir / "results.json")
    results = train_and_evaluate(make_config(**EVALUATION), workdir, mode="evaluate")
    assert times() == before
    assert results["test_log_p"] == expected["test_log_p"]
    for num in (3, 4):
        config = make_config(**(EVALUATION | {"evaluation.num_simulated": num}))
        results = train_and_evaluate(config, workdir, mode="evaluate")
        assert before.items() <= times().items()
        assert results["test_log_p"] == expected["test_log_p"]
        gap = results["replicates"][0]["bidirectional"]
        assert len(gap["per_example_gap"]) == num


@pytest.mark.parametrize("setting", ["batch_size=50", "model.activation=relu"])
def test_an_evaluation_refuses_to_change_the_training(evaluated, setting):
    message = refused(
        f"--workdir={evaluated}", "--mode=evaluate", f"--config.{setting}"
    )
    assert setting.split("=")[0] in message
    assert "cannot be changed in an evaluation" in message


@pytest.mark.parametrize(
    "name, value", [("num_chains", 1), ("error", -1.0), ("start", "middle")]
)
def test_an_evaluation_refuses_settings_out_of_range(evaluated, name, value):
    config = saved_config(evaluated, {f"evaluation.{name}": value})
    with pytest.raises(ConfigError, match=f"evaluation.{name}={value!r}"):
        train_and_evaluate(config, evaluated, mode="evaluate")


def test_a_checkpoint_of_another_models_shape_is_refused(workdir):
    identity = read_json(workdir / "config.json")
    identity["config"]["model"]["widths"] = [[17]]
    write_json(workdir / "config.json", identity)
    config = saved_config(workdir)
    for mode in ("evaluate", "train"):
        with pytest.raises(CheckpointError, match="is of another model"):
            train_and_evaluate(config, workdir, mode=mode)


def test_another_preset_replaces_all_of_its_settings(workdir):
    overrides = {"evaluation.preset": "paper", "evaluation.num_chains": 3}
    before = resolve(saved_config(workdir)).evaluation
    evaluation = resolve(saved_config(workdir, overrides)).evaluation
    paper = presets.EVALUATION["paper"] | {"preset": "paper", "num_chains": 3}
    assert evaluation == before._replace(**paper)
    assert evaluation.chunk_size == 16


def test_a_run_without_a_checkpoint_cannot_be_evaluated(workdir):
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train_and_evaluate(saved_config(workdir), workdir, mode="evaluate")


def test_other_parameters_of_the_same_step_are_another_evaluation(workdir, cache):
    _, before = first_evaluation(workdir)
    state = launcher.newest_state(workdir)
    params = jax.tree.map(lambda a: 0.9 * a, state.generative.params)
    state = state.replace(generative=state.generative.replace(params=params))
    shutil.rmtree(workdir / "checkpoints")
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(int(state.step[0]), state)
    _, after = evaluate_again(workdir, cache)
    assert np.all(after["encoder"]["elbo"] != before["encoder"]["elbo"])


@pytest.mark.parametrize("damage", ["rows", "names", "nan", "empty"])
def test_a_chunk_that_is_not_whole_is_computed_again(tmp_path, damage):
    def evaluate_chunks(function):
        folder, examples = tmp_path / "a" / "b", np.arange(10)
        kept = {"load": lambda i: (i,), "size": 5}
        return run_chunks(folder, examples, function, ("x",), **kept)

    def double(indices, values):
        return {"x": 2.0 * values}

    expected = evaluate_chunks(double)
    path = tmp_path / "a" / "b" / "000005-000010.npz"
    bad = {"rows": {"x": np.ones(3)}, "names": {"y": np.ones(5)}}
    bad |= {"nan": {"x": np.full(5, np.nan)}, "empty": {"x": np.float64(1.0)}}
    write_arrays(path, bad[damage])
    np.testing.assert_array_equal(evaluate_chunks(double)["x"], expected["x"])
    np.testing.assert_array_equal(np.load(path)["x"], expected["x"][5:])


def test_a_result_that_is_not_finite_is_an_error(tmp_path):
    def zero_log(indices, values):
        return {
            "log_p": np.where(indices == 70, -np.inf, 0.0),
            "error": indices * np.nan,
        }

    with pytest.raises(NonFiniteResult, match=r"log_p of example 70 is not finite"):
        examples, names = 10 * np.arange(10), ("log_p", "error")
        kept = {"load": lambda i: (i,), "size": 5}
        run_chunks(tmp_path / "a", examples, zero_log, names, **kept)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"config": 7, "data_digest": 1}']
)
def test_a_damaged_config_of_a_run_is_refused_by_name(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json is damaged") as error:
        saved_config(tmp_path)
    assert "\n" not in str(error.value)


def _numbers(elbo, iwae, log_p, error=0.1):
    def moments(mean):
        return {"mean": mean, "standard_error": error}

    names = ("kl", "ess")
    test = {"elbo": moments(elbo), "iwae": moments(iwae), "log_p": moments(log_p)}
    test |= {name: moments(1.0) for name in names}
    test["log_p"]["monte_carlo"] = error
    test |= {"num_temperatures": [8], "num_examples": 3, "active_units": 1}
    return test | {"gradient_evaluations": 5.0, "gradient_evaluations_fixed": 9.0}


@pytest.mark.parametrize("log_p, is_ordered", [(-90.0, True), (-130.0, False)])
def test_the_report_prints_no_inequality_that_does_not_hold(log_p, is_ordered):
    test = _numbers(-120.0, -100.0, log_p, error=0.1)
    log_p = test["log_p"] | {"error_over": "over images"}
    config = {"evaluation": {"iwae_samples": 5, "num_chains": 1}}
    text = evaluate.report(
        {"replicates": [{"test": test}], "test_log_p": log_p, "config": config}
    )
    assert ("ELBO -120.00 < IWAE-5 -100.00 < AIS -90.00" in text) == is_ordered
    assert ("<" in text) == is_ordered
    assert "nan" not in text


@pytest.mark.parametrize("num", [0, 297, 100000])
def test_more_images_than_there_are_are_named(caplog, num):
    config = make_config(evaluation__num_examples=num)
    diagnostics.of_few_images(resolve(config).evaluation, load.load("digits"))
    expected = "num_examples=100000: digits has 297 test images, and all are evaluated"
    assert (expected in caplog.text) == bool(caplog.text) == (num == 100000)
