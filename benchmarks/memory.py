"""Peak memory of a training step against T, L, K and the batch.

python -m benchmarks.memory
"""

import resource

from benchmarks import common, runner

BASE = {"K": 5, "T": 5, "L": 5, "batch": 128}
AXES = {"T": (1, 5, 20, 80), "L": (1, 5, 20, 80), "K": (1, 5, 20), "batch": (32, 128)}
MIB = 2**20


def tables(args):
    """A table for each axis, each row measured in a process of its own."""
    for axis, values in AXES.items():
        values = values[: 2 if args.quick else None]
        yield f"Memory against {axis}", (row(args, axis, v) for v in values)


def row(args, axis, value):
    """One row."""
    settings = {**BASE, axis: value}
    return {
        axis: value,
        **runner.finish(runner.start("memory", "measure", args.quick, settings)),
    }


def measure(is_quick, settings):
    """Memory of a training step, by XLA and by the operating system.

    Args:
        is_quick: whether the workload is the small one.
        settings: dict of K, T, L and batch.

    Returns:
        dict of column to MiB: what the compiled program needs beside its arguments and
        results, those, and the process's growth over one step.
    """
    work = common.workload(is_quick)
    work = work._replace(batch=settings["batch"], num_leapfrog=settings["L"])
    run, program = common.compiled_step(work, settings["K"], settings["T"])
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
    runner.run("memory", __doc__, tables)
