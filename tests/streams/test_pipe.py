"""pipe: two streams joined, with their ends, their pressure, and both given back to who is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from doors import patient
from drivers import Driver, Running, awaited, cancelled, everyDriver
from talks import connecting, listening, talking
from turning import turns
from twisted.internet.defer import CancelledError

from twisted_net import streams
from twisted_net.errors import BusyError, ClosedError, NetError, OptionError, WriteError
from twisted_net.sansio.faults import Latency
from twisted_net.streams import Stream
from twisted_net.testing.explore import explore
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.waiting import outcome

BIG = bytes(range(256)) * 4000

everyKind = pytest.mark.parametrize("kind", ["tcp", "unix"])


@asynccontextmanager
async def joined(
    network: MemoryNetwork | None = None, kind: str = "tcp"
) -> AsyncIterator[tuple[Stream, Stream, Stream, Stream]]:
    """A client, the two streams in the middle, and a server."""
    async with talking(network, kind) as (client, one), talking(network, kind) as (other, server):
        yield client, one, other, server


@everyKind
@awaited
async def test_bothWays(kind: str) -> None:
    async with joined(kind=kind) as (client, one, other, server):
        reactor = client.reactor
        await client.write(b"in the buffer;")
        assert await one.read(3) == b"in "
        piping = Running("twisted", streams.pipe(one, other))
        writing = [Running("twisted", stream.write(BIG)) for stream in (client, server)]
        reading = [
            Running("twisted", server.readExactly(11 + len(BIG))),
            Running("twisted", client.readExactly(len(BIG))),
        ]
        for running in writing:
            await outcome(reactor, running.done)
        assert await outcome(reactor, reading[0].done) == b"the buffer;" + BIG
        assert await outcome(reactor, reading[1].done) == BIG
        # An end is passed on as an end, and the other way goes on.
        await client.end()
        assert await server.readAll() == b""
        await server.write(b"afterwards")
        await server.end()
        assert await client.readAll() == b"afterwards"
        there, back = await outcome(reactor, piping.done)
        assert (there, back) == (11 + len(BIG), len(BIG) + 10)
        for stream in (one, other):
            with pytest.raises(ClosedError):
                await stream.read()


@everyDriver
@patient
async def test_byEachDriver(driver: Driver) -> None:
    async with joined() as (client, one, other, server):
        piping = Running(driver, streams.pipe(one, other))
        await client.write(b"x")
        await client.end()
        assert await server.readAll() == b"x"
        await server.end()
        assert await piping.done == (1, 0)


@everyKind
@awaited
async def test_whoHasEndedBefore(kind: str) -> None:
    """What is left in the buffer of a stream whose peer has ended comes, and then the end."""
    async with joined(kind=kind) as (client, one, other, server):
        await client.write(b"all of it")
        await client.end()
        assert await one.readExactly(3) == b"all"
        while one.peek() != b" of it":
            await streams.select([], [one])
        piping = Running("twisted", streams.pipe(one, other))
        assert await server.readAll() == b" of it"
        await server.close()
        assert await outcome(client.reactor, piping.done) == (6, 0)


@awaited
async def test_refused() -> None:
    """What cannot be joined is told before anything has changed."""
    async with joined() as (client, one, other, server):
        with pytest.raises(OptionError, match="joined to itself"):
            await streams.pipe(one, one)
        reading = Running("twisted", other.read())
        with pytest.raises(BusyError, match="pipe: somebody is reading"):
            await streams.pipe(one, other)
        await server.write(b"x")
        assert await outcome(one.reactor, reading.done) == b"x"
        await other.end()
        with pytest.raises(WriteError, match="pipe: this side has ended"):
            await streams.pipe(one, other)
        await client.write(b"still usable")
        assert await one.readExactly(12) == b"still usable"
        await one.close()
        with pytest.raises(ClosedError, match="pipe"):
            await streams.pipe(one, other)


@awaited
async def test_aFailureTakesTheOtherAlong() -> None:
    for end in (0, 3):
        async with joined() as ends:
            piping = Running("twisted", streams.pipe(ends[1], ends[2]))
            ends[end].abort()
            with pytest.raises(NetError):
                await outcome(ends[0].reactor, piping.done)
            with pytest.raises(NetError):
                await ends[3 - end].readExactly(1)
            for stream in ends[1:3]:
                with pytest.raises(ClosedError):
                    await stream.read()


def test_whoReadsSlowly() -> None:
    """The other one waits: what is in flight is bounded."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with joined(network) as (client, one, other, server):
                piping = Running("twisted", streams.pipe(one, other))
                writing = Running("twisted", client.write(BIG))
                await network.sleep(10)
                assert not writing.done.called
                assert other.protocol.outlet.unsent < 200_000
                assert await server.readExactly(len(BIG)) == BIG
                await writing.done
                await client.end()
                await server.end()
                assert await piping.done == (len(BIG), 0)

        network.run(scenario)


def test_cancelledWhileItWaits() -> None:
    """The pause that the pipe had asked for goes with it."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with joined(network) as (client, one, other, server):
                piping = Running("twisted", streams.pipe(one, other))
                writing = Running("twisted", client.write(BIG))
                await network.sleep(10)
                piping.cancel()
                await cancelled(piping, "twisted")
                other.protocol.end()
                carried = await server.readAll()
                assert carried + await one.readExactly(len(BIG) - len(carried)) == BIG
                await writing.done

        network.run(scenario)


def test_cancelledAtEveryTime() -> None:
    """Piped, cancelled, used by hand, and piped again: nothing is missing, and nothing is doubled."""

    async def scenario(network: MemoryNetwork) -> None:
        network.link("client", "server").setFaults(Latency(0.01, jitter=0.01))
        async with joined(network) as (client, one, other, server):

            async def middle() -> None:
                for count in range(1000):
                    piping = Running("twisted", streams.pipe(one, other))
                    timer = network.reactor.callLater(0.003 * (count % 5), piping.cancel)
                    try:
                        await piping.done
                        return
                    except CancelledError:
                        if one.peek(1):
                            await other.write(await one.read(10))
                    finally:
                        if timer.active():
                            timer.cancel()

            text = BIG[:200_000]
            joining = Running("twisted", middle())
            writing = [Running("twisted", stream.write(text)) for stream in (client, server)]
            reading = [Running("twisted", stream.readExactly(len(text))) for stream in (client, server)]
            for running in writing:
                await running.done
            for running in reading:
                assert await running.done == text
            joining.cancel()
            joining.done.addErrback(lambda failure: failure.trap(CancelledError, ClosedError) and None)
            await joining.done

    explore(scenario, range(15))


def test_theEndsAreKept() -> None:
    """An end that was passed on stays passed on; one that was not is still to come."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with joined(network) as (client, one, other, server):
                piping = Running("twisted", streams.pipe(one, other))
                await client.write(b"x")
                await client.end()
                assert await server.readAll() == b"x"
                piping.cancel()
                await cancelled(piping, "twisted")
                assert await one.read() == b""
                with pytest.raises(WriteError, match="write before end"):
                    await other.write(b"more")
                await server.write(b"back")
                assert await other.readExactly(4) == b"back"
                await one.write(b"back")
                assert await client.readExactly(4) == b"back"
                await one.close()
                await other.close()

        network.run(scenario)


@patient
async def test_throughAListener() -> None:
    """A forwarder in a few lines."""
    async with listening() as target, listening() as entrance:

        async def forward(stream: Stream) -> None:
            await streams.pipe(stream, await connecting(target))

        serving = Running("twisted", entrance.serve(forward))
        await turns(2)
        client = await connecting(entrance)
        server = await target.accept()
        await client.write(b"question")
        await client.end()
        assert await server.readAll() == b"question"
        await server.write(b"answer")
        await server.close()
        assert await client.readAll() == b"answer"
        await client.close()
        await entrance.close()
        await serving.done
