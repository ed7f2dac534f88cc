"""
Two connections of ours that are joined, between two strangers: Twisted's own protocols at both ends.

::

    async with meeting("tcp") as met:
        met.introduce()
        met.left.transport.write(b"hello")
        await met.right.has(5)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from doors import Kind, door
from pairs import Side
from turning import until
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import Introduction, Relay


@implementer(IConnectionUser)
class End:
    """Stands behind a connection until it is introduced; or passes on what a relay wants to know."""

    protocol: SocketProtocol
    relay: Relay | None = None

    def connectionOpened(self, protocol: Any) -> None:
        self.protocol = protocol

    def readEnded(self) -> None:
        pass

    def writeEnded(self) -> None:
        pass

    def drained(self) -> None:
        if self.relay is not None:
            self.relay.drained()

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        pass

    def limitPassed(self, name: str, action: str) -> None:
        pass

    def raised(self, where: str, error: Exception) -> None:
        raise error


class Ear(Side):
    """A stranger who hears much, in time that is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.content = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.content += data
        self._note("data")

    @property
    def heard(self) -> bytes:
        """Everything so far."""
        return bytes(self.content)

    async def has(self, size: int) -> None:
        """So many bytes have come, or more."""
        await self.until(lambda: len(self.content) >= size)


class Met:
    """Two of ours, who can be introduced, between two strangers: `left` talks with `first`, `right` with `second`."""

    def __init__(self, factory: SocketFactory, sides: list[Ear], ends: list[End], reactor: Any) -> None:
        self.factory = factory
        self.left, self.right = sides
        self.first, self.second = (end.protocol for end in ends)
        self.reactor = reactor
        self.outcomes: list[Exception | None] = []

    def introduce(self, **keywords: Any) -> Introduction:
        return Introduction(self.first, self.second, self.outcomes.append, **keywords)

    async def ended(self) -> Exception | None:
        """Both are gone; what went wrong."""
        await until(lambda: self.outcomes)
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def _have(ends: list[End], count: int) -> bool:
    return len(ends) == count


@asynccontextmanager
async def meeting(
    kind: Kind,
    *,
    reactor: Any = None,
    limits: Limits = Limits(reserve=0),  # noqa: B008 (it is frozen)
    side: Callable[[], Ear] = Ear,
) -> AsyncIterator[Met]:
    """
    Give the four, connected; all are gone afterwards.

    :param reactor: what ours are given, if it is not to be the running one.
    :param limits: of the two of ours.
    """
    from twisted.internet import reactor as globalReactor

    ends: list[End] = []

    def welcome(protocol: SocketProtocol) -> End:
        ends.append(End())
        return ends[-1]

    given = reactor or globalReactor
    factory = SocketFactory(welcome, cast(IReactorTime, given), limits=limits)
    async with door(factory, kind) as place:
        sides = []
        for count in (1, 2):
            sides.append(await place.connect(side()))
            await until(partial(_have, ends, count))
        yield Met(factory, sides, ends, given)
        factory.abortAll()
    await until(lambda: not factory)
