"""Figure 1 as a command: the paper's ordering, the files, refusals of bad input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.figure1 import get_config
from experiments.paper import figure1
from experiments.system.errors import InputError
from experiments.system.files import read_json
from tests.experiments import forks

ROOT = Path(__file__).parents[2]


def call(*args):
    command = [sys.executable, "-m", "experiments.figure1", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def changed(**settings):
    config = get_config()
    with config.unlocked(), config.ignore_type():
        config.update(settings)
    return config


def test_q_ais_is_closer_than_q_is_is_closer_than_q():
    config = changed(costs=(50,), num_samples=(1, 5), num_draws=1000)
    rows, draws = figure1.measure(config, figure1.plan(config))
    assert draws.shape == (len(rows), 1000, 2)
    exact, q, q_is, *q_ais = rows
    names = [row.name for row in rows]
    assert names == ["p", "q", "q_IS", "q_AIS", "q_AIS"]
    for nearer, farther in [(q_is, q), (q_ais[0], q_is), (q_ais[1], q_is)]:
        error = np.hypot(nearer.standard_error, farther.standard_error)
        assert farther.mmd2 - nearer.mmd2 > 5.0 * error
    assert abs(exact.mmd2) < 5.0 * exact.standard_error


def test_every_row_meets_its_cost():
    config = get_config()
    rows = figure1.plan(config)
    assert {row.cost for row in rows[2:]} == set(config.costs)
    for row in rows[2:]:
        moves = row.num_temperatures * config.num_leapfrog
        assert row.num_samples * (moves or 1) == row.cost


def test_the_command_writes_its_results(tmp_path):
    done = call(
        f"--workdir={tmp_path / 'run'}",
        "--config.costs=(5, 20)",
        "--config.num_samples=1",
        "--config.num_draws=200",
        "--config.correlation=-0.9",
        "--config.schedule=sigmoid",
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "run") in done.stdout
    results = read_json(tmp_path / "run" / "results.json")
    rows = results["rows"]
    assert [row["name"] for row in rows] == ["p", "q"] + 2 * ["q_IS"] + 2 * ["q_AIS"]
    assert results["config"]["correlation"] == -0.9
    for row in rows:
        assert f"{row['mmd2']:.6f}" in done.stdout
        assert row["standard_error"] > 0.0
    assert all(0.5 < row["accept_prob"] <= 1.0 for row in rows[4:])
    q = rows[1]
    assert abs(q["mmd2"] - results["exact_mmd2_of_q"]) < 5.0 * q["standard_error"]
    with np.load(tmp_path / "run" / "draws.npz") as saved:
        assert saved["draws"].shape == (6, 200, 2)
    image = (tmp_path / "run" / "figure1.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")


def test_draws_repeat_and_follow_the_seed():
    settings = {"costs": (5,), "num_samples": (1,), "num_draws": 100}
    draws = []
    for seed in (0, 0, 1):
        config = changed(seed=seed, **settings)
        last = figure1.plan(config)[-1:]
        draws.append(figure1.measure(config, last)[1])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.any(draws[0] == draws[2])


@pytest.mark.slow
def test_a_target_that_is_q_itself_can_be_plotted(tmp_path):
    settings = {"costs": (5,), "num_samples": (1,), "num_draws": 100}
    results = figure1.run(changed(correlation=0.0, **settings), tmp_path)
    assert results["exact_mmd2_of_q"] == 0.0
    assert (tmp_path / "figure1.png").exists()


BAD = {
    "correlation=1.5: use a number between -1 and 1": {"correlation": 1.5},
    "correlation=-1.0: use a number": {"correlation": -1.0},
    "correlation=nan: use a number": {"correlation": float("nan")},
    "num_leapfrog=0: use at least 1": {"num_leapfrog": 0},
    "num_draws=99: use at least 100": {"num_draws": 99},
    "seed=-1: use at least 0": {"seed": -1},
    "step_size=0.0: use a positive number": {"step_size": 0.0},
    "step_size=inf: use a positive number": {"step_size": float("inf")},
    "bandwidth=-1.0: use a positive number": {"bandwidth": -1.0},
    "bandwidth='a': give one like 0.5": {"bandwidth": "a"},
    "costs=[(][)]: list whole numbers that rise": {"costs": ()},
    "costs=[(]50, 25[)]: list whole numbers that rise": {"costs": (50, 25)},
    "costs=[(]0, 25[)]: list whole numbers that rise": {"costs": (0, 25)},
    "costs=[(]25.0,[)]: list whole numbers that rise": {"costs": (25.0,)},
    "num_samples=[(]1, 1[)]: list whole": {"num_samples": (1, 1)},
    "costs=36 is no multiple .* 5 [*] 1: use 35": {"costs": (25, 36)},
    "costs=10 is no multiple .* 5 [*] 5: use 25": {"costs": (10, 25)},
    "schedule='linaer' is unknown: did you mean 'linear'": {"schedule": "linaer"},
    "setting='num_chains' is unknown": {"num_chains": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_settings_are_named(tmp_path, message):
    with pytest.raises(InputError, match=message):
        figure1.run(changed(**BAD[message]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_setting_is_named():
    config = get_config()
    del config.bandwidth
    with pytest.raises(InputError, match=r"bandwidth=None: give one like 0\.5"):
        figure1.plan(config)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.correlation=1", "correlation=1.0: use a number between -1 and 1"),
        ("--config.corelation=0.5", 'Did you mean "correlation"'),
        ("--config.num_draws=many", "--config.num_draws=many"),
        ("--config=configs/absent.py", "absent.py"),
        ("--workdir=README.md/run", "workdir=README.md/run cannot be written"),
    ],
)
def test_bad_arguments_end_in_one_line_and_status_2(argument, message):
    done = forks.run("experiments.figure1", argument)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert not done.stdout
