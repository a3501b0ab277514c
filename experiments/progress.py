"""Progress: one bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time

log = logging.getLogger("experiments")


class Progress:
    """Shows how far a loop has come, and the time left.

    Args:
        total: number of units.
        done: units done before, by an earlier process.
        unit: their name.
        seconds: least time between two log lines where there is no terminal.
    """

    def __init__(self, total, done, unit, seconds=15.0):
        self._total, self._first, self._unit = total, done, unit
        self._every, self._started, self._logged = seconds, time.monotonic(), 0.0
        self._bar = None
        if sys.stderr.isatty() and total > done:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=unit, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def update(self, done, text):
        """Shows that `done` units are done, and a line of text."""
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._logged > self._every or done == self._total:
            self._logged = now
            rate = (now - self._started) / max(done - self._first, 1)
            log.info(
                "%s %d/%d  %s  %s left",
                self._unit,
                done,
                self._total,
                text,
                _clock(rate * (self._total - done)),
            )


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
