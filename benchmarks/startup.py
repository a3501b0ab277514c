"""Start-up and compile time, with and without the persistent compile cache.

python -m benchmarks.startup
"""

import itertools
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import runner

CONFIGURATIONS = ((1, 5), (50, 11))  # K, T
QUICK_CONFIGURATIONS = ((3, 2),)


def tables(args):
    """The first step's phases for each (K, T) and cache, and the launcher's help."""
    configurations = QUICK_CONFIGURATIONS if args.quick else CONFIGURATIONS
    rounds = 1 if args.quick else 3
    yield (
        "Import to first step",
        (row for c in configurations for row in measure(c, args.quick, rounds)),
    )
    yield "Launcher", [launcher_help(rounds)]


def measure(configuration, is_quick, rounds):
    """Rows of one (K, T): without a cache, with an empty one, and with a full one."""
    seconds = {"none": [], "empty": [], "full": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for cache, phases in seconds.items():
                path = "" if cache == "none" else folder
                phases.append(child(configuration, path, is_quick))
    num_samples, num_temperatures = configuration
    for cache, phases in seconds.items():
        median = {n: statistics.median(p[n] for p in phases) for n in phases[0]}
        yield {"K": num_samples, "T": num_temperatures, "cache": cache, **median}


def child(configuration, folder, is_quick):
    """Seconds of each phase of a fresh process, up to its first training step."""
    begin = time.perf_counter()
    process = runner.start("startup", "first_step", *configuration, folder, is_quick)
    phases = runner.finish(process)
    return {**phases, "whole process s": time.perf_counter() - begin}


def first_step(num_samples, num_temperatures, cache, is_quick):
    """Imports, initializes, compiles and makes one step: dict of phase to seconds."""
    marks = [time.perf_counter()]

    def mark():
        marks.append(time.perf_counter())

    import jax

    from benchmarks import common, launcher

    mark()
    launcher.use_compile_cache(cache)
    work = common.workload(is_quick)
    estimate = common.estimator(work, num_samples, num_temperatures)
    arguments = common.step_arguments(work, estimate)
    mark()
    step = common.make_step(estimate, launcher.block_size(num_samples))
    lowered = jax.jit(step).lower(*arguments)
    mark()
    program = lowered.compile()
    mark()
    jax.block_until_ready(program(*arguments))
    mark()
    names = ("import s", "initialize s", "trace s", "compile s", "first step s")
    return dict(zip(names, (b - a for a, b in itertools.pairwise(marks))))


def launcher_help(rounds):
    """Seconds until the launcher has printed its help."""
    command = [sys.executable, "-m", "experiments.main", "--help"]
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=runner.ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - begin)
        if "--config" not in done.stdout:
            raise RuntimeError(f"no help was printed: {done.stderr}")
    median = statistics.median(seconds)
    return {"command": "python -m experiments.main --help", "seconds": median}


if __name__ == "__main__":
    runner.run("startup", __doc__, tables)
