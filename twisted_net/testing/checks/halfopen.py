"""What a transport that can be half-closed owes: one end may have said everything while the other goes on.

That a FIN ends one direction only is RFC 9293, 3.6: "the user who CLOSEs may continue to RECEIVE".  In Twisted it is
``loseWriteConnection`` on one side, and ``IHalfCloseableProtocol`` on both.
"""

from __future__ import annotations

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.pressure import Idle
from twisted_net.testing.checks.stream import MUCH, pattern
from twisted_net.testing.checks.subject import QUIET, DeliberateError, Subject
from twisted_net.testing.peers import Peer

checkHalfOpen = Check("halfOpen", "stream", "halfClose")


@checkHalfOpen.case()
async def theEndComesAfterAllBytes(subject: Subject) -> None:
    """loseWriteConnection sends everything that was written, and then the peer's readConnectionLost is called
    (ITCPTransport.loseWriteConnection, IHalfCloseableProtocol.readConnectionLost)."""
    async with subject.connection() as (client, server):
        client.sends(pattern(MUCH))
        client.ends()
        await server.hears(pattern(MUCH))
        await server.hears("end")
        await client.hearsNothing(QUIET)


@checkHalfOpen.case()
async def anEndWithoutBytesComesToo(subject: Subject) -> None:
    """An end can be the first thing that is said (RFC 9293, 3.6)."""
    async with subject.stage() as stage:
        await stage.listens()
        _, server = await stage.connects(client=lambda peer: peer.reacts("made", peer.ends))
        await server.hears("end")
        assert not server.gone, server.tells()


@checkHalfOpen.case()
async def whoHasHeardTheEndCanAnswer(subject: Subject) -> None:
    """After the peer's end one can still write, however much it is (RFC 9293, 3.6;
    IHalfCloseableProtocol.readConnectionLost)."""
    async with subject.connection() as (client, server):
        client.sends(b"question")
        client.ends()
        await server.hears(b"question")
        await server.hears("end")
        server.sends(pattern(MUCH))
        await client.hears(pattern(MUCH))
        server.closes()
        await client.hears("end")


@checkHalfOpen.case()
async def theEndIsToldOnce(subject: Subject) -> None:
    """readConnectionLost is called once, and no byte comes after it (IHalfCloseableProtocol.readConnectionLost)."""
    async with subject.connection() as (client, server):
        client.sends(b"all")
        client.ends()
        await server.hears(b"all")
        await server.hears("end")
        server.sends(b"answer")
        await client.hears(b"answer")
        await server.hearsNothing(QUIET)
        names = [event.name for event in server.events if event.name not in ("handshake", "data")]
        assert names == ["made", "end"]
        assert server.events[-1].name == "end"


@checkHalfOpen.case()
async def theOwnEndIsToldOnceWhenAllIsSent(subject: Subject) -> None:
    """writeConnectionLost is called once, after everything was sent, however often loseWriteConnection was called
    (IHalfCloseableProtocol.writeConnectionLost)."""
    async with subject.connection() as (client, server):
        server.pauses()
        client.sends(pattern(MUCH))
        client.ends()
        client.ends()
        await client.hearsNothing(QUIET)
        assert not client.count("writeEnd"), "it was told before everything could be sent"
        server.resumes()
        await client.hears("writeEnd")
        await server.hears(pattern(MUCH))
        await server.hears("end")
        await client.hearsNothing(QUIET)
        assert client.count("writeEnd") == 1, client.tells()


@checkHalfOpen.case()
async def afterTheOwnEndAWriteIsIgnored(subject: Subject) -> None:
    """What is written after writeConnectionLost goes nowhere, and nothing is raised
    (ITCPTransport.loseWriteConnection)."""
    async with subject.connection() as (client, server):
        client.sends(b"all")
        client.ends()
        await client.hears("writeEnd")
        client.sends(b"late")
        client.transport.writeSequence([b"later"])
        assert await server.hearsAll() == b"all"
        server.sends(b"answer")
        await client.hears(b"answer")


@checkHalfOpen.case()
async def anEndWaitsForTheReader(subject: Subject) -> None:
    """Who does not read yet finds bytes and end in their order later (RFC 9293, 3.6; IPushProducer.pauseProducing)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=lambda peer: peer.reacts("made", peer.pauses))
        client.sends(b"all")
        client.ends()
        await client.hears("writeEnd")
        await server.hearsNothing(QUIET)
        server.resumes()
        await server.hears(b"all")
        await server.hears("end")


@checkHalfOpen.case()
async def anEndFromInsideOfDataReceived(subject: Subject) -> None:
    """loseWriteConnection inside of dataReceived: the peer hears the end, and what it sends still comes
    (ITCPTransport.loseWriteConnection)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=_endsAtTheFirstSegment)
        client.sends(b"enough?")
        await client.hears("end")
        client.sends(b" not yet")
        await server.hears(b"enough? not yet")


@checkHalfOpen.case()
async def aProtocolThatKnowsNoHalfCloseIsClosed(subject: Subject) -> None:
    """A protocol that does not provide IHalfCloseableProtocol is told connectionLost when its peer ends
    (IHalfCloseableProtocol)."""
    async with subject.stage() as stage:
        await stage.listens(halfClose=False)
        client, server = await stage.connects()
        client.sends(b"all")
        client.ends()
        await server.hears(b"all")
        await server.hears("close")
        client.closes()
        await client.hears("gone")


@checkHalfOpen.case("bothEnded")
async def whoEndedFirstIsToldOfTheClose(subject: Subject) -> None:
    """Who has ended and then hears the end has no connection any more: connectionLost comes
    (IProtocol.connectionLost; twisted#5662)."""
    async with subject.connection() as (client, server):
        client.ends()
        await client.hears("writeEnd")
        await server.hears("end")
        server.ends()
        await client.hears("end")
        await client.hears("gone")


@checkHalfOpen.case("bothEnded")
async def whoEndedLastIsToldOfTheClose(subject: Subject) -> None:
    """Who has heard the end and then ends has no connection any more: connectionLost comes
    (IProtocol.connectionLost; twisted#5662)."""
    async with subject.connection() as (client, server):
        client.ends()
        await server.hears("end")
        server.ends()
        await server.hears("gone")


@checkHalfOpen.case("bothEnded")
async def whoEndedTogetherAreToldOfTheClose(subject: Subject) -> None:
    """When both end at the same time both are told connectionLost (RFC 9293, 3.6, case 3; twisted#5662)."""
    async with subject.connection() as (client, server):
        client.sends(b"here")
        server.sends(b"there")
        client.ends()
        server.ends()
        await server.hears(b"here")
        await client.hears(b"there")
        await server.hears("gone")
        await client.hears("gone")


@checkHalfOpen.case()
async def afterAnEndLoseConnectionCloses(subject: Subject) -> None:
    """loseConnection after loseWriteConnection closes (ITransport.loseConnection; twisted#3037)."""
    async with subject.connection() as (client, server):
        client.ends()
        await client.hears("writeEnd")
        client.closes()
        await client.hears("close")
        await server.hears("end")
        server.closes()
        await server.hears("gone")


@checkHalfOpen.case("abort")
async def afterAnEndAbortConnectionAborts(subject: Subject) -> None:
    """abortConnection ends a connection that is half-closed (ITCPTransport.abortConnection)."""
    async with subject.connection() as (client, server):
        client.ends()
        await server.hears("end")
        server.aborts()
        await server.hears("gone")
        client.aborts()
        await client.hears("gone")


@checkHalfOpen.case()
async def whatReadConnectionLostRaisesEndsTheConnection(subject: Subject) -> None:
    """A protocol that raises in readConnectionLost loses its connection (Twisted's transports log the error)."""

    def fails(peer: Peer) -> None:
        def fail() -> None:
            raise DeliberateError("raised in readConnectionLost")

        peer.reacts("end", fail)

    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(server=fails)
        client.ends()
        await server.hears("gone")
        client.closes()
        await client.hears("gone")


@checkHalfOpen.case()
async def anEndAfterAProducerComesAfterItsBytes(subject: Subject) -> None:
    """When a producer has unregistered, loseWriteConnection sends all of its bytes first
    (IConsumer.unregisterProducer, ITCPTransport.loseWriteConnection)."""
    async with subject.connection() as (client, server):
        client.transport.registerProducer(Idle(), True)
        client.sends(pattern(MUCH))
        client.transport.unregisterProducer()
        client.ends()
        await server.hears(pattern(MUCH))
        await server.hears("end")
        server.sends(b"answer")
        await client.hears(b"answer")


def _endsAtTheFirstSegment(peer: Peer) -> None:
    # Once: loseWriteConnection after its end is an empty send, which fails (EPIPE), and the connection with it.
    peer.reacts("data", lambda: None if peer.count("ends") else peer.ends())
