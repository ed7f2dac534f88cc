"""Peers: scripts whose lines come true, fail at once when they cannot, and tell the whole story then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from hypothesis import given
from hypothesis import strategies as st
from logs import LoggedErrors
from turning import turns
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from twisted_net.errors import ClosedError, OptionError
from twisted_net.testing import peers as peersModule
from twisted_net.testing.peers import PATIENCE, WORDS, Event, HeardError, Peer, Peers


def theReactor() -> Any:
    from twisted.internet import reactor

    return reactor


def local(port: Any) -> TCP4ClientEndpoint:
    return TCP4ClientEndpoint(theReactor(), "127.0.0.1", port.getHost().port)


@asynccontextmanager
async def meeting(patience: float = PATIENCE) -> AsyncIterator[tuple[Peers, Any]]:
    peers = Peers(theReactor(), patience=patience)
    port = await peers.listens(TCP4ServerEndpoint(theReactor(), 0, interface="127.0.0.1"))
    try:
        yield peers, port
    finally:
        await peers.closes()


@asynccontextmanager
async def pair(patience: float = PATIENCE) -> AsyncIterator[tuple[Peer, Peer]]:
    async with meeting(patience) as (peers, port):
        client = await peers.connects(local(port))
        yield client, await peers.accepts()


@pytest_twisted.ensureDeferred
async def test_aScript() -> None:
    async with pair() as (client, server):
        client.sends(b"hello")
        client.ends()
        await server.hears("made")
        await server.hears(b"hel")
        await server.hears(b"lo")
        await server.hears("end")
        await client.hears("writeEnd")
        server.sends(b"good")
        server.sends(b"bye")
        server.closes()
        await client.hears(b"goodbye")
        await client.hears("end")
        client.closes()
        await client.hears("close")
        assert client.gone
        assert client.reason is not None
        assert client.reason.check(ConnectionDone)
        assert client.received == b"goodbye"
        names = [event.name for event in client.story if event.name != "data"]
        assert names == ["made", "sends", "ends", "writeEnd", "end", "closes", "close"]
        assert [event.name for event in server.events] == ["made", "data", "end", "close"]
        assert server.count("sends") == 2


@pytest_twisted.ensureDeferred
async def test_everythingUpToTheEnd() -> None:
    async with pair() as (client, server):
        client.sends(b"first")
        await server.hears(b"fi")
        client.sends(b" and last")
        client.closes()
        assert await server.hearsAll() == b"rst and last"
        assert await server.hearsAll() == b""
        await server.hears("end")


@pytest_twisted.ensureDeferred
async def test_pausesAndResumes() -> None:
    async with pair() as (client, server):
        server.pauses()
        client.sends(b"held")
        await server.hearsNothing(0.02)
        server.resumes()
        await server.hears(b"held")
        await server.hearsNothing(0)


@pytest_twisted.ensureDeferred
async def test_resetAndAbort() -> None:
    async with pair() as (client, server):
        client.aborts()
        await server.hears("reset")
        await client.hears("abort")
        await client.hears("gone")
        assert server.reason is not None
        assert server.reason.check(ConnectionLost)
        with pytest.raises(HeardError, match="was to hear everything up to the end"):
            await server.hearsAll()
        with pytest.raises(HeardError, match="was to hear 'close'"):
            await client.hears("close")


@pytest_twisted.ensureDeferred
async def test_otherBytesFailAtOnce() -> None:
    async with pair() as (client, server):
        client.sends(b"hullo")
        with pytest.raises(HeardError) as caught:
            await server.hears(b"hello")
        assert str(caught.value) == (
            "server was to hear b'hello' next; after 1 bytes of it b'ullo' came instead of b'ello'.\n"
            "Its story:\n  made\n  data b'hullo'"
        )
        with pytest.raises(HeardError, match="was to hear b'x' next; b'hullo' came"):
            await server.hears(b"x")
        await server.hears(b"hullo")


@pytest_twisted.ensureDeferred
async def test_tooFewBytesFailWithTheEnd() -> None:
    async with pair() as (client, server):
        client.sends(b"hel")
        client.closes()
        with pytest.raises(HeardError, match="only 3 of these 5 bytes came"):
            await server.hears(b"hello")


@pytest_twisted.ensureDeferred
async def test_whatNobodyHasAskedForIsAFailure() -> None:
    async with pair() as (client, server):
        client.sends(b"extra")
        client.ends()
        with pytest.raises(HeardError, match="'end'; b'extra' came, and no line has asked for it"):
            await server.hears("end")
        with pytest.raises(HeardError, match="was to hear nothing for 5 seconds"):
            await server.hearsNothing(5)
        await server.hears(b"extra")
        await server.hears("end")


@pytest.mark.parametrize("what", ["sends", "ends", "aborts"])
@pytest_twisted.ensureDeferred
async def test_somethingIsNotNothing(what: str) -> None:
    async with pair() as (client, server):
        acts: dict[str, Callable[[], None]] = {
            "sends": lambda: client.sends(b"x"),
            "ends": client.ends,
            "aborts": client.aborts,
        }
        theReactor().callLater(0.01, acts[what])
        with pytest.raises(HeardError, match="nothing for 5 seconds"):
            await server.hearsNothing(5)


@pytest_twisted.ensureDeferred
async def test_whatDoesNotComeFailsAfterItsPatience() -> None:
    async with pair(patience=0.05) as (_, server):
        with pytest.raises(HeardError, match=r"b'hello'; it has not come for 0\.05 seconds"):
            await server.hears(b"hello")
        with pytest.raises(HeardError, match="'end'; it has not come"):
            await server.hears("end")


@pytest_twisted.ensureDeferred
async def test_aGoneConnectionHearsNoMore() -> None:
    async with pair() as (client, server):
        client.closes()
        await server.hears("end")
        server.closes()
        await client.hears("close")
        for word in ("end", "writeEnd", "handshake", "reset"):
            with pytest.raises(HeardError, match=f"client was to hear '{word}'"):
                await client.hears(word)
        client.sends(b"nobody hears it")


@pytest_twisted.ensureDeferred
async def test_aScriptNeverRunsInsideOfATransportsCall() -> None:
    async with pair() as (client, server):
        inside: list[bool] = []
        receive = server.dataReceived

        def dataReceived(data: bytes) -> None:
            inside.append(True)
            receive(data)
            inside.clear()

        server.dataReceived = dataReceived  # type: ignore[method-assign]
        client.sends(b"now")
        await server.hears(b"now")
        assert not inside


@pytest_twisted.ensureDeferred
async def test_aReactionIsInside(loggedErrors: LoggedErrors) -> None:
    async with pair() as (client, server):
        server.reacts("data", lambda: server.sends(server.events[-1].data.upper()))
        client.sends(b"echo")
        await client.hears(b"ECHO")

        def fail() -> None:
            raise ValueError("meant")

        server.reacts("data", fail)
        client.sends(b"?")
        await server.hears(b"echo?")
        await server.hears("gone")
        assert server.reason is not None
        assert server.reason.check(ValueError)
    loggedErrors.flush("meant")


@pytest_twisted.ensureDeferred
async def test_aPeerThatKnowsNoHalfClose() -> None:
    async with meeting() as (peers, port):
        client = await peers.connects(local(port), peers.peer("plain", halfClose=False))
        server = await peers.accepts()
        assert not IHalfCloseableProtocol.providedBy(client)
        assert IHalfCloseableProtocol.providedBy(server)
        server.ends()
        await client.hears("close")


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_theHandshakeIsHeard() -> None:
    reactor, peers = theReactor(), Peers(theReactor())

    class Endpoint:
        def listen(self, factory: Any) -> Any:
            tls = TLSMemoryBIOFactory(selfSigned().forServer(), False, factory)
            return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(tls)

    port = await peers.listens(Endpoint())  # type: ignore[arg-type]
    client = await peers.connects(wrapClientTLS(selfSigned().forClient(), local(port)))
    server = await peers.accepts()
    await client.hears("handshake")
    await server.hears("handshake")
    assert IHandshakeListener.providedBy(client)
    client.sends(b"secret")
    await server.hears(b"secret")
    await peers.closes()


@pytest_twisted.ensureDeferred
async def test_unixSockets(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of UNIX sockets are short
    peers = Peers(theReactor())
    await peers.listens(UNIXServerEndpoint(theReactor(), "s"))
    client = await peers.connects(UNIXClientEndpoint(theReactor(), "s"))
    server = await peers.accepts()
    client.sends(b"hello")
    client.ends()
    await server.hears(b"hello")
    await server.hears("end")
    await peers.closes()


@pytest_twisted.ensureDeferred
async def test_whoIsToldToMakePeers() -> None:
    peers = Peers(theReactor())
    made = iter([peers.peer("the first"), None])
    port = await peers.listens(TCP4ServerEndpoint(theReactor(), 0, interface="127.0.0.1"), lambda: next(made))
    await peers.connects(local(port))
    assert (await peers.accepts()).name == "the first"
    refused = await peers.connects(local(port), peers.peer(halfClose=False))
    await refused.hears("gone")
    await peers.closes()


@pytest_twisted.ensureDeferred
async def test_acceptsWaits() -> None:
    async with meeting(patience=0.05) as (peers, port):
        with pytest.raises(HeardError, match=r"nobody has connected for 0\.05 seconds"):
            await peers.accepts()
        waiting = Deferred.fromCoroutine(peers.accepts())
        client = await peers.connects(local(port))
        server = await waiting
        client.sends(b"you")
        await server.hears(b"you")


@pytest_twisted.ensureDeferred
async def test_whoNobodyAcceptsIsClosedWhenThereAreTooMany(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peersModule, "WAITING_LIMIT", 1)
    async with meeting() as (peers, port):
        waits = await peers.connects(local(port))
        refused = await peers.connects(local(port), peers.peer(halfClose=False))
        await refused.hears("gone")
        server = await peers.accepts()
        waits.sends(b"still here")
        await server.hears(b"still here")


@pytest_twisted.ensureDeferred
async def test_whoSendsTooMuchIsCutOff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peersModule, "RECEIVED_LIMIT", 10)
    async with pair() as (client, server):
        client.sends(b"0123456789")
        await server.hears(b"0123456789")
        client.sends(b"x")
        await server.hears("abort")
        assert server.received == b"0123456789"
        assert server.story[-2:] == [Event("aborts"), Event("abort")]


@pytest_twisted.ensureDeferred
async def test_connectingToNobody() -> None:
    async with meeting() as (peers, port):
        endpoint = local(port)
        await peers.closes()
        with pytest.raises(ConnectError):
            await peers.connects(endpoint)


@pytest_twisted.ensureDeferred
async def test_aLineCanBeCancelled() -> None:
    async with pair() as (client, server):
        line = Deferred.fromCoroutine(server.hears(b"never"))
        line.cancel()
        with pytest.raises(CancelledError):
            await line
        client.sends(b"fine")
        await server.hears(b"fine")


@pytest_twisted.ensureDeferred
async def test_aConnectionThatDoesNotEndIsAFailure() -> None:
    class Stays(Peer):
        def aborts(self) -> None:
            """It does not."""

    async with meeting() as (peers, port):
        peer = Stays(theReactor(), "the one who stays", patience=0.05)
        await peers.connects(local(port), peer)
        with pytest.raises(HeardError, match="the one who stays was to hear 'gone'"):
            await peers.leaves([peer])
        Peer.aborts(peer)
        await peer.hears("gone")
        await turns()


@pytest.mark.parametrize("verb", ["ends", "closes", "aborts", "pauses", "resumes"])
def test_nobodyActsBeforeHeIsConnected(verb: str) -> None:
    peer = Peer(Clock(), "early")
    with pytest.raises(ClosedError, match=f"early {verb} before it is connected: await early.hears"):
        getattr(peer, verb)()
    with pytest.raises(ClosedError, match="early sends before"):
        peer.sends(b"")
    assert peer.story == []
    assert peer.tells() == "  nothing has happened"


@pytest.mark.parametrize("claim", [lambda peer: peer.hears("silence"), lambda peer: peer.hears(None)])
def test_wordsThatThereAreNot(claim: Callable[[Peer], Awaitable[None]]) -> None:
    with pytest.raises(OptionError, match="give it bytes, or one of made, handshake"):
        claim(Peer(Clock())).send(None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["gone", "sends", "smile"])
def test_eventsThatThereAreNot(name: str) -> None:
    with pytest.raises(OptionError, match="there is no such event; one of data, made"):
        Peer(Clock()).reacts(name, lambda: None)


@pytest.mark.parametrize("patience", [0, -1, float("nan")])
def test_patienceIsANumberOfSeconds(patience: float) -> None:
    with pytest.raises(OptionError, match="a number of seconds above 0"):
        Peer(Clock(), patience=patience)


def test_timeIsTheReactors() -> None:
    """Not a second of the wall passes while a peer is patient on a clock of its own."""
    clock = Clock()
    peer = Peer(clock, patience=1000)
    line = Deferred.fromCoroutine(peer.hears("made"))
    clock.advance(999)
    assert not line.called
    clock.advance(1)
    clock.advance(0)
    failure = line.result
    assert isinstance(failure, Failure)
    assert failure.check(HeardError)
    line.addErrback(lambda failure: None)
    assert not clock.getDelayedCalls()


def test_aLongStoryIsCut() -> None:
    peer = Peer(Clock())
    for number in range(30):
        peer.dataReceived(b"%d" % number * 40)
    peer.connectionLost(Failure(ConnectionLost("torn")))
    lines = peer.tells().splitlines()
    assert lines[0] == "  ... 7 events before"
    assert len(lines) == 26
    assert lines[-3] == "  data b'29292929292929292929292929292929'... (80 bytes)"
    assert lines[-2:] == [
        "  reset",
        "  (ConnectionLost: Connection to the other side was lost in a non-clean fashion: torn.)",
    ]


def test_eventsAreFrozen() -> None:
    event = Event("data", b"x")
    assert repr(event) == "data b'x'"
    assert repr(Event("end")) == "end"
    with pytest.raises(FrozenInstanceError):
        event.name = "end"  # type: ignore[misc]


def test_theWordsAreAllThereAre() -> None:
    assert set(WORDS) == {"made", "handshake", "end", "writeEnd", "close", "reset", "abort", "gone"}


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8), st.lists(st.integers(0, 60), max_size=8))
def test_howBytesAreCutDoesNotMatter(data: bytes, cuts: list[int], asked: list[int]) -> None:
    """Whatever the segments, and whatever the portions that are asked for: the same bytes are heard."""
    clock = Clock()
    peer = Peer(clock)

    async def script() -> bytes:
        for portion in _portions(data, asked):
            await peer.hears(portion)
        return await peer.hearsAll()

    line = Deferred.fromCoroutine(script())
    for segment in _portions(data, cuts):
        peer.dataReceived(segment)
        clock.advance(0)
    peer.readConnectionLost()
    for _ in range(len(asked) + 2):
        clock.advance(0)
    assert line.result == b""
    assert peer.received == data
    assert not clock.getDelayedCalls()


@given(st.binary(min_size=1, max_size=40), st.integers(0, 39), st.lists(st.integers(0, 40), max_size=4))
def test_aWrongByteIsSeenWhereverItIs(data: bytes, place: int, cuts: list[int]) -> None:
    clock = Clock()
    peer = Peer(clock)
    place %= len(data)
    wrong = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    line = Deferred.fromCoroutine(peer.hears(data))
    for segment in _portions(wrong, cuts):
        peer.dataReceived(segment)
    clock.advance(0)
    failure = line.result
    assert isinstance(failure, Failure)
    assert failure.check(HeardError)
    line.addErrback(lambda failure: None)


def _portions(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places; without empty portions."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]
