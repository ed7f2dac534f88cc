"""Evo's manual, sentence by sentence, from outside: over TCP and, where it applies, over UNIX sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drivers import LARGEST_SEGMENT
from programs import environment
from scenes import Journal, Scene, played
from turning import turns, until
from twisted.internet.interfaces import IListeningPort, ITransport

from twisted_net import net
from twisted_net.net import Limits, Socket
from twisted_net.testing.clock import VirtualTime

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def echo(socket: Socket) -> None:
    socket.pipe(socket)


def ignore(*args: object) -> None:
    """Listens, and that is all."""


@pytest.mark.manual("EVO-1")
@played()
async def test_aClientInFewLines(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.keep(net.connect(scene.where(server)))
    received: list[bytes] = []
    client.on("data", received.append)
    client.write("sent before it connected")
    await until(lambda: received)
    assert received == [b"sent before it connected"]


@pytest.mark.manual("EVO-2")
@played()
async def test_theServerAcceptsByItself(scene: Scene) -> None:
    server = await scene.server()
    for count in range(1, 4):
        await scene.dial(server).happened("made")
        await until(lambda count=count: server.connections == count)  # type: ignore[misc]


@pytest.mark.manual("EVO-3")
@played()
async def test_theServerManagesItsClients(scene: Scene) -> None:
    server = await scene.server()
    live = server.clients
    pairs = [await scene.pair(server) for _ in range(3)]
    assert list(live) == [accepted for _, accepted in pairs]
    said = [Journal(client) for client, _ in pairs]
    assert server.broadcast("to all of you") == 3
    for one in said:
        await one.until(lambda one=one: one.data == b"to all of you")  # type: ignore[misc]
    second = pairs[1][1]
    assert server.find(lambda client: client is second) is second
    if scene.kind == "tcp":
        assert server.find(str(pairs[1][0].address())) is second
    server.closeClient(second)
    await said[1].happened("close")
    await until(lambda: second not in live)
    assert len(live) == 2, "the view is live"
    assert said[0].events == said[2].events == ["data"]


@pytest.mark.manual("EVO-4")
@played()
async def test_rateLimits(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(limits=Limits(readRate=1000, burst=500), reactor=time)
    met = Journal(server, "limit")
    client, accepted = await scene.pair(server)
    said = Journal(accepted)
    blob = os.urandom(4000)
    for start in range(0, 4000, 500):
        client.write(blob[start : start + 500])
        await until(lambda start=start: accepted.bytesRead == start + 500 or "limit" in met.events)  # type: ignore[misc]
    assert met.args["limit"][0] == ("readRate", accepted, "paused")
    assert server.factory.limited["readRate"] == 1, "and a counter"
    assert accepted.bytesRead < 4000
    client.end()
    for _ in range(20):
        time.advance(0.5)
        await turns(5)
    await said.happened("close")
    assert said.data == blob, "no byte is dropped"


@pytest.mark.manual("EVO-4")
@played()
async def test_whoMayEnter(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    for limits, admitted in (
        (Limits(connections=2), 2),
        (Limits(perPeer=1), 1),
        (Limits(acceptRate=3), 3),
    ):
        server = await scene.server(limits=limits, reactor=time)
        met = Journal(server, "limit", "drop")
        for _ in range(4):
            scene.dial(server)
        while len(met.args.get("limit", ())) < 4 - admitted:
            await turns()
        assert server.connections == admitted
        names = {name for name, _, _ in met.args["limit"]}
        assert len(names) == 1
        assert getattr(limits, names.pop()) is not None
        assert met.events.count("drop") == 4 - admitted


@pytest.mark.manual("EVO-4")
@played()
async def test_writeRates(scene: Scene) -> None:
    for limits in (Limits(writeRate=10_000), Limits(writeRateTotal=10_000)):
        time = VirtualTime(scene.reactor)
        server = await scene.server(limits=limits, reactor=time)
        met = Journal(server, "limit")
        side, socket = await scene.stranger(server)
        socket.end(bytes(50_000))
        await met.happened("limit")
        await turns(20)
        assert len(side.received) < 50_000
        for _ in range(60):
            time.advance(0.1)
            await turns(3)
        await side.happened("readEnd")
        assert len(side.received) == 50_000
        assert met.args["limit"][0] == ("writeRate", socket, "paused")


@pytest.mark.manual("EVO-4")
@played()
async def test_allTogether(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(limits=Limits(readRateTotal=1000), reactor=time)
    pairs = [await scene.pair(server) for _ in range(2)]
    said = [Journal(accepted) for _, accepted in pairs]
    for client, _ in pairs:
        client.end(bytes(1000))
    await until(lambda: sum(one.size for one in said) == 2000)
    await turns(10)
    assert sum("end" in one.events for one in said) < 2, "one of them owes"
    time.advance(2)
    for one in said:
        await one.happened("close")


@pytest.mark.manual("EVO-5")
@pytest.mark.parametrize("name", ["idleTimeout", "handshakeTimeout", "lifetime", "halfOpenTimeout"])
@played()
async def test_deadlines(scene: Scene, name: str) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(limits=Limits(**{name: 30.0}), reactor=time, allowHalfOpen=True)  # type: ignore[arg-type]
    met = Journal(server, "limit")
    side, socket = await scene.stranger(server)
    said = Journal(socket)
    left = 30.0
    if name in ("idleTimeout", "lifetime"):
        time.advance(29)
        side.transport.write(b"activity helps against the one, and not against the other")
        await said.happened("data")
        left = 30.0 if name == "idleTimeout" else 1.0
    elif name == "halfOpenTimeout":
        side.transport.loseWriteConnection()
        await said.happened("end")
    time.advance(left - 0.1)
    assert met.events == []
    time.advance(0.2)
    assert met.args["limit"] == [(name, socket, "closed")]
    assert server.factory.limited[name] == 1
    await said.happened("close")
    assert said.codes == ["ETIMEDOUT"]
    await side.happened("readEnd")
    assert not time.getDelayedCalls()


@pytest.mark.manual("EVO-6")
@played()
async def test_nothingIsBufferedBeyondTheMark(scene: Scene) -> None:
    server = await scene.server(highWaterMark=10_000)
    side, socket = await scene.stranger(server)
    side.transport.write(bytes(5_000_000))
    await until(lambda: socket.bytesRead >= 10_000)
    await turns(50)
    assert socket.bytesRead <= 10_000 + LARGEST_SEGMENT, "at most the mark and one segment"


@pytest.mark.manual("EVO-7")
@pytest.mark.manual("EVO-8")
@pytest.mark.parametrize("how", ["server", "client"])
@played()
async def test_pausingFromInsideAnyHandler(scene: Scene, how: str) -> None:
    server = await scene.server()

    def pause(socket: Socket) -> None:
        server.pauseClient(socket) if how == "server" else socket.pause()
        scene.reactor.callLater(0, resume, socket)

    def resume(socket: Socket) -> None:
        server.resumeClient(socket) if how == "server" else socket.resume()

    chunks: list[bytes] = []

    def connected(socket: Socket) -> None:
        pause(socket)
        socket.on("data", chunks.append)
        for event in ("data", "drain", "end", "finish", "close"):
            socket.on(event, lambda *args: pause(socket))

    server.on("connection", connected)
    client = scene.client(server)
    said = Journal(client)
    client.write(bytes(100_000))
    await until(lambda: sum(map(len, chunks)) == 100_000)
    (accepted,) = server.clients
    accepted.write(bytes(100_000))
    client.end()
    await said.happened("close")
    assert said.size == 100_000


@pytest.mark.manual("EVO-8")
@played()
async def test_aClientPausesItself(scene: Scene) -> None:
    client, accepted = await scene.pair()
    said = Journal(client)
    assert client.pause() is client
    accepted.write("kept")
    await turns(20)
    assert said.data == b""
    client.resume()
    await said.happened("data")


@pytest.mark.manual("EVO-9")
@pytest.mark.manual("EVO-10")
@played()
async def test_handlesStayReachable(scene: Scene) -> None:
    server = await scene.server()
    client, accepted = await scene.pair(server)
    assert IListeningPort.providedBy(server.port)
    for socket in (client, accepted):
        assert ITransport.providedBy(socket.transport)
        handle: Any = socket.transport
        assert handle.getHandle().fileno() > 0
    client.destroy()
    await client.whenClosed()
    assert client.transport is None


@pytest.mark.manual("EVO-9")
@pytest.mark.manual("EVO-10")
@pytest.mark.manual("EVO-11")
@pytest.mark.manual("EVO-12")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_aClientAndAServerFromTheEngineAlone(kind: str, tmp_path: Path) -> None:
    """The example builds both from ``twisted_net.wire``: bind, listen, accept, connect, read, write."""
    place = str(tmp_path / "s") if kind == "unix" else "127.0.0.1:0"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "wire_pair.py", place],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "server: received b'hello'" in done.stdout
    assert "client: received b'hello'" in done.stdout
    assert "twisted_net.net" not in (EXAMPLES / "wire_pair.py").read_text()


@pytest.mark.manual("EVO-3")
@played()
async def test_theOrderOfASession(scene: Scene) -> None:
    order: list[str] = []

    def connected(socket: Socket) -> None:
        order.append("connection")
        socket.on("data", lambda data: order.append("data"))
        socket.on("end", lambda: order.append("end"))
        socket.on("close", lambda hadError: order.append("close"))

    server = scene.keep(net.createServer(connected))
    server.on("listening", lambda: order.append("listening"))
    server.on("close", lambda: order.append("server close"))
    server.listen(scene.place())
    await server.whenListening()
    client = scene.client(server)
    client.write("one")
    await until(lambda: "data" in order)
    client.end("two")
    server.close()
    await server.whenClosed()
    assert [event for n, event in enumerate(order) if event != "data" or order[n - 1] != "data"] == [
        "listening",
        "connection",
        "data",
        "end",
        "close",
        "server close",
    ]
