"""AIS sampling: rate, share of the matrix-product peak, FLOPs, against BlackJAX.

python -m benchmarks.sampler
"""

import contextlib
import statistics
from functools import partial

import jax
import jax.numpy as jnp

from ais_jax import evaluation, schedules, tuning
from ais_jax.batching import map_examples
from ais_jax.hmc import hmc_step
from ais_jax.models import posterior_path
from benchmarks import common, flops, launched, peers

EVALUATION = (16, 100, 10)  # chains, temperatures, leapfrog steps


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    work = common.workload(args)
    grid = common.QUICK_GRID if args.quick else common.GRID
    rows = common.collect(
        measure(work._replace(force=force), *row, args.seconds)
        for row in grid
        for force in common.forces(args)
    )
    evaluations = [measure_evaluation(work, args)]
    tables = {"AIS sampling": rows, "Evaluation beside training": evaluations}
    common.report("sampler", args, tables)


def measure(work, num_samples, num_temperatures, seconds):
    """One row: K chains of T temperatures for each example of a batch."""
    ours = common.estimator(work, num_samples, num_temperatures)
    samplers = {"ours": ours}
    if peers.installed("blackjax"):
        samplers |= peers.blackjax_estimators(
            ours, work.model(), num_temperatures, work.num_leapfrog
        )
    block = common.block_size(num_samples)
    arguments = common.sampler_arguments(work, num_temperatures)
    programs = {
        name: common.compiled(common.make_sampler(estimate, block), *arguments)
        for name, estimate in samplers.items()
    }
    functions = common.matrix_products()
    functions |= {name: function for name, (function, _) in programs.items()}
    with contextlib.ExitStack() as stack:
        if not common.on_gpu():
            build = launched.sampler, work, num_samples, num_temperatures
            functions["as launched"] = stack.enter_context(common.Remote(*build))
            product = common.Remote(launched.matrix_product)
            functions["product as launched"] = stack.enter_context(product)
        times = common.interleave(functions, seconds)
    minimum = work.minimum_flops(num_samples, num_temperatures)
    all_flops = dot_flops = "-"
    if flops.counts_flops():
        counted = flops.xla_sampler_flops(work, num_samples, num_temperatures)
        all_flops = counted / minimum
        dot_flops = flops.dot_flops(programs["ours"][1]) / minimum
    gradients = minimum / work.pass_flops()
    against = partial(common.against_peer, times)
    return {
        "K": num_samples,
        "T": num_temperatures,
        "force": work.force,
        "block": min(block or work.batch, work.batch),
        "rounds": len(times["ours"]),
        "ms": 1e3 * statistics.median(times["ours"]),
        "million chain gradients/s": 1e-6
        * gradients
        / statistics.median(times["ours"]),
        **common.peak_rates(times),
        **common.peak_shares(times, "ours", minimum),
        **common.peak_shares(times, "as launched", minimum),
        "peak as launched / peak": against("matrix product", "product as launched"),
        "BlackJAX / ours": against("BlackJAX"),
        "BlackJAX, our densities / ours": against("BlackJAX, our densities"),
        "BlackJAX / ours, as launched": against("BlackJAX", "as launched"),
        "BlackJAX, our densities / ours, as launched": against(
            "BlackJAX, our densities", "as launched"
        ),
        "XLA FLOPs / minimum": all_flops,
        "dot FLOPs / minimum": dot_flops,
    }


def measure_evaluation(work, args):
    """Seconds for each example, chain, temperature and leapfrog step, both ways."""
    chains, num_temperatures, num_leapfrog = (2, 3, 2) if args.quick else EVALUATION
    model = work.model()
    key, theta, phi, x, _ = common.sampler_arguments(work, 1)
    betas = jnp.asarray(schedules.linear(num_temperatures))
    plan = tuning.Plan(betas, jnp.full((num_temperatures - 1,), 0.1))
    transition = partial(hmc_step, num_leapfrog=num_leapfrog)

    def evaluate(key, theta, phi, x):
        one = lambda key, x: evaluation.log_normalizer(
            key, posterior_path(model, theta, phi, x), plan, chains, transition
        )
        keys = jax.random.split(key, len(x))
        return map_examples(one, keys, x, block_size=common.block_size(chains))

    sampled = (5, 2) if args.quick else (5, 11)
    sampler = common.make_sampler(
        common.estimator(work, *sampled), common.block_size(sampled[0])
    )
    arguments = common.sampler_arguments(work, sampled[1])
    functions = {
        "evaluation": common.compiled(evaluate, key, theta, phi, x)[0],
        "training": common.compiled(sampler, *arguments)[0],
    }
    times = common.interleave(functions, args.seconds)
    moves = chains * (num_temperatures - 1) * num_leapfrog
    units = {"evaluation": moves, "training": sampled[0] * sampled[1]}
    units["training"] *= work.num_leapfrog
    per_unit = {
        name: [t / units[name] / work.batch for t in times[name]] for name in times
    }
    return {
        "evaluation K, T, L": f"{chains}, {num_temperatures}, {num_leapfrog}",
        "training K, T, L": f"{sampled[0]}, {sampled[1]}, {work.num_leapfrog}",
        "evaluation microseconds": 1e6 * statistics.median(per_unit["evaluation"]),
        "training microseconds": 1e6 * statistics.median(per_unit["training"]),
        "evaluation / training": common.ratio(per_unit, "evaluation", "training"),
    }


if __name__ == "__main__":
    main()
