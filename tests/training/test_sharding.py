"""The same numbers on one device, on a mesh of eight, and on two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from ais_jax import sharding
from ais_jax.training.epochs import take_rows
from experiments.system import devices
from experiments.system.errors import InputError

ROOT = Path(__file__).parents[2]
HOST_DEVICES = "--xla_force_host_platform_device_count"
SMALL = [
    "--config=configs/digits.py",
    "--config.num_epochs=2",
    "--config.batch_size=32",  # 46 steps an epoch
    "--config.num_replicates=2",
    "--config.model.latent_sizes=3,",
    "--config.model.widths=((16,),)",
    "--config.training.steps_per_row=20",
    "--config.training.checkpoint_seconds=0",  # a checkpoint after every row
    "--config.evaluation.num_examples=10",
    "--config.evaluation.num_temperatures=8",
    "--config.evaluation.num_simulated=0",
]

# The launcher, in a process that signals itself when its first save is complete. It
# does not go on before, and the others cannot go on without it, so nothing races.
SIGNALS_ITSELF = """
    import os, pathlib, runpy, sys, time
    from experiments.run.checkpoint import Checkpointer

    save, signals = Checkpointer.save, [int(sys.argv.pop(1))]
    checkpoints = pathlib.Path(sys.argv[1].removeprefix("--workdir="), "checkpoints")

    def save_and_signal(self, step, state, **kwargs):
        save(self, step, state, **kwargs)
        while signals and not (checkpoints / f"{step}/commit_success.txt").exists():
            time.sleep(0.01)
        if signals:
            os.kill(os.getpid(), signals.pop())

    Checkpointer.save = save_and_signal
    runpy.run_module("experiments.main", run_name="__main__")
"""
ON_EIGHT_DEVICES = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from ais_jax.batching import map_examples
    from ais_jax.evidence.log_z import log_normalizer
    from ais_jax.evidence.plan import Plan
    from ais_jax.models.latent import posterior_path
    from ais_jax.models.networks import bernoulli_model
    from ais_jax.training import epochs, estimators, optimizers, sharding, step
    from ais_jax.training.step_sizes import StepSizeRule

    model = bernoulli_model(12, latent_sizes=(3,), widths=((8,),))
    estimator = estimators.make("ais", model, num_samples=2, num_temperatures=3)
    optimizer = optimizers.make(schedule="constant", num_steps=100)
    pair = optimizers.Optimizers(optimizer, optimizer)
    data = np.array(jax.random.uniform(jax.random.key(0), (37, 12)))

    def train(mesh):
        train_step = step.make_train_step(
            estimator, StepSizeRule(), binarize=True, block_size=2,
            axis_name=sharding.DATA,
        )
        run = epochs.make_run_steps(train_step, 16, len(data), sharding.DATA)
        keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
        init = lambda key, rates: step.init(
            key, model, estimator, pair, 0.1, learning_rates=rates
        )
        place = lambda f: jax.jit(f, out_shardings=sharding.by_replicate(mesh))()
        rates = jnp.array([[1e-2, 1e-2], [1e-3, 1e-3]])
        state = place(lambda: jax.vmap(init)(keys, rates))
        rows = sharding.place_rows(data, mesh)
        run = sharding.spread_training(run, mesh)
        for _ in range(3):  # epochs of two steps
            state, metrics = run(state, place(lambda: keys), rows, jnp.int32(2))
        params = state.generative.params, state.inference.params
        return sharding.fetch((params, metrics))

    def evaluate(mesh):
        theta, phi = model.init(jax.random.key(1))
        plan = Plan(jnp.linspace(0, 1, 6), jnp.full((4,), 0.2))
        one = lambda params, plan, i, x: log_normalizer(
            jax.random.fold_in(jax.random.key(2), i),
            posterior_path(model, *params, x), plan, 4,
        ).log_w
        chunk = lambda params, plan, i, x: map_examples(
            lambda i, x: one(params, plan, i, x), i, x, block_size=2
        )
        spread = sharding.spread_examples(chunk, mesh)
        x = (data[:32] > 0.5).astype(np.float32)
        return sharding.fetch(spread((theta, phi), plan, np.arange(32), x))

    def compare(a, b):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)

    single, eight = sharding.make_mesh(), sharding.make_mesh(8)
    both = sharding.make_mesh(4, 2)
    trained = train(single)
    log_w = evaluate(single)
    for mesh in (both, eight)[:int(sys.argv[1])]:
        compare(trained, train(mesh))
        compare(log_w, evaluate(mesh))
    assert len(sharding.place_rows(data, eight).addressable_shards[0].data) == 5
    print("EQUAL", len(jax.devices()))
"""


@pytest.mark.parametrize(
    ("flags", "num_meshes"),
    [
        pytest.param(os.environ["XLA_FLAGS"], 1, id="soon compiled"),
        pytest.param("", 2, id="as users compile", marks=pytest.mark.slow),
    ],
)
def test_a_two_by_four_mesh_and_eight_devices_equal_one_device(flags, num_meshes):
    script = textwrap.dedent(ON_EIGHT_DEVICES)
    done = subprocess.run(
        [sys.executable, "-c", script, str(num_meshes)],
        env={**os.environ, "XLA_FLAGS": f"{flags} {HOST_DEVICES}=8"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "EQUAL 8", done.stderr[-2000:]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(tmp_path, cache):
    """Starts the launcher on a small run; its lines go to `process.log`."""
    processes = []

    def start(workdir, *args, devices=1, send=None, **environment):
        launcher = ["-m", "experiments.main"]
        if send is not None:
            launcher = ["-c", textwrap.dedent(SIGNALS_ITSELF), str(int(send))]
        args = [*launcher, f"--workdir={workdir}", *args, f"--compile_cache={cache}"]
        flags = f"{os.environ['XLA_FLAGS']} {HOST_DEVICES}={devices}"
        log = tmp_path / f"log_{len(processes)}"
        with open(log, "w") as file:
            process = subprocess.Popen(
                [sys.executable, *args],
                env={**os.environ, **environment, "XLA_FLAGS": flags},
                cwd=ROOT,
                stdout=file,
                stderr=file,
            )
        process.log = log
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def ends(processes):
    """(exit status, log) of processes that are to end by themselves."""
    return [(p.wait(timeout=600), p.log.read_text()) for p in processes]


def run_alone(start, workdir, *args):
    [(status, log)] = ends([start(workdir, *args)])
    assert status == 0, log
    return log


def run_pair(start, workdir, *args, victim=None, send=None, devices=1):
    """Runs two processes, one of which may signal itself after its first save."""
    args = *args, f"--coordinator=localhost:{free_port()}", "--num_processes=2"
    pair = []
    for i in range(2):
        signal = send if i == victim else None
        flag = f"--process_id={i}"
        pair.append(start(workdir, *args, flag, devices=devices, send=signal))
    return ends(pair)


def run_pair_by_slurm(start, workdir, *args):
    """Runs two processes in the environment that Slurm would give them."""
    shared = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    args = *args, "--coordinator=auto"
    own = [{"SLURM_PROCID": i, "SLURM_LOCALID": i} for i in ("0", "1")]
    return ends([start(workdir, *args, **shared, **ids) for ids in own])


def rows_and_results(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return rows, json.loads((workdir / "results.json").read_text())


def mesh(data, replicate=1):
    return f"--config.sharding.data={data}", f"--config.sharding.replicate={replicate}"


@pytest.mark.slow
def test_stopped_killed_and_resumed_on_other_meshes_a_run_is_the_same(start, tmp_path):
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    pair = [start, broken, *SMALL, *mesh(2, 2)]
    stopped = run_pair(*pair, victim=1, send=signal.SIGTERM, devices=2)
    assert [status for status, _ in stopped] == [3, 3], stopped
    assert "Stopped at step 40 of 92" in stopped[0][1]

    killed = run_pair(*pair, victim=1, send=signal.SIGKILL, devices=2)
    assert [status for status, _ in killed] == [4, -signal.SIGKILL], killed
    assert "Resuming from step 40" in killed[0][1]
    assert "\nError: another process of this run stopped answering" in killed[0][1]
    assert "Traceback" not in killed[0][1]

    log = run_alone(start, broken, *SMALL, "--mode=train")
    assert "Resuming from step 46" in log
    evaluate = ["--mode=evaluate", *mesh(2)]
    evaluated = run_pair_by_slurm(start, broken, *evaluate)
    assert [status for status, _ in evaluated] == [0, 0], evaluated
    assert ["test log p(x)" in log for _, log in evaluated] == [True, False]

    run_alone(start, alone, *SMALL)
    rows, results = rows_and_results(broken)
    expected_rows, expected = rows_and_results(alone)
    assert [row["step"] for row in rows] == [20, 40, 46, 66, 86, 92]
    elbo = lambda rows: np.array([row["elbo"] for row in rows])
    np.testing.assert_allclose(elbo(rows), elbo(expected_rows), rtol=1e-4)
    for one, other in zip(results["replicates"], expected["replicates"], strict=True):
        mean = lambda found, name: found["test"][name]["mean"]
        for name in ("log_p", "iwae", "elbo"):
            np.testing.assert_allclose(mean(one, name), mean(other, name), rtol=1e-3)


@pytest.mark.slow
def test_the_others_end_when_process_0_is_killed(start, tmp_path):
    small = "--config=configs/digits.py:vae", *SMALL[1:], *mesh(2, 2)  # soon compiled
    kill = {"victim": 0, "send": signal.SIGKILL, "devices": 2}
    killed, (status, log) = run_pair(start, tmp_path / "run", *small, **kill)
    assert killed[0] == -signal.SIGKILL
    assert status in (4, -signal.SIGABRT), log  # JAX's own abort may come first
    assert "another process of this run" in log or "another task died" in log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("localhost:1", None, None), "needs --num_processes and --process_id"),
        (("localhost:1", 2, 2), "--process_id=2: use 0 to 1"),
        (("localhost", 2, 1), "--coordinator=localhost: give host:port"),
        (("localhost:99999", 2, 1), "a port from 1 to 65535"),
        ((None, 2, 1), "are for --coordinator=host:port"),
    ],
)
def test_wrong_flags_are_refused_before_anything_starts(flags, message):
    with pytest.raises(InputError, match=message):
        devices.start_processes(*flags)


def test_a_coordinator_that_does_not_answer_is_one_line(start, tmp_path):
    address = f"--coordinator=localhost:{free_port()}", "--num_processes=2"
    args = *SMALL[:1], *address, "--process_id=1", "--start_seconds=1"
    [(status, log)] = ends([start(tmp_path / "run", *args)])
    assert status == 2, log
    assert log.startswith("Error: --coordinator=localhost:")
    assert log.count("\n") == 1


def test_processes_of_different_settings_are_refused(start, tmp_path):
    address = f"--coordinator=localhost:{free_port()}", "--num_processes=2"
    shared = *SMALL, *mesh(2), *address
    own = [("--process_id=0",), ("--process_id=1", "--config.seed=3")]
    for status, log in ends([start(tmp_path / "run", *shared, *one) for one in own]):
        assert status == 2, log
        assert "Error: the processes of this run differ" in log


def test_sizes_that_do_not_divide_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match=r"batch_size=100 .* use 99 or 102"):
        sharding.check_divides("batch_size", 100, 3, "sharding.data")


def test_too_few_devices_are_refused():
    with pytest.raises(ValueError, match="num_data=999"):
        sharding.make_mesh(num_data=999)


@pytest.mark.parametrize("num", [1, 5])
def test_rows_are_taken_as_they_are_on_one_device(num):
    data = np.arange(12.0).reshape(6, 2)
    rows = jax.numpy.arange(num)
    np.testing.assert_array_equal(take_rows(jax.numpy.asarray(data), rows), data[:num])
