"""The paper's tables: their rows and numbers, and which row a run belongs to."""

from typing import NamedTuple

from configs import table1, table2
from configs.default import get_config

METHODS = {"dreg": "IWAE-DReG", "ais": "AIS", "mh_hmc": "MH-HMC"}
NUM_LEAPFROG = 5
READINGS = {"increments": 0, "released": 1}  # reading of T -> T less the moves


class Row(NamedTuple):
    """One trained model of the tables."""

    dataset: str
    method: str  # a key of `METHODS`
    num_samples: int  # K
    # T as the paper prints it, or None for IWAE-DReG; how many moves it means is a
    # matter of reading
    printed_temperatures: int | None = None

    @property
    def name(self):
        """The row as a folder's name, such as omniglot-ais-K5-T11."""
        name = f"{self.dataset}-{self.method}-K{self.num_samples}"
        return name + (
            f"-T{self.printed_temperatures}" if self.printed_temperatures else ""
        )


TABLES = {1: table1, 2: table2}
TITLES = {
    1: "IWAE-DReG and AIS",
    2: "IWAE-DReG, MH-HMC and AIS at the same computational cost",
}
PAPER = {  # Row -> test log p(x) of the paper, nats
    Row(dataset, *row): log_p
    for table in TABLES.values()
    for dataset, numbers in table.PAPER.items()
    for row, log_p in zip(table.ROWS, numbers, strict=True)
}


def rows(table, dataset):
    """The rows of a table (1 or 2) for any data set, in the paper's order."""
    return [Row(dataset, *row) for row in TABLES[table].ROWS]


def num_moves(row, reading):
    """HMC moves of a row's chains, as many as increments; 0 for IWAE-DReG.

    The reading 'increments' makes T of them, 'released', the authors'
    `linspace(0, 1, T)`, T - 1.
    """
    printed = row.printed_temperatures
    return printed - READINGS[reading] if printed else 0


def estimator_settings(row, reading):
    """The settings of `config.estimator`, but the preconditioner, that make a row."""
    settings = {"num_samples": row.num_samples}
    if row.printed_temperatures:
        settings["num_temperatures"] = num_moves(row, reading)
        settings["num_leapfrog"] = NUM_LEAPFROG
    defaults = get_config(row.method).estimator.to_dict()
    defaults.pop("preconditioner", None)
    return defaults | settings


def match(config):
    """(row, reading of T or None) of a saved config, by its data set and estimator.

    A run that has the paper's settings otherwise, but a K, T or method that is in
    neither table, is a row by itself. None where it is no such run.
    """
    dataset, estimator = config["dataset"], dict(config["estimator"])
    estimator.pop("preconditioner", None)
    alone = Row(
        dataset,
        estimator["name"],
        estimator["num_samples"],
        estimator.get("num_temperatures"),
    )
    for row in (*rows(1, dataset), *rows(2, dataset), alone):
        for reading in READINGS if row.printed_temperatures else (None,):
            if estimator_settings(row, reading) == estimator:
                return row, reading
    return None


def label(method, printed_temperatures, num_samples=None):
    """A method as the paper names it, with K and T."""
    parts = [METHODS.get(method, method)]
    parts += [f"K={num_samples}"] * bool(num_samples)
    parts += [f"T={printed_temperatures}"] * bool(printed_temperatures)
    return " ".join(parts)
