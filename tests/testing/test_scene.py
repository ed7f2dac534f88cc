"""Scenes: the same test bodies in memory and on real sockets, over TCP and UNIX; and how a scene ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from twisted.internet.interfaces import ITCPTransport, IUNIXTransport
from twisted.internet.protocol import Factory, Protocol, ServerFactory

from twisted_net.errors import OptionError
from twisted_net.net import Socket
from twisted_net.testing.loopback import LoopbackNetwork
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.peers import HeardError, Peer
from twisted_net.testing.runaway import LeakError
from twisted_net.testing.scene import TRANSPORTS, Scene, Transport

pytestmark = pytest.mark.network("memory", "loopback")

Network = MemoryNetwork | LoopbackNetwork


@pytest.fixture(params=TRANSPORTS)
def scene(request: pytest.FixtureRequest, network: Network) -> Iterator[Scene]:
    scene = Scene(network, request.param)
    yield scene
    network.run(scene.ends)


class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


# -- the same bodies on every ground


async def test_echo(scene: Scene) -> None:
    served = await scene.serve(Echo)
    client = await served.connects()
    client.sends(b"hello")
    await client.hears(b"hello")
    client.closes()
    await client.hears("close")
    await served.closes()


async def test_halfClose(scene: Scene) -> None:
    client, server = await scene.pair()
    client.sends(b"question")
    client.ends()
    await server.hears(b"question")
    await server.hears("end")
    server.sends(b"answer")
    server.closes()
    assert await client.hearsAll() == b"answer"
    client.closes()
    await client.hears("close")
    await server.hears("close")


async def test_pause(scene: Scene) -> None:
    client, server = await scene.pair()
    server.pauses()
    client.sends(b"kept")
    await server.hearsNothing(0.02)
    server.resumes()
    await server.hears(b"kept")


async def test_reset(network: Network) -> None:
    scene = Scene(network)
    client, server = await scene.pair()
    server.aborts()
    await client.hears("reset")
    await server.hears("abort")
    scene.ends()


async def test_aMegabyte(scene: Scene) -> None:
    served = await scene.serve(Echo)
    client = await served.connects()
    client.sends(b"0123456789abcdef" * 65_536)
    await client.hears(b"0123456789abcdef" * 65_536)


async def test_theTransportIsTheOneThatWasAskedFor(network: Network) -> None:
    for transport, interface in (("tcp", ITCPTransport), ("unix", IUNIXTransport)):
        scene = Scene(network, transport)  # type: ignore[arg-type]
        client, server = await scene.pair()
        assert interface.providedBy(client.transport)
        assert interface.providedBy(server.transport)
        scene.ends()


# -- what can be served


async def test_aFactory(scene: Scene) -> None:
    factory = ServerFactory.forProtocol(Echo)
    factory.noisy = False
    served = await scene.serve(factory)
    assert served.server is None
    assert served.port.factory is factory
    client = await served.connects()
    client.sends(b"x")
    await client.hears(b"x")


async def test_aFunctionOfASocket(scene: Scene) -> None:
    sockets: list[Socket] = []

    def greet(socket: Socket) -> None:
        sockets.append(socket)
        socket.write(b"hello")

    served = await scene.serve(greet)
    assert served.server is not None
    assert served.server.port is served.port
    client = await served.connects()
    await client.hears(b"hello")
    (socket,) = sockets
    assert not socket.destroyed
    await served.closes()
    await client.hears("end")
    assert socket.destroyed
    await served.closes()


async def test_aPeerOfOnesOwnConnects(scene: Scene) -> None:
    served = await scene.serve(Echo)
    mine = scene.peers.peer("mine", halfClose=False)
    assert await served.connects(mine) is mine


class NoProtocol:
    """Nobody's protocol."""


async def handler(socket: Socket) -> None:
    """Not awaited by anybody."""


@pytest.mark.parametrize("what", [NoProtocol, asyncio.Protocol, ServerFactory, Echo(), 8080, None, handler])
async def test_whatCannotBeServed(what: Any, scene: Scene) -> None:
    with pytest.raises(OptionError, match=r"what is .*; it must be a protocol class, a factory \(an object, not its"):
        await scene.serve(what)


@pytest.mark.parametrize("transport", ["udp", "TCP", None])
def test_anotherTransport(transport: Any, network: Network) -> None:
    with pytest.raises(OptionError, match=f"transport is {transport!r}; it must be one of tcp, unix"):
        Scene(network, transport)


# -- its end


def ended(network: Network, play: Callable[[], Coroutine[Any, Any, Any]], scene: Scene) -> None:
    network.run(play)
    network.run(scene.ends)
    network.close()  # raises when anything is open


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_everythingIsEnded(transport: Transport, network: Network) -> None:
    scene = Scene(network, transport)
    sockets: list[Socket] = []
    peers: list[Peer] = []

    async def play() -> None:
        peers.extend(await scene.pair())
        for what in (Echo, Factory.forProtocol(Echo), sockets.append):
            served = await scene.serve(what)
            peers.append(await served.connects())
        await served.closes()
        unconnected = scene.peers.peer()
        scene.peers.all.append(unconnected)

    ended(network, play, scene)
    assert all(peer.gone for peer in peers)
    assert all(socket.destroyed for socket in sockets)


def test_endingTwiceIsHarmless(network: Network) -> None:
    scene = Scene(network)

    async def play() -> None:
        await scene.pair()
        scene.ends()

    ended(network, play, scene)


def test_aPausedPeerIsEndedToo(network: Network) -> None:
    scene = Scene(network)

    async def play() -> None:
        client, server = await scene.pair()
        client.sends(b"never read")
        server.pauses()
        client.pauses()

    ended(network, play, scene)


@pytest.mark.network("memory")
class TestInMemory:
    """What has befallen the hosts does not keep a scene from its end."""

    @pytest.mark.parametrize("name", ["client", "server"])
    @pytest.mark.parametrize("what", ["die", "freeze"])
    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_hosts(self, transport: Transport, what: str, name: str, memoryNetwork: MemoryNetwork) -> None:
        scene = Scene(memoryNetwork, transport)

        async def play() -> None:
            await scene.pair()
            await scene.serve(Echo)
            served = await scene.serve(lambda socket: None)
            await served.connects()
            getattr(memoryNetwork.host(name), what)()

        ended(memoryNetwork, play, scene)

    def test_links(self, memoryNetwork: MemoryNetwork) -> None:
        scene = Scene(memoryNetwork)

        async def play() -> None:
            client, server = await scene.pair()
            served = await scene.serve(Echo)
            await served.connects()
            memoryNetwork.partition(["client"], ["server"])
            client.sends(b"lost")
            with pytest.raises(HeardError):
                await server.hears(b"lost")

        ended(memoryNetwork, play, scene)

    def test_whoWasConnectedToTheDead(self, memoryNetwork: MemoryNetwork) -> None:
        scene = Scene(memoryNetwork)

        async def play() -> None:
            served = await scene.serve(Echo)
            await served.connects()
            memoryNetwork.host("client").die()

        with pytest.raises(LeakError, match=r"left behind:\n  server: connection server:\d+ to client:\d+\n[^ ]"):
            ended(memoryNetwork, play, scene)

    async def test_theHostsAreTwo(self, memoryNetwork: MemoryNetwork) -> None:
        scene = Scene(memoryNetwork)
        client, server = await scene.pair()
        assert client.transport.getPeer().host == memoryNetwork.host("server").address
        assert server.transport.getPeer().host == memoryNetwork.host("client").address
        scene.ends()
