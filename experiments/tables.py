"""The paper's tables: their rows and numbers, and runs as lines beside them."""

from typing import NamedTuple

import numpy as np

from configs import table1, table2

METHODS = {"dreg": "IWAE-DReG", "ais": "AIS", "mh_hmc": "MH-HMC"}
NUM_LEAPFROG = 5
READINGS = {"increments": 0, "released": 1}  # reading of T -> T less the moves made


class Row(NamedTuple):
    """One trained model of the tables.

    Attributes:
        dataset: a data set's name.
        method: a key of `METHODS`.
        num_samples: K.
        num_temperatures: T as the paper prints it, or None for IWAE-DReG.
    """

    dataset: str
    method: str
    num_samples: int
    num_temperatures: int | None = None

    @property
    def name(self):
        """The row as a folder's name, such as omniglot-ais-K5-T11."""
        name = f"{self.dataset}-{self.method}-K{self.num_samples}"
        return name + (f"-T{self.num_temperatures}" if self.num_temperatures else "")


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
    """The rows of a table for one data set, in the paper's order.

    Args:
        table: 1 or 2.
        dataset: a data set's name; it need not be one of the paper's.

    Returns:
        List of `Row`.
    """
    return [Row(dataset, *row) for row in TABLES[table].ROWS]


def num_moves(row, reading):
    """HMC moves of a row's chains, as many as increments; 0 for IWAE-DReG.

    Args:
        row: a `Row`.
        reading: a key of `READINGS`: 'increments' makes T of them, 'released', the
            authors' `linspace(0, 1, T)`, T - 1.

    Returns:
        int.
    """
    return row.num_temperatures - READINGS[reading] if row.num_temperatures else 0


def estimator_settings(row, reading):
    """The settings of `config.estimator` that make a run belong to a row.

    Args:
        row: a `Row`.
        reading: a key of `READINGS`.

    Returns:
        dict of name to value; the preconditioner is left open.
    """
    settings = {"name": row.method, "num_samples": row.num_samples}
    if row.num_temperatures:
        settings["num_temperatures"] = num_moves(row, reading)
        settings["num_leapfrog"] = NUM_LEAPFROG
    own = {
        "ais": {"schedule": "linear", "final_move": True},
        "mh_hmc": {"weighting": "uniform"},
    }
    return settings | own.get(row.method, {})


def match(config):
    """The row that a run belongs to by its data set and estimator.

    Args:
        config: the run's config as nested dicts.

    Returns:
        (`Row`, reading of T or None). A run that has the paper's settings otherwise,
        but a K, T or method that is in neither table, is a row of its own. None where
        it is no such run.
    """
    estimator = dict(config["estimator"])
    estimator.pop("preconditioner", None)
    dataset = config["dataset"]
    own = (estimator[name] for name in ("name", "num_samples"))
    own = Row(dataset, *own, estimator.get("num_temperatures"))
    for row in (*rows(1, dataset), *rows(2, dataset), own):
        for reading in READINGS if row.num_temperatures else (None,):
            if estimator_settings(row, reading) == estimator:
                return row, reading
    return None


COLUMNS = (  # of tables.csv; None where something was not measured
    *("table", *Row._fields, "reading", "paper_log_p", "status"),
    *("log_p", "error_over_replicates", "error_over_images", "monte_carlo_error"),
    *("gap", "gap_error", "num_replicates", "num_images", "epochs", "steps"),
    *("batch_size", "gradient_evaluations", "training_seconds", "evaluation_seconds"),
    *("preconditioner", "seed", "data", "source", "device", "departures", "run"),
)

_LEGEND = """\
Test log p(x) in nats. `± runs` is the standard error over replicates, `± images` over
the test images, `± chains` that of the AIS estimate; `gap`, the bidirectional gap on
simulated data, says how far off it may be. Gradient evaluations and epochs are those of
one replicate, hours those of all. T is the number of increments and moves, where it
says released one more. The last column names what differs from the authors' protocol
(for the digits: from `configs/table1.py:digits`)."""
_CELLS = {  # heading -> column, format
    "model": ("model", ""),
    "paper": ("paper_log_p", ".2f"),
    "ours": ("log_p", ".2f"),
    "± runs": ("error_over_replicates", ".2f"),
    "± images": ("error_over_images", ".2f"),
    "± chains": ("monte_carlo_error", ".3f"),
    "gap": ("gap", ".3f"),
    "± gap": ("gap_error", ".3f"),
    "runs": ("num_replicates", ""),
    "images": ("num_images", ""),
    "epochs": ("epochs", ""),
    "batch": ("batch_size", ""),
    "gradient evaluations": ("gradient_evaluations", ".3g"),
    "training, h": ("training_seconds", "h"),
    "evaluation, h": ("evaluation_seconds", "h"),
    "reading of T": ("reading", ""),
    "preconditioner": ("preconditioner", ""),
    "data": ("data", ""),
    "run": ("run", ""),
    "differs by": ("departures", ""),
}


def moments(results):
    """The numbers of a run over its replicates.

    Args:
        results: its results.json.

    Returns:
        dict. The error over replicates is that of their mean, None for a single one.
        The other errors are those of one replicate, averaged: replicates share their
        test images, and so do not average that error out.
    """
    parts = results["replicates"]
    tests = [part["test"] for part in parts]
    means = [test["log_p"]["mean"] for test in tests]
    gaps = [part["bidirectional"] for part in parts if "bidirectional" in part]
    over = np.std(means, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else None
    mean = lambda values: float(np.mean(values)) if values else None
    return {
        "log_p": mean(means),
        "error_over_replicates": None if over is None else float(over),
        "error_over_images": mean([test["log_p"]["standard_error"] for test in tests]),
        "monte_carlo_error": mean([test["log_p"]["monte_carlo"] for test in tests]),
        "gap": mean([gap["gap"][-1] for gap in gaps]),
        "gap_error": mean([gap["gap_error"][-1] for gap in gaps]),
        "num_replicates": len(parts),
        "num_images": tests[0]["num_examples"],
    }


def line(name, results, variant, departures):
    """A run as a line of the report.

    Args:
        name: the run's.
        results: its results.json, or None where it failed.
        variant: its variant.json; needed only where it failed.
        departures: what it does otherwise than the authors, as text.

    Returns:
        dict of `COLUMNS`, without its table.
    """
    if results is None:
        status = f"failed: {variant['failure']}"
        return _line(_row(variant), variant["reading"], run=name, status=status)
    config, data = results["config"], results["data"]
    estimator = config["estimator"]
    other = Row(config["dataset"], estimator["name"], estimator["num_samples"])
    row, reading = match(config) or (other, None)
    same = ("epochs", "steps", "gradient_evaluations", "training_seconds")
    return _line(
        row,
        reading,
        **moments(results),
        **{key: results[key] for key in (*same, "evaluation_seconds", "device")},
        status="run",
        batch_size=config["batch_size"],
        preconditioner=estimator.get("preconditioner"),
        seed=config["seed"],
        data=data["digest"],
        source=data["source"],
        departures=departures,
        run=name,
    )


def arrange(lines):
    """Lines in the order of the paper's tables, "not run" where there is none.

    Args:
        lines: of `line`.

    Returns:
        The lines with their table, once for each table that has their row; those of
        no table come last.
    """
    by_row = {}
    for entry in lines:
        by_row.setdefault(_row(entry), []).append(entry)
    found, placed = [], set()
    for table in TABLES:
        theirs = TABLES[table].PAPER
        others = sorted({row.dataset for row in by_row} - theirs.keys())
        for dataset in (*theirs, *others):
            own = set(rows(table, dataset))
            new = own if table == 1 else own - set(rows(1, dataset))
            if dataset in others and not new & by_row.keys():
                continue
            placed |= own
            for row in rows(table, dataset):
                missing = [_line(row, None, status="not run")]
                found += [{**e, "table": table} for e in by_row.get(row, missing)]
    return found + [entry for entry in lines if _row(entry) not in placed]


def markdown(lines):
    """The lines as Markdown, one table for each table and data set."""
    sections = {}
    for line in lines:
        sections.setdefault((line["table"], line["dataset"]), []).append(line)
    text = ["# Results beside the paper's", "", _LEGEND]
    for (table, dataset), section in sections.items():
        title = f"Table {table}: {TITLES[table]}" if table else "Other runs"
        text += ["", f"## {title}, {dataset}", "", _joined(_CELLS)]
        text.append(_joined("---" for _ in _CELLS))
        for line in section:
            text.append(_joined(_cell(line, *cell) for cell in _CELLS.values()))
    sources = {(line["data"], line["source"]) for line in lines if line["data"]}
    text += ["", *(f"- Data `{data}`: {source}" for data, source in sorted(sources))]
    return "\n".join(text) + "\n"


def _joined(cells):
    return "| " + " | ".join(cells) + " |"


def _cell(line, column, form):
    """A cell's text; empty where nothing was measured."""
    if column == "model":
        return label(line, line["num_samples"])
    if column == "log_p" and line["status"] != "run":
        return line["status"]
    value = line[column]
    if value is None:
        return ""
    return f"{value / 3600:.3g}" if form == "h" else format(value, form)


def label(line, num_samples=None):
    """A method as the paper names it, with K and T."""
    parts = [METHODS.get(line["method"], line["method"])]
    parts += [f"K={num_samples}"] * bool(num_samples)
    parts += [f"T={line['num_temperatures']}"] * bool(line["num_temperatures"])
    return " ".join(parts)


def _row(entry):
    return Row(*(entry[field] for field in Row._fields))


def _line(row, reading, **values):
    paper = PAPER.get(row)
    known = {**row._asdict(), "reading": reading, "paper_log_p": paper, **values}
    return dict.fromkeys(COLUMNS) | known
