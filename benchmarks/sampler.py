"""AIS sampling: rate, share of the matrix-product peak, FLOPs, against BlackJAX.

python -m benchmarks.sampler
"""

import contextlib
import statistics

import jax

from ais_jax.annealing.path import evaluate
from ais_jax.batching import chain_keys
from ais_jax.models.latent import posterior_path
from benchmarks import common, flops, launched, launcher, peers, runner

EVALUATION = (16, 100, 10)  # chains, temperatures, leapfrog steps
TRAINING = (5, 11)


def tables(args):
    """The sampler over the grid, and evaluation's beside training's."""
    yield "AIS sampling", (measure(args, *row) for row in common.grid(args.quick))
    yield "Evaluation beside training", [measure_evaluation(args)]


def measure(args, work, num_samples, num_temperatures):
    """One row: K chains of T temperatures for each example of a batch."""
    block = launcher.block_size(num_samples)
    ours = common.estimator(work, num_samples, num_temperatures)
    arguments = common.sampler_arguments(work, num_temperatures)
    samplers = {"ours": ours, **peers.blackjax_estimators(ours, work, num_temperatures)}
    programs = {
        name: common.compiled(common.make_sampler(estimate, block), *arguments)
        for name, estimate in samplers.items()
    }
    functions = flops.matrix_products()
    functions |= {name: function for name, (function, _) in programs.items()}
    with contextlib.ExitStack() as stack:
        forces = launched.forces(work, num_samples, num_temperatures)
        for name, forced in forces.items():
            build = launched.sampler, forced, num_samples, num_temperatures
            functions[name] = stack.enter_context(runner.Remote(*build))
        if forces:
            product = runner.Remote(launched.matrix_product)
            functions["product as launched"] = stack.enter_context(product)
        times = runner.interleave(functions, args.seconds)
    minimum = work.minimum_flops(num_samples, num_temperatures)
    median = statistics.median(times["ours"])
    product = runner.ratio(times, "matrix product", "product as launched")
    return {
        "K": num_samples,
        "T": num_temperatures,
        "force": work.force,
        **{f"force, {name}": forced.force for name, forced in forces.items()},
        "block": min(block or work.batch, work.batch),
        "rounds": len(times["ours"]),
        "ms": 1e3 * median,
        "million chain gradients/s": 1e-6 * minimum / work.pass_flops() / median,
        **flops.peak_rates(times),
        **flops.peak_shares(times, "ours", minimum),
        **flops.peak_shares(times, launched.LAUNCHED, minimum),
        **flops.peak_shares(times, launched.AUTOMATIC, minimum),
        "float32 / automatic force": runner.ratio(
            times, launched.LAUNCHED, launched.AUTOMATIC
        ),
        "peak as launched / peak": product,
        **peers.ratios(times, peers.NAMES[:2]),
        "XLA FLOPs / minimum": xla_excess(work, num_samples, num_temperatures),
        "dot FLOPs / minimum": flops.excess(programs["ours"][1], minimum),
    }


def xla_excess(work, num_samples, num_moves):
    """FLOPs of the sampler by XLA's analysis, all operations counted, over the minimum.

    XLA counts a loop's body once. So it is asked about three programs whose loops run
    at most once: the first evaluation, one move of L = 1 and one move of L = 2. Their
    differences are the cost of a move and of a leapfrog step. '-' on a GPU, where its
    analysis leaves out the matrix products.
    """
    if common.on_gpu():
        return "-"
    begin = _xla_flops(work, _start_only(work, num_samples), 0)
    one, two = (_xla_flops(work, _one_move(work, num_samples, n), 1) for n in (1, 2))
    move = (one - begin) + (work.num_leapfrog - 1) * (two - one)
    return (begin + num_moves * move) / work.minimum_flops(num_samples, num_moves)


def _xla_flops(work, function, num_moves):
    arguments = common.sampler_arguments(work, num_moves)
    return common.compiled(function, *arguments)[1].cost_analysis()["flops"]


def _one_move(work, num_samples, num_leapfrog):
    work = work._replace(num_leapfrog=num_leapfrog)
    return common.make_sampler(common.estimator(work, num_samples, 1), None)


def _start_only(work, num_samples):
    """The first evaluation of every chain."""
    model = work.model()

    def one(key, theta, phi, x):
        path = posterior_path(model, theta, phi, x)
        keys = chain_keys(key, num_samples)
        return jax.vmap(lambda key: evaluate(path, path.sample_base(key)))(keys)

    def begin(key, theta, phi, x, step_sizes):
        keys = chain_keys(key, len(x))
        return jax.vmap(one, (0, None, None, 0))(keys, theta, phi, x)

    return begin


def measure_evaluation(args):
    """Microseconds for each example, chain, temperature and leapfrog step of both."""
    work = common.workload(args.quick)
    chains, num_temperatures, num_leapfrog = (2, 3, 2) if args.quick else EVALUATION
    num_samples, num_increments = common.QUICK_GRID[0] if args.quick else TRAINING
    estimate = common.estimator(work, num_samples, num_increments)
    sampler = common.make_sampler(estimate, launcher.block_size(num_samples))
    arguments = common.sampler_arguments(work, num_increments)
    functions = {
        "evaluation": common.compiled_evaluation(
            work, chains, num_temperatures, num_leapfrog
        ),
        "training": common.compiled(sampler, *arguments)[0],
    }
    units = {
        "evaluation": chains * (num_temperatures - 1) * num_leapfrog * work.batch,
        "training": num_samples * num_increments * work.num_leapfrog * work.batch,
    }
    times = {
        name: [1e6 * t / units[name] for t in seconds]
        for name, seconds in runner.interleave(functions, args.seconds).items()
    }
    return {
        "evaluation K, T, L": f"{chains}, {num_temperatures}, {num_leapfrog}",
        "training K, T, L": f"{num_samples}, {num_increments}, {work.num_leapfrog}",
        "evaluation microseconds": statistics.median(times["evaluation"]),
        "training microseconds": statistics.median(times["training"]),
        "evaluation / training": runner.ratio(times, "evaluation", "training"),
    }


if __name__ == "__main__":
    runner.run("sampler", __doc__, tables)
