"""Who runs a coroutine: Twisted's driver, and asyncio's where its loop runs the reactor."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal

import pytest
import pytest_twisted
from programs import environment
from scenes import patient
from twisted.internet import defer
from twisted.internet.defer import Deferred

from twisted_net.wire.waiting import loopOf

Driver = Literal["twisted", "asyncio"]

#: What a coroutine that is cancelled is told by who runs it.
CANCELLED: Final[dict[Driver, type[BaseException]]] = {
    "twisted": defer.CancelledError,
    "asyncio": asyncio.CancelledError,
}


def theReactor() -> Any:
    """The reactor of this run."""
    from twisted.internet import reactor

    return reactor


def reactorName() -> str:
    """The short name of this run's reactor, for programs that shall run on it too."""
    names = {"EPollReactor": "epoll", "UvloopReactor": "uvloop", "AsyncioSelectorReactor": "asyncio"}
    return names.get(type(theReactor()).__name__, "default")


LARGEST_SEGMENT = 256_000 if reactorName() == "uvloop" else 65_536
"""Bytes that a transport of this run delivers at once, at most: Twisted's bufferSize, and uvloop's own buffer."""

onAsyncio = pytest.mark.skipif(loopOf(theReactor()) is None, reason="asyncio does not run this reactor")

everyDriver = pytest.mark.parametrize("driver", ["twisted", pytest.param("asyncio", marks=onAsyncio)])


class Running:
    """A coroutine that runs; *done* fires with its outcome."""

    def __init__(self, driver: Driver, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.cancel: Callable[[], object]
        if driver == "twisted":
            self.done: Deferred[Any] = Deferred.fromCoroutine(coroutine)
            self.cancel = self.done.cancel
        else:
            loop = loopOf(theReactor())
            assert loop is not None
            task = loop.create_task(coroutine)
            self.done = Deferred.fromFuture(task)
            self.cancel = task.cancel


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Awaitable[None]]:
    """A test that waits, but not for ever: by each driver that this reactor has."""
    drivers: list[Driver] = ["twisted"] if loopOf(theReactor()) is None else ["twisted", "asyncio"]

    @functools.wraps(test)
    async def play(**fixtures: Any) -> None:
        for driver in drivers:
            await patient(Running(driver, test(**fixtures)).done)

    return pytest_twisted.ensureDeferred(play)


async def cancelled(running: Running, driver: Driver) -> BaseException:
    """Wait until it has ended by its cancellation, and return the exception."""
    with pytest.raises(CANCELLED[driver]) as raised:
        await running.done
    return raised.value


def passesOnAsyncio(file: str) -> None:
    """Run a file of tests on the asyncio reactor, in a process of its own: also where this run has another one."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--reactor=asyncio", file]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
