"""Stream: every verb over TCP and UNIX sockets by each driver, and a model of it under whatever order of events."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from doors import patient
from drivers import Running, awaited, cancelled, theReactor
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from talks import connecting, listening, talking
from turning import turns, until
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, SSL4ServerEndpoint
from twisted.python.failure import Failure

from twisted_net import net, streams
from twisted_net.errors import (
    BusyError,
    ClosedError,
    EndError,
    LimitError,
    NetError,
    OptionError,
    TimedOutError,
    WriteError,
)
from twisted_net.sansio.faults import Latency, Reset
from twisted_net.streams import Credentials, Stream
from twisted_net.streams.connection import Connection, Patience
from twisted_net.streams.stream import patienceWith
from twisted_net.testing.explore import explore
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.waiting import Waiter, outcome

BIG = bytes(range(256)) * 1200

everyKind = pytest.mark.parametrize("kind", ["tcp", "unix"])


# Reading


@everyKind
@awaited
async def test_read(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(b"hello, world")
        assert await client.read(5) == b"hello"
        assert await client.readExactly(2) == b", "
        assert await client.read() == b"world"
        assert await client.read(0) == b""
        assert await client.readExactly(0) == b""
        for read in (client.read, client.readExactly):
            with pytest.raises(OptionError, match="-1 bytes were asked for"):
                await read(-1)
        await server.end()
        assert await client.read() == b""
        assert await client.read() == b""


@everyKind
@awaited
async def test_lines(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(b"one\r\ntwo\n\r\r\n\nthe last")
        await server.end()
        assert [await client.readLine() for _ in range(4)] == [b"one", b"two", b"\r", b""]
        with pytest.raises(EndError) as ended:
            await client.readLine()
        assert ended.value.partial == b"the last"
        with pytest.raises(LimitError) as long:
            await client.readLine(3)
        assert long.value.partial == b"the last"
        assert await client.readUntil(b"e ") == b"the "
        with pytest.raises(OptionError, match="separator is empty"):
            await client.readUntil(b"")
        with pytest.raises(LimitError):
            await client.readUntil(b"t", 3)
        assert await client.readUntil(b"t", 4) == b"last"


@everyKind
@awaited
async def test_all(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(b"some of it")
        with pytest.raises(LimitError, match="more than 5 bytes came") as long:
            await client.readAll(5)
        assert long.value.partial == b"some of it"
        await server.write(b", and the rest")
        await server.end()
        assert await client.readAll(24) == b"some of it, and the rest"
        assert await client.readAll() == b""


@everyKind
@awaited
async def test_longerThanTheBuffer(kind: str) -> None:
    """Who waits for more than the buffer's limit gets it; a line may be long when its limit is."""
    line = b"x" * 10_000_000
    async with talking(kind=kind, bufferLimit=1000) as (client, server):
        writing = Running("twisted", server.write(line + b"\n"))
        assert await client.readLine(20_000_000) == line
        assert await outcome(client.reactor, writing.done) == len(line) + 1
        writing = Running("twisted", server.write(line))
        assert await client.receive(8_000_000) == line[:8_000_000]
        assert await client.readExactly(2_000_000) == line[8_000_000:]
        await outcome(client.reactor, writing.done)


@everyKind
@awaited
async def test_receive(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(b"a line\r\n12345678901234567890")
        await server.end()
        assert await client.receive(prefix=b"> ") == b"> a line"
        assert await client.receive(5, b"abc") == b"abc12"
        assert await client.receive(3, b"abcd") == b"abcd"
        assert await client.receive(0) == b""
        assert await client.receive(8) == b"34567890"
        assert await client.receive("*a", bytearray(b"-")) == b"-1234567890"
        assert await client.receive("*a") == b""
        for wrong in ("*x", -1, True, None, 1.5):
            with pytest.raises(OptionError, match=r'must be "\*l", "\*a" or a number'):
                await client.receive(wrong)  # type: ignore[arg-type]
        with pytest.raises(EndError):
            await client.receive()


@everyKind
@awaited
async def test_peekAndUnread(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        assert client.peek() == b""
        await server.write(b"abc")
        assert await client.read(1) == b"a"
        assert client.peek() == b"bc"
        assert client.peek(1) == b"b"
        client.unread(b"a")
        client.unread(b"--")
        assert await client.readExactly(5) == b"--abc"
        client.abort()
        with pytest.raises(ClosedError):
            client.peek()
        with pytest.raises(ClosedError):
            client.unread(b"x")


@everyKind
@awaited
async def test_iterate(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(BIG[:60_000])
        await server.end()
        received = b""
        async for chunk in client:
            assert chunk
            received += chunk
        assert received == BIG[:60_000]


# Writing


@everyKind
@awaited
async def test_write(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        assert await client.write(b"abc") == 3
        assert await client.write(bytearray(b"def")) == 3
        assert await client.write(memoryview(b"ghi")) == 3
        assert await client.write(b"0123456789", 2) == 10
        assert await client.write(b"0123456789", 2, 4) == 4
        assert await client.write(b"0123456789", -1) == 10
        assert await client.write(b"0123", 4) == 4
        assert await client.write(b"") == 0
        await client.writeLines([b"x\n", bytearray(b"y\n"), b"", b"z\n"])
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                await client.write(wrong)  # type: ignore[arg-type]
        await client.end()
        assert await server.readAll() == b"abcdefghi23456789" + b"239" + b"x\ny\nz\n"


@everyKind
@awaited
async def test_send(kind: str) -> None:
    """The indices of LuaSocket's own manual: from 1, negative ones from the end, both ends included."""
    async with talking(kind=kind) as (client, server):
        text = b"0123456789"
        for i, j in [(1, -1), (2, 4), (-3, -2), (0, 3), (-100, 2), (9, 100), (5, 4), (3, -100), (11, 20)]:
            first = max(1, i if i >= 0 else len(text) + i + 1)
            last = min(len(text), j if j >= 0 else len(text) + j + 1)
            assert await client.send(text, i, j) == (last if first <= last else first - 1)
        await client.end()
        assert await server.readAll() == b"".join([text, b"123", b"78", b"012", b"01", b"89"])
        with pytest.raises(WriteError):
            await client.send(b"", 1, 0)


@everyKind
@awaited
async def test_writeGoesOn(kind: str) -> None:
    """error.sent is where to go on, over and over, until the last byte."""
    data = BIG * 10
    async with talking(kind=kind) as (client, server):
        client.setTimeout(0.001)
        received = b""
        sent = 7
        while sent < len(data):
            try:
                sent = await client.write(data, sent)
            except TimedOutError as error:
                now = error.sent
                assert_(now >= sent)
                sent = now
            received += await server.read(50_000)
        client.setTimeout(None)
        ending = Running("twisted", client.end())
        assert received + await server.readAll() == data[7:]
        await outcome(client.reactor, ending.done)


def assert_(condition: bool) -> None:
    assert condition


@everyKind
@awaited
async def test_endBothOrders(kind: str) -> None:
    for first in (0, 1):
        async with talking(kind=kind) as pair:
            one, other = pair[first], pair[1 - first]
            await one.write(b"question")
            await one.end()
            await one.end()
            with pytest.raises(WriteError, match="write before end"):
                await one.write(b"more")
            assert await other.readAll() == b"question"
            await other.write(b"answer")
            await other.end()
            assert await one.readAll() == b"answer"
            await one.close()
            await other.close()
            assert repr(one).startswith("<Stream closed ")


@everyKind
@awaited
async def test_shutdown(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        with pytest.raises(OptionError, match="how is 'read'"):
            await client.shutdown("read")  # type: ignore[arg-type]
        await client.shutdown("send")
        assert await server.read() == b""
        await server.write(b"one way")
        assert await client.readExactly(7) == b"one way"
        await client.shutdown("receive")
        assert await client.read() == b""
    async with talking(kind=kind) as (client, server):
        await client.write(b"last")
        await client.shutdown()
        assert await server.readAll() == b"last"
        assert await client.readAll() == b""


# Its end


@everyKind
@awaited
async def test_close(kind: str) -> None:
    """Everything written is sent first; reading is over; a second close is harmless."""
    async with talking(kind=kind) as (client, server):
        await server.write(b"never read")
        closing = Running("twisted", closedAfter(client))
        assert len(await server.readExactly(len(BIG))) == len(BIG)
        await outcome(client.reactor, closing.done)
        await client.close()
        assert client.getPeerName() is client.getSockName() is client.localAddress is None
        assert repr(client).startswith("<Stream closed ")


async def closedAfter(stream: Stream) -> None:
    writing = Running("twisted", stream.write(BIG))
    await stream.close()
    assert await writing.done == len(BIG)


def test_grace() -> None:
    """When its time is up, what is unsent is dropped, and the peer is told that something is missing."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            for options in ({"grace": 5}, {}):
                async with talking(network) as (client, server):
                    if not options:
                        client.setOption("linger", {"on": True, "timeout": 5})
                    writing = Running("twisted", client.write(BIG))
                    began = network.now
                    await client.close(**options)
                    assert network.now - began == 5
                    with pytest.raises(WriteError):
                        await writing.done
                    with pytest.raises(NetError):
                        await server.readAll()
                async with talking(network) as (client, server):
                    began = network.now
                    await server.close()
                    await client.close(**options)
                    assert network.now == began

        network.run(scenario)


@awaited
async def test_graceIsChecked() -> None:
    async with talking() as (client, _):
        with pytest.raises(OptionError, match="grace is 'soon'"):
            await client.close("soon")  # type: ignore[arg-type]
        await client.write(b"still open")


def test_closeThatIsCancelled() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                writing = Running("twisted", client.write(BIG))
                closing = Running("twisted", client.close())
                closing.cancel()
                await cancelled(closing, "twisted")
                assert await server.readAll() == BIG
                await writing.done
                await client.close()

        network.run(scenario)


@everyKind
@awaited
async def test_asAContext(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        async with client as same:
            assert same is client
            await client.write(b"flushed")
        assert await server.readAll() == b"flushed"
        with pytest.raises(ClosedError):
            await client.write(b"x")
    async with talking(kind=kind) as (client, server):
        with pytest.raises(ZeroDivisionError):
            async with client:
                raise ZeroDivisionError
        with pytest.raises(NetError) if kind == "tcp" else pytest.raises(EndError):
            await server.readLine()


@everyKind
@patient
async def test_forgotten(kind: str) -> None:
    """A stream that nobody holds any more is closed, and that is told (LUAS-7)."""
    async with listening(kind=kind) as listener:
        client = await connecting(listener)
        server = await listener.accept()
        await client.write(b"sent before")
        await turns()  # out of the call by which the connection was made
        with pytest.warns(ResourceWarning, match="<Stream open .*> was never closed"):  # noqa: PT031
            del client
            gc.collect()
        assert await server.readAll() == b"sent before"
        await server.close()


@patient
async def test_aReaderHoldsItsStream() -> None:
    """Who waits holds what he waits for."""
    async with listening() as listener:
        client = await connecting(listener)
        server = await listener.accept()
        reading = Running("twisted", client.readLine())
        del client
        gc.collect()
        await server.write(b"still here\n")
        with pytest.warns(ResourceWarning):  # noqa: PT031
            assert await reading.done == b"still here"
            del reading
            gc.collect()
            await turns()
            gc.collect()
        await server.close()


@everyKind
@awaited
async def test_nothingIsLeft(kind: str) -> None:
    """When a stream is gone, so is everything that stood behind it: no waiter, no connection, no protocol."""
    kinds = (Stream, Connection, SocketProtocol, Waiter)

    async def alive() -> list[str]:
        await turns_(3)
        gc.collect()
        return sorted(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))

    async def conversation() -> None:
        async with talking(kind=kind) as (client, server):
            writing = Running("twisted", client.write(BIG * 10))
            second = Running("twisted", client.write(b"never"))
            server.setTimeout(0.01)
            with pytest.raises(TimedOutError):
                await server.readExactly(len(BIG) * 20)
            for one in (writing, second):
                one.cancel()
                one.done.addErrback(lambda failure: None)
            await streams.select([server], [client], 0.01)

    before = await alive()
    for _ in range(3):
        await conversation()
    assert await alive() == before


def turns_(count: int) -> Any:
    """As `turns`, for every driver."""
    return outcome(theReactor(), Deferred.fromCoroutine(turns(count)))


def test_madeByHalf() -> None:
    """One that failed to be made has nothing to close."""
    stream = Stream.__new__(Stream)
    del stream
    gc.collect()


# How, and who


@everyKind
@awaited
async def test_addresses(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        assert client.address == client.getPeerName() == server.localAddress == server.getSockName()
        assert repr(client) == f"<Stream open {client.address}>"
        assert client.address.family == ("IPv4" if kind == "tcp" else "unix")
        if kind == "tcp":
            assert server.address == client.localAddress
        who = server.peerCredentials
        assert who == (None if kind == "tcp" else Credentials(os.getpid(), os.getuid(), os.getgid()))
        assert client.reactor is theReactor()
        server.abort()
        await server.close()
        assert server.peerCredentials is None


@everyKind
@awaited
async def test_options(kind: str) -> None:
    async with talking(kind=kind) as (client, _):
        client.setOption("keepalive")
        client.setOption("tcp-nodelay", True)
        client.setOption("reuseaddr", False)
        if kind == "tcp":
            skt = client.protocol.transport.socket
            assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        with pytest.raises(OptionError, match="'colour' is unknown"):
            client.setOption("colour", "red")
        await client.close()
        with pytest.raises(ClosedError):
            client.setOption("keepalive")


@everyKind
@awaited
async def test_stats(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await client.write(b"12345")
        await server.readExactly(5)
        await server.write(b"123")
        await client.readExactly(3)
        assert client.getStats()[:2] == server.getStats()[1::-1] == (3, 5)
        client.setStats(received=100)
        client.setStats(sent=200, age=1000.0)
        await client.write(b"6")
        await server.readExactly(1)
        received, sent, age = client.getStats()
        assert (received, sent) == (100, 201)
        assert 1000 <= age < 1100
        await client.close()
        assert client.getStats().sent == 201
        with pytest.raises(ClosedError):
            client.setStats(1)


def test_patienceWith() -> None:
    none = patienceWith(Patience(), None, "b")
    assert patienceWith(none, 5, "b") == (5, None)
    assert patienceWith(patienceWith(none, 5, "b"), 7, "t") == (5, 7)
    assert patienceWith(patienceWith(none, 5, "b"), -1, "b") == (None, None)
    with pytest.raises(OptionError, match="mode is 'x'"):
        patienceWith(none, 5, "x")
    with pytest.raises(OptionError, match="seconds is 'x'"):
        patienceWith(none, "x", "b")  # type: ignore[arg-type]


@everyKind
@awaited
async def test_setTimeout(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        for mode in ("b", "t"):
            client.setTimeout(0.01, mode)
            with pytest.raises(TimedOutError):
                await client.read()
            client.setTimeout(-1, mode)
        await server.write(b"x")
        assert await client.read() == b"x"
        await client.close()
        with pytest.raises(ClosedError):
            client.setTimeout(1)


def test_toldInMidRead() -> None:
    """After a partial result, and with the peer paused, a plain read goes on as ever."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network, bufferLimit=8) as (client, server):
                client.setTimeout(1)
                await server.write(b"0123456789")
                with pytest.raises(LimitError) as told:
                    await client.readLine(5)
                client.setTimeout(None)
                assert await client.read(2) == b"01"
                # The partial result is no longer what is here, so as a prefix it is only a prefix.
                assert await client.receive(12, told.value.partial) == b"012345678923"
                reading = Running("twisted", client.read())
                assert await reading.done == b"456789"

        network.run(scenario)


def test_awokenForNothing() -> None:
    """A reader that is woken by what is none of its news goes on waiting."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                reading = Running("twisted", client.read())
                client._connection._tellReader()
                assert not reading.done.called
                await server.write(b"x")
                assert await reading.done == b"x"
                reading = Running("twisted", client.read())
                client.abort()
                with pytest.raises(ClosedError):
                    await reading.done

        network.run(scenario)


# Over TLS


@pytest.mark.tls
@awaited
async def test_overTls() -> None:
    """By endpoints: the same verbs, but for the half-close that TLS transports of Twisted's have not."""
    reactor = theReactor()
    signed = selfSigned()
    async with await streams.listen(SSL4ServerEndpoint(reactor, 0, signed.forServer(), interface="127.0.0.1")) as where:
        port = where.address.port or 0
        client = await streams.connect(SSL4ClientEndpoint(reactor, "127.0.0.1", port, signed.forClient()))
        server = await where.accept()
        writing = Running("twisted", client.write(b"line\n" + BIG))
        assert await server.readLine() == b"line"
        assert await server.readExactly(len(BIG)) == BIG
        assert await outcome(reactor, writing.done) == len(BIG) + 5
        writing = Running("twisted", server.write(BIG * 20))
        await turns_(5)
        writing.cancel()
        sent: int = (await outcome(reactor, Deferred.fromCoroutine(cancelled(writing, "twisted")))).sent  # type: ignore[attr-defined]
        assert 0 < sent < len(BIG) * 20
        assert await client.readExactly(sent) == (BIG * 20)[:sent]
        await server.write(b"the last")
        await server.close()
        assert await client.readAll() == b"the last"
        with pytest.raises(NetError):
            await client.write(b"x")
        await client.close()


# Given away, and taken over


@everyKind
@awaited
async def test_handOver(kind: str) -> None:
    async with talking(kind=kind) as (client, server):
        await server.write(b"first line\nsecond line\n")
        assert await client.readLine() == b"first line"
        protocol = client.handOver()
        for call in (client.read(), client.write(b"x")):
            with pytest.raises(ClosedError):
                await call
        await client.close()
        client.takeBack()
        assert client.protocol is protocol
        assert await client.readLine() == b"second line"
        assert (client.readable, client.writable) == (False, True)
        client.checkWhole("test")
        await client.end()
        with pytest.raises(WriteError, match="test: this side has ended"):
            client.checkWhole("test")


@patient
async def test_fromTheEventFaceAndBack() -> None:
    """What a socket had received and not delivered comes first here; and the other way round."""
    async with listening() as listener:
        client = net.createConnection(listener.address.port, "127.0.0.1")
        server = await listener.accept()
        connected: Deferred[None] = Deferred()
        client.on("connect", lambda: connected.callback(None))
        await connected
        client.write(b"from the socket\n")
        assert await server.readLine() == b"from the socket"
        client.pause()
        await server.write(b"kept\nfor later\n")
        await turns(20)
        stream = streams.wrap(client, bufferLimit=100)
        with pytest.raises(NetError):
            streams.wrap(client)
        assert await stream.readLine() == b"kept"
        await stream.write(b"from the stream\n")
        assert await server.readLine() == b"from the stream"
        back = net.Socket.over(stream.handOver())
        received = bytearray()
        back.on("data", received.extend)
        await until(lambda: bytes(received) == b"for later\n")
        await server.close()
        back.destroy()


def test_watch() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with talking(network) as (client, server):
                news: list[bool] = []

                def look() -> None:
                    news.append(client.readable)

                client.watch(look)
                await server.write(b"x")
                await network.sleep(1)
                client.unwatch(look)
                await server.write(b"x")
                await network.sleep(1)
                assert news == [True]

        network.run(scenario)


# In any order


def test_echoInEveryOrder() -> None:
    """Lines go there and back while the road is slow, and cut for a while."""

    async def scenario(network: MemoryNetwork) -> None:
        link = network.link("client", "server")
        link.setFaults(Latency(0.05, jitter=0.04))
        network.at(0.3, link.cut)
        network.at(1.5, link.heal)
        async with talking(network, bufferLimit=500) as (client, server):

            async def echo() -> None:
                async for chunk in server:
                    await server.write(chunk)
                await server.end()

            echoing = Running("twisted", echo())
            text = b"".join(b"line %d\r\n" % number for number in range(400))
            writing = Running("twisted", client.write(text))
            for number in range(400):
                assert await client.readLine() == b"line %d" % number
            assert await writing.done == len(text)
            await client.end()
            assert await client.readAll() == b""
            await echoing.done

    found = explore(scenario, range(300))
    assert found.steps > 300


def test_resetInEveryOrder() -> None:
    """Cut off after some bytes: what comes is whole up to there, and then there is an error, never an end."""

    async def scenario(network: MemoryNetwork) -> None:
        link = network.link("client", "server")
        async with talking(network) as (client, server):
            link.setFaults(Latency(0.01, jitter=0.01), Reset(at=100_000), towards="client")
            writing = Running("twisted", server.write(BIG))
            received = b""
            with suppress(NetError):
                while chunk := await client.read(30_000):
                    received += chunk
                pytest.fail("that was no end in good order")
            assert BIG.startswith(received)
            with suppress(NetError):  # all of it may be on the road before the road ends
                await writing.done

    explore(scenario, range(100))


# A model

SEPARATORS = st.sampled_from([b"\n", b"ab"])
TEXTS = st.text("ab\r\n", max_size=12).map(str.encode)
SIZES = st.integers(1, 12)


Finds = Callable[[bytes], bytes | None]


@dataclass
class Reading:
    """A read that was begun: what it takes of a row of bytes (None: it waits), and what it shows of that.

    *some*: it may take less, but not nothing.
    """

    running: Running
    finds: Finds
    shown: Callable[[bytes], bytes]
    some: bool


class Model(RuleBasedStateMachine):
    """What a stream must be, in a few lines: a row of bytes, and whether that is all."""

    pump: Callable[[], None]
    client: Stream
    server: Stream

    def begin(self, client: Stream, server: Stream, pump: Callable[[], None]) -> None:
        self.client, self.server, self.pump = client, server, pump
        self.incoming = b""
        self.peerEnded = False
        self.outgoing = b""
        self.read = b""  # by the peer
        self.ended = False
        self.reading: Reading | None = None
        self.writing: tuple[Running, bytes] | None = None

    # What the peer does

    @precondition(lambda self: not self.peerEnded)
    @rule(data=TEXTS)
    def peerWrites(self, data: bytes) -> None:
        self.server.protocol.write(data)
        self.incoming += data

    @precondition(lambda self: not self.peerEnded)
    @rule()
    def peerEnds(self) -> None:
        self.server.protocol.end()
        self.peerEnded = True

    @rule(n=st.sampled_from([1, 100, 100_000]))
    def peerReads(self, n: int) -> None:
        if self.server.peek(1):
            self.read += Deferred.fromCoroutine(self.server.read(n)).result  # type: ignore[operator]

    @rule()
    def turn(self) -> None:
        self.pump()

    # Reading

    def begins(self, coroutine: Any, finds: Finds, shown: Callable[[bytes], bytes] = bytes, some: bool = False) -> None:
        running = Running("twisted", coroutine)
        if self.reading is not None:
            assert isinstance(errorOf(running), BusyError)
        else:
            self.reading = Reading(running, finds, shown, some)
            self.look()

    @rule(n=SIZES)
    def reads(self, n: int) -> None:
        self.begins(self.client.read(n), lambda row: row[:n] or (b"" if self.peerEnded else None), some=True)

    @rule(n=SIZES)
    def readsExactly(self, n: int) -> None:
        self.begins(self.client.readExactly(n), lambda row: row[:n] if len(row) >= n else None)

    @rule()
    def readsALine(self) -> None:
        self.begins(
            self.client.readLine(),
            lambda row: found(row, b"\n"),
            lambda line: line.removesuffix(b"\n").removesuffix(b"\r"),
        )

    @rule(separator=SEPARATORS)
    def readsUntil(self, separator: bytes) -> None:
        self.begins(self.client.readUntil(separator), lambda row: found(row, separator))

    @rule()
    def readsAll(self) -> None:
        self.begins(self.client.readAll(), lambda row: row if self.peerEnded else None)

    @precondition(lambda self: self.reading is not None)
    @rule()
    def cancelsReading(self) -> None:
        self.reading.running.cancel()  # type: ignore[union-attr]
        self.look()

    @rule(data=TEXTS)
    def unreads(self, data: bytes) -> None:
        if self.reading is not None:
            with pytest.raises(BusyError):
                self.client.unread(data)
        else:
            self.client.unread(data)
            self.incoming = data + self.incoming

    @rule(seconds=st.sampled_from([None, 0.004]), mode=st.sampled_from(["b", "t"]))
    def setsTimeout(self, seconds: float | None, mode: Any) -> None:
        self.client.setTimeout(seconds, mode)

    @invariant()
    def look(self) -> None:
        """What has come of what was begun."""
        if not hasattr(self, "client"):
            return
        reading = self.reading
        if reading is not None and reading.running.done.called:
            self.reading = None
            self.check(reading)
        assert self.incoming.startswith(self.client.peek())
        if self.writing is not None and self.writing[0].done.called:
            running, data = self.writing
            self.writing = None
            self.outgoing += data[: sentOf(running, data)]
        assert self.outgoing.startswith(self.read) or self.writing is not None

    def check(self, reading: Reading) -> None:
        error = errorOf(reading.running)
        row = reading.finds(self.incoming)
        if error is None:
            piece: Any = reading.running.done.result
            assert row is not None
            if reading.some and piece:
                row = row[: len(piece)]
            assert piece == reading.shown(row)
            self.incoming = self.incoming[len(row) :]
        elif isinstance(error, EndError):
            assert self.peerEnded
            assert row is None
            assert error.partial == self.incoming
        elif isinstance(error, TimedOutError):
            assert self.incoming.startswith(error.partial)
        else:
            assert isinstance(error, CancelledError)

    # Writing

    @precondition(lambda self: self.writing is None and not self.ended)
    @rule(size=st.sampled_from([0, 1, 1000, 200_000]))
    def writes(self, size: int) -> None:
        start = len(self.outgoing) % 251
        data = (bytes(range(251)) * (size // 251 + 2))[start : start + size]
        self.writing = Running("twisted", self.client.write(data)), data
        self.look()

    @precondition(lambda self: self.writing is not None)
    @rule()
    def cancelsWriting(self) -> None:
        self.writing[0].cancel()  # type: ignore[index]
        self.look()

    @precondition(lambda self: self.writing is None and not self.ended)
    @rule()
    def ends(self) -> None:
        self.ended = True
        self.ending = Running("twisted", self.client.end())
        self.ending.done.addErrback(lambda failure: failure.trap(TimedOutError) and None)

    # Its end

    def conclude(self) -> None:
        """Everything goes to its end, and is counted."""
        if not hasattr(self, "client"):
            return
        if self.reading is not None:
            self.reading.running.cancel()
            self.look()
        self.client.setTimeout(None, "b")
        self.client.setTimeout(None, "t")
        if not self.peerEnded:
            self.server.protocol.write(b"END")
            self.incoming += b"END"
            self.server.protocol.end()
        rest = Running("twisted", self.client.readAll())
        others = Running("twisted", self.server.readAll())
        while self.writing is not None:
            self.pump()
            self.look()
        if not self.ended:
            Running("twisted", self.client.end())
        while not (rest.done.called and others.done.called):
            self.pump()
        assert rest.done.result == self.incoming
        assert self.read + others.done.result == self.outgoing  # type: ignore[operator]


def found(row: bytes, separator: bytes) -> bytes | None:
    head, middle, _ = row.partition(separator)
    return head + middle if middle else None


def errorOf(running: Running) -> Any:
    """What it has raised; None when it has not."""
    outcome: Any = running.done.result
    if not isinstance(outcome, Failure):
        return None
    running.done.addErrback(lambda failure: failure.value)
    return outcome.value


def sentOf(running: Running, data: bytes) -> int:
    error = errorOf(running)
    if error is None:
        assert running.done.result == len(data)
        return len(data)
    assert isinstance(error, CancelledError | TimedOutError)
    sent: int = error.sent  # type: ignore[union-attr]
    assert 0 <= sent <= len(data)
    return sent


class InMemory(Model):
    """On a network that cuts and delays by chance."""

    @initialize(seed=st.none() | st.integers(0, 1000), slow=st.booleans())
    def connects(self, seed: int | None, slow: bool) -> None:
        self.network = MemoryNetwork(seed)
        self.context = talking(self.network, bufferLimit=16)
        client, server = self.network.run(self.context.__aenter__)
        if slow:
            self.network.link("client", "server").setFaults(Latency(0.003, jitter=0.002))
        self.begin(client, server, lambda: self.network.advance(0.005))

    def teardown(self) -> None:
        if hasattr(self, "network"):
            self.conclude()
            self.network.run(lambda: self.context.__aexit__(None, None, None))
            self.network.close()


class OnTheLoopback(Model):
    """Over TCP, by the reactor of this run."""

    @initialize()
    def connects(self) -> None:
        self.context = talking(bufferLimit=16)
        client, server = pytest_twisted.blockon(Deferred.fromCoroutine(self.context.__aenter__()))
        self.begin(client, server, lambda: pytest_twisted.blockon(Deferred.fromCoroutine(turns(2))))

    def teardown(self) -> None:
        if hasattr(self, "context"):
            self.conclude()
            pytest_twisted.blockon(Deferred.fromCoroutine(self.context.__aexit__(None, None, None)))


def test_modelInMemory() -> None:
    run_state_machine_as_test(InMemory, settings=settings(max_examples=100, stateful_step_count=40))


@pytest.fixture
def _playedOnTheLoopback() -> None:
    # As a fixture: pytest-twisted runs tests within the reactor, where nobody can wait for it.
    run_state_machine_as_test(OnTheLoopback, settings=settings(max_examples=30, stateful_step_count=40))


@pytest.mark.usefixtures("_playedOnTheLoopback")
def test_modelOnTheLoopback() -> None:
    """What it says was played."""


def test_moreThanTheEngineKeepsIsRefused() -> None:
    """With nothing sent of it, and the stream as it was."""

    async def scene() -> None:
        async with talking(network) as (client, server):
            client.protocol.outlet.limit = 2_000_000
            with pytest.raises(LimitError, match=r"2500000 bytes at once; at most 2000000 may be unsent") as caught:
                await client.write(bytes(3_000_000), 500_000)
            assert (caught.value.sent, caught.value.code) == (500_000, "ENOBUFS")
            sending = Deferred.fromCoroutine(client.write(bytes(2_000_000)))
            assert await server.readExactly(2_000_000) == bytes(2_000_000)
            assert await sending == 2_000_000

    with MemoryNetwork() as network:
        network.run(scene)
