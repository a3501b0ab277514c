"""The results of runs: collected from folders, copied, pooled over seeds."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.default import get_config
from experiments.paper import differences
from experiments.run.folder import read
from experiments.run.metrics import read_metrics
from experiments.run.settings import flatten
from experiments.system.errors import InputError
from experiments.system.files import prepare, to_plain

NEUTRAL = (  # settings that make no other result, or are reported by themselves
    *("seed", "num_replicates", "data_dir", "sharding", "training.steps_per_row"),
    *("training.checkpoint_seconds", "training.evaluate_epochs"),
    *("evaluation.seed", "evaluation.chunk_size", "evaluation.preset"),
)


class Run(NamedTuple):
    """One evaluation of a run, or a run that failed."""

    name: str  # unique in the report: its folder's name, with a number where needed
    folder: Path
    results: dict[str, Any] | None  # None where the run failed
    variant: dict[str, Any] | None  # variant.json, None for a run outside sweeps
    curve: list[dict[str, Any]]  # rows of metrics.jsonl that hold a test log p(x)


def collect(paths):
    """The runs in folders and in the folders below, without doubles, by name.

    A run that was evaluated several times counts once for each of its evaluations.
    """
    if not paths:
        raise InputError("name the folder of a run or of a sweep")
    folders = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path} is no folder: name that of a run or of a sweep")
        names = ("results.json", "variant.json")
        inside = {f.parent.resolve() for name in names for f in path.rglob(name)}
        loaded = {folder: _load(folder) for folder in inside}
        if not any(loaded.values()):
            raise InputError(
                f"{path} holds no results: run experiments.sweep or experiments.main"
            )
        folders |= loaded
    runs, seen = {}, set()
    for folder in sorted(folders, key=lambda f: (f.name, str(f))):
        for results, variant, replicate in folders[folder]:
            content = json.dumps([results, variant], sort_keys=True, default=str)
            if content in seen:
                continue
            seen.add(content)
            own = folder.name
            if replicate is not None:
                own += "-" + results["replicates"][0]["name"].replace(" ", "-")
            name, number = own, 2
            while name in runs:
                name, number = f"{own}-{number}", number + 1
            curve = _curve(folder, replicate)
            runs[name] = Run(name, folder, results, variant, curve)
    return [runs[name] for name in sorted(runs)]


def split(results):
    """One results.json for each replicate, where they differ in a setting."""
    parts, config = results["replicates"], results["config"]
    if "best" not in results:
        return [results]
    same = {k: v for k, v in results.items() if k != "best"}
    for name in ("training_seconds", "evaluation_seconds"):
        same[name] /= len(parts)
    each = []
    for r, part in enumerate(parts):
        optimizer = copy.deepcopy(config["optimizer"])
        for rates in (optimizer, optimizer["phi"]):
            if rates["learning_rate"]:
                own = rates["learning_rate"]
                rates["learning_rate"] = own[r : r + 1] or own
        one = {"num_replicates": 1, "seed": config["seed"] + r, "optimizer": optimizer}
        of_part = {"test_log_p": part["test"]["log_p"], "replicates": [part]}
        each.append(same | of_part | {"config": config | one})
    return each


def export(runs, folder):
    """Copies what a report reads, small enough to be committed."""
    prepare(folder)
    for run in runs:
        target = Path(folder) / run.name
        if target.resolve() == run.folder:
            continue
        target.mkdir(parents=True, exist_ok=True)
        if run.variant:
            shutil.copyfile(run.folder / "variant.json", target / "variant.json")
        if run.results:
            text = json.dumps(to_plain(_compact(run.results))) + "\n"
            (target / "results.json").write_text(text, encoding="utf-8")
        if run.curve:
            text = "".join(json.dumps(to_plain(row)) + "\n" for row in run.curve)
            (target / "metrics.jsonl").write_text(text, encoding="utf-8")


def pool(runs: list[Run]) -> list[Run]:
    """Joins the runs that differ in their seeds alone, so that seeds may be added.

    Of joined runs the names are joined by " + " and the seconds added. Runs that share
    a seed stay apart.
    """
    pools = []
    for run in runs:
        kind, seeds = _experiment(run), _seeds(run)
        for other, taken, members in pools:
            if other == kind and taken.isdisjoint(seeds):
                taken |= seeds
                members.append(run)
                break
        else:
            pools.append((kind, seeds, [run]))
    return [_join(members) for *_, members in pools]


def _load(folder):
    """[(results, variant, replicate)] of a run's folder, the newest evaluation first.

    The replicate is None but where replicates differ in a setting. The list is empty
    where the folder holds no run, and has no results of one that failed.
    """
    path = folder / "variant.json"
    variant = read(path) if path.exists() else None
    files = [folder / "results.json", *folder.glob("evaluation/*/evaluation.json")]
    evaluations = [
        (one, variant, None if one is results else r)
        for file in files
        if file.exists()
        and (results := read(file)).keys() >= {"test_log_p", "replicates"}
        for r, one in enumerate(split(_completed(results)))
    ]  # other results are another program's, such as figure1's
    if not evaluations and variant is not None and variant.get("failure"):
        return [(None, variant, None)]
    return evaluations


def _completed(results):
    """Gives the estimator the settings that are newer than the run, in place."""
    estimator = results["config"]["estimator"]
    defaults = get_config(estimator["name"]).estimator.to_dict()
    estimator.update(defaults | estimator)
    return results


def _curve(folder, replicate):
    """The rows of metrics with a test log p(x), of one replicate or all."""
    rows = read_metrics(folder / "metrics.jsonl")
    rows = [row for row in rows if "test_log_p" in row]
    if replicate is None:
        return rows
    return [row | {"test_log_p": row["test_log_p"][replicate]} for row in rows]


def _compact(results):
    """A results.json without what no report reads."""
    results = copy.deepcopy(results)
    for number, part in enumerate(results["replicates"]):
        part.get("bidirectional", {}).pop("per_example_gap", None)
        part["test"].get("iwae", {}).pop("per_example", None)
        if number:
            part["test"].pop("images", None)
    return results


def _experiment(run):
    """What the runs that are to be joined have in common, as text."""
    if run.results is None:
        return run.name
    settings = flatten(run.results["config"])
    settings = {k: v for k, v in settings.items() if not k.startswith(NEUTRAL)}
    test_set = differences.identity(run.results)
    return json.dumps((settings, test_set, run.results["steps"]), sort_keys=True)


def _seeds(run):
    """The seeds of a run; replicate r is the run of seed + r alone."""
    if run.results is None:
        return set()
    first = run.results["config"]["seed"]
    return {first + r for r in range(len(run.results["replicates"]))}


def _join(members):
    if len(members) == 1:
        return members[0]
    results = [run.results for run in members]
    seconds = ("training_seconds", "evaluation_seconds")
    together = {
        **results[0],
        **{name: sum(each[name] for each in results) for name in seconds},
        "replicates": [part for each in results for part in each["replicates"]],
    }
    return members[0]._replace(
        name=" + ".join(run.name for run in members),
        results=together,
        curve=_join_curves([run.curve for run in members]),
    )


def _join_curves(curves):
    """Rows of the steps that all curves have, with every replicate's log p(x)."""
    by_step = [{row["step"]: row for row in curve} for curve in curves]
    joined = []
    for row in curves[0]:
        rows = [steps.get(row["step"]) for steps in by_step]
        if None not in rows:
            values = np.concatenate([np.atleast_1d(r["test_log_p"]) for r in rows])
            joined.append({**row, "test_log_p": values.tolist()})
    return joined
