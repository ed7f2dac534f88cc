"""LuaSocket's manual of TCP, sentence by sentence, from outside: over TCP and, where it applies, over UNIX sockets.

Each test is run by Twisted, and once more by asyncio where that runs the reactor.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket as sockets
import struct
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from drivers import awaited
from turning import PATIENCE
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_net import net, streams
from twisted_net.errors import (
    AddressError,
    ClosedError,
    EndError,
    LimitError,
    NetError,
    OptionError,
    TimedOutError,
    WriteError,
)
from twisted_net.streams import Master, Stream
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.waiting import outcome

LOCALHOST = "127.0.0.1"
BLOB = os.urandom(8 * 1024 * 1024)
"""More than both ends' kernels hold."""


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to listen."""
    return f"{LOCALHOST}:0" if request.param == "tcp" else f"unix:{tmp_path / 'x.sock'}"


@contextlib.asynccontextmanager
async def pair(place: str = f"{LOCALHOST}:0", **options: Any) -> AsyncIterator[tuple[Stream, Stream]]:
    """A connection: the client's stream, and the server's."""
    async with (
        await streams.listen(place, **options) as listener,
        await streams.connect(str(listener.address), **options) as client,
        await listener.accept() as server,
    ):
        yield client, server


@contextlib.contextmanager
def crowded() -> Iterator[sockets.socket]:
    """A server whose backlog, which has room for one, is full: who comes now waits until that one was accepted."""
    with (
        sockets.create_server((LOCALHOST, 0), backlog=0) as full,
        sockets.create_connection(full.getsockname()),
    ):
        full.settimeout(PATIENCE)
        yield full


async def turns(count: int = 20) -> None:
    """Let the reactor go round."""
    from twisted.internet import reactor

    for _ in range(count):
        await outcome(reactor, deferLater(reactor, 0))


async def code(waiting: Coroutine[Any, Any, object]) -> str:
    """The code of the error that it ends with."""
    with pytest.raises(NetError) as caught:
        await waiting
    return caught.value.code


async def late(waiting: Coroutine[Any, Any, object]) -> NetError:
    """The error of what ends because its time is up."""
    with pytest.raises(TimedOutError) as caught:
        await waiting
    return caught.value


@pytest.mark.manual("LUAS-1")
@awaited
async def test_aMasterIsNeitherYet() -> None:
    master = streams.tcp()
    assert isinstance(master, Master)
    assert await code(master.accept()) == "EINVAL"
    for call in (master.send(b"x"), master.receive(), master.shutdown()):
        assert await code(call) == "ENOTCONN"
    assert master.getSockName() is master.getPeerName() is None
    await master.close()


@pytest.mark.manual("LUAS-2")
@awaited
async def test_aMasterBecomesAServer() -> None:
    master = streams.tcp()
    await master.bind(LOCALHOST, 0)
    await master.listen(5)
    where = master.getSockName()
    assert where is not None
    async with await streams.connect(str(where)) as client:
        accepted = await master.accept()
        assert accepted.getPeerName() == client.getSockName()
        await accepted.close()
    for call in (master.bind(LOCALHOST, 0), master.listen(), master.connect(LOCALHOST, 1)):
        assert await code(call) == "EISCONN"
    assert await code(master.send(b"x")) == "ENOTCONN", "a server is no client"
    await master.close()


@pytest.mark.manual("LUAS-3")
@awaited
async def test_aMasterBecomesAClient() -> None:
    async with await streams.listen(f"{LOCALHOST}:0") as listener:
        master = streams.tcp()
        await master.connect(LOCALHOST, listener.address.port or 0)
        async with await listener.accept() as server:
            assert master.getPeerName() == listener.address
            assert master.getSockName() == server.getPeerName()
            master.setTimeout(10)
            assert await master.send(b"question\n") == 9
            assert await server.readLine() == b"question"
            await server.write(b"answer\r\n")
            assert await master.receive() == b"answer"
            await master.shutdown("send")
            assert await server.read() == b""
            assert await code(master.accept()) == "EINVAL", "a client is no server"
            assert await code(master.connect(LOCALHOST, 1)) == "EISCONN"
            await master.close()


@pytest.mark.manual("LUAS-12")
@awaited
async def test_bind() -> None:
    for name, expected in (("*", "0.0.0.0"), (LOCALHOST, LOCALHOST), ("localhost", LOCALHOST)):
        master = streams.tcp()
        await master.bind(name, 0)
        where = master.getSockName()
        assert where is not None
        assert where.address == expected or (name, where.address) == ("localhost", "::1")
        assert where.port, "the system has chosen one"
        await master.listen()
        other = streams.tcp()
        assert await code(other.bind(where.address, where.port)) == "EADDRINUSE"
        await other.close()
        await master.close()


@pytest.mark.manual("LUAS-12")
@awaited
async def test_portsThatCanBeBound() -> None:
    master = streams.tcp()
    for port in (-1, 65536):
        with pytest.raises(AddressError, match=str(port)):
            await master.bind(LOCALHOST, port)
    for port in (-1, 0, 65536):
        with pytest.raises(AddressError, match=str(port)):
            await master.connect(LOCALHOST, port)
    await master.bind(LOCALHOST, 0)
    with pytest.raises(NetError, match="is bound"):
        await master.bind(LOCALHOST, 0)
    await master.close()


@pytest.mark.manual("LUAS-13")
@awaited
async def test_theShortCuts(place: str) -> None:
    async with pair(place, bufferLimit=1000, highWaterMark=1000) as (client, server):
        await client.write(b"hello")
        assert await server.read() == b"hello"
    async with await streams.listen(f"{LOCALHOST}:0", backlog=1) as listener:
        where = str(listener.address)
        async with await streams.connect(where, localAddress=("127.0.0.2", 0)), await listener.accept() as server:
            assert server.address.address == "127.0.0.2"


@pytest.mark.manual("LUAS-13")
@awaited
async def test_aMasterConnectsFromWhereItIsBound() -> None:
    async with await streams.listen(f"{LOCALHOST}:0") as listener:
        master = streams.tcp()
        await master.bind("127.0.0.2", 0)
        bound = master.getSockName()
        await master.connect(LOCALHOST, listener.address.port or 0)
        async with await listener.accept() as server:
            assert server.address == bound == master.getSockName()
            await master.close()
    assert await code(streams.tcp().connect(LOCALHOST, listener.address.port or 0)) == "ECONNREFUSED"


@pytest.mark.manual("LUAS-13")
@awaited
async def test_aFullBacklogMakesClientsWait() -> None:
    """Linux drops their SYN; they ask again after a second."""
    master = streams.tcp()
    await master.bind(LOCALHOST, 0)
    await master.listen(1)
    where = str(master.getSockName())
    clients = [await streams.connect(where) for _ in range(3)]
    pending = (await late(streams.connect(where, timeout=0.2))).pending  # type: ignore[attr-defined]
    for _ in clients:
        accepted = await master.accept()
        await accepted.close()
    clients.append(await pending.wait())
    for client in clients:
        await client.close()
    await master.close()


@pytest.mark.manual("LUAS-6")
@awaited
async def test_closeFreesTheLocalAddress(place: str) -> None:
    async with await streams.listen(place) as listener:
        where = str(listener.address)
    async with await streams.listen(where), await streams.connect(where):
        pass
    master = streams.tcp()
    await master.bind(LOCALHOST, 0)
    bound = master.getSockName()
    await master.close()
    async with await streams.listen(str(bound)):
        pass


@pytest.mark.manual("LUAS-6")
@awaited
async def test_onlyCloseMayBeCalledAgain(place: str) -> None:
    listener = await streams.listen(place)
    stream = await streams.connect(str(listener.address))
    accepted = await listener.accept()
    master = streams.tcp()
    for one in (stream, accepted, listener, master):
        await one.close()
        await one.close()
        assert one.getSockName() is None
        for refused in (one.setTimeout, functools.partial(one.setOption, "keepalive"), one.setStats):
            with pytest.raises(ClosedError):
                refused(1)
    assert stream.getPeerName() is master.getPeerName() is None
    calls = [
        *(stream.read(), stream.readExactly(1), stream.readLine(), stream.readUntil(b"x"), stream.readAll()),
        *(stream.receive(), stream.write(b"x"), stream.send(b"x"), stream.end(), stream.shutdown("send")),
        *(listener.accept(), master.bind("*", 0), master.listen(), master.connect(LOCALHOST, 1), master.accept()),
        *(master.send(b"x"), master.receive(), master.shutdown()),
    ]
    for call in calls:
        assert await code(call) == "ERR_STREAM_DESTROYED"
    with pytest.raises(ClosedError):
        stream.peek()


def forget(kept: list[Stream]) -> None:
    """Let go of them, and have what nobody holds collected."""
    kept.clear()
    gc.collect()


@pytest.mark.manual("LUAS-7")
@awaited
async def test_aForgottenStreamIsClosed(place: str) -> None:
    async with await streams.listen(place) as listener:
        kept = [await streams.connect(str(listener.address))]
        async with await listener.accept() as peer:
            await turns(1)  # who has connected it still stands on the stack
            with pytest.warns(ResourceWarning, match="Stream .* was never closed"):
                forget(kept)
            assert await peer.read() == b""


@pytest.mark.manual("LUAS-15")
@awaited
async def test_acceptHasItsTime(place: str) -> None:
    async with await streams.listen(place) as listener:
        listener.setTimeout(0.01)
        assert (await late(listener.accept())).code == "ETIMEDOUT"
        listener.setTimeout(0.01, "t")
        await late(listener.accept())
        listener.setTimeout(None)
        listener.setTimeout(-1, "t")
        async with await streams.connect(str(listener.address)), await listener.accept():
            pass


@pytest.mark.manual("LUAS-16")
@awaited
async def test_acceptAfterSelect(place: str) -> None:
    """Who was reported and has left meanwhile is accepted all the same: there is nothing to block for."""
    async with await streams.listen(place) as listener:
        assert await streams.select([listener], [], 0) == ([], [])
        client = await streams.connect(str(listener.address))
        assert await streams.select([listener]) == ([listener], [])
        await client.close()
        async with await listener.accept() as accepted:
            assert await accepted.read() == b""


@pytest.mark.manual("LUAS-21")
@awaited
async def test_connectHasItsTime() -> None:
    with crowded() as full:
        host, port = full.getsockname()
        master = streams.tcp()
        master.setTimeout(0.05)
        assert (await late(master.connect(host, port))).code == "ETIMEDOUT"
        await master.close()
        error = await late(streams.connect(f"{host}:{port}", timeout=0.05))
        error.pending.close()  # type: ignore[attr-defined]


@pytest.mark.manual("LUAS-22")
@awaited
async def test_aLateConnectGoesOn() -> None:
    """select reports it when it stands."""
    with crowded() as full:
        host, port = full.getsockname()
        master = streams.tcp()
        master.setTimeout(0.05)
        pending = (await late(master.connect(host, port))).pending  # type: ignore[attr-defined]
        assert await streams.select([], [master, pending], 0) == ([], [])
        full.accept()[0].close()
        assert await streams.select([], [master, pending]) == ([], [master, pending])
        await master.connect(host, port)
        with full.accept()[0] as accepted:
            assert await master.send(b"here\n") == 5
            await turns()  # nobody sends while this one waits for the socket
            assert accepted.recv(10) == b"here\n"
        await master.close()


@pytest.mark.manual("LUAS-22")
@awaited
async def test_closingALateConnectEndsIt() -> None:
    with crowded() as full:
        host, port = full.getsockname()
        pending = (await late(streams.connect(f"{host}:{port}", timeout=0.05))).pending  # type: ignore[attr-defined]
        pending.close()
        assert await streams.select([], [pending]) == ([], [pending])
        with pytest.raises(ClosedError):
            pending.result()


@pytest.mark.manual("LUAS-27")
@awaited
async def test_sendReturnsTheLastIndex(place: str) -> None:
    """The indices are those of ``string.sub``."""
    data = b"0123456789"
    expected = [
        ((), 10, data),
        ((1,), 10, data),
        ((3, 5), 5, b"234"),
        ((3,), 10, b"23456789"),
        ((-3,), 10, b"789"),
        ((-3, -2), 9, b"78"),
        ((0, 2), 2, b"01"),
        ((-100, 2), 2, b"01"),
        ((2, 100), 10, b"123456789"),
        ((5, 4), 4, b""),
        ((5, 2), 4, b""),
    ]
    async with pair(place) as (client, server):
        for arguments, last, sent in expected:
            assert await client.send(data, *arguments) == last, arguments
            assert await server.readExactly(len(sent)) == sent, arguments
        assert await client.write(data, 2, 5) == 5
        assert await server.read() == b"234"


@pytest.mark.manual("LUAS-27")
@pytest.mark.parametrize("indices", ["ours", "lua"])
@awaited
async def test_whatWasNotSentIsSentAgain(place: str, indices: str) -> None:
    """An error's ``sent`` tells from where on: nothing is lost, nothing is doubled."""
    async with pair(place) as (client, server):
        client.setTimeout(0.02)
        sent = (await late(client.write(BLOB))).sent
        assert 0 < sent < len(BLOB)
        everything = Deferred.fromCoroutine(server.readExactly(len(BLOB)))
        while sent < len(BLOB):
            try:
                sent = await (client.write(BLOB, sent) if indices == "ours" else client.send(BLOB, sent + 1))
            except TimedOutError as timeout:
                sent = timeout.sent
        assert await outcome(client.reactor, everything) == BLOB


async def endless(client: Stream) -> None:
    """Send for ever."""
    while True:
        await client.send(b"x" * 1000, 11)


@pytest.mark.manual("LUAS-27")
@awaited
async def test_sendToWhoHasGone(place: str) -> None:
    async with pair(place) as (client, server):
        server.abort()
        with pytest.raises(NetError) as caught:
            await endless(client)
        assert caught.value.sent >= 10, "nothing before it, or what is with the kernel"


@pytest.mark.manual("LUAS-33")
@awaited
async def test_receivePatterns(place: str) -> None:
    async with pair(place) as (client, server):
        await client.write(b"one\r\ntwo\n\r\n\n\rfour\r\r\nblock rest")
        assert [await server.receive(), await server.receive("*l")] == [b"one", b"two"]
        assert [await server.receive("*l") for _ in range(3)] == [b"", b"", b"\rfour\r"], "one CR before LF is removed"
        assert await server.receive(5) == b"block"
        assert await server.receive(0) == b""
        await client.end()
        assert await server.receive("*a") == b" rest"
        assert await server.receive("*a") == b""
        for pattern in ("*x", "l", -1, 1.5, True, None):
            with pytest.raises(OptionError, match="pattern is"):
                await server.receive(pattern)  # type: ignore[arg-type]


@pytest.mark.manual("LUAS-33")
@awaited
async def test_blocksOfEverySize(place: str) -> None:
    """ASCII and binary, from 1 byte to 8 MB."""
    async with pair(place) as (client, server):
        for size in (1, 2, 1000, 65535, 65536, 65537, 1_000_000, len(BLOB)):
            for data in (BLOB[:size], b"a" * size):
                writing = Deferred.fromCoroutine(client.write(data))
                assert await server.receive(size) == data
                assert await outcome(client.reactor, writing) == size
        writing = Deferred.fromCoroutine(client.write(BLOB))
        writing.addCallback(lambda size: Deferred.fromCoroutine(client.end()))
        assert await server.receive("*a") == BLOB
        await outcome(client.reactor, writing)


@pytest.mark.manual("LUAS-33")
@awaited
async def test_everyReadThatLooksForAnEndHasALimit(place: str) -> None:
    """What has come stays, and can be read with a higher one."""
    async with pair(place) as (client, server):
        await client.write(b"x" * 70_000)
        for read in (server.receive(), server.readLine(), server.readUntil(b";")):
            with pytest.raises(LimitError, match="65536 bytes") as caught:
                await read
            assert caught.value.partial.startswith(b"x" * 65536)
        with pytest.raises(LimitError, match="more than 1000 bytes"):
            await server.readAll(1000)
        await client.write(b"y;z\n")
        assert await server.readUntil(b";", 100_000) == b"x" * 70_000 + b"y;"
        assert await server.readLine() == b"z"


@pytest.mark.manual("LUAS-34")
@awaited
async def test_thePrefixIsPutInFront(place: str) -> None:
    async with pair(place) as (client, server):
        await client.write(b"line\nfour more")
        assert await server.receive("*l", b"a ") == b"a line"
        assert await server.receive(6, b"fo") == b"fofour"
        await client.end()
        assert await server.receive("*a", b"and") == b"and more"


@pytest.mark.manual("LUAS-36")
@awaited
async def test_thePrefixCounts(place: str) -> None:
    async with pair(place) as (client, server):
        await client.write(b"cdef")
        assert await server.receive(3, b"ab") == b"abc"
        assert await server.receive(2, b"ab") == b"ab"
        assert await server.receive(1, b"ab") == b"ab", "nothing is taken"
        assert await server.receive(3) == b"def"


@pytest.mark.manual("LUAS-35")
@awaited
async def test_errorsComeWithThePartialResult(place: str) -> None:
    async with pair(place) as (client, server):
        server.setTimeout(0.02)
        await client.write(b"par")
        await streams.select([server])
        assert (await late(server.receive(10))).partial == b"par"
        assert (await late(server.receive("*l", b"prefix "))).partial == b"prefix par"
        assert (await late(server.receive("*a"))).partial == b"par"
        await client.write(b"tial")
        await client.end()
        server.setTimeout(None)
        for call in (server.receive(10), server.receive("*l")):
            with pytest.raises(EndError, match="ended") as caught:
                await call
            assert caught.value.partial == b"partial"
        assert await server.receive("*a") == b"partial"
        with pytest.raises(EndError) as caught:
            await server.receive("*l")
        assert caught.value.partial == b""


@pytest.mark.manual("LUAS-35")
@awaited
async def test_aRetryLosesNothing(place: str) -> None:
    """A plain one, and LuaSocket's, which hands the partial result back as the prefix."""
    async with pair(place) as (client, server):
        server.setTimeout(0.02)
        await client.write(b"one")
        await streams.select([server])
        await late(server.receive("*l"))
        await client.write(b" line\ntwo")
        assert await server.receive("*l") == b"one line"
        prefix = (await late(server.receive("*l"))).partial
        prefix = (await late(server.receive("*l", prefix))).partial
        assert prefix == b"two"
        await client.write(b" lines\n12345")
        assert await server.receive("*l", prefix) == b"two lines"
        prefix = (await late(server.receive(8))).partial
        await client.write(b"678")
        assert await server.receive(8, prefix) == b"12345678"


@pytest.mark.manual("LUAS-43")
@awaited
async def test_names(place: str) -> None:
    listener = await streams.listen(place)
    async with await streams.connect(str(listener.address)) as client, await listener.accept() as server:
        assert client.getPeerName() == server.getSockName() == listener.getSockName() == listener.address
        if listener.address.family == "IPv4":
            assert client.getSockName() == server.getPeerName()
            peer = client.getPeerName()
            assert peer is not None
            assert (peer.address, peer.port) == (LOCALHOST, listener.address.port)
    await listener.close()
    assert client.getPeerName() is client.getSockName() is listener.getSockName() is None


@pytest.mark.manual("LUAS-45")
@awaited
async def test_stats() -> None:
    from twisted.internet import reactor

    time = VirtualTime(reactor)
    listener = await streams.listen(f"{LOCALHOST}:0", reactor=time)
    master = streams.tcp(time)
    assert master.getStats() == (0, 0, 0.0)
    time.advance(10)
    assert master.getStats() == listener.getStats() == (0, 0, 10.0)
    await master.connect(LOCALHOST, listener.address.port or 0)
    async with await listener.accept() as server:
        await master.send(b"12345")
        await server.readExactly(5)
        await server.write(b"678")
        await master.receive(3)
        assert master.getStats() == (3, 5, 10.0), "a client is the master that it was"
        assert server.getStats() == (5, 3, 0.0)
        time.advance(2.5)
        for one in (master, server, listener):
            one.setStats(100, 200, 300)
            assert one.getStats() == (100, 200, 300.0)
        await master.send(b"12345")
        await server.readExactly(5)
        time.advance(1)
        assert master.getStats() == (100, 205, 301.0)
        assert server.getStats() == (105, 200, 301.0)
        assert listener.getStats() == (100, 200, 301.0)
        server.setStats(sent=1)
        assert server.getStats() == (105, 1, 301.0)
        await master.close()
        assert master.getStats()[:2] == (100, 205), "what was counted can still be asked"
    await listener.close()


def _option(stream: Stream, level: int, option: int) -> int:
    return int(stream.protocol.transport.getHandle().getsockopt(level, option))


@pytest.mark.manual("LUAS-47")
@awaited
async def test_options() -> None:
    numbers = {
        "keepalive": (sockets.SOL_SOCKET, sockets.SO_KEEPALIVE),
        "tcp-nodelay": (sockets.IPPROTO_TCP, sockets.TCP_NODELAY),
        "reuseaddr": (sockets.SOL_SOCKET, sockets.SO_REUSEADDR),
    }
    async with await streams.listen(f"{LOCALHOST}:0") as listener:
        for name in numbers:
            listener.setOption(name)
        master = streams.tcp()
        master.setOption("tcp-nodelay", True)
        await master.connect(LOCALHOST, listener.address.port or 0)
        client = master.stream
        assert client is not None
        assert _option(client, *numbers["tcp-nodelay"])
        assert not _option(client, *numbers["keepalive"])
        async with await listener.accept() as server:
            for number in numbers.values():
                assert _option(server, *number), "a server's are its clients'"
            for name, number in numbers.items():
                server.setOption(name, False)
                master.setOption(name)
                assert not _option(server, *number)
                assert _option(client, *number)
            wrong: list[tuple[str, Any]] = [
                *(("linger", value) for value in (True, 5, {"on": 1}, {"on": True}, {"on": True, "timeout": -1})),
                *(("keepalive", 1), ("nodelay", True), ("tcp-nodelay", "on")),
            ]
            for one in (master, server, listener):
                for name, value in wrong:
                    with pytest.raises(OptionError, match=name):
                        one.setOption(name, value)
        await master.close()


@pytest.mark.manual("LUAS-47")
@awaited
async def test_optionsOfTheEventFace() -> None:
    async with await streams.listen(f"{LOCALHOST}:0") as listener:
        socket = net.Socket()
        socket.setOption("tcp-nodelay", True).connect(listener.address.port, LOCALHOST)
        async with await listener.accept():
            await outcome(listener.reactor, socket.whenConnected())
            assert socket.transport.getHandle().getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
            with pytest.raises(OptionError, match="nodelay"):
                socket.setOption("nodelay", True)
            socket.destroy()
            await outcome(listener.reactor, socket.whenClosed())


@pytest.mark.manual("LUAS-47")
@pytest.mark.parametrize("seconds", [0, 0.05])
@awaited
async def test_linger(seconds: float) -> None:
    """close waits so long for what is unsent, and not longer."""
    async with await streams.listen(f"{LOCALHOST}:0") as listener:
        master = streams.tcp()
        master.setOption("linger", {"on": True, "timeout": seconds})
        master.setTimeout(0.01)
        await master.connect(LOCALHOST, listener.address.port or 0)
        async with await listener.accept() as server:
            client = master.stream
            assert client is not None
            linger = client.protocol.transport.getHandle().getsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, 8)
            assert struct.unpack("ii", linger) == (int(seconds == 0), 0)
            client.protocol.outlet.write(BLOB)
            await master.close()
            with pytest.raises(NetError) as caught:
                await server.readExactly(len(BLOB))
            assert caught.value.code == "ECONNRESET"
            assert len(caught.value.partial) < len(BLOB)


@pytest.mark.manual("LUAS-47")
@awaited
async def test_withoutLingerCloseWaits(place: str) -> None:
    async with pair(place) as (client, server):
        client.setOption("linger", {"on": False})
        client.protocol.outlet.write(BLOB)
        closing = Deferred.fromCoroutine(client.close())
        assert await server.readAll() == BLOB
        await outcome(client.reactor, closing)


@pytest.mark.manual("LUAS-51")
@awaited
async def test_timeoutsOfEachWaitAndOfTheCall() -> None:
    """By default there is none; "b" limits each wait, "t" the whole call; both may be in force."""
    from twisted.internet import reactor

    time = VirtualTime(reactor)

    async def slowly(client: Stream, server: Stream, **limits: float) -> bytes | NetError:
        """What reading 10 bytes gives, when one comes each second."""
        for mode in "bt":
            server.setTimeout(limits.get(mode), mode)  # type: ignore[arg-type]
        outcomes: list[Any] = []
        Deferred.fromCoroutine(server.readExactly(10)).addBoth(outcomes.append)
        for _ in range(10):
            before = server.getStats().received
            await client.write(b"x")
            while server.getStats().received == before:
                await turns(1)
            time.advance(1)
            await turns(2)
        (found,) = outcomes
        return getattr(found, "value", found)  # type: ignore[no-any-return]

    async with pair(reactor=time) as (client, server):
        assert await slowly(client, server) == b"x" * 10
        assert await slowly(client, server, b=1.5) == b"x" * 10, "no single wait was that long"
        total = await slowly(client, server, t=5.5)
        assert isinstance(total, TimedOutError)
        assert total.partial == b"x" * 6
        assert await server.readExactly(10) == b"x" * 10, "nothing is lost"
        each = await slowly(client, server, b=0.5, t=5.5)
        assert isinstance(each, TimedOutError)
        assert each.partial == b"x"
        assert await server.readExactly(10) == b"x" * 10
    assert not time.getDelayedCalls()


@pytest.mark.manual("LUAS-52")
@awaited
async def test_noLimitAndNone() -> None:
    from twisted.internet import reactor

    time = VirtualTime(reactor)
    async with pair(reactor=time) as (client, server):
        for seconds in (None, -1, float("inf")):
            server.setTimeout(1)
            server.setTimeout(seconds)
            reading = Deferred.fromCoroutine(server.read())
            time.advance(1_000_000)
            await turns()
            assert not reading.called
            await client.write(b"x")
            assert await outcome(time, reading) == b"x"
        server.setTimeout(0)
        reading = Deferred.fromCoroutine(server.read())
        time.advance(0)
        with pytest.raises(TimedOutError):
            await outcome(time, reading)
        await client.write(b"x")
        await streams.select([server])
        assert await server.read() == b"x", "what is there is not waited for"
        for wrong in ("1", True, float("nan")):
            with pytest.raises(OptionError, match="seconds is"):
                server.setTimeout(wrong)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="mode is 'r'"):
            server.setTimeout(1, "r")  # type: ignore[arg-type]


@pytest.mark.manual("LUAS-57")
@awaited
async def test_shutdown(place: str) -> None:
    async with pair(place) as (client, server):
        await client.write(b"last")
        await client.shutdown("send")
        assert await server.readAll() == b"last"
        with pytest.raises(WriteError, match="this side has ended"):
            await client.write(b"more")
        await server.write(b"still comes")
        assert await client.read() == b"still comes"
        await client.shutdown("receive")
        assert await client.read() == b""
    async with pair(place) as (client, server):
        await server.write(b"not wanted")
        await streams.select([client])
        await client.shutdown("receive")
        assert await client.read() == b""
        await client.write(b"can still send")
        assert await server.read() == b"can still send"
    async with pair(place) as (client, server):
        await client.shutdown()
        assert await client.read() == await server.read() == b""
        with pytest.raises(OptionError, match="how is 'all'"):
            await client.shutdown("all")  # type: ignore[arg-type]


@pytest.mark.manual("LUAS-59")
@awaited
async def test_select(place: str) -> None:
    async with await streams.listen(place) as listener:
        where = str(listener.address)
        async with await streams.connect(where) as client, await listener.accept() as server:
            assert await streams.select([server, listener], [], 0) == ([], [])
            assert await streams.select([server, listener], [], 0.01) == ([], []), "the time is up"
            assert await streams.select([server], [client, server], 0) == ([], [client, server])
            await client.write(b"x")
            assert await streams.select([listener, server]) == ([server], [])
            other = await streams.connect(where)
            await streams.select([listener])
            assert await streams.select([server, listener], [], 0) == ([server, listener], [])
            assert await server.read() == b"x"
            await other.close()
            await (await listener.accept()).close()
            client.setTimeout(0.01)
            await late(client.write(BLOB))
            assert await streams.select([], [client], 0) == ([], []), "too much is unsent"
            reading = Deferred.fromCoroutine(server.readExactly(client.protocol.outlet.given - 1))
            assert await streams.select([], [client]) == ([], [client])
            await outcome(client.reactor, reading)
            wrong: Any
            for wrong in (([0], []), (["x"], []), ([], [listener])):
                with pytest.raises(OptionError, match="cannot be"):
                    await streams.select(*wrong)
            await client.end()
            assert await streams.select([server], [], 5) == ([server], []), "its end can be read"
    assert await streams.select() == ([], [])


@pytest.mark.manual("LUAS-59")
@pytest_twisted.ensureDeferred
async def test_selectHasNoLimit() -> None:
    """LuaSocket's is FD_SETSIZE: 1024 descriptors."""
    limit = 1024
    async with contextlib.AsyncExitStack() as stack:
        listener = await stack.enter_async_context(await streams.listen(f"{LOCALHOST}:0"))
        everybody: list[Stream] = []
        while len(everybody) <= limit:
            client = await stack.enter_async_context(await streams.connect(str(listener.address)))
            everybody += [client, await stack.enter_async_context(await listener.accept())]
        await everybody[-2].write(b"x")
        assert await streams.select(everybody) == ([everybody[-1]], [])
        assert await streams.select([], everybody) == ([], everybody)
