"""From a sweep's config to its variants: one run's config each, its cost, its shard.

The cost of training is counted by the estimator (`Estimator.gradient_evaluations`
passes forward and backward through log p(x, z) for an image). With P weights in the
decoder a pass takes 4 P FLOPs (2 P forward, 2 P backward to z), so that

    training    4 P * gradient_evaluations * images * epochs
    evaluation  4 P * chains * (1 + L (T - 1)) for a test image, twice that for a
                simulated pair at T, T / 2, T / 4 and T / 8; 2 P for an IWAE sample

for each replicate. Left out are the encoder, Adam and the pilot: `calibrate` measures
what a training step costs besides.
"""

import math
import time
from typing import NamedTuple

from ml_collections import ConfigDict

from configs import default, table1
from experiments import tables
from experiments.cli import InputError

IMAGES = {  # data set -> training images, test images, pixels
    "digits": (1500, 297, 64),
    "mnist": (60000, 10000, 784),
    "omniglot": (24345, 8070, 784),
}


class Variant(NamedTuple):
    """One model of a sweep.

    Attributes:
        name: also the name of its folder.
        row: a `tables.Row`.
        config: the run's ConfigDict, of `configs/default.py`'s shape.
        identity: what variant.json says: the row, the reading, the paper's number.
        steps: training steps.
        gradient_evaluations: of its training, for one replicate.
        train_flops: of its training, all replicates.
        evaluation_flops: of its evaluation, all replicates.
    """

    name: str
    row: tables.Row
    config: ConfigDict
    identity: dict
    steps: int
    gradient_evaluations: int
    train_flops: float
    evaluation_flops: float

    @property
    def flops(self):
        """Of training and evaluation."""
        return self.train_flops + self.evaluation_flops


def expand(config):
    """The variants of a sweep, in the paper's order.

    Args:
        config: a ConfigDict of `configs/table1.py`'s shape.

    Returns:
        List of `Variant`.

    Raises:
        InputError: naming the setting, its value and the mend.
    """
    _check(config)
    return [
        _variant(config, row)
        for dataset in config.datasets
        for row in tables.rows(config.table, dataset)
    ]


def run_config(config, row):
    """The config of one row's run, before its cost is matched.

    Args:
        config: the sweep's ConfigDict.
        row: a `tables.Row`.

    Returns:
        A ConfigDict of `configs/default.py`'s shape.
    """
    run = default.get_config(row.method)
    shared = config.to_dict()
    preconditioner = shared.pop("estimator")["preconditioner"]
    run.update({k: v for k, v in shared.items() if k in run})
    run.dataset = row.dataset
    run.estimator.update(tables.estimator_settings(row, config.reading))
    if row.num_temperatures:
        run.estimator.preconditioner = preconditioner
    scale = config.scale
    batch_size = "batch_size" if row.num_temperatures else "dreg_batch_size"
    run.batch_size = _first(scale[batch_size], config[batch_size])
    run.num_epochs = _first(scale.num_epochs, config.num_epochs)
    run.evaluation.preset = _first(scale.preset, config.evaluation.preset)
    run.evaluation.num_examples = _first(
        scale.num_examples, config.evaluation.num_examples
    )
    return run


def protocol_config(row, reading):
    """The config by which the paper's authors would have trained a row.

    Args:
        row: a `tables.Row`; for the digits, the protocol of `configs/table1.py:digits`.
        reading: a key of `tables.READINGS`, or None for IWAE-DReG.

    Returns:
        A ConfigDict of `configs/default.py`'s shape.
    """
    config = table1.get_config("digits" if row.dataset == "digits" else "")
    config.reading = reading or config.reading
    return run_config(config, row)


def shard(found, index, count):
    """The variants of one machine of several, balanced by their FLOPs.

    The dearest variant goes to the machine with the least to do, and so on. Nothing
    but the config enters, so that all machines agree.

    Args:
        found: list of `Variant`.
        index: 1 to `count`.
        count: number of machines.

    Returns:
        List of `Variant`, in the order of `found`.
    """
    loads, owner = [0.0] * count, {}
    for variant in sorted(found, key=lambda v: (-v.flops, v.name)):
        machine = loads.index(min(loads))
        loads[machine] += variant.flops
        owner[variant.name] = machine
    return [v for v in found if owner[v.name] == index - 1]


def calibrate(config):
    """Times the training steps of two small variants on random images.

    Args:
        config: the sweep's ConfigDict.

    Returns:
        (seconds that any step takes, seconds for each FLOP).
    """
    dataset = config.datasets[0]
    rows = tables.Row(dataset, "dreg", 1), tables.Row(dataset, "ais", 5, 5)
    small, large = (_variant(config, row) for row in rows)
    seconds = [_seconds_per_step(v.config) for v in (small, large)]
    flops = [v.train_flops / v.steps for v in (small, large)]
    per_flop = max((seconds[1] - seconds[0]) / (flops[1] - flops[0]), 0.0)
    per_flop = per_flop or seconds[1] / flops[1]
    return max(seconds[0] - per_flop * flops[0], 0.0), per_flop


def _check(config):
    from ais_jax.registry import unknown_name
    from experiments import builders

    if "table" not in config:
        raise InputError("--config is no sweep's: use configs/table1.py or table2.py")
    choices = [("table", config.table, tables.TABLES)]
    choices += [("reading", config.reading, tables.READINGS)]
    choices += [("datasets", dataset, IMAGES) for dataset in config.datasets]
    if config.scale.preset is not None:
        choices += [("scale.preset", config.scale.preset, builders.PRESETS)]
    for name, value, known in choices:
        if value not in known:
            raise InputError(unknown_name(name, str(value), [str(k) for k in known]))
    for name, value in config.scale.items():
        if name != "preset" and value is not None and value < (name != "num_examples"):
            raise InputError(f"scale.{name}={value}: use a whole number of at least 1")
    if len(set(config.datasets)) != len(config.datasets) or not config.datasets:
        raise InputError(f"datasets={config.datasets}: name each data set once")
    references = {row.name.split("-", 1)[1] for row in tables.PAPER}
    if config.matched_reference not in references:
        raise InputError(
            unknown_name("matched_reference", config.matched_reference, references)
        )


def _variant(config, row):
    """A row's `Variant`, its epochs matched to the reference's cost where asked for."""
    run = run_config(config, row)
    per_epoch, num_weights = _count(run)
    matched = None
    if config.matched_cost:
        reference = next(
            r for r in tables.PAPER if r.name.endswith(f"-{config.matched_reference}")
        )
        reference = run_config(config, reference._replace(dataset=row.dataset))
        budget = reference.num_epochs * _count(reference)[0]
        run.num_epochs = max(1, round(budget / per_epoch))
        matched = {
            "reference": config.matched_reference,
            "gradient_evaluations": budget,
            "ratio": run.num_epochs * per_epoch / budget,
        }
    total = run.num_epochs * per_epoch
    steps = run.num_epochs * (IMAGES[row.dataset][0] // run.batch_size)
    return Variant(
        _name(config, row),
        row,
        run,
        _identity(config, row, matched),
        steps,
        total,
        4.0 * num_weights * total * run.num_replicates,
        _evaluation_flops(run, num_weights) * run.num_replicates,
    )


def _name(config, row):
    """The row's name, with what else makes it another model."""
    name = row.name
    if row.num_temperatures and config.reading == "released":
        name += "-released"
    return name + ("-matched" if config.matched_cost else "")


def _identity(config, row, matched):
    """What variant.json says of a variant."""
    return {
        "table": config.table,
        **row._asdict(),
        "reading": config.reading if row.num_temperatures else None,
        "num_moves": tables.num_moves(row, config.reading),
        "paper_log_p": tables.PAPER.get(row),
        "matched_cost": matched,
        "scale": config.scale.to_dict(),
    }


def _count(run):
    """(gradient evaluations of an epoch of one replicate, weights in the decoder)."""
    import jax

    from experiments import builders

    builders.check(run)
    num_train, _, data_size = IMAGES[run.dataset]
    if run.batch_size > num_train:
        raise InputError(
            f"batch_size={run.batch_size}: {run.dataset} has {num_train} training "
            "images; use at most as many"
        )
    model = builders.build_model(run, data_size)
    estimator = builders.build_estimator(run, model)
    theta, _ = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    num_weights = sum(a.size for a in jax.tree.leaves(theta) if len(a.shape) == 2)
    images = num_train // run.batch_size * run.batch_size
    return images * estimator.gradient_evaluations, num_weights


def _evaluation_flops(run, num_weights):
    """FLOPs of one replicate's evaluation."""
    from experiments import builders

    settings = builders.evaluation_settings(run)
    num_test = IMAGES[run.dataset][1]
    images = min(settings["num_examples"] or num_test, num_test)
    chains, num_leapfrog = settings["num_chains"], settings["num_leapfrog"]
    passes = lambda top: chains * (1 + num_leapfrog * (top - 1))
    top = settings["num_temperatures"]
    ladder = sum(passes(max(1, top // part)) for part in (8, 4, 2, 1))
    gradients = images * passes(top) + 2 * settings["num_simulated"] * ladder
    return num_weights * (4.0 * gradients + 2.0 * images * settings["iwae_samples"])


def _seconds_per_step(run):
    """Seconds that a training step takes, all replicates in it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ais_jax import sharding
    from experiments import builders, train
    from experiments.datasets import Dataset

    side = math.isqrt(IMAGES[run.dataset][2])
    images = np.random.default_rng(0).random((8 * run.batch_size, side**2), np.float32)
    data = Dataset(run.dataset, images, images, None, (side, side), False, "", "")
    setup = builders.build_training(run, data)
    run_steps = sharding.spread_training(setup.run_steps, setup.mesh)
    keys = jax.vmap(jax.random.key)(jnp.arange(run.num_replicates))
    rates = jnp.asarray(builders.learning_rates(run), jnp.float32)
    images = sharding.place_rows(images, setup.mesh)
    state, num, seconds = train.initial_state(run, setup), 1, 0.0
    state, _ = run_steps(state, keys, rates, images, jnp.int32(num))
    while seconds < 0.5:
        num *= 2
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, _ = run_steps(state, keys, rates, images, jnp.int32(num))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
    return seconds / num


def _first(value, other):
    """The value, or the other where it is None."""
    return other if value is None else value
