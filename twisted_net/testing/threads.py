"""A thread pool without threads: what is given to it runs on a later turn of the reactor, in the order of giving.

Code that calls ``deferToThread`` runs unchanged, and runs the same way every time. A function that waits for another
one waits for ever, as in a pool of one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure


class InlineThreadPool:
    """Stands in for ``twisted.python.threadpool.ThreadPool``.

    :param reactor: provides ``IReactorTime``.
    """

    _log = Logger()

    #: Nobody works here beside the reactor.
    min = 0
    max = 1
    threads: tuple[object, ...] = ()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.started = False
        self.joined = False

    def start(self) -> None:
        """Nothing has to be started."""
        self.started = True

    def stop(self) -> None:
        """Nothing has to be waited for."""
        self.started = False
        self.joined = True

    def adjustPoolsize(self, minthreads: int | None = None, maxthreads: int | None = None) -> None:
        """There is one place to work, whatever was asked for."""

    def callInThread(self, func: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call *func* on a later turn; what it raises is logged."""
        self.callInThreadWithCallback(None, func, *args, **kw)

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object] | None, func: Callable[..., object], *args: Any, **kw: Any
    ) -> None:
        """Call *func* on a later turn, and then ``onResult(True, result)`` or ``onResult(False, failure)``."""
        self._reactor.callLater(0, self._work, onResult, func, args, kw)

    def _work(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> None:
        result: Any
        try:
            result = func(*args, **kw)
            success = True
        except BaseException:
            result = Failure()
            success = False
        if onResult is not None:
            onResult(success, result)
        elif not success:
            self._log.failure("a function that was called in a thread has failed", result)
