"""Waiter: one object to wait for, whoever runs the coroutine; and a clear word where nobody can."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import pytest
from doors import patient
from drivers import CANCELLED, Driver, Running, cancelled, everyDriver, onAsyncio, passesOnAsyncio, theReactor
from turning import turns
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_net.errors import NetError
from twisted_net.wire.waiting import DriverError, Waiter, loopOf, outcome


class Room:
    """Makes waiters, and keeps those that were let go."""

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = theReactor() if reactor is None else reactor
        self.forgotten: list[Waiter] = []
        self.notes: list[object] = []

    def waiter(self) -> Waiter:
        return Waiter(self.reactor, self.forgotten.append)

    async def wait(self, waiter: Waiter, note: object = "resumed") -> object:
        await waiter
        self.notes.append(note)
        return note


# What any driver sees


def test_looks() -> None:
    waiter = Room(Clock()).waiter()
    assert repr(waiter) == str(waiter) == "<Waiter waiting>"
    waiter.fire()
    assert str(waiter) == "<Waiter done>"
    assert waiter.driver is None


def test_whatHasFiredIsNotWaitedFor() -> None:
    room = Room(Clock())
    waiter = room.waiter()
    waiter.fire()
    waiter.fire(ValueError("too late"))
    with pytest.raises(StopIteration):
        room.wait(waiter).send(None)
    assert room.notes == ["resumed"]
    failed = room.waiter()
    failed.fire(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        room.wait(failed).send(None)
    assert not room.forgotten


@everyDriver
@patient
async def test_fires(driver: Driver) -> None:
    room = Room()
    waiter = room.waiter()
    running = Running(driver, room.wait(waiter))
    await turns(3)
    assert not room.notes
    waiter.fire()
    assert await running.done == "resumed"
    assert waiter.driver == driver
    assert waiter.cancel() is False
    assert not room.forgotten


@everyDriver
@patient
async def test_firesWithAnError(driver: Driver) -> None:
    room = Room()
    waiter = room.waiter()
    running = Running(driver, room.wait(waiter))
    await turns(2)
    error = NetError("that did not work")
    waiter.fire(error)
    with pytest.raises(NetError) as raised:
        await running.done
    assert raised.value is error
    assert not room.forgotten


@everyDriver
@patient
async def test_cancel(driver: Driver) -> None:
    room = Room()
    waiter = room.waiter()
    running = Running(driver, room.wait(waiter))
    await turns(2)
    running.cancel()
    await cancelled(running, driver)
    assert room.forgotten == [waiter]
    waiter.fire()
    waiter.forget()
    assert room.forgotten == [waiter]
    assert not room.notes


@everyDriver
@patient
async def test_lettingGoFiresIt(driver: Driver) -> None:
    """Whatever comes of letting go, the coroutine is told that it was cancelled."""
    waiter = Waiter(theReactor(), lambda waiter: waiter.fire(ValueError("not this")))
    running = Running(driver, Room().wait(waiter))
    await turns(2)
    running.cancel()
    await cancelled(running, driver)


@everyDriver
@patient
async def test_closed(driver: Driver) -> None:
    """A coroutine that is thrown away while it waits lets its waiter go."""
    room = Room()
    waiter = room.waiter()
    coroutine = room.wait(waiter)
    coroutine.send(None)
    coroutine.close()
    assert room.forgotten == [waiter]


@everyDriver
@patient
async def test_contextIsKept(driver: Driver) -> None:
    var: ContextVar[str] = ContextVar("var", default="outside")
    room = Room()
    waiter = room.waiter()

    async def inside() -> list[str]:
        var.set("inside")
        await waiter
        return [var.get()]

    running = Running(driver, inside())
    await turns(2)
    var.set("elsewhere")
    waiter.fire()
    assert await running.done == ["inside"]
    assert var.get() == "elsewhere"


@everyDriver
@patient
async def test_manyInARow(driver: Driver) -> None:
    room = Room()
    waiters = [room.waiter() for _ in range(500)]

    async def all_() -> int:
        for waiter in waiters:
            await waiter
        return len(waiters)

    running = Running(driver, all_())
    await turns(2)
    for waiter in waiters:
        waiter.fire()
    assert await running.done == 500


# For a time


@pytest.mark.parametrize("seconds", [None, 3.0])
def test_firesInTime(seconds: float | None) -> None:
    clock = Clock()
    room = Room(clock)
    waiter = room.waiter()
    done = Deferred.fromCoroutine(waiter.within(seconds, TimeoutError))
    clock.advance(2.5)
    assert not done.called
    waiter.fire()
    assert done.result is None
    assert clock.getDelayedCalls() == []
    assert not room.forgotten


def test_tooLate() -> None:
    clock = Clock()
    room = Room(clock)
    waiter = room.waiter()
    done = Deferred.fromCoroutine(waiter.within(3.0, TimeoutError))
    clock.advance(3.0)
    assert isinstance(done.result, Failure)
    assert done.result.check(TimeoutError)
    assert str(done.result.value) == "3.0"
    done.addErrback(lambda failure: None)
    assert room.forgotten == [waiter]
    waiter.fire()


def test_cancelledInTime() -> None:
    clock = Clock()
    room = Room(clock)
    waiter = room.waiter()
    done = Deferred.fromCoroutine(waiter.within(3.0, TimeoutError))
    done.cancel()
    assert isinstance(done.result, Failure)
    assert done.result.check(CancelledError)
    done.addErrback(lambda failure: None)
    assert clock.getDelayedCalls() == []
    assert room.forgotten == [waiter]


# Twisted


def test_resumesWithinTheCall() -> None:
    room = Room(Clock())
    waiter = room.waiter()
    done = Deferred.fromCoroutine(room.wait(waiter))
    waiter.fire()
    assert room.notes == ["resumed"]
    assert done.result == "resumed"


def test_inlineCallbacks() -> None:
    room = Room(Clock())
    waiter = room.waiter()

    @inlineCallbacks
    def generator() -> Generator[Any, Any, str]:
        found = yield Deferred.fromCoroutine(room.wait(waiter))
        return f"{found} here"

    done = generator()
    waiter.fire()
    assert done.result == "resumed here"


def test_cancelTwice() -> None:
    """Who goes on after one cancellation can be cancelled again, in another wait."""
    room = Room(Clock())
    first, second = room.waiter(), room.waiter()

    async def stubborn() -> None:
        with pytest.raises(CancelledError):
            await first
        await second

    done = Deferred.fromCoroutine(stubborn())
    done.cancel()
    assert not done.called or isinstance(done.result, Deferred)
    done.cancel()
    assert isinstance(done.result, Failure)
    assert done.result.check(CancelledError)
    done.addErrback(lambda failure: None)
    assert room.forgotten == [first, second]


def test_aDriverThatComesLate() -> None:
    """Between the yield and the driver's question a waiter may fire, when something stands between the two."""
    room = Room(Clock())
    for error in (None, ValueError("no")):
        waiter = room.waiter()
        waiter.fire(error)
        results: list[tuple[Any, ...]] = []
        waiter.addBoth(lambda result, *rest: rest[0].append((getattr(result, "value", None), *rest[1:])), results, 2)
        assert results == [(error, 2)]


# asyncio


@onAsyncio
@patient
async def test_aDriverOfAsyncioThatComesLate() -> None:
    room = Room()
    waiter = room.waiter()
    waiter.fire()
    results: list[Any] = []
    waiter.add_done_callback(results.append)
    assert results == []
    await turns(2)
    assert results == [waiter]


@onAsyncio
@patient
async def test_cancelledAfterItHadFired() -> None:
    """asyncio may cancel a task between its waiter's firing and its resumption."""
    room = Room()
    waiter = room.waiter()
    running = Running("asyncio", room.wait(waiter))
    await turns(2)
    waiter.fire()
    running.cancel()
    await cancelled(running, "asyncio")
    assert room.notes == []
    assert room.forgotten == []


@onAsyncio
@patient
async def test_theMessageOfACancellation() -> None:
    waiter = Room().waiter()

    async def told() -> str:
        try:
            await waiter
        except asyncio.CancelledError as error:
            return str(error)
        return "nothing"

    loop = asyncio.get_running_loop()
    task = loop.create_task(told())
    await turns(2)
    task.cancel("enough")
    assert await Deferred.fromFuture(task) == "enough"


@onAsyncio
@patient
async def test_whatAsyncioHas() -> None:
    """Timeouts, groups, shields and nested tasks: all of asyncio's own means work on what waits."""
    room = Room()

    async def main() -> list[object]:
        first, second, third = room.waiter(), room.waiter(), room.waiter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(room.wait(first), 0.01)
        assert room.forgotten == [first]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await second
        assert room.forgotten == [first, second]
        shielded = asyncio.ensure_future(room.wait(third, "third"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(shielded), 0.01)
        assert room.forgotten == [first, second]
        third.fire()
        found: list[object] = [await shielded]

        waiters = [room.waiter() for _ in range(3)]
        gathered = asyncio.gather(*(room.wait(waiter, number) for number, waiter in enumerate(waiters)))
        await asyncio.sleep(0)
        for waiter in reversed(waiters):
            waiter.fire()
        found += await gathered

        waiters = [room.waiter() for _ in range(2)]

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(room.wait(waiters[0]))
                group.create_task(room.wait(waiters[1]))
                await asyncio.sleep(0)
                waiters[0].fire(ValueError("one of them"))

        with pytest.raises(ExceptionGroup) as raised:
            await both()
        assert [str(error) for error in raised.value.exceptions] == ["one of them"]
        assert room.forgotten[2:] == [waiters[1]]
        return found

    assert await Running("asyncio", main()).done == ["third", 0, 1, 2]


# Both at once


@onAsyncio
@patient
async def test_theOneResumesTheOther() -> None:
    """Who runs the coroutine that waits is asked, not guessed by whose task is current."""
    room = Room()
    a, b, c = room.waiter(), room.waiter(), room.waiter()

    async def ofTwisted() -> None:
        await a
        room.notes.append(("twisted", asyncio.current_task() is not None))
        await b  # yielded within asyncio's task, which is current
        room.notes.append(("twisted again", asyncio.current_task() is not None))
        c.fire()

    async def ofAsyncio() -> None:
        await asyncio.sleep(0)
        a.fire()  # Twisted's runs to its next wait within this call
        theReactor().callLater(0, b.fire)
        await c
        room.notes.append(("asyncio", True))

    running = [Running("twisted", ofTwisted()), Running("asyncio", ofAsyncio())]
    for one in running:
        await one.done
    assert room.notes == [("twisted", True), ("twisted again", False), ("asyncio", True)]
    assert [waiter.driver for waiter in (a, b, c)] == ["twisted", "twisted", "asyncio"]


@onAsyncio
@patient
async def test_twistedFiresForAsyncio() -> None:
    room = Room()
    a = room.waiter()
    running = Running("asyncio", room.wait(a))

    async def ofTwisted() -> None:
        await outcome(room.reactor, turnsLater())
        a.fire()
        assert room.notes == [], "asyncio's resumes on a turn of its own"

    await Running("twisted", ofTwisted()).done
    assert await running.done == "resumed"


def turnsLater() -> Deferred[None]:
    return Deferred.fromCoroutine(turns(2))


# Elsewhere


def test_bareSend() -> None:
    """Who goes on without waiting is told, and does not go round for ever."""
    room = Room(Clock())
    waiter = room.waiter()
    coroutine = room.wait(waiter)
    assert coroutine.send(None) is waiter
    with pytest.raises(DriverError, match=r"Clock; run it by Deferred\.fromCoroutine") as raised:
        coroutine.send(None)
    assert raised.value.code == "ERR_DRIVER"
    assert isinstance(raised.value, RuntimeError)
    assert room.forgotten == [waiter]


def inAThread(work: Callable[[], object]) -> object:
    """Where no loop runs yet."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("reactor", ["clock", "the reactor"])
def test_aLoopThatDoesNotRunTheReactor(reactor: str) -> None:
    room = Room(Clock() if reactor == "clock" else theReactor())
    waiter = room.waiter()
    error = inAThread(lambda: asyncio.run(room.wait(waiter)))
    assert isinstance(error, DriverError)
    assert isinstance(error.__cause__, RuntimeError)
    assert room.forgotten == [waiter]


@onAsyncio
@patient
async def test_aReactorInMemoryUnderAsyncio() -> None:
    """A task of the loop that runs the real reactor cannot wait for another one."""
    room = Room(Clock())
    with pytest.raises(DriverError, match="cannot wait for Clock"):
        await Running("asyncio", room.wait(room.waiter())).done


def test_trio() -> None:
    trio = pytest.importorskip("trio")
    room = Room(Clock())
    waiter = room.waiter()
    error = inAThread(lambda: trio.run(room.wait, waiter))
    assert isinstance(error, DriverError)
    assert isinstance(error.__cause__, TypeError)
    assert room.forgotten == [waiter]


def test_loopOf() -> None:
    assert loopOf(Clock()) is None


# Deferreds


@everyDriver
@patient
async def test_outcome(driver: Driver) -> None:
    reactor = theReactor()
    assert await Running(driver, outcome(reactor, succeed(5))).done == 5
    with pytest.raises(ValueError, match="no"):
        await Running(driver, outcome(reactor, fail(ValueError("no")))).done
    deferred: Deferred[str] = Deferred()
    running = Running(driver, outcome(reactor, deferred))
    await turns(2)
    deferred.callback("later")
    assert await running.done == "later"
    failing: Deferred[str] = Deferred()
    running = Running(driver, outcome(reactor, failing))
    await turns(2)
    failing.errback(ValueError("later"))
    with pytest.raises(ValueError, match="later"):
        await running.done


@everyDriver
@patient
async def test_outcomeOfWhatIsCancelled(driver: Driver) -> None:
    cancels: list[object] = []
    for canceller in (cancels.append, lambda deferred: deferred.callback("too late")):
        deferred: Deferred[str] = Deferred(canceller)
        running = Running(driver, outcome(theReactor(), deferred))
        await turns(2)
        running.cancel()
        assert type(await cancelled(running, driver)) is CANCELLED[driver]
        assert deferred.called
    assert len(cancels) == 1


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="this is that run")
def test_onAsyncio() -> None:
    passesOnAsyncio(__file__)
