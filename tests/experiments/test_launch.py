"""The launcher as users run it: whole runs, killed runs, refused runs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs import digits
from experiments.data import load
from experiments.evaluate import evaluate
from experiments.run import build, folder, train
from experiments.run.checkpoint import Checkpointer
from experiments.run.folder import VERSION
from experiments.run.launch import train_and_evaluate
from experiments.run.metrics import read_metrics
from experiments.run.settings import resolve
from experiments.system import devices, files
from experiments.system.errors import ConfigError, NonFiniteLoss
from experiments.system.files import read_json, write_json
from tests.experiments import forks
from tests.experiments.test_metrics import read_events

ROOT = Path(__file__).parents[2]
STEPS = 600
TINY = {
    "num_epochs": STEPS // 15,
    "model.force_precision": "float32",
    "evaluation.force_precision": "float32",
    "model.latent_sizes": (4,),
    "model.widths": ((16,),),
    "estimator.num_temperatures": 3,
    "estimator.num_leapfrog": 2,
    "training.steps_per_row": 5,
    "evaluation.num_examples": 50,
    "evaluation.num_chains": 4,
    "evaluation.num_temperatures": 16,
    "evaluation.num_leapfrog": 2,
    "evaluation.iwae_samples": 5,
    "evaluation.num_simulated": 20,
    "evaluation.chunk_size": 16,
}
SHORT = {"num_epochs": 2, "evaluation.num_examples": 5, "evaluation.num_simulated": 0}
ONE_LAYER = {}
TWO_LAYERS = {"model.latent_sizes": (4, 2), "model.widths": ((8,), (6,))}
UNIT = {"estimator.preconditioner": "unit"}
UNIT_EVALUATION = {"evaluation.preconditioner": "unit"}
PRIOR = {"evaluation.start": "prior"}
BF16 = {"model.force_precision": "bf16"}
HEAVY = ("jax", "flax", "orbax", "matplotlib", "sklearn", "tensorflow_datasets")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One compilation cache for this process and for those that it starts."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    old = {name: getattr(jax.config, name) for name in names}
    folder = tmp_path_factory.getbasetemp() / "compile_cache"
    for name, value in zip(names, (str(folder), 0)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in old.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    """A run that nothing disturbs: its workdir."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    with started(cache, workdir, TINY) as process:
        assert process.wait() == 0, log_of(workdir)
    return workdir


@pytest.fixture(scope="module")
def stopped(cache, tmp_path_factory):
    """A run that SIGTERM stopped half-way: its workdir."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    with started(cache, workdir, TINY, "--mode=train") as process:
        wait_until(lambda: last_step(workdir) >= 100, process, workdir)
        process.terminate()
        assert process.wait() == 3, log_of(workdir)
    return workdir


@contextlib.contextmanager
def started(cache, workdir, settings, *arguments):
    """The launcher as a process; what it prints goes to a file beside the workdir."""
    command = [sys.executable, "-m", "experiments.main", f"--workdir={workdir}"]
    command += [f"--compile_cache={cache}", *arguments]
    command += [f"--config.{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with (
        open(f"{workdir}.log", "w") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def log_of(workdir):
    return Path(f"{workdir}.log").read_text()


def wait_until(condition, process, workdir, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended before its time: {log_of(workdir)}"
        assert time.monotonic() < deadline, log_of(workdir)
        time.sleep(0.01)


def kill_when(condition, process, workdir):
    wait_until(condition, process, workdir)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def let_checkpoint_come_due(process, seconds=1.1):
    """Freezes a run for longer than its `training.checkpoint_seconds`."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)


def last_step(workdir):
    path = workdir / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return rows[-1]["step"] if rows else 0


def checkpoints(workdir):
    """Everything in the folder of checkpoints, half-written ones too."""
    return set(os.listdir(workdir / "checkpoints"))


def rows_without_seconds(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    seconds = [row.pop("seconds") for row in rows]
    assert seconds == sorted(seconds)
    return rows


def make_config(estimator="best", **settings):
    """The tiny config for this process; a double underscore stands for a dot."""
    config = digits.get_config(estimator)
    flat = {name.replace("__", "."): value for name, value in settings.items()}
    moves = {k for k in TINY if k.startswith("estimator.")}
    unread = set() if "num_leapfrog" in config.estimator else moves
    tiny = {k: v for k, v in TINY.items() if k not in unread}
    config.update_from_flattened_dict({**tiny, **flat})
    return config


def final_state(workdir):
    """The newest checkpoint: (step, arrays)."""
    state = newest_state(workdir)
    return int(state.step[0]), jax.tree.leaves(state)


def newest_state(workdir):
    """The training state of the newest checkpoint, on the host."""
    settings = resolve(folder.saved_config(workdir))
    setup = build.build_training(settings, load.load("digits"))
    with Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        return jax.device_get(checkpointer.restore(train.template(setup)))


def assert_same_training(workdir, expected):
    step, arrays = final_state(workdir)
    expected_step, expected_arrays = final_state(expected)
    assert step == expected_step == STEPS
    assert len(arrays) == len(expected_arrays)
    for mine, theirs in zip(arrays, expected_arrays):
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes()
    assert rows_without_seconds(workdir) == rows_without_seconds(expected)


def chunks(workdir):
    """Path within the evaluation's folder -> bytes of each array of each chunk."""
    found = {}
    for path in sorted((workdir / "evaluation").glob("*/*/*.npz")):
        with np.load(path) as file:
            content = {name: file[name].tobytes() for name in file.files}
        found["/".join(path.parts[-3:])] = content
    return found


def refused(*arguments):
    """The one line on stderr of a launch that must be refused as bad input."""
    done = forks.run("experiments.main", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_run_leaves_its_config_metrics_checkpoints_results_and_plots(uninterrupted):
    results = read_json(uninterrupted / "results.json")
    expected = resolve(make_config()).saved
    saved = read_json(uninterrupted / "config.json")
    assert saved["version"] == results["version"] == VERSION
    assert saved["config"] == expected == results["config"]
    assert saved["data_digest"] == results["data"]["digest"]
    assert any(p.stat().st_size for p in (uninterrupted / "tensorboard").iterdir())
    assert str(STEPS) in checkpoints(uninterrupted)
    shown = {v.tag for e in read_events(uninterrupted) for v in e.summary.value}
    assert {"elbo", "step_sizes/0", "training/samples", "samples"} <= shown
    rows = read_metrics(uninterrupted / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(5, STEPS + 1, 5))
    names = {"learning_curves", "samples", "sample_pixels", "reconstructions"}
    names |= {"traversals", "bounds", "iwae"}
    plots = {p.stem: p for p in (uninterrupted / "plots").glob("*.png")}
    assert plots.keys() == names
    for path in plots.values():
        assert np.ptp(matplotlib.image.imread(path)) > 0.5


def test_results_say_what_was_measured_and_how(uninterrupted):
    results = read_json(uninterrupted / "results.json")
    log_p, test = results["test_log_p"], results["replicates"][0]["test"]
    assert log_p["error_over"] == "over images"
    assert log_p["mean"] == test["log_p"]["mean"]
    assert 0.1 < log_p["standard_error"] < 2.0
    assert 0.0 < test["log_p"]["monte_carlo"] < log_p["standard_error"]
    provenance = folder.provenance() | {"commit": results["commit"]}
    cores = len(os.sched_getaffinity(0))  # each a device of the launcher's
    assert provenance.pop("device") == "1 x cpu (cpu)"
    assert results["device"] == f"{cores} x cpu (cpu)"
    assert {k: results[k] for k in provenance} == provenance
    assert (results["steps"], results["epochs"]) == (STEPS, STEPS // 15)
    points = 2 + 1  # of the last trajectory
    # Three moves of two steps, four in the last fifth, and phi's draws.
    early, late = (1 + num_moves * 2 + points + 4 for num_moves in (3, 4))
    expected = STEPS // 5 * 100 * (4 * early + late)
    assert results["gradient_evaluations"] == expected
    assert results["training_seconds"] > 0.0
    assert results["evaluation_seconds"] > 0.0
    assert f"test log p(x) = {log_p['mean']:.2f} +-" in log_of(uninterrupted)


def test_the_elbo_rises_and_the_bounds_are_in_order(uninterrupted):
    rows = read_metrics(uninterrupted / "metrics.jsonl")
    elbos = np.array([row["elbo"] for row in rows])
    assert np.mean(elbos[-15:]) > np.mean(elbos[:15]) + 2.0
    part = read_json(uninterrupted / "results.json")["replicates"][0]
    test, gap = part["test"], part["bidirectional"]
    assert test["elbo"]["mean"] < test["iwae"]["mean"] < test["log_p"]["mean"]
    assert test["log_p"]["mean"] < np.mean(elbos[-15:]) + 3.0
    assert abs(gap["gap"]) < 5 * gap["gap_error"] < 1.0
    assert gap["num_simulated"] == 20


@pytest.mark.slow
def test_killed_runs_resume_to_the_very_same_numbers(
    cache, uninterrupted, tmp_path, caplog
):
    workdir = tmp_path / "run"
    often = TINY | {"training.checkpoint_seconds": 1.0}
    never = TINY | {"training.checkpoint_seconds": 1000.0}

    with started(cache, workdir, never, "--mode=train") as process:
        kill_when(lambda: last_step(workdir) >= 50, process, workdir)
    assert not checkpoints(workdir)

    reached = last_step(workdir)
    with started(cache, workdir, often, "--mode=train") as process:
        wait_until(lambda: last_step(workdir) > reached, process, workdir)
        let_checkpoint_come_due(process)
        seen = lambda: checkpoints(workdir) and last_step(workdir) > reached + 100
        kill_when(seen, process, workdir)

    reached, before = last_step(workdir), checkpoints(workdir)
    with started(cache, workdir, often, "--mode=train") as process:
        wait_until(lambda: last_step(workdir) > reached, process, workdir)
        let_checkpoint_come_due(process)
        kill_when(lambda: checkpoints(workdir) != before, process, workdir)
    assert reached < last_step(workdir) < STEPS

    with caplog.at_level("INFO", logger="experiments"):
        train_and_evaluate(make_config(), workdir, mode="train")
    assert "Resuming from step" in caplog.text
    assert_same_training(workdir, uninterrupted)


def test_a_stop_signal_saves_the_run_and_says_how_to_go_on(stopped):
    lines = log_of(stopped).splitlines()
    reached, arrays = final_state(stopped)
    assert 100 <= reached == last_step(stopped) < STEPS
    assert lines[-1] == (
        f"Stopped at step {reached} of {STEPS}, saved in {stopped}. The same "
        f"command with --workdir={stopped} goes on from there."
    )
    assert all(np.all(np.isfinite(array)) for array in arrays)
    assert not any(line.startswith("Traceback") for line in lines)


def test_a_stopped_run_goes_on_to_the_very_same_numbers(
    cache, stopped, uninterrupted, tmp_path
):
    workdir = Path(shutil.copytree(stopped, tmp_path / "run"))
    train_and_evaluate(make_config(), workdir, mode="train")
    assert_same_training(workdir, uninterrupted)


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_very_same_numbers(
    cache, uninterrupted, tmp_path
):
    workdir = tmp_path / "run"
    kept = ("results.json", "evaluation", "plots")
    shutil.copytree(uninterrupted, workdir, ignore=shutil.ignore_patterns(*kept))

    def written(name):
        found = workdir.glob(f"evaluation/*/{name}/*.npz")
        return {path: path.stat().st_mtime_ns for path in found}

    with started(cache, workdir, {}, "--mode=evaluate") as process:
        kill_when(lambda: len(written("test_T=16")) >= 2, process, workdir)
    first = written("test_T=16")
    assert len(first) < 10
    with started(cache, workdir, {}, "--mode=evaluate") as process:
        kill_when(lambda: written("pairs_T=16_of_20"), process, workdir)
    assert first.items() <= written("test_T=16").items()
    assert not (workdir / "results.json").exists()
    with started(cache, workdir, {}, "--mode=evaluate") as process:
        assert process.wait() == 0, log_of(workdir)
    assert first.items() <= written("test_T=16").items()
    assert chunks(workdir) == chunks(uninterrupted)
    ended, expected = (
        read_json(folder / "results.json") for folder in (workdir, uninterrupted)
    )
    assert ended["replicates"] == expected["replicates"]
    assert ended["test_log_p"] == expected["test_log_p"]
    assert ended["gradient_evaluations"] == expected["gradient_evaluations"]


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"num_epochs": 50}, "num_epochs=40, not 50"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"optimizer__learning_rate": (1e-3,)}, "optimizer.learning_rate=[0.015], not"),
        ({"model__widths": ((8,),)}, "model.widths=[[16]], not [[8]]"),
        ({"training__steps_per_row": 15}, "training.steps_per_row=5, not 15"),
        ({"estimator": "vae"}, "estimator.average='points', not None"),
    ],
)
def test_a_workdir_of_another_config_is_refused_by_the_setting(
    uninterrupted, settings, name
):
    before = (uninterrupted / "config.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        train_and_evaluate(make_config(**settings), uninterrupted, mode="train")
    assert f"workdir={uninterrupted} holds a run with {name}" in str(caught.value)
    assert (uninterrupted / "config.json").read_bytes() == before


def test_a_workdir_of_other_data_is_refused(uninterrupted, tmp_path):
    content = {"config": resolve(make_config()).saved, "data_digest": "0" * 16}
    write_json(tmp_path / "config.json", {"version": VERSION, **content})
    with pytest.raises(ConfigError, match="a run with data_digest='0000000000000000'"):
        train_and_evaluate(make_config(), tmp_path, mode="train")
    write_json(tmp_path / "config.json", {"version": VERSION - 1, **content})
    with pytest.raises(ConfigError, match=rf"has version={VERSION - 1}, and this"):
        train_and_evaluate(make_config(), tmp_path, mode="train")


def test_other_settings_of_the_evaluation_may_go_on(
    cache, uninterrupted, tmp_path, capsys
):
    workdir = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    free = {"evaluation__num_chains": 9, "training__checkpoint_seconds": 5.0}
    assert train_and_evaluate(make_config(**free), workdir, mode="train") is None
    said = capsys.readouterr().out
    assert said.startswith(f"Trained: {workdir}") and said.endswith(f"={workdir}\n")
    assert_same_training(workdir, uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_run(cache, tmp_path):
    workdir = tmp_path / "run"
    rate = {"optimizer.learning_rate": (1e30,), "optimizer.phi.learning_rate": (1e30,)}
    with started(cache, workdir, TINY | rate) as process:
        assert process.wait() == 1, log_of(workdir)
    last = log_of(workdir).splitlines()[-1]
    assert last.startswith("Error: The loss was not finite at step ")
    assert "no checkpoint had been saved" in last
    assert "optimizer.learning_rate" in last
    assert "Traceback" not in log_of(workdir)
    assert not (workdir / "results.json").exists()


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(cache, tmp_path):
    """The first step leaves huge parameters, which are saved; the next has no loss."""
    workdir, high = tmp_path / "run", (1e30,)
    config = make_config(
        optimizer__learning_rate=high,
        optimizer__phi__learning_rate=high,
        training__steps_per_row=1,
        training__checkpoint_seconds=0.0,
    )
    with pytest.raises(NonFiniteLoss) as caught:
        train_and_evaluate(config, workdir, mode="train")
    saved, _ = final_state(workdir)
    assert caught.value.status == 1
    assert f"last good checkpoint is of step {saved} in {workdir}" in str(caught.value)
    bad = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert 1 <= saved <= bad
    assert final_state(workdir)[0] == last_step(workdir) == saved


def test_replicates_equal_lone_runs_of_their_seeds_and_rates(cache, tmp_path):
    rates = (3e-3, 1e-3)
    both = dict(num_replicates=2, optimizer__learning_rate=rates, seed=7, **SHORT)
    results = train_and_evaluate(make_config(**both), tmp_path / "both")
    rows = read_metrics(tmp_path / "both" / "metrics.jsonl")
    _, together = final_state(tmp_path / "both")
    for r, rate in enumerate(rates):
        workdir = tmp_path / f"lone_{r}"
        lone = dict(optimizer__learning_rate=(rate,), seed=7 + r, **SHORT)
        train_and_evaluate(make_config(**lone), workdir, mode="train")
        _, alone = final_state(workdir)
        for many, one in zip(together, alone):
            np.testing.assert_allclose(many[r], one[0], rtol=1e-3, atol=1e-4)
        elbos = [row["elbo"] for row in read_metrics(workdir / "metrics.jsonl")]
        np.testing.assert_allclose([row["elbo"][r] for row in rows], elbos, rtol=1e-4)
    assert max(np.max(np.abs(many[0] - many[1])) for many in together) > 0.1
    parts = results["replicates"]
    means = [part["test"]["log_p"]["mean"] for part in parts]
    assert [part["name"] for part in parts] == [f"learning rate {r:g}" for r in rates]
    assert results["best"] == np.argmax(means) and len(set(means)) == 2
    assert results["test_log_p"]["mean"] == max(means)
    lines = evaluate.report(results).splitlines()[::2]
    for r, (line, mean) in enumerate(zip(lines, means, strict=True)):
        best = " (best)" * (r == results["best"])
        assert line.startswith(f"learning rate {rates[r]:g}{best}: test log p(x) = ")
        assert f"{mean:.2f} +-" in line and "over images" in line


def test_seeds_side_by_side_are_pooled():
    means, test = (-3.0, -5.0), {"log_p": {"standard_error": 0.1}}
    parts = [{"test": {"log_p": test["log_p"] | {"mean": m}}} for m in means]
    log_p = evaluate._summary(parts)["test_log_p"]
    expected = {"mean": -4.0, "standard_error": 1.0, "error_over": "over replicates"}
    assert log_p == pytest.approx(expected)


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "estimator, layers, settings",
    [
        ("ais", TWO_LAYERS, {**UNIT, **UNIT_EVALUATION, **PRIOR, **BF16}),
        slow("dreg", ONE_LAYER, {}),
        slow("iwae", ONE_LAYER, {}),
        slow("mh_hmc", ONE_LAYER, UNIT),
        slow("stl", ONE_LAYER, {}),
        slow("vae", ONE_LAYER, {}),
        slow("ais", ONE_LAYER, BF16),
        slow("ais", ONE_LAYER, UNIT),
        slow("ais", TWO_LAYERS, UNIT_EVALUATION),
        slow("dreg", TWO_LAYERS, {}),
        slow("iwae", TWO_LAYERS, PRIOR),
        slow("mh_hmc", TWO_LAYERS, {}),
        slow("mh_hmc", TWO_LAYERS, {**UNIT, **PRIOR}),
        slow("stl", TWO_LAYERS, {}),
        slow("vae", TWO_LAYERS, UNIT_EVALUATION),
    ],
)
def test_every_estimator_trains_and_is_evaluated(
    cache, tmp_path, estimator, layers, settings
):
    settings = {**SHORT, **layers, **settings, "estimator.num_samples": 2}
    config = make_config(estimator, **settings)
    results = train_and_evaluate(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["step"] == results["steps"] == 30
    assert rows[0]["elbo"] - 1.0 < rows[-1]["elbo"] < -15.0
    uniform = estimator in ("vae", "stl", "mh_hmc")
    assert all(row["ess"] == 1.0 if uniform else row["ess"] < 1.0 for row in rows)
    assert ("accept_prob" in rows[0]) == (estimator in ("ais", "mh_hmc"))
    log_p = results["test_log_p"]
    assert -45.0 < log_p["mean"] < -15.0
    assert 0.0 < log_p["standard_error"] < 10.0


@pytest.mark.slow
def test_learning_curves_hold_the_test_log_p_at_the_epochs_asked_for(cache, tmp_path):
    config = make_config(
        **SHORT,
        num_replicates=2,
        training__evaluate_epochs=1,
        training__steps_per_row=10,
    )
    train_and_evaluate(config, tmp_path, mode="train")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    measured = {row["step"]: row["test_log_p"] for row in rows if "test_log_p" in row}
    assert measured.keys() == {15, 30}
    assert np.all(np.array(measured[30]) > np.array(measured[15]))


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--config=configs/digits.py:dregs"], "did you mean 'dreg'?"),
        (["--config=configs/nowhere.py"], "configs/nowhere.py"),
        (["--config.num_epoch=3"], "num_epoch"),
        (["--config.estimator.weighting=unifrom"], "weighting"),
        (["--config.optimizer.settings.weight_decay=0.1"], "settings=\"{'NAME'"),
        (["--config.batch_size=many"], "batch_size=many"),
        (["--config.batch_size=0"], "batch_size=0: use at least 1"),
        (["--config.dataset=digit"], "did you mean 'digits'?"),
        (["--config=configs/table1.py"], "use that"),
        (["--config.optimizer.learning_rate=(nan,)"], "use a tuple, such as (0.001,)"),
        (["--config.model.widths=((200,200))"], "such as ((200, 200),)"),
        (["--config.model.widths=((9999999,9999999),)"], "GiB for the parameters"),
        (["--workdri=x"], "Did you mean: workdir"),
        (["--mode=tarin"], "mode=tarin"),
        (["--mode=evaluate"], "give the --workdir of one"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(tmp_path, arguments, reason):
    if "--mode=evaluate" not in arguments:
        arguments = [*arguments, f"--workdir={tmp_path / 'run'}"]
    assert reason in refused(*arguments)
    assert not (tmp_path / "run").exists()


def test_what_a_config_file_raises_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(:\n    pass\n")
    message = refused(f"--config={tmp_path / 'mine.py'}")
    assert "--config: SyntaxError: invalid syntax (mine.py, line 1)" in message


def test_an_evaluation_with_the_config_of_another_run_is_refused(uninterrupted):
    folder.check_config(uninterrupted, make_config(num_epochs=STEPS // 15))
    with pytest.raises(ConfigError, match="holds a run with batch_size=100, not 50"):
        folder.check_config(uninterrupted, make_config(batch_size=50))
    other = ["--mode=evaluate", "--config=configs/mnist.py"]
    assert "holds a run with" in refused(f"--workdir={uninterrupted}", *other)


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(f"--workdir={tmp_path / 'file' / 'run'}")
    assert f"workdir={tmp_path / 'file' / 'run'} cannot be written" in message


def test_a_batch_larger_than_the_data_is_refused(cache, tmp_path):
    with pytest.raises(ConfigError, match="batch_size=1501: digits has 1500 training"):
        train_and_evaluate(make_config(batch_size=1501), tmp_path, mode="train")


def test_the_launcher_starts_without_the_heavy_libraries():
    program = (
        "import experiments.main, json, sys; "
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["help", "none"])
def test_help_lists_the_flags(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for flag in ("--config", "--workdir", "--mode", "--compile_cache"):
        assert f"{flag}:" in done.stdout
    assert done.returncode == 0
    assert "train_and_evaluate|train|evaluate" in done.stdout
    assert "best, ais, mh_hmc, dreg, iwae, stl or vae" in done.stdout
    assert "configs/default.py" in done.stdout
    assert done.stderr == ""


def test_a_second_training_in_one_folder_is_refused(tmp_path, cache):
    with files.locked(tmp_path, ".training.lock"), pytest.raises(ConfigError) as error:
        train_and_evaluate(make_config(**SHORT), tmp_path, mode="train")
    assert "is in use by another training" in str(error.value)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_missing_rows_of_metrics_are_named(uninterrupted, tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    setup = build.build_training(resolve(make_config()), load.load("digits"))
    rows = (uninterrupted / "metrics.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:1] + rows[3:]))
    train._warn_of_missing_rows(setup, path, 20)
    assert "lacks 2 rows of steps up to 20" in caplog.text
    assert "those of steps 10, 15. The training is whole" in caplog.text
    caplog.clear()
    train._warn_of_missing_rows(setup, uninterrupted / "metrics.jsonl", STEPS)
    assert not caplog.text


def test_a_finished_run_without_its_metrics_goes_on(uninterrupted, tmp_path, caplog):
    workdir = shutil.copytree(uninterrupted, tmp_path / "run")
    (workdir / "metrics.jsonl").unlink()
    train_and_evaluate(make_config(), workdir, mode="train")
    assert "lacks" in caplog.text and "The training is whole" in caplog.text


@pytest.mark.parametrize("acceptance", [0.0, [0.7, 0.01], 0.3])
def test_a_training_whose_chains_stand_still_says_so(acceptance, caplog):
    train._warn_of_low_acceptance([{"accept_prob": acceptance}] * 3 + [{"elbo": 0.0}])
    assert ("stood still" in caplog.text) == (acceptance != 0.3)
    assert acceptance == 0.3 or "estimator.preconditioner=encoder" in caplog.text


def test_gloos_error_is_a_lost_peer_where_there_are_several(monkeypatch):
    error = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    assert not devices.is_lost_peer(error)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert devices.is_lost_peer(error)
    assert not devices.is_lost_peer(ValueError("batch_size=0"))
