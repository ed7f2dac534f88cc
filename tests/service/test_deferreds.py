"""Coroutines that wait for Deferreds and for what is asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from twisted_net.errors import TimedOutError
from twisted_net.service.deferreds import interpreted
from twisted_net.wire.waiting import Waiter


class Loop(Clock):
    """A reactor that asyncio runs, as far as anybody asks."""

    def __init__(self) -> None:
        super().__init__()
        self._asyncioEventloop = asyncio.new_event_loop()


@pytest.fixture
def reactor() -> Iterator[Loop]:
    reactor = Loop()
    yield reactor
    reactor._asyncioEventloop.close()


Handler = Callable[[Any], Coroutine[Any, Any, object]]


def task(reactor: Loop, handler: Handler, argument: object = None) -> asyncio.Task[Any]:
    return reactor._asyncioEventloop.create_task(interpreted(handler, reactor)(argument))


def result(reactor: Loop, one: asyncio.Task[Any]) -> Any:
    """Run the loop until *one* has ended: inside of the loop that runs this test, if one does."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return reactor._asyncioEventloop.run_until_complete(one)
    finally:
        asyncio._set_running_loop(outer)


def turn(reactor: Loop) -> None:
    result(reactor, reactor._asyncioEventloop.create_task(asyncio.sleep(0)))


def test_twistedsDriverNeedsNothing() -> None:
    async def handler(argument: object) -> None: ...

    assert interpreted(handler, Clock()) is handler


def test_everythingInOneCoroutine(reactor: Loop) -> None:
    late: Deferred[str] = Deferred()
    later: Deferred[str] = Deferred()
    chained: Deferred[str] = succeed("").addCallback(lambda none: later)
    future = reactor._asyncioEventloop.create_future()
    waiter = Waiter(reactor, lambda one: None)

    async def inner() -> str:
        return await late

    async def handler(argument: str) -> list[str]:
        found = [argument, await succeed("at once"), await inner()]
        await asyncio.sleep(0)
        found.append(await future)
        found.append(await asyncio.wait_for(asyncio.sleep(0.001, "asyncio's"), 60))
        await waiter
        found.append(await chained)
        return found

    running = task(reactor, handler, "one")
    call = reactor._asyncioEventloop.call_later
    call(0.001, late.callback, "late")
    call(0.002, future.set_result, "future")
    call(0.003, waiter.fire)
    call(0.01, later.callback, "chained")
    assert result(reactor, running) == ["one", "at once", "late", "future", "asyncio's", "chained"]


def test_errorsComeWhereTheyAreAwaited(reactor: Loop) -> None:
    late: Deferred[None] = Deferred()
    future = reactor._asyncioEventloop.create_future()

    async def handler(argument: object) -> None:
        with pytest.raises(KeyError):
            await fail(KeyError())
        with pytest.raises(ValueError, match="late"):
            await late
        with pytest.raises(OSError, match="future"):
            await future
        raise ZeroDivisionError("its own")

    running = task(reactor, handler)
    turn(reactor)
    late.errback(ValueError("late"))
    turn(reactor)
    turn(reactor)
    future.set_exception(OSError("future"))
    with pytest.raises(ZeroDivisionError, match="its own"):
        result(reactor, running)


def test_cancelled(reactor: Loop) -> None:
    cancelled: list[object] = []
    waited: Deferred[None] = Deferred(cancelled.append)
    cleaned: list[object] = []

    async def handler(argument: object) -> None:
        try:
            await waited
        finally:
            cleaned.append(await succeed("cleaned"))

    running = task(reactor, handler)
    turn(reactor)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        result(reactor, running)
    assert cancelled == [waited]
    assert cleaned == ["cleaned"]


def test_cancelledWhenTheResultIsThere(reactor: Loop) -> None:
    waited: Deferred[str] = Deferred()

    async def handler(argument: object) -> None:
        await waited

    running = task(reactor, handler)
    turn(reactor)
    waited.callback("there")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        result(reactor, running)


def test_anotherErrorThanTheCancellation(reactor: Loop) -> None:
    """It stays in the Deferred: nothing is swallowed but what we have caused."""
    waited: Deferred[None] = Deferred(lambda one: one.errback(OSError("stuck")))

    async def handler(argument: object) -> None:
        await waited

    running = task(reactor, handler)
    turn(reactor)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        result(reactor, running)
    errors: list[object] = []
    waited.addErrback(lambda failure: errors.append(str(failure.value)))
    assert errors == ["stuck"]


def test_aDeferredThatIsCancelledByOthers(reactor: Loop) -> None:
    waited: Deferred[None] = Deferred()

    async def handler(argument: object) -> str:
        try:
            await waited
        except CancelledError:
            return "cancelled"
        return ""

    running = task(reactor, handler)
    turn(reactor)
    waited.cancel()
    assert result(reactor, running) == "cancelled"


def test_timeouts(reactor: Loop) -> None:
    """Those of asyncio work on Deferreds, those of a Waiter in tasks."""
    waiter = Waiter(reactor, lambda one: None)

    async def handler(argument: object) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await Deferred[None]()
        await waiter.within(5, lambda seconds: TimedOutError(f"{seconds:g}"))

    running = task(reactor, handler)
    reactor._asyncioEventloop.call_later(0.05, reactor.advance, 6)
    with pytest.raises(TimedOutError, match="5"):
        result(reactor, running)


def test_collected(reactor: Loop) -> None:
    """One that nobody goes on with is closed, as every coroutine."""
    closed: list[bool] = []

    async def handler(argument: object) -> None:
        try:
            await Deferred[None]()
        finally:
            closed.append(True)

    running = interpreted(handler, reactor)(None)
    running.send(None)
    running.close()
    assert closed == [True]
