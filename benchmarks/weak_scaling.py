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
    kinds = ((1, False), (2, False), (2, True))
    rates = {kind: [] for kind in kinds}
    for _ in range(1 if args.quick else ROUNDS):
        for kind, seen in rates.items():
            seen.append(launch(*kind, args))
    middle = {kind: statistics.median(seen) for kind, seen in rates.items()}
    rows = [
        {
            "processes": num,
            "train": "together" if together else "apart",
            "images/s": round(rate),
            "share of ideal": round(rate / (num * middle[kinds[0]]), 2),
        }
        for (num, together), rate in middle.items()
    ]
    yield "weak scaling, AIS K=1 T=5", rows


def launch(num, together, args):
    """Images/s of `num` processes, each on a core of its own.

    Apart, each trains a model of its own: what the machine gives without collectives.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    settings = address, num if together else 1, args.quick, args.seconds
    workers = [runner.start("weak_scaling", "work", i, *settings) for i in range(num)]
    rates = [runner.finish(worker) for worker in workers]
    return rates[0] if together else sum(rates)


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
