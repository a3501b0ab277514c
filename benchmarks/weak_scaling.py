"""Weak scaling of training: 1 and 2 processes, one core and one batch of 128 for each.

python -m benchmarks.weak_scaling
"""

import os
import socket
import statistics
import time

import jax
import numpy as np

from ais_jax import sharding
from benchmarks import common, launched, runner

ROUNDS = 3
STEPS = 20  # of an epoch


def tables(args):
    """Images/s for every number of processes, and the share of the ideal."""
    rates = {num: [] for num in (1, 2)}
    for _ in range(1 if args.quick else ROUNDS):
        for num, seen in rates.items():
            seen.append(launch(num, args))
    middle = {num: statistics.median(seen) for num, seen in rates.items()}
    rows = [
        {
            "processes": num,
            "images/s": round(rate),
            "share of ideal": round(rate / (num * middle[1]), 2),
        }
        for num, rate in middle.items()
    ]
    yield "weak scaling, AIS K=1 T=5", rows


def launch(num, args):
    """Images/s of `num` processes that train together, each on a core of its own."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    settings = address, num, args.quick, args.seconds
    workers = [runner.start("weak_scaling", "work", i, *settings) for i in range(num)]
    rates = [runner.finish(worker) for worker in workers]
    return rates[0]


def work(process, address, num_processes, is_quick, seconds):
    """One worker: trains on its core; returns images/s of all."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[process % len(cores)]})
    if num_processes > 1:
        jax.distributed.initialize(address, num_processes, process)
    load = common.workload(is_quick)
    images = np.tile(np.asarray(load.images()), (STEPS * num_processes, 1))
    load = load._replace(batch=load.batch * num_processes)
    mesh = sharding.make_mesh(num_processes)
    run = launched.spread_run(load, common.estimator(load, 1, 5), mesh, images)
    sharding.fetch(run(STEPS))  # compiles
    epochs, started, is_late = 0, time.perf_counter(), False
    while epochs < 1 or not sharding.any_process(is_late):
        sharding.fetch(run(STEPS))
        epochs += 1
        is_late = time.perf_counter() - started >= seconds
    return STEPS * epochs * load.batch / (time.perf_counter() - started)


if __name__ == "__main__":
    runner.run("weak_scaling", __doc__, tables)
