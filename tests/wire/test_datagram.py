"""DatagramPort alone: what comes, what goes, what fails, and how it ends, on UDP, UNIX and in memory."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, KnowingNames, NameService, needsIPv6, noDescriptors
from turning import PATIENCE, turns, until
from twisted.internet import reactor as installedReactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from twisted_net.address import UdpTarget, UnixTarget
from twisted_net.errors import ClosedError, LimitError, NetError, OptionError, RefusedError
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import LONGEST, READS, UNSENT_LIMIT, DatagramPort, bind, connect
from twisted_net.wire.destination import addressOf, datagramTarget, placeOf

globalReactor: Any = installedReactor

PLAIN = DatagramOptions()
LOCAL = UdpTarget("127.0.0.1", 0)

onLinux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say whose port is closed")


def comes(port: DatagramPort, *masks: int) -> None:
    """Wait for each of these on *port*, without letting the reactor see to it."""
    poller = select.poll()
    poller.register(port.fileno(), select.POLLIN)
    latest = monotonic() + PATIENCE
    for mask in masks:
        while not any(found & mask for _, found in poller.poll(100)):
            assert monotonic() < latest, "it has not come"


def idle(port: DatagramPort) -> bool:
    """Whether the reactor has no reason to look at *port*."""
    poller = select.poll()
    poller.register(port.fileno(), select.POLLIN)
    return poller.poll(0) == []


class Watcher:
    """Keeps what a port tells."""

    def __init__(self) -> None:
        self.errors: list[NetError] = []
        self.ends: list[NetError | None] = []

    def failed(self, error: NetError) -> None:
        self.errors.append(error)

    def ended(self, error: NetError | None) -> None:
        self.ends.append(error)


class Ports:
    """Makes ports that have begun, with a `Watcher` each, and closes them after the test."""

    def __init__(self) -> None:
        self.made: list[DatagramPort] = []

    async def __call__(self, text: str, how: Any = bind, options: DatagramOptions = PLAIN) -> tuple[DatagramPort, Any]:
        port = await Deferred.fromCoroutine(how(globalReactor, datagramTarget(text), options))
        return port, self.begun(port)

    def begun(self, port: DatagramPort) -> Watcher:
        self.made.append(port)
        watcher = Watcher()
        port.start(watcher)
        return watcher


@pytest.fixture
def ports() -> Iterator[Ports]:
    ports = Ports()
    yield ports
    for port in ports.made:
        port.close()


@pytest.fixture(params=["udp4", pytest.param("udp6", marks=needsIPv6), "unix", "abstract"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to bind."""
    return {
        "udp4": "127.0.0.1:0",
        "udp6": "[::1]:0",
        "unix": f"unix:{tmp_path}/s",
        "abstract": f"unix:@twisted-net-{os.getpid()}",
    }[request.param]


@pytest_twisted.ensureDeferred
async def test_bothWays(ports: Ports, place: str) -> None:
    server, told = await ports(place)
    client, _ = await ports(str(server.address), connect)
    assert client.peer == server.address
    assert server.peer is None
    assert client.send(b"hello") == 5
    assert client.send(b"") == 0
    await until(lambda: len(server.held) == 2)
    (hello, sender), (empty, _) = server.held
    assert (hello, empty) == (b"hello", b"")
    assert addressOf(server.family, sender) == client.address
    back = bytearray(b"back")
    assert server.send(memoryview(back), placeOf(server.family, client.address)) == 4
    heard: list[Any] = []
    client.receive = lambda data, place: heard.append((data, addressOf(client.family, place)))
    await until(lambda: heard)
    assert heard == [(b"back", server.address)]
    assert (server.received, server.dropped, server.sent, client.sent, client.received) == (2, 0, 1, 2, 1)
    assert told.errors == []


@pytest_twisted.ensureDeferred
async def test_tooManyToHold(ports: Ports) -> None:
    """The first ones stay, the others are dropped and counted; none goes to a receiver of its own."""
    server, _ = await ports("127.0.0.1:0")
    server.queueLimit = 2
    client, _ = await ports(str(server.address), connect)
    for number in range(5):
        client.send(b"%d" % number)
    await until(lambda: server.received == 5)
    assert [data for data, _ in server.held] == [b"0", b"1"]
    assert server.dropped == 3
    server.held.popleft()
    client.send(b"5")
    await until(lambda: server.received == 6)
    assert [data for data, _ in server.held] == [b"1", b"5"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
@pytest_twisted.ensureDeferred
async def test_noLimit(ports: Ports, limit: Any) -> None:
    port, _ = await ports("127.0.0.1:0")
    with pytest.raises(OptionError, match="queueLimit is"):
        port.queueLimit = limit
    assert port.queueLimit == 256


@pytest_twisted.ensureDeferred
async def test_aFloodHasItsTurns(ports: Ports) -> None:
    server, _ = await ports("127.0.0.1:0")
    client, _ = await ports(str(server.address), connect)
    for _ in range(READS + 1):
        client.send(b"x")
    server.doRead()
    assert server.received == READS
    server.doRead()
    assert server.received == READS + 1
    server.doRead()
    assert server.received == READS + 1


@pytest_twisted.ensureDeferred
async def test_closedByWhoReceives(ports: Ports) -> None:
    """The second datagram is nobody's any more."""
    server, told = await ports("127.0.0.1:0")
    client, _ = await ports(str(server.address), connect)
    server.receive = lambda data, place: server.close()
    client.send(b"1")
    client.send(b"2")
    await until(lambda: server.isClosed)
    assert (server.received, told.ends, told.errors) == (1, [None], [])


@pytest_twisted.ensureDeferred
async def test_receiverRaises(ports: Ports, loggedErrors: Any) -> None:
    """That is the program's fault: the reactor logs it, and the port ends with it."""
    server, told = await ports("127.0.0.1:0")
    client, _ = await ports(str(server.address), connect)

    def receive(data: bytes, place: Any) -> None:
        raise ZeroDivisionError("mine")

    server.receive = receive
    client.send(b"1")
    await until(lambda: server.isClosed)
    assert len(loggedErrors.flush("ZeroDivisionError: mine")) == 1
    [error] = told.ends
    assert error.code == "ERR_INTERNAL"


# -- what cannot be sent


@pytest.mark.parametrize(("place", "most"), [("127.0.0.1:0", 65_507), pytest.param("[::1]:0", 65_527, marks=needsIPv6)])
@pytest_twisted.ensureDeferred
async def test_theLongest(ports: Ports, place: str, most: int) -> None:
    server, _ = await ports(place)
    client, _ = await ports(str(server.address), connect)
    payload = os.urandom(most)
    assert client.send(payload) == most
    await until(lambda: server.held)
    assert server.held[0][0] == payload
    with pytest.raises(NetError, match=f"send: {most + 1:,} bytes are too long .* send at most {most:,}") as caught:
        client.send(bytes(most + 1))
    assert (caught.value.code, caught.value.fault, caught.value.address) == ("EMSGSIZE", "user", server.address)
    with pytest.raises(NetError, match="too long"):
        server.send(bytes(most + 1), placeOf(server.family, client.address))
    assert client.sent == 1


@pytest_twisted.ensureDeferred
async def test_theLongestOnUnix(ports: Ports, tmp_path: Path) -> None:
    """The sender's buffer is the bound there; who receives sees that something longer than 65,535 bytes was cut."""
    server, _ = await ports(f"unix:{tmp_path}/s")
    client, _ = await ports(f"unix:{tmp_path}/s", connect)
    client.send(bytes(LONGEST))
    client.send(bytes(LONGEST + 1))
    client.send(bytes(LONGEST + 1000))
    await until(lambda: server.received == 3)
    assert [len(data) for data, _ in server.held] == [LONGEST, LONGEST + 1, LONGEST + 1]
    client.setOptions(DatagramOptions(sendBuffer=5000))
    with pytest.raises(NetError, match="a UNIX socket sends less than its SO_SNDBUF") as caught:
        client.send(bytes(10_001))
    assert caught.value.code == "EMSGSIZE"


@pytest_twisted.ensureDeferred
async def test_notConnected(ports: Ports, place: str) -> None:
    port, _ = await ports(place)
    with pytest.raises(NetError, match=r"not connected; connect\(\) first, or say where") as caught:
        port.send(b"x")
    assert caught.value.code == "ENOTCONN"


@pytest_twisted.ensureDeferred
async def test_noBytes(ports: Ports) -> None:
    port, _ = await ports("127.0.0.1:0")
    with pytest.raises(OptionError, match="send: 'text' is no bytes; encode a text first"):
        port.send("text", ("127.0.0.1", 9))  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_broadcast(ports: Ports) -> None:
    port, _ = await ports("127.0.0.1:0")
    with pytest.raises(NetError, match="set the option broadcast=True") as caught:
        port.send(b"x", ("255.255.255.255", 9))
    assert (caught.value.code, caught.value.fault) == ("EACCES", "user")


@pytest_twisted.ensureDeferred
async def test_nobodyOnUnix(ports: Ports, tmp_path: Path) -> None:
    """There the kernel knows at once."""
    port, _ = await ports(f"unix:{tmp_path}/s")
    with pytest.raises(NetError, match=f"send unix:{tmp_path}/none: there is no such file") as caught:
        port.send(b"x", f"{tmp_path}/none")
    assert caught.value.code == "ENOENT"
    with pytest.raises(NetError) as caught:
        await ports(f"unix:{tmp_path}/none", connect)
    assert (caught.value.code, caught.value.syscall) == ("ENOENT", "connect")


@pytest_twisted.ensureDeferred
async def test_refused(ports: Ports) -> None:
    """It is told once, the port goes on, and works when somebody is there again. On every reactor."""
    server, _ = await ports("127.0.0.1:0")
    client, told = await ports(str(server.address), connect)
    server.close()
    client.send(b"x")
    await until(lambda: told.errors)
    [error] = told.errors
    assert isinstance(error, RefusedError)
    assert (error.syscall, error.address) == ("recv", server.address)
    assert not client.isClosed
    server, _ = await ports(str(server.address))
    client.send(b"y")
    await until(lambda: server.held)
    server.send(b"z", placeOf(server.family, client.address))
    await until(lambda: client.held)
    assert len(told.errors) == 1


@pytest_twisted.ensureDeferred
async def test_refusedBySend(ports: Ports) -> None:
    """Whoever sends before the reactor has looked is told."""
    server, _ = await ports("127.0.0.1:0")
    client, told = await ports(str(server.address), connect)
    server.close()
    client.send(b"x")
    with pytest.raises(RefusedError):
        client.send(b"y")
    assert client.send(b"z") == 1
    client.doRead()
    assert len(told.errors) == 1


# -- whose port is closed


async def conversation(ports: Ports, place: str, near: str = "") -> tuple[DatagramPort, Any, DatagramPort, Any, Any]:
    """A server that wants to be told, what its user hears, two clients' places, the first client, and who is told."""
    server, told = await ports(place)
    refused: list[Any] = []
    assert server.tellRefused(refused.append)
    one, _ = await ports(near or str(server.address).replace(f":{server.address.port}", ":0"))
    where = (one.address.address, server.address.port)
    one.send(b"hello", where)
    await until(lambda: server.held)
    return server, told, server.held.popleft()[1], one, refused


DUAL = ("[::]:0", "127.0.0.1:0")


@onLinux
@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("127.0.0.1:0", ""),
        pytest.param("[::1]:0", "", marks=needsIPv6),
        pytest.param(*DUAL, marks=needsIPv6),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tellRefused(ports: Ports, place: str, near: str) -> None:
    """Its place is told, in the form in which it came; the port goes on, and nothing is left to be ready for."""
    server, told, client, one, refused = await conversation(ports, place, near)
    assert server.send(b"answer", client) == 6
    await until(lambda: one.held)
    assert refused == []
    one.close()
    server.send(b"answer", client)
    await until(lambda: refused)
    assert refused == [client]
    await turns(3)
    assert (told.errors, told.ends, refused) == ([], [], [client])
    assert idle(server)
    again, _ = await ports(near or place)
    again.send(b"again", (again.address.address, server.address.port))
    await until(lambda: server.held)


@onLinux
@pytest_twisted.ensureDeferred
async def test_anErrorOfAnother(ports: Ports) -> None:
    """One client's error is no other's: what is sent to that one arrives, and nobody is told meanwhile."""
    server, told, client, one, refused = await conversation(ports, "127.0.0.1:0")
    other, _ = await ports("127.0.0.1:0")
    one.close()
    server.send(b"answer", client)
    comes(server, select.POLLERR)
    assert server.send(b"to you", placeOf(server.family, other.address)) == 6
    assert server.send(b"to you", placeOf(server.family, other.address)) == 6
    assert refused == []
    other.send(b"and back", placeOf(server.family, server.address))
    comes(server, select.POLLIN)
    server.doRead()  # as on a busy port: there is something to read, and it must not come before the news for ever
    assert (refused, len(server.held)) == ([client], 1)
    await until(lambda: len(other.held) == 2)
    await turns(2)
    assert (told.errors, told.ends, refused) == ([], [], [client])
    assert idle(server)


@onLinux
@pytest_twisted.ensureDeferred
async def test_readingMeetsTheErrorFirst(ports: Ports) -> None:
    server, told, client, one, refused = await conversation(ports, "127.0.0.1:0")
    other, _ = await ports(str(server.address), connect)
    one.close()
    other.send(b"x")
    server.send(b"answer", client)
    comes(server, select.POLLIN, select.POLLERR)
    server.doRead()
    assert (refused, len(server.held)) == ([client], 1)
    # As epoll's and poll's reactors have it, which take it for an end.
    server.send(b"answer", client)
    comes(server, select.POLLERR)
    globalReactor.removeReader(server)
    server.connectionLost(Failure(ConnectionDone()))
    assert refused == [client, client]
    other.send(b"x")
    await until(lambda: len(server.held) == 2)
    assert (told.errors, told.ends) == ([], [])


@onLinux
@pytest.mark.parametrize("place", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needsIPv6)])
@pytest_twisted.ensureDeferred
async def test_tooLongIsNobodysRefusal(ports: Ports, place: str) -> None:
    """The kernel puts that into the same queue."""
    server, told, client, _, refused = await conversation(ports, place)
    with pytest.raises(NetError) as caught:
        server.send(bytes(66_000), client)
    assert caught.value.code == "EMSGSIZE"
    await until(lambda: idle(server))
    assert (told.errors, told.ends, refused) == ([], [], [])


@onLinux
@pytest_twisted.ensureDeferred
async def test_manyHaveGone(ports: Ports) -> None:
    """More of them than are told in a turn."""
    server, _ = await ports("127.0.0.1:0")
    refused: list[Any] = []
    assert server.tellRefused(refused.append)
    with ExitStack() as stack:
        places = []
        for _ in range(READS + 2):
            skt = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            skt.bind(("127.0.0.1", 0))
            places.append(skt.getsockname())
    globalReactor.removeReader(server)
    for gone in places:
        server.send(b"answer", gone)
    comes(server, select.POLLERR)
    server.connectionLost(Failure(ConnectionDone()))
    assert 0 < len(refused) <= READS
    await until(lambda: len(refused) == len(places))
    assert refused == places
    assert idle(server)


@onLinux
@pytest_twisted.ensureDeferred
async def test_closedByWhoIsTold(ports: Ports) -> None:
    server, told, client, one, refused = await conversation(ports, "127.0.0.1:0")

    def leave(place: Any) -> None:
        refused.append(place)
        server.close()

    server.tellRefused(leave)
    one.close()
    server.send(b"answer", client)
    server.send(b"answer", client)
    await until(lambda: refused)
    assert (refused, told.errors, told.ends) == ([client], [], [None])


@pytest_twisted.ensureDeferred
async def test_nothingTellsOfRefusals(ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, _ = await ports(f"unix:{tmp_path}/s")
    assert not local.tellRefused(lambda place: None)
    with MemoryNetwork() as network:
        port = network.run(lambda: bind(network.reactor, LOCAL, PLAIN))
        port.start(Watcher())
        assert not port.tellRefused(lambda place: None)
        port.close()
    monkeypatch.setattr("twisted_net.wire.datagram._ERRQUEUE", 0)
    port, _ = await ports("127.0.0.1:0")
    assert not port.tellRefused(lambda place: None)


@pytest_twisted.ensureDeferred
async def test_descriptorsLeft(ports: Ports) -> None:
    one, _ = await ports("127.0.0.1:0")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert one.descriptorsLeft() == soft - one.fileno() - 1


# -- no room


async def full(ports: Ports, tmp_path: Path, connected: bool) -> tuple[DatagramPort, DatagramPort, Any]:
    """A UNIX port that does not read, one that has filled it, and where that sends to."""
    server = await Deferred.fromCoroutine(bind(globalReactor, UnixTarget(f"{tmp_path}/s"), PLAIN))
    client, _ = await ports(f"unix:{tmp_path}/s" if connected else f"unix:{tmp_path}/c", connect if connected else bind)
    place = None if connected else f"{tmp_path}/s"
    while client.send(b"full", place) is not None:
        pass
    return server, client, place


@pytest.mark.parametrize("connected", [True, False])
@pytest_twisted.ensureDeferred
async def test_whoWaitsForRoom(ports: Ports, tmp_path: Path, connected: bool) -> None:
    """In their order; those that come later wait, too; what the buffer becomes meanwhile does not matter."""
    server, client, place = await full(ports, tmp_path, connected)
    before = client.sent
    done: list[tuple[str, NetError | None]] = []
    buffer = bytearray(b"one")
    client.enqueue(buffer, place, lambda error: done.append(("one", error)))
    buffer[:] = b"eno"
    two = client.enqueue(b"two", place, lambda error: done.append(("two", error)))
    client.enqueue(b"long" * 100_000, place, lambda error: done.append(("long", error)))
    client.enqueue(b"three", place, lambda error: done.append(("three", error)))
    client.withdraw(two)
    client.doWrite()  # as when there is no room after all
    await turns(3)
    assert done == []
    ports.begun(server)
    await until(lambda: len(done) == 3)
    assert [name for name, _ in done] == ["one", "long", "three"]
    assert done[0][1] is None
    assert done[1][1] is not None
    assert done[1][1].code == "EMSGSIZE"
    await until(lambda: server.received == before + 2)
    assert [data for data, _ in server.held][-2:] == [b"one", b"three"]
    assert client.send(b"and on", place) == 6
    client.withdraw(two)
    assert client.sent == before + 3


@pytest.mark.parametrize("connected", [True, False])
@pytest_twisted.ensureDeferred
async def test_nobodyWaitsAnyMore(ports: Ports, tmp_path: Path, connected: bool) -> None:
    server, client, place = await full(ports, tmp_path, connected)
    ports.made.append(server)
    server.start(Watcher())
    globalReactor.removeReader(server)
    one = client.enqueue(b"one", place, lambda error: None)
    client.withdraw(one)
    assert client not in globalReactor.getWriters()
    assert client.send(b"x", place) is None  # for want of room, not of its turn


@pytest.mark.parametrize("connected", [True, False])
@pytest_twisted.ensureDeferred
async def test_closedBeforeThereIsRoom(ports: Ports, tmp_path: Path, connected: bool) -> None:
    server, client, place = await full(ports, tmp_path, connected)
    ports.begun(server)
    done: list[NetError | None] = []
    client.enqueue(b"one", place, done.append)
    client.enqueue(b"two", place, done.append)
    client.close()
    assert [type(error) for error in done] == [ClosedError, ClosedError]


@pytest_twisted.ensureDeferred
async def test_tooManyWait(ports: Ports, tmp_path: Path) -> None:
    server, client, place = await full(ports, tmp_path, True)
    ports.begun(server)
    for _ in range(UNSENT_LIMIT):
        client.enqueue(b"x", place, lambda error: None)
    with pytest.raises(LimitError, match=f"send: {UNSENT_LIMIT} datagrams wait already") as caught:
        client.enqueue(b"x", place, lambda error: None)
    assert caught.value.code == "ENOBUFS"


# -- options and groups


@pytest_twisted.ensureDeferred
async def test_options(ports: Ports) -> None:
    port, _ = await ports("127.0.0.1:0", options=DatagramOptions(broadcast=True))
    with socket.socket(fileno=os.dup(port.fileno())) as skt:
        assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
        port.setOptions(DatagramOptions(broadcast=False, ttl=7))
        assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 0
        assert skt.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7
    with pytest.raises(OptionError, match="reusePort has no effect on a socket that is bound"):
        port.setOptions(DatagramOptions(reusePort=True))


@pytest_twisted.ensureDeferred
async def test_reusePort(ports: Ports) -> None:
    shared = DatagramOptions(reusePort=True)
    one, _ = await ports("127.0.0.1:0", options=shared)
    other, _ = await ports(str(one.address), options=shared)
    assert other.address == one.address
    with pytest.raises(NetError) as caught:
        await ports(str(one.address))
    assert (caught.value.code, caught.value.syscall) == ("EADDRINUSE", "bind")


@pytest_twisted.ensureDeferred
async def test_groups(ports: Ports) -> None:
    member, _ = await ports(":0", options=DatagramOptions(interface="127.0.0.1"))
    group = ("239.255.7.7", member.address.port)
    member.joinGroup(group[0], "127.0.0.1")
    assert member.send(b"hello", group) == 5
    await until(lambda: member.held)
    assert member.held[0][0] == b"hello"
    member.leaveGroup(group[0], "127.0.0.1")


@needsIPv6
@pytest_twisted.ensureDeferred
async def test_everyInterface(ports: Ports) -> None:
    """``[::]`` hears IPv4, and answers it; unless it is told not to."""
    both, _ = await ports("[::]:0")
    client, _ = await ports(f"127.0.0.1:{both.address.port}", connect)
    client.send(b"x")
    await until(lambda: both.held)
    assert addressOf(both.family, both.held[0][1]).address == "::ffff:127.0.0.1"
    both.send(b"y", placeOf(both.family, client.address))
    await until(lambda: client.held)
    alone, _ = await ports("[::]:0", options=DatagramOptions(ipv6Only=True))
    await ports(f":{alone.address.port}")  # IPv4's is free


# -- its end


@pytest_twisted.ensureDeferred
async def test_closed(ports: Ports, place: str) -> None:
    port, told = await ports(place)
    where = port.address
    assert repr(port) == f"<DatagramPort {where}>"
    assert port.logPrefix() == "datagrams"
    port.hold(b"x", None)
    port.close()
    port.close()
    assert told.ends == [None]
    assert repr(port) == f"<DatagramPort {where}, closed>"
    assert (port.address, port.fileno(), len(port.held)) == (where, -1, 0)
    again, _ = await ports(str(where))  # in the same turn
    assert again.address == where
    calls: list[Callable[[], object]] = [
        lambda: port.send(b"x", placeOf(port.family, where)),
        lambda: port.connect(placeOf(port.family, where)),
        lambda: port.setOptions(PLAIN),
        lambda: port.joinGroup("239.255.7.7"),
        lambda: port.leaveGroup("239.255.7.7"),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="the socket is closed"):
            call()
    port.connectionLost(Failure(ConnectionLost()))
    assert told.ends == [None]


@pytest_twisted.ensureDeferred
async def test_theReactorEnds(ports: Ports, tmp_path: Path) -> None:
    """As when it disconnects everybody at its own end."""
    port, told = await ports(f"unix:{tmp_path}/s")
    globalReactor.removeReader(port)
    port.connectionLost(Failure(ConnectionLost()))
    [error] = told.ends
    assert error.code == "ECONNRESET"
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_anErrorThatWasNone(ports: Ports) -> None:
    """epoll's reactor knows an error by the descriptor's number, which may have been another socket's a moment ago."""
    server, told = await ports("127.0.0.1:0")
    client, _ = await ports(str(server.address), connect)
    globalReactor.removeReader(server)
    server.connectionLost(Failure(ConnectionDone()))
    assert told.ends == []
    client.send(b"x")
    await until(lambda: server.held)


@pytest_twisted.ensureDeferred
async def test_anErrorThatWasHeardAlready(ports: Ports) -> None:
    """The reactor has seen it; but before it serves that port another one sends by it, and is told."""
    gone, _ = await ports("127.0.0.1:0")
    client, told = await ports(str(gone.address), connect)
    server, _ = await ports("127.0.0.1:0")
    other, _ = await ports(str(server.address), connect)
    gone.close()
    raised: list[NetError] = []

    def receive(data: bytes, place: Any) -> None:
        try:
            client.send(b"y")
        except NetError as error:
            raised.append(error)

    server.receive = receive
    for _ in range(5):  # who is served first is the reactor's business
        other.send(b"x")
        client.send(b"y")
        await until(lambda: raised or told.errors)
        await turns(2)
        for errors in (raised, told.errors):
            for error in errors:
                assert error.code == "ECONNREFUSED"
            errors.clear()
    assert told.ends == []


@pytest_twisted.ensureDeferred
async def test_anErrorThatTheReactorTakesForTheEnd(ports: Ports) -> None:
    """epoll's and poll's reactors call `connectionLost` for it; what waits for room goes on waiting."""
    server, _ = await ports("127.0.0.1:0")
    client, told = await ports(str(server.address), connect)
    server.close()
    client.send(b"x")
    done: list[NetError | None] = []
    globalReactor.removeReader(client)
    client.enqueue(b"y", None, done.append)
    globalReactor.removeWriter(client)
    client.connectionLost(Failure(ConnectionLost()))
    assert [error.code for error in told.errors] == ["ECONNREFUSED"]
    await until(lambda: done)
    assert done == [None]
    await until(lambda: len(told.errors) == 2)  # "y" is refused, too


# -- binding


def test_aNameThatThisMachineHasNotAltogether() -> None:
    """The first address that can be bound, or connected to, is taken; the last one's error is told."""
    names = Elsewhere(KnowingNames("198.51.100.1", "127.0.0.1"))
    port = resultOf(bind(names, UdpTarget("host.test", 0), PLAIN))
    assert port.address.address == "127.0.0.1"
    port._skt.close()
    names = Elsewhere(KnowingNames("198.51.100.1", "198.51.100.2"))
    with pytest.raises(NetError, match=r"bind udp:host\.test:0") as caught:
        resultOf(bind(names, UdpTarget("host.test", 0), PLAIN))
    assert caught.value.code == "EADDRNOTAVAIL"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        names = Elsewhere(KnowingNames("127.0.0.1", "127.0.0.2"))
        with pytest.raises(NetError) as caught:
            resultOf(bind(names, UdpTarget("host.test", other.getsockname()[1]), PLAIN))
        assert caught.value.code == "EADDRINUSE"


def resultOf(coroutine: Any) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


@pytest.mark.parametrize(("how", "where"), [(bind, ""), (connect, "127.0.0.1:9")])
@pytest_twisted.ensureDeferred
async def test_oneFamilyAlone(ports: Ports, how: Callable[..., Any], where: str) -> None:
    port = await Deferred.fromCoroutine(how(globalReactor, UdpTarget("localhost", 9 if where else 0), PLAIN, 4))
    ports.begun(port)
    assert port.family == socket.AF_INET
    assert str(port.peer or "") == where


@pytest_twisted.ensureDeferred
async def test_connectedToThisMachine(ports: Ports) -> None:
    server, _ = await ports(":0")
    client, _ = await ports(f":{server.address.port}", connect)
    assert client.send(b"x") == 1
    await until(lambda: server.held)


def test_withoutDescriptors(tmp_path: Path) -> None:
    for how, target in ((bind, LOCAL), (connect, LOCAL), (connect, UnixTarget(f"{tmp_path}/s"))):
        with noDescriptors(), pytest.raises(NetError) as caught:
            resultOf(how(globalReactor, target, PLAIN))
        assert caught.value.code == "EMFILE"


def test_nothingIsLeftOfWhatFails(tmp_path: Path) -> None:
    target = UnixTarget(f"{tmp_path}/s")
    with pytest.raises(OptionError, match="UNIX sockets have no such option"):
        resultOf(bind(globalReactor, target, DatagramOptions(reusePort=True)))
    with pytest.raises(OptionError, match="UNIX sockets have no such option"):
        resultOf(bind(globalReactor, target, DatagramOptions(broadcast=True)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError):
        resultOf(bind(globalReactor, UnixTarget(f"\0twisted-net-{os.getpid()}"), DatagramOptions(ttl=1)))


def test_cancelled() -> None:
    names = NameService("127.0.0.1")
    binding = Deferred.fromCoroutine(bind(Elsewhere(names), UdpTarget("host.test", 0), PLAIN))
    binding.cancel()
    results: list[Any] = []
    binding.addErrback(results.append)
    assert results[0].check(CancelledError)
    names.answer()


# -- in memory


def test_inMemory() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            one, other = network.host("one"), network.host("other")
            server = await bind(other.reactor, UdpTarget("", 53), PLAIN)
            server.start(Watcher())
            client = await connect(one.reactor, UdpTarget("other", 53), PLAIN)
            told = Watcher()
            client.start(told)
            client.send(b"hello")
            await network.sleep(1)
            assert [data for data, _ in server.held] == [b"hello"]
            server.close()
            client.send(b"hello")
            await network.sleep(1)
            assert [error.code for error in told.errors] == ["ECONNREFUSED"]
            client.close()
            with pytest.raises(NetError) as caught:
                await bind(one.reactor, UnixTarget("/s"), PLAIN)
            assert caught.value.code == "EAFNOSUPPORT"

        network.run(scenario)


@pytest_twisted.ensureDeferred
async def test_closedBeforeItBegan() -> None:
    """By who was cancelled between binding and beginning, for example."""
    port = await bind(globalReactor, LOCAL, PLAIN)
    port.close()
    assert port.isClosed
    assert port.fileno() == -1
