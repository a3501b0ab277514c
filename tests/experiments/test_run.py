"""Trained runs as objects, as starts, on other data, with models of one's own."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import experiments
from ais_jax.models import networks
from configs import default
from experiments.data.dataset import Dataset
from experiments.data.units import in_units
from experiments.evaluate import decoder, loaded
from experiments.run import export, parameters, train
from experiments.run.checkpoint import Checkpointer
from experiments.run.folder import claim, saved_config
from experiments.run.launch import open_training, train_and_evaluate
from experiments.run.settings import resolve
from experiments.system.errors import ConfigError, DataError, InputError
from experiments.system.files import read_json
from tests.targets import errors_off, shaken

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
TRAIN, TEST = (  # mostly near black or white, as scans are
    (255 * RNG.beta(0.3, 0.3, (n, 4, 5))).astype(np.uint8) for n in (60, 12)
)
DATASET = Dataset.from_arrays(TRAIN, TEST)
TINY = {
    **{"num_epochs": 2, "batch_size": 20, "num_replicates": 2},
    **{"model.latent_sizes": (2,), "model.widths": ((3,),)},
    **{"model.force_precision": "float32", "evaluation.force_precision": "float32"},
    **{"estimator.num_temperatures": 2, "estimator.num_leapfrog": 2},
    **{"optimizer.schedule": "constant", "evaluation.num_examples": 6},
    **{"evaluation.num_chains": 3, "evaluation.num_temperatures": 2},
    **{"evaluation.num_leapfrog": 2, "evaluation.iwae_samples": 4},
    "evaluation.num_simulated": 4,
    **{"evaluation.chunk_size": 4},
}


def tiny(estimator="ais", **settings):
    """A small config; a double underscore stands for a dot."""
    config = default.get_config(estimator)
    flat = {**TINY, **{k.replace("__", "."): v for k, v in settings.items()}}
    known = {k: v for k, v in flat.items() if not k.startswith("estimator.n")}
    config.update_from_flattened_dict(flat if estimator == "ais" else known)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on an .npz of bytes: two replicates, trained and evaluated."""
    folder = tmp_path_factory.mktemp("loaded")
    np.savez(folder / "mine.npz", train=TRAIN, test=TEST)
    config = tiny("vae", dataset=str(folder / "mine.npz"))
    train_and_evaluate(config, folder / "run")
    (folder / "mine.npz").rename(folder / "moved.npz")
    return folder / "run"


@pytest.fixture(scope="module")
def run(workdir):
    """That run as an object, without its data."""
    return experiments.load_run(workdir)


def test_a_run_has_its_config_history_and_results(run, workdir):
    results = read_json(workdir / "results.json")
    assert run.config.to_dict()["num_epochs"] == 2
    assert run.image_shape == (4, 5)
    assert len(run.replicates) == len(run.results) == 2
    for row, part in zip(run.results.to_dict("records"), results["replicates"]):
        assert row["log_p"] == part["test"]["log_p"]["mean"]
        assert row["gap"] == part["bidirectional"]["gap"]
    assert list(run.history["step"]) == [3, 6]
    assert len(run.history["elbo"].iloc[-1]) == 2


def test_a_run_that_is_not_evaluated_says_how(run, tmp_path):
    other = dataclasses.replace(run, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"not evaluated: .* --mode=evaluate"):
        _ = other.results


def test_samples_codes_and_reconstructions_are_the_models(run):
    x = run.sample(0, 5)
    assert x.shape == (5, 4, 5) and set(np.unique(x)) <= {0.0, 1.0}
    np.testing.assert_array_equal(x, run.sample(jax.random.key(0), 5))
    mean, scale = run.encode(TEST)
    assert mean.shape == scale.shape == (12, 2) and np.all(scale > 0)
    q = run.model.proposal(run.phi, jnp.float32(TEST[3].ravel()) / 255)
    np.testing.assert_allclose(mean[3], q.mean, rtol=1e-4, atol=1e-6)
    decoded = run.model.decode(run.theta, mean[3])
    reconstructed = run.reconstruct(TEST)
    assert reconstructed.shape == (12, 4, 5)
    np.testing.assert_allclose(reconstructed[3].ravel(), decoded, rtol=1e-4)
    draws = run.latents(0, TEST[:3], 500)
    assert draws.shape == (3, 500, 2)
    standardized = (draws - mean[:3, None]) / scale[:3, None]
    assert abs(standardized.mean(1)).max() < 5 / np.sqrt(500)


def test_replicates_differ_and_unknown_ones_are_refused(run):
    other = run.replicate(1)
    assert other.index == 1 and other.theta is run.replicates[1][0]
    assert not np.array_equal(run.encode(TEST)[0], other.encode(TEST)[0])
    with pytest.raises(ConfigError, match=r"replicate=2: .* has 2"):
        run.replicate(2)


def grid_of(run):
    """Log p(x, z) over a grid of two latents, the grid, and its cells' log area."""
    axis = jnp.linspace(-6, 6, 121)
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_joint = jax.vmap(run.model.log_joint, (None, None, 0))
    return (
        lambda x: log_joint(run.theta, x.ravel(), z),
        z,
        2 * jnp.log(axis[1] - axis[0]),
    )


def test_log_likelihoods_agree_with_quadrature(run):
    x = run.sample(1, 3)
    table = run.log_likelihood(x)
    assert list(table) == list(loaded.COLUMNS)
    log_joint, _, area = grid_of(run)
    for i, image in enumerate(x):
        exact = jax.nn.logsumexp(log_joint(image)) + area
        error = max(table["standard_error"][i], 0.02)
        assert abs(table["log_p"][i] - exact) < 5 * error


def test_the_same_image_in_other_places_has_chains_of_its_own(run):
    """Their numbers agree within their errors, and are not the same."""
    x = np.repeat(np.round(run.sample(1, 1)), 6, axis=0)
    table = run.log_likelihood(x)
    assert table["log_p"].nunique() == 6
    assert np.all(abs(table["log_p"].diff()[1:]) < 10 * table["standard_error"].max())


def test_a_kept_average_of_theta_is_what_is_evaluated(tmp_path):
    config, dataset = arrays_config(training__average_decay=0.9)
    setup, _ = open_training(resolve(config), tmp_path, dataset=dataset)
    state = train.initial_state(setup)
    state = state.replace(average=jax.tree.map(lambda a: a + 1.0, state.average))
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(0, state)
    _, found = parameters.read(tmp_path, setup.model, setup.mesh)
    same = lambda a, b: np.testing.assert_array_equal(a[0], b)
    jax.tree.map(same, (state.average, state.inference.params), found[0])


def test_the_best_parameters_by_validation_elbo_are_what_is_loaded(tmp_path):
    settings = {"training__keep_best": True, "optimizer__learning_rate": (0.3,)}
    config, dataset = arrays_config(num_epochs=12, batch_size=27, **settings)
    train_and_evaluate(config, tmp_path, "train", dataset=dataset)
    setup, held = open_training(resolve(config), tmp_path, dataset=dataset)
    assert (len(held.train), len(held.valid)) == (54, 6)
    elbos = np.stack(experiments.load_run(tmp_path).history.valid_elbo)
    best = np.argmax(elbos, axis=0)
    assert elbos.shape == (12, 2) and not np.all(best == 11)
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        state = checkpointer.restore(train.template(setup))
    np.testing.assert_array_equal(state.best.elbo, elbos.max(0))
    found = experiments.load_run(tmp_path).replicates
    theta, phi = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    again = state.generative.replace(params=theta), state.inference.replace(params=phi)
    state = state.replace(generative=again[0], inference=again[1])
    _, elbo = train.validator(setup, held)(state)
    np.testing.assert_allclose(elbo, elbos.max(0), rtol=1e-5)


def test_a_run_without_later_settings_is_as_it_was(tmp_path):
    config, dataset = arrays_config()
    claim(tmp_path, resolve(config), dataset)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del (
        content["config"]["model"]["missing"],
        content["config"]["training"]["keep_best"],
    )
    path.write_text(json.dumps(content))
    claim(tmp_path, resolve(config), dataset)
    config.model.missing = True
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"model\.missing=False, not True"):
        claim(tmp_path, resolve(config), dataset)


@pytest.mark.slow
def test_annealed_latents_have_the_posteriors_mean(run):
    x = run.sample(1, 1)
    draws = run.latents(0, x, 200, annealed=True)[0]
    log_joint, z, _ = grid_of(run)
    weights = jax.nn.softmax(log_joint(x[0]))
    # resampled from 8 chains: the error is that of 8 draws
    assert np.all(abs(draws.mean(0) - weights @ z) < 5 / np.sqrt(8))


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """A run on images with missing values, and its test images."""
    masks = {
        "train": RNG.random(TRAIN.shape) < 0.6,
        "test": RNG.random(TEST.shape) < 0.6,
    }
    dataset = Dataset.from_arrays(TRAIN, TEST, masks=masks)
    config, _ = arrays_config(model__missing=True, num_replicates=1)
    folder = tmp_path_factory.mktemp("gappy")
    train_and_evaluate(config, folder, dataset=dataset)
    x = np.where(masks["test"], (TEST > 127).astype(np.float32), np.nan)
    return experiments.load_run(folder), x


def test_log_likelihoods_are_of_the_observed_values(gappy):
    run, x = gappy
    log_joint, _, area = grid_of(run)
    exact = [jax.nn.logsumexp(log_joint(jnp.asarray(each))) + area for each in x]
    found = run.log_likelihood(x, error=0.01)
    assert np.all(abs(found.log_p - exact) < 5 * found.standard_error + 1e-3)
    assert np.all(np.isfinite(run.results.gap))


def test_missing_values_are_imputed(gappy):
    run, x = gappy
    draws = run.impute(0, x, num_samples=50)
    assert draws.shape == (12, 50, 4, 5)
    is_missing = np.isnan(x)
    seen = draws.swapaxes(1, 0)[:, ~is_missing]
    np.testing.assert_array_equal(seen, np.tile(x[~is_missing], (50, 1)))
    means = run.impute(0, x, num_samples=50, means=True)
    errors = (draws - means).swapaxes(1, 0)[:, is_missing]
    assert abs(errors_off(errors, 0.0)).max() < 5
    filled = np.where(is_missing, 1.0, x)
    again = run.impute(0, filled, ~is_missing, num_samples=50)
    np.testing.assert_array_equal(draws, again)
    with pytest.raises(DataError, match=r"mask=\(4, 5\): use the shape of x"):
        run.impute(0, x, is_missing[0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 5, 5)), r"x is \[3, 5, 5\]: use images"),
        (np.full((3, 4, 5), np.nan), "NaN alone"),
        (np.where(np.eye(4, 5), np.nan, np.zeros((3, 4, 5))), "has missing values"),
        (np.full((3, 4, 5), 1.5), "does not fit likelihood='bernoulli'"),
    ],
)
def test_images_that_do_not_fit_are_refused(run, x, message):
    for call in (run.encode, run.reconstruct, run.log_likelihood):
        with pytest.raises(InputError, match=message):
            call(x)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.float64])
def test_the_same_numbers_of_any_type_are_the_same_images(run, kind):
    assert run.levels == 255
    np.testing.assert_array_equal(run.encode(TEST), run.encode(TEST.astype(kind)))
    np.testing.assert_array_equal(run.encode(TEST), run.encode(TEST / 255.0))
    bits = TEST > 127
    np.testing.assert_array_equal(run.encode(bits), run.encode(bits.astype(kind)))
    with pytest.raises(DataError, match=r"from 0 to 300: .* 0 to 255;"):
        run.encode(np.where(bits, 300, 0).astype(kind))


@pytest.mark.parametrize(
    ("levels", "likelihood", "right"),
    [(16, "gaussian", [0.0, 0.5, 1.0]), (1, "poisson", [0.0, 8.0, 16.0])],
)
def test_whole_numbers_are_divided_by_the_levels_of_the_data(levels, likelihood, right):
    for kind in ("uint8", "int32", "float32"):
        x = np.array([[0, 8, 16]], kind)
        np.testing.assert_array_equal(in_units(x, levels, likelihood)[0], right)
    floats = np.array([[-0.5, 2.0, 300.25]])
    np.testing.assert_array_equal(in_units(floats, levels, likelihood), floats)


def test_bytes_are_refused_where_the_data_were_no_bytes():
    x = np.array([[0, 8, 16]], np.uint8)
    with pytest.raises(DataError, match=r"x is uint8, .* in other units: give floats"):
        in_units(x, 1, "gaussian")
    np.testing.assert_array_equal(in_units(x > 8, 1, "gaussian"), x > 8)


def test_other_bad_loads_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        experiments.load_run(tmp_path)
    model = networks.latent_model((4, 5), latent_sizes=(3,), widths=((3,),))
    with pytest.raises(
        InputError, match=r"kernel has shape \(2, 3\).*, expected shape \(3, 3\)"
    ):
        experiments.load_run(run.folder, model)


def test_an_exported_file_holds_theta_phi_and_the_config(run, tmp_path):
    names = export.export(run.replicate(1), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        kernel = arrays["theta/0/params/logits/kernel"]
        config = json.loads(str(arrays["config"]))
        assert set(names) == set(arrays.files) - {"config"}
    saved = run.replicates[1][0][0]["params"]["logits"]["kernel"]
    np.testing.assert_array_equal(kernel, saved)
    assert config["config"]["model"]["latent_sizes"] == [2]
    with pytest.raises(InputError, match=r"to=.*a\.pkl: use a name that ends in"):
        export.export(run, tmp_path / "a.pkl")


def test_an_exported_file_is_a_run(run, tmp_path):
    one, path = run.replicate(1), tmp_path / "a.npz"
    export.export(one, path)
    again = experiments.load_run(path)
    assert (again.step, again.image_shape, again.levels) == (
        run.step,
        run.image_shape,
        run.levels,
    )
    for mine, theirs in zip(again.encode(TEST), one.encode(TEST)):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(again.sample(0, 3), one.sample(0, 3))
    with pytest.raises(
        ConfigError, match=r"a\.npz has no results: run\.log_likelihood"
    ):
        _ = again.results
    with pytest.raises(ConfigError, match=r"a\.npz is a file, which takes no results"):
        saved_config(path)
    shutil.copytree(run.folder, tmp_path / "folder.npz")
    assert len(experiments.load_run(tmp_path / "folder.npz").replicates) == 2
    config, dataset = arrays_config(init_from=str(path))
    setup, _ = open_training(resolve(config), tmp_path / "run", dataset=dataset)
    state = train.parameters.start(setup, train.initial_state(setup))
    for mine, theirs in zip(
        jax.tree.leaves(state.generative.params), jax.tree.leaves(one.theta)
    ):
        np.testing.assert_array_equal(mine[0], theirs)
    (tmp_path / "b.npz").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"b\.npz is no run: name one that"):
        experiments.load_run(tmp_path / "b.npz")
    other = networks.latent_model((4, 5), latent_sizes=(3,), widths=((3,),))
    with pytest.raises(InputError, match=r"a\.npz is of another model"):
        experiments.load_run(path, other)


def test_the_export_program(run, tmp_path):
    command = [sys.executable, "-m", "experiments.export", str(run.folder)]
    to = tmp_path / "b.npz"
    done = subprocess.run([*command, f"--to={to}"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert to.exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "name one run's folder" in done.stderr


def arrays_config(estimator="vae", **settings):
    return tiny(estimator, dataset="given", **settings), DATASET


def test_a_run_starts_from_anothers_parameters(run, tmp_path):
    config, dataset = arrays_config(init_from=str(run.folder), num_replicates=2)
    setup, _ = open_training(resolve(config), tmp_path, dataset=dataset)
    state = train.parameters.start(setup, train.initial_state(setup))
    both = state.generative.params, state.inference.params
    for r, theta_phi in enumerate(run.replicates):
        jax.tree.map(
            lambda a, b, r=r: np.testing.assert_array_equal(a[r], b), both, theta_phi
        )
    assert int(np.max(state.step)) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_from": "nowhere"}, "init_from=nowhere: no checkpoint"),
        ({"init_from": "nowhere.npz"}, "init_from=nowhere.npz: nowhere.npz is no run"),
        ({"num_replicates": 3}, "has 2 replicates: use num_replicates=2, not 3"),
        ({"model__latent_sizes": (3,)}, "of another model"),
    ],
)
def test_starts_that_do_not_fit_are_refused(run, tmp_path, settings, message):
    config, dataset = arrays_config(**{"init_from": str(run.folder), **settings})
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(config, tmp_path, "train", dataset=dataset)
    assert not (tmp_path / "config.json").exists()  # the folder is still free


@pytest.mark.parametrize(
    ("schedule", "late"),
    [pytest.param("constant", 0, marks=pytest.mark.slow), ("wsd", 0), ("constant", 3)],
)
def test_a_run_goes_on_for_more_epochs_bit_for_bit(tmp_path, schedule, late):
    settings = {"num_replicates": 1, "batch_size": 6, "optimizer__schedule": schedule}
    config, dataset = arrays_config("ais", estimator__late_moves=late, **settings)
    runs = []
    for folder, epochs in (("a", (2, 4)), ("b", (4,))):
        for num in epochs:
            config.num_epochs = num
            train_and_evaluate(config, tmp_path / folder, "train", dataset=dataset)
        runs.append(experiments.load_run(tmp_path / folder))
    jax.tree.map(np.testing.assert_array_equal, *(run.replicates for run in runs))
    pd.testing.assert_series_equal(*(run.history.elbo for run in runs))


def test_the_last_fifth_of_the_steps_makes_the_late_moves(tmp_path):
    settings = {"num_epochs": 5, "num_replicates": 1, "batch_size": 6}
    config, dataset = arrays_config("ais", estimator__late_moves=3, **settings)
    results = train_and_evaluate(config, tmp_path, dataset=dataset)
    found = experiments.load_run(tmp_path).history.gradient_evaluations.diff()
    # Of each image: a density, 2 leapfrog steps a move, the end and phi's draw.
    early, late = (60 * (1 + 2 * num_moves + 1 + 1) for num_moves in (2, 4))
    assert found.dropna().tolist() == [early] * 3 + [late]
    assert results["gradient_evaluations"] == 4 * early + late


@pytest.mark.parametrize(
    ("schedule", "section", "more"),
    [
        ("constant", None, 3),
        ("wsd", None, 3),
        ("wsd", None, 1),
        ("wsd", "optimizer", 3),
        ("wsd", "optimizer.phi", 3),
        ("cosine", None, 3),
    ],
)
def test_more_epochs_are_for_rates_that_do_not_depend_on_them(
    tmp_path, schedule, section, more
):
    config = tiny("vae", optimizer__schedule=schedule, optimizer__phi__name="sgd")
    if section is not None:
        config.update_from_flattened_dict({f"{section}.settings": {"warmup": 0.1}})
    claim(tmp_path, resolve(config), DATASET)
    config.num_epochs = more
    if more > 2 and section is None and schedule != "cosine":
        claim(tmp_path, resolve(config), DATASET)
        assert read_json(tmp_path / "config.json")["config"]["num_epochs"] == more
        return
    with pytest.raises(ConfigError, match=f"num_epochs=2, not {more}"):
        claim(tmp_path, resolve(config), DATASET)


def twice_as_wide(image_shape, latent_sizes, widths):
    """A factory of the tests: reads two settings of config.model."""
    return networks.latent_model(
        image_shape, latent_sizes=latent_sizes, widths=[[2 * w for w in widths[0]]]
    )


def no_model(image_shape):
    return {"shape": image_shape}


NUMBER = 3


def test_a_factory_gives_the_model(tmp_path):
    config, dataset = arrays_config(
        model__factory="tests.experiments.test_run:twice_as_wide"
    )
    setup, _ = open_training(resolve(config), tmp_path, dataset=dataset)
    theta, _ = setup.model.init(jax.random.key(0))
    assert theta[0]["params"]["Dense_0"]["kernel"].shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:model", "No module named 'no_such_module'"),
        ("tests.experiments.test_run:no_such_function", "no_such_function"),
        ("tests.experiments.test_run", "give package.module:function"),
        ("tests.experiments.test_run:NUMBER", "is no function"),
        (
            "tests.experiments.test_run:no_model",
            "returns dict: return an ais_jax.LatentVariableModel",
        ),
        ("given", r"goes together with train_and_evaluate\(config, model=...\)"),
    ],
)
def test_bad_factories_are_refused_in_a_line(tmp_path, name, message):
    config, dataset = arrays_config(model__factory=name)
    with pytest.raises(ConfigError, match=message) as caught:
        train_and_evaluate(config, tmp_path, "train", dataset=dataset)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_the_config_does_not_expect_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset='digits'.*dataset=...\)"):
        train_and_evaluate(tiny(), tmp_path, dataset=DATASET)


def decode(weights, z):
    """Log rates of four counts."""
    return z @ weights["w"] + weights["b"]


def quadrature(weights, counts):
    """Log p(x) of a Poisson decoder of one latent, by a fine sum."""
    z = np.linspace(-8, 8, 4001)
    rates = np.exp(z[:, None] @ weights["w"] + weights["b"])
    log_p = stats.poisson.logpmf(counts[:, None], rates).sum(-1)
    log_p = log_p + stats.norm.logpdf(z)
    return np.logaddexp.reduce(log_p, axis=1) + np.log(z[1] - z[0])


def test_a_decoder_from_elsewhere_keeps_its_weights():
    weights = {"w": np.array([[0.4, -0.3, 0.2, 0.5]]), "b": np.array([1, 0, 2, 0.5])}
    config = tiny("vae", model__likelihood="poisson", model__latent_sizes=(1,))
    model = decoder.fixed_model(resolve(config), (2, 2), decode, weights)
    theta, phi = model.init(jax.random.key(0))
    x, z = jnp.array([3.0, 0.0, 7.0, 1.0]), jnp.array([0.7])
    rates = np.exp(0.7 * weights["w"][0] + weights["b"])
    exact = stats.poisson.logpmf(x, rates).sum() + stats.norm.logpdf(0.7)
    value, gradient = jax.value_and_grad(model.log_joint)(theta, x, z)
    assert value == pytest.approx(exact, rel=1e-5)
    assert all(jnp.all(g == 0) for g in jax.tree.leaves(gradient))
    np.testing.assert_allclose(model.decode(theta, z), rates, rtol=1e-5)
    assert model.proposal(phi, x).mean.shape == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_a_decoder_from_elsewhere_has_its_exact_log_p_of_counts(tmp_path, start):
    weights = {"w": np.array([[0.4, -0.3, 0.2, 0.5]]), "b": np.array([1, 0, 2, 0.5])}
    z = RNG.normal(size=(40, 1))
    counts = RNG.poisson(np.exp(z @ weights["w"] + weights["b"]))
    config = tiny(
        "vae",
        **{"dataset": "given", "model__likelihood": "poisson", "num_replicates": 1},
        **{"model__latent_sizes": (1,), "evaluation__start": start},
        **{"evaluation__num_temperatures": 20, "evaluation__num_chains": 16},
        evaluation__num_simulated=0,
        **{"evaluation__subset": "first"},
    )
    dataset = Dataset.from_arrays(counts[:30], counts[30:])
    results = decoder.evaluate_decoder(config, decode, weights, str(tmp_path), dataset)
    log_p = results["replicates"][0]["test"]["log_p"]
    exact = quadrature(weights, counts[30:36]).mean()
    assert abs(log_p["mean"] - exact) < 5 * log_p["monte_carlo"] < 0.5
    if start == "encoder":
        model = decoder.fixed_model(resolve(config), (2, 2), decode, weights)
        run = experiments.load_run(tmp_path, model)
        np.testing.assert_array_equal(run.theta["w"], np.float32(weights["w"]))
        with pytest.raises(ConfigError, match=r"load_run\(workdir, model=...\)"):
            experiments.load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__latent_sizes": (1, 1), "model__widths": ((3,), (3,))}, "one size"),
        ({"model__latent_sizes": (3,)}, r"refuses z of model.latent_sizes=\(3,\)"),
        (
            {"optimizer__name": "adamw"},
            "optimizer.settings.weight_decay=0.0001 would change",
        ),
    ],
)
def test_decoders_that_do_not_fit_are_refused(tmp_path, changes, message):
    weights = {"w": np.zeros((1, 20)), "b": np.zeros(20)}
    settings = {"model__latent_sizes": (1,), "dataset": "given", **changes}
    config = tiny("vae", **settings)
    with pytest.raises(ConfigError, match=message):
        decoder.evaluate_decoder(config, decode, weights, tmp_path, DATASET)


def test_a_decoder_is_not_evaluated_where_nothing_can_be_written(tmp_path):
    weights = {"w": np.zeros((1, 20)), "b": np.zeros(20)}
    settings = {"model__latent_sizes": (1,), "evaluation__start": "prior"}
    config = tiny("vae", dataset="given", **settings)
    workdir = tmp_path / "file"
    workdir.write_text("")
    with pytest.raises(ConfigError, match=r"workdir=.*file cannot be written"):
        decoder.evaluate_decoder(config, decode, weights, str(workdir), DATASET)


def test_a_decoder_of_another_shape_and_missing_files_are_refused(tmp_path):
    weights = {"w": np.zeros((2, 19)), "b": np.zeros(19)}
    config = tiny("vae", dataset="given")
    with pytest.raises(ConfigError, match=r"gives \[19\] for one z: .*\[20\]"):
        decoder.evaluate_decoder(config, decode, weights, tmp_path, DATASET)
    with pytest.raises(InputError, match="weights=nowhere"):
        decoder.evaluate_named(
            config, "tests.experiments.test_run:decode", "nowhere.npz", tmp_path
        )
    with pytest.raises(ConfigError, match="decoder='nowhere:decode'"):
        decoder.evaluate_named(config, "nowhere:decode", "nowhere.npz", tmp_path)


def test_every_picture_is_drawn_and_shown_in_tensorboard(workdir):
    names = ("bounds", "iwae", "learning_curves", "reconstructions", "sample_pixels")
    names += ("samples", "traversals")
    assert sorted(p.stem for p in (workdir / "plots").glob("*.png")) == sorted(names)
    (events,) = (workdir / "tensorboard").glob("*.pictures")
    content = events.read_bytes()
    assert all(name.encode() in content for name in names)


def test_shaken_parameters_are_others(run):
    """The comparisons above would not pass with any parameters."""
    theta = shaken(run.theta, jax.random.key(0))
    z = jnp.zeros(2)
    assert not np.allclose(run.model.decode(theta, z), run.model.decode(run.theta, z))
