"""The launcher's one device for each CPU core against one device of all the cores.

python -m benchmarks.cores
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import adaptation, estimators, sharding, training
from benchmarks import common
from benchmarks.training_step import minimum_flops
from configs.default import get_config
from experiments import builders, cli

ROWS = (  # method, K, T, replicates
    *(("ais", 1, 5, 1), ("ais", 1, 11, 1), ("ais", 5, 5, 1), ("ais", 50, 5, 1)),
    *(("ais", 1, 5, 2), ("dreg", 5, None, 1), ("dreg", 50, None, 1)),
)
QUICK_ROWS = ROWS[:1]


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    rows = QUICK_ROWS if args.quick else ROWS
    table = common.collect(measure(row, args) for row in rows)
    common.report("cores", args, {"A device for each core": table})


def measure(row, args):
    """One row: both ways in processes of their own, by turns with the peak's."""
    method, num_samples, num_temperatures, num_replicates = row
    spread = [common.Remote(steps, row, each, args.quick) for each in (False, True)]
    with spread[0] as one, spread[1] as each:
        functions = {"one": one, "each": each, **common.matrix_products()}
        times = common.interleave(functions, args.seconds)
    found = {
        "method": method,
        "K": num_samples,
        "T": num_temperatures or "-",
        "replicates": num_replicates,
        "rounds": len(times["each"]),
        "ms, one device": 1e3 * statistics.median(times["one"]),
        "ms, one each core": 1e3 * statistics.median(times["each"]),
        "one device / one each core": common.ratio(times, "one", "each"),
    }
    moves = num_temperatures or 0
    flops = num_replicates * minimum_flops(common.workload(args), num_samples, moves)
    for name, label in (("one", "one device"), ("each", "one each core")):
        shares = common.peak_shares(times, name, flops)
        found[f"share of peak, {label}"] = shares["share of peak"] if moves else "-"
    return found


def steps(row, one_each_core, quick):
    """A function of no arguments that makes a training step as the launcher would."""
    method, num_samples, num_temperatures, num_replicates = row
    work = common.SMALL if quick else common.Workload()
    moves = {"num_temperatures": num_temperatures} if num_temperatures else {}
    settings = {"num_samples": num_samples, **moves}
    config = get_config(method)
    config.batch_size, config.num_replicates = work.batch, num_replicates
    config.estimator.update(settings)
    if one_each_core:
        cli.use_cores([config])
    mesh = builders.build_mesh(config)
    estimate = estimators.make(method, work.model(), **settings)
    train_step = training.make_train_step(
        estimate,
        adaptation.StepSizeRule(),
        binarize=True,
        block_size=common.block_size(num_samples),
        axis_name=sharding.DATA,
    )
    run = training.make_run_steps(train_step, work.batch, work.batch, sharding.DATA)
    run = sharding.spread_training(run, mesh)
    state, *_ = common.step_arguments(work, estimate)
    copies = lambda a: jnp.broadcast_to(a, (num_replicates, *a.shape))
    place = lambda make: jax.jit(make, out_shardings=sharding.by_replicate(mesh))()
    states = [place(lambda: jax.tree.map(copies, state))]
    keys = place(lambda: jax.random.split(jax.random.key(0), num_replicates))
    rates = place(lambda: jnp.full((num_replicates,), 1e-3))
    data = sharding.place_rows(np.asarray(work.images()), mesh)

    def step():
        state, _ = run(states.pop(), keys, rates, data, np.int32(1))
        states.append(jax.block_until_ready(state))

    step()
    return step


if __name__ == "__main__":
    main()
