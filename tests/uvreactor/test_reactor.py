"""The reactor: turns, timers, threads, what it is asked about streams, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from certificates import selfSigned
from conditions import blackHole, needsIPv6
from logs import LoggedErrors
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ReactorAlreadyRunning,
    ReactorNotRestartable,
    ReactorNotRunning,
    UnsupportedAddressFamily,
)
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorProcess,
    IReactorSocket,
    IReactorSSL,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.python.failure import Failure
from uvreactor.uvworld import (
    FAMILIES,
    KINDS,
    MEGABYTES,
    Actor,
    Half,
    Hands,
    World,
    do,
    fail,
    played,
    ran,
    started,
    uvloop,
    write,
)

STREAMS = [pytest.param(kind, marks=needsIPv6 if kind == "tcp6" else ()) for kind in KINDS]

INTERFACES = [
    IReactorCore,
    IReactorFDSet,
    IReactorProcess,
    IReactorSSL,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
]


@pytest.mark.parametrize("interface", INTERFACES)
def test_interfaces(world: World, interface: Any) -> None:
    assert interface.providedBy(world.reactor)


# Turns and timers


@played
async def test_callLaterOfConnectionMadeComesBeforeTheFirstBytes(world: World) -> None:
    def note(actor: Actor) -> None:
        order.append("made")
        world.reactor.callLater(0, order.append, "later")

    order: list[str] = []
    for way in ("accept", "dial"):
        order.clear()
        actor = Actor(made=note, data=lambda actor, data: order.append("data"))
        if way == "accept":
            port = world.listen(Hands(actor))
            peer = world.peer(socket.create_connection(port.socket.getsockname()))
            peer.send(b"here already")
            await world.made(actor)
            await port.stopListening()
        else:
            skt = world.listening()
            world.connect(Hands(actor), skt.getsockname())
            accepted = None
            while accepted is None:
                await world.turns()
                try:
                    accepted, _ = skt.accept()
                except BlockingIOError:
                    continue
            world.own(accepted).sendall(b"here already")
        await world.until(lambda: len(order) == 3)
        assert order == ["made", "later", "data"], way


@played
async def test_callsKeepTheirOrder(world: World) -> None:
    order: list[int] = []
    for number in range(5):
        world.reactor.callLater(0, order.append, number)
    last = world.reactor.callLater(0.02, order.append, 7)
    world.reactor.callLater(0.01, order.append, 6)
    world.reactor.callLater(60, order.append, 9).reset(0.005)
    world.reactor.callLater(0, order.append, 8).cancel()
    await world.until(lambda: not last.active())
    assert order == [0, 1, 2, 3, 4, 9, 6, 7]


@played
async def test_expecting(world: World) -> None:
    await world.turns(3)
    assert not world.reactor.expecting
    call = world.reactor.callLater(60, lambda: None)
    assert not world.reactor.expecting
    call.cancel()
    world.reactor.callLater(0, lambda: None)
    assert world.reactor.expecting
    await world.until(lambda: not world.reactor.expecting)


def test_iterate(world: World) -> None:
    reactor, called = world.reactor, list[str]()
    reactor.callWhenRunning(called.append, "running")
    reactor.startRunning(installSignalHandlers=False)
    world.outside(reactor.iterate)
    assert called == ["running"]
    reactor.callLater(0, called.append, "due")
    reactor.callLater(60, called.append, "not due").cancel()
    world.outside(reactor.iterate, 0)
    world.outside(reactor.iterate)
    assert called == ["running", "due"]
    actor, before = Actor(), reactor.seconds()
    port = world.listen(Hands(actor))
    peer = world.own(socket.create_connection(port.socket.getsockname()))
    peer.sendall(b"hello")
    for _ in range(10):
        world.outside(reactor.iterate, 0)
    assert actor.received == b"hello"
    assert reactor.seconds() - before < 5
    before = reactor.seconds()
    world.outside(reactor.iterate, 0.02)
    assert reactor.seconds() - before >= 0.015
    port.stopListening()
    reactor.stop()
    for _ in range(5):
        world.outside(reactor.iterate, 0)
    assert actor.events == ["made", "data", "lost"]
    assert not reactor.running


def test_runAfterCrash(world: World) -> None:
    reactor, called = world.reactor, list[str]()

    def crash() -> None:
        called.append("crash")
        reactor.crash()

    reactor.callLater(0, crash)
    world.outside(reactor.run, installSignalHandlers=False)
    assert not reactor.running
    reactor.callLater(0, called.append, "again")
    reactor.callLater(0, reactor.stop)
    world.outside(reactor.run, installSignalHandlers=False)
    assert called == ["crash", "again"]
    with pytest.raises(ReactorNotRestartable):
        world.outside(reactor.run)


def test_onlyAStopEndsIt(world: World) -> None:
    # As a stop of the loop that `iterate` asked for, and that outlasted it.
    called: list[str] = []
    world.reactor.callWhenRunning(world.loop.stop)
    world.reactor.callLater(0.01, called.append, "later")
    world.reactor.callLater(0.02, world.reactor.stop)
    world.outside(world.reactor.run, installSignalHandlers=False)
    assert called == ["later"]


def test_stoppedAndStartedWhenItMustNot(world: World) -> None:
    async def scene() -> None:
        with pytest.raises(ReactorAlreadyRunning):
            world.reactor.run()

    with pytest.raises(ReactorNotRunning):
        world.reactor.stop()
    world.play(scene())


# Who connects


@pytest.mark.parametrize("kind", STREAMS)
@played
async def test_twoOfTheReactors(world: World, kind: str) -> None:
    server = Actor(data=lambda actor, data: actor.transport.write(data))
    client = Actor(made=write(b"hello"))
    await world.meet(server, client, kind)
    await world.until(lambda: client.received == b"hello")
    client.transport.loseConnection()
    await world.until(lambda: client.lost and server.lost)
    assert client.why() is server.why() is ConnectionDone


@pytest.mark.parametrize("kind", STREAMS)
@played
async def test_adopted(world: World, kind: str) -> None:
    first, second = Actor(made=write(b"first")), Actor(made=write(b"second"))
    peers = [world.own(socket.socket(FAMILIES[kind])) for _ in range(2)]
    with world.listening(kind) as skt:
        peers[0].connect(skt.getsockname())
        with skt.accept()[0] as accepted:
            world.reactor.adoptStreamConnection(accepted.fileno(), FAMILIES[kind], Hands(first))
        port = world.reactor.adoptStreamPort(skt.fileno(), FAMILIES[kind], Hands(second))
        peers[1].connect(skt.getsockname())
    assert await world.peer(peers[0]).read(5) == b"first"
    assert await world.peer(peers[1]).read(6) == b"second"
    for adopting in (world.reactor.adoptStreamConnection, world.reactor.adoptStreamPort):
        with pytest.raises(UnsupportedAddressFamily):
            adopting(peers[0].fileno(), socket.AF_IRDA, Hands(Actor()))
    await port.stopListening()


# What reactors are asked about streams, and about everything else


class Filed:
    """A file as a reader and writer."""

    def __init__(self, number: int) -> None:
        self.events: list[str] = []
        self.fileno = lambda: number

    def logPrefix(self) -> str:
        return "Filed"

    def doRead(self) -> None:
        self.events.append("read")

    def doWrite(self) -> None:
        self.events.append("write")


@played
async def test_whatEpollCannotWatchIsAlwaysReady(world: World, tmp_path: Path) -> None:
    reactor = world.reactor
    with (tmp_path / "file").open("w+") as file:
        one = Filed(file.fileno())
        for _ in range(2):
            reactor.addReader(one)
            reactor.addWriter(one)
        assert reactor.getReaders().count(one) == reactor.getWriters().count(one) == 1
        await world.until(lambda: set(one.events) == {"read", "write"})
        reactor.removeReader(one)
        assert one not in reactor.getReaders()
        reactor.removeWriter(one)
        assert one not in reactor.getWriters()


@played
async def test_whatEpollWatches(world: World) -> None:
    reactor = world.reactor
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = Filed(ours.fileno())
        reactor.addReader(one)
        theirs.send(b"!")
        await world.until(lambda: one.events)
        reactor.removeReader(one)
        assert set(one.events) == {"read"}
        reactor.addWriter(one)
        await world.until(lambda: "write" in one.events)
        reactor.removeWriter(one)
        assert one not in reactor.getReaders() + reactor.getWriters()


@played
async def test_streamsAreReadersAndWriters(world: World) -> None:
    reactor = world.reactor
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    stream = actor.transport
    assert stream in reactor.getReaders()
    assert stream not in reactor.getWriters()
    stream.write(b"?")
    assert stream in reactor.getWriters()
    assert await peer.read(1) == b"?"
    await world.turns(2)
    assert stream not in reactor.getWriters()
    reactor.removeReader(stream)
    assert stream not in reactor.getReaders()
    peer.send(b"hello")
    await world.turns(10)
    assert actor.events == ["made"]
    reactor.addReader(stream)
    await world.until(lambda: actor.received)
    reactor.addWriter(stream)
    assert stream in reactor.getWriters()
    reactor.removeWriter(stream)
    assert stream not in reactor.getWriters()
    stream.loseConnection()
    await world.until(lambda: actor.lost)
    assert stream not in reactor.getReaders() + reactor.getWriters()


@played
async def test_removeAll(world: World) -> None:
    reactor = world.reactor
    reading, peer = await world.accept(Actor())
    resting, _ = await world.accept(Actor(made=do("pauseProducing")))
    writing, _ = await world.accept(Actor(made=write(b"?")))
    port = world.listen(Hands(Actor()))
    removed = reactor.removeAll()
    assert {reading.transport, writing.transport, port} <= set(removed)
    assert resting.transport not in removed
    assert len(removed) == len(set(map(id, removed)))
    assert [one for one in reactor.getReaders() if one not in reactor._internalReaders] == []
    peer.send(b"hello")
    await world.turns(10)
    assert reading.events == ["made"]
    reactor.addReader(reading.transport)
    await world.until(lambda: reading.received)
    await port.stopListening()


@played
async def test_disconnectAll(world: World) -> None:
    reading, _ = await world.accept(Actor())
    resting, _ = await world.accept(Actor(made=do("pauseProducing")))
    paused, _ = await world.dial(Half(), "unix")
    await world.turns(5)
    paused.transport.pauseProducing()
    closing, _ = await world.accept(Actor(made=write(MEGABYTES)))
    closing.transport.loseConnection()
    await world.turns(5)
    world.reactor.disconnectAll()
    for actor in (reading, resting, paused, closing):
        assert actor.events == ["made", "lost"]
        assert actor.why() is ConnectionLost
    assert not world.reactor._streams


def test_openWhenItStops(world: World, loggedErrors: LoggedErrors) -> None:
    actors: list[Any] = []

    async def scene() -> None:
        for number, made in enumerate((do("resumeProducing"), do("pauseProducing"), write(MEGABYTES), fail)):
            way = world.dial if number % 2 else world.accept
            actors.append(Actor(made=made if made is not fail else do("pauseProducing")))
            await way(actors[-1])
        actors.append(Actor(lost=fail))
        await world.accept(actors[-1])
        await world.turns(5)
        actors.append(Actor())  # one that begins with the last turn
        port = world.listen(Hands(actors[-1]))
        world.own(socket.create_connection(port.socket.getsockname()))
        await world.made(actors[-1])

    world.play(scene())
    assert [actor.events for actor in actors] == [["made", "lost"]] * len(actors)
    assert all(actor.why() is ConnectionLost for actor in actors)
    assert len(loggedErrors.flush("Expected")) == 1


def test_clientsThatConnectWhenItStops(world: World) -> None:
    hands = Hands(Actor())

    async def scene() -> None:
        world.connect(hands, where)
        await world.turns(10)

    with blackHole() as where:
        world.play(scene())
    assert len(hands.failed) == 1


# Handing over


class Poor(uvloop.Loop):  # type: ignore[misc]
    """A loop whose libuv has no memory."""

    fails = True

    def connect_accepted_socket(self, *args: Any, **keywords: Any) -> Any:
        if self.fails:
            raise MemoryError
        return super().connect_accepted_socket(*args, **keywords)


def test_noMemory() -> None:
    world = World(Poor())

    async def scene() -> None:
        hands = Hands(Actor(made=write(b"?")))
        port = world.listen(hands)
        for turn in range(2):
            actor = hands._protocols[0]
            peer = world.peer(socket.create_connection(port.socket.getsockname()))
            await world.until(lambda actor=actor: actor.lost)  # type: ignore[misc]
            assert actor.why() is ConnectionLost
            assert await peer.end() == b"", turn
            hands._protocols = [Actor(made=write(b"?"))]
        world.loop.fails = False
        peer = world.peer(socket.create_connection(port.socket.getsockname()))
        assert await peer.read(1) == b"?"
        await port.stopListening()

    try:
        world.play(scene())
    finally:
        world.close()


@played
async def test_manyArriveInOneTurn(world: World) -> None:
    actors = [Actor(made=write(b"%02d" % number)) for number in range(40)]
    skt = world.listening()
    skt.listen(100)
    hands = Hands(*actors)
    for _ in actors:
        world.connect(hands, skt.getsockname())
    await world.until(lambda: all(actor.events for actor in actors))
    came = []
    for _ in actors:
        came.append(await world.peer(skt.accept()[0]).read(2))
    assert sorted(came) == [b"%02d" % number for number in range(40)]


# TLS


@pytest.mark.tls
@played
async def test_tls(world: World) -> None:
    server = Actor(data=lambda actor, data: actor.transport.write(data))
    client = Actor(made=write(b"hello"))
    port = world.reactor.listenSSL(0, Hands(server), selfSigned().forServer(), interface="127.0.0.1")
    hands = Hands(client)
    world.reactor.connectSSL("127.0.0.1", port.getHost().port, hands, selfSigned().forClient())
    await world.until(lambda: client.received == b"hello")
    large = MEGABYTES[: 1 << 20]
    client.transport.write(large)
    await world.until(lambda: len(client.received) == len(large) + 5)
    assert client.transport.getPeerCertificate() is not None
    client.transport.loseConnection()
    await world.until(lambda: server.lost and hands.lost)
    assert client.why() is server.why() is ConnectionDone
    await port.stopListening()


# Threads, and asyncio


@played
async def test_threads(world: World) -> None:
    reactor = world.reactor
    main = threading.get_ident()
    ident = await deferToThreadPool(reactor, reactor.getThreadPool(), threading.get_ident)
    assert ident != main

    def ask() -> int:
        return blockingCallFromThread(reactor, threading.get_ident)

    assert await deferToThreadPool(reactor, reactor.getThreadPool(), ask) == main

    def err() -> None:
        raise ValueError("from the thread")

    with pytest.raises(ValueError, match="from the thread"):
        await deferToThreadPool(reactor, reactor.getThreadPool(), err)


@played
async def test_aThreadWakesAnIdleLoop(world: World) -> None:
    called: Deferred[str] = Deferred()
    may = threading.Event()

    def call() -> None:
        may.wait(20)
        world.reactor.callFromThread(called.callback, "called")

    thread = threading.Thread(target=call)
    thread.start()
    world.reactor.soon(may.set)
    # Nothing turns the loop here but the thread.
    assert await called == "called"
    thread.join()


@played
async def test_asyncioOnTheSameLoop(world: World) -> None:
    actor, peer = await world.accept(Actor(data=lambda actor, data: actor.transport.write(data)))

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(sock=peer.socket)
        writer.write(b"hello")
        data = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        return data

    future = asyncio.ensure_future(talk(), loop=world.loop)
    assert await Deferred.fromFuture(future) == b"hello"
    await world.until(lambda: actor.lost)


def test_inAThreadOfItsOwn() -> None:
    program = """
        import threading
        from twisted.python import context

        systems = []

        class Told(Protocol):
            def dataReceived(self, data):
                systems.append(context.get(log.ILogContext)["system"])
                self.transport.loseConnection()

            def connectionLost(self, reason):
                systems.append(context.get(log.ILogContext)["system"])
                reactor.stop()

        port = reactor.listenTCP(0, Factory.forProtocol(Told), interface="127.0.0.1")
        thread = threading.Thread(target=reactor.run, args=(False,))
        thread.start()
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
            client.sendall(b"?")
            client.recv(1)
            thread.join(20)
        print(systems, context.get(log.ILogContext)["system"])
    """
    assert ran(program) == "['Told,0,127.0.0.1', 'Told,0,127.0.0.1'] -\n"


# Programs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalsEndIt(number: signal.Signals) -> None:
    program = """
        class Told(Protocol):
            def connectionMade(self):
                print("ready", flush=True)

            def connectionLost(self, reason):
                print("lost", flush=True)

        port = reactor.listenTCP(0, Factory.forProtocol(Told), interface="127.0.0.1")
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        reactor.addSystemEventTrigger("after", "shutdown", print, "stopped", flush=True)
        reactor.run()
        print("returned")
        client.close()
    """
    with started(program) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "lost\nstopped\nreturned\n"), err


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2), (1,), (2,)])
def test_standardDescriptorsThatAreClosed(tmp_path: Path, closed: tuple[int, ...]) -> None:
    program = f"""
        import os, socket
        from twisted_net import uvreactor
        uvreactor.install()
        from twisted.internet import reactor
        from twisted.internet.protocol import Factory, Protocol
        assert all(os.path.samefile(f"/proc/self/fd/{{number}}", "/dev/null") for number in {closed})
        assert all(os.get_inheritable(number) for number in {closed})

        class Told(Protocol):
            def dataReceived(self, data):
                with open({str(tmp_path / "said")!r}, "wb") as file:
                    file.write(data)
                reactor.stop()

        port = reactor.listenTCP(0, Factory.forProtocol(Told), interface="127.0.0.1")
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        client.sendall(b"hello")
        reactor.callLater(20, os._exit, 7)
        # As a daemon does when it has forked.
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.close(null)
        reactor.run()
        client.close()
    """
    ran(program, installed=False, before=lambda: list(map(os.close, closed)))
    assert (tmp_path / "said").read_bytes() == b"hello"


@played
async def test_dropInATurnOfItsOwn(world: World) -> None:
    # What has ended before it was handed over is not handed over, and its descriptor is free at once.
    actor = Actor(made=do("dropConnection", Failure(ConnectionDone())))
    port = world.listen(Hands(actor))
    peer = world.peer(socket.create_connection(port.socket.getsockname()))
    await world.made(actor)
    assert actor.events == ["made", "lost"]
    assert peer.socket.recv(1) == b""
    await port.stopListening()
