"""A reactor in memory: time, turns, triggers, and who is served."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import LoggedErrors
from pairs import Side
from twisted.internet import error, interfaces
from twisted.internet.defer import Deferred, succeed
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import ClientFactory, DatagramProtocol, ServerFactory
from twisted.python import context
from twisted.python.log import ILogContext
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_net.interfaces import ISocketMaker
from twisted_net.testing.host import Host
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.reactor import MemoryReactor
from twisted_net.testing.runaway import StalledError


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def reactor(network: MemoryNetwork) -> MemoryReactor:
    return network.reactor


@pytest.mark.parametrize(
    "interface",
    [
        interfaces.IReactorCore,
        interfaces.IReactorTime,
        interfaces.IReactorFromThreads,
        interfaces.IReactorInThreads,
        interfaces.IReactorThreads,
        interfaces.IReactorPluggableNameResolver,
        interfaces.IReactorFDSet,
        interfaces.IReactorTCP,
        interfaces.IReactorSSL,
        interfaces.IReactorUNIX,
        interfaces.IReactorUDP,
        interfaces.IReactorMulticast,
        ISocketMaker,
    ],
)
def test_whatItProvides(reactor: MemoryReactor, interface: Any) -> None:
    verifyObject(interface, reactor)


def test_itsText(network: MemoryNetwork, reactor: MemoryReactor) -> None:
    network.advance(1.5)
    assert repr(reactor) == "<MemoryReactor of localhost at 1.5 s>"


# -- time


def test_callsOfTheSameTimeKeepTheirOrder(reactor: MemoryReactor) -> None:
    ran: list[Any] = []
    for number in range(20):
        reactor.callLater(1, ran.append, number)
    reactor.callLater(0.5, ran.append, "first")
    reactor.advance(1)
    assert ran == ["first", *range(20)]


def test_whatIsMadeInATurnIsForTheNext(reactor: MemoryReactor) -> None:
    ran: list[str] = []

    def first() -> None:
        reactor.callLater(0, ran.append, "made by the first")
        ran.append("first")

    reactor.callLater(0, first)
    reactor.callLater(0, ran.append, "second")
    reactor.advance(0)
    assert ran == ["first", "second", "made by the first"]


def test_badDelays(reactor: MemoryReactor) -> None:
    for delay in (-1, float("nan")):
        with pytest.raises(AssertionError, match="is not greater than or equal to 0 seconds"):
            reactor.callLater(delay, print)


def test_cancelled(reactor: MemoryReactor) -> None:
    ran: list[int] = []
    call = reactor.callLater(1, ran.append, 1)
    call.cancel()
    with pytest.raises(error.AlreadyCancelled):
        call.cancel()
    reactor.advance(2)
    assert ran == []
    assert not reactor.getDelayedCalls()
    called = reactor.callLater(1, ran.append, 2)
    reactor.advance(1)
    with pytest.raises(error.AlreadyCalled):
        called.cancel()


def test_movedAbout(reactor: MemoryReactor) -> None:
    times: dict[str, float] = {}

    def note(name: str) -> None:
        times[name] = reactor.seconds()

    reactor.callLater(5, note, "sooner").reset(2)
    reactor.callLater(5, note, "later").reset(8)
    reactor.callLater(5, note, "delayed").delay(4)
    reactor.callLater(5, note, "hastened").delay(-4)
    there = reactor.callLater(5, note, "there and back")
    there.reset(2)
    there.reset(5)
    assert sorted(call.getTime() for call in reactor.getDelayedCalls()) == [1, 2, 5, 8, 9]
    reactor.advance(20)
    assert times == {"sooner": 2, "later": 8, "delayed": 9, "hastened": 1, "there and back": 5}


def test_manyThatAreCancelledDoNotStay(reactor: MemoryReactor) -> None:
    kept = reactor.callLater(50, lambda: None)
    for _ in range(1000):
        reactor.callLater(100, lambda: None).cancel()
    assert len(reactor._calls) < 200
    assert reactor.getDelayedCalls() == [kept]


moves = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
        st.tuples(st.just("reset"), st.integers(0, 99), st.integers(0, 9)),
        st.tuples(st.just("delay"), st.integers(0, 99), st.integers(-3, 9)),
        st.tuples(st.just("advance"), st.integers(0, 4)),
    ),
    max_size=40,
)


@given(moves)
def test_everyCallRunsAtItsTimeAndOnce(script: list[Any]) -> None:
    network = MemoryNetwork()
    reactor = network.reactor
    network.advance(0)
    ran: list[int] = []
    calls: list[Any] = []
    due: dict[int, float] = {}

    def run(name: int) -> None:
        assert due.pop(name) == reactor.seconds()
        ran.append(name)

    for what, *numbers in script:
        if what == "make":
            due[len(calls)] = reactor.seconds() + numbers[0]
            calls.append(reactor.callLater(numbers[0], run, len(calls)))
        elif what == "advance":
            reactor.advance(numbers[0])
        elif due:
            name = sorted(due)[numbers[0] % len(due)]
            if what == "cancel":
                calls[name].cancel()
                del due[name]
            elif what == "reset":
                calls[name].reset(numbers[1])
                due[name] = reactor.seconds() + numbers[1]
            else:
                due[name] = max(due[name] + numbers[1], reactor.seconds())
                calls[name].reset(due[name] - reactor.seconds())
        assert {call.args[0] for call in reactor.getDelayedCalls()} == set(due)
    reactor.advance(100)
    assert not due
    assert len(ran) == len(set(ran))


def test_aCallThatRaises(reactor: MemoryReactor, loggedErrors: LoggedErrors) -> None:
    ran: list[int] = []
    reactor.callLater(1, lambda: 1 / 0)
    reactor.callLater(1, ran.append, 1)
    reactor.callFromThread(lambda: 1 / 0)
    reactor.advance(1)
    assert ran == [1]
    assert len(loggedErrors.flush(ZeroDivisionError)) == 2


# -- running and its end


def test_callsFromThreads(reactor: MemoryReactor) -> None:
    ran: list[int] = []
    reactor.callFromThread(ran.append, 1)
    reactor.callFromThread(reactor.callFromThread, ran.append, 2)
    assert ran == []
    reactor.advance(0)
    assert ran == [1, 2]


def test_running(reactor: MemoryReactor) -> None:
    ran: list[str] = []
    reactor.addSystemEventTrigger("before", "startup", ran.append, "before startup")
    reactor.callWhenRunning(ran.append, "running")
    reactor.addSystemEventTrigger("before", "shutdown", ran.append, "before shutdown")
    reactor.addSystemEventTrigger("during", "shutdown", ran.append, "shutdown")
    reactor.callLater(3, reactor.stop)
    assert not reactor.running
    reactor.run()
    assert ran == ["before startup", "running", "before shutdown", "shutdown"]
    assert reactor.seconds() == 3
    with pytest.raises(error.ReactorNotRunning):
        reactor.stop()


def test_shutdownWaits(reactor: MemoryReactor) -> None:
    waits: Deferred[None] = Deferred()

    def before() -> Deferred[None]:
        reactor.callLater(5, waits.callback, None)
        return waits

    reactor.addSystemEventTrigger("before", "shutdown", before)
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    assert reactor.seconds() == 5


def test_runningWithoutAnEnd(reactor: MemoryReactor) -> None:
    with pytest.raises(StalledError):
        reactor.run()
    assert reactor.running


def test_runningOnceMore(network: MemoryNetwork, reactor: MemoryReactor) -> None:
    network.advance(0)  # which starts it
    assert reactor.running
    reactor.callLater(1, reactor.stop)
    reactor.run()
    assert not reactor.running
    network.advance(1)  # it is not started again
    assert not reactor.running


def test_iterating(reactor: MemoryReactor) -> None:
    ran: list[int] = []
    reactor.callLater(1, ran.append, 1)
    reactor.iterate()
    assert ran == []
    reactor.iterate(1)
    assert ran == [1]


def test_stoppingEndsConnections(network: MemoryNetwork, reactor: MemoryReactor) -> None:
    port = reactor.listenTCP(80, ServerFactory.forProtocol(Side))
    network.advance(0)
    reactor.callLater(1, reactor.stop)
    reactor.run()
    assert port.disconnected
    assert not reactor.getReaders()


def test_aNeverUsedWayOfWaking(reactor: MemoryReactor) -> None:
    reactor.installWaker()
    reactor.wakeUp()


# -- who is served


class Watcher:
    """Reads and writes a socket, and keeps what it is told."""

    def __init__(self, host: Host, skt: Any) -> None:
        self._reactor = host.reactor
        self.skt = skt
        self.told: list[Any] = []
        self.answers: dict[str, Any] = {}

    def fileno(self) -> int:
        number: int = self.skt.fileno()
        return number

    def logPrefix(self) -> str:
        return "a watcher"

    def doRead(self) -> Any:
        return self._done("read")

    def doWrite(self) -> Any:
        return self._done("write")

    def _done(self, what: str) -> Any:
        self.told.append(what)
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        answer = self.answers.get(what)
        if isinstance(answer, ZeroDivisionError):
            raise answer
        return answer

    def connectionLost(self, reason: Any) -> None:
        self.told.append(reason.type)
        if "lost" in self.answers:
            raise self.answers["lost"]


@implementer(interfaces.IHalfCloseableDescriptor)
class HalfWatcher(Watcher):
    def readConnectionLost(self, reason: Any) -> None:
        self.told.append(("read lost", reason.type))

    def writeConnectionLost(self, reason: Any) -> None:
        self.told.append(("write lost", reason.type))


class Pair:
    """Two sockets that are connected, and somebody who watches the first."""

    def __init__(self, network: MemoryNetwork, kind: type[Watcher] = Watcher) -> None:
        self.network = network
        self.host = network.host("localhost")
        self.reactor = self.host.reactor
        listener: Any = self.reactor.makeSocket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 80))
        listener.listen(1)
        self.mine: Any = self.reactor.makeSocket(socket.AF_INET, socket.SOCK_STREAM)
        self.mine.connect_ex(("127.0.0.1", 80))
        self.theirs = listener.accept()[0]
        self.watcher = kind(self.host, self.mine)


@pytest.fixture
def pair(network: MemoryNetwork) -> Pair:
    return Pair(network)


def test_reading(pair: Pair) -> None:
    pair.reactor.addReader(pair.watcher)
    pair.reactor.addReader(pair.watcher)
    pair.network.advance(1)
    assert pair.watcher.told == []
    assert pair.reactor.getReaders() == [pair.watcher]
    pair.theirs.send(b"x")
    pair.network.advance(1)
    assert pair.watcher.told == ["read"]
    assert pair.reactor.getReaders() == []


def test_writing(pair: Pair) -> None:
    pair.reactor.addWriter(pair.watcher)
    pair.reactor.addWriter(pair.watcher)
    assert pair.reactor.getWriters() == [pair.watcher]
    pair.network.advance(1)
    assert pair.watcher.told == ["write"]


def test_readingComesBeforeWriting(pair: Pair) -> None:
    class Greedy(Watcher):
        def _done(self, what: str) -> None:
            self.told.append(what)
            if what == "write":
                self._reactor.removeReader(self)
                self._reactor.removeWriter(self)

    greedy = Greedy(pair.host, pair.mine)
    pair.reactor.addReader(greedy)
    pair.reactor.addWriter(greedy)
    pair.theirs.send(b"x")
    pair.network.advance(1)
    assert greedy.told == ["read", "write"]


def test_nobodyIsServedAnyMore(pair: Pair) -> None:
    pair.reactor.addReader(pair.watcher)
    pair.theirs.send(b"x")
    pair.reactor.removeReader(pair.watcher)
    pair.reactor.removeReader(pair.watcher)
    pair.reactor.removeWriter(pair.watcher)
    pair.network.advance(1)
    assert pair.watcher.told == []


def test_removingAll(pair: Pair) -> None:
    pair.reactor.addReader(pair.watcher)
    pair.reactor.addWriter(pair.watcher)
    assert pair.reactor.removeAll() == [pair.watcher]
    assert (pair.reactor.getReaders(), pair.reactor.getWriters()) == ([], [])


@pytest.mark.parametrize(
    ("what", "answer", "told"),
    [
        ("read", CONNECTION_DONE, error.ConnectionDone),
        ("read", CONNECTION_LOST, error.ConnectionLost),
        ("write", CONNECTION_LOST, error.ConnectionLost),
        ("write", CONNECTION_DONE, error.ConnectionDone),
        ("read", OSError("other"), OSError),
    ],
)
def test_whatIsReturned(pair: Pair, what: str, answer: Exception, told: Any) -> None:
    pair.watcher.answers[what] = answer
    (pair.reactor.addReader if what == "read" else pair.reactor.addWriter)(pair.watcher)
    pair.theirs.send(b"x")
    pair.network.advance(1)
    assert pair.watcher.told == [what, told]


def test_whatIsRaised(pair: Pair, loggedErrors: LoggedErrors) -> None:
    pair.watcher.answers = {"read": ZeroDivisionError(), "lost": KeyError()}
    pair.reactor.addReader(pair.watcher)
    pair.theirs.send(b"x")
    pair.network.advance(1)
    assert pair.watcher.told == ["read", ZeroDivisionError]
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    assert len(loggedErrors.flush(KeyError)) == 1


def test_halfOfIt(network: MemoryNetwork) -> None:
    pair = Pair(network, HalfWatcher)
    pair.watcher.answers["read"] = CONNECTION_DONE
    pair.reactor.addReader(pair.watcher)
    pair.theirs.shutdown(socket.SHUT_WR)
    pair.network.advance(1)
    assert pair.watcher.told == ["read", ("read lost", error.ConnectionDone)]


def test_goneForWhoOnlyWrites(pair: Pair) -> None:
    pair.reactor.addWriter(pair.watcher)
    pair.network.advance(0)
    pair.watcher.told.clear()
    pair.mine.shutdown(socket.SHUT_WR)
    pair.theirs.close()
    pair.reactor.addWriter(pair.watcher)
    pair.network.advance(0)
    # Bytes or an end are there to be read, as poll(2) says, but nobody reads them.
    assert pair.watcher.told == [error.ConnectionLost]


def test_goneWithNothingToRead(network: MemoryNetwork) -> None:
    skt: Any = network.reactor.makeSocket(socket.AF_INET, socket.SOCK_STREAM)
    watcher = Watcher(network.host("localhost"), skt)
    network.reactor.addReader(watcher)
    network.advance(0)
    assert watcher.told == [error.ConnectionDone]  # POLLHUP and no POLLIN: it was never connected


def test_descriptorsOfThisProcess(network: MemoryNetwork) -> None:
    with socket.socket() as skt:
        watcher = Watcher(network.host("localhost"), skt)
        for add in (network.reactor.addReader, network.reactor.addWriter):
            with pytest.raises(ValueError, match="which is none of the host in memory 'localhost'"):
                add(watcher)


def test_descriptorsOfNobody(pair: Pair) -> None:
    pair.mine.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.reactor.addReader(pair.watcher)


def test_theLogKnowsWhoIsServed(pair: Pair) -> None:
    seen: list[Any] = []

    class Talking(Watcher):
        def doRead(self) -> Any:
            seen.append(context.get(ILogContext)["system"])
            return super().doRead()

    pair.reactor.addReader(Talking(pair.host, pair.mine))
    pair.theirs.send(b"x")
    pair.network.advance(0)
    assert seen == ["a watcher"]


def test_whoIsServedFirstIsLeftToChance() -> None:
    orders = set()
    for seed in range(20):
        network = MemoryNetwork(seed)
        reactor = network.reactor
        order: list[str] = []

        class Hears(DatagramProtocol):
            def __init__(self, name: str, order: list[str]) -> None:
                self._name = name
                self._order = order

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self._order.append(self._name)

        speaker = reactor.listenUDP(1, DatagramProtocol())
        for port, name in enumerate("abc", 2):
            reactor.listenUDP(port, Hears(name, order))
            speaker.write(b"x", ("127.0.0.1", port))
        network.advance(1)
        orders.add(tuple(order))
    assert len(orders) > 2


def test_aHostThatDiesInItsTurn(network: MemoryNetwork) -> None:
    pair = Pair(network)
    other: Any = pair.reactor.makeSocket(socket.AF_INET, socket.SOCK_STREAM)

    class Killer(Watcher):
        def doRead(self) -> None:
            pair.host.die()

    pair.reactor.addReader(Killer(pair.host, pair.mine))
    watcher = Watcher(pair.host, other)
    pair.reactor.addReader(watcher)  # it is ready, too
    pair.theirs.send(b"x")
    pair.host.ready.clear()
    for skt in (pair.mine, other):
        skt.listed = False
        skt.wake()
    network.advance(1)
    assert watcher.told == []


def test_anIcmpErrorIsRead(network: MemoryNetwork) -> None:
    class Refused(DatagramProtocol):
        transport: Any
        refused = 0

        def connectionRefused(self) -> None:
            self.refused += 1

    protocol = Refused()
    port: Any = network.reactor.listenUDP(0, protocol)
    port.connect("127.0.0.1", 9)
    port.write(b"x")
    network.advance(1)
    assert protocol.refused == 1
    assert network.reactor.getReaders() == [port]
    port.stopListening()


# -- names, and what stands on sockets


def test_otherResolvers(network: MemoryNetwork) -> None:
    @implementer(interfaces.IResolverSimple)
    class Resolver:
        def getHostByName(self, name: str, timeout: Any = None) -> Deferred[str]:
            return succeed("10.7.7.7")

    network.reactor.installResolver(Resolver())
    assert network.run(lambda: network.reactor.resolve("whoever")) == "10.7.7.7"


def test_unlinking(network: MemoryNetwork) -> None:
    skt: Any = network.reactor.makeSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    skt.bind("/run/server")
    network.reactor.unlink("/run/server")
    network.reactor.unlink("/run/server")
    assert network.host("localhost").ports.file("/run/server") is None


class Ends(ServerFactory, ClientFactory):
    """Makes one `Side`."""

    def __init__(self) -> None:
        self.side = Side()

    def buildProtocol(self, addr: Any) -> Any:
        return self.side


def exchange(network: MemoryNetwork, port: Any, server: Side, client: Side) -> None:
    """Say a word each way, and end everything."""
    client.transport.write(b"question")
    network.runWhile(lambda: server.received != b"question")
    server.transport.write(b"answer")
    network.runWhile(lambda: client.received != b"answer")
    for side in (client, server):
        side.transport.abortConnection()
    port.stopListening()
    network.close()


@pytest.mark.parametrize("kind", ["tcp", "unix", "served", "servedUnix"])
def test_connections(network: MemoryNetwork, kind: str) -> None:
    reactor = network.reactor
    servers, clients = Ends(), Ends()
    isUnix = kind in ("unix", "servedUnix")
    place: Any = "/run/server" if isUnix else ("127.0.0.1", 80)
    if kind == "tcp":
        port: Any = reactor.listenTCP(80, servers)
    elif kind == "unix":
        port = reactor.listenUNIX(place, servers)
    else:
        skt = reactor.makeSocket(socket.AF_UNIX if isUnix else socket.AF_INET, socket.SOCK_STREAM)
        skt.bind(place)
        skt.listen(5)
        port = reactor.serveSocket(skt, servers)
    if isUnix:
        reactor.connectUNIX(place, clients)
    else:
        reactor.connectTCP("127.0.0.1", 80, clients)
    network.settle()
    exchange(network, port, servers.side, clients.side)


def test_deferringToAThread(network: MemoryNetwork) -> None:
    ran: list[int] = []
    network.reactor.callInThread(ran.append, 1)
    network.advance(0)
    assert ran == [1]
    assert network.reactor.getThreadPool() is network.reactor.getThreadPool()


def test_theSpareDescriptorIsGivenUp(network: MemoryNetwork) -> None:
    """A client that no descriptor is left for is turned away, by the one that is kept for that."""
    host, reactor = network.host("localhost"), network.reactor
    port: Any = reactor.listenTCP(80, Ends())
    clients = Ends()
    reactor.connectTCP("127.0.0.1", 80, clients)
    host.descriptorLimit -= host.descriptorsLeft()
    network.settle()
    assert clients.side.events[:2] == ["made", "readEnd"]
    assert host.descriptorsLeft() == 0  # the spare one is there again
    clients.side.transport.abortConnection()
    port.stopListening()
    network.close()


@pytest.mark.tls
def test_tls(network: MemoryNetwork) -> None:
    from certificates import selfSigned

    certificate = selfSigned()
    servers, clients = Ends(), Ends()
    port: Any = network.host("one").reactor.listenSSL(443, servers, certificate.forServer())
    network.host("two").reactor.connectSSL("one", 443, clients, certificate.forClient())
    network.runWhile(lambda: "handshake" not in clients.side.events)
    exchange(network, port, servers.side, clients.side)
    assert "question" not in str(network.trace)
