"""
Two protocols with a real connection between them, made by Twisted's own means: no room of ours is involved.

::

    async with pair("tls") as (client, server):
        client.transport.write(b"hello")
        await server.until(lambda: server.received == b"hello")
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from certificates import selfSigned
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

Kind = Literal["tcp", "tcp6", "unix", "policies", "tls", "startTls", "tlsOnUnix"]
"""How the two are connected; ``policies`` is TCP with a ProtocolWrapper at both ends."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Side(Protocol):
    """One end: keeps what happens to it, and can be waited for."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.reason: Failure | None = None
        self._waiters: list[Deferred[None]] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is asked whenever something has happened here."""
        while not condition():
            assert "lost" not in self.events, f"the connection is gone: {self.reason}"
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter

    async def happened(self, event: str) -> None:
        """Wait for one of: made, handshake, data, readEnd, writeEnd, lost."""
        await self.until(lambda: event in self.events)

    def _note(self, event: str) -> None:
        self.events.append(event)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def connectionMade(self) -> None:
        self._note("made")

    def handshakeCompleted(self) -> None:
        self._note("handshake")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._note("data")

    def readConnectionLost(self) -> None:
        self._note("readEnd")

    def writeConnectionLost(self) -> None:
        self._note("writeEnd")

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.reason = reason
        self._note("lost")


@asynccontextmanager
async def pair(kind: Kind) -> AsyncIterator[tuple[Side, Side]]:
    """Give client and server of a connection that stands (over TLS: after the handshake); both are gone afterwards."""
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    client, server = Side(), Side()
    clients, servers = _Once(client), _Once(server)
    path = os.path.join(tempfile.mkdtemp(), "s")
    if kind == "policies":
        clients, servers = WrappingFactory(clients), WrappingFactory(servers)  # type: ignore[assignment]
    if kind == "tls":
        port = reactor.listenSSL(0, servers, selfSigned().forServer(), interface="127.0.0.1")
        reactor.connectSSL("127.0.0.1", port.getHost().port, clients, selfSigned().forClient())
    elif kind in ("unix", "tlsOnUnix"):
        port = reactor.listenUNIX(path, servers)
        reactor.connectUNIX(path, clients)
    else:
        port = reactor.listenTCP(0, servers, interface="::1" if kind == "tcp6" else "127.0.0.1")
        reactor.connectTCP("::1" if kind == "tcp6" else "127.0.0.1", port.getHost().port, clients)
    try:
        await client.happened("made")
        await server.happened("made")
        if kind in ("startTls", "tlsOnUnix"):
            server.transport.startTLS(selfSigned().forServer())
            client.transport.startTLS(selfSigned().forClient())
        if kind in ("tls", "startTls", "tlsOnUnix"):
            await client.happened("handshake")
            await server.happened("handshake")
        yield client, server
    finally:
        for side in (client, server):
            if "made" in side.events and "lost" not in side.events:
                side.transport.abortConnection()
                await side.happened("lost")
        await maybeDeferred(port.stopListening)
        os.rmdir(os.path.dirname(path))


class _Once(ClientFactory):
    """Hands out the one protocol that it was made with."""

    noisy = False

    def __init__(self, protocol: Side) -> None:
        self._side = protocol

    def buildProtocol(self, addr: object) -> Side:
        return self._side


