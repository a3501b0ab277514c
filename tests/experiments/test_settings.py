"""Configs and their checks: every bad setting is refused by name, with its mend."""

import functools
import importlib
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ais_jax import estimators
from ais_jax.models import evaluation, latent, precision
from configs import default, presets
from configs.default import SETTINGS, Range
from experiments.run import build
from experiments.run.settings import flatten, override, resolve, with_tuples
from experiments.system.errors import ConfigError

each_estimator = pytest.mark.parametrize("estimator", sorted(estimators.ESTIMATORS))
NAMED = ("digits", "mnist", "omniglot", "binarized_mnist")
each_config = pytest.mark.parametrize("name", ["default", *NAMED])


def load(name, estimator="ais"):
    return importlib.import_module(f"configs.{name}").get_config(estimator)


def changed(estimator="ais", **settings):
    """The digits config with other settings; a double underscore stands for a dot."""
    config = load("digits", estimator)
    flat = {name.replace("__", "."): value for name, value in settings.items()}
    config.update_from_flattened_dict(flat)
    return config


def refusal(config):
    with pytest.raises(ConfigError) as caught:
        resolve(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@each_estimator
def test_a_config_names_the_settings_and_defaults_that_the_estimator_reads(estimator):
    mine = default.get_config(estimator).estimator.to_dict()
    theirs = estimators.settings_of(estimator)
    assert mine.pop("name") == estimator
    assert mine.pop("preconditioner", "encoder") == "encoder"
    assert mine.pop("late_moves", 0) == 0
    theirs.pop("hmc_scale", None)
    assert mine == theirs


@each_config
@each_estimator
def test_each_config_has_the_defaults_shape_and_passes_the_check(name, estimator):
    config, shape = load(name, estimator), default.get_config(estimator)
    flat, expected = flatten(config.to_dict()), flatten(shape.to_dict())
    assert flat.keys() == expected.keys()
    for setting, value in flat.items():
        assert type(value) in (default.SETTINGS[setting].kind, type(expected[setting]))
    assert name in ("default", config.dataset)
    resolve(config)


@each_config
def test_the_best_of_each_config_averages_the_points_of_one_chain(name):
    settings = resolve(load(name, "best"))
    estimator = settings.estimator
    assert (estimator["name"], estimator["num_samples"]) == ("ais", 1)
    assert estimator["average"] == "points"
    ((theta, phi),) = settings.learning_rates
    assert theta > phi


@pytest.mark.parametrize("name", NAMED)
def test_the_config_of_a_data_set_trains_by_best(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config == load(name, "best") != load(name, "ais")


@each_config
def test_each_config_refuses_an_unknown_estimator_with_the_nearest_name(name):
    with pytest.raises(ValueError, match="'dregs' is unknown: did you mean 'dreg'"):
        load(name, "dregs")


@pytest.mark.parametrize("preset", presets.EVALUATION)
def test_a_preset_fills_in_what_is_none_and_only_that(preset):
    config = changed(evaluation__preset=preset, evaluation__num_chains=3)
    evaluation = resolve(config).evaluation
    assert evaluation._asdict() == {
        **config.evaluation.to_dict(),
        **presets.EVALUATION[preset],
        "num_chains": 3,
    }


@pytest.mark.parametrize(
    "setting, value, near",
    [
        ("dataset", "digit", "digits"),
        ("dataset", "mnst", "mnist"),
        ("estimator.schedule", "liner", "linear"),
        ("estimator.preconditioner", "encodr", "encoder"),
        ("optimizer.schedule", "cosin", "cosine"),
        ("model.precision", "float23", "float32"),
        ("model.force_precision", "bf61", "bf16"),
        ("evaluation.preset", "defualt", "default"),
        ("evaluation.start", "encode", "encoder"),
        ("evaluation.subset", "frist", "first"),
        ("evaluation.schedule", "adaptiv", "adaptive"),
        ("evaluation.preconditioner", "units", "unit"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_valid_one(setting, value, near):
    message = refusal(changed(**{setting: value}))
    assert f"{setting.split('.')[-1]}={value!r}" in message
    assert f"did you mean {near!r}?" in message


RANGES = {n: s.allowed for n, s in SETTINGS.items() if isinstance(s.allowed, Range)}


@pytest.mark.parametrize("setting", RANGES)
def test_numbers_out_of_their_range_are_refused(setting):
    least, end = RANGES[setting]
    for bad in (least - 1, end) if end < math.inf else (least - 1,):
        message = refusal(changed(**{setting: bad}))
        assert re.fullmatch(
            rf"{re.escape(setting)}={bad}(\.0)?: use {RANGES[setting]}", message
        )
    resolve(changed(**{setting: least}))


@pytest.mark.parametrize("setting", ["num_samples", "num_temperatures", "num_leapfrog"])
def test_counts_of_the_estimator_are_refused_below_one(setting):
    message = refusal(changed(**{f"estimator.{setting}": 0}))
    assert f"estimator.{setting}=0: use at least 1" in message


@pytest.mark.parametrize(
    "schedule, reason",
    [
        ("0,0.6,0.3,1", "betas[1]=0.6 is followed by betas[2]=0.3"),
        ("0,0.5,0.9", "betas go from 0 to 0.9"),
        ("0.1,1", "betas go from 0.1 to 1"),
        ("0,nan,1", "betas[0]=0 is followed by betas[1]=nan"),
    ],
)
def test_betas_must_rise_from_0_to_1(schedule, reason):
    message = refusal(changed(estimator__schedule=schedule))
    assert reason in message
    assert "from 0 to 1" in message


def test_betas_that_rise_from_0_to_1_make_one_move_each():
    config = changed(estimator__schedule="0,0.25,1", estimator__num_temperatures=2)
    settings = resolve(config)
    model = build.build_model(settings, (1,))
    assert build.build_estimator(settings, model).num_moves == 2


@pytest.mark.parametrize(
    "section, settings, reason",
    [
        ("", {"b1": 1.5}, "b1=1.5: use a number, at least 0 and below 1"),
        ("", {"b1": "high"}, "b1='high': use a number"),
        ("", {"weight_decay": -0.1}, "weight_decay=-0.1: use a number, at least 0"),
        ("", {"momentum": 0.9}, "momentum=0.9 is not read by 'adam'"),
        ("", {"warmup": 1.0}, "warmup=1.0: use a number in [0, 1)"),
        ("", {"eps": float("nan")}, "eps=nan: use a finite number"),
        ("phi.", {"clip_norm": 0.0}, "clip_norm=0.0: use more than 0"),
        ("phi.", {"b3": 0.9}, "b3=0.9 is not read by 'adam'"),
    ],
)
def test_settings_that_the_optimizer_cannot_use_are_refused(section, settings, reason):
    message = refusal(changed(**{f"optimizer.{section}settings": settings}))
    assert message.startswith(f"optimizer.{section}settings.{reason}")


def test_phi_has_its_own_optimizer_or_theirs_that_it_overrides():
    both = {"weight_decay": 0.1, "b1": 0.8}
    config = changed(optimizer__name="adamw", optimizer__settings=both)
    config.optimizer.phi.settings = {"b1": 0.7}
    settings = resolve(config)
    expected = {"b1": 0.8, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
    expected |= {"name": "adamw", "schedule": "cosine"}
    assert settings.optimizer == expected
    assert settings.phi_optimizer == expected | {"b1": 0.7}
    config.optimizer.phi.name = "adam"
    config.optimizer.phi.learning_rate = (2e-3,)
    settings = resolve(config)
    authors = {"name": "adam", "schedule": "cosine", "b2": 0.999, "eps": 1e-4}
    assert settings.phi_optimizer == authors | {"b1": 0.7}
    assert settings.learning_rates == ((3e-3, 2e-3),)
    again = resolve(ConfigDict(with_tuples(settings.saved)))
    assert again == settings


@pytest.mark.parametrize("rates", [(), (1e-3,) * 3, (0.0,), (1e-3, -1e-3)])
def test_learning_rates_are_one_or_one_for_each_replicate(rates):
    config = changed(num_replicates=2, optimizer__learning_rate=rates)
    assert f"optimizer.learning_rate={rates}" in refusal(config)


@pytest.mark.parametrize("rates", [(1e-3, 1e-3), (1e-3, 2e-3)])
def test_one_replicate_has_one_learning_rate(rates):
    assert "num_replicates=1" in refusal(changed(optimizer__learning_rate=rates))


def test_one_learning_rate_serves_all_replicates():
    config = changed(num_replicates=3, optimizer__learning_rate=(2e-3,))
    resolve(config)
    assert resolve(config).learning_rates == ((2e-3, 2e-3),) * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    message = refusal(changed(training__average_decay=value))
    assert f"={value}: use a finite number" in message


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"latent_sizes": (4, 2)}, "give one tuple of widths for each latent size"),
        ({"widths": ((8,), (8,))}, "give one tuple of widths for each latent size"),
        ({"latent_sizes": (), "widths": ()}, "latent_sizes=()"),
        ({"activation": "tan"}, "activation='tan'"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(settings, reason):
    flat = {f"model.{name}": value for name, value in settings.items()}
    assert reason in refusal(changed(**flat))


@pytest.mark.parametrize(
    "estimator, setting",
    [("dreg", "weighting"), ("iwae", "schedule"), ("vae", "num_leapfrog")],
)
def test_a_setting_that_the_estimator_does_not_read_is_refused(estimator, setting):
    config = changed(estimator)
    config.estimator[setting] = "uniform"
    message = refusal(config)
    assert f"estimator.{setting}='uniform' is not read by {estimator!r}" in message


def test_a_batch_or_replicates_that_cannot_be_spread_are_refused():
    assert "batch_size=100 cannot be spread" in refusal(changed(sharding__data=3))
    message = refusal(changed(sharding__replicate=2))
    assert "num_replicates=1 cannot be spread over sharding.replicate=2" in message


def test_blocks_fit_the_cache_by_the_widest_layer():
    config = changed(**{"model.widths": ((200, 200),), "model.latent_sizes": (50,)})
    paper = build.block_size(resolve(config), 784, 50)
    assert paper == build.BLOCK_BYTES // (4 * 784) // 50
    assert build.block_size(resolve(config), 4 * 784, 50) == paper // 4
    wide = changed(**{"model.widths": ((200, 4 * 784),)})
    assert build.block_size(resolve(wide), 784, 50) == paper // 4
    assert build.block_size(resolve(config), 10**6, 1) == build.SMALLEST_BLOCK
    assert build.block_size(resolve(config), 784, 2750) == 1


@pytest.mark.parametrize(
    "num_cores, values, expected",
    [
        (1, {}, (1, 1)),
        (2, {}, (1, 2)),
        (2, {"num_replicates": 2}, (2, 1)),
        (2, {"num_replicates": 3}, (1, 2)),
        (4, {"num_replicates": 2, "estimator.num_samples": 5}, (2, 2)),
        (3, {"batch_size": 128, "estimator.num_samples": 5}, (1, 2)),
        (8, {"batch_size": 128, "estimator.num_samples": 1}, (1, 2)),
        (8, {"batch_size": 128, "estimator.num_samples": 50}, (1, 8)),
        (2, {"batch_size": 20}, (1, 1)),
        (2, {"sharding.data": 1, "num_replicates": 2}, (2, 1)),
        (8, {"sharding.data": 4, "num_replicates": 8}, (2, 4)),
        (1, {"sharding.data": 4, "sharding.replicate": 1}, (1, 4)),
    ],
)
def test_replicates_and_the_batch_are_spread_over_the_cores(
    num_cores, values, expected
):
    values = {"batch_size": 128, **values}
    assert build.mesh_shape(resolve(changed(**values)), num_cores) == expected


def test_a_sweeps_checks_leave_the_devices_to_be_chosen():
    script = """
        import jax
        from configs import table1
        from experiments.paper import sweep
        from experiments.run import launch
        config = table1.get_config("digits")
        found = sweep.select(config)
        launch.use_cores([variant.config for variant in found])
        print(len(found), jax.device_count())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    cores = len(os.sched_getaffinity(0))
    assert done.stdout.split() == ["9", str(cores)], done.stderr[-2000:]


@pytest.mark.slow
def test_a_device_may_be_late_for_longer_than_xla_would_wait():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core makes one device, which waits for none")
    script = """
        import time
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import PartitionSpec as P
        from experiments.run import launch
        from tests.experiments.test_settings import changed
        launch.use_cores([changed(batch_size=256)])
        mesh = jax.make_mesh((2,), "i", (jax.sharding.AxisType.Auto,))
        def late(i):
            time.sleep(70 if i == 0 else 0)  # XLA's own limit is 60 s
            return np.float32(1.0)
        def total(x):
            one, i = jax.ShapeDtypeStruct((), jnp.float32), jax.lax.axis_index("i")
            return jax.lax.psum(jax.pure_callback(late, one, i), "i")
        specs = dict(in_specs=P("i"), out_specs=P(), check_vma=False)
        total = jax.shard_map(total, mesh=mesh, **specs)
        print(float(jax.jit(total)(jnp.ones(2))))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.stdout.split() == ["2.0"], done.stderr[-2000:]


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_epochs", 30.5),
        ("num_epochs", True),
        ("batch_size", 10**400),
        ("training.average_decay", 10**400),
        ("training.checkpoint_seconds", float("inf")),
        ("optimizer.learning_rate", (float("nan"),)),
        ("optimizer.phi.learning_rate", ("fast",)),
        ("model.widths", (200, 200)),
        ("model.latent_sizes", (2.5,)),
        ("model.data_mean_bias", 1),
        ("dataset", 3),
        ("estimator.num_leapfrog", "five"),
        ("estimator.num_samples", None),
    ],
)
def test_a_value_of_another_type_is_refused_where_a_config_is_read_back(name, value):
    saved = load("digits", "ais").to_dict()
    *sections, last = name.split(".")
    functools.reduce(dict.get, sections, saved)[last] = value
    assert f"{name}=" in refusal(override(saved, {}))


def test_a_name_that_nothing_reads_is_refused_with_the_nearest():
    config = changed()
    config.training.step_per_row = 5
    message = refusal(config)
    assert message == (
        "training.step_per_row: nothing reads it: "
        "did you mean 'training.steps_per_row'?"
    )


def test_the_choices_of_a_setting_are_those_of_the_code():
    choices = {
        n: set(s.allowed) for n, s in SETTINGS.items() if type(s.allowed) is tuple
    }
    forces = {build.AUTO, *precision.PRECISIONS}
    assert choices["model.force_precision"] == forces
    assert choices["evaluation.force_precision"] == forces
    assert choices["evaluation.start"] == evaluation.STARTS.keys()
    assert choices["evaluation.schedule"] == {"linear", "adaptive"}
    assert choices["evaluation.preconditioner"] == presets.STEP_SIZES.keys()
    assert choices["estimator.preconditioner"] == set(latent.HMC_SCALES)


@pytest.mark.parametrize("section", ["model", "evaluation", "estimator"])
@pytest.mark.parametrize("content", [5, {}, {"foo": 1}])
def test_a_saved_config_of_another_shape_is_refused(section, content):
    saved = load("digits").to_dict() | {section: content}
    with pytest.raises(ConfigError, match=section):
        resolve(override(saved, {"evaluation.preset": "default"}))
