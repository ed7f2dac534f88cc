"""What a listening port owes: an address of its own, everybody who comes, and a clean end."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from zope.interface import implementer

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.subject import QUIET, DeliberateError, Stage, Subject
from twisted_net.testing.peers import Peer

checkServer = Check("server", "stream")

CROWD = 200
"""Clients at once: more than a backlog of Twisted's default, which is 50."""


@checkServer.case("addresses")
async def aPortThatIsAskedForZeroHasARealNumber(subject: Subject) -> None:
    """Listening at port 0 gives a free port, and getHost tells which (IReactorTCP.listenTCP,
    IListeningPort.getHost)."""
    async with subject.stage() as stage:
        first, second = await stage.listens(), await stage.listens()
        assert 0 < first.getHost().port < 65536, f"getHost says {first.getHost()}"
        assert first.getHost().port != second.getHost().port, "two ports have one number"
        client, server = await stage.connects()
        assert client.transport.getPeer() == second.getHost() == server.transport.getHost()


@checkServer.case()
async def aBusyAddressCannotBeListenedAt(subject: Subject) -> None:
    """Listening where somebody listens already fails with CannotListenError, and disturbs nobody
    (IReactorTCP.listenTCP)."""
    async with subject.stage() as stage:
        await stage.listens()
        try:
            await stage.peers.listens(stage.atTheSameAddress())
        except CannotListenError:
            client, server = await stage.connects()
            client.sends(b"still here")
            await server.hears(b"still here")
        else:
            raise AssertionError("two ports listen at one address")


@checkServer.case()
async def aStoppedPortCanBeListenedAtAgain(subject: Subject) -> None:
    """When stopListening has fired, its address is free at once, even with a connection left from before
    (IListeningPort.stopListening; SO_REUSEADDR in socket(7))."""
    async with subject.stage() as stage:
        port = await stage.listens()
        again = stage.atTheSameAddress()
        left, _ = await stage.connects()
        await maybeDeferred(port.stopListening)
        await stage.listens(again)
        client, server = await stage.connects()
        assert client.transport.getPeer() == left.transport.getPeer(), "it listens at another address"
        client.sends(b"again")
        await server.hears(b"again")


@checkServer.case()
async def afterStopListeningConnectionsGoOn(subject: Subject) -> None:
    """stopListening ends no connection (IListeningPort.stopListening)."""
    async with subject.stage() as stage:
        port = await stage.listens()
        client, server = await stage.connects()
        await maybeDeferred(port.stopListening)
        client.sends(b"question")
        await server.hears(b"question")
        server.sends(b"answer")
        server.closes()
        assert await client.hearsAll() == b"answer"


@checkServer.case()
async def stoppingAStoppedPortDoesNoHarm(subject: Subject) -> None:
    """stopListening of a port that was stopped raises nothing (IListeningPort.stopListening)."""
    async with subject.stage() as stage:
        port = await stage.listens()
        await maybeDeferred(port.stopListening)
        await maybeDeferred(port.stopListening)


@checkServer.case("backlog")
async def whoComesWhileNobodyAcceptsWaits(subject: Subject) -> None:
    """Clients connect and write while a port accepts nobody; when it does, all are served in the order in which they
    came (listen(2), RFC 9293, 3.9.1.1)."""
    async with subject.stage() as stage:
        port = await stage.listens()
        port.pauseProducing()
        clients = [await stage.peers.connects(stage.endpoint()) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sends(b"%d" % number)
        await clients[0].hearsNothing(QUIET)
        assert len(stage.peers.all) == len(clients), "it has accepted"
        port.resumeProducing()
        for number in range(len(clients)):
            server = await stage.peers.accepts()
            await server.hears(b"%d" % number)


@checkServer.case()
async def aCrowdIsServed(subject: Subject) -> None:
    """Two hundred clients who come at once are all served, each with its own bytes (IReactorTCP.listenTCP)."""
    async with subject.stage() as stage:
        await stage.listens(backlog=CROWD, make=lambda: _echoing(stage))
        attempts = [Deferred.fromCoroutine(stage.peers.connects(stage.endpoint())) for _ in range(CROWD)]
        clients = [await attempt for attempt in attempts]
        for number, client in enumerate(clients):
            client.sends(b"%03d" % number)
        for number, client in enumerate(clients):
            await client.hears(b"%03d" % number)


@checkServer.case()
async def aFactoryIsStartedAndStoppedWithItsPort(subject: Subject) -> None:
    """doStart is called once before anything is built, doStop once when the port has stopped (IProtocolFactory)."""
    calls: list[str] = []
    watched = subject.wrapped(lambda factory: _Watched(factory, calls, []), None)
    async with watched.stage() as stage:
        port = await stage.listens()
        assert calls == ["doStart"], f"while it listens: {calls}"
        await stage.connects()
        await maybeDeferred(port.stopListening)
        assert calls == ["doStart", "buildProtocol", "doStop"], f"afterwards: {calls}"


@checkServer.case("addresses")
async def aFactoryIsToldWhoComes(subject: Subject) -> None:
    """buildProtocol is given the address of the client (IProtocolFactory.buildProtocol)."""
    told: list[IAddress | None] = []
    watched = subject.wrapped(lambda factory: _Watched(factory, [], told), None)
    async with watched.connection() as (client, _):
        assert told == [client.transport.getHost()], f"{client.transport.getHost()} came, and {told} was told"


@checkServer.case("refusal")
async def aClientCanBeTurnedAway(subject: Subject) -> None:
    """When buildProtocol returns None the connection is closed, and the next one is served
    (IProtocolFactory.buildProtocol)."""
    await _turnsAway(subject, lambda: None)


@checkServer.case("dismissal")
async def aFactoryThatRaisesLosesThatClientOnly(subject: Subject) -> None:
    """When buildProtocol raises, its client is turned away, and the next one is served
    (IProtocolFactory.buildProtocol; the error is logged)."""
    await _turnsAway(subject, _raise)


@checkServer.case("abort")
async def whoLeavesAtOnceDisturbsNobody(subject: Subject) -> None:
    """Clients who abort as soon as they are connected take nothing with them (accept(2): the error of a connection that
    is gone already is no error of the port)."""
    async with subject.stage() as stage:
        await stage.listens(make=lambda: _echoing(stage))
        for _ in range(5):
            passerBy = stage.peers.peer("passer-by")
            passerBy.reacts("made", passerBy.aborts)
            await stage.peers.connects(stage.endpoint(), passerBy)
            await passerBy.hears("gone")
        await _isServed(stage)


async def _turnsAway(subject: Subject, build: Callable[[], Peer | None]) -> None:
    async with subject.stage() as stage:
        builds = iter([build])
        await stage.listens(make=lambda: next(builds, lambda: _echoing(stage))())
        refused = await stage.peers.connects(stage.endpoint(), stage.peers.peer("client", halfClose=False))
        await refused.hears("gone")
        await _isServed(stage)


async def _isServed(stage: Stage) -> None:
    client = await stage.peers.connects(stage.endpoint())
    client.sends(b"and me?")
    await client.hears(b"and me?")


def _echoing(stage: Stage) -> Peer:
    peer = stage.peers.peer("server")
    peer.reacts("data", lambda: peer.sends(peer.events[-1].data))
    return peer


def _raise() -> Peer | None:
    raise DeliberateError("raised in buildProtocol")


@implementer(IProtocolFactory)
class _Watched:
    """A factory whose calls are written down."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, calls: list[str], told: list[IAddress | None]) -> None:
        self._factory = factory
        self._calls = calls
        self._told = told

    def doStart(self) -> None:
        self._calls.append("doStart")
        self._factory.doStart()

    def doStop(self) -> None:
        self._calls.append("doStop")
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        self._calls.append("buildProtocol")
        self._told.append(addr)
        return self._factory.buildProtocol(addr)  # type: ignore[arg-type]
