"""The whole training step: against its parts, BlackJAX and the authors' PyTorch step.

python -m benchmarks.training_step
"""

import contextlib
import statistics
from functools import partial

import jax

from benchmarks import common, flops, launched, launcher, peers, runner


def tables(args):
    """The training step over the grid."""
    yield "Training step", (measure(args, *row) for row in common.grid(args.quick))


def measure(args, work, num_samples, num_temperatures):
    """One row: K chains of T temperatures for each example of a batch."""
    ours = common.estimator(work, num_samples, num_temperatures)
    block = launcher.block_size(num_samples)
    arguments = common.step_arguments(work, ours)
    step, program = common.compiled(common.make_step(ours, block), *arguments)
    functions = {**flops.matrix_products(), "ours": step}
    functions["parts"] = parts(work, ours, block)
    for name, peer in peers.blackjax_estimators(ours, work, num_temperatures).items():
        functions[name] = common.compiled(common.make_step(peer, block), *arguments)[0]
    with contextlib.ExitStack() as stack:
        if peers.installed("torch"):
            build = peers.torch_step, work, num_samples, num_temperatures
            functions["PyTorch"] = stack.enter_context(runner.Remote(*build))
            functions["PyTorch, same process"] = build[0](*build[1:])
            autocast = stack.enter_context(runner.Remote(*build, True))
            functions["PyTorch, bf16 autocast"] = autocast
        forces = launched.forces(work, num_samples, num_temperatures)
        for name, forced in forces.items():
            build = launched.step, forced, "ais", num_samples, num_temperatures, 1
            functions[name] = stack.enter_context(runner.Remote(*build))
        times = runner.interleave(functions, args.seconds)
    minimum = flops.step_minimum(work, num_samples, num_temperatures)
    median = statistics.median(times["ours"])
    gradients = common.chain_gradients(work, num_samples, num_temperatures)
    same_process = runner.ratio(times, "PyTorch, same process", "ours")
    return {
        "K": num_samples,
        "T": num_temperatures,
        "force": work.force,
        **{f"force, {name}": forced.force for name, forced in forces.items()},
        "rounds": len(times["ours"]),
        "ms": 1e3 * median,
        "million chain gradients/s": 1e-6 * gradients * work.batch / median,
        **flops.peak_shares(times, "ours", minimum),
        **flops.peak_shares(times, launched.LAUNCHED, minimum),
        **flops.peak_shares(times, launched.AUTOMATIC, minimum),
        "float32 / automatic force": runner.ratio(
            times, launched.LAUNCHED, launched.AUTOMATIC
        ),
        "step / parts": runner.ratio(times, "ours", "parts"),
        **peers.ratios(times, peers.NAMES),
        "PyTorch, same process / ours": same_process,
        "dot FLOPs / minimum": flops.excess(program, minimum),
    }


def parts(work, estimate, block):
    """The sampler, theta's gradient and phi's gradient as three programs, by turns."""
    state, key, x = common.step_arguments(work, estimate)
    theta, phi = state.generative.params, state.inference.params
    sampler = common.make_sampler(estimate, block)
    sample, program = common.compiled(sampler, key, theta, phi, x, state.step_sizes)
    samples = program(key, theta, phi, x, state.step_sizes)

    keys = jax.random.split(key, work.batch)
    theta_gradient = partial(estimate.theta_gradient, block_size=block)
    theta_part = common.compiled(theta_gradient, theta, x, samples)[0]
    phi_part = common.compiled(estimate.phi_gradient, phi, theta, keys, x)[0]
    return lambda: (sample(), theta_part(), phi_part())


if __name__ == "__main__":
    runner.run("training_step", __doc__, tables)
