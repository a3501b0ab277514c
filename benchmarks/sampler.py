"""AIS sampling: rate, share of the matrix-product peak, FLOPs, against BlackJAX.

python -m benchmarks.sampler
"""

import statistics
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ais_jax import evaluation, schedules, sharding, training
from ais_jax.hmc import hmc_step
from ais_jax.models import posterior_path
from benchmarks import common, peers
from configs.default import get_config
from experiments import builders, cli

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
    with common.Remote(as_launched, work, num_samples, num_temperatures) as launched:
        times = common.interleave({**functions, "launched": launched}, seconds)
    minimum = work.minimum_flops(num_samples, num_temperatures)
    flops = dots = "-"
    if common.counts_flops(work):
        flops = common.xla_sampler_flops(work, num_samples, num_temperatures) / minimum
        dots = common.dot_flops(programs["ours"][1]) / minimum
    gradients = minimum / work.pass_flops()
    launched_share = common.peak_shares(times, "launched", minimum)
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
        **{f"{name}, as launched": share for name, share in launched_share.items()},
        **common.blackjax_ratios(times, "ours"),
        "BlackJAX / ours, as launched": common.ratio(times, "BlackJAX", "launched")
        if "BlackJAX" in times
        else "not installed",
        "XLA FLOPs / minimum": flops,
        "dot FLOPs / minimum": dots,
    }


def as_launched(work, num_samples, num_temperatures):
    """Our sampler on the launcher's mesh: on a CPU, a device for each core."""
    config = get_config("ais")
    config.batch_size = work.batch
    cli.use_cores([config])
    mesh = builders.build_mesh(config)
    block = common.block_size(num_samples)
    sample = common.make_sampler(
        common.estimator(work, num_samples, num_temperatures), block
    )
    spread = jax.shard_map(
        lambda keys, *args: sample(keys[0], *args),
        mesh=mesh,
        in_specs=(P(sharding.DATA), P(), P(), P(sharding.DATA), P()),
        out_specs=P(sharding.DATA),
        check_vma=False,
    )
    key, *rest = common.sampler_arguments(work, num_temperatures)
    keys = jax.random.split(key, mesh.shape[sharding.DATA])
    return common.compiled(spread, keys, *rest)[0]


def measure_evaluation(work, args):
    """Seconds for each example, chain, temperature and leapfrog step, both ways."""
    chains, num_temperatures, num_leapfrog = (2, 3, 2) if args.quick else EVALUATION
    model = work.model()
    key, theta, phi, x, _ = common.sampler_arguments(work, 1)
    betas = jnp.asarray(schedules.linear(num_temperatures))
    plan = evaluation.Plan(betas, jnp.full((num_temperatures - 1,), 0.1))
    transition = partial(hmc_step, num_leapfrog=num_leapfrog)

    def evaluate(key, theta, phi, x):
        one = lambda key, x: evaluation.log_normalizer(
            key, posterior_path(model, theta, phi, x), plan, chains, transition
        )
        keys = jax.random.split(key, len(x))
        return training.map_examples(one, keys, x, block_size=common.block_size(chains))

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
