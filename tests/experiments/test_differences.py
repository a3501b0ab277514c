"""Paired differences of runs: their arithmetic, and which runs may be compared."""

import numpy as np
import pytest

from experiments.paper import differences


def results(values, dataset="omniglot", digest="abc", seed=0):
    """The part of results.json that counts, of log p(x) [R, N]."""
    parts = [{"test": {"log_p": {"per_example": list(row)}}} for row in values]
    return {
        "config": {"dataset": dataset, "evaluation": {"seed": seed}},
        "data": {"digest": digest},
        "replicates": parts,
    }


def test_images_that_two_runs_share_cancel():
    rng = np.random.default_rng(0)
    images = rng.normal(-100.0, 30.0, 50)
    noise = rng.normal(1.0, 0.1, 50)
    difference, error = differences.paired(results([images + noise]), results([images]))
    assert difference == pytest.approx(np.mean(noise))
    assert error == pytest.approx(np.std(noise, ddof=1) / np.sqrt(50))


def test_replicates_add_their_own_error():
    first = np.array([[-1.0, -2.0, -3.0], [-3.0, -4.0, -5.0]])  # means -2, -4
    second = np.array([[-5.0, -6.0, -9.0]])
    difference, error = differences.paired(results(first), results(second))
    each = np.array([3.0, 3.0, 5.0])
    assert difference == pytest.approx(np.mean(each))
    variance = np.var(each, ddof=1) / 3 + np.var([-2.0, -4.0], ddof=1) / 2
    assert error == pytest.approx(np.sqrt(variance))


def test_the_first_images_count_where_one_run_has_more():
    long, short = results([[-1.0, -2.0, -90.0]]), results([[-2.0, -4.0]])
    assert differences.paired(long, short)[0] == pytest.approx(1.5)
    assert differences.paired(short, long)[0] == pytest.approx(-1.5)


def test_the_images_that_both_runs_evaluated_are_paired():
    some, all_of_them = results([[-7.0, -3.0]]), results([[-1.0, -2.0, -90.0, -5.0]])
    some["replicates"][0]["test"]["images"] = [3, 0]
    difference, error = differences.paired(some, all_of_them)
    assert (difference, error) == (pytest.approx(-2.0), pytest.approx(0.0))
    other = results([[-7.0, -3.0]])
    other["replicates"][0]["test"]["images"] = [1, 2]
    assert differences.paired(some, other) is None


@pytest.mark.parametrize(
    "change", [{"dataset": "mnist"}, {"digest": "other"}, {"seed": 1}]
)
def test_runs_of_other_images_are_not_compared(change):
    values = [[-1.0, -2.0]]
    assert differences.paired(results(values), results(values, **change)) is None


def test_runs_that_kept_no_images_are_left_out():
    old = results([[]])
    del old["replicates"][0]["test"]["log_p"]["per_example"]
    new = results([[-1.0, -2.0]])
    assert differences.paired(old, new) is None
    assert differences.markdown([("old", old), ("new", new)]) == ""


def test_the_table_has_a_row_and_a_column_for_each_run_and_marks_single_seeds():
    pair = results([[-1.0, -2.0], [-1.0, -2.0]])
    runs = [("a", pair), ("b", results([[-2.0, -4.0]]))]
    lines = differences.markdown(runs).splitlines()
    assert lines[:3] == ["", "### omniglot", ""]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[3:]]
    assert cells[0] == ["less", "a", "b (one seed)"]
    assert cells[2:] == [
        ["a", "", "+1.50 ± 0.50"],
        ["b (one seed)", "-1.50 ± 0.50", ""],
    ]
