"""select: who need not be waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doors import patient
from drivers import Driver, Running, awaited, cancelled, everyDriver, onAsyncio, theReactor
from talks import connecting, listening, talking
from turning import turns, until
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from twisted_net import streams
from twisted_net.address import TcpTarget
from twisted_net.errors import OptionError
from twisted_net.sansio.faults import Latency
from twisted_net.streams.dialling import begin
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.waiting import outcome

BIG = bytes(1_000_000)

everyKind = pytest.mark.parametrize("kind", ["tcp", "unix"])


@everyKind
@awaited
async def test_atOnce(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        assert await streams.select() == ([], [])
        assert await streams.select([client, server], timeout=0) == ([], [])
        assert await streams.select([client], [client, server]) == ([], [client, server])
        await server.write(b"x")
        assert await streams.select([client, server]) == ([client], [])
        assert await streams.select([server, client], [server]) == ([client], [server])
        assert await streams.select(iter([client]), {client}) == ([client], [client])
        await client.close()
        assert await streams.select([client], [client]) == ([client], [client])


@awaited
async def test_strangers() -> None:
    async with listening() as listener:
        with pytest.raises(OptionError, match="5 cannot be read from; give one of Stream, Listener, Master"):
            await streams.select([5])  # type: ignore[list-item]
        with pytest.raises(OptionError, match="cannot be written to; give one of Stream, Pending, Master"):
            await streams.select([], [listener])  # type: ignore[list-item]
        with pytest.raises(OptionError, match="timeout is 'x'"):
            await streams.select([listener], timeout="x")  # type: ignore[arg-type]


@everyDriver
@everyKind
@patient
async def test_waits(driver: Driver, kind: str) -> None:
    """For bytes, for the end, for room, and for who wants to be accepted."""
    async with listening(kind=kind) as listener, talking(kind=kind) as (client, server):
        choosing = Running(driver, streams.select([listener, client, server], timeout=1000))
        await turns(2)
        assert not choosing.done.called
        await server.write(b"x")
        assert await choosing.done == ([client], [])
        assert await client.read() == b"x"
        choosing = Running(driver, streams.select([listener, client], timeout=-1))
        other = await connecting(listener)
        assert await choosing.done == ([listener], [])
        third = await listener.accept()
        choosing = Running(driver, streams.select([client]))
        await turns(2)
        await server.end()
        assert await choosing.done == ([client], [])
        writing = Running(driver, client.write(BIG * 10))
        await turns(2)
        choosing = Running(driver, streams.select([], [client]))
        await turns(2)
        assert not choosing.done.called
        assert len(await server.readExactly(len(BIG) * 10)) == len(BIG) * 10
        assert await choosing.done == ([], [client])
        await writing.done
        for stream in (other, third):
            await stream.close()


@everyDriver
@patient
async def test_nothingIsLeft(driver: Driver) -> None:
    """After a time, a cancellation and an answer nobody watches any more."""
    async with talking() as (client, server):
        choosing = Running(driver, streams.select([client, server], [], 0.001))
        assert await choosing.done == ([], [])
        choosing = Running(driver, streams.select([client], [], 1000))
        await turns(2)
        assert client._connection._watchers
        choosing.cancel()
        await cancelled(choosing, driver)
        assert not client._connection._watchers


@onAsyncio
@patient
async def test_somebodyElseIsFaster() -> None:
    """asyncio resumes later: what the news was about may be gone by then. That is no end of the time."""
    async with talking() as (client, server):

        async def snatch() -> bytes:
            while not client.readable:
                await asyncio.sleep(0)
            return await client.read()

        snatching = Running("asyncio", snatch())
        choosing = Running("asyncio", streams.select([client], timeout=1000))
        await turns(3)
        await server.write(b"x")
        assert await snatching.done == b"x"
        await turns(3)
        assert not choosing.done.called
        await server.write(b"y")
        assert await choosing.done == ([client], [])


def test_newsThatIsNone() -> None:
    """Something has happened, and still nobody need not be waited for."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                writing = Running("twisted", client.write(BIG))
                choosing = Running("twisted", streams.select([], [client], timeout=5))
                await server.write(b"x")
                began = network.now
                assert await choosing.done == ([], [])
                assert network.now - began == 5
                writing.cancel()
                await cancelled(writing, "twisted")

        network.run(scenario)


def test_anAttempt() -> None:
    with MemoryNetwork() as network:
        network.link("client", "server").setFaults(Latency(5))

        async def scenario() -> None:
            async with listening(network) as listener:
                where = TcpTarget(network.host("server").address, listener.address.port or 0)
                pending = begin(network.host("client").reactor, where)
                assert await streams.select([], [pending], 1) == ([], [])
                assert await streams.select([listener], [pending]) == ([], [pending])
                client = pending.result()
                assert await streams.select([listener]) == ([listener], [])
                server = await listener.accept()
                await server.close()
                await client.close()

        network.run(scenario)


def test_masters() -> None:
    with MemoryNetwork() as network:
        network.link("client", "server").setFaults(Latency(5))

        async def scenario() -> None:
            server, client = (streams.tcp(network.host(name).reactor) for name in ("server", "client"))
            await server.bind("*", 80)
            await server.listen()
            client.setTimeout(1)
            with pytest.raises(streams.StillConnectingError):
                await client.connect(network.host("server").address, 80)
            assert await streams.select([server, client], [client]) == ([], [client])
            await client.connect(network.host("server").address, 80)
            assert await streams.select([server], [client]) == ([], [client])
            assert await streams.select([server, client]) == ([server], [])
            accepted = await server.accept()
            await accepted.write(b"x")
            assert await streams.select([server, client]) == ([client], [])
            await accepted.close()
            await client.close()
            await server.close()
            assert await streams.select([server], [client]) == ([server], [client])

        network.run(scenario)


@awaited
async def test_many() -> None:
    """There is no limit of 1024, and news of one stream costs what asking all of them costs."""
    reactor = theReactor()
    async with talking() as (client, server):
        others = [begin(reactor, Never()) for _ in range(2000)]
        choosing = Running("twisted", streams.select([client], others))
        await outcome(reactor, Deferred.fromCoroutine(turns(2)))
        await server.write(b"x")
        assert await outcome(reactor, choosing.done) == ([client], [])
        for one in others:
            one.close()
        await outcome(reactor, Deferred.fromCoroutine(until(lambda: all(one.writable for one in others))))


@implementer(IStreamClientEndpoint)
class Never:
    """An endpoint that never connects."""

    def connect(self, factory: object) -> Deferred[Any]:
        return Deferred()
