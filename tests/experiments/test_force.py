"""The precision of HMC's force that the device and the estimator decide."""

import logging
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default, omniglot, table1
from experiments.data.dataset import Dataset
from experiments.paper import variants
from experiments.run import build, folder, force, settings
from experiments.run.settings import resolve
from experiments.system.errors import ConfigError

SHAPE = (4, 4)
DATASET = Dataset.from_arrays(np.eye(16), np.eye(16))
TINY = {"model.latent_sizes": (2,), "model.widths": ((3,),)}


def tiny(estimator="ais", **forces):
    config = default.get_config(estimator)
    config.update_from_flattened_dict(TINY)
    for section, name in forces.items():
        config[section].force_precision = name
    return resolve(config)


def chosen(given):
    return given.model["force_precision"], given.evaluation.force_precision


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("gpu", "9.0", "tf32"),
        ("gpu", "8.0", "tf32"),
        ("gpu", "7.5", "float32"),
        ("gpu", "gfx942", "float32"),
        ("tpu", None, "float32"),
    ],
)
def test_a_device_has_the_coarse_products_of_its_kind(platform, capability, expected):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    assert force.of_device(device) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"processor : 0\nflags\t\t: fpu avx2 avx512_bf16 amx_tile\n", "bf16"),
        (b"flags : fpu amx_bf16\n", "bf16"),
        (b"flags : fpu avx2 avx512f\n", "float32"),
        (b"Features : fp asimd\n", "float32"),
        (b"\xff\xfe", "float32"),
        (None, "float32"),
    ],
)
def test_a_cpus_units_are_read_from_its_flags(tmp_path, monkeypatch, content, expected):
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(force, "CPU_INFO", path)
    assert force.of_device(SimpleNamespace(platform="cpu")) == expected


def test_a_coarse_force_is_for_moves_that_need_few_values():
    """An evaluation needs all values, but for the authors' protocol, of HMC."""
    assert force.by_rule(tiny("ais"), "bf16") == ("bf16", "float32")
    assert force.by_rule(tiny("best"), "bf16") == ("float32", "float32")
    config = default.get_config()
    config.evaluation.preset = "paper"
    assert force.by_rule(resolve(config), "tf32") == ("tf32", "tf32")
    config = default.get_config()
    config.estimator.num_leapfrog = config.evaluation.num_leapfrog = 1
    assert force.by_rule(resolve(config), "bf16") == ("float32", "float32")
    config = default.get_config()
    config.model.precision = "tf32"
    assert force.by_rule(resolve(config), "bf16") == ("tf32", "tf32")


def test_the_force_of_a_users_model_is_its_own():
    given = tiny()._replace(factory="given")
    assert force.by_rule(given, "bf16") == ("float32", "float32")


def test_the_launcher_chooses_and_the_tables_of_the_paper_do_not():
    assert chosen(resolve(omniglot.get_config("best"))) == (build.AUTO, build.AUTO)
    for variant in variants.expand(table1.get_config()):
        assert chosen(variant.settings) == ("float32", "float32")


def test_a_new_run_gets_what_was_left_open_by_the_rule(caplog):
    caplog.set_level(logging.INFO)
    coarse = force.of_device(jax.devices()[0])
    asked = tiny(evaluation="float32")
    found = force.settle(asked, None)
    assert chosen(found) == (coarse, "float32")
    assert found.saved["model"]["force_precision"] == coarse
    force.say(found, found)
    force.say(asked, found)
    (line,) = [r.message for r in caplog.records if "HMC's force" in r.message]
    assert line == f"HMC's force: {coarse} in training, float32 in evaluation."
    assert force.settle(found, None) is found


def test_a_run_that_goes_on_keeps_its_choice(tmp_path):
    first = settings.with_forces(tiny(), "bf16", "tf32")
    folder.claim(tmp_path, first, DATASET)
    again = force.settle(tiny(), tmp_path)
    assert chosen(again) == ("bf16", "tf32")
    folder.claim(tmp_path, again, DATASET)
    config = default.get_config()
    config.update_from_flattened_dict(TINY)
    folder.check_config(tmp_path, config)


def test_another_force_than_the_runs_is_refused(tmp_path):
    folder.claim(tmp_path, settings.with_forces(tiny(), "bf16", "bf16"), DATASET)
    asked = force.settle(tiny(model="float32"), tmp_path)
    with pytest.raises(ConfigError, match=r"model\.force_precision='bf16'"):
        folder.claim(tmp_path, asked, DATASET)


def test_the_model_is_built_at_its_own_precision_until_the_choice():
    coarse = settings.with_forces(tiny(), "bf16", "bf16")
    for given, has_residuals in ((tiny(), True), (coarse, False)):
        model = build.build_model(given, SHAPE)
        theta, _ = jax.eval_shape(model.init, jax.random.key(0))
        z = jnp.zeros(sum(given.model["latent_sizes"]))
        target = model.target_with_residuals
        residuals = jax.eval_shape(target, theta, jnp.zeros(math.prod(SHAPE)), z)[2]
        assert (residuals is not None) == has_residuals
