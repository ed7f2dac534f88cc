"""Socket: a connection's whole life in events, over TCP and UNIX sockets, against itself and against strangers."""

from __future__ import annotations

import gc
import os
import socket as sockets
import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from drivers import LARGEST_SEGMENT
from logs import LoggedErrors
from programs import finished
from scenes import SOCKET_EVENTS, Journal, Scene, engine, heard, patient, played
from turning import turns, until
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer
from twisted.protocols.basic import FileSender
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_net import net
from twisted_net.errors import AbortedError, AddressError, ClosedError, NetError, OptionError, TimedOutError, WriteError
from twisted_net.interfaces import IConnectionUser
from twisted_net.net import Limits, Server, Socket
from twisted_net.sansio.lifecycle import State
from twisted_net.testing.clock import VirtualTime
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire import layers

MiB = 1024 * 1024
PLENTY = 20_000_000
"""More bytes than the kernel, the transport and the high-water marks of both ends hold together."""


class Oops(Exception):
    """What listeners raise."""


def ignore(*args: object) -> None:
    """Listens, and that is all."""


def echo(socket: Socket) -> None:
    socket.on("error", ignore)
    socket.pipe(socket)


# What it is


def test_itIsAGoodTwistedCitizen() -> None:
    socket = Socket()
    for interface in (IPushProducer, IConsumer, IConnectionUser):
        assert verifyObject(interface, socket)


@pytest_twisted.ensureDeferred
async def test_beforeItConnects() -> None:
    from twisted.internet import reactor

    socket = Socket()
    assert socket.reactor is reactor
    assert (socket.readyState, socket.pending, socket.connecting, socket.destroyed) == ("closed", True, False, False)
    assert (socket.readable, socket.writable, socket.isPaused()) == (False, True, False)
    assert (socket.bytesRead, socket.bytesWritten, socket.writableLength) == (0, 0, 0)
    assert socket.address() is socket.peerAddress() is socket.transport is None
    assert (socket.remoteAddress, socket.remotePort, socket.remoteFamily) == (None, None, None)
    assert (socket.localAddress, socket.localPort, socket.localFamily) == (None, None, None)
    assert repr(socket) == "<Socket closed>"
    socket.resume()
    socket.unregisterProducer()
    assert socket.protocol is None, "nothing was begun yet"
    assert socket.pause().isPaused()
    assert socket.peerAddress() is None


@played()
async def test_whileItIsConnected(scene: Scene) -> None:
    server = await scene.server()
    client = scene.client(server)
    assert (client.readyState, client.pending, client.connecting) == ("opening", True, True)
    assert client.writable
    await client.whenConnected()
    await until(lambda: server.connections)
    (accepted,) = server.clients
    for socket in (client, accepted):
        assert (socket.readyState, socket.pending, socket.connecting) == ("open", False, False)
        assert socket.readable
        assert socket.writable
        assert socket.transport is not None
    assert client.address() == accepted.peerAddress() or scene.kind == "unix"
    assert accepted.address() == client.peerAddress() == server.address()
    assert (client.server, accepted.server) == (None, server)
    where = scene.where(server)
    if scene.kind == "tcp":
        assert (client.remoteAddress, client.remotePort, client.remoteFamily) == ("127.0.0.1", where["port"], "IPv4")
        assert (accepted.localAddress, accepted.localPort, accepted.localFamily) == (
            "127.0.0.1",
            where["port"],
            "IPv4",
        )
        assert accepted.remotePort == client.localPort
        assert repr(client) == f"<Socket open 127.0.0.1:{where['port']}>"
    else:
        assert (client.remoteAddress, client.remotePort, client.remoteFamily) == (where["path"], None, "unix")
        assert (accepted.localAddress, accepted.localPort, accepted.localFamily) == (where["path"], None, "unix")
    assert await client.whenConnected() is client
    assert await accepted.whenConnected() is accepted
    client.end()
    await client.whenClosed()
    assert client.remoteAddress == (where.get("path") or "127.0.0.1"), "still known afterwards"
    assert (client.readyState, client.readable, client.writable, client.destroyed) == ("closed", False, False, True)
    with pytest.raises(ClosedError):
        await client.whenConnected()
    assert await client.whenClosed() is False


@pytest.mark.parametrize(
    "options",
    [{"type": "udp"}, {"nonsense": 1}, {"highWaterMark": 0}, {"timeoutStep": -1}, {"timeoutStep": "1"}],
)
def test_optionsThatAreNone(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Socket(options)


def test_optionsEitherWay() -> None:
    assert Socket({"allowHalfOpen": True}).allowHalfOpen
    assert Socket(highWaterMark=5).highWaterMark == 5


# Connecting


@played()
async def test_eventsOfAWholeLife(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.client(server)
    heard = Journal(client)
    assert client.write("hello") is False
    client.end()
    await heard.happened("close")
    assert [event for event in heard.events if event != "lookup"] == [
        "connect",
        "ready",
        "finish",
        "data",
        "end",
        "close",
    ]
    assert heard.data == b"hello"
    assert heard.hadError == [False]


@played()
async def test_nothingIsSaidBeforeConnectReturned(scene: Scene) -> None:
    server = await scene.server()
    said: list[str] = []
    client = Socket()
    for event in SOCKET_EVENTS:
        client.on(event, lambda *args, event=event: said.append(event))
    scene.keep(client).connect(scene.where(server))
    assert said == []
    await client.whenConnected()


@played("tcp")
async def test_refused(scene: Scene) -> None:
    server = await scene.server()
    where = scene.where(server)
    server.close()
    await server.whenClosed()
    client = scene.keep(Socket())
    heard = Journal(client, without=("lookup",))
    client.connect(where)
    assert heard.events == []
    await heard.happened("close")
    assert heard.events == ["error", "close"]
    assert heard.codes == ["ECONNREFUSED"]
    assert heard.hadError == [True]
    assert isinstance(heard.errors[0], ConnectionRefusedError)
    assert client.destroyed
    assert not client.connecting


@played("unix")
async def test_noSuchPath(scene: Scene) -> None:
    client = scene.keep(Socket())
    heard = Journal(client)
    client.connect(scene.place())
    await heard.happened("close")
    assert (heard.events, heard.codes, heard.hadError) == (["error", "close"], ["ENOENT"], [True])


@played("tcp")
async def test_nameThatDoesNotResolve(scene: Scene) -> None:
    client = scene.keep(Socket())
    heard = Journal(client)
    client.connect(8124, "no.such.host.invalid")
    await heard.happened("close")
    assert heard.events == ["lookup", "error", "close"]
    assert heard.codes == ["ENOTFOUND"]
    assert heard.args["lookup"][0][0].code == "ENOTFOUND"


@played("tcp")
async def test_nameThatResolves(scene: Scene) -> None:
    server = await scene.server()
    client = scene.keep(Socket())
    heard = Journal(client)
    client.connect({"port": scene.where(server)["port"], "host": "localhost", "family": 4})
    await heard.happened("connect")
    assert (None, "127.0.0.1", 4, "localhost") in heard.args["lookup"]


@played("tcp")
async def test_connectTimeout(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    with sockets.create_server(("127.0.0.1", 0), backlog=0) as full:
        # A backlog of 0 has room for one: the second one's SYN is dropped, and its attempt hangs.
        where = full.getsockname()
        with sockets.create_connection(where), sockets.socket() as second:
            second.setblocking(False)
            second.connect_ex(where)
            client = scene.keep(Socket(reactor=time))
            heard = Journal(client, without=("lookup",))
            client.connect(where[1], where[0], connectTimeout=5)
            await turns(3)
            time.advance(4.9)
            await turns(3)
            assert heard.events == []
            time.advance(0.2)
            await heard.happened("close")
    assert (heard.events, heard.codes, heard.hadError) == (["error", "close"], ["ETIMEDOUT"], [True])
    assert not time.getDelayedCalls()


@played()
async def test_whenConnectedFailsWithTheError(scene: Scene) -> None:
    client = scene.keep(Socket())
    where = {"port": 1, "host": "127.0.0.1"} if scene.kind == "tcp" else scene.place()
    client.connect(where)
    with pytest.raises(NetError) as caught:
        await client.whenConnected()
    assert caught.value.code in ("ECONNREFUSED", "ENOENT")
    assert await client.whenClosed() is True


@played()
async def test_anEndpointIsAPlaceToo(scene: Scene) -> None:
    server = await scene.server(echo)
    where = scene.where(server)
    if scene.kind == "tcp":
        endpoint: Any = TCP4ClientEndpoint(scene.reactor, where["host"], where["port"])
        text = f"tcp:{where['host']}:{where['port']}"
    else:
        endpoint = UNIXClientEndpoint(scene.reactor, where["path"])
        text = f"unix:{where['path']}"
    for place in (endpoint, text):
        client = scene.keep(Socket(type="tcp4" if scene.kind == "tcp" else "unix")).connect(place)
        heard = Journal(client)
        client.end("hello")
        await heard.happened("close")
        assert heard.data == b"hello"


@played("tcp")
async def test_whatCannotBeConnected(scene: Scene) -> None:
    server = await scene.server()
    where = scene.where(server)
    for type, place in (("unix", where), ("tcp4", {"path": "/tmp/x"})):
        with pytest.raises(AddressError, match=f"type {type!r}"):
            Socket(type=type).connect(place)
    with pytest.raises(AddressError, match=r"Socket\(fd=5\)"):
        Socket().connect(fd=5)
    with pytest.raises(OptionError, match="family"):
        Socket().connect(8124, family=5)
    client = scene.client(server)
    for _ in range(2):
        with pytest.raises(NetError, match="connected or connecting already") as caught:
            client.connect(where)
        assert caught.value.code == "EISCONN"
        await client.whenConnected()


@played("tcp")
async def test_typesChooseTheFamily(scene: Scene) -> None:
    server = await scene.server()
    port = scene.where(server)["port"]
    client = scene.keep(Socket(type="tcp4")).connect(port)
    await client.whenConnected()
    assert client.remoteFamily == "IPv4"
    six = scene.keep(Socket(type="tcp6"))
    said = Journal(six)
    six.connect(port, "127.0.0.1")
    await said.happened("close")
    assert said.codes == ["EINVAL"], "an IPv4 address is none of IPv6"
    other = scene.keep(net.createServer())
    other.listen(0, "::1")
    await other.whenListening()
    six.connect(other.address().port, "::1")
    await six.whenConnected()
    assert six.remoteFamily == "IPv6"


@played("tcp")
async def test_theLocalSideCanBeChosen(scene: Scene) -> None:
    server = await scene.server()
    client = scene.keep(Socket()).connect({**scene.where(server), "localAddress": "127.0.0.5"})
    await client.whenConnected()
    assert client.localAddress == "127.0.0.5"
    client.destroy()
    await client.whenClosed()
    port = client.localPort
    assert port
    again = scene.keep(Socket()).connect({**scene.where(server), "localPort": port})
    await again.whenConnected()
    assert again.localPort == port


@played()
async def test_againAfterClose(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.keep(Socket())
    heard = Journal(client, without=("lookup",))
    for round in range(3):
        client.connect(scene.where(server))
        assert not client.destroyed
        client.end(f"round {round}, ")
        await client.whenClosed()
        assert client.destroyed
        assert client.bytesWritten == 9
    assert heard.data == b"round 0, round 1, round 2, "
    assert heard.hadError == [False] * 3
    assert heard.events.count("connect") == 3


@played()
async def test_againFromTheListenerOfCloseAndOfError(scene: Scene) -> None:
    server = await scene.server()
    client = scene.keep(Socket())
    heard = Journal(client, without=("lookup",))
    client.once("error", lambda error: client.connect({"path": "/nothing/there"}))
    client.once("close", lambda had: client.connect(scene.where(server)) if not client.connecting else None)
    client.connect({"path": "/no/such/path"})
    await heard.until(lambda: heard.codes == ["ENOENT"] * 2 and heard.events[-1] == "close")
    assert heard.events == ["error", "close", "error", "close"], "one close for each connection"
    client.connect(scene.where(server))
    await heard.happened("connect")


@played()
async def test_anAcceptedSocketMayConnectLater(scene: Scene) -> None:
    server = await scene.server()
    connections = Journal(server, "connection")
    side, socket = await scene.stranger(server)
    side.transport.loseConnection()
    socket.resume().on("data", ignore)
    await socket.whenClosed()
    assert server.connections == 0
    plain = scene.plain()
    heard = Journal(socket, "connect")
    scene.keep(socket).connect(plain.place)
    await heard.happened("connect")
    assert socket.server is None
    assert connections.events == ["connection"]
    assert server.connections == 0


@played()
async def test_destroyedWhileConnecting(scene: Scene) -> None:
    server = await scene.server()
    for error in (None, Oops()):
        client = scene.client(server)
        heard = Journal(client, without=("lookup",))
        waiting = client.whenConnected()
        told: list[Any] = []
        client.write("never", callback=told.append)
        client.destroy(error)
        assert (client.destroyed, client.readyState) == (True, "closed")
        assert heard.events == []
        await client.whenClosed()
        assert heard.events == (["error", "close"] if error else ["close"])
        assert heard.hadError == [error is not None]
        assert heard.errors == ([error] if error else [])
        assert len(told) == 1
        with pytest.raises(Oops if error else ClosedError):
            await waiting
        assert not client.connecting


@played()
async def test_destroyedAfterTheAttemptFailedAndBeforeItWasSaid(scene: Scene) -> None:
    client = scene.keep(Socket())
    heard = Journal(client, without=("lookup",))
    client.connect({"path": "/no/such/path"} if scene.kind == "unix" else {"port": 1, "host": "127.0.0.1"})
    await until(lambda: client._announcing is not None)
    client.destroy()
    await heard.happened("close")
    assert heard.events == ["close"]


@played()
async def test_destroyedBeforeItEverConnected(scene: Scene) -> None:
    client = scene.keep(Socket())
    heard = Journal(client)
    assert client.destroy() is client
    client.destroy(Oops())
    await heard.happened("close")
    assert (heard.events, heard.hadError) == (["close"], [False])
    client.connect(scene.where(await scene.server()))
    await heard.happened("connect")


@played()
async def test_destroyedInItsOwnConnectListener(scene: Scene) -> None:
    server = await scene.server()
    client = scene.client(server, lambda: client.destroy())
    heard = Journal(client, without=("lookup",))
    await heard.happened("close")
    assert heard.events == ["connect", "close"], "no 'ready' for what is destroyed"


# An existing descriptor


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
@pytest_twisted.ensureDeferred
async def test_descriptor(family: str) -> None:
    if family == "AF_UNIX":
        ours, theirs = sockets.socketpair()
    else:
        with sockets.create_server(("127.0.0.1", 0)) as listening:
            theirs = sockets.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    with theirs:
        socket = Socket(fd=ours.detach())
        heard = Journal(socket)
        assert socket.readyState == "open"
        theirs.sendall(b"hello")
        await patient(heard.happened("data"))
        socket.end("answer")
        await patient(heard.happened("finish"))
        theirs.settimeout(10)
        assert theirs.recv(100) == b"answer"
        assert theirs.recv(100) == b"", "the descriptor was taken over, not shared"
    await patient(heard.happened("close"))
    assert heard.events == ["data", "finish", "end", "close"]


def test_descriptorsThatAreNone() -> None:
    with pytest.raises(NetError) as caught:
        Socket({"fd": 99_999})
    assert caught.value.code == "EBADF"
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as udp, pytest.raises(NetError, match="SOCK_DGRAM"):
        Socket(fd=udp.fileno())
    with sockets.socket() as unconnected, pytest.raises(NetError) as caught:
        Socket(fd=unconnected.fileno())
    assert caught.value.code == "ENOTCONN"


# Every way to end: order of events, one 'close'


@played()
async def test_thePeerEnds(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.write(b"last words")
    side.transport.loseWriteConnection()
    await heard.happened("close")
    assert heard.events == ["data", "end", "finish", "close"]
    assert heard.hadError == [False]
    await side.happened("lost")
    assert "readEnd" in side.events


@played()
async def test_weEnd(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    socket.end("last words")
    assert socket.readyState == "readOnly"
    await side.happened("readEnd")
    assert side.received == b"last words"
    side.transport.write(b"an answer all the same")
    await heard.happened("data")
    side.transport.loseConnection()
    await heard.happened("close")
    assert heard.events[-5:] == ["finish", "data", "end", "close"] or heard.events == [
        "finish",
        "data",
        "end",
        "close",
    ]
    assert heard.data == b"an answer all the same"


@played()
async def test_bothEndAtOnce(scene: Scene) -> None:
    client, accepted = await scene.pair()
    both = [Journal(client), Journal(accepted)]
    client.end("from the client")
    accepted.end("from the server")
    for one in both:
        await one.happened("close")
        assert one.events.count("close") == one.events.count("end") == one.events.count("finish") == 1
        assert one.events[-1] == "close"
        assert one.hadError == [False]
    assert (both[0].data, both[1].data) == (b"from the server", b"from the client")


@played()
async def test_weEndWhileThePeerCloses(scene: Scene) -> None:
    """Our FIN meets a peer that is gone: what it sent before must not be lost over that."""
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.write(b"sent before")
    side.transport.loseConnection()
    socket.end()
    await heard.happened("close")
    assert heard.events == ["finish", "data", "end", "close"] or heard.events == ["data", "end", "finish", "close"]
    assert heard.data == b"sent before"


@played("tcp")
async def test_resetWhileIdle(scene: Scene) -> None:
    server = await scene.server()
    for listens in (True, False):
        side, socket = await scene.stranger(server)
        heard = Journal(socket, without=() if listens else ("data",))
        side.transport.abortConnection()
        await heard.happened("close")
        assert (heard.events, heard.codes, heard.hadError) == (["error", "close"], ["ECONNRESET"], [True])
        assert isinstance(heard.errors[0], ConnectionResetError)


@played("tcp")
async def test_resetWhileWriting(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.pauseProducing()
    told: list[Any] = []
    assert socket.write(bytes(PLENTY), callback=told.append) is False
    await turns(5)
    assert told == []
    side.transport.abortConnection()
    await heard.happened("close")
    assert (heard.events, heard.hadError) == (["error", "close"], [True])
    assert heard.codes[0] in ("ECONNRESET", "EPIPE")
    assert len(told) == 1
    assert isinstance(told[0], NetError)
    assert 0 < socket.bytesWritten < PLENTY, "what was never sent is not counted"


@pytest.mark.parametrize("why", ["user", "full"])
@played("tcp")
async def test_resetWhilePausedWithoutAListenerOfData(scene: Scene, why: str) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time, highWaterMark=1000)
    side, socket = await scene.stranger(server)
    heard = Journal(socket, without=("data",))
    if why == "user":
        socket.pause()
    side.transport.write(bytes(1000))
    await until(lambda: why in engine(socket).pressure.owners)
    side.transport.abortConnection()
    await turns(20)
    time.advance(1.0)
    await heard.happened("close")
    assert (heard.events, heard.codes, heard.hadError) == (["error", "close"], ["ECONNRESET"], [True])
    assert not time.getDelayedCalls()


@played()
async def test_pausedAndNotReset(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    socket.pause()
    side.transport.write(b"kept in the kernel")
    side.transport.loseConnection()
    for _ in range(5):
        time.advance(10)
        await turns(3)
    assert heard.events == [], "a FIN waits behind the bytes that nobody reads"
    socket.resume()
    await heard.happened("close")
    assert heard.events == ["data", "end", "finish", "close"]
    assert heard.data == b"kept in the kernel"
    assert not time.getDelayedCalls()


@played()
async def test_weDestroy(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.pauseProducing()
    told: list[Any] = []
    socket.write(bytes(PLENTY), callback=told.append)
    socket.destroy()
    assert socket.destroyed
    assert heard.events == []
    await heard.happened("close")
    assert (heard.events, heard.hadError) == (["close"], [False])
    assert isinstance(told[0], WriteError)
    side.transport.resumeProducing()
    await side.happened("readEnd")  # FIN, not RST
    assert len(side.received) < PLENTY


@played()
async def test_weDestroyWithAnError(scene: Scene) -> None:
    _, socket = await scene.pair()
    heard = Journal(socket)
    error = Oops()
    socket.destroy(error).destroy(Oops("the second one is not heard"))
    assert heard.events == []
    await heard.happened("close")
    assert (heard.events, heard.errors, heard.hadError) == (["error", "close"], [error], [True])
    assert await socket.whenClosed() is True


@played("tcp")
async def test_weReset(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    assert socket.resetAndDestroy() is socket
    assert socket.destroyed
    await heard.happened("close")
    assert (heard.events, heard.hadError) == (["close"], [False])
    await side.happened("lost")
    assert "readEnd" not in side.events, "RST, no FIN before it"
    early = scene.client(server).resetAndDestroy()
    await early.whenClosed()


@played("unix")
async def test_unixSocketsCannotBeReset(scene: Scene) -> None:
    _, socket = await scene.pair()
    with pytest.raises(NetError) as caught:
        socket.resetAndDestroy()
    assert caught.value.code == "ERR_INVALID_HANDLE_TYPE"
    assert not socket.destroyed


@played()
async def test_destroySoon(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.write(b"not delivered any more")
    socket.write(bytes(PLENTY))
    assert socket.destroySoon() is socket
    socket.write(b"too late")
    await heard.happened("close")
    assert heard.events == ["error", "finish", "close"]
    assert heard.codes == ["EPIPE"]
    assert heard.hadError == [False]
    await side.happened("readEnd")
    assert len(side.received) == PLENTY
    socket.destroySoon()
    unconnected = scene.keep(Socket()).destroySoon()
    assert await unconnected.whenClosed() is False
    _, destroyed = await scene.stranger(server)
    await destroyed.destroy().destroySoon().whenClosed()


SERVER_SIDE = ("data", "end", "finish", "drain", "timeout")


async def _throughAllEvents(scene: Scene, event: str, act: Callable[[Socket], object]) -> tuple[Journal, Socket]:
    """A connection on which every event happens; *act* runs in a listener of *event*."""
    time = VirtualTime(scene.reactor)
    server = await scene.server(echo, reactor=time)
    client = scene.keep(Socket(reactor=time))
    if event == "error":
        client.on("ready", lambda: client.destroy(OSError("for the listener")))
    client.on(event, lambda *args: act(client))
    heard = Journal(client, without=("lookup",))
    client.setTimeout(1000)
    client.connect(scene.where(server))
    client.write("x")
    await heard.until(lambda: {"ready", "data"} <= set(heard.events) or client.destroyed)
    await turns(3)
    time.advance(1.5)
    client.end()
    await patient(client.whenClosed())
    await turns(3)
    assert heard.events.count("close") == 1
    assert heard.events[-1] == "close"
    assert not client.protocol or client.protocol.transport is None
    server.close()
    await server.whenClosed()
    assert not time.getDelayedCalls()
    return heard, client


EVERY = ("connect", "ready", "data", "end", "finish", "drain", "timeout", "error", "close")


@pytest.mark.parametrize("event", EVERY)
@played()
async def test_destroyInEveryListener(scene: Scene, event: str) -> None:
    heard, _ = await _throughAllEvents(scene, event, Socket.destroy)
    assert event in heard.events
    after = heard.events[heard.events.index(event) + 1 :]
    assert after == ["close"] * (event != "close")
    assert heard.hadError == [event == "error"]


@pytest.mark.parametrize("event", EVERY)
@played()
async def test_raisingInEveryListener(scene: Scene, event: str, loggedErrors: LoggedErrors) -> None:
    def oops(socket: Socket) -> None:
        raise Oops(event)

    heard, client = await _throughAllEvents(scene, event, oops)
    assert event in heard.events
    assert client.destroyed
    if event not in ("error", "close"):
        assert heard.events[-2:] == ["error", "close"]
        assert isinstance(heard.errors[0], Oops)
        assert heard.hadError == [True]
    (logged,) = loggedErrors.flush(Oops)
    assert logged["event"] == event


@played()
async def test_raisingInAnUnobservedConnectionIsLoggedOnce(scene: Scene, loggedErrors: LoggedErrors) -> None:
    def oops(data: bytes) -> None:
        raise Oops

    server = await scene.server(lambda socket: socket.on("data", oops))
    others = scene.client(await scene.server(echo))
    client = scene.client(server)
    client.write("x")
    await client.whenClosed()
    assert len(loggedErrors.flush()) == 1, "not again as an 'error' that nobody listens to"
    others.write("still here")
    assert await heard(others, "data") == (b"still here",)


@played()
async def test_raisingInAWriteCallback(scene: Scene, loggedErrors: LoggedErrors) -> None:
    def oops(error: object) -> None:
        raise Oops

    for how in ("sent", "refused", "lost"):
        client, _ = await scene.pair()
        heard = Journal(client, without=("finish",))
        if how == "refused":
            client.end()
        client.write("x" if how != "lost" else bytes(PLENTY), callback=oops)
        if how == "lost":
            client.destroy()
        await heard.happened("close")
        assert client.destroyed
        assert heard.events[-1] == "close"
        (logged,) = loggedErrors.flush(Oops)
        assert logged["event"] == "write callback"


@played()
async def test_callbacksThatConnectAndDestroyWhileItEnds(scene: Scene) -> None:
    """A failed write's callback runs before 'close': the connection is not yet over, and nothing new begins."""
    server = await scene.server()
    client, _ = await scene.pair(server)
    heard = Journal(client, "error", "close")
    refusals: list[str] = []

    def failed(error: object) -> None:
        client.destroy()
        client.pause()
        client.resume()
        client.write("x")
        try:
            client.connect(scene.where(server))
        except NetError as refused:
            refusals.append(refused.code)

    client.write(bytes(PLENTY), callback=failed)
    (accepted,) = server.clients
    if scene.kind == "tcp":
        accepted.resetAndDestroy()
    else:
        accepted.destroy()
    await heard.happened("close")
    assert heard.events.count("close") == 1
    assert refusals == ["EISCONN"]


@played()
async def test_anErrorThatNobodyListensToIsLogged(scene: Scene, loggedErrors: LoggedErrors) -> None:
    _, socket = await scene.pair()
    socket.destroy(Oops("unheard"))
    await socket.whenClosed()
    (logged,) = loggedErrors.flush("unheard")
    assert "nobody listens to 'error'" in logged["log_format"]


# Reading


@played()
async def test_pausedInTheConnectionListener(scene: Scene) -> None:
    journals: list[Journal] = []

    def connected(socket: Socket) -> None:
        socket.pause()
        journals.append(Journal(socket))

    server = await scene.server(connected)
    client = scene.client(server)
    client.end("hello")
    await heard(client, "finish")
    await turns(10)
    assert journals[0].events == []
    (accepted,) = server.clients
    assert accepted.isPaused()
    assert accepted.resume() is accepted
    assert not accepted.isPaused()
    await journals[0].happened("close")
    assert journals[0].data == b"hello"


@played()
async def test_pausedBeforeConnecting(scene: Scene) -> None:
    server = await scene.server(lambda socket: socket.end("hello"))
    client = scene.keep(Socket()).pause()
    heard = Journal(client)
    client.connect(scene.where(server))
    await heard.happened("connect")
    await turns(10)
    assert heard.data == b""
    client.resume()
    await heard.happened("close")
    assert heard.data == b"hello"


@played()
async def test_noDataAfterPauseReturned(scene: Scene) -> None:
    client, accepted = await scene.pair()
    got = 0
    paused = False

    def receive(data: bytes) -> None:
        nonlocal got, paused
        assert not paused
        got += len(data)
        paused = True
        client.pause()
        scene.reactor.callLater(0, go)

    def go() -> None:
        nonlocal paused
        paused = False
        client.resume()

    client.on("data", receive)
    accepted.end(bytes(MiB))
    await client.whenClosed()
    assert got == MiB


@played()
async def test_pausingTwiceAndResumingOnceFlows(scene: Scene) -> None:
    client, accepted = await scene.pair()
    heard = Journal(client)
    client.pause().pause().resume()
    accepted.write("hello")
    await heard.happened("data")


@played()
async def test_whatComesBeforeAListenerIsKept(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    side.transport.write(b"hello")
    side.transport.loseConnection()
    await until(lambda: socket.bytesRead == 5)
    await turns(5)
    heard = Journal(socket)
    await heard.happened("close")
    assert heard.events == ["data", "end", "finish", "close"]
    assert heard.data == b"hello"


@played()
async def test_noMoreIsKeptThanTheHighWaterMark(scene: Scene) -> None:
    server = await scene.server(highWaterMark=10_000)
    side, socket = await scene.stranger(server)
    side.transport.write(bytes(PLENTY))
    await until(lambda: engine(socket).pressure.paused)
    await turns(20)
    assert 10_000 <= engine(socket).held < 10_000 + LARGEST_SEGMENT
    assert engine(socket).held == socket.bytesRead
    heard = Journal(socket)
    side.transport.loseConnection()
    await heard.happened("close")
    assert heard.size == PLENTY


@played()
async def test_listenersOfDataComeAndGo(scene: Scene) -> None:
    client, accepted = await scene.pair()
    first: list[bytes] = []
    second: list[bytes] = []
    client.once("data", first.append)
    accepted.write("one ")
    await until(lambda: first)
    accepted.write("two ")
    await until(lambda: client.bytesRead == 8)
    client.on("data", second.append)
    client.on("data", first.append)
    await until(lambda: second)
    client.off("data", second.append)
    accepted.write("three")
    await until(lambda: len(first) == 3)
    assert (b"".join(first), b"".join(second)) == (b"one two three", b"two ")
    accepted.destroy()
    await client.whenClosed()
    client.on("data", second.append)


@played()
async def test_destroyedByTheFirstOfTwoListeners(scene: Scene) -> None:
    client, accepted = await scene.pair()
    client.on("data", lambda data: client.destroy())
    heard = Journal(client)
    accepted.write("x")
    await heard.happened("close")
    accepted.write("y")
    assert heard.events == ["data", "close"]


@played()
async def test_pausingWhatIsDestroyedBeginsNothing(scene: Scene) -> None:
    client, _ = await scene.pair()
    client.destroy()
    protocol = client.protocol
    client.pause().resume()
    client.pipe(client)
    assert client.protocol is protocol
    assert client.destroyed
    await client.whenClosed()
    client.pause().resume()
    client.pipe(client)
    assert client.end() is client
    assert client.protocol is protocol
    assert client.destroyed


# Writing


@played()
async def test_writeBeforeConnect(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.keep(Socket())
    heard = Journal(client)
    told: list[Any] = []
    for number in range(5):
        assert client.write(f"{number}", callback=lambda error, number=number: told.append((number, error))) is False
    assert client.writableLength == 5
    client.connect(scene.where(server))
    client.write(b"5")
    await heard.until(lambda: heard.data == b"012345")
    assert told == [(number, None) for number in range(5)]
    assert heard.events[:3] == ["connect", "ready", "drain"] or "lookup" in heard.events


@played()
async def test_everyKindOfData(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.client(server)
    heard = Journal(client)
    client.write(b"bytes,")
    client.write(bytearray(b"bytearray,"))
    client.write(memoryview(b"memoryview,"))
    client.write("täxt,")
    client.write("täxt,", "latin-1")
    client.write("2c2C", "hex")
    client.write("LA==", "base64")
    client.writeSequence([b"a", b"b"])
    client.end()
    await heard.happened("close")
    assert heard.data == b"bytes,bytearray,memoryview,t\xc3\xa4xt,t\xe4xt,,,,ab"


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (5, None, "neither bytes nor text"),
        ("x", "nonsense", "no encoding 'nonsense'"),
        ("ä", "ascii", "cannot be encoded as 'ascii'"),
        ("xyz", "hex", "cannot be encoded as 'hex'"),
        ("x", "base64", "cannot be encoded as 'base64'"),
    ],
)
def test_dataThatIsNone(data: Any, encoding: str | None, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Socket().write(data, encoding)


@played()
async def test_theHighWaterMark(scene: Scene) -> None:
    client, accepted = await scene.pair(highWaterMark=1000)
    heard = Journal(client)
    assert client.write(bytes(999)) is True
    await until(lambda: client.writableLength == 0)
    assert client.write(bytes(1000)) is False
    assert client.writableLength == 1000
    assert "drain" not in heard.events
    await heard.happened("drain")
    assert client.writableLength == 0
    await turns(3)
    assert heard.events == ["drain"], "only after a False, and once"
    accepted.destroy()


@played()
async def test_drainComesAfterTheCallbacks(scene: Scene) -> None:
    client, accepted = await scene.pair()
    accepted.on("data", ignore)
    order: list[str] = []
    client.on("drain", lambda: order.append("drain"))
    for number in range(3):
        client.write(bytes(MiB), callback=lambda error, number=number: order.append(f"{number}"))
    assert order == []
    await until(lambda: "drain" in order)
    assert order == ["0", "1", "2", "drain"]


@played()
async def test_writeAfterEnd(scene: Scene) -> None:
    client, accepted = await scene.pair(allowHalfOpen=True)
    heard = Journal(client, "error", "close")
    client.end()
    told: list[Any] = []
    assert client.write("x") is False
    assert client.write("x", "ascii", told.append) is False
    assert client.write("x", told.append) is False
    assert client.end("x", "ascii", told.append) is client
    assert client.end(told.append) is client
    assert heard.events == told == []
    await until(lambda: len(told) == 4)
    assert heard.codes == ["EPIPE"] * 4
    assert [error.code for error in told] == ["EPIPE"] * 4
    assert not client.writable
    accepted.destroy()
    await heard.happened("close")
    assert heard.hadError == [False]


@played()
async def test_writeAfterDestroy(scene: Scene) -> None:
    client, _ = await scene.pair()
    heard = Journal(client)
    client.destroy()
    told: list[Any] = []
    assert client.write(b"x") is False
    assert client.write("x", callback=told.append) is False
    await heard.happened("close")
    assert heard.events == ["error", "error", "close"], "error before close"
    assert heard.codes == ["ERR_STREAM_DESTROYED"] * 2
    assert heard.hadError == [False]
    assert client.write(b"x") is False
    await until(lambda: len(heard.errors) == 3)
    assert [error.code for error in told] == ["ERR_STREAM_DESTROYED"]


def test_endBeforeConnect() -> None:
    socket = Socket()
    with pytest.raises(NetError, match="connect\\(\\) first") as caught:
        socket.end("x")
    assert caught.value.code == "ENOTCONN"
    assert socket.writableLength == 0


@played()
async def test_endWithEverything(scene: Scene) -> None:
    ways: list[tuple[Any, ...]] = [("x", "ascii"), ("x",), (b"x", None)]
    for arguments in ways:
        client, accepted = await scene.pair()
        heard = Journal(accepted)
        told: list[Any] = []
        end: Any = client.end
        end(*arguments, told.append)
        await heard.happened("close")
        assert heard.data == b"x"
        assert told == [None]
    client, accepted = await scene.pair()
    accepted.on("data", ignore)
    client.end(told.append)
    client.end()
    await client.whenClosed()
    assert told == [None, None]


@played()
async def test_allOfItArrivesThoughWrittenInTheEndListener(scene: Scene) -> None:
    def connected(socket: Socket) -> None:
        socket.on("data", ignore)
        socket.on("end", lambda: socket.write(bytes(PLENTY)))

    server = await scene.server(connected)
    side = scene.dial(server)
    await side.happened("made")
    side.transport.loseWriteConnection()
    await side.happened("lost")
    assert len(side.received) == PLENTY
    assert "readEnd" in side.events


@played()
async def test_halfOpen(scene: Scene) -> None:
    server = await scene.server(allowHalfOpen=True)
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    side.transport.loseWriteConnection()
    await heard.happened("end")
    await turns(20)
    assert heard.events == ["end"]
    assert (socket.readyState, socket.readable, socket.writable) == ("writeOnly", False, True)
    socket.write(bytes(MiB))
    socket.end("!")
    await heard.happened("close")
    await side.happened("lost")
    assert len(side.received) == MiB + 1
    assert heard.events == ["end", "finish", "close"]


# Producers and consumers


@played()
async def test_aFileSenderFeedsIt(scene: Scene) -> None:
    client, accepted = await scene.pair()
    heard = Journal(accepted)
    blob = os.urandom(MiB)
    accepted.pause()
    sending = FileSender().beginFileTransfer(BytesIO(blob * 4), client)
    await until(lambda: client.writableLength)
    accepted.resume()
    await sending
    client.end()
    await heard.happened("close")
    assert heard.data == blob * 4


@implementer(IPushProducer)
class Flood:
    """Writes as long as it is let."""

    def __init__(self, consumer: Any, size: int) -> None:
        self.consumer = consumer
        self.left = size
        self.calls: list[str] = []

    def begin(self) -> None:
        self.consumer.registerProducer(self, True)
        self.go()

    def go(self) -> None:
        while self.left and self.calls[-1:] not in (["pause"], ["stop"]):
            self.consumer.write(bytes(1000))
            self.left -= 1000
        if not self.left:
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.consumer.reactor.callLater(0, self.go)

    def stopProducing(self) -> None:
        self.calls.append("stop")


@played()
async def test_aPushProducerIsPaused(scene: Scene) -> None:
    client, accepted = await scene.pair()
    heard = Journal(accepted)
    flood = Flood(client, 10 * MiB // 1000 * 1000)
    flood.begin()
    await heard.until(lambda: heard.size == 10 * MiB // 1000 * 1000)
    assert "pause" in flood.calls
    assert "resume" in flood.calls


@played()
async def test_aProducerFinishesItsAnswerThoughThePeerHasEnded(scene: Scene) -> None:
    def connected(socket: Socket) -> None:
        socket.on("data", lambda data: FileSender().beginFileTransfer(BytesIO(bytes(PLENTY)), socket))

    server = await scene.server(connected)
    side = scene.dial(server)
    await side.happened("made")
    side.transport.write(b"send me all of it")
    side.transport.loseWriteConnection()
    await side.happened("lost")
    assert len(side.received) == PLENTY


@played()
async def test_aProducerIsStopped(scene: Scene) -> None:
    for how in ("end", "destroySoon", "destroy", "late"):
        client, _ = await scene.pair()
        flood = Flood(client, 1000 * PLENTY)
        if how == "late":
            client.destroy()
            client.registerProducer(flood, True)
        else:
            flood.begin()
            assert flood.calls == ["pause"]
            getattr(client, how)()
        if how == "destroy":
            await client.whenClosed()
        assert flood.calls[-1] == "stop"
        client.destroy()
    fresh, _ = await scene.pair()
    fresh.registerProducer(flood, True)
    with pytest.raises(RuntimeError):
        fresh.registerProducer(flood, True)


@implementer(IConsumer)
class Sink:
    """Takes 64 KiB at a time."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.producer: Any = None
        self.size = 0
        self.paused = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self.paused += 1
        self.producer.pauseProducing()
        self.reactor.callLater(0, self.producer.resumeProducing)


@played()
async def test_itFeedsAConsumer(scene: Scene) -> None:
    client, accepted = await scene.pair()
    sink = Sink(scene.reactor)
    sink.registerProducer(client, True)
    client.on("data", sink.write)
    accepted.end(bytes(MiB))
    await client.whenClosed()
    assert sink.size == MiB
    other, _ = await scene.pair()
    other.stopProducing()
    assert other.destroyed


@implementer(IPullProducer)
class Once:
    """Writes when asked, once."""

    def __init__(self, consumer: Socket) -> None:
        self.consumer = consumer
        consumer.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.consumer.write("pulled")
        self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        raise AssertionError("it has unregistered")


@played()
async def test_aPullProducerBeforeConnecting(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.keep(Socket())
    Once(client)
    heard = Journal(client)
    client.connect(scene.where(server))
    await heard.until(lambda: heard.data == b"pulled")


# Clocks and options


@played()
async def test_timeouts(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(echo)
    client = scene.client(server, reactor=time)
    heard = Journal(client, without=("lookup",))
    called: list[int] = []
    await client.whenConnected()
    assert client.setTimeout(1500, lambda: called.append(1)) is client
    assert client.timeout == 1500
    time.advance(1.4)
    client.write("x")
    await heard.happened("data")
    time.advance(1.4)
    assert "timeout" not in heard.events
    time.advance(0.1)
    assert heard.events.count("timeout") == 1
    time.advance(10)
    assert heard.events.count("timeout") == 1, "once per idle period"
    assert client.readyState == "open"
    client.write("x")
    time.advance(1.5)
    assert heard.events.count("timeout") == 2
    assert called == [1], "the callback listens once"
    client.write("x")
    client.setTimeout(0)
    time.advance(10)
    assert heard.events.count("timeout") == 2
    client.setTimeout(10, ignore)
    client.setTimeout(0, ignore)
    assert client.listenerCount("timeout") == 1
    client.setTimeout(1000)
    client.destroy()
    assert not time.getDelayedCalls()


@played()
async def test_timeoutsBeforeConnectingAndInASecondLife(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server()
    client = scene.keep(Socket(reactor=time)).setTimeout(1000)
    heard = Journal(client, "timeout")
    for count in (1, 2):
        client.connect(scene.where(server))
        await client.whenConnected()
        time.advance(1)
        assert len(heard.events) == count
        client.destroy()
        await client.whenClosed()
    assert not time.getDelayedCalls()
    quick = scene.client(server, reactor=time)
    quick.destroy()
    late = scene.keep(Socket(reactor=time)).connect({**scene.where(server), "timeout": 5})
    assert late.timeout == 5


def test_timeoutStep() -> None:
    socket = Socket(timeoutStep=1000)
    for given, rounded in ((0, 0), (1, 1000), (999, 1000), (1499, 1000), (1500, 2000), (2400, 2000), (60_000, 60_000)):
        assert socket.setTimeout(given).timeout == rounded
    assert Socket().setTimeout(1).timeout == 1
    for wrong in (-1, "5", None, float("nan")):
        with pytest.raises(OptionError, match="milliseconds"):
            socket.setTimeout(wrong)  # type: ignore[arg-type]


def _kernel(socket: Socket, level: int, option: int) -> int:
    skt = layers.socketOf(socket.transport)
    assert skt is not None
    return skt.getsockopt(level, option)


KEEPALIVE = sockets.SOL_SOCKET, sockets.SO_KEEPALIVE
IDLE = sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE
NODELAY = sockets.IPPROTO_TCP, sockets.TCP_NODELAY
REUSE = sockets.SOL_SOCKET, sockets.SO_REUSEADDR


@pytest.mark.parametrize("when", ["before", "after", "at"])
@played("tcp")
async def test_kernelOptions(scene: Scene, when: str) -> None:
    server = await scene.server()
    client = scene.keep(Socket())
    if when == "before":
        assert client.setKeepAlive(True, 7000).setNoDelay() is client
    options = {"noDelay": True, "keepAlive": True, "keepAliveInitialDelay": 7000} if when == "at" else {}
    client.connect({**scene.where(server), **options})
    await client.whenConnected()
    if when == "after":
        assert not _kernel(client, *KEEPALIVE)
        assert not _kernel(client, *NODELAY)
        client.setKeepAlive(True, 7000).setNoDelay()
    assert _kernel(client, *KEEPALIVE)
    assert _kernel(client, *IDLE) == 7
    assert _kernel(client, *NODELAY)
    assert _kernel(client, *REUSE)
    client.setKeepAlive(True)
    assert _kernel(client, *IDLE) == 7, "0 leaves it as it is"
    client.setKeepAlive().setNoDelay(False)
    assert not _kernel(client, *KEEPALIVE)
    assert not _kernel(client, *NODELAY)
    client.setOption("tcp-nodelay").setOption("keepalive", True)
    assert _kernel(client, *NODELAY)
    with pytest.raises(OptionError):
        client.setOption("nonsense")


@played("unix")
async def test_kernelOptionsOfUnixSocketsDoNothing(scene: Scene) -> None:
    client, _ = await scene.pair()
    client.setKeepAlive(True, 7000).setNoDelay().setOption("reuseaddr", True)


@played("tcp")
async def test_lingerOfZeroResets(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    socket.setOption("linger", {"on": True, "timeout": 0})
    socket.destroy()
    await side.happened("lost")
    assert "readEnd" not in side.events


@played()
async def test_lingerIsKeptByUs(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    side, socket = await scene.stranger(server)
    heard = Journal(socket)
    socket.setOption("linger", {"on": True, "timeout": 5})
    side.transport.pauseProducing()
    socket.write(bytes(PLENTY))
    socket.destroySoon().destroySoon()
    await turns(10)
    time.advance(4.9)
    await turns(3)
    assert heard.events == []
    time.advance(0.2)
    await heard.happened("close")
    assert (heard.events, heard.codes, heard.hadError) == (["error", "close"], ["ETIMEDOUT"], [True])
    assert isinstance(heard.errors[0], TimedOutError)
    assert 0 < len(side.received) + 1 < PLENTY
    _, quick = await scene.stranger(server)
    quick.setOption("linger", {"on": True, "timeout": 5}).destroySoon()
    await quick.whenClosed()
    assert not time.getDelayedCalls(), "what has ended lingers no more"


@played()
async def test_aRateIsNoEnd(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time, limits=Limits(readRate=1000))
    said = Journal(server, "limit")
    client, accepted = await scene.pair(server)
    heard = Journal(accepted)
    client.end(bytes(3000))
    await said.happened("limit")
    assert said.args["limit"] == [("readRate", accepted, "paused")]
    assert not accepted.destroyed
    time.advance(2)
    await heard.happened("close")
    assert heard.size == 3000


@played()
async def test_limitsAndTheGraceOfDrain(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time, limits=Limits(idleTimeout=5))
    said = Journal(server, "limit")
    client, accepted = await scene.pair(server)
    heard = Journal(accepted)
    seen: list[bool] = []
    server.on("limit", lambda *args: seen.append(accepted.destroyed))
    time.advance(5)
    assert seen == [False]
    assert accepted.destroyed, "at once, not when the transport has said so"
    await heard.happened("close")
    assert (heard.codes, heard.hadError) == (["ETIMEDOUT"], [True])
    assert said.args["limit"] == [("idleTimeout", accepted, "closed")]
    server.limits = Limits()
    client, accepted = await scene.pair(server)
    client.on("error", ignore)
    heard = Journal(accepted)
    done = server.drain(3)
    time.advance(3)
    await done
    assert isinstance(heard.errors[0], AbortedError)
    assert not time.getDelayedCalls()


# Nothing is left


@played()
async def test_nobodyHoldsAClosedSocket(scene: Scene) -> None:
    server = await scene.server(echo)
    client = Socket().connect(scene.where(server))
    client.write("x")
    await heard(client, "data")
    client.end()
    await client.whenClosed()
    await until(lambda: not server.connections)
    gone = weakref.ref(client)
    del client
    await turns(3)
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_nothingIsLeftOfFiveThousandConnections(kind: str, tmp_path: Path) -> None:
    assert finished("many", kind, tmp_path) == "0 0 {} 5000\n"


def test_theFrontDoor() -> None:
    assert net.createConnection is net.connect
    assert (net.isIP("::1"), net.isIPv4("::1"), net.isIPv6("::1")) == (6, False, True)


# Handing over


async def scenery(network: MemoryNetwork) -> tuple[Server, Socket, Socket]:
    """A server, a client of it, and the server's socket for that."""
    here, there = network.host("client"), network.host("server")
    server = Server({"reactor": there.reactor, "allowHalfOpen": True})
    server.listen(80)
    await server.whenListening()
    welcomed = heard(server, "connection")
    client = Socket({"reactor": here.reactor, "allowHalfOpen": True}).connect(80, there.address)
    await client.whenConnected()
    (socket,) = await welcomed
    return server, client, socket


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_aConnectionIsHandedOverWithNothingLost(seed: int | None) -> None:
    async def scene() -> None:
        server, client, socket = await scenery(network)
        closes = Journal(socket, "close")
        client.write("received before, ")
        await network.sleep(1)
        protocol = socket.handOver()
        assert (socket.protocol, socket.destroyed, server.connections) == (None, True, 0)
        client.write("and after")
        client.end()
        await network.sleep(1)
        heir = Socket.over(protocol, allowHalfOpen=True)
        journal = Journal(heir)
        await journal.happened("end")
        assert journal.data == b"received before, and after"
        assert journal.events == ["data", "end"]
        heir.end("answer")
        answer = Journal(client)
        await answer.happened("close")
        assert answer.data == b"answer"
        assert closes.events == []
        server.close()
        await server.whenClosed()

    with MemoryNetwork(seed) as network:
        network.run(scene)


def test_anEndThatWasToldIsToldAgain() -> None:
    """To whoever takes over: after what was given back, or at once when nothing was."""

    async def scene() -> None:
        server, client, socket = await scenery(network)
        journal = Journal(socket)
        client.end("all")
        await journal.happened("end")
        for unread in (b"", b"all"):
            protocol = socket.handOver()
            protocol.giveBack(unread)
            socket = Socket.over(protocol, allowHalfOpen=True)
            journal = Journal(socket)
            await journal.happened("end")
            assert journal.data == unread
        socket.end()
        await socket.whenClosed()
        server.close()
        await server.whenClosed()

    with MemoryNetwork() as network:
        network.run(scene)


def test_nothingToHandOver() -> None:
    async def scene() -> None:
        socket = Socket({"reactor": network.reactor})
        with pytest.raises(ClosedError, match="handOver: this socket is not connected"):
            socket.handOver()
        socket.on("error", lambda error: None).connect(9, "127.0.0.1")
        with pytest.raises(ClosedError, match="wait for 'connect'"):
            socket.handOver()
        await socket.whenClosed()
        with pytest.raises(ClosedError, match="not connected"):
            socket.handOver()

    with MemoryNetwork() as network:
        network.run(scene)


def test_nobodyHearsOfWhatWasGivenBack() -> None:
    """Between two users a connection may end: that is nobody's failure."""

    async def scene() -> None:
        server, client, socket = await scenery(network)
        protocol = socket.handOver()
        client.resetAndDestroy()
        await network.sleep(1)
        assert protocol.state is State.CLOSED
        server.close()
        await server.whenClosed()

    with MemoryNetwork() as network:
        network.run(scene)
