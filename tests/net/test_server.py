"""Server: listening, admitting and closing over TCP and UNIX sockets, and the clients that it knows."""

from __future__ import annotations

import os
import socket as sockets
import tempfile
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from logs import LoggedErrors
from scenes import SERVER_EVENTS, Journal, Scene, engine, heard, patient, played
from turning import turns, until
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort

from twisted_net.address import Address
from twisted_net.errors import AddressError, NetError, OptionError
from twisted_net.net import Backoff, Limits, Server, Socket, connect, createServer
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire import layers


class Oops(Exception):
    """What listeners raise."""


def ignore(*args: object) -> None:
    """Listens, and that is all."""


# Making one


@pytest.mark.parametrize(
    "options",
    [{"limits": 5}, {"highWaterMark": -1}, {"nonsense": 1}, {"maxConnections": -1}],
)
def test_optionsThatAreNone(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        createServer(options)
    with pytest.raises(OptionError):
        Server(**options)


def test_waysToMakeOne() -> None:
    assert createServer().listenerCount("connection") == 0
    for server in (createServer(ignore), createServer({"allowHalfOpen": True}, ignore), createServer(None, ignore)):
        assert server.listeners("connection") == [ignore]
    assert createServer({"allowHalfOpen": True}).allowHalfOpen
    assert createServer(limits=None, maxConnections=5).maxConnections == 5


def test_beforeItListens() -> None:
    server = Server()
    assert (server.listening, server.connections, list(server.clients)) == (False, 0, [])
    assert server.address() is server.port is None
    assert server.broadcast("x") == 0
    assert server.find("127.0.0.1:1") is None
    assert repr(server) == "<Server closed, 0 clients>"


@pytest_twisted.ensureDeferred
async def test_itLivesOnTheInstalledReactor() -> None:
    from twisted.internet import reactor

    assert Server().reactor is reactor
    assert Server(reactor=(time := VirtualTime(reactor))).reactor is time


# Listening


@played()
async def test_listening(scene: Scene) -> None:
    server = scene.keep(Server())
    said = Journal(server)
    called: list[int] = []
    place = scene.place()
    assert server.listen(place, lambda: called.append(1)) is server
    assert said.events == []
    assert await server.whenListening() is server
    assert await server.whenListening() is server
    assert (said.events, called) == (["listening"], [1])
    assert server.listening
    address = server.address()
    assert isinstance(address, Address)
    if scene.kind == "tcp":
        assert (address.address, address.family) == ("127.0.0.1", "IPv4")
        assert address.port
    else:
        assert (address.address, address.port, address.family) == (place["path"], None, "unix")
    assert IListeningPort.providedBy(server.port)
    assert repr(server) == f"<Server listening on {address}, 0 clients>"
    server.close()
    assert not server.listening
    await server.whenClosed()
    assert server.address() is server.port is None
    assert called == [1]


@played("tcp")
async def test_withoutAHostItIsEveryIPv4Interface(scene: Scene) -> None:
    server = scene.keep(Server()).listen(0)
    await server.whenListening()
    assert server.address().address == "0.0.0.0"


@played("unix")
async def test_anAbstractName(scene: Scene) -> None:
    name = f"twisted_net {os.getpid()}"
    for text in (f"unix:@{name}", f"\0{name}"):
        server = scene.keep(Server(lambda socket: socket.pipe(socket))).listen(text)
        await server.whenListening()
        assert server.address().address == f"\0{name}"
        client = scene.keep(connect(text))
        said = Journal(client)
        client.end("hello")
        await said.happened("close")
        assert said.data == b"hello"
        server.close()
        await server.whenClosed()


@played()
async def test_anInheritedDescriptor(scene: Scene) -> None:
    inherited = sockets.socket(sockets.AF_INET if scene.kind == "tcp" else sockets.AF_UNIX)
    inherited.bind(("127.0.0.1", 0) if scene.kind == "tcp" else scene.place()["path"])
    server = scene.keep(Server(lambda socket: socket.pipe(socket))).listen(fd=inherited.detach())
    await server.whenListening()
    client = scene.client(server)
    client.write("x")
    assert await heard(client, "data") == (b"x",)


@played()
async def test_endpoints(scene: Scene) -> None:
    place = scene.place()
    if scene.kind == "tcp":
        endpoint: Any = TCP4ServerEndpoint(scene.reactor, 0, interface="127.0.0.1")
        text = "tcp:0:interface=127.0.0.1"
    else:
        endpoint = UNIXServerEndpoint(scene.reactor, place["path"])
        text = f"unix:{place['path']}"
    for where in (endpoint, text):
        server = scene.keep(Server(lambda socket: socket.pipe(socket))).listen(where)
        await server.whenListening()
        client = scene.client(server)
        client.write("x")
        assert await heard(client, "data") == (b"x",)
        client.destroy()
        server.close()
        await server.whenClosed()


@played("unix")
async def test_theModeOfTheFile(scene: Scene) -> None:
    server = scene.keep(Server())
    place = scene.place()
    server.listen(place["path"], mode=0o640)
    await server.whenListening()
    assert os.stat(place["path"]).st_mode & 0o777 == 0o640
    server.close()
    await server.whenClosed()
    assert not os.path.exists(place["path"])


@played()
async def test_listeningTwice(scene: Scene) -> None:
    server = scene.keep(Server())
    server.listen(scene.place())
    for _ in range(2):
        with pytest.raises(NetError) as caught:
            server.listen(scene.place())
        assert caught.value.code == "ERR_SERVER_ALREADY_LISTEN"
        await server.whenListening()
    with pytest.raises(OptionError, match="retry"):
        Server().listen(0, retry=5)
    with pytest.raises(AddressError):
        Server().listen("udp:127.0.0.1:53")


@played()
async def test_listeningAgainAfterClose(scene: Scene) -> None:
    server = scene.keep(Server(lambda socket: socket.pipe(socket)))
    said = Journal(server, "listening", "close")
    place = scene.place()
    for round in range(1, 4):
        server.listen(place)
        await server.whenListening()
        client = scene.client(server)
        client.end("x")
        assert await heard(client, "data") == (b"x",)
        server.close()
        await server.whenClosed()
        assert said.events == ["listening", "close"] * round


@played()
async def test_listeningAgainInTheListenerOfClose(scene: Scene) -> None:
    server = await scene.server()
    server.once("close", lambda: server.listen(scene.place()))
    server.close()
    await server.whenClosed()
    assert await server.whenListening() is server


# A busy address


@played()
async def test_busy(scene: Scene) -> None:
    there = await scene.server()
    server = scene.keep(Server())
    said = Journal(server)
    closed = server.listen(scene.where(there)).whenClosed()
    await said.happened("error")
    assert (said.events, said.codes) == (["error"], ["EADDRINUSE"])
    assert not server.listening
    await closed
    with pytest.raises(NetError) as caught:
        await server.listen(scene.where(there)).whenListening()
    assert caught.value.code == "EADDRINUSE"
    where = scene.where(there)
    there.close()
    await there.whenClosed()
    server.listen(where)
    await server.whenListening()


@played()
async def test_aFailureThatOnlyADeferredHears(scene: Scene, loggedErrors: LoggedErrors) -> None:
    there = await scene.server()
    for waits in (True, False):
        server = scene.keep(Server()).listen(scene.where(there))
        if waits:
            with pytest.raises(NetError):
                await server.whenListening()
            assert loggedErrors.flush() == []
        else:
            await until(lambda: loggedErrors.events)
            assert len(loggedErrors.flush("EADDRINUSE")) == 1


@played("unix")
async def test_failuresOfOtherKinds(scene: Scene) -> None:
    server = scene.keep(Server())
    said = Journal(server)
    server.listen("/no/such/folder/x.sock")
    await said.happened("error")
    file = scene.folder / "no socket"
    file.touch()
    server.listen(str(file))
    await said.until(lambda: len(said.codes) == 2)
    assert said.codes[0] == "ENOENT"
    assert file.exists()


@played()
async def test_retrying(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    there = await scene.server()
    server = scene.keep(Server(reactor=time))
    said = Journal(server)
    server.listen(scene.where(there), retry=Backoff(initial=1, factor=2, jitter=0))
    await said.happened("retry")
    time.advance(1)
    await said.until(lambda: len(said.args["retry"]) == 2)
    assert [(error.code, attempt, delay) for error, attempt, delay in said.args["retry"]] == [
        ("EADDRINUSE", 1, 1),
        ("EADDRINUSE", 2, 2),
    ]
    there.close()
    await there.whenClosed()
    time.advance(2)
    await said.happened("listening")
    assert said.events == ["retry", "retry", "listening"]


@played()
async def test_retryingIsGivenUp(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    there = await scene.server()
    server = scene.keep(Server(reactor=time))
    said = Journal(server)
    server.listen(scene.where(there), retry=Backoff(initial=1, jitter=0, attempts=2))
    await said.happened("retry")
    time.advance(1)
    await said.happened("error")
    assert (said.events, said.codes) == (["retry", "error"], ["EADDRINUSE"])
    assert not time.getDelayedCalls()


@played()
async def test_retryingIsCancelledByClose(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    there = await scene.server()
    server = scene.keep(Server(reactor=time))
    said = Journal(server)
    server.listen(scene.where(there), retry=Backoff(initial=1))
    server.on("retry", lambda *args: server.close())
    waiting = server.whenListening()
    await said.happened("retry")
    assert said.events == ["retry"]
    await said.happened("close")
    assert said.events == ["retry", "close"]
    with pytest.raises(NetError) as caught:
        await waiting
    assert caught.value.code == "ECANCELED"
    assert not time.getDelayedCalls()


@played()
async def test_retryingIsCancelledBeforeItIsSaid(scene: Scene) -> None:
    there = await scene.server()
    server = scene.keep(Server())
    said = Journal(server)
    server.listen(scene.where(there), retry=Backoff())
    await until(lambda: server._starting is not None)
    server.close()
    await said.happened("close")
    await turns(3)
    assert said.events == ["close"]


@played()
async def test_closedWhileStarting(scene: Scene) -> None:
    server = scene.keep(Server())
    said = Journal(server)
    waiting = server.listen(scene.place()).whenListening()
    server.close()
    assert said.events == []
    late = server.whenListening()
    await said.happened("close")
    await turns(5)
    assert said.events == ["close"]
    for one in (waiting, late):
        with pytest.raises(NetError) as caught:
            await one
        assert caught.value.code == "ECANCELED"
    server.listen(scene.place())
    await server.whenListening()


# Closing


@played()
async def test_closingKeepsTheLiving(scene: Scene) -> None:
    server = await scene.server(lambda socket: socket.pipe(socket))
    said = Journal(server)
    client, accepted = await scene.pair(server)
    kept = Journal(client)
    called: list[Any] = []
    assert server.close(lambda *args: called.append(args)) is server
    server.close(lambda *args: called.append(args)).close()
    where = server.address()
    await turns(10)
    late = scene.client(server)
    refused = Journal(late, "error", "close")
    await refused.happened("close")
    assert refused.codes[0] in ("ECONNREFUSED", "ENOENT")
    client.write("still here")
    await kept.happened("data")
    assert "close" not in said.events
    assert server.address() == where
    order: list[str] = []
    accepted.on("close", lambda had: order.append("client"))
    server.on("close", lambda: order.append("server"))
    client.end()
    await server.whenClosed()
    assert order == ["client", "server"]
    assert called == [(), ()]
    assert said.events.count("close") == 1
    server.close(lambda *args: called.append(args))
    assert len(called) == 2
    await until(lambda: len(called) == 3)
    assert called[2][0].code == "ERR_SERVER_NOT_RUNNING"
    server.close()
    await server.whenClosed()
    assert said.events.count("close") == 1


@played()
async def test_nothingIsSaidBeforeCloseReturned(scene: Scene) -> None:
    server = await scene.server()
    said = Journal(server)
    server.close()
    assert said.events == []
    await said.happened("close")


@played()
async def test_closedInTheListenerOfListening(scene: Scene) -> None:
    server = scene.keep(Server())
    said = Journal(server)
    server.listen(scene.place(), lambda: server.close())
    assert await server.whenListening() is server
    await said.happened("close")
    assert said.events == ["listening", "close"]


@played()
async def test_drain(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    await server.drain(5)
    assert not time.getDelayedCalls()
    server.listen(scene.place())
    await server.whenListening()
    side, socket = await scene.stranger(server)
    done = server.drain()
    time.advance(1000)
    await turns(5)
    assert not socket.destroyed
    assert not done.called
    socket.end()
    side.transport.loseConnection()
    await done


@played()
async def test_closingThePortFails(scene: Scene, loggedErrors: LoggedErrors) -> None:
    server = await scene.server()
    stop = server.port.stopListening

    def stopListening() -> Any:
        return stop().addCallback(lambda result: 1 / 0)

    server.port.stopListening = stopListening
    server.close()
    await server.whenClosed()
    assert len(loggedErrors.flush("ZeroDivisionError")) == 1


# Pausing


@played()
async def test_pause(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    assert server.pause(500) is server
    assert server.listening
    sides = [scene.dial(server) for _ in range(5)]
    for side in sides:
        await side.happened("made")
    await turns(20)
    assert server.connections == 0
    time.advance(0.4)
    await turns(20)
    assert server.connections == 0
    time.advance(0.1)
    await until(lambda: server.connections == 5)
    server.pause()
    scene.dial(server)
    await turns(20)
    time.advance(0.9)
    await turns(20)
    assert server.connections == 5, "a second, unless said"
    assert server.resume() is server
    await until(lambda: server.connections == 6)
    assert not time.getDelayedCalls()
    for wrong in (-1, "5", None, True):
        with pytest.raises(OptionError):
            server.pause(wrong)  # type: ignore[arg-type]


@played()
async def test_pausedAgainThenClosed(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    server.pause(1000).pause(5000)
    time.advance(2)
    scene.dial(server)
    await turns(20)
    assert server.connections == 0, "the second pause replaces the first"
    server.close()
    await server.whenClosed()
    assert not time.getDelayedCalls()


@played()
async def test_pausedBeforeItListens(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = scene.keep(Server(reactor=time)).pause(1000)
    server.listen(scene.place())
    await server.whenListening()
    scene.dial(server)
    await turns(20)
    assert server.connections == 0
    time.advance(1)
    await until(lambda: server.connections)


# Clients


@played()
async def test_clients(scene: Scene) -> None:
    server = await scene.server()
    live = server.clients
    pairs = [await scene.pair(server) for _ in range(3)]
    accepted = [pair[1] for pair in pairs]
    assert list(live) == accepted
    assert len(live) == server.connections == 3
    assert accepted[0] in live
    said = [Journal(pair[0]) for pair in pairs]
    assert server.broadcast("to all ") == 3
    assert server.broadcast(b"but one", but=accepted[1]) == 2
    accepted[2].end()
    assert server.broadcast(b"!") == 2, "who has ended is left out"
    await said[0].until(lambda: said[0].data == b"to all but one!")
    await said[1].until(lambda: said[1].data == b"to all !")
    await said[2].until(lambda: said[2].data == b"to all but one")
    assert server.find(lambda client: client is accepted[1]) is accepted[1]
    assert server.find(lambda client: False) is None
    if scene.kind == "tcp":
        peer = accepted[0].peerAddress()
        assert peer is not None
        assert server.find(peer) is server.find(str(peer)) is accepted[0]
        assert server.find("127.0.0.1:1") is None
    assert server.closeClient(accepted[0]) is server
    await pairs[0][0].whenClosed()
    await until(lambda: accepted[0] not in live)
    server.closeClient(accepted[0])


@played()
async def test_closeClientSendsWhatWasWritten(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    socket.write(bytes(5_000_000))
    server.closeClient(socket)
    assert socket.write("too late") is False
    await said.happened("close")
    assert said.codes == ["EPIPE"]
    await side.happened("readEnd")
    assert len(side.received) == 5_000_000


@played()
async def test_closeClientThatHasEndedAndIsNotRead(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    said = Journal(socket, without=("data",))
    side.transport.write(b"never fetched")
    side.transport.loseConnection()
    socket.end()
    await until(lambda: socket.bytesRead and ("finish" in said.events or socket.transport is None))
    await turns(5)
    server.closeClient(socket)
    await said.happened("close")
    assert said.hadError == [False]


@played()
async def test_pauseClient(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    assert server.pauseClient(socket) is server
    side.transport.write(b"x")
    await turns(20)
    assert said.data == b""
    assert server.resumeClient(socket) is server
    await said.happened("data")


@played()
async def test_getConnections(scene: Scene) -> None:
    server = await scene.server()
    answers: list[Any] = []
    await scene.pair(server)
    assert server.getConnections(lambda error, count: answers.append((error, count))) is server
    assert answers == []
    await until(lambda: answers)
    assert answers == [(None, 1)]


@played()
async def test_optionsForEachSocket(scene: Scene) -> None:
    server = await scene.server(
        allowHalfOpen=True,
        pauseOnConnect=True,
        noDelay=True,
        keepAlive=True,
        keepAliveInitialDelay=5000,
        highWaterMark=1234,
        timeoutStep=1000,
    )
    _, socket = await scene.pair(server)
    assert socket.allowHalfOpen
    assert socket.isPaused()
    assert socket.highWaterMark == engine(socket).holdLimit == 1234
    assert socket.setTimeout(1).timeout == 1000
    if scene.kind == "tcp":
        kernel = layers.socketOf(socket.transport)
        assert kernel is not None
        assert kernel.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
        assert kernel.getsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE)
        assert kernel.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE) == 5


# Limits


@played()
async def test_maxConnections(scene: Scene) -> None:
    server = await scene.server(maxConnections=1)
    said = Journal(server, "drop", "limit", "connection")
    await scene.stranger(server)
    second = scene.dial(server)
    await second.happened("readEnd")
    await said.happened("limit")
    assert said.events == ["connection", "drop", "limit"]
    ((info,),) = said.args["drop"]
    ((name, peer, action),) = said.args["limit"]
    assert (name, action) == ("connections", "refused")
    assert info["reason"] == "connections"
    address = server.address()
    assert address is not None
    assert (info["localAddress"], info["localPort"], info["localFamily"]) == (
        address.address,
        address.port,
        address.family,
    )
    assert (info["remoteAddress"], info["remotePort"], info["remoteFamily"]) == (peer.address, peer.port, peer.family)
    if scene.kind == "tcp":
        assert info["remotePort"] == second.transport.getHost().port
    assert server.connections == 1
    server.maxConnections = None
    assert server.limits == Limits()
    await scene.stranger(server)
    server.maxConnections = 0
    with pytest.raises(OptionError):
        server.maxConnections = -1
    scene.dial(server)
    await said.until(lambda: len(said.args["drop"]) == 2)


@played()
async def test_limitsBeforeThereIsAFactory(scene: Scene) -> None:
    server = scene.keep(Server())
    server.limits = Limits(connections=0)
    server.listen(scene.place())
    await server.whenListening()
    said = Journal(server, "drop")
    scene.dial(server)
    await said.happened("drop")


@played()
async def test_whoWaits(scene: Scene) -> None:
    server = await scene.server(limits=Limits(connections=1, mode="wait"))
    said = Journal(server, "limit", "drop", "connection")
    _, first = await scene.stranger(server)
    for _ in range(3):
        await scene.dial(server).happened("made")
    await turns(20)
    assert "drop" not in said.events
    assert server.connections == 1
    first.destroy()
    await until(lambda: len(said.args["connection"]) == 2)
    server.close()
    await turns(20)
    for client in tuple(server.clients):
        client.destroy()
    await server.whenClosed()


@played()
async def test_whoWaitsForOneOfItsOwn(scene: Scene) -> None:
    server = await scene.server(limits=Limits(perPeer=1, mode="wait"))
    said = Journal(server, "limit", "drop")
    await scene.stranger(server)
    scene.dial(server)
    await said.happened("limit")
    ((name, peer, action),) = said.args["limit"]
    assert (name, action) == ("perPeer", "waits")
    assert isinstance(peer, Address)
    assert said.events == ["limit"]


@played()
async def test_clientsThatMeetALimit(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(limits=Limits(handshakeTimeout=3), reactor=time)
    said = Journal(server, "limit")
    side, socket = await scene.stranger(server)
    socket.on("error", ignore)
    time.advance(3)
    assert said.args["limit"] == [("handshakeTimeout", socket, "closed")]
    await side.happened("readEnd")
    assert server.factory.limited["handshakeTimeout"] == 1


# What listeners raise


@played()
async def test_aConnectionListenerThatRaises(scene: Scene, loggedErrors: LoggedErrors) -> None:
    kept: list[Journal] = []

    def connected(socket: Socket) -> None:
        kept.append(Journal(socket))
        if len(kept) == 1:
            raise Oops

    server = await scene.server(connected)
    first = scene.dial(server)
    await first.happened("readEnd")
    await kept[0].happened("close")
    assert (kept[0].events, kept[0].hadError) == (["error", "close"], [True])
    assert isinstance(kept[0].errors[0], Oops)
    (logged,) = loggedErrors.flush(Oops)
    assert logged["event"] == "connection"
    await scene.stranger(server)
    assert server.connections == 1, "others go on"


@pytest.mark.parametrize("event", [one for one in SERVER_EVENTS if one != "connection"])
@played()
async def test_otherListenersThatRaise(scene: Scene, event: str, loggedErrors: LoggedErrors) -> None:
    def oops(*args: object) -> None:
        raise Oops

    time = VirtualTime(scene.reactor)
    there = await scene.server()
    server = scene.keep(Server(maxConnections=1, reactor=time))
    server.on(event, oops)
    said = Journal(server)
    server.listen(scene.where(there), retry=Backoff(initial=1, attempts=2, jitter=0))
    await said.happened("retry")
    time.advance(1)
    await said.happened("error")
    server.listen(scene.place())
    await said.happened("listening")
    _, socket = await scene.stranger(server)
    await scene.dial(server).happened("readEnd")
    assert not socket.destroyed, "it has nothing to do with it"
    socket.destroy()
    server.close()
    await said.happened("close")
    assert {*SERVER_EVENTS} <= {*said.events}
    (logged,) = loggedErrors.flush(Oops)
    assert logged["event"] == event


@played()
async def test_whatThePeerDoesToOneIsNothingToTheServer(scene: Scene) -> None:
    server = await scene.server(lambda socket: socket.on("error", ignore).pipe(socket))
    said = Journal(server, "error")
    for _ in range(5):
        side, socket = await scene.stranger(server)
        side.transport.write(bytes(100_000))
        side.transport.abortConnection()
        await socket.whenClosed()
    client = scene.client(server)
    client.write("next")
    assert await heard(client, "data") == (b"next",)
    assert said.events == []


@played("unix")
async def test_aNewerServersFileIsLeftAlone(scene: Scene) -> None:
    path = scene.place()["path"]
    old = scene.keep(Server()).listen(path)
    await old.whenListening()
    os.unlink(path)
    new = scene.keep(Server()).listen(path)
    await new.whenListening()
    old.close()
    await old.whenClosed()
    assert Path(path).is_socket()
    await scene.pair(new)


@pytest_twisted.ensureDeferred
async def test_theFrontDoor() -> None:
    """``net.connect`` in each of the manuals' ways, with options for the socket and for the connection."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        server = createServer().listen(path)
        await patient(server.whenListening())
        ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((path,), {"highWaterMark": 5, "allowHalfOpen": True}),
            (({"path": path, "highWaterMark": 5, "allowHalfOpen": True},), {}),
            ((), {"path": path, "highWaterMark": 5, "allowHalfOpen": True}),
        ]
        for args, keywords in ways:
            client = connect(*args, **keywords)
            assert client.highWaterMark == 5
            assert client.allowHalfOpen
            await patient(client.whenConnected())
            client.destroy()
        from twisted.internet import reactor

        time = VirtualTime(reactor)
        client = connect({"path": path, "reactor": time, "timeout": 5}, ignore)
        assert client.reactor is time
        assert client.timeout == 5
        await patient(client.whenConnected())
        server.close()
        client.destroy()
        await patient(server.whenClosed())
        await patient(client.whenClosed())
