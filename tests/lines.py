"""
A connection of ours, its user, and a stranger at the other end: Twisted's own protocol, or Python's ``ssl`` module.

::

    async with line("tls") as (ours, user, peer):
        ours.write(b"hello")
        await peer.until(lambda: peer.received == b"hello")
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, NamedTuple

from certificates import selfSigned
from pairs import Side
from turning import turns
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import ClientFactory
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
from twisted_net.wire.protocol import SocketProtocol

Kind = Literal["tcp", "unix", "policies", "tls", "tlsUnderPolicies", "startTls"]
PATIENCE = float(os.environ.get("PATIENCE", 30))
"""Seconds after which a test that waits for something has failed."""

ENCRYPTED = ("tls", "tlsUnderPolicies", "startTls")


@implementer(IConnectionUser)
class User:
    """Stands behind a connection: keeps what happens, and can be waited for.

    :ivar hooks: what is done when the event of that name happens; it may raise.
    """

    def __init__(self, attach: bool = True) -> None:
        self.received = b""
        self.events: list[str] = []
        self.error: Exception | None = None
        self.reason: Failure | None = None
        self.hooks: dict[str, Callable[..., object]] = {}
        self.protocol: Any = None
        self._attach = attach
        self._waiters: list[Deferred[None]] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is asked whenever something has happened here."""
        while not condition():
            await _patient(self._waiters, f"the user has seen no more than {self.events}")

    async def happened(self, event: str) -> None:
        """Wait for the event of that name."""
        await self.until(lambda: event in self.events)

    def note(self, event: str, *args: object) -> None:
        """Something happened; written down before its hook runs."""
        self.events.append(event)
        waiters, self._waiters = self._waiters, []
        try:
            hook = self.hooks.get(event)
            if hook is not None:
                hook(*args)
        finally:
            for waiter in waiters:
                waiter.callback(None)

    def connectionOpened(self, protocol: Any) -> None:
        self.protocol = protocol
        if self._attach:
            protocol.attach(self.receive)
        self.note("opened", protocol)

    def receive(self, data: bytes) -> None:
        self.received += data
        self.note("data", data)

    def readEnded(self) -> None:
        self.note("readEnded")

    def writeEnded(self) -> None:
        self.note("writeEnded")

    def drained(self) -> None:
        self.note("drained")

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        self.error = error
        self.reason = reason
        self.note("closed", error, reason)

    def limitPassed(self, name: str, action: str) -> None:
        self.note(f"limit {name} {action}", name, action)

    def raised(self, where: str, error: Exception) -> None:
        self.note(f"raised {where}", where, error)


class Stranger(Side):
    """The other end; with a context it speaks TLS by Python's ``ssl``, and closes only what it is told to close."""

    def __init__(self, context: ssl.SSLContext | None = None, *, server: bool = False) -> None:
        super().__init__()
        self.raw = b""
        self.shaken = False
        self.notified = False
        self.answers = True
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            name = None if server else "localhost"
            self._tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is asked whenever something has happened here."""
        while not condition():
            await _patient(self._waiters, f"the peer has seen no more than {self.events}")

    def connectionMade(self) -> None:
        super().connectionMade()
        if self._tls is not None:
            self._turn()

    def write(self, data: bytes) -> None:
        if self._tls is None:
            self.transport.write(data)
        else:
            for start in range(0, len(data), 16384):
                self._tls.write(data[start : start + 16384])
            self._flush()

    def goodbye(self) -> None:
        """Send close_notify, and go on reading."""
        assert self._tls is not None
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        self.transport.write(self._out.read())

    def dataReceived(self, data: bytes) -> None:
        if self._tls is None:
            super().dataReceived(data)
            return
        self.raw += data
        self._in.write(data)
        if self.answers:
            self._turn()

    def _turn(self) -> None:
        assert self._tls is not None
        try:
            if not self.shaken:
                self._tls.do_handshake()
                self.shaken = True
                self._note("handshake")
            while True:
                data = self._tls.read(65536)
                if not data:
                    raise ssl.SSLZeroReturnError
                self.received += data
                self._note("data")
        except ssl.SSLZeroReturnError:
            if not self.notified:
                self.notified = True
                self._note("notified")
        except ssl.SSLWantReadError:
            pass
        finally:
            self._flush()


class Line(NamedTuple):
    ours: SocketProtocol
    user: User
    peer: Stranger


def sslContext(*, server: bool = False, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A context of Python's for one end, which believes and shows the certificate of these tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    signed = selfSigned()
    if server:
        with tempfile.NamedTemporaryFile() as file:
            file.write(signed.certificate + signed.key)
            file.flush()
            context.load_cert_chain(file.name)
    else:
        context.load_verify_locations(cadata=signed.certificate.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Once(ClientFactory):
    """Hands out the one protocol that it was made with."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


@asynccontextmanager
async def line(
    kind: Kind = "tcp",
    *,
    client: bool = False,
    user: User | None = None,
    peer: Stranger | None = None,
    version: ssl.TLSVersion | None = None,
    time: Any = None,
    prepare: Callable[[SocketProtocol], object] = lambda protocol: None,
    settled: bool = True,
    **keywords: Any,
) -> AsyncIterator[Line]:
    """Give a connection that stands (over TLS: whose handshake is over, when *settled*); it is gone afterwards.

    :param client: ours is the client; else the server.
    :param version: of TLS, the only one that the peer speaks.
    :param time: the reactor that ours is given, if it is not to be the real one.
    :param prepare: is given ours before it is connected.
    """
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    user = user or User()
    encrypted = kind in ENCRYPTED
    if peer is None:
        peer = Stranger(sslContext(server=client, version=version) if encrypted else None, server=client)
    ours = SocketProtocol(user, time or reactor, **keywords)
    prepare(ours)
    mine: Any = Once(ours)
    if kind in ("policies", "tlsUnderPolicies"):
        mine = WrappingFactory(mine)
    where = tempfile.mkdtemp()
    path = os.path.join(where, "s")
    theirs = Once(peer)
    listener, connector = (theirs, mine) if client else (mine, theirs)
    if kind == "unix":
        port = reactor.listenUNIX(path, listener)
        reactor.connectUNIX(path, connector)
    elif kind in ("tls", "tlsUnderPolicies") and not client:
        port = reactor.listenSSL(0, listener, selfSigned().forServer(), interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, connector)
    else:
        port = reactor.listenTCP(0, listener, interface="127.0.0.1")
        if kind in ("tls", "tlsUnderPolicies"):
            reactor.connectSSL("127.0.0.1", port.getHost().port, connector, selfSigned().forClient())
        else:
            reactor.connectTCP("127.0.0.1", port.getHost().port, connector)
    try:
        await peer.happened("made")
        if settled:
            await user.happened("opened")
            if kind == "startTls":
                ours.startTLS(selfSigned().forClient() if client else selfSigned().forServer(), True)
            if encrypted:
                await peer.happened("handshake")
                await turns(3)
        yield Line(ours, user, peer)
    finally:
        ours.drop()
        if "opened" in user.events:
            await user.happened("closed")
        if "lost" not in peer.events:
            peer.transport.abortConnection()
            await peer.happened("lost")
        await maybeDeferred(port.stopListening)
        os.rmdir(where)


def _patient(waiters: list[Deferred[None]], text: str) -> Deferred[None]:
    """Wait among *waiters*, but not for ever."""
    from twisted.internet import reactor

    def late(result: object, seconds: float) -> None:
        waiters.remove(waiter)
        raise AssertionError(f"nothing happened for {seconds:g} seconds: {text}")

    waiter: Deferred[None] = Deferred()
    waiters.append(waiter)
    return waiter.addTimeout(PATIENCE, reactor, late)


def pattern(size: int) -> bytes:
    """That many bytes, no two stretches of which are alike, so that one that is lost or doubled is seen."""
    return b"".join(index.to_bytes(4, "big") for index in range(size // 4 + 1))[:size]
