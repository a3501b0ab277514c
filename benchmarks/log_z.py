"""Are estimates of log Z right, and their errors? 300 estimates of eight densities.

    python -m benchmarks.log_z

Each of 12 pilots makes a plan, and 25 estimates of 100 chains follow each.
"""

import time
from functools import partial

import jax
import numpy as np

from ais_jax import log_normalizer, trajectory_step, tune
from ais_jax.evidence.plan import DEFAULT_JITTER
from benchmarks import runner
from benchmarks.densities import DENSITIES

NUM_PILOTS, NUM_EACH, NUM_CHAINS = 12, 25, 100


def tables(args):
    """One row for each density."""
    sizes = (2, 2, 20) if args.quick else (NUM_PILOTS, NUM_EACH, NUM_CHAINS)
    names = list(DENSITIES)[:2] if args.quick else DENSITIES
    yield "Estimates of log Z", (row(name, *sizes) for name in names)


def row(name, num_pilots=NUM_PILOTS, num_each=NUM_EACH, num_chains=NUM_CHAINS):
    """What many estimates of one density's log Z say together."""
    density = DENSITIES[name]()
    started = time.perf_counter()
    results = estimates(density, num_pilots, num_each, num_chains)
    seconds = time.perf_counter() - started
    off = np.concatenate([np.asarray(r.log_z, float) for r in results]) - density.log_z
    errors = np.concatenate([np.asarray(r.standard_error, float) for r in results])
    is_quiet = np.array([not one.warnings for r in results for one in each(r)])
    is_covered = np.abs(off) < 3.0 * errors
    mean, mean_error = mean_ratio(off)
    return {
        "density": name,
        "T": density.num_temperatures,
        "L": density.num_leapfrog,
        "mean of Z estimates / Z": f"{mean:.4f} +- {mean_error:.4f}",
        "off, in s.e.": (mean - 1.0) / mean_error,
        "rms error, nats": np.sqrt(np.mean(off**2)),
        "median s.e., nats": np.median(errors),
        "without warning": np.mean(is_quiet),
        "of these within 3 s.e.": np.mean(is_covered[is_quiet])
        if is_quiet.any()
        else float("nan"),
        "of all within 3 s.e.": np.mean(is_covered),
        "median ESS": float(np.median(np.concatenate([r.ess for r in results]))),
        "s": seconds,
    }


def estimates(density, num_pilots, num_each, num_chains):
    """A batch of `LogNormalizer` for each pilot."""
    path = density.path()
    transition = partial(
        trajectory_step, num_leapfrog=density.num_leapfrog, jitter=DEFAULT_JITTER
    )

    @jax.jit
    def run(key):
        pilot_key, key = jax.random.split(key)
        plan = tune(
            pilot_key,
            path,
            num_temperatures=density.num_temperatures,
            transition=transition,
        )
        estimate = partial(
            log_normalizer,
            path=path,
            plan=plan,
            num_chains=num_chains,
            transition=transition,
        )
        return jax.vmap(estimate)(jax.random.split(key, num_each))

    keys = jax.random.split(jax.random.key(0), num_pilots)
    return [jax.device_get(run(key)) for key in keys]


def each(results):
    """The single estimates of a batch."""
    num = len(results.log_z)
    return [jax.tree.map(lambda a, i=i: a[i], results) for i in range(num)]


def mean_ratio(off):
    """Mean of the estimates of Z over Z, and its standard error.

    Given any plan each is unbiased and independent of the others.
    """
    ratios = np.exp(off)
    return np.mean(ratios), np.std(ratios, ddof=1) / np.sqrt(ratios.size)


if __name__ == "__main__":
    runner.run("log_z", __doc__, tables)
