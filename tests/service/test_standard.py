"""stdin and stdout, as coroutines read and write them."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest
import pytest_twisted
from turning import turns, until
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from twisted_net.errors import NetError
from twisted_net.service.standard import CHUNK, Input, Output, UnreadError, _Readiness

Ends = tuple[IO[bytes], IO[bytes]]


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    """What is closed in the end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pipe(kept: ExitStack) -> Ends:
    """The end that is read, and the end that is written."""
    return opened(kept, *os.pipe())


@pytest.fixture
def pair(kept: ExitStack) -> Ends:
    """Both ends of a socket."""
    return opened(kept, *(one.detach() for one in socket.socketpair()))


@pytest.fixture
def terminal(kept: ExitStack) -> Ends:
    """A terminal as its program sees it, and as its user does."""
    user, program = os.openpty()
    tty.setraw(program)
    return opened(kept, program, user)


def opened(kept: ExitStack, *numbers: int) -> Ends:
    one, other = (kept.enter_context(os.fdopen(number, "r+b", buffering=0)) for number in numbers)
    return one, other


def flags(file: IO[bytes]) -> int:
    return fcntl.fcntl(file.fileno(), fcntl.F_GETFL)


def begin(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


def test_whatReactorsAsk(pipe: Ends, reactor: Any) -> None:
    one = _Readiness(reactor, pipe[0].fileno())
    assert verifyObject(IReadDescriptor, one)
    assert verifyObject(IWriteDescriptor, one)
    assert one.logPrefix() == "standard streams"
    # Harmless when nobody waits.
    one.doRead()
    one.doRead()
    one.doWrite()
    one.doWrite()


# Reading


@pytest.mark.parametrize("kind", ["pipe", "pair", "terminal"])
@pytest_twisted.ensureDeferred
async def test_readAsItComes(kind: str, request: pytest.FixtureRequest, reactor: Any) -> None:
    program, other = request.getfixturevalue(kind)
    source = Input(reactor, program)
    before = flags(program)
    first = begin(source.read())
    await turns(2)
    assert not first.called
    assert flags(program) == before, "they are everybody's"
    other.write(b"hello")
    assert await first == b"hello"
    other.write(b"world")
    assert await source.read(2) == b"wo"
    assert await source.read(2) == b"rl"
    assert await source.read(2) == b"d"
    assert reactor.getReaders().count(source._readiness) == 0


@pytest.mark.parametrize("kind", ["pipe", "pair"])
@pytest_twisted.ensureDeferred
async def test_theEnd(kind: str, request: pytest.FixtureRequest, reactor: Any) -> None:
    program, other = request.getfixturevalue(kind)
    source = Input(reactor, program)
    waiting = begin(source.read())
    other.close()
    assert await waiting == b""
    assert await source.read() == b""


@pytest_twisted.ensureDeferred
async def test_theEndThatIsTyped(terminal: Ends, reactor: Any) -> None:
    program, user = terminal
    mode = termios.tcgetattr(program.fileno())
    mode[tty.LFLAG] |= termios.ICANON  # as a shell's terminal is
    termios.tcsetattr(program.fileno(), termios.TCSANOW, mode)
    source = Input(reactor, program)
    user.write(b"line\n")
    assert await source.read() == b"line\n"
    user.write(b"\x04")
    assert await source.read() == b""


@pytest_twisted.ensureDeferred
async def test_aRegularFile(tmp_path: Path, reactor: Any) -> None:
    """epoll(7) refuses to wait for it; it is read in pieces, one in each turn."""
    data = os.urandom(CHUNK + 10)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        source = Input(reactor, file)
        first = begin(source.read())
        assert not first.called
        assert await first == data[:CHUNK]
        assert await source.read() == data[CHUNK:]
        assert await source.read() == b""


@pytest_twisted.ensureDeferred
async def test_nothingToReadFrom(reactor: Any) -> None:
    assert await Input(reactor, None).read() == b""
    with open(os.devnull, "rb") as nothing:
        assert await Input(reactor, nothing).read() == b""


@pytest_twisted.ensureDeferred
async def test_whatCannotBeRead(tmp_path: Path, reactor: Any) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(NetError) as caught:
        await Input(reactor, file).read()
    assert caught.value.code == "EBADF"
    assert caught.value.strerror == "stdin cannot be read: Bad file descriptor"


@pytest_twisted.ensureDeferred
async def test_anotherReaderIsFaster(pipe: Ends, kept: ExitStack, reactor: Any) -> None:
    """A shell's programs share their stdin; who is woken for nothing does not block in read(2)."""
    program, other = pipe
    twin = kept.enter_context(os.fdopen(os.dup(program.fileno()), "rb", buffering=0))
    reads = [begin(Input(reactor, one).read()) for one in (program, twin)]
    other.write(b"x")
    await until(lambda: any(one.called for one in reads))
    await turns(2)
    assert [one.called for one in reads].count(True) == 1
    other.write(b"y")
    assert sorted([await one for one in reads]) == [b"x", b"y"]


@pytest_twisted.ensureDeferred
async def test_cancelled(pipe: Ends, reactor: Any) -> None:
    source = Input(reactor, pipe[0])
    waiting = begin(source.read())
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert source._readiness not in reactor.getReaders()
    pipe[1].write(b"kept")
    assert await source.read() == b"kept"


# Writing


@pytest.mark.parametrize("kind", ["pipe", "pair"])
@pytest_twisted.ensureDeferred
async def test_aSlowReader(kind: str, request: pytest.FixtureRequest, reactor: Any) -> None:
    """write waits, and the reactor does not."""
    one, other = request.getfixturevalue(kind)
    program, reader = (other, one) if kind == "pipe" else (one, other)
    before = flags(program)
    data = os.urandom(600_000)
    writing = begin(Output(reactor, program).write(data))
    await turns(3)
    assert not writing.called
    assert flags(program) == before
    assert await deferToThread(_exactly, reader, len(data)) == data
    await writing


@pytest_twisted.ensureDeferred
async def test_ontoATerminal(terminal: Ends, reactor: Any) -> None:
    program, user = terminal
    data = os.urandom(100_000)
    reading = deferToThread(_exactly, user, len(data))
    await Output(reactor, program).write(data)
    assert await reading == data


def _exactly(file: IO[bytes], size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(file.fileno(), size - len(found))
    return found


@pytest_twisted.ensureDeferred
async def test_intoAFile(tmp_path: Path, reactor: Any) -> None:
    data = os.urandom(100_000)
    with (tmp_path / "file").open("wb") as file:
        await Output(reactor, file).write(data)
    assert (tmp_path / "file").read_bytes() == data


@pytest_twisted.ensureDeferred
async def test_intoNothing(reactor: Any) -> None:
    await Output(reactor, None).write(b"x")
    with open(os.devnull, "wb") as nothing:
        await Output(reactor, nothing).write(b"x")


@pytest_twisted.ensureDeferred
async def test_aDiskThatIsFull(reactor: Any) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(NetError) as caught:
        await Output(reactor, full).write(b"x")
    assert (caught.value.code, caught.value.strerror) == (
        "ENOSPC",
        "stdout cannot be written: No space left on device",
    )


@pytest.mark.parametrize("already", [True, False])
@pytest_twisted.ensureDeferred
async def test_theReaderLeaves(already: bool, pipe: Ends, reactor: Any) -> None:
    sink = Output(reactor, pipe[1])
    if already:
        pipe[0].close()
    writing = begin(sink.write(bytes(1_000_000)))
    if not already:
        await turns(2)
        assert not writing.called
        pipe[0].close()
    with pytest.raises(UnreadError):
        await writing


@pytest.mark.parametrize("busy", [True, False])
@pytest_twisted.ensureDeferred
async def test_theReaderLeavesInSilence(busy: bool, pipe: Ends, reactor: Any) -> None:
    """It is noticed without a write, and beside one that waits."""
    sink = Output(reactor, pipe[1])
    watch = begin(sink.unread())
    await turns(2)
    assert not watch.called
    writing = begin(sink.write(bytes(1_000_000 if busy else 10)))
    await turns(2)
    assert writing.called is not busy
    assert not watch.called
    pipe[0].close()
    with pytest.raises(UnreadError):
        await watch
    if busy:
        with pytest.raises(UnreadError):
            await writing


@pytest_twisted.ensureDeferred
async def test_theWatchEnds(pipe: Ends, reactor: Any) -> None:
    sink = Output(reactor, pipe[1])
    watch = begin(sink.unread())
    watch.cancel()
    with pytest.raises(CancelledError):
        await watch
    assert sink._readiness not in reactor.getReaders()


def _fifo(folder: Path) -> IO[bytes]:
    os.mkfifo(folder / "fifo")
    return os.fdopen(os.open(folder / "fifo", os.O_RDWR), "r+b", buffering=0)


def _socket(folder: Path) -> IO[bytes]:
    one, other = socket.socketpair()
    other.close()
    return os.fdopen(one.detach(), "r+b", buffering=0)


def _file(folder: Path) -> IO[bytes]:
    return (folder / "file").open("wb")


@pytest.mark.parametrize("make", [_fifo, _socket, _file])
@pytest_twisted.ensureDeferred
async def test_othersDoNotTell(make: Callable[[Path], IO[bytes]], tmp_path: Path, reactor: Any) -> None:
    with make(tmp_path) as file:
        sink = Output(reactor, file)
        if make is _fifo:
            await sink.write(b"what comes back to who can read it, too")
        watch = begin(sink.unread())
        await turns(3)
        assert not watch.called
        watch.cancel()
        with pytest.raises(CancelledError):
            await watch
