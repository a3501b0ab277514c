"""Start-up and compile time, with and without the persistent compile cache.

python -m benchmarks.startup
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = ((1, 5), (50, 11))  # K, T


def main():
    """Measures and reports, or makes one first step with --first-step."""
    if "--first-step" in sys.argv:
        return first_step()
    from benchmarks import common

    args = common.parse(__doc__)
    configurations = common.QUICK_GRID[:1] if args.quick else CONFIGURATIONS
    rounds = 1 if args.quick else 3
    rows = common.collect(
        row for c in configurations for row in measure(c, args.quick, rounds)
    )
    tables = {"Import to first step": rows, "Launcher": [launcher_help(rounds)]}
    return common.report("startup", args, tables)


def measure(configuration, quick, rounds):
    """Rows of one (K, T): without a cache, with an empty one, and with a full one."""
    found = {"none": [], "empty": [], "full": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for cache in found:
                path = "" if cache == "none" else folder
                found[cache].append(child(configuration, path, quick))
    num_samples, num_temperatures = configuration
    for cache, phases in found.items():
        median = {n: statistics.median(p[n] for p in phases) for n in phases[0]}
        yield {"K": num_samples, "T": num_temperatures, "cache": cache, **median}


def child(configuration, folder, quick):
    """Seconds of each phase of a fresh process, up to its first training step."""
    command = [sys.executable, "-m", "benchmarks.startup", "--first-step"]
    command += [json.dumps([*configuration, folder, quick])]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    total = time.perf_counter() - start
    return {**json.loads(done.stdout.splitlines()[-1]), "whole process s": total}


def first_step():
    """Imports, initializes, compiles and makes one step; prints seconds as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first-step", type=json.loads)
    num_samples, num_temperatures, cache, quick = parser.parse_args().first_step
    marks = [time.perf_counter()]
    mark = lambda: marks.append(time.perf_counter())
    import jax

    from benchmarks import common
    from experiments.system import devices

    mark()
    devices.use_compile_cache(cache)
    work = common.SMALL if quick else common.Workload()
    estimate = common.estimator(work, num_samples, num_temperatures)
    arguments = common.step_arguments(work, estimate)
    mark()
    step = common.make_step(estimate, common.block_size(num_samples))
    lowered = jax.jit(step).lower(*arguments)
    mark()
    program = lowered.compile()
    mark()
    jax.block_until_ready(program(*arguments))
    mark()
    names = ("import s", "initialize s", "trace s", "compile s", "first step s")
    phases = dict(zip(names, (b - a for a, b in itertools.pairwise(marks))))
    print(json.dumps(phases))


def launcher_help(rounds):
    """Seconds until the launcher has printed its help."""
    command = [sys.executable, "-m", "experiments.main", "--help"]
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        if "--config" not in done.stdout:
            raise RuntimeError(f"no help was printed: {done.stderr}")
    median = statistics.median(seconds)
    return {"command": "python -m experiments.main --help", "seconds": median}


if __name__ == "__main__":
    main()
