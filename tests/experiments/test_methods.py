"""The figure of methods: levels over the whole test set, from hand-written runs."""

from pathlib import Path

import pytest

from experiments.evaluate.plots import curve_style
from experiments.paper import methods
from experiments.paper.results import Run, collect

ROOT = Path(__file__).parents[2]


def run(folder, log_p, whole=None, seed=0, cost=100, num_examples=1000, **estimator):
    """A run of Omniglot by AIS at T = 5, of one seed for each value of `log_p`."""
    settings = {
        **{"name": "ais", "num_samples": 1, "num_temperatures": 5, "average": "end"},
        **{"preconditioner": "unit"},
    }
    tests = [{"log_p": {"mean": m}, "num_examples": num_examples} for m in log_p]
    if whole is not None:
        tests = [{**test, "log_p_all": {"mean": m}} for test, m in zip(tests, whole)]
    subset = "first" if whole is None else "random"
    results = {
        "config": {
            "dataset": "omniglot",
            "seed": seed,
            "estimator": settings | estimator,
            "optimizer": {"name": "adam", "learning_rate": [1e-3]},
            "evaluation": {"subset": subset, "seed": 0},
        },
        "replicates": [{"test": test} for test in tests],
        **{"epochs": 10, "steps": 10, "gradient_evaluations": cost},
        "data": {"digest": "abc", "source": ""},
    }
    return Run(folder, Path(folder), results, None, [])


def test_levels_of_the_first_images_are_moved_to_the_whole_test_set():
    runs = [
        run("both", [-106.0, -105.0]),
        run("both-whole", [-101.0], whole=[-103.0]),
        run("other", [-110.0], cost=300, name="dreg"),
    ]
    dreg, ais = methods.measure(runs, "omniglot")
    assert dreg.log_p == pytest.approx(-107.0)  # seed 0 is 3 nats higher over all
    assert ais.log_p == pytest.approx(-102.5)  # of the evaluation of more seeds
    assert ais.error == pytest.approx(0.5)
    assert dreg.error == pytest.approx(0.5**0.5)  # as other seeds lie


def test_runs_on_few_images_or_of_other_methods_are_left_out():
    runs = [run("few", [-1.0], num_examples=300), run("T", [-1.0], num_temperatures=11)]
    assert methods.measure([*runs, run("K", [-1.0], whole=[-2.0])], "mnist") == []
    (only,) = methods.measure([*runs, run("K", [-1.0], whole=[-2.0])], "omniglot")
    assert only.log_p == -2.0


def test_a_run_on_all_images_stays_where_it_is():
    runs = [run("first", [-106.0]), run("all", [-103.0], num_examples=8070, cost=200)]
    assert [p.log_p for p in methods.measure(runs, "omniglot")] == [-103.0, -103.0]


def test_no_two_methods_share_a_colour_or_a_marker():
    styles = [curve_style(number) for number in methods.STYLES.values()]
    for name in ("color", "marker"):
        assert len({style[name] for style in styles}) == len(styles)


def test_the_committed_results_give_both_figures(tmp_path):
    names = methods.draw(collect([ROOT / "results"]), tmp_path)
    assert {f"methods-{data}.png" for data in ("mnist", "omniglot")} <= set(names)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)
