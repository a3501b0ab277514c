"""Differences of log p(x) between runs, paired over the test images they share.

The images vary far more among themselves than two models do on one of them, so the
error of a difference is much smaller than that of either mean.
"""

import numpy as np
import pandas as pd


def paired(first, second):
    """(difference, standard error) of two runs' mean log p(x), the second's subtracted.

    The error is that over images of the difference of the replicates' means and, where
    a run has several replicates, that over its replicates, added in squares; a single
    replicate adds nothing, which leaves out what another seed would change. Where one
    has more test images, the first ones count. None where the runs do not share theirs.
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
    """A Markdown table for each data set: every run less every other.

    Runs, (label, results.json), of one replicate are marked. It is empty where no two
    share their test images.
    """
    text, by_dataset = "", {}
    for name, results in runs:
        mark = "" if len(results["replicates"]) > 1 else " (one seed)"
        runs_of = by_dataset.setdefault(results["config"]["dataset"], {})
        runs_of[name + mark] = results
    for dataset, runs_of in by_dataset.items():
        cells = pd.DataFrame(
            [[_cell(a, b) for b in runs_of.values()] for a in runs_of.values()],
            index=pd.Index(runs_of, name="less"),
            columns=list(runs_of),
        )
        shared = (cells != "").any()
        if shared.any():
            table = cells.loc[shared, shared].to_markdown(disable_numparse=True)
            text += f"\n### {dataset}\n\n{table}\n"
    return text


def identity(results):
    """What decides which pixels were evaluated."""
    config = results["config"]
    return config["dataset"], results["data"]["digest"], config["evaluation"]["seed"]


def _values(results):
    """Values of log p(x) f64[R, N]; N = 0 where they were not kept."""
    parts = [part["test"]["log_p"] for part in results["replicates"]]
    return np.array([part.get("per_example", []) for part in parts], np.float64)


def _cell(first, second):
    difference = None if first is second else paired(first, second)
    return "" if difference is None else "{:+.2f} ± {:.2f}".format(*difference)
