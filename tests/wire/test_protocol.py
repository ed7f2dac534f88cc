"""SocketProtocol: one connection's life, over real sockets, in every order of its ends."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from drivers import LARGEST_SEGMENT
from lines import ENCRYPTED, Kind, Once, Stranger, User, line, pattern, sslContext
from logs import LoggedErrors
from turning import turns, until
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from twisted_net.errors import ClosedError, NetError, ResetError, TimedOutError, WriteError
from twisted_net.sansio.bucket import TokenBucket
from twisted_net.sansio.lifecycle import Input, State, step
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.limits import Limits, Meter
from twisted_net.wire.outlet import WINDOW
from twisted_net.wire.protocol import GOODBYE, RESET_CHECK, SocketProtocol

PLAIN: list[Any] = ["tcp", "unix"]
TLS: list[Any] = [pytest.param(kind, marks=pytest.mark.tls) for kind in ENCRYPTED]
EVERY = [*PLAIN, "policies", *TLS]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def theReactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime(theReactor())


def code(error: object) -> object:
    return getattr(error, "code", error)


def reset(peer: Stranger) -> None:
    """Have the kernel send RST."""
    peer.transport.abortConnection()


# What it is


def test_interfaces() -> None:
    protocol = SocketProtocol(User(), Clock())
    for interface in (IProtocol, IHalfCloseableProtocol, IHandshakeListener, IPushProducer):
        assert verifyObject(interface, protocol)


def test_beforeAnything() -> None:
    protocol = SocketProtocol(User(), Clock())
    assert protocol.state is State.IDLE
    assert protocol.getPeer() is None
    assert protocol.describePeer() == "an unknown peer"
    assert (protocol.bytesRead, protocol.bytesWritten, protocol.held) == (0, 0, 0)
    with pytest.raises(ClosedError, match="connectionOpened"):
        protocol.startTLS(None)


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("kind", EVERY)
@pytest_twisted.ensureDeferred
async def test_bothWays(kind: Kind, client: bool) -> None:
    async with line(kind, client=client) as (ours, user, peer):
        assert user.events == ["opened"]
        assert user.protocol is ours
        assert ours.state is State.OPEN
        stream = pattern(300_000)
        ours.write(stream)
        peer.write(stream)
        await user.until(lambda: len(user.received) == len(stream))
        await peer.until(lambda: len(peer.received) == len(stream))
        assert user.received == peer.received == stream
        assert ours.bytesRead == ours.bytesWritten == len(stream)
        assert ours.getPeer() == ours.transport.getPeer()
        described = ours.describePeer()
        ours.close()
        if kind in ENCRYPTED:
            await peer.happened("notified")
            peer.goodbye()
        await user.happened("closed")
        # Also afterwards it is known who that was.
        assert ours.describePeer() == described


@pytest.mark.parametrize("scheme", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)])
@pytest_twisted.ensureDeferred
async def test_withAnyEndpoint(scheme: str, tmp_path: Any) -> None:
    """Client endpoints put a wrapper of their own between: half-close and the handshake come through it."""
    reactor = theReactor()
    user, peer = User(), Stranger(sslContext(server=True) if scheme == "tls" else None, server=True)
    if scheme == "unix":
        path = str(tmp_path / "s")
        port = reactor.listenUNIX(path, Once(peer))
        endpoint = clientFromString(reactor, f"unix:{path}")
    else:
        port = reactor.listenTCP(0, Once(peer), interface="127.0.0.1")
        number = port.getHost().port
        (tmp_path / "ca.pem").write_bytes(selfSigned().certificate)
        text = f"tls:localhost:{number}:endpoint=tcp\\:127.0.0.1\\:{number}:trustRoots={tmp_path}"
        endpoint = clientFromString(reactor, text if scheme == "tls" else f"tcp:127.0.0.1:{number}")
    ours = await connectProtocol(endpoint, SocketProtocol(user, reactor))
    ours.write(b"hello")
    await peer.until(lambda: peer.received == b"hello")
    if scheme == "tls":
        peer.goodbye()
        await user.happened("readEnded")
    else:
        peer.transport.loseWriteConnection()
        await user.happened("readEnded")
        assert ours.state is State.WRITE_ONLY
        ours.write(b" again")
        await peer.until(lambda: peer.received == b"hello again")
    ours.close()
    await user.happened("closed")
    assert user.error is None
    peer.transport.abortConnection()
    await peer.happened("lost")
    await maybeDeferred(port.stopListening)


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_withTheOldSslEndpoint() -> None:
    """connectSSL puts the endpoint's wrapper above TLS."""
    reactor = theReactor()
    from twisted.internet.endpoints import SSL4ClientEndpoint

    user, peer = User(), Stranger(sslContext(server=True), server=True)
    port = reactor.listenTCP(0, Once(peer), interface="127.0.0.1")
    endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, selfSigned().forClient())
    ours = await connectProtocol(endpoint, SocketProtocol(user, reactor))
    ours.write(b"hello")
    await peer.until(lambda: peer.received == b"hello")
    ours.drop()
    await user.happened("closed")
    peer.transport.abortConnection()
    await peer.happened("lost")
    await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_builtByAStockFactory() -> None:
    """Twisted's factories put themselves into ``protocol.factory``."""
    reactor = theReactor()
    user, peer = User(), Stranger()
    factory = Factory.forProtocol(lambda: SocketProtocol(user, reactor))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, Once(peer))
    await user.happened("opened")
    await peer.happened("made")
    assert user.protocol.factory is factory
    peer.write(b"hello")
    await user.until(lambda: user.received == b"hello")
    user.protocol.drop()
    await user.happened("closed")
    peer.transport.loseConnection()
    await peer.happened("lost")
    await maybeDeferred(port.stopListening)


# A door


class Door:
    """Admits when it is told to."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.events: list[str] = []

    def admit(self, protocol: SocketProtocol) -> bool:
        self.events.append("admit")
        return self.answer

    def leave(self, protocol: SocketProtocol) -> None:
        self.events.append("leave")

    def limitPassed(self, name: str) -> None:
        self.events.append(f"limit {name}")


def through(door: Door) -> Callable[[SocketProtocol], None]:
    def prepare(protocol: SocketProtocol) -> None:
        protocol.door = door

    return prepare


@pytest_twisted.ensureDeferred
async def test_admittedAtOnce() -> None:
    door = Door(True)
    async with line(prepare=through(door)) as (ours, user, _):
        assert door.events == ["admit"]
        ours.connectionMade()
        assert user.events == ["opened"]
        ours.close()
        await user.happened("closed")
        await turns(1)
        assert door.events == ["admit", "leave"]


@pytest.mark.parametrize("kind", ["tcp", *TLS[:2]])
@pytest_twisted.ensureDeferred
async def test_admittedLater(kind: Kind) -> None:
    door = Door(False)
    async with line(kind, prepare=through(door), settled=False) as (ours, user, peer):
        await turns(5)
        if kind in ENCRYPTED:
            # Nobody has said that TLS has to wait: its handshake is over before we are admitted.
            await peer.happened("handshake")
            await turns(3)
        assert user.events == []
        ours.connectionMade()
        assert user.events == ["opened"]
        ours.write(b"hello")
        await peer.until(lambda: peer.received == b"hello")


@pytest.mark.parametrize("verb", ["drop", "close", "abort"])
@pytest_twisted.ensureDeferred
async def test_givenUpBeforeItWasAdmitted(verb: str) -> None:
    door = Door(False)
    async with line(prepare=through(door), settled=False) as (ours, user, peer):
        await turns(3)
        getattr(ours, verb)()
        ours.connectionMade()
        await peer.until(lambda: bool({"readEnd", "lost"} & set(peer.events)))
        assert ours.state is State.CLOSED
        assert user.events == []
        assert door.events == ["admit", "leave"]
        ours.connectionMade()
        assert user.events == []


@pytest_twisted.ensureDeferred
async def test_lostBeforeItWasAdmitted() -> None:
    door = Door(False)
    async with line(prepare=through(door), settled=False) as (ours, user, peer):
        called: list[object] = []
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        await turns(3)
        reset(peer)
        await peer.happened("lost")
        await turns(3)
        assert door.events == ["admit", "leave"]
        assert user.events == []
        assert called == ["EPIPE"]


# While it is dialled


@pytest_twisted.ensureDeferred
async def test_writtenAndEndedWhileItIsDialled() -> None:
    def prepare(protocol: SocketProtocol) -> None:
        protocol.state = step(protocol.state, Input.DIAL)
        assert protocol.write(b"early") is False
        protocol.end()
        protocol.end()
        assert protocol.state is State.DIALLING_TO_END

    async with line(client=True, prepare=prepare) as (ours, user, peer):
        await peer.happened("readEnd")
        assert peer.received == b"early"
        await user.happened("writeEnded")
        peer.write(b"late")
        await user.until(lambda: user.received == b"late")
        peer.transport.loseConnection()
        await user.happened("closed")
        assert user.error is None
        assert ours.state is State.CLOSED


@pytest_twisted.ensureDeferred
async def test_closedWhileItIsDialled() -> None:
    def prepare(protocol: SocketProtocol) -> None:
        protocol.state = step(protocol.state, Input.DIAL)
        protocol.write(b"early")
        protocol.close()
        protocol.close()

    async with line(client=True, prepare=prepare) as (_, user, peer):
        peer.write(b"unheard")
        await user.happened("closed")
        assert peer.received == b"early"
        assert user.received == b""
        assert user.error is None


@pytest.mark.parametrize("kind", ["tcp", *TLS[:1]])
@pytest_twisted.ensureDeferred
async def test_droppedWhileItIsDialled(kind: Kind) -> None:
    """The connection comes all the same: it is closed, and nobody hears of it."""

    def prepare(protocol: SocketProtocol) -> None:
        protocol.state = step(protocol.state, Input.DIAL)
        protocol.drop()

    async with line(kind, client=True, prepare=prepare, settled=False) as (ours, user, peer):
        await peer.until(lambda: bool({"readEnd", "lost"} & set(peer.events)))
        await turns(2)
        assert ours.state is State.CLOSED
        assert user.events == []


@pytest.mark.parametrize("error", [None, ResetError("refused", code="ECONNREFUSED")])
def test_noConnectionCameOfIt(error: Exception | None) -> None:
    protocol = SocketProtocol(User(), Clock())
    protocol.state = step(protocol.state, Input.DIAL)
    protocol.write(b"early")
    called: list[Exception | None] = []
    protocol.outlet.whenSent(called.append)
    protocol.discard(error)
    assert protocol.state is State.CLOSED
    assert protocol.error is error
    (told,) = called
    assert told is error or (error is None and isinstance(told, ClosedError))


# Ends


ENDS = {
    "we end": lambda ours, peer: ours.end(),
    "peer ends": lambda ours, peer: peer.transport.loseWriteConnection(),
}


@pytest.mark.parametrize("at", ["once", "turns", "events"])
@pytest.mark.parametrize("order", list(itertools.permutations(ENDS)))
@pytest.mark.parametrize("kind", PLAIN)
@pytest_twisted.ensureDeferred
async def test_bothEndsCloseIt(kind: Kind, order: tuple[str, ...], at: str) -> None:
    """Twisted adds the two halves up nowhere (twisted#5662)."""
    async with line(kind) as (ours, user, peer):
        ours.write(b"bye")
        for name in order:
            ENDS[name](ours, peer)
            if at == "turns":
                await turns(1)
            elif at == "events":
                await user.happened("writeEnded" if name == "we end" else "readEnded")
        await user.happened("closed")
        await peer.until(lambda: peer.received == b"bye")
        assert user.error is None
        assert user.events.count("readEnded") == user.events.count("writeEnded") == user.events.count("closed") == 1
        assert user.events[-1] == "closed"
        assert ours.state is State.CLOSED
        assert ours.transport is None


@pytest.mark.parametrize("kind", PLAIN)
@pytest_twisted.ensureDeferred
async def test_halfOpenInBothDirections(kind: Kind) -> None:
    stream = pattern(300_000)
    async with line(kind) as (ours, user, peer):
        ours.write(b"question")
        ours.end()
        await user.happened("writeEnded")
        assert ours.state is State.READ_ONLY
        assert ours.write(b"more") is False
        await peer.happened("readEnd")
        peer.write(stream)
        peer.transport.loseConnection()
        await user.happened("closed")
        assert user.received == stream
    async with line(kind) as (ours, user, peer):
        peer.write(b"question")
        peer.transport.loseWriteConnection()
        await user.happened("readEnded")
        assert ours.state is State.WRITE_ONLY
        ours.write(stream)
        ours.end()
        await user.happened("closed")
        await peer.until(lambda: len(peer.received) == len(stream))
        assert user.events == ["opened", "data", "readEnded", "drained", "writeEnded", "closed"]
        assert user.error is None


@pytest_twisted.ensureDeferred
async def test_theOtherEndsWhileWeClose() -> None:
    async with line() as (ours, user, peer):
        peer.transport.pauseProducing()
        ours.write(b"x" * 40 * WINDOW)
        ours.close()
        assert ours.state is State.LAST_WORDS
        await turns(3)
        peer.transport.loseWriteConnection()
        await peer.happened("writeEnd")
        await turns(3)
        assert "closed" not in user.events
        peer.transport.resumeProducing()
        await user.happened("closed")
        await peer.until(lambda: len(peer.received) == 40 * WINDOW)
        assert user.events == ["opened", "drained", "writeEnded", "closed"]
        assert user.error is None


def test_endsThatAreToldTwice() -> None:
    """Reactors do, when a descriptor that has ended is looked at again."""
    protocol, user, _, time = arrange(State.OPEN)
    protocol.end()
    time.advance(0)
    protocol.writeConnectionLost()
    assert protocol.state is State.READ_ONLY
    protocol, user, _, time = arrange(State.OPEN)
    protocol.pause("user")
    protocol.readConnectionLost()
    protocol.readConnectionLost()
    protocol.resume("user")
    assert protocol.state is State.WRITE_ONLY
    assert user.events == ["opened", "readEnded"]


@pytest.mark.tls
@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ENCRYPTED)
@pytest_twisted.ensureDeferred
async def test_halfCloseOverTls(kind: Kind, version: ssl.TLSVersion, client: bool) -> None:
    """close_notify without FIN, and reading goes on."""
    async with line(kind, version=version, client=client) as (ours, user, peer):
        ours.write(pattern(100_000))
        ours.end()
        await user.happened("writeEnded")
        assert ours.state is State.READ_ONLY
        await peer.happened("notified")
        assert peer.received == pattern(100_000)
        assert "readEnd" not in peer.events
        peer.write(b"the other half")
        await user.until(lambda: user.received == b"the other half")
        peer.goodbye()
        await user.happened("closed")
        assert user.error is None
        assert user.events[-2:] == ["readEnded", "closed"]


@pytest.mark.tls
@pytest.mark.parametrize("verb", ["drop", "close"])
@pytest.mark.parametrize("first", ["end", "close"])
@pytest_twisted.ensureDeferred
async def test_closeNotifyIsWithTheKernelWhenWriteEndedSaysSo(first: str, verb: str) -> None:
    user = User()
    user.hooks["writeEnded"] = lambda: getattr(user.protocol, verb)()
    async with line("tls", user=user) as (ours, user, peer):
        ours.write(pattern(100_000))
        getattr(ours, first)()
        await peer.happened("notified")
        assert peer.received == pattern(100_000)
        peer.goodbye()
        await user.happened("closed")
        assert user.error is None


@pytest.mark.tls
@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_theOtherEndOfTlsEndsFirst(version: ssl.TLSVersion) -> None:
    async with line("tls", version=version) as (_, user, peer):
        peer.write(b"bye")
        peer.goodbye()
        await user.happened("closed")
        assert user.events == ["opened", "data", "readEnded", "closed"]
        assert user.error is None
        await peer.happened("notified")


@pytest.mark.tls
@pytest.mark.parametrize("verb", ["end", "close"])
@pytest_twisted.ensureDeferred
async def test_bothOursOverTls(verb: str) -> None:
    reactor = theReactor()
    users = User(), User()
    client, server = (SocketProtocol(user, reactor) for user in users)
    port = reactor.listenSSL(0, Once(server), selfSigned().forServer(), interface="127.0.0.1")
    reactor.connectSSL("127.0.0.1", port.getHost().port, Once(client), selfSigned().forClient())
    client.write(b"question")
    await users[1].until(lambda: users[1].received == b"question")
    server.write(pattern(1_000_000))
    getattr(server, verb)()
    for user in users:
        await user.happened("closed")
        assert user.error is None
    assert users[0].received == pattern(1_000_000)
    await maybeDeferred(port.stopListening)


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_tlsCutOffWithoutCloseNotify() -> None:
    async with line("tls") as (_, user, peer):
        peer.write(b"cut")
        peer.transport.loseConnection()
        await user.happened("closed")
        assert user.received == b"cut"
        assert code(user.error) == "ECONNRESET"
        assert "readEnded" not in user.events


@pytest.mark.tls
@pytest.mark.parametrize("kind", ["tls", "tlsUnderPolicies"])
@pytest_twisted.ensureDeferred
async def test_tlsPeerThatDoesNotWaitForOurGoodbye(kind: Kind) -> None:
    """It says its own and closes, as curl does: our answer meets a closed socket, and RST comes back."""
    async with line(kind) as (ours, user, peer):
        ours.write(b"answer")
        await peer.until(lambda: peer.received == b"answer")
        peer.answers = False
        peer.write(b"thanks")
        peer.goodbye()
        peer.transport.loseConnection()
        await user.happened("closed")
        assert user.received == b"thanks"
        assert user.events[-2:] == ["readEnded", "closed"]
        assert user.error is None


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_afterOurCloseItDoesNotMatterHowThePeerGoes() -> None:
    async with line("tls") as (ours, user, peer):
        ours.write(b"bye")
        ours.close()
        await peer.happened("notified")
        peer.transport.loseConnection()
        await user.happened("closed")
        assert user.error is None
        assert peer.received == b"bye"


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_aTlsPeerThatNeverAnswersTheClose(time: VirtualTime) -> None:
    async with line("tls", time=time) as (ours, user, peer):
        ours.close()
        await peer.happened("notified")
        await turns(3)
        time.advance(GOODBYE - 1)
        assert "closed" not in user.events
        time.advance(1)
        await user.happened("closed")
        assert user.error is None
        assert not time.getDelayedCalls()


@pytest.mark.tls
@pytest.mark.parametrize("verb", ["end", "close", "drop", "abort"])
@pytest_twisted.ensureDeferred
async def test_aTlsPeerThatNeverShakesHands(verb: str, time: VirtualTime) -> None:
    limits = Limits(idleTimeout=60)
    async with line("tls", peer=Stranger(), time=time, limits=limits, settled=False) as (ours, user, _):
        await user.happened("opened")
        called: list[object] = []
        assert ours.write(b"x") is False
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        await turns(10)
        assert called == []
        getattr(ours, verb)()
        await turns(5)
        if verb in ("end", "close"):
            assert "closed" not in user.events
            time.advance(60)
        await user.happened("closed")
        assert called == ["ETIMEDOUT" if verb in ("end", "close") else "EPIPE"]
        assert not time.getDelayedCalls()


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_theHandshakeFails() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    peer = Stranger(context)
    peer.answers = False

    async with line("tls", peer=peer, settled=False) as (ours, user, _):
        await user.happened("opened")
        called: list[object] = []
        ours.write(b"x")
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        peer.transport.write(b"this is no TLS" * 10)
        await user.happened("closed")
        assert code(user.error) == "ERR_TLS"
        assert called == ["ERR_TLS"]


@pytest.mark.tls
@pytest.mark.parametrize("kind", ENCRYPTED)
@pytest_twisted.ensureDeferred
async def test_theOtherEndOfTlsClosesWhileWeWrite(kind: Kind) -> None:
    async with line(kind) as (ours, user, peer):
        peer.transport.pauseProducing()
        ours.write(b"x" * 20 * WINDOW)
        called: list[object] = []
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        await turns(5)
        peer.goodbye()
        await user.happened("readEnded")
        await user.happened("closed")
        assert called == ["EPIPE"]
        assert isinstance(user.error, WriteError)
        assert 0 < user.error.sent < 20 * WINDOW


@pytest.mark.parametrize("kind", ["tcp", *TLS])
@pytest_twisted.ensureDeferred
async def test_resetWhileWeWrite(kind: Kind) -> None:
    async with line(kind) as (ours, user, peer):
        peer.transport.pauseProducing()
        called: list[object] = []
        for _ in range(20):
            ours.write(b"x" * WINDOW)
            ours.outlet.whenSent(lambda error: called.append(code(error)))
        await turns(5)
        reset(peer)
        await user.happened("closed")
        assert len(called) == 20
        assert called[-1] == "ECONNRESET"
        assert called == sorted(called, key=lambda one: one is not None)
        assert isinstance(user.error, ResetError)
        assert user.events[-1] == "closed"
        assert "readEnded" not in user.events


# Verbs in every state


def arrange(state: State) -> tuple[SocketProtocol, User, Any, Clock]:
    """A protocol in *state*, on a transport in memory."""
    time, user = Clock(), User()
    protocol = SocketProtocol(user, time)
    transport: Any = Memory(protocol)
    if state in (State.DIALLING, State.DIALLING_TO_END):
        protocol.state = step(protocol.state, Input.DIAL)
        if state is State.DIALLING_TO_END:
            protocol.end()
    elif state is not State.IDLE:
        protocol.makeConnection(transport)
        if state in (State.ENDING, State.LAST_WORDS):
            protocol.outlet.pauseProducing()
            protocol.write(b"unsent")
        if state in (State.ENDING, State.READ_ONLY, State.ENDED, State.LAST_WORDS):
            protocol.end()
        if state in (State.READ_ONLY, State.ENDED):
            time.advance(0)
        if state in (State.WRITE_ONLY, State.LAST_WORDS, State.ENDED):
            transport.stays = True
            protocol.readConnectionLost()
            transport.stays = False
        if state in (State.DROPPED, State.CLOSED):
            protocol.drop()
        if state is State.CLOSED:
            time.advance(0)
    assert protocol.state is state
    return protocol, user, transport, time


class Memory(StringTransport):
    """As a stock transport, but in memory: what ends it, and that its end comes on a later turn."""

    def __init__(self, protocol: SocketProtocol) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.protocol = protocol
        self.calls: list[str] = []
        self.stays = False

    def loseConnection(self) -> None:
        self._lose("lose", Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self._lose("abort", Failure(ConnectionLost()))

    def loseWriteConnection(self) -> None:
        self.calls.append("loseWrite")
        self.protocol.writeConnectionLost()

    def _lose(self, name: str, reason: Failure) -> None:
        self.calls.append(name)
        if not self.stays and self.connected:
            self.connected = False
            self.protocol.reactor.callLater(0, self.protocol.connectionLost, reason)


VERBS = ["end", "close", "drop", "abort"]


@pytest.mark.parametrize("second", [None, *VERBS])
@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("state", list(State))
def test_everyVerbInEveryState(state: State, first: str, second: str | None) -> None:
    protocol, user, transport, time = arrange(state)
    opened = "opened" in user.events
    getattr(protocol, first)()
    if second is not None:
        getattr(protocol, second)()
    if not opened and state is not State.CLOSED:
        # The connection comes now, or comes never.
        if protocol.state is not State.CLOSED:
            protocol.makeConnection(transport)
        opened = "opened" in user.events
        assert opened is not (state is not State.IDLE and {first, second} & {"drop", "abort"} != set())
    protocol.outlet.resumeProducing()
    for _ in range(5):
        time.advance(0)
    if protocol.transport is not None and protocol.state is not State.ENDED:
        # We only ended: the peer's end, if it has not come, is what is missing.
        assert protocol.state in (State.READ_ONLY, State.OPEN)
        protocol.readConnectionLost()
        protocol.end()
        time.advance(0)
        protocol.outlet.resumeProducing()
        time.advance(0)
    time.advance(1)
    if protocol.state is State.ENDED:
        protocol.connectionLost(Failure(ConnectionDone()))
    assert protocol.state is State.CLOSED
    assert user.events.count("closed") == opened
    assert not opened or user.events[-1] == "closed"
    assert user.error is None
    for verb in VERBS:
        getattr(protocol, verb)()
    assert not list(time.getDelayedCalls())


@pytest.mark.parametrize("second", VERBS)
@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("kind", ["tcp", *TLS[:1]])
@pytest_twisted.ensureDeferred
async def test_verbsOverARealConnection(kind: Kind, first: str, second: str) -> None:
    async with line(kind) as (ours, user, peer):
        ours.write(b"x" * 3 * WINDOW)
        getattr(ours, first)()
        assert "closed" not in user.events
        getattr(ours, second)()
        assert "closed" not in user.events
        if {first, second} == {"end"}:
            await user.happened("writeEnded")
            ours.close()
            assert "closed" not in user.events
        if kind in ENCRYPTED and not {first, second} & {"drop", "abort"}:
            await peer.happened("notified")
            peer.goodbye()
        await user.happened("closed")
        assert user.events.count("closed") == 1
        assert user.error is None
        if not {first, second} & {"drop", "abort"}:
            await peer.until(lambda: len(peer.received) == 3 * WINDOW)


@pytest_twisted.ensureDeferred
async def test_closeAfterEndedIsNotHeardBeforeItReturns() -> None:
    async with line() as (ours, user, _):
        ours.end()
        await user.happened("writeEnded")
        ours.close()
        ours.close()
        assert "closed" not in user.events
        await user.happened("closed")
        assert user.error is None


@pytest.mark.parametrize("verb", ["drop", "abort"])
@pytest_twisted.ensureDeferred
async def test_theErrorThatItWasDroppedWith(verb: str) -> None:
    async with line() as (ours, user, _):
        error = NetError("enough", code="ERR_TEST")
        getattr(ours, verb)(error)
        getattr(ours, verb)(NetError("later", code="ERR_LATER"))
        called: list[object] = []
        ours.write(b"too late")
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        await user.happened("closed")
        assert user.error is ours.error is ours.verdict is error
        await turns(2)
        assert called == ["EPIPE"]


@pytest.mark.parametrize("verb", ["drop", "abort"])
@pytest.mark.parametrize("unread", [False, True])
@pytest_twisted.ensureDeferred
async def test_finOrReset(verb: str, unread: bool) -> None:
    """drop: FIN, and RST only when bytes lay unread in the kernel (RFC 1122, 4.2.2.13); abort: RST."""
    async with line() as (ours, user, peer):
        peer.transport.pauseProducing()
        if unread:
            ours.pause("user")
            peer.write(b"unread")
            await turns(3)
        ours.write(b"x" * 40 * WINDOW)
        await turns(3)
        getattr(ours, verb)()
        await user.happened("closed")
        peer.transport.resumeProducing()
        await peer.until(lambda: bool({"readEnd", "lost"} & set(peer.events)))
        if verb == "abort" or unread:
            assert "readEnd" not in peer.events
        else:
            assert "readEnd" in peer.events
        # What was unsent is dropped.
        assert len(peer.received) < 40 * WINDOW


@pytest_twisted.ensureDeferred
async def test_droppedWithinReceive() -> None:
    user = User()
    user.hooks["data"] = lambda data: user.protocol.drop()
    async with line(user=user) as (_, _, peer):
        peer.write(b"x" * 1_000_000)
        await user.happened("closed")
        assert user.events == ["opened", "data", "closed"]
        assert user.error is None


@pytest.mark.tls
@pytest.mark.parametrize("verb", ["drop", "close", "abort"])
@pytest_twisted.ensureDeferred
async def test_nothingIsDeliveredAfterwards(verb: str) -> None:
    """TLS goes on with what it has decrypted."""
    user = User()
    user.hooks["data"] = lambda data: getattr(user.protocol, verb)()
    async with line("tls", user=user) as (ours, _, peer):
        peer.write(b"x" * 100_000)
        ours.attach(user.receive)
        await user.happened("data")
        await turns(3)
        ours.attach(user.receive)
        peer.goodbye()
        await user.happened("closed")
        assert user.events.count("data") == 1
        assert user.error is None


@pytest_twisted.ensureDeferred
async def test_abortOfATransportThatCannot() -> None:
    time, user = Clock(), User()
    protocol = SocketProtocol(user, time)

    class Least:
        """ITransport, as little as there can be."""

        ended = False

        def loseConnection(self) -> None:
            self.ended = True

        def pauseProducing(self) -> None: ...

        def getPeer(self) -> None: ...

        def write(self, data: bytes) -> None: ...

    transport = Least()
    protocol.makeConnection(transport)
    protocol.abort()
    time.advance(0)
    assert transport.ended
    protocol.connectionLost(Failure(ConnectionDone()))
    assert user.events == ["opened", "closed"]


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        *itertools.product(PLAIN, ["loseConnection", "abortConnection", "loseWriteConnection"]),
        # Twisted's TLS hands loseWriteConnection through to the socket (twisted#5341).
        pytest.param("tls", "loseConnection", marks=pytest.mark.tls),
        pytest.param("tls", "abortConnection", marks=pytest.mark.tls),
    ],
)
@pytest_twisted.ensureDeferred
async def test_behindOurBack(kind: Kind, verb: str) -> None:
    async with line(kind) as (ours, user, peer):
        ours.write(b"x" * 100_000)
        await turns(2)
        getattr(ours.transport, verb)()
        if verb == "loseWriteConnection":
            await user.happened("writeEnded")
            assert ours.state is State.READ_ONLY
            peer.transport.loseConnection()
        elif verb == "loseConnection" and kind in ENCRYPTED:
            await peer.happened("notified")
            peer.goodbye()
        await user.happened("closed")
        # TLS takes the abort for one of the peer's.
        aborted = "ECONNRESET" if kind in ENCRYPTED else "ECONNABORTED"
        assert code(user.error) == (aborted if verb == "abortConnection" else None)


# Reading


@pytest.mark.parametrize("kind", [*PLAIN, *TLS])
@pytest_twisted.ensureDeferred
async def test_noDeliveryAfterAPause(kind: Kind) -> None:
    """Several records of TLS come in one segment; the transport delivers on, we do not."""
    user = User()

    def pause(data: bytes) -> None:
        user.protocol.pause("user")
        user.protocol.pause("user")

    user.hooks["data"] = pause
    async with line(kind, user=user) as (ours, _, peer):
        peer.write(b"x" * 60_000)
        await user.happened("data")
        await turns(10)
        assert user.events.count("data") == 1
        assert ours.pressure.owners == ("user",)
        ours.pause("peer")
        ours.resume("user")
        await turns(5)
        assert user.events.count("data") == 1
        user.hooks.clear()
        ours.resume("peer")
        ours.resume("nobody")
        await user.until(lambda: len(user.received) == 60_000)
        # And it flows on as if nothing had been.
        peer.write(b"more")
        await user.until(lambda: user.received[-4:] == b"more")
        assert ours.held == 0


@pytest.mark.parametrize("kind", [*PLAIN, *TLS])
@pytest_twisted.ensureDeferred
async def test_oneSegmentAtATime(kind: Kind) -> None:
    """Pause in each delivery, resume later: everything comes, in order."""
    user = User()
    stream = pattern(200_000)

    def breathe(data: bytes) -> None:
        user.protocol.pause("user")
        theReactor().callLater(0, user.protocol.resume, "user")

    user.hooks["data"] = breathe
    async with line(kind, user=user) as (_, _, peer):
        peer.write(stream)
        await user.until(lambda: len(user.received) == len(stream))
        assert user.received == stream
        await turns(3)


def test_resumedWhileEnoughIsHeld() -> None:
    """A transport that goes on delivering (TLS does) while the user pauses, until nothing more may be held."""
    user, time = User(), Clock()
    protocol = SocketProtocol(user, time, highWaterMark=10)
    transport: Any = Memory(protocol)
    protocol.makeConnection(transport)
    user.hooks["data"] = lambda data: protocol.pause("user")
    for data in (b"first", b"x" * 10, b"last"):
        protocol.dataReceived(data)
    assert user.received == b"first"
    assert protocol.pressure.owners == ("full", "user")
    for received in (b"x" * 10, b"last"):
        protocol.resume("user")
        time.advance(0)
        assert user.received.endswith(received)
    protocol.resume("user")
    assert transport.producerState == "producing"
    protocol.drop()
    time.advance(60)


@pytest.mark.parametrize("kind", [*PLAIN, *TLS])
@pytest_twisted.ensureDeferred
async def test_heldUntilSomebodyReceives(kind: Kind) -> None:
    stream = pattern(2_000_000)
    async with line(kind, user=User(attach=False), highWaterMark=10_000) as (ours, user, peer):
        peer.write(stream)
        await turns(20)
        # Bounded: the mark, and what came before the transport heard of it.
        assert 10_000 <= ours.held <= 10_000 + 2 * LARGEST_SEGMENT
        assert ours.pressure.owners == ("full",)
        ours.attach(None)
        ours.attach(user.receive)
        assert user.received == b""
        await user.until(lambda: len(user.received) == len(stream))
        assert user.received == stream
        assert ours.held == 0


@pytest_twisted.ensureDeferred
async def test_detachedAgainWhileHeldBytesAreReleased() -> None:
    async with line(user=User(attach=False)) as (ours, user, peer):
        for part in (b"one", b"two", b"three"):
            peer.write(part)
            await turns(3)
        assert ours.held == 11
        user.hooks["data"] = lambda data: ours.attach(None)
        ours.attach(user.receive)
        await user.happened("data")
        assert user.received == b"one"
        user.hooks["data"] = lambda data: ours.pause("user")
        ours.attach(user.receive)
        await user.until(lambda: user.events.count("data") == 2)
        await turns(3)
        assert user.received == b"onetwo"
        user.hooks["data"] = lambda data: ours.close()
        ours.resume("user")
        await user.happened("closed")
        assert user.received == b"onetwothree"
        assert ours.held == 0


@pytest_twisted.ensureDeferred
async def test_closedWhileHeldBytesAreReleased() -> None:
    async with line(user=User(attach=False)) as (ours, user, peer):
        for part in (b"one", b"two", b"three"):
            peer.write(part)
            await turns(3)
        user.hooks["data"] = lambda data: ours.close()
        ours.attach(user.receive)
        await user.happened("closed")
        assert user.received == b"one"
        assert ours.held == 0


@pytest_twisted.ensureDeferred
async def test_aReceiverOfHeldBytesRaises() -> None:
    async with line(user=User(attach=False)) as (ours, user, peer):
        peer.write(b"x")
        await turns(3)

        def fail(data: bytes) -> None:
            raise ValueError("receiver")

        ours.attach(fail)
        await user.happened("closed")
        assert user.events == ["opened", "raised receive", "closed"]
        assert isinstance(user.error, ValueError)


@pytest_twisted.ensureDeferred
async def test_heldBytesBeforeTheEndBeforeTheClose() -> None:
    async with line(user=User(attach=False)) as (ours, user, peer):
        peer.write(b"held")
        peer.transport.loseWriteConnection()
        await turns(5)
        assert user.events == ["opened"]
        assert ours.state is State.OPEN
        ours.attach(user.receive)
        await user.happened("readEnded")
        assert user.events == ["opened", "data", "readEnded"]
        ours.end()
        await user.happened("closed")
        assert user.error is None


@pytest.mark.parametrize("verb", ["resume", "close", "drop", "abort", "end"])
@pytest.mark.parametrize("kind", ["policies", *TLS])
@pytest_twisted.ensureDeferred
async def test_aCleanEndWaitsForHeldBytes(kind: Kind, verb: str) -> None:
    """Transports without half-close: the connection is gone, the story is not."""
    user = User(attach=False)
    async with line(kind, user=user) as (ours, _, peer):
        peer.write(b"held")
        if kind in ENCRYPTED:
            peer.goodbye()
        else:
            peer.transport.loseConnection()
        await turns(10)
        assert ours.transport is None
        assert user.events == ["opened"]
        called: list[object] = []
        assert ours.write(b"late") is False
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        if verb in ("resume", "end"):
            ours.end()
            ours.pause("user")
            ours.attach(user.receive)
            await turns(3)
            assert user.events == ["opened"]
            ours.resume("user")
        else:
            getattr(ours, verb)()
            getattr(ours, verb)()
            assert user.events == ["opened"]
        await user.happened("closed")
        waited = ["data", "readEnded"] if verb in ("resume", "end") else []
        assert user.events == ["opened", *waited, "closed"]
        assert user.error is None
        assert called == ["EPIPE"]


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_unsentBytesAreLostAlsoWhenTheEndWaits() -> None:
    async with line("tls", user=User(attach=False)) as (ours, user, peer):
        peer.transport.pauseProducing()
        ours.write(b"x" * 20 * WINDOW)
        await turns(3)
        peer.write(b"held")
        peer.goodbye()
        await turns(10)
        assert user.events == ["opened"]
        ours.attach(user.receive)
        await user.happened("closed")
        assert user.received == b"held"
        assert isinstance(user.error, WriteError)


@pytest.mark.parametrize("kind", ["tcp", *TLS[:1]])
@pytest_twisted.ensureDeferred
async def test_aResetDoesNotWait(kind: Kind) -> None:
    async with line(kind, user=User(attach=False)) as (ours, user, peer):
        peer.write(b"held")
        await turns(5)
        assert ours.held == 4
        reset(peer)
        await user.happened("closed")
        assert user.events == ["opened", "closed"]
        assert isinstance(user.error, ResetError)
        assert ours.held == 0


@pytest_twisted.ensureDeferred
async def test_aResetIsNoticedAlsoWhilePaused(time: VirtualTime) -> None:
    """A reactor looks at no descriptor that is neither read nor written."""
    async with line(time=time) as (ours, user, peer):
        ours.pause("user")
        time.advance(RESET_CHECK)
        reset(peer)
        await peer.happened("lost")
        await turns(3)
        time.advance(RESET_CHECK)
        await user.happened("closed")
        assert isinstance(user.error, ResetError)
        assert not time.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_resumedThereIsNothingToLookFor(time: VirtualTime) -> None:
    async with line(time=time) as (ours, _, peer):
        ours.pause("user")
        ours.resume("user")
        assert not time.getDelayedCalls()
        peer.write(b"x")
        ours.pauseProducing()
        assert "user" in ours.pressure.owners
        ours.resumeProducing()
        assert not ours.pressure.paused


def test_theTransportGoesWhileItIsPausedAndBytesAreHeld() -> None:
    time, user = Clock(), User()
    protocol = SocketProtocol(user, time)
    transport: Any = Memory(protocol)
    protocol.makeConnection(transport)
    protocol.pause("user")
    protocol.dataReceived(b"held")
    protocol.connectionLost(Failure(ConnectionDone()))
    time.advance(RESET_CHECK)
    protocol.pause("peer")
    protocol.resume("user")
    protocol.resume("peer")
    protocol.pause("user")
    protocol.resume("user")
    time.advance(0)
    assert user.events == ["opened", "data", "readEnded", "closed"]
    assert not time.getDelayedCalls()


def test_aCleanEndWaitsAlsoWhenWeHaveEnded() -> None:
    protocol, user, _, time = arrange(State.READ_ONLY)
    protocol.attach(None)
    protocol.dataReceived(b"held")
    protocol.connectionLost(Failure(ConnectionDone()))
    assert protocol.state is State.READ_ONLY
    protocol.attach(user.receive)
    time.advance(0)
    assert user.events == ["opened", "writeEnded", "data", "readEnded", "closed"]
    assert user.error is None


def test_theHeldAreStillBoundByTheClocks() -> None:
    """What is never fetched ends with the idle time, also when the transport has long gone."""
    time, user = Clock(), User(attach=False)
    protocol = SocketProtocol(user, time, limits=Limits(idleTimeout=60))
    transport: Any = Memory(protocol)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"held")
    protocol.connectionLost(Failure(ConnectionDone()))
    time.advance(59)
    assert user.events == ["opened"]
    time.advance(1)
    time.advance(0)
    assert user.events == ["opened", "limit idleTimeout closed", "closed"]
    assert isinstance(user.error, TimedOutError)
    assert not time.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_stopProducingCloses() -> None:
    async with line() as (ours, user, _):
        ours.stopProducing()
        await user.happened("closed")
        assert user.error is None


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", ["tcp", *TLS])
@pytest_twisted.ensureDeferred
async def test_pausedBeforeItIsConnected(kind: Kind, early: bool) -> None:
    """The handshake goes on under a pause; what comes after it does not come through."""
    user = User()
    if not early:
        user.hooks["opened"] = lambda protocol: protocol.pause("user")

    def prepare(protocol: SocketProtocol) -> None:
        if early:
            protocol.pause("user")

    async with line(kind, user=user, prepare=prepare) as (ours, _, peer):
        ours.write(b"hello")
        await peer.until(lambda: peer.received == b"hello")
        peer.write(b"x" * 50_000)
        await turns(10)
        assert user.received == b""
        ours.resume("user")
        await user.until(lambda: len(user.received) == 50_000)


# Given back


@pytest.mark.parametrize("kind", EVERY)
@pytest_twisted.ensureDeferred
async def test_giveBack(kind: Kind) -> None:
    """Who gives back hears nothing more; who comes next has all that came, in order, and the end."""
    async with line(kind) as (ours, user, peer):
        peer.write(b"first ")
        await user.until(lambda: user.received == b"first ")
        ours.giveBack(b"st ")
        peer.write(b"second")
        await turns(10)
        assert user.received == b"first "
        assert ours.held in (3, 9)
        ours.giveBack(b"fir")
        second = User()
        ours.user = second
        ours.attach(second.receive)
        await second.until(lambda: second.received == b"first second")
        assert user.events == ["opened", "data"]
        ours.write(b"answer")
        await peer.until(lambda: peer.received == b"answer")
        ours.drop()
        await second.happened("closed")
        user.note("closed")  # for the end of the line, which waits for it


@pytest_twisted.ensureDeferred
async def test_nobodyWantsIt() -> None:
    """What happens while nobody stands behind it is told to nobody; a defect drops it."""
    async with line() as (ours, user, peer):
        ours.giveBack(b"")
        ours.write(bytes(100_000))
        peer.write(b"x")
        peer.transport.loseWriteConnection()
        await peer.until(lambda: len(peer.received) == 100_000)
        ours.attach(lambda data: 1 / 0)
        await peer.happened("readEnd")
        await turns(3)
        assert user.events == ["opened"]
        assert isinstance(ours.error, ZeroDivisionError)
        user.note("closed")


def test_muchThatIsGivenBack() -> None:
    """From the limit on the transport is paused, as for whatever is held; and goes on when it has gone out."""
    protocol, user, transport, time = arrange(State.OPEN)
    protocol.holdLimit = 10
    protocol.giveBack(b"0123456789")
    assert protocol.pressure.owners == ("full",)
    protocol.user = user
    protocol.attach(user.receive)
    time.advance(0)
    assert not protocol.pressure.paused
    assert user.received == b"0123456789"
    assert transport is not None


@pytest.mark.parametrize("data", [b"", b"given back"])
def test_theEndIsToldAgain(data: bytes) -> None:
    """After what was given back; when nothing was, the connection is exhausted, and who comes can see that."""
    protocol, user, _, time = arrange(State.WRITE_ONLY)
    assert protocol.exhausted
    protocol.giveBack(data)
    assert protocol.exhausted is (not data)
    second = User()
    protocol.user = second
    protocol.attach(second.receive)
    time.advance(0)
    assert second.events == (["data", "readEnded"] if data else [])
    assert protocol.exhausted
    assert user.events.count("readEnded") == 1


# Writing


@pytest.mark.parametrize("kind", [*PLAIN, *TLS])
@pytest_twisted.ensureDeferred
async def test_aPeerThatNeverReads(kind: Kind, time: VirtualTime) -> None:
    limits = Limits(idleTimeout=60, lifetime=600)
    async with line(kind, time=time, limits=limits) as (ours, user, peer):
        peer.transport.pauseProducing()
        ours.outlet.limit = 4 * 1024 * 1024
        assert ours.write(b"x" * 4 * 1024 * 1024) is False
        await turns(10)
        assert ours.outlet.given - ours.outlet.sent <= WINDOW
        called: list[object] = []
        ours.outlet.whenSent(lambda error: called.append(code(error)))
        ours.write(b"x" * 4 * 1024 * 1024)
        await user.happened("closed")
        assert code(user.error) == "ENOBUFS"
        assert called == ["ENOBUFS"]
        assert not time.getDelayedCalls()


@pytest.mark.parametrize("kind", ["tcp", *TLS])
@pytest_twisted.ensureDeferred
async def test_writeRate(kind: Kind, time: VirtualTime) -> None:
    meter = Meter(TokenBucket(10_000, now=time.seconds()))
    async with line(kind, time=time, writeMeter=meter) as (ours, user, peer):
        ours.write(b"x" * 50_000)
        ours.outlet.whenSent(lambda error: user.note("sent"))
        ours.end()
        await user.happened("limit writeRate paused")
        for second in range(1, 5):
            before = 10_000 * second
            await peer.until(lambda before=before: len(peer.received) >= before)  # type: ignore[misc]
            await turns(5)
            assert len(peer.received) <= before + 1024
            assert "sent" not in user.events
            for _ in range(10):
                time.advance(0.1)
                await turns(3)
        await user.happened("writeEnded")
        assert user.events == ["opened", "limit writeRate paused", "sent", "writeEnded"]
        await peer.until(lambda: len(peer.received) == 50_000)
        assert 4.0 <= time.seconds() <= 4.2


@pytest.mark.parametrize("kind", ["tcp", *TLS])
@pytest_twisted.ensureDeferred
async def test_readRate(kind: Kind, time: VirtualTime) -> None:
    door = Door(True)
    meter = Meter(TokenBucket(10_000, now=time.seconds()))
    async with line(kind, time=time, readMeter=meter, prepare=through(door)) as (ours, user, peer):
        peer.write(b"x" * 200_000)
        await user.happened("limit readRate paused")
        assert ours.pressure.owners == ("rate",)
        while len(user.received) < 200_000:
            await turns(5)
            # Never more than the rate allows, but for one read of the transport's.
            assert len(user.received) <= 10_000 * (time.seconds() + 1) + LARGEST_SEGMENT
            time.advance(0.5)
        assert time.seconds() >= 12
        assert door.events.count("limit readRate") == user.events.count("limit readRate paused")
        ours.drop()
        await user.happened("closed")
        assert not time.getDelayedCalls()


def test_aDebtThatGrewIsPaidInFull() -> None:
    time, user = Clock(), User()
    bucket = TokenBucket(100, now=0.0)
    protocol = SocketProtocol(user, time, readMeter=Meter(bucket))
    transport: Any = Memory(protocol)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"x" * 200)
    assert transport.producerState == "paused"
    # Another connection that shares the bucket.
    bucket.take(100, 0.0)
    time.advance(1)
    assert transport.producerState == "paused"
    time.advance(1)
    assert transport.producerState == "producing"
    assert user.events.count("limit readRate paused") == 1


# Clocks


@pytest_twisted.ensureDeferred
async def test_idleTimeout(time: VirtualTime) -> None:
    door = Door(True)
    limits = Limits(idleTimeout=60)
    async with line(time=time, limits=limits, prepare=through(door)) as (ours, user, peer):
        time.advance(59)
        peer.write(b"x")
        await user.happened("data")
        time.advance(59)
        ours.write(b"x")
        await peer.happened("data")
        await turns(3)
        time.advance(59)
        assert "closed" not in user.events
        time.advance(1)
        await user.happened("closed")
        assert user.events[-2:] == ["limit idleTimeout closed", "closed"]
        assert isinstance(user.error, TimedOutError)
        assert "60 s (idleTimeout)" in str(user.error)
        await turns(1)
        assert door.events == ["admit", "limit idleTimeout", "leave"]
        assert not time.getDelayedCalls()


@pytest.mark.parametrize("speaks", [False, True])
@pytest_twisted.ensureDeferred
async def test_handshakeTimeout(time: VirtualTime, speaks: bool) -> None:
    async with line(time=time, limits=Limits(handshakeTimeout=10)) as (ours, user, peer):
        ours.write(b"welcome")
        await peer.happened("data")
        if speaks:
            peer.write(b"x")
            await user.happened("data")
            assert not time.getDelayedCalls()
        time.advance(10)
        if speaks:
            await turns(3)
            assert "closed" not in user.events
        else:
            await user.happened("closed")
            assert "handshakeTimeout" in str(user.error)
            assert not time.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_lifetime(time: VirtualTime) -> None:
    async with line(time=time, limits=Limits(lifetime=10)) as (_, user, peer):
        for _ in range(9):
            time.advance(1)
            peer.write(b"x")
            count = len(user.received) + 1
            await user.until(lambda count=count: len(user.received) == count)  # type: ignore[misc]
        time.advance(1)
        await user.happened("closed")
        assert "lifetime" in str(user.error)
        assert not time.getDelayedCalls()


@pytest.mark.parametrize("who", list(ENDS))
@pytest_twisted.ensureDeferred
async def test_halfOpenTimeout(time: VirtualTime, who: str) -> None:
    async with line(time=time, limits=Limits(halfOpenTimeout=10)) as (ours, user, peer):
        time.advance(100)
        ENDS[who](ours, peer)
        await user.happened("writeEnded" if who == "we end" else "readEnded")
        time.advance(9)
        if who == "we end":
            peer.write(b"x")
            await user.happened("data")
        else:
            ours.write(b"x")
            await peer.happened("data")
        await turns(3)
        time.advance(9)
        assert "closed" not in user.events
        time.advance(1)
        await user.happened("closed")
        assert "halfOpenTimeout" in str(user.error)
        assert not time.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_clocksAreStoppedByEveryEnd(time: VirtualTime) -> None:
    limits = Limits(idleTimeout=60, handshakeTimeout=10, lifetime=600, halfOpenTimeout=10)
    for verb in ("close", "drop", "abort"):
        async with line(time=time, limits=limits) as (ours, user, _):
            getattr(ours, verb)()
            await user.happened("closed")
            assert not time.getDelayedCalls()
            assert not any(event.startswith("limit") for event in user.events)


@pytest_twisted.ensureDeferred
async def test_restClock(time: VirtualTime) -> None:
    async with line(time=time) as (ours, user, peer):
        rang: list[float] = []
        ours.setRestClock("timeout", None, lambda: None)
        ours.setRestClock("timeout", 10, lambda: rang.append(time.seconds()))
        time.advance(30)
        assert rang == [10]
        peer.write(b"x")
        await user.happened("data")
        time.advance(30)
        assert rang == [10, 40]
        ours.setRestClock("timeout", None, lambda: None)
        ours.write(b"x")
        time.advance(30)
        assert rang == [10, 40]
        ours.drop()
        ours.setRestClock("timeout", 10, lambda: None)
        assert not time.getDelayedCalls()


# The user's code


BAD = [
    ("connectionOpened", "opened"),
    ("receive", "data"),
    ("readEnded", "readEnded"),
    ("writeEnded", "writeEnded"),
    ("drained", "drained"),
    ("limitPassed", "limit lifetime closed"),
    ("connectionClosed", "closed"),
]


@pytest.mark.parametrize("attentive", [False, True])
@pytest.mark.parametrize(("where", "event"), BAD)
@pytest_twisted.ensureDeferred
async def test_aMethodThatRaises(where: str, event: str, attentive: bool, time: VirtualTime) -> None:
    user = User()

    def fail(*args: object) -> None:
        raise ValueError(event)

    user.hooks[event] = fail
    limits = Limits(lifetime=100) if attentive or where == "limitPassed" else Limits()
    readMeter = Meter(TokenBucket(1e9)) if attentive else None
    async with line(user=user, time=time, limits=limits, readMeter=readMeter, highWaterMark=5) as (ours, _, peer):
        if where == "receive":
            peer.write(b"x")
        elif where == "readEnded":
            peer.transport.loseWriteConnection()
        elif where == "writeEnded":
            ours.end()
        elif where == "drained":
            ours.write(b"12345")
        elif where == "limitPassed":
            time.advance(100)
        elif where == "connectionClosed":
            ours.close()
        await user.happened("closed")
        await turns(2)
        assert user.events.count(f"raised {where}") == 1
        assert user.events.count("closed") == 1
        if where == "connectionClosed":
            assert user.error is None
        else:
            assert isinstance(user.error, ValueError)
        assert not time.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_aWriteCallbackThatRaises() -> None:
    async with line() as (ours, user, _):
        order: list[object] = []

        def fail(error: Exception | None) -> None:
            order.append(error)
            raise ValueError("callback")

        ours.write(b"x")
        ours.outlet.whenSent(fail)
        ours.outlet.whenSent(order.append)
        await user.happened("closed")
        assert user.events == ["opened", "raised write callback", "closed"]
        assert len(order) == 2


@pytest_twisted.ensureDeferred
async def test_raisedThatRaises(loggedErrors: LoggedErrors) -> None:
    user = User()

    def fail(*args: object) -> None:
        raise ValueError("again")

    user.hooks["opened"] = user.hooks["raised connectionOpened"] = fail
    async with line(user=user) as (_, _, _):
        await user.happened("closed")
        assert user.events == ["opened", "raised connectionOpened", "closed"]
    assert len(loggedErrors.flush("while it was told that connectionOpened had raised")) == 1


@pytest.mark.tls
@pytest.mark.parametrize("given", [None, NetError("enough", code="ERR_TEST")])
@pytest_twisted.ensureDeferred
async def test_droppedWhenToldOfTheEndOfTls(given: NetError | None) -> None:
    user = User()
    user.hooks["readEnded"] = lambda: user.protocol.drop(given)
    async with line("tls", user=user) as (_, _, peer):
        peer.goodbye()
        await user.happened("closed")
        assert user.error is given
        assert user.events == ["opened", "readEnded", "closed"]


# startTLS


@pytest.mark.tls
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("client", [False, True])
@pytest_twisted.ensureDeferred
async def test_startTls(client: bool, paused: bool) -> None:
    """What was written before goes in clear, what comes after it encrypted, and both are called back."""
    peer = Stranger()
    async with line(client=client, peer=peer) as (ours, user, _):
        if paused:
            ours.pause("user")
        order: list[str] = []
        clear = pattern(300_000)
        ours.write(clear)
        ours.outlet.whenSent(lambda error: order.append(f"clear {error}"))
        speaker = Stranger(sslContext(server=client), server=client)

        def clearly() -> bool:
            if len(peer.received) < len(clear):
                return False
            # From here on it speaks TLS, with what has come already.
            speaker.transport, rest = peer.transport, peer.received[len(clear) :]
            peer.dataReceived = speaker.dataReceived  # type: ignore[method-assign]
            speaker.connectionMade()
            if rest:
                speaker.dataReceived(rest)
            return True

        ours.startTLS(selfSigned().forClient() if client else selfSigned().forServer())
        assert ISSLTransport.providedBy(ours.transport)
        assert ours.write(b"secret") is False
        ours.outlet.whenSent(lambda error: order.append(f"secret {error}"))
        await peer.until(clearly)
        assert peer.received[: len(clear)] == clear
        await speaker.until(lambda: speaker.received == b"secret")
        speaker.write(b"answer")
        await turns(5)
        assert order == ["clear None", "secret None"]
        if paused:
            assert user.received == b""
            ours.resume("user")
        await user.until(lambda: user.received == b"answer")


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_handedToATransportThatIsTlsAlready() -> None:
    """As when an application switches protocols: the handshake is over, and nobody will say so."""
    async with line("tls") as (ours, _, peer):
        later = User()
        protocol = SocketProtocol(later, theReactor())
        transport = ours.transport
        ours.outlet.detach()
        transport.wrappedProtocol = protocol
        protocol.makeConnection(transport)
        protocol.write(b"hello")
        await peer.until(lambda: peer.received == b"hello")
        protocol.drop()
        await later.happened("closed")
        ours.connectionLost(Failure(ConnectionDone()))


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_tlsOverATransportThatIsNoDescriptor() -> None:
    """It cannot tell what became of close_notify: the end is told at once."""
    from twisted.protocols.tls import TLSMemoryBIOFactory

    user, peer = User(), Stranger(sslContext())
    ours = SocketProtocol(user, theReactor())
    tls: Any = TLSMemoryBIOFactory(selfSigned().forServer(), False, Once(ours)).buildProtocol(None)
    ends: Any = (StringTransport(), StringTransport())

    def carry() -> None:
        for source, sink in (ends, ends[::-1]):
            data = source.value()
            source.clear()
            if data:
                (tls if sink is ends[0] else peer).dataReceived(data)

    peer.makeConnection(ends[1])  # type: ignore[no-untyped-call]
    tls.makeConnection(ends[0])
    ours.write(b"hello")
    for _ in range(4):
        carry()
    await turns(3)
    carry()
    assert peer.received == b"hello"
    ours.end()
    await turns(2)
    assert user.events == ["opened", "drained", "writeEnded"]
    carry()
    assert "notified" in peer.events
    tls.connectionLost(Failure(ConnectionDone()))
    assert user.events[-1] == "closed"


# Bare: somebody else writes to the transport


def barely(protocol: SocketProtocol) -> None:
    protocol.bare = True


@pytest.mark.parametrize("verb", ["end", "close", "drop", "abort"])
@pytest.mark.parametrize("kind", ["tcp", "policies", *TLS[:1]])
@pytest_twisted.ensureDeferred
async def test_bare(kind: Kind, verb: str) -> None:
    async with line(kind, prepare=barely) as (ours, user, peer):
        ours.transport.write(b"by itself")
        await peer.until(lambda: peer.received == b"by itself")
        peer.write(b"x")
        await user.happened("data")
        getattr(ours, verb)()
        if verb == "end":
            await user.happened("writeEnded")
            ours.close()
        await user.happened("closed" if kind == "tcp" or verb in ("drop", "abort") else "opened")
        if kind in ENCRYPTED and verb in ("end", "close"):
            await peer.happened("notified")
            peer.goodbye()
        await user.happened("closed")
        assert user.error is None


# Bytes that go another way


@pytest_twisted.ensureDeferred
async def test_carriedBeside(time: VirtualTime) -> None:
    """It is counted, and the clocks see it."""
    async with line(time=time, limits=Limits(idleTimeout=10)) as (ours, user, _):
        time.advance(9)
        ours.carriedBeside(1000)
        time.advance(9)
        assert (ours.bytesRead, user.received, user.events) == (1000, b"", ["opened"])
        ours.outlet.carriedBeside(500)
        assert ours.bytesWritten == 500
        time.advance(9)
        assert user.events == ["opened"]
        time.advance(1)
        await user.happened("closed")
    protocol = SocketProtocol(User(), Clock())
    protocol.carriedBeside(5)
    assert protocol.bytesRead == 5


@pytest_twisted.ensureDeferred
async def test_mayBePassed() -> None:
    """While nothing here would have to look at the bytes, or to keep them."""
    async with line() as (ours, user, peer):
        assert ours.mayBePassed
        ours.pause("user")
        assert not ours.mayBePassed
        ours.resume("user")
        assert ours.mayBePassed
        ours.attach(None)
        peer.write(b"held")
        await until(lambda: ours.held)
        assert not ours.mayBePassed
        ours.attach(user.receive)
        await user.until(lambda: user.received == b"held")
        assert ours.mayBePassed
        ours.end()
        assert ours.mayBePassed
        ours.drop()
        assert not ours.mayBePassed


@pytest_twisted.ensureDeferred
async def test_mayNotBePassedBeforeAndAfter(time: VirtualTime) -> None:
    assert not SocketProtocol(User(), Clock()).mayBePassed
    async with line() as (ours, user, peer):
        peer.transport.loseWriteConnection()
        await user.happened("readEnded")
        assert not ours.mayBePassed
    # The first byte is waited for: it must be seen.
    async with line(time=time, limits=Limits(handshakeTimeout=10)) as (ours, user, peer):
        assert not ours.mayBePassed
        peer.write(b"x")
        await user.happened("data")
        assert ours.mayBePassed
    meter = Meter(TokenBucket(1e9))
    async with line(readMeter=meter) as (ours, _, _):
        assert not ours.mayBePassed
    async with line(writeMeter=meter) as (ours, _, _):
        assert ours.mayBePassed
        assert not ours.outlet.mayBePassed
