"""
One client and its target: what passes between them, what ends them, and what a client is told that nobody serves.

Where order and time matter, on a network in memory; what the kernel has to bear out, on real sockets.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from between import between, folder, hears, inCalm, isReset, running
from doors import patient, reset
from drivers import theReactor
from twisted.internet.defer import Deferred
from weather import inEveryWeather

from twisted_net import streams
from twisted_net.errors import AbortedError, NetError, RefusedError, ResetError, TimedOutError
from twisted_net.forward import session as room
from twisted_net.sansio.faults import Faults, Latency
from twisted_net.streams import Limits
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire import dial

BIG = bytes(range(256)) * 8_000
"""More than fits into the buffers between two programs."""

PENDING = BIG[:250_000]
"""More than a program takes that does not read; what is left is too little to make a forwarder with faults stop."""

LATE = Faults(Latency(0.01))

HOSTS = ("client", "middle", "one", "two")

inAnyWeather = inEveryWeather(*HOSTS)


# What passes


@inAnyWeather
async def test_bothWays(network: MemoryNetwork) -> None:
    """Bytes are exact, in both directions at once; an end is passed on, and the other direction goes on after it."""
    async with between(network) as stage:
        client, server = await stage.meet()
        writing = [running(client.write(BIG)), running(server.write(BIG[::-1]))]
        reading = [running(server.readExactly(len(BIG))), running(client.readExactly(len(BIG)))]
        assert await reading[0] == BIG
        assert await reading[1] == BIG[::-1]
        for done in writing:
            await done
        await client.write(b"question")
        await client.end()
        assert await server.readAll() == b"question"
        await server.write(b"answer")
        await server.end()
        assert await client.readAll() == b"answer"
        ended = await stage.over()
        assert (ended.target, ended.error) == ("one:80", None)
        assert (ended.bytesIn, ended.bytesOut) == (len(BIG) + 8, len(BIG) + 6)


@inAnyWeather
async def test_theTargetEndsFirst(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        client, server = await stage.meet()
        for one, other in ((server, client), (client, server)):
            writing = running(one.write(BIG))
            assert await other.readExactly(len(BIG)) == BIG
            await writing
            await one.end()
            assert await other.readAll() == b""
        assert (await stage.over()).error is None


@inAnyWeather
async def test_aQuestionThatWasAskedBeforeAnybodyListened(network: MemoryNetwork) -> None:
    """Bytes and end of a client wait while its target is dialled."""
    async with between(network) as stage:
        network.link("middle", "one").cut()
        client = await stage.connect()
        await client.write(b"all of it")
        await client.end()
        await stage.sleep(0.5)
        assert stage.forwarder.sessions[0].bytesIn == 0
        assert not stage.forwarder.sessions[0].isConnected
        network.link("middle", "one").heal()
        server = await stage.accept()
        assert await server.readAll() == b"all of it"
        await server.write(b"answer")
        await server.end()
        assert await client.readAll() == b"answer"
        await stage.over()


@inCalm
async def test_pressure(network: MemoryNetwork) -> None:
    """Who reads slowly makes the other one wait, in both directions: what is under way is bounded."""
    async with between(network) as stage:
        client, server = await stage.meet()
        for writer, reader in ((client, server), (server, client)):
            (session,) = stage.forwarder.sessions
            before = session.bytesIn + session.bytesOut
            writing = running(writer.write(BIG))
            await stage.sleep(10)
            assert not writing.called
            assert session.bytesIn + session.bytesOut - before < 400_000
            assert await reader.readExactly(len(BIG)) == BIG
            await writing


@inCalm
async def test_nagle(network: MemoryNetwork) -> None:
    """Segments are passed on as they come."""
    async with between(network) as stage:
        await stage.meet()
        sockets = [skt for skt in network.host("middle").sockets() if not skt.isListening]
        assert len(sockets) == 2
        for skt in sockets:
            assert skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("kind", ["tcp", "unix", "mixed"])
@patient
async def test_onRealSockets(kind: str) -> None:
    async with folder() as place:
        path = os.path.join(place, "target")
        async with between() as stage:
            if kind != "tcp":
                stage.listeners["unix"] = await streams.listen(f"unix:{path}", reactor=theReactor())
                await stage.forwarder.close()
                door = None if kind == "mixed" else f"unix:{place}/door"
                await stage.start([path], door=door)
            name = "one" if kind == "tcp" else "unix"
            client, server = await stage.meet(name)
            writing = [running(client.write(BIG)), running(server.write(BIG[::-1]))]
            reading = [running(server.readExactly(len(BIG))), running(client.readExactly(len(BIG)))]
            assert await reading[0] == BIG
            assert await reading[1] == BIG[::-1]
            for done in writing:
                await done
            await client.end()
            assert await server.readAll() == b""
            await server.write(b"bye")
            await server.end()
            assert await client.readAll() == b"bye"
            ended = await stage.over()
            assert (ended.bytesIn, ended.bytesOut, ended.error) == (len(BIG), len(BIG) + 3, None)


@pytest.mark.parametrize("side", ["client", "target"])
@patient
async def test_aRealReset(side: str) -> None:
    async with between() as stage:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            await stage.forwarder.close()
            await stage.start([f"127.0.0.1:{listener.getsockname()[1]}"])
            host, _, port = stage.door.rpartition(":")
            client = socket.create_connection((host, int(port)))
            await stage.until(lambda: stage.forwarder.sessions and stage.forwarder.sessions[0].isConnected)
            server, _ = listener.accept()
            one, other = (client, server) if side == "client" else (server, client)
            reset(one)
            ended = await stage.over()
            with pytest.raises(ConnectionResetError):
                other.recv(10)
            other.close()
            assert isinstance(ended.error, ResetError)


RACE = 20
"""How often a race is run; which of two connections is served first is the system's business."""


@patient
async def test_aResetThatWhoWritesHearsOf() -> None:
    """The kernel tells an error once. Was it told as the answer was sent, then reading shows what looks like an end."""
    async with between() as stage:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            await stage.forwarder.close()
            await stage.start([f"127.0.0.1:{listener.getsockname()[1]}"])
            host, _, port = stage.door.rpartition(":")
            for number in range(RACE):
                client = socket.create_connection((host, int(port)))
                await stage.until(lambda: stage.forwarder.sessions and stage.forwarder.sessions[0].isConnected)
                server, _ = listener.accept()
                client.send(b"half a quest")
                await stage.until(lambda: stage.forwarder.sessions[0].bytesIn == 12)
                server.send(b"answer")
                reset(client)
                await stage.over(number + 1)
                server.settimeout(5)
                assert server.recv(12) in (b"half a quest", b"")
                with pytest.raises(ConnectionResetError):
                    server.recv(10)
                server.close()


# What ends them


@pytest.mark.parametrize("side", ["client", "target"])
@inAnyWeather
async def test_aResetIsOneToTheOtherSide(network: MemoryNetwork, side: str) -> None:
    async with between(network) as stage:
        client, server = await stage.meet()
        await client.write(b"x")
        assert await server.readExactly(1) == b"x"
        one, other = (client, server) if side == "client" else (server, client)
        one.abort()
        await isReset(other)
        assert isinstance((await stage.over()).error, ResetError)


@inCalm
async def test_whoClosesWithBytesUnreadResets(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        client, server = await stage.meet()
        await client.write(b"never read")
        await stage.sleep(0.1)
        server.abort()
        await isReset(client)
        assert (await stage.over()).target == "one:80"


@inCalm
async def test_bothEndAtOnce(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        client, server = await stage.meet()
        for stream in (client, server):
            await stream.write(b"x" * 1000)
            await stream.end()
        assert await server.readAll() == await client.readAll() == b"x" * 1000
        assert (await stage.over()).error is None


@inCalm
async def test_idle(network: MemoryNetwork) -> None:
    """Without a byte in either direction both sides see the end; nothing was lost."""
    async with between(network, limits=Limits(idleTimeout=5.0)) as stage:
        client, server = await stage.meet()
        await stage.sleep(4)
        await client.write(b"x")
        await stage.sleep(4)
        await server.write(b"y")
        await stage.sleep(4.9)
        assert len(stage.forwarder.sessions) == 1
        ended = await stage.over()
        assert network.now == pytest.approx(13, abs=0.01)
        assert await hears(server) == (b"x", "end")
        assert await hears(client) == (b"y", "end")
        assert isinstance(ended.error, TimedOutError)
        assert stage.forwarder.snapshot()["limits"]["idleTimeout"] == 1


@pytest.mark.parametrize("side", ["client", "target"])
@inCalm
async def test_halfOpen(network: MemoryNetwork, side: str) -> None:
    """It is armed by the end of one direction, and put off by any byte."""
    async with between(network, limits=Limits(halfOpenTimeout=5.0)) as stage:
        client, server = await stage.meet()
        await stage.sleep(60)
        one, other = (client, server) if side == "client" else (server, client)
        await one.end()
        await stage.sleep(4)
        await other.write(b"x")
        await stage.sleep(4)
        assert len(stage.forwarder.sessions) == 1
        assert isinstance((await stage.over()).error, TimedOutError)
        assert network.now == pytest.approx(69, abs=0.01)
        assert await hears(one) == (b"x", "end")
        assert await hears(other) == (b"", "end")
        assert stage.forwarder.snapshot()["limits"]["halfOpenTimeout"] == 1


@inCalm
async def test_halfOpenForEver(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(halfOpenTimeout=None)) as stage:
        client, server = await stage.meet()
        await client.end()
        await stage.sleep(50_000)
        await server.write(b"at last")
        await server.end()
        assert await client.readAll() == b"at last"
        assert (await stage.over()).error is None


@inCalm
async def test_lifetime(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(lifetime=5.0)) as stage:
        client, server = await stage.meet()
        await stage.sleep(3)
        await client.write(b"x")
        assert isinstance((await stage.over()).error, TimedOutError)
        assert network.now == pytest.approx(5, abs=0.01)
        assert await hears(server) == (b"x", "end")
        assert await hears(client) == (b"", "end")


LEFT = {
    "idle": (Limits(idleTimeout=7.0, halfOpenTimeout=60.0), "halfOpenTimeout", 7.0),
    "half-open": (Limits(halfOpenTimeout=7.0), "halfOpenTimeout", 7.0),
    "lifetime": (Limits(lifetime=7.0), "lifetime", 7.0),
}


@pytest.mark.parametrize("limit", LEFT)
@inCalm
async def test_theClientIsGoneAndTheTargetDoesNotRead(network: MemoryNetwork, limit: str) -> None:
    """It has the client's limits then; what it never took was lost, and it is told so by RST."""
    limits, name, seconds = LEFT[limit]
    async with between(network, limits=limits, faultsUpstream=LATE) as stage:
        client, server = await stage.meet()
        await server.end()
        await client.write(PENDING)
        await client.end()
        assert await client.readAll() == b""
        (session,) = stage.forwarder.sessions
        await stage.sleep(1)
        assert len(stage.forwarder.factory) == 0  # it is gone
        assert session.bytesIn == len(PENDING)
        ended = await stage.over()
        assert isinstance(ended.error, TimedOutError)
        assert "has not taken what was sent to it" in str(ended.error)
        assert network.now == pytest.approx(seconds, abs=0.1)
        assert stage.forwarder.snapshot()["limits"][name] == 1
        heard, how = await hears(server)
        assert BIG.startswith(heard)
        assert how != "end"


@inCalm
async def test_theClientIsGoneAndTheTargetIsSlow(network: MemoryNetwork) -> None:
    """As long as it takes something it is given all."""
    async with between(network, limits=Limits(halfOpenTimeout=7.0), faultsUpstream=LATE) as stage:
        client, server = await stage.meet()
        await server.end()
        await client.write(PENDING)
        await client.end()
        assert await client.readAll() == b""
        heard = b""
        while data := await server.read(20_000):
            heard += data
            await stage.sleep(1)
        assert heard == PENDING
        assert (await stage.over()).error is None


@inCalm
async def test_withoutLimitsItIsWaitedFor(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(), faultsUpstream=LATE) as stage:
        client, server = await stage.meet()
        await server.end()
        await client.write(PENDING)
        await client.end()
        assert await client.readAll() == b""
        await stage.sleep(50_000)
        assert await server.readAll() == PENDING
        assert (await stage.over()).error is None


@inCalm
async def test_theTargetIsGoneAndTheClientDoesNotRead(network: MemoryNetwork) -> None:
    async with between(network, limits=Limits(halfOpenTimeout=7.0, lifetime=1000.0), faultsDownstream=LATE) as stage:
        client, server = await stage.meet()
        await client.end()
        assert await server.readAll() == b""
        await server.write(PENDING)
        await server.end()
        await stage.sleep(1)
        (session,) = stage.forwarder.sessions
        assert session.bytesOut == len(PENDING)
        assert isinstance((await stage.over()).error, TimedOutError)
        assert network.now == pytest.approx(7, abs=0.1)
        heard, how = await hears(client)
        assert BIG.startswith(heard)
        assert how != "end"


# Towards a target


@inCalm
async def test_theFirstThatAnswers(network: MemoryNetwork) -> None:
    """Two are refused, one is a black hole: the client hears of nothing."""
    async with between(network, ["one", "two", "three"], dead=["one"], retries=3, timeoutConnect=2.0) as stage:
        network.link("middle", "two").cut()
        client, server = await stage.meet("three")
        assert network.now == pytest.approx(2, abs=0.01)
        await client.write(b"x")
        assert await server.readExactly(1) == b"x"
        counted = [target.counters["failures"] for target in stage.forwarder.targets]
        assert counted == [1, 1, 0]
        assert [target.load for target in stage.forwarder.targets] == [0, 0, 1]


@inCalm
async def test_retries(network: MemoryNetwork) -> None:
    """No more targets than that are tried; each of them once."""
    names = ["one", "two", "three"]
    for retries, tried in ((0, 1), (1, 2), (2, 3), (9, 3)):
        async with between(network, names, dead=names, retries=retries) as stage:
            client = await stage.connect()
            await isReset(client)
            ended = await stage.over()
            assert (ended.target, ended.bytesIn) == (None, 0)
            assert isinstance(ended.error, RefusedError)
            assert sum(target.counters["failures"] for target in stage.forwarder.targets) == tried


@pytest.mark.parametrize("onFailure", ["reset", "close"])
@inAnyWeather
async def test_refused(network: MemoryNetwork, onFailure: Any) -> None:
    """Also a client that has bytes under way, or has ended, hears of a failure what was asked for."""
    async with between(network, dead=["one"], onFailure=onFailure) as stage:
        quiet, busy, ended = [await stage.connect() for _ in range(3)]
        try:
            await busy.write(b"x" * 30_000)
            await ended.write(b"question")
            await ended.end()
        except NetError:
            assert onFailure == "reset"
        for client in (quiet, busy, ended):
            if onFailure == "reset":
                await isReset(client)
            else:
                assert await hears(client) == (b"", "end")
                await client.close()
        await stage.until(lambda: len(stage.journal) == 3)
        assert [one.target for one in stage.journal] == [None] * 3
        assert stage.forwarder.snapshot()["failed"] == 3


@pytest.mark.parametrize("onFailure", ["reset", "close"])
@patient
async def test_refusedOnRealSockets(onFailure: Any) -> None:
    async with between(None, dead=["one"], onFailure=onFailure) as stage:
        client = await stage.connect()
        if onFailure == "close":
            assert await client.read() == b""
            await client.write(b"x" * 1000)
            await client.end()
        else:
            await isReset(client)
        assert (await stage.over()).target is None


@inCalm
async def test_theLingeringCloseIsOverOnce(network: MemoryNetwork) -> None:
    """Who was told by FIN, and neither goes nor says anything, is let go; so is who never stops talking."""
    async with between(network, dead=["one"], onFailure="close") as stage:
        silent, talking = await stage.connect(), await stage.connect()
        assert await silent.read() == await talking.read() == b""
        began = network.now
        try:
            while True:
                await talking.write(b"x" * 1000)
                await stage.sleep(0.5)
        except NetError:
            pass
        await stage.until(lambda: len(stage.journal) == 2)
        assert network.now - began == pytest.approx(room.LINGER, abs=1.1)
        assert isinstance(stage.journal[0].error, RefusedError)


@inCalm
async def test_abortedWhileItLingers(network: MemoryNetwork) -> None:
    async with between(network, dead=["one"], onFailure="close") as stage:
        client = await stage.connect()
        assert await client.read() == b""
        (session,) = stage.forwarder.sessions
        session.abort()
        ended = await stage.over()
        assert network.now < 1
        assert isinstance(ended.error, RefusedError)  # why nobody served it is what matters


@inCalm
async def test_nobodyIsUp(network: MemoryNetwork) -> None:
    async with between(network, check=None, maxFails=1) as stage:
        for _ in range(3):
            stage.forwarder.pool.checked(stage.target("one"), RefusedError("no"))
        await isReset(await stage.connect())
        assert str((await stage.over()).error).startswith("no target is up")
        assert stage.target("one").counters["failures"] == 0


@inCalm
async def test_timeoutConnect(network: MemoryNetwork) -> None:
    async with between(network, timeoutConnect=3.0) as stage:
        network.link("middle", "one").cut()
        await isReset(await stage.connect())
        assert network.now == pytest.approx(3, abs=0.01)
        assert isinstance((await stage.over()).error, TimedOutError)


@patient
async def test_anEndpoint() -> None:
    """A target may be whatever Twisted can connect to."""
    async with between() as stage:
        host, _, port = stage.where("one").rpartition(":")
        await stage.forwarder.close()
        await stage.start([f"tcp:{host}:{port}"])
        client, server = await stage.meet()
        await client.write(b"x")
        await client.end()
        assert await server.readAll() == b"x"
        await server.end()
        assert (await stage.over()).target == f"tcp:{host}:{port}"


@inCalm
async def test_theSystemsOwnTimeout(network: MemoryNetwork) -> None:
    async with between(network, timeoutConnect=None, limits=Limits()) as stage:
        network.link("middle", "one").cut()
        await isReset(await stage.connect())
        assert network.now == pytest.approx(127, abs=0.1)


@inCalm
async def test_theClientLeavesWhileItsTargetIsDialled(network: MemoryNetwork) -> None:
    """Its reset is noticed and the attempt given up; nobody served it, and no target is to blame."""
    async with between(network, timeoutConnect=60.0) as stage:
        network.link("middle", "one").cut()
        client = await stage.connect()
        await client.write(b"x")
        await stage.sleep(0.5)
        assert stage.target("one").load == 1
        client.abort()
        ended = await stage.over()
        assert network.now < 3
        assert (ended.target, ended.bytesIn, ended.bytesOut) == (None, 0, 0)
        assert isinstance(ended.error, ResetError)
        told = stage.forwarder.snapshot()
        assert (told["served"], told["failed"]) == (0, 1)
        facts = told["targets"][0]
        assert (facts["load"], facts["sessions"], facts["failures"], facts["bytesTo"]) == (0, 0, 0, 0)
        await stage.sleep(0.01)
        assert [leak for leak in network.leaks() if leak.startswith("middle: c")] == []


@inCalm
async def test_abortedWhileItsTargetIsDialled(network: MemoryNetwork) -> None:
    async with between(network, timeoutConnect=60.0) as stage:
        network.link("middle", "one").cut()
        client = await stage.connect()
        await stage.sleep(0.1)
        (session,) = stage.forwarder.sessions
        assert repr(session) == f"<Session 0: {session.client} -> one:80>"
        session.abort()
        await isReset(client)
        ended = await stage.over()
        assert isinstance(ended.error, AbortedError)
        assert ended.target is None
        session.abort()  # harmless


@inCalm
async def test_abort(network: MemoryNetwork) -> None:
    async with between(network) as stage:
        client, server = await stage.meet()
        (session,) = stage.forwarder.sessions
        session.abort(ResetError("enough"))
        await isReset(client)
        await isReset(server)
        assert str((await stage.over()).error).startswith("enough")
        session.abort()
        assert not session.isConnected


@pytest.mark.parametrize("call", ["socket", "connect"])
@pytest.mark.parametrize("code", sorted(room.LOCAL_CODES - {"EAGAIN"}))
@inCalm
async def test_wantOfRoomHereBlamesNobody(network: MemoryNetwork, call: str, code: str) -> None:
    """The client is told, no other target is tried, and none suffers for it."""
    async with between(network, ["one", "two"], maxFails=1) as stage:
        client, server = await stage.meet()
        network.host("middle").failing(call, code)
        await isReset(await stage.connect())
        ended = await stage.over()
        assert isinstance(ended.error, NetError)
        assert ended.error.code == code
        assert stage.states == []
        assert [target.counters["failures"] for target in stage.forwarder.targets] == [0, 0]
        await client.write(b"goes on")
        assert await server.readExactly(7) == b"goes on"


@inCalm
async def test_anAttemptThatCannotBeStoppedInTime(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint may give a connection although it was told to stop: it is not joined to a client that is gone."""
    original = dial.dial

    def late(*args: Any, **options: Any) -> Deferred[Any]:
        made: list[Any] = []
        original(*args, **options).addCallback(made.append)
        return Deferred(lambda done: done.callback(made[0]))

    monkeypatch.setattr(room, "dial", late)
    async with between(network) as stage:
        client, server = await stage.meet()
        client.abort()
        await isReset(server)
        assert (await stage.over()).target is None
        assert stage.forwarder.snapshot()["targets"][0]["sessions"] == 0


@inCalm
async def test_whoLeavesBeforeItIsServed(network: MemoryNetwork) -> None:
    """A client that has reset before anything was done for it is a session all the same, which is over at once."""
    async with between(network) as stage:
        client = await stage.connect()
        client.abort()
        assert isinstance((await stage.over()).error, ResetError)
