"""Runs as lines of the report, in the order of the paper's tables."""

import numpy as np
import pandas as pd

from experiments.paper import variants
from experiments.paper.results import NEUTRAL
from experiments.paper.tables import PAPER, TABLES, Row, match, rows
from experiments.run.settings import flatten, resolve

_KEYS = list(Row._fields)
COLUMNS = [  # those of tables.csv; None was not measured
    *("table", *_KEYS, "reading", "paper_log_p", "status"),
    *("log_p", "error_over_replicates", "error_over_images", "monte_carlo_error"),
    *("gap", "gap_error", "num_replicates", "num_images", "epochs", "steps"),
    *("batch_size", "gradient_evaluations", "training_seconds", "evaluation_seconds"),
    *("preconditioner", "seed", "data", "source", "device", "departures", "run"),
]


def moments(results: dict) -> dict:
    """The numbers of a results.json over its replicates.

    The error over replicates is that of their mean, None for a single one. The others
    are those of one replicate, averaged: replicates share their test images.
    """
    parts = results["replicates"]
    tests = [part["test"] for part in parts]
    gaps = [part["bidirectional"] for part in parts if "bidirectional" in part]
    means = [test["log_p"]["mean"] for test in tests]
    error = None
    if len(means) > 1:
        error = float(np.std(means, ddof=1) / np.sqrt(len(means)))
    return {
        "log_p": _mean(means),
        "error_over_replicates": error,
        "error_over_images": _mean([test["log_p"]["standard_error"] for test in tests]),
        "monte_carlo_error": _mean([test["log_p"]["monte_carlo"] for test in tests]),
        "gap": _mean([np.ravel(gap["gap"])[-1] for gap in gaps]),
        "gap_error": _mean([np.ravel(gap["gap_error"])[-1] for gap in gaps]),
        "num_replicates": len(parts),
        "num_images": tests[0]["num_examples"],
    }


def line(run):
    """A `results.Run` as a line of the report: dict of `COLUMNS`, without its table."""
    results, variant = run.results, run.variant
    if results is None:
        row = Row(*(variant[key] for key in _KEYS))
        status = f"failed: {variant['failure']}"
        return _line(row, variant["reading"], run=run.name, status=status)
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
        departures=departures(run),
        run=run.name,
    )


def arrange(lines: list[dict]) -> pd.DataFrame:
    """Lines in the order of the paper's tables, "not run" where there is none.

    Each stands once for each table that has its row; those of no table come last.
    """
    lines = pd.DataFrame(lines, columns=COLUMNS, dtype=object)
    names = ["table", *_KEYS, "paper_log_p"]
    order = [
        (table, *row, PAPER.get(row))
        for table in TABLES
        for dataset in _datasets(table, lines)
        for row in rows(table, dataset)
    ]
    order = pd.DataFrame(order, columns=names, dtype=object)
    measured = lines.drop(columns=["table", "paper_log_p"])
    whole = order.merge(measured, how="left", on=_KEYS)
    whole["status"] = whole["status"].fillna("not run")
    others = lines[~lines["run"].isin(whole["run"])]
    whole = pd.concat([whole, others], ignore_index=True)[COLUMNS].astype(object)
    return whole.where(whole.notna(), None)


def departures(run):
    """What a run does otherwise than the authors, as text."""
    matched = run.results and match(run.results["config"])
    if not matched:
        return ""
    ours = flatten(run.results["config"])
    theirs = flatten(resolve(variants.protocol_config(*matched)).saved)
    return "; ".join(
        f"{name} {ours[name]} for {theirs[name]}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name] and not name.startswith(NEUTRAL)
    )


def _datasets(table, lines):
    """The data sets of a table: the paper's, and others that have rows of it."""
    paper = TABLES[table].PAPER
    ran = {Row(*values) for values in lines[_KEYS].itertuples(index=False)}
    others = []
    for dataset in sorted(set(lines["dataset"]) - paper.keys()):
        new = set(rows(table, dataset))
        if table > 1:
            new -= set(rows(1, dataset))
        if new & ran:
            others.append(dataset)
    return (*paper, *others)


def _mean(values):
    return float(np.mean(values)) if values else None


def _line(row, reading, **values):
    known = {"reading": reading, "paper_log_p": PAPER.get(row), **row._asdict()}
    return dict.fromkeys(COLUMNS) | known | values
