"""Weak scaling of training: 1 and 2 processes, one core and one batch of 128 for each.

python -m benchmarks.weak_scaling
"""

import argparse
import os
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import adaptation, sharding, training
from benchmarks import common

ROUNDS = 3


def main():
    """Prints images/s for every number of processes, and the share of the ideal."""
    args = common.parse(__doc__)
    rates = {num: [] for num in (1, 2)}
    for _ in range(1 if args.quick else ROUNDS):
        for num, found in rates.items():
            found.append(_launch(num, args))
    middle = {num: float(np.median(found)) for num, found in rates.items()}
    rows = [
        {
            "processes": num,
            "images/s": round(rate),
            "share of ideal": round(rate / (num * middle[1]), 2),
        }
        for num, rate in middle.items()
    ]
    common.report("weak_scaling", args, {"weak scaling, AIS K=1 T=5": rows})


def _launch(num, args):
    """Images/s of `num` processes that train together, each on a core of its own."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.weak_scaling", "--worker", address]
    command += [f"--processes={num}", f"--seconds={0 if args.quick else args.seconds}"]
    command += ["--quick"] if args.quick else []
    workers = [
        subprocess.Popen(
            [*command, f"--process={i}"], stdout=subprocess.PIPE, text=True
        )
        for i in range(num)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise RuntimeError("a worker failed; its message is above")
    return float(outputs[0].split()[-1])


def work(args):
    """One worker: trains on its core and, as the first one, prints images/s."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[args.process % len(cores)]})
    if args.processes > 1:
        jax.distributed.initialize(args.worker, args.processes, args.process)
    load = common.workload(args)
    batch = load.batch * args.processes
    estimate = common.estimator(load, 1, 5)
    mesh = sharding.make_mesh(args.processes)
    train_step = training.make_train_step(
        estimate, adaptation.StepSizeRule(), binarize=True, axis_name=sharding.DATA
    )
    run = training.make_run_steps(train_step, batch, 20 * batch, sharding.DATA)
    run = sharding.spread_training(run, mesh)
    place = lambda make: jax.jit(make, out_shardings=sharding.by_replicate(mesh))()
    state, *_ = common.step_arguments(load, estimate)
    state = place(lambda: jax.tree.map(lambda a: a[None], state))
    keys = place(lambda: jax.random.key(0)[None])
    rates = place(lambda: jnp.full((1,), 1e-3))
    images = np.tile(np.asarray(load.images()), (20 * args.processes, 1))
    data = sharding.place_rows(images, mesh)
    epochs, started, is_late = -1, time.perf_counter(), False
    while epochs < 1 or not sharding.any_process(is_late):
        if epochs == 0:  # the epoch before it compiled
            started = time.perf_counter()
        state, metrics = run(state, keys, rates, data, np.int32(20))
        sharding.fetch(metrics)
        epochs += 1
        is_late = time.perf_counter() - started >= args.seconds
    if args.process == 0:
        print(20 * epochs * batch / (time.perf_counter() - started))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--worker")
        parser.add_argument("--processes", type=int)
        parser.add_argument("--process", type=int)
        parser.add_argument("--seconds", type=float)
        parser.add_argument("--quick", action="store_true")
        work(parser.parse_args())
    else:
        main()
