"""Progress: one bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import time

log = logging.getLogger("experiments")
SECONDS = 15.0  # pass between two lines where there is no terminal
_shown = []  # the bars that stand on an open line


def is_terminal():
    """Whether a person sees what is written to stderr, which may be none at all."""
    return getattr(sys.stderr, "isatty", bool)()


def end_of_line():
    """What a last line must begin with: a newline after a bar."""
    return "\n" * bool(_shown)


class Progress:
    """Shows how far a loop has come, and the time left.

    Args:
        total: number of units.
        done: units done before, by an earlier process.
        unit: their name.
    """

    def __init__(self, total, done, unit):
        from tqdm import tqdm

        self._is_compiled = False
        is_quiet = sys.stderr is None or not log.isEnabledFor(logging.INFO)
        is_live = is_terminal()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=is_live,
            mininterval=0.1 if is_live else SECONDS,
            miniters=1,
            disable=done == total or is_quiet,
        )

    def __enter__(self):
        if not self._bar.disable:
            _shown.append(self)
        return self

    def __exit__(self, *_):
        self._bar.close()
        if self in _shown:
            _shown.remove(self)

    def update(self, done, text):
        """Shows that `done` units are done, and a line of text.

        The first ones took a compilation besides: time is counted after them.
        """
        self._bar.set_description_str(text, refresh=False)
        if self._is_compiled:
            self._bar.update(done - self._bar.n)
            return
        self._is_compiled = True
        self._bar.initial = self._bar.n = self._bar.last_print_n = done
        self._bar.unpause()
        self._bar.refresh()


class Stages:
    """One bar over all stages of a long work, weighted by their cost.

    Its clock starts with it, so that compilation counts. Where there is no terminal it
    writes a whole line now and then.
    """

    def __init__(self, name):
        self._name, self._started, self._said = name, time.monotonic(), 0.0
        self._done, self._total, self._line = 0.0, 0.0, ""
        self._is_quiet = sys.stderr is None or not log.isEnabledFor(logging.INFO)

    def __enter__(self):
        if is_terminal() and not self._is_quiet:
            _shown.append(self)
        self.show("compiling")
        return self

    def __exit__(self, *_):
        if self in _shown:
            _shown.remove(self)
            sys.stderr.write("\n")

    def expect(self, more):
        """So much work is to come, beside what is done."""
        self._total = self._done + more

    def advance(self, stage, amount):
        """So much work of a stage is done."""
        self._done += amount
        self._total = max(self._total, self._done)
        self.show(stage)

    def show(self, stage):
        """Tells the stage, the time that it took so far and what is left."""
        seconds = time.monotonic() - self._started
        is_live = self in _shown
        if self._is_quiet or seconds - self._said < (0.1 if is_live else SECONDS):
            return
        self._said, share = seconds, self._done / max(self._total, 1e-9)
        left = "?" if share < 0.01 else _clock(seconds * (1.0 / share - 1.0))
        line = f"{self._name}: {stage}, {share:.0%}, {_clock(seconds)} + {left}"
        if not is_live:
            log.info("%s", line)
            return
        sys.stderr.write("\r" + line.ljust(len(self._line)))
        sys.stderr.flush()
        self._line = line


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
