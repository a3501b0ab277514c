"""Progress where there is no terminal: lines of text now and then."""

import logging

from experiments.system import progress


def test_a_pipe_gets_the_last_state_and_the_text(capsys, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress(10, 4, "step") as bar:
        bar.update(5, "epoch 1")
        bar.update(10, "epoch 2  ELBO -3.00")
    lines = capsys.readouterr().err.splitlines()
    assert "epoch 2  ELBO -3.00: 100%" in lines[-1] and "10/10" in lines[-1]
    assert not any("epoch 1" in line for line in lines)  # too soon after the first


def test_what_is_done_or_silenced_shows_nothing(capsys, caplog):
    caplog.set_level(logging.INFO, logger="experiments")
    with progress.Progress(10, 10, "step") as bar:
        bar.update(10, "done")
    caplog.set_level(logging.WARNING, logger="experiments")
    with progress.Progress(10, 0, "step") as bar:
        bar.update(10, "other process")
    assert capsys.readouterr().err == ""
