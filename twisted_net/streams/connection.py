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

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.errors import BusyError, ClosedError, EndError, NetError, TimedOutError, WriteError
from twisted_net.interfaces import IConnectionUser
from twisted_net.sansio.buffer import ReadBuffer
from twisted_net.sansio.lifecycle import State
from twisted_net.wire.outlet import Outlet
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.waiting import Waiter

#: Bytes that are kept while nobody reads; then the peer is paused.
BUFFER_LIMIT: Final = 64 * 1024

_GONE: Final = (State.DROPPED, State.CLOSED)

E = TypeVar("E", bound=BaseException)

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


#: No limit.
FOREVER: Final = Patience()


@implementer(IConnectionUser)
class Connection:
    """The engine's user for one stream.

    :param reactor: the reactor.
    :param bufferLimit: bytes that are kept while nobody reads.
    :param opened: called with this when the connection stands.
    """

    # There may be many thousands of them: small ones.
    __slots__ = (
        "__weakref__",
        "_endSent",
        "_opened",
        "_passing",
        "_readShut",
        "_reader",
        "_turn",
        "_turns",
        "_waiters",
        "_watchers",
        "born",
        "buffer",
        "closed",
        "ended",
        "error",
        "gone",
        "patience",
        "paused",
        "protocol",
        "reactor",
        "reading",
        "told",
        "writeShut",
        "writing",
    )

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
        self.patience = FOREVER
        #: Closed by this side: nothing may be done any more.
        self.closed = False
        #: Who hears of news of any kind: `select`.
        self._watchers: tuple[Callable[[], object], ...] = ()
        self.born = reactor.seconds()
        self._reader: Waiter | None = None
        self._waiters: dict[str, list[Waiter]] = {}
        #: The peer is paused, because too much has come.
        self.paused = False
        self._readShut = False
        #: Nothing more may be written: this side has ended, or the connection is gone.
        self.writeShut = False
        self._endSent = False
        #: Somebody is in the middle of writing.
        self.writing = False
        #: Whose turn to write it is, and who waits for his.
        self._turn: Waiter | None = None
        self._turns: list[Waiter] = []
        self._passing = False
        #: The partial result that was told last, and how many of its bytes are in the buffer still.
        self.told: tuple[bytes, int] | None = None

    # -- IConnectionUser

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """The connection stands."""
        self.protocol = protocol
        protocol.attach(self.receive)
        if self._opened is not None:
            self._opened(self)

    @classmethod
    def over(cls, protocol: SocketProtocol, bufferLimit: int = BUFFER_LIMIT) -> Self:
        """Take over a connection that stands: what was held for nobody comes here.

        :raises ClosedError: it is gone.
        """
        if protocol.state in _GONE:
            raise ClosedError(f"the connection with {protocol.describePeer()} is gone; nobody can take it over")
        self = cls(protocol.reactor, bufferLimit)
        self.protocol = protocol
        self.takeBack()
        return self

    def takeBack(self) -> None:
        """Take up the connection, as it is now. One that is gone is left alone."""
        protocol = self.protocol
        state = protocol.state
        if state in _GONE:
            return
        self.closed = self.gone = False
        self.ended = protocol.exhausted
        self.writeShut = not state.canWrite
        self._endSent = state in (State.READ_ONLY, State.ENDED)
        protocol.user = self
        protocol.attach(self.receive)

    def receive(self, data: bytes) -> None:
        """Bytes have come."""
        if self._readShut:
            return
        buffer = self.buffer
        if buffer.data or type(data) is not bytes:
            buffer.feed(data)
        else:
            buffer.data = data  # what feed() would do, written out: every segment comes this way
        reader = self._reader
        if reader is not None:
            self._reader = None
            reader.fire()
        elif buffer.full and not self.paused:
            self.paused = True
            self.protocol.pause(READER)
        if self._watchers:
            self._tellWatchers()

    def readEnded(self) -> None:
        """The peer has ended."""
        self.ended = True
        self._tellReader()

    def writeEnded(self) -> None:
        """Our FIN is with the kernel."""
        self._endSent = True
        self._tell("end")

    def drained(self) -> None:
        """Nothing is unsent any more."""
        self._tell("drain")

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """The connection is gone."""
        self.gone = self.writeShut = True
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
        for watcher in self._watchers:
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

    def close(self, *, abort: bool = False) -> None:
        """End both ways: in good order, or at once. Whoever waits hears of it."""
        first, self.closed = not self.closed, True
        self.writeShut = True
        if first:
            self.buffer.takeAll()
            self._readShut = True
        if not self.gone:
            if abort:
                self.protocol.abort()
            elif first:
                self.protocol.close()
        self._tellReader()
        while self._turns:
            self._turns.pop(0).fire(ClosedError("write: the stream was closed meanwhile"))

    def checkFree(self, what: str) -> None:
        """:raises ClosedError: this side has closed, or the connection is gone.
        :raises BusyError: somebody is reading or writing.
        """
        self.checkOpen(what)
        if self.gone:
            raise ClosedError(f"{what}: the connection is gone")
        if self.reading or self.writing:
            raise BusyError(f"{what}: somebody is reading from or writing to this stream; let that end first")

    def handOver(self) -> SocketProtocol:
        """Let go of the connection: what is in the buffer goes back to the engine.

        Raises as `checkFree`.
        """
        self.checkFree("handOver")
        # For this side it is over, whatever becomes of it elsewhere.
        self.closed = self.gone = self.writeShut = True
        protocol: SocketProtocol = self.protocol
        protocol.giveBack(self.buffer.takeAll())
        if self.paused:
            self.paused = False
            protocol.resume(READER)
        return protocol

    @property
    def complete(self) -> bool:
        """Whether everything has come that will ever come, and the peer has ended in good order."""
        return self.ended and self.error is None and not self.closed

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
        if watcher not in self._watchers:
            self._watchers += (watcher,)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        self._watchers = tuple(one for one in self._watchers if one != watcher)

    # -- waiting

    async def until(self, news: str, seconds: float | None, what: str) -> None:
        """Wait for *news*: ``"drain"``, ``"end"`` or ``"gone"``.

        :raises TimedOutError: it has not come within *seconds*.
        """
        waiter = Waiter(self.reactor, partial(self._forgetWaiter, news))
        self._waiters.setdefault(news, []).append(waiter)
        await waiter.within(seconds, partial(_late, what))

    def _forgetWaiter(self, news: str, waiter: Waiter) -> None:
        waiters = self._waiters.get(news, [])
        if waiter in waiters:  # it is not when the news is being told, and who heard of it first cancels another
            waiters.remove(waiter)

    async def _more(self, began: float, what: str) -> None:
        """Wait until something has come in."""
        await self.arrival().within(self.patience.left(began, self.reactor.seconds()), partial(_late, what))

    def arrival(self) -> Waiter:
        """What fires when something comes in; bytes flow for it."""
        waiter = self._reader = Waiter(self.reactor, self._forgetReader)
        if self.paused:
            self.paused = False
            self.protocol.resume(READER)
        return waiter

    def _forgetReader(self, waiter: Waiter) -> None:
        self._reader = None

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
            self.told = None
            return found
        except NetError as error:
            if not isinstance(error, ClosedError):
                kept = self.buffer.peek(len(self.buffer))
                error.partial = prefix + kept
                self.told = (error.partial, len(kept))
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

    def touched(self) -> None:
        """The buffer was changed by somebody who did not wait."""
        self.told = None
        self.relieve()

    def relieve(self) -> None:
        """Let bytes come, or stop them, as the buffer is now."""
        if self.paused and not self.buffer.full:
            self.paused = False
            if not self.gone:
                self.protocol.resume(READER)
        elif self.buffer.full and not self.paused and not self.gone and not self.closed:
            self.paused = True
            self.protocol.pause(READER)

    async def seekAfter(self, prefix: bytes, find: Callable[[], bytes | None], what: str) -> bytes:
        """As `seek`, with *prefix* in front.

        A prefix that repeats the partial result of the last call stands for bytes that are still here (LUAS-34,
        LUAS-35): they are stepped over, so that nothing is doubled; and stay, should this call fail, too.
        """
        self.checkReadable(what)
        told = self.told
        repeated = self.buffer.take(told[1]) if told is not None and prefix == told[0] else b""
        try:
            return prefix + await self.seek(find, what, prefix)
        except BaseException:
            if repeated and not self.closed:
                self.buffer.unread(repeated)
                if self.told is not None and self.told is not told:
                    self.told = self.told[0], len(self.buffer)
                self.relieve()
            raise

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
        began = self.reactor.seconds()
        if begin < 0 and self.writing:
            self.checkWritable("write")
            await self._untilTurn(began)
        self.writing = True
        outlet = self.protocol.outlet
        try:
            if begin < 0:
                self.checkWritable("write")
                begin = outlet.accepted
                if outlet.write(data):
                    return len(data)
            if self.writeShut or outlet.accepted - begin != len(data):
                raise self._unwritten("write")
            await self.until("drain", self.patience.left(began, self.reactor.seconds()), "write")
            if self.gone and (outlet.unsent or outlet.accepted - begin != len(data)):
                raise self._unwritten("write")
            return len(data)
        except BaseException as error:
            error.sent = 0 if begin < 0 else max(0, outlet.withdraw(begin) - begin)  # type: ignore[attr-defined]
            raise
        finally:
            self._passTurn()

    async def _untilTurn(self, began: float) -> None:
        turn = Waiter(self.reactor, self._turns.remove)
        self._turns.append(turn)
        try:
            await turn.within(self.patience.left(began, self.reactor.seconds()), partial(_late, "write"))
        except BaseException:
            if self._turn is turn:  # asyncio may cancel who has been given it
                self._passTurn()
            raise

    def _passTurn(self) -> None:
        """Who has written has done so. A loop, since the next one may have done so before this call returns."""
        self.writing = False
        if self._passing:
            return
        self._passing = True
        while self._turns and not self.writing:
            self.writing = True  # also while the one whose turn it is has not been resumed
            self._turn = self._turns.pop(0)
            self._turn.fire()
        self._passing = False
        if self._watchers:
            self._tellWatchers()

    async def end(self) -> None:
        """End this way, and wait until that was sent; see `Stream.end`."""
        self.writeShut = True
        self.protocol.end()
        if not (self._endSent or self.gone):
            await self.until("end", self.patience.left(self.now(), self.now()), "end")
        if self.error is not None and not self._endSent:
            raise again(self.error)

    def checkWritable(self, what: str) -> None:
        """Whether something can be written.

        :raises NetError: it cannot.
        """
        if self.closed:
            raise ClosedError(f"{what}: the stream is closed; only close() may be called again")
        if self.writeShut or not self.protocol.state.canWrite:
            raise self._unwritten(what)

    def _unwritten(self, what: str) -> Exception:
        error = self.error or self.protocol.error
        if error is not None:
            return again(error)
        if self.gone:
            return WriteError(f"{what}: the connection is gone; the peer has closed it", syscall="write")
        return WriteError(f"{what}: this side has ended; write before end()", syscall="write", fault="user")


def _late(what: str, seconds: float) -> TimedOutError:
    return TimedOutError(f"{what}: nothing within {seconds:g} s; wait longer (setTimeout), or try again")


def again(error: E) -> E:
    """*error*, to be raised once more: another one, for each has a traceback, ``partial`` and ``sent`` of its own."""
    return copy(error).with_traceback(None) if isinstance(error, NetError) else error
