"""Sweeps over any settings: the grid, random draws of it, refusals."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs import digits
from experiments.paper import grid
from experiments.system.errors import InputError

RATES = "optimizer.learning_rate=1e-3,3e-3"
SAMPLES = "estimator.num_samples=1,5"


def test_a_grid_has_every_combination():
    variants = grid.select(digits.get_config("ais"), [RATES, SAMPLES])
    assert [v.name for v in variants] == [
        "learning_rate=0.001,num_samples=1",
        "learning_rate=0.001,num_samples=5",
        "learning_rate=0.003,num_samples=1",
        "learning_rate=0.003,num_samples=5",
    ]
    settings = variants[-1].settings
    assert settings.learning_rates == ((3e-3, 3e-3),)
    assert settings.estimator["num_samples"] == 5
    assert settings.num_epochs == digits.get_config().num_epochs


def test_text_and_tuples_are_values():
    over = ["model.activation=tanh,relu", "model.widths=((20,),),((30, 40),)"]
    variants = grid.select(digits.get_config(), over)
    models = [
        (v.settings.model["activation"], v.settings.model["widths"]) for v in variants
    ]
    assert models[0] == ("tanh", ((20,),)) and models[-1] == ("relu", ((30, 40),))
    assert len({v.name for v in variants}) == 4


def test_a_random_sweep_draws_points_without_doubles():
    config, all_of_them = digits.get_config(), [RATES, SAMPLES, "batch_size=50,100"]
    names = [v.name for v in grid.select(config, all_of_them)]
    drawn = [v.name for v in grid.select(config, all_of_them, num_random=3)]
    assert len(set(drawn)) == 3 and set(drawn) < set(names)
    assert drawn == [v.name for v in grid.select(config, all_of_them, num_random=3)]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("optimizer.learning_rat=1", "did you mean 'optimizer.learning_rate'"),
        ("batch_size", "use NAME=VALUE,VALUE"),
        ("batch_size=", "use NAME=VALUE,VALUE"),
        ("batch_size=many,few", "batch_size"),
        ("model.likelihood=poison", "model.likelihood='poison' is unknown"),
        ("batch_size=0", "batch_size=0"),
    ],
)
def test_bad_texts_are_refused_in_a_line(over, message):
    with pytest.raises(InputError, match=message) as caught:
        grid.select(digits.get_config(), [over])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--dry_run", "--shard=1/2", "--only=batch_size=50"])
def test_flags_of_tables_are_refused_in_a_line(tmp_path, flag):
    command = ["-m", "experiments.sweep", "--config=configs/digits.py", flag]
    command += ["--over=batch_size=50,100", f"--workdir={tmp_path / 'sweep'}"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    name = flag.split("=")[0]
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"Error: {name} is for tables: leave it out with --over\n"
    assert not (tmp_path / "sweep").exists()
