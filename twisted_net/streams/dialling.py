"""Connect: a `Stream` to an address, or an attempt that goes on after its time (LUAS-22)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from twisted_net.address import Target
from twisted_net.errors import BusyError, ClosedError, TimedOutError
from twisted_net.streams.connection import BUFFER_LIMIT, Connection, again
from twisted_net.streams.stream import Stream
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.dial import dial
from twisted_net.wire.once import Once
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.waiting import Waiter


class StillConnectingError(TimedOutError):
    """The time is up, and the attempt to connect goes on in `pending`."""

    def __init__(self, pending: Pending, seconds: float) -> None:
        super().__init__(
            f"connect: no connection within {seconds:g} s; it is still being tried: wait for error.pending or close it",
            syscall="connect",
        )
        self.pending = pending


class Pending:
    """
    An attempt to connect that goes on.

    ``select`` reports it as writable when it has come to an end; then :meth:`result` gives the stream. ``await
    pending.wait()`` does both. :meth:`close` ends it.
    """

    def __init__(self, reactor: Any, connection: Connection, attempt: Deferred[Any]) -> None:
        self.reactor = reactor
        self._watchers: set[Callable[[], object]] = set()
        self._connection = connection
        self._attempt: Deferred[Any] | None = attempt
        self._error: BaseException | None = None
        self._stream: Stream | None = None
        self._waiters: list[Waiter] = []
        attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: object) -> None:
        if self._error is None:
            self._stream = Stream(self._connection)
        else:  # an endpoint that was cancelled too late
            self._connection.close(abort=True)
        self._settled()

    def _failed(self, failure: Failure) -> None:
        self._error = self._error or failure.value
        self._settled()

    def _settled(self) -> None:
        self._attempt = None
        while self._waiters:  # who is resumed may cancel another
            self._waiters.pop(0).fire()
        for watcher in tuple(self._watchers):
            watcher()

    @property
    def writable(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._attempt is None

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call *watcher* whenever something has changed."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        self._watchers.discard(watcher)

    async def wait(self, timeout: float | None = None) -> Stream:
        """
        Wait until the connection stands.

        :param timeout: seconds; None, or a negative number, waits for ever.
        :raises TimedOutError: it does not by then; ``pending`` is this attempt, which goes on.
        :raises NetError: it never will.
        """
        limit = limitOf("timeout", timeout)
        if self._attempt is not None:
            waiter = Waiter(self.reactor, self._waiters.remove)
            self._waiters.append(waiter)
            await waiter.within(limit, partial(StillConnectingError, self))
        return self.result()

    def result(self) -> Stream:
        """The stream, once the attempt has come to its end: the same each time.

        :raises NetError: there is none.
        :raises BusyError: it has not come to its end.
        """
        if self._attempt is not None:
            raise BusyError("result: the attempt goes on; await wait(), or see select")
        if self._stream is None:
            assert self._error is not None, "it has come to an end"
            raise again(self._error)
        return self._stream

    def close(self) -> None:
        """End the attempt. Harmless when it has come to an end; a connection that was made is aborted."""
        stream, self._stream = self._stream, None
        self._error = self._error or ClosedError("connect: the attempt was closed")
        if self._attempt is not None:
            self._attempt.cancel()
        if stream is not None:
            stream.abort()


def begin(
    reactor: Any,
    where: Target | IStreamClientEndpoint,
    *,
    bufferLimit: int = BUFFER_LIMIT,
    highWaterMark: int = HIGH_WATER_MARK,
    family: Literal[0, 4, 6] = 0,
    localAddress: tuple[str, int] | None = None,
    options: SocketOptions | None = None,
) -> Pending:
    """Begin to connect to *where*."""
    connection = Connection(reactor, bufferLimit)
    protocol = SocketProtocol(connection, reactor, highWaterMark=highWaterMark)
    connection.protocol = protocol
    attempt = dial(reactor, Once(protocol), where, family=family, localAddress=localAddress, options=options)
    return Pending(reactor, connection, attempt)
