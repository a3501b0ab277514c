"""Evaluations of a trained run: what they depend on, and what they refuse."""

import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from ais_jax.evidence import log_z
from ais_jax.evidence.plan import Plan
from configs import presets
from experiments.data import load
from experiments.evaluate import diagnostics, evaluate, test_set_mean
from experiments.evaluate.chunks import run_chunks
from experiments.evaluate.evaluator import Evaluator
from experiments.evaluate.test_set_mean import predicted_mean
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
    other = {"evaluation.chunk_size": 7, "evaluation.num_examples": 9}
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


def per_example(folder, stages=("ais", "encoder")):
    """Stage -> name -> the array over all examples, from the chunks on disk."""
    found = {}
    for stage in stages:
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


def test_the_rest_of_the_test_set_is_told_from_the_elbo_of_every_image(evaluated):
    (folder,) = evaluated.glob("evaluation/*")
    found = per_example(folder, ("ais", "encoder", "elbo"))
    results, elbo = read_json(evaluated / "results.json"), found["elbo"]["elbo"]
    test = results["replicates"][0]["test"]
    assert len(elbo) == 297
    images = np.random.default_rng(0).permutation(297)[:12]
    assert test["images"] == images.tolist()
    near = found["encoder"]["elbo"] - elbo[images]
    assert np.all(np.abs(near) < 30.0) and np.std(near) < 0.5 * np.std(elbo)
    mean, error = predicted_mean(found["ais"]["log_p"], elbo, images)
    assert test["log_p_all"] == {
        "mean": pytest.approx(mean),
        "standard_error": pytest.approx(error),
        "num_examples": 297,
    }
    line = f"all 297 test images, by regression on the ELBO: {mean:.2f} +-"
    assert line in evaluate.report(results)
    row = experiments.load_run(evaluated).results.loc[0]
    assert row["log_p_all"] == pytest.approx(mean)


def test_bounds_are_of_fewer_temperatures_on_each_lower_rung(evaluated):
    """A ladder of T / 8 to T, of the same pairs and keys: no two are the same."""
    (part,) = read_json(evaluated / "results.json")["replicates"]
    bounds = part["bidirectional"]
    assert len(set(bounds["lower"])) == len(bounds["num_temperatures"]) == 4
    assert bounds["gap"][0] > bounds["gap"][-1]


def test_the_pilot_does_not_see_test_images(evaluated):
    settings = resolve(make_config(**EVALUATION))
    run, dataset = launch.open_run(settings, evaluated)
    others = dataset._replace(test=1.0 - dataset.test)
    plans = [
        Evaluator(run, d, settings.evaluation).tune(run.params)
        for d in (dataset, others)
    ]
    jax.tree.map(np.testing.assert_array_equal, *plans)


def test_the_first_images_are_evaluated_where_that_is_asked_for(workdir, cache):
    results, found = evaluate_again(workdir, cache, **{"evaluation.subset": "first"})
    test = results["replicates"][0]["test"]
    assert test["images"] == list(range(12))
    assert "log_p_all" not in test and "all 297" not in evaluate.report(results)
    (before,) = set(workdir.glob("evaluation/*/replicate_0/elbo"))
    elbo = [np.load(p)["elbo"] for p in sorted(before.glob("*.npz"))]
    near = found["encoder"]["elbo"] - np.concatenate(elbo)[:12]
    assert np.std(near) < 0.5 * np.std(found["encoder"]["elbo"])


def test_an_elbo_that_is_not_finite_beyond_the_part_takes_nothing_away(
    evaluated, tmp_path, caplog
):
    class Beyond:
        dataset = load.load("digits")
        settings = resolve(make_config(**EVALUATION)).evaluation
        in_chunks = partial(run_chunks, load=lambda i: (i,), size=5)

        def elbo(self, params, plan, indices, images):
            return {"elbo": np.where(np.asarray(indices) < 12, -1.0, np.nan)}

    found = test_set_mean.of_all_images(Beyond(), None, np.zeros(12), tmp_path)
    assert found is None
    assert "elbo of example 12 is not finite" in caplog.text


def test_an_examples_numbers_do_not_depend_on_the_chunk_nor_on_the_others(
    evaluated, evaluated_alone
):
    _, expected = first_evaluation(evaluated)
    (first,) = evaluated.glob("evaluation/*")
    (other,) = set(evaluated_alone.glob("evaluation/*")) - {
        evaluated_alone / "evaluation" / first.name
    }
    found, results = per_example(other), read_json(evaluated_alone / "results.json")
    assert results["replicates"][0]["test"]["num_examples"] == 9
    assert len(found["ais"]["log_p"]) == 9
    assert_same_examples(found, expected, 9)
    kept = [read_json(p) for p in evaluated_alone.glob("evaluation/*/evaluation.json")]
    assert len(kept) == 2 and results in kept
    assert {k["replicates"][0]["test"]["num_examples"] for k in kept} == {9, 12}


def test_adding_chains_leaves_the_others_weights_as_they_are(evaluated):
    settings = resolve(make_config(**EVALUATION))
    run, dataset = launch.open_run(settings, evaluated)
    evaluator = Evaluator(run, dataset, settings.evaluation)
    (saved,) = evaluated.glob("evaluation/*/replicate_0/plan.npz")
    plan = Plan(**np.load(saved))
    x = evaluator.test_images(np.arange(1))[0]

    @jax.jit
    def log_weights(params):
        key, path = jax.random.key(3), evaluator.path(params, x)
        few, many = (
            log_z.log_normalizer(key, path, plan, k, evaluator.transition)
            for k in (3, 5)
        )
        return few.log_w, many.log_w

    few, many = log_weights(run.params)
    np.testing.assert_allclose(few, many[:3], rtol=1e-5)
    assert len(set(many.tolist())) == 5


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
        expected["config"]["evaluation"] | {"num_examples": 9, "chunk_size": 7}
    )
    log_p = results["test_log_p"]["mean"]
    assert log_p == pytest.approx(np.mean(before["ais"]["log_p"][:9]), abs=1e-3)
    assert f"test log p(x) = {log_p:.2f} +-" in log_of(evaluated_alone)


def test_the_same_evaluation_again_reads_back_every_chunk(workdir, cache):
    times = lambda: {
        p: p.stat().st_mtime_ns for p in workdir.glob("evaluation/**/*.npz")
    }
    before, expected = times(), read_json(workdir / "results.json")
    results = train_and_evaluate(make_config(**EVALUATION), workdir, mode="evaluate")
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
    "name, value", [("num_chains", 0), ("num_pilot", 0), ("start", "middle")]
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
    assert evaluation.chunk_size == 5


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
    "name, value", [("betas", 5), ("betas", 17), ("step_sizes", 15)]
)
def test_a_plan_that_is_none_is_tuned_again(workdir, cache, name, value):
    (path,) = workdir.glob("evaluation/*/replicate_0/plan.npz")
    plan = dict(np.load(path))
    write_arrays(path, plan | {name: np.full(value, -1.0, np.float32)})
    train_and_evaluate(make_config(**EVALUATION), workdir, mode="evaluate")
    for key, array in np.load(path).items():
        np.testing.assert_array_equal(array, plan[key])


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
    return test | {"active_units": 1, "num_examples": 3}


@pytest.mark.parametrize("log_p, is_ordered", [(-90.0, True), (-130.0, False)])
def test_the_report_prints_no_inequality_that_does_not_hold(log_p, is_ordered):
    test = _numbers(-120.0, -100.0, log_p, error=np.nan if is_ordered else 0.1)
    log_p = test["log_p"] | {"error_over": "over images"}
    config = {"evaluation": {"iwae_samples": 5, "num_chains": 1}}
    text = evaluate.report(
        {"replicates": [{"test": test}], "test_log_p": log_p, "config": config}
    )
    assert ("ELBO -120.00 < IWAE-5 -100.00 < AIS -90.00" in text) == is_ordered
    assert ("<" in text) == is_ordered == ("one chain: no error" in text)
    assert "nan" not in text


def test_bad_sampling_is_warned_of(caplog):
    settings = resolve(make_config(**EVALUATION)).evaluation
    good = {"ess": np.full(5, 3.0), "accept_prob": np.full(5, 0.6)}
    good["standard_error"] = np.full(5, 1.1)
    diagnostics.of_sampling(good, _numbers(-3.0, -2.0, -1.0), settings)
    assert not caplog.text
    bad = {"ess": np.array([1.0, 1.1, 1.2, 4.0, 4.0]), "accept_prob": np.zeros(5)}
    bad["standard_error"] = np.array([0.5, 9.0, 0.5, 0.5, np.inf])
    diagnostics.of_sampling(bad, _numbers(-3.0, -4.0, -5.0, 2.0), settings)
    for cause in (
        *("ESS is below 1.5 of 4 chains", "stood still", "not in the order"),
        "Monte Carlo error of log p(x), 2 nats, is above 0.1",
        "2 of 5 images have an error above 1 nat",
    ):
        assert cause in caplog.text
    assert "evaluation.num_temperatures=16" in caplog.text


def test_a_gap_of_a_few_examples_is_warned_of(caplog):
    settings = resolve(make_config(**EVALUATION)).evaluation
    diagnostics.of_gap(np.full(100, 0.05), settings)
    assert not caplog.text
    diagnostics.of_gap(np.append(np.full(98, 0.05), [87.0, 20.0]), settings)
    assert "gap, 1.119 nats, is above 0.1" in caplog.text
    assert "that of 2 of 100 simulated examples above 1 nat" in caplog.text


@pytest.mark.parametrize("num", [0, 297, 1000, 100000])
def test_more_images_than_there_are_are_named(caplog, num):
    config = make_config(evaluation__num_examples=num)
    diagnostics.of_few_images(resolve(config).evaluation, load.load("digits"))
    expected = "num_examples=100000: digits has 297 test images, and all are evaluated"
    assert (expected in caplog.text) == bool(caplog.text) == (num == 100000)
