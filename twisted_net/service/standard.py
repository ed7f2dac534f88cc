"""
stdin and stdout as coroutines read and write them.

They belong to whoever started the program, who goes on using them. O_NONBLOCK is a property of the open file that all
its users share (fcntl(2)), so a program that sets it has made the shell's terminal non-blocking for everybody, and
leaves it so when it is killed; ``twisted.internet.stdio`` does. Here nothing of them is changed, and yet nothing
keeps the reactor waiting:

- what can keep a reader waiting (a pipe, a socket, a terminal) is read when the reactor says that there is something,
  and written when poll(2) says that there is room, PIPE_BUF bytes at a time: for so many there is room then (pipe(7));
- what never does (a regular file, ``/dev/null``), for which epoll(7) knows no waiting, is read and written at once, a
  chunk in each turn of the reactor.

One thing is left: a terminal says that there is room, and not for how much. Writing to one that its user has stopped
(^S) waits in write(2), as it does for every other program.

A descriptor that was closed when the program started is none: it may be another file's by now. What Python found then
is what counts (``sys.__stdin__`` is None).

Rejected: threads, which would have to be left behind in read(2) at the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from typing import IO, Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.errors import NetError
from twisted_net.wire import layers

__all__ = ["Input", "Output", "UnreadError"]

#: The number of a descriptor that is closed.
CLOSED: Final = -1

#: Bytes that are read at a time, unless the caller wants fewer: a pipe's whole capacity (pipe(7)).
CHUNK: Final = 65536


class UnreadError(NetError):
    """Whoever read what is written has left, as ``head`` does: there is nothing more to do, and nothing to say."""

    code = "EPIPE"
    fault = "peer"


class Input:
    """
    Where bytes come from.

    :param reactor: provides ``IReactorFDSet`` and ``IReactorTime``.
    :param file: such as ``sys.__stdin__``; None when it is closed, which is an end at once.
    """

    def __init__(self, reactor: Any, file: IO[Any] | None) -> None:
        self._reactor = reactor
        self._number = _numberOf(file)
        self._readiness = _readiness(reactor, self._number)

    async def read(self, size: int = CHUNK) -> bytes:
        """
        Up to *size* bytes, as soon as there are any; ``b""`` at the end. Takes a turn of the reactor at least.

        Cancelling it loses nothing.

        :raises NetError: it cannot be read.
        """
        if self._number == CLOSED:
            return b""
        if self._readiness is None:
            await deferLater(self._reactor, 0)
        else:
            await self._readiness.readable()
        try:
            return os.read(self._number, size)
        except OSError as error:
            _refuse("stdin cannot be read", error)


class Output:
    """
    Where bytes go.

    :param reactor: provides ``IReactorFDSet``.
    :param file: such as ``sys.__stdout__``; None when it is closed: then what is written is thrown away.
    """

    def __init__(self, reactor: Any, file: IO[Any] | None) -> None:
        self._number = _numberOf(file)
        self._readiness = _readiness(reactor, self._number)

    async def write(self, data: bytes) -> None:
        """
        Write all of *data*; returns when the kernel has it.

        :raises UnreadError: nobody reads it any more.
        :raises NetError: it cannot be written.
        """
        left = memoryview(data)
        while left and self._number != CLOSED:
            piece = left
            if self._readiness is not None:
                piece = left[: select.PIPE_BUF]
                await self._readiness.writable()
            try:
                left = left[os.write(self._number, piece) :]
            except BrokenPipeError as error:
                raise _unread() from error
            except OSError as error:
                _refuse("stdout cannot be written", error)

    async def unread(self) -> None:
        """
        Wait until nobody reads any more, also while nothing is written. Only pipes tell; otherwise it never comes.

        :raises UnreadError: now.
        """
        if self._readiness is None or not _isPipesEnd(self._number):
            await Deferred()
        else:
            await self._readiness.broken()
        raise _unread()


@implementer(IReadDescriptor, IWriteDescriptor)
class _Readiness:
    """Waits until a descriptor can be read, or written; for one of each at a time."""

    def __init__(self, reactor: Any, number: int) -> None:
        self._reactor = reactor
        self._number = number
        self._reading: Deferred[None] = Deferred()
        self._writing: Deferred[None] = Deferred()

    async def readable(self) -> None:
        """Take one turn of the reactor at least, and wait until read(2) would not."""
        await self._news()
        while not layers.poll(self._number, select.POLLIN):
            await self._news()

    async def broken(self) -> None:
        """Wait until the other end of a pipe that is written to is closed: then this end counts as readable."""
        while not layers.poll(self._number, 0):
            await self._news()

    async def _news(self) -> None:
        self._reading = Deferred()
        self._reactor.addReader(self)
        try:
            await self._reading
        finally:
            self._reactor.removeReader(self)

    async def writable(self) -> None:
        """Wait until write(2) of PIPE_BUF bytes would not."""
        while not layers.poll(self._number, select.POLLOUT):
            self._writing = Deferred()
            self._reactor.addWriter(self)
            try:
                await self._writing
            finally:
                self._reactor.removeWriter(self)

    # What the reactor asks

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def logPrefix(self) -> str:
        """Named so in the log."""
        return "standard streams"

    def doRead(self) -> None:
        """It seems to be readable."""
        if not self._reading.called:
            self._reading.callback(None)

    def doWrite(self) -> None:
        """It seems to be writable."""
        if not self._writing.called:
            self._writing.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """Its other end is closed; read(2) and write(2) know what that means."""
        self.doRead()
        self.doWrite()


def _numberOf(file: IO[Any] | None) -> int:
    return CLOSED if file is None else file.fileno()


def _readiness(reactor: Any, number: int) -> _Readiness | None:
    """For a descriptor that can keep somebody waiting; None for others."""
    if number == CLOSED:
        return None
    mode = os.fstat(number).st_mode
    waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)
    return _Readiness(reactor, number) if waits else None


def _isPipesEnd(number: int) -> bool:
    """Whether a descriptor is a pipe's, for writing alone: what can be read tells of its readers by nothing."""
    onlyWrites = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    return onlyWrites and stat.S_ISFIFO(os.fstat(number).st_mode)


def _unread() -> UnreadError:
    return UnreadError("whoever read stdout has left")


def _refuse(what: str, error: OSError) -> NoReturn:
    code = errno.errorcode.get(error.errno or 0, "EIO")
    raise NetError(f"{what}: {error.strerror}", code=code, fault="user") from error
