"""What every stream transport owes its protocol: the bytes, the end, and the reason."""

from __future__ import annotations

from array import array

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.subject import QUIET, DeliberateError, Stage, Subject
from twisted_net.testing.peers import Peer

checkStream = Check("stream", "stream")

MUCH = 5_000_000
"""Bytes that a connection of a default Linux system does not take at once: tcp(7) lets its buffers grow to 4 MiB and
6 MiB, and they begin with less than a tenth of that."""

SIZES = (1, 0, 2, 1023, 1024, 65535, 65536, 65537, 131072, 131073, 3)
"""Around the sizes at which Twisted's transports cut (64 KiB read, 128 KiB sent at a time)."""


def pattern(size: int) -> bytes:
    """That many bytes, no two stretches of which are alike, so that one that is lost, doubled or moved is seen."""
    return array("I", range(size // 4 + 1)).tobytes()[:size]


@checkStream.case()
async def bytesComeExactlyAndInOrder(subject: Subject) -> None:
    """What is written arrives exactly and in order, both ways at once (RFC 9293, 2; ITransport.write)."""
    there, back = pattern(MUCH), pattern(MUCH)[::-1]
    async with subject.connection() as (client, server):
        client.sends(there)
        server.sends(back)
        await server.hears(there)
        await client.hears(back)


@checkStream.case()
async def theSizeOfAWriteDoesNotMatter(subject: Subject) -> None:
    """Writes of any size, none included, become one stream (ITransport.write)."""
    stream = pattern(sum(SIZES))
    async with subject.connection() as (client, server):
        begin = 0
        for size in SIZES:
            client.sends(stream[begin : begin + size])
            begin += size
        await server.hears(stream)


@checkStream.case()
async def manySmallWritesComeInOrder(subject: Subject) -> None:
    """A thousand writes of one byte in one turn come as these thousand bytes (ITransport.write)."""
    stream = pattern(1000)
    async with subject.connection() as (client, server):
        for index in range(len(stream)):
            client.transport.write(stream[index : index + 1])
        await server.hears(stream)
        await server.hearsNothing(QUIET)


@checkStream.case()
async def anEmptyWriteSendsNothing(subject: Subject) -> None:
    """Writing no bytes sends nothing and ends nothing (ITransport.write)."""
    async with subject.connection() as (client, server):
        client.sends(b"")
        client.transport.writeSequence([])
        await server.hearsNothing(QUIET)
        client.sends(b"then")
        await server.hears(b"then")


@checkStream.case()
async def writeSequenceWritesItsChunks(subject: Subject) -> None:
    """writeSequence writes its chunks in their order, between the writes around it (ITransport.writeSequence)."""
    async with subject.connection() as (client, server):
        client.sends(b"before ")
        client.transport.writeSequence([b"one ", b"", b"two ", pattern(70000)])
        client.sends(b" after")
        await server.hears(b"before one two " + pattern(70000) + b" after")


@checkStream.case()
async def whatIsWrittenInConnectionMadeComes(subject: Subject) -> None:
    """A protocol may write as soon as it is connected (IProtocol.makeConnection)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(
            lambda peer: peer.reacts("made", lambda: peer.sends(b"from the client")),
            lambda peer: peer.reacts("made", lambda: peer.sends(b"from the server")),
        )
        await server.hears(b"from the client")
        await client.hears(b"from the server")


@checkStream.case()
async def loseConnectionSendsWhatWasWritten(subject: Subject) -> None:
    """loseConnection closes after everything that was written (ITransport.loseConnection)."""
    async with subject.connection() as (client, server):
        client.sends(pattern(MUCH))
        client.closes()
        assert await server.hearsAll() == pattern(MUCH), "not everything came"
        server.closes()
        await client.hears("close")


@checkStream.case()
async def afterLoseConnectionAWriteDoesNoHarm(subject: Subject) -> None:
    """Whether a write after loseConnection is still sent is the transport's choice; what came before it is sent, and
    nothing is raised (ITransport.loseConnection)."""
    async with subject.connection() as (client, server):
        client.sends(b"before")
        client.closes()
        client.sends(b", after")
        heard = await server.hearsAll()
        assert heard in (b"before", b"before, after"), f"the peer heard {heard!r}"


@checkStream.case()
async def aWriteToAGoneConnectionIsIgnored(subject: Subject) -> None:
    """write, writeSequence and loseConnection of a connection that is gone do nothing (ITransport.write)."""
    async with subject.connection() as (client, server):
        client.closes()
        server.closes()
        await client.hears("gone")  # which of the two was first, and so how it went, is chance
        before = client.story[:]
        client.transport.write(b"late")
        client.transport.writeSequence([b"too", b"late"])
        client.transport.loseConnection()
        await server.hears("gone")
        assert client.story == before, client.tells()


@checkStream.case()
async def aCloseInGoodOrderIsConnectionDone(subject: Subject) -> None:
    """After loseConnection both ends are told ConnectionDone, where the other end knows no half-close
    (IProtocol.connectionLost)."""
    async with subject.stage() as stage:
        await stage.listens(halfClose=False)
        client, server = await stage.connects()
        client.sends(b"bye")
        client.closes()
        await server.hears(b"bye")
        await server.hears("close")
        await client.hears("close")
        _hasReason(client, ConnectionDone)
        _hasReason(server, ConnectionDone)


@checkStream.case()
async def connectionLostComesOnceAndLast(subject: Subject) -> None:
    """connectionLost comes exactly once, and nothing after it, whoever has closed (IProtocol.connectionLost)."""
    for closing in ("client", "server", "both"):
        async with subject.connection() as (client, server):
            client.sends(b"from the client")
            server.sends(b"from the server")
            await server.hears(b"from the client")
            await client.hears(b"from the server")
            client.reacts("end", client.closes)
            server.reacts("end", server.closes)
            if closing != "server":
                client.closes()
            if closing != "client":
                server.closes()
                server.closes()
            await _overOnce(client, server)


@checkStream.case("abort")
async def connectionLostComesOnceAfterAnAbort(subject: Subject) -> None:
    """connectionLost comes exactly once, and nothing after it, however often both ends abort
    (ITCPTransport.abortConnection)."""
    async with subject.connection() as (client, server):
        client.sends(pattern(MUCH))
        client.aborts()
        client.aborts()
        server.aborts()
        await _overOnce(client, server)


@checkStream.case("abort")
async def anAbortDropsWhatIsUnsent(subject: Subject) -> None:
    """abortConnection ends both ends at once, and drops what is unsent (ITCPTransport.abortConnection)."""
    async with subject.stage() as stage:
        await stage.listens(halfClose=False)
        client, server = await stage.connects()
        client.sends(pattern(MUCH))
        client.aborts()
        await client.hears("gone")
        await server.hears("gone")
        assert len(server.received) < MUCH, "everything was sent"


@checkStream.case("abort", "ownReason")
async def anAbortIsConnectionAborted(subject: Subject) -> None:
    """Who has called abortConnection is told ConnectionAborted (ITCPTransport.abortConnection)."""
    async with subject.connection() as (client, _):
        client.aborts()
        await client.hears("abort")
        _hasReason(client, ConnectionAborted)


@checkStream.case("abort", "reset")
async def anAbortReachesThePeerAsReset(subject: Subject) -> None:
    """The peer of who calls abortConnection is told ConnectionLost (RFC 9293, 3.5.2; ITCPTransport.abortConnection)."""
    async with subject.connection() as (client, server):
        client.sends(b"hello")
        await server.hears(b"hello")
        client.aborts()
        await server.hears("reset")
        _hasReason(server, ConnectionLost)


@checkStream.case("abort", "prompt")
async def nothingComesAfterAnAbortInDataReceived(subject: Subject) -> None:
    """abortConnection inside of dataReceived: no byte comes after it, and connectionLost once
    (ITCPTransport.abortConnection)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=lambda peer: peer.reacts("data", peer.aborts))
        client.sends(pattern(MUCH))
        await _overOnce(client, server)
        assert server.count("data") == 1, server.tells()


@checkStream.case("prompt")
async def nothingComesAfterLoseConnectionInDataReceived(subject: Subject) -> None:
    """loseConnection inside of dataReceived: no byte comes after it (Twisted's transports stop reading)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=lambda peer: peer.reacts("data", peer.closes))
        client.reacts("end", client.closes)
        client.sends(pattern(MUCH))
        await _overOnce(client, server)
        assert server.count("data") == 1, server.tells()


@checkStream.case()
async def loseConnectionInConnectionMadeSendsWhatWasWritten(subject: Subject) -> None:
    """A protocol may say a word and close in connectionMade (ITransport.loseConnection)."""

    def greets(peer: Peer) -> None:
        def greet() -> None:
            peer.sends(b"full, sorry")
            peer.closes()

        peer.reacts("made", greet)

    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=greets)
        assert await client.hearsAll() == b"full, sorry"
        client.closes()
        await server.hears("close")


@checkStream.case()
async def whatDataReceivedRaisesEndsThatConnectionOnly(subject: Subject) -> None:
    """A protocol that raises in dataReceived loses its connection; others go on (Twisted's reactors log the error)."""
    async with subject.stage() as stage:
        await stage.listens()
        witness, other = await stage.connects()
        client, server = await stage.connects(server=_raisesOnData)
        client.sends(b"provoke")
        client.reacts("end", client.closes)
        await _overOnce(client, server)
        witness.sends(b"still here")
        await other.hears(b"still here")


@checkStream.case("ownReason")
async def whatDataReceivedRaisesIsTheReason(subject: Subject) -> None:
    """connectionLost is told what dataReceived has raised (Twisted's reactors)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=_raisesOnData)
        client.sends(b"!")  # one byte comes in one segment
        await server.hears(b"!")
        await server.hears("gone")
        _hasReason(server, DeliberateError)


@checkStream.case()
async def dataReceivedMayBeReplaced(subject: Subject) -> None:
    """Who receives is looked up for each segment: protocols put another method in the place of dataReceived
    (twisted.protocols.basic and HTTP do)."""
    async with subject.connection() as (client, server):
        client.sends(b"first")
        await server.hears(b"first")
        heard: list[bytes] = []
        come: Deferred[None] = Deferred()

        def instead(data: bytes) -> None:
            heard.append(data)
            if b"".join(heard) == b"second":
                come.callback(None)

        server.dataReceived = instead  # type: ignore[method-assign]
        client.sends(b"second")
        await come.addTimeout(subject.patience, subject.reactor)
        assert server.received == b"first", server.tells()


@checkStream.case()
async def thePeerOfTheClientIsThePort(subject: Subject) -> None:
    """getPeer of a client is what it connected to, which the server's connection calls its host
    (ITransport.getPeer, getHost)."""
    async with subject.connection() as (client, server):
        assert client.transport.getPeer() == server.transport.getHost()


@checkStream.case("addresses")
async def bothEndsTellTheSameAddresses(subject: Subject) -> None:
    """getHost of one end is getPeer of the other (ITransport.getPeer, getHost; RFC 9293, 3.3: a connection is its pair
    of addresses)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects()
        another, _ = await stage.connects()
        assert client.transport.getPeer() == server.transport.getHost()
        assert client.transport.getHost() == server.transport.getPeer()
        assert client.transport.getHost() != another.transport.getHost(), "two connections with one pair of addresses"


@checkStream.case("options")
async def theOptionsOfTcpAreKept(subject: Subject) -> None:
    """What setTcpNoDelay and setTcpKeepAlive have set, getTcpNoDelay and getTcpKeepAlive tell
    (ITCPTransport; tcp(7), socket(7))."""
    async with subject.connection() as ends:
        for end in ends:
            for wanted in (True, False, True):
                end.transport.setTcpNoDelay(wanted)
                end.transport.setTcpKeepAlive(not wanted)
                told = end.transport.getTcpNoDelay(), end.transport.getTcpKeepAlive()
                assert told == (wanted, not wanted), f"set {wanted, not wanted}, told {told}"


@checkStream.case()
async def whereNobodyListensConnectingFails(subject: Subject) -> None:
    """Connecting to where nobody listens any more fails with a ConnectError (IStreamClientEndpoint.connect)."""
    error = await _connectToNobody(subject)
    assert isinstance(error, ConnectError), f"it failed with {error!r}"


@checkStream.case("addresses")
async def whereNobodyListensConnectingIsRefused(subject: Subject) -> None:
    """Connecting to a port where nobody listens is answered with RST: ConnectionRefusedError (RFC 9293, 3.5.2)."""
    error = await _connectToNobody(subject)
    assert isinstance(error, ConnectionRefusedError), f"it failed with {error!r}"


@checkStream.case()
async def anAttemptCanBeCancelled(subject: Subject) -> None:
    """Cancelling the Deferred of connect gives up the attempt: ConnectingCancelledError, and no protocol is connected
    (IStreamClientEndpoint.connect, IConnector.stopConnecting)."""
    async with subject.stage() as stage:
        await stage.listens()
        client = stage.peers.peer("client")
        attempt = Deferred.fromCoroutine(stage.peers.connects(stage.endpoint(), client))
        attempt.cancel()
        error = await _errorOf(attempt)
        assert isinstance(error, ConnectingCancelledError), f"it ended with {error!r}"
        await client.hearsNothing(QUIET)
        assert not client.count("made"), client.tells()


@checkStream.case("silence", "backlog")
async def anAttemptThatNobodyAnswersTimesOut(subject: Subject) -> None:
    """An attempt that is not answered fails with TimeoutError after the endpoint's timeout
    (IReactorTCP.connectTCP)."""
    async with subject.stage() as stage:
        await _fillBacklog(stage)
        began = subject.reactor.seconds()
        error = await _errorOf(Deferred.fromCoroutine(stage.peers.connects(stage.endpoint(timeout=2 * QUIET))))
        assert isinstance(error, TimeoutError), f"it ended with {error!r}"
        took = subject.reactor.seconds() - began
        assert took >= 2 * QUIET, f"it was given up after {took:g} seconds"


@checkStream.case("silence", "backlog")
async def anAttemptThatNobodyAnswersCanBeCancelled(subject: Subject) -> None:
    """An attempt that is under way and not answered can be cancelled: ConnectingCancelledError
    (IStreamClientEndpoint.connect, IConnector.stopConnecting)."""
    async with subject.stage() as stage:
        await _fillBacklog(stage)
        client = stage.peers.peer("client")
        attempt = Deferred.fromCoroutine(stage.peers.connects(stage.endpoint(), client))
        await client.hearsNothing(QUIET)
        assert not client.count("made"), "the backlog has room"
        attempt.cancel()
        error = await _errorOf(attempt)
        assert isinstance(error, ConnectingCancelledError), f"it ended with {error!r}"


async def _overOnce(*peers: Peer) -> None:
    for peer in peers:
        await peer.hears("gone")
    for peer in peers:
        losses = sum(peer.count(name) for name in ("close", "reset", "abort"))
        assert losses == 1, f"connectionLost came {losses} times:\n{peer.tells()}"
        last = peer.events[-1].name
        assert last in ("close", "reset", "abort"), f"{last} came after connectionLost:\n{peer.tells()}"


def _hasReason(peer: Peer, kind: type[BaseException]) -> None:
    assert peer.reason is not None, peer.tells()
    assert peer.reason.check(kind), f"not {kind.__name__}:\n{peer.tells()}"


def _raisesOnData(peer: Peer) -> None:
    def fail() -> None:
        raise DeliberateError("raised in dataReceived")

    peer.reacts("data", fail)


async def _errorOf(attempt: Deferred[Peer]) -> Exception:
    try:
        peer = await attempt
    except Exception as error:
        return error
    raise AssertionError(f"it connected:\n{peer.tells()}")


async def _connectToNobody(subject: Subject) -> Exception:
    async with subject.stage() as stage:
        await stage.listens()
        endpoint = stage.endpoint()
        await stage.peers.closes()
        return await _errorOf(Deferred.fromCoroutine(stage.peers.connects(endpoint)))


async def _fillBacklog(stage: Stage) -> None:
    """Listen with a port that accepts nobody, and connect until its backlog is full: one more than it says
    (listen(2) on Linux)."""
    port = await stage.listens(backlog=1)
    port.pauseProducing()
    for _ in range(2):
        await stage.peers.connects(stage.endpoint())
