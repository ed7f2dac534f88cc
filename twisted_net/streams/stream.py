"""
Stream: one connection, read and written by coroutines (Lune, LuaSocket; trio's and asyncio's manners).

The bytes and the waiting are a :class:`~twisted_net.streams.connection.Connection`'s; what stands here are the verbs.
Those that may have to wait are coroutines, and run by whoever runs the coroutine that awaits them
(:mod:`twisted_net.wire.waiting`). A read that finds its bytes waiting, and a write that finds room, wait for nobody,
and meet no Deferred.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from twisted_net.address import Address
from twisted_net.errors import EndError, LimitError, OptionError, TimedOutError
from twisted_net.streams.connection import FOREVER, Connection, Patience
from twisted_net.wire import layers
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.layers import Credentials
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import Outlet
from twisted_net.wire.protocol import SocketProtocol

if TYPE_CHECKING:
    from types import TracebackType

#: Bytes that a line, or what comes before a separator, may have.
LINE_LIMIT: Final = 64 * 1024

#: A write of so many bytes is held against what the engine keeps unsent.
LARGE: Final = 1024 * 1024

#: Bytes that `Stream.readAll` keeps at most.
ALL_LIMIT: Final = 64 * 1024 * 1024

How = Literal["both", "send", "receive"]
Bytes = bytes | bytearray | memoryview


class Stats(NamedTuple):
    """What LuaSocket's ``getstats`` returns (LUAS-45)."""

    received: int
    """Bytes."""
    sent: int
    """Bytes."""
    age: float
    """Seconds."""


class Stream:
    """
    A connected TCP or UNIX stream socket. Made by :func:`~twisted_net.streams.connect`, by a
    :class:`~twisted_net.streams.listener.Listener`, or by :func:`~twisted_net.streams.wrap`.

    One coroutine may read while another one writes; two that read at once are an error
    (:class:`~twisted_net.errors.BusyError`), two that write take turns. Whatever ends a wait (a timeout, a
    cancellation, the end) loses no byte: what has come stays in the stream.

    ``async for chunk in stream`` reads until the end; ``async with stream`` closes it, and aborts it when an exception
    leaves the block.
    """

    __slots__ = ("__weakref__", "_connection", "_options", "_stats")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._options: SocketOptions | None = None
        self._stats = Stats(0, 0, 0.0)

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is None or connection.closed or connection.gone or connection.protocol is None:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        connection.closed = True
        connection.protocol.close()

    def __repr__(self) -> str:
        connection = self._connection
        state = "closed" if connection.closed or connection.gone else connection.protocol.state.readyState
        return f"<Stream {state} {connection.protocol.describePeer()}>"

    # -- reading

    async def read(self, n: int = 65536) -> bytes:
        """
        Up to *n* bytes, as soon as there are any; ``b""`` at the end of the stream (LUNE-14, LUNE-16).

        :raises NetError: what ended the connection, after all that had come before was read.
        :raises TimedOutError: see :meth:`setTimeout`.
        :raises BusyError: somebody else is reading.
        :raises ClosedError: this side has closed the stream.
        """
        connection = self._connection
        buffer = connection.buffer
        if n <= 0:
            return _nothing(n)
        if not connection.reading and not connection.closed:
            if not buffer.data and connection.patience is FOREVER and not (connection.ended or connection.gone):
                # The commonest wait, written out: for whatever comes next.
                connection.reading = True
                try:
                    await connection.arrival()
                finally:
                    connection.reading = False
            if buffer.data and not connection.closed:
                data = buffer.take(n)
                if connection.paused or connection.told is not None:
                    connection.touched()
                return data
        try:
            return await connection.seek(lambda: buffer.take(n) or None, "read")
        except EndError:
            return b""

    async def readExactly(self, n: int) -> bytes:
        """
        Exactly *n* bytes.

        :raises EndError: the stream has ended before; what there is is its ``partial``, and stays in the stream.
        :raises TimedOutError: likewise. And as :meth:`read`.
        """
        if n <= 0:
            return _nothing(n)
        return await self._connection.seek(lambda: self._connection.buffer.takeExactly(n), f"readExactly({n})")

    async def readLine(self, maximum: int = LINE_LIMIT) -> bytes:
        """
        The next line, without its LF and one CR before that (LUAS-33); nothing else is taken away.

        :param maximum: bytes that it may have, the ending included.
        :raises EndError: the stream has ended in the middle of a line, which is its ``partial``; with an empty
            ``partial``, there was no further line.
        :raises LimitError: the line is longer; ``partial`` is its beginning. And as :meth:`read`.
        """
        return await self._connection.seek(lambda: self._connection.buffer.takeLine(maximum), "readLine")

    async def readUntil(self, separator: bytes, maximum: int = LINE_LIMIT) -> bytes:
        """
        Everything up to *separator*, and the separator.

        :param maximum: bytes that it may be, the separator included. Raises as :meth:`readLine`.
        """
        buffer = self._connection.buffer
        return await self._connection.seek(lambda: buffer.takeUntil(separator, maximum), f"readUntil({separator!r})")

    async def readAll(self, limit: int = ALL_LIMIT) -> bytes:
        """
        Everything until the end of the stream.

        :param limit: bytes that it may be.
        :raises LimitError: it is more; ``partial`` is what has come, and stays. And as :meth:`read`.
        """
        return await self._connection.seek(self._whole(limit), "readAll")

    def _whole(self, limit: int) -> Callable[[], bytes | None]:
        connection = self._connection
        buffer = connection.buffer

        def find() -> bytes | None:
            if len(buffer) > limit:
                raise LimitError(f"readAll: more than {limit} bytes came; allow more, or read them piece by piece")
            return buffer.takeAll() if connection.complete else None

        return find

    async def receive(self, pattern: str | int = "*l", prefix: Bytes = b"") -> bytes:
        """
        LuaSocket's ``receive`` (LUAS-33): ``"*l"`` a line, ``"*a"`` everything until the end, or a number of bytes.

        :param prefix: is put in front, and counts towards the number (LUAS-34). A ``partial`` of the last call may be
            given here: its bytes, which are still in the stream, are not doubled.
        :raises OptionError: for another pattern. And as the others; ``partial`` begins with the prefix.
        """
        connection = self._connection
        before = bytes(prefix)
        buffer = connection.buffer
        if pattern == "*l":
            return await connection.seekAfter(before, lambda: buffer.takeLine(LINE_LIMIT), "receive")
        if pattern == "*a":
            return await connection.seekAfter(before, self._whole(ALL_LIMIT), "receive")
        if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern >= 0:
            rest = max(0, pattern - len(before))
            return await connection.seekAfter(before, lambda: buffer.takeExactly(rest), "receive")
        raise OptionError(f'pattern is {pattern!r}; it must be "*l", "*a" or a number of bytes')

    def peek(self, n: int = 65536) -> bytes:
        """Up to *n* bytes that have come; they stay. Never waits.

        :raises ClosedError: this side has closed the stream.
        """
        self._connection.checkOpen("peek")
        return self._connection.buffer.peek(n)

    def unread(self, data: bytes) -> None:
        """Put *data* in front of what will be read next."""
        self._connection.checkReadable("unread")
        self._connection.buffer.unread(data)
        self._connection.touched()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    # -- writing

    async def write(self, data: Bytes, start: int = 0, stop: int | None = None) -> int:
        """
        Send ``data[start:stop]``, all of it; waits while more than the high-water mark is unsent.

        :returns: the index after the last byte taken.
        :raises NetError: with ``sent``: the index after the last byte that was given to the transport and can no
            longer be withdrawn. The rest is never sent unless it is written again: ``write(data, error.sent)`` goes on
            without loss or repetition (LUAS-27). A cancellation has it too: ``cancelled.sent``.
        :raises LimitError: it is more than the engine keeps unsent (256 MiB, unless ``protocol.outlet.limit`` says
            otherwise): nothing of it was sent, and the stream goes on.
        """
        if start == 0 and stop is None and type(data) is bytes:
            piece = data
        else:
            first, last, _ = slice(start, stop).indices(len(data))
            start, piece = first, bytes(memoryview(data)[first:last])
        connection = self._connection
        outlet: Outlet = connection.protocol.outlet
        if len(piece) > LARGE and outlet.unsent + len(piece) > outlet.limit:
            raise LimitError(
                f"write: {len(piece)} bytes at once; at most {outlet.limit} may be unsent: write them in "
                "pieces, or raise stream.protocol.outlet.limit",
                sent=start,
                code="ENOBUFS",
            )
        if not connection.writing and not connection.writeShut:
            begin = outlet.accepted
            if outlet.write(piece):
                return start + len(piece)
        else:
            begin = -1
        try:
            return start + await connection.write(piece, begin)
        except BaseException as error:
            error.sent = start + getattr(error, "sent", 0)  # type: ignore[attr-defined]
            raise

    async def writeLines(self, buffers: Iterable[Bytes]) -> None:
        """Send many buffers, one after the other, without joining them."""
        for data in buffers:
            await self.write(data)

    async def send(self, data: Bytes, i: int = 1, j: int = -1) -> int:
        """
        LuaSocket's ``send`` (LUAS-27), with its indices: they begin at 1, and negative ones count from the end; both
        ends are included.

        :returns: the index of the last byte sent. An error's ``sent`` is one, too.
        """
        length = len(data)
        first = max(1, i if i >= 0 else length + i + 1)
        last = min(length, j if j >= 0 else length + j + 1)
        if first > last:
            self._connection.checkWritable("send")
            return first - 1
        return await self.write(data, first - 1, last)

    async def end(self) -> None:
        """Half-close: everything written, then FIN; returns when they are sent. Reading goes on. Harmless when done.

        :raises NetError: the connection is gone, and not all of it was sent.
        """
        self._connection.checkOpen("end")
        await self._connection.end()

    # -- its end

    async def close(self, grace: float | None = None) -> None:
        """
        Close both ways, after everything written was sent; returns when the connection is gone. Harmless when it is.

        :param grace: seconds after which what is unsent is dropped, and the peer sees RST; None waits for ever, or as
            long as the option ``linger`` says.
        """
        connection = self._connection
        limit = limitOf("grace", grace)
        connection.close()
        if connection.gone:
            return
        if grace is None and self._options is not None:
            limit = self._options.lingerTimeout
        try:
            await connection.until("gone", limit, "close")
        except TimedOutError:
            self.abort()
            await connection.until("gone", None, "close")

    def abort(self) -> None:
        """Drop everything, at once, with RST where there is such a thing. Harmless when the connection is gone."""
        connection = self._connection
        connection.close(abort=True)

    async def shutdown(self, how: How = "both") -> None:
        """
        End one way, or both (LUAS-57): ``"send"`` is :meth:`end`; after ``"receive"`` nothing more is read.

        :raises OptionError: for another word.
        """
        if how not in ("both", "send", "receive"):
            raise OptionError(f'how is {how!r}; it must be "both", "send" or "receive"')
        self._connection.checkOpen("shutdown")
        if how != "send":
            self._connection.shutReading()
        if how != "receive":
            await self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self.abort()

    def handOver(self) -> SocketProtocol:
        """
        Give the connection away, with nothing lost: to whoever becomes the user of the engine's object that is
        returned. This stream is closed then.

        :raises BusyError: somebody is reading or writing.
        """
        return self._connection.handOver()

    def takeBack(self) -> None:
        """Undo `handOver`: the connection is this stream's again, as it is now. If it is gone by now, the stream stays
        closed."""
        self._connection.takeBack()

    def checkWhole(self, what: str) -> None:
        """Whether both ways could be given away now.

        :raises BusyError: somebody is reading or writing.
        :raises NetError: it is closed, or this side has ended.
        """
        self._connection.checkFree(what)
        self._connection.checkWritable(what)

    # -- how, and who

    def setTimeout(self, seconds: float | None, mode: Literal["b", "t"] = "b") -> None:
        """
        How long to wait (LUAS-51, LUAS-52): with mode ``"b"`` each time that something is waited for, with ``"t"`` in
        each call altogether. Both may be in force. None, or a negative number: for ever, as it is in the beginning.

        :raises OptionError: for another mode, or what is no number of seconds.
        :raises ClosedError: this side has closed the stream; so do all calls below that change something.
        """
        self._connection.checkOpen("setTimeout")
        self._connection.patience = patienceWith(self._connection.patience, seconds, mode)

    def setOption(self, name: str, value: Any = True) -> None:
        """
        LuaSocket's options (LUAS-47): ``keepalive``, ``linger`` (``{"on": bool, "timeout": seconds}``), ``reuseaddr``,
        ``tcp-nodelay``.

        :raises OptionError: the name is unknown, or the value of the wrong type.
        """
        self._connection.checkOpen("setOption")
        options = self._options or SocketOptions()
        options.setOption(name, value)
        self.takeOptions(options)

    def takeOptions(self, options: SocketOptions) -> None:
        """Set *options* on the socket, and close as they say."""
        self._options = options
        options.apply(self._connection.protocol.transport)

    @property
    def address(self) -> Address:
        """The peer's address (LUNE-13)."""
        return Address.fromTwisted(self._connection.protocol.getPeer())

    @property
    def localAddress(self) -> Address | None:
        """This side's address; None when the connection is gone."""
        transport = self._connection.protocol.transport
        return None if transport is None else Address.fromTwisted(transport.getHost())

    def getPeerName(self) -> Address | None:
        """The peer's address; None when the stream is closed, or the connection gone (LUAS-43)."""
        return None if self._connection.gone or self._connection.closed else self.address

    def getSockName(self) -> Address | None:
        """This side's address; None when the stream is closed, or the connection gone."""
        return None if self._connection.closed else self.localAddress

    @property
    def peerCredentials(self) -> Credentials | None:
        """Process, user and group at the other end of a UNIX socket; None for TCP, and when the connection is gone."""
        return layers.credentials(layers.socketOf(self._connection.protocol.transport))

    def getStats(self) -> Stats:
        """Bytes received and sent, and the age in seconds (LUAS-45): what `setStats` has set, and what came since. Also
        when the stream is closed."""
        connection = self._connection
        received, sent, age = self._stats
        protocol = connection.protocol
        return Stats(
            received + protocol.bytesRead, sent + protocol.outlet.sent, age + connection.now() - connection.born
        )

    def setStats(self, received: int | None = None, sent: int | None = None, age: float | None = None) -> None:
        """Set what `getStats` counts from; None leaves it as it is."""
        self._connection.checkOpen("setStats")
        before = self.getStats()
        wanted = Stats(
            before.received if received is None else received,
            before.sent if sent is None else sent,
            before.age if age is None else age,
        )
        base = self._stats
        self._stats = Stats(
            base.received + wanted.received - before.received,
            base.sent + wanted.sent - before.sent,
            base.age + wanted.age - before.age,
        )

    # -- for select

    @property
    def reactor(self) -> Any:
        """The reactor that it lives on."""
        return self._connection.reactor

    @property
    def readable(self) -> bool:
        """Whether a read would not wait: bytes have come, or the end."""
        return self._connection.readable

    @property
    def writable(self) -> bool:
        """Whether a write would not wait: fewer bytes than the high-water mark are unsent."""
        return self._connection.writable

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call *watcher* whenever something has changed."""
        self._connection.watch(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        self._connection.unwatch(watcher)

    @property
    def protocol(self) -> SocketProtocol:
        """The engine's object, for who needs more than there is here."""
        protocol: SocketProtocol = self._connection.protocol
        return protocol


def patienceWith(patience: Patience, seconds: float | None, mode: str) -> Patience:
    """*patience*, with one of its limits set; see `Stream.setTimeout`."""
    limit = limitOf("seconds", seconds)
    if mode == "b":
        return patience._replace(wait=limit)
    if mode == "t":
        return patience._replace(call=limit)
    raise OptionError(f'mode is {mode!r}; it must be "b" (each wait) or "t" (the whole call)')


def _nothing(n: int) -> bytes:
    if n < 0:
        raise OptionError(f"{n!r} bytes were asked for; it must be 0 or more")
    return b""
