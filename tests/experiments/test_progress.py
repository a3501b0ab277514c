"""Progress where there is no terminal: lines of text now and then."""

import logging

from experiments.system import progress


def test_a_pipe_gets_the_last_state_and_the_text(capsys, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress(10, 4, "step") as bar:
        bar.update(5, "epoch 1")
        bar.update(6, "epoch 2")
        bar.update(10, "epoch 3  ELBO -3.00")
    lines = capsys.readouterr().err.splitlines()
    assert "epoch 3  ELBO -3.00: 100%" in lines[-1] and "10/10" in lines[-1]
    assert not any("epoch 2" in line for line in lines)  # too soon after the first


def test_the_time_left_does_not_count_the_first_units_compilation(caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    now = [0.0]
    with progress.Progress(30, 0, "step") as bar:
        bar._bar._time, bar._bar.start_t = (lambda: now[0]), 0.0
        bar._bar.last_print_t = 0.0
        for done, now[0] in ((1, 500.0), (11, 510.0)):
            bar.update(done, "")
        shown = bar._bar.format_dict
    assert shown["elapsed"] == 10.0 and shown["n"] - shown["initial"] == 10


def test_what_is_done_or_silenced_shows_nothing(capsys, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress(10, 10, "step") as bar:
        bar.update(10, "done")
    caplog.set_level(logging.WARNING, logger="experiments")
    with progress.Progress(10, 0, "step") as bar:
        bar.update(10, "other process")
    assert capsys.readouterr().err == ""


def test_a_last_line_begins_anew_after_a_bar(caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress(10, 0, "step"):
        assert progress.end_of_line() == "\n"
    with progress.Progress(10, 10, "step"):
        assert progress.end_of_line() == ""
    assert progress.end_of_line() == ""
