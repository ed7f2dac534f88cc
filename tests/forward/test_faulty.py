"""
A direction on a bad network: what each fault does to a real connection, when, and that nothing is left of it.

Where times matter, on a network in memory: its clock shows exactly when something has arrived.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, Literal

import pytest
from between import Stage, between, hears, inCalm, isReset, running
from doors import patient
from weather import inEveryWeather

from twisted_net.errors import NetError, ResetError, TimedOutError
from twisted_net.forward.faulty import (
    DATAGRAMS_IN_FLIGHT,
    IN_FLIGHT,
    FaultyDatagrams,
    chanceOf,
)
from twisted_net.sansio.faults import (
    Bandwidth,
    Datagram,
    Duplicate,
    Fault,
    Faults,
    Glue,
    Latency,
    LimitData,
    Loss,
    Refuse,
    Reorder,
    Reset,
    Slicer,
    SlowClose,
    Timeout,
)
from twisted_net.streams import Limits, Stream
from twisted_net.testing.network import MemoryNetwork

Way = Literal["upstream", "downstream"]

everyWay = pytest.mark.parametrize("way", ["upstream", "downstream"])

ALPHABET = bytes(range(256))


def option(way: Way, *faults: Fault) -> dict[str, Any]:
    """Faults in one direction, as an option of the forwarder."""
    return {"faultsUpstream" if way == "upstream" else "faultsDownstream": Faults(*faults)}


async def ends(stage: Stage, way: Way) -> tuple[Stream, Stream]:
    """A source, and the sink at the far end of that direction."""
    client, server = await stage.meet()
    return (client, server) if way == "upstream" else (server, client)


async def arrivals(network: MemoryNetwork, sink: Stream) -> list[tuple[float, bytes]]:
    """What comes, with the times; the last one is the end (``b"end"``) or the code of an error."""
    found: list[tuple[float, bytes]] = []
    while True:
        try:
            data = await sink.read()
        except NetError as error:
            found.append((round(network.now, 6), error.code.encode()))
            return found
        found.append((round(network.now, 6), data or b"end"))
        if not data:
            return found


# Each fault, in each direction


@everyWay
@inCalm
async def test_latency(network: MemoryNetwork, way: Way) -> None:
    """Everything comes later, the end too; the other direction does not."""
    async with between(network, **option(way, Latency(0.5))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"a")
        await stage.sleep(0.1)
        await source.write(b"b")
        await source.end()
        assert await arriving == [(0.5, b"a"), (0.6, b"b"), (0.6, b"end")]
        began = network.now
        await sink.write(b"back")
        await sink.end()
        assert await source.readAll() == b"back"
        assert network.now == began
        assert (await stage.over()).error is None


@everyWay
@inCalm
async def test_jitter(network: MemoryNetwork, way: Way) -> None:
    """Order stays; each segment has a delay of its own."""
    async with between(network, seed=1, **option(way, Latency(0.5, jitter=0.4))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        sent = []
        for number in range(50):
            await source.write(b"%02d;" % number)
            sent.append(network.now)
            await stage.sleep(0.3)
        await source.end()
        found = await arriving
        assert b"".join(data for _, data in found[:-1]) == b"".join(b"%02d;" % number for number in range(50))
        delays = [at - sent[int(data[:2])] for at, data in found[:-1]]
        assert 0.1 <= min(delays) < 0.3
        assert 0.7 < max(delays) <= 0.9


@everyWay
@inCalm
async def test_bandwidth(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Bandwidth(1000))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(bytes(5000))
        await source.end()
        found = await arriving
        assert [round(at, 3) for at, _ in found[:-1]] == [round(0.1 * number, 3) for number in range(1, 51)]
        assert {len(data) for _, data in found[:-1]} == {100}
        assert found[-1] == (5.0, b"end")


@everyWay
@inCalm
async def test_slicer(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Slicer(100, delay=0.01))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(bytes(450))
        found = arriving
        await stage.sleep(1)
        await source.end()
        assert [(at, len(data)) for at, data in await found] == [
            (0.0, 100),
            (0.01, 100),
            (0.02, 100),
            (0.03, 100),
            (0.04, 50),
            (1.0, 3),
        ]


@everyWay
@inCalm
async def test_glue(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Glue(0.5, limit=10))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        for data in (b"1", b"2", b"3"):
            await source.write(data)
            await stage.sleep(0.1)
        await stage.sleep(0.7)
        for data in (b"12345", b"67890"):
            await source.write(data)
            await stage.sleep(0.1)
        await source.write(b"the end")
        await source.end()
        assert await arriving == [(0.5, b"123"), (1.1, b"1234567890"), (1.2, b"the end"), (1.2, b"end")]


@everyWay
@inCalm
async def test_slowClose(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, SlowClose(2.0))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"x")
        await source.end()
        await sink.end()
        assert await arriving == [(0.0, b"x"), (2.0, b"end")]
        assert (await stage.over()).error is None


@everyWay
@inCalm
async def test_timeout(network: MemoryNetwork, way: Way) -> None:
    """From a time on all is swallowed; who waits for it waits, until the source is gone."""
    async with between(network, **option(way, Timeout(1.0))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"x")
        await stage.sleep(1.5)
        await source.write(b"y")
        await source.end()
        await stage.sleep(10)
        assert not arriving.called
        await sink.end()  # the other direction ends, and with it the source is gone
        assert await arriving == [(0.0, b"x"), (11.5, b"end")]
        assert (await stage.over()).error is None


@everyWay
@inCalm
async def test_aResetThatIsSwallowed(network: MemoryNetwork, way: Way) -> None:
    """A black hole is for resets, too; but nobody would ever close the other connection."""
    async with between(network, **option(way, Timeout())) as stage:
        source, sink = await ends(stage, way)
        source.abort()
        assert await hears(sink) == (b"", "end")
        assert isinstance((await stage.over()).error, ResetError)


@everyWay
@inCalm
async def test_timeoutThatCloses(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Timeout(1.0, close=True))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"x")
        assert await arriving == [(0.0, b"x"), (1.0, b"end")]
        await source.write(b"swallowed")
        await sink.write(b"back")
        assert await source.readExactly(4) == b"back"


@everyWay
@inCalm
async def test_resetAfter(network: MemoryNetwork, way: Way) -> None:
    """Both sides hear of it, at that time."""
    async with between(network, **option(way, Reset(after=2.0))) as stage:
        source, sink = await ends(stage, way)
        arriving = [running(arrivals(network, stream)) for stream in (source, sink)]
        await source.write(b"x")
        assert await arriving[1] == [(0.0, b"x"), (2.0, b"ECONNRESET")]
        assert await arriving[0] == [(2.0, b"ECONNRESET")]
        error = (await stage.over()).error
        assert isinstance(error, ResetError)
        assert "fault that was asked for" in str(error)


@everyWay
@inCalm
async def test_resetAt(network: MemoryNetwork, way: Way) -> None:
    """Exactly so many bytes get through; on a road that takes its time, too."""
    async with between(network, **option(way, Latency(0.5), Reset(at=10))) as stage:
        source, sink = await ends(stage, way)
        arriving = [running(arrivals(network, stream)) for stream in (source, sink)]
        await source.write(b"0123456789abc")
        assert await arriving[1] == [(0.5, b"0123456789"), (0.5, b"ECONNRESET")]
        assert await arriving[0] == [(0.5, b"ECONNRESET")]


@everyWay
@inCalm
async def test_resetAtOnce(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Reset(at=0))) as stage:
        client = await stage.connect()
        await isReset(client)
        server = await stage.accept()
        await isReset(server)
        assert (await stage.over()).target == "one:80"


@everyWay
@inCalm
async def test_limitData(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, LimitData(10))) as stage:
        source, sink = await ends(stage, way)
        await source.write(b"01234")
        await source.write(b"56789abc")
        await source.write(b"def")
        assert await hears(sink) == (b"0123456789", "end")
        await sink.write(b"back")
        await sink.end()
        assert await source.readAll() == b"back"
        await source.end()
        assert (await stage.over()).error is None


@pytest.mark.parametrize("onFailure", ["reset", "close"])
@everyWay
@inCalm
async def test_refuse(network: MemoryNetwork, way: Way, onFailure: Any) -> None:
    """The first clients are turned away as others that nobody serves; no target hears of them."""
    async with between(network, onFailure=onFailure, **option(way, Refuse(2))) as stage:
        for number in (1, 2):
            client = await stage.connect()
            assert await hears(client) == (b"", "ECONNRESET" if onFailure == "reset" else "end")
            await client.close()
            ended = await stage.over(number)
            assert ended.target is None
            assert "refused by a fault that was asked for" in str(ended.error)
        await stage.meet()
        assert stage.target("one").counters.snapshot()["failures"] == 0


@inCalm
async def test_refuseInBothDirections(network: MemoryNetwork) -> None:
    """Each chain counts every attempt."""
    async with between(network, faultsUpstream=Faults(Refuse(2)), faultsDownstream=Faults(Refuse(3))) as stage:
        for _ in range(3):
            await isReset(await stage.connect())
        await stage.meet()


# Chance


@inCalm
async def test_probability(network: MemoryNetwork) -> None:
    """It is decided once for each direction of each session."""
    hit = Counter[str]()
    async with between(network, seed=7, faultsUpstream=Faults(LimitData(1, probability=0.3))) as stage:
        for _ in range(200):
            client, server = await stage.meet()
            await client.write(b"hello")
            await client.end()
            hit[(await server.readAll()).decode()] += 1
            client.abort()
            server.abort()
    assert set(hit) == {"h", "hello"}
    assert 40 < hit["h"] < 80


CHAIN = (
    Latency(0.2, jitter=0.1, distribution="exponential", probability=0.7),
    Slicer(50, variation=40, delay=0.002),
    Bandwidth(20_000, probability=0.5),
    Reset(at=3_000, probability=0.3),
    LimitData(4_000, probability=0.3),
    Refuse(20, probability=0.2),
)


def record(seed: int) -> list[Any]:
    """What ten clients and their targets hear, and when."""
    found: list[Any] = []

    async def scenario() -> None:
        faults = Faults(*CHAIN)
        async with between(network, seed=seed, faultsUpstream=faults, faultsDownstream=faults) as stage:
            for number in range(10):
                client = await stage.connect()
                await stage.sleep(0.1)
                talking = [client]
                if stage.forwarder.sessions:
                    talking.append(await stage.accept())
                hearing = [running(arrivals(network, stream)) for stream in talking]
                for stream in talking:
                    try:
                        await stream.write(ALPHABET * 20)
                        await stage.sleep(0.05)
                        await stream.write(b"%d" % number * 100)
                        await stream.end()
                    except NetError as error:
                        found.append(error.code)
                found.extend([await one for one in hearing])
                for stream in talking:
                    stream.abort()
            await stage.until(lambda: len(stage.journal) == 10)
            found.append([(ended.target, ended.bytesIn, ended.bytesOut, ended.seconds) for ended in stage.journal])

    with MemoryNetwork() as network:
        network.run(scenario)
    return found


def test_theSameSeedGivesTheSame() -> None:
    """The same bytes at the same offsets, and at the same times."""
    assert record(1) == record(1) != record(2)


@inCalm
async def test_theSameSessionWhateverTheOthersDo(network: MemoryNetwork) -> None:
    """Session n has a chance of its own."""
    found = []
    for crowd in (0, 3):
        async with between(network, seed=5, faultsUpstream=Faults(Slicer(50, variation=49, delay=0.01))) as stage:
            await stage.meet()
            client, server = await stage.meet()
            others = [await stage.meet() for _ in range(crowd)]
            hearing = running(arrivals(network, server))
            for other, _ in others:
                await other.write(bytes(500))
            await client.write(bytes(1000))
            await stage.sleep(5)
            await client.end()
            began = network.now
            found.append([(round(began - at, 6), len(data)) for at, data in await hearing])
    assert found[0] == found[1]


def test_chanceOf() -> None:
    """By text, so that it is the same in every process."""
    assert chanceOf(1, 2, "upstream").random() == Random("1/2/upstream").random()
    numbers = {chanceOf(*what).random() for what in ((1, 2, "upstream"), (1, 2, "downstream"), (1, 3, "upstream"))}
    assert len(numbers) == 3


@inCalm
async def test_aSeedOfItsOwn(network: MemoryNetwork) -> None:
    async with between(network, faultsUpstream=Faults(Latency(0.1))) as stage:
        assert 0 <= stage.forwarder.seed < 2**32


# What is under way


@everyWay
@inCalm
async def test_inFlight(network: MemoryNetwork, way: Way) -> None:
    """What is under way is bounded, and one segment; as it arrives there is room for more."""
    size = 3 * IN_FLIGHT
    async with between(network, **option(way, Latency(10.0))) as stage:
        source, sink = await ends(stage, way)
        writing = running(source.write(bytes(size)))
        reading = running(sink.readExactly(size))
        await stage.sleep(5)
        (session,) = stage.forwarder.sessions

        def came() -> int:
            return session.bytesIn if way == "upstream" else session._server.bytesRead  # type: ignore[union-attr]

        assert IN_FLIGHT <= came() <= IN_FLIGHT + 65_536
        assert not writing.called
        await stage.sleep(5.5)
        assert 2 * IN_FLIGHT <= came() <= 2 * IN_FLIGHT + 3 * 65_536
        assert await reading == bytes(size)
        assert network.now == pytest.approx(30, abs=1)
        await writing


@everyWay
@inCalm
async def test_aSlowSink(network: MemoryNetwork, way: Way) -> None:
    """It stops what is due, and the source; nothing is lost of it, and the end comes behind."""
    data = ALPHABET * 40_000
    async with between(network, **option(way, Latency(0.1), Slicer(10_000))) as stage:
        source, sink = await ends(stage, way)
        writing = running(source.write(data))
        await stage.sleep(60)
        assert not writing.called
        (session,) = stage.forwarder.sessions
        came = session.bytesIn if way == "upstream" else session._server.bytesRead  # type: ignore[union-attr]
        assert came < IN_FLIGHT + 1_000_000
        heard = b""
        while len(heard) < 1_000_000:
            heard += await sink.read(50_000)
            await stage.sleep(0.5)
        heard += await sink.readExactly(len(data) - len(heard))
        assert heard == data
        await writing
        await source.end()
        assert await sink.readAll() == b""


@everyWay
@inCalm
async def test_endsWhileThingsAreUnderWay(network: MemoryNetwork, way: Way) -> None:
    """A source that has gone altogether is followed by all that it sent."""
    async with between(network, **option(way, Latency(5.0))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"last words")
        await source.end()
        await sink.end()
        assert await source.readAll() == b""
        assert await arriving == [(5.0, b"last words"), (5.0, b"end")]
        assert (await stage.over()).error is None


@everyWay
@inCalm
async def test_aResetWhileThingsAreUnderWay(network: MemoryNetwork, way: Way) -> None:
    """The source's own reset travels behind its bytes."""
    async with between(network, **option(way, Latency(5.0))) as stage:
        source, sink = await ends(stage, way)
        arriving = running(arrivals(network, sink))
        await source.write(b"last words")
        await stage.sleep(1)
        source.abort()
        await stage.sleep(1)
        assert len(stage.forwarder.sessions) == 1
        assert await arriving == [(5.0, b"last words"), (6.0, b"ECONNRESET")]
        assert isinstance((await stage.over()).error, ResetError)


@everyWay
@inCalm
async def test_theSinkResetsWhileThingsAreUnderWay(network: MemoryNetwork, way: Way) -> None:
    async with between(network, **option(way, Latency(5.0), Glue(1.0))) as stage:
        source, sink = await ends(stage, way)
        await source.write(b"never arrives")
        await stage.sleep(1)
        sink.abort()
        await isReset(source)
        assert network.now < 2
        assert isinstance((await stage.over()).error, ResetError)


@everyWay
@inCalm
async def test_theSinkIsGoneAndTheSourceGoesOn(network: MemoryNetwork, way: Way) -> None:
    """What comes for nobody any more is dropped, and holds nobody up."""
    async with between(network, **option("downstream" if way == "upstream" else "upstream", Latency(5.0))) as stage:
        source, sink = await ends(stage, way)
        sink.abort()  # its reset takes 5 seconds
        await stage.sleep(1)
        writing = running(source.write(bytes(2 * IN_FLIGHT)))
        await stage.sleep(1)
        assert writing.called
        await writing
        assert len(stage.forwarder.sessions) == 1
        await isReset(source)
        assert network.now == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("what", ["items", "glue", "nothing"])
@everyWay
@inCalm
async def test_aDeadlineIsNoNewsOfTheNetworks(network: MemoryNetwork, way: Way, what: str) -> None:
    """When it is over the sink hears it at once: FIN, or RST where bytes were under way."""
    faults = (Glue(50.0),) if what == "glue" else (Latency(50.0),)
    limits = Limits(idleTimeout=3.0) if way == "upstream" else Limits(lifetime=3.0)
    both = {**option("upstream", *faults), **option("downstream", *faults)}
    async with between(network, limits=limits, **both) as stage:
        client, server = await stage.meet()
        if what != "nothing":
            await client.write(b"x")
        arriving = [running(arrivals(network, stream)) for stream in (client, server)]
        assert await arriving[0] == [(3.0, b"end")]
        assert await arriving[1] == [(3.0, b"end" if what == "nothing" else b"ECONNRESET")]
        assert isinstance((await stage.over()).error, TimedOutError)


@inEveryWeather("client", "middle", "one")
async def test_allTogether(network: MemoryNetwork) -> None:
    """Whatever only delays and cuts loses nothing, in both directions at once."""
    faults = Faults(Latency(0.01, jitter=0.01), Slicer(3_000, variation=2_000), Glue(0.01), Bandwidth(3_000_000))
    data = ALPHABET * 3_000
    async with between(network, faultsUpstream=faults, faultsDownstream=faults, seed=3) as stage:
        client, server = await stage.meet()
        writing = [running(client.write(data)), running(server.write(data[::-1]))]
        reading = [running(server.readExactly(len(data))), running(client.readExactly(len(data)))]
        assert await reading[0] == data
        assert await reading[1] == data[::-1]
        for done in writing:
            await done
        await client.end()
        await server.end()
        assert await server.readAll() == await client.readAll() == b""
        assert (await stage.over()).error is None


@patient
async def test_onRealSockets() -> None:
    data = ALPHABET * 10_000
    up = Faults(Latency(0.005, jitter=0.005), Slicer(10_000, variation=5_000), Glue(0.001))
    async with between(None, faultsUpstream=up, faultsDownstream=Faults(Reset(at=1_000))) as stage:
        client, server = await stage.meet()
        writing = running(client.write(data))
        assert await server.readExactly(len(data)) == data
        await writing
        await server.write(bytes(2_000))
        heard, how = await hears(client)
        assert bytes(1_000).startswith(heard)
        assert how == "ECONNRESET"
        await isReset(server)
        assert stage.forwarder.snapshot()["spliced"] == 0


# Datagrams


def datagrams(network: MemoryNetwork, *faults: Fault, seed: int = 0) -> tuple[FaultyDatagrams, list[Datagram]]:
    """A road, and what has arrived at its end."""
    arrived: list[Datagram] = []
    road = FaultyDatagrams(
        network.reactor, Faults(*faults), Random(seed), lambda data: arrived.append((round(network.now, 6), data))
    )
    return road, arrived


@inCalm
async def test_datagramsOvertakeEachOther(network: MemoryNetwork) -> None:
    road, arrived = datagrams(network, Reorder(1.0, probability=0.5), seed=3)
    for number in range(20):
        road.send(b"%02d" % number)
        await network.sleep(0.1)
    await network.sleep(2)
    assert sorted(data for _, data in arrived) == [b"%02d" % number for number in range(20)]
    assert [data for _, data in arrived] != sorted(data for _, data in arrived)
    for at, data in arrived:
        assert round(at - int(data) / 10, 3) in (0.0, 1.0)


@inCalm
async def test_datagramsAreLostAndDoubled(network: MemoryNetwork) -> None:
    road, arrived = datagrams(network, Loss(probability=0.5), Duplicate(probability=0.5), Latency(0.1), seed=1)
    for number in range(1000):
        road.send(b"%d" % number)
    assert arrived == []
    await network.sleep(0.2)
    times = Counter(data for _, data in arrived)
    assert set(times.values()) == {1, 2}
    assert 400 < len(times) < 600
    assert {at for at, _ in arrived} == {0.1}


@inCalm
async def test_datagramsInFlight(network: MemoryNetwork) -> None:
    """What does not fit into the road is lost, as in a router's queue."""
    road, arrived = datagrams(network, Latency(1.0))
    for _ in range(DATAGRAMS_IN_FLIGHT + 10):
        road.send(b"x")
    await network.sleep(1.1)
    assert len(arrived) == DATAGRAMS_IN_FLIGHT
    road.send(b"y")
    await network.sleep(1.1)
    assert arrived[-1] == (2.1, b"y")


@inCalm
async def test_datagramsAreForgotten(network: MemoryNetwork) -> None:
    road, arrived = datagrams(network, Latency(1.0))
    road.send(b"x")
    road.stop()
    road.stop()
    await network.sleep(2)
    assert arrived == []
