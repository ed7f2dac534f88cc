"""What a server's protocol factory owes, whatever its protocol says: it outlives every client.

The clients here know nothing of the protocol.  They come and leave, are torn away, talk nonsense, do not listen, or say
nothing at all; afterwards every connection must have ended, and the next client must be served.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.subject import QUIET, Stage, Subject
from twisted_net.testing.peers import Peer

checkProtocolFactory = Check("protocolFactory", "stream", "factory")

_NONSENSE: Final = random.Random(1).randbytes(300)
"""Every kind of byte, in an order that no protocol expects; the same each time."""

_TOO_MUCH: Final = 1_000_000
"""Bytes of nonsense without a line's end: above what a protocol should keep of an unfinished message."""


@checkProtocolFactory.case()
async def eachConnectionHasAProtocolOfItsOwn(subject: Subject) -> None:
    """buildProtocol gives another protocol for each connection (IProtocolFactory.buildProtocol)."""
    async with _watched(subject) as watch:
        for _ in range(3):
            await watch.client()
        different = {id(one.wrapped) for one in watch.witnesses}
        assert len(different) == 3, f"three connections share {len(different)} protocols"


@checkProtocolFactory.case()
async def aFactoryCanListenAgain(subject: Subject) -> None:
    """A factory that was stopped can be started again (IProtocolFactory.doStart, doStop)."""
    async with _watched(subject) as watch:
        await watch.client()
        await maybeDeferred(watch.stage.port.stopListening)
        await watch.stage.listens()
        await watch.client()


@checkProtocolFactory.case()
async def itOutlivesWhoComesAndLeaves(subject: Subject) -> None:
    """A client who says nothing and closes is nothing special."""
    async with _watched(subject) as watch:
        client = await watch.client()
        client.closes()
        await watch.endsWith(client)


@checkProtocolFactory.case("abort")
async def itOutlivesAReset(subject: Subject) -> None:
    """A client who is torn away at once, and one in the middle of a word, are nothing special (RFC 9293, 3.5.2)."""
    async with _watched(subject) as watch:
        for words in (b"", _NONSENSE):
            client = await watch.client()
            client.sends(words)
            client.aborts()
            await watch.endsWith(client)


@checkProtocolFactory.case()
async def itOutlivesNonsenseByteByByte(subject: Subject) -> None:
    """Nonsense that comes a byte at a time raises nothing, and ends when the client does."""
    async with _watched(subject) as watch:
        client = await watch.client()
        for index in range(len(_NONSENSE)):
            client.transport.write(_NONSENSE[index : index + 1])
            await deferLater(subject.reactor, 0, lambda: None)
        client.closes()
        await watch.endsWith(client)


@checkProtocolFactory.case()
async def itOutlivesNonsenseWithoutEnd(subject: Subject) -> None:
    """A megabyte of nonsense in one go raises nothing, and ends when the client does."""
    async with _watched(subject) as watch:
        client = await watch.client()
        client.sends(_NONSENSE * (_TOO_MUCH // len(_NONSENSE)))
        await watch.takes(_TOO_MUCH // len(_NONSENSE) * len(_NONSENSE))
        client.closes()
        await watch.endsWith(client)


@checkProtocolFactory.case("abort")
async def itOutlivesWhoNeverReads(subject: Subject) -> None:
    """A client who talks and never reads an answer does not keep his connection beyond his own end."""
    async with _watched(subject) as watch:
        client = await watch.client()
        client.pauses()
        client.sends(_NONSENSE * 100)
        await deferLater(subject.reactor, QUIET, lambda: None)
        client.aborts()
        await watch.endsWith(client)


@checkProtocolFactory.case("halfClose")
async def itEndsWhoHasEnded(subject: Subject) -> None:
    """A client who ends at once is answered with an end, sooner or later: nobody stays half-open for ever
    (RFC 9293, 3.6; IHalfCloseableProtocol)."""
    async with _watched(subject) as watch:
        client = await watch.client()
        client.ends()
        await watch.endsWith(client)


class _Witness(Protocol):
    """Stands before a protocol that is judged, and sees what it is told and what it raises."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.made = 0
        self.lost = 0
        self.received = 0
        self.raised: list[Exception] = []
        for interface in (IHalfCloseableProtocol, IHandshakeListener, IFileDescriptorReceiver):
            if interface.providedBy(wrapped):
                alsoProvides(self, interface)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def makeConnection(self, transport: Any) -> None:
        self.made += 1
        self._tells(self.wrapped.makeConnection, transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._tells(self.wrapped.dataReceived, data)

    def readConnectionLost(self) -> None:
        self._tells(self.wrapped.readConnectionLost)

    def writeConnectionLost(self) -> None:
        self._tells(self.wrapped.writeConnectionLost)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1
        self._tells(self.wrapped.connectionLost, reason)

    def _tells(self, method: Callable[..., object], *args: object) -> None:
        try:
            method(*args)
        except Exception as error:
            self.raised.append(error)
            raise


@implementer(IProtocolFactory)
class _Watch:
    """The factory that is judged, with a witness for each connection."""

    noisy = False
    stage: Stage

    def __init__(self, subject: Subject) -> None:
        assert subject.factory is not None
        self.witnesses: list[_Witness] = []
        self._subject = subject
        self._factory = subject.factory()

    async def client(self) -> Peer:
        """A client who is being served."""
        before = len(self.witnesses)
        client = await self.stage.peers.connects(self.stage.endpoint())
        await self._until(lambda: len(self.witnesses) > before, "the client was not served")
        return client

    async def takes(self, size: int) -> None:
        """Wait until the newest connection has been given so many bytes, or has had enough."""
        newest = self.witnesses[-1]
        await self._until(lambda: newest.received >= size or newest.lost > 0, f"{size} bytes were not read")

    async def endsWith(self, client: Peer) -> None:
        """Wait until the connections have ended on the server's side; and the next client must be served."""
        told = f"the server keeps its connection:\n{client.tells()}\n"
        await self._until(lambda: all(one.lost for one in self.witnesses), told)
        await self.stage.peers.leaves([await self.client()])
        await self._until(lambda: all(one.lost for one in self.witnesses), told)

    async def ends(self) -> None:
        """Stop listening, and wait until every connection has ended."""
        await self.stage.peers.closes()
        await self._until(lambda: all(one.lost for one in self.witnesses), "a connection is left open")

    def judges(self) -> None:
        """Everything has ended: whether all of it was in order."""
        for one in self.witnesses:
            assert one.made == 1, f"{one.wrapped!r} was connected {one.made} times"
            assert one.lost == 1, f"connectionLost of {one.wrapped!r} came {one.lost} times"
            assert not one.raised, f"{one.wrapped!r} has raised {one.raised}"

    async def _until(self, come: Callable[[], bool], failure: str) -> None:
        reactor = self._subject.reactor
        latest = reactor.seconds() + self._subject.patience
        while not come():
            assert reactor.seconds() < latest, f"{failure} in {self._subject.patience:g} seconds"
            await deferLater(reactor, QUIET / 10, lambda: None)

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
        if protocol is None:
            return None
        self.witnesses.append(_Witness(protocol))
        return self.witnesses[-1]


@asynccontextmanager
async def _watched(subject: Subject) -> AsyncIterator[_Watch]:
    """The judged factory, listening; afterwards everything must have ended in order."""
    watch = _Watch(subject)
    async with subject.wrapped(lambda factory: watch, None).stage() as watch.stage:
        await watch.stage.listens()
        yield watch
        await watch.ends()
    watch.judges()
