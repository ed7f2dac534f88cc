"""
What a coroutine of the await face waits on, whoever runs the coroutine.

Theory
======
A coroutine is run by a driver, which sends it on whenever what it waits for has come. There are two here: Twisted's
(``Deferred.fromCoroutine``, ``inlineCallbacks``), and on an asyncio-based reactor also asyncio's Task. A driver learns
what to wait for by what the coroutine yields, and each knows one kind of thing::

    Twisted     type(yielded) is a subclass of Deferred     addBoth(resume, ...)                  cancel()
    asyncio     has _asyncio_future_blocking               add_done_callback(resume, context=)    cancel(msg=), result()

A :class:`Waiter` is both, so nobody has to guess who asks: whoever has the driver's manners is answered in them.
Guessing (``asyncio.current_task()``) would be wrong whenever one kind of coroutine resumes the other within one call:
then a task of asyncio's is current, and the coroutine that asks is Twisted's.

*A waiter carries no bytes.* It says "look again". What a driver throws away with a cancelled await (asyncio may
cancel a task after its waiter has fired, and before it has been resumed) is that word, and nothing of the stream.

*Elsewhere.* asyncio's Task is refused on a reactor that asyncio does not run: its loop is another one, and would be
woken by nobody. It refuses what says that it is no future, with an error of its own words, which is put in ours; so
do drivers that know neither kind (trio).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Literal, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_net.errors import NetError

__all__ = ["DriverError", "Waiter", "loopOf", "outcome"]

T = TypeVar("T")


class DriverError(NetError, RuntimeError):
    """The coroutine is run by something that cannot wait for this reactor."""

    code = "ERR_DRIVER"
    fault = "user"


def loopOf(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """The event loop of asyncio's that runs *reactor*; None when none does."""
    return getattr(reactor, "_asyncioEventloop", None)


class Waiter(Deferred[None]):
    """
    Waits for one thing, once; for one coroutine.

    :param reactor: the reactor on whose turns it fires.
    :param forget: called with the waiter when the coroutine is cancelled before it has fired.
    """

    # There is one for every wait: slots are quicker to set and to read.
    __slots__ = ("_asyncio_future_blocking", "_done", "_error", "_forget", "_reactor", "_resume", "_wakeups", "driver")

    def __init__(self, reactor: Any, forget: Callable[[Waiter], object]) -> None:
        # Nothing of Deferred's own is used: drivers only ask for what stands below.
        self._reactor = reactor
        self._forget: Callable[[Waiter], object] | None = forget
        self._resume: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        self._wakeups: list[tuple[Callable[[Any], object], Context | None]] | None = None
        self._error: BaseException | None = None
        self._done = False
        self._asyncio_future_blocking = False
        #: Who runs the coroutine, once it has waited: ``"twisted"`` or ``"asyncio"``.
        self.driver: Literal["twisted", "asyncio"] | None = None

    def __str__(self) -> str:
        return f"<Waiter {'done' if self._done else 'waiting'}>"

    __repr__ = __str__

    # -- the side that fires it

    def fire(self, error: BaseException | None = None) -> None:
        """Resume the coroutine; with *error*, by raising it there. Harmless when it has fired, or was cancelled."""
        if self._done:
            return
        self._done = True
        self._forget = None
        resume = self._resume
        if error is None and resume is not None:
            # The commonest end, written out: Twisted's driver, and no error.
            self._resume = None
            call, args = resume
            call(None, *args)
        else:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        resume, self._resume = self._resume, None
        wakeups, self._wakeups = self._wakeups, None
        for wakeup, context in wakeups or ():
            # On a later turn, as every future of asyncio's.
            loop = loopOf(self._reactor)
            assert loop is not None, "asyncio's tasks are refused where no loop runs the reactor"
            loop.call_soon(wakeup, self, context=context)
        if resume is not None:
            call, args = resume
            call(None if error is None else Failure(error), *args)

    # -- what every driver does

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done:
            self._asyncio_future_blocking = getattr(self._reactor, "_asyncioEventloop", None) is not None
            try:
                yield self
            except Exception as error:
                if self._done:
                    raise
                raise self._strange() from error
            except BaseException:
                self._letGo()
                raise
            if not self._done:
                raise self._strange()
        if self._error is not None:
            raise self._error

    __iter__ = __await__

    def _strange(self) -> DriverError:
        """What runs the coroutine has not waited."""
        self._letGo()
        return DriverError(
            f"this coroutine is run by something that cannot wait for {type(self._reactor).__name__}; run it by "
            "Deferred.fromCoroutine(), or on Twisted's asyncioreactor by asyncio, in the loop that runs it"
        )

    def _letGo(self) -> None:
        self._done = True
        self.forget()

    def forget(self) -> None:
        """Nobody has to fire it any more: whoever keeps it lets it go."""
        forget, self._forget = self._forget, None
        if forget is not None:
            forget(self)

    async def within(self, seconds: float | None, late: Callable[[float], BaseException]) -> None:
        """
        Wait, but no longer than that; None waits for ever.

        :param late: called with *seconds* when the time is up; what it returns is raised, and nobody has to fire this
            any more.
        """
        if seconds is None:
            await self
            return
        timer = self._reactor.callLater(seconds, self._expire, seconds, late)
        try:
            await self
        finally:
            if timer.active():
                timer.cancel()

    def _expire(self, seconds: float, late: Callable[[float], BaseException]) -> None:
        self.forget()
        self.fire(late(seconds))

    # -- Twisted's driver

    def addBoth(self, callback: Any, *args: Any) -> Any:  # type: ignore[override]
        """Called by Twisted's driver alone: *callback* resumes the coroutine."""
        self.driver = "twisted"
        if self._done:
            callback(None if self._error is None else Failure(self._error), *args)
        else:
            self._resume = (callback, args)
        return self

    # -- asyncio's driver

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that runs the reactor."""
        return loopOf(self._reactor)

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call *callback* with this on a later turn, once it has fired."""
        self.driver = "asyncio"
        if self._done:
            loop = self.get_loop()
            assert loop is not None
            loop.call_soon(callback, self, context=context)
        elif self._wakeups is None:
            self._wakeups = [(callback, context)]
        else:
            self._wakeups.append((callback, context))

    def result(self) -> None:  # type: ignore[override]  # Deferred's is an attribute
        """None; raises what it was fired with."""
        if self._error is not None:
            raise self._error

    # -- both

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        """The coroutine is cancelled; False when it has fired already."""
        if self._done:
            return False
        # First of all, so that it does not fire with what letting go brings about.
        self._letGo()
        if self._resume is not None:
            self._finish(CancelledError())
        else:
            self._finish(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True


async def outcome(reactor: Any, deferred: Deferred[T]) -> T:
    """
    Wait for *deferred*, in a coroutine that either driver runs.

    Cancelling the coroutine cancels *deferred*. (asyncio may cancel a task whose result is there already: the result
    is lost then. A result that must not be lost is to be kept by a callback that was added before.)

    :returns: what it gives; raises what it fails with.
    """
    results: list[Any] = []
    waiter = Waiter(reactor, lambda waiter: deferred.cancel())

    def settle(result: Any) -> None:
        results.append(result)
        waiter.fire()

    deferred.addBoth(settle)
    await waiter
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]
