"""The forwarder as a whole: who serves whom, who is let in, what can be seen of it, and how it ends."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from between import Stage, adds, between, folder, hears, inCalm, isReset, logged, running
from doors import patient
from drivers import theReactor
from logs import LoggedErrors
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import formatEvent
from weather import inEveryWeather
from zope.interface import implementer

from twisted_net import streams, udp
from twisted_net.address import TcpTarget
from twisted_net.errors import AbortedError, AddressError, ClosedError, NetError, OptionError, RefusedError
from twisted_net.forward import Check, Ended, Forwarder, Target
from twisted_net.forward.forwarder import HALF_OPEN
from twisted_net.sansio.faults import Faults, Latency
from twisted_net.streams import Limits, Stream
from twisted_net.testing.network import MemoryNetwork

THREE = ["one", "two", "three"]


async def spread(stage: Stage, count: int, names: list[str], host: str = "client") -> Counter[str]:
    """Who serves the next clients, each of which asks one thing and is answered."""
    found: Counter[str] = Counter()
    for _ in range(count):
        client = await stage.connect(host)
        await client.write(b"x")
        await stage.until(lambda: any(stage.listeners[name].readable for name in names))
        (name,) = [name for name in names if stage.listeners[name].readable]
        server = await stage.accept(name)
        assert await server.readExactly(1) == b"x"
        await server.write(b"y")
        assert await client.readExactly(1) == b"y"
        found[name] += 1
        await client.end()
        await server.end()
        await client.close()
        await server.close()
    return found


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"onFailure": "shrug"}, "onFailure is 'shrug'"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": True}, "retries is True"),
        ({"retries": 1.5}, "retries is 1.5"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": True}, "seed is True"),
        ({"timeoutConnect": "5"}, "timeoutConnect is '5'"),
        ({"balance": "best"}, "balance is 'best'"),
        ({"maxFails": 0}, "maxFails is 0"),
        ({"failTimeout": 0}, "failTimeout is 0"),
    ],
)
def test_optionsOutOfRange(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Forwarder(["127.0.0.1:80"], reactor=theReactor(), **options)


def test_noTarget() -> None:
    with pytest.raises(OptionError, match="there is no target"):
        Forwarder([])
    with pytest.raises(OptionError, match="given twice"):
        Forwarder(["127.0.0.1:80"], backups=["127.0.0.1:80"])
    with pytest.raises(AddressError):
        Forwarder(["nowhere"])
    with pytest.raises(AddressError, match="is no endpoint to connect to"):
        Forwarder(["tcp:host=x:port=nine"])


def test_targets() -> None:
    """Texts, addresses and targets, in the order in which they were given; streams and datagrams are kept apart."""
    own = Target("127.0.0.1:82", weight=7)
    spare = Target("127.0.0.1:84")
    forwarder = Forwarder(
        ["127.0.0.1:80;weight=2", TcpTarget("127.0.0.1", 81), own, "udp:127.0.0.1:53"], backups=["/run/x", spare]
    )
    assert [(target.name, target.weight, target.backup) for target in forwarder.targets] == [
        ("127.0.0.1:80", 2, False),
        ("127.0.0.1:81", 1, False),
        ("127.0.0.1:82", 7, False),
        ("udp:127.0.0.1:53", 1, False),
        ("unix:/run/x", 1, True),
        ("127.0.0.1:84", 1, True),
    ]
    assert forwarder.targets[2] is own
    assert spare.backup
    assert len(forwarder.pool.targets) == 5
    assert repr(Forwarder(["a:1", "b:2"])) == "<Forwarder to a:1, b:2>"
    assert forwarder.reactor is theReactor()
    assert forwarder.factory.limits.halfOpenTimeout == HALF_OPEN
    assert Forwarder(["a:1"], timeoutConnect=-1).timeoutConnect is None


@patient
async def test_whereToListen() -> None:
    """On as many places as one likes; each kind needs targets of its kind."""
    async with between() as stage, folder() as place:
        forwarder = stage.forwarder
        endpoint = TCP4ServerEndpoint(theReactor(), 0, interface="127.0.0.1")
        for where in (TcpTarget("127.0.0.1", 0), endpoint, "tcp:0:interface=127.0.0.1", f"unix:{place}/s"):
            await forwarder.listen(where)
        client = stage.keep(await streams.connect(f"unix:{place}/s", reactor=theReactor()))
        server = await stage.accept()
        await client.write(b"x")
        assert await server.readExactly(1) == b"x"
        with pytest.raises(OptionError, match="name a UDP target, such as"):
            forwarder.listen("udp:127.0.0.1:0")
        with pytest.raises(OptionError, match="name a TCP or UNIX target, such as"):
            Forwarder(["udp:127.0.0.1:53"], reactor=theReactor()).listen("127.0.0.1:0")
        with pytest.raises(AddressError):
            forwarder.listen("nowhere")
        taken = str(stage.door)
        with pytest.raises(NetError, match="EADDRINUSE"):
            await forwarder.listen(taken)
        await forwarder.close()
        assert os.listdir(place) == []
        with pytest.raises(ClosedError, match="this forwarder is closed"):
            forwarder.listen("127.0.0.1:0")


@inCalm
async def test_closedWhileAPortIsOpened(network: MemoryNetwork) -> None:
    """The port is closed again, and who has asked for it is told."""
    async with between(network) as stage:
        opening: Deferred[Any] = Deferred()

        @implementer(IStreamServerEndpoint)
        class Slow:
            """An endpoint that takes its time."""

            async def _listen(self, factory: Any) -> Any:
                await opening
                return await TCP4ServerEndpoint(stage.reactor("middle"), 8).listen(factory)

            def listen(self, factory: Any) -> Deferred[Any]:
                return Deferred.fromCoroutine(self._listen(factory))

        listening = stage.forwarder.listen(Slow())
        assert not listening.called
        await stage.forwarder.close()
        opening.callback(None)
        with pytest.raises(ClosedError, match="closed meanwhile"):
            await listening


# Datagrams, which the room of flows is about


@inCalm
async def test_bothKinds(network: MemoryNetwork) -> None:
    """Their counts are those of one service, and they end together."""
    stage = Stage(network)
    async with await stage.open("one"), await udp.bind("one:53", reactor=stage.reactor("one")) as echo:
        forwarder = await stage.start(["udp:one:53", "one:80"], timeoutFlow=5.0)
        await forwarder.listen("udp:middle:9")
        async with await udp.connect("middle:9", reactor=stage.reactor("client")) as asking:
            await asking.send(b"question")
            data, place, _ = await echo.recvFrom()
            assert data == b"question"
            await echo.sendTo(b"answer!", place)
            assert await asking.recv() == b"answer!"
        client, server = await stage.meet()
        await client.write(b"x")
        assert await server.readExactly(1) == b"x"
        for living in (1, 0):
            told = forwarder.snapshot()
            assert (told["bytesIn"], told["bytesOut"], told["flows"]["living"]) == (9, 7, living)
            await stage.sleep(6)
        (flow,) = stage.journal
        assert (flow.target, flow.bytesIn, flow.bytesOut) == ("udp:one:53", 8, 7)
        await forwarder.close()
        for stream in (client, server):
            await isReset(stream)
        assert [leak for leak in network.leaks() if leak.startswith("middle")] == []


# Who serves whom


@pytest.mark.parametrize("balance", ["round-robin", "least-connections"])
@inCalm
async def test_weights(network: MemoryNetwork, balance: str) -> None:
    weighted = ["one", "two;weight=2", "three;weight=5"]
    async with between(network, weighted, balance=balance) as stage:
        assert await spread(stage, 240, THREE) == {"one": 30, "two": 60, "three": 150}
        counted = [target.counters["sessions"] for target in stage.forwarder.targets]
        assert counted == [30, 60, 150]


@inCalm
async def test_leastConnections(network: MemoryNetwork) -> None:
    """Sessions that last count, on their way as well."""
    async with between(network, ["one", "two;weight=3"], balance="least-connections") as stage:
        network.link("middle", "one").setFaults(Latency(1.0))
        for _ in range(80):
            await stage.connect()
        await stage.sleep(0.1)
        assert [target.load for target in stage.forwarder.targets] == [20, 60]
        await stage.sleep(5)
        assert [target.load for target in stage.forwarder.targets] == [20, 60]
        adds(stage.forwarder, stage.journal)


@inCalm
async def test_sourceHash(network: MemoryNetwork) -> None:
    """A client keeps its target, whichever port it comes from; when another one leaves, too."""
    async with between(network, THREE, balance="source-hash") as stage:
        before: dict[str, str] = {}
        for number in range(12):
            host = f"host{number}"
            (before[host],) = await spread(stage, 3, THREE, host)
        assert len(set(before.values())) == 3
        await stage.shut("two")
        for host, name in before.items():
            (after,) = await spread(stage, 2, ["one", "three"], host)
            assert after == name if name != "two" else after != "two"


@inEveryWeather("client", "middle", *THREE)
async def test_oneIsDead(network: MemoryNetwork) -> None:
    """No client sees an error; after three failures it is left alone for a while."""
    async with between(network, THREE, dead=["two"]) as stage:
        found = await spread(stage, 60, ["one", "three"])
        assert set(found) == {"one", "three"}
        failures = stage.target("two").counters["failures"]
        assert 3 <= failures <= 3 + int(network.now / 10)  # one more whenever it is tried again
        assert stage.states == [("two:80", "suspended")]
        assert [ended.error for ended in stage.journal] == [None] * len(stage.journal)
        await stage.open("two")
        await stage.sleep(10)
        assert (await spread(stage, 30, THREE))["two"] == 10
        assert stage.states == [("two:80", "suspended"), ("two:80", "up")]


@inCalm
async def test_oneIsABlackHole(network: MemoryNetwork) -> None:
    async with between(network, THREE, timeoutConnect=1.0, maxFails=2) as stage:
        network.link("middle", "two").cut()
        assert set(await spread(stage, 30, THREE)) == {"one", "three"}
        assert network.now == pytest.approx(2.0, abs=0.3)
        assert stage.target("two").state == "suspended"


@patient
async def test_oneIsDeadOnRealSockets() -> None:
    async with between(None, THREE, dead=["two"]) as stage:
        found = await spread(stage, 40, ["one", "three"])
        assert found.total() == 40
        assert min(found["one"], found["three"]) >= 15


@inCalm
async def test_backups(network: MemoryNetwork) -> None:
    async with between(network, ["one"], backups=["two"], maxFails=1, failTimeout=5.0) as stage:
        assert await spread(stage, 3, ["one", "two"]) == {"one": 3}
        await stage.shut("one")
        assert await spread(stage, 3, ["two"]) == {"two": 3}
        assert stage.target("one").counters["failures"] == 1
        await stage.open("one")
        await stage.sleep(5)
        assert await spread(stage, 3, ["one", "two"]) == {"one": 3}


@inCalm
async def test_passiveHealth(network: MemoryNetwork) -> None:
    """When nobody else is up, one that is merely suspended is tried all the same."""
    async with between(network, ["one"], dead=["one"], maxFails=2, failTimeout=10.0) as stage:
        for _ in range(4):
            await isReset(await stage.connect())
        assert stage.target("one").counters["failures"] == 4
        assert stage.states == [("one:80", "suspended")]
        await stage.open("one")
        await stage.meet()
        assert stage.states == [("one:80", "suspended")]  # a success of one that is out proves it later
        await stage.sleep(10)
        await stage.meet()
        assert stage.states[1:] == [("one:80", "up")]


@pytest.mark.parametrize("shutdown", [False, True])
@inCalm
async def test_shutdownSessions(network: MemoryNetwork, shutdown: bool) -> None:
    """Sessions of a target that its checks take down are aborted, if that was asked for; others are not."""
    check = Check(interval=1.0, timeout=0.5, fall=2)
    async with between(network, ["one", "two"], check=check, shutdownSessions=shutdown) as stage:
        pairs = {}
        for _ in range(2):
            client = await stage.connect()
            await client.write(b"x")
            await stage.sleep(0.1)
            pairs[stage.forwarder.sessions[-1].target.name] = client  # type: ignore[union-attr]
        assert set(pairs) == {"one:80", "two:80"}
        network.link("middle", "one").cut()
        await stage.sleep(5)
        assert stage.states == [("one:80", "down")]
        if shutdown:
            await isReset(pairs["one:80"])
            assert "is down by its checks" in str((await stage.over()).error)
        else:
            assert stage.journal == []
        assert [session.target.name for session in stage.forwarder.sessions][-1] == "two:80"  # type: ignore[union-attr]


@inCalm
async def test_whoIsOnTheWayToATargetThatGoesDown(network: MemoryNetwork) -> None:
    """It is offered another one, also when sessions are shut down."""
    check = Check(interval=1.0, timeout=0.5, fall=1)
    async with between(network, ["one", "two"], check=check, shutdownSessions=True, timeoutConnect=3.0) as stage:
        await stage.sleep(0.1)
        network.link("middle", "one").cut()
        client = await stage.connect()
        await stage.sleep(2)
        assert stage.states == [("one:80", "down")]
        assert len(stage.forwarder.sessions) == 1
        await client.write(b"x")
        for server in [await stage.accept("two") for _ in range(4)]:
            if await server.read() == b"x":
                break
        else:
            raise AssertionError("nobody serves it")
        assert network.now == pytest.approx(3.1, abs=0.05)


# Who is let in


@inCalm
async def test_limitOfConnections(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(connections=2)) as stage:
        first, _ = await stage.meet()
        await stage.meet()
        turnedAway = await stage.connect()
        assert await hears(turnedAway) == (b"", "end")
        told = stage.forwarder.snapshot()
        assert (told["accepted"], told["refused"], told["sessions"]) == (2, 1, 2)
        assert told["limits"]["connections"] == 1
        first.abort()
        await stage.over()
        await stage.meet()


@inCalm
async def test_limitOfConnectionsThatWait(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(connections=1, mode="wait")) as stage:
        first, server = await stage.meet()
        second = await stage.connect()
        await second.write(b"patience")
        await stage.sleep(5)
        assert stage.forwarder.snapshot()["sessions"] == 1
        first.abort()
        await isReset(server)
        assert await (await stage.accept()).readExactly(8) == b"patience"


@inCalm
async def test_limitPerPeer(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(perPeer=1)) as stage:
        await stage.meet()
        assert await hears(await stage.connect()) == (b"", "end")
        await stage.connect("other")
        await stage.accept()
        assert stage.forwarder.snapshot()["limits"]["perPeer"] == 1


@inCalm
async def test_rates(network: MemoryNetwork) -> None:
    """Of what a client may send, and of what it is sent."""
    async with between(network, limits=Limits(readRate=10_000, writeRate=20_000, burst=1000)) as stage:
        client, server = await stage.meet()
        for writer, reader, seconds in ((client, server, 20), (server, client, 10)):
            began = network.now
            writing = running(writer.write(bytes(200_000)))
            assert await reader.readExactly(200_000) == bytes(200_000)
            await writing
            assert network.now - began == pytest.approx(seconds, rel=0.5)


# What can be seen


@inCalm
async def test_snapshot(network: MemoryNetwork) -> None:
    async with between(network, ["one;weight=2"], backups=["two"]) as stage:
        forwarder = stage.forwarder
        for number in range(3):
            client, server = await stage.meet()
            await client.write(b"x" * 10)
            assert await server.readExactly(10) == b"x" * 10
            await server.write(b"y" * 20)
            assert await client.readExactly(20) == b"y" * 20
            adds(forwarder, stage.journal)
            if number == 0:
                client.abort()
                await stage.over()
                adds(forwarder, stage.journal)
        told = forwarder.snapshot()
        told["flows"] = told["limits"] = None
        assert told == {
            "accepted": 3,
            "refused": 0,
            "waited": 0,
            "left": 0,
            "exhausted": 0,
            "sessions": 2,
            "served": 1,
            "failed": 0,
            "bytesIn": 30,
            "bytesOut": 60,
            "splicing": 0,
            "spliced": 0,
            "flows": None,
            "limits": None,
            "targets": [
                {
                    "target": "one:80",
                    "weight": 2,
                    "backup": False,
                    "state": "up",
                    "load": 2,
                    "sessions": 3,
                    "failures": 0,
                    "bytesTo": 30,
                    "bytesFrom": 60,
                },
                {
                    "target": "two:80",
                    "weight": 1,
                    "backup": True,
                    "state": "up",
                    "load": 0,
                    "sessions": 0,
                    "failures": 0,
                    "bytesTo": 0,
                    "bytesFrom": 0,
                },
            ],
        }


@inCalm
async def test_withoutTheKernelsHelp(network: MemoryNetwork) -> None:
    async with between(network, splice=False) as stage:
        await stage.meet()
        told = stage.forwarder.snapshot()
        assert (told["splicing"], told["spliced"]) == (0, 0)


@inCalm
async def test_journal(network: MemoryNetwork, loggedErrors: LoggedErrors) -> None:
    """One that raises, or who is told of states and raises, is logged, and nothing else comes of it; nor of none."""

    def raising(*news: object) -> None:
        raise KeyError("journal")

    async with between(network, dead=["one"], maxFails=1) as stage:
        stage.forwarder.journal = raising
        stage.forwarder._changed = raising
        await isReset(await stage.connect())
        await stage.until(lambda: stage.forwarder.snapshot()["failed"] == 1)
        assert len(loggedErrors.flush(KeyError)) == 2
        stage.forwarder.journal = None
        stage.forwarder._changed = None
        await isReset(await stage.connect())
        await stage.until(lambda: stage.forwarder.snapshot()["failed"] == 2)
        error = RefusedError("x")
        address: Any = None
        stage.journal += [Ended(address, None, 0, 0, 0.0, error)] * 2


@inCalm
async def test_faultsAreSaidOnce(network: MemoryNetwork) -> None:
    with logged() as events:
        async with between(network, faultsDownstream=Faults(Latency(0.1)), seed=7) as stage:
            await stage.forwarder.listen("middle:8")
    (event,) = [event for event in events if event["net"]["event"] == "faults"]
    assert formatEvent(event) == (
        "faults upstream: '', downstream: 'latency:delay=0.1'; the seed that repeats them is 7"
    )


# The end


async def talking(stage: Stage, count: int = 3) -> list[tuple[Stream, Stream]]:
    """Some sessions that have something to say."""
    pairs = [await stage.meet() for _ in range(count)]
    for client, server in pairs:
        await client.write(b"x")
        assert await server.readExactly(1) == b"x"
    return pairs


@inCalm
async def test_closeAtOnce(network: MemoryNetwork) -> None:
    async with between(network, check=Check()) as stage:
        await stage.accept()  # who only checks
        pairs = await talking(stage)
        await stage.forwarder.close()
        assert stage.forwarder.sessions == ()
        assert [leak for leak in network.leaks() if leak.startswith("middle")] == []
        for stream in sum(pairs, ()):
            await isReset(stream)
        for ended in stage.journal:
            assert isinstance(ended.error, AbortedError)
        with pytest.raises(NetError):
            await stage.connect()
        await stage.forwarder.close()


@inCalm
async def test_closeWithGrace(network: MemoryNetwork) -> None:
    """Nobody new is let in; who is there may finish; who has not is aborted when the grace is over."""
    async with between(network) as stage:
        pairs = await talking(stage)
        closing = stage.forwarder.close(10)
        await stage.sleep(1)
        with pytest.raises(NetError):
            await stage.connect()
        client, server = pairs[0]
        await client.write(b"still there")
        await client.end()
        assert await server.readAll() == b"still there"
        await server.end()
        assert await client.readAll() == b""
        assert (await stage.over()).error is None
        await stage.sleep(8)
        assert not closing.called
        await closing
        assert network.now == pytest.approx(10, abs=0.01)
        for stream in sum(pairs[1:], ()):
            await isReset(stream)
        assert len(stage.journal) == 3


@inCalm
async def test_closeAndWait(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        ((client, server),) = await talking(stage, 1)
        closing = stage.forwarder.close(None)
        await stage.sleep(50_000)
        await client.end()
        await server.end()
        assert not closing.called
        await closing
        assert (await stage.over()).error is None


@inCalm
async def test_theShortestGraceCounts(network: MemoryNetwork) -> None:
    """A second request to close may be more impatient, and not less."""
    async with between(network) as stage:
        await talking(stage, 1)
        waiting = [stage.forwarder.finish(grace) for grace in (None, 60, 5, 100)]
        for done in waiting:
            await done
        assert network.now == pytest.approx(5, abs=0.01)
        await stage.forwarder.finish(1)
        await stage.forwarder.close(1)


@inCalm
async def test_theClientIsGoneButItsTargetIsSlow(network: MemoryNetwork) -> None:
    """A session is over when both are gone; the grace ends the other one, too."""
    async with between(network, faultsUpstream=Faults(Latency(0.01))) as stage:
        client, server = await stage.meet()
        await server.end()
        await client.write(bytes(250_000))
        await client.end()
        assert await client.readAll() == b""
        await stage.sleep(1)
        assert len(stage.forwarder.factory) == 0
        closing = stage.forwarder.close(5)
        await stage.sleep(4)
        assert not closing.called
        await closing
        assert isinstance((await stage.over()).error, AbortedError)
        assert (await hears(server))[1] == "ECONNRESET"


@inCalm
async def test_closeWhileTargetsAreDialled(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        network.link("middle", "one").cut()
        clients = [await stage.connect() for _ in range(3)]
        await stage.sleep(0.1)
        await stage.forwarder.close()
        for client in clients:
            await isReset(client)
        assert [leak for leak in network.leaks() if leak.startswith("middle")] == []


@inCalm
async def test_closeWhileClientsWait(network: MemoryNetwork) -> None:
    """Who waits to be admitted is turned away at once."""
    async with between(network, limits=Limits(connections=1, mode="wait")) as stage:
        await stage.meet()
        waiting = await stage.connect()
        await stage.sleep(0.1)
        closing = stage.forwarder.close(5)
        await isReset(waiting)
        assert network.now < 1
        await closing


@patient
async def test_closeOnRealSockets() -> None:
    async with between(None, THREE, check=Check(interval=0.01)) as stage:
        await stage.sleep(0.05)
        clients = [await stage.connect() for _ in range(10)]
        await stage.until(lambda: sum(session.isConnected for session in stage.forwarder.sessions) == 10)
        await stage.forwarder.close(0.05)
        for client in clients:
            await isReset(client)
        assert len(stage.journal) == 10
