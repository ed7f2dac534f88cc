"""One way from a connection into another, no faster than it is read there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from doors import Kind, door, ended, patient
from logs import LoggedErrors
from pairs import Side
from turning import turns, until
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import PEER, Introduction, Relay


@implementer(IConnectionUser)
class End:
    """One end of an introduction, which passes on what it is told."""

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


@pytest.mark.parametrize("kind", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)])
@patient
async def test_relay(kind: Kind) -> None:
    from twisted.internet import reactor

    ends: list[End] = []

    def welcome(protocol: SocketProtocol) -> End:
        ends.append(End())
        return ends[-1]

    factory = SocketFactory(welcome, cast(IReactorTime, VirtualTime(reactor)), limits=Limits(reserve=0))
    async with door(factory, kind) as place:
        speaker = await place.connect()
        await until(lambda: len(ends) == 1)
        listener = await place.connect()
        await until(lambda: len(ends) == 2)
        source, sink = ends
        relay = sink.relay = Relay(source.protocol, sink.protocol.write)
        source.protocol.attach(relay.receive)
        speaker.transport.write(b"hello")
        await listener.until(lambda: listener.received == b"hello")
        assert not source.protocol.pressure.paused
        # Nobody reads: what is in flight is bounded by the mark, and not by what is sent.
        listener.transport.pauseProducing()
        content = bytes(range(256)) * 80_000
        speaker.transport.write(content)
        await until(lambda: source.protocol.pressure.owners == (PEER,) and sink.protocol.outlet.unsent >= 65536)
        carried = -1
        while carried != relay.carried:  # the kernel's buffers grow for a while
            carried = relay.carried
            await turns(100)
        assert carried < len(content)
        assert sink.protocol.outlet.unsent + source.protocol.held < 4 * 65536
        listener.transport.resumeProducing()
        await listener.until(lambda: len(listener.received) == len(content) + 5)
        assert listener.received[5:] == content
        assert relay.carried == len(content) + 5
        await until(lambda: not source.protocol.pressure.paused)
        sink.protocol.close()
        await ended(listener)
        factory.abortAll()
    await until(lambda: not factory)


def test_aSinkThatSaysNothing() -> None:
    """What answers with None, as Twisted's own write does, never asks for a pause."""
    taken: list[bytes] = []
    factory = SocketFactory(lambda protocol: End(), cast(IReactorTime, VirtualTime(None)))
    source = factory.buildProtocol(None)
    relay = Relay(source, taken.append)
    relay.receive(b"abc")
    relay.drained()
    assert taken == [b"abc"]
    assert relay.carried == 3
    assert not source.pressure.paused


# Introductions


class Met:
    """Two of ours, who are introduced, between two strangers."""

    def __init__(self, factory: SocketFactory, sides: list[Side], ends: list[End]) -> None:
        self.factory = factory
        self.left, self.right = sides
        self.first, self.second = (end.protocol for end in ends)
        self.outcomes: list[Exception | None] = []

    def introduce(self) -> Introduction:
        return Introduction(self.first, self.second, self.outcomes.append)

    async def ended(self) -> Exception | None:
        """Both are gone; what went wrong."""
        await until(lambda: self.outcomes)
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def _have(ends: list[End], count: int) -> bool:
    return len(ends) == count


def _exhausted(protocol: SocketProtocol) -> bool:
    return protocol.exhausted


@asynccontextmanager
async def meeting(kind: Kind) -> AsyncIterator[Met]:
    from twisted.internet import reactor

    ends: list[End] = []

    def welcome(protocol: SocketProtocol) -> End:
        ends.append(End())
        return ends[-1]

    factory = SocketFactory(welcome, cast(IReactorTime, reactor), limits=Limits(reserve=0))
    async with door(factory, kind) as place:
        sides = []
        for count in (1, 2):
            sides.append(await place.connect())
            await until(partial(_have, ends, count))
        yield Met(factory, sides, ends)
        factory.abortAll()
    await until(lambda: not factory)


every = pytest.mark.parametrize("kind", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)])


@every
@patient
async def test_introduced(kind: Kind) -> None:
    """Both ways, as fast as each end reads; what was held comes first."""
    content = bytes(range(256)) * 20_000
    async with meeting(kind) as met:
        met.left.transport.write(b"held")
        await until(lambda: met.first.held == 4)
        introduction = met.introduce()
        met.left.transport.write(content)
        met.right.transport.write(content)
        await met.right.until(lambda: len(met.right.received) == len(content) + 4)
        await met.left.until(lambda: len(met.left.received) == len(content))
        assert met.right.received == b"held" + content
        assert met.left.received == content
        assert introduction.carried == (len(content) + 4, len(content))
        met.left.transport.loseConnection()
        met.right.transport.loseConnection()
        assert await met.ended() is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_anEndIsPassedOn(kind: Kind) -> None:
    async with meeting(kind) as met:
        met.introduce()
        met.left.transport.write(b"question")
        met.left.transport.loseWriteConnection()
        await met.right.happened("readEnd")
        assert met.right.received == b"question"
        met.right.transport.write(b"answer")
        await met.left.until(lambda: met.left.received == b"answer")
        assert not met.outcomes
        met.right.transport.loseWriteConnection()
        await met.left.happened("readEnd")
        assert await met.ended() is None


@pytest.mark.tls
@patient
async def test_anEndWithoutHalves() -> None:
    """Over TLS a connection ends as a whole: the other one is closed, after all that was for it."""
    content = bytes(500_000)
    async with meeting("tls") as met:
        met.introduce()
        met.left.transport.write(content)
        met.left.transport.loseConnection()
        await met.right.happened("lost")
        assert met.right.received == content
        assert await met.ended() is None


@every
@patient
async def test_oneFails(kind: Kind) -> None:
    async with meeting(kind) as met:
        met.introduce()
        met.first.drop(ZeroDivisionError("one of them"))
        await ended(met.right)
        assert str(await met.ended()) == "one of them"
        assert str(met.second.error) == "one of them"


@every
@patient
async def test_oneIsGone(kind: Kind) -> None:
    """Without an error, and without an end that could be passed on: the other one is closed in good order."""
    async with meeting(kind) as met:
        met.introduce()
        met.left.transport.write(b"the last")
        await met.right.until(lambda: met.right.received == b"the last")
        met.first.drop()
        await ended(met.right)
        assert await met.ended() is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_whoHadEndedBefore(kind: Kind) -> None:
    """His end was told to somebody else; it is passed on all the same, after what was given back."""
    for unread in (b"", b"unread"):
        async with meeting(kind) as met:
            met.first.attach(lambda data: None)
            met.left.transport.write(b"unread")
            met.left.transport.loseWriteConnection()
            await until(partial(_exhausted, met.first))
            met.first.giveBack(unread)
            introduction = met.introduce()
            await met.right.happened("readEnd")
            assert met.right.received == unread
            assert introduction.carried == (len(unread), 0)
            met.right.transport.loseConnection()
            assert await met.ended() is None


@every
@patient
async def test_part(kind: Kind) -> None:
    """What comes then is held, and nobody waits for the other one any more."""
    async with meeting(kind) as met:
        introduction = met.introduce()
        met.right.transport.pauseProducing()
        met.left.transport.write(bytes(20_000_000))
        await until(lambda: PEER in met.first.pressure.owners)
        introduction.part()
        assert PEER not in met.first.pressure.owners
        carried = introduction.carried[0]
        met.right.transport.resumeProducing()
        await met.right.until(lambda: len(met.right.received) == carried)
        await turns(20)
        assert introduction.carried[0] == carried
        received = bytearray()
        met.first.user = End()
        met.first.attach(received.extend)
        await until(lambda: len(received) == 20_000_000 - carried)
        assert not met.outcomes


@patient
async def test_aDefect(loggedErrors: LoggedErrors) -> None:
    """What raises on a road of ours is logged, and ends both."""
    async with meeting("tcp") as met:
        met.introduce()
        met.first.attach(lambda data: 1 // 0)
        met.first.user.limitPassed("idleTimeout", "closed")
        met.left.transport.write(b"x")
        assert isinstance(await met.ended(), ZeroDivisionError)
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
