"""Differences of log p(x) between runs, paired over the test images they share.

The images vary far more among themselves than two models do on one of them, so the
error of a difference is much smaller than that of either mean.
"""

import itertools

import numpy as np


def paired(first, second):
    """The difference of two runs' mean log p(x), first less second.

    Args:
        first: a run's results.json.
        second: another's; where it has more test images, the first ones count.

    Returns:
        (difference, standard error), nats. The error is that over images of the
        difference of the replicates' means and, where a run has several replicates,
        that over its replicates, added in squares; a single replicate adds nothing,
        which leaves out what another seed would change. None where the runs do not
        share their test images.
    """
    if identity(first) != identity(second):
        return None
    values = [_values(results) for results in (first, second)]
    num = min(array.shape[1] for array in values)
    if num < 2:
        return None
    a, b = (array[:, :num] for array in values)
    each = np.mean(a, axis=0) - np.mean(b, axis=0)
    variance = np.var(each, ddof=1) / num
    for array in (a, b):
        if len(array) > 1:
            variance += np.var(np.mean(array, axis=1), ddof=1) / len(array)
    return float(np.mean(each)), float(np.sqrt(variance))


def markdown(runs):
    """A table for each data set: every run less every other.

    Args:
        runs: list of (label, results.json), in the order of the table.

    Returns:
        Lines of Markdown; none where no two runs share their test images. Runs of one
        replicate are marked.
    """
    lines = []
    mark = lambda r: "" if len(r["replicates"]) > 1 else " (one seed)"
    runs = [(name + mark(results), results) for name, results in runs]
    for dataset in dict.fromkeys(r["config"]["dataset"] for _, r in runs):
        theirs = [(n, r) for n, r in runs if r["config"]["dataset"] == dataset]
        pairs = {
            (a, b): found
            for (a, first), (b, second) in itertools.permutations(theirs, 2)
            if (found := paired(first, second))
        }
        names = [name for name, _ in theirs if any(name in pair for pair in pairs)]
        if not names:
            continue
        lines += ["", f"### {dataset}", "", _row(["less", *names])]
        lines.append(_row(["---"] * (len(names) + 1)))
        for a in names:
            cells = [_cell(pairs.get((a, b))) for b in names]
            lines.append(_row([a, *cells]))
    return lines


def identity(results):
    """What decides which pixels were evaluated."""
    dataset = results["config"]["dataset"]
    return dataset, results["data"]["digest"], results["evaluation"]["seed"]


def _values(results):
    """Values of log p(x) f64[R, N]; N = 0 where they were not kept."""
    parts = [part["test"]["log_p"] for part in results["replicates"]]
    return np.array([part.get("per_example", []) for part in parts], np.float64)


def _row(cells):
    return "| " + " | ".join(cells) + " |"


def _cell(found):
    return "" if found is None else f"{found[0]:+.2f} ± {found[1]:.2f}"
