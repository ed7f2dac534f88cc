"""select: which of several streams, listeners and attempts need not be waited for (LUAS-16, LUAS-59)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted_net.errors import OptionError
from twisted_net.streams.dialling import Pending
from twisted_net.streams.listener import Listener
from twisted_net.streams.master import Master
from twisted_net.streams.stream import Stream
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.waiting import Waiter

Readable = Stream | Listener | Master
Writable = Stream | Pending | Master


async def select(
    readers: Iterable[Readable] = (), writers: Iterable[Writable] = (), timeout: float | None = None
) -> tuple[list[Readable], list[Writable]]:
    """
    Wait until one of *readers* can be read without waiting, or one of *writers* written.

    A stream is readable when bytes have come, or its end; a listener when somebody waits to be accepted. A stream is
    writable while fewer bytes than its high-water mark are unsent; an attempt (``error.pending``) when it has come to
    its end. There is no limit to their number. With several, they come in the order in which they were given.

    :param timeout: seconds; None, or a negative number, waits for ever. 0 only looks.
    :returns: those that are readable, and those that are writable; both empty when the time is up.
    :raises OptionError: for something else among them.
    """
    limit = limitOf("timeout", timeout)
    reading: list[Any] = list(readers)
    writing: list[Any] = list(writers)
    for one in reading:
        _checkKind(one, (Stream, Listener, Master), "read from")
    for one in writing:
        _checkKind(one, (Stream, Pending, Master), "written to")
    ready = _ready(reading, writing)
    everything = list({id(one): one for one in (*reading, *writing)}.values())
    if any(ready) or not everything or limit == 0:
        return ready
    reactor = everything[0].reactor
    waiter = Waiter(reactor, _forget)
    expired = False

    def look() -> None:
        if any(_ready(reading, writing)):
            waiter.fire()

    def expire() -> None:
        nonlocal expired
        expired = True
        waiter.fire()

    timer = None if limit is None else reactor.callLater(limit, expire)
    for one in everything:
        one.watch(look)
    try:
        while True:
            await waiter
            ready = _ready(reading, writing)
            if expired or any(ready):
                return ready
            # asyncio resumes later: somebody else has been faster.
            waiter = Waiter(reactor, _forget)
    finally:
        for one in everything:
            one.unwatch(look)
        if timer is not None and timer.active():
            timer.cancel()


def _forget(waiter: Waiter) -> None:
    """Nobody keeps it."""


def _ready(readers: list[Any], writers: list[Any]) -> tuple[list[Any], list[Any]]:
    return [one for one in readers if one.readable], [one for one in writers if one.writable]


def _checkKind(one: object, kinds: tuple[type, ...], what: str) -> None:
    if not isinstance(one, kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise OptionError(f"{one!r} cannot be {what}; give one of {names}")
