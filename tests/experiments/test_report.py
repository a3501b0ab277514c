"""The report: arithmetic, missing rows, exports, from hand-written results."""

import csv
import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import table1
from experiments.paper import lines as report_lines
from experiments.paper import report, tables, variants
from experiments.paper import results as collected
from experiments.run.folder import VERSION
from experiments.run.settings import override, resolve
from experiments.system.errors import InputError
from experiments.system.files import read_json, write_json

ROOT = Path(__file__).parents[2]
SUMMARY = "results/summary.csv"
ROW = tables.Row("omniglot", "ais", 5, 11)


def results(row=ROW, means=(-103.0,), reading="increments", **settings):
    """The results.json of a run of a row, its config changed by dotted settings."""
    config = variants.protocol_config(row, reading)
    config.update_from_flattened_dict(settings)
    test = lambda mean: {
        "log_p": {"mean": mean, "standard_error": 0.2, "monte_carlo": 0.01},
        "num_examples": 8070,
    }
    gap = {"gap": [0.5, 0.08], "gap_error": [0.1, 0.02]}
    return {
        "test_log_p": {"mean": float(np.mean(means))},
        "replicates": [{"test": test(mean), "bidirectional": gap} for mean in means],
        "epochs": config.num_epochs,
        "steps": 10,
        "gradient_evaluations": 3000,
        "training_seconds": 7200.0,
        "evaluation_seconds": 360.0,
        "version": VERSION,
        "config": resolve(config).saved,
        "data": {"digest": "abc", "source": "rebuilt split"},
        "device": "1 x cpu (cpu)",
    }


def save(folder, content, curve=(), variant=None):
    """Writes a run's files, and a checkpoint that no export may copy."""
    write_json(folder / "results.json", content)
    write_json(
        folder / "config.json", {"version": VERSION, "config": content["config"]}
    )
    if variant:
        write_json(folder / "variant.json", variant)
    rows = [
        f'{{"step": {i}, "epoch": {i}, "gradient_evaluations": {i * 10 + 1}}}\n'
        for i in range(3000)
    ]
    rows += [
        f'{{"step": {3000 + i}, "epoch": {3000 + i}, "gradient_evaluations": '
        f'{30001 + i}, "test_log_p": {value}}}\n'
        for i, value in enumerate(curve)
    ]
    (folder / "metrics.jsonl").write_text("".join(rows))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state").write_text("large")
    return folder


def lines(out):
    with open(out / "tables.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report_of(out):
    """The report, without the spaces that align its columns."""
    return re.sub(" +", " ", (out / "report.md").read_text())


def of_row(out, row, table="1"):
    """The lines of a row in a table."""
    key = [table, *("" if v is None else str(v) for v in row)]
    names = ("table", *tables.Row._fields)
    return [entry for entry in lines(out) if [entry[n] for n in names] == key]


def test_standard_errors_over_replicates_and_images(tmp_path):
    means = (-103.0, -101.0, -102.5)
    save(tmp_path / "runs" / "a", results(means=means))
    report.write(collected.collect([tmp_path / "runs"]), tmp_path / "out")
    (entry,) = of_row(tmp_path / "out", ROW)
    assert float(entry["log_p"]) == pytest.approx(-306.5 / 3)
    deviations = np.array(means) + 306.5 / 3
    error = np.sqrt(np.sum(deviations**2) / 2 / 3)
    assert float(entry["error_over_replicates"]) == pytest.approx(error)
    assert float(entry["error_over_images"]) == pytest.approx(0.2)
    assert float(entry["monte_carlo_error"]) == pytest.approx(0.01)
    assert (float(entry["gap"]), float(entry["gap_error"])) == (0.08, 0.02)
    assert (entry["paper_log_p"], entry["num_replicates"]) == ("-101.94", "3")
    assert (entry["reading"], entry["preconditioner"]) == ("increments", "unit")
    assert entry["departures"] == ""
    text = report_of(tmp_path / "out")
    assert "## Table 1: IWAE-DReG and AIS, omniglot\n" in text
    assert "| AIS K=5 T=11 | -101.94 | -102.17 | 0.60 | 0.20 | 0.010 | 0.080 |" in text
    assert "| 3e+03 | 2 | 0.1 | increments | unit | abc | a |" in text
    assert "Data `abc`: rebuilt split" in text


def test_one_replicate_has_no_error_over_replicates():
    found = report_lines.moments(results())
    assert found["error_over_replicates"] is None
    assert found["error_over_images"] == 0.2


def test_runs_of_other_seeds_are_one_line(tmp_path):
    """Their replicates are pooled; a run that shares a seed stays by itself."""
    save(tmp_path / "a", results(means=(-103.0, -101.0)), curve=(-120.0, -110.0))
    save(tmp_path / "b", results(means=(-102.5,), seed=2), curve=(-114.0,))
    save(tmp_path / "c", results(means=(-99.0,), seed=1))
    save(tmp_path / "d", results(means=(-99.0,), seed=3, num_epochs=9))
    found = collected.collect([tmp_path])
    made = report.write(found, tmp_path / "out")
    entries = of_row(tmp_path / "out", ROW)
    assert [entry["run"] for entry in entries] == ["a + b", "c", "d"]
    assert [entry["num_replicates"] for entry in entries] == ["3", "1", "1"]
    assert float(entries[0]["log_p"]) == pytest.approx(-306.5 / 3)
    assert float(entries[0]["training_seconds"]) == 2 * 7200.0
    joined, *_ = collected.pool(found)
    (row,) = joined.curve
    assert row["test_log_p"] == [-120.0, -114.0] and row["step"] == 3000
    assert len(made) == 30 + 2 + 2  # the row is in both tables


def test_rows_that_were_not_run_say_so(tmp_path):
    save(tmp_path / "a", results())
    made = report.write(collected.collect([tmp_path / "a"]), tmp_path / "out")
    assert len(made) == 9 + 9 + 12
    (figure,) = (tmp_path / "out").glob("*.png")  # all runs have the same epochs
    assert figure.name == "final-omniglot-8070-random-images-gradient_evaluations.png"
    missing = [entry for entry in made if entry["status"] == "not run"]
    assert len(missing) == 30 - 2  # the row is in both tables
    assert all(entry["paper_log_p"] for entry in missing)
    measured = set(report_lines.COLUMNS[report_lines.COLUMNS.index("log_p") :])
    assert all(entry[column] is None for entry in missing for column in measured)
    assert {e["table"] for e in of_row(tmp_path / "out", ROW, "2")} == {"2"}


def test_runs_of_one_row_are_separate_lines_with_what_differs(tmp_path):
    save(tmp_path / "a", results())
    encoder = {"estimator.preconditioner": "encoder", "num_epochs": 100}
    save(tmp_path / "b", results(means=(-105.0,), **encoder))
    save(tmp_path / "c", results(reading="released"))
    report.write(collected.collect([tmp_path]), tmp_path / "out")
    a, b, c = of_row(tmp_path / "out", ROW)
    assert [entry["run"] for entry in (a, b, c)] == ["a", "b", "c"]
    assert b["departures"] == (
        "estimator.preconditioner encoder for unit; num_epochs 100 for 3280"
    )
    assert c["reading"] == "released" and c["departures"] == ""


def test_runs_of_no_row_come_last(tmp_path):
    save(tmp_path / "a", results(**{"estimator.num_temperatures": 7, "num_epochs": 2}))
    made = report.write(collected.collect([tmp_path]), tmp_path / "out")
    assert made[-1]["table"] is None and made[-1]["log_p"] == -103.0
    assert made[-1]["departures"] == "num_epochs 2 for 3280"
    text = report_of(tmp_path / "out")
    assert "| AIS K=5 T=7 |" in text.split("## Other runs, omniglot")[1]


def test_digits_get_a_table_of_their_own(tmp_path):
    save(tmp_path / "a", results(tables.Row("digits", "dreg", 1), reading=None))
    made = report.write(collected.collect([tmp_path]), tmp_path / "out")
    digits = [entry for entry in made if entry["dataset"] == "digits"]
    assert [e["table"] for e in digits] == [1] * 9
    assert [e["status"] for e in digits] == ["run"] + ["not run"] * 8
    assert digits[0]["departures"] == "" and digits[0]["paper_log_p"] is None


def test_a_failed_variant_is_not_called_not_run(tmp_path):
    (variant, *_) = variants.expand(table1.get_config("mnist"))
    identity = {"version": VERSION, **variant.identity, "failure": "not finite"}
    write_json(tmp_path / variant.name / "variant.json", identity)
    report.write(collected.collect([tmp_path]), tmp_path / "out")
    (entry,) = of_row(tmp_path / "out", variant.row)
    assert entry["status"] == "failed: not finite" and entry["log_p"] == ""


def test_the_report_of_an_export_is_the_same(tmp_path):
    first = save(tmp_path / "runs" / "x" / "a", results(), curve=(-120.0, -110.0))
    short = results(means=(-104.0, -105.0), num_epochs=10)
    save(tmp_path / "runs" / "y" / "a", short, curve=(-99.0,))
    shutil.copytree(first, tmp_path / "runs" / "z" / "copy of x")
    found = collected.collect([tmp_path / "runs"])
    assert [run.name for run in found] == ["a", "a-2"]
    report.write(found, tmp_path / "out1")
    collected.export(found, tmp_path / "export")
    again = collected.collect([tmp_path / "export"])
    report.write(again, tmp_path / "out2")
    names = sorted(path.name for path in (tmp_path / "out1").iterdir())
    assert names == [
        "curves-omniglot-K5-epochs.png",
        "curves-omniglot-K5-gradient_evaluations.png",
        "final-omniglot-8070-random-images-epochs.png",
        "final-omniglot-8070-random-images-gradient_evaluations.png",
        "report.md",
        "summary.csv",
        "tables.csv",
    ]
    for name in names:
        old, new = tmp_path / "out1" / name, tmp_path / "out2" / name
        assert old.read_bytes() == new.read_bytes()
    assert not list((tmp_path / "export").rglob("checkpoints"))
    copied = (tmp_path / "export" / "a" / "metrics.jsonl").read_text().splitlines()
    assert len(copied) == sum("test_log_p" in row for row in copied) == 2
    assert read_json(tmp_path / "export" / "a" / "results.json") == results()


def test_a_run_from_before_a_setting_of_its_estimator_is_a_row_still(tmp_path):
    content = results()
    del content["config"]["estimator"]["late_moves"]
    save(tmp_path / "old", content)
    (run,) = collected.collect([tmp_path])
    assert tables.match(run.results["config"]) == (ROW, "increments")
    departures = report_lines.departures
    assert departures(run) == departures(run._replace(results=results()))


def test_a_run_evaluated_again_has_one_learning_curve(tmp_path):
    save(tmp_path / "a", results(), curve=(-120.0, -110.0))
    subset = {"evaluation.subset": "first", "evaluation.num_examples": 300}
    again = results(means=(-99.0,), **subset)
    again["replicates"][0]["test"]["num_examples"] = 300
    save(tmp_path / "b", again, curve=(-120.0, -110.0))
    runs = collected.collect([tmp_path])
    shown = report.figures(runs, [report_lines.line(run) for run in runs])
    assert {name: len(members) for (name, _), members in shown.items()} == {
        "curves-omniglot-K5-epochs.png": 1,
        "curves-omniglot-K5-gradient_evaluations.png": 1,
        "final-omniglot-300-first-images-gradient_evaluations.png": 1,
        "final-omniglot-8070-random-images-gradient_evaluations.png": 1,
    }


def test_series_of_final_points_run_over_k(tmp_path):
    row = functools.partial(tables.Row, "omniglot", "ais", printed_temperatures=5)
    found = [
        report_lines.line(
            collected.Run(f"K{k}", tmp_path, results(row(k), means), None, [])
        )
        for k, means in ((50, (-103.0,)), (1, (-104.0, -102.0)), (5, (-103.0,)))
    ]
    for entry, cost in zip(found, (500, 10, 50)):
        entry["gradient_evaluations"] = cost
    other = {**found[0], "departures": "num_epochs 1 for 3280", "run": "short"}
    series = report.finals([*found, other], "gradient_evaluations")
    costs, means, errors = series["AIS T=5, K = 1, 5, 50"]
    assert costs == [10, 50, 500] and means == [-103.0] * 3
    np.testing.assert_array_equal(errors, [1.0, np.nan, np.nan])
    assert series["AIS T=5, K = 50"][0] == [500]


def test_other_programs_results_are_passed_over(tmp_path):
    save(tmp_path / "a", results())
    write_json(tmp_path / "figure1" / "results.json", {"rows": []})
    assert [run.name for run in collected.collect([tmp_path])] == ["a"]


def test_every_evaluation_of_a_run_is_a_line(tmp_path):
    newest, other = results(), results(means=(-102.0,))
    folder = save(tmp_path / "a", newest)
    write_json(folder / "evaluation" / "step_300-b" / "evaluation.json", newest)
    write_json(folder / "evaluation" / "step_300-c" / "evaluation.json", other)
    found = collected.collect([tmp_path])
    collected.export(found, tmp_path / "export")
    for runs in (found, collected.collect([tmp_path / "export"])):
        means = {r.name: r.results["test_log_p"]["mean"] for r in runs}
        assert means == {"a": -103.0, "a-2": -102.0}


def test_committed_runs_have_a_row_each_and_settings_of_this_version(tmp_path):
    runs = collected.collect([ROOT / "results"])
    report.summary(runs).to_csv(tmp_path / "new.csv", float_format="%.6g")
    new, old = (f.read_text() for f in (tmp_path / "new.csv", ROOT / SUMMARY))
    assert new == old and len(new.splitlines()) == 1 + len(runs) > 40
    for run in runs:
        config = run.results["config"]
        assert resolve(override(config, {})).saved == config


@pytest.mark.parametrize("kind", ["none", "missing", "empty", "damaged"])
def test_bad_folders_are_one_line(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text("{")
    paths = [] if kind == "none" else [tmp_path / kind]
    with pytest.raises(InputError) as error:
        collected.collect(paths)
    assert "\n" not in str(error.value)
    assert kind == "none" or str(tmp_path / kind) in str(error.value)


def test_the_program_takes_folders_and_refuses_others(tmp_path):
    save(tmp_path / "a", results())
    program = [sys.executable, "-m", "experiments.report"]
    out = tmp_path / "out"
    done = subprocess.run(
        [*program, tmp_path / "a", f"--out={out}", f"--export={tmp_path / 'e'}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and "1 runs" in done.stdout
    assert (out / "report.md").exists() and (tmp_path / "e/a/results.json").exists()
    done = subprocess.run(
        [*program, tmp_path / "none"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error:") and len(done.stderr.splitlines()) == 1


def test_replicates_of_other_rates_are_runs_of_their_own(tmp_path):
    rates = [0.1, 0.2, 0.3]
    content = results(means=(-103.0, -101.0, -102.0), num_replicates=3)
    content["config"]["optimizer"]["learning_rate"] = rates
    for part, rate in zip(content["replicates"], rates):
        part["name"] = f"learning rate {rate:g}"
    (tmp_path / "run").mkdir()
    save(tmp_path / "run", content | {"best": 1}, curve=[[-110.0, -109.0, -108.0]])
    runs = collected.collect([tmp_path])
    assert [run.name for run in runs] == [f"run-learning-rate-{r:g}" for r in rates]
    assert [len(run.results["replicates"]) for run in collected.pool(runs)] == [1] * 3
    assert [run.curve[0]["test_log_p"] for run in runs] == [-110.0, -109.0, -108.0]
    found = [run.results["config"]["optimizer"]["learning_rate"] for run in runs]
    assert found == [[rate] for rate in rates]
    means = [run.results["test_log_p"]["mean"] for run in runs]
    assert means == [-103.0, -101.0, -102.0]
