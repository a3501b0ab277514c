"""Progress where there is no terminal: lines of text now and then."""

import logging

import pytest

from experiments.system import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_whole_lines_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress("training", 10, 4) as shown:
        for clock[0], text in ((9.0, "epoch 1"), (20.0, "epoch 2"), (22.0, "epoch 3")):
            shown.advance(text, 2)
    assert caplog.messages == [
        "training: compiling, 40%, 0:00 + ?",
        "training: epoch 2, 80%, 0:20 + 0:11",
        "training: epoch 3, 100%, 0:22 + 0:00",
    ]


def test_what_is_left_goes_by_the_pace_after_the_compilation(clock, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress("evaluation") as shown:
        shown.expect(30.0)
        for clock[0], amount in ((500.0, 1.0), (520.0, 19.0)):
            shown.advance("pilot", amount)
        assert caplog.messages[-1] == "evaluation: pilot, 67%, 8:40 + 0:10"
        shown.expect(190.0)
        clock[0] = 540.0
        shown.advance("scouts", 19.0)
    assert caplog.messages[-1] == "evaluation: scouts, 19%, 9:00 + 3:00"


def test_what_is_done_or_silenced_shows_nothing(capsys, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress("training", 10, 10) as shown:
        shown.advance("done", 0)
    caplog.set_level(logging.WARNING, logger="experiments")
    with progress.Progress("training", 10) as shown:
        shown.advance("other process", 10)
    assert capsys.readouterr().err == "" and not caplog.messages


def test_a_terminal_has_one_line_that_warnings_do_not_break(
    capsys, caplog, monkeypatch
):
    caplog.set_level(logging.INFO, logger="experiments")
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    record = logging.makeLogRecord({"msg": "few"})
    with progress.Progress("training", 10) as shown:
        shown.advance("epoch 1", 10)
        assert progress.Lines().format(record) == "\nfew"
    assert progress.Lines().format(record) == "few" and not caplog.messages
    shown = capsys.readouterr().err
    assert shown.startswith("\rtraining: compiling") and shown.endswith("0:00\n")
    assert shown.count("\n") == 1


def test_times_are_spoken_in_their_unit():
    spoken = [progress.spoken(s) for s in (0.2, 80, 90, 5400, 1.5 * 86400)]
    assert spoken == ["1 s", "80 s", "1.5 min", "1.5 h", "1.5 days"]
