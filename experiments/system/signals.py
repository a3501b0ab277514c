"""SIGTERM and Ctrl-C: the first one stops a program in order, a second one at once."""

import os
import signal
import socket
import threading

from experiments.system.errors import Stopped
from experiments.system.progress import end_of_line

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LINE = "Stopped. What was finished is kept; the same command goes on from there."
_held = []  # the `StopSignals` in force; the last one counts
_is_watched = False


def watch():
    """From now on a signal ends the program, unless `StopSignals` holds it back.

    A thread does so: Python's own handlers wait for the main thread, which may be in a
    long computation, and what they raise may be lost, as in garbage collection. Every
    file is written whole or not at all, so the program may end anywhere.
    """
    global _is_watched
    _is_watched = True
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.detach())
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end, args=(receiver,), daemon=True).start()


def _end(receiver):
    while number := receiver.recv(1):
        if number[0] not in SIGNALS:
            continue
        if _held and not _held[-1].requested:
            _held[-1].requested = True
        else:
            try:
                os.write(2, f"{end_of_line()}{_LINE}\n".encode())
            finally:
                os._exit(Stopped.status)


class StopSignals:
    """Turns a first signal into a flag, so that a run can save and leave.

    A thread other than the main one cannot: signals stay with the program around it.
    """

    def __enter__(self):
        self.requested, self._old = False, {}
        _held.append(self)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not _is_watched:
            self._old = {s: signal.signal(s, self._on_signal) for s in SIGNALS}
        return self

    def __exit__(self, kind, *_):
        _held.remove(self)
        self._restore()
        if self.requested and kind is None:
            raise Stopped(_LINE)

    def _on_signal(self, *_):
        self.requested = True
        self._restore()

    def _restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)
