"""Time against K, T, L, batch, test-set size and replicates.

python -m benchmarks.scaling
"""

import math
import statistics
from functools import partial

import jax
import jax.numpy as jnp

from ais_jax import evaluation, schedules, tuning
from ais_jax.batching import map_examples
from ais_jax.hmc import hmc_step
from ais_jax.models import posterior_path
from benchmarks import common

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
EVALUATION = {"chains": 16, "T": 10, "L": 10}


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    work = common.workload(args)
    tables = {}
    for axis, values in AXES.items():
        values = values[:2] if args.quick else values
        tables[f"Time against {axis}"] = common.collect(
            measure(work, axis, values, args.seconds)
        )
    common.report("scaling", args, tables)


def measure(work, axis, values, seconds):
    """Rows of one axis, each against the one before.

    The slope is d log(time) / d log(value): 1 where the time is proportional.
    """
    build = {"test images": test_set, "replicates": replicates}.get(axis, step)
    functions = {value: build(work, axis, value) for value in values}
    times = common.interleave(functions, seconds)
    rows = []
    for before, value in zip((None, *values), values):
        slope = "-"
        if before:
            growth = common.ratio(times, value, before)
            slope = math.log(growth) / math.log(value / before)
        rows.append(
            {
                axis: value,
                "ms": 1e3 * statistics.median(times[value]),
                "time / first": common.ratio(times, value, values[0]),
                "slope": slope,
            }
        )
    return rows


def step(work, axis, value):
    """A training step with one of K, T, L or the batch changed."""
    settings = {**BASE, axis: value}
    work = work._replace(batch=settings["batch"], num_leapfrog=settings["L"])
    estimate = common.estimator(work, settings["K"], settings["T"])
    function = common.make_step(estimate, common.block_size(settings["K"]))
    return common.compiled(function, *common.step_arguments(work, estimate))[0]


def replicates(work, _, num):
    """A training step of several replicates in one program."""
    return common.replicated_step(work, BASE["K"], BASE["T"], num)


def test_set(work, _, num):
    """AIS log-likelihoods of so many test images, in chunks."""
    model, (theta, phi) = work.model(), work.model().init(jax.random.key(0))
    betas = jnp.asarray(schedules.linear(EVALUATION["T"]))
    plan = tuning.Plan(betas, jnp.full((EVALUATION["T"] - 1,), 0.1))
    transition = partial(hmc_step, num_leapfrog=EVALUATION["L"])
    chains, size = EVALUATION["chains"], min(CHUNK, num)

    def evaluate(key, theta, phi, x):
        one = lambda key, x: (
            evaluation.log_normalizer(
                key, posterior_path(model, theta, phi, x), plan, chains, transition
            ).log_z
        )
        keys = jax.random.split(key, len(x))
        return map_examples(one, keys, x, block_size=common.block_size(chains))

    x = work._replace(batch=size).images()
    chunk = common.compiled(evaluate, jax.random.key(2), theta, phi, x)[0]
    return lambda: [chunk() for _ in range(num // size)]


if __name__ == "__main__":
    main()
