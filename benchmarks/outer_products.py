"""A training step of `best` with one pass for both gradients, and with another pass.

python -m benchmarks.outer_products
"""

import contextlib
import statistics
from functools import partial

from ais_jax import estimators
from benchmarks import common, launched, launcher, runner
from configs import presets

PASSES = {"one pass": True, "two passes": False}


def tables(args):
    """Both ways by turns, as launched with a float32 force."""
    counts = (1,) if args.quick else (1, 5)
    yield "A training step of best", (measure(args, count) for count in counts)


def measure(args, num_samples):
    """One row: K chains for each example of a batch."""
    work = common.workload(args.quick)
    with contextlib.ExitStack() as stack:
        remotes = {
            name: stack.enter_context(runner.Remote(step, work, num_samples, is_one))
            for name, is_one in PASSES.items()
        }
        times = runner.interleave(remotes, args.seconds)
    return {
        "K": num_samples,
        "rounds": len(times["one pass"]),
        **{f"ms, {name}": 1e3 * statistics.median(times[name]) for name in PASSES},
        "two passes / one pass": runner.ratio(times, "two passes", "one pass"),
    }


def step(work, num_samples, is_one):
    """The launcher's training step on its mesh."""
    mesh = launcher.build_mesh("ais", work.batch)
    model = work.model()
    if not is_one:
        model = model._replace(target_with_residuals=None)
    settings = dict(presets.BEST["estimator"], num_samples=num_samples)
    del settings["late_moves"]  # it is the step of most of a training
    estimate = estimators.ais(model, **settings)
    run = launched.spread_run(work, estimate, mesh, work.images())
    run(1)
    return partial(run, 1)


if __name__ == "__main__":
    runner.run("outer_products", __doc__, tables)
