"""Noise and bias of gradients at a trained model."""

import numpy as np
import pytest

from experiments.paper import gradients
from experiments.run.launch import train_and_evaluate
from experiments.system.errors import InputError
from experiments.system.files import read_json
from tests.experiments import test_launch as launcher
from tests.experiments.test_launch import SHORT, make_config

cache = launcher.cache
STL = "ais-K1-T1+phi_loss=stl+num_phi_samples="
NAMES = ("mh_hmc-K8-T5", "mh_hmc-K1-T5", "vae-K8", "vae-K1", f"{STL}1", f"{STL}8")


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A short training run: its workdir."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    train_and_evaluate(make_config(**SHORT, batch_size=20), workdir, mode="train")
    return workdir


@pytest.fixture(scope="module")
def rows(trained):
    """The row of every estimator here by its name, beside one pair of exact ones."""
    rows = gradients.run(trained, NAMES, num_batches=30)["rows"]
    assert [row["name"] for row in rows] == [*NAMES, gradients.EXACT]
    return {row["name"]: row for row in rows}


def test_noise_and_bias_of_gaussian_gradients_are_recovered():
    rng = np.random.default_rng(0)
    draw = lambda scale: scale * rng.normal(size=(100, 500))
    batch = draw(1.0)
    exact, again = batch + draw(1.7), batch + draw(1.7)
    found = gradients.compare(batch + draw(1.5) + 0.2, exact, again)
    assert found["noise"] == pytest.approx(2.25, abs=3 * found["noise_error"])
    assert found["bias"] == pytest.approx(0.04, abs=3 * found["bias_error"])
    assert found["noise_error"] < 0.2
    assert found["bias_error"] < 0.01


def test_more_chains_are_less_noisy_and_an_encoders_draws_are_biased(rows):
    many, one, encoder = (rows[name] for name in NAMES[:3])
    exact = rows[gradients.EXACT]
    difference = one["noise"] - many["noise"]
    assert difference > 3 * np.hypot(one["noise_error"], many["noise_error"])
    assert encoder["bias"] > many["bias"] + 3 * encoder["bias_error"]
    assert abs(exact["bias"]) < 3 * exact["bias_error"]


def test_the_folder_gets_the_rows(rows, trained):
    assert read_json(trained / "gradients.json")["rows"] == [*rows.values()]


def test_phis_stl_is_unbiased_and_more_draws_are_less_noisy(rows):
    elbo, one, many, exact = (rows[name] for name in (*NAMES[3:], gradients.EXACT))
    for more, less in ((elbo, many), (one, many), (many, exact)):
        error = np.hypot(more["phi_noise_error"], less["phi_noise_error"])
        assert more["phi_noise"] - less["phi_noise"] > 3 * error
    for row in (elbo, one, many, exact):
        assert abs(row["phi_bias"]) < 4 * row["phi_bias_error"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dreg", "write it as in"),
        ("dreg-K0", "at least 1"),
        ("airs-K1", "did you mean"),
    ],
)
def test_a_wrong_name_is_refused(trained, name, message):
    with pytest.raises(InputError, match=message):
        gradients.run(trained, [name])
