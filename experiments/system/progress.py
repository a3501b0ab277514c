"""Progress: one bar on a terminal, a line now and then elsewhere."""

import logging
import sys

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
