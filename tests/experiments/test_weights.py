"""The trained models of weights/ are those of docs/weights.md."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from ais_jax import importance_log_weights, posterior_path
from ais_jax.numerics import log_mean_exp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "weights.md").read_text()
NAMES = ["omniglot", "mnist"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def run(name):
    return experiments.load_run(ROOT / "weights" / f"{name}.npz")


def row(name):
    """The page's numbers of a model; the last two are the IWAE bound and the ELBO."""
    (line,) = re.findall(rf"^\| `{name}.npz` \|.*$", PAGE, re.MULTILINE)
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", line)]


def iwae(run, images, num_samples=100):
    """The IWAE bound of each image, nats."""

    def bound(key, x):
        path = posterior_path(run.model, run.theta, run.phi, x)
        return log_mean_exp(importance_log_weights(key, path, num_samples))

    keys = jax.random.split(jax.random.key(0), len(images))
    return np.asarray(jax.jit(jax.vmap(bound))(keys, images))


def test_the_file_is_of_the_run_that_the_page_says(name, run):
    assert run.settings.dataset == name
    assert run.settings.num_epochs in row(name)
    assert run.image_shape == (28, 28) and run.encode(np.zeros((1, 28, 28)))[
        0
    ].shape == (1, 50)


def test_test_images_have_the_bound_that_the_page_says(name, run, real):
    """Of the first 1,000, which are drawn to pixels by another key here."""
    pixels = jax.random.bernoulli(jax.random.key(1), real(name).test[:1000])
    bounds = iwae(run, pixels.astype("float32"))
    error = bounds.std() / np.sqrt(len(bounds))
    assert abs(bounds.mean() - row(name)[-2]) < error
