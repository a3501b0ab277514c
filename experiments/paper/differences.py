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
    replicate adds nothing, which leaves out what another seed would change. The images
    that both have count. None where there are fewer than two.
    """
    if identity(first) != identity(second):
        return None
    (a, images), (b, others) = map(_values, (first, second))
    both, places, other_places = np.intersect1d(images, others, return_indices=True)
    num = len(both)
    if num < 2:
        return None
    a, b = a[:, places], b[:, other_places]
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
            [[cell(a, b) for b in runs_of.values()] for a in runs_of.values()],
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
    """Values of log p(x) f64[R, N] and their images i[N]; N = 0 where none was kept."""
    tests = [part["test"] for part in results["replicates"]]
    values = [test["log_p"].get("per_example", []) for test in tests]
    values = np.array(values, np.float64)
    images = tests[0].get("images", np.arange(values.shape[1]))
    return values, images[: values.shape[1]]


def cell(first, second):
    """The difference of two runs as text; empty of a run and itself."""
    difference = None if first is second else paired(first, second)
    return "" if difference is None else "{:+.2f} ± {:.2f}".format(*difference)
