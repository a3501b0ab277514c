"""Where the device fills: training's rate against K * batch * replicates.

python -m benchmarks.fill
"""

import itertools
import statistics

from benchmarks import common, runner

NUM_TEMPERATURES = 5
GRID = tuple(itertools.product((1, 5, 50), (128, 512, 2048), (1, 4, 16)))
MOST_CHAINS = 2**19  # the widest arrays take 1.6 GB
MOST_CHAINS_CPU = 12_800


def tables(args):
    """A table for each force."""
    for force in common.forces(args.quick):
        work = common.workload(args.quick)._replace(force=force)
        yield f"Rate against the number of chains, {force} force", rates(work, args)


def rates(work, args):
    """Rows by the number of chains; `filled` is the rate as a share of the largest."""
    most = MOST_CHAINS if common.on_gpu() else MOST_CHAINS_CPU
    grid = ((1, work.batch, 1), (1, work.batch, 2)) if args.quick else GRID
    shapes = sorted((k * b * r, k, b, r) for k, b, r in grid if k * b * r <= most)
    rows = [measure(work, args.seconds, *shape) for shape in shapes]
    best = max(row["million chain gradients/s"] for row in rows)
    return [{**row, "filled": row["million chain gradients/s"] / best} for row in rows]


def measure(work, seconds, chains, num_samples, batch, replicates):
    """One training step of so many replicates in one program."""
    work = work._replace(batch=batch)
    step = common.replicated_step(work, num_samples, NUM_TEMPERATURES, replicates)
    seconds = statistics.median(runner.interleave({"step": step}, seconds)["step"])
    gradients = common.chain_gradients(work, num_samples, NUM_TEMPERATURES)
    return {
        "chains": chains,
        "K": num_samples,
        "batch": batch,
        "replicates": replicates,
        "ms": 1e3 * seconds,
        "million chain gradients/s": 1e-6 * gradients * batch * replicates / seconds,
    }


if __name__ == "__main__":
    runner.run("fill", __doc__, tables)
