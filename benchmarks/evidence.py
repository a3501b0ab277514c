"""Certified evidences: this library at its defaults, BlackJAX and dynesty beside it.

    python -m benchmarks.evidence

Eight keys of each posterior of `benchmarks.posteriors`. BlackJAX's adaptive tempered
SMC gets as many gradients as this library took, dynesty's nested sampling a minute of
the processor. Every run is a row of results/evidence.csv; those that are there are not
made again, so that the command goes on where it was ended.
"""

import argparse
import csv
import time
from pathlib import Path

import dynesty
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ais_jax import estimate_log_z
from benchmarks import runner, smc
from benchmarks.posteriors import POSTERIORS

NUM_KEYS = 8
MAX_SECONDS = 60.0  # of a call; five times as many where it compiles
NESTED_SECONDS = 60.0  # of the processor
COLUMNS = (
    "posterior",
    "method",
    "key",
    "size",
    "log_z",
    "source",
    "off",
    "error",
    "warnings",
    "evaluations",
    "seconds",
)


def ours(posterior, _):
    """Rows of `estimate_log_z` at its defaults."""
    for i in range(NUM_KEYS):
        start = time.process_time()
        limit = MAX_SECONDS * (1 if i else 5)
        key = jax.random.key(i)
        found = estimate_log_z(key, posterior.user_path, max_seconds=limit)
        yield {
            "off": float(found.log_z) - posterior.log_z,
            "error": float(found.standard_error),
            "warnings": len(found.warnings),
            "evaluations": int(found.num_moves) * smc.NUM_LEAPFROG,
            "seconds": time.process_time() - start,
        }


def blackjax(posterior, rows):
    """Rows of adaptive tempered SMC of as many gradients; it tells no error."""
    budget = np.median([float(row["evaluations"]) for row in rows])
    start = time.process_time()
    keys = jax.random.split(jax.random.key(0), NUM_KEYS)
    log_z, cost = smc.theirs(keys, posterior, budget, is_waste_free=False)
    seconds = (time.process_time() - start) / NUM_KEYS
    for value in log_z:
        off = value - posterior.log_z
        yield {"off": off, "evaluations": int(cost), "seconds": seconds}


def nested(posterior, _):
    """Rows of dynesty's nested sampling, from normal bases alone."""
    if posterior.base is None:
        return
    center, scale = (np.broadcast_to(a, posterior.size) for a in posterior.base)
    path = posterior.path()
    log_ratio = jax.jit(lambda z: path.log_target(z) - path.log_base(z))
    for i in range(NUM_KEYS):
        start = time.process_time()
        sampler = dynesty.NestedSampler(
            lambda z: max(float(log_ratio(jnp.asarray(z))), -1e30),
            lambda u: center + scale * special.ndtri(u),
            posterior.size,
            rstate=np.random.default_rng(i),
        )
        for _ in sampler.sample(dlogz=0.01, add_live=False):
            if time.process_time() > start + NESTED_SECONDS:
                break
        else:
            list(sampler.add_live_points())
            found = sampler.results
            yield {
                "off": found.logz[-1] - posterior.log_z,
                "error": found.logzerr[-1],
                "evaluations": int(sum(found.ncall)),
                "seconds": time.process_time() - start,
            }
            continue
        yield {"off": np.nan, "seconds": time.process_time() - start}
        return  # what did not end once will not at another key


METHODS = {"ais_jax": ours, "BlackJAX": blackjax, "dynesty": nested}


def read(path):
    """The rows of a file by posterior and method; none where there is no file."""
    rows = {}
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                rows.setdefault((row["posterior"], row["method"]), []).append(row)
    return rows


def measure(path, methods, names):
    """Appends the rows that are missing, a posterior and method at a time."""
    for method in methods:
        for name in names:
            rows = read(path)
            if (name, method) in rows:
                continue
            try:
                posterior = POSTERIORS[name]()
            except FileNotFoundError as error:
                print(f"{name}: skipped, {error}")
                continue
            of_ours = rows.get((name, "ais_jax"), [])
            found = list(METHODS[method](posterior, of_ours))
            about = {
                "posterior": name,
                "method": method,
                "size": posterior.size,
                "log_z": posterior.log_z,
                "source": posterior.source,
            }
            is_new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if is_new:
                    writer.writeheader()
                for i, row in enumerate(found):
                    writer.writerow(about | {"key": i} | row)
            summary = summarize(found) if found else "not measured"
            print(f"{name}, {method}: {summary}", flush=True)
            jax.clear_caches()


def numbers(rows, column):
    """A column as numbers; NaN where there is none."""
    values = [row.get(column, "") for row in rows]
    return np.array([float("nan" if value == "" else value) for value in values])


def summarize(rows):
    """What eight runs of one method say together."""
    off, seconds = numbers(rows, "off"), numbers(rows, "seconds")
    warned, error = numbers(rows, "warnings"), numbers(rows, "error")
    is_found, is_quiet = np.isfinite(off), warned == 0
    source = rows[0].get("source", "")
    certain_to = 0.0 if source in ("closed form", "quadrature") else 0.01
    is_covered = np.abs(off) <= 3.0 * np.hypot(error, certain_to)
    return {
        "rms": float(np.sqrt(np.mean(off[is_found] ** 2))) if any(is_found) else np.nan,
        "within 3 s.e.": f"{np.sum(is_covered)}/{len(rows)}",
        "no warning": f"{np.sum(is_quiet)}/{len(rows)}",
        "silently wrong": int(np.sum(is_quiet & ~is_covered)),
        "evaluations": float(np.median(numbers(rows, "evaluations"))),
        "first s": float(seconds[0]),
        "later s": float(np.median(seconds[-7:])),
    }


def table(path):
    """One row for each posterior."""
    rows, lines = read(path), []
    for name in POSTERIORS:
        if (name, "ais_jax") not in rows:
            continue
        first = rows[name, "ais_jax"][0]
        line = {"posterior": name, "D": first["size"], "certified by": first["source"]}
        line |= {"log Z": f"{float(first['log_z']):.3f}"}
        line |= summarize(rows[name, "ais_jax"])
        for method in ("BlackJAX", "dynesty"):
            others = rows.get((name, method))
            line[method] = summarize(others)["rms"] if others else "-"
        lines.append(line)
    return lines


def main():
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=runner.RESULTS / "evidence.csv")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--posteriors", nargs="*", default=list(POSTERIORS))
    args = parser.parse_args()
    measure(args.output, args.methods, args.posteriors)
    print(runner.markdown(table(args.output)))


if __name__ == "__main__":
    main()
