"""
Deferreds, awaited in tasks of asyncio's.

Where asyncio runs the reactor a handler's coroutines are tasks of asyncio's, so that asyncio's libraries work in them;
and a task refuses to wait for a Deferred. But services run on uvloop as soon as that is installed, and a handler that
awaits Deferreds, as it may on Twisted's other reactors, must not fail because of what somebody has installed.

So between the task and the coroutine stands an interpreter: what the coroutine waits for is handed on as it is, but for
a Deferred the task gets a future that is done when the Deferred has its result. The coroutine takes the result from the
Deferred itself.

What a handler runs in tasks that it makes itself is no business of ours: there it is ``await deferred.asFuture(loop)``.

Rejected: to run such handlers by Twisted's driver, since nobody can see beforehand what a coroutine will wait for.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_net.wire.waiting import Waiter, loopOf

__all__ = ["interpreted"]

T = TypeVar("T")


def interpreted(handler: Callable[[T], Coroutine[Any, Any, object]], reactor: Any) -> Callable[[T], Any]:
    """
    A handler whose coroutines may await Deferreds whoever runs them on *reactor*; where asyncio does, also whatever
    asyncio's tasks may.

    A task that is cancelled cancels the Deferred that it waits for; its coroutine gets asyncio's ``CancelledError``.
    """
    loop = loopOf(reactor)
    if loop is None:
        return handler

    async def run(argument: T) -> object:
        return await _interpret(handler(argument), loop)

    return run


@types.coroutine
def _interpret(coroutine: Coroutine[Any, Any, object], loop: asyncio.AbstractEventLoop) -> Generator[Any, None, object]:
    resume: Callable[[Any], Any] = coroutine.send
    argument: BaseException | None = None
    while True:
        try:
            waited = resume(argument)
        except StopIteration as ended:
            return ended.value
        finally:
            resume, argument = coroutine.send, None  # an error that stays in a frame of its traceback is a cycle
        try:
            # A Waiter is a Deferred that tasks can wait for.
            if isinstance(waited, Deferred) and not isinstance(waited, Waiter):
                yield from _called(waited, loop)
            else:
                yield waited
        except BaseException as error:  # cancelled, or collected
            resume, argument = coroutine.throw, error


def _called(deferred: Deferred[Any], loop: asyncio.AbstractEventLoop) -> Generator[Any, None, None]:
    """Wait until it has a result, which stays in it."""
    future = loop.create_future()

    def tell(result: object) -> object:
        if not future.done():
            future.set_result(None)
        return result

    deferred.addBoth(tell)
    try:
        yield from future
    except asyncio.CancelledError:
        deferred.addErrback(_wanted)
        deferred.cancel()
        raise


def _wanted(failure: Failure) -> None:
    """It fails because we have cancelled it."""
    failure.trap(CancelledError)
