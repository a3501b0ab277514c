"""Rows with covariates and library sizes: from the file to runs and what these give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from ais_jax.models import networks
from experiments.data import load as datasets
from experiments.data.dataset import Dataset, for_likelihood
from experiments.evaluate import decoder
from experiments.run.launch import train_and_evaluate
from experiments.run.settings import resolve
from experiments.system.errors import ConfigError, DataError
from tests.experiments.test_run import tiny

ZINB = "zero_inflated_negative_binomial"
RNG = np.random.default_rng(0)
COUNTS = RNG.negative_binomial(2, 0.2, (48, 6))
BATCH = np.eye(2)[RNG.integers(0, 2, 48)]
MASK = RNG.random(COUNTS.shape) < 0.8
MASK[0] = True
SETTINGS = {"model__likelihood": ZINB, "model__missing": True, "num_replicates": 1}
X = np.hstack([np.where(MASK, COUNTS, np.nan), BATCH])  # what a run's methods take


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on counts with covariates, of which some are missing."""
    folder = tmp_path_factory.mktemp("counts")
    np.savez(
        folder / "cells.npz",
        **{"x_train": COUNTS[:36], "x_test": COUNTS[36:]},
        **{"mask_train": MASK[:36], "mask_test": MASK[36:]},
        **{"covariates_train": BATCH[:36], "covariates_test": BATCH[36:]},
    )
    config = tiny("ais", dataset=str(folder / "cells.npz"), **SETTINGS)
    results = train_and_evaluate(config, folder / "run")
    assert np.isfinite(results["replicates"][0]["bidirectional"]["gap"])
    return folder / "run"


@pytest.fixture(scope="module")
def run(folder):
    return experiments.load_run(folder)


def test_covariates_and_libraries_follow_the_values_of_their_rows(folder):
    data = datasets.load(str(folder.parent / "cells.npz"))
    np.testing.assert_array_equal(data.test, np.float32(X[36:]))
    assert (data.num_covariates, data.size, data.image_shape) == (2, 6, (1, 6))
    assert data.limits == (np.nanmin(X[:36, :6]), np.nanmax(X[:36, :6]))
    rows = for_likelihood(data, ZINB, missing=True).test
    library = np.nansum(X[36:, :6], axis=1)
    np.testing.assert_allclose(np.exp(rows[:, -1]), library, rtol=1e-6)
    np.testing.assert_array_equal(rows[:, :-1], data.test)
    kwargs = {"masks": {"train": MASK}, "test_share": 0.25}
    other = Dataset.from_arrays(COUNTS, covariates={"train": BATCH[:, 0]}, **kwargs)
    assert other.num_covariates == 1 and other.digest != data.digest
    both = np.concatenate([other.train, other.test])
    same = (both[:, None] == np.float32(X[None, :, :7])) | np.isnan(both[:, None])
    assert np.all(same.all(-1).any(1))  # a split takes rows with their covariates


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ({"train": BATCH}, "use numbers"),
        ({"train": BATCH, "test": BATCH[:5]}, r"float64\[5, 2\].*'test': 48"),
        ({"train": BATCH, "test": BATCH[:, 0]}, "use numbers"),
        ({"train": BATCH, "test": BATCH.astype(str)}, "use numbers"),
        ({"train": BATCH, "test": BATCH * np.nan}, "are infinite, or NaN"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(covariates, message):
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(COUNTS, COUNTS, covariates=covariates)


def test_a_run_knows_its_covariates_without_its_data(run):
    assert run.settings.model["num_covariates"] == 2
    assert run.config.model.likelihood == ZINB
    kernel = run.theta[0]["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (2 + 2, 3)
    with pytest.raises(DataError, match=r"use rows \[N, 6 \+ 2\], the values"):
        run.encode(COUNTS)


def test_log_p_of_a_run_is_that_of_quadrature(run):
    axis = jnp.linspace(-6, 6, 121)
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_joint = jax.jit(jax.vmap(run.model.log_joint, (None, None, 0)))
    library = np.log(np.nansum(X[:4, :6], axis=1, keepdims=True))
    rows = np.float32(np.hstack([X[:4], library]))
    exact = [jax.nn.logsumexp(log_joint(run.theta, row, z)) for row in rows]
    exact = np.array(exact) + 2 * np.log(axis[1] - axis[0])
    found = run.log_likelihood(X[:4], error=0.02)
    assert np.all(abs(found.log_p - exact) < 5 * found.standard_error + 2e-3)


def test_draws_and_means_are_of_the_given_rows(run):
    like = np.nan_to_num(X[:2])
    draws = run.sample(0, 4000, like)
    assert draws.shape == (4000, 1, 6) and np.all(draws % 1 == 0)
    z = run.model.prior(run.theta).mean
    more = like.copy()
    more[:, :6] *= 10  # ten times the library
    ratio = run.decode([z, z], more) / run.decode([z, z], like)
    np.testing.assert_allclose(ratio, 10.0, rtol=1e-4)
    swapped = like[:, [*range(6), 7, 6]]
    assert np.all(run.decode([z], like[:1]) != run.decode([z], swapped[:1]))
    assert run.reconstruct(X[:5]).shape == (5, 1, 6)
    for call in (lambda: run.sample(0, 2), lambda: run.decode([z])):
        with pytest.raises(DataError, match="give like=x"):
            call()


def test_counts_are_imputed_given_the_covariates(run):
    x, mask = np.hstack([COUNTS, BATCH])[:8], MASK[:8]
    draws = run.impute(0, x, mask, num_samples=4)
    assert draws.shape == (8, 4, 1, 6)
    np.testing.assert_array_equal(draws, run.impute(0, X[:8], num_samples=4))
    seen = draws[:, :, 0].swapaxes(0, 1)[:, mask]
    np.testing.assert_array_equal(seen, np.tile(COUNTS[:8][mask], (4, 1)))


def own_model(image_shape, latent_sizes):
    return networks.latent_model(image_shape, latent_sizes=latent_sizes)


def test_what_takes_no_covariates_refuses_them(tmp_path):
    given = Dataset.from_arrays(
        COUNTS, COUNTS, covariates={"train": BATCH, "test": BATCH}
    )
    grey = given._replace(train=given.train / 99, test=given.test / 99)
    whole = {"dataset": "given", "num_replicates": 1}
    factory = {
        "model__factory": f"{__name__}:own_model",
        "model__likelihood": "poisson",
    }
    convolution = {"model__network": "convolution", "model__likelihood": "poisson"}
    for data, settings, message in (
        (grey, {}, "take no covariates"),
        (given, factory, r"model.factory='.*' takes no num_covariates"),
        (given, convolution, "model.network='convolution' takes neither covariates"),
    ):
        config = tiny("ais", **whole, **settings)
        with pytest.raises(ConfigError, match=message):
            train_and_evaluate(config, tmp_path / "run", dataset=data)
    config = tiny("vae", **whole, model__likelihood="poisson")
    with pytest.raises(ConfigError, match="a decoder of z alone takes neither"):
        decoder.evaluate_decoder(config, lambda w, z: z, {}, tmp_path / "run", given)
    with pytest.raises(ConfigError, match=r"model.network='convolution' takes neither"):
        resolve(tiny("vae", model__network="convolution", model__likelihood=ZINB))
