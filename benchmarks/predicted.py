"""Predicted cost of Table 1's models, and of one with 1,000 times the parameters.

python -m benchmarks.predicted

A step's FLOPs are counted by `experiments.variants`; its memory and what it sends are
read off the program that the launcher would run, compiled for 1 and for 4 devices; its
time is measured on this machine and gives the hours. Training steps of the larger model
are compiled, not run: its time is predicted at the rate of the same row of the table.
"""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from benchmarks import common
from configs import table1
from experiments import builders, train, variants
from experiments.datasets import Dataset

DEVICES = 4
LARGE_WIDTHS = ((13_750, 13_750),)
LARGE_ROWS = ("mnist-ais-K1-T5", "mnist-ais-K50-T11")
MIB = 2**20
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def main():
    """Prints and writes the cost of a step of every row, and the hours of its run."""
    args = common.parse(__doc__)
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    structure = "digits" if args.quick else ""
    found = variants.expand(table1.get_config(structure))
    seconds = {}
    for variant in found[:2] if args.quick else found:
        kind = variant.row._replace(dataset="")  # both data sets have 784 pixels
        if kind not in seconds:
            seconds[kind] = variants.seconds_per_step(variant.config)
    rows = [row(v, s) for v, s in timed(found, seconds)]
    large = [
        larger(v, s)
        for v, s in timed(found, seconds)
        if v.name in LARGE_ROWS or args.quick
    ]
    tables = {"Table 1": common.collect(rows), "1,000 times larger": large}
    common.report("predicted", args, tables)


def timed(found, seconds):
    """[(variant, seconds of a step)] of the variants whose kind was timed."""
    kinds = [(v, v.row._replace(dataset="")) for v in found]
    return [(v, seconds[kind]) for v, kind in kinds if kind in seconds]


def row(variant, seconds):
    """The cost of one row of the table.

    Args:
        variant: a `variants.Variant`.
        seconds: that one of its training steps takes.

    Returns:
        dict of column to value.
    """
    return {
        "row": variant.name,
        **step_cost(variant.config, variant.train_flops / variant.steps),
        "GFLOP/s": variant.train_flops / variant.steps / seconds / 1e9,
        "steps": variant.steps,
        "training FLOP": variant.train_flops,
        "training hours": variant.steps * seconds / 3600,
    }


def larger(variant, seconds):
    """The cost of a row with a model of `LARGE_WIDTHS`, at the row's rate."""
    rate = variant.train_flops / variant.steps / seconds
    config = variant.config.copy_and_resolve_references()
    config.model.widths = LARGE_WIDTHS
    weights = [number_of_weights(c) for c in (variant.config, config)]
    flops = variant.train_flops / variant.steps * weights[1] / weights[0]
    return {
        "row": variant.name,
        **step_cost(config, flops),
        "seconds a step": flops / rate,
        "training hours": variant.steps * flops / rate / 3600,
    }


def number_of_weights(config):
    """Of the decoder's matrices, which every pass multiplies by."""
    model = builders.build_model(config, variants.IMAGES[config.dataset][2])
    theta, _ = jax.eval_shape(model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(theta) if len(leaf.shape) == 2)


def step_cost(config, flops):
    """What a step computes, holds and sends.

    Args:
        config: a run's ConfigDict.
        flops: of a step.

    Returns:
        dict of column to value: FLOPs; the program's memory on one device without the
        data set (state and temporary arrays); and the bytes that go into collectives on
        each of `DEVICES` devices.
    """
    one, several = (compiled(config, num) for num in (1, DEVICES))
    memory = one.memory_analysis()
    data = 8 * config.batch_size * variants.IMAGES[config.dataset][2] * 4
    held = memory.argument_size_in_bytes - data + memory.temp_size_in_bytes
    return {
        "batch": config.batch_size,
        "GFLOP": flops / 1e9,
        "MiB": held / MIB,
        "MB sent": collective_bytes(several.as_text()) / 1e6,
    }


def compiled(config, num_devices):
    """The launcher's training program for a mesh of `num_devices`, compiled.

    Args:
        config: a run's ConfigDict.
        num_devices: on the data axis.

    Returns:
        The executable; its data set has 8 batches.
    """
    config = config.copy_and_resolve_references()
    config.sharding.data = num_devices
    pixels = variants.IMAGES[config.dataset][2]
    images = np.zeros((8 * config.batch_size, pixels), np.float32)
    data = Dataset(config.dataset, images, images, None, (1, pixels), False, "", "")
    setup = builders.build_training(config, data)
    replicated = sharding.by_replicate(setup.mesh)
    state = jax.eval_shape(lambda: train.initial_state(config, setup))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    rates = jax.ShapeDtypeStruct((1,), jnp.float32)
    place = lambda tree: jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated), tree
    )
    run = sharding.spread_training(setup.run_steps, setup.mesh)
    rows = sharding.place_rows(images, setup.mesh)
    return run.lower(*place((state, keys, rates)), rows, jnp.int32(100)).compile()


def collective_bytes(text):
    """Bytes that each device gives into the collectives of a compiled program.

    Args:
        text: its HLO, in which each collective of the loop over steps stands once.

    Returns:
        int.
    """
    shapes = dict(re.findall(r"%?([\w.\-]+) = (\w+\[[\d,]*\])", text))
    calls = re.findall(r" (?:all-reduce|reduce-scatter)(?:-start)?\(([^)]*)\)", text)
    names = [name.split()[-1].lstrip("%") for call in calls for name in call.split(",")]
    return sum(_size(shapes[name]) for name in names)


def _size(shape):
    kind, sizes = re.fullmatch(r"(\w+)\[([\d,]*)\]", shape).groups()
    return _BYTES[kind] * int(np.prod([int(n) for n in sizes.split(",") if n]))


if __name__ == "__main__":
    main()
