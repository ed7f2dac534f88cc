"""Streams in memory: scenes that are played on this machine's kernel, too, and what only memory can do."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ERR, HUP, IN, OUT, Between, Memory, World, fails, fill, linger, playing

from twisted_net.sansio.faults import Latency

TCP, TCP6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
SOCKET = socket.SOL_SOCKET

everyFamily = pytest.mark.parametrize("family", [TCP, TCP6, UNIX], ids=["tcp", "tcp6", "unix"])
tcpFamilies = pytest.mark.parametrize("family", [TCP, TCP6], ids=["tcp", "tcp6"])


@pytest.fixture(params=["kernel", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with playing(request.param, tmp_path) as found:
        yield found


# -- scenes on both kernels: before there is a connection


@tcpFamilies
def test_aNewTcpSocket(world: World, family: int) -> None:
    skt = world.socket(family)
    assert world.mask(skt) == OUT | HUP
    fails(errno.ENOTCONN, skt.recv, 1)
    fails(errno.EPIPE, skt.send, b"x")
    fails(errno.ENOTCONN, skt.getpeername)
    fails(errno.ENOTCONN, skt.shutdown, socket.SHUT_WR)
    fails(errno.EINVAL, skt.accept)


def test_aNewUnixSocket(world: World) -> None:
    skt = world.socket(UNIX)
    assert world.mask(skt) == OUT | HUP
    fails(errno.EINVAL, skt.recv, 1)
    fails(errno.ENOTCONN, skt.send, b"x")
    fails(errno.ENOTCONN, skt.getpeername)
    fails(errno.EINVAL, skt.accept)
    fails(errno.EINVAL, skt.listen)  # it is bound to nothing
    assert skt.getsockname() == ""


def test_listeningWithoutAnAddress(world: World) -> None:
    skt = world.socket(TCP)
    skt.listen(1)
    text, port = skt.getsockname()
    assert text == "0.0.0.0"
    assert port


@everyFamily
def test_aListener(world: World, family: int) -> None:
    listener = world.listening(family)
    assert world.mask(listener) == 0
    assert listener.getsockopt(SOCKET, socket.SO_ACCEPTCONN) == 1
    fails(errno.EAGAIN, listener.accept)
    fails(errno.EINVAL if family == UNIX else errno.ENOTCONN, listener.recv, 1)
    fails(errno.ENOTCONN if family == UNIX else errno.EPIPE, listener.send, b"x")
    fails(errno.ENOTCONN, listener.getpeername)
    assert listener.connect_ex(listener.getsockname()) == (errno.EINVAL if family == UNIX else errno.EISCONN)
    listener.listen(3)  # once more, with another backlog
    world.connect(listener)


# -- connecting


@tcpFamilies
def test_connecting(world: World, family: int) -> None:
    listener = world.listening(family)
    client = world.socket(family)
    place = listener.getsockname()
    fails(errno.EINPROGRESS, client.connect, place)
    world.until(client, OUT)
    client.connect(place)
    fails(errno.EISCONN, client.connect, place)
    world.until(listener, IN)
    server, seen = listener.accept()
    world.keep(server)
    assert seen == server.getpeername() == client.getsockname()
    assert server.getsockname() == client.getpeername() == place
    assert world.mask(listener) == 0
    fails(errno.EINVAL, server.listen)


def test_connectingToAPath(world: World) -> None:
    listener = world.listening(UNIX)
    client = world.socket(UNIX)
    client.bind(world.path("client"))
    client.connect(listener.getsockname())
    fails(errno.EISCONN, client.connect, listener.getsockname())
    server, seen = listener.accept()
    world.keep(server)
    assert seen == server.getpeername() == world.path("client")
    assert server.getsockname() == client.getpeername() == world.path("server")


def test_connectingFromNowhere(world: World) -> None:
    listener = world.listening(UNIX)
    client = world.socket(UNIX)
    client.connect(listener.getsockname())
    server, seen = listener.accept()
    world.keep(server)
    assert seen == server.getpeername() == client.getsockname() == ""


@tcpFamilies
def test_refused(world: World, family: int) -> None:
    place = world.closedPort(family)
    skt = world.socket(family)
    assert skt.connect_ex(place) == errno.EINPROGRESS
    world.until(skt, IN | OUT | ERR | HUP)
    fails(errno.ECONNREFUSED, skt.connect, place)
    assert world.mask(skt) == OUT | HUP
    # The attempt is forgotten; another one begins, and this one is told by SO_ERROR.
    assert skt.connect_ex(place) == errno.EINPROGRESS
    world.until(skt, IN | OUT | ERR | HUP)
    assert skt.getsockopt(SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert world.mask(skt) == IN | OUT | HUP
    assert skt.connect_ex(place) == errno.ECONNABORTED
    fails(errno.ENOTCONN, skt.getpeername)
    fails(errno.ENOTCONN, skt.recv, 1)
    fails(errno.EPIPE, skt.send, b"x")


def test_refusedAndToldByReceiving(world: World) -> None:
    skt = world.socket(TCP)
    skt.connect_ex(world.closedPort(TCP))
    world.until(skt, IN | OUT | ERR | HUP)
    fails(errno.ECONNREFUSED, skt.recv, 1)
    assert skt.recv(1) == b""
    fails(errno.EPIPE, skt.send, b"x")


def test_pathsWithNobodyBehind(world: World) -> None:
    client = world.socket(UNIX)
    fails(errno.ENOENT, client.connect, world.path("server"))
    fails(errno.ECONNREFUSED, client.connect, "\0nobody of this name")
    bound = world.socket(UNIX)
    bound.bind(world.path("server"))
    fails(errno.ECONNREFUSED, client.connect, world.path("server"))
    bound.close()
    fails(errno.ECONNREFUSED, client.connect, world.path("server"))  # stale
    world.unlink(world.path("server"))
    fails(errno.ENOENT, client.connect, world.path("server"))


def test_aFullBacklogOfUnix(world: World) -> None:
    listener = world.listening(UNIX, backlog=1)
    place = listener.getsockname()
    clients = [world.socket(UNIX) for _ in range(3)]
    assert [client.connect_ex(place) for client in clients] == [0, 0, errno.EAGAIN]
    assert world.mask(clients[2]) == OUT | HUP
    world.accept(listener)
    clients[2].connect(place)


def test_aFullBacklogOfTcp(world: World) -> None:
    """The client waits; its next SYN comes after a second."""
    listener = world.listening(TCP, backlog=0)
    first, second = world.socket(TCP), world.socket(TCP)
    first.connect_ex(listener.getsockname())
    world.until(listener, IN)
    second.connect_ex(listener.getsockname())
    assert world.mask(second) == 0
    assert second.connect_ex(listener.getsockname()) == errno.EALREADY
    fails(errno.EAGAIN, second.recv, 1)
    fails(errno.EAGAIN, second.send, b"x")
    fails(errno.ENOTCONN, second.getpeername)
    world.accept(listener)
    world.until(second, OUT)
    server = world.accept(listener)
    assert server.getpeername() == second.getsockname()


@everyFamily
def test_goneBeforeItIsAccepted(world: World, family: int) -> None:
    listener = world.listening(family)
    client = world.socket(family)
    client.connect_ex(listener.getsockname())
    world.until(client, OUT)
    client.send(b"in haste")
    client.close()
    server = world.accept(listener)
    assert server.recv(99) == b"in haste"
    world.until(server, IN | OUT | (HUP if family == UNIX else 0))
    assert server.recv(99) == b""


def test_resetBeforeItIsAccepted(world: World) -> None:
    listener = world.listening(TCP)
    client = world.socket(TCP)
    client.setsockopt(SOCKET, socket.SO_LINGER, linger(0))
    client.connect_ex(listener.getsockname())
    world.until(listener, IN)
    client.close()
    server = world.accept(listener)
    world.until(server, IN | OUT | ERR | HUP)
    fails(errno.ECONNRESET, server.recv, 99)


@everyFamily
def test_aListenerThatClosesResetsThoseWhoWait(world: World, family: int) -> None:
    listener = world.listening(family)
    client = world.socket(family)
    client.connect_ex(listener.getsockname())
    world.until(listener, IN)
    client.connect_ex(listener.getsockname())
    listener.close()
    world.until(client, IN | OUT | ERR | HUP)
    fails(errno.ECONNRESET, client.recv, 1)
    assert client.recv(1) == b""
    fails(errno.EPIPE, client.send, b"x")


# -- bytes


@everyFamily
def test_bytes(world: World, family: int) -> None:
    client, server = world.pair(family)
    assert world.mask(client) == world.mask(server) == OUT
    fails(errno.EAGAIN, server.recv, 9)
    assert client.send(b"one ") == 4
    assert client.send(b"two") == 3
    world.until(server, IN | OUT, 7)
    assert server.recv(2, socket.MSG_PEEK) == b"on"
    assert server.recv(2) == b"on"
    assert server.recv(99) == b"e two"
    assert world.mask(server) == OUT
    fails(errno.EAGAIN, server.recv, 9, socket.MSG_PEEK)


@everyFamily
def test_noBytes(world: World, family: int) -> None:
    client, server = world.pair(family)
    assert client.send(b"") == 0
    assert server.recv(0) == b""
    assert world.mask(server) == OUT
    server.close()
    assert server.recv(0) == b""


@everyFamily
def test_aFullWindow(world: World, family: int) -> None:
    client, server = world.pair(family)
    client.setsockopt(SOCKET, socket.SO_SNDBUF, 8192)
    count = fill(client)
    assert world.mask(client) == 0
    while count:
        world.until(server, IN | OUT)
        count -= len(server.recv(65_536))
    world.until(client, OUT)
    assert client.send(b"x") == 1


@everyFamily
def test_anEndBehindAFullWindow(world: World, family: int) -> None:
    client, server = world.pair(family)
    count = fill(client)
    client.shutdown(socket.SHUT_WR)
    assert world.mask(client) == (0 if family == UNIX else OUT)
    fails(errno.EPIPE, client.send, b"x")
    while count:
        count -= len(server.recv(65_536))
        world.until(server, IN | OUT)
    assert server.recv(1) == b""


# -- ends


@everyFamily
def test_halfClosedByTheClient(world: World, family: int) -> None:
    client, server = world.pair(family)
    client.send(b"question")
    client.shutdown(socket.SHUT_WR)
    world.until(server, IN | OUT, 8)
    assert world.mask(client) == OUT
    fails(errno.EPIPE, client.send, b"x")
    fails(errno.EAGAIN, client.recv, 9)
    assert server.recv(99) == b"question"
    assert server.recv(99) == b""
    server.send(b"answer")
    world.until(client, IN | OUT)
    assert client.recv(99) == b"answer"
    server.shutdown(socket.SHUT_WR)
    world.until(client, IN | OUT | HUP)
    world.until(server, IN | OUT | HUP)
    assert client.recv(99) == b""
    if family != UNIX:
        fails(errno.ENOTCONN, client.getpeername)
        fails(errno.ENOTCONN, server.getpeername)
        fails(errno.ENOTCONN, server.shutdown, socket.SHUT_WR)
        fails(errno.EPIPE, server.send, b"x")


@everyFamily
def test_closed(world: World, family: int) -> None:
    client, server = world.pair(family)
    server.send(b"last")
    server.close()
    world.until(client, IN | OUT | (HUP if family == UNIX else 0), 4)
    assert client.recv(99) == b"last"
    assert client.recv(99) == b""


@tcpFamilies
def test_writingToWhoHasClosed(world: World, family: int) -> None:
    """The first bytes are answered by RST. Who writes hears of it; who reads has heard the end."""
    client, server = world.pair(family)
    server.close()
    world.until(client, IN | OUT)
    assert client.send(b"x") == 1
    world.until(client, IN | OUT | ERR | HUP)
    assert client.recv(9) == b""
    fails(errno.EPIPE, client.send, b"x")
    assert world.mask(client) == IN | OUT | HUP
    fails(errno.EPIPE, client.send, b"x")


def test_writingToWhoHasClosedOnUnix(world: World) -> None:
    client, server = world.pair(UNIX)
    server.close()
    world.until(client, IN | OUT | HUP)
    fails(errno.EPIPE, client.send, b"x")
    assert client.recv(9) == b""


@everyFamily
def test_closedWithBytesUnread(world: World, family: int) -> None:
    client, server = world.pair(family)
    client.send(b"unread")
    server.send(b"had arrived")
    world.until(server, IN | OUT, 6)
    server.close()
    world.until(client, IN | OUT | ERR | HUP, 11)
    assert client.recv(99) == b"had arrived"
    fails(errno.ECONNRESET, client.recv, 99)
    assert client.recv(99) == b""
    fails(errno.EPIPE, client.send, b"x")
    assert world.mask(client) == IN | OUT | HUP


@tcpFamilies
def test_resetByLinger(world: World, family: int) -> None:
    client, server = world.pair(family)
    server.send(b"had arrived")
    world.until(client, IN | OUT, 11)
    server.setsockopt(SOCKET, socket.SO_LINGER, linger(0))
    server.close()
    world.until(client, IN | OUT | ERR | HUP)
    fails(errno.ECONNRESET, client.send, b"x")
    fails(errno.EPIPE, client.send, b"x")
    fails(errno.ENOTCONN, client.getpeername)
    fails(errno.ENOTCONN, client.shutdown, socket.SHUT_WR)
    assert client.connect_ex(("127.0.0.1", 1) if family == TCP else ("::1", 1)) == errno.EISCONN
    assert client.recv(99) == b"had arrived"
    assert client.recv(99) == b""


def test_resetBeforeConnectHasTold(world: World) -> None:
    listener = world.listening(TCP)
    client = world.socket(TCP)
    client.connect_ex(listener.getsockname())
    with world.accept(listener) as server:
        server.setsockopt(SOCKET, socket.SO_LINGER, linger(0))
    world.until(client, IN | OUT | ERR | HUP)
    fails(errno.ECONNRESET, client.connect, listener.getsockname())


def test_resetToldBySoError(world: World) -> None:
    client, server = world.pair(TCP)
    server.setsockopt(SOCKET, socket.SO_LINGER, linger(0))
    server.close()
    world.until(client, IN | OUT | ERR | HUP)
    assert client.getsockopt(SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert client.getsockopt(SOCKET, socket.SO_ERROR) == 0
    assert client.recv(1) == b""


def test_resetAfterTheEnd(world: World) -> None:
    client, server = world.pair(TCP)
    server.shutdown(socket.SHUT_WR)
    world.until(client, IN | OUT)
    server.setsockopt(SOCKET, socket.SO_LINGER, linger(0))
    server.close()
    world.until(client, IN | OUT | ERR | HUP)
    assert client.getsockopt(SOCKET, socket.SO_ERROR) == errno.EPIPE


def test_lingeringIsNoReset(world: World) -> None:
    client, server = world.pair(TCP)
    server.setsockopt(SOCKET, socket.SO_LINGER, linger(5))
    server.close()
    world.until(client, IN | OUT)
    assert client.recv(1) == b""


@tcpFamilies
def test_deafOnTcp(world: World, family: int) -> None:
    """SHUT_RD is not told to the peer, and what comes all the same can be read."""
    client, server = world.pair(family)
    server.shutdown(socket.SHUT_RD)
    assert world.mask(server) == IN | OUT
    assert server.recv(9) == b""
    assert world.mask(client) == OUT
    client.send(b"heard")
    world.until(server, IN | OUT, 5)
    assert server.recv(9) == b"heard"


def test_deafOnUnix(world: World) -> None:
    """SHUT_RD is the peer's SHUT_WR."""
    client, server = world.pair(UNIX)
    server.shutdown(socket.SHUT_RD)
    assert world.mask(server) == IN | OUT
    assert world.mask(client) == OUT
    fails(errno.EPIPE, client.send, b"x")


@tcpFamilies
def test_bytesForWhoHasEndedBoth(world: World, family: int) -> None:
    client, server = world.pair(family)
    server.shutdown(socket.SHUT_RDWR)
    assert world.mask(server) == IN | OUT | HUP
    world.until(client, IN | OUT)
    assert client.send(b"x") == 1
    world.until(client, IN | OUT | ERR | HUP)
    world.until(server, IN | OUT | ERR | HUP)
    fails(errno.ECONNRESET, server.recv, 9)
    fails(errno.EPIPE, client.send, b"x")


def test_bothEndedOnUnix(world: World) -> None:
    client, server = world.pair(UNIX)
    server.shutdown(socket.SHUT_RDWR)
    world.until(client, IN | OUT | HUP)
    world.until(server, IN | OUT | HUP)
    assert client.recv(9) == b""
    fails(errno.EPIPE, client.send, b"x")


def test_closedSocketsKnowNothing(world: World) -> None:
    server = world.pair(TCP)[1]
    place = server.getsockname()
    server.close()
    server.close()
    assert server.fileno() == -1
    for call, arguments in [
        (server.bind, (place,)),
        (server.listen, ()),
        (server.accept, ()),
        (server.recv, (1,)),
        (server.send, (b"x",)),
        (server.recvmsg, (1,)),
        (server.sendmsg, ([b"x"],)),
        (server.shutdown, (socket.SHUT_WR,)),
        (server.getpeername, ()),
        (server.connect, (place,)),
    ]:
        fails(errno.EBADF, call, *arguments)
    assert server.connect_ex(place) == errno.EBADF


# -- what UNIX sockets tell of each other


def test_credentials(world: World) -> None:
    client, server = world.pair(UNIX)
    mine = (os.getpid(), os.getuid(), os.getgid()) if not isinstance(world, Memory) else (1, 1000, 1000)
    for skt in (client, server):
        assert struct.unpack("3i", skt.getsockopt(SOCKET, socket.SO_PEERCRED, 12)) == mine
    for family in (UNIX, TCP):
        unconnected = world.socket(family).getsockopt(SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("3i", unconnected) == (0, -1, -1)


class Pipe:
    """A descriptor to send: the end of a pipe that is written to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.rights = [(SOCKET, socket.SCM_RIGHTS, array.array("i", [self.writer]))]

    def isHeld(self) -> bool:
        """Whether anybody has the writer's end open; ours is closed by the first call."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1
        try:
            return os.read(self.reader, 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        held = self.isHeld()
        os.close(self.reader)
        assert not held, "somebody has kept the descriptor"


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe()
    yield found
    found.close()


def taken(message: Any) -> bytes:
    """The bytes of a message that has come with one descriptor, which is closed."""
    data, [(level, kind, packed)], flags, _ = message
    assert (level, kind, flags) == (SOCKET, socket.SCM_RIGHTS, 0)
    os.close(array.array("i", packed)[0])
    return bytes(data)


def test_rights(world: World, pipe: Pipe) -> None:
    client, server = world.pair(UNIX)
    client.send(b"one ")
    assert client.sendmsg([b"tw", b"o "], pipe.rights) == 4
    client.send(b"three")
    # What came before is read along with it, what came afterwards is not.
    assert taken(server.recvmsg(99, 99)) == b"one two "
    assert server.recvmsg(99, 99)[:3] == (b"three", [], 0)
    fails(errno.EAGAIN, server.recvmsg, 99, 99)


def test_rightsComeWithTheFirstOfTheirBytes(world: World, pipe: Pipe) -> None:
    client, server = world.pair(UNIX)
    client.sendmsg([b"abc"], pipe.rights)
    client.send(b"def")
    assert taken(server.recvmsg(2, 99)) == b"ab"
    assert server.recvmsg(99, 99)[:2] == (b"cdef", [])


def test_rightsStayWithTheirBytes(world: World, pipe: Pipe) -> None:
    client, server = world.pair(UNIX)
    client.send(b"one ")
    client.sendmsg([b"two"], [*pipe.rights, (socket.IPPROTO_IP, 7, b"nobody looks at this")])
    assert server.recv(2) == b"on"
    assert server.recvmsg(1, 99)[:3] == (b"e", [], 0)
    assert taken(server.recvmsg(99, 99)) == b" two"


def test_rightsThatNobodyWants(world: World, pipe: Pipe) -> None:
    client, server = world.pair(UNIX)
    client.sendmsg([b"abc"], pipe.rights)
    assert server.recv(9, socket.MSG_PEEK) == b"abc"
    assert server.recv(9) == b"abc"  # closes them
    client.sendmsg([b"abc"], pipe.rights)
    assert server.recvmsg(9)[:3] == (b"abc", [], socket.MSG_CTRUNC)
    assert client.sendmsg([b""], pipe.rights) == 0
    assert world.mask(server) == OUT
    client.sendmsg([b"abc"], pipe.rights)
    server.close()
    assert not pipe.isHeld()


def test_rightsOfNobodyAccepted(world: World, pipe: Pipe) -> None:
    listener = world.listening(UNIX)
    client = world.socket(UNIX)
    client.connect(listener.getsockname())
    client.sendmsg([b"abc"], pipe.rights)
    listener.close()
    assert not pipe.isHeld()


def test_rightsThatAreNone(world: World) -> None:
    client, server = world.pair(UNIX)
    fails(errno.EBADF, client.sendmsg, [b"x"], [(SOCKET, socket.SCM_RIGHTS, array.array("i", [999_999]))])
    assert world.mask(server) == OUT


def test_tcpTakesNoRights(world: World, pipe: Pipe) -> None:
    client, server = world.pair(TCP)
    assert client.sendmsg([b"ab", b"c"], pipe.rights) == 3
    world.until(server, IN | OUT, 3)
    assert server.recvmsg(9, 99)[:3] == (b"abc", [], 0)


# -- any scene on both kernels

CALLS: dict[str, Callable[[Any], Any]] = {
    "send": lambda skt: skt.send(b"abc"),
    "sendNothing": lambda skt: skt.send(b""),
    "recv": lambda skt: skt.recv(99),
    "recvTwo": lambda skt: skt.recv(2),
    "recvNothing": lambda skt: skt.recv(0),
    "peek": lambda skt: skt.recv(99, socket.MSG_PEEK),
    "shutRead": lambda skt: skt.shutdown(socket.SHUT_RD),
    "shutWrite": lambda skt: skt.shutdown(socket.SHUT_WR),
    "shutBoth": lambda skt: skt.shutdown(socket.SHUT_RDWR),
    "close": lambda skt: skt.close(),
    "linger": lambda skt: skt.setsockopt(SOCKET, socket.SO_LINGER, linger(0)),
    "error": lambda skt: skt.getsockopt(SOCKET, socket.SO_ERROR),
    "peer": lambda skt: bool(skt.getpeername()),
}


def result(call: Callable[[Any], Any], skt: Any) -> Any:
    try:
        return call(skt)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@settings(max_examples=300)
@given(
    family=st.sampled_from([TCP, UNIX]),
    script=st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(CALLS))), max_size=9),
)
def test_anyScene(family: socket.AddressFamily, script: list[tuple[bool, str]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        playing("kernel", Path(folder)) as kernel,
        playing("memory", Path(folder)) as memory,
    ):
        pairs = list(zip(kernel.pair(family), memory.pair(family), strict=True))
        for place, name in script:
            real, imagined = pairs[place]
            found = result(CALLS[name], imagined)
            assert (name, result(CALLS[name], real)) == (name, found)
            for one, other in pairs:
                if not other.closed:
                    kernel.until(one, memory.mask(other), other.inward.size)


# -- what only memory can do


@pytest.fixture
def road() -> Between:
    return Between()


def error(skt: Any) -> int:
    code: int = skt.getsockopt(SOCKET, socket.SO_ERROR)
    return code


def test_aResetOfWhatHasFailedAlready(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    client.send(b"unread")
    road.network.advance(1)
    server.close()
    client.fail(errno.ETIMEDOUT)
    road.network.advance(1)
    assert error(client) == errno.ETIMEDOUT


def test_aResetThatArrivesWhereBothAreGone(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    client.send(b"unread")
    road.network.advance(1)
    server.close()
    client.close()
    road.network.advance(2)
    assert not road.here.sockets()


def test_whoWatchesIsListedOnce(road: Between) -> None:
    client, server = road.connect()
    server.reader = object()
    client.send(b"one")
    client.send(b"two")
    assert list(road.there.ready).count(server) == 1


def test_deathKeepsNoDescriptors(pipe: Pipe) -> None:
    world = Memory()
    accepted, _ = world.pair(UNIX)
    accepted.sendmsg([b"abc"], pipe.rights)
    listener = world.listening(UNIX)
    waiting = world.socket(UNIX)
    waiting.connect(listener.getsockname())
    waiting.sendmsg([b"abc"], pipe.rights)
    world.host.die()
    assert not pipe.isHeld()
