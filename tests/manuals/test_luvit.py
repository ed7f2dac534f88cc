"""Luvit's manual, sentence by sentence, from outside: over TCP and, where it applies, over UNIX sockets."""

from __future__ import annotations

import errno
import os
import socket as sockets
import stat
import struct
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from logs import LoggedErrors
from scenes import Journal, Scene, heard, patient, played
from turning import turns, until
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint, clientFromString, wrapClientTLS

from twisted_net import net
from twisted_net.errors import NetError
from twisted_net.net import Backoff, Server, Socket
from twisted_net.testing.clock import VirtualTime

MiB = 1024 * 1024
PLENTY = 20_000_000


def echo(socket: Socket) -> None:
    socket.on("error", ignore)
    socket.pipe(socket)


def ignore(*args: object) -> None:
    """Listens, and that is all."""


def kernel(one: Socket | Server, option: int, level: int = sockets.SOL_SOCKET) -> int:
    """What getsockopt(2) says of a socket, or of the socket of a server."""
    owner = one.port if isinstance(one, Server) else one.transport
    return sockets.socket.getsockopt(owner.socket, level, option)


# Server


@pytest.mark.manual("LUV-1")
@played()
async def test_closeKeepsWhoIsThere(scene: Scene) -> None:
    server = await scene.server(echo)
    said = Journal(server, "close")
    client, accepted = await scene.pair(server)
    kept = Journal(client)
    last = Journal(accepted, "close")
    called: list[int] = []
    server.close(lambda: called.append(1))
    server.close()
    assert said.events == [], "asynchronous"
    late = scene.client(server)
    refused = Journal(late, "connect", "error")
    await refused.happened("error")
    assert refused.events == ["error"], "no more are accepted"
    client.write("still served")
    await kept.happened("data")
    assert said.events == []
    client.end()
    await said.happened("close")
    assert last.events == ["close"], "after the last connection has ended"
    server.close()
    await turns(5)
    assert (said.events, called) == (["close"], [1])


@pytest.mark.manual("LUV-2")
@played()
async def test_listenInEveryForm(scene: Scene) -> None:
    path = scene.place().get("path")
    inherited = sockets.socket(sockets.AF_INET if scene.kind == "tcp" else sockets.AF_UNIX)
    inherited.bind(("127.0.0.1", 0) if scene.kind == "tcp" else scene.place()["path"])
    forms: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {"fd": inherited.detach(), "backlog": 5})]
    if scene.kind == "tcp":
        forms += [
            ((0, "127.0.0.1"), {}),
            ((0, "127.0.0.1", ignore), {"backlog": 5}),
            ((TCP4ServerEndpoint(scene.reactor, 0, interface="127.0.0.1"),), {}),
            (("tcp:0:interface=127.0.0.1",), {}),
        ]
    else:
        forms += [((path,), {}), ((path, ignore), {"backlog": 5})]
        forms += [((UNIXServerEndpoint(scene.reactor, path),), {}), ((f"unix:{path}",), {})]
    for args, keywords in forms:
        server = scene.keep(net.createServer(echo).listen(*args, **keywords))
        assert isinstance(server, Server), "listen returns the server"
        assert await server.whenListening() is server
        client = scene.client(server)
        assert await client.whenConnected() is client
        client.end("x")
        assert await heard(client, "data") == (b"x",)
        assert await client.whenClosed() is False
        server.close()
        await server.whenClosed()


@pytest.mark.manual("LUV-3")
@pytest.mark.manual("LUV-4")
@played("tcp")
async def test_anyAddressAndAFreePort(scene: Scene) -> None:
    server = scene.keep(net.createServer(echo).listen(0))
    await server.whenListening()
    port = server.address().port
    assert port > 0
    for host in ("127.0.0.1", "127.0.0.99"):
        client = scene.keep(net.connect(port, host))
        await client.whenConnected()
    another = scene.keep(net.createServer().listen(0))
    await another.whenListening()
    assert another.address().port != port


@pytest.mark.manual("LUV-5")
@played()
async def test_listeningIsSaidLater(scene: Scene) -> None:
    order: list[str] = []
    server = scene.keep(net.createServer())
    server.on("listening", lambda: order.append("first"))
    server.listen(*scene.place().values(), lambda: order.append("last argument"))
    order.append("returned")
    await server.whenListening()
    assert order == ["returned", "first", "last argument"]


@pytest.mark.manual("LUV-6")
@played()
async def test_aBusyAddress(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    there = await scene.server()
    where = scene.where(there)
    server = scene.keep(net.createServer(reactor=time))
    said = Journal(server)
    server.listen(where)
    await said.happened("error")
    assert said.codes == ["EADDRINUSE"]
    server.listen(where)
    await said.until(lambda: said.codes == ["EADDRINUSE"] * 2)
    # Built in: it tries again by itself, and says so.
    server.listen(where, retry=Backoff(initial=1, factor=2, jitter=0, attempts=3))
    await said.happened("retry")
    time.advance(1)
    await said.until(lambda: len(said.args["retry"]) == 2)
    assert [(error.code, attempt, delay) for error, attempt, delay in said.args["retry"]] == [
        ("EADDRINUSE", 1, 1.0),
        ("EADDRINUSE", 2, 2.0),
    ]
    time.advance(2)
    await said.until(lambda: said.codes == ["EADDRINUSE"] * 3)
    assert said.events == ["error", "error", "retry", "retry", "error"], "it gives up when its attempts are spent"
    server.listen(where, retry=Backoff(initial=1, jitter=0))
    await said.until(lambda: said.events[-1] == "retry")
    server.close()
    await said.happened("close")
    assert not time.getDelayedCalls(), "close cancels it"
    server.listen(where, retry=Backoff(initial=1, jitter=0))
    await said.until(lambda: said.events[-1] == "retry")
    there.close()
    await there.whenClosed()
    time.advance(1)
    await said.happened("listening")


@pytest.mark.manual("LUV-7")
@played("tcp")
async def test_reuseAddress(scene: Scene) -> None:
    server = await scene.server()
    client, accepted = await scene.pair(server)
    for one in (server, client, accepted):
        assert kernel(one, sockets.SO_REUSEADDR)


@pytest.mark.manual("LUV-8")
@played("unix")
async def test_unixServers(scene: Scene) -> None:
    path = scene.place()["path"]
    with sockets.socket(sockets.AF_UNIX) as stale:
        stale.bind(path)
    server = scene.keep(net.createServer(echo).listen(path, mode=0o600))
    said = Journal(server)
    await said.happened("listening")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, "a stale file is replaced; its mode can be set"
    client = scene.client(server)
    client.end("x")
    assert await heard(client, "data") == (b"x",)
    assert said.events == ["listening", "connection"], "the same events"
    second = scene.keep(net.createServer())
    refused = Journal(second, "error")
    second.listen(path)
    await refused.happened("error")
    assert refused.codes == ["EADDRINUSE"], "a live one stays"
    file = scene.folder / "a file"
    file.touch()
    second.listen(str(file))
    await refused.until(lambda: len(refused.errors) == 2)
    assert file.is_file(), "what is no socket is never removed"
    starters = [scene.keep(net.createServer()) for _ in range(2)]
    contested = scene.place()["path"]
    stories = [Journal(one, "listening", "error") for one in starters]
    for one in starters:
        one.listen(contested)
    for story in stories:
        await story.until(lambda story=story: story.events)  # type: ignore[misc]
    assert sorted(story.events for story in stories) == [["error"], ["listening"]], "two never both win"
    os.unlink(path)
    newer = scene.keep(net.createServer().listen(path))
    await newer.whenListening()
    server.close()
    server.close()
    await server.whenClosed()
    assert os.path.exists(path), "it is no longer ours"
    newer.close()
    await newer.whenClosed()
    assert not os.path.exists(path)


@pytest.mark.manual("LUV-8")
@played("unix")
async def test_aFullBacklogMeansThatItLives(scene: Scene) -> None:
    path = scene.place()["path"]
    with sockets.socket(sockets.AF_UNIX) as full, sockets.socket(sockets.AF_UNIX) as waiting:
        full.bind(path)
        full.listen(0)
        waiting.connect(path)
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.setblocking(False)
            assert probe.connect_ex(path) == errno.EAGAIN
        server = scene.keep(net.createServer())
        refused = Journal(server, "error")
        server.listen(path)
        await refused.happened("error")
        assert refused.codes == ["EADDRINUSE"]
    os.unlink(path)


@pytest.mark.manual("LUV-8")
@played("unix")
async def test_abstractNames(scene: Scene) -> None:
    name = f"\0twisted_net of {os.getpid()}"
    server = scene.keep(net.createServer(echo).listen(name))
    await server.whenListening()
    assert server.address().address == name
    client = scene.keep(net.connect(name))
    client.end("x")
    assert await heard(client, "data") == (b"x",)


@pytest.mark.manual("LUV-9")
@played()
async def test_serverPause(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time, maxConnections=3)
    said = Journal(server, "connection", "drop")
    server.pause()
    for _ in range(2):
        await scene.dial(server).happened("made")
    await turns(20)
    time.advance(0.9)
    await turns(20)
    assert said.events == [], "they wait in the kernel's backlog"
    time.advance(0.1)
    await until(lambda: server.connections == 2)
    server.pause(60_000)
    await scene.dial(server).happened("made")
    await scene.dial(server).happened("made")
    await turns(20)
    assert server.connections == 2
    server.resume()
    await said.happened("drop")
    assert server.connections == 3, "they count against the limits"
    assert not time.getDelayedCalls()


@pytest.mark.manual("LUV-9")
@played()
async def test_theSurplusOfAPausedPort(scene: Scene) -> None:
    """A port that is paused in a 'connection' listener has accepted more already: they wait unread, and come first."""
    time = VirtualTime(scene.reactor)
    server = scene.keep(net.createServer(reactor=time))
    welcomed: list[Socket] = []

    def connected(socket: Socket) -> None:
        welcomed.append(socket)
        if len(welcomed) == 1:
            server.pause()

    server.on("connection", connected)
    server.listen(scene.place())
    await server.whenListening()
    server.pause(500)
    sides = [scene.dial(server) for _ in range(10)]
    for side in sides:
        await side.happened("made")
        side.transport.write(b"x")
    time.advance(0.5)
    await until(lambda: welcomed)
    await turns(20)
    assert len(welcomed) == 1
    assert server.connections == 1
    late = scene.dial(server)
    await late.happened("made")
    time.advance(1)
    await until(lambda: len(welcomed) == 11)
    if scene.kind == "tcp":
        ports = [side.transport.getHost().port for side in [*sides, late]]
        assert [socket.remotePort for socket in welcomed] == ports


@pytest.mark.manual("LUV-10")
@played()
async def test_serverAddress(scene: Scene) -> None:
    server = scene.keep(net.createServer())
    assert server.address() is None
    place = scene.place()
    server.listen(place)
    await server.whenListening()
    address = server.address()
    if scene.kind == "tcp":
        assert (address.address, address.family) == ("127.0.0.1", "IPv4")
        assert isinstance(address.port, int)
    else:
        assert (address.address, address.port, address.family) == (place["path"], None, "unix")


@pytest.mark.manual("LUV-11")
@played()
async def test_maxConnections(scene: Scene) -> None:
    server = await scene.server()
    assert server.maxConnections is None
    server.maxConnections = 1
    dropped = Journal(server, "drop")
    await scene.pair(server)
    assert server.connections == 1
    refused = scene.client(server)
    refused.on("error", ignore)
    await dropped.happened("drop")
    ((info,),) = dropped.args["drop"]
    assert info["reason"] == "connections"
    assert info["localPort"] == server.address().port  # type: ignore[union-attr]
    assert server.connections == 1
    await refused.whenClosed()
    counts: list[tuple[object, int]] = []
    server.getConnections(lambda error, count: counts.append((error, count)))
    await until(lambda: counts)
    assert counts == [(None, 1)]
    server.maxConnections = None
    await scene.pair(server)
    assert server.connections == 2


@pytest.mark.manual("LUV-12")
@played()
async def test_serverEvents(scene: Scene) -> None:
    there = await scene.server()
    server = scene.keep(net.createServer())
    said = Journal(server)
    server.listen(scene.where(there))
    await said.happened("error")
    server.listen(scene.place())
    await said.happened("listening")
    client = scene.client(server)
    await said.happened("connection")
    client.destroy()
    server.close()
    for accepted in server.clients:
        accepted.destroy()
    await said.happened("close")
    assert said.events == ["error", "listening", "connection", "close"]
    assert isinstance(said.errors[0], NetError)
    assert isinstance(said.args["connection"][0][0], Socket)
    assert said.args["listening"] == said.args["close"] == [()]


# Socket


@pytest.mark.manual("LUV-13")
@played()
async def test_aDuplexStream(scene: Scene) -> None:
    server = await scene.server()
    connections = Journal(server, "connection")
    made = scene.keep(Socket())
    made.connect(scene.where(server))
    await connections.happened("connection")
    ((handed,),) = connections.args["connection"]
    one, other = Journal(made), Journal(handed)
    made.write("there")
    handed.write("and back")
    await other.happened("data")
    await one.happened("data")
    assert (other.data, one.data) == (b"there", b"and back")


@pytest.mark.manual("LUV-14")
@pytest.mark.manual("LUV-23")
@played()
async def test_addresses(scene: Scene) -> None:
    server = await scene.server()
    client, accepted = await scene.pair(server)
    where = server.address()
    assert where is not None
    assert accepted.address() == where
    assert (client.remoteAddress, client.remotePort, client.remoteFamily) == (where.address, where.port, where.family)
    assert (accepted.localAddress, accepted.localPort) == (where.address, where.port)
    if scene.kind == "tcp":
        bound = client.address()
        assert bound is not None
        assert (bound.address, bound.port) == (accepted.remoteAddress, accepted.remotePort)
        assert (client.localAddress, client.localPort) == (bound.address, bound.port)


@pytest.mark.manual("LUV-15")
@pytest.mark.manual("LUV-16")
@pytest.mark.manual("LUV-17")
@played()
async def test_connect(scene: Scene) -> None:
    server = await scene.server()
    where = scene.where(server)
    forms: list[tuple[Any, ...]] = [tuple(where.values())]
    if scene.kind == "tcp":
        forms.append((where["port"],))  # localhost
    for form in forms:
        client = scene.keep(Socket())
        said = Journal(client, "connect", "error", "called")
        assert client.connect(*form, partial(client.emit, "called")) is client
        assert said.events == [], "asynchronous"
        await client.whenConnected()
        assert said.events == ["connect", "called"]
        client.destroy()
        await client.whenClosed()
    server.close()
    await server.whenClosed()
    client = scene.keep(Socket())
    said = Journal(client, "connect", "error", "close")
    client.connect(*forms[0])
    await said.happened("close")
    assert (said.events, said.hadError) == (["error", "close"], [True])


@pytest.mark.manual("LUV-17")
@played("tcp")
async def test_namesAndTimes(scene: Scene) -> None:
    server = await scene.server()
    port = scene.where(server)["port"]
    client = scene.keep(Socket())
    said = Journal(client, "lookup", "connect")
    client.connect(port, "localhost")
    await said.happened("connect")
    assert all(args[3] == "localhost" for args in said.args["lookup"])
    time = VirtualTime(scene.reactor)
    with (
        sockets.create_server(("127.0.0.1", 0), backlog=0) as full,
        sockets.create_connection(full.getsockname()),
        sockets.socket() as second,
    ):
        second.setblocking(False)
        second.connect_ex(full.getsockname())
        slow = scene.keep(Socket(reactor=time))
        failed = Journal(slow, "connect", "error", "close")
        slow.connect(full.getsockname()[1], "127.0.0.1", connectTimeout=2.5)
        await turns(5)
        time.advance(2.4)
        await turns(5)
        assert failed.events == []
        time.advance(0.2)
        await failed.happened("close")
    assert (failed.events, failed.codes, failed.hadError) == (["error", "close"], ["ETIMEDOUT"], [True])


@pytest.mark.manual("LUV-18")
@played()
async def test_aClosedSocketConnectsAgain(scene: Scene) -> None:
    servers = [await scene.server(lambda socket, n=n: socket.end(f"server {n}")) for n in range(2)]
    client = scene.keep(Socket())
    said = Journal(client)
    for server in servers:
        client.connect(scene.where(server))
        await client.whenClosed()
    assert said.data == b"server 0server 1"
    assert said.events.count("close") == said.events.count("connect") == 2


@pytest.mark.manual("LUV-19")
@played()
async def test_destroy(scene: Scene) -> None:
    server = await scene.server()
    for error in (None, NetError("no more of this", code="EPROTO")):
        side, socket = await scene.stranger(server)
        said = Journal(socket)
        side.transport.pauseProducing()
        socket.write(bytes(PLENTY))
        socket.destroy(error)
        assert socket.destroyed
        assert said.events == [], "on a later turn"
        await said.happened("close")
        assert said.events == (["error", "close"] if error else ["close"])
        assert said.errors == ([error] if error else [])
        assert said.hadError == [error is not None]
        side.transport.resumeProducing()
        await side.happened("readEnd")  # FIN, not RST
        assert len(side.received) < PLENTY, "what was unsent is dropped"


@pytest.mark.manual("LUV-19")
@played("tcp")
async def test_resetAndDestroy(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    socket.resetAndDestroy()
    await side.happened("lost")
    assert "readEnd" not in side.events


@pytest.mark.manual("LUV-20")
@pytest.mark.parametrize("name", ["finish", "end"])
@played()
async def test_finish(scene: Scene, name: str) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    told: list[Any] = []
    socket.write("before ")
    getattr(socket, name)("and after", lambda error: told.append(error))
    await side.happened("readEnd")
    assert side.received == b"before and after", "FIN after what was written"
    side.transport.write(b"the peer may still send")
    await said.happened("data")
    assert told == [None]
    side.transport.loseConnection()
    await said.happened("close")


@pytest.mark.manual("LUV-21")
@played()
async def test_constructorOptions(scene: Scene) -> None:
    assert Socket().allowHalfOpen is False
    assert Socket({"allowHalfOpen": True}).allowHalfOpen is True
    server = await scene.server(echo)
    here = sockets.socket(sockets.AF_INET if scene.kind == "tcp" else sockets.AF_UNIX)
    where = scene.where(server)
    here.connect(where.get("path") or (where["host"], where["port"]))
    taken = scene.keep(Socket({"fd": here.detach()}))
    taken.write("x")
    assert await heard(taken, "data") == (b"x",)
    right, wrong = ("tcp4", "unix") if scene.kind == "tcp" else ("unix", "tcp6")
    client = scene.keep(Socket({"type": right})).connect(where)
    await client.whenConnected()
    with pytest.raises(NetError):
        Socket({"type": wrong}).connect(where)


@pytest.mark.manual("LUV-22")
@played()
async def test_pauseAndResume(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    socket.pause()
    side.transport.write(bytes(PLENTY))
    await turns(100)
    assert said.data == b""
    assert socket.bytesRead == 0, "the kernel is not read either"
    socket.resume()
    await said.until(lambda: said.size == PLENTY)
    # From inside a listener: nothing comes after pause() has returned.
    paused = False

    def receive(data: bytes) -> None:
        nonlocal paused
        assert not paused
        paused = True
        socket.pause()
        scene.reactor.callLater(0, go)

    def go() -> None:
        nonlocal paused
        paused = False
        socket.resume()

    socket.prependListener("data", receive)
    side.transport.write(bytes(MiB))
    await said.until(lambda: said.size == PLENTY + MiB)


@pytest.mark.manual("LUV-22")
@pytest.mark.tls
@played("tcp")
async def test_pauseHoldsOverTlsToo(scene: Scene) -> None:
    server = scene.keep(net.createServer())
    from twisted.internet.endpoints import SSL4ServerEndpoint

    server.listen(SSL4ServerEndpoint(scene.reactor, 0, selfSigned().forServer(), interface="127.0.0.1"))
    await server.whenListening()
    plain = clientFromString(scene.reactor, f"tcp:127.0.0.1:{server.address().port}")
    welcomed = heard(server, "connection")
    client = scene.keep(net.connect(wrapClientTLS(selfSigned().forClient(), plain)))
    (accepted,) = await welcomed
    got = 0
    paused = False

    def receive(data: bytes) -> None:
        nonlocal got, paused
        assert not paused
        got += len(data)
        paused = True
        accepted.pause()
        scene.reactor.callLater(0, go)

    def go() -> None:
        nonlocal paused
        paused = False
        accepted.resume()

    accepted.on("data", receive)
    client.write(bytes(MiB))
    await until(lambda: got == MiB)


@pytest.mark.manual("LUV-24")
@pytest.mark.manual("LUV-25")
@played("tcp")
async def test_keepAliveAndNoDelay(scene: Scene) -> None:
    server = await scene.server()
    early = scene.keep(Socket()).setKeepAlive(True, 9000).setNoDelay()
    early.connect(scene.where(server))
    await early.whenConnected()
    late, _ = await scene.pair(server)
    late.setKeepAlive(True, 9000).setNoDelay(True)
    for socket in (early, late):
        assert kernel(socket, sockets.SO_KEEPALIVE)
        assert kernel(socket, sockets.TCP_KEEPIDLE, sockets.IPPROTO_TCP) == 9
        assert kernel(socket, sockets.TCP_NODELAY, sockets.IPPROTO_TCP)
        socket.setKeepAlive(True, 0)
        assert kernel(socket, sockets.TCP_KEEPIDLE, sockets.IPPROTO_TCP) == 9, "0 leaves the delay"
        socket.setKeepAlive()
        assert not kernel(socket, sockets.SO_KEEPALIVE), "enable defaults to False"
        socket.setNoDelay(False)
        assert not kernel(socket, sockets.TCP_NODELAY, sockets.IPPROTO_TCP)
        socket.setNoDelay()
        assert kernel(socket, sockets.TCP_NODELAY, sockets.IPPROTO_TCP), "noDelay defaults to True"


@pytest.mark.manual("LUV-26")
@pytest.mark.manual("LUV-27")
@pytest.mark.manual("LUV-28")
@played()
async def test_setTimeout(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(echo)
    client = scene.client(server, reactor=time)
    said = Journal(client, "timeout", "data", "close")
    await client.whenConnected()
    time.advance(100_000)
    assert said.events == [], "none by default"
    called: list[int] = []
    client.setTimeout(3000, lambda: called.append(1))
    time.advance(2)
    client.write("bytes that go out are activity")
    await said.happened("data")
    time.advance(2.9)
    assert "timeout" not in said.events
    time.advance(0.1)
    assert said.events == ["data", "timeout"]
    time.advance(100)
    assert said.events == ["data", "timeout"], "once per idle period, and the connection stays"
    assert client.readyState == "open"
    (accepted,) = server.clients
    accepted.write("bytes that come in are activity too")
    await said.until(lambda: said.events[-1] == "data")
    time.advance(3)
    assert said.events == ["data", "timeout", "data", "timeout"]
    assert called == [1], "the callback listens once"
    client.write("x")
    client.setTimeout(0)
    time.advance(100)
    assert said.events.count("timeout") == 2
    assert not time.getDelayedCalls()


@pytest.mark.manual("LUV-29")
@pytest.mark.manual("LUV-30")
@played()
async def test_write(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    order: list[str] = []
    socket.on("drain", lambda: order.append("drain"))
    assert socket.write(bytes(64 * 1024 - 1), lambda error: order.append(f"first {error}")) is True
    await until(lambda: order)
    await turns(5)
    assert order == ["first None"], "no 'drain' after a True"
    order.clear()
    assert socket.write(bytes(64 * 1024 - 1)) is True
    assert socket.write("ä", "latin-1", lambda error: order.append(f"second {error}")) is False, "this chunk included"
    assert socket.write("ä", None, lambda error: order.append(f"third {error}")) is False
    assert order == []
    await until(lambda: "drain" in order)
    assert order == ["second None", "third None", "drain"]
    await side.until(lambda: side.received.endswith(b"\xe4\xc3\xa4"))
    side.transport.pauseProducing()
    order.clear()
    socket.write(bytes(PLENTY), lambda error: order.append(f"lost {error.code}"))
    socket.destroy()
    await socket.whenClosed()
    assert order == ["lost EPIPE"], "exactly once, with an error if it never will be"


@pytest.mark.manual("LUV-31")
@played()
async def test_netConnect(scene: Scene) -> None:
    server = await scene.server()
    where = scene.where(server)
    for function in (net.connect, net.createConnection):
        called: list[int] = []
        client = scene.keep(function(*where.values(), partial(called.append, 1)))
        await client.whenConnected()
        assert called == [1]
        if scene.kind == "tcp":
            client = scene.keep(function(where["port"], partial(called.append, 2)))
            await client.whenConnected()
            assert called == [1, 2]


@pytest.mark.manual("LUV-32")
@played()
async def test_createServer(scene: Scene) -> None:
    connected: list[Socket] = []
    for server in (net.createServer(connected.append), net.createServer({}, connected.append)):
        assert server.allowHalfOpen is False
        scene.keep(server).listen(scene.place())
        await server.whenListening()
        await scene.pair(server)
    assert len(connected) == 2


@pytest.mark.manual("LUV-33")
@played()
async def test_allowHalfOpen(scene: Scene) -> None:
    server = await scene.server(allowHalfOpen=True)
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    side.transport.loseWriteConnection()
    await said.happened("end")
    await turns(20)
    assert (socket.readable, socket.writable) == (False, True)
    socket.write("still writing")
    await side.happened("data")
    assert "readEnd" not in side.events
    socket.end()
    await side.happened("readEnd")
    await said.happened("close")


@pytest.mark.manual("LUV-33")
@played()
async def test_theEndIsAnsweredAfterAllThatWasWritten(scene: Scene) -> None:
    server = await scene.server(lambda socket: socket.on("data", ignore).on("end", lambda: socket.write(bytes(PLENTY))))
    side = scene.dial(server)
    await side.happened("made")
    side.transport.loseWriteConnection()
    await side.happened("readEnd")
    assert len(side.received) == PLENTY


@pytest.mark.manual("LUV-34")
@played()
async def test_socketEvents(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(echo)
    client = scene.client(server, reactor=time)
    said = Journal(client, without=("lookup",))
    client.setTimeout(1000)
    client.write(bytes(100_000))
    await said.until(lambda: said.size == 100_000)
    time.advance(2)
    client.end()
    await said.happened("close")
    assert [event for event in said.events if event != "data"] == [
        "connect",
        "ready",
        "drain",
        "timeout",
        "finish",
        "end",
        "close",
    ]
    assert said.hadError == [False]
    client.connect("/no/such/path")
    await said.until(lambda: said.events[-1] == "close" and len(said.hadError) == 2)
    assert said.events[-2:] == ["error", "close"]
    assert said.hadError == [False, True]


@pytest.mark.manual("LUV-34")
@played("tcp")
async def test_lookup(scene: Scene) -> None:
    client = scene.keep(Socket())
    said = Journal(client, "lookup", "error", "close")
    client.connect(8124, "no.such.name.invalid")
    await said.happened("close")
    ((error, _address, _family, host),) = said.args["lookup"]
    assert (error.code, host) == ("ENOTFOUND", "no.such.name.invalid")
    assert said.events == ["lookup", "error", "close"]


@pytest.mark.manual("LUV-34")
@played()
async def test_bytesAreKeptWithoutAListener(scene: Scene) -> None:
    server = await scene.server()
    side, socket = await scene.stranger(server)
    side.transport.write(bytes(PLENTY))
    await until(lambda: socket.bytesRead >= socket.highWaterMark)
    await turns(50)
    assert socket.bytesRead < 4 * socket.highWaterMark, "then reading stops"
    said = Journal(socket)
    await said.until(lambda: said.size == PLENTY)


@pytest.mark.manual("LUV-34")
@played("tcp")
async def test_aResetIsNoticedAllTheSame(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time, highWaterMark=100)
    for size in (0, 10, 1000):
        side, socket = await scene.stranger(server)
        said = Journal(socket, "error", "close")
        side.transport.write(bytes(size))
        await until(lambda socket=socket, size=size: socket.bytesRead >= size)  # type: ignore[misc]
        side.transport.setTcpNoDelay(True)
        side.transport.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        side.transport.abortConnection()
        await side.happened("lost")
        await turns(5)
        time.advance(1)
        await said.happened("close")
        assert (said.events, said.codes) == (["error", "close"], ["ECONNRESET"])


@pytest.mark.manual("LUV-36")
@played()
async def test_countsAndIsIP(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.client(server)
    client.end("12345")
    await client.whenConnected()
    said = Journal(client)
    await said.happened("close")
    assert (client.bytesWritten, client.bytesRead) == (5, 5)
    assert [net.isIP(text) for text in ("127.0.0.1", "::1", "localhost", "127.0.0.01")] == [4, 6, 0, 0]
    assert net.isIPv4("127.0.0.1")
    assert not net.isIPv4("::1")
    assert net.isIPv6("::1")
    assert not net.isIPv6("127.0.0.1")


# The lines that settle the rest of Luvit's part


@pytest.mark.manual("LUV-16")
@pytest.mark.manual("LUV-29")
@played()
async def test_writesBeforeConnect(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.keep(Socket())
    said = Journal(client)
    assert [client.write(f"{number}") for number in range(3)] == [False] * 3
    client.connect(scene.where(server))
    assert client.write("3") is False
    await said.until(lambda: said.data == b"0123")
    assert said.events.index("connect") < said.events.index("data")


@pytest.mark.manual("LUV-19")
@pytest.mark.manual("LUV-20")
@played()
async def test_writesAfterTheEnd(scene: Scene) -> None:
    for end, code in ((Socket.end, "EPIPE"), (Socket.destroy, "ERR_STREAM_DESTROYED")):
        client, accepted = await scene.pair(allowHalfOpen=True)
        said = Journal(client, "error", "close")
        end(client)
        told: list[Any] = []
        assert client.write("too late", told.append) is False
        await said.happened("error")
        assert said.codes == [code]
        assert [error.code for error in told] == [code]
        accepted.on("error", ignore).destroy()


@pytest.mark.manual("LUV-22")
@pytest.mark.manual("LUV-33")
@played()
async def test_pipe(scene: Scene) -> None:
    behind = await scene.server(echo)

    def forward(socket: Socket) -> None:
        onward = scene.client(behind, allowHalfOpen=True)
        socket.pipe(onward).pipe(socket)

    front = await scene.server(forward, allowHalfOpen=True)
    client = scene.client(front)
    said = Journal(client)
    blob = os.urandom(MiB) * 20
    client.end(blob)
    await said.happened("close")
    assert said.data == blob


@pytest.mark.manual("LUV-34")
@played()
async def test_aListenerThatRaises(scene: Scene, loggedErrors: LoggedErrors) -> None:
    def receive(data: bytes) -> None:
        raise ValueError("a bug")

    server = await scene.server(echo)
    bad, _ = await scene.pair(server)
    good, _ = await scene.pair(server)
    bad.on("data", receive)
    said = Journal(bad, "error", "close")
    bad.write("x")
    await said.happened("close")
    assert isinstance(said.errors[0], ValueError)
    assert said.hadError == [True]
    (logged,) = loggedErrors.flush(ValueError)
    assert logged["event"] == "data"
    good.write("others go on")
    await heard(good, "data")


@pytest.mark.manual("LUV-34")
@pytest_twisted.ensureDeferred
async def test_anErrorThatNobodyHears(loggedErrors: LoggedErrors) -> None:
    socket = net.connect("/no/such/path")
    assert await patient(socket.whenClosed()) is True
    assert len(loggedErrors.flush("ENOENT")) == 1
