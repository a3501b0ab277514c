"""The methods against each other: test log p(x) by gradient evaluations spent.

Levels are of the whole test set, so that the paper's numbers stand beside them. A run
that was evaluated on the first test images is moved to the whole test set: by as much
as log p(x) differs where one model was evaluated on both.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluate.plots import curve_style
from experiments.paper.results import Run, pool
from experiments.run.settings import flatten

PAPER = {  # data set -> the paper's numbers that are drawn as lines
    "omniglot": {
        "IWAE-DReG, K=1": -109.41,
        "AIS, K=1": -103.22,
        "best of any K": -101.25,
    },
    "mnist": {"IWAE-DReG, K=1": -86.90, "AIS, K=1": -84.56, "best of any K": -83.63},
}
STYLES = {  # method -> number of its colour and marker
    **{"VAE": 8, "IWAE-DReG": 1, "MH-HMC": 2},
    **{"AIS": 3, "AIS, rate 3e-3": 6, "two long trajectories": 4, "best": 0},
}
FEW = ("IWAE-DReG", "AIS", "AIS, rate 3e-3", "best")  # of the smaller figure
SIZES = {"omniglot": 8070, "mnist": 10_000}  # test images of a data set
_ROOM = 600  # fewer test images are too few for a level


class Measured(NamedTuple):
    """A model's log p(x) over the whole test set, in nats, and what it cost."""

    method: str
    num_samples: int
    epochs: float
    gradient_evaluations: int
    log_p: float
    error: float  # standard error over seeds; one seed has theirs


def draw(runs: list[Run], out: Path) -> list[str]:
    """Draws the methods of each of the paper's data sets; returns the files' names."""
    names = []
    for dataset in PAPER:
        points = measure(runs, dataset)
        few = [point for point in points if point.method in FEW]
        for members, suffix in ((points, ""), (few, "-few")):
            if len({point.method for point in members}) > 1:
                names.append(f"methods-{dataset}{suffix}.png")
                _figure(members, PAPER[dataset], Path(out) / names[-1])
    return names


def measure(runs: list[Run], dataset: str) -> list[Measured]:
    """The models of a data set, one evaluation of each: that of the most seeds."""
    known = [run for run in runs if run.results and _is_of(run.results, dataset)]
    offset = _offset(known)
    pooled = pool(known)
    seed_deviation = _seed_deviation(pooled)
    best = {}
    for run in sorted(pooled, key=lambda run: len(run.results["replicates"])):
        results, levels = run.results, _levels(run.results)
        if levels is None and offset is None:
            continue
        if levels is None:
            levels = _means(results, "log_p") + offset
        spread = np.std(levels, ddof=1) if len(levels) > 1 else seed_deviation
        point = Measured(
            _method(results["config"]),
            results["config"]["estimator"]["num_samples"],
            results["epochs"],
            results["gradient_evaluations"],
            float(np.mean(levels)),
            float(spread / np.sqrt(len(levels))),
        )
        best[point[:4]] = point
    order = list(STYLES)
    return sorted(best.values(), key=lambda p: (order.index(p.method), p[3]))


def _is_of(results: dict[str, Any], dataset: str) -> bool:
    """Whether a run is of the data set, and of a method of the figure."""
    test = results["replicates"][0]["test"]
    return (
        results["config"]["dataset"] == dataset
        and test["num_examples"] >= _ROOM
        and _method(results["config"]) in STYLES
    )


def _method(config: dict[str, Any]) -> str | None:
    """The name of a run's method in the figure; None where it has none there."""
    estimator, optimizer = config["estimator"], config["optimizer"]
    rate = tuple(np.atleast_1d(optimizer["learning_rate"]))
    if estimator["name"] == "ais":
        if estimator["average"] == "points" and optimizer["name"] == "muon":
            is_long = estimator["final_moves"] == 2  # as `best` was before
            return "two long trajectories" if is_long else "best"
        if estimator["average"] == "points":
            return None
        if estimator["num_temperatures"] != 5:
            return None
        if rate == (3e-3,):
            return "AIS, rate 3e-3"
        return "AIS" if estimator["preconditioner"] == "unit" else None
    names = {"vae": "VAE", "dreg": "IWAE-DReG", "mh_hmc": "MH-HMC"}
    return names.get(estimator["name"])


def _levels(results: dict[str, Any]) -> np.ndarray | None:
    """Each seed's log p(x) over all test images; None where it was not estimated."""
    test = results["replicates"][0]["test"]
    if "log_p_all" in test:
        return _means(results, "log_p_all")
    is_whole = test["num_examples"] == SIZES[results["config"]["dataset"]]
    return _means(results, "log_p") if is_whole else None


def _means(results: dict[str, Any], name: str) -> np.ndarray:
    return np.array([part["test"][name]["mean"] for part in results["replicates"]])


def _offset(runs: list[Run]) -> float | None:
    """How much higher log p(x) is over all test images than over the first ones."""
    first, whole = {}, {}
    for run in runs:
        levels = _levels(run.results)
        values = _means(run.results, "log_p") if levels is None else levels
        for number, value in enumerate(values):
            (first if levels is None else whole)[_model(run.results, number)] = value
    both = first.keys() & whole.keys()
    return float(np.mean([whole[m] - first[m] for m in both])) if both else None


def _model(results: dict[str, Any], number: int) -> str:
    """What trained a replicate, as text: all settings but those of evaluations."""
    trained = {
        name: value
        for name, value in flatten(results["config"]).items()
        if not name.startswith(("evaluation", "num_replicates", "seed", "data_dir"))
        and "force_precision" not in name
    }
    return str((sorted(trained.items(), key=str), results["config"]["seed"] + number))


def _seed_deviation(runs: list[Run]) -> float:
    """The standard deviation between seeds, nats, from all runs of several."""
    means = [_means(run.results, "log_p") for run in runs]
    variances = [np.var(values, ddof=1) for values in means if len(values) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else 0.0


def _figure(points: list[Measured], paper: dict[str, float], path: Path) -> None:
    """One line a method with its band, and the paper's numbers as horizontal ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for method, number in STYLES.items():
        members = [point for point in points if point.method == method]
        if members:
            _line(axes, members, curve_style(number))
    for name, value in paper.items():
        axes.axhline(value, color="0.4", linewidth=0.9, linestyle=":")
        where = {"xy": (0.005, value), "xycoords": ("axes fraction", "data")}
        axes.annotate(f"paper: {name}", **where, va="bottom", fontsize=7.5, color="0.3")
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.08)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axes.set_xlabel("gradient evaluations")
    axes.set_ylabel("log p(x) over the whole test set (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)


def _line(axes: Any, members: list[Measured], style: dict[str, str]) -> None:
    """A method's models, each with its K or its epochs, and a band of one error."""
    from matplotlib.patheffects import withStroke

    x = np.array([point.gradient_evaluations for point in members])
    y = np.array([point.log_p for point in members])
    error = np.array([point.error for point in members])
    axes.errorbar(
        x, y, error, label=members[0].method, markersize=5, capsize=3, **style
    )
    axes.fill_between(x, y - error, y + error, color=style["color"], alpha=0.2, lw=0)
    is_over_k = len({point.num_samples for point in members}) > 1
    for point in members:
        text = f"K = {point.num_samples}" if is_over_k else f"{point.epochs:g} epochs"
        places = {"MH-HMC": (5, 5, "left"), "best": (-5, 5, "right")}  # of others' way
        *offset, side = places.get(point.method, (5, -11, "left"))
        place = {"xytext": offset, "textcoords": "offset points", "ha": side}
        xy = (point.gradient_evaluations, point.log_p)
        halo = {"path_effects": [withStroke(linewidth=3, foreground="white")]}
        axes.annotate(text, xy, **place, **halo, fontsize=7.5, color=style["color"])
