"""The leapfrog trajectory alone: the fused kernel, cut in several ways, beside XLA.

python -m benchmarks.kernel
"""

import statistics
from functools import partial

import jax

from ais_jax.fused import Blocks, decoder_layers, make_trajectory
from ais_jax.models import posterior_path
from ais_jax.path import force_at
from benchmarks import common

NUM_SAMPLES = (1, 50)
NUM_STEPS = 4  # the inner ones of L = 5
BETA, STEP_SIZE = 0.5, 0.1
BLOCKS = (
    Blocks(),
    Blocks(rows=16),
    Blocks(rows=32, warps=4),
    Blocks(rows=32, stages=3),
    Blocks(rows=32, columns=32),
    Blocks(rows=64),
    Blocks(rows=64, widest=256),
    Blocks(rows=128),
)


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    work = common.workload(args)
    tables = {
        f"Trajectory, K = {num}": common.collect(measure(work, num, args))
        for num in (NUM_SAMPLES[:1] if args.quick else NUM_SAMPLES)
    }
    common.report("kernel", args, tables)


def measure(work, num_samples, args):
    """Rows of XLA's trajectories and of the kernel's, timed by turns with the peaks."""
    trajectories = {("XLA", force): None for force in ("float32", "tf32", "bf16")}
    blocks = BLOCKS[:2] if args.quick else BLOCKS
    trajectories |= {(describe(cut), "bf16, fused"): cut for cut in blocks}
    functions, refused = common.matrix_products(), {}
    for name, cut in trajectories.items():
        try:
            program = build(work._replace(force=name[1]), num_samples, cut)
            program()
            functions[name] = program
        except jax.errors.JaxRuntimeError as error:  # it needs more than the chip has
            refused[name] = str(error).splitlines()[0][:80]
    times = common.interleave(functions, args.seconds)
    flops = NUM_STEPS * num_samples * work.batch * work.pass_flops()
    for cut, force in trajectories:
        row = {"cut by": cut, "force": force, "ms": refused.get((cut, force))}
        shares = common.peak_shares(times, ("XLA", "float32"), flops)
        row |= {"TFLOP/s": "-", **dict.fromkeys(shares, "-")}
        if (cut, force) in times:
            seconds = statistics.median(times[cut, force])
            row |= {"ms": 1e3 * seconds, "TFLOP/s": 1e-12 * flops / seconds}
            row |= common.peak_shares(times, (cut, force), flops)
        yield row


def build(work, num_samples, blocks):
    """The inner steps of all chains of a batch; `blocks` None leaves them to XLA."""
    model = work.model()
    theta, phi = model.init(jax.random.key(0))
    shape = (2, work.batch, num_samples, work.latent)
    start = jax.random.normal(jax.random.key(2), shape)

    def one(theta, x, z, momentum):
        path = posterior_path(model, theta, phi, x)
        if blocks is None:
            steps = partial(plain_steps, path)
        else:
            base = model.proposal(phi, x)
            steps = make_trajectory(decoder_layers(theta[0]), x, base, blocks)
        return steps(z, momentum, BETA, STEP_SIZE, NUM_STEPS)

    chains = jax.vmap(one, (None, None, 0, 0))
    examples = jax.vmap(chains, (None, 0, 0, 0))
    return common.compiled(examples, theta, work.images(), *start)[0]


def plain_steps(path, z, momentum, beta, kick, num_steps):
    """The inner steps of `hmc.leapfrog` without a kernel."""

    def step(_, carry):
        z, momentum = carry
        z = z + kick * momentum
        return z, momentum + kick * force_at(path, beta, z)

    return jax.lax.fori_loop(0, num_steps, step, (z, momentum))


def describe(blocks):
    """A `Blocks` as 'rows x columns x widest, warps, stages'."""
    rows, columns, widest, warps, stages = blocks
    return f"{rows} x {columns} x {widest}, {warps} warps, {stages} stages"


if __name__ == "__main__":
    main()
