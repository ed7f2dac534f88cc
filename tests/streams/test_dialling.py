"""Connecting: to whatever has an address; in time, or later; and given up."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
from doors import patient
from drivers import Driver, Running, awaited, cancelled, everyDriver, onAsyncio, passesOnAsyncio, theReactor
from talks import Canceller, connecting, listening
from turning import turns, until
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from twisted_net import streams
from twisted_net.address import TcpTarget
from twisted_net.errors import AddressError, BusyError, ClosedError, NetError, OptionError, RefusedError, TimedOutError
from twisted_net.sansio.faults import Latency
from twisted_net.streams import Pending, StillConnectingError, Stream
from twisted_net.streams.dialling import begin
from twisted_net.testing.names import Name
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.waiting import loopOf

everyKind = pytest.mark.parametrize("kind", ["tcp", "unix"])


@everyKind
@awaited
async def test_connect(kind: str) -> None:
    async with listening(kind=kind) as listener:
        client = await streams.connect(str(listener.address))
        server = await listener.accept()
        await client.write(b"hello")
        assert await server.readExactly(5) == b"hello"
        assert client.address == listener.address
        await client.close()
        await server.close()


@awaited
async def test_how(tmp_path: Any) -> None:
    async with listening() as listener:
        port = listener.address.port
        assert port is not None
        target = TcpTarget("127.0.0.1", port)
        endpoint = TCP4ClientEndpoint(theReactor(), "127.0.0.1", port)
        for where in (target, endpoint, f"tcp:127.0.0.1:{port}"):
            async with await streams.connect(where, noDelay=True, bufferLimit=10, highWaterMark=20) as client:
                server = await listener.accept()
                skt = client.protocol.transport.socket
                assert skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert client.protocol.outlet.highWaterMark == 20
                assert client._connection.buffer.limit == 10
                await server.close()
        async with await streams.connect(target, localAddress=("127.0.0.1", 0), family=4, timeout=100) as client:
            assert client.localAddress is not None
            await (await listener.accept()).close()
        with pytest.raises(AddressError):
            await streams.connect(target, family=6)
        with pytest.raises(OptionError, match="timeout is 'soon'"):
            await streams.connect(target, timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(RefusedError):
        await streams.connect(target)
    with pytest.raises(AddressError, match=r"is UDP; streams are TCP or UNIX"):
        await streams.connect("udp:127.0.0.1:53")
    with pytest.raises(AddressError):
        await streams.connect("no address at all")
    with pytest.raises(NetError):
        await streams.connect(f"unix:{tmp_path}/nobody")


def test_theTimeIsUp() -> None:
    """The attempt goes on in error.pending, which can be waited for again, asked, watched, and closed."""
    with MemoryNetwork() as network:
        network.link("client", "server").setFaults(Latency(5))
        reactor = network.host("client").reactor

        async def scenario() -> None:
            async with listening(network) as listener:
                where = f"{network.host('server').address}:{listener.address.port}"
                began = network.now
                with pytest.raises(TimedOutError, match="no connection within 2 s; it is still being tried") as late:
                    await streams.connect(where, timeout=2, reactor=reactor)
                assert network.now - began == 2
                assert isinstance(late.value, StillConnectingError)
                pending = late.value.pending
                assert not pending.writable
                with pytest.raises(BusyError, match="the attempt goes on"):
                    pending.result()
                with pytest.raises(StillConnectingError) as again:
                    await pending.wait(1)
                assert again.value.pending is pending
                news: list[bool] = []

                def look() -> None:
                    news.append(pending.writable)

                pending.watch(look)
                both = [Running("twisted", pending.wait(-1)) for _ in range(2)]
                client = await both[0].done
                assert await both[1].done is client
                assert client is pending.result() is await pending.wait()
                await network.sleep(1)
                assert news == [True]
                pending.unwatch(look)
                server = await listener.accept()
                await client.close()
                await server.close()
                pending.close()
                pending.close()
                with pytest.raises(ClosedError):
                    pending.result()

        network.run(scenario)


def test_itFailsLater() -> None:
    with MemoryNetwork() as network:
        network.names["nobody"] = Name((), delay=5)
        reactor = network.reactor

        async def scenario() -> None:
            with pytest.raises(StillConnectingError) as late:
                await streams.connect("nobody:80", timeout=1, reactor=reactor)
            pending = late.value.pending
            raised: list[NetError] = []
            for _ in range(2):
                with pytest.raises(NetError) as never:
                    await pending.wait()
                assert never.value.code == "ENOTFOUND"
                raised.append(never.value)
            assert raised[0] is not raised[1]
            assert pending.writable
            pending.close()

        network.run(scenario)


def test_closedWhileItGoesOn() -> None:
    with MemoryNetwork() as network:
        network.names["nobody"] = Name((), delay=None)

        async def scenario() -> None:
            pending = begin(network.reactor, TcpTarget("nobody", 80))
            waiting = Running("twisted", pending.wait())
            pending.close()
            with pytest.raises(ClosedError, match="the attempt was closed"):
                await waiting.done
            assert pending.writable

        network.run(scenario)


def test_whoIsResumedCancelsTheOther() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                pending = begin(network.host("client").reactor, TcpTarget("server", listener.address.port or 0))
                others: list[Running] = []

                async def first() -> Stream:
                    stream = await pending.wait()
                    others[0].cancel()
                    return stream

                running = Running("twisted", first())
                others += [Running("twisted", pending.wait()) for _ in range(2)]
                client = await running.done
                await cancelled(others[0], "twisted")
                assert await others[1].done is client
                server = await listener.accept()
                await server.close()
                await client.close()

        network.run(scenario)


def test_cancelledAtEveryWait() -> None:
    """Who is cancelled as he connects leaves nothing open, and may connect again."""
    for later in (1, 2, 3):
        at = 0
        while True:
            with MemoryNetwork() as network:
                network.link("client", "server").setFaults(Latency(0.01))
                canceller = Canceller(network.reactor, at, later)

                async def scenario(network: MemoryNetwork = network, canceller: Canceller = canceller) -> None:
                    async with listening(network) as listener:
                        client = await canceller(connecting, listener, network)
                        await client.write(b"the one that stays\n")
                        while True:
                            server = await listener.accept()
                            try:
                                assert await server.readLine() == b"the one that stays"
                                break
                            except NetError:
                                await server.close()
                        await server.close()
                        await client.close()

                network.run(scenario)
                if canceller.waits <= at:
                    break
            at += 1
        assert at > 0


# Endpoints that take their time


@implementer(IStreamClientEndpoint)
class Stubborn:
    """An endpoint that connects when it is cancelled, or told to."""

    def __init__(self, port: int, stubborn: bool = True) -> None:
        self.port = port
        self.answer: Deferred[Any] = Deferred(self._cancelled if stubborn else None)
        self.protocol: Any = None

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        deferred.callback(self.protocol)

    def connect(self, factory: Any) -> Deferred[Any]:
        self.protocol = factory.buildProtocol(None)
        connectProtocol(TCP4ClientEndpoint(theReactor(), "127.0.0.1", self.port), self.protocol)
        return self.answer


@everyDriver
@patient
async def test_cancelledTooLate(driver: Driver) -> None:
    """The connection that comes of it all the same is aborted."""
    async with listening() as listener:
        endpoint = Stubborn(listener.address.port or 0)
        running = Running(driver, streams.connect(endpoint))
        server = await listener.accept()
        await until(lambda: endpoint.protocol.transport)
        running.cancel()
        await cancelled(running, driver)
        with pytest.raises(NetError):
            await server.readExactly(1)
        await server.close()


@onAsyncio
@patient
async def test_cancelledWhenItStands() -> None:
    """asyncio cancels between the connection's coming and the resumption of who asked for it."""
    async with listening() as listener:
        endpoint = Stubborn(listener.address.port or 0, stubborn=False)
        running = Running("asyncio", streams.connect(endpoint))
        server = await listener.accept()
        await until(lambda: endpoint.protocol.transport)
        endpoint.answer.callback(endpoint.protocol)
        running.cancel()
        await cancelled(running, "asyncio")
        with pytest.raises(NetError):
            await server.readExactly(1)
        await server.close()


@patient
async def test_forgotten() -> None:
    """An attempt that nobody asks about any more is closed with its connection, and that is told."""
    async with listening() as listener:
        pending: Pending | None = begin(theReactor(), TcpTarget("127.0.0.1", listener.address.port or 0))
        server = await listener.accept()
        await until(lambda: pending and pending.writable)
        await turns()
        with pytest.warns(ResourceWarning, match="was never closed"):  # noqa: PT031
            pending = None
            gc.collect()
        assert await server.readAll() == b""
        await server.close()


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="this is that run")
def test_onAsyncio() -> None:
    passesOnAsyncio(__file__)
