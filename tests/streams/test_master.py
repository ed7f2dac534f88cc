"""The master object of LuaSocket: what it may become, and what it may not."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from doors import patient
from drivers import Driver, Running, awaited, cancelled, everyDriver, onAsyncio, passesOnAsyncio, theReactor
from turning import turns
from twisted.internet.defer import Deferred

from twisted_net import streams
from twisted_net.errors import AddressError, BusyError, ClosedError, NetError, OptionError, RefusedError, TimedOutError
from twisted_net.sansio.faults import Latency
from twisted_net.streams import Master, StillConnectingError
from twisted_net.testing.names import Name
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.waiting import loopOf, outcome


@awaited
async def test_serverAndClient() -> None:
    server, client = streams.tcp(), streams.tcp()
    assert server.reactor is theReactor()
    assert server.getSockName() is server.getPeerName() is None
    assert not server.readable
    assert not server.writable
    await server.bind("127.0.0.1", 0)
    where = server.getSockName()
    assert where is not None
    assert (where.address, where.family) == ("127.0.0.1", "IPv4")
    await server.listen(5)
    assert server.getSockName() == where
    assert server.getPeerName() is None
    await client.connect("127.0.0.1", where.port or 0)
    assert client.getPeerName() == where
    accepted = await server.accept()
    assert accepted.address == client.getSockName()
    assert await client.send(b"hello\n", 1, -1) == 6
    assert await accepted.receive() == b"hello"
    await accepted.send(b"12345")
    assert await client.receive(5, b"0") == b"01234"
    assert client.readable
    assert client.writable
    assert await client.receive(1) == b"5"
    await client.shutdown("send")
    assert await accepted.receive("*a") == b""
    await accepted.close()
    for master in (client, server):
        await master.close()
        await master.close()
        assert master.getSockName() is None
        assert master.readable
        assert master.writable


@awaited
async def test_unbound() -> None:
    """A server that was not bound listens at a free port of every IPv4 interface; a client may be bound before."""
    server, client = streams.tcp(), streams.tcp()
    await server.listen()
    where = server.getSockName()
    assert where is not None
    assert where.address == "0.0.0.0"
    await client.bind("127.0.0.1", 0)
    own = client.getSockName()
    await client.connect("127.0.0.1", where.port or 0)
    assert client.getSockName() == own
    accepted = await server.accept()
    for one in (accepted, client, server):
        await one.close()
    six = streams.tcp()
    await six.bind("::1", 0)
    where = six.getSockName()
    assert where is not None
    assert where.family == "IPv6"
    await six.close()
    await six.close()


@awaited
async def test_whatItIsNot() -> None:
    fresh = streams.tcp()
    with pytest.raises(NetError, match="no server; bind") as no:
        await fresh.accept()
    assert no.value.code == "EINVAL"
    for call in (fresh.send(b"x"), fresh.receive(), fresh.shutdown()):
        with pytest.raises(NetError, match="not connected; connect") as no:
            await call
        assert no.value.code == "ENOTCONN"
    for port in (-1, 65536):
        with pytest.raises(AddressError):
            await fresh.bind("*", port)
    for port in (0, 65536):
        with pytest.raises(AddressError):
            await fresh.connect("127.0.0.1", port)
    await fresh.bind("127.0.0.1", 0)
    with pytest.raises(BusyError, match="is bound to 127"):
        await fresh.bind("127.0.0.1", 0)
    with pytest.raises(OptionError):
        fresh.setTimeout("x")  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        fresh.setOption("colour")
    await fresh.listen()
    for call in (fresh.bind("*", 0), fresh.listen(), fresh.connect("127.0.0.1", 1)):
        with pytest.raises(NetError, match="is a server already") as no:
            await call
        assert no.value.code == "EISCONN"
    where = fresh.getSockName()
    assert where is not None
    client = streams.tcp()
    await client.connect("127.0.0.1", where.port or 0)
    with pytest.raises(NetError, match="is a client already"):
        await client.listen()
    accepted = await fresh.accept()
    for one in (accepted, client, fresh):
        await one.close()
    calls: list[Any] = [fresh.bind("*", 0), fresh.listen(), fresh.connect("127.0.0.1", 1), fresh.accept()]
    for last in (*calls, fresh.send(b"")):
        with pytest.raises(ClosedError, match="only close"):
            await last
    with pytest.raises(ClosedError):
        fresh.setTimeout(1)
    with pytest.raises(ClosedError):
        fresh.setOption("keepalive")
    with pytest.raises(ClosedError):
        fresh.setStats(1)


@awaited
async def test_refused() -> None:
    """One that could not be connected may be tried again."""
    nobody, client = streams.tcp(), streams.tcp()
    await nobody.bind("127.0.0.1", 0)
    where = nobody.getSockName()
    assert where is not None
    for _ in range(2):
        with pytest.raises(RefusedError):
            await client.connect("127.0.0.1", where.port or 0)
    await client.close()
    await nobody.close()


@awaited
async def test_whatWasSetBefore() -> None:
    """Times, options and statistics go along to what it becomes."""
    server, client = streams.tcp(), streams.tcp()
    for master in (server, client):
        master.setTimeout(0.01)
        master.setTimeout(100, "t")
        master.setOption("keepalive")
        master.setStats(received=1)
        master.setStats(sent=2, age=100.0)
        assert master.getStats()[:2] == (1, 2)
        assert 100 <= master.getStats().age < 110
    await server.bind("127.0.0.1", 0)
    await server.listen()
    with pytest.raises(TimedOutError):
        await server.accept()
    where = server.getSockName()
    assert where is not None
    client.setTimeout(None)
    await client.connect("127.0.0.1", where.port or 0)
    client.setTimeout(0.01)
    with pytest.raises(TimedOutError):
        await client.receive()
    server.setTimeout(-1)
    accepted = await server.accept()
    for stream in (accepted, client.stream):
        assert stream is not None
        assert stream.protocol.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    client.setOption("keepalive", False)
    assert client.stream is not None
    assert not client.stream.protocol.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await client.send(b"abc")
    await accepted.receive(3)
    assert client.getStats()[:2] == (1, 5)
    client.setStats(sent=0)
    assert client.getStats().sent == 0
    server.setStats(received=7)
    assert server.getStats()[:2] == (7, 2)
    for one in (accepted, client, server):
        await one.close()


def test_theTimeIsUp() -> None:
    with MemoryNetwork() as network:
        network.link("client", "server").setFaults(Latency(5))

        async def scenario() -> None:
            server, client = (streams.tcp(network.host(name).reactor) for name in ("server", "client"))
            await server.bind("*", 80)
            await server.listen()
            where = network.host("server").address
            client.setTimeout(2)
            client.setTimeout(1, "t")
            began = network.now
            with pytest.raises(StillConnectingError):
                await client.connect(where, 80)
            assert network.now - began == 1
            for call in (client.bind("*", 0), client.listen()):
                with pytest.raises(BusyError, match="this object is connecting"):
                    await call
            assert not client.writable
            with pytest.raises(StillConnectingError):
                await client.connect(where, 80)
            client.watch(print)
            client.unwatch(print)
            client.setTimeout(None)
            client.setTimeout(None, "t")
            both = [Running("twisted", client.connect(where, 80)) for _ in range(2)]
            for one in both:
                await one.done
            assert client.writable
            news: list[bool] = []

            def look() -> None:
                news.append(client.readable)

            for master in (client, server):
                master.watch(look)
            accepted = await server.accept()
            await accepted.write(b"x")
            assert await client.receive(1) == b"x"
            for master in (client, server):
                master.unwatch(look)
            assert news, "bytes came to the client"
            for end in (accepted, client, server):
                await end.close()

        network.run(scenario)


def test_closedWhileItConnects() -> None:
    with MemoryNetwork() as network:
        network.names["nobody"] = Name((), delay=None)

        async def scenario() -> None:
            client = streams.tcp(network.reactor)
            running = Running("twisted", client.connect("nobody", 80))
            await client.close()
            with pytest.raises(ClosedError):
                await running.done

        network.run(scenario)


def test_closedWhileItBinds() -> None:
    """The name is found too late: the socket is not kept."""
    with MemoryNetwork() as network:
        network.names["me"] = Name(("127.0.0.1",), delay=5)

        async def scenario() -> None:
            master = streams.tcp(network.reactor)
            running = Running("twisted", master.bind("me", 80))
            await network.sleep(1)
            await master.close()
            with pytest.raises(ClosedError, match="bind"):
                await running.done

        network.run(scenario)


@everyDriver
@patient
async def test_connectingIsCancelled(driver: Driver) -> None:
    """The attempt goes on, as after a timeout: connecting again tells how it has ended."""
    server, client = streams.tcp(), streams.tcp()
    await server.bind("127.0.0.1", 0)
    await server.listen()
    where = server.getSockName()
    assert where is not None
    running = Running(driver, client.connect("127.0.0.1", where.port or 0))
    if driver == "asyncio":
        await turns(1)
    running.cancel()
    await cancelled(running, driver)
    await client.connect("127.0.0.1", where.port or 0)
    accepted = await server.accept()
    for one in (accepted, client, server):
        await one.close()


@onAsyncio
@patient
async def test_bindingIsCancelledWhenItIsDone() -> None:
    """asyncio cancels between the result and the resumption of who asked for it; the socket is this object's."""
    master = Master(theReactor())
    looking: Deferred[Any] = Deferred()
    running = Running("asyncio", bindLater(master, looking))
    await turns(2)
    looking.callback(None)
    running.cancel()
    await cancelled(running, "asyncio")
    assert master.getSockName() is None
    await master.bind("127.0.0.1", 0)
    await master.close()


async def bindLater(master: Master, looking: Deferred[Any]) -> None:
    await outcome(master.reactor, looking)
    await master.bind("127.0.0.1", 0)


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="this is that run")
def test_onAsyncio() -> None:
    passesOnAsyncio(__file__)
