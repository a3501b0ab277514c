"""What launches cost: steps a dispatch, with and without CUDA graphs, at K = 1, T = 5.

python -m benchmarks.launches
"""

import json
import os
import statistics
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import training
from benchmarks import common

NUM_SAMPLES, NUM_TEMPERATURES = 1, 5
STEPS = (1, 10, 100, 1000)
PLAIN = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL"
GRAPHS = {  # which operations XLA records into CUDA graphs ("command buffers")
    "XLA's default": "",
    "none": "--xla_gpu_enable_command_buffer=",
    "all but loops": f"--xla_gpu_enable_command_buffer={PLAIN}",
    "loops too": f"--xla_gpu_enable_command_buffer={PLAIN},CONDITIONAL,WHILE",
}


def main():
    """Measures each choice in a process of its own and reports."""
    args = common.parse(__doc__, worker="measure here and print JSON")
    if args.worker:
        print(json.dumps(list(measure(common.workload(args), args))))
        return
    rows = common.collect(
        {"CUDA graphs": name, **row}
        for name, flags in GRAPHS.items()
        for row in in_process(flags, args)
    )
    common.report("launches", args, {"Launches": rows})


def in_process(flags, args):
    """Rows of `measure` from a process with these XLA flags."""
    command = [sys.executable, "-m", "benchmarks.launches", "--worker"]
    command += ["--quick"] if args.quick else [f"--seconds={args.seconds}"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def measure(work, args):
    """Milliseconds a step where a dispatch makes 1, 10, ... of them."""
    estimate = common.estimator(work, NUM_SAMPLES, NUM_TEMPERATURES)
    step = common.make_step(estimate, common.block_size(NUM_SAMPLES))
    state, key, rate, images = common.step_arguments(work, estimate)
    data = jnp.tile(images, (8, 1))
    run_steps = training.make_run_steps(step, work.batch, len(data))
    program = jax.jit(run_steps)
    for num in STEPS[:2] if args.quick else STEPS:
        dispatch = partial(wait, program, (state, key, rate, data, np.int32(num)))
        times = common.interleave({"run": dispatch}, args.seconds)["run"]
        yield {
            "steps a dispatch": num,
            "ms a step": 1e3 * statistics.median(times) / num,
        }


def wait(program, arguments):
    """Makes one dispatch and waits for it."""
    jax.block_until_ready(program(*arguments))


if __name__ == "__main__":
    main()
