"""
Child processes that have ended.

Twisted learns of SIGCHLD by a byte in a pipe of its own (``signal.set_wakeup_fd``). While uvloop runs, that pipe is
uvloop's. But uvloop runs the Python handlers of whatever signal wakes it, and a handler is all that is needed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.process import reapAllProcesses

__all__ = ["ChildSignals"]


class ChildSignals:
    """
    Reaps children when SIGCHLD comes (a ``SignalHandling`` of Twisted's).

    :param soon: has something called in the next turn of the loop, from a signal handler.
    """

    def __init__(self, soon: Callable[[Callable[[], object]], object]) -> None:
        self._soon = soon
        self._before: Any = signal.SIG_DFL

    def install(self) -> None:
        """Begin, with those that have ended already."""
        self._before = signal.signal(signal.SIGCHLD, lambda number, frame: self._soon(reapAllProcesses))
        signal.siginterrupt(signal.SIGCHLD, False)
        reapAllProcesses()

    def uninstall(self) -> None:
        """Leave the signal as it was."""
        signal.signal(signal.SIGCHLD, self._before or signal.SIG_DFL)
