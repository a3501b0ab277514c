"""The one runner of the benchmarks: flags, timing, processes, tables and JSON."""

import argparse
import datetime
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def run(name, description, tables):
    """Measures the tables of a benchmark, prints them and writes them as JSON.

    Args:
        name: of the benchmark.
        description: of its command line.
        tables: (flags) -> pairs of a title and rows; a row is a dict of column to
            value, printed to stderr as soon as it is measured.
    """
    args = parse(description)
    report(name, args, {title: collect(rows) for title, rows in tables(args)})


def parse(description):
    """Parses --quick, --seconds and --output; `output` is None by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of measuring for each row"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.quick:
        args.seconds = 0.0
    return args


def interleave(functions, seconds):
    """Times functions by turns, so that all see the same machine.

    Args:
        functions: dict of name to function of no arguments; each is called once before.
        seconds: rounds go on for so long, at least 3 of them; 0 makes one round.

    Returns:
        dict of name to list of seconds, one for each round.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    gc.collect()
    started = time.perf_counter()
    rounds = 3 if seconds else 1
    while rounds > 0 or time.perf_counter() - started < seconds:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
        rounds -= 1
    return times


def ratio(times, name, base):
    """Median over the rounds of the time of `name` over that of `base`.

    '-' where one of them was not measured.
    """
    if not {name, base} <= times.keys():
        return "-"
    return statistics.median(a / b for a, b in zip(times[name], times[base]))


class Remote:
    """A function of no arguments that lives in another process, called from this one.

    Args:
        build: module-level function that builds it there.
        *args: of `build`.
    """

    def __init__(self, build, *args):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, args))
        self.process.start()
        theirs.close()

    def __call__(self):
        """Runs it once."""
        self.pipe.send(True)
        return self.pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipe.close()
        self.process.join()


def _serve(pipe, build, args):
    function = build(*args)
    try:
        while pipe.recv():
            function()
            pipe.send(None)
    except EOFError:
        pass


def start(module, function, *args, **environment):
    """Starts a module's function in a fresh process; `finish` waits for its result.

    Args:
        module: of this package.
        function: its name; it returns what JSON can hold.
        *args: of the function, likewise.
        **environment: variables for the process.
    """
    code = (
        f"import json, sys; from benchmarks.{module} import {function} as call; "
        "print(json.dumps(call(*json.loads(sys.argv[1]))))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(args)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """What the function of a process of `start` returned."""
    output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError("a process of the benchmark failed; its message is above")
    return json.loads(output.splitlines()[-1])


def collect(rows):
    """A list of rows, each printed to stderr as soon as it is measured."""
    done = []
    for row in rows:
        print(*(f"{k}: {_cell(v)};" for k, v in row.items()), file=sys.stderr)
        done.append(row)
    return done


def report(name, args, tables):
    """Prints tables and writes them as JSON with what they were measured on.

    Args:
        name: of the benchmark.
        args: of `parse`.
        tables: dict of title to list of rows.
    """
    environment = describe()
    print(f"{name}: commit {environment['commit']}, {environment['device']}")
    for title, rows in tables.items():
        print(f"\n{title}\n{markdown(rows)}")
    output = args.output
    if output is None and not args.quick:
        output = RESULTS / f"{name}.json"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        data = {"environment": environment, "tables": tables}
        output.write_text(json.dumps(data, indent=1, default=float) + "\n")


def markdown(rows):
    """A table of rows that share their columns, in Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def describe():
    """What the numbers were measured on: a dict of names to strings."""
    import jax

    git = ["git", "-C", str(ROOT)]
    call: Any = partial(subprocess.run, capture_output=True, text=True)
    commit = call([*git, "rev-parse", "--short", "HEAD"]).stdout.strip() or "unknown"
    if call([*git, "status", "--porcelain", "--", "ais_jax"]).stdout.strip():
        commit += " with changes to ais_jax"
    device = jax.devices()[0]
    return {
        "commit": commit,
        "date": datetime.date.today().strftime("%Y-%m"),
        "device": f"{os.cpu_count()} CPU cores, {_processor()}"
        if device.platform == "cpu"
        else device.device_kind,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("jax", "blackjax", "torch")},
    }


def _processor():
    """The processor's name where the system tells it, else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = re.findall("^model name.*: (.*)", text, re.MULTILINE)
    return names[0] if names else platform.machine()


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
