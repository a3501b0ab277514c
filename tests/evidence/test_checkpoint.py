"""A search that is killed goes on, and one of many devices gives the same."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from ais_jax import AnnealingPath, estimate_log_z
from ais_jax.evidence import budget

KEY = jax.random.key(0)
ROOT = Path(__file__).parents[2]
ONE_RUN = {"scale": 0.7, "num_temperatures": 16, "error": None, "fit_base": False}


def normal(scale):
    """So narrow that a base is fitted."""
    return AnnealingPath(
        lambda key: 3.0 * jax.random.normal(key, (2,)),
        lambda z: jnp.sum(norm.logpdf(z, 0.0, 3.0)),
        lambda z: -0.5 * jnp.sum(jnp.square((z - 1.0) / scale)),
    )


def estimate(folder=None, scale=0.07, key=KEY, path=normal, **changes):
    settings = {"num_chains": 16, "error": 0.05, "checkpoint": folder} | changes
    return estimate_log_z(key, path, jnp.asarray(scale), **settings)


def killed(folder):
    """A program that is killed as soon as it has kept its first chains."""

    def kill(_):
        if list(Path(folder).glob("chains*")):
            os.kill(os.getpid(), signal.SIGKILL)

    estimate(folder, progress=kill)


def on_all_devices():
    """A program that prints the log weights that eight devices find."""
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    with pytest.raises(ValueError, match=r"num_chains=12 .* 8 devices: use 16"):
        estimate(mesh=mesh, num_chains=12)
    advance = budget.Task.begin

    def begin(*args):
        chains, memory = advance(*args)
        assert {len(a.sharding.device_set) for a in jax.tree.leaves(chains)} == {8}
        return chains, memory

    budget.Task.begin = begin
    print(*estimate(mesh=mesh, **ONE_RUN).log_w)


def start(code, **environment):
    command = [
        sys.executable,
        "-c",
        f"from tests.evidence.test_checkpoint import *; {code}",
    ]
    environment = os.environ | environment
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def whole():
    """The call that nothing interrupts."""
    return estimate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a call that was killed."""
    folder = tmp_path_factory.mktemp("kept")
    assert start(f"killed({str(folder)!r})").returncode == -signal.SIGKILL
    return folder


def test_a_killed_call_goes_on_to_the_same_numbers(folder, whole):
    before = sorted(file.name for file in folder.iterdir())
    assert "pilot-of-fitted-base.npz" in before
    stages = []
    result = estimate(folder, progress=lambda at: stages.append(at.stage))
    assert len(before) < len(list(folder.iterdir()))
    assert "pilot, kept" in stages and "pilot" not in stages
    assert jax.tree.all(jax.tree.map(np.array_equal, result, whole))


def test_a_finished_call_is_read_and_goes_on_to_a_smaller_error(folder, whole):
    estimate(folder)
    stages = []
    estimate(folder, progress=lambda at: stages.append(at.stage))
    assert all(stage.endswith("kept") for stage in stages)
    result = estimate(folder, error=0.02)
    assert result.standard_error <= 0.02 < whole.standard_error
    np.testing.assert_array_equal(result.log_w[: len(whole.log_w)], whole.log_w)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"key": jax.random.key(1)}, "key"),
        ({"num_chains": 8}, "num_chains"),
        ({"fit_base": False}, "fit_base"),
        ({"scale": 0.08}, "data"),
    ],
)
def test_a_folder_of_another_call_is_refused(folder, changes, name):
    with pytest.raises(ValueError, match=f"of a call with another {name}: choose"):
        estimate(folder, **changes)


def test_a_folder_of_another_density_is_refused(tmp_path):
    estimate(tmp_path, **ONE_RUN)

    def other(scale):
        path = normal(scale)
        return path._replace(log_target=lambda z: path.log_target(z) - 1.0)

    with pytest.raises(ValueError, match="of a call with another log_target"):
        estimate(tmp_path, **ONE_RUN, path=other)


def test_a_damaged_file_is_computed_again(folder, whole):
    (folder / "pilot.npz").write_bytes(b"half of a file")
    result = estimate(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, result, whole))


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"checkpoint='.*file' cannot be written"):
        estimate(str(tmp_path / "file"))


def test_chains_on_eight_devices_are_those_of_one():
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_force_host_platform_device_count=8"
    done = start("on_all_devices()", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    found = np.array(done.stdout.split(), float)
    np.testing.assert_allclose(found, estimate(**ONE_RUN).log_w, atol=2e-3)


def test_nothing_is_kept_of_traced_arrays(tmp_path):
    def log_z(scale):
        return estimate(tmp_path, **ONE_RUN | {"scale": scale}).log_z

    with pytest.raises(ValueError, match="under jit or vmap checkpoint and mesh"):
        jax.jit(log_z)(0.5)
