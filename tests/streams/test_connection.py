"""Connection: bytes that wait, and those who wait for them; cancelled at every point, nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from doors import patient
from drivers import CANCELLED, Driver, Running, cancelled, everyDriver, onAsyncio, passesOnAsyncio, theReactor
from talks import Canceller, connecting, listening, talking
from turning import turns
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from twisted_net import streams
from twisted_net.errors import (
    BusyError,
    ClosedError,
    EndError,
    LimitError,
    NetError,
    ResetError,
    TimedOutError,
    WriteError,
)
from twisted_net.sansio.faults import Latency, Slicer
from twisted_net.streams import Listener, Stream
from twisted_net.streams.connection import READER, Connection, Patience, again
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.waiting import loopOf

BIG = bytes(range(256)) * 1200
"""300 KB: more than a high-water mark, a window in memory and a kernel's first buffers."""


# Numbers


def test_patience() -> None:
    assert Patience().left(0.0, 100.0) is None
    assert Patience(wait=5).left(0.0, 100.0) == 5
    assert Patience(call=5).left(98.0, 100.0) == 3
    assert Patience(call=5).left(0.0, 100.0) == 0
    assert Patience(wait=2, call=5).left(98.0, 100.0) == 2
    assert Patience(wait=4, call=5).left(98.0, 100.0) == 3


def test_anErrorIsRaisedAgain() -> None:
    error = ResetError("cut", partial=b"abc", syscall="read")
    other = again(error)
    assert isinstance(other, ResetError)
    assert other is not error
    assert (str(other), other.partial, other.syscall) == (str(error), b"abc", "read")
    foreign = ValueError("of the user's")
    assert again(foreign) is foreign


# Pressure


def test_whoDoesNotReadPausesThePeer() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=1000) as (client, server):
                server.protocol.outlet.highWaterMark = 1000
                running = Running("twisted", server.write(BIG))
                await network.sleep(1)
                assert client.protocol.pressure.owners == (READER,)
                kept = len(client.peek(len(BIG)))
                assert 1000 <= kept <= 1000 + 65536
                assert not running.done.called
                # It flows again as soon as the buffer has room, or somebody waits for more than its limit.
                assert await client.read(1) == BIG[:1]
                assert client.protocol.pressure.owners == (READER,)
                assert await client.readExactly(kept - 1) == BIG[1:kept]
                assert not client.protocol.pressure.paused
                await network.sleep(1)
                assert client.protocol.pressure.owners == (READER,)
                assert await client.readExactly(len(BIG) - kept) == BIG[kept:]
                assert await running.done == len(BIG)

        network.run(scenario)


def test_unreadPausesToo() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=10) as (client, _):
                client.unread(b"0123456789")
                assert client.protocol.pressure.owners == (READER,)
                assert await client.read(1) == b"0"
                assert not client.protocol.pressure.paused

        network.run(scenario)


def test_theReaderIsWokenOnceAndTheRestIsKept() -> None:
    """Between its waiter's firing and its resumption bytes come, and are kept."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=4) as (client, _):
                connection = client._connection
                running = Running("twisted", client.readExactly(6))
                connection.receive(b"abc")
                assert not running.done.called
                connection.receive(b"defg")
                assert await running.done == b"abcdef"
                assert client.peek() == b"g"
                connection.receive(b"hij")
                assert client.protocol.pressure.owners == (READER,)
                assert await client.read() == b"ghij"

        network.run(scenario)


# Who waits


def test_oneReaderAtATime() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                running = Running("twisted", client.readLine())
                for read in (client.read, client.readLine, client.readAll, client.receive):
                    with pytest.raises(BusyError, match="somebody else is reading"):
                        await read()
                with pytest.raises(BusyError):
                    client.unread(b"x")
                with pytest.raises(BusyError, match="handOver: somebody is reading"):
                    client.handOver()
                await server.write(b"line\n")
                assert await running.done == b"line"

        network.run(scenario)


def test_theEndOfAWait() -> None:
    """A timeout, a limit and the end have what has come so far as partial; it stays."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                client.setTimeout(2)
                await server.write(b"abc")
                began = network.now
                with pytest.raises(TimedOutError, match="readLine: nothing within 2 s") as late:
                    await client.readLine()
                assert (late.value.partial, network.now - began) == (b"abc", 2)
                with pytest.raises(LimitError) as long:
                    await client.readLine(2)
                assert long.value.partial == b"abc"
                await server.end()
                with pytest.raises(EndError, match="the peer has ended") as ended:
                    await client.readExactly(4)
                assert ended.value.partial == b"abc"
                assert await client.readExactly(3) == b"abc"
                assert await client.read() == b""
                with pytest.raises(EndError) as ended:
                    await client.readLine()
                assert ended.value.partial == b""

        network.run(scenario)


def test_timesOfAWaitAndOfACall() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                network.link("client", "server").setFaults()
                for second in range(1, 5):
                    network.host("server").reactor.callLater(second, server.protocol.write, b"x")
                client.setTimeout(1.5, "b")
                assert await client.readExactly(2) == b"xx"
                client.setTimeout(1.5, "t")
                with pytest.raises(TimedOutError, match=r"nothing within 0\.5 s") as late:
                    await client.readExactly(3)
                assert late.value.partial == b"x"
                client.setTimeout(None, "t")
                assert await client.readExactly(2) == b"xx"
                client.setTimeout(0)
                with pytest.raises(TimedOutError):
                    await client.read()

        network.run(scenario)


def test_aResetComesAfterTheBytes() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.write(b"last words\nand more")
                await network.sleep(1)
                server.abort()
                await network.sleep(1)
                assert client.getPeerName() is None
                assert await client.readLine() == b"last words"
                with pytest.raises(ResetError) as cut:
                    await client.readExactly(100)
                assert cut.value.partial == b"and more"
                with pytest.raises(ResetError):
                    await client.readAll()
                assert await client.read() == b"and more"
                first: list[NetError] = []
                for _ in range(2):
                    with pytest.raises(ResetError) as raised:
                        await client.read()
                    first.append(raised.value)
                assert first[0] is not first[1]
                with pytest.raises(ResetError) as unsent:
                    await client.write(b"abc")
                assert unsent.value.sent == 0
                with pytest.raises(ResetError):
                    await client.end()

        network.run(scenario)


def test_aResetInMidRead() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                running = Running("twisted", client.readLine())
                await server.write(b"half")
                await network.sleep(1)
                server.abort()
                with pytest.raises(ResetError) as cut:
                    await running.done
                assert cut.value.partial == b"half"
                assert await client.read() == b"half"

        network.run(scenario)


def test_closingEndsEveryWait() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, _):
                reading = Running("twisted", client.readAll())
                writing = [Running("twisted", client.write(BIG)) for _ in range(3)]
                client.abort()
                with pytest.raises(ClosedError, match="closed meanwhile"):
                    await reading.done
                for one, expected in zip(writing, (WriteError, ClosedError, ClosedError), strict=True):
                    with pytest.raises(expected) as raised:
                        await one.done
                    assert raised.value.sent < len(BIG)
                await client.close()
                await client.close()
                client.abort()
                for call in (client.write(b"x"), client.send(b""), client.end(), client.read(), client.shutdown()):
                    with pytest.raises(ClosedError, match="only close"):
                        await call

        network.run(scenario)


def test_whoIsResumedMayCancelTheOther() -> None:
    """Two wait for the same news, and the first that hears of it cancels the second."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.close()
                second: list[Running] = []

                async def first() -> None:
                    await client._connection.until("gone", None, "test")
                    second[0].cancel()

                running = Running("twisted", first())
                second.append(Running("twisted", client._connection.until("gone", None, "test")))
                third = Running("twisted", client._connection.until("gone", None, "test"))
                client._connection.close()
                await running.done
                await cancelled(second[0], "twisted")
                await third.done

        network.run(scenario)


def test_raised(loggedErrors: Any) -> None:
    connection = Connection(Clock())
    connection.raised("receive", ValueError("a defect"))
    assert len(loggedErrors.flush(ValueError)) == 1
    connection.limitPassed("idleTimeout", "closed")


def test_anErrorThatIsNoneOfOurs() -> None:
    """What the engine was dropped with by somebody else comes out as it is."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, _):
                client.protocol.drop(ValueError("by hand"))
                with pytest.raises(ValueError, match="by hand"):
                    await client.write(b"x")
                with pytest.raises(ValueError, match="by hand"):
                    await client.read()

        network.run(scenario)


# Writing


def test_writersTakeTurns() -> None:
    with MemoryNetwork(1) as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                order: list[int] = []

                async def write(number: int) -> None:
                    assert await client.write(bytes([number]) * 100_000) == 100_000
                    order.append(number)

                running = [Running("twisted", write(number)) for number in range(5)]
                running.append(Running("twisted", client.write(b"")))  # waits for its turn, too
                for number in range(5):
                    assert await server.readExactly(100_000) == bytes([number]) * 100_000
                for one in running:
                    await one.done
                assert order == list(range(5))

        network.run(scenario)


def test_aThousandWriters() -> None:
    """Turns are passed in a loop: a thousand who have nothing to wait for are no thousand calls deep."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                running = [Running("twisted", client.write(BIG))]
                running += [Running("twisted", client.write(b"%4d" % number)) for number in range(1000)]
                assert await server.readExactly(len(BIG)) == BIG
                assert await server.readExactly(4000) == b"".join(b"%4d" % number for number in range(1000))
                for one in running:
                    await one.done

        network.run(scenario)


def test_whoWaitsForHisTurnMayGiveUp() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                first = Running("twisted", client.write(BIG))
                second = Running("twisted", client.write(b"second"))
                client.setTimeout(1)
                third = Running("twisted", client.write(b"third"))
                client.setTimeout(None)
                fourth = Running("twisted", client.write(b"fourth"))
                second.cancel()
                error = await cancelled(second, "twisted")
                assert error.sent == 0  # type: ignore[attr-defined]
                with pytest.raises(TimedOutError, match="write") as late:
                    await third.done
                assert late.value.sent == 0
                assert await server.readExactly(len(BIG) + 6) == BIG + b"fourth"
                await first.done
                await fourth.done

        network.run(scenario)


def test_theTimeOfACallCountsFromItsBeginning() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                first = Running("twisted", client.write(BIG))
                client.setTimeout(3, "t")
                second = Running("twisted", client.write(BIG))
                await network.sleep(2)
                assert await server.readExactly(len(BIG)) == BIG
                began = network.now
                with pytest.raises(TimedOutError, match="nothing within 1 s") as late:
                    await second.done
                assert network.now - began == 1
                assert await first.done == len(BIG)
                client.setTimeout(None, "t")
                rest = Running("twisted", client.write(BIG, late.value.sent))
                assert await server.readExactly(len(BIG)) == BIG
                assert await rest.done == len(BIG)

        network.run(scenario)


def test_whatIsWithdrawnWasNotSent() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                for _ in range(3):
                    running = Running("twisted", client.write(BIG))
                    await network.sleep(1)
                    running.cancel()
                    error: Any = await cancelled(running, "twisted")
                    assert 0 < error.sent < len(BIG)
                    assert await server.readExactly(error.sent) == BIG[: error.sent]
                    server.setTimeout(1)
                    with pytest.raises(TimedOutError):
                        await server.read()
                    server.setTimeout(None)

        network.run(scenario)


def test_writingIntoWhatHasEnded() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                first = Running("twisted", client.write(BIG))
                second = Running("twisted", client.write(b"waits for its turn"))
                ending = Running("twisted", client.end())
                for data in (b"more", b""):
                    with pytest.raises(WriteError, match="write before end") as raised:
                        await client.write(data)
                    assert str(raised.value.fault) == "user"
                assert await server.readAll() == BIG
                assert await first.done == len(BIG)
                with pytest.raises(WriteError):
                    await second.done
                await ending.done
                await client.end()
                await server.close()
                await client.close()

        network.run(scenario)


def test_anEndThatIsWaitedForAgain() -> None:
    """end() that was cancelled is not done; called again it waits for what it promises."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                writing = Running("twisted", client.write(BIG))
                ending = Running("twisted", client.end())
                ending.cancel()
                await cancelled(ending, "twisted")
                client.setTimeout(1)
                with pytest.raises(TimedOutError, match="end"):
                    await client.end()
                client.setTimeout(None)
                again_ = Running("twisted", client.end())
                await network.sleep(1)
                assert not again_.done.called
                assert await server.readAll() == BIG
                await again_.done
                await writing.done

        network.run(scenario)


def test_tooMuchAtOnce() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, _):
                client.protocol.outlet.limit = 1000
                with pytest.raises(LimitError, match="the limit is 1000"):
                    await client.write(b"x" * 2000)

        network.run(scenario)


def test_thePeerIsGone() -> None:
    """A connection that has ended in good order, from both sides, takes nothing any more."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await client.end()
                await server.close()
                await network.sleep(1)
                for data in (b"abc", b""):
                    with pytest.raises(WriteError, match="the peer has closed it"):
                        await client.write(data)
                with pytest.raises(WriteError):
                    await client.send(b"")
                assert await client.readAll() == b""
                await client.end()
                await client.close()

        network.run(scenario)


def test_fullDuplex() -> None:
    """5 MB both ways at once, read and written by two coroutines of each side."""
    data = bytes(range(256)) * 20_000
    with MemoryNetwork(3) as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                ways = [(client, server), (server, client)]
                writing = [Running("twisted", source.write(data)) for source, _ in ways]
                reading = [Running("twisted", sink.readExactly(len(data))) for _, sink in ways]
                for one in writing:
                    assert await one.done == len(data)
                for one in reading:
                    assert await one.done == data

        network.run(scenario)


# Given away, and taken over


def test_handOver() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=4) as (client, server):
                await server.write(b"first second")
                assert await client.readExactly(6) == b"first "
                assert client.protocol.pressure.paused
                protocol = client.handOver()
                assert protocol.held == 6
                assert not protocol.pressure.paused
                with pytest.raises(ClosedError):
                    await client.read()
                with pytest.raises(ClosedError):
                    client.handOver()
                await client.close()
                client.abort()
                await server.write(b" third")
                other = Stream(Connection.over(protocol))
                assert await other.readExactly(12) == b"second third"
                await other.write(b"answer")
                assert await server.readExactly(6) == b"answer"
                await other.close()

        network.run(scenario)


def test_handOverAfterTheEnd() -> None:
    """What is left of a peer that has ended comes before its end."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.write(b"all of it")
                await server.end()
                await network.sleep(1)
                assert client.readable
                protocol = client.handOver()
                other = Stream(Connection.over(protocol))
                protocol = other.handOver()  # before the bytes have come to it
                other = Stream(Connection.over(protocol))
                assert await other.readAll() == b"all of it"
                await other.end()
                await other.close()

        network.run(scenario)


def test_handOverOfWhatHasEndedBothWays() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await client.end()
                other = Stream(Connection.over(client.handOver()))
                with pytest.raises(WriteError, match="write before end"):
                    await other.write(b"x")
                await other.end()
                await server.close()
                await network.sleep(1)
                with pytest.raises(ClosedError, match="the connection is gone"):
                    other.handOver()
                with pytest.raises(ClosedError, match="nobody can take it over"):
                    Connection.over(other.protocol)
                await other.close()

        network.run(scenario)


def test_takenBack() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.write(b"kept")
                await network.sleep(1)
                protocol = client.handOver()
                client._connection.takeBack()
                assert client.protocol is protocol
                assert await client.readExactly(4) == b"kept"
                await client.write(b"and back")
                assert await server.readExactly(8) == b"and back"
                client.handOver()
                server.abort()
                await network.sleep(1)
                client._connection.takeBack()
                with pytest.raises(ClosedError):
                    await client.read()
                await client.close()

        network.run(scenario)


# Who watches


def test_watchers() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                news: list[tuple[bool, bool]] = []

                def look() -> None:
                    news.append((client.readable, client.writable))

                client.watch(look)
                client.watch(look)
                assert (client.readable, client.writable) == (False, True)
                await server.write(b"x")
                await network.sleep(1)
                assert news == [(True, True)]
                client.protocol.outlet.highWaterMark = len(BIG)
                running = Running("twisted", client.write(BIG))
                assert not client.writable
                running.cancel()
                await cancelled(running, "twisted")
                assert news == [(True, True)] * 2, "what was withdrawn makes room"
                news.clear()
                client.unwatch(look)
                client.unwatch(look)
                await server.end()
                await network.sleep(1)
                assert news == []
                assert client.readable

        network.run(scenario)


def test_nothingMoreIsRead() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=4) as (client, server):
                await server.write(b"dropped")
                await network.sleep(1)
                assert client.protocol.pressure.paused
                running = Running("twisted", client.readExactly(100))
                await client.shutdown("receive")
                with pytest.raises(EndError):
                    await running.done
                await server.write(BIG[:60_000])
                await network.sleep(1)
                assert await client.read() == b""
                await client.write(b"still")
                assert await server.readExactly(5) == b"still"

        network.run(scenario)


def test_whatIsLeftOfAConnectionThatIsGone() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=4) as (client, server):
                await server.write(b"too much")
                await network.sleep(1)
                server.abort()
                await network.sleep(2)  # who is paused looks once a second whether it was reset
                assert client.getPeerName() is None
                assert await client.readExactly(8) == b"too much"
                client.unread(b"again and again")
                assert await client.readExactly(15) == b"again and again"

        network.run(scenario)


# At every point


def conversation(network: MemoryNetwork, canceller: Canceller) -> Callable[[], Any]:
    """All kinds of reads and writes, with waits enough; each of them may be cancelled, and is repeated then."""

    async def client(listener: Any) -> None:
        reactor = network.host("client").reactor
        stream = await canceller(lambda: streams.connect(f"server:{listener.address.port}", reactor=reactor))
        await canceller.write(stream, b"hello\r\n")
        await canceller.write(stream, BIG)
        assert await canceller(stream.readLine) == b"welcome"
        assert await canceller(stream.readExactly, 10) == b"0123456789"
        assert await canceller(stream.readUntil, b"--") == b"until--"
        assert await canceller(stream.receive, "*l") == b"a line"
        assert await canceller(stream.receive, 5, b"ab") == b"abcde"
        assert await canceller(lambda: streams.select([stream])) == ([stream], [])
        assert await canceller(stream.read, 3) == b"end"
        await canceller(stream.end)
        assert await canceller(stream.readAll) == BIG
        await canceller(stream.close)

    async def server(listener: Any) -> None:
        while True:
            stream = await canceller(listener.accept)
            with suppress(NetError):  # of a client that was cancelled as it connected
                assert await canceller(stream.readLine) == b"hello"
                break
            await stream.close()
        await network.sleep(0.01)
        received = b""
        while len(received) < len(BIG):
            received += await canceller(stream.read, 50_000)
        assert received == BIG
        for piece in (b"welcome\n0123", b"456789un", b"til-", b"-a lin", b"e\n", b"cde", b"end"):
            await canceller.write(stream, piece)
        assert await canceller(stream.read) == b""
        assert await canceller(lambda: streams.select((), [stream])) == ([], [stream])
        await canceller.write(stream, BIG)
        await canceller(stream.end)
        await canceller(stream.close)

    async def scenario() -> None:
        async with listening(network) as listener:
            sides = [Running("twisted", server(listener)), Running("twisted", client(listener))]
            for side in sides:
                await side.done

    return scenario


@pytest.mark.parametrize("later", [1, 2, 5])
@pytest.mark.parametrize("seed", [None, 1])
def test_cancelledAtEveryWait(seed: int | None, later: int) -> None:
    at, cancelledInAll = 0, 0
    while True:
        with MemoryNetwork(seed) as network:
            network.link("client", "server").setFaults(Latency(0.001))
            canceller = Canceller(network.reactor, at, later)
            network.run(conversation(network, canceller))
            cancelledInAll += canceller.cancelled
            if canceller.waits <= at:
                break
        at += 1
    assert at > 15
    assert cancelledInAll > 5


TEXT = b"some line\r\nmore of it\r\n"

#: A read, what it gives, and what is left of the text.
READS: dict[str, tuple[Callable[[Stream], Any], bytes, bytes]] = {
    "exactly": (lambda stream: stream.readExactly(12), TEXT[:12], TEXT[12:]),
    "line": (lambda stream: stream.readLine(), b"some line", TEXT[11:]),
    "until": (lambda stream: stream.readUntil(b"of"), TEXT[:18], TEXT[18:]),
    "receive line": (lambda stream: stream.receive(), b"some line", TEXT[11:]),
    "receive number": (lambda stream: stream.receive(12, b"--"), b"--" + TEXT[:10], TEXT[10:]),
    "receive all": (lambda stream: stream.receive("*a"), TEXT, b""),
    "all": (lambda stream: stream.readAll(), TEXT, b""),
}


@pytest.mark.parametrize("how", ["cancel", "wait", "call"])
@pytest.mark.parametrize("kind", READS)
def test_endedAtEveryByte(kind: str, how: str) -> None:
    """A byte comes each second; who waits is sent away after each of them, comes again, and misses none."""
    read, expected, left = READS[kind]
    with MemoryNetwork() as network:
        network.link("client", "server").setFaults(Slicer(1, delay=1), towards="client")
        reactor = network.host("client").reactor

        async def persistently(client: Stream) -> bytes:
            for ended in range(3 * len(TEXT)):
                running = Running("twisted", read(client))
                timer = reactor.callLater(0.5 if how == "cancel" else 1000, running.cancel)
                try:
                    found: bytes = await running.done
                    assert ended >= 10
                    return found
                except CancelledError:
                    assert how == "cancel"
                except TimedOutError as error:
                    told = error.partial.removeprefix(b"--") == client.peek()
                    assert told
                finally:
                    if timer.active():
                        timer.cancel()
            raise AssertionError("it never came")

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.write(TEXT)
                await server.end()
                if how != "cancel":
                    client.setTimeout(0.5, "b" if how == "wait" else "t")
                assert await persistently(client) == expected
                client.setTimeout(None, "b")
                client.setTimeout(None, "t")
                assert await client.readAll() == left

        network.run(scenario)


@pytest.mark.parametrize("end", ["time", "cancel"])
def test_thePrefixOfAReceiveThatFails(end: str) -> None:
    """Given its own partial result as prefix, a call that fails too leaves all of it for whoever comes next."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                await server.write(b"abc")
                client.setTimeout(1)
                with pytest.raises(TimedOutError) as first:
                    await client.receive(10, b">")
                assert first.value.partial == b">abc"
                await server.write(b"def")
                running = Running("twisted", client.receive(10, first.value.partial))
                await network.sleep(0.5)
                if end == "cancel":
                    running.cancel()
                    await cancelled(running, "twisted")
                    prefix = first.value.partial
                else:
                    with pytest.raises(TimedOutError) as second:
                        await running.done
                    assert second.value.partial == b">abcdef"
                    prefix = second.value.partial
                assert client.peek() == b"abcdef"
                with pytest.raises(TimedOutError) as plain:
                    await client.receive(10)
                assert plain.value.partial == b"abcdef"
                await server.write(b"ghijkl")
                await network.sleep(0.1)
                assert await client.receive(10, plain.value.partial) == b"abcdefghij"
                # What is no repetition of the last result is put in front, and nothing is taken for it.
                assert await client.receive(10, prefix + b"123456789") == prefix + b"123456789"
                assert client.peek() == b"kl"
                assert await client.read(1) == b"k"
                assert await client.receive(2, b"-") == b"-l"

        network.run(scenario)


@onAsyncio
@patient
async def test_asyncioCancelsAtEveryTurn() -> None:
    """Tasks that are cancelled after each number of turns, after their waiter fired too, lose no byte."""
    lines = b"".join(b"line %d\n" % number for number in range(200))

    async def conversation_(client: Stream, server: Stream) -> None:
        writer = asyncio.create_task(slowly(server))
        received: list[bytes] = []
        patience = 0
        while len(received) < 200:
            task = asyncio.create_task(client.readLine())
            for _ in range(patience):
                await asyncio.sleep(0)
            task.cancel()
            try:
                received.append(await task)
                patience = 0
            except asyncio.CancelledError:
                patience += 1
        assert received == lines.splitlines()
        await writer

    async def slowly(stream: Stream) -> None:
        for start in range(0, len(lines), 5):
            await stream.write(lines[start : start + 5])
            await asyncio.sleep(0)

    async with talking() as (client, server):
        await Running("asyncio", conversation_(client, server)).done


async def impatiently(begin: Callable[..., Any], *args: Any) -> Any:
    """What ``begin(*args)`` gives in the end: a task that is cancelled after 0, 1, 2, ... turns, and begun again."""
    for patience in range(1_000_000):
        task = asyncio.ensure_future(begin(*args))
        for _ in range(patience):
            if task.done():
                break
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            return await task


async def writtenImpatiently(stream: Stream, data: bytes) -> None:
    """As `impatiently`, going on with what was not sent."""
    sent = patience = 0
    while sent < len(data):
        task = asyncio.ensure_future(stream.write(data, sent))
        for _ in range(patience):
            await asyncio.sleep(0)
        task.cancel()
        try:
            sent = await task
        except asyncio.CancelledError as error:
            # A task that had not begun has written nothing.
            sent = getattr(error, "sent", sent)
            patience += 1


@onAsyncio
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_asyncioCancelsEverything(kind: str) -> None:
    async def client(listener: Listener) -> None:
        stream = await impatiently(connecting, listener)
        await writtenImpatiently(stream, b"hello\n" + BIG)
        assert await impatiently(stream.readLine) == b"welcome"
        assert await impatiently(stream.readUntil, b"--") == b"until--"
        assert await impatiently(stream.receive, 5, b"ab") == b"abcde"
        assert await impatiently(lambda: streams.select([stream])) == ([stream], [])
        await impatiently(stream.end)
        assert await impatiently(stream.readAll) == BIG
        await impatiently(stream.close)

    async def server(listener: Listener) -> None:
        while True:
            stream = await impatiently(listener.accept)
            with suppress(NetError):  # of a client that was cancelled as it connected
                assert await impatiently(stream.readLine) == b"hello"
                break
            await impatiently(stream.close)
        assert await impatiently(stream.readExactly, len(BIG)) == BIG
        for piece in (b"welc", b"ome\nun", b"til--c", b"de"):
            await writtenImpatiently(stream, piece)
            await asyncio.sleep(0)
        await writtenImpatiently(stream, BIG)
        await impatiently(stream.end)
        await impatiently(stream.close)

    async def both(listener: Listener) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(server(listener))
            group.create_task(client(listener))

    async with listening(kind=kind) as listener:
        await Running("asyncio", both(listener)).done


@onAsyncio
@patient
async def test_closedBetweenTheEndAndTheResumption() -> None:
    """Who waits for everything, and has not been resumed when it is there and dropped, is told so."""
    async with talking() as (client, server):
        reading = Running("asyncio", client.readAll())
        await turns(2)
        await server.write(b"dropped")
        server.protocol.end()

        def close() -> None:
            if client._connection.ended:
                client.unwatch(close)
                client.abort()

        client.watch(close)
        with pytest.raises(ClosedError, match="closed meanwhile"):
            await reading.done


@onAsyncio
@patient
async def test_aTurnThatWasGivenToWhoIsCancelled() -> None:
    """Whoever is cancelled after it was his turn, and before he was resumed, passes it on."""

    async def scenario(client: Stream, server: Stream) -> None:
        first = asyncio.create_task(client.write(BIG * 20))
        await asyncio.sleep(0)
        connection = client._connection
        assert connection.writing
        second, third = (asyncio.create_task(client.write(name)) for name in (b"second", b"third"))
        await asyncio.sleep(0)
        reading = asyncio.create_task(server.readExactly(len(BIG) * 20))
        while len(connection._turns) == 2:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await reading == BIG * 20
        assert await first == len(BIG) * 20
        assert await third == 5
        assert await server.readExactly(5) == b"third"

    async with talking() as (client, server):
        await Running("asyncio", scenario(client, server)).done


@everyDriver
@patient
async def test_wholeOnRealSockets(driver: Driver) -> None:
    """Read, write, turn, time, cancellation and end, by both drivers."""

    async def scenario(client: Stream, server: Stream) -> None:
        other: Driver = driver
        writing = Running(other, client.write(BIG * 30))
        await turns(5)
        writing.cancel()
        with pytest.raises(CANCELLED[driver]) as raised:
            await writing.done
        sent: int = raised.value.sent  # type: ignore[attr-defined]
        assert 0 < sent < len(BIG) * 30
        assert await server.readExactly(sent) == (BIG * 30)[:sent]
        client.setTimeout(0.01)
        with pytest.raises(TimedOutError):
            await client.read()
        client.setTimeout(None)
        await client.end()
        assert await server.readAll() == b""
        await server.close()
        assert await client.readAll() == b""
        await client.close()

    async with talking() as (client, server):
        await Deferred.fromCoroutine(scenario(client, server))


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="this is that run")
def test_onAsyncio() -> None:
    passesOnAsyncio(__file__)


# What it costs


def callsOf(work: Callable[[], object]) -> int:
    count = 0

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("whole", [True, False], ids=["one line", "many lines"])
def test_linearTime(whole: bool) -> None:
    """Twice as many bytes, one at a time, cost twice as many calls."""

    def work(size: int) -> Callable[[], None]:
        connection = Connection(Clock())
        connection.protocol = Silent()
        stream = Stream(connection)

        async def read() -> None:
            if whole:
                assert len(await stream.readLine(2 * size)) == size - 1
            else:
                for _ in range(size // 100):
                    assert len(await stream.readLine()) == 99

        def run() -> None:
            done = Deferred.fromCoroutine(read())
            for number in range(1, size + 1):
                connection.receive(b"\n" if (number == size if whole else number % 100 == 0) else b"x")
            assert done.called
            connection.closed = True
            done.addErrback(raised)

        return run

    def raised(failure: Any) -> None:
        failure.raiseException()

    once, twice = callsOf(work(20_000)), callsOf(work(40_000))
    assert 1.8 < twice / once < 2.2


class Silent:
    """Stands in the engine's place where nothing is asked of it."""

    error = None
    transport = None

    def pause(self, owner: str) -> None: ...
    def resume(self, owner: str) -> None: ...
    def describePeer(self) -> str:
        return "nobody"
