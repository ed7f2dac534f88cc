"""Mongoose's manual, sentence by sentence, from outside: over TCP and, where it applies, over UNIX sockets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from scenes import Journal, Scene, heard, played
from turning import turns, until

from twisted_net import net
from twisted_net.net import Server, Socket
from twisted_net.testing.clock import VirtualTime


def echo(socket: Socket) -> None:
    socket.pipe(socket)


def ignore(*args: object) -> None:
    """Listens, and that is all."""


@pytest.mark.manual("MON-1")
@played()
async def test_connect(scene: Scene) -> None:
    server = await scene.server()
    where = scene.where(server)
    for function in (net.connect, net.createConnection):
        for args in (tuple(where.values()), (where,)):
            called: list[str] = []
            client = scene.keep(function(*args, partial(called.append, "connected")))
            assert isinstance(client, Socket), "a new Socket"
            await client.whenConnected()
            assert called == ["connected"]
            client = scene.keep(function(*args))
            await client.whenConnected()


@pytest.mark.manual("MON-2")
@played()
async def test_createServer(scene: Scene) -> None:
    connected: list[Socket] = []
    forms: list[tuple[Any, ...]] = [({}, connected.append), (connected.append,), (None, connected.append)]
    for form in forms:
        server = scene.keep(net.createServer(*form))
        assert isinstance(server, Server)
        server.listen(scene.place())
        await server.whenListening()
        await scene.pair(server)
    assert len(connected) == 3
    assert isinstance(net.createServer(), Server)


@pytest.mark.manual("MON-3")
@played()
async def test_listen(scene: Scene) -> None:
    forms: list[tuple[Any, ...]] = [(scene.place(),)]
    if scene.kind == "tcp":
        forms += [(0, "127.0.0.1"), (0, "127.0.0.1", 0), (0, "127.0.0.1", 128), ({"port": 0, "hostname": "127.0.0.1"},)]
    for form in forms:
        for callback in (True, False):
            called: list[str] = []
            server = scene.keep(net.createServer(echo))
            server.listen(*form, *([lambda called=called: called.append("bound")] if callback else []))
            await server.whenListening()
            assert called == ["bound"] * callback
            client = scene.client(server)
            client.end("x")
            assert await heard(client, "data") == (b"x",)
            await client.whenClosed()
            server.close()
            await server.whenClosed()


@pytest.mark.manual("MON-4")
@played()
async def test_close(scene: Scene) -> None:
    server = await scene.server(echo)
    client, _ = await scene.pair(server)
    said = Journal(client)
    called: list[str] = []
    server.close(lambda: called.append("closed"))
    await turns(10)
    client.write("kept")
    await said.happened("data")
    assert called == []
    client.end()
    await until(lambda: called)
    assert called == ["closed"]


@pytest.mark.manual("MON-5")
@played()
async def test_getConnections(scene: Scene) -> None:
    server = await scene.server()
    answers: list[tuple[object, int]] = []
    for count in range(3):
        server.getConnections(lambda error, count: answers.append((error, count)))
        assert len(answers) == count, "asynchronously"
        await until(lambda count=count: len(answers) > count)  # type: ignore[misc]
        await scene.pair(server)
    assert answers == [(None, 0), (None, 1), (None, 2)]


@pytest.mark.manual("MON-6")
@played()
async def test_serverEvents(scene: Scene) -> None:
    there = await scene.server()
    server: Server = scene.keep(net.createServer())
    order: list[str] = []
    for event in ("error", "close", "connection", "listening"):
        assert server.on(event, lambda *args, event=event: order.append(f"{event} 1")) is server

        @server.on(event)
        def second(*args: object, event: str = event) -> None:
            order.append(f"{event} 2")

        assert callable(second), "a decorator leaves the function as it is"
    server.on("no such event", ignore)
    server.listen(scene.where(there))
    await until(lambda: len(order) == 2)
    server.listen(scene.place())
    await server.whenListening()
    _, accepted = await scene.pair(server)
    server.close()
    accepted.end()
    accepted.on("data", ignore)
    for client in scene._sockets:
        client.on("data", ignore).end()
    await server.whenClosed()
    events = ["error", "listening", "connection", "close"]
    assert order == [f"{event} {n}" for event in events for n in (1, 2)], "in order of registration"


@pytest.mark.manual("MON-13")
@played()
async def test_socketThenConnect(scene: Scene) -> None:
    server = await scene.server(echo)
    where = scene.where(server)
    for args in (tuple(where.values()), (where,)):
        for callback in (True, False):
            called: list[str] = []
            socket = scene.keep(net.Socket({}))
            socket.connect(*args, *([lambda called=called: called.append("connected")] if callback else []))
            socket.write("x")
            assert await heard(socket, "data") == (b"x",)
            assert called == ["connected"] * callback


@pytest.mark.manual("MON-14")
@played()
async def test_write(scene: Scene) -> None:
    client, accepted = await scene.pair()
    said = Journal(accepted)
    told: list[object] = []
    client.write("plain ")
    client.write("k\xf6ln ", "latin-1")
    client.write("called ", None, told.append)
    client.write("both", "ascii", told.append)
    await said.until(lambda: said.data == b"plain k\xf6ln called both")
    assert told == [None, None]


@pytest.mark.manual("MON-15")
@played()
async def test_end(scene: Scene) -> None:
    for args, expected in (((), b""), (("last",), b"last"), (("\xf6", "latin-1"), b"\xf6")):
        client, accepted = await scene.pair()
        said = Journal(accepted)
        client.end(*args)
        await said.happened("close")
        assert said.data == expected
        assert "end" in said.events


@pytest.mark.manual("MON-16")
@played()
async def test_destroy(scene: Scene) -> None:
    client, accepted = await scene.pair()
    both = [Journal(client, "close"), Journal(accepted, "data", "close")]
    client.destroy()
    for one in both:
        await one.happened("close")
        assert one.events == ["close"]


@pytest.mark.manual("MON-17")
@played()
async def test_pauseAndResume(scene: Scene) -> None:
    client, accepted = await scene.pair()
    said = Journal(accepted, "data")
    accepted.pause()
    client.write("kept")
    await turns(20)
    assert said.data == b""
    accepted.resume()
    await said.happened("data")


@pytest.mark.manual("MON-18")
@played()
async def test_setTimeout(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(reactor=time)
    exact, _ = await scene.pair(server, reactor=time)
    rounded, _ = await scene.pair(server, reactor=time, timeoutStep=1000)
    for socket, given, msecs in (
        (exact, 1, 1),
        (exact, 1700, 1700),
        (rounded, 1, 1000),
        (rounded, 1499, 1000),
        (rounded, 1700, 2000),
    ):
        said = Journal(socket, "timeout")
        called: list[int] = []
        socket.setTimeout(given, lambda called=called: called.append(1))
        time.advance(msecs / 1000 - 0.0005)
        assert said.events == []
        time.advance(0.001)
        assert said.events == ["timeout"]
        assert called == [1]
        assert socket.readyState == "open"
        socket.setTimeout(0)
        time.advance(100)
        assert said.events == ["timeout"], "0 switches it off"
    stepped = await scene.server(reactor=time, timeoutStep=1000)
    _, accepted = await scene.pair(stepped)
    assert accepted.setTimeout(2400).timeout == 2000, "for the sockets of a server, too"
    accepted.setTimeout(0)


@pytest.mark.manual("MON-18")
@played()
async def test_bytesAreBinarySafe(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.client(server)
    said = Journal(client)
    everything = bytes(range(256)) * 4
    client.end(everything)
    await said.happened("close")
    assert said.data == everything


@pytest.mark.manual("MON-19")
@played()
async def test_socketEvents(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = await scene.server(echo)
    client = scene.keep(net.Socket({"reactor": time}))
    order: list[str] = []
    for event in ("error", "close", "connect", "data", "drain", "timeout"):
        for n in (1, 2):
            client.on(event, lambda *args, event=event, n=n: order.append(f"{event} {n}"))
    client.connect(scene.where(server))
    client.write("x")
    await until(lambda: "data 2" in order and "drain 2" in order)
    client.setTimeout(1000)
    time.advance(1)
    client.destroy(OSError("enough"))
    await client.whenClosed()
    assert sorted(order[:6]) == sorted(f"{event} {n}" for event in ("connect", "drain", "data") for n in (1, 2))
    assert order[:2] == ["connect 1", "connect 2"]
    assert order[6:] == [f"{event} {n}" for event in ("timeout", "error", "close") for n in (1, 2)]
    assert all(order[i].endswith("1") and order[i + 1].endswith("2") for i in range(0, len(order), 2))


@pytest.mark.manual("MON-20")
@played()
async def test_theManualsExample(scene: Scene) -> None:
    """Line by line; the port is the only thing that differs."""
    printed: list[str] = []

    def print(*words: object) -> None:
        printed.append(" ".join(word.decode() if isinstance(word, bytes) else str(word) for word in words))

    def connected(sock: Socket) -> None:
        print("New incoming conenction")

        @sock.on("data")
        def received(data: bytes) -> None:
            print("New data received", data)
            sock.write(data, None, lambda error: print("Data sent back"))
            sock.end()

    server = scene.keep(net.createServer({}, connected))
    if scene.kind == "tcp":
        server.listen(0, "127.0.0.1", 0, lambda: print("Started to listen"))
    else:
        server.listen(scene.place()["path"], 0, lambda: print("Started to listen"))
    await server.whenListening()

    def established() -> None:
        print("Client connected")
        client.write("Hello")

    client: Socket = scene.keep(net.connect(*scene.where(server).values(), established))

    @client.on("close")
    def closed(hadError: bool) -> None:
        print("Client socket is closed")

    @client.on("data")
    def received(data: bytes) -> None:
        print("Client received new data", data)
        client.end()

    await client.whenClosed()
    await until(lambda: not server.connections)
    assert printed[0] == "Started to listen"
    assert sorted(printed[1:3]) == ["Client connected", "New incoming conenction"], "two programs in one: either first"
    assert printed[3:] == [
        "New data received Hello",
        "Data sent back",
        "Client received new data Hello",
        "Client socket is closed",
    ]
