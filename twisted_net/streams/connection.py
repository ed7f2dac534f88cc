"""
Connection: what stands behind a connection of the await face, between the engine and a `Stream`.

The engine holds a Connection for as long as the transport lives; a program holds a `Stream`, which holds the
Connection. So a stream that a program forgets is collected although its connection still stands, and is closed with
it (LUAS-7).

*Bytes* that nobody waits for are kept in a buffer, up to its limit; then the peer is paused (the owner ``"reader"``).
While somebody waits for more than the limit (a block of 8 MB), bytes come until he has them. A reader takes nothing
out of the buffer before he has all that he asked for, so that whatever ends his waiting (a timeout, a cancellation,
the end) loses nothing.

*Waiting* is always the same: look, and if it is not there yet, wait for news and look again. What is waited for are
four kinds of news, each with a waiter of its own: bytes (or the end of them), nothing unsent, our FIN sent, and the
connection gone; besides them anybody may watch (`select`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.errors import BusyError, ClosedError, EndError, NetError, TimedOutError, WriteError
from twisted_net.interfaces import IConnectionUser
from twisted_net.sansio.buffer import ReadBuffer
from twisted_net.wire.outlet import Outlet
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.waiting import Waiter

#: Bytes that are kept while nobody reads; then the peer is paused.
BUFFER_LIMIT: Final = 64 * 1024

#: The owner of the pause of a reader who does not read.
READER: Final = "reader"


class Patience(NamedTuple):
    """How long to wait (LUAS-51): each time, and in one call; None is for ever."""

    wait: float | None = None
    call: float | None = None

    def left(self, began: float, now: float) -> float | None:
        """Seconds that are left for the next wait of a call that began then."""
        if self.call is None:
            return self.wait
        left = max(0.0, began + self.call - now)
        return left if self.wait is None else min(self.wait, left)


@implementer(IConnectionUser)
class Connection:
    """The engine's user for one stream.

    :param reactor: the reactor.
    :param bufferLimit: bytes that are kept while nobody reads.
    :param opened: called with this when the connection stands.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, bufferLimit: int = BUFFER_LIMIT, opened: Callable[[Connection], object] | None = None
    ) -> None:
        self._opened = opened
        self.reactor = reactor
        self.buffer = ReadBuffer(bufferLimit)
        #: The engine's object; there from the time when the connection is made, or dialled.
        self.protocol: Any = None
        #: The peer will send nothing more.
        self.ended = False
        #: The connection is gone, and what went wrong with it.
        self.gone = False
        self.error: Exception | None = None
        #: Somebody is in the middle of reading.
        self.reading = False
        self.patience = Patience()
        #: Closed by this side: nothing may be done any more.
        self.closed = False
        #: Who hears of news of any kind: `select`.
        self._watchers: set[Callable[[], object]] = set()
        self.born = reactor.seconds()
        self._reader: Waiter | None = None
        self._waiters: dict[str, list[Waiter]] = {}
        self._paused = False
        self._readShut = False
        #: Somebody is in the middle of writing.
        self.writing = False
        self._turns: deque[Waiter] = deque()
        self._told: tuple[bytes, int] | None = None

    # -- IConnectionUser

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """The connection stands."""
        self.protocol = protocol
        protocol.attach(self.receive)
        if self._opened is not None:
            self._opened(self)

    @classmethod
    def over(cls, protocol: SocketProtocol, bufferLimit: int = BUFFER_LIMIT) -> Self:
        """Take over a connection that stands: what was held for nobody comes here."""
        self = cls(protocol.reactor, bufferLimit)
        self.protocol = protocol
        self.ended = not protocol.state.canRead
        protocol.user = self
        protocol.attach(self.receive)
        return self

    def receive(self, data: bytes) -> None:
        """Bytes have come."""
        if self._readShut:
            return
        self.buffer.feed(data)
        reader = self._reader
        if reader is not None:
            self._reader = None
            reader.fire()
        elif self.buffer.full and not self._paused:
            self._paused = True
            self.protocol.pause(READER)
        if self._watchers:
            self._tellWatchers()

    def readEnded(self) -> None:
        """The peer has ended."""
        self.ended = True
        self._tellReader()

    def writeEnded(self) -> None:
        """Our FIN is with the kernel."""
        self._tell("end")

    def drained(self) -> None:
        """Nothing is unsent any more."""
        self._tell("drain")

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """The connection is gone."""
        self.gone = True
        self.error = error
        self.ended = self.ended or error is None
        self._tellReader()
        for news in ("drain", "end", "gone"):
            self._tell(news)

    def limitPassed(self, name: str, action: str) -> None:
        """A limit was met; what it means comes with `connectionClosed`."""

    def raised(self, where: str, error: Exception) -> None:
        """Something of ours has raised: a defect."""
        self._log.failure("{where} raised", failure=Failure(error), where=where)

    def _tellReader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.fire()
        self._tellWatchers()

    def _tell(self, news: str) -> None:
        for waiter in self._waiters.pop(news, ()):
            waiter.fire()
        self._tellWatchers()

    def _tellWatchers(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    # -- what streams ask

    @property
    def outlet(self) -> Outlet:
        """The outgoing queue."""
        outlet: Outlet = self.protocol.outlet
        return outlet

    def now(self) -> float:
        """The reactor's time."""
        now: float = self.reactor.seconds()
        return now

    def checkOpen(self, what: str) -> None:
        """:raises ClosedError: this side has closed."""
        if self.closed:
            raise ClosedError(f"{what}: the stream is closed; only close() may be called again")

    def checkSent(self, what: str) -> None:
        """:raises NetError: the connection is gone, and not all of what was written has been sent."""
        if self.error is not None:
            raise again(self.error)

    def close(self, *, abort: bool = False) -> None:
        """End both ways: in good order, or at once. Whoever waits hears of it."""
        first, self.closed = not self.closed, True
        if first:
            self.buffer.takeAll()
            self._readShut = True
        if not self.gone:
            if abort:
                self.protocol.abort()
            elif first:
                self.protocol.close()
        self._tellReader()
        for turn in tuple(self._turns):
            turn.fire()

    def handOver(self) -> SocketProtocol:
        """Let go of the connection: what is in the buffer goes back to the engine.

        :raises BusyError: somebody is reading or writing.
        """
        self.checkOpen("handOver")
        if self.reading or self.writing:
            raise BusyError("handOver: somebody is reading from or writing to this stream; let that end first")
        # For this side it is over, whatever becomes of it elsewhere.
        self.closed = self.gone = True
        protocol: SocketProtocol = self.protocol
        protocol.giveBack(self.buffer.takeAll())
        if self._paused:
            self._paused = False
            protocol.resume(READER)
        return protocol

    @property
    def readable(self) -> bool:
        """Whether a read would not wait."""
        return len(self.buffer) > 0 or self.ended or self.gone or self.closed

    @property
    def writable(self) -> bool:
        """Whether a write would not wait."""
        return self.gone or self.closed or (not self.writing and self.outlet.unsent < self.outlet.highWaterMark)

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call *watcher* whenever something has changed."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        self._watchers.discard(watcher)

    # -- waiting

    async def until(self, news: str, seconds: float | None, what: str) -> None:
        """Wait for *news*: ``"drain"``, ``"end"`` or ``"gone"``.

        :raises TimedOutError: it has not come within *seconds*.
        """
        waiter = Waiter(self.reactor, lambda waiter: self._waiters[news].remove(waiter))
        self._waiters.setdefault(news, []).append(waiter)
        await self._timed(waiter, seconds, what)

    async def _more(self, began: float, what: str) -> None:
        """Wait until something has come in."""
        waiter = self._reader = Waiter(self.reactor, self._forgetReader)
        if self._paused:
            self._paused = False
            self.protocol.resume(READER)
        await self._timed(waiter, self.patience.left(began, self.reactor.seconds()), what)

    def _forgetReader(self, waiter: Waiter) -> None:
        if self._reader is waiter:
            self._reader = None

    async def _timed(self, waiter: Waiter, seconds: float | None, what: str) -> None:
        if seconds is None:
            await waiter
            return
        timer: IDelayedCall = self.reactor.callLater(seconds, self._late, waiter, seconds, what)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()

    def _late(self, waiter: Waiter, seconds: float, what: str) -> None:
        waiter.forget()
        waiter.fire(TimedOutError(f"{what}: nothing within {seconds:g} s; wait longer (setTimeout), or try again"))

    # -- reading

    async def seek(self, find: Callable[[], bytes | None], what: str, prefix: bytes = b"") -> bytes:
        """Wait until *find* has found what is read for, and return it.

        :raises EndError, TimedOutError, LimitError, NetError: with what has come so far as ``partial``; it stays.
        :raises BusyError: somebody else is reading.
        :raises ClosedError: this side has closed.
        """
        self.checkReadable(what)
        began = self.reactor.seconds()
        self.reading = True
        try:
            while (found := find()) is None:
                self._checkEnd(what)
                await self._more(began, what)
            self._told = None
            return found
        except NetError as error:
            if not isinstance(error, ClosedError):
                kept = self.buffer.peek(len(self.buffer))
                error.partial = prefix + kept
                self._told = (error.partial, len(kept))
            raise
        finally:
            self.reading = False
            self.relieve()

    def checkReadable(self, what: str) -> None:
        """Whether somebody may read now; raises what `seek` documents."""
        if self.closed:
            raise ClosedError(f"{what}: the stream is closed; only close() may be called again")
        if self.reading:
            raise BusyError(f"{what}: somebody else is reading from this stream; let one coroutine read at a time")

    def _checkEnd(self, what: str) -> None:
        if self.closed:
            raise ClosedError(f"{what}: the stream was closed meanwhile")
        if self.error is not None:
            raise again(self.error)
        if self.ended or self.gone:
            raise EndError(f"{what}: the peer has ended before all of it came")

    def taken(self) -> None:
        """Bytes were taken by who did not wait."""
        self._told = None
        self.relieve()

    @property
    def eager(self) -> bool:
        """Whether `taken` has something to do."""
        return self._paused or self._told is not None

    def relieve(self) -> None:
        """Let bytes come, or stop them, as the buffer is now."""
        if self._paused and not self.buffer.full:
            self._paused = False
            if not self.gone:
                self.protocol.resume(READER)
        elif self.buffer.full and not self._paused and not self.gone and not self.closed:
            self._paused = True
            self.protocol.pause(READER)

    def resumed(self, prefix: bytes) -> bytes:
        """A *prefix* that repeats the partial result of the last call stands for bytes that are still here (LUAS-34,
        LUAS-35): they are taken out, so that nothing is doubled."""
        told, self._told = self._told, None
        if told is not None and prefix and prefix == told[0]:
            self.buffer.take(told[1])
        return prefix

    def shutReading(self) -> None:
        """Nothing more is delivered; what comes is dropped."""
        self._readShut = self.ended = True
        self.buffer.takeAll()
        self.relieve()
        self._tellReader()

    # -- writing

    async def write(self, data: bytes, begin: int = -1) -> int:
        """Have *data* accepted by the outlet, and wait while too much is unsent; writers take turns.

        :param begin: the position in the outlet's stream at which *data* was accepted already; -1: it was not.
        :returns: its length.
        :raises NetError: with ``sent``, the number of its bytes that can no longer be withdrawn; the rest never goes.
        """
        while begin < 0 and self.writing:
            turn = Waiter(self.reactor, self._turns.remove)
            self._turns.append(turn)
            await turn
        self.writing = True
        outlet = self.protocol.outlet
        try:
            if begin < 0:
                self.checkWritable("write")
                begin = outlet.accepted
                if outlet.write(data):
                    return len(data)
            if outlet.accepted - begin != len(data):
                raise self._unwritten("write")
            await self.until("drain", self.patience.left(self.reactor.seconds(), self.reactor.seconds()), "write")
            if outlet.accepted - begin != len(data):
                raise self._unwritten("write")
            return len(data)
        except BaseException as error:
            if begin >= 0:
                error.sent = outlet.withdraw(begin) - begin  # type: ignore[attr-defined]
            raise
        finally:
            self.writing = False
            if self._turns:
                self._turns.popleft().fire()

    def checkWritable(self, what: str) -> None:
        """Whether something can be written.

        :raises NetError: it cannot.
        """
        if self.closed:
            raise ClosedError(f"{what}: the stream is closed; only close() may be called again")
        if self.gone or not self.protocol.state.canWrite:
            raise self._unwritten(what)

    def _unwritten(self, what: str) -> Exception:
        if self.error is not None:
            return again(self.error)
        if self.gone:
            return WriteError(f"{what}: the connection is gone; the peer has closed it", syscall="write")
        return WriteError(f"{what}: this side has ended; write before end()", syscall="write", fault="user")


def again(error: Exception) -> Exception:
    """*error*, to be raised once more: with a traceback of its own."""
    return error.with_traceback(None)
