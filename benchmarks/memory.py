"""Peak memory of a training step against T, L, K and the batch.

python -m benchmarks.memory
"""

import multiprocessing
import resource

from benchmarks import common

BASE = {"K": 5, "T": 5, "L": 5, "batch": 128}
AXES = {"T": (1, 5, 20, 80), "L": (1, 5, 20, 80), "K": (1, 5, 20), "batch": (32, 128)}
MIB = 2**20


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    tables = {}
    for axis, values in AXES.items():
        values = values[:2] if args.quick else values
        tables[f"Memory against {axis}"] = common.collect(
            row(axis, v, args.quick) for v in values
        )
    common.report("memory", args, tables)


def row(axis, value, quick):
    """One row, measured in a process of its own."""
    work = common.SMALL if quick else common.Workload()
    settings = {**BASE, axis: value}
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return {axis: value, **pool.apply(measure, (work, settings))}


def measure(work, settings):
    """Memory of a training step, by XLA and by the operating system.

    Args:
        work: a `common.Workload`.
        settings: dict of K, T, L and batch.

    Returns:
        dict of column to MiB: what the compiled program needs beside its arguments and
        results, those, and the process's growth over one step.
    """
    work = work._replace(batch=settings["batch"], num_leapfrog=settings["L"])
    estimate = common.estimator(work, settings["K"], settings["T"])
    function = common.make_step(estimate, common.block_size(settings["K"]))
    run, program = common.compiled(function, *common.step_arguments(work, estimate))
    memory = program.memory_analysis()
    ends = memory.argument_size_in_bytes + memory.output_size_in_bytes
    before = peak_rss()
    run()
    return {
        "temporary MiB": memory.temp_size_in_bytes / MIB,
        "arguments and results MiB": ends / MIB,
        "process growth MiB": (peak_rss() - before) / MIB,
        "process peak MiB": peak_rss() / MIB,
    }


def peak_rss():
    """The process's largest resident memory so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
