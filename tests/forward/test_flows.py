"""Flows of datagrams: in memory, where times and orders are exact, and on real sockets, where ICMP is."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, NameService, needsIPv6, noDescriptors
from turning import turns, until
from twisted.internet import reactor as installedReactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_net.address import Address, UdpTarget
from twisted_net.errors import (
    AbortedError,
    ClosedError,
    LimitError,
    NetError,
    OptionError,
    RefusedError,
    forErrno,
)
from twisted_net.forward.flows import HELD, LAST_SILENCE, QUIET, RESERVE, TRIES, Flow, Flows
from twisted_net.forward.hooks import Direction
from twisted_net.forward.session import Ended
from twisted_net.forward.targets import Pool, Target
from twisted_net.sansio.balance import balanceOf
from twisted_net.sansio.faults import Duplicate, Faults, Latency, Loss, Reorder
from twisted_net.sansio.health import Health
from twisted_net.testing.explore import explore
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import DatagramPort, bind, connect
from twisted_net.wire.destination import addressOf, placeOf

globalReactor: Any = installedReactor

PLAIN = DatagramOptions()
NONE: dict[Direction, Faults] = {"upstream": Faults(), "downstream": Faults()}
WAYS = ("silent", "complete", "failed", "gone", "gaveWay", "closed")

onLinux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say whose port is closed")


def at(reactor: Any, host: str, port: int = 0, how: Callable[..., Coroutine[Any, Any, DatagramPort]] = bind) -> Any:
    """A port at an address, at once."""
    made: list[Any] = []
    Deferred.fromCoroutine(how(reactor, UdpTarget(host, port), PLAIN)).addBoth(made.append)
    if isinstance(made[0], Failure):
        made[0].raiseException()
    return made[0]


class Peer:
    """A client or a target: a port that keeps what comes, and answers it if it is told how.

    :ivar heard: the datagrams.
    :ivar senders: whom they came from.
    """

    def __init__(self, port: DatagramPort, answer: Callable[[bytes], list[bytes]] = lambda data: []) -> None:
        self.port = port
        self.heard: list[bytes] = []
        self.senders: list[Address] = []
        self.errors: list[NetError] = []
        self._answer = answer
        port.receive = self._receive
        port.start(self)

    def _receive(self, data: bytes, place: Any) -> None:
        self.heard.append(data)
        self.senders.append(addressOf(self.port.family, place))
        for one in self._answer(data):
            self.port.send(one, place)

    def say(self, *datagrams: bytes, to: Address | None = None) -> None:
        for data in datagrams:
            assert self.port.send(data, None if to is None else placeOf(self.port.family, to)) == len(data)

    def failed(self, error: NetError) -> None:
        self.errors.append(error)

    def ended(self, error: NetError | None) -> None:
        assert error is None


def echo(data: bytes) -> list[bytes]:
    return [b"to " + data]


class Scene:
    """Flows to some targets, and everybody who has to do with them; a context that closes them all.

    :ivar over: what was told of flows that are over.
    :ivar peers: clients and targets.
    """

    def __init__(
        self,
        reactor: Any,
        targets: list[str],
        *,
        timeout: float = 30.0,
        responses: int | None = None,
        limit: int = 100,
        faults: dict[Direction, Faults] = NONE,
        seed: int = 0,
        balance: str = "round-robin",
        maxFails: int | None = 3,
    ) -> None:
        self.reactor = reactor
        self.over: list[Ended] = []
        self.targets = [Target(text) for text in targets]
        pool = Pool(self.targets, balanceOf(balance), reactor.seconds, lambda: Health(maxFails=maxFails))
        self.pool = pool
        self.flows = Flows(
            pool,
            reactor,
            timeout=timeout,
            responses=responses,
            limit=limit,
            faults=faults,
            seed=seed,
            over=lambda ended: self.over.append(ended),
        )
        self.peers: list[Peer] = []

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *failure: object) -> None:
        self.flows.close()
        for peer in self.peers:
            peer.port.close()
        assert len(self.flows) == 0
        assert all(target.load == 0 for target in self.targets)
        snapshot = self.snapshot
        assert snapshot["opened"] == sum(snapshot[way] for way in WAYS) == len(self.over)

    @property
    def snapshot(self) -> dict[str, int]:
        return self.flows.snapshot()

    def counted(self, *without: str) -> dict[str, int]:
        """What was counted, but for what is 0."""
        return {name: count for name, count in self.snapshot.items() if count and name not in without}

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> DatagramPort:
        made: DatagramPort = at(self.reactor, host, port)
        self.flows.serve(made)
        return made

    def peer(self, port: DatagramPort, answer: Callable[[bytes], list[bytes]] = lambda data: []) -> Peer:
        made = Peer(port, answer)
        self.peers.append(made)
        return made

    def client(self, of: DatagramPort, reactor: Any = None, host: str | None = None) -> Peer:
        """A client of a port that is listened to."""
        return self.peer(at(reactor or self.reactor, host or of.address.address, of.address.port or 0, connect))

    @property
    def living(self) -> list[Flow]:
        return list(self.flows._order)


class Memory:
    """A network in memory with a forwarder, two targets that listen at port 7, and a host of clients."""

    def __init__(self, network: MemoryNetwork, answer: Callable[[bytes], list[bytes]] = echo, **options: Any) -> None:
        self.network = network
        self.hosts = [network.host(name) for name in ("forwarder", "one", "two", "client")]
        forwarder, *targets, self.clients = self.hosts
        texts = options.pop("targets", [f"udp:{host.address}:7" for host in targets])
        self.scene = Scene(forwarder.reactor, texts, **options)
        self.servers = [self.scene.peer(at(host.reactor, host.address, 7), answer) for host in targets]
        self.port = self.scene.listen(forwarder.address, 53)

    def client(self) -> Peer:
        return self.scene.client(self.port, self.clients.reactor)


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork() as network:
        yield network


@pytest.fixture
def memory(network: MemoryNetwork) -> Iterator[Callable[..., Memory]]:
    """Makes a `Memory`, and closes it."""
    made: list[Memory] = []

    def make(*arguments: Any, **options: Any) -> Memory:
        made.append(Memory(network, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        with one.scene:
            pass


Make = Callable[..., Memory]


# -- there and back


def test_bothWays(network: MemoryNetwork, memory: Make) -> None:
    """It looks to both as if they spoke with the forwarder; everything is counted."""
    m = memory()
    client, target = m.client(), m.scene.targets[0]
    client.say(b"hello", b"")
    network.settle()
    assert m.servers[0].heard == [b"hello", b""]
    assert m.servers[0].senders[0].address == m.hosts[0].address
    assert client.heard == [b"to hello", b"to "]
    assert set(client.senders) == {m.port.address}
    [flow] = m.scene.living
    assert (flow.client, flow.target) == (client.port.address, target)
    assert repr(flow) == f"<Flow {client.port.address} -> {target.name}>"
    assert (target.load, target.sessions) == (1, {flow})
    flows = m.scene.flows
    assert (flows.bytesIn, flows.bytesOut, len(flows), repr(flows)) == (5, 11, 1, "<Flows, 1 living>")
    assert m.scene.counted() == {"living": 1, "opened": 1}
    network.advance(2)
    flows.close()
    [ended] = m.scene.over
    assert isinstance(ended.error, AbortedError)
    assert ended == Ended(client.port.address, target.name, 5, 11, 2.0, ended.error)
    assert ended.client.family == "IPv4"
    assert target.counters.snapshot() == {"sessions": 1, "failures": 0, "bytesTo": 5, "bytesFrom": 11}
    assert (flows.bytesIn, flows.bytesOut, m.scene.counted()) == (0, 0, {"opened": 1, "closed": 1})


def test_eachClientHasItsOwn(network: MemoryNetwork, memory: Make) -> None:
    """A flow, a target in turn, a socket; and each port's answers leave by that port."""
    m = memory()
    other = m.scene.listen(m.hosts[0].address, 54)
    clients = [m.client() for _ in range(4)]
    both = m.scene.peer(at(m.clients.reactor, m.clients.address))
    for number, client in enumerate(clients):
        client.say(b"%d" % number)
    both.say(b"x", to=m.port.address)
    both.say(b"y", to=other.address)
    network.settle()
    assert [client.heard for client in clients] == [[b"to %d" % number] for number in range(4)]
    assert sorted(map(str, both.senders)) == sorted([str(m.port.address), str(other.address)])
    assert Counter(dict(zip(both.heard, map(str, both.senders), strict=True))) == {
        b"to x": str(m.port.address),
        b"to y": str(other.address),
    }
    assert [target.load for target in m.scene.targets] == [3, 3]
    senders = [sender for server in m.servers for sender in server.senders]
    assert len(set(senders)) == len(senders) == 6


def test_bySource(network: MemoryNetwork, memory: Make) -> None:
    """A client keeps its target, whatever port it comes from: the key is that of streams."""
    m = memory(balance="source-hash")
    for _ in range(6):
        m.client().say(b"x")
    network.settle()
    assert sorted(target.load for target in m.scene.targets) == [0, 6]


def test_ofIPv6(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    six = m.hosts[0].addressOf(socket.AF_INET6)
    port = m.scene.listen(six, 53)
    client = m.scene.client(port, m.clients.reactor)
    client.say(b"x")
    network.settle()
    assert client.heard == [b"to x"]
    port.close()
    [ended] = m.scene.over
    assert (ended.client, ended.client.family) == (client.port.address, "IPv6")


# -- silence


def test_silence(network: MemoryNetwork, memory: Make) -> None:
    """Counted from the last datagram of either side; all flows share one timer, which nobody resets."""
    m = memory(lambda data: [])
    clients = [m.client() for _ in range(10)]
    first = network.now
    for client in clients:
        client.say(b"x")
    network.settle()
    [timer] = m.scene.reactor.getDelayedCalls()
    network.advance(10)
    clients[0].say(b"x")
    network.advance(10)
    m.servers[1].say(b"late", to=m.servers[1].senders[0])  # clients[1]'s
    network.settle()
    assert clients[1].heard == [b"late"]
    assert m.scene.reactor.getDelayedCalls() == [timer]
    assert timer.getTime() == first + 30
    network.advance(10)
    assert len(m.scene.over) == 8
    network.advance(9.9)
    assert len(m.scene.over) == 8
    network.advance(0.1)
    network.advance(9.9)
    assert len(m.scene.over) == 9
    network.advance(0.1)
    assert [(ended.error, ended.seconds) for ended in m.scene.over] == [(None, 30)] * 8 + [(None, 40), (None, 50)]
    assert m.scene.counted() == {"opened": 10, "silent": 10}
    assert m.scene.reactor.getDelayedCalls() == []
    # Who answers nothing may be of that kind: one more session, and no failure.
    assert [target.counters["sessions"] for target in m.scene.targets] == [5, 5]
    clients[0].say(b"again")
    network.advance(29)
    assert len(m.scene.flows) == 1


def test_theClockIsSetBack(network: MemoryNetwork, memory: Make) -> None:
    """By an hour, which must not make anybody stay for an hour more."""
    m = memory()
    flows = m.scene.flows
    clients = [m.client() for _ in range(3)]
    for client in clients:
        client.say(b"x")
    network.advance(10)
    flows.now = lambda: network.now - 3600
    network.advance(20)  # the timer fires
    assert len(flows) == 3
    clients[0].say(b"x")
    network.advance(30)
    assert len(flows) == 0


# -- what is awaited


def test_aResponse(network: MemoryNetwork, memory: Make) -> None:
    """Then the flow is over; the next question of the same client is another flow, to another target."""
    m = memory(responses=1)
    client = m.client()
    client.say(b"1")
    network.settle()
    client.say(b"2")
    network.settle()
    assert client.heard == [b"to 1", b"to 2"]
    assert [server.heard for server in m.servers] == [[b"1"], [b"2"]]
    assert [ended.error for ended in m.scene.over] == [None, None]
    assert m.scene.counted() == {"opened": 2, "complete": 2}
    assert [target.counters["sessions"] for target in m.scene.targets] == [1, 1]


def test_aResponseForEach(network: MemoryNetwork, memory: Make) -> None:
    """Two questions at once, from one port, have two answers."""
    m = memory(responses=1)
    client = m.client()
    client.say(b"A", b"AAAA")
    network.settle()
    assert client.heard == [b"to A", b"to AAAA"]
    assert m.scene.counted() == {"opened": 1, "complete": 1}


def test_threeResponses(network: MemoryNetwork, memory: Make) -> None:
    m = memory(lambda data: [b"1", b"2"], responses=3)
    client = m.client()
    client.say(b"x")
    network.settle()
    assert m.scene.counted() == {"living": 1, "opened": 1}
    m.servers[0].say(b"3", b"4", to=m.servers[0].senders[0])
    network.settle()
    assert client.heard == [b"1", b"2", b"3"]
    assert m.scene.counted() == {"opened": 1, "complete": 1}
    assert [error.code for error in m.servers[0].errors] == []


def test_noResponse(network: MemoryNetwork, memory: Make) -> None:
    """Nothing is awaited: over as soon as it is sent."""
    m = memory(responses=0)
    client = m.client()
    client.say(b"1", b"2")
    network.settle()
    assert [server.heard for server in m.servers] == [[b"1"], [b"2"]]
    assert client.heard == []
    assert m.scene.counted() == {"opened": 2, "complete": 2}
    assert [target.counters["sessions"] for target in m.scene.targets] == [1, 1]


# -- a full table


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "twisted"]


def test_theQuietGiveWay(network: MemoryNetwork, memory: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Who was silent longest does, if it was for a second; it is told at most once a second."""
    caplog.set_level(logging.WARNING, "twisted")
    m = memory(limit=3)
    clients = [m.client() for _ in range(6)]
    for client in clients[:3]:
        client.say(b"x")
    network.advance(QUIET / 2)
    clients[0].say(b"x")
    clients[3].say(b"too early")
    network.advance(QUIET / 2)
    assert clients[3].heard == []
    assert lines(caplog) == [
        f"new clients of datagrams: 1 turned away, the last one {clients[3].port.address}: "
        "there are 3 flows (limitFlows) [ERR_LIMIT]"
    ]
    caplog.clear()
    clients[3].say(b"x")
    clients[4].say(b"x")
    clients[5].say(b"nobody is quiet now")
    network.advance(QUIET)
    assert [len(client.heard) for client in clients] == [2, 1, 1, 1, 1, 0]
    assert {ended.client for ended in m.scene.over} == {client.port.address for client in clients[1:3]}
    for ended in m.scene.over:
        assert isinstance(ended.error, LimitError)
        assert ended.seconds == QUIET
    assert m.scene.counted() == {"living": 3, "opened": 5, "gaveWay": 2, "turnedAway": 2, "dropped": 2}
    giving = [line for line in lines(caplog) if "gave way" in line]
    why = "gave way to new clients, for there are 3 flows (limitFlows); raise that, or shorten timeoutFlow"
    assert giving == [f"flows of datagrams: 1 {why}"] * 2


def test_descriptorsRunOut(network: MemoryNetwork, memory: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Some are left to others; when others have taken them, nothing breaks."""
    caplog.set_level(logging.WARNING, "twisted")
    m = memory()
    host = m.hosts[0]
    clients = [m.client() for _ in range(5)]
    host.descriptorLimit = 1 + 2 + RESERVE  # the listening port, and two flows
    for client in clients[:3]:
        client.say(b"x")
    network.settle()
    assert m.scene.counted() == {"living": 2, "opened": 2, "turnedAway": 1, "dropped": 1}
    network.advance(QUIET)
    clients[2].say(b"x")
    network.settle()
    assert clients[2].heard == [b"to x"]
    assert m.scene.counted() == {"living": 2, "opened": 3, "gaveWay": 1, "turnedAway": 1, "dropped": 1}
    # Now somebody else is greedy.
    network.advance(QUIET)
    host.descriptorLimit = 3
    clients[3].say(b"x")
    clients[4].say(b"x")
    network.settle()
    assert m.scene.counted() == {"living": 1, "opened": 4, "gaveWay": 3, "turnedAway": 2, "dropped": 2}
    assert all("descriptors run out (ulimit -n)" in line or "EMFILE" in line for line in lines(caplog))


def test_noDescriptorAtAll(network: MemoryNetwork, memory: Make) -> None:
    """A busy flow is not ended for a newcomer; a quiet one is, and its descriptor taken."""
    m = memory()
    m.hosts[0].failing("socket", "EMFILE", 1000)
    one, two = m.client(), m.client()
    one.say(b"x")
    network.settle()
    assert m.scene.counted() == {"turnedAway": 1, "dropped": 1}
    m.hosts[0]._failures.clear()
    one.say(b"x")
    network.advance(QUIET / 2)
    m.hosts[0].failing("socket", "EMFILE", 1)
    two.say(b"x")
    network.advance(QUIET / 2)
    assert m.scene.counted() == {"living": 1, "opened": 1, "turnedAway": 2, "dropped": 2}
    m.hosts[0].failing("socket", "EMFILE", 1)
    two.say(b"x")
    network.settle()
    assert two.heard == [b"to x"]
    assert m.scene.counted() == {"living": 1, "opened": 2, "gaveWay": 1, "turnedAway": 2, "dropped": 2}
    # The second time it is somebody else who takes them.
    network.advance(QUIET)
    m.hosts[0].failing("socket", "EMFILE", 2)
    one.say(b"x")
    network.settle()
    assert m.scene.counted() == {"opened": 2, "gaveWay": 2, "turnedAway": 3, "dropped": 3}
    assert all(target.counters["failures"] == 0 for target in m.scene.targets)


# -- names of targets


def test_aName(network: MemoryNetwork, memory: Make) -> None:
    m = memory(targets=["udp:two:7"])
    client = m.client()
    client.say(b"1", b"2")
    network.settle()
    assert client.heard == [b"to 1", b"to 2"]
    assert m.servers[1].heard == [b"1", b"2"]


class Named(Elsewhere):
    """A reactor with a name service and a clock of the test's own; the scene of one target with a name."""

    def __init__(self, **options: Any) -> None:
        self.names = NameService("127.0.0.1")
        super().__init__(self.names)
        self.scene = Scene(self, options.pop("targets", ["udp:target.test:9"]), **options)
        self.port = self.scene.listen()

    def say(self, client: Peer, *datagrams: bytes) -> None:
        """They have come."""
        for data in datagrams:
            self.port.receive(data, placeOf(socket.AF_INET, client.port.address))


@pytest_twisted.ensureDeferred
async def test_whileItIsLookedUp() -> None:
    """A few are held, and then sent in their order; what comes when there are more is dropped."""
    server = Peer(at(globalReactor, "127.0.0.1"))
    named = Named(targets=[f"udp:target.test:{server.port.address.port}"])
    named.scene.peers.append(server)
    with named.scene as scene:
        client = scene.client(named.port)
        asked = [b"%d" % number for number in range(HELD + 2)]
        named.say(client, *asked)
        [flow] = scene.living
        assert (scene.counted(), scene.targets[0].load) == ({"living": 1, "dropped": 2}, 1)
        named.names.answer()
        await until(lambda: len(server.heard) == HELD)
        assert server.heard == asked[:HELD]
        assert scene.counted() == {"living": 1, "opened": 1, "dropped": 2}
        assert flow.bytesIn == sum(map(len, asked[:HELD]))


def test_endsWhileItIsLookedUp(caplog: pytest.LogCaptureFixture) -> None:
    """No flow has come about: in time, by whoever aborts it, or by the forwarder's end. No answer comes too late."""
    caplog.set_level(logging.WARNING, "twisted")
    named = Named(timeout=5.0)
    with named.scene as scene:
        clients = [scene.client(named.port) for _ in range(3)]
        named.say(clients[0], b"x", b"y")
        named.advance(5)
        assert scene.counted() == {"turnedAway": 1, "dropped": 2}
        assert "the name of its target was not found in time (timeoutFlow) [ETIMEDOUT]" in lines(caplog)[0]
        named.say(clients[1], b"x")
        [flow] = scene.living
        flow.abort()
        flow.abort()
        assert flow.isOver
        named.say(clients[2], b"x")
        scene.flows.close()
        named.names.answer()
        assert scene.counted() == {"turnedAway": 3, "dropped": 4}
        assert scene.over == []
        assert named.getDelayedCalls() == []


def test_nobodyHasThatName(network: MemoryNetwork, memory: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It has failed, and the next target is tried; when there is none, the client is turned away."""
    caplog.set_level(logging.WARNING, "twisted")
    m = memory(targets=["udp:nobody.invalid:7", "udp:two:7"])
    client = m.client()
    client.say(b"x")
    network.settle()
    assert client.heard == [b"to x"]
    assert [target.counters["failures"] for target in m.scene.targets] == [1, 0]
    m.scene.pool.targets = ()
    for tier in m.scene.pool._tiers:
        del tier[1:]
    m.client().say(b"x")
    network.settle()
    assert m.scene.counted() == {"living": 1, "opened": 1, "turnedAway": 1, "dropped": 1}
    assert "ENOTFOUND" in lines(caplog)[-1]


def test_soManyAreTried(network: MemoryNetwork, memory: Make) -> None:
    m = memory(targets=[f"udp:10.9.9.{number}:7" for number in range(1, TRIES + 3)])  # no host has these
    m.hosts[0].failing("socket", "EACCES", 100)
    m.client().say(b"x")
    network.settle()
    assert [target.counters["failures"] for target in m.scene.targets] == [1] * TRIES + [0, 0]
    assert m.scene.counted() == {"turnedAway": 1, "dropped": 1}


def test_nobodyIsUp(network: MemoryNetwork, memory: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "twisted")
    m = memory()
    for target in m.scene.targets:
        for _ in range(3):
            m.scene.pool.checked(target, RefusedError("no"))
    client = m.client()
    client.say(b"x", b"y")
    network.settle()
    assert m.scene.counted() == {"turnedAway": 2, "dropped": 2}
    told = [line for line in lines(caplog) if "turned away" in line]
    assert len(told) == 1
    assert "no target is up" in told[0]


# -- targets that fail


def test_aTargetThatIsGone(network: MemoryNetwork, memory: Make) -> None:
    """ICMP says so: the flow is over, the target has failed, the client's next datagram goes to another one."""
    m = memory()
    client = m.client()
    m.servers[0].port.close()
    client.say(b"lost")
    network.settle()
    [ended] = m.scene.over
    one, two = m.scene.targets
    assert isinstance(ended.error, RefusedError)
    assert (ended.target, ended.bytesIn, ended.bytesOut) == (one.name, 4, 0)
    assert one.counters.snapshot() == {"sessions": 0, "failures": 1, "bytesTo": 4, "bytesFrom": 0}
    client.say(b"x")
    network.settle()
    assert client.heard == [b"to x"]
    assert m.scene.counted() == {"living": 1, "opened": 2, "failed": 1}
    # One that has answered before, and fails then, has come about and failed.
    m.servers[1].port.close()
    client.say(b"x")
    network.settle()
    assert two.counters.snapshot() == {"sessions": 1, "failures": 1, "bytesTo": 2, "bytesFrom": 4}
    for _ in range(4):
        client.say(b"x")
        network.settle()
    assert [target.state for target in m.scene.targets] == ["suspended", "suspended"]


def test_whatComesBeforeThatIsKnown(network: MemoryNetwork, memory: Make) -> None:
    """An error that sending meets is about the datagram before: this one goes to another target, at once."""
    m = memory()
    client = m.client()
    m.servers[0].port.close()
    client.say(b"lost", b"saved", b"and this")
    network.settle()
    assert m.servers[1].heard == [b"saved", b"and this"]
    assert client.heard == [b"to saved", b"to and this"]
    assert m.scene.over[0].bytesIn == 4
    assert m.scene.flows.bytesIn == 13
    assert m.scene.counted() == {"living": 1, "opened": 2, "failed": 1}


def test_theHeldOnesToo(network: MemoryNetwork, memory: Make) -> None:
    """As above, where they have waited for the target's name."""
    m = memory(targets=["udp:one:7", f"udp:{network.host('two').address}:7"])
    client = m.client()
    m.servers[0].port.close()
    names = NameService(network.host("one").address)
    m.scene.reactor.installNameResolver(names)
    client.say(b"lost", b"saved", b"and this")
    network.settle()
    assert m.scene.counted() == {"living": 1}
    names.answer()
    network.settle()
    assert client.heard == [b"to saved", b"to and this"]
    assert m.scene.over[0].bytesIn == 4
    assert m.scene.flows.bytesIn == 13


def test_aTargetThatCannotBeReached(network: MemoryNetwork, memory: Make) -> None:
    """Sending says so at once: there is no earlier datagram to blame, and nobody tries for ever."""
    m = memory(targets=["udp:10.9.9.9:7"])
    client = m.client()
    client.say(b"x")
    network.settle()
    [ended] = m.scene.over
    assert isinstance(ended.error, NetError)
    assert (ended.error.code, ended.target) == ("ENETUNREACH", "udp:10.9.9.9:7")
    assert m.scene.counted() == {"opened": 1, "failed": 1, "dropped": 1}


def test_theReactorEnds(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    m.client().say(b"x")
    network.settle()
    [flow] = m.scene.living
    error = forErrno(104, "the reactor has ended")
    flow.ended(error)
    assert [ended.error for ended in m.scene.over] == [error]
    assert m.scene.counted() == {"opened": 1, "closed": 1}


def test_aborted(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    m.client().say(b"x")
    network.settle()
    [flow] = m.scene.living
    flow.abort(ResourceWarning("mine"))
    assert str(m.scene.over[0].error) == "mine"


# -- what is dropped


def test_tooLong(network: MemoryNetwork, memory: Make) -> None:
    """IPv6 has room for 20 bytes more than IPv4, in both directions; everything else goes on."""
    longest = bytes(65_527)
    six = network.host("two").addressOf(socket.AF_INET6)
    m = memory(lambda data: [longest, b"short"], targets=[f"udp:[{six}]:7"])
    server = m.scene.peer(at(network.host("two").reactor, six, 7), lambda data: [longest, b"short"])
    client = m.client()
    client.say(b"x")
    network.settle()
    assert client.heard == [b"short"]
    assert m.scene.counted() == {"living": 1, "opened": 1, "dropped": 1}
    assert server.heard == [b"x"]


def test_tooLongForTheTarget(network: MemoryNetwork, memory: Make) -> None:
    m = memory(responses=1)
    port = m.scene.listen(m.hosts[0].addressOf(socket.AF_INET6), 53)
    client = m.scene.client(port, m.clients.reactor)
    client.say(bytes(65_527), b"x")
    network.settle()
    assert client.heard == [b"to x"]
    assert m.scene.counted() == {"living": 1, "opened": 1, "dropped": 1}


def test_tooLongForTheWay(network: MemoryNetwork, memory: Make) -> None:
    """ICMP says it later (path MTU): no reason to leave the target."""
    m = memory()
    m.client().say(b"x")
    network.settle()
    [flow] = m.scene.living
    flow.failed(forErrno(90, "too long"))
    assert m.scene.counted() == {"living": 1, "opened": 1, "dropped": 1}


def test_noRoom(network: MemoryNetwork, memory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    m = memory(responses=1)
    client, other = m.client(), m.client()
    client.say(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(m.port, "send", lambda data, place: None)
        network.settle()
    assert client.heard == []
    assert m.scene.counted() == {"opened": 1, "complete": 1, "dropped": 1}
    assert (m.scene.over[0].bytesIn, m.scene.over[0].bytesOut) == (1, 0)
    other.say(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(DatagramPort, "send", lambda self, data, place=None: None)
        network.settle()
    assert m.scene.counted() == {"living": 1, "opened": 2, "complete": 1, "dropped": 2}
    assert m.scene.targets[1].counters["failures"] == 0


# -- faults


def bad(*faults: Any, also: tuple[Any, ...] = ()) -> dict[Direction, Faults]:
    return {"upstream": Faults(*faults), "downstream": Faults(*also)}


def test_delayed(network: MemoryNetwork, memory: Make) -> None:
    m = memory(faults=bad(Latency(1.0), also=(Latency(2.0),)), responses=1)
    client = m.client()
    client.say(b"1")
    network.advance(0.5)
    client.say(b"2")
    network.advance(0.4)
    assert m.servers[0].heard == []
    network.advance(0.1)
    assert m.servers[0].heard == [b"1"]
    network.advance(2.1)
    assert client.heard == [b"to 1"]
    assert m.scene.counted() == {"living": 1, "opened": 1}  # the other answer is under way
    network.advance(1)
    assert client.heard == [b"to 1", b"to 2"]
    assert m.scene.counted() == {"opened": 1, "complete": 1}
    client.say(b"3")
    network.settle()
    m.scene.flows.close()  # with something under way
    assert m.scene.reactor.getDelayedCalls() == []


def test_delayedWithoutResponses(network: MemoryNetwork, memory: Make) -> None:
    """None that is under way is lost by another one's arrival."""
    m = memory(faults=bad(Latency(1.0)), responses=0)
    client = m.client()
    client.say(b"1")
    network.advance(0.5)
    client.say(b"2")
    network.advance(1)
    assert m.servers[0].heard == [b"1", b"2"]
    assert m.scene.counted() == {"opened": 1, "complete": 1}


def test_lost(network: MemoryNetwork, memory: Make) -> None:
    """What awaits an answer to a lost datagram waits until it was silent for long enough."""
    m = memory(faults=bad(Loss()), responses=1)
    client = m.client()
    client.say(b"1")
    network.advance(29)
    assert m.scene.counted() == {"living": 1, "opened": 1}
    network.advance(1)
    assert m.servers[0].heard == []
    assert m.scene.counted() == {"opened": 1, "silent": 1}


BAD = (Latency(0.01, jitter=0.02), Loss(probability=0.3), Duplicate(probability=0.3), Reorder(0.1, probability=0.3))


@pytest.mark.parametrize("seed", [1, 2])
def test_theSameFaults(seed: int) -> None:
    """The same seed does the same to the same flow, whoever else there is."""

    def heard(others: int) -> tuple[list[bytes], list[bytes]]:
        with MemoryNetwork() as network:
            memory = Memory(network, faults=bad(*BAD, also=BAD), seed=seed, balance="source-hash")
            with memory.scene:
                client = memory.client()
                for number in range(100):
                    client.say(b"%d" % number)
                    for _ in range(others if number == 50 else 0):
                        memory.client().say(b"other")
                    network.advance(0.01)
                network.advance(1)
                sent = [data for server in memory.servers for data in server.heard if data != b"other"]
                return sent, client.heard

    first = heard(0)
    assert heard(0) == first
    assert heard(3) == first
    assert 20 < len(set(first[1])) < 80


# -- the end


def test_theOwnerClosesAPort(network: MemoryNetwork, memory: Make) -> None:
    """With it go the flows that came by it, and no others."""
    m = memory()
    other = m.scene.listen(m.hosts[0].address, 54)
    one, two = m.client(), m.scene.client(other, m.clients.reactor)
    one.say(b"x")
    two.say(b"x")
    network.settle()
    other.close()
    [ended] = m.scene.over
    assert (ended.client, type(ended.error)) == (two.port.address, AbortedError)
    m.servers[0].say(b"more", to=m.servers[0].senders[0])
    network.settle()
    assert one.heard == [b"to x", b"more"]
    m.scene.flows.close()
    m.scene.flows.close()
    assert m.port.isClosed


def test_servedTooLate(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    m.scene.flows.close()
    port = at(m.hosts[0].reactor, m.hosts[0].address, 54)
    with pytest.raises(ClosedError, match="make another one"):
        m.scene.flows.serve(port)
    assert port.isClosed


# -- drained


def drained(m: Memory) -> list[float]:
    """When the flows of *m* were drained; empty until then."""
    times: list[float] = []
    m.scene.flows.drain().addCallback(lambda none: times.append(m.scene.reactor.seconds()))
    return times


def test_whoWasAnsweredIsOver(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    client = m.client()
    client.say(b"hello")
    network.settle()
    assert drained(m) == [network.now]
    assert m.port.isClosed
    assert m.scene.counted() == {"opened": 1, "closed": 1}
    [ended] = m.scene.over
    assert ended.error is None


def test_nobodyToDrain(network: MemoryNetwork, memory: Make) -> None:
    m = memory()
    assert drained(m) == [network.now]
    assert m.port.isClosed
    assert drained(m) == [network.now]  # once more


def test_theLastAnswer(network: MemoryNetwork, memory: Make) -> None:
    """Who waits for one still gets it; nobody new is served meanwhile."""
    m = memory(lambda data: [])
    client, other = m.client(), m.client()
    client.say(b"one", b"two")
    network.settle()
    times = drained(m)
    other.say(b"new")
    for data in (b"1", b"2"):
        network.advance(LAST_SILENCE / 2)
        assert not times
        assert not m.port.isClosed
        m.servers[0].say(data, to=m.servers[0].senders[0])
    network.settle()
    assert client.heard == [b"1", b"2"]
    assert times == [network.now]
    assert m.port.isClosed
    assert m.scene.counted() == {"opened": 1, "closed": 1, "turnedAway": 1, "dropped": 1}


def test_noLastAnswer(network: MemoryNetwork, memory: Make) -> None:
    """Whether one would ever come nothing says: so it is waited for a while."""
    m = memory(lambda data: [])
    start = network.now
    client = m.client()
    client.say(b"hello")
    network.advance(1)
    times = drained(m)
    network.advance(LAST_SILENCE - 1.001)
    assert not times
    network.advance(1)
    assert times == [pytest.approx(start + LAST_SILENCE)]
    assert m.scene.counted() == {"opened": 1, "silent": 1}


def test_closedWhileItDrains(network: MemoryNetwork, memory: Make) -> None:
    m = memory(lambda data: [])
    m.client().say(b"hello")
    network.settle()
    times = drained(m)
    m.scene.flows.close()
    assert times == [network.now]
    assert m.scene.flows.isClosed



@pytest.mark.parametrize("full", ["table", "descriptors", "socket"])
def test_closedByWhoIsTold(network: MemoryNetwork, memory: Make, full: str) -> None:
    """Of a flow that gives way. Nothing begins for the newcomer then."""
    m = memory(limit=1 if full == "table" else 10)
    one, two = m.client(), m.client()
    one.say(b"x")
    network.advance(QUIET)

    def over(ended: Ended) -> None:
        m.scene.over.append(ended)
        m.scene.flows.close()

    m.scene.flows.over = over
    if full == "socket":
        m.hosts[0].failing("socket", "EMFILE", 1)
    elif full == "descriptors":
        m.hosts[0].descriptorLimit = 2 + RESERVE
    two.say(b"x")
    network.settle()
    assert m.scene.snapshot["opened"] == m.scene.snapshot["gaveWay"] == 1
    assert m.hosts[0].sockets() == []


def test_aPortInTrouble(network: MemoryNetwork, memory: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, seldom, and goes on."""
    caplog.set_level(logging.WARNING, "twisted")
    m = memory()
    for _ in range(3):
        m.port._tell(OSError(12, "no memory"))
    network.advance(2)
    assert [line.partition(":53: ")[2][:11] for line in lines(caplog)] == ["1 failures,", "2 failures,"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"timeout": 0}, "timeoutFlow is 0"),
        ({"timeout": float("inf")}, "timeoutFlow is inf"),
        ({"timeout": None}, "timeoutFlow is None"),
        ({"timeout": True}, "timeoutFlow is True"),
        ({"responses": -1}, "responses is -1"),
        ({"responses": 1.5}, "responses is 1.5"),
        ({"responses": True}, "responses is True"),
        ({"limit": 0}, "limitFlows is 0"),
        ({"limit": None}, "limitFlows is None"),
        ({"limit": True}, "limitFlows is True"),
    ],
)
def test_options(network: MemoryNetwork, options: dict[str, Any], name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}; it must be"):
        Scene(network.reactor, ["udp:127.0.0.1:9"], **options)


# -- on this machine's sockets


@pytest.fixture(params=["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
def host(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def own(count: int, host: str = "127.0.0.1", **options: Any) -> tuple[Scene, list[Peer]]:
    """A scene with as many targets, which echo."""
    servers = [Peer(at(globalReactor, host), echo) for _ in range(count)]
    scene = Scene(globalReactor, [f"udp:{server.port.address}" for server in servers], **options)
    scene.peers += servers
    return scene, servers


@pytest_twisted.ensureDeferred
async def test_onSockets(host: str) -> None:
    scene, [server] = own(1, host)
    with scene:
        port = scene.listen(host)
        one, two = scene.client(port), scene.client(port)
        one.say(b"1")
        two.say(b"2")
        await until(lambda: one.heard and two.heard)
        assert (one.heard, two.heard) == ([b"to 1"], [b"to 2"])
        assert one.senders == [port.address]
        assert len(set(server.senders)) == 2


@needsIPv6
@pytest_twisted.ensureDeferred
async def test_bothFamiliesByOnePort() -> None:
    scene, _ = own(1)
    with scene:
        port = scene.listen("::")
        one, two = scene.client(port, host="127.0.0.1"), scene.client(port, host="::1")
        one.say(b"1")
        two.say(b"2")
        await until(lambda: one.heard and two.heard)
        one.port.close()
    assert {ended.client.address for ended in scene.over} == {"::ffff:127.0.0.1", "::1"}


@pytest_twisted.ensureDeferred
async def test_theTargetsPortIsClosed(host: str) -> None:
    """The real thing: whoever hears of it, the reactor or the next send, the next datagram finds another target."""
    scene, [one, two] = own(2, host)
    with scene:
        port = scene.listen(host)
        one.port.close()
        client = scene.client(port)
        client.say(b"lost")
        await until(lambda: scene.over)
        client.say(b"x", b"y")
        await until(lambda: len(client.heard) == 2)
        assert two.heard == [b"x", b"y"]
        error = scene.over[0].error
        assert isinstance(error, RefusedError)
        assert str(error.address) == str(one.port.address)
        other = scene.client(port)
        other.say(b"0")
        await until(lambda: other.heard or len(scene.over) == 2)
        other.say(b"1")
        await until(lambda: b"to 1" in other.heard)
        assert scene.snapshot["failed"] == scene.targets[0].counters["failures"] <= 2


@onLinux
@pytest_twisted.ensureDeferred
async def test_theClientsPortIsClosed(host: str) -> None:
    """It is passed on: the target that goes on answering hears of it from the kernel, as it would from the client's."""
    scene, [server] = own(1, host)
    with scene:
        port = scene.listen(host)
        client, other = scene.client(port), scene.client(port)
        client.say(b"x")
        other.say(b"x")
        await until(lambda: client.heard and other.heard)
        where = client.port.address
        client.port.close()
        sender = next(flow for flow in scene.living if flow.client == where)._port.address  # type: ignore[union-attr]
        server.say(b"more", to=sender)
        await until(lambda: scene.over)
        [ended] = scene.over
        assert isinstance(ended.error, RefusedError)
        assert (ended.client, ended.error.address) == (where, where)
        assert scene.counted() == {"living": 1, "opened": 2, "gone": 1}
        assert scene.targets[0].counters["failures"] == 0
        # What a connected socket of the target's would be told: nobody is at the flow's port any more.
        witness = scene.peer(at(globalReactor, host, sender.port or 0, connect))
        witness.say(b"more")
        await until(lambda: witness.errors)
        other.say(b"y")
        await until(lambda: len(other.heard) == 2)
        # A client without a flow is nobody that could be gone.
        scene.flows._listening[0].refused(placeOf(port.family, where))


@pytest_twisted.ensureDeferred
async def test_noDescriptorOnSockets() -> None:
    """No exception, no spinning, and the port serves again when there are some."""
    scene, _ = own(1)
    with scene:
        port = scene.listen()
        one, two = scene.client(port), scene.client(port)
        one.say(b"x")
        await until(lambda: one.heard)
        gc.collect()
        with noDescriptors():
            two.say(b"x")
            await until(lambda: scene.snapshot["turnedAway"])
            one.say(b"y")
            await until(lambda: len(one.heard) == 2)
        assert scene.counted() == {"living": 1, "opened": 1, "turnedAway": 1, "dropped": 1}
        scene.living[0].heard -= QUIET
        with noDescriptors():
            two.say(b"x")
            await until(lambda: scene.snapshot["gaveWay"] or scene.snapshot["turnedAway"] > 1)
        await turns(2)
        two.say(b"z")
        await until(lambda: b"to z" in two.heard)


# -- whatever comes


def crowd(net: MemoryNetwork) -> None:
    """Clients that come, ask, fall silent and go, targets that do too, on bad roads and through bad weather.

    Every answer is to a question of that very client; the table is never too large; nothing is left behind.
    """
    seed = net.choices.seed or 0
    chance = Random(seed)
    limit = chance.choice([2, 5, 50])
    options: dict[str, Any] = {
        "limit": limit,
        "responses": chance.choice([None, None, 1, 2, 0]),
        "timeout": chance.choice([0.5, 3.0, 30.0]),
        "balance": chance.choice(["round-robin", "least-connections", "source-hash"]),
        "faults": bad(*BAD, also=BAD[: chance.randrange(5)]) if chance.random() < 0.5 else NONE,
        "seed": seed,
    }
    if chance.random() < 0.5:  # by name; one of them is nobody's port
        options["targets"] = ["udp:one:7", "udp:two:8", f"udp:{net.host('two').address}:7"]
    memory = Memory(net, **options)
    scene = memory.scene
    if chance.random() < 0.5:
        memory.hosts[0].descriptorLimit = 3 + RESERVE + chance.randrange(1, 6)
    with scene:
        clients: list[tuple[bytes, Peer]] = []
        for number in range(chance.randrange(5, 25)):
            if chance.random() < 0.1:
                server = chance.choice(memory.servers)
                if not server.port.isClosed:
                    server.port.close()
            if chance.random() < 0.7 or not clients:
                clients.append((b"%d/" % number, memory.client()))
            for question in range(chance.randrange(6)):
                name, client = chance.choice(clients)
                if not client.port.isClosed:
                    try:
                        client.port.send(name + b"%d" % question)
                    except NetError as error:
                        raise AssertionError("the forwarder's port is never closed") from error
                if chance.random() < 0.3:
                    net.settle()
                assert len(scene.flows) <= limit
                assert sum(target.load for target in scene.targets) == len(scene.flows)
            if chance.random() < 0.1:
                chance.choice(clients)[1].port.close()
            net.advance(chance.choice([0, 0.01, 0.3, 1.0, 5.0]))
            assert len(scene.flows) <= limit
        for name, client in clients:
            assert all(answer.startswith(b"to " + name) for answer in client.heard)
            assert client.errors == []
        net.advance(31)
        assert len(scene.flows) == 0
        assert scene.snapshot["opened"] == len(scene.over)
        assert scene.flows.bytesIn == 0


def test_whateverComes() -> None:
    found = explore(crowd, range(60))
    assert found.steps > 0
