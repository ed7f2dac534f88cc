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
    segments <-- a socket that cannot be spliced, or the two part  ----- splice, and what is in the pipe comes along
                 an error on either side ends that connection

*Whose descriptors.* The transports keep theirs, and stay as they are: the source is paused (owner ``"splice"``), the
sink has nothing to send. What is watched are duplicates (dup(2)), which any reactor takes as descriptors of their own;
epoll knows them by number and file. Their one danger: a socket is closed when the last duplicate is, so FIN waits for
them. `Splice.stop` has to be called as soon as one of the two connections is gone, and it is.

*An end is not passed on here.* At EOF the direction goes back, and the transport reads the same EOF once more, by
itself. Errors are read once only: they are told to the connection that they belong to.

*Last words.* A sink that fails may have said something before, and closed while more was on its way to it: so does a
server that has had enough of an upload. Its transport would read one segment of that before it writes, and finds that
it cannot. Here the failure can be known first (epoll tells of it without asking for anything to be read), so whatever
lies unread is delivered before the connection is given up, unless its reading stands still.

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
from twisted_net.wire.outlet import SEGMENT
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

_UNABLE: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOMEM, errno.ENOBUFS}
)
"""Errors that say nothing of the connection, but that it cannot be carried in this way (splice(2))."""

_AVAILABLE: Final = hasattr(os, "splice")
_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if _AVAILABLE else 0


class Splices:
    """
    The spliced directions of one forwarder: how many there are, and may be.

    :param limit: at most so many at a time; 0 for none.
    """

    __slots__ = ("_living", "limit", "total")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        #: How often one went over.
        self.total = 0
        self._living: dict[SocketProtocol, Splice] = {}  # by their sources

    @property
    def living(self) -> int:
        """Directions that are spliced now."""
        return len(self._living)

    def entered(self, source: SocketProtocol, splice: Splice) -> None:
        """What comes from *source* is spliced."""
        self._living[source] = splice
        self.total += 1

    def left(self, source: SocketProtocol) -> None:
        """It is no more."""
        del self._living[source]

    def giveBack(self, source: SocketProtocol) -> None:
        """If what comes from *source* is spliced, that ends now."""
        splice = self._living.get(source)
        if splice is not None:
            splice.goBack()

    def begin(self, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[bool], object]) -> Splice | None:
        """
        Have the kernel carry what comes from *source* to *sink*, if that can be.

        :param ended: called when the direction goes back, and is the transports' business again: with True, or with
            False when it is not to be tried again, since it cannot be spliced. Not called for `Splice.stop`, nor for
            `Splice.release`.
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
        except OSError:  # no descriptor is left, no pipe worth the name, or nothing more can be watched
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
        self, splices: Splices, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[bool], object]
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
        reactor: Any = source.reactor
        opened = [*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)]
        try:
            _widen(opened[1])
            for protocol in (source, sink):
                opened.append(os.dup(_descriptorOf(protocol)))
            self._pipe = (opened[0], opened[1])
            self._sourceSide = _Side(opened[2], self._turn, self._sourceFailed)
            self._sinkSide = _Side(opened[3], self._turn, self._sinkFailed)
            reactor.addReader(self._sourceSide)
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        splices.entered(source, self)
        source.pause(OWNER)
        self._quiet: IDelayedCall = reactor.callLater(QUIET, self._look)

    @property
    def underWay(self) -> int:
        """Bytes that are in the pipe."""
        return self._inPipe

    def stop(self) -> None:
        """Give everything back now; what is in the pipe is lost. The source stays paused. Harmless when it was done."""
        if self._closed:
            return
        self._closed = True
        self._splices.left(self._source)
        self._quiet.cancel()
        reactor: Any = self._source.reactor
        reactor.removeReader(self._sourceSide)
        reactor.removeWriter(self._sinkSide)
        for descriptor in (self._sourceSide.number, self._sinkSide.number, *self._pipe):
            os.close(descriptor)

    def release(self) -> None:
        """
        Give the direction back to the transports now: the sink's sends what is in the pipe, the source's reads on.
        Harmless when it was done.
        """
        if self._closed:
            return
        rest = []
        while self._inPipe:
            rest.append(os.read(self._pipe[0], self._inPipe))
            self._inPipe -= len(rest[-1])
        self.stop()
        if rest:
            self._sink.outlet.forward(b"".join(rest))
        self._source.resume(OWNER)

    def goBack(self, again: bool = True) -> None:
        """
        As `release`, told to whoever has begun it.

        :param again: whether it may be tried again.
        """
        self._ended(again)
        self.release()

    def _turn(self) -> None:
        """Something is ready: move what can be moved."""
        moved = 0
        ended = False
        for _ in range(ROUNDS):
            came = self._fill()
            if came is None:
                return
            ended = came == 0
            moved += self._drain()
            if self._closed:
                return
            if self._inPipe:
                self._awaitRoom()
                return
            if ended or came < 0:
                break
        self._awaitBytes()
        self._little = 0 if moved > LITTLE else self._little + 1
        if ended or self._little >= LITTLES:
            self.goBack()

    def _fill(self) -> int | None:
        """
        Move what has come into the pipe; how many bytes: 0 at the end, -1 when there are none, or no room for them.
        None when it is over.
        """
        if self._awaitsRoom:
            return -1
        try:
            came = os.splice(self._sourceSide.number, self._pipe[1], PIPE_SIZE, flags=_FLAGS)
        except BlockingIOError:
            return -1
        except OSError as error:
            self._stumbled(error, self._sourceFailed)
            return None
        self._inPipe += came
        self._source.carriedBeside(came)
        return came

    def _drain(self) -> int:
        """Move what is in the pipe on; how many bytes."""
        went = 0
        failure: OSError | None = None
        while self._inPipe:
            try:
                size = os.splice(self._pipe[0], self._sinkSide.number, self._inPipe, flags=_FLAGS)
            except BlockingIOError:
                break
            except OSError as error:
                failure = error
                break
            self._inPipe -= size
            went += size
        if went:
            self._awaitsRoom = False
            self._moved = True
            self._sink.outlet.carriedBeside(went)
        if failure is not None:
            self._stumbled(failure, self._sinkFailed)
        return went

    def _stumbled(self, error: OSError, failed: Callable[[OSError], object]) -> None:
        if error.errno in _UNABLE:
            self.goBack(again=False)
        else:
            failed(error)

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
            self.goBack()
        self._moved = False

    def _sourceFailed(self, error: OSError | None) -> None:
        if not self._closed:
            self._fail(self._source, _numberOf(error, self._sourceSide))

    def _sinkFailed(self, error: OSError | None) -> None:
        if self._closed:
            return
        number = _numberOf(error, self._sinkSide)
        self._hearOut()
        if not self._closed:
            self._fail(self._sink, number)

    def _hearOut(self) -> None:
        """Deliver what the sink had said before it failed: its transport does not come to it any more."""
        sink = self._sink
        self._splices.giveBack(sink)
        while not self._closed and sink.state.canRead and not sink.pressure.paused:
            try:
                data = os.read(self._sinkSide.number, SEGMENT)
            except OSError:
                return
            if not data:
                return
            sink.dataReceived(data)

    def _fail(self, protocol: SocketProtocol, number: int | None) -> None:
        """A connection has failed, as its transport will never hear: the error is told once."""
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


def _numberOf(error: OSError | None, side: _Side) -> int | None:
    """What has failed: an errno. Without an error the socket is asked; 0, or None: it does not say."""
    if error is not None:
        return error.errno
    skt = socket.socket(fileno=side.number)
    try:
        return skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        skt.detach()


def _loss(number: int | None) -> Exception:
    if not number or number in (errno.ECONNRESET, errno.EPIPE):
        return ConnectionLost()
    return OSError(number, os.strerror(number))
