"""UdpSocket from outside: in coroutines of both drivers, on every kind of socket, and in memory in every weather."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conditions import needsIPv6
from drivers import CANCELLED, Driver, Running, awaited, everyDriver, passesOnAsyncio, theReactor
from turning import turns, until
from twisted.internet.defer import Deferred
from weather import inEveryWeather

from twisted_net import udp
from twisted_net.errors import AddressError, ClosedError, NetError, OptionError, RefusedError, TimedOutError
from twisted_net.sansio.faults import Duplicate, Latency, Loss, Reorder
from twisted_net.testing.network import MemoryNetwork
from twisted_net.udp import Received, UdpSocket
from twisted_net.wire.waiting import loopOf


@pytest.fixture(params=["udp4", pytest.param("udp6", marks=needsIPv6), "unix", "abstract"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to bind."""
    return {
        "udp4": "127.0.0.1:0",
        "udp6": "[::1]:0",
        "unix": f"unix:{tmp_path}/s",
        "abstract": f"unix:@twisted-net-{os.getpid()}",
    }[request.param]


@awaited
async def test_bothWays(place: str) -> None:
    async with await udp.bind(place) as server, await udp.connect(str(server.address)) as client:
        assert await client.send(b"hello") == 5
        packet = await server.recvFrom()
        assert packet == Received(b"hello", client.address, False)
        assert await server.sendTo(b"back", packet.address) == 4
        assert await client.recv() == b"back"
        assert await client.send(b"") == 0
        assert await server.recvFrom() == Received(b"", client.address, False)
        assert await client.sendTo(b"also", str(server.address)) == 4
        assert (await server.recvFrom()).data == b"also"
        assert (client.peer, server.peer) == (server.address, None)
        assert (server.received, server.sent, server.dropped) == (3, 1, 0)
    assert server.closed
    assert client.closed


@awaited
async def test_cut(place: str) -> None:
    async with await udp.bind(place) as server, await udp.connect(str(server.address)) as client:
        for most, data, truncated in ((3, b"012", True), (4, b"0123", False), (0, b"", True)):
            await client.send(b"0123")
            assert await server.recvFrom(most) == Received(data, client.address, truncated)
        await server.sendTo(b"0123", client.address)
        await server.sendTo(b"4567", client.address)
        assert await client.recv(3) == b"012"
        assert await client.recv() == b"4567"  # the rest of the first one is gone


@pytest.mark.parametrize("most", [-1, 65_536, 1.5, True, None])
@awaited
async def test_noSize(most: Any) -> None:
    async with await udp.bind("127.0.0.1:0") as server:
        with pytest.raises(OptionError, match="recvFrom: max is"):
            await server.recvFrom(most)


@awaited
async def test_aName() -> None:
    async with await udp.bind("127.0.0.1:0") as server, await udp.bind("localhost:0", family=4) as client:
        assert await client.sendTo(b"x", f"localhost:{server.address.port}") == 1
        assert (await server.recvFrom()).address == client.address
        await client.connect(f"localhost:{server.address.port}")
        assert client.peer == server.address
        with pytest.raises(NetError) as caught:
            await client.sendTo(b"x", "nobody.invalid:9")
        assert caught.value.code in ("ENOTFOUND", "EAI_AGAIN")


@awaited
async def test_noAddress() -> None:
    with pytest.raises(AddressError, match="53 is nobody to send to"):
        await udp.bind(53)  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="neither a port"):
        await udp.connect("nonsense")
    async with await udp.bind("127.0.0.1:0") as client:
        with pytest.raises(AddressError, match="an internet socket sends to host:port"):
            await client.sendTo(b"x", "/run/x")


@awaited
async def test_noOptions() -> None:
    with pytest.raises(OptionError, match="there is no option 'loops'"):
        await udp.bind("127.0.0.1:0", loops=True)
    with pytest.raises(OptionError, match="queueLimit is 0"):
        await udp.bind("127.0.0.1:0", queueLimit=0)
    with pytest.raises(OptionError, match="ttl is 256"):
        await udp.connect("127.0.0.1:9", ttl=256)
    async with await udp.bind("127.0.0.1:0") as one:
        with pytest.raises(OptionError, match="reusePort has no effect"):
            one.setOptions(reusePort=True)
        with pytest.raises(OptionError, match="send: 'text' is no bytes"):
            await one.sendTo("text", one.address)  # type: ignore[arg-type]


@awaited
async def test_broadcast() -> None:
    async with await udp.bind("127.0.0.1:0") as one:
        with pytest.raises(NetError, match="broadcast=True"):
            await one.sendTo(b"x", "255.255.255.255:9")
        one.setOptions(broadcast=True)
        with suppress(NetError):  # whether there is a way depends on the machine
            await one.sendTo(b"x", "255.255.255.255:9")
        one.setOptions(broadcast=False)
        with pytest.raises(NetError) as caught:
            await one.sendTo(b"x", "255.255.255.255:9")
        assert caught.value.code == "EACCES"


@awaited
async def test_groups() -> None:
    one = await udp.bind(":0", reuseAddress=True, interface="127.0.0.1", ttl=0)
    async with one, await udp.bind(str(one.address), reuseAddress=True) as other:
        group = f"239.255.7.9:{one.address.port}"
        one.joinGroup("239.255.7.9", "127.0.0.1")
        other.joinGroup("239.255.7.9", "127.0.0.1")
        await one.sendTo(b"hello", group)
        assert (await one.recvFrom()).data == (await other.recvFrom()).data == b"hello"
        other.leaveGroup("239.255.7.9", "127.0.0.1")
        with pytest.raises(NetError, match="is no member"):
            other.leaveGroup("239.255.7.9", "127.0.0.1")


@awaited
async def test_notConnected() -> None:
    async with await udp.bind("127.0.0.1:0") as one:
        with pytest.raises(NetError, match="not connected") as caught:
            await one.send(b"x")
        assert caught.value.code == "ENOTCONN"
        with pytest.raises(NetError, match="use recvFrom") as caught:
            await one.recv()
        assert caught.value.code == "ENOTCONN"


@pytest.mark.parametrize("verb", ["recv", "send"])
@awaited
async def test_refused(verb: str) -> None:
    """Once, by the next call; then the socket goes on."""
    server = await udp.bind("127.0.0.1:0")
    where = str(server.address)
    async with await udp.connect(where) as client:
        server.close()
        await client.send(b"x")
        with pytest.raises(RefusedError) as caught:
            await (client.recv() if verb == "recv" else client.send(b"y"))
        assert str(caught.value.address) == where
        async with await udp.bind(where) as again:
            await client.send(b"z")
            packet = await again.recvFrom()
            assert packet.data == b"z"
            await again.sendTo(b"!", packet.address)
            assert await client.recv() == b"!"


@awaited
async def test_refusedWhenNobodyAsks() -> None:
    """What ICMP brings while nobody waits is said by the next call."""
    server = await udp.bind("127.0.0.1:0")
    async with await udp.connect(str(server.address)) as client, await udp.bind("127.0.0.1:0") as timer:
        server.close()
        await client.send(b"x")
        timer.setTimeout(0.05)
        with pytest.raises(TimedOutError):
            await timer.recvFrom()
        with pytest.raises(RefusedError):
            await client.send(b"y")
        await client.send(b"z")


@awaited
async def test_timeouts() -> None:
    async with await udp.bind("127.0.0.1:0") as server, await udp.connect(str(server.address)) as client:
        server.setTimeout(0)
        with pytest.raises(TimedOutError, match="recvFrom: nothing came in time"):
            await server.recvFrom()
        await client.send(b"x")
        assert (await server.recvFrom()).data == b"x"  # it is in the kernel, so it has come
        server.setTimeout(0.01)
        with pytest.raises(TimedOutError) as caught:
            await server.recvFrom()
        assert (caught.value.code, caught.value.syscall) == ("ETIMEDOUT", "recvFrom")
        for forever in (None, -1, float("inf"), 60):
            server.setTimeout(forever)
            await client.send(b"y")
            assert (await server.recvFrom()).data == b"y"


@pytest.mark.parametrize("seconds", ["1", True, float("nan")])
@awaited
async def test_noTimeout(seconds: Any) -> None:
    async with await udp.bind("127.0.0.1:0") as one:
        with pytest.raises(OptionError, match="seconds is"):
            one.setTimeout(seconds)


@awaited
async def test_iteration() -> None:
    heard = []
    async with await udp.bind("127.0.0.1:0") as server, await udp.connect(str(server.address)) as client:
        for number in range(3):
            await client.send(b"%d" % number)
        async for packet in server:
            heard.append(packet.data)
            if len(heard) == 3:
                server.close()
    assert heard == [b"0", b"1", b"2"]


@awaited
async def test_closed(place: str) -> None:
    one = await udp.bind(place)
    where = one.address
    assert repr(one) == f"<UdpSocket {where}>"
    assert await one.close() is None  # type: ignore[func-returns-value]
    one.close()
    assert repr(one) == f"<UdpSocket {where}, closed>"
    assert one.address == where
    again = await udp.bind(str(where))
    again.close()
    for call in (one.recvFrom(), one.recv(), one.send(b"x"), one.sendTo(b"x", where), one.connect(where)):
        with pytest.raises(ClosedError):
            await call
    with pytest.raises(ClosedError):
        one.joinGroup("239.255.7.7")
    if where.family != "unix":
        with pytest.raises(ClosedError):
            await one.sendTo(b"x", "localhost:9")


@everyDriver
@pytest_twisted.ensureDeferred
async def test_closedWhileTheyWait(driver: Driver) -> None:
    one = await udp.bind("127.0.0.1:0")
    waiting = [Running(driver, one.recvFrom()) for _ in range(3)]
    await turns(2)
    one.close()
    for receiver in waiting:
        with pytest.raises(ClosedError, match="closed while this waited"):
            await receiver.done


@everyDriver
@pytest_twisted.ensureDeferred
async def test_severalReceivers(driver: Driver) -> None:
    """Each datagram goes to one of them, in the order in which they came."""
    one = await udp.bind("127.0.0.1:0")
    waiting = [Running(driver, one.recvFrom()) for _ in range(3)]
    await turns(2)
    for number in range(3):
        await one.sendTo(b"%d" % number, one.address)
    assert [(await receiver.done).data for receiver in waiting] == [b"0", b"1", b"2"]
    one.close()


@everyDriver
@pytest_twisted.ensureDeferred
async def test_cancelledAtEveryTurn(driver: Driver) -> None:
    """However late a receiver is cancelled, the datagram is received: by him, or by the next one."""
    for late in range(4):
        one = await udp.bind("127.0.0.1:0")
        first, second = Running(driver, one.recvFrom()), Running(driver, one.recvFrom())
        await turns(2)
        await one.sendTo(b"x", one.address)
        await turns(late)
        first.cancel()
        try:
            got = await first.done
        except CANCELLED[driver]:
            got = await second.done
        else:
            second.cancel()
            with pytest.raises(CANCELLED[driver]):
                await second.done
        assert got.data == b"x"
        assert one.received == 1
        one.close()


@everyDriver
@pytest_twisted.ensureDeferred
async def test_cancelledAfterItWasWoken(driver: Driver) -> None:
    """asyncio may cancel a task after its datagram has come: then it is the next one's."""
    one = await udp.bind("127.0.0.1:0")
    first, second = Running(driver, one.recvFrom()), Running(driver, one.recvFrom())
    await turns(2)
    one._received(b"x", ("127.0.0.1", 9))
    first.cancel()
    if driver == "twisted":  # resumed at once, so it was too late
        assert (await first.done).data == b"x"
        second.cancel()
        with pytest.raises(CANCELLED[driver]):
            await second.done
    else:
        with pytest.raises(CANCELLED[driver]):
            await first.done
        assert (await second.done).data == b"x"
    one.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[socket.socket]:
    """A UNIX socket at ``s`` of the folder that reads only when it is told to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
        skt.bind(f"{tmp_path}/s")
        skt.setblocking(False)
        yield skt
    os.unlink(f"{tmp_path}/s")


async def fill(client: UdpSocket) -> int:
    """Send until there is no room; how many went."""
    client.setTimeout(0)

    async def flood() -> None:
        while True:
            await client.send(b"%d" % client.sent)

    with pytest.raises(TimedOutError, match="send: there was no room in the system in time"):
        await flood()
    client.setTimeout(None)
    return client.sent


@everyDriver
@pytest_twisted.ensureDeferred
async def test_sendersWait(driver: Driver, tmp_path: Path, full: socket.socket) -> None:
    """In their order, and a cancelled or late one is never sent."""
    client = await udp.connect(f"unix:{tmp_path}/s")
    count = await fill(client)
    waiting = [Running(driver, client.send(text)) for text in (b"one", b"two", b"three")]
    await turns(3)
    assert not any(sender.done.called for sender in waiting)
    waiting[1].cancel()
    with pytest.raises(CANCELLED[driver]):
        await waiting[1].done
    for number in range(count):
        assert full.recv(100) == b"%d" % number
    assert [await waiting[0].done, await waiting[2].done] == [3, 5]
    assert [full.recv(100), full.recv(100)] == [b"one", b"three"]
    with pytest.raises(BlockingIOError):
        full.recv(100)
    client.close()


@everyDriver
@pytest_twisted.ensureDeferred
async def test_closedWhileSendersWait(driver: Driver, tmp_path: Path, full: socket.socket) -> None:
    client = await udp.connect(f"unix:{tmp_path}/s")
    await fill(client)
    sender = Running(driver, client.send(b"x"))
    await turns(2)
    client.close()
    with pytest.raises(ClosedError, match="closed before there was room"):
        await sender.done


@pytest_twisted.ensureDeferred
async def test_queueLimit() -> None:
    server = await udp.bind("127.0.0.1:0", queueLimit=2)
    client = await udp.connect(str(server.address))
    assert server.queueLimit == 2
    for number in range(5):
        await client.send(b"%d" % number)
    await until(lambda: server.received == 5)
    assert server.dropped == 3
    server.queueLimit = 3
    await client.send(b"5")
    assert [(await server.recvFrom()).data for _ in range(3)] == [b"0", b"1", b"5"]
    server.close()
    client.close()


@pytest_twisted.ensureDeferred
async def test_theReactorEndsIt() -> None:
    """Who waits hears why."""
    from twisted.internet.error import ConnectionLost
    from twisted.python.failure import Failure

    one = await udp.bind("127.0.0.1:0")
    waiting = Deferred.fromCoroutine(one.recvFrom())
    theReactor().removeReader(one._port)
    one._port.connectionLost(Failure(ConnectionLost()))
    with pytest.raises(ClosedError) as caught:
        await waiting
    assert isinstance(caught.value.__cause__, NetError)


# -- in memory


@inEveryWeather()
async def test_echoInMemory(network: MemoryNetwork) -> None:
    """On the virtual clock, by names, and on as many hosts as there are."""
    there, here = network.host("server").reactor, network.host("client").reactor
    server = await udp.bind(":7", reactor=there)

    async def echo() -> None:
        async for packet in server:
            await server.sendTo(packet.data, packet.address)

    echoing = Deferred.fromCoroutine(echo())
    client = await udp.connect("server:7", reactor=here)
    client.setTimeout(3600)
    for number in range(50):
        await client.send(b"%d" % number)
        assert await client.recv() == b"%d" % number
    client.close()
    server.close()
    await echoing


FAULTS = (
    Latency(0.01, jitter=0.02),
    Loss(probability=0.2),
    Duplicate(probability=0.2),
    Reorder(delay=0.1, probability=0.2),
)


@pytest.mark.parametrize("seed", range(10))
def test_badRoads(seed: int) -> None:
    """Loss, duplicates and another order: whatever comes was sent, whole, and counted."""
    sent = [b"%d" % number * 50 for number in range(200)]
    heard: list[bytes] = []
    with MemoryNetwork(seed) as network:
        one, other = network.host("one"), network.host("other")
        network.link(one, other).setFaults(*FAULTS)

        async def listen(server: UdpSocket) -> None:
            async for packet in server:
                heard.append(packet.data)

        async def scenario() -> None:
            server = await udp.bind(":7", queueLimit=1000, reactor=other.reactor)
            client = await udp.connect("other:7", reactor=one.reactor)
            for data in sent:
                await client.send(data)
            server.setTimeout(10)
            with pytest.raises(TimedOutError):
                await listen(server)
            assert server.received == len(heard)
            assert server.dropped == 0
            server.close()
            client.close()

        network.run(scenario)
    assert set(heard) < set(sent)
    assert max(Counter(heard).values()) > 1
    assert heard != sorted(heard, key=sent.index)


def test_groupsInMemory() -> None:
    with MemoryNetwork() as network:
        hosts = [network.host(name) for name in ("one", "two", "three")]

        async def scenario() -> None:
            sockets = [await udp.bind(":5353", reactor=host.reactor) for host in hosts]
            for one in sockets[1:]:
                one.joinGroup("224.0.0.251")
            await sockets[0].sendTo(b"who", "224.0.0.251:5353")
            assert [(await one.recvFrom()).data for one in sockets[1:]] == [b"who", b"who"]
            sockets[0].setTimeout(1)
            with pytest.raises(TimedOutError):
                await sockets[0].recvFrom()
            for one in sockets:
                one.close()

        network.run(scenario)


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="asyncio runs this reactor already")
def test_onAsyncio() -> None:
    """All of it, where asyncio's driver is there too: who runs this file alone has tried both."""
    passesOnAsyncio(__file__)
