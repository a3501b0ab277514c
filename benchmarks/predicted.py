"""Predicted cost of Table 1's models, and of one with 1,000 times the parameters.

python -m benchmarks.predicted

A step's FLOPs are counted by `experiments.variants`; its memory and what it sends are
read off the program that the launcher would run, compiled for 1 and for 4 devices. Its
time comes from results/training_step.json: AIS as measured there; IWAE-DReG, which is
not, by the line through the cheapest and the most expensive step (its constant part is
that of 128 images, so 20 are overestimated); the larger model at the rate of its row.
"""

import json
import os
import re

import jax
import numpy as np

from benchmarks import common, launcher, runner

DEVICES = 4
LARGE_WIDTHS = ((13_750, 13_750),)
LARGE_ROWS = ("mnist-ais-K1-T5", "mnist-ais-K50-T11")
MIB = 2**20
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def tables(args):
    """The cost of a step of every row and the hours of its run; of a larger model."""
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    variants = launcher.table1_rows("digits" if args.quick else "mnist")
    yield "Table 1", map(row, variants[: 1 if args.quick else None])
    if not args.quick:
        large = [variant for variant in variants if variant.name in LARGE_ROWS]
        yield "1,000 times larger", map(larger, large)


def seconds_per_step(variant):
    """Predicted seconds of a training step, on the machine of training_step.json."""
    table = json.loads((runner.RESULTS / "training_step.json").read_text())["tables"]
    measured = {(r["K"], r["T"]): r["ms"] / 1e3 for r in table["Training step"]}
    row = variant.row
    if row.printed_temperatures:
        return measured[row.num_samples, row.printed_temperatures]
    ends = common.GRID[0], common.GRID[-1]
    flops = [common.Workload().minimum_flops(*end) for end in ends]
    seconds = [measured[end] for end in ends]
    rate = (flops[1] - flops[0]) / (seconds[1] - seconds[0])
    return seconds[0] + (variant.train_flops / variant.steps - flops[0]) / rate


def row(variant):
    """The cost of one row of the table, its hours for both data sets.

    Args:
        variant: one of Table 1.

    Returns:
        dict of column to value.
    """
    seconds = seconds_per_step(variant)
    hours = variant.steps * seconds / 3600
    images = launcher.IMAGES["omniglot"][0] / launcher.IMAGES["mnist"][0]
    return {
        "row": variant.name,
        **step_cost(variant.config, variant.train_flops / variant.steps),
        "ms": 1e3 * seconds,
        "MNIST hours": hours,
        "Omniglot hours": hours * images,
    }


def larger(variant):
    """The cost of a row with a model of `LARGE_WIDTHS`, at the row's rate."""
    config = variant.config.copy_and_resolve_references()
    config.model.widths = LARGE_WIDTHS
    weights = [number_of_weights(c) for c in (variant.config, config)]
    flops = variant.train_flops / variant.steps
    seconds = seconds_per_step(variant) * weights[1] / weights[0]
    return {
        "row": variant.name,
        **step_cost(config, flops * weights[1] / weights[0]),
        "seconds": seconds,
        "MNIST hours": variant.steps * seconds / 3600,
    }


def number_of_weights(config):
    """Of the decoder's matrices, which every pass multiplies by."""
    theta, _ = jax.eval_shape(launcher.build_model(config).init, jax.random.key(0))
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
    one, several = (launcher.compile_training(config, n) for n in (1, DEVICES))
    memory = one.memory_analysis()
    data = 8 * config.batch_size * launcher.IMAGES[config.dataset][2] * 4
    held = memory.argument_size_in_bytes - data + memory.temp_size_in_bytes
    return {
        "batch": config.batch_size,
        "GFLOP": flops / 1e9,
        "MiB": held / MIB,
        "MB sent": collective_bytes(several.as_text()) / 1e6,
    }


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
    runner.run("predicted", __doc__, tables)
