"""SIGTERM and Ctrl-C, as a flag or as an exception."""

import contextlib
import signal

from experiments.system.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Turns the signals into a flag, so that a run can save and leave.

    A second signal is not held back.
    """

    def __enter__(self):
        self.requested = False
        self._old = {s: signal.signal(s, self._on_signal) for s in _SIGNALS}
        return self

    def __exit__(self, *_):
        _restore(self._old)

    def _on_signal(self, number, _):
        self.requested = True
        signal.signal(number, self._old[number])


@contextlib.contextmanager
def raising(message):
    """Turns the signals into `Stopped`, where there is nothing to save."""

    def stop(*_):
        raise Stopped(message)

    old = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        _restore(old)


def _restore(handlers):
    for number, handler in handlers.items():
        signal.signal(number, handler)
