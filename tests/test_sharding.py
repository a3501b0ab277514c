"""The same numbers on one device, on a mesh of eight, and on two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ais_jax import sharding

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config=configs/digits.py",
    "--config.num_epochs=200",
    "--config.batch_size=30",
    "--config.model.latent_sizes=3,",
    "--config.model.widths=((16,),)",
    "--config.training.checkpoint_seconds=1",
    "--config.evaluation.preset=quick",
    "--config.evaluation.num_examples=10",
    "--config.evaluation.num_temperatures=8",
    "--config.evaluation.num_simulated=10",
    "--config.evaluation.num_pilot=4",
]

KERNEL = {"force_precision": "bf16", "kernel": "pallas"}
ON_EIGHT_DEVICES = """
    import jax, jax.numpy as jnp, numpy as np
    from ais_jax import adaptation, estimators, evaluation, optimizers, sharding
    from ais_jax import training
    from ais_jax.models import bernoulli_model, posterior_path
    from ais_jax.training import map_examples

    model = bernoulli_model(12, latent_sizes=(3,), widths=((8,),), **SETTINGS)
    estimator = estimators.make("ais", model, num_samples=2, num_temperatures=3)
    optimizer = optimizers.make("constant", 100)
    data = np.array(jax.random.uniform(jax.random.key(0), (37, 12)))

    def train(mesh):
        step = training.make_train_step(
            estimator, adaptation.StepSizeRule(), binarize=True, block_size=2,
            axis_name=sharding.DATA,
        )
        run = training.make_run_steps(step, 16, len(data), sharding.DATA)
        keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
        init = lambda key: training.init(key, model, estimator, optimizer, 0.1)
        place = lambda f: jax.jit(f, out_shardings=sharding.by_replicate(mesh))()
        state = place(lambda: jax.vmap(init)(keys))
        rates = place(lambda: jnp.array([1e-2, 1e-3]))
        rows = sharding.place_rows(data, mesh)
        run = sharding.spread_training(run, mesh)
        for _ in range(3):  # epochs of two steps
            state, metrics = run(state, place(lambda: keys), rates, rows, jnp.int32(2))
        params = state.generative.params, state.inference.params
        return sharding.fetch((params, metrics))

    def evaluate(mesh):
        theta, phi = model.init(jax.random.key(1))
        plan = evaluation.Plan(jnp.linspace(0, 1, 6), jnp.full((4,), 0.2))
        one = lambda params, plan, i, x: evaluation.log_normalizer(
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
    compare(trained, train(eight))
    compare(trained, train(both))
    log_w = evaluate(single)
    compare(log_w, evaluate(eight))
    compare(log_w, evaluate(both))
    assert len(sharding.place_rows(data, eight).addressable_shards[0].data) == 5
    print("EQUAL", len(jax.devices()))
"""


@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param(KERNEL, marks=pytest.mark.slow)],
    ids=["xla", "pallas"],
)
def test_eight_devices_and_a_two_by_four_mesh_equal_one_device(settings):
    flags = "--xla_force_host_platform_device_count=8"
    script = textwrap.dedent(ON_EIGHT_DEVICES).replace("SETTINGS", repr(settings))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "EQUAL 8", done.stderr[-2000:]


@pytest.fixture
def start(tmp_path):
    """Starts the launcher on a small run; its lines go to `process.log`."""
    processes = []

    def start(workdir, *args):
        command = [sys.executable, "-m", "experiments.main", *SMALL, *args]
        cache = f"--compile_cache={tmp_path / 'cache'}"
        log = tmp_path / f"log_{len(processes)}"
        with open(log, "w") as file:
            process = subprocess.Popen(
                [*command, f"--workdir={workdir}", cache], cwd=ROOT, stderr=file
            )
        process.log = log
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def start_two(start, workdir, *args):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"--coordinator=localhost:{probe.getsockname()[1]}"
    two = [*args, "--config.sharding.data=2", address, "--num_processes=2"]
    return [start(workdir, *two, f"--process_id={i}") for i in range(2)]


def end(process):
    """Exit status and log of a process that is to end by itself."""
    return process.wait(timeout=600), process.log.read_text()


def wait_for_checkpoint(workdir, processes):
    deadline = time.monotonic() + 240
    while not list(workdir.glob("checkpoints/*/commit_success.txt")):
        assert time.monotonic() < deadline, "no checkpoint"
        assert all(p.poll() is None for p in processes), "a process ended early"
        time.sleep(0.1)


def rows_and_results(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return rows, json.loads((workdir / "results.json").read_text())


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_one_goes_on_to_the_same_end(
    start, tmp_path
):
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    pair = start_two(start, broken)
    wait_for_checkpoint(broken, pair)
    pair[1].send_signal(signal.SIGKILL)
    status, log = end(pair[0])
    assert status == 4, log
    assert "another process of this run stopped answering" in log
    for workdir in (broken, alone):
        status, log = end(start(workdir))
        assert status == 0, log
    rows, results = rows_and_results(broken)
    expected_rows, expected = rows_and_results(alone)
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    elbo = lambda rows: np.array([row["elbo"] for row in rows])
    np.testing.assert_allclose(elbo(rows), elbo(expected_rows), rtol=2e-3)
    mean = lambda results: results["test_log_p"]["mean"]
    np.testing.assert_allclose(mean(results), mean(expected), rtol=2e-3)


def test_sigterm_on_one_of_two_processes_saves_and_stops_both(start, tmp_path):
    workdir = tmp_path / "run"
    pair = start_two(start, workdir)
    wait_for_checkpoint(workdir, pair)
    pair[1].send_signal(signal.SIGTERM)
    ends = [end(process) for process in pair]
    assert [status for status, _ in ends] == [3, 3], ends
    assert "goes on from there" in ends[0][1]


def test_sizes_that_do_not_divide_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match=r"batch_size=100 .* use 99 or 102"):
        sharding.check_divides("batch_size", 100, 3, "sharding.data")


def test_too_few_devices_are_refused():
    with pytest.raises(ValueError, match=r"sharding\.data=999"):
        sharding.make_mesh(num_data=999)


@pytest.mark.parametrize("num", [1, 5])
def test_rows_are_taken_as_they_are_on_one_device(num):
    data = np.arange(12.0).reshape(6, 2)
    rows = jax.numpy.arange(num)
    from ais_jax.training import take_rows

    np.testing.assert_array_equal(take_rows(jax.numpy.asarray(data), rows), data[:num])
