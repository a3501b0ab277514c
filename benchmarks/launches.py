"""What launches cost: steps a dispatch, with and without CUDA graphs, at K = 1, T = 5.

python -m benchmarks.launches
"""

import os
import statistics
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import epochs
from benchmarks import common, launcher, runner

NUM_SAMPLES, NUM_TEMPERATURES = 1, 5
STEPS = (1, 10, 100, 1000)
PLAIN = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL"
GRAPHS = {  # which operations XLA records into CUDA graphs ("command buffers")
    "XLA's default": "",
    "none": "--xla_gpu_enable_command_buffer=",
    "all but loops": f"--xla_gpu_enable_command_buffer={PLAIN}",
    "loops too": f"--xla_gpu_enable_command_buffer={PLAIN},CONDITIONAL,WHILE",
}


def tables(args):
    """Each choice's rows, measured in a process of its own."""
    given = os.environ.get("XLA_FLAGS", "")
    yield (
        "Launches",
        (
            {"CUDA graphs": name, **row}
            for name, flags in GRAPHS.items()
            for row in runner.finish(
                runner.start(
                    *("launches", "measure", args.quick, args.seconds),
                    XLA_FLAGS=f"{given} {flags}".strip(),
                )
            )
        ),
    )


def measure(is_quick, seconds):
    """Milliseconds a step where a dispatch makes 1, 10, ... of them: list of rows."""
    work = common.workload(is_quick)
    estimate = common.estimator(work, NUM_SAMPLES, NUM_TEMPERATURES)
    step = common.make_step(estimate, launcher.block_size(NUM_SAMPLES))
    state, key, images = common.step_arguments(work, estimate)
    data = jnp.tile(images, (8, 1))
    program = jax.jit(epochs.make_run_steps(step, work.batch, len(data)))
    rows = []
    for num in STEPS[:2] if is_quick else STEPS:
        dispatch = partial(wait, program, state, key, data, np.int32(num))
        times = runner.interleave({"run": dispatch}, seconds)["run"]
        per_step = 1e3 * statistics.median(times) / num
        rows.append({"steps a dispatch": num, "ms a step": per_step})
    return rows


def wait(program, *arguments):
    """Makes one dispatch and waits for it."""
    jax.block_until_ready(program(*arguments))


if __name__ == "__main__":
    runner.run("launches", __doc__, tables)
