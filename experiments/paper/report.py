"""The report: the paper's tables beside the results, and figures of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.evaluate import plots
from experiments.paper import differences, methods
from experiments.paper.lines import arrange, line
from experiments.paper.results import Run, pool
from experiments.paper.tables import TITLES, label
from experiments.system.files import prepare, write_text

_LEGEND = """\
# Results beside the paper's

Test log p(x) in nats. `± runs` is the standard error over replicates, `± images` over
the test images, `± chains` that of the AIS estimate; `gap`, the bidirectional gap on
simulated data, says how far off it may be. Gradient evaluations and epochs are those of
one replicate, hours those of all. T is the number of increments and moves, where it
says released one more. The last column names what differs from the authors' protocol
(for the digits: from `configs/table1.py:digits`).
"""
_DIFFERENCES = """
## Differences

Test log p(x) of a line's run less that of a column's, in nats, over the test images
they share: ± the standard error over images (paired) and replicates together. Of a run
of one seed, what another seed would change is not in the error.
"""
_CELLS = {  # column -> heading, format
    "model": ("model", "{}"),
    "paper_log_p": ("paper", "{:.2f}"),
    "log_p": ("ours", "{:.2f}"),
    "error_over_replicates": ("± runs", "{:.2f}"),
    "error_over_images": ("± images", "{:.2f}"),
    "monte_carlo_error": ("± chains", "{:.3f}"),
    "gap": ("gap", "{:.3f}"),
    "gap_error": ("± gap", "{:.3f}"),
    "num_replicates": ("runs", "{}"),
    "num_images": ("images", "{}"),
    "epochs": ("epochs", "{}"),
    "batch_size": ("batch", "{}"),
    "gradient_evaluations": ("gradient evaluations", "{:.3g}"),
    "training_hours": ("training, h", "{:.3g}"),
    "evaluation_hours": ("evaluation, h", "{:.3g}"),
    "reading": ("reading of T", "{}"),
    "preconditioner": ("preconditioner", "{}"),
    "data": ("data", "{}"),
    "run": ("run", "{}"),
    "departures": ("differs by", "{}"),
}


def write(runs: list[Run], out: Path) -> list[dict]:
    """Writes report.md, tables.csv, which pool runs of other seeds, and figures.

    summary.csv has a row for each run. Returns the lines of tables.csv as dicts.
    """
    prepare(out)
    out = Path(out)
    summary(runs).to_csv(out / "summary.csv", float_format="%.6g")
    every, runs = runs, pool(runs)
    lines = [line(run) for run in runs]
    whole = arrange(lines)
    whole.to_csv(out / "tables.csv", index=False)
    text = _LEGEND + _tables(whole)
    pairs = differences.markdown([(r.name, r.results) for r in runs if r.results])
    if pairs:
        text += _DIFFERENCES + pairs
    names = [*methods.draw(every, out), *_figures(runs, lines, out)]
    if names:
        text += "\n## Figures\n\n" + "\n".join(f"![{f}]({f})" for f in names) + "\n"
    write_text(out / "report.md", text)
    return whole.to_dict("records")


def summary(runs: list[Run]) -> pd.DataFrame:
    """A row for each run, by its name."""
    rows = pd.DataFrame([line(run) for run in runs]).set_index("run")
    return rows.drop(columns=["table", "source"])


def _tables(whole):
    """The lines as Markdown, one table for each table and data set."""
    text, cells = "", _cells(whole)
    for (table, dataset), rows in whole.groupby(
        ["table", "dataset"], dropna=False, sort=False
    ):
        title = "Other runs"
        if table in TITLES:
            title = f"Table {int(table)}: {TITLES[table]}"
        section = cells.loc[rows.index]
        markdown = section.to_markdown(index=False, disable_numparse=True)
        text += f"\n## {title}, {dataset}\n\n{markdown}\n"
    sources = whole[["data", "source"]].dropna().drop_duplicates().sort_values("data")
    return (
        text
        + "".join(f"\n- Data `{data}`: {source}" for data, source in sources.values)
        + "\n" * (len(sources) > 0)
    )


def _cells(whole):
    """The text of every cell; empty where nothing was measured."""
    whole = whole.assign(
        model=[
            label(e.method, e.printed_temperatures, e.num_samples)
            for e in whole.itertuples()
        ],
        training_hours=whole["training_seconds"] / 3600,
        evaluation_hours=whole["evaluation_seconds"] / 3600,
    )
    cells = pd.DataFrame(
        {
            heading: ["" if pd.isna(v) else form.format(v) for v in whole[column]]
            for column, (heading, form) in _CELLS.items()
        },
        index=whole.index,
    )
    return cells.assign(
        ours=cells["ours"].where(whole["status"] == "run", whole["status"])
    )


def _figures(runs, lines, out):
    """Plots log p(x) against cost and epochs; returns the files' names."""
    names = []
    for (name, column), members in sorted(figures(runs, lines).items()):
        is_final = name.startswith("final")
        plots.line_plot(
            (finals if is_final else _curves)(members, column),
            out / name,
            xlabel=column.replace("_", " "),
            ylabel=f"test log p(x){'' if is_final else ', quick estimate'} (nats)",
            logx=column == "gradient_evaluations",
        )
        names.append(name)
    return names


def figures(runs, lines):
    """(file's name, column of the abscissa) -> what the figure shows.

    Final results of other test images have a figure of their own. Those of runs that
    all have as many epochs are plotted against cost alone. A run that was evaluated
    several times has one learning curve.
    """
    shown, curves = {}, []
    for run, entry in zip(runs, lines):
        dataset, num_samples = entry["dataset"], entry["num_samples"]
        is_new = run.curve and run.curve not in curves
        curves.append(run.curve)
        for column in ("gradient_evaluations", "epochs"):
            if entry["log_p"] is not None:
                subset = run.results["config"]["evaluation"]["subset"]
                images = f"{entry['num_images']}-{subset}-images"
                name = f"final-{dataset}-{images}-{column}.png"
                shown.setdefault((name, column), []).append(entry)
            if is_new:
                name = f"curves-{dataset}-K{num_samples}-{column}.png"
                shown.setdefault((name, column), []).append((run, entry))
    return {
        (name, column): members
        for (name, column), members in shown.items()
        if column != "epochs"
        or not name.startswith("final")
        or len({entry["epochs"] for entry in members}) > 1
    }


def finals(lines, column):
    """Series of final results, one for each method and setting, over K.

    Errors are those over seeds; a run of one seed has none.
    """
    groups, series = {}, {}
    for entry in lines:
        key = (_method(entry), entry["reading"], entry["data"], entry["departures"])
        groups.setdefault(tuple(map(str, key)), []).append(entry)
    named = []
    for (name, *_), group in sorted(groups.items()):
        group.sort(key=lambda entry: entry[column])
        samples = ", ".join(str(entry["num_samples"]) for entry in group)
        named.append((f"{name}, K = {samples}", group))
    for name, group in _told_apart(named, lambda group: group[0]["run"]):
        errors = [entry["error_over_replicates"] for entry in group]
        series[name] = (
            [entry[column] for entry in group],
            [entry["log_p"] for entry in group],
            [np.nan if error is None else error for error in errors],
        )
    return series


def _curves(members, column):
    """Series of learning curves, one for each run of one K."""
    series, key = {}, "epoch" if column == "epochs" else column
    named = [
        (f"{_method(entry)}, K = {entry['num_samples']}", run) for run, entry in members
    ]
    for name, run in _told_apart(named, lambda run: run.name):
        seeds = np.array([np.atleast_1d(row["test_log_p"]) for row in run.curve])
        spread = np.std(seeds, axis=1, ddof=1) if seeds.shape[1] > 1 else np.nan
        series[name] = (
            [row[key] for row in run.curve],
            seeds.mean(axis=1),
            np.broadcast_to(spread / np.sqrt(seeds.shape[1]), len(seeds)),
        )
    return series


def _told_apart(named, run_name):
    """Pairs (name, item), the run's name added where several have one name."""
    names = [name for name, _ in named]
    return [
        (f"{name} ({run_name(item)})" if names.count(name) > 1 else name, item)
        for name, item in named
    ]


def _method(entry):
    """The method and T; a run of other moves than the paper's goes by its own name."""
    name = label(entry["method"], entry["printed_temperatures"])
    is_other = entry["preconditioner"] and not entry["printed_temperatures"]
    return f"{name} ({entry['run']})" if is_other else name
