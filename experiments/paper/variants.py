"""From a sweep's config to its variants: one run's config each, its cost, its shard."""

from typing import NamedTuple

from ml_collections import ConfigDict

from ais_jax.checks import unknown_name
from configs import default, presets, table1
from experiments.paper import cost, tables
from experiments.paper.tables import Row
from experiments.run.settings import Settings, resolve
from experiments.system.errors import InputError

_DATASETS = ("digits", "mnist", "omniglot")


class Variant(NamedTuple):
    """One model of a sweep."""

    name: str  # also the name of its folder
    row: Row | None  # of the tables
    config: ConfigDict  # the run's config, of `configs/default.py`'s shape
    settings: Settings  # what it resolves to
    identity: dict  # what variant.json says: the row, the reading, the paper's number
    steps: int  # of training
    gradient_evaluations: int  # of its training, for one replicate
    train_flops: float  # of its training, all replicates
    evaluation_flops: float  # of its evaluation, all replicates

    @property
    def flops(self):
        """Of training and evaluation."""
        return self.train_flops + self.evaluation_flops


def expand(config):
    """The variants of a sweep, in the paper's order.

    Raises:
        InputError: naming the setting, its value and what to do.
    """
    _check(config)
    return [
        variant(config, row)
        for dataset in config.datasets
        for row in tables.rows(config.table, dataset)
    ]


def variant(config, row):
    """A row's `Variant`, its epochs matched to the reference's cost where asked for."""
    run = run_config(config, row)
    matched = _match_cost(config, row, run) if config.matched_cost else None
    return counted(_name(config, row), row, run, _identity(config, row, matched))


def counted(name, row, config, identity):
    """A `Variant` with what its run costs."""
    settings = resolve(config)
    total = cost.gradient_evaluations(settings)
    images = cost.sizes_of(settings).num_train
    flops = 4.0 * cost.number_of_weights(settings) * total
    return Variant(
        name=name,
        row=row,
        config=config,
        settings=settings,
        identity=identity,
        steps=settings.num_epochs * (images // settings.batch_size),
        gradient_evaluations=total,
        train_flops=flops * settings.num_replicates,
        evaluation_flops=cost.evaluation_flops(settings) * settings.num_replicates,
    )


def run_config(config: ConfigDict, row: Row) -> ConfigDict:
    """The config of one row's run, before its cost is matched."""
    run = default.get_config(row.method)
    shared = config.to_dict()
    preconditioner = shared.pop("estimator")["preconditioner"]
    run.update({k: v for k, v in shared.items() if k in run})
    run.dataset = row.dataset
    run.estimator.update(tables.estimator_settings(row, config.reading))
    if row.printed_temperatures:
        run.estimator.preconditioner = preconditioner
    scale = config.scale
    batch_size = "batch_size" if row.printed_temperatures else "dreg_batch_size"
    run.batch_size = _first(scale[batch_size], config[batch_size])
    run.num_epochs = _first(scale.num_epochs, config.num_epochs)
    run.evaluation.preset = _first(scale.preset, config.evaluation.preset)
    run.evaluation.num_examples = _first(
        scale.num_examples, config.evaluation.num_examples
    )
    return run


def protocol_config(row: Row, reading: str | None) -> ConfigDict:
    """The config by which the paper's authors would have trained a row.

    Of the digits, which are not the paper's, that of `configs/table1.py:digits`.
    """
    config = table1.get_config("digits" if row.dataset == "digits" else "")
    config.reading = reading or config.reading
    return run_config(config, row)


def shard(variants, index, count):
    """The variants of machine `index` of `count` (from 1), balanced by their FLOPs.

    The most expensive variant goes to the machine with the least to do, and so on.
    Nothing but the config enters, so that all machines agree.
    """
    loads, owner = [0.0] * count, {}
    for each in sorted(variants, key=lambda v: (-v.flops, v.name)):
        machine = loads.index(min(loads))
        loads[machine] += each.flops
        owner[each.name] = machine
    return [v for v in variants if owner[v.name] == index - 1]


def calibrate(config):
    """(seconds that any step takes, seconds for each FLOP), by two small variants."""
    rows = [Row(config.datasets[0], *row) for row in (("dreg", 1), ("ais", 5, 5))]
    small, large = (variant(config, row) for row in rows)
    seconds = [cost.seconds_per_step(v.settings) for v in (small, large)]
    flops = [v.train_flops / v.steps for v in (small, large)]
    per_flop = max((seconds[1] - seconds[0]) / (flops[1] - flops[0]), 0.0)
    per_flop = per_flop or seconds[1] / flops[1]
    return max(seconds[0] - per_flop * flops[0], 0.0), per_flop


def _check(config):
    if "table" not in config:
        raise InputError("--config is no sweep's: use configs/table1.py or table2.py")
    choices = [("table", config.table, tables.TABLES)]
    choices += [("reading", config.reading, tables.READINGS)]
    choices += [("datasets", dataset, _DATASETS) for dataset in config.datasets]
    if config.scale.preset is not None:
        choices += [("scale.preset", config.scale.preset, presets.EVALUATION)]
    references = {row.name.split("-", 1)[1] for row in tables.PAPER}
    choices += [("matched_reference", config.matched_reference, references)]
    for name, value, known in choices:
        if value not in known:
            raise InputError(unknown_name(name, str(value), [str(k) for k in known]))
    for name, value in config.scale.items():
        if name != "preset" and value is not None and value < (name != "num_examples"):
            raise InputError(f"scale.{name}={value}: use a whole number of at least 1")
    if len(set(config.datasets)) != len(config.datasets) or not config.datasets:
        raise InputError(f"datasets={config.datasets}: name each data set once")


def _match_cost(config, row, run):
    """Sets the run's epochs so that it costs what the reference does."""
    reference = next(
        r for r in tables.PAPER if r.name.endswith(f"-{config.matched_reference}")
    )
    theirs = run_config(config, reference._replace(dataset=row.dataset))
    budget = cost.gradient_evaluations(resolve(theirs))
    return {
        "reference": config.matched_reference,
        "gradient_evaluations": budget,
        "ratio": cost.match(run, budget),
    }


def _name(config, row):
    """The row's name, with what else makes it another model."""
    name = row.name
    if row.printed_temperatures and config.reading == "released":
        name += "-released"
    return name + ("-matched" if config.matched_cost else "")


def _identity(config, row, matched):
    """What variant.json says of a variant."""
    return {
        "table": config.table,
        **row._asdict(),
        "reading": config.reading if row.printed_temperatures else None,
        "num_moves": tables.num_moves(row, config.reading),
        "paper_log_p": tables.PAPER.get(row),
        "matched_cost": matched,
        "scale": config.scale.to_dict(),
    }


def _first(value, other):
    """The value, or the other where it is None."""
    return other if value is None else value
