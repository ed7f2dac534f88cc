"""DatagramSocket from outside: Node's events and calls, in their order, on every kind of socket."""

from __future__ import annotations

import os
import socket as sockets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, KnowingNames, NameService, needsIPv6
from logs import LoggedErrors
from turning import turns, until
from twisted.internet import reactor as installedReactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from twisted_net import udp
from twisted_net.address import Address, UdpTarget
from twisted_net.errors import AddressError, ClosedError, LimitError, NetError, OptionError, RefusedError
from twisted_net.udp import DatagramSocket
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import LONGEST, UNSENT_LIMIT, bind

theReactor: Any = installedReactor


class Sockets:
    """Makes sockets that keep what they emit, and closes them after the test."""

    def __init__(self) -> None:
        self.made: list[DatagramSocket] = []

    def __call__(self, type: str = "udp4", **options: Any) -> tuple[DatagramSocket, list[tuple[Any, ...]]]:
        socket = udp.createSocket(type, **options)
        events: list[tuple[Any, ...]] = []
        for name in ("listening", "message", "connect", "error", "close"):
            socket.on(name, lambda *args, name=name: events.append((name, *args)))
        self.made.append(socket)
        return socket, events


@pytest.fixture
def create() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    for socket in sockets.made:
        socket.close()


async def bound(socket: DatagramSocket, *args: Any) -> Any:
    """Bind it, and return where."""
    socket.bind(*args)
    await until(socket.address)
    return socket.address()


@pytest.mark.parametrize(
    ("type", "args", "host"),
    [
        ("udp4", (), "0.0.0.0"),
        ("udp4", (0,), "0.0.0.0"),
        ("udp4", (0, "127.0.0.1"), "127.0.0.1"),
        ("udp4", ("0", "localhost"), "127.0.0.1"),
        ("udp4", ("127.0.0.1:0",), "127.0.0.1"),
        ("udp4", ({"port": 0, "address": "127.0.0.1"},), "127.0.0.1"),
        pytest.param("udp6", (), "::", marks=needsIPv6),
        pytest.param("udp6", (0, "::1"), "::1", marks=needsIPv6),
        ("unix", ("{}/s",), "{}/s"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bind(create: Sockets, tmp_path: Path, type: str, args: tuple[Any, ...], host: str) -> None:
    """'listening' comes after `bind` has returned; its listener is called once."""
    socket, events = create(type)
    told: list[Any] = []
    args = tuple(arg.format(tmp_path) if isinstance(arg, str) else arg for arg in args)
    assert socket.bind(*args, lambda: told.append(socket.address())) is socket
    assert events == []
    assert socket.address() is None
    await until(lambda: told)
    assert [address.address for address in told] == [host.format(tmp_path)]
    assert events == [("listening",)]
    assert repr(socket) == f"<DatagramSocket {type} {socket.address()} bound>"


@pytest_twisted.ensureDeferred
async def test_bothWays(create: Sockets) -> None:
    server, heard = create()
    where = await bound(server, 0, "127.0.0.1")
    client, answers = create()
    done: list[tuple[Any, int]] = []
    client.send("grüße", where, lambda error, count: done.append((error, count)))
    assert done == []
    await until(lambda: len(heard) == 2)
    _, data, sender = heard[1]
    assert data == "grüße".encode()
    assert sender.port == client.address().port  # type: ignore[union-attr]
    assert done == [(None, 7)]
    server.send(b"", sender)
    server.send(memoryview(b"back"), sender.port, sender.address)
    server.send(bytearray(b"here"), sender.port)
    server.send(b"text", str(sender))
    server.send(b"name", f"localhost:{sender.port}")
    await until(lambda: len(answers) == 6)
    assert [data for _, data, _ in answers[1:]] == [b"", b"back", b"here", b"text", b"name"]
    assert {address for _, _, address in answers[1:]} == {where}
    assert server.port is not None
    assert (server.port.sent, server.port.received) == (5, 1)


@pytest_twisted.ensureDeferred
async def test_connect(create: Sockets) -> None:
    server, heard = create()
    where = await bound(server, 0, "127.0.0.1")
    for client, events in (create(), create(), create()):
        if client is create.made[2]:
            await bound(client)  # now, with 'connect' alone to come
        if client is create.made[3]:
            client.bind()  # it waits until it is bound
        seen = len(events)
        assert client.connect(where.port) is client
        assert len(events) == seen
        client.send(b"x")
        await until(client.remoteAddress)
        await turns()
        assert [name for name, *_ in events] == ["listening", "connect"]
        assert client.remoteAddress() == where
    await until(lambda: len(heard) == 4)
    called: list[int] = []
    client.connect(str(where), lambda: called.append(1))
    client.connect(str(where))
    await until(lambda: len(events) == 4)
    assert called == [1]


@pytest_twisted.ensureDeferred
async def test_connectUnix(create: Sockets, tmp_path: Path) -> None:
    server, heard = create("unix")
    where = await bound(server, f"{tmp_path}/s")
    client, events = create("unix")
    client.connect(where)
    client.send(b"x")
    await until(lambda: len(heard) == 2)
    server.send(b"y", heard[1][2])
    await until(lambda: len(events) == 3)
    assert events == [("listening",), ("connect",), ("message", b"y", where)]


@pytest_twisted.ensureDeferred
async def test_refused(create: Sockets) -> None:
    server, _ = create()
    where = await bound(server, 0, "127.0.0.1")
    server.close()
    client, events = create()
    client.connect(where).send(b"x")
    await until(lambda: len(events) == 3)
    assert [name for name, *_ in events] == ["listening", "connect", "error"]
    assert isinstance(events[2][1], RefusedError)
    server, heard = create()
    await bound(server, str(where))
    client.send(b"y")
    await until(lambda: len(heard) == 2)


@pytest.mark.parametrize(
    ("destination", "code"),
    [
        (("127.0.0.1:9",), "EMSGSIZE"),
        (("localhost:9",), "EMSGSIZE"),
        ((), "ENOTCONN"),
        (("nobody.invalid:9",), "E"),
        (("/run/x",), "EINVAL"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
@pytest_twisted.ensureDeferred
async def test_whatCannotBeSent(create: Sockets, destination: tuple[Any, ...], code: str, early: bool) -> None:
    """The callback is told on a later turn; without one it is an 'error'. The socket goes on."""
    client, events = create()
    if not early:
        await bound(client)
    done: list[tuple[Any, int]] = []
    data = b"x" if code == "ENOTCONN" else bytes(70_000)
    client.send(data, *destination, lambda *args: done.append(args))
    client.send(data, *destination)
    assert done == []
    await until(lambda: done and len(events) == 2)
    [(error, count)] = done
    assert isinstance(error, NetError)
    assert error.code.startswith(code)
    assert count == 0
    assert events[0] == ("listening",)
    assert events[1][0] == "error"
    assert events[1][1].code == error.code


@pytest_twisted.ensureDeferred
async def test_inUse(create: Sockets) -> None:
    """'error' instead of 'listening'; what waited is told; and another port may be tried."""
    first, _ = create()
    where = await bound(first, 0, "127.0.0.1")
    second, events = create()
    done: list[tuple[Any, int]] = []
    second.bind(str(where))
    second.connect(9)
    second.send(b"x", 9, lambda *args: done.append(args))
    await until(lambda: done)
    assert [name for name, *_ in events] == ["error"]
    assert events[0][1].code == "EADDRINUSE"
    assert done == [(events[0][1], 0)]
    await bound(second)
    assert events[1] == ("listening",)


@pytest_twisted.ensureDeferred
async def test_noRoom(create: Sockets, tmp_path: Path) -> None:
    """What the kernel has no room for waits in its order, and the callbacks tell when it was sent."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as full:
        full.bind(f"{tmp_path}/full")
        full.setblocking(False)
        client, events = create("unix")
        await bound(client, f"{tmp_path}/client")
        done: list[int] = []
        for number in range(50):
            client.send(b"%d" % number, f"{tmp_path}/full", lambda error, count, number=number: done.append(number))
        await turns(2)
        assert 0 < len(done) < 50
        heard: list[bytes] = []

        def read() -> bool:
            while True:
                try:
                    heard.append(full.recv(10))
                except BlockingIOError:
                    return len(done) == 50

        await until(read)
        assert heard == [b"%d" % number for number in range(50)]
        assert done == list(range(50))
        for _ in range(UNSENT_LIMIT + 50):
            client.send(b"x", f"{tmp_path}/full")
        await until(lambda: len(events) > 1)
        assert {(name, error.code) for name, error in events[1:]} == {("error", "ENOBUFS")}
        client.close()
    os.unlink(f"{tmp_path}/full")


@pytest_twisted.ensureDeferred
async def test_tooManyBeforeItIsBound(create: Sockets) -> None:
    client, _ = create()
    buffer = bytearray(b"first")
    done: list[Any] = []
    server, heard = create()
    where = await bound(server, 0, "127.0.0.1")
    client.send(buffer, where)
    buffer[:] = b"other"
    for _ in range(UNSENT_LIMIT):
        client.send(b"x", where, lambda error, count: done.append(error))
    await until(lambda: len(done) == UNSENT_LIMIT)
    assert isinstance(done[0], LimitError)
    assert done[1:] == [None] * (UNSENT_LIMIT - 1)
    await until(lambda: len(heard) > 1)
    assert heard[1][1] == b"first"


@pytest_twisted.ensureDeferred
async def test_close(create: Sockets) -> None:
    """The port is free at once; 'close' comes later, once."""
    socket, events = create()
    where = await bound(socket, 0, "127.0.0.1")
    told: list[int] = []
    assert socket.close(lambda: told.append(1)) is socket
    assert (events, told) == ([("listening",)], [])
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", where.port))
    socket.close(lambda: told.append(2))
    socket.close()
    await until(lambda: len(told) == 2)
    assert sorted(told) == [1, 2]
    assert events == [("listening",), ("close",)]
    assert repr(socket) == f"<DatagramSocket udp4 {where} closed>"
    calls: list[Callable[[], object]] = [
        socket.bind,
        lambda: socket.send(b"x", 9),
        lambda: socket.connect(9),
        lambda: socket.setBroadcast(True),
        lambda: socket.addMembership("239.255.7.7"),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="the socket is closed"):
            call()


@pytest_twisted.ensureDeferred
async def test_closedInBetween(create: Sockets) -> None:
    """Before it begins to bind, and while a name is looked up: 'close' alone, and who waits is told."""
    for wait in (False, True):
        names = NameService("127.0.0.1")
        socket, events = create(reactor=_Named(names))
        done: list[tuple[Any, int]] = []
        socket.bind(0, "host.test")
        socket.send(b"x", 9, lambda *args, done=done: done.append(args))
        socket.send(b"x", 9)
        if wait:
            await turns()
            assert names.questions
        socket.close()
        await turns(2)
        assert events == [("close",)]
        [(error, count)] = done
        assert (type(error), count) == (ClosedError, 0)
        names.answer()
        assert repr(socket) == "<DatagramSocket udp4 closed>"


class _Named(Elsewhere):
    """The reactor of this run, with other names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(theReactor, name)


@pytest_twisted.ensureDeferred
async def test_closedDuringALookUp(create: Sockets) -> None:
    names = NameService("127.0.0.1")
    socket, events = create(reactor=_Named(names))
    await bound(socket, 0, "127.0.0.1")
    done: list[Any] = []
    socket.send(b"x", 9, "host.test", lambda error, count: done.append(error))
    socket.connect(9, "host.test")
    socket.close()
    names.answer()
    await until(lambda: done)
    assert isinstance(done[0], ClosedError)
    await until(lambda: len(events) == 2)
    assert events == [("listening",), ("close",)]


@pytest_twisted.ensureDeferred
async def test_namesHaveTheVersionOfTheSocket(create: Sockets) -> None:
    names = KnowingNames("::1", "127.0.0.1")
    socket, _ = create(reactor=_Named(names))
    where = await bound(socket, 0, "host.test")
    assert where.address == "127.0.0.1"


@pytest_twisted.ensureDeferred
async def test_options(create: Sockets) -> None:
    """Set before it is bound and after."""
    socket, _ = create(reuseAddr=True, recvBufferSize=5000, sendBufferSize=5000)
    socket.setBroadcast(True).setTTL(7).setMulticastTTL(3).setMulticastLoopback(False)
    await bound(socket, 0, "127.0.0.1")
    socket.setMulticastInterface("127.0.0.1")
    socket.setOptions(ttl=4)
    assert socket.port is not None
    with sockets.socket(fileno=os.dup(socket.port.fileno())) as skt:

        def get(option: int, level: int = sockets.SOL_SOCKET) -> int:
            return skt.getsockopt(level, option)

        assert get(sockets.SO_REUSEADDR) == get(sockets.SO_BROADCAST) == 1
        assert get(sockets.SO_RCVBUF) == get(sockets.SO_SNDBUF) == 10_000
        assert get(sockets.IP_TTL, sockets.IPPROTO_IP) == 7
        assert get(sockets.IP_MULTICAST_TTL, sockets.IPPROTO_IP) == 4
        assert get(sockets.IP_MULTICAST_LOOP, sockets.IPPROTO_IP) == 0
    with pytest.raises(OptionError, match="reusePort has no effect"):
        socket.setOptions(reusePort=True)


@pytest_twisted.ensureDeferred
async def test_groups(create: Sockets) -> None:
    socket, events = create()
    with pytest.raises(ClosedError, match="addMembership: the socket is not bound yet; wait for 'listening'"):
        socket.addMembership("239.255.7.8")
    await bound(socket)
    socket.setMulticastInterface("127.0.0.1")
    assert socket.addMembership("239.255.7.8", "127.0.0.1") is socket
    socket.send(b"hello", socket.address().port, "239.255.7.8")  # type: ignore[union-attr]
    await until(lambda: len(events) == 2)
    assert events[1][1] == b"hello"
    assert socket.dropMembership("239.255.7.8", "127.0.0.1") is socket


@pytest_twisted.ensureDeferred
async def test_tooLongOnUnix(create: Sockets, tmp_path: Path) -> None:
    """No datagram is cut without a word."""
    server, events = create("unix")
    await bound(server, f"{tmp_path}/s")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as sender:
        sender.sendto(bytes(LONGEST + 1), f"{tmp_path}/s")
        sender.sendto(bytes(LONGEST), f"{tmp_path}/s")
    await until(lambda: len(events) == 3)
    assert (events[1][0], events[1][1].code) == ("error", "EMSGSIZE")
    assert events[2] == ("message", bytes(LONGEST), Address("", None, "unix"))


@pytest_twisted.ensureDeferred
async def test_listenersThatRaise(create: Sockets, loggedErrors: LoggedErrors) -> None:
    """They are logged, and the socket goes on."""
    server, events = create()
    where = await bound(server, 0, "127.0.0.1")

    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    server.on("message", fail)
    server.send(b"1", where)
    server.send(b"2", where)
    await until(lambda: len(events) == 3)
    assert len(loggedErrors.flush("a listener of 'message' raised")) == 2


@pytest_twisted.ensureDeferred
async def test_anErrorThatNobodyHears(loggedErrors: LoggedErrors) -> None:
    socket = udp.createSocket({"type": "udp4", "broadcast": False}, lambda data, address: None)
    assert socket.listenerCount("message") == 1
    socket.send(b"x", "nobody.invalid:9")
    await until(lambda: loggedErrors.flush("nobody listens to 'error' of the socket"))
    socket.close()


@pytest_twisted.ensureDeferred
async def test_theReactorEndsIt(create: Sockets) -> None:
    socket, events = create()
    await bound(socket)
    assert socket.port is not None
    theReactor.removeReader(socket.port)
    socket.port.connectionLost(Failure(ConnectionLost()))
    await until(lambda: len(events) == 3)
    assert [name for name, *_ in events] == ["listening", "error", "close"]


@pytest.mark.parametrize(
    ("type", "call", "message"),
    [
        ("udp4", lambda socket: socket.bind("::1", 0), "more than one colon|no address"),
        ("udp4", lambda socket: socket.bind(0, "::1"), r"udp:\[::1\]:0 is no address for a socket of type udp4"),
        ("udp6", lambda socket: socket.bind("127.0.0.1:0"), "no address for a socket of type udp6"),
        ("udp4", lambda socket: socket.bind("/run/x"), "unix:/run/x is no address for a socket of type udp4"),
        ("unix", lambda socket: socket.bind(53), "a UNIX socket is bound to a path, not to port 53"),
        ("unix", lambda socket: socket.bind("127.0.0.1:0"), "no address for a socket of type unix"),
        ("unix", lambda socket: socket.send(b"x", "/run/x"), "send: give this UNIX socket a path first"),
        ("udp4", lambda socket: socket.bind(70_000), "port 70000 is out of range"),
        ("udp4", lambda socket: socket.bind(0, "127.0.0.1", 5), r"bind: cannot make anything of \[5\]"),
        ("udp4", lambda socket: socket.connect(), "say whom to connect to"),
        ("udp4", lambda socket: socket.connect("/run/x"), "no address for a socket of type udp4"),
        ("udp4", lambda socket: socket.send(b"x", 0), "port 0 is out of range"),
        ("udp4", lambda socket: socket.send(b"x", 9, "127.0.0.1", 5), r"send: cannot make anything of \[5\]"),
        ("udp4", lambda socket: socket.send(17, 9), "send: 17 is neither bytes nor text"),
        ("udp5", None, "type is 'udp5'; it must be one of udp4, udp6, unix"),
    ],
)
def test_mistakes(create: Sockets, type: str, call: Any, message: str) -> None:
    with pytest.raises(NetError, match=message) as caught:
        call(create(type)[0])
    assert isinstance(caught.value, AddressError | OptionError) or caught.value.code == "ENOTCONN"


@pytest_twisted.ensureDeferred
async def test_boundTwice(create: Sockets) -> None:
    socket, _ = create()
    socket.bind()
    for _ in range(2):
        with pytest.raises(NetError, match="bound already") as caught:
            socket.bind()
        assert caught.value.code == "ERR_SOCKET_ALREADY_BOUND"
        await until(socket.address)


@pytest_twisted.ensureDeferred
async def test_adopted(create: Sockets) -> None:
    """A port that somebody else has bound, to be heard from now on."""
    port = await Deferred.fromCoroutine(bind(theReactor, UdpTarget("127.0.0.1", 0), DatagramOptions()))
    socket, events = create()
    assert socket.adopt(port) is socket
    assert events == [("listening",)]
    socket.send(b"x", port.address)
    await until(lambda: len(events) == 2)
    assert events[1] == ("message", b"x", port.address)
    with pytest.raises(NetError, match="adopt: this socket is bound already"):
        socket.adopt(port)
