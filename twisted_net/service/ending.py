"""
How the process ends: which signals end it, and with which exit status.

Twisted's own way does not fit a service. On SIGTERM its reactor stops, and then ``twistd`` kills itself with the same
signal, so that a clean stop looks like a death; a second SIGTERM, while connections finish, raises in the reactor. So
the reactor's handlers are replaced once they are installed, by one that stops the reactor once, and the exit status of
a stop is 0. Before the reactor runs, the same handler stands where nobody has set one: the stop then waits for the
reactor. A handler that is neither the reactor's nor Python's own stays: SIGINT that ``nohup`` or a shell's ``&``
ignores, or the debugger's of ``twistd --debug``.

There is no way to hand ``twistd`` or ``twist`` an exit status: both swallow what is raised while the reactor runs, and
return nothing. What both do in the end, when the pidfile is removed and the log is closed, is to die by the signal that
the reactor remembers. So the status of a failure is left in its place, as something that ends the program when it is
taken for a number. Rejected: ``os._exit`` in a function of :mod:`atexit`, which skips those registered before it, or
runs those registered after it twice.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import Any, Final

from twisted.internet.error import ReactorNotRunning

from twisted_net.service.journal import Journal

__all__ = ["Ending"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_UNSET: Final = (signal.SIG_DFL, signal.default_int_handler)


class Ending:
    """
    The end of this process.

    :param reactor: provides ``IReactorCore`` and ``IReactorFromThreads``, and remembers the signal that stopped it, as
        all of Twisted's do.
    :param journal: told of signals that change nothing any more.
    """

    def __init__(self, reactor: Any, journal: Journal) -> None:
        self._reactor = reactor
        self._journal = journal
        #: Why it ends; what a signal or :meth:`stop` said, if anybody did.
        self.reason = "the reactor was stopped"
        self._stopping = False

    def watch(self) -> None:
        """
        From now on SIGTERM and SIGINT stop the reactor once, with exit status 0.

        To be called before the reactor runs, and again when it does: it sets handlers of its own as it starts.
        """
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler in _UNSET or getattr(handler, "__self__", None) is self._reactor:
                signal.signal(number, self._signalled)
        # A signal between the reactor's handlers and ours has stopped it already; the exit status is 0 all the same.
        if isinstance(self._reactor._exitSignal, int):
            self._reactor._exitSignal = None

    def leaveToSignals(self) -> None:
        """
        From now on SIGTERM and SIGINT end the process at once, as they do a program that knows of none: for one that
        has nothing to finish. Those that were ignored when it was started stay ignored.

        To be called when the reactor runs: it sets handlers of its own as it starts.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.stop, signal.Signals(number).name)

    def stop(self, reason: str) -> None:
        """Stop the reactor, because of *reason*. Harmless when it is stopping already."""
        if self._stopping:
            self._journal.stoppingAlready(reason)
            return
        self._stopping = True
        self.reason = reason
        with contextlib.suppress(ReactorNotRunning):  # a handler's own code has stopped it
            self._reactor.stop()

    def fail(self, sentence: str) -> None:
        """Stop the reactor because of an error, say *sentence* on stderr, and exit with status 1 in the end."""
        # sys.stderr leads to the log by now. A daemon's is /dev/null: then the log alone has the sentence.
        if sys.__stderr__ is not None:
            print(sentence, file=sys.__stderr__, flush=True)
        self._reactor._exitSignal = _ExitStatus(1)
        self.stop("an error")


class _ExitStatus:
    """In the place of the signal to die by: ends the program in good order, with an exit status."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __index__(self) -> int:
        raise SystemExit(self._status)
