"""Metrics: rows neither doubled nor lost over kills, readable TensorBoard events."""

import math
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run.metrics import metrics_writer, read_metrics
from experiments.system.errors import DamagedFile


def read_events(workdir):
    """Reads every TensorBoard event, files in the order that they were opened."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    files = sorted(
        (workdir / "tensorboard").iterdir(), key=lambda f: f.stat().st_mtime_ns
    )
    for file in files:
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return events


def scalars(workdir):
    """`{(tag, step): value}`, hiding what TensorBoard hides after a restart."""
    shown = {}
    for event in read_events(workdir):
        if event.HasField("session_log"):
            shown = {k: v for k, v in shown.items() if k[1] < event.step}
        for value in event.summary.value:
            shown[value.tag, event.step] = value.simple_value
    return shown


def write_steps(workdir, steps, resume_step=None):
    with metrics_writer(workdir, resume_step) as write:
        for step in steps:
            write(step, {"elbo": -100.0 + step})


def test_rows_are_on_disk_as_soon_as_written(tmp_path):
    with metrics_writer(tmp_path, None) as write:
        write(0, {"elbo": -1.5})
        assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "elbo": -1.5}]


@pytest.mark.parametrize("torn", ["", '{"step": 38, "el'])
def test_killed_and_resumed_equals_never_stopped(tmp_path, torn):
    write_steps(tmp_path / "whole", range(0, 80, 10))
    write_steps(tmp_path / "killed", [0, 10, 20, 30, 35])
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write(torn)
    write_steps(tmp_path / "killed", range(30, 80, 10), resume_step=20)

    whole, killed = (tmp_path / n / "metrics.jsonl" for n in ("whole", "killed"))
    assert killed.read_text() == whole.read_text()
    assert [row["step"] for row in read_metrics(killed)] == list(range(0, 80, 10))
    assert scalars(tmp_path / "killed") == scalars(tmp_path / "whole")
    assert len(scalars(tmp_path / "whole")) == 8


def test_resuming_from_a_row_keeps_it(tmp_path):
    write_steps(tmp_path, [0, 10, 20])
    with metrics_writer(tmp_path, 10) as write:
        write(11, {"elbo": 0.0})
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [0, 10, 11]


def test_a_fresh_run_drops_the_rows_of_an_old_one(tmp_path):
    write_steps(tmp_path, [0, 10, 20])
    write_steps(tmp_path, [0])
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "elbo": -100.0}]
    assert scalars(tmp_path) == {("elbo", 0): -100.0}


def test_torn_last_line_is_ignored_and_a_torn_middle_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert read_metrics(path) == [{"step": 0}, {"step": 1}]
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(
        DamagedFile, match=r"metrics\.jsonl is damaged \(line 2 is no row"
    ):
        read_metrics(path)


def test_vectors_are_lists_in_json_and_scalars_in_tensorboard(tmp_path):
    row = {
        "elbo": np.float32(-2.5),
        "accept_prob": jnp.array([0.25, 0.75]),
        "step_sizes": [[1.0, 2.0], [3.0, 4.0]],
        "none": np.zeros(0),
    }
    with metrics_writer(tmp_path, None) as write:
        write(3, row)
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {
            "step": 3,
            "elbo": -2.5,
            "accept_prob": [0.25, 0.75],
            "step_sizes": [[1.0, 2.0], [3.0, 4.0]],
            "none": [],
        }
    ]
    assert scalars(tmp_path) == {
        ("elbo", 3): -2.5,
        ("accept_prob/0", 3): 0.25,
        ("accept_prob/1", 3): 0.75,
        ("step_sizes/0/0", 3): 1.0,
        ("step_sizes/0/1", 3): 2.0,
        ("step_sizes/1/0", 3): 3.0,
        ("step_sizes/1/1", 3): 4.0,
    }


def test_non_finite_metrics_survive(tmp_path):
    with metrics_writer(tmp_path, None) as write:
        write(0, {"a": math.nan, "b": [math.inf, -math.inf]})
    write_steps(tmp_path, [1], resume_step=0)
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()[0]
    assert text == '{"step": 0, "a": "nan", "b": ["inf", "-inf"]}'
    row = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert math.isnan(row["a"])
    assert row["b"] == [math.inf, -math.inf]
