"""Lune's manual, sentence by sentence, from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from drivers import awaited, theReactor
from logs import LoggedErrors, text
from strangers import ifIPv6
from turning import PATIENCE
from twisted.internet.defer import Deferred

from twisted_net import streams, udp
from twisted_net.errors import BusyError, ClosedError, NetError, RefusedError, TimedOutError
from twisted_net.streams import Listener, Stream
from twisted_net.wire.waiting import outcome

# TCP, and UNIX sockets where it applies; by each driver

PLENTY = os.urandom(20_000_000)
"""More bytes than the kernel, the transport and the high-water marks of both ends hold together."""


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to listen."""
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path / 'x.sock'}"


async def said(listener: Listener, data: bytes = b"") -> bytes:
    """What a client that sends *data* and ends is answered until the end."""
    async with await streams.connect(str(listener.address)) as client:
        writing = Deferred.fromCoroutine(client.write(data))
        writing.addCallback(lambda index: Deferred.fromCoroutine(client.end()))
        answer = await client.readAll()
        await outcome(client.reactor, writing)
        return answer


@pytest.mark.manual("LUNE-12")
@awaited
async def test_listen(place: str) -> None:
    async with await streams.listen("0.0.0.0:0") as server:
        assert server.address.address == "0.0.0.0"
        assert server.address.port
        async with await streams.connect(f"127.0.0.1:{server.address.port}"), await server.accept():
            pass
    async with await streams.listen(place) as server:
        with pytest.raises(NetError) as caught:
            await streams.listen(str(server.address))
        assert caught.value.code == "EADDRINUSE"


@pytest.mark.manual("LUNE-13")
@awaited
async def test_accept(place: str) -> None:
    async with await streams.listen(place) as server:
        for _ in range(3):
            async with await streams.connect(str(server.address)) as client, await server.accept() as conn:
                assert conn.address == client.localAddress, "it is the peer's"
                assert client.address == server.address


@pytest.mark.manual("LUNE-14")
@awaited
async def test_readWriteClose(place: str) -> None:
    async with await streams.listen(place) as server:
        client = await streams.connect(str(server.address))
        conn = await server.accept()
        await client.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await conn.read(1024) == b"GET / HTTP/1.1\r\n\r\n"
        assert await conn.write(b"HTTP/1.1 200 OK\r\n\r\nHello!") == 25
        await conn.close()
        assert await client.read(8) == b"HTTP/1.1", "not more than was asked for"
        assert await client.read(1024) == b" 200 OK\r\n\r\nHello!"
        await client.close()


@pytest.mark.manual("LUNE-14")
@awaited
async def test_writeSendsAll(place: str) -> None:
    """And close closes both ways when that is done."""

    async def sends(conn: Stream) -> None:
        assert await conn.write(PLENTY) == len(PLENTY)
        await conn.close()

    async with await streams.listen(place) as server:
        serving = Deferred.fromCoroutine(server.serve(sends))
        assert await said(server) == PLENTY
    await outcome(server.reactor, serving)


@pytest.mark.manual("LUNE-14")
@awaited
async def test_readAndWriteAtOnce(place: str) -> None:
    """Two coroutines may, and each way takes its own time; two that read may not."""
    async with (
        await streams.listen(place) as server,
        await streams.connect(str(server.address)) as client,
        await server.accept() as conn,
    ):
        reading = Deferred.fromCoroutine(client.readExactly(len(PLENTY)))
        with pytest.raises(BusyError, match="one coroutine"):
            await client.read(1)
        both = [Deferred.fromCoroutine(one.write(PLENTY)) for one in (client, conn)]
        assert await conn.readExactly(len(PLENTY)) == PLENTY
        assert await outcome(client.reactor, reading) == PLENTY
        for writing in both:
            await outcome(client.reactor, writing)


@pytest.mark.manual("LUNE-15")
@awaited
async def test_serve(place: str) -> None:
    """Each connection has a coroutine of its own: the first client is not waited for."""

    async def hello(conn: Stream) -> None:
        request = await conn.read(4096)
        await conn.write(b"Hello from Lune, " + request)
        await conn.close()

    async with await streams.listen(place) as server:
        serving = Deferred.fromCoroutine(server.serve(hello))
        async with await streams.connect(str(server.address)) as silent:
            assert await said(server, b"second") == b"Hello from Lune, second"
            await silent.write(b"first")
            assert await silent.readAll() == b"Hello from Lune, first"
    await outcome(server.reactor, serving)


class Oops(Exception):
    """What a handler raises."""


@pytest.mark.manual("LUNE-15")
@awaited
async def test_aHandlerThatRaises(place: str, loggedErrors: LoggedErrors) -> None:
    """It is logged, its stream is closed, and the loop goes on."""

    async def answers(conn: Stream) -> None:
        if await conn.readLine() == b"bad":
            raise Oops("bad")
        await conn.write(b"good")

    async with await streams.listen(place) as server:
        serving = Deferred.fromCoroutine(server.serve(answers))
        where = str(server.address)
        async with await streams.connect(where) as other, await streams.connect(where) as bad:
            await bad.write(b"bad\n")
            assert await streams.select([bad], [], PATIENCE) == ([bad], []), "it is closed"
            assert bad.peek() == b""
            assert await said(server, b"fine\n") == b"good"
            await other.write(b"fine\n")
            assert await other.readAll() == b"good", "who was there before goes on, too"
    await outcome(server.reactor, serving)
    (event,) = loggedErrors.flush(Oops)
    assert "the handler of " in text(event)


@pytest.mark.manual("LUNE-16")
@awaited
async def test_theEndReadsAsNothing(place: str) -> None:
    """The loop of the manual's echo server."""

    async def echo(conn: Stream) -> None:
        while True:
            data = await conn.read(1024)
            if not data:
                break
            await conn.write(data)
        assert await conn.read(1024) == b"", "and remains so"
        await conn.close()

    async with await streams.listen(place) as server:
        serving = Deferred.fromCoroutine(server.serve(echo))
        assert await said(server, PLENTY[:1_000_000]) == PLENTY[:1_000_000]
    await outcome(server.reactor, serving)


@pytest.mark.manual("LUNE-19")
@awaited
async def test_theListenersAddress(place: str) -> None:
    server = await streams.listen(place)
    address = server.address
    assert address.family == ("unix" if place.startswith("unix:") else "IPv4")
    assert address.address in place
    assert address.port != 0
    await server.close()
    assert server.address == address


# UDP, and UNIX datagrams where it applies; by each driver


@pytest.fixture(params=["udp4", *ifIPv6("udp6"), "unix"])
def spot(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to bind."""
    return {"udp4": "127.0.0.1:0", "udp6": "[::1]:0", "unix": f"unix:{tmp_path / 'x.sock'}"}[request.param]


@pytest.mark.manual("LUNE-1")
@awaited
async def test_udpBind(spot: str) -> None:
    async with await udp.bind("0.0.0.0:0") as one:
        assert one.address.address == "0.0.0.0"
        assert one.address.port
    async with await udp.bind(spot) as one:
        with pytest.raises(NetError) as caught:
            await udp.bind(str(one.address))
        assert caught.value.code == "EADDRINUSE"


@pytest.mark.manual("LUNE-1")
@awaited
async def test_udpClose(spot: str) -> None:
    """The port is free at once, and whoever waits is told."""
    one = await udp.bind(spot)
    where = str(one.address)
    waiting = Deferred.fromCoroutine(one.recvFrom())
    one.close()
    async with await udp.bind(where) as again:
        assert str(again.address) == where
    with pytest.raises(ClosedError):
        await outcome(theReactor(), waiting)
    with pytest.raises(ClosedError):
        await one.recvFrom()


@pytest.mark.manual("LUNE-2")
@awaited
async def test_udpSendTo() -> None:
    async with await udp.bind("127.0.0.1:0") as one, await udp.bind("127.0.0.1:0") as other:
        assert await one.sendTo(b"Hello, World!", str(other.address)) == 13
        assert await one.sendTo(b"", f"localhost:{other.address.port}") == 0
        assert [(await other.recvFrom()).data for _ in range(2)] == [b"Hello, World!", b""]
        with pytest.raises(NetError, match="send at most 65,507") as caught:
            await one.sendTo(bytes(65_508), str(other.address))
        assert caught.value.code == "EMSGSIZE"


@pytest.mark.manual("LUNE-2")
@awaited
async def test_udpSendersWait(tmp_path: Path) -> None:
    """More than a receiver keeps: what has no room waits, and arrives in order."""
    place = f"unix:{tmp_path / 'x.sock'}"
    async with await udp.bind(place, queueLimit=1000) as one, await udp.bind(f"unix:{tmp_path / 'y.sock'}") as other:

        async def send() -> None:
            for number in range(500):
                await other.sendTo(b"%d" % number, place)

        sending = Deferred.fromCoroutine(send())
        assert [(await one.recvFrom()).data for _ in range(500)] == [b"%d" % number for number in range(500)]
        await outcome(theReactor(), sending)


@pytest.mark.manual("LUNE-3")
@awaited
async def test_udpRecvFrom(spot: str) -> None:
    async with await udp.bind(spot) as one, await udp.connect(str(one.address)) as other:
        longest = {"IPv4": 65_507, "IPv6": 65_527, "unix": 65_535}[one.address.family]
        for data in (b"hello", b"", b"x" * longest):
            await other.send(data)
            result = await one.recvFrom()
            assert (result.data, result.address, result.truncated) == (data, other.address, False)
        await other.send(b"x" * 1025)
        result = await one.recvFrom(1024)
        assert (result.data, result.truncated) == (b"x" * 1024, True)
        await other.send(b"last")
        async for result in one:
            assert result.data == b"last"
            break


@pytest.mark.manual("LUNE-3")
@awaited
async def test_udpQueue() -> None:
    async with await udp.bind("127.0.0.1:0", queueLimit=2) as one, await udp.connect(str(one.address)) as other:
        for number in range(5):
            await other.send(b"%d" % number)
        other.setTimeout(0.001)
        for _ in range(10_000):  # until the reactor has read them
            if one.received == 5:
                break
            with pytest.raises(TimedOutError):
                await other.recv()
        assert one.dropped == 3
        assert [(await one.recvFrom()).data for _ in range(2)] == [b"0", b"1"]


@pytest.mark.manual("LUNE-4")
@awaited
async def test_udpConnect(spot: str) -> None:
    async with await udp.bind(spot) as one, await udp.connect(str(one.address)) as other:
        await one.connect(str(other.address))
        assert await one.send(b"Hello") == 5
        assert await other.recv(1024) == b"Hello"
        await other.send(b"x" * 1025)
        assert await one.recv(1024) == b"x" * 1024
    async with await udp.bind("127.0.0.1:0") as one, await udp.bind("127.0.0.1:0") as other:
        await one.connect(str(other.address))
        async with await udp.bind("127.0.0.1:0") as stranger:
            await stranger.sendTo(b"not for you", one.address)
            await other.sendTo(b"for you", one.address)
            assert await one.recv() == b"for you"


@pytest.mark.manual("LUNE-4")
@awaited
async def test_udpRefused() -> None:
    other = await udp.bind("127.0.0.1:0")
    async with await udp.bind("127.0.0.1:0") as one:
        await one.connect(str(other.address))
        other.close()
        await one.send(b"Hello")
        with pytest.raises(RefusedError):
            await one.recv()
        async with await udp.bind(str(other.address)) as other:
            await one.send(b"Hello")
            assert (await other.recvFrom()).data == b"Hello"


@pytest.mark.manual("LUNE-5")
@awaited
async def test_udpAnswer(spot: str) -> None:
    async with await udp.bind(spot) as one, await udp.connect(str(one.address)) as other:
        await other.send(b"packet")
        result = await one.recvFrom(512)
        await one.sendTo(b"ACK", result.address)
        assert await other.recv() == b"ACK"
