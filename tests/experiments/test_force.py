"""The precision of HMC's force that a run chooses for its machine."""

import logging
import math

import jax
import jax.numpy as jnp
import pytest

from configs import default, omniglot, table1
from experiments.paper import variants
from experiments.run import build, folder, force, settings
from experiments.run.settings import resolve
from experiments.system.errors import ConfigError

SHAPE = (4, 4)
TINY = {"model.latent_sizes": (2,), "model.widths": ((3,),)}


def tiny(estimator="ais", **forces):
    config = default.get_config(estimator)
    config.update_from_flattened_dict(TINY)
    for section, name in forces.items():
        config[section].force_precision = name
    return resolve(config)


def chosen(given):
    return given.model["force_precision"], given.evaluation.force_precision


def test_a_coarse_force_must_pay_for_its_values_and_its_rejections():
    seconds = {"float32": 1.0, "bf16": 0.7, "tf32": 0.6, "values": 0.5}
    name, times = force.fastest("float32", seconds, 0.2)
    assert name == "tf32"
    assert times == pytest.approx({"float32": 1.0, "bf16": 0.8, "tf32": 0.7})
    assert force.fastest("float32", seconds, 1.0)[0] == "float32"  # of every point
    barely = {"float32": 1.0, "bf16": 0.95, "values": 0.0}
    assert force.fastest("float32", barely, 1.0)[0] == "float32"


def test_the_launcher_chooses_and_the_tables_of_the_paper_do_not():
    assert chosen(resolve(omniglot.get_config("best"))) == (build.AUTO, build.AUTO)
    for variant in variants.expand(table1.get_config()):
        assert chosen(variant.settings) == ("float32", "float32")


def test_a_new_run_measures_what_was_left_open(caplog):
    caplog.set_level(logging.INFO)
    found = force.settle(tiny(evaluation="bf16"), None, SHAPE)
    assert chosen(found)[0] in ("float32", "bf16")
    assert chosen(found)[1] == "bf16"
    assert found.saved["model"]["force_precision"] == chosen(found)[0]
    (line,) = [r.message for r in caplog.records if "HMC's force" in r.message]
    assert line.startswith(f"HMC's force in training: {chosen(found)[0]} (ms for a ")
    assert "float32" in line and "bf16" in line


def test_an_estimator_without_moves_and_a_model_of_ones_own_are_not_measured(caplog):
    caplog.set_level(logging.INFO)
    found = force.settle(tiny("vae", evaluation="float32"), None, SHAPE)
    assert chosen(found) == ("float32", "float32")
    found = force.settle(tiny()._replace(factory="given"), None, SHAPE)
    assert chosen(found) == ("float32", "float32")
    assert not [r for r in caplog.records if "HMC's force" in r.message]


def test_a_run_that_goes_on_keeps_its_choice(tmp_path):
    first = settings.with_forces(tiny(), "bf16", "tf32")
    folder.claim(tmp_path, first, "digest")
    again = force.settle(tiny(), tmp_path, SHAPE)
    assert chosen(again) == ("bf16", "tf32")
    folder.claim(tmp_path, again, "digest")
    config = default.get_config()
    config.update_from_flattened_dict(TINY)
    folder.check_config(tmp_path, config)


def test_another_force_than_the_runs_is_refused(tmp_path):
    folder.claim(tmp_path, settings.with_forces(tiny(), "bf16", "bf16"), "digest")
    asked = force.settle(tiny(model="float32"), tmp_path, SHAPE)
    with pytest.raises(ConfigError, match=r"model\.force_precision='bf16'"):
        folder.claim(tmp_path, asked, "digest")


def test_the_model_is_built_at_its_own_precision_until_the_choice():
    coarse = settings.with_forces(tiny(), "bf16", "bf16")
    for given, has_residuals in ((tiny(), True), (coarse, False)):
        model = build.build_model(given, SHAPE)
        theta, _ = jax.eval_shape(model.init, jax.random.key(0))
        z = jnp.zeros(sum(given.model["latent_sizes"]))
        target = model.target_with_residuals
        residuals = jax.eval_shape(target, theta, jnp.zeros(math.prod(SHAPE)), z)[2]
        assert (residuals is not None) == has_residuals
