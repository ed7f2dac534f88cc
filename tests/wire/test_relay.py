"""One way from a connection into another, no faster than it is read there."""

from __future__ import annotations

from typing import Any, cast

import pytest
from doors import Kind, door, ended, patient
from turning import turns, until
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import PEER, Relay


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
