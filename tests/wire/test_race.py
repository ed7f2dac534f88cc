"""Attempts that race: one wins, and of all the others nothing is left."""

from __future__ import annotations

import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, blackHole, deadPort, fullQueue, noDescriptors
from pairs import Side
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address
from twisted_net.errors import AbortedError, EndError, NetError, OptionError, RefusedError
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.race import ATTEMPT_DELAY, QUEUE_DELAY, Race, notConnected

# Linux answers so for TCP to a multicast address, whatever the routes are (tcp_v4_connect in net/ipv4/tcp_ipv4.c).
UNREACHABLE = Address("224.0.0.1", 80, "IPv4")


@implementer(IProtocolFactory)
class Clients:
    """A factory that builds what it is told to, `Side` unless it is told, and counts."""

    def __init__(self, build: Callable[[], Any] = Side) -> None:
        self.build = build
        self.built: list[Any] = []
        self.started = self.stopped = 0

    def doStart(self) -> None:
        self.started += 1

    def doStop(self) -> None:
        self.stopped += 1

    def buildProtocol(self, addr: object) -> Any:
        self.built.append(addr)
        return self.build()

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.started, len(self.built), self.stopped


@contextmanager
def server(address: Any = ("127.0.0.1", 0), family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family) as skt:
        skt.bind(address)
        skt.listen()
        yield skt


def ip(address: tuple[str, int]) -> Address:
    return Address(*address, "IPv4")


def unix(path: str) -> Address:
    return Address(path, None, "unix")


async def turns(reactor: Any, number: int = 5) -> None:
    for _ in range(number):
        await deferLater(reactor, 0)


async def goodbye(side: Side) -> None:
    side.transport.loseConnection()
    await gone(side)


async def gone(side: Side) -> None:
    """Its connection is over, and Twisted has told everybody."""
    await side.happened("lost")
    await turns(Elsewhere(), 1)


async def lost(running: Deferred[IProtocol]) -> NetError:
    with pytest.raises(NetError) as caught:
        await running
    return caught.value


# One address


@pytest.mark.parametrize("kind", ["tcp", "path", "abstract"])
@pytest_twisted.ensureDeferred
async def test_connected(kind: str, tmp_path: Path) -> None:
    where: Any = {"tcp": ("127.0.0.1", 0), "path": str(tmp_path / "s"), "abstract": f"\0race{os.getpid()}"}[kind]
    reactor, clients = Elsewhere(), Clients()
    with server(where, socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as listening:
        side: Any = await Race(reactor, clients, [ip(listening.getsockname()) if kind == "tcp" else unix(where)]).run()
        assert isinstance(side, Side)
        assert side.events == ["made"]
        assert side.transport.protocol is side
        assert side.transport.logstr == "Side,client"
        assert clients.counts == (1, 1, 0)
        assert reactor.getDelayedCalls() == []
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"hello")
            await side.until(lambda: side.received == b"hello")
            await goodbye(side)
    assert clients.counts == (1, 1, 1)
    (tmp_path / "s").unlink(missing_ok=True)


@pytest_twisted.ensureDeferred
async def test_aProtocolThatIsNoTwistedOne() -> None:
    class Bare:
        transport: Any = None
        over: Deferred[None]

        def makeConnection(self, transport: Any) -> None:
            self.transport, self.over = transport, Deferred()

        def connectionLost(self, reason: Failure) -> None:
            self.over.callback(None)

    with server() as listening:
        bare: Any = await Race(Elsewhere(), Clients(Bare), [ip(listening.getsockname())]).run()
        assert type(bare) is Bare
        assert bare.transport.logstr == "Bare,client"
        bare.transport.loseConnection()
        await bare.over


@pytest_twisted.ensureDeferred
async def test_onceItIsConnectedTheRaceIsForgotten() -> None:
    with server() as listening:
        race = Race(Elsewhere(), Clients(), [ip(listening.getsockname())])
        side: Any = await race.run()
        remembered = weakref.ref(race)
        del race
        await turns(Elsewhere(), 1)
        gc.collect()
        assert remembered() is None
        await goodbye(side)


@pytest_twisted.ensureDeferred
async def test_refused(tmp_path: Path) -> None:
    clients = Clients()
    with deadPort() as where:
        error = await lost(Race(Elsewhere(), clients, [ip(where)]).run())
    assert isinstance(error, RefusedError)
    assert (error.address, error.syscall) == (ip(where), "connect")
    assert f"connect 127.0.0.1:{where[1]}: nobody accepts" in str(error)
    assert clients.counts == (1, 0, 1)
    error = await lost(Race(Elsewhere(), clients, [unix(str(tmp_path / "s"))]).run())
    assert (error.code, error.address) == ("ENOENT", unix(str(tmp_path / "s")))


@pytest.mark.parametrize("address", [ip(("127.0.0.1", 9)), unix("/nowhere")], ids=["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_noDescriptorLeft(address: Address) -> None:
    reactor, clients = Elsewhere(), Clients()
    with noDescriptors():
        running = Race(reactor, clients, [address]).run()
    error = await lost(running)
    assert (error.code, error.fault, error.address) == ("EMFILE", "limit", address)
    assert clients.counts == (1, 0, 1)


@pytest_twisted.ensureDeferred
async def test_connectedToItself() -> None:
    clients = Clients()
    with deadPort() as where:
        pass
    error = await lost(Race(Elsewhere(), clients, [ip(where)], localAddress=where).run())
    assert isinstance(error, RefusedError)
    assert "it was connected to itself" in str(error)
    assert clients.counts == (1, 0, 1)


# Several addresses


@pytest_twisted.ensureDeferred
async def test_aRefusalStartsTheNextAtOnce() -> None:
    reactor, clients = Elsewhere(), Clients()
    with deadPort() as dead, server() as listening:
        addresses = [ip(dead), UNREACHABLE, ip(listening.getsockname())]
        side: Any = await Race(reactor, clients, addresses).run()
        assert side.transport.getPeer().port == listening.getsockname()[1]
        await goodbye(side)
    assert clients.counts == (1, 1, 1)
    assert reactor.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_silenceStartsTheNextAfterAWhile() -> None:
    reactor, clients = Elsewhere(), Clients()
    with blackHole() as hole, server() as listening:
        running = Race(reactor, clients, [ip(hole), ip(listening.getsockname()), UNREACHABLE]).run()
        reactor.advance(ATTEMPT_DELAY - 0.01)
        await turns(reactor)
        assert not running.called
        reactor.advance(0.01)
        side: Any = await running
        assert side.transport.getPeer().port == listening.getsockname()[1]
        assert reactor.getDelayedCalls() == []
        await goodbye(side)
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_aRefusalIsNotTheEndWhileAnotherAttemptRuns() -> None:
    reactor, clients = Elsewhere(), Clients()
    with blackHole() as hole, deadPort() as dead:
        running = Race(reactor, clients, [ip(hole), ip(dead)]).run()
        reactor.advance(ATTEMPT_DELAY)
        await turns(reactor)
        assert not running.called
        assert reactor.getDelayedCalls() == []
        running.cancel()
        running.addErrback(lambda reason: None)
    assert clients.counts == (1, 0, 1)


@pytest_twisted.ensureDeferred
async def test_twistedsOwnTimeoutIsOutOfReach() -> None:
    from twisted.internet import reactor

    clock: Any = reactor
    with blackHole() as hole:
        before = set(clock.getDelayedCalls())
        running = Race(Elsewhere(), Clients(), [ip(hole)]).run()
        await turns(clock)
        [left] = [call.getTime() - clock.seconds() for call in clock.getDelayedCalls() if call not in before]
        running.cancel()
        running.addErrback(lambda reason: None)
    assert left > 24 * 3600


@pytest_twisted.ensureDeferred
async def test_onlyOneOfTwoWinners() -> None:
    reactor, clients = Elsewhere(), Clients()
    with server() as first, server() as second:
        running = Race(reactor, clients, [ip(first.getsockname()), ip(second.getsockname())]).run()
        reactor.advance(ATTEMPT_DELAY)
        side: Any = await running
        assert clients.counts == (1, 1, 0)
        await turns(reactor)
        assert clients.counts == (1, 1, 0)
        await goodbye(side)
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_theMostTellingErrorAndTheOthersAsNotes() -> None:
    with deadPort() as first, deadPort() as second:
        error = await lost(Race(Elsewhere(), Clients(), [ip(first), ip(second), UNREACHABLE]).run())
    assert (error.code, error.address) == ("ECONNREFUSED", ip(second))
    notes = error.__notes__
    assert len(notes) == 2
    assert f"tried as well: connect 127.0.0.1:{first[1]}: " in notes[0]
    assert "ENETUNREACH" in notes[1]


@pytest_twisted.ensureDeferred
async def test_anErrorOfThisMachineIsBetterThanNone() -> None:
    error = await lost(Race(Elsewhere(), Clients(), [UNREACHABLE]).run())
    assert error.code == "ENETUNREACH"
    assert not hasattr(error, "__notes__")


# Before it connects


@pytest_twisted.ensureDeferred
async def test_options() -> None:
    options = SocketOptions()
    options.setNoDelay(True)
    with server() as listening:
        side: Any = await Race(Elsewhere(), Clients(), [ip(listening.getsockname())], options=options).run()
        skt = side.transport.socket
        assert skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not skt.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await goodbye(side)


@pytest_twisted.ensureDeferred
async def test_optionsThatAreRefused() -> None:
    class Refused(SocketOptions):
        def apply(self, transport: Any) -> None:
            raise OptionError("not today")

    reactor, clients = Elsewhere(), Clients()
    with server() as listening:
        error = await lost(Race(reactor, clients, [ip(listening.getsockname())], options=Refused()).run())
        await turns(reactor)
    assert isinstance(error, OptionError)
    assert clients.counts == (1, 0, 1)


@pytest_twisted.ensureDeferred
async def test_localAddress() -> None:
    with server() as listening:
        address = [ip(listening.getsockname())]
        side: Any = await Race(Elsewhere(), Clients(), address, localAddress=("127.0.0.3", 0)).run()
        accepted, local = listening.accept()
        accepted.close()
        assert local == (side.transport.getHost().host, side.transport.getHost().port)
        assert local[0] == "127.0.0.3"
        await goodbye(side)


@pytest_twisted.ensureDeferred
async def test_aLocalPortOfAConnectionThatHasJustEnded() -> None:
    # An address of its own: on 127.0.0.1 another program's connection in TIME_WAIT may share the port, and keep it.
    with server() as first, server() as second:
        own = ("127.81.24.1", 0)
        side: Any = await Race(Elsewhere(), Clients(), [ip(first.getsockname())], localAddress=own).run()
        accepted, local = first.accept()
        side.transport.loseConnection()
        await gone(side)
        accepted.close()  # the port is in TIME_WAIT now: without SO_REUSEADDR it cannot be bound
        side = await Race(Elsewhere(), Clients(), [ip(second.getsockname())], localAddress=local).run()
        assert (side.transport.getHost().host, side.transport.getHost().port) == local
        await goodbye(side)


@pytest_twisted.ensureDeferred
async def test_aLocalAddressThatCannotBeBound() -> None:
    clients = Clients()
    with server() as listening:
        for local, code in ((listening.getsockname(), "EADDRINUSE"), (("203.0.113.1", 0), "EADDRNOTAVAIL")):
            error = await lost(Race(Elsewhere(), clients, [ip(listening.getsockname())], localAddress=local).run())
            assert (error.code, error.syscall) == (code, "bind")
            assert f"bind {local[0]}:{local[1]}: " in str(error)
    assert clients.started == clients.stopped == 2


# A queue that is full


@pytest_twisted.ensureDeferred
async def test_waitsForRoomInAQueue(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    reactor, clients = Elsewhere(), Clients()
    with fullQueue(path) as full:
        running = Race(reactor, clients, [unix(path)]).run()
        for _ in range(3):
            await turns(reactor)
            assert not running.called
            assert [call.getTime() for call in reactor.getDelayedCalls()] == [reactor.seconds() + QUEUE_DELAY]
            reactor.advance(QUEUE_DELAY)
        await turns(reactor)
        full.accept()[0].close()
        reactor.advance(QUEUE_DELAY)
        side: Any = await running
        await goodbye(side)
    assert clients.counts == (1, 1, 1)
    os.unlink(path)


# Factories and protocols


@pytest_twisted.ensureDeferred
async def test_noProtocol() -> None:
    clients = Clients(lambda: None)
    with server() as listening:
        error = await lost(Race(Elsewhere(), clients, [ip(listening.getsockname())]).run())
        listening.accept()[0].close()
    assert isinstance(error, AbortedError)
    assert error.address == ip(listening_address(error))
    assert clients.counts == (1, 1, 1)


def listening_address(error: NetError) -> tuple[str, int]:
    assert isinstance(error.address, Address)
    assert error.address.port is not None
    return error.address.address, error.address.port


def unable() -> None:
    raise ZeroDivisionError("not today")


@pytest_twisted.ensureDeferred
async def test_buildProtocolRaises() -> None:
    clients = Clients(unable)
    with server() as listening:
        error = await lost(Race(Elsewhere(), clients, [ip(listening.getsockname())]).run())
    assert error.code == "ERR_INTERNAL"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_makeConnectionRaises() -> None:
    class Unable(Side):
        def connectionMade(self) -> None:
            super().connectionMade()
            raise ZeroDivisionError("not today")

    side = Unable()
    clients = Clients(lambda: side)
    with server() as listening:
        error = await lost(Race(Elsewhere(), clients, [ip(listening.getsockname())]).run())
        assert (error.code, listening_address(error)) == ("ERR_INTERNAL", listening.getsockname())
        await gone(side)
    assert side.reason is not None
    assert side.reason.check(ConnectionAborted)
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_connectionsThatEndWhileTheyAreMade() -> None:
    class Hasty(Side):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.abortConnection()

    clients = Clients(Hasty)
    with server() as listening:
        side: Any = await Race(Elsewhere(), clients, [ip(listening.getsockname())]).run()
        await gone(side)
    assert clients.counts == (1, 1, 1)


# Cancelling


@pytest.mark.parametrize("after", [0, 1, 5])
@pytest_twisted.ensureDeferred
async def test_cancelledWhileAttemptsRun(after: int) -> None:
    reactor, clients = Elsewhere(), Clients()
    before = len(os.listdir("/proc/self/fd"))
    with blackHole() as hole:
        running = Race(reactor, clients, [ip(hole), ip(hole), ip(hole)]).run()
        reactor.advance(ATTEMPT_DELAY)
        await turns(reactor, after)
        running.cancel()
        running.addErrback(lambda reason: None)
        assert reactor.getDelayedCalls() == []
        assert clients.counts == (1, 0, 1)
    await turns(reactor)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest_twisted.ensureDeferred
async def test_cancelledWhileItWaitsForAQueue(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    reactor, clients = Elsewhere(), Clients()
    with fullQueue(path):
        running = Race(reactor, clients, [unix(path)]).run()
        await turns(reactor)
        running.cancel()
        running.addErrback(lambda reason: None)
        assert reactor.getDelayedCalls() == []
    assert clients.counts == (1, 0, 1)
    os.unlink(path)


@pytest_twisted.ensureDeferred
async def test_cancelledInBuildProtocol() -> None:
    side = Side()

    def build() -> Side:
        running.cancel()
        return side

    clients = Clients(build)
    with server() as listening:
        running = Race(Elsewhere(), clients, [ip(listening.getsockname())]).run()
        ended: Deferred[None] = Deferred()
        running.addErrback(lambda reason: ended.callback(None))
        await ended
        accepted, _ = listening.accept()
        with accepted:
            await turns(Elsewhere())
            assert accepted.recv(1) == b""
    assert side.events == []
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_cancelledInMakeConnection() -> None:
    class Fickle(Side):
        def connectionMade(self) -> None:
            super().connectionMade()
            running.cancel()

    side = Fickle()
    clients = Clients(lambda: side)
    with server() as listening:
        running = Race(Elsewhere(), clients, [ip(listening.getsockname())]).run()
        running.addErrback(lambda reason: None)
        await gone(side)
    assert side.events == ["made", "lost"]
    assert clients.counts == (1, 1, 1)


@pytest_twisted.ensureDeferred
async def test_cancelledInMakeConnectionThatRaises() -> None:
    class Both(Side):
        def connectionMade(self) -> None:
            super().connectionMade()
            running.cancel()
            raise ZeroDivisionError("not today")

    side = Both()
    clients = Clients(lambda: side)
    with server() as listening:
        running = Race(Elsewhere(), clients, [ip(listening.getsockname())]).run()
        running.addErrback(lambda reason: None)
        await gone(side)
    assert clients.counts == (1, 1, 1)


# Words


def test_anEndThatIsNoErrorElsewhereIsOneHere() -> None:
    error = notConnected(Failure(ConnectionDone()), "host.test:80")
    assert isinstance(error, EndError)
    assert (error.address, error.syscall) == ("host.test:80", "connect")
