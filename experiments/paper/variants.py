"""From a sweep's config to its variants: one run's config each, its cost, its shard.

Cost is counted in gradient evaluations (`Estimator.gradient_evaluations`), passes
forward and backward through log p(x, z) for an image.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from ais_jax.checks import unknown_name
from configs import default, table1
from experiments.data import load
from experiments.paper import tables
from experiments.paper.tables import Row
from experiments.run import build
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


def expand(config):
    """The variants of a sweep, in the paper's order."""
    _check(config)
    return [
        variant(config, row)
        for dataset in config.datasets
        for row in tables.rows(config.table, dataset)
    ]


def variant(config, row):
    """A row's `Variant`."""
    run = run_config(config, row)
    return counted(_name(config, row), row, run, _identity(config, row))


def counted(name: str, row: Row | None, config: ConfigDict, identity: dict) -> Variant:
    """A `Variant` with what its training costs."""
    settings = resolve(config)
    steps = settings.num_epochs * _steps_per_epoch(settings)
    total = gradient_evaluations(settings)
    return Variant(name, row, config, settings, identity, steps, total)


def gradient_evaluations(settings: Settings) -> int:
    """Gradient evaluations of the whole training of one replicate."""
    num_train, shape = load.sizes(settings.dataset, settings.data_dir)
    num_steps = settings.num_epochs * _steps_per_epoch(settings)
    model = build.build_model(settings, shape)
    return build.gradient_evaluations(settings, model, num_train, num_steps)


def match(config: ConfigDict, budget: int) -> None:
    """Sets a run's epochs to those whose gradient evaluations are nearest."""
    total = gradient_evaluations(resolve(config))
    guess = round(config.num_epochs * budget / total)  # late moves cost more

    def distance(num_epochs):
        config.num_epochs = num_epochs
        return abs(gradient_evaluations(resolve(config)) - budget)

    config.num_epochs = min(range(max(1, guess - 1), guess + 2), key=distance)


def _steps_per_epoch(settings):
    num_train, _ = load.sizes(settings.dataset, settings.data_dir)
    build.check_batch_size(settings, num_train)
    return num_train // settings.batch_size


def run_config(config: ConfigDict, row: Row) -> ConfigDict:
    """The config of one row's run."""
    run = default.get_config(row.method)
    shared = config.to_dict()
    preconditioner = shared.pop("estimator")["preconditioner"]
    run.update({k: v for k, v in shared.items() if k in run})
    run.dataset = row.dataset
    run.estimator.update(tables.estimator_settings(row, config.reading))
    if row.printed_temperatures:
        run.estimator.preconditioner = preconditioner
    if not row.printed_temperatures:
        run.batch_size = config.dreg_batch_size
    return run


def protocol_config(row: Row, reading: str | None) -> ConfigDict:
    """The config by which the paper's authors would have trained a row.

    Of the digits, which are not the paper's, that of `configs/table1.py:digits`.
    """
    config = table1.get_config("digits" if row.dataset == "digits" else "")
    config.reading = reading or config.reading
    return run_config(config, row)


def shard(variants: list[Variant], index: int, count: int) -> list[Variant]:
    """The variants of machine `index` of `count` (from 1), dealt round by their cost.

    Nothing but the config enters, so that all machines agree.
    """

    def order(variant):
        cost = variant.gradient_evaluations * variant.settings.num_replicates
        return -cost, variant.name

    dealt = sorted(variants, key=order)
    mine = {v.name for v in dealt[index - 1 :: count]}
    return [v for v in variants if v.name in mine]


def _check(config):
    if "table" not in config:
        raise InputError(
            "--config is no sweep's: use configs/table1.py, table2.py or compare.py, "
            "or give --over"
        )
    choices = [("table", config.table, tables.TABLES)]
    choices += [("reading", config.reading, tables.READINGS)]
    choices += [("datasets", dataset, _DATASETS) for dataset in config.datasets]
    for name, value, known in choices:
        if value not in known:
            raise InputError(unknown_name(name, str(value), [str(k) for k in known]))
    if len(set(config.datasets)) != len(config.datasets) or not config.datasets:
        raise InputError(f"datasets={config.datasets}: name each data set once")


def _name(config, row):
    """The row's name, with what else makes it another model."""
    is_other = row.printed_temperatures and config.reading == "released"
    return row.name + "-released" * bool(is_other)


def _identity(config, row):
    """What variant.json says of a variant."""
    return {
        "table": config.table,
        **row._asdict(),
        "reading": config.reading if row.printed_temperatures else None,
        "num_moves": tables.num_moves(row, config.reading),
        "paper_log_p": tables.PAPER.get(row),
    }
