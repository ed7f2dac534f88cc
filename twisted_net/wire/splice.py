"""
One direction of a connection that the kernel carries by itself: from socket to socket, through a pipe (splice(2)).

Theory
======
A busy direction costs a proxy most for bytes that it copies twice and never looks at. ``splice`` moves the pages
themselves, from the one socket into a pipe and from the pipe into the other. Nothing here ever sees a byte, so it is
only for a direction in which nobody wants to: no rate, no TLS, no hook, no fault; who introduces two connections knows
(:mod:`~twisted_net.wire.relay`). It pays for bulk alone: a small message costs four system calls and the readiness of
two more descriptors, where a segment that is read and sent costs two calls. So a direction goes over when several
segments in a row were as large as one read can be, and comes back when it goes quiet::

    segments --- FULL full ones, and the sink has taken all of them ---> splice
    segments <-- EOF, or little for a while, and the pipe is empty  ---- splice
                 an error on either side ends that connection

*Whose descriptors.* The transports keep theirs, and stay as they are: the source is paused (owner ``"splice"``), the
sink has nothing to send. What is watched are duplicates (dup(2)), which any reactor takes as descriptors of their own;
epoll knows them by number and file. Their one danger: a socket is closed when the last duplicate is, so FIN waits for
them. `Splice.stop` has to be called as soon as one of the two connections is gone, and it is.

*An end is not passed on here.* At EOF the direction goes back, and the transport reads the same EOF once more, by
itself. Errors are read once only: they are told to the connection that they belong to.

*Readiness.* EAGAIN of a splice into the pipe means that the socket is empty or that the pipe is full, and nobody says
which. So what is in the pipe is first moved out, and then a splice that moves nothing means the socket. While the sink
takes nothing the source is not watched: at most one pipe of bytes is under way.

*What it holds.* Four descriptors, and at most `PIPE_SIZE` bytes of the kernel's memory, for each direction that goes
this way; at most `LIMIT` of those at a time (`Splices`), since Linux makes the pipes of a user tiny who has 64 MiB of
them (pipe(7), ``pipe-user-pages-soft``). Everybody else is carried as before. When there is no descriptor left, too.

Rejected: replacing the transport's ``doRead`` (uvloop's transports have none, and stock ones would be another thing to
reach into); the pipe for everybody from the first byte (for 64-byte messages twice the system calls); ``SPLICE_F_MORE``
(the last bytes of a burst would wait 200 ms in a corked socket).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import ISimulatedSocket
from twisted_net.wire import layers
from twisted_net.wire.protocol import SocketProtocol

__all__ = ["LIMIT", "PIPE_SIZE", "Splice", "Splices"]

OWNER: Final = "splice"
"""The owner of the pause in the source's reading."""

PIPE_SIZE: Final = 1024 * 1024
"""Bytes of a pipe, at most: what Linux allows everybody by default (pipe(7), ``pipe-max-size``)."""

LEAST_PIPE: Final = 64 * 1024
"""Bytes: a pipe that is smaller (pipe(7): a user with too many has such) is not worth it."""

LIMIT: Final = 48
"""Directions that are spliced at a time, at most: 48 MiB of pipes, three quarters of what Linux grants."""

FULL: Final = 8
"""Full segments before a direction goes over."""

ROUNDS: Final = 8
"""Pipes that are moved in one turn of the reactor, at most: others want their turn, too."""

LITTLE: Final = 16 * 1024
"""Bytes: what comes in such pieces is cheaper read and sent."""

LITTLES: Final = 16
"""Such pieces in a row, after which a direction goes back."""

QUIET: Final = 1.0
"""Seconds without a byte, after which it does too, so that nobody keeps a pipe for nothing."""

_AVAILABLE: Final = hasattr(os, "splice")
_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if _AVAILABLE else 0


class Splices:
    """
    The spliced directions of one forwarder: how many there are, and may be.

    :param limit: at most so many at a time; 0 for none.
    """

    __slots__ = ("limit", "living", "total")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        #: Directions that are spliced now.
        self.living = 0
        #: How often one went over.
        self.total = 0

    def begin(self, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[], object]) -> Splice | None:
        """
        Have the kernel carry what comes from *source* to *sink*, if that can be.

        :param ended: called when the direction has gone back, and is the transports' business again; not after `stop`.
        :returns: None when it cannot be: nothing has changed then.
        """
        if (
            self.living >= self.limit
            or not (source.mayBePassed and sink.outlet.mayBePassed)
            or not (_AVAILABLE and _isPlain(source.transport) and _isPlain(sink.transport))
        ):
            return None
        try:
            return Splice(self, source, sink, ended)
        except OSError:  # no descriptor is left, or no pipe worth the name
            return None


def _isPlain(transport: Any) -> bool:
    """Whether what the transport reads and writes is what its socket carries."""
    skt = layers.socketOf(transport)
    return (
        layers.below(transport) is transport
        and skt is not None
        and not ISimulatedSocket.providedBy(skt)
        and not layers.isTls(transport)
    )


class Splice:
    """
    One direction that is carried by the kernel. Made by `Splices.begin`.

    :raises OSError: there are no descriptors; nothing has changed.
    """

    __slots__ = (
        "_awaitsRoom",
        "_closed",
        "_ended",
        "_inPipe",
        "_little",
        "_moved",
        "_pipe",
        "_quiet",
        "_sink",
        "_sinkSide",
        "_source",
        "_sourceSide",
        "_splices",
    )

    def __init__(
        self, splices: Splices, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[], object]
    ) -> None:
        self._source = source
        self._sink = sink
        self._ended = ended
        self._splices = splices
        self._inPipe = 0
        self._little = 0
        self._moved = False
        self._awaitsRoom = False
        self._closed = False
        opened = [*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)]
        try:
            _widen(opened[1])
            for protocol in (source, sink):
                opened.append(os.dup(_descriptorOf(protocol)))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        self._pipe = (opened[0], opened[1])
        self._sourceSide = _Side(opened[2], self._turn, self._sourceFailed)
        self._sinkSide = _Side(opened[3], self._turn, self._sinkFailed)
        splices.living += 1
        splices.total += 1
        source.pause(OWNER)
        reactor: Any = source.reactor
        self._quiet: IDelayedCall | None = reactor.callLater(QUIET, self._look)
        reactor.addReader(self._sourceSide)

    @property
    def underWay(self) -> int:
        """Bytes that are in the pipe."""
        return self._inPipe

    def stop(self) -> None:
        """Give everything back now; what is in the pipe is lost. The source stays paused. Harmless when it was done."""
        if self._closed:
            return
        self._closed = True
        self._splices.living -= 1
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            quiet.cancel()
        reactor: Any = self._source.reactor
        reactor.removeReader(self._sourceSide)
        reactor.removeWriter(self._sinkSide)
        for descriptor in (self._sourceSide.number, self._sinkSide.number, *self._pipe):
            os.close(descriptor)

    def _goBack(self) -> None:
        """The pipe is empty: reading goes on by the transport."""
        self.stop()
        self._ended()
        self._source.resume(OWNER)

    def _turn(self) -> None:
        """Something is ready: move what can be moved."""
        moved = 0
        ended = False
        for _ in range(ROUNDS):
            came = self._fill()
            if came is None or self._closed:
                return
            ended = came == 0
            went = self._drain()
            if self._closed:
                return
            moved += went
            if self._inPipe:
                self._awaitRoom()
                break
            if ended or came < 0:
                break
        self._count(moved)
        if self._inPipe:
            return
        self._awaitBytes()
        self._little = 0 if moved > LITTLE else self._little + 1
        if ended or self._little >= LITTLES:
            self._goBack()

    def _fill(self) -> int | None:
        """
        Move what has come into the pipe; how many bytes: 0 at the end, -1 when there are none, or no room for them.
        None when that was the connection's end.
        """
        if self._awaitsRoom:
            return -1
        try:
            came = os.splice(self._sourceSide.number, self._pipe[1], PIPE_SIZE, flags=_FLAGS)
        except BlockingIOError:
            return -1
        except OSError as error:
            self._sourceFailed(error)
            return None
        self._inPipe += came
        self._source.carriedBeside(came)
        return came

    def _drain(self) -> int:
        """Move what is in the pipe on; how many bytes."""
        went = 0
        while self._inPipe:
            try:
                size = os.splice(self._pipe[0], self._sinkSide.number, self._inPipe, flags=_FLAGS)
            except BlockingIOError:
                break
            except OSError as error:
                self._sinkFailed(error)
                break
            self._inPipe -= size
            went += size
        if went:
            self._awaitsRoom = False
        return went

    def _count(self, moved: int) -> None:
        if moved:
            self._moved = True
            self._sink.outlet.carriedBeside(moved)

    def _awaitRoom(self) -> None:
        reactor: Any = self._source.reactor
        self._awaitsRoom = True
        reactor.removeReader(self._sourceSide)
        reactor.addWriter(self._sinkSide)

    def _awaitBytes(self) -> None:
        reactor: Any = self._source.reactor
        reactor.removeWriter(self._sinkSide)
        reactor.addReader(self._sourceSide)

    def _look(self) -> None:
        """Time has passed: has nothing moved?"""
        reactor: Any = self._source.reactor
        self._quiet = reactor.callLater(QUIET, self._look)
        if not self._moved and not self._inPipe:
            self._goBack()
        self._moved = False

    def _sourceFailed(self, error: OSError | None) -> None:
        self._fail(self._source, self._sourceSide, error)

    def _sinkFailed(self, error: OSError | None) -> None:
        self._fail(self._sink, self._sinkSide, error)

    def _fail(self, protocol: SocketProtocol, side: _Side, error: OSError | None) -> None:
        """A connection has failed, as its transport will never hear: the error is told once."""
        number = error.errno if error is not None else _errorOf(side.number)
        self.stop()
        layers.drop(protocol.transport, Failure(_loss(number)))


@implementer(IReadDescriptor, IWriteDescriptor)
class _Side:
    """A duplicate of a socket's descriptor, as a reactor wants it."""

    __slots__ = ("_failed", "_turn", "number")

    def __init__(self, number: int, turn: Callable[[], object], failed: Callable[[OSError | None], object]) -> None:
        self.number = number
        self._turn = turn
        self._failed = failed

    def fileno(self) -> int:
        """The duplicate's number."""
        return self.number

    def logPrefix(self) -> str:
        """What log lines begin with."""
        return "splice"

    def doRead(self) -> None:
        """Bytes have come."""
        self._turn()

    def doWrite(self) -> None:
        """There is room."""
        self._turn()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor was told of an error, or stops."""
        self._failed(None)


def _widen(pipe: int) -> None:
    """
    Give a pipe its size.

    :raises OSError: it is too small, and cannot be widened.
    """
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except PermissionError:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < LEAST_PIPE:
            raise


def _descriptorOf(protocol: SocketProtocol) -> int:
    skt = layers.socketOf(protocol.transport)
    assert skt is not None, "it was asked for before"
    return skt.fileno()


def _errorOf(number: int) -> int:
    """What a socket has to say of itself: an errno, or 0."""
    with socket.socket(fileno=os.dup(number)) as skt:
        return skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _loss(number: int | None) -> Exception:
    if not number or number in (errno.ECONNRESET, errno.EPIPE):
        return ConnectionLost()
    return OSError(number, os.strerror(number))
