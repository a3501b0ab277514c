"""Where the device fills: training's rate against K * batch * replicates.

python -m benchmarks.fill
"""

import itertools
import statistics

from benchmarks import common

NUM_TEMPERATURES = 5
GRID = {"K": (1, 5, 50), "batch": (128, 512, 2048), "replicates": (1, 4, 16)}
MOST_CHAINS = 2**19  # the widest arrays take 1.6 GB
MOST_CHAINS_CPU = 12_800


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    work = common.workload(args)
    tables = {
        f"Rate against the number of chains, {force} force": measure(
            work._replace(force=force), args
        )
        for force in common.forces(args)
    }
    common.report("fill", args, tables)


def measure(work, args):
    """Rows by the number of chains; `filled` is the rate as a share of the largest."""
    most = MOST_CHAINS if common.on_gpu() else MOST_CHAINS_CPU
    grid = list(itertools.product(*GRID.values()))
    grid = [(1, work.batch, 1), (1, work.batch, 2)] if args.quick else grid
    shapes = sorted((k * b * r, k, b, r) for k, b, r in grid if k * b * r <= most)
    rows = common.collect(row(work, args.seconds, *shape) for shape in shapes)
    best = max(found["million chain gradients/s"] for found in rows)
    return [
        {**found, "filled": found["million chain gradients/s"] / best} for found in rows
    ]


def row(work, seconds, chains, num_samples, batch, replicates):
    """One training step of so many replicates in one program."""
    work = work._replace(batch=batch)
    function = common.replicated_step(work, num_samples, NUM_TEMPERATURES, replicates)
    seconds = statistics.median(common.interleave({"step": function}, seconds)["step"])
    gradients = num_samples * (2 + work.num_leapfrog * NUM_TEMPERATURES) + 1
    return {
        "chains": chains,
        "K": num_samples,
        "batch": batch,
        "replicates": replicates,
        "ms": 1e3 * seconds,
        "million chain gradients/s": 1e-6 * gradients * batch * replicates / seconds,
    }


if __name__ == "__main__":
    main()
