"""
A uvloop reactor of a test's own, on a loop of its own, whatever reactor the suite runs on.

::

    @played
    async def test_echo(world: World) -> None:
        actor, peer = await world.accept(Actor(data=lambda actor, data: actor.transport.write(data)))
        peer.send(b"hello")
        assert await peer.read(5) == b"hello"

The fixture ``world`` is closed at the end of its test: then nothing may be left in it, and nothing may have reached the
loop's own handler of exceptions.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import pytest
from logs import LoggedErrors
from programs import environment
from turning import PATIENCE
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.testing.installed import InPlace

uvloop: Any = pytest.importorskip("uvloop")

from twisted_net.uvreactor.reactor import UvloopReactor  # noqa: E402

# libuv opens a pipe for signals once in a process, with its first loop: no test shall be blamed for that.
uvloop.new_event_loop().close()

MEGABYTES = bytes(range(256)) * 4096 * 8
"""More than the kernel takes for a peer that does not read."""

KINDS = ["tcp", "tcp6", "unix", "abstract"]
FAMILIES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX, "abstract": socket.AF_UNIX}

_Result = TypeVar("_Result")
_numbers = itertools.count()


def played(scene: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function that has an argument ``world``: it runs on that world's reactor."""

    @functools.wraps(scene)
    def test(*args: Any, world: World, **keywords: Any) -> None:
        world.play(scene(*args, world=world, **keywords))

    return test


class World:
    """
    A reactor, and what a test needs around it.

    :param loop: of uvloop's kind; closed at the end.
    """

    def __init__(self, loop: Any = None) -> None:
        self.loop = loop or uvloop.new_event_loop()
        self.loop.set_exception_handler(lambda loop, event: self._escaped.append(event))
        self._escaped: list[dict[str, Any]] = []
        self.reactor: Any = UvloopReactor(self.loop)
        self._owned = ExitStack()

    # -- running

    def play(self, scene: Coroutine[Any, Any, _Result], signals: bool = False) -> _Result:
        """Run the reactor until ``scene`` has ended; return what it returns, raise what it raises."""
        ended: list[_Result | Failure] = []

        def end(result: Any) -> None:
            ended.append(result)
            if patience.active():
                patience.cancel()
            self.reactor.stop()

        def begin() -> None:
            running.append(Deferred.fromCoroutine(scene).addBoth(end))

        running: list[Deferred[None]] = []
        patience = self.reactor.callLater(PATIENCE, lambda: running[0].cancel())
        self.reactor.callWhenRunning(begin)
        with InPlace(self.reactor):  # TLS takes its clock from the global one
            self.outside(self.reactor.run, installSignalHandlers=signals)
        [result] = ended
        if isinstance(result, Failure):
            result.raiseException()
        assert not isinstance(result, Failure)
        return result

    def outside(self, call: Callable[..., _Result], *args: Any, **keywords: Any) -> _Result:
        """Call as if no loop of asyncio's ran in this thread: the suite's reactor may be in the middle of one."""
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return call(*args, **keywords)
        finally:
            asyncio._set_running_loop(running)

    async def turns(self, count: int = 1) -> None:
        """Let the loop go round ``count`` times, without a word to the reactor."""
        for _ in range(count):
            turn: Deferred[None] = Deferred()
            self.loop.call_soon(turn.callback, None)
            await turn

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop go round until ``condition`` holds."""
        while not condition():
            await self.turns()

    async def made(self, actor: Actor) -> None:
        """Let the loop go round until the actor is connected."""
        await self.until(lambda: actor.events)

    # -- who and what takes part

    def own(self, skt: socket.socket) -> socket.socket:
        """Close ``skt`` at the end."""
        self._owned.callback(skt.close)
        return skt

    def peer(self, skt: socket.socket) -> Peer:
        """Make a peer of a plain socket."""
        return Peer(self, self.own(skt))

    def address(self, kind: str) -> Any:
        """An address of that kind on which nobody listens, as sockets take it."""
        if kind in ("tcp", "tcp6"):
            return ("127.0.0.1" if kind == "tcp" else "::1", 0)
        name = f"uvworld-{os.getpid()}-{next(_numbers)}"
        return f"\0{name}" if kind == "abstract" else os.path.join(self._folder(), name)

    def _folder(self) -> str:
        return self._owned.enter_context(tempfile.TemporaryDirectory())

    def listen(self, factory: Any, kind: str = "tcp") -> Any:
        """Have the reactor listen."""
        where = self.address(kind)
        if FAMILIES[kind] == socket.AF_UNIX:
            return self.reactor.listenUNIX(where, factory)
        return self.reactor.listenTCP(where[1], factory, interface=where[0])

    def listening(self, kind: str = "tcp") -> socket.socket:
        """A plain socket that listens."""
        skt = self.own(socket.socket(FAMILIES[kind]))
        skt.bind(self.address(kind))
        skt.listen()
        skt.setblocking(False)
        return skt

    def connect(self, factory: Any, address: Any, **more: Any) -> Any:
        """Have the reactor connect to where a socket listens; return the connector."""
        if isinstance(address, (str, bytes)):
            where = address.decode() if isinstance(address, bytes) else address
            return self.reactor.connectUNIX(where, factory, **more)
        return self.reactor.connectTCP(address[0], address[1], factory, **more)

    async def accept(self, actor: Any, kind: str = "tcp", receiveBuffer: int | None = None) -> tuple[Any, Peer]:
        """
        Connect a plain socket to a port of the reactor's, which stops listening then.

        :param receiveBuffer: the peer's SO_RCVBUF.
        """
        port = self.listen(Hands(actor), kind)
        skt = socket.socket(FAMILIES[kind])
        if receiveBuffer is not None:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        self.own(skt).connect(port.socket.getsockname())
        await self.until(lambda: actor.events)
        await port.stopListening()
        return actor, self.peer(skt)

    async def dial(self, actor: Any, kind: str = "tcp") -> tuple[Any, Peer]:
        """Have the reactor connect to a plain socket."""
        skt = self.listening(kind)
        self.connect(Hands(actor), skt.getsockname())
        await self.until(lambda: actor.events)
        accepted, _ = skt.accept()
        return actor, self.peer(accepted)

    async def meet(self, server: Any, client: Any, kind: str = "tcp") -> None:
        """Connect two protocols of the reactor's with each other."""
        port = self.listen(Hands(server), kind)
        self.connect(Hands(client), port.socket.getsockname())
        await self.until(lambda: server.events and client.events)
        await port.stopListening()

    # -- the end

    def close(self) -> None:
        """Close everything; nothing may be left."""
        reactor, loop = self.reactor, self.loop
        for _ in range(10):  # what was closed is closed in the turns after
            loop.call_soon(loop.stop)
            self.outside(loop.run_forever)
        reactor._uninstallHandler()
        internal = set(reactor._internalReaders)
        left = [*(one for one in reactor.getReaders() if one not in internal), *reactor.getWriters()]
        left += [call for call in reactor.getDelayedCalls() if call.active()]
        left += [*reactor._streams, *reactor._handed]
        for reader in internal:
            reactor.removeReader(reader)
            reader.connectionLost(None)
        loop.remove_reader(reactor._watcher._selector.fileno())
        reactor._watcher._selector.close()
        loop.close()
        self._owned.close()
        assert left == []
        assert self._escaped == []


class Hands(ClientFactory):
    """Hands out protocols in the order given, and then the last one again; remembers what its connector tells."""

    noisy = False

    def __init__(self, *protocols: Any) -> None:
        self._protocols = list(protocols)
        self.addresses: list[Any] = []
        self.failed: list[Failure] = []
        self.lost: list[Failure] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        return self._protocols.pop(0) if len(self._protocols) > 1 else self._protocols[0]

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed.append(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.lost.append(reason)


class Actor(Protocol):
    """
    Keeps what happens to it, and does what it is told to then.

    :param reactions: what is called with the actor (and its bytes, or the reason) after it has noted ``made``,
        ``data``, ``lost``, and for a :class:`Half` ``readEnd`` and ``writeEnd``.
    """

    transport: Any

    def __init__(self, **reactions: Callable[..., object]) -> None:
        self.reactions = reactions
        self.events: list[str] = []
        self.received = b""
        self.chunks: list[bytes] = []
        self.reason: Failure | None = None

    def _note(self, event: str, *more: Any) -> None:
        self.events.append(event)
        reaction = self.reactions.get(event)
        if reaction is not None:
            reaction(self, *more)

    @property
    def lost(self) -> bool:
        return "lost" in self.events

    def why(self) -> object:
        """The kind of error that the connection was lost with."""
        assert self.reason is not None
        return type(self.reason.value)

    def connectionMade(self) -> None:
        self._note("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.chunks.append(data)
        self._note("data", data)

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason
        self._note("lost", reason)


@implementer(IHalfCloseableProtocol)
class Half(Actor):
    """One that goes on when one half of its connection has ended."""

    def readConnectionLost(self) -> None:
        self._note("readEnd")

    def writeConnectionLost(self) -> None:
        self._note("writeEnd")


class Producer:
    """Notes what it is told, and does something when it is asked for more."""

    def __init__(self, resumed: Callable[[], object] = lambda: None) -> None:
        self.told: list[str] = []
        self.resumed = resumed

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.resumed()

    def stopProducing(self) -> None:
        self.told.append("stop")


class Expected(Exception):
    """What protocols raise here."""


def fail(*args: object) -> None:
    raise Expected


def write(*pieces: bytes) -> Callable[..., None]:
    """A reaction: write these."""

    def react(actor: Actor, *args: object) -> None:
        for piece in pieces:
            actor.transport.write(piece)

    return react


def do(name: str, *arguments: Any) -> Callable[..., object]:
    """A reaction: call that method of the transport."""
    return lambda actor, *args: getattr(actor.transport, name)(*arguments)


def both(*reactions: Callable[..., object]) -> Callable[..., None]:
    """A reaction: one after the other."""

    def react(*args: Any) -> None:
        for reaction in reactions:
            reaction(*args)

    return react


def loggedOnce(loggedErrors: LoggedErrors, system: str) -> None:
    """One `Expected`, as an error of that part of the system."""
    [event] = loggedErrors.flush("Expected")
    assert event["log_system"] == system


class Peer:
    """A plain socket at the other end, driven by the test."""

    def __init__(self, world: World, skt: socket.socket) -> None:
        self._world = world
        self.socket = skt
        skt.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send ``data``, for which the kernel has to have room."""
        assert self.socket.send(data) == len(data)

    async def sendAll(self, data: bytes) -> None:
        """Send ``data`` as the kernel has room."""
        rest = memoryview(data)
        while rest:
            with suppress(BlockingIOError):
                rest = rest[self.socket.send(rest) :]
            await self._world.turns()

    async def some(self, most: int = 1 << 20) -> bytes:
        """What comes next; nothing for FIN, and ConnectionResetError for RST."""
        while True:
            try:
                return self.socket.recv(most)
            except BlockingIOError:
                await self._world.turns()

    async def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        data = b""
        while len(data) < count:
            more = await self.some(count - len(data))
            assert more, f"only {data!r} has come"
            data += more
        return data

    async def end(self) -> bytes:
        """Everything until FIN."""
        data = bytearray()
        while more := await self.some():
            data += more
        return bytes(data)

    async def reset(self) -> bytes:
        """Everything until RST."""
        data = bytearray()
        try:
            while more := await self.some():
                data += more
        except ConnectionResetError:
            return bytes(data)
        raise AssertionError(f"a FIN has come after {bytes(data)!r}, and no RST")

    def isQuiet(self) -> bool:
        """Whether nothing has come: no byte, no end."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self, reset: bool = False) -> None:
        """Close, with RST if ``reset``."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def segments(skt: Any) -> int:
    """How many segments with data have left by a TCP socket: tcpi_data_segs_out of ``struct tcp_info`` (tcp(7))."""
    number: int = struct.unpack_from("I", skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 156)[0]
    return number


PREAMBLE = """
import os, signal, socket, sys
from twisted_net import uvreactor
uvreactor.install()
from twisted.internet import reactor
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python import log
log.startLogging(sys.stderr, setStdout=False)
"""


def ran(program: str, *, installed: bool = True, before: Callable[[], object] | None = None, **more: Any) -> str:
    """
    Run a program to its end, which has to be a good one; return what it printed.

    :param installed: the reactor is there, by the name of ``reactor``, and what one needs of Twisted.
    :param before: called in the child process before the program starts.
    """
    text = (PREAMBLE if installed else "") + textwrap.dedent(program)
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=before,
        **more,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


def started(program: str) -> subprocess.Popen[str]:
    """Start a program with the reactor; it is for the caller to end it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Signals:
    """Puts the handlers of signals back that a reactor has taken."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

    def __enter__(self) -> Signals:
        self._before = [(number, signal.getsignal(number)) for number in self.NUMBERS]
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)


def patiently(condition: Callable[[], Any]) -> None:
    """Wait for what another thread or the kernel does."""
    latest = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < latest, "it has not come true"
