"""Every schedule rises from 0 to 1, and what does not is refused by name."""

import numpy as np
import pytest

from ais_jax import schedules


@pytest.mark.parametrize("num_temperatures", [1, 2, 5, 50])
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_schedules_rise_from_zero_to_one(name, num_temperatures):
    betas = schedules.make(name, num_temperatures)
    assert betas.shape == (num_temperatures + 1,)
    assert betas.dtype == np.float32
    np.testing.assert_array_equal(schedules.check_betas(betas), betas)


def test_linear_is_equally_spaced():
    np.testing.assert_allclose(schedules.linear(4), [0.0, 0.25, 0.5, 0.75, 1.0])


def test_all_target_is_one_after_the_base():
    np.testing.assert_array_equal(schedules.all_target(3), [0.0, 1.0, 1.0, 1.0])


def test_sigmoid_is_symmetric_and_dense_at_both_ends():
    betas = schedules.sigmoid(10)
    np.testing.assert_allclose(betas + betas[::-1], 1.0, atol=1e-6)
    steps = np.diff(betas)
    assert np.all(np.diff(steps[:5]) > 0.0)
    assert np.all(np.diff(schedules.sigmoid(10, steepness=8.0))[[0, -1]] < steps[0])


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_no_temperature_is_refused(name):
    with pytest.raises(ValueError, match="num_temperatures=0: use at least 1"):
        schedules.make(name, 0)


def test_sigmoid_refuses_a_steepness_that_is_not_positive():
    with pytest.raises(ValueError, match="steepness=0"):
        schedules.sigmoid(3, steepness=0.0)


def test_unknown_schedule_names_the_nearest():
    with pytest.raises(ValueError, match=r"schedule='linaer'.*did you mean 'linear'"):
        schedules.make("linaer", 3)


def test_ties_are_allowed():
    betas = schedules.check_betas([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    np.testing.assert_array_equal(np.diff(betas), [0.0, 0.5, 0.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([1.0], "give at least"),
        ([[0.0, 1.0]], "shape"),
        ([0.1, 1.0], "from 0.1 to 1"),
        ([0.0, 0.9], "from 0 to 0.9"),
        ([0.0, 0.6, 0.4, 1.0], r"betas\[1\]=0.6 is followed by betas\[2\]=0.4"),
        ([0.0, float("nan"), 1.0], r"betas\[0\]=0 is followed by betas\[1\]=nan"),
    ],
)
def test_betas_that_do_not_rise_from_zero_to_one_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        schedules.check_betas(betas)
