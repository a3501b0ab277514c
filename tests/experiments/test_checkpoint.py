"""Checkpoints: exact round trips, clear refusals, and survival of a killed process."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from experiments.run.checkpoint import Checkpointer
from experiments.system.errors import CheckpointError, NonFiniteLoss

ROOT = Path(__file__).parents[2]


@flax.struct.dataclass
class State:
    """A training state like the library's: two models and their step sizes."""

    generative: TrainState
    inference: TrainState
    step_sizes: jax.Array
    seed: jax.Array


def make_state(seed, *, width=3, num_moves=4):
    def one(key, shape):
        params = {"dense": {"kernel": jax.random.normal(key, shape)}}
        state = TrainState.create(apply_fn=print, params=params, tx=optax.adam(0.1))
        state = state.apply_gradients(grads=jax.tree.map(jnp.sin, params))
        return state.replace(step=jnp.int32(seed))

    keys = jax.random.split(jax.random.key(seed))
    return State(
        generative=one(keys[0], (2, width)),
        inference=one(keys[1], (width, 5)),
        step_sizes=jnp.linspace(0.1, 0.3, num_moves, dtype=jnp.bfloat16),
        seed=jnp.uint32(4_000_000_000 + seed),
    )


def assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("num_moves", [4, 0])
def test_round_trip_is_exact_and_keeps_the_templates_static_fields(tmp_path, num_moves):
    state = make_state(1, num_moves=num_moves)
    template = make_state(2, num_moves=num_moves)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, state)
        restored = checkpointer.restore(template)
    assert restored.generative.tx is template.generative.tx
    assert_identical(restored, template.replace(**_fields_of(state, template)))


def _fields_of(state, template):
    """`state`'s arrays under `template`'s static fields."""
    leaves = jax.tree.leaves(state)
    return vars(jax.tree.unflatten(jax.tree.structure(template), leaves))


def test_template_may_be_abstract(tmp_path):
    state = {"w": jnp.arange(6.0).reshape(2, 3)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(0, state)
        restored = checkpointer.restore(jax.eval_shape(lambda: state))
    np.testing.assert_array_equal(restored["w"], state["w"])


def test_save_copies_before_the_arrays_are_donated(tmp_path):
    increment = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((500, 500))
    with Checkpointer(tmp_path, max_to_keep=4) as checkpointer:
        for step in range(4):
            checkpointer.save(step, {"x": x})
            x = increment(increment(x))
        for step in range(4):
            restored = checkpointer.restore({"x": x}, step)
            assert np.all(np.asarray(restored["x"]) == 2 * step)


def test_newest_are_kept_and_any_kept_one_can_be_read(tmp_path):
    template = {"x": jnp.float32(0)}
    with Checkpointer(tmp_path / "new" / "folder", max_to_keep=2) as checkpointer:
        assert checkpointer.latest_step() is None
        for step in (1, 5, 9):
            checkpointer.save(step, {"x": jnp.float32(step)}, wait=step == 5)
    with Checkpointer(tmp_path / "new" / "folder") as checkpointer:
        assert checkpointer.latest_step() == 9
        assert checkpointer.restore(template)["x"] == 9
        assert checkpointer.restore(template, 5)["x"] == 5
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 1 .* step 9"):
            checkpointer.restore(template, 1)


@pytest.mark.parametrize("step", [3, 4])
def test_steps_must_grow(tmp_path, step):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(4, {"x": jnp.ones(2)})
        with pytest.raises(CheckpointError, match=f"step {step}: .* holds 4"):
            checkpointer.save(step, {"x": jnp.ones(2)})


def test_missing_checkpoint(tmp_path):
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(CheckpointError, match="no checkpoint in"),
    ):
        checkpointer.restore({"x": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=r"nowhere.* does not exist"):
        Checkpointer(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_another_models_checkpoint_is_refused_in_one_line(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1, width=3))
        with pytest.raises(CheckpointError) as error:
            checkpointer.restore(make_state(1, width=4))
    assert str(error.value) == (
        f"checkpoint 1 in {tmp_path} is of another model: "
        "generative/params/dense/kernel has shape (2, 3) float32, "
        "expected shape (2, 4) float32; "
        "use the config it was trained with, or another --workdir"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"a": jnp.ones(2)}, r"it has b shape \(3,\) float32, which is not expected"),
        (
            {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.int32(0)},
            r"it has no c, expected shape \(\) int32",
        ),
        (
            {"a": jnp.ones(2), "b": jnp.ones(3, jnp.int32)},
            r"b has shape \(3,\) float32, expected shape \(3,\) int32",
        ),
        (
            {"a": jnp.ones(2), "b": jnp.ones((3, 0))},
            r"b has shape \(3,\) float32, expected shape \(3, 0\) float32",
        ),
    ],
)
def test_another_tree_is_refused(tmp_path, template, message):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"a": jnp.ones(2), "b": jnp.ones(3)})
        with pytest.raises(CheckpointError, match=message):
            checkpointer.restore(template)


def _leave_half_written(directory, step):
    """Leaves what a process killed while saving `step` leaves."""
    half = directory / f"{step}.orbax-checkpoint-tmp"
    (half / "default.orbax-checkpoint-tmp").mkdir(parents=True)
    (half / "_CHECKPOINT_METADATA").write_text("{")
    return half


def test_half_written_checkpoint_is_ignored_then_cleaned(tmp_path):
    state = {"x": jnp.arange(3.0)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state)
    half = _leave_half_written(tmp_path, 9)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 3
        assert_identical(checkpointer.restore(state), state)
        checkpointer.save(10, state)
    assert not half.exists()
    assert sorted(os.listdir(tmp_path)) == ["10", "3"]


def test_reading_leaves_anothers_unfinished_save_alone(tmp_path):
    state = {"x": jnp.arange(3.0)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state)
    half = _leave_half_written(tmp_path, 9)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert_identical(checkpointer.restore(state), state)
        with pytest.raises(CheckpointError, match="read-only"):
            checkpointer.save(10, state)
    assert half.exists()


def test_incomplete_folder_is_named(tmp_path):
    (tmp_path / "5").mkdir()
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(CheckpointError, match=r"checkpoint 5 .* incomplete: delete it"),
    ):
        checkpointer.restore({"x": jnp.ones(2)})


@pytest.fixture(scope="module")
def saved_twice(tmp_path_factory):
    """A folder with the sound checkpoints 5 and 9 of `make_state(step)`."""
    folder = tmp_path_factory.mktemp("sound")
    with Checkpointer(folder) as checkpointer:
        for step in (5, 9):
            checkpointer.save(step, make_state(step))
    return folder


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _assert_sound_or_step_5(folder, caplog, read_only=False):
    """Restores the newest: it is that of step 9, or of step 5 after a warning."""
    caplog.clear()
    template = make_state(1)
    with Checkpointer(folder, read_only=read_only) as checkpointer:
        restored = checkpointer.restore(template)
    step = int(restored.generative.step)
    assert_identical(
        restored, template.replace(**_fields_of(make_state(step), template))
    )
    warned = [r.message for r in caplog.records if r.name == "experiments"]
    assert step == (5 if warned else 9)
    if warned:
        assert "Checkpoint 9 in" in warned[0] and "step 5, which is sound" in warned[0]
        assert warned[0].count("\n") == 0
    return step


def test_a_flipped_bit_never_comes_back_as_a_parameter(saved_twice, tmp_path, caplog):
    rng, noticed = random.Random(0), 0
    for number in range(30):
        folder = Path(shutil.copytree(saved_twice, tmp_path / str(number)))
        path = rng.choice([p for p in _files(folder / "9") if p.stat().st_size])
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        noticed += _assert_sound_or_step_5(folder, caplog, read_only=True) == 5
    assert noticed >= 5


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_file_is_one_warning_and_an_older_step(
    saved_twice, tmp_path, damage, caplog
):
    for number, path in enumerate(_files(saved_twice / "9")):
        folder = Path(shutil.copytree(saved_twice, tmp_path / str(number)))
        path, content = folder / path.relative_to(saved_twice), path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            cut = content[: len(content) // 2 if damage == "cut" else 0]
            path.write_bytes(bytes(range(256)) if damage == "noise" else cut)
        _assert_sound_or_step_5(folder, caplog, read_only=True)


def test_training_goes_on_past_a_damaged_checkpoint(saved_twice, tmp_path, caplog):
    folder = Path(shutil.copytree(saved_twice, tmp_path / "run"))
    shutil.rmtree(folder / "9" / "default" / "d")
    assert _assert_sound_or_step_5(folder, caplog) == 5
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.latest_step() == 5
        checkpointer.save(9, make_state(9))
    assert sorted(os.listdir(folder)) == ["5", "9", "9.damaged"]
    assert _assert_sound_or_step_5(folder, caplog) == 9


def test_a_damaged_step_that_was_asked_for_is_an_error(saved_twice, tmp_path):
    folder = Path(shutil.copytree(saved_twice, tmp_path / "run"))
    for step, advice in (("9", "that of step 5 is sound"), ("5", "put a copy back")):
        shutil.rmtree(folder / step / "default" / "d")
        with (
            Checkpointer(folder, read_only=True) as checkpointer,
            pytest.raises(CheckpointError, match=advice) as error,
        ):
            checkpointer.restore(make_state(1), int(step))
        assert f"checkpoint {step} (its manifest cannot be read)" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", ["leaves", "sha256"])
def test_arrays_of_another_digest_are_damaged_though_they_can_be_read(
    saved_twice, tmp_path, kept, caplog
):
    """A whole checkpoint of other values, which keeps a part of the old manifest."""
    folder = Path(shutil.copytree(saved_twice, tmp_path / "run"))
    old = folder / "9" / "_CHECKPOINT_METADATA"
    before = json.loads(old.read_text())["custom_metadata"]
    with Checkpointer(tmp_path / "other") as checkpointer:
        checkpointer.save(9, make_state(8))
    shutil.rmtree(folder / "9")
    shutil.copytree(tmp_path / "other" / "9", folder / "9")
    changed = json.loads(old.read_text())
    changed["custom_metadata"]["sha256"] = before["sha256"]
    if kept == "leaves":
        changed["custom_metadata"]["leaves"] = before["leaves"]
    old.write_text(json.dumps(changed))
    assert _assert_sound_or_step_5(folder, caplog, read_only=True) == 5


def test_what_is_not_finite_is_not_saved(tmp_path):
    bad = {"w": jnp.array([1.0, np.nan]), "n": jnp.int32(3)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, {"w": jnp.ones(2), "n": jnp.int32(3)})
        with pytest.raises(
            NonFiniteLoss, match=r"w was not finite at step 4; .* step 3"
        ):
            checkpointer.save(4, bad)
        assert checkpointer.latest_step() == 3


def _run(script, directory, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **kwargs,
    )


SAVE_FOREVER = """
import sys, jax.numpy as jnp, numpy as np
from experiments.run.checkpoint import Checkpointer
def state(step):
    values = np.random.default_rng(step).normal(size=300_000).astype(np.float32)
    return {"step": jnp.int32(step), "w": jnp.asarray(values)}
with Checkpointer(sys.argv[1], max_to_keep=2) as c:
    newest = c.latest_step()
    step = 0 if newest is None else int(c.restore(state(0))["step"]) + 1
    while True:
        c.save(step, state(step), wait=step % 3 == 0)
        if step % 3 == 0:
            print(step, flush=True)
        step += 1
"""


def test_killed_process_leaves_its_newest_checkpoint_whole(tmp_path):
    rng = random.Random(0)
    template = {"step": jnp.int32(0), "w": jnp.zeros(300_000)}
    finished = -1
    for _ in range(3):
        process = _run(SAVE_FOREVER, tmp_path)
        for _ in range(rng.randint(1, 5)):
            finished = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Checkpointer(tmp_path, read_only=True) as checkpointer:
            newest = checkpointer.latest_step()
            restored = checkpointer.restore(template)
        assert newest >= finished
        assert restored["step"] == newest
        values = np.random.default_rng(newest).normal(size=300_000)
        np.testing.assert_array_equal(restored["w"], values.astype(np.float32))


SAVE_ON_FOUR = """
import sys, jax, jax.numpy as jnp
import experiments.run.checkpoint
assert not any(name.startswith("orbax") for name in sys.modules)
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split, copied = (jax.NamedSharding(mesh, p) for p in (jax.P("data"), jax.P()))
x = jax.device_put(jnp.arange(24.0).reshape(8, 3), split)
state = {"x": x, "y": jax.device_put(jnp.int32(5), copied)}
with experiments.run.checkpoint.Checkpointer(sys.argv[1]) as c:
    c.save(2, state)
    back = c.restore(state)
    assert [back[k].sharding for k in state] == [split, copied]
print(len(x.addressable_shards))
"""


def test_saved_on_four_devices_and_restored_on_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    process = _run(SAVE_ON_FOUR, tmp_path, env=environment)
    assert process.communicate()[0].split() == ["4"]
    template = {"x": jnp.zeros((8, 3)), "y": jnp.int32(0)}
    with Checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore(template)
    expected = {"x": jnp.arange(24.0).reshape(8, 3), "y": jnp.int32(5)}
    assert_identical(restored, expected)
