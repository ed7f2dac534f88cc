"""Our own event face on a network in memory: nothing in it knows that the time is virtual and the network is none."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pytest
from logs import LoggedErrors
from scenes import Journal
from twisted.internet.task import deferLater
from weather import inEveryWeather

from twisted_net.net import Backoff, Limits, Server, Socket, connect
from twisted_net.testing.names import Name
from twisted_net.testing.network import MemoryNetwork

SOME = Random(1).randbytes(1_000_000)

#: Milliseconds of half an hour.
HALF_AN_HOUR = 1_800_000


class Client(Journal):
    """A socket, and what it says."""

    def __init__(self, socket: Socket) -> None:
        super().__init__(socket)
        self.socket = socket


class Scene:
    """Servers and sockets on two hosts; all are closed at the end."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self._servers: list[Server] = []
        self._sockets: list[Socket] = []

    async def __aenter__(self) -> Scene:
        return self

    async def __aexit__(self, *failure: object) -> None:
        for socket in self._sockets:
            socket.destroy()
        for server in self._servers:
            for socket in list(server.clients):
                socket.destroy()
            server.close()
            await server.whenClosed()

    async def server(self, *where: Any, listener: Any = None, **options: Any) -> Server:
        """A server that listens: unless told otherwise, on port 80, and sending back what it hears."""
        server = Server(options, listener or echo, reactor=self.network.host("server").reactor)
        self._servers.append(server)
        server.listen(*(where or (80,)))
        await server.whenListening()
        return server

    def client(self, *where: Any, host: str = "client", **options: Any) -> Client:
        """A socket that connects to it."""
        socket = connect(*(where or (80, "server")), reactor=self.network.host(host).reactor, **options)
        self._sockets.append(socket)
        return Client(socket)

    async def after(self, seconds: float) -> None:
        await deferLater(self.network.host("client").reactor, seconds)


def echo(socket: Socket) -> None:
    socket.pipe(socket)


def ignore(socket: Socket) -> None:
    """Reads what comes, and says nothing."""
    socket.on("data", lambda data: None)


@inEveryWeather()
async def test_anEcho(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        await scene.server()
        said = scene.client()
        said.socket.end(SOME)
        await said.happened("close")
        assert said.data == SOME
        assert said.hadError == [False]


@inEveryWeather()
async def test_halfOpen(network: MemoryNetwork) -> None:
    """The answer comes after the client's end."""

    def answer(socket: Socket) -> None:
        heard: list[bytes] = []
        socket.on("data", heard.append)
        socket.on("end", lambda: socket.end(b"".join(heard)[::-1]))

    async with Scene(network) as scene:
        await scene.server(listener=answer, allowHalfOpen=True)
        said = scene.client(allowHalfOpen=True)
        said.socket.end(SOME)
        await said.happened("close")
        assert said.data == SOME[::-1]


@inEveryWeather()
async def test_aTimeoutOfHalfAnHour(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        await scene.server()
        said = scene.client()
        said.socket.setTimeout(HALF_AN_HOUR)
        await said.happened("connect")
        await scene.after(1000)
        said.socket.write(b"still here")
        await said.happened("timeout")
        # What was sent back is the last that it heard.
        assert 2800 <= network.now < 2801
        assert "close" not in said.events


@inEveryWeather()
async def test_aServersIdleTimeout(network: MemoryNetwork, loggedErrors: LoggedErrors) -> None:
    async with Scene(network) as scene:
        await scene.server(listener=ignore, limits=Limits(idleTimeout=1800))
        said = scene.client()
        await said.happened("close")
        assert 1800 <= network.now < 1801
        assert len(loggedErrors.flush("idleTimeout")) == 1


@inEveryWeather()
async def test_pressure(network: MemoryNetwork) -> None:
    """A server that is paused takes no more than what stands between the two."""
    sockets: list[Socket] = []

    def hold(socket: Socket) -> None:
        sockets.append(socket.pause())
        socket.on("data", lambda data: None)
        socket.pause()

    async with Scene(network) as scene:
        await scene.server(listener=hold)
        said = scene.client()
        await said.happened("connect")
        for _ in range(5):
            said.socket.write(SOME)
        await scene.after(60)
        assert said.socket.writableLength > 4_000_000
        assert sockets[0].bytesRead < 300_000
        sockets[0].resume()
        await said.happened("drain")
        said.socket.end()
        await said.happened("close")
        assert sockets[0].bytesRead == 5 * len(SOME)


@inEveryWeather()
async def test_aRate(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        server = await scene.server(listener=ignore, limits=Limits(readRate=100_000))
        said = scene.client()
        said.socket.end(SOME)
        await said.happened("close")
        assert 8 <= network.now <= 12
        assert server.connections == 0


@inEveryWeather()
async def test_onlySoMany(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        server = await scene.server(limits=Limits(connections=3))
        dropped = Journal(server)
        clients = [scene.client() for _ in range(5)]
        await dropped.until(lambda: len(dropped.args.get("drop", ())) == 2)
        await scene.after(1)
        assert sum("close" in client.events for client in clients) == 2
        assert server.connections == 3


@inEveryWeather("client", "other", "server")
async def test_onlySoManyFromOne(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        server = await scene.server(limits=Limits(perPeer=2))
        clients = [scene.client() for _ in range(4)] + [scene.client(host="other") for _ in range(2)]
        await scene.after(2)
        assert [sum("close" in one.events for one in group) for group in (clients[:4], clients[4:])] == [2, 0]
        assert server.connections == 4


@inEveryWeather()
async def test_onlySoManyOfOneUser(network: MemoryNetwork) -> None:
    """On a UNIX socket a peer is a user, which the kernel tells (SO_PEERCRED)."""
    host = network.host("server")
    async with Scene(network) as scene:
        server = await scene.server({"path": "/run/s"}, limits=Limits(perPeer=1))
        one = scene.client({"path": "/run/s"}, host="server")
        await one.happened("connect")
        await scene.after(1)
        more = scene.client({"path": "/run/s"}, host="server")
        await more.happened("close")
        host.credentials = struct.pack("3i", 7, 2000, 2000)
        other = scene.client({"path": "/run/s"}, host="server")
        await other.happened("connect")
        await scene.after(1)
        assert "close" not in one.events + other.events
        assert server.connections == 2


@pytest.mark.parametrize("name", ["/run/s", "unix:@name"])
@inEveryWeather()
async def test_unix(network: MemoryNetwork, name: str) -> None:
    async with Scene(network) as scene:
        await scene.server(name)
        said = scene.client(name, host="server")
        said.socket.end(SOME)
        await said.happened("close")
        assert said.data == SOME
        elsewhere = scene.client(name, host="client")
        await elsewhere.happened("close")
        assert elsewhere.codes == ["ENOENT" if name.startswith("/") else "ECONNREFUSED"]


@inEveryWeather()
async def test_anAddressInUse(network: MemoryNetwork) -> None:
    network.host("server").failing("bind", "EADDRINUSE", times=3)
    async with Scene(network) as scene:
        server = Server(echo, reactor=network.host("server").reactor)
        said = Journal(server)
        server.listen(80, retry=Backoff(initial=60, factor=2, maximum=3600, jitter=0))
        await server.whenListening()
        assert [(error.code, attempt, delay) for error, attempt, delay in said.args["retry"]] == [
            ("EADDRINUSE", 1, 60),
            ("EADDRINUSE", 2, 120),
            ("EADDRINUSE", 3, 240),
        ]
        assert network.now == 420
        client = scene.client()
        client.socket.end(b"hello")
        await client.happened("close")
        server.close()
        await server.whenClosed()


@inEveryWeather()
async def test_noDescriptorsLeft(network: MemoryNetwork) -> None:
    """Who comes while there are none waits with the kernel, and is served when there are some again."""
    host = network.host("server")
    async with Scene(network) as scene:
        await scene.server()
        usual, host.descriptorLimit = host.descriptorLimit, host.descriptorLimit - host.descriptorsLeft()
        said = scene.client()
        said.socket.end(b"hello")
        await scene.after(60)
        assert said.events[-3:] == ["connect", "ready", "finish"]
        host.descriptorLimit = usual
        await said.happened("close")
        assert said.data == b"hello"


@inEveryWeather()
async def test_anAcceptThatFails(network: MemoryNetwork) -> None:
    """Twisted's port turns the client away with its spare descriptor, and goes on."""
    network.host("server").failing("accept", "EMFILE")
    async with Scene(network) as scene:
        await scene.server()
        first = scene.client()
        await first.happened("close")
        second = scene.client()
        second.socket.end(b"hello")
        await second.happened("close")
        assert second.data == b"hello"


@inEveryWeather()
async def test_aTableOfDescriptorsThatIsFull(network: MemoryNetwork) -> None:
    """Beyond the reserve connections are refused, while there is still a descriptor to do it with."""
    host = network.host("server")
    host.descriptorLimit = len(host.sockets()) + 2 + 10 + 8  # the port, the spare one, ten clients, and the reserve
    async with Scene(network) as scene:
        server = await scene.server()
        limits = Journal(server)
        clients = [scene.client() for _ in range(20)]
        await scene.after(5)
        assert server.connections == 10
        assert sum("close" in client.events for client in clients) == 10
        assert {args[0] for args in limits.args["limit"]} == {"reserve"}


@inEveryWeather()
async def test_severalAddresses(network: MemoryNetwork) -> None:
    """Two that are dead, one that refuses, and the one that answers."""
    for name, address in (("gone", "fd00:9::9"), ("lost", "10.9.0.9")):
        network.host(name, address).die()
    network.names["many"] = Name(("fd00:9::9", "10.9.0.9", "fd00:0:0:2::1", "10.0.0.2"))
    async with Scene(network) as scene:
        await scene.server(80, "10.0.0.2")
        said = scene.client(80, "many")
        said.socket.end(b"hello")
        await said.happened("close")
        assert said.data == b"hello"
        # A quarter of a second for each that says nothing.
        assert 0.5 <= network.now < 1.5


@inEveryWeather()
async def test_aNameThatFails(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        said = scene.client(80, "nowhere")
        await said.happened("close")
        assert said.codes == ["ENOTFOUND"]


@inEveryWeather()
async def test_refused(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        said = scene.client()
        await said.happened("close")
        assert said.codes == ["ECONNREFUSED"]


@inEveryWeather()
async def test_aServerThatIsDead(network: MemoryNetwork) -> None:
    network.host("server").die()
    async with Scene(network) as scene:
        said = scene.client(connectTimeout=20)
        await said.happened("close")
        assert said.codes == ["ETIMEDOUT"]
        assert network.now == 20


@inEveryWeather()
async def test_aPartition(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        await scene.server(keepAlive=True)
        said = scene.client(keepAlive=True, keepAliveInitialDelay=60_000)
        await said.happened("connect")
        await scene.after(1)
        network.link("client", "server").cut()
        await said.happened("close")
        # A minute of silence, and nine probes that are not answered.
        assert 60 + 9 * 75 <= network.now < 62 + 9 * 75
        # Twisted's transports do not say what the kernel has said, so that every loss is one.
        assert said.codes == ["ECONNRESET"]


@inEveryWeather()
async def test_aReset(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        server = await scene.server(listener=ignore)
        said = scene.client()
        await said.happened("connect")
        await scene.after(1)
        for socket in list(server.clients):
            socket.resetAndDestroy()
        await said.happened("close")
        assert said.codes == ["ECONNRESET"]


@inEveryWeather()
async def test_aDrain(network: MemoryNetwork, loggedErrors: LoggedErrors) -> None:
    """A server that goes lets its clients finish, for a while."""
    async with Scene(network) as scene:
        server = await scene.server()
        said = scene.client()
        await said.happened("connect")
        await scene.after(1)
        await server.drain(30)
        assert 31 <= network.now < 32
        await said.happened("close")
        assert len(loggedErrors.flush("grace time")) == 1
