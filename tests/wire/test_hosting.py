"""Protocols that nobody here wrote, hosted: they must not notice, and the limits must hold."""

from __future__ import annotations

import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any, cast

import pytest
from doors import Kind, Place, door, ended, patient
from logs import LoggedErrors
from pairs import Side
from turning import turns, until
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.amp import AMP, Command, Integer
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer, providedBy

from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.factory import Ended
from twisted_net.wire.hosting import HostFactory, Screen, host
from twisted_net.wire.limits import Limits

TLS = pytest.param("tls", marks=pytest.mark.tls)
KINDS: tuple[Any, ...] = ("tcp", "unix", TLS)
NONE = Limits(reserve=0)
WIDE = Limits(reserve=0, readRate=1e9, writeRate=1e9, idleTimeout=3600, halfOpenTimeout=3600)
"""In force, and never felt: the guest has a Screen."""
BOTH = pytest.mark.parametrize("limits", [NONE, WIDE], ids=["bare", "screened"])


class Hall:
    """A hosted factory, and what became of its connections."""

    place: Place

    def __init__(self, factory: Any, limits: Limits, journal: bool, allowHalfOpen: bool) -> None:
        from twisted.internet import reactor

        self.time: Any = VirtualTime(reactor)
        self.records: list[Ended] = []
        self.factory: HostFactory = host(
            factory,
            cast(IReactorTime, self.time),
            limits=limits,
            journal=self.records.append if journal else None,
            allowHalfOpen=allowHalfOpen,
        )

    async def gone(self) -> None:
        """Wait until nobody is connected."""
        await until(lambda: not self.factory)


@asynccontextmanager
async def hosted(
    factory: Any, limits: Limits = NONE, kind: Kind = "tcp", *, journal: bool = True, allowHalfOpen: bool = False
) -> AsyncIterator[Hall]:
    hall = Hall(factory, limits, journal, allowHalfOpen)
    async with door(hall.factory, kind) as place:
        hall.place = place
        yield hall
        hall.factory.stop()
        hall.factory.abortAll()
    await hall.gone()
    await turns(2)
    assert hall.time.getDelayedCalls() == []
    if journal:
        assert len(hall.records) == hall.factory.counters["accepted"]


def protocolsOf(make: Callable[[], Any], noisy: bool = False) -> Any:
    """A factory of them, which keeps them."""

    class Keeping(ServerFactory):
        def __init__(self) -> None:
            self.noisy = noisy
            self.built: list[Any] = []
            self.running = 0

        def startFactory(self) -> None:
            self.running += 1

        def stopFactory(self) -> None:
            self.running -= 1

        def buildProtocol(self, addr: Any) -> Any:
            protocol = make()
            if protocol is not None:
                protocol.factory = self
                protocol.addr = addr
                self.built.append(protocol)
            return protocol

    return Keeping()


class Echo(Protocol):
    """Twisted's first example."""

    transport: Any
    reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.reason = reason


async def asked(client: Side, question: bytes, answer: bytes) -> None:
    """The client says one and hears the other, from the beginning."""
    client.transport.write(question)
    await client.until(lambda: len(client.received) >= len(answer))
    assert client.received == answer


# -- what the guest is given


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("tlsOnUnix", marks=pytest.mark.tls)])
@patient
async def test_bareGuestHasTheTransportItself(kind: Kind) -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, kind=kind) as hall:
        client = await hall.place.connect()
        await asked(client, b"hello", b"hello")
        (app,) = factory.built
        (protocol,) = hall.factory
        assert app.transport is protocol.transport
        assert type(app.addr) is type(app.transport.getPeer())
        app.transport.writeSequence([b"a", b"b"])
        app.transport.writeSequence(iter([b"c"]))
        await client.until(lambda: client.received == b"helloabc")
        client.transport.loseConnection()
        await hall.gone()
        assert (hall.records[0].bytesRead, hall.records[0].bytesWritten) == (5, 8)
        assert app.reason is not None
        app.reason.trap(ConnectionDone)
        app.transport.write(b"too late")


@patient
async def test_bareGuestWithoutAJournal() -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, journal=False) as hall:
        await asked(await hall.place.connect(), b"hello", b"hello")
        assert "write" not in vars(factory.built[0].transport)


@pytest.mark.tls
@patient
async def test_writesAreCountedOnceWithoutBuffering() -> None:
    """A TLS transport that has writeSequence by write."""
    from certificates import selfSigned
    from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

    class Plain(TLSMemoryBIOFactory):
        protocol = TLSMemoryBIOProtocol

    from twisted.internet import reactor

    factory = protocolsOf(Echo)
    hall = Hall(factory, NONE, True, False)
    async with door(Plain(selfSigned().forServer(), False, hall.factory)) as place:
        place.kind = "tls"
        client = await place.connect()
        await asked(client, b"hello", b"hello")
        factory.built[0].transport.writeSequence([b"12", b"34"])
        await client.until(lambda: client.received == b"hello1234")
    await hall.gone()
    assert hall.records[0].bytesWritten == 9
    assert reactor is not None


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("tlsOnUnix", marks=pytest.mark.tls)])
@patient
async def test_screenHasTheInterfacesOfWhatIsBehind(kind: Kind) -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, WIDE, kind) as hall:
        client = await hall.place.connect()
        await asked(client, b"hello", b"hello")
        screen, behind = factory.built[0].transport, next(iter(hall.factory)).transport
        assert type(screen) is Screen
        assert set(providedBy(screen).flattened()) == set(providedBy(behind).flattened())
        assert ITransport.providedBy(screen)
        assert ITCPTransport.providedBy(screen) == ITCPTransport.providedBy(behind)
        assert IUNIXTransport.providedBy(screen) == ("nix" in kind)
        assert ISSLTransport.providedBy(screen) == ("tls" in kind)
        assert screen.getPeer() == behind.getPeer()
        assert screen.getHost() == behind.getHost()
        assert screen.getHandle() is behind.getHandle()
        if "tls" in kind:
            assert screen.getPeerCertificate() is None
            assert screen.negotiatedProtocol is None
        else:
            assert not hasattr(screen, "getPeerCertificate")
        if kind == "tcp":
            screen.setTcpNoDelay(True)
            assert screen.getTcpNoDelay()
        assert not hasattr(screen, "__length_hint__")
        assert screen.connected
        assert not screen.disconnected
        with pytest.raises(TypeError):
            screen.write("text")  # type: ignore[arg-type]
        screen.writeSequence([b"a", b"b"])
        await client.until(lambda: client.received == b"helloab")
        screen.stopProducing()
        assert screen.disconnecting
        await ended(client)
        await hall.gone()
        assert screen.disconnected
        assert not screen.connected
        # What is asked of a transport that has gone is silent.
        screen.write(b"x")
        screen.loseConnection()
        screen.loseWriteConnection()
        screen.abortConnection()
        screen.pauseProducing()
        screen.resumeProducing()
        screen.startTLS(None)
        screen.unregisterProducer()
        producer = Producer(screen)
        screen.registerProducer(producer, True)
        assert producer.told == ["stop"]


@implementer(IPushProducer, IPullProducer)
class Producer:
    def __init__(self, consumer: Any, chunks: int = 0, size: int = 100_000) -> None:
        self.told: list[str] = []
        self._consumer = consumer
        self._left = chunks
        self._size = size
        self._paused = False

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self._paused = False
        while self._left and not self._paused:
            self._left -= 1
            self._consumer.write(bytes(self._size))
        if not self._left:
            self._consumer.unregisterProducer()
            self._consumer.loseConnection()

    def pauseProducing(self) -> None:
        self.told.append("pause")
        self._paused = True

    def stopProducing(self) -> None:
        self.told.append("stop")
        self._paused = True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
@patient
async def test_producers(kind: Kind, streaming: bool) -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, WIDE, kind) as hall:
        client = await hall.place.connect()
        await asked(client, b"hello", b"hello")
        screen = factory.built[0].transport
        client.transport.pauseProducing()
        producer = Producer(screen, 50 if streaming else 0)
        if not streaming:
            left = [bytes(100_000)] * 50

            def one() -> None:
                producer.told.append("resume")
                if left:
                    screen.write(left.pop())
                else:
                    screen.unregisterProducer()

            producer.resumeProducing = one  # type: ignore[method-assign]
        screen.registerProducer(producer, streaming)
        if streaming:
            producer.resumeProducing()
            assert producer.told == ["resume", "pause"]
        else:
            screen.loseConnection()  # waits for the producer
        client.transport.resumeProducing()
        await ended(client)
        assert len(client.received) == 5_000_005
        assert "stop" not in producer.told


@pytest.mark.parametrize("kind", KINDS)
@BOTH
@patient
async def test_fileSender(limits: Limits, kind: Kind) -> None:
    class Sender(Echo):
        def dataReceived(self, data: bytes) -> None:
            def done(last: Any) -> None:
                self.transport.loseConnection()

            FileSender().beginFileTransfer(BytesIO(b"0123456789" * 300_000), self.transport).addCallback(done)

    factory = protocolsOf(Sender)
    async with hosted(factory, limits, kind) as hall:
        client = await hall.place.connect()
        client.transport.write(b"go")
        await client.happened("data")
        client.transport.pauseProducing()
        await turns(20)
        client.transport.resumeProducing()
        await ended(client)
        assert client.received == b"0123456789" * 300_000
        client.transport.loseConnection()
        await hall.gone()
        assert hall.records[0].bytesWritten == 3_000_000
        assert hall.records[0].error is None


@patient
async def test_aPauseForTheRateIsNotTheGuestsToUndo() -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, Limits(readRate=10, reserve=0)) as hall:
        client = await hall.place.connect()
        await asked(client, b"0" * 30, b"0" * 30)
        (protocol,) = hall.factory
        assert list(protocol.pressure.owners) == ["rate"]
        app = factory.built[0]
        app.transport.pauseProducing()
        assert list(protocol.pressure.owners) == ["rate", "user"]
        app.transport.resumeProducing()
        assert list(protocol.pressure.owners) == ["rate"]
        client.transport.write(b"1")
        await turns(5)
        assert len(client.received) == 30
        hall.time.advance(2)
        await client.until(lambda: len(client.received) == 31)


@patient
async def test_bytesOfARateGoOutInTime() -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, Limits(writeRate=1000, burst=1000, reserve=0)) as hall:
        client = await hall.place.connect()
        client.transport.write(b"x" * 5000)
        for _ in range(10):
            await turns(5)
            hall.time.advance(1)
        await client.until(lambda: len(client.received) == 5000)
        assert hall.factory.limited["writeRate"] >= 1


# -- half-close and ends


class Simple(Echo):
    """Keeps every call that a protocol can be given, and knows nothing of half-close."""

    script: Any = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.heard = b""

    def _happened(self, call: str) -> None:
        self.calls.append(call)
        if self.script is not None:
            self.script(self, call)

    def connectionMade(self) -> None:
        self._happened("made")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.calls[-1] != "data":
            self._happened("data")

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.reason = reason
        self._happened(f"lost {reason.type.__name__}")  # type: ignore[union-attr]


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Full(Simple):
    """The same, and knows of everything."""

    def handshakeCompleted(self) -> None:
        self._happened("handshake")

    def readConnectionLost(self) -> None:
        self._happened("readLost")

    def writeConnectionLost(self) -> None:
        self._happened("writeLost")


def answer(app: Any, call: str) -> None:
    if call == "readLost":
        app.transport.write(b"answer to " + app.heard)
        app.transport.loseWriteConnection()


def loses(app: Any, call: str) -> None:
    app.transport.write(call.encode())
    app.transport.loseConnection()
    app.transport.write(b"more")


def aborts(app: Any, call: str) -> None:
    app.transport.write(call.encode())
    app.transport.abortConnection()
    app.transport.write(b"more")


def halfCloses(app: Any, call: str) -> None:
    app.transport.write(call.encode())
    app.transport.loseWriteConnection()
    if call == "readLost":
        app.transport.loseConnection()


def losesAtData(app: Any, call: str) -> None:
    if call == "data":
        loses(app, call)


def abortsAtData(app: Any, call: str) -> None:
    if call == "data":
        aborts(app, call)


def halfClosesAtData(app: Any, call: str) -> None:
    if call == "data":
        app.transport.write(b"bye")
        app.transport.loseWriteConnection()
        app.transport.write(b"!")


def halfClosesThenLoses(app: Any, call: str) -> None:
    if call == "data":
        app.transport.write(b"bye")
        app.transport.loseWriteConnection()
        app.transport.loseConnection()
    if call == "writeLost":
        app.transport.loseConnection()


def losesAtWriteLost(app: Any, call: str) -> None:
    halfClosesAtData(app, call)
    if call == "writeLost":
        app.transport.loseConnection()


def raisesAtData(app: Any, call: str) -> None:
    if call == "data":
        app.transport.write(b"lost")
        raise ValueError("at data")


def raisesAtLost(app: Any, call: str) -> None:
    if call.startswith("lost"):
        raise ValueError("at lost")


def raisesAtReadLost(app: Any, call: str) -> None:
    if call == "readLost":
        raise ValueError("at readLost")


def producesAndLoses(app: Any, call: str) -> None:
    if call == "data":
        producer = Producer(app.transport, 30)
        app.transport.registerProducer(producer, True)
        app.transport.loseConnection()
        producer.resumeProducing()


SCRIPTS: list[Any] = [None, answer, aborts, losesAtData, abortsAtData, raisesAtLost, producesAndLoses]
REST: list[Any] = [loses, halfClosesAtData, halfClosesThenLoses, losesAtWriteLost, raisesAtData, raisesAtReadLost]
"""What a stock TLS transport does otherwise: see the module's theory."""


async def played(kind: Kind, make: Callable[[], Any], script: Any, finish: str, limits: Limits | None) -> Any:
    """Play one scene; returns the calls that the server's protocol was given, and the bytes that both sides saw."""

    def build() -> Any:
        app = make()
        app.script = script
        return app

    factory = protocolsOf(build)

    async def play(place: Place) -> Any:
        client = await place.connect()
        client.transport.write(b"hello")
        await until(lambda: factory.built and ("data" in factory.built[0].calls or factory.built[0].reason))
        (app,) = factory.built
        if script is producesAndLoses:
            await ended(client)
        await turns(10)
        if client.reason is None:
            if finish == "fin":
                client.transport.loseWriteConnection()
                await until(lambda: app.reason or "readLost" in app.calls)
                await turns(10)
            elif finish == "rst":
                client.transport.abortConnection()
        if client.reason is None:
            client.transport.loseConnection()
        await until(lambda: client.reason)
        await until(lambda: app.reason or "readLost" in app.calls)
        await turns(10)
        if app.reason is None:
            app.transport.loseConnection()
            await until(lambda: app.reason)
        # Whether a FIN comes before an RST, and what a reactor says after two FINs, is chance.
        calls = [call.replace("ConnectionLost", "ConnectionDone") for call in app.calls]
        return calls, app.heard, client.received

    if limits is None:
        async with door(factory, kind) as place:
            return await play(place)
    async with hosted(factory, limits, kind) as hall:
        result = await play(hall.place)
        await hall.gone()
        return result


@pytest.mark.parametrize(
    ("script", "kind"),
    [(script, kind) for script in SCRIPTS + REST for kind in ("tcp", "unix")]
    + [pytest.param(script, "tls", marks=pytest.mark.tls) for script in SCRIPTS],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("make", [Full, Simple])
@BOTH
@patient
async def test_sameAsOnAStockTransport(
    limits: Limits, script: Any, make: Callable[[], Any], kind: Any, loggedErrors: LoggedErrors
) -> None:
    # Twisted's TLS passes loseWriteConnection to the socket (twisted#5341): nothing that a client should do.
    for finish in ("close", "rst") if kind == "tls" else ("fin", "close", "rst"):
        alone = await played(kind, make, script, finish, None)
        here = await played(kind, make, script, finish, limits)
        assert here == alone, finish
    loggedErrors.flush("ValueError: at")


@pytest.mark.tls
@pytest.mark.parametrize("make", [Full, Simple])
@BOTH
@patient
async def test_raisingOverTls(limits: Limits, make: Callable[[], Any], loggedErrors: LoggedErrors) -> None:
    """Stock TLS hides the exception behind a ConnectionLost."""
    calls, _, _ = await played("tls", make, raisesAtData, "close", limits)
    assert calls[-1] == "lost ValueError"
    assert len(loggedErrors.flush("ValueError: at data")) == 1


@pytest.mark.tls
@pytest.mark.parametrize("script", [losesAtData, halfClosesAtData])
@patient
async def test_endsOverTls(script: Any) -> None:
    """What is written before the end arrives, and the guest hears of a clean end."""
    factory = protocolsOf(Full)
    async with hosted(factory, WIDE, "tls") as hall:
        client = await hall.place.connect()
        client.transport.write(b"hello")
        await until(lambda: factory.built)
        (app,) = factory.built
        app.script = script
        if "data" in app.calls:
            script(app, "data")
        await client.happened("lost")
        assert client.received == (b"data" if script is losesAtData else b"bye!")
        await hall.gone()
        assert app.calls[-1] == "lost ConnectionDone"
        assert ("writeLost" in app.calls) == (script is halfClosesAtData)
        assert hall.records[0].error is None


EVERYWHERE: list[Any] = [loses, aborts, halfCloses]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", EVERYWHERE)
@pytest.mark.parametrize("make", [Full, Simple])
@patient
async def test_guestsWhoEndInEveryCallback(make: Callable[[], Any], script: Any, kind: Kind) -> None:
    scripts = [script, None]

    def build() -> Any:
        app = make()
        app.script = scripts.pop(0)
        return app

    factory = protocolsOf(build)
    async with hosted(factory, WIDE, kind) as hall:
        client = await hall.place.connect()
        client.transport.write(b"hello")
        await until(lambda: factory.built)
        if script is halfCloses:
            client.transport.loseConnection()
        await until(lambda: factory.built[0].reason)
        await hall.gone()
        assert len([call for call in factory.built[0].calls if call.startswith("lost")]) == 1
        again = await hall.place.connect()
        again.transport.write(b"hello")
        await until(lambda: len(factory.built) == 2 and factory.built[1].heard == b"hello")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["build", "made", "data", "lost"])
@BOTH
@patient
async def test_guestsWhoRaise(limits: Limits, where: str, kind: Kind, loggedErrors: LoggedErrors) -> None:
    error = ValueError("at " + where)

    def script(app: Any, call: str) -> None:
        if call.startswith(where):
            raise error

    def make() -> Any:
        if where == "build":
            raise error
        app = Simple()
        app.script = script
        return app

    factory = protocolsOf(make)
    async with hosted(factory, limits, kind) as hall:
        client = await hall.place.connect()
        client.transport.write(b"hello")
        if where == "lost":
            await until(lambda: factory.built and factory.built[0].heard)
            client.transport.loseConnection()
        await until(lambda: hall.records)
        (record,) = hall.records
        assert record.error is (None if where == "lost" else error)
        if where != "build":
            (app,) = factory.built
            assert app.calls[-1] == ("lost ConnectionDone" if where == "lost" else "lost ValueError")
        assert len(loggedErrors.flush(ValueError)) == 1


@BOTH
@patient
async def test_factoryThatBuildsNothing(limits: Limits) -> None:
    factory = protocolsOf(lambda: None)
    async with hosted(factory, limits) as hall:
        assert factory.running == 1
        client = await hall.place.connect()
        await ended(client)
        await hall.gone()
    assert factory.running == 0


@BOTH
@patient
async def test_aFactoryThatBuildsNothingForOneWhoHalfCloses(limits: Limits) -> None:
    """FIN and refusal in one turn."""
    factory = protocolsOf(lambda: None)
    async with hosted(factory, limits) as hall:
        one = hall.place.stranger()
        one.shutdown(socket.SHUT_WR)
        await until(lambda: hall.records)
        assert one.recv(1) == b""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@BOTH
@patient
async def test_allowHalfOpen(limits: Limits, kind: Kind) -> None:
    """A protocol that knows nothing of half-close finishes its answer."""
    factory = protocolsOf(Simple)
    async with hosted(factory, limits, kind, allowHalfOpen=True) as hall:
        client = await hall.place.connect()
        client.transport.write(b"hello")
        client.transport.loseWriteConnection()
        await until(lambda: factory.built and factory.built[0].heard)
        await turns(10)
        (app,) = factory.built
        assert app.reason is None
        app.transport.write(b"the whole answer")
        app.transport.loseConnection()
        await ended(client)
        assert client.received == b"the whole answer"
        await hall.gone()
        assert app.calls == ["made", "data", "lost ConnectionDone"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", ["lifetime", "handshakeTimeout", "idleTimeout"])
@patient
async def test_deadlines(limit: str, kind: Kind) -> None:
    factory = protocolsOf(Simple)
    async with hosted(factory, replace(NONE, **cast(Any, {limit: 5.0})), kind) as hall:
        client = await hall.place.connect()
        await until(lambda: factory.built)
        await turns(5)
        hall.time.advance(5)
        await ended(client)
        await hall.gone()
        (app,) = factory.built
        app.reason.trap(ConnectionAborted)
        assert limit in str(app.reason.value)
        assert getattr(hall.records[0].error, "code", None) == "ETIMEDOUT"
        assert (type(app.transport) is Screen) == (limit == "idleTimeout")


# -- who stands outside


@BOTH
@patient
async def test_handshakeListener(limits: Limits) -> None:
    pytest.importorskip("OpenSSL")
    factory = protocolsOf(Full)
    async with hosted(factory, limits, "tls") as hall:
        await asked(await hall.place.connect(), b"", b"")
        await until(lambda: factory.built and "handshake" in factory.built[0].calls)
        assert factory.built[0].calls == ["made", "handshake"]


@implementer(IFileDescriptorReceiver)
class Receiving(Simple):
    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)


@implementer(IFileDescriptorReceiver)
class ReceivingSide(Side):
    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)


SLOW = Limits(reserve=0, writeRate=10, burst=1)
"""So slow that bytes stay queued behind a descriptor that is on its way."""


@pytest.mark.parametrize("limits", [NONE, WIDE, SLOW], ids=["bare", "screened", "slow"])
@patient
async def test_descriptors(limits: Limits) -> None:
    factory = protocolsOf(Receiving)
    read, write = os.pipe()
    try:
        async with hosted(factory, limits, "unix") as hall:
            client = await hall.place.connect(ReceivingSide())
            client.transport.sendFileDescriptor(write)
            client.transport.write(b"here")
            await until(lambda: factory.built and factory.built[0].heard == b"here")
            (app,) = factory.built
            (received,) = app.descriptors
            os.write(received, b"through")
            assert os.read(read, 7) == b"through"
            app.transport.write(b"before")
            app.transport.sendFileDescriptor(received)
            app.transport.write(b"and after")
            await client.until(lambda: client.received == b"beforeand after")
            os.close(received)
            (back,) = client.descriptors
            os.write(back, b"again")
            os.close(back)
            assert os.read(read, 5) == b"again"
            app.transport.write(b".")
            hall.time.advance(60)
            await client.until(lambda: client.received.endswith(b"."))
    finally:
        os.close(read)
        os.close(write)


@BOTH
@patient
async def test_descriptorsForOneWhoTakesNone(limits: Limits) -> None:
    """The transport closes them, as it does for every protocol that does not say it takes them."""
    factory = protocolsOf(Simple)
    async with hosted(factory, limits, "unix") as hall:
        client = await hall.place.connect()
        client.transport.sendFileDescriptor(0)
        client.transport.write(b"here")
        await until(lambda: factory.built and factory.built[0].heard == b"here")


@BOTH
@patient
async def test_lineReceiver(limits: Limits) -> None:
    class Lines(cast(Any, LineReceiver)):  # type: ignore[misc]
        delimiter = b"\n"
        transport: Any

        def lineReceived(self, line: bytes) -> None:
            if line == b"raw":
                self.pauseProducing()
                self.setRawMode()
                self.resumeProducing()
            elif line == b"bye":
                self.sendLine(b"bye")
                self.transport.loseConnection()
            else:
                self.sendLine(line[::-1])

        def rawDataReceived(self, data: bytes) -> None:
            self.setLineMode(data[4:])

    async with hosted(protocolsOf(Lines), limits) as hall:
        client = await hall.place.connect()
        await asked(client, b"abc\ndef\nraw\nXXXXghi\nbye\nno more\n", b"cba\nfed\nihg\nbye\n")
        await ended(client)
        assert client.received.endswith(b"bye\n")


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]  # noqa: RUF012
    response = [(b"total", Integer())]  # noqa: RUF012


@pytest.mark.parametrize("kind", KINDS)
@BOTH
@patient
async def test_amp(limits: Limits, kind: Kind) -> None:
    class Adder(AMP):
        @Sum.responder
        def add(self, a: int, b: int) -> Any:
            return {"total": a + b}

    class Asking(Side, AMP):
        def __init__(self) -> None:
            AMP.__init__(self)
            Side.__init__(self)

        connectionLost = Side.connectionLost
        connectionMade = Side.connectionMade
        dataReceived = AMP.dataReceived

    async with hosted(protocolsOf(Adder), limits, kind) as hall:
        client: Any = await hall.place.connect(Asking())
        for number in range(10):
            assert await client.callRemote(Sum, a=number, b=1) == {"total": number + 1}
        client.transport.loseConnection()
        await hall.gone()
        assert hall.records[0].error is None


@pytest.mark.tls
@BOTH
@patient
async def test_startTls(limits: Limits) -> None:
    from certificates import selfSigned
    from twisted.mail.smtp import ESMTP

    factory = protocolsOf(lambda: ESMTP(contextFactory=selfSigned().forServer()))
    async with hosted(factory, limits) as hall:
        client = await hall.place.connect()
        await client.until(lambda: client.received.endswith(b"\r\n"))
        client.transport.write(b"EHLO somebody\r\n")
        await client.until(lambda: b"250 STARTTLS\r\n" in client.received or b"250-STARTTLS\r\n" in client.received)
        app = factory.built[0]
        assert not ISSLTransport.providedBy(app.transport)
        client.transport.write(b"STARTTLS\r\n")
        await client.until(lambda: b"\r\n220 " in client.received)
        client.transport.startTLS(selfSigned().forClient())
        await client.happened("handshake")
        client.received = b""
        client.transport.write(b"EHLO somebody\r\n")
        await client.until(lambda: client.received.endswith(b"\r\n"))
        assert b"STARTTLS" not in client.received
        assert ISSLTransport.providedBy(app.transport)
        client.transport.write(b"QUIT\r\n")
        await client.happened("lost")
        assert b"221" in client.received
        await hall.gone()
        assert hall.records[0].error is None


# -- a web server


def page(size: int) -> Any:
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return b"x" * size

    site = Site(cast(Any, Page)())
    site.noisy = False
    return site


STRICT = Limits(reserve=0, readRate=1e6, idleTimeout=60, connections=5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limits", [NONE, STRICT], ids=["bare", "screened"])
@patient
async def test_siteWithKeepAliveAndASlowReader(limits: Limits, kind: Kind) -> None:
    size = 20_000_000
    async with hosted(page(size), limits, kind) as hall:
        client = await hall.place.connect()
        chunks: list[bytes] = []
        received = 0

        def take(data: bytes) -> None:
            nonlocal received
            chunks.append(data[:200] if not received else b"")
            received += len(data)
            client._note("data")
            if len(chunks) % 20 == 0:
                client.transport.pauseProducing()

        client.dataReceived = take
        for _ in range(2):
            chunks.clear()
            received = 0
            client.transport.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            while received < size:
                await turns()
                hall.time.advance(0.001)
                client.transport.resumeProducing()
            head = chunks[0].partition(b"\r\n\r\n")[0]
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert received == size + len(head) + 4
        assert len(hall.factory) == 1
        client.transport.loseConnection()
        await hall.gone()
        assert hall.records[0].error is None
        assert hall.records[0].bytesWritten == 2 * received


@pytest.mark.parametrize("limits", [NONE, STRICT], ids=["bare", "screened"])
@patient
async def test_siteAndAgent(limits: Limits) -> None:
    from twisted.internet import reactor as globalReactor
    from twisted.web.client import Agent, HTTPConnectionPool

    reactor: Any = globalReactor
    async with hosted(page(300_000), limits) as hall:
        pool = HTTPConnectionPool(reactor)
        agent = Agent(reactor, pool=pool)
        url = b"http://127.0.0.1:%d/" % hall.place.number
        for _ in range(3):
            response: Any = await agent.request(b"GET", url)
            assert response.code == 200
            body = Side()
            response.deliverBody(body)
            await body.happened("lost")
            assert len(body.received) == 300_000
        assert hall.factory.counters["accepted"] == 1
        await cast(Deferred[None], pool.closeCachedConnections())
        await hall.gone()


# -- nothing left


@pytest.mark.parametrize("kind", KINDS)
@BOTH
@patient
async def test_nothingStaysAlive(limits: Limits, kind: Kind) -> None:
    factory = protocolsOf(Echo)
    async with hosted(factory, limits, kind) as hall:
        held: list[weakref.ref[Any]] = []
        for number in range(5):
            client = await hall.place.connect()
            await asked(client, b"hello", b"hello")
            (protocol,) = hall.factory
            held += map(weakref.ref, (protocol, protocol.user, protocol.transport, factory.built[-1]))
            held.append(weakref.ref(factory.built[-1].transport))
            if number % 2:
                client.transport.abortConnection()
            else:
                client.transport.loseConnection()
            await hall.gone()
        del protocol
        factory.built.clear()
        await turns(3)
        gc.collect()
        assert [thing() for thing in held if thing() is not None] == []
