"""Descriptors that are nobody's transport: what is seen, and what is left alone."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol
from uvreactor.uvworld import World, played, ran

from twisted_net.uvreactor.watcher import READ, WRITE, Watcher


class One:
    """A reader and writer."""

    def __init__(self, number: int, served: Callable[[], object] = lambda: None) -> None:
        self.number = number
        self.events: list[str] = []
        self.served = served

    def fileno(self) -> int:
        return self.number

    def logPrefix(self) -> str:
        return "One"

    def doRead(self) -> None:
        self.events.append("read")
        self.served()

    def doWrite(self) -> None:
        self.events.append("write")
        self.served()

    def connectionLost(self, reason: Any) -> None:
        self.events.append("lost")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


# Alone


class Loop:
    """As much of a loop as a watcher needs: what it watches is looked at when a test says so."""

    def add_reader(self, descriptor: int, look: Callable[[], None]) -> None:
        self.descriptor, self.look = descriptor, look


@pytest.fixture
def watcher() -> Iterator[Any]:
    loop, served = Loop(), []

    def serve(one: One, toRead: bool) -> None:
        served.append((one, toRead))
        one.served()

    watching: Any = Watcher(loop, serve)
    watching.loop, watching.served = loop, served
    yield watching
    watching._selector.close()


def test_readableAndWritable(watcher: Any, pair: Any) -> None:
    ours, theirs = pair
    one = One(ours.fileno())
    watcher.watch(one, READ)
    watcher.watch(one, READ)
    watcher.loop.look()
    assert watcher.served == []
    theirs.send(b"!")
    watcher.loop.look()
    assert watcher.served == [(one, True)]
    watcher.watch(one, WRITE)
    watcher.loop.look()
    assert watcher.served == [(one, True)] * 2 + [(one, False)]
    watcher.forget(one, READ)
    watcher.loop.look()
    assert watcher.served[3:] == [(one, False)]
    watcher.forget(one, WRITE)
    watcher.forget(one, WRITE)
    watcher.forget(one, READ)
    watcher.loop.look()
    assert len(watcher.served) == 4
    assert watcher.watched == {READ: {}, WRITE: {}}
    assert not watcher._selector.get_map()


def test_itIsWatchedItself(watcher: Any, pair: Any) -> None:
    ours, theirs = pair
    watcher.watch(One(ours.fileno()), READ)
    with selectors.DefaultSelector() as outer:
        outer.register(watcher.loop.descriptor, READ)
        assert outer.select(0) == []
        theirs.send(b"!")
        assert outer.select(0)


def test_twoOnOneDescriptor(watcher: Any, pair: Any) -> None:
    ours, theirs = pair
    reader, writer = One(ours.fileno()), One(ours.fileno())
    watcher.watch(reader, READ)
    watcher.watch(writer, WRITE)
    theirs.send(b"!")
    watcher.loop.look()
    assert watcher.served == [(reader, True), (writer, False)]
    watcher.forget(reader, READ)
    watcher.loop.look()
    assert watcher.served[2:] == [(writer, False)]


@pytest.mark.parametrize("other", [False, True])
def test_forgottenWithinTheSameLook(watcher: Any, pair: Any, other: bool) -> None:
    ours, theirs = pair
    writer = One(ours.fileno())
    reader = One(ours.fileno(), lambda: watcher.forget(writer, WRITE))
    if other:  # of two descriptors, one of which is served first
        more, _ = socket.socketpair()
        _.close()
        writer.number = more.fileno()
        writer.served = lambda: watcher.forget(reader, READ)
    watcher.watch(reader, READ)
    watcher.watch(writer, WRITE)
    theirs.send(b"!")
    watcher.loop.look()
    assert len(watcher.served) == 1
    if other:
        more.close()


def test_closedAndTheNumberGivenOutAgain(watcher: Any) -> None:
    ours, theirs = socket.socketpair()
    before = One(ours.fileno())
    watcher.watch(before, READ)
    number = ours.fileno()
    before.number = -1
    ours.close()
    with theirs:
        pass
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        mine, other = (ours, theirs) if ours.fileno() == number else (theirs, ours)
        after = One(number)
        watcher.watch(after, READ)
        watcher.watch(after, WRITE)
        other.send(b"!")
        watcher.loop.look()
        assert watcher.served == [(after, True), (after, False)]
        # To forget who had the number before does the one that has it now no harm.
        watcher.forget(before, READ)
        watcher.loop.look()
        assert watcher.served[2:] == [(after, True), (after, False)]
        assert mine.recv(1) == b"!"


def test_closedWithoutAWord(watcher: Any) -> None:
    ours, theirs = socket.socketpair()
    one = One(ours.fileno())
    watcher.watch(one, READ)
    ours.close()
    theirs.close()
    watcher.loop.look()
    assert watcher.served == []
    watcher.forget(one, READ)
    assert watcher.watched[READ] == {}


def test_aFileIsAlwaysReady(watcher: Any, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        watcher.watch(One(file.fileno()), WRITE)
    assert watcher.watched == {READ: {}, WRITE: {}}


def test_noDescriptor(watcher: Any) -> None:
    with pytest.raises((ValueError, OSError)):
        watcher.watch(One(-1), READ)
    assert watcher.watched[READ] == {}


# On a loop


@played
async def test_readersAndWriters(world: World, pair: Any) -> None:
    ours, theirs = pair
    reactor = world.reactor
    one = One(ours.fileno(), lambda: (reactor.removeReader(one), reactor.removeWriter(one)))
    reactor.addReader(one)
    reactor.addReader(one)
    assert one in reactor.getReaders()
    assert one not in reactor.getWriters()
    theirs.send(b"!")
    await world.until(lambda: one.events == ["read"])
    reactor.addWriter(one)
    assert one in reactor.getWriters()
    await world.until(lambda: one.events == ["read", "write"])
    assert one not in reactor.getReaders()
    reactor.addReader(one)
    theirs.send(b"!")
    await world.until(lambda: len(one.events) == 3)
    reactor.removeReader(one)


@played
async def test_aRegularFile(world: World, tmp_path: Path) -> None:
    def served() -> None:
        if len(one.events) == 4:
            reactor.removeReader(one)
            reactor.removeWriter(one)

    reactor = world.reactor
    with (tmp_path / "file").open("w+") as file:
        one = One(file.fileno(), served)
        reactor.addReader(one)
        reactor.addReader(one)
        reactor.addWriter(one)
        reactor.addWriter(one)
        assert reactor.getReaders().count(one) == reactor.getWriters().count(one) == 1
        await world.until(lambda: len(one.events) >= 4)
        assert set(one.events) == {"read", "write"}
        await world.turns(5)
        assert len(one.events) == 4
        assert one not in reactor.getReaders() + reactor.getWriters()


@played
async def test_aDescriptorThatIsGoneIsLost(world: World, pair: Any) -> None:
    ours, theirs = pair
    one = One(ours.fileno())
    world.reactor.addReader(one)
    one.number = -1
    theirs.send(b"!")
    await world.until(lambda: one.events == ["lost"])
    assert one not in world.reactor.getReaders()


@played
async def test_aPortThatNobodyHasIsNoEndForUdp(world: World) -> None:
    """ICMP's answer is an error on the socket, and libuv's uv_poll would look no further."""

    class Told(DatagramProtocol):
        transport: Any
        refused = 0

        def startProtocol(self) -> None:
            self.received: list[bytes] = []
            self.transport.connect(*where)

        def connectionRefused(self) -> None:
            self.refused += 1

        def datagramReceived(self, data: bytes, addr: Any) -> None:
            self.received.append(data)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = nobody.getsockname()
    told = Told()
    port = world.reactor.listenUDP(0, told, interface="127.0.0.1")
    for wave in range(3):
        told.transport.write(b"anybody?")
        await world.until(lambda: told.refused > wave)  # noqa: B023
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as somebody:
        somebody.bind(where)
        told.transport.write(b"hello")
        assert somebody.recv(100) == b"hello"
        somebody.sendto(b"back", (port.getHost().host, port.getHost().port))
        await world.until(lambda: told.received == [b"back"])
    await port.stopListening()


@played
async def test_udp(world: World) -> None:
    class Echo(DatagramProtocol):
        def datagramReceived(self, data: bytes, addr: Any) -> None:
            assert self.transport is not None
            self.transport.write(data, addr)

    port = world.reactor.listenUDP(0, Echo(), interface="127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.sendto(b"hello", port.socket.getsockname())
        answer: list[bytes] = []

        def asked() -> bool:
            try:
                answer.append(peer.recv(100))
            except BlockingIOError:
                return False
            return True

        await world.until(asked)
        assert answer == [b"hello"]
    await port.stopListening()


@played
async def test_blockingIsTheOwnersToChoose(world: World) -> None:
    reading, writing = os.pipe()
    one, other = One(reading), One(writing, lambda: world.reactor.removeWriter(other))
    world.reactor.addReader(one)
    world.reactor.addWriter(other)
    await world.until(lambda: other.events)
    assert os.get_blocking(reading)
    assert os.get_blocking(writing)
    world.reactor.removeReader(one)
    os.close(reading)
    os.close(writing)


def test_standardInputStaysAsItIs() -> None:
    # The shell that started the program has the same open file.
    program = """
        class Reader:
            fileno = lambda self: 0
            logPrefix = lambda self: "Reader"
            def doRead(self):
                print(os.read(0, 100).decode(), os.get_blocking(0))
                reactor.removeReader(self)
                reactor.stop()
            def connectionLost(self, reason):
                pass

        reactor.addReader(Reader())
        reactor.callLater(20, os._exit, 7)
        reactor.run()
    """
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    with open(reading) as ours:
        assert ran(program, stdin=ours) == "hello True\n"
    os.close(writing)
