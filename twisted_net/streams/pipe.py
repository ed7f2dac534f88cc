"""pipe: what comes out of one stream goes into the other, both ways."""

from __future__ import annotations

from typing import NamedTuple

from twisted_net.errors import OptionError
from twisted_net.streams.stream import Stream
from twisted_net.wire.relay import Introduction
from twisted_net.wire.waiting import Waiter


class Piped(NamedTuple):
    """How much went which way."""

    there: int
    """Bytes from the first stream into the second."""
    back: int
    """Bytes from the second stream into the first."""


async def pipe(one: Stream, other: Stream) -> Piped:
    """
    Copy both ways, until both ways have ended.

    Who reads slowly makes the other one wait; an end is passed on as an end, and the other way goes on. What was
    already in the streams' buffers comes first. Both streams are closed then. Whoever is cancelled has them back, and
    nothing is lost: what was read from the one will be sent to the other.

    :raises NetError: one of the connections failed: the other one was aborted with it. Or one of them is closed, or
        has ended; then nothing has changed.
    :raises BusyError: somebody is reading or writing; nothing has changed.
    :raises OptionError: both are the same stream.
    """
    if one is other:
        raise OptionError(f"{one!r} cannot be joined to itself; give two streams")
    for stream in (one, other):
        stream.checkWhole("pipe")
    waiter = Waiter(one.reactor, lambda waiter: None)
    introduction = Introduction(one.handOver(), other.handOver(), waiter.fire)
    try:
        await waiter
    except BaseException:
        introduction.part()
        one.takeBack()
        other.takeBack()
        raise
    return Piped(*introduction.carried)
