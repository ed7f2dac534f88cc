"""UNIX sockets: addresses, errors, and descriptors that are sent."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conditions import fullQueue
from twisted.internet.address import UNIXAddress
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    FileDescriptorOverrun,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.python.failure import Failure
from uvreactor.uvworld import MEGABYTES, Actor, Expected, Half, Hands, Peer, Producer, World, both, do, played
from zope.interface import implementer, providedBy

UNIX = ["unix", "abstract"]


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes, which are closed at the end."""
    made: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        made.extend(ends)
        return ends

    yield pipe
    for end in made:
        os.close(end)


async def take(world: World, peer: Peer, count: int, most: int = 1) -> list[tuple[bytes, int]]:
    """Take that many descriptors, each with the bytes that came with it."""
    taken: list[tuple[bytes, int]] = []
    while len(taken) < count:
        try:
            data, descriptors, _, _ = socket.recv_fds(peer.socket, most, 10)
        except BlockingIOError:
            await world.turns()
            continue
        assert len(descriptors) == 1, (data, descriptors)
        taken.append((data, descriptors[0]))
    return taken


def same(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


# Who is who


@pytest.mark.parametrize("kind", UNIX)
@played
async def test_accepted(world: World, kind: str) -> None:
    actor = Actor()
    port = world.listen(Hands(actor), kind)
    path = port.socket.getsockname()
    peer = socket.socket(socket.AF_UNIX)
    world.own(peer).connect(path)
    await world.made(actor)
    transport = actor.transport
    assert next(iter(providedBy(transport))) is IUNIXTransport
    assert transport.getHost() == UNIXAddress(path) == port.getHost()
    assert transport.getPeer() == UNIXAddress(None)
    assert transport.logPrefix() == "Actor,0,"
    assert repr(transport) == f"<Actor #0 on {port._realPortNumber}>"
    assert transport.hostname == ""
    transport.dropConnection(Failure(ConnectionDone()))
    assert repr(transport).startswith("<(lost) #0 on ")
    await port.stopListening()


@played
async def test_acceptedFromSomebodyWithAName(world: World) -> None:
    actor = Actor()
    port = world.listen(Hands(actor), "abstract")
    name = world.address("abstract")
    peer = world.own(socket.socket(socket.AF_UNIX))
    peer.bind(name)
    peer.connect(port.socket.getsockname())
    await world.made(actor)
    assert actor.transport.getPeer() == UNIXAddress(name.encode())
    await port.stopListening()


@pytest.mark.parametrize("kind", UNIX)
@played
async def test_connected(world: World, kind: str) -> None:
    skt, actor = world.listening(kind), Actor()
    hands = Hands(actor)
    connector = world.connect(hands, skt.getsockname())
    await world.made(actor)
    name = skt.getsockname()
    path = name if kind == "unix" else name.decode()
    transport = actor.transport
    assert connector.transport is transport
    assert transport.getPeer() == hands.addresses[0] == connector.getDestination() == UNIXAddress(path)
    assert transport.getHost() == UNIXAddress(None)
    assert transport.logPrefix() == "Actor,client"
    kind = "<class 'twisted_net.uvreactor.unix.ClientUnixStream'>"
    assert repr(transport) == f"<{kind} to {path.encode()!r} at {id(transport):x}>"
    transport.abortConnection()
    await world.until(lambda: hands.lost)


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_echo(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor(data=lambda actor, data: actor.transport.write(data)), "unix")
    peer.send(b"hello")
    assert await peer.read(5) == b"hello"
    assert actor.transport.getTcpNoDelay() is False
    actor.transport.setTcpNoDelay(True)
    assert actor.transport.getTcpNoDelay() is False
    actor.transport.loseConnection()
    assert await peer.end() == b""


# Twisted's own port leaves the socket that it could not bind to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@played
async def test_mode(world: World, tmp_path: Path) -> None:
    port = world.reactor.listenUNIX(str(tmp_path / "s"), Hands(Actor()), mode=0o600)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    with pytest.raises(CannotListenError):
        world.reactor.listenUNIX(str(tmp_path / "s"), Hands(Actor()))
    await port.stopListening()
    assert not (tmp_path / "s").exists()


@played
async def test_processIdentity(world: World, tmp_path: Path) -> None:
    path, actor = str(tmp_path / "s"), Actor()
    hands = Hands(Actor())
    world.reactor.connectUNIX(path, hands, checkPID=1)
    await world.until(lambda: hands.failed)
    port = world.reactor.listenUNIX(path, Hands(actor), wantPID=1)
    world.reactor.connectUNIX(path, hands, checkPID=1)
    await world.made(actor)
    await port.stopListening()
    assert list(tmp_path.iterdir()) == []


# What goes wrong


@played
async def test_nobodyThere(world: World, tmp_path: Path) -> None:
    hands = Hands(Actor())
    world.reactor.connectUNIX(str(tmp_path / "nothing"), hands)
    await world.until(lambda: hands.failed)
    assert hands.failed[0].check(ConnectError)
    error: Any = hands.failed[0].value
    assert error.osError == errno.ENOENT
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
        world.reactor.connectUNIX(str(tmp_path / "s"), hands)
        await world.until(lambda: len(hands.failed) == 2)
    assert hands.failed[1].check(ConnectionRefusedError)
    (tmp_path / "s").unlink()


@pytest.mark.parametrize("verb", ["stopConnecting", "disconnect"])
@played
async def test_stopConnecting(world: World, verb: str) -> None:
    hands = Hands(Actor())
    connector = world.connect(hands, world.listening("unix").getsockname())
    getattr(connector, verb)()
    await world.until(lambda: hands.failed)
    assert hands.failed[0].check(UserError)
    await world.turns(5)
    assert hands.addresses == []


@played
async def test_noProtocol(world: World) -> None:
    skt, hands = world.listening("unix"), Hands(None)
    world.connect(hands, skt.getsockname())
    await world.until(lambda: hands.lost)
    assert await world.peer(skt.accept()[0]).end() == b""
    actor = Actor()
    port = world.listen(Hands(None, actor), "unix")
    peers = [world.own(socket.socket(socket.AF_UNIX)) for _ in range(2)]
    for one in peers:
        one.connect(port.socket.getsockname())
    await world.made(actor)
    assert peers[0].recv(1) == b""
    await port.stopListening()


# What is adopted


@pytest.mark.parametrize("kind", UNIX)
@played
async def test_adoptedPort(world: World, kind: str) -> None:
    actor = Actor()
    with world.listening(kind) as skt:
        port = world.reactor.adoptStreamPort(skt.fileno(), socket.AF_UNIX, Hands(actor))
        path = skt.getsockname()
    peer = world.own(socket.socket(socket.AF_UNIX))
    peer.connect(path)
    peer.sendall(b"?")
    await world.until(lambda: actor.received == b"?")
    assert actor.transport.getHost() == UNIXAddress(path)
    actor.transport.loseConnection()
    assert await world.peer(peer).end() == b""
    await port.stopListening()


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection", "dropConnection"])
@played
async def test_adoptedConnection(world: World, end: str) -> None:
    ours, theirs = socket.socketpair()
    peer, actor = world.peer(theirs), Actor()
    hands = Hands(actor)
    with ours:
        world.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, hands)
        transport = actor.transport
        assert transport.fileno() != ours.fileno()
        assert hands.addresses == [UNIXAddress("")]
        assert transport.getHost() == UNIXAddress("")
        assert transport.getPeer() == UNIXAddress(None)
        assert transport.logPrefix() == "Actor,0,"
        assert repr(transport) == "<Actor #0 on >"
        peer.send(b"question")
        await world.until(lambda: actor.received)
        transport.write(b"answer")
        assert await peer.read(6) == b"answer"
        do(end, *([Failure(ConnectionDone())] if end == "dropConnection" else []))(actor)
        if end == "abortConnection":
            ours.close()  # there is no RST that would reach the peer in spite of the original
        assert await peer.end() == b""
        await world.until(lambda: actor.lost)


@played
async def test_adoptedAndNotWanted(world: World) -> None:
    class Raising(Hands):
        def buildProtocol(self, addr: Any) -> Any:
            raise Expected

    ours, theirs = socket.socketpair()
    peer = world.peer(theirs)
    with ours:
        assert world.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Hands(None)) is None
        with pytest.raises(Expected):
            world.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Raising())
        assert peer.isQuiet()
    assert await peer.end() == b""


# Descriptors


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("when", ["made", "data"])
@played
async def test_sendFileDescriptor(world: World, pipes: Any, way: str, when: str) -> None:
    reading, writing = pipes()

    def send(actor: Actor, *args: object) -> None:
        actor.transport.sendFileDescriptor(writing)
        actor.transport.write(b"here")

    actor, peer = await getattr(world, way)(Actor(**{when: send}), "unix")
    peer.send(b"?")
    [(data, descriptor)] = await take(world, peer, 1)
    assert data == b"h"
    assert await peer.read(3) == b"ere"
    os.write(descriptor, b"through the pipe")
    os.close(descriptor)
    assert os.read(reading, 100) == b"through the pipe"
    assert not actor.lost


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_receiveFileDescriptor(world: World, pipes: Any, way: str) -> None:
    @implementer(IFileDescriptorReceiver)
    class Receiver(Actor):
        def fileDescriptorReceived(self, descriptor: int) -> None:
            self._note("descriptor")
            assert same(descriptor, reading)
            os.close(descriptor)

    reading, _ = pipes()
    actor, peer = await getattr(world, way)(Receiver(), "unix")
    socket.send_fds(peer.socket, [b"!"], [reading])
    await world.until(lambda: actor.received == b"!")
    assert actor.events == ["made", "descriptor", "data"]


@played
async def test_whatWasWrittenBeforeNeedsNoDescriptor(world: World, pipes: Any) -> None:
    reading, writing = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    await world.turns(5)
    for wave in range(2):
        actor.transport.write(b"before")
        actor.transport.sendFileDescriptor(reading)
        actor.transport.write(b"a")
        actor.transport.sendFileDescriptor(writing)
        actor.transport.write(b"b, and after")
        await world.turns(3)
        data, descriptors, _, _ = socket.recv_fds(peer.socket, 6, 10)
        assert (data, descriptors) == (b"before", []), wave
        [(first, one), (second, other)] = await take(world, peer, 2)
        assert (first, second) == (b"a", b"b")
        assert same(one, reading)
        assert same(other, writing)
        os.close(one)
        os.close(other)
        assert await peer.read(11) == b", and after"


@pytest.mark.parametrize("count", [2, 64, 300])
@played
async def test_many(world: World, pipes: Any, count: int) -> None:
    reading, writing = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    for number in range(count):
        actor.transport.sendFileDescriptor(writing if number % 2 else reading)
    actor.transport.write(bytes(count))
    actor.transport.loseConnection()
    for number, (_, descriptor) in enumerate(await take(world, peer, count)):
        assert same(descriptor, writing if number % 2 else reading)
        os.close(descriptor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@played
async def test_theyWaitForTheirBytes(world: World, pipes: Any) -> None:
    reading, writing = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    actor.transport.sendFileDescriptor(reading)
    actor.transport.sendFileDescriptor(writing)
    await world.turns(10)
    assert peer.isQuiet()
    actor.transport.write(b"ab")
    for _, descriptor in await take(world, peer, 2):
        os.close(descriptor)
    assert not actor.lost


@pytest.mark.parametrize("written", [b"", b"a"])
@played
async def test_moreDescriptorsThanBytes(world: World, pipes: Any, written: bytes) -> None:
    reading, writing = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    actor.transport.sendFileDescriptor(reading)
    actor.transport.sendFileDescriptor(writing)
    actor.transport.write(written)
    actor.transport.loseConnection()
    await world.until(lambda: actor.lost)
    assert actor.why() is FileDescriptorOverrun
    assert await peer.end() == b""


@played
async def test_behindWhatTheKernelDidNotTake(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    actor.transport.write(MEGABYTES)
    await world.turns(5)
    assert actor.transport.isWriting
    actor.transport.sendFileDescriptor(reading)
    actor.transport.write(b"here")
    await world.turns(5)
    assert await peer.read(len(MEGABYTES)) == MEGABYTES
    [(data, descriptor)] = await take(world, peer, 1)
    assert data == b"h"
    assert same(descriptor, reading)
    os.close(descriptor)
    assert await peer.read(3) == b"ere"


async def crowd(world: World, descriptor: int, count: int = 500, **more: Any) -> tuple[Any, Peer]:
    """A stream that sends more descriptors than the kernel has room for."""
    actor, peer = await world.accept(Actor(**more), "unix")
    await world.turns(5)
    actor.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for _ in range(count):
        actor.transport.sendFileDescriptor(descriptor)
    actor.transport.write(bytes(count))
    await world.turns(5)
    assert actor.transport._room in world.reactor.getWriters()
    return actor, peer


@played
async def test_moreThanTheKernelHasRoomFor(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await crowd(world, reading)
    assert actor.transport._room.logPrefix() == "Actor,0,"
    assert actor.transport.isWriting
    actor.transport.write(b" and more")
    await world.turns(5)
    actor.transport.startWriting()
    await world.turns(5)
    actor.transport.sendFileDescriptor(reading)
    actor.transport.write(b"!")
    actor.transport.loseConnection()
    for _, descriptor in await take(world, peer, 501):
        assert same(descriptor, reading)
        os.close(descriptor)
    assert await peer.end() == b"and more!"
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection", "dropConnection", "peer", "close", "stop"])
@played
async def test_theEndWhileTheyWait(world: World, pipes: Any, end: str) -> None:
    reading, _ = pipes()
    actor, peer = await crowd(world, reading)
    transport = actor.transport
    room = transport._room
    if end == "peer":
        peer.close()
    elif end == "close":
        transport.getHandle().close()
    elif end == "stop":
        room.connectionLost(Failure(ConnectionLost()))
        room.connectionLost(Failure(ConnectionLost()))
        transport.abortConnection()
    elif end == "loseConnection":
        transport.loseConnection()
        await world.turns(5)
        assert not actor.lost
        transport.abortConnection()
    else:
        do(end, *([Failure(ConnectionDone())] if end == "dropConnection" else []))(actor)
    await world.until(lambda: actor.lost)
    assert transport._room is None
    assert room.fileno() == -1
    assert world.reactor.getWriters() == []
    transport.sendFileDescriptor(reading)
    await world.turns(5)


@played
async def test_aDescriptorThatIsNone(world: World, pipes: Any) -> None:
    actor, peer = await world.accept(Actor(), "unix")
    reading, _ = pipes()
    number = os.dup(reading)
    os.close(number)
    actor.transport.sendFileDescriptor(number)
    actor.transport.write(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.EBADF
    assert await peer.end() == b""


@played
async def test_aPeerThatHasGone(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await world.accept(Half(), "unix")
    await world.turns(5)
    actor.transport.pauseProducing()
    peer.close()
    actor.transport.sendFileDescriptor(reading)
    actor.transport.write(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.EPIPE


@played
async def test_manyPauseAProducer(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    producer = Producer()
    actor.transport.registerProducer(producer, True)
    for _ in range(64):
        actor.transport.sendFileDescriptor(reading)
    assert producer.told == []
    actor.transport.sendFileDescriptor(reading)
    assert producer.told == ["pause"]
    actor.transport.write(bytes(65))
    for _, descriptor in await take(world, peer, 65):
        os.close(descriptor)
    await world.until(lambda: producer.told[-1] == "resume")
    actor.transport.unregisterProducer()


@played
async def test_sendNow(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    await world.turns(5)
    assert actor.transport.sendNow(b"at once") == 0
    assert await peer.read(7) == b"at once"
    actor.transport.sendFileDescriptor(reading)
    assert actor.transport.sendNow(b"with it") == 7
    [(data, descriptor)] = await take(world, peer, 1)
    assert data == b"w"
    os.close(descriptor)
    assert await peer.read(6) == b"ith it"


@played
async def test_noneIsSentAfterTheEnd(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    actor, peer = await world.accept(Actor(), "unix")
    await world.turns(5)
    actor.transport.abortConnection()
    actor.transport.sendFileDescriptor(reading)
    actor.transport.write(b"?")
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)


@played
async def test_fromOneThatRests(world: World, pipes: Any) -> None:
    reading, _ = pipes()
    _, peer = await world.accept(
        Actor(made=both(do("pauseProducing"), do("sendFileDescriptor", reading), do("write", b"here"))), "unix"
    )
    [(data, descriptor)] = await take(world, peer, 1)
    assert data == b"h"
    os.close(descriptor)


@played
async def test_timeout(world: World, tmp_path: Path) -> None:
    # A full queue of a UNIX socket refuses at once (EAGAIN), and Twisted's client waits for an event that never comes.
    hands = Hands(Actor())
    with fullQueue(str(tmp_path / "s")):
        connector = world.reactor.connectUNIX(str(tmp_path / "s"), hands, timeout=0.05)
        await world.until(lambda: hands.failed)
        assert connector.state == "disconnected"
    assert hands.failed[0].check(TimeoutError)
    (tmp_path / "s").unlink()
