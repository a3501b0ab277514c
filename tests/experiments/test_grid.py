"""Sweeps over any settings: the grid, random draws of it, refusals."""

import pytest

from configs import digits
from experiments.paper import grid, sweep
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


def test_a_share_of_a_grid_is_listed_and_nothing_is_written(tmp_path):
    over = [RATES, SAMPLES]
    shares = [sweep.select(digits.get_config(), f"{i}/2", over=over) for i in (1, 2)]
    first, second = ([v.name for v in share] for share in shares)
    assert len(first) == len(second) == 2 and not set(first) & set(second)
    text = sweep.listing(shares[0], tmp_path)
    assert all(name in text for name in first)
    assert text.endswith("2 variants, 0 finished")
    assert not list(tmp_path.iterdir())
