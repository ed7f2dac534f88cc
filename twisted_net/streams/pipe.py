"""pipe: what comes out of one stream goes into the other, both ways."""

from __future__ import annotations

from typing import NamedTuple

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
    already in the streams' buffers comes first. Both streams are closed then.

    :raises NetError: one of the connections failed: the other one was aborted with it.
    """
    reactor = one.reactor
    first, second = one.handOver(), other.handOver()
    waiter = Waiter(reactor, lambda waiter: introduction.abort())
    introduction = Introduction(first, second, waiter.fire)
    await waiter
    return Piped(*introduction.carried)
