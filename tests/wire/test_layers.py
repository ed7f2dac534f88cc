"""Layers: the descriptor under real stacks of transports, and the ways to end that stock transports lack."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from pairs import Kind, Side, pair
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.wire import layers

WITHOUT_TLS: list[Any] = ["tcp", "tcp6", "unix", "policies"]
TLS = ("tls", "startTls", "tlsOnUnix")
WITH_TLS: list[Any] = [pytest.param(kind, marks=pytest.mark.tls) for kind in TLS]
DONE = Failure(ConnectionDone())


# Questions


@pytest.mark.parametrize("kind", WITHOUT_TLS + WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_below(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            bottom = layers.below(side.transport)
            assert bottom.fileno() == side.transport.fileno()
            assert ITCPTransport.providedBy(bottom)
            assert layers.below(bottom) is bottom
            wrapped = isinstance(side.transport, ProtocolWrapper)
            assert wrapped is (kind in ("tls", "policies"))
            assert (bottom is side.transport) is not wrapped


@pytest.mark.parametrize("kind", WITHOUT_TLS + WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_socketOf(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        mine, theirs = layers.socketOf(client.transport), layers.socketOf(server.transport)
        assert mine is not None
        assert theirs is not None
        assert mine.getpeername() == theirs.getsockname()
    assert layers.socketOf(client.transport) is None


def test_credentials() -> None:
    assert layers.credentials(None) is None
    with socket.socket() as tcp:
        assert layers.credentials(tcp) is None
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert layers.credentials(ours) == (os.getpid(), os.getuid(), os.getgid())


def test_socketOfATransportInMemory() -> None:
    assert layers.socketOf(StringTransport()) is None


@pytest.mark.parametrize(
    ("kind", "encrypted"),
    [(kind, False) for kind in WITHOUT_TLS] + [pytest.param(kind, True, marks=pytest.mark.tls) for kind in TLS],
)
@pytest_twisted.ensureDeferred
async def test_isTls(kind: Kind, encrypted: bool) -> None:
    async with pair(kind) as sides:
        for side in sides:
            assert layers.isTls(side.transport) is encrypted


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_isTlsFromTheMomentThatItIsStarted() -> None:
    async with pair("policies") as (client, server):
        # The wrapper was made for a plain connection and says nothing of what became of it.
        server.transport.startTLS(selfSigned().forServer())
        assert layers.isTls(server.transport)
        assert not layers.isTls(client.transport)


def test_isTlsInMemory() -> None:
    assert not layers.isTls(StringTransport())


def test_aWrapperThatIsNotConnected() -> None:
    wrapper: Any = ProtocolWrapper(WrappingFactory(None), Side())
    assert layers.below(wrapper) is wrapper
    assert not layers.isTls(wrapper)


def test_nothingOfTlsIsImported() -> None:
    program = (
        "import sys\n"
        "sys.modules['OpenSSL'] = None\n"
        "from twisted.internet.testing import StringTransport\n"
        "from twisted_net.wire import layers\n"
        "assert not layers.isTls(StringTransport())\n"
        "layers.endWriting(StringTransport())\n"
        "assert 'twisted.protocols.tls' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize("kind", WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_noHandshakeIsAwaitedWhenItIsOver(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            assert not layers.awaitHandshake(side.transport, side)


@pytest.mark.tls
@pytest.mark.parametrize("between", [False, True])
def test_awaitHandshake(between: bool) -> None:
    from twisted.protocols.tls import TLSMemoryBIOFactory

    side = Side()
    factory: Any = Factory.forProtocol(lambda: side)
    above = WrappingFactory(factory) if between else factory
    tls: Any = TLSMemoryBIOFactory(selfSigned().forServer(), False, above).buildProtocol(None)
    tls.makeConnection(StringTransport())
    assert layers.awaitHandshake(side.transport, side)
    assert layers.awaitHandshake(side.transport, side)
    # What TLS tells comes through a layer that knows nothing of it.
    tls.wrappedProtocol.handshakeCompleted()
    assert side.events == ["made", "handshake"]
    tls.connectionLost(DONE)


def test_noHandshakeWithoutTls() -> None:
    assert not layers.awaitHandshake(StringTransport(), Side())


@pytest_twisted.ensureDeferred
async def test_halfCloseComesThroughAnEndpointsWrapper() -> None:
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    client, server = Side(), Side()
    factory: Any = Factory.forProtocol(lambda: server)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    await connectProtocol(endpoint, client)
    await server.happened("made")
    for side in (client, server):
        layers.passHalfClose(side.transport, side)
        layers.passHalfClose(side.transport, side)
    server.transport.loseWriteConnection()
    await client.happened("readEnd")
    assert "lost" not in client.events
    for side in (client, server):
        side.transport.abortConnection()
        await side.happened("lost")
    await maybeDeferred(port.stopListening)


@pytest.mark.parametrize("kind", ["tcp", "policies"])
@pytest_twisted.ensureDeferred
async def test_otherWrappersDoNotLearnHalfClose(kind: Kind) -> None:
    async with pair(kind) as (client, _):
        layers.passHalfClose(client.transport, client)
        upper = layers.below(client.transport).protocol
        assert IHalfCloseableProtocol.providedBy(upper) is (kind == "tcp")
    layers.passHalfClose(StringTransport(), client)


@pytest.mark.parametrize("kind", WITHOUT_TLS + WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_isClosing(kind: Kind) -> None:
    async with pair(kind) as (client, _):
        assert not layers.isClosing(client.transport)
        client.transport.loseConnection()
        assert layers.isClosing(client.transport)


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_isNotified() -> None:
    async with pair("tls") as (client, server):
        assert not layers.isNotified(server.transport)
        layers.endWriting(client.transport)
        assert not layers.isNotified(client.transport), "that was ours"
        transport = server.transport
        heard: list[bool] = []
        lost = server.connectionLost

        def asked(reason: Failure | None = None) -> None:
            heard.append(layers.isNotified(transport))
            lost(reason)

        server.connectionLost = asked  # type: ignore[method-assign]
        await client.happened("lost")
        assert heard == [True]
        assert not layers.isNotified(transport), "it has forgotten"
    async with pair("tcp") as (client, server):
        assert not layers.isNotified(server.transport)


@pytest_twisted.ensureDeferred
async def test_isReset() -> None:
    async with pair("tcp") as (client, server):
        client.transport.pauseProducing()
        assert not layers.isReset(client.transport)
        server.transport.abortConnection()
        await server.happened("lost")
        assert layers.isReset(client.transport)
    assert not layers.isReset(client.transport)


# Ways to end


@pytest.mark.parametrize("kind", WITHOUT_TLS + WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_silenceThenDrop(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        server.transport.write(b"sent")
        await client.happened("data")
        layers.silence(server.transport)
        # No longer sent, since nothing writes; and not read, so that the kernel has it still.
        server.transport.write(b"unsent")
        layers.silence(server.transport)
        layers.drop(server.transport, DONE)
        assert server.events[-1] == "lost"
        # TLS puts its own reason in the place of ours: it misses a close_notify.
        assert server.reason is not None
        assert server.reason.check(ConnectionLost if kind in TLS else ConnectionDone)
        layers.drop(server.transport, DONE)
        assert server.events.count("lost") == 1
        await client.until(lambda: bool({"readEnd", "lost"} & set(client.events)))
        assert client.received == b"sent"


@pytest.mark.parametrize("kind", ["tcp", "policies"])
@pytest_twisted.ensureDeferred
async def test_dropSendsFin(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        layers.drop(server.transport, DONE)
        await client.until(lambda: bool({"readEnd", "lost"} & set(client.events)))
        # A reset would be no end that can be read, but the loss of the connection.
        assert client.reason is None or client.reason.check(ConnectionDone)


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
@pytest_twisted.ensureDeferred
async def test_endWriting(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        assert layers.endWriting(client.transport) is False
        await client.happened("writeEnd")
        await server.happened("readEnd")
        server.transport.write(b"the other half")
        await client.until(lambda: client.received == b"the other half")


@pytest_twisted.ensureDeferred
async def test_endWritingThroughAWrapper() -> None:
    async with pair("policies") as (client, server):
        # The wrapper does not pass the answer up, and at the other end takes the half for the whole.
        assert layers.endWriting(client.transport) is True
        await server.happened("lost")
        assert "writeEnd" not in client.events


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
@pytest_twisted.ensureDeferred
async def test_endWritingNow(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        client.transport.write(b"all of it")
        await server.happened("data")
        client.transport.startWriting()  # as when the flush of the last byte is still awaited
        assert layers.endWritingNow(client.transport) is True
        await server.happened("readEnd")
        server.transport.write(b"the other half")
        await client.until(lambda: client.received == b"the other half")
        assert "writeEnd" not in client.events
    assert layers.endWritingNow(client.transport) is False


@pytest_twisted.ensureDeferred
async def test_endWritingNowWhenThePeerHasGone() -> None:
    async with pair("unix") as (client, server):
        client.transport.pauseProducing()
        server.transport.write(b"sent before")
        server.transport.loseConnection()
        await server.happened("lost")
        assert layers.endWritingNow(client.transport) is True
        client.transport.resumeProducing()
        await client.happened("readEnd")
        assert client.received == b"sent before"


@pytest.mark.parametrize("kind", WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_endWritingOverTls(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        assert layers.endWriting(client.transport) is True
        # Nothing is left to send for a second time.
        assert layers.endWriting(client.transport) is True
        # Twisted's TLS knows no half-close: it answers with its own close_notify. So both ends were told, in order.
        await server.happened("lost")
        await client.happened("lost")
        if kind != "tlsOnUnix":  # a stock reactor calls it lost when both ends of a UNIX socket close at once
            assert all(side.reason is not None and side.reason.check(ConnectionDone) for side in (client, server))


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_endWritingOverTlsGoesOnReading() -> None:
    async with pair("startTls") as (client, server):
        client.transport.pauseProducing()
        server.transport.write(b"x" * 100_000)
        assert layers.endWriting(client.transport) is True
        client.transport.resumeProducing()
        await client.until(lambda: len(client.received) == 100_000)


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_endWritingDuringTheHandshake() -> None:
    async with pair("tcp") as (client, server):
        client.transport.startTLS(selfSigned().forClient())
        assert layers.endWriting(client.transport) is True
        await client.happened("lost")
        assert "handshake" not in client.events
        await server.until(lambda: bool({"readEnd", "lost"} & set(server.events)))


# Being told that everything is with the kernel


@implementer(IPullProducer)
class Drained:
    """Counts how often it is told, and can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self._waiter: Deferred[None] = Deferred()

    async def told(self) -> None:
        await self._waiter
        self._waiter = Deferred()

    def resumeProducing(self) -> None:
        self.count += 1
        if not self._waiter.called:
            self._waiter.callback(None)

    def stopProducing(self) -> None:
        raise AssertionError("taken back before the end")


@pytest.mark.parametrize("kind", WITHOUT_TLS + WITH_TLS)
@pytest_twisted.ensureDeferred
async def test_tellDrained(kind: Kind) -> None:
    async with pair(kind) as (client, server):
        drained = Drained()
        bottom = layers.exact(client.transport)
        bottom.tellDrained(drained)
        await drained.told()  # once at the beginning, as Twisted does with pull producers
        client.transport.write(b"x" * 1000)
        await drained.told()
        before = drained.count
        bottom.nudge()
        await drained.told()
        assert drained.count == before + 1
        bottom.tellDrainedNoMore()
        client.transport.write(b"y")
        await server.until(lambda: server.received.endswith(b"y"))
        assert drained.count == before + 1


def test_nothingExactInMemory() -> None:
    transport = StringTransport()
    assert layers.exact(transport) is None
    assert layers.lossErrno(transport) is None
    layers.relinquish(transport)
    assert not transport.disconnecting


# Transports that are no descriptors


class Memory:
    """A transport that is no descriptor, as little as there may be of it, and what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def loseConnection(self) -> None:
        self.calls.append("lose")


class Abortable(Memory):
    def abortConnection(self) -> None:
        self.calls.append("abort")

    def loseWriteConnection(self) -> None:
        self.calls.append("loseWrite")


@pytest.mark.parametrize(("transport", "calls"), [(Memory(), ["pause", "lose"]), (Abortable(), ["pause", "abort"])])
def test_silenceAndDropInMemory(transport: Memory, calls: list[str]) -> None:
    layers.silence(transport)
    layers.drop(transport, DONE)
    assert transport.calls == calls


@pytest.mark.parametrize(("transport", "calls"), [(Memory(), ["lose"]), (Abortable(), ["loseWrite"])])
def test_endWritingInMemory(transport: Memory, calls: list[str]) -> None:
    assert layers.endWriting(transport) is True
    assert transport.calls == calls


# Descriptors


class _Numbered:
    """Something with a descriptor of that number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def test_descriptorsLeft() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    number = fcntl.fcntl(0, fcntl.F_DUPFD, highest + 1)
    opened = [number]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 4, hard))
        assert layers.descriptorsLeft(_Numbered(number)) == 3
        # What the kernel says: as soon as all below are in use, three more can be opened.
        while opened[-1] < number + 3:
            opened.append(os.dup(number))
            if opened[-1] > number:
                assert layers.descriptorsLeft(_Numbered(opened[-1])) == number + 3 - opened[-1]
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)


def test_descriptorsWithoutALimit(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: infinite)
    assert layers.descriptorsLeft(_Numbered(3)) == sys.maxsize
