"""Time against K, T, L, batch, test-set size and replicates.

python -m benchmarks.scaling
"""

import math
import statistics

from benchmarks import common, runner

BASE = {"K": 1, "T": 5, "L": 5, "batch": 128}
AXES = {
    "K": (1, 2, 5, 10, 20, 50),
    "T": (1, 2, 5, 10, 20, 40),
    "L": (1, 2, 5, 10, 20),
    "batch": (8, 32, 128, 512, 2048),
    "test images": (25, 100, 400, 1600),
    "replicates": (1, 2, 4, 8),
}
CHUNK = 100  # test images computed at a time, as the launcher does
EVALUATION = (16, 10, 10)  # chains, T, L


def tables(args):
    """A table for each axis."""
    for axis, values in AXES.items():
        values = values[: 2 if args.quick else None]
        yield f"Time against {axis}", measure(args, axis, values)


def measure(args, axis, values):
    """Rows of one axis, each against the one before.

    The slope is d log(time) / d log(value): 1 where the time is proportional.
    """
    build = {"test images": test_set, "replicates": replicates}.get(axis, step)
    work = common.workload(args.quick)
    functions = {value: build(work, axis, value) for value in values}
    times = runner.interleave(functions, args.seconds)
    for before, value in zip((None, *values), values):
        slope = "-"
        if before:
            growth = runner.ratio(times, value, before)
            slope = math.log(growth) / math.log(value / before)
        yield {
            axis: value,
            "ms": 1e3 * statistics.median(times[value]),
            "time / first": runner.ratio(times, value, values[0]),
            "slope": slope,
        }


def step(work, axis, value):
    """A training step with one of K, T, L or the batch changed."""
    settings = {**BASE, axis: value}
    work = work._replace(batch=settings["batch"], num_leapfrog=settings["L"])
    return common.compiled_step(work, settings["K"], settings["T"])[0]


def replicates(work, _, num):
    """A training step of several replicates in one program."""
    return common.replicated_step(work, BASE["K"], BASE["T"], num)


def test_set(work, _, num):
    """AIS log-likelihoods of so many test images, in chunks."""
    size = min(CHUNK, num)
    chunk = common.compiled_evaluation(work._replace(batch=size), *EVALUATION)
    return lambda: [chunk() for _ in range(num // size)]


if __name__ == "__main__":
    runner.run("scaling", __doc__, tables)
