"""The whole training step: against its parts, BlackJAX and the authors' PyTorch step.

python -m benchmarks.training_step
"""

import contextlib
import statistics
from functools import partial

import jax
import jax.numpy as jnp

from ais_jax import batching
from benchmarks import common, flops, launched, peers


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
    common.report("training_step", args, {"Training step": rows})


def measure(work, num_samples, num_temperatures, seconds):
    """One row: K chains of T temperatures for each example of a batch."""
    ours = common.estimator(work, num_samples, num_temperatures)
    block = common.block_size(num_samples)
    arguments = common.step_arguments(work, ours)
    step, program = common.compiled(common.make_step(ours, block), *arguments)
    functions = {**common.matrix_products(), "ours": step}
    functions["parts"] = parts(work, ours, block)
    if peers.installed("blackjax"):
        estimates = peers.blackjax_estimators(
            ours, work.model(), num_temperatures, work.num_leapfrog
        )
        for name, estimate in estimates.items():
            peer_step = common.make_step(estimate, block)
            functions[name] = common.compiled(peer_step, *arguments)[0]
    with contextlib.ExitStack() as stack:
        if peers.installed("torch"):
            build = peers.torch_step, work, num_samples, num_temperatures
            functions["PyTorch"] = stack.enter_context(common.Remote(*build))
            functions["PyTorch, same process"] = build[0](*build[1:])
        if not common.on_gpu():
            build = launched.step, work, "ais", num_samples, num_temperatures, 1
            functions["as launched"] = stack.enter_context(common.Remote(*build))
        times = common.interleave(functions, seconds)
    minimum = flops.step_minimum(work, num_samples, num_temperatures)
    against = partial(common.against_peer, times)
    median = statistics.median(times["ours"])
    gradients = num_samples * (2 + work.num_leapfrog * num_temperatures) + 1
    return {
        "K": num_samples,
        "T": num_temperatures,
        "force": work.force,
        "rounds": len(times["ours"]),
        "ms": 1e3 * median,
        "million chain gradients/s": 1e-6 * gradients * work.batch / median,
        **common.peak_shares(times, "ours", minimum),
        **common.peak_shares(times, "as launched", minimum),
        "step / parts": common.ratio(times, "ours", "parts"),
        "BlackJAX / ours": against("BlackJAX"),
        "BlackJAX, our densities / ours": against("BlackJAX, our densities"),
        "BlackJAX / ours, as launched": against("BlackJAX", "as launched"),
        "BlackJAX, our densities / ours, as launched": against(
            "BlackJAX, our densities", "as launched"
        ),
        "PyTorch / ours": against("PyTorch"),
        "PyTorch, same process / ours": against("PyTorch, same process"),
        "PyTorch / ours, as launched": against("PyTorch", "as launched"),
        "dot FLOPs / minimum": flops.dot_flops(program) / minimum
        if flops.counts_flops()
        else "-",
    }


def parts(work, estimate, block):
    """The sampler, theta's gradient and phi's gradient as three programs, by turns."""
    state, key, _, x = common.step_arguments(work, estimate)
    theta, phi = state.generative.params, state.inference.params
    sampler = common.make_sampler(estimate, block)
    sample, program = common.compiled(sampler, key, theta, phi, x, state.step_sizes)
    samples = program(key, theta, phi, x, state.step_sizes)

    def theta_loss(theta, x, samples):
        return jnp.sum(jax.vmap(estimate.theta_loss, (None, 0, 0))(theta, x, samples))

    def theta_grad(theta, x, samples):
        gradient = lambda *block: (jax.grad(theta_loss)(theta, *block), ())
        return batching.sum_blocks(gradient, x, samples, block_size=block)[0]

    def phi_loss(phi, theta, keys, x):
        losses = jax.vmap(estimate.phi_loss, (None, None, 0, 0))
        return jnp.sum(losses(phi, theta, keys, x)[0])

    keys = jax.random.split(key, work.batch)
    theta_part = common.compiled(theta_grad, theta, x, samples)[0]
    phi_part = common.compiled(jax.grad(phi_loss), phi, theta, keys, x)[0]
    return lambda: (sample(), theta_part(), phi_part())


if __name__ == "__main__":
    main()
