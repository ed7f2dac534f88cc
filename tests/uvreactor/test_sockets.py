"""Socket objects that are closed and taken apart by an application: the connection ends, and never the process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from conditions import blackHole, needsIPv6
from logs import LoggedErrors
from twisted.internet.error import ConnectionDone, ConnectionLost, UserError
from twisted.python.failure import Failure
from uvreactor.uvworld import Actor, Hands, World, both, do, fail, loggedOnce, played, ran

import twisted
from twisted_net.uvreactor.sockets import GuardedSocket, LentSocket, ListeningSocket


def close(actor: Actor, *args: object) -> None:
    actor.transport.getHandle().close()


def leave(actor: Actor, *args: object) -> None:
    with actor.transport.getHandle():
        pass


pause = do("pauseProducing")


# Of a connection


@pytest.mark.parametrize("kind", ["tcp", pytest.param("tcp6", marks=needsIPv6), "unix"])
@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("end", [close, leave])
@played
async def test_closed(world: World, way: str, kind: str, end: Callable[..., None]) -> None:
    actor, peer = await getattr(world, way)(Actor(), kind)
    await world.turns(5)
    skt = actor.transport.getHandle()
    actor.transport.write(b"dropped")
    end(actor)
    assert actor.events == ["made"], "in the next turn"
    assert skt.fileno() >= 0
    end(actor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    await world.turns(5)
    assert skt.fileno() == -1
    skt.close()
    assert actor.events == ["made", "lost"]


@pytest.mark.parametrize("unborn", [False, True])
@played
async def test_closedWhenItWasMade(world: World, unborn: bool) -> None:
    actor, peer = await world.accept(Actor(made=both(pause, close) if unborn else close))
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost


@played
async def test_closedWhileItRests(world: World) -> None:
    actor, peer = await world.accept(Actor(made=pause))
    await world.turns(5)
    close(actor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)


@played
async def test_closedInDataReceived(world: World) -> None:
    actor, peer = await world.accept(Actor(data=close))
    peer.send(b"?")
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "data", "lost"]


@played
async def test_closedWhileItCloses(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.loseConnection()
    close(actor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)


@played
async def test_closedAndAnExceptionForIt(world: World, loggedErrors: LoggedErrors) -> None:
    actor, peer = await world.accept(Actor(lost=fail))
    await world.turns(5)
    close(actor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1")


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("unborn", [False, True])
@played
async def test_detached(world: World, way: str, unborn: bool) -> None:
    actor, peer = await getattr(world, way)(Actor(made=pause if unborn else lambda actor: None))
    await world.turns(5)
    skt = actor.transport.getHandle()
    number = skt.fileno()
    with socket.socket(fileno=skt.detach()) as ours:
        assert ours.fileno() != number
        await world.until(lambda: actor.lost)
        assert actor.why() is ConnectionLost
        await world.turns(5)
        assert skt.fileno() == -1
        assert peer.isQuiet(), "the connection lives on"
        ours.sendall(b"from here")
        assert await peer.read(9) == b"from here"
        peer.send(b"and back")
        ours.setblocking(True)
        assert ours.recv(100) == b"and back"
    assert await peer.end() == b""


@played
async def test_afterTheEnd(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    skt = actor.transport.getHandle()
    actor.transport.dropConnection(Failure(ConnectionDone()))
    await world.turns(5)
    skt.close()
    assert skt.fileno() == -1
    assert skt.detach() == -1
    assert await peer.end() == b""


@played
async def test_closedInTheTurnInWhichItEnds(world: World) -> None:
    # uvloop closes the descriptor one turn after the end; until then it is nobody's.
    actor, peer = await world.accept(Actor(lost=lambda actor, reason: kept[0].close()))
    await world.turns(5)
    kept = [actor.transport.getHandle()]
    actor.transport.dropConnection(Failure(ConnectionDone()))
    assert await peer.end() == b""
    await world.turns(5)


# Of a port, and of a client that connects


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("detached", [False, True])
@played
async def test_aPort(world: World, kind: str, detached: bool) -> None:
    port = world.listen(Hands(Actor()), kind)
    await world.turns(5)
    skt = port.socket
    assert isinstance(skt, ListeningSocket)
    if detached:
        os.close(skt.detach())
    else:
        skt.close()
    await world.turns(5)
    actor, peer = await world.accept(Actor(), kind)  # the number is given out again
    peer.send(b"?")
    await world.until(lambda: actor.received)
    await port.stopListening()


@pytest.mark.parametrize("detached", [False, True])
@played
async def test_aClientThatConnects(world: World, detached: bool) -> None:
    with blackHole() as hole:
        hands = Hands(Actor())
        connector = world.connect(hands, hole)
        await world.turns(10)
        skt = connector.transport.socket
        assert isinstance(skt, GuardedSocket)
        if detached:
            os.close(skt.detach())
        else:
            skt.close()
        await world.turns(10)
        actor, peer = await world.accept(Actor())  # the number is given out again
        peer.send(b"?")
        await world.until(lambda: actor.received)
        connector.stopConnecting()
        await world.until(lambda: hands.failed)
        assert hands.failed[0].check(UserError)


@pytest.mark.skipif(twisted.__version__ < "26", reason="this Twisted raises where its socket is gone")
@played
async def test_aClientThatIsAboutToConnect(world: World) -> None:
    hands = Hands(Actor())
    connector = world.connect(hands, world.listening().getsockname())
    connector.transport.socket.close()
    await world.until(lambda: hands.failed)


# Alone


def test_guardedByNobody() -> None:
    one, other = socket.socketpair()
    with other:
        skt = GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, one.detach())
        number = skt.fileno()
        assert skt.detach() == number
        assert skt.fileno() == -1
        with GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number) as skt:
            assert skt.guard is None
        assert skt.fileno() == -1
        assert other.recv(1) == b""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_listening(family: int) -> None:
    plain = socket.socket(family)
    plain.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
    plain.listen()
    with ListeningSocket.of(plain) as skt, socket.socket(family) as client:
        assert plain.fileno() == -1
        assert skt.family == family
        with pytest.raises(BlockingIOError):
            skt.accept()
        client.connect(skt.getsockname())
        accepted, address = skt.accept()
        with accepted:
            assert isinstance(accepted, GuardedSocket)
            assert accepted.family == family
            assert not accepted.get_inheritable()
            if family == socket.AF_INET:
                assert address == client.getsockname()


def test_lent() -> None:
    one, other = socket.socketpair()
    with other:
        skt = GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, one.detach())
        number = skt.fileno()
        skt.guard = object()
        lent = LentSocket(skt)
        assert lent.fileno() == number
        lent.close()
        assert skt.guard is None
        assert skt.fileno() == -1
        os.close(number)


# What a process survives


ENDS = {
    "close": "skt.close()",
    "with": "exec('with skt: pass')",
    "detach": "os.close(skt.detach())",
    "detach and keep": "kept.append(skt.detach())",
    "many": "[skt.close() for _ in range(3)]",
}

SURVIVOR = """
    kept = []

    def end(skt):
        {end}
        reactor.callLater(0, again)

    class Ends(Protocol):
        def connectionMade(self):
            self.skt = self.transport.getHandle()
            {made}

        def dataReceived(self, data):
            {data}

        def connectionLost(self, reason):
            {lost}

    class Greets(Protocol):
        def connectionMade(self):
            self.transport.write(b"hello")

    class Factory_(ClientFactory):
        noisy = False
        def buildProtocol(self, addr):
            return Greets()

    class Echo(Protocol):
        def connectionMade(self):
            self.transport.write(b"alive")

        def dataReceived(self, data):
            print(data.decode())
            reactor.stop()

    def again():
        if port.factory.protocol is not Repeats:
            port.factory.protocol = Repeats
            factory = ClientFactory()
            factory.noisy = False
            factory.protocol = Echo
            reactor.connectTCP("127.0.0.1", port.getHost().port, factory)

    class Repeats(Protocol):
        def dataReceived(self, data):
            self.transport.write(data)

    port = reactor.listenTCP(0, Factory.forProtocol(Ends), interface="127.0.0.1")
    reactor.callWhenRunning(reactor.connectTCP, "127.0.0.1", port.getHost().port, Factory_())
    reactor.callLater(20, os._exit, 7)
    reactor.run()
"""


@pytest.mark.parametrize(
    ("when", "end"),
    [(when, end) for when in ("made", "data", "lost", "later") for end in ("close", "detach")]
    + [("data", end) for end in ("with", "detach and keep", "many")],
)
def test_theProcessLivesOn(when: str, end: str) -> None:
    deeds = dict.fromkeys(("made", "data", "lost"), "pass")
    if when == "later":
        deeds["made"] = "self.transport.pauseProducing(); reactor.callLater(0.01, end, self.skt)"
    elif when == "lost":
        deeds |= {"data": "self.transport.loseConnection()", "lost": "end(self.skt)"}
    else:
        deeds[when] = "end(self.skt)"
    assert ran(SURVIVOR.format(end=ENDS[end], **deeds)) == "alive\n"


def test_aPortInAProcess() -> None:
    program = """
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        reactor.callLater(0, port.socket.close)
        reactor.callLater(0.01, reactor.stop)
        reactor.run()
        print("done")
    """
    assert ran(program) == "done\n"
