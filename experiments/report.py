"""The paper's tables and figures from the results of runs, beside the paper's numbers.

python -m experiments.report RUN_OR_DIR... --out=DIR

Only results.json, metrics.jsonl, config.json and variant.json are read, so that a
report can be made again from what `--export` copied.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import cli, differences, pooling, tables
from experiments.cli import InputError

FILES = ("results.json", "config.json", "variant.json")
NEUTRAL = (  # settings that make no other result, or are reported by themselves
    *("seed", "num_replicates", "data_dir", "sharding", "training.steps_per_row"),
    *("training.checkpoint_seconds", "training.evaluate_epochs", "training.block_rows"),
    *("evaluation.seed", "evaluation.chunk_size", "evaluation.gap_threshold"),
    "evaluation.preset",
)
MAX_ROWS = 500  # of an exported metrics.jsonl
MAX_BYTES = 300_000  # of an exported plot
_DIFFERENCES = """
## Differences

Test log p(x) of a line's run less that of a column's, in nats, over the test images
they share: ± the standard error over images (paired) and replicates together. Of a run
of one seed, what another seed would change is not in the error.
"""


class Run(NamedTuple):
    """One run's files.

    Attributes:
        name: unique in the report: its folder's name, with a number where needed.
        folder: a `Path`.
        results: results.json, or None where the run failed.
        variant: variant.json, or None for a run that no sweep made.
        curve: rows of metrics.jsonl that hold a test log p(x).
    """

    name: str
    folder: Path
    results: dict[str, Any] | None
    variant: dict[str, Any] | None
    curve: list[dict[str, Any]]


def main(folders):
    """Writes the report of the folders given on the command line."""
    args = flags.FLAGS
    found = collect(folders)
    if args.export:
        export(found, args.export)
    write(found, args.out)
    print(f"{len(found)} runs; see {Path(args.out) / 'report.md'}")


def collect(paths):
    """The runs in folders and in the folders below, without doubles.

    Args:
        paths: folders.

    Returns:
        List of `Run`, by name.

    Raises:
        InputError: where a folder is missing or holds no results.
    """
    if not paths:
        raise InputError("name the folder of a run or of a sweep")
    folders = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path} is no folder: name that of a run or of a sweep")
        inside = [f.parent for name in FILES for f in path.rglob(name)]
        inside = [folder for folder in inside if _load(folder)]
        if not inside:
            raise InputError(
                f"{path} holds no results: run experiments.sweep or experiments.main"
            )
        folders += [folder.resolve() for folder in inside]
    found, seen, names = [], set(), set()
    for folder in sorted(set(folders), key=lambda f: (f.name, str(f))):
        results, variant = _load(folder)
        content = json.dumps([results, variant], sort_keys=True, default=str)
        if content in seen:
            continue
        seen.add(content)
        name, number = folder.name, 2
        while name in names:
            name, number = f"{folder.name}-{number}", number + 1
        names.add(name)
        found.append(Run(name, folder, results, variant, _curve(folder)))
    return sorted(found, key=lambda run: run.name)


def write(found, out):
    """Writes report.md, tables.csv and the figures; runs of other seeds are pooled.

    Args:
        found: list of `Run`.
        out: the folder to write.

    Returns:
        The table's lines: list of dicts, as in tables.csv.
    """
    from experiments import runs

    runs.prepare(out)
    out = Path(out)
    found = pooling.pool(found, NEUTRAL)
    made = [
        tables.line(run.name, run.results, run.variant, _departures(run))
        for run in found
    ]
    whole = tables.arrange(made)
    with open(out / "tables.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tables.COLUMNS)
        writer.writeheader()
        writer.writerows(whole)
    figures = _figures(found, made, out)
    text = tables.markdown(whole)
    pairs = differences.markdown(
        [(run.name, run.results) for run in found if run.results]
    )
    if pairs:
        text += _DIFFERENCES + "\n".join(pairs) + "\n"
    if figures:
        text += "\n## Figures\n\n" + "\n".join(f"![{f}]({f})" for f in figures) + "\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    return whole


def export(found, folder):
    """Copies what a report needs, small enough to be committed.

    Of metrics.jsonl the rows with a test log p(x) are kept, and so many others that
    there are about `MAX_ROWS`.

    Args:
        found: list of `Run`.
        folder: the folder to write, with one folder for each run.
    """
    from experiments import runs

    runs.prepare(folder)
    for run in found:
        target = Path(folder) / run.name
        if target.resolve() == run.folder:
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (run.folder / name).exists():
                shutil.copyfile(run.folder / name, target / name)
        if (run.folder / "metrics.jsonl").exists():
            _thin(run.folder / "metrics.jsonl", target / "metrics.jsonl")
        for plot in sorted((run.folder / "plots").glob("*.png")):
            if plot.stat().st_size <= MAX_BYTES:
                (target / "plots").mkdir(exist_ok=True)
                shutil.copyfile(plot, target / "plots" / plot.name)


def _load(folder):
    """(results, variant) of a run's folder, or None where it holds neither.

    Raises:
        InputError: for a file that is not JSON.
    """
    from experiments.metrics import read_json

    content = []
    for name in ("results.json", "variant.json"):
        path = folder / name
        try:
            content.append(read_json(path) if path.exists() else None)
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}") from error
    results, variant = content
    if results is not None and not results.keys() >= {"test_log_p", "replicates"}:
        return None  # another program's, such as figure1's
    has_failed = variant is not None and variant["failure"]
    return (results, variant) if results or has_failed else None


def _curve(folder):
    from experiments.metrics import read_metrics

    path = folder / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return [row for row in rows if "test_log_p" in row]


def _thin(source, target):
    """Copies metrics.jsonl with fewer rows."""
    rows = source.read_text(encoding="utf-8").splitlines(keepends=True)
    every = max(1, len(rows) // MAX_ROWS)
    kept = [
        row
        for i, row in enumerate(rows)
        if '"test_log_p"' in row or (len(rows) - 1 - i) % every == 0
    ]
    target.write_text("".join(kept), encoding="utf-8")


def _departures(run):
    """What a run does otherwise than the authors, as text."""
    from experiments import builders, runs, variants

    found = run.results and tables.match(run.results["config"])
    if not found:
        return ""
    protocol = variants.protocol_config(*found)
    settings = builders.evaluation_settings(protocol)
    theirs = runs.flatten({**runs.plain(protocol), "evaluation": settings})
    evaluation = run.results["evaluation"]
    ours = runs.flatten({**run.results["config"], "evaluation": evaluation})
    differ = [
        f"{name} {ours[name]} for {theirs[name]}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name] and not name.startswith(NEUTRAL)
    ]
    matched = (run.variant or {}).get("matched_cost")
    if matched:
        differ = [text for text in differ if not text.startswith("num_epochs ")]
        differ.append(f"gradient evaluations as many as {matched['reference']}'s")
    return "; ".join(differ)


def _figures(found, made, out):
    """Plots log p(x) against cost and epochs; returns the files' names.

    Final results of runs that all have as many epochs are plotted against cost alone.
    """
    from experiments import plots

    series = {}
    for run, line in zip(found, made):
        for column in ("gradient_evaluations", "epochs"):
            if line["log_p"] is not None:
                name = f"final-{line['dataset']}-{column}.png"
                series.setdefault((name, column), []).append((run, line))
            if run.curve:
                name = f"curves-{line['dataset']}-K{line['num_samples']}-{column}.png"
                series.setdefault((name, column), []).append((run, line))
    series = {
        (name, column): members
        for (name, column), members in sorted(series.items())
        if name != f"final-{members[0][1]['dataset']}-epochs.png"
        or len({line["epochs"] for _, line in members}) > 1
    }
    for (name, column), members in series.items():
        is_final = name.startswith("final")
        plots.line_plot(
            (_finals if is_final else _curves)(members, column),
            out / name,
            xlabel=column.replace("_", " "),
            ylabel=f"test log p(x){'' if is_final else ', quick estimate'} (nats)",
            logx=column == "gradient_evaluations",
        )
    return [name for name, _ in series]


def _finals(members, column):
    """Series of final results, one for each method and setting, over K."""
    groups, series = {}, {}
    for _, line in members:
        key = (tables.label(line), line["reading"], line["data"], line["departures"])
        groups.setdefault(tuple(map(str, key)), []).append(line)
    for (label, *_), group in sorted(groups.items()):
        group.sort(key=lambda line: line[column])
        over_runs = [line["error_over_replicates"] for line in group]
        over_images = [line["error_over_images"] for line in group]
        series[f"{label} ({group[0]['run']})" if label in series else label] = (
            [line[column] for line in group],
            [line["log_p"] for line in group],
            over_images if None in over_runs else over_runs,
        )
    return series


def _curves(members, column):
    """Series of learning curves, one for each run of one K."""
    import numpy as np

    series = {}
    for run, line in members:
        label = tables.label(line)
        series[f"{label} ({run.name})" if label in series else label] = (
            [row["epoch" if column == "epochs" else column] for row in run.curve],
            [float(np.mean(row["test_log_p"])) for row in run.curve],
            None,
        )
    return series


if __name__ == "__main__":
    flags.DEFINE_string("out", "report", "Folder to write.")
    flags.DEFINE_string("export", None, "Folder for copies without checkpoints.")
    cli.run(main, takes_names=True)
