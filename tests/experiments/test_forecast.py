"""What is foretold of an evaluation's time."""

import logging

import pytest

from experiments.evaluate import forecast
from experiments.run.settings import resolve
from experiments.system.progress import spoken
from tests.experiments.test_launch import make_config

ROWS = [
    {"seconds": 10.5, "gradient_evaluations": 1000},
    {"seconds": 11.0, "gradient_evaluations": 2000},
    {"seconds": 15.5, "gradient_evaluations": 11000},
    {"seconds": 16.0, "gradient_evaluations": 12000},
]


@pytest.fixture(autouse=True)
def _lines(caplog):
    caplog.set_level(logging.INFO, logger="experiments")


def settings(**changes):
    names = {f"evaluation__{name}": value for name, value in changes.items()}
    return resolve(make_config(**names)).evaluation


def test_the_time_is_told_once_the_pace_is_known(caplog):
    fixed = settings(num_examples=0, iwae_samples=10)
    moves = 300 * 4 * 16 + 20 * 4 * 16 * 2 + 300
    assert forecast.num_gradients(fixed, 300) == 2 * moves
    tell = forecast.teller(fixed, 300, 200_000)
    for row in ROWS:
        tell(row)
    seconds = 3.0 + 2 * moves / 2000
    assert caplog.messages == [
        f"About 1.8 min of training and {spoken(seconds)} of evaluation."
    ]


def test_an_evaluation_of_days_is_warned_of_before_it_starts(caplog):
    paper = settings(num_examples=0, num_temperatures=10**6)
    forecast.tell_before(paper, 10_000, ROWS)
    told, warned = caplog.messages
    assert "days of evaluation" in told and "longer than the training" in warned
    assert "evaluation.num_examples" in warned
    caplog.clear()
    forecast.tell_before(paper, 10_000, ROWS[:1])
    assert not caplog.messages


def test_a_smaller_error_and_more_images_cost_more():
    costs = [
        forecast.num_gradients(settings(**changes, num_temperatures=None), 500)
        for changes in (
            {"error": 0.1},
            {"error": 0.02},
            {"error": 0.02, "num_examples": 0},
            {"error": 0.02, "num_examples": 0, "num_simulated": None},
        )
    ]
    assert costs == sorted(costs) and len(set(costs)) == 4
