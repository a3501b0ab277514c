"""Progress: one line that goes on; lines now and then where there is no terminal."""

import logging
import math
import shutil
import sys
import time

log = logging.getLogger("experiments")
SECONDS = 15.0  # pass between two lines where there is no terminal
_shown = []  # what stands on an open line


def is_terminal():
    """Whether a person sees what is written to stderr, which may be none at all."""
    return getattr(sys.stderr, "isatty", bool)()


def end_of_line():
    """What a last line must begin with: a newline after a line of progress."""
    return "\n" * bool(_shown)


class Lines(logging.Formatter):
    """Log lines that begin anew after a line of progress."""

    def format(self, record):
        """The record as text."""
        return end_of_line() + super().format(record)


class Progress:
    """Shows how far a long work has come, over all its stages, and the time left.

    Its clock starts with it, so that compilation counts; what is left goes by the pace
    since the first work was done. Where there is no terminal it writes a whole line now
    and then.

    Args:
        name: of the work.
        total: amount of it, where that is known.
        done: amount done before, by an earlier process.
    """

    def __init__(self, name, total=0.0, done=0.0):
        self._name, self._total, self._done = name, total, done
        self._started, self._said, self._first = time.monotonic(), -math.inf, None
        self._stage, self._line = "compiling", ""
        is_silenced = sys.stderr is None or not log.isEnabledFor(logging.INFO)
        self._is_quiet = is_silenced or 0 < done == total

    def __enter__(self):
        if is_terminal() and not self._is_quiet:
            _shown.append(self)
        self._show()
        return self

    def __exit__(self, *_):
        self._said = -math.inf
        self._show()
        if self in _shown:
            _shown.remove(self)
            sys.stderr.write("\n")

    def expect(self, more):
        """So much work is to come, beside what is done."""
        self._total = self._done + more

    def advance(self, stage, amount):
        """So much work of a stage is done."""
        self._stage, self._done = stage, self._done + amount
        self._total = max(self._total, self._done)
        if self._first is None:
            self._first = time.monotonic(), self._done
        self._show()

    def _show(self):
        now, is_live = time.monotonic(), self in _shown
        if self._is_quiet or now - self._said < (0.1 if is_live else SECONDS):
            return
        self._said = now
        share, passed = self._done / max(self._total, 1e-9), now - self._started
        line = (
            f"{self._name}: {self._stage}, {share:.0%}, {_clock(passed)} + "
            f"{self._time_left(now)}"
        )
        if not is_live:
            log.info("%s", line)
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write("\r" + line.ljust(len(self._line)))
        sys.stderr.flush()
        self._line = line

    def _time_left(self, now):
        since, before = self._first or (now, self._done)
        left = self._total - self._done
        if self._done <= before:
            return "?" if left or not self._done else _clock(0)
        return _clock((now - since) * left / (self._done - before))


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def spoken(seconds):
    """A time that is about right, in the unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{math.ceil(seconds)} s"
