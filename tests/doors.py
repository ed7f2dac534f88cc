"""
A listening port of Twisted's own with clients of Twisted's own, for tests of what stands between: a factory of ours.

::

    async with door(factory, "tls") as place:
        client = await place.connect()
        ...
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest_twisted
from certificates import selfSigned
from pairs import Side
from turning import PATIENCE
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import ClientFactory

Kind = Literal["tcp", "dual", "unix", "tls", "tlsOnUnix"]
"""``dual`` is one TCP port for IPv6 and IPv4; ``tls`` is ``listenSSL``, ``tlsOnUnix`` a TLSMemoryBIOFactory."""


class Port:
    """What the factory's ``adopt`` is given: a stock port, which may be paused or not."""

    def __init__(self, port: Any, canPause: bool = True) -> None:
        self.port = port
        self.canPause = canPause

    def pauseProducing(self) -> None:
        self.port.pauseProducing()

    def resumeProducing(self) -> None:
        self.port.resumeProducing()


class Place:
    """A port that listens, and those who have come."""

    def __init__(self, kind: Kind, port: Any, path: str) -> None:
        self.kind = kind
        self.port = Port(port)
        self.path = path
        self.clients: list[Side] = []
        self.strangers: list[socket.socket] = []

    async def connect(self, side: Side | None = None, host: str = "127.0.0.1", source: str | None = None) -> Any:
        """A client whose connection the kernel has taken; *side* is its protocol."""
        from twisted.internet import reactor as globalReactor

        reactor: Any = globalReactor
        client = Side() if side is None else side
        factory = _Once(client)
        if self.kind == "unix":
            reactor.connectUNIX(self.path, factory)
        elif self.kind == "tlsOnUnix":
            from twisted.protocols.tls import TLSMemoryBIOFactory

            reactor.connectUNIX(self.path, TLSMemoryBIOFactory(selfSigned().forClient(), True, factory))
        elif self.kind == "tls":
            reactor.connectSSL(host, self.number, factory, selfSigned().forClient())
        else:
            reactor.connectTCP(host, self.number, factory, bindAddress=None if source is None else (source, 0))
        await factory.connected
        await client.happened("made")
        self.clients.append(client)
        return client

    def stranger(self) -> socket.socket:
        """A plain socket that is connected, whether anybody accepts it or not."""
        one = socket.socket(socket.AF_UNIX if "nix" in self.kind else socket.AF_INET)
        self.strangers.append(one)
        one.settimeout(PATIENCE)
        one.connect(self.path if "nix" in self.kind else ("127.0.0.1", self.number))
        return one

    @property
    def number(self) -> int:
        """The port's number."""
        number: int = self.port.port.getHost().port
        return number

    async def stop(self) -> None:
        """Accept nobody any more."""
        await maybeDeferred(self.port.port.stopListening)


@asynccontextmanager
async def door(factory: IProtocolFactory, kind: Kind = "tcp") -> AsyncIterator[Place]:
    """A port for *factory*; it is closed afterwards, and the clients are gone."""
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "s")
    if kind == "unix":
        port = reactor.listenUNIX(path, factory)
    elif kind == "tlsOnUnix":
        from twisted.protocols.tls import TLSMemoryBIOFactory

        port = reactor.listenUNIX(path, TLSMemoryBIOFactory(selfSigned().forServer(), False, factory))
    elif kind == "tls":
        port = reactor.listenSSL(0, factory, selfSigned().forServer(), interface="127.0.0.1", backlog=511)
    else:
        port = reactor.listenTCP(0, factory, interface="::" if kind == "dual" else "127.0.0.1", backlog=511)
    place = Place(kind, port, path)
    try:
        yield place
    finally:
        await place.stop()
        for client in place.clients:
            if "lost" not in client.events:
                client.transport.abortConnection()
                await client.happened("lost")
        for stranger in place.strangers:
            stranger.close()
        os.rmdir(folder)


async def ended(client: Side) -> None:
    """The other side has ended the connection: by FIN, or however else."""
    await client.until(lambda: "readEnd" in client.events or "lost" in client.events)


def reset(stranger: socket.socket) -> None:
    """Close a TCP socket with RST, as the kernel does for a process that dies with bytes unread."""
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.close()


def patient(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
    """A test that runs in the reactor, and fails when it waits for too long."""

    @functools.wraps(test)
    async def run(**fixtures: Any) -> None:
        from twisted.internet import reactor

        await Deferred.fromCoroutine(test(**fixtures)).addTimeout(PATIENCE, reactor)

    return pytest_twisted.ensureDeferred(run)


class _Once(ClientFactory):
    noisy = False

    def __init__(self, protocol: Side) -> None:
        self._side = protocol
        self.connected: Deferred[None] = Deferred()

    def buildProtocol(self, addr: object) -> Side:
        self.connected.callback(None)
        return self._side

    def clientConnectionFailed(self, connector: object, reason: Any) -> None:
        self.connected.errback(reason)
