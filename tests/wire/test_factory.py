"""Who is let in, who waits, who is turned away, and what is left when all have gone."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import pytest
from doors import Kind, Place, Port, door, ended, patient, reset
from logs import LoggedErrors, heard
from turning import turns, until
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IReadDescriptor, ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from twisted_net.address import Address
from twisted_net.interfaces import IConnectionUser
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.factory import REST_AFTER_FAILED_ACCEPT, Ended, SocketFactory, guard
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol

KINDS: tuple[Any, ...] = ("tcp", "unix", pytest.param("tls", marks=pytest.mark.tls))


@implementer(IConnectionUser)
class User:
    """Sends back what comes, and keeps what happens."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.protocol: Any = None
        self.received = b""
        self.closed: tuple[Exception | None, Failure] | None = None

    def connectionOpened(self, protocol: Any) -> None:
        self.protocol = protocol
        self.house.users.append(self)
        if self.house.failing:
            raise self.house.failing
        protocol.attach(self.receive)

    def receive(self, data: bytes) -> None:
        self.received += data
        self.protocol.write(data)

    def readEnded(self) -> None:
        self.protocol.close()

    def writeEnded(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        self.closed = error, reason

    def limitPassed(self, name: str, action: str) -> None:
        self.house.met.append((name, action))

    def raised(self, where: str, error: Exception) -> None:
        self.house.raised.append((where, error))


class House:
    """A factory, everything that it tells, and the port it listens on."""

    place: Place

    def __init__(self, limits: Limits) -> None:
        from twisted.internet import reactor

        self.time: Any = VirtualTime(reactor)
        self.users: list[User] = []
        self.met: list[tuple[str, str]] = []
        self.peers: list[Address] = []
        self.records: list[Ended] = []
        self.raised: list[tuple[str, Exception]] = []
        self.failing: Exception | None = None
        self.factory = SocketFactory(
            lambda protocol: User(self),
            cast(IReactorTime, self.time),
            limits=limits,
            watcher=self,
            journal=self.records.append,
        )

    def limitPassed(self, name: str, peer: Address, action: str) -> None:
        self.met.append((name, action))
        self.peers.append(peer)

    async def served(self, client: Any) -> None:
        """The client is answered."""
        before = len(client.received)
        client.transport.write(b"hello")
        await client.until(lambda: len(client.received) >= before + 5)

    def heard(self, number: int) -> bytes:
        """What that user has received."""
        return self.users[number].received if len(self.users) > number else b""

    def refused(self, count: int) -> bool:
        """So many were turned away."""
        return self.factory.counters["refused"] == count

    def counted(self, **expected: int) -> None:
        """What was counted, and nothing else."""
        found = {name: count for name, count in self.factory.counters.snapshot().items() if count}
        assert found == expected


@asynccontextmanager
async def house(kind: Kind = "tcp", canPause: bool = True, **limits: Any) -> AsyncIterator[House]:
    one = House(Limits(**{"reserve": 0, **limits}))
    async with door(one.factory, kind) as place:
        one.place = place
        place.port.canPause = canPause
        one.factory.adopt(place.port)
        yield one
        one.factory.stop()
        one.factory.disown(place.port)
    await until(lambda: not one.factory and not one.factory.waiting)
    await turns(2)
    assert one.time.getDelayedCalls() == []
    admitted = one.factory.counters["accepted"]
    assert admitted == one.factory.counters["closed"] == len(one.records)
    if one.users:
        assert all(user.closed is not None for user in one.users)


def lines(word: str) -> AbstractContextManager[list[LogEvent]]:
    """Lines in Twisted's log in whose format *word* stands."""
    return heard(lambda event: word in str(event.get("log_format")))


def test_interface() -> None:
    factory = House(Limits()).factory
    assert verifyObject(IProtocolFactory, factory)
    factory.doStart()
    factory.doStop()


# -- the living


@pytest.mark.parametrize("kind", KINDS)
@patient
async def test_table(kind: Kind) -> None:
    async with house(kind) as here:
        first = await here.place.connect()
        await here.served(first)
        second = await here.place.connect()
        await here.served(second)
        assert len(here.factory) == 2
        assert set(here.factory) == {user.protocol for user in here.users}
        assert here.factory.seen == 2
        here.time.advance(3)
        first.transport.loseConnection()
        await until(lambda: len(here.factory) == 1)
        here.counted(accepted=2, closed=1)
        (record,) = here.records
        assert (record.bytesRead, record.bytesWritten, record.seconds, record.error) == (5, 5, 3.0, None)
        assert record.peer.family == ("unix" if kind == "unix" else "IPv4")
    assert not here.met


@patient
async def test_unnamedUnixPeer() -> None:
    async with house("unix", connections=0) as here:
        client = await here.place.connect()
        await ended(client)
        assert here.peers == [Address("", None, "unix")]


@pytest.mark.parametrize("kind", KINDS)
@patient
async def test_nothingStaysAlive(kind: Kind) -> None:
    async with house(kind, connections=3, mode="wait", perPeer=2, idleTimeout=5, writeRate=1e6) as here:
        clients = [await here.place.connect() for _ in range(3)]
        for client in clients[:2]:
            await here.served(client)
        await until(lambda: here.factory.waiting == 1)
        held = [weakref.ref(thing) for user in here.users for thing in (user, user.protocol, user.protocol.transport)]
        held += [weakref.ref(protocol) for protocol in here.factory._waiting]
        here.factory.stop()
        for client in clients[:2]:
            client.transport.loseConnection()
        for client in clients:
            await ended(client)
        await until(lambda: not here.factory)
        here.users.clear()
        await turns(2)
        gc.collect()
        assert [thing() for thing in held if thing() is not None] == []


# -- limits, refusing


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("tlsOnUnix", marks=pytest.mark.tls)])
@patient
async def test_refuse(kind: Kind) -> None:
    async with house(kind, connections=1) as here:
        first = await here.place.connect()
        await here.served(first)
        for _ in range(3):
            second = await here.place.connect()
            await ended(second)
            assert second.received == b""
        assert here.met == [("connections", "refused")] * 3
        assert here.factory.limited["connections"] == 3
        here.counted(accepted=1, refused=3)
        first.transport.loseConnection()
        await until(lambda: not here.factory)
        await here.served(await here.place.connect())


@patient
async def test_aThousandBeyondTheLimit() -> None:
    async with house(connections=1) as here:
        first = await here.place.connect()
        await here.served(first)
        with lines("refused") as found:
            for expected in range(100, 1100, 100):
                crowd = [here.place.stranger() for _ in range(100)]
                await until(partial(here.refused, expected))
                for one in crowd:
                    assert one.recv(1) == b""
                    one.close()
                here.place.strangers.clear()
                here.time.advance(0.25)
            assert here.time.seconds() == 2.5
            here.time.advance(0.5)
        assert [event["refused"] for event in found] == [1, 400, 800, 1000]
        assert [event["count"] for event in found] == [1, 399, 400, 200]
        first.transport.loseConnection()
        await until(lambda: not here.factory)
        await here.served(await here.place.connect())
        here.counted(accepted=2, refused=1000, closed=1)


@patient
async def test_perPeerOnADualStackPort() -> None:
    async with house("dual", perPeer=1) as here:
        four = await here.place.connect()
        await here.served(four)
        other = await here.place.connect(source="127.0.0.2")
        await here.served(other)
        six = await here.place.connect(host="::1")
        await here.served(six)
        for host in ("127.0.0.1", "::1"):
            late = await here.place.connect(host=host)
            await ended(late)
        assert here.met == [("perPeer", "refused")] * 2
        assert str(here.peers[0]).startswith("[::ffff:127.0.0.1]:")
        four.transport.loseConnection()
        await until(lambda: len(here.factory) == 2)
        await here.served(await here.place.connect())


def test_perPeerBySubnet() -> None:
    here = House(Limits(perPeer=1, peerPrefix=(24, 64)))

    def admitted(addr: Any) -> bool:
        protocol = here.factory.buildProtocol(addr)
        protocol.makeConnection(StringTransport(peerAddress=addr))
        return protocol in set(here.factory)

    assert admitted(IPv6Address("TCP", "2001:db8::1", 1))
    assert not admitted(IPv6Address("TCP", "2001:db8::ffff:2", 1))
    assert admitted(IPv6Address("TCP", "2001:db8:0:1::1", 1))
    assert admitted(IPv4Address("TCP", "192.0.2.1", 1))
    assert not admitted(IPv6Address("TCP", "::ffff:192.0.2.77", 1))
    assert admitted(IPv6Address("TCP", "::ffff:192.0.3.77", 1))


@patient
async def test_perPeerByUid() -> None:
    async with house("unix", perPeer=1) as here:
        client = await here.place.connect()
        await here.served(client)
        assert here.users[0].protocol.peerKey == ("unix", os.getuid())
        late = await here.place.connect()
        await ended(late)


def test_noCredentialsOnThisSystem(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        transport: Any = StringTransport()
        transport.socket = ours
        here = House(Limits(reserve=0))
        monkeypatch.delattr(socket, "SO_PEERCRED")
        protocol = here.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        assert len(here.factory) == 1


@patient
async def test_acceptRate() -> None:
    async with house(acceptRate=2) as here:
        for _ in range(2):
            await here.served(await here.place.connect())
        late = await here.place.connect()
        await ended(late)
        assert here.met == [("acceptRate", "refused")]
        here.time.advance(0.5)
        await here.served(await here.place.connect())


@patient
async def test_reserve() -> None:
    async with house("tcp", reserve=1_000_000_000) as here:
        client = await here.place.connect()
        await ended(client)
        assert here.met == [("reserve", "refused")]


@patient
async def test_watcherRaises(loggedErrors: LoggedErrors) -> None:
    class Angry:
        def limitPassed(self, *args: object) -> None:
            raise ValueError("not now")

    async with house(connections=0) as here:
        here.factory.watcher = Angry()
        client = await here.place.connect()
        await ended(client)
        assert len(loggedErrors.flush(ValueError)) == 1
        here.factory.watcher = None
        client = await here.place.connect()
        await ended(client)
        assert here.factory.limited["connections"] == 2


# -- limits, waiting


@pytest.mark.parametrize("kind", KINDS)
@patient
async def test_wait(kind: Kind) -> None:
    async with house(kind, connections=1, mode="wait") as here:
        first = await here.place.connect()
        await here.served(first)
        second = await here.place.connect()
        second.transport.write(b"patience")
        await turns(5)
        assert len(here.users) == 1
        assert here.factory.acceptance.owners == ("connections",)
        assert here.factory.waiting == 0  # in the kernel
        first.transport.loseConnection()
        await second.until(lambda: second.received == b"patience")
        here.counted(accepted=2, closed=1)


@patient
async def test_surplusOfTheAcceptLoopIsServedInOrder() -> None:
    async with house(connections=5, mode="wait") as here:
        crowd = [here.place.stranger() for _ in range(40)]
        for number, one in enumerate(crowd):
            one.sendall(b"%d" % number)
        await until(lambda: here.factory.waiting == 35)
        assert here.met == [("connections", "waits")] * 35
        for number, one in enumerate(crowd):
            await until(partial(here.heard, number))
            assert len(here.factory) <= 5
            assert here.users[number].received == b"%d" % number
            one.close()
        await until(lambda: not here.factory)
        here.counted(accepted=40, waited=35, closed=40)
        assert not here.factory.acceptance.paused


@patient
async def test_portThatCannotPause() -> None:
    async with house(connections=1, mode="wait", canPause=False) as here:
        here.factory.waitLimit = 2
        first = await here.place.connect()
        await here.served(first)
        second, third = await here.place.connect(), await here.place.connect()
        await until(lambda: here.factory.waiting == 2)
        fourth = await here.place.connect()
        await ended(fourth)
        assert here.met == [("connections", "waits")] * 2 + [("connections", "refused")]
        first.transport.loseConnection()
        await here.served(second)
        second.transport.loseConnection()
        await here.served(third)
        here.factory.acceptance.pause("user")
        here.factory.adopt(Port(object(), canPause=False))
        here.factory.acceptance.resume("user")


@patient
async def test_othersPassAPeerThatIsOverItsLimit() -> None:
    async with house(perPeer=1, mode="wait") as here:
        greedy = [await here.place.connect() for _ in range(3)]
        await here.served(greedy[0])
        await until(lambda: here.factory.waiting == 2)
        await here.served(await here.place.connect(source="127.0.0.2"))
        again = await here.place.connect(source="127.0.0.2")
        await until(lambda: here.factory.waiting == 3)
        here.place.clients[3].transport.loseConnection()
        await here.served(again)
        assert here.factory.waiting == 2
        greedy[0].transport.loseConnection()
        await here.served(greedy[1])
        assert here.factory.waiting == 1


@patient
async def test_acceptRateWaits() -> None:
    async with house(acceptRate=1, mode="wait") as here:
        crowd = [here.place.stranger() for _ in range(3)]
        await until(lambda: here.factory.waiting == 2)
        assert here.factory.acceptance.owners == ("rate",)
        late = await here.place.connect()
        for expected in (2, 3):
            here.time.advance(1)
            assert len(here.users) == expected
            assert here.factory.acceptance.owners == (("rate",) if expected == 2 else ())
        await until(lambda: here.factory.waiting == 1)
        here.time.advance(1)
        await here.served(late)
        assert here.met == [("acceptRate", "waits")] * 3
        assert len(crowd) == 3


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_clientLeavesWhileItWaits(kind: Kind) -> None:
    async with house(kind, connections=1, mode="wait") as here:
        first = here.place.stranger()
        asking, gone, told, last = (here.place.stranger() for _ in range(4))
        await until(lambda: here.factory.waiting == 4)
        asking.shutdown(socket.SHUT_WR)  # asks with a FIN, and waits for the answer
        gone.close() if kind == "unix" else reset(gone)
        told.sendall(b"a last word")
        told.close()
        first.close()
        await until(lambda: len(here.factory) == 0 or here.factory.waiting == 0)
        assert asking.recv(1) == b""
        last.sendall(b"and I")
        await until(lambda: len(here.users) == 4 and here.users[3].received)
        assert [user.received for user in here.users] == [b"", b"", b"a last word", b"and I"]
        assert here.factory.counters["left"] == 1
        last.close()
        await until(lambda: not here.factory)
        assert [user.closed[0] for user in here.users if user.closed][:2] == [None, None]
        here.counted(accepted=4, waited=4, left=1, closed=4)


@patient
async def test_theGoneMakeRoomInAFullQueue() -> None:
    async with house(connections=1, mode="wait", canPause=False) as here:
        here.factory.waitLimit = 2
        await here.served(await here.place.connect())
        gone = here.place.stranger()
        await until(lambda: here.factory.waiting == 1)
        calm = await here.place.connect()
        await until(lambda: here.factory.waiting == 2)
        reset(gone)
        late = await here.place.connect()
        await until(lambda: here.factory.counters["waited"] == 3)
        here.counted(accepted=1, waited=3, left=1)
        here.place.clients[0].transport.loseConnection()
        await here.served(calm)
        calm.transport.loseConnection()
        await here.served(late)


@patient
async def test_resetWithWordsUnread() -> None:
    """Who sends, and then resets, wants no answer: nobody is troubled with the error."""
    async with house(connections=1, mode="wait") as here:
        first, gone, last = (here.place.stranger() for _ in range(3))
        await until(lambda: here.factory.waiting == 2)
        gone.sendall(b"never mind")
        reset(gone)
        first.close()
        last.sendall(b"x")
        await until(lambda: len(here.users) == 2 and here.users[1].received)
        assert here.factory.counters["left"] == 1


def test_transportWithoutADescriptorWaits() -> None:
    here = House(Limits(connections=1, mode="wait", reserve=0))
    transports = [StringTransport() for _ in range(2)]
    protocols = []
    for transport in transports:
        protocol = here.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        protocols.append(protocol)
    assert transports[1].producerState == "paused"
    protocols[0].connectionLost(Failure(ConnectionDone()))
    assert transports[1].producerState == "producing"
    assert len(here.users) == 2


def test_aSocketThatIsNoLongerConnected() -> None:
    here = House(Limits(connections=0, mode="wait", reserve=0))
    transport: Any = StringTransport()
    with socket.socket() as transport.socket:
        here.factory.buildProtocol(None).makeConnection(transport)
        assert here.factory.waiting == 1
        here.factory.limits = Limits(reserve=0)
        here.counted(waited=1, left=1)


@patient
async def test_refuseOnEncryptedMemory() -> None:
    here = House(Limits(connections=0, reserve=0))
    transport = StringTransport()
    directlyProvides(transport, ISSLTransport)
    here.factory.buildProtocol(None).makeConnection(transport)
    assert not transport.disconnecting
    await turns()
    assert transport.disconnecting


def test_aWaitingConnectionIsLost() -> None:
    here = House(Limits(connections=0, mode="wait", reserve=0))
    protocol = here.factory.buildProtocol(None)
    protocol.makeConnection(StringTransport())
    assert here.factory.waiting == 1
    protocol.connectionLost(Failure(ConnectionDone()))
    assert here.factory.waiting == 0
    assert not here.records


def test_someoneLeavesWhileTheQueueIsServed() -> None:
    """Those who were passed are asked again: the handler of another may have made room for them."""
    here = House(Limits(perPeer=1, mode="wait", reserve=0))

    def arrive(host: str) -> SocketProtocol:
        addr = IPv4Address("TCP", host, 1)
        protocol = here.factory.buildProtocol(addr)
        protocol.makeConnection(StringTransport(peerAddress=addr))
        return protocol

    first = arrive("192.0.2.1")
    here.factory.acceptance.pause("user")
    second, third = arrive("192.0.2.1"), arrive("192.0.2.2")
    welcome = here.factory._welcome

    def leaving(protocol: SocketProtocol) -> IConnectionUser:
        if protocol is third:
            first.connectionLost(Failure(ConnectionDone()))
        return welcome(protocol)

    here.factory._welcome = leaving
    here.factory.acceptance.resume("user")
    assert here.factory.waiting == 0
    assert list(here.factory) == [third, second]


# -- limits that change


@patient
async def test_limitsRaised() -> None:
    async with house(connections=1, mode="wait") as here:
        for _ in range(4):
            here.place.stranger()
        await until(lambda: here.factory.waiting == 3)
        here.factory.limits = replace(here.factory.limits, connections=2)
        assert (len(here.users), here.factory.waiting) == (2, 2)
        assert here.factory.acceptance.owners == ("connections",)
        here.factory.limits = replace(here.factory.limits, connections=None)
        assert (len(here.users), here.factory.waiting) == (4, 0)
        assert not here.factory.acceptance.paused


@patient
async def test_limitsLowered() -> None:
    async with house(mode="wait") as here:
        clients = [await here.place.connect() for _ in range(2)]
        for client in clients:
            await here.served(client)
        here.factory.limits = replace(here.factory.limits, connections=1)
        assert here.factory.acceptance.owners == ("connections",)
        late = await here.place.connect()
        clients[0].transport.loseConnection()
        await until(lambda: len(here.factory) == 1)
        assert here.factory.acceptance.paused
        clients[1].transport.loseConnection()
        await here.served(late)


@patient
async def test_fromWaitToRefuse() -> None:
    async with house(connections=1, acceptRate=2, mode="wait") as here:
        crowd = [here.place.stranger() for _ in range(4)]
        await until(lambda: here.factory.waiting == 3)
        here.factory.limits = replace(here.factory.limits, mode="refuse", acceptRate=None)
        assert here.factory.waiting == 0
        assert not here.factory.acceptance.paused
        assert [one.recv(1) for one in crowd[1:]] == [b""] * 3
        here.counted(accepted=1, waited=3, refused=3)


@patient
async def test_acceptRateLifted() -> None:
    async with house(acceptRate=1, mode="wait") as here:
        for _ in range(3):
            here.place.stranger()
        await until(lambda: here.factory.waiting == 2)
        here.factory.limits = replace(here.factory.limits, acceptRate=None)
        assert len(here.users) == 3
        assert here.time.getDelayedCalls() == []


@patient
async def test_ratesOfThoseWhoComeAfter() -> None:
    async with house(readRateTotal=10) as here:
        await here.served(await here.place.connect())
        before = here.users[0].protocol._readMeter
        here.factory.limits = replace(here.factory.limits, connections=9)
        await here.served(await here.place.connect())
        # The same total for all of them, as long as the rate stays.
        assert here.users[1].protocol._readMeter._buckets == before._buckets
        here.factory.limits = replace(here.factory.limits, readRateTotal=None, writeRateTotal=1e9, writeRate=1e6)
        await here.served(await here.place.connect())
        assert here.users[2].protocol._readMeter is None
        assert here.users[2].protocol._writeMeter.rate == 1e6


@patient
async def test_ratesAreTold() -> None:
    async with house(readRate=10) as here:
        client = await here.place.connect()
        client.transport.write(b"x" * 30)
        await client.until(lambda: len(client.received) == 30)
        assert here.factory.limited["readRate"] == 1
        assert here.met == [("readRate", "paused")]
        here.time.advance(2)


# -- accepting, paused by a user


@pytest.mark.parametrize("mode", ["refuse", "wait"])
@patient
async def test_pausedByTheUser(mode: str) -> None:
    async with house(mode=mode, connections=2) as here:
        here.factory.acceptance.pause("user")
        early = await here.place.connect()
        await turns(3)
        assert here.factory.seen == 0
        # The surplus of a burst that is accepted while somebody pauses.
        opened = here.factory._welcome
        here.factory._welcome = lambda protocol: (here.factory.acceptance.pause("user"), opened(protocol))[1]
        crowd = [here.place.stranger() for _ in range(4)]
        here.factory.acceptance.resume("user")
        await until(lambda: here.factory.waiting == 4)
        await here.served(early)
        here.factory._welcome = opened
        here.factory.acceptance.resume("user")
        if mode == "wait":
            assert here.factory.waiting == 3
            assert here.factory.acceptance.owners == ("connections",)
        else:
            assert here.factory.waiting == 0
            assert [one.recv(1) for one in crowd[1:]] == [b""] * 3
            here.counted(accepted=2, waited=4, refused=3)


@patient
async def test_adoptedWhilePaused() -> None:
    here = House(Limits(reserve=0))
    here.factory.acceptance.pause("user")
    async with door(here.factory) as place:
        here.factory.adopt(place.port)
        client = await place.connect()
        await turns(3)
        assert here.factory.seen == 0
        here.factory.acceptance.resume("user")
        await here.served(client)
        here.factory.disown(place.port)
        here.factory.disown(place.port)
    await until(lambda: not here.factory)


# -- users who raise


@pytest.mark.parametrize("kind", KINDS)
@patient
async def test_welcomeRaises(kind: Kind, loggedErrors: LoggedErrors) -> None:
    async with house(kind, connections=1, mode="wait") as here:
        opened = here.factory._welcome
        error = ValueError("nobody is welcome")

        def refusing(protocol: SocketProtocol) -> IConnectionUser:
            raise error

        here.factory._welcome = refusing
        client = await here.place.connect()
        await ended(client)
        await until(lambda: not here.factory)
        assert len(loggedErrors.flush(ValueError)) == 1
        assert [record.error for record in here.records] == [error]
        # The same for one that has waited.
        here.factory.acceptance.pause("user")
        here.place.port.resumeProducing()
        client = await here.place.connect()
        await until(lambda: here.factory.waiting == 1)
        here.factory.acceptance.resume("user")
        await ended(client)
        await until(lambda: len(here.records) == 2)
        assert len(loggedErrors.flush(ValueError)) == 1
        here.factory._welcome = opened
        await here.served(await here.place.connect())


@patient
async def test_userRaises() -> None:
    async with house() as here:
        here.failing = ValueError("not today")
        client = await here.place.connect()
        await ended(client)
        await until(lambda: not here.factory)
        assert here.raised == [("connectionOpened", here.failing)]
        assert [record.error for record in here.records] == [here.failing]


@patient
async def test_journalRaises(loggedErrors: LoggedErrors) -> None:
    async with house() as here:
        client = await here.place.connect()
        await here.served(client)

        def full(record: Ended) -> None:
            here.records.append(record)
            raise OSError(errno.ENOSPC, "no paper left")

        here.factory.journal = full
        client.transport.loseConnection()
        await until(lambda: not here.factory)
        assert len(loggedErrors.flush(OSError)) == 1


@patient
async def test_noJournal() -> None:
    here = House(Limits())
    here.factory.journal = None
    async with door(here.factory) as place:
        await here.served(await place.connect())
    await until(lambda: not here.factory)
    assert here.records == []


def test_nobodyHearsOfTheUnadmitted() -> None:
    here = House(Limits(connections=0))
    protocol = here.factory.buildProtocol(None)
    with pytest.raises(ValueError, match="why"):
        protocol.user.raised("somewhere", ValueError("why"))


# -- draining


@patient
async def test_drainWithNobody() -> None:
    async with house() as here:
        await here.factory.drain()
        client = await here.place.connect()
        await ended(client)
        here.counted(refused=1)
        here.factory.start()
        await here.served(await here.place.connect())


@patient
async def test_drain() -> None:
    async with house(connections=1, mode="wait") as here:
        first = await here.place.connect()
        await here.served(first)
        here.factory.acceptance.resume("connections")
        waiting = await here.place.connect()
        await until(lambda: here.factory.waiting == 1)
        done, again = here.factory.drain(), here.factory.drain(60)
        fired: list[None] = []
        done.addCallback(fired.append)
        await ended(waiting)
        assert here.factory.waiting == 0
        await here.served(first)
        assert not fired
        first.transport.loseConnection()
        await done
        await again
        assert here.time.getDelayedCalls() == []
        assert here.records[0].error is None


@pytest.mark.parametrize("kind", KINDS)
@patient
async def test_drainGraceIsOver(kind: Kind) -> None:
    async with house(kind) as here:
        clients = [await here.place.connect() for _ in range(2)]
        for client in clients:
            await here.served(client)
        done, again = here.factory.drain(5), here.factory.drain(7)
        here.time.advance(4.9)
        await here.served(clients[0])
        here.time.advance(0.1)
        await done
        await again
        assert [getattr(record.error, "code", None) for record in here.records] == ["ECONNABORTED"] * 2
        for client in clients:
            await ended(client)


@patient
async def test_drainGivenUp() -> None:
    async with house() as here:
        client = await here.place.connect()
        await here.served(client)
        done = here.factory.drain(5)
        failed: list[Failure] = []
        done.addErrback(failed.append)
        done.cancel()
        assert len(failed) == 1
        client.transport.loseConnection()
        await until(lambda: not here.factory)


@patient
async def test_startedAgainAfterAllKindsOfPause() -> None:
    async with house(acceptRate=1, mode="wait") as here:
        for _ in range(2):
            here.place.stranger()
        await until(lambda: here.factory.waiting == 1)
        here.factory.acceptFailed()
        here.factory.acceptFailed()
        assert here.factory.acceptance.owners == ("exhausted", "rate")
        here.factory.stop()
        here.factory.stop()
        assert not here.factory.acceptance.paused
        assert here.time.getDelayedCalls() == []
        here.factory.start()
        here.time.advance(1)
        await here.served(await here.place.connect())


# -- a spinning accept


@implementer(IReadDescriptor)
class Deaf:
    """A port whose accept gets nowhere, while clients stand before it."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.socket.getsockname())
        self.calls = 0
        self.accepting: Any = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> None:
        self.calls += 1
        if self.accepting is not None:
            self.accepting()

    def connectionLost(self, reason: Failure) -> None:
        raise AssertionError(reason)

    def logPrefix(self) -> str:
        return "deaf"

    def pauseProducing(self) -> None:
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        self._reactor.addReader(self)

    def close(self) -> None:
        self.pauseProducing()
        self.socket.close()
        self.client.close()


@patient
async def test_acceptThatGetsNowhere() -> None:
    here = House(Limits())
    deaf = Deaf()
    port = Port(deaf)
    here.factory.adopt(port)
    with lines("accept failed") as found:
        deaf.resumeProducing()
        await until(lambda: here.factory.acceptance.paused)
        assert here.factory.acceptance.owners == ("exhausted",)
        for expected in (2, 3, 4):
            await turns(20)
            assert deaf.calls == expected
            here.time.advance(REST_AFTER_FAILED_ACCEPT)
        await until(lambda: deaf.calls == 5)
        assert len(found) == 1
        here.counted(exhausted=4)
        # It gets somewhere again.
        await until(lambda: here.factory.acceptance.paused)
        deaf.accepting = lambda: deaf.socket.accept()[0].close()
        here.time.advance(REST_AFTER_FAILED_ACCEPT)
        await until(lambda: deaf.calls == 6)
        await turns(3)
        assert deaf.calls == 6
    here.factory.acceptFailed()
    here.factory.disown(port)
    assert "doRead" not in vars(deaf)
    assert here.time.getDelayedCalls() == []
    deaf.close()


@patient
async def test_acceptThatSomebodyElseWon() -> None:
    """One fruitless accept is no sign: processes that share a socket are woken together."""
    here = House(Limits())
    deaf = Deaf()
    release = guard(deaf, here.factory)
    deaf.doRead()
    deaf.accepting = lambda: here.factory.buildProtocol(None)
    deaf.doRead()
    deaf.accepting = None
    deaf.doRead()
    assert not here.factory.acceptance.paused
    deaf.accepting = deaf.close
    deaf.doRead()
    assert not here.factory.acceptance.paused
    release()


def test_portsThatAreNoDescriptors() -> None:
    here = House(Limits())
    here.factory.adopt(Port(object(), canPause=False))
    guard(object(), here.factory)()


SERVER = """
import json, os, resource, sys
kind, reserve, which = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if which == "asyncio":
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
from twisted.internet import reactor, stdio
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogBeginner, LogLevel
from twisted.protocols.basic import LineReceiver
from twisted_net.wire.hosting import host
from twisted_net.wire.limits import Limits
from doors import Port

lines = []
def note(event):
    lines.append(str(event.get("log_format") or event.get("format")))

globalLogBeginner.beginLoggingTo([note], redirectStandardIO=False)

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

factory = host(Factory.forProtocol(Echo), reactor, limits=Limits(reserve=reserve))
if kind == "tls":
    from certificates import selfSigned
    port = reactor.listenSSL(0, factory, selfSigned().forServer(), interface="127.0.0.1", backlog=511)
else:
    port = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=511)
reads, asked = [], []
doRead = port.doRead  # counted on both sides of the guard
port.doRead = lambda: reads.append(1) or doRead()
factory.adopt(Port(port))
guarded = port.doRead
port.doRead = lambda: asked.append(1) or guarded()
files = []

class Orders(LineReceiver):
    delimiter = b"\\n"
    def connectionMade(self):
        self.sendLine(b"%d" % port.getHost().port)
    def lineReceived(self, line):
        if line == b"fill":
            lines.clear()
            while True:
                try:
                    files.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
        if line == b"free":
            while files:
                os.close(files.pop())
        answer = dict(factory.counters.snapshot(), asked=len(asked), reads=len(reads), lines=lines[:99])
        self.sendLine(json.dumps(answer).encode())
    def connectionLost(self, reason):
        reactor.stop()

stdio.StandardIO(Orders())
reactor.callLater(0, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
reactor.run()
"""


class Program:
    """A server in a process with 64 descriptors."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def order(self, order: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def connect(self, kind: str) -> socket.socket | None:
        """A client that was answered, or None when it was turned away."""
        one = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        try:
            if kind == "tls":
                one = self._context.wrap_socket(one)
            one.sendall(b"hello")
            if one.recv(5):
                return one
        except OSError:
            pass
        one.close()
        return None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


@contextmanager
def program(kind: str, reserve: int) -> Iterator[Program]:
    from twisted.internet import reactor

    which = "asyncio" if "Asyncio" in type(reactor).__name__ else "default"
    here = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([*sys.path, here, os.path.dirname(here)])
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, kind, str(reserve), which],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        yield Program(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("kind", ["tcp", pytest.param("tls", marks=pytest.mark.tls)])
def test_outOfDescriptors(kind: str) -> None:
    began = time.monotonic()
    with program(kind, reserve=8) as server:
        served: list[socket.socket] = []
        refused = 0
        for _ in range(400 if kind == "tcp" else 120):
            one = server.connect(kind)
            if one is not None:
                served.append(one)
            else:
                refused += 1
        # All at once: what one turn of a port accepts is more than the reserve.
        crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(200)]
        for one in crowd:
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
            one.close()
        report = server.order("report")
        assert 30 < len(served) < 56
        assert report["refused"] == refused + 200
        assert report["exhausted"] == 0
        assert report["asked"] == report["reads"] <= refused + len(served) + 200 + 10
        noise = [line for line in report["lines"] if "refused" in line]
        assert 0 < len(noise) <= time.monotonic() - began + 1
        assert not [line for line in report["lines"] if "EMFILE" in line or "Traceback" in line or "Unhandled" in line]
        for one in served[-3:]:
            one.shutdown(socket.SHUT_WR)
            assert one.recv(5) == b""  # its descriptor is free
        late = server.connect(kind)
        assert late is not None
        for one in (*served, late):
            one.close()


def test_descriptorsUsedUpByOthers() -> None:
    with program("tcp", reserve=0) as server:
        before = server.order("fill")
        began = time.monotonic()
        late = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        late.sendall(b"hello")
        while (report := server.order("report"))["exhausted"] < 5:
            pass
        passed = time.monotonic() - began
        assert report["reads"] == before["reads"]  # nobody was even asked
        assert report["asked"] - before["asked"] <= passed / REST_AFTER_FAILED_ACCEPT + 2
        assert len([line for line in report["lines"] if "accept failed" in line]) <= passed + 1
        assert not [line for line in report["lines"] if "EMFILE" in line]
        server.order("free")
        assert late.recv(5) == b"hello"
        late.close()
