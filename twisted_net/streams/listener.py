"""
Listener: connections as they come (Lune's ``listen``, ``accept``, ``serve``).

Who may enter, how many, and how fast is the business of the engine's
:class:`~twisted_net.wire.factory.SocketFactory`. What stands here is the queue between it and who accepts. Nobody is
accepted ahead of who asks for them: while one waits in the queue accepting rests (the owner ``"accept"``), and
clients wait in the kernel's backlog.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from copy import copy
from typing import Any, Final, Literal, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.address import Address, Target
from twisted_net.errors import BusyError, ClosedError, OptionError, TimedOutError
from twisted_net.streams.connection import BUFFER_LIMIT, FOREVER, Connection, Patience
from twisted_net.streams.stream import Stats, Stream, patienceWith
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.listen import BACKLOG, ListeningPort, listen, serve
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import NO_LIMITS, SocketProtocol
from twisted_net.wire.waiting import Waiter, loopOf, outcome

ACCEPT: Final = "accept"
"""The owner of the pause while somebody waits to be accepted."""

T = TypeVar("T")

Handler = Callable[[Stream], Coroutine[Any, Any, object]]


class Listener:
    """
    A listening TCP or UNIX socket. Made by :func:`~twisted_net.streams.listen`.

    ``async for stream in listener`` accepts until it is closed; ``async with listener`` closes it. It listens until
    then, whether anybody holds it or not: who is served needs nobody to hold the server.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        limits: Limits = NO_LIMITS,
        bufferLimit: int = BUFFER_LIMIT,
        highWaterMark: int = HIGH_WATER_MARK,
    ) -> None:
        self.reactor = reactor
        #: The engine's factory: admission, the table of connections, counters.
        self.factory = SocketFactory(self._welcome, reactor, limits=limits, highWaterMark=highWaterMark)
        self._bufferLimit = bufferLimit
        self._port: ListeningPort | None = None
        self._queue: deque[Stream] = deque()
        self._waiter: Waiter | None = None
        self._accepting = False
        self._serving = False
        self._patience = Patience()
        self._options: SocketOptions | None = None
        self._closed = False
        self._running: dict[_Handling, None] = {}
        self._room: Waiter | None = None
        self._endings: list[Waiter] = []
        self._born: float = reactor.seconds()
        self._stats = Stats(0, 0, 0.0)
        self._watchers: set[Callable[[], object]] = set()

    async def begin(self, where: Target | IStreamServerEndpoint | int, backlog: int = BACKLOG) -> None:
        """Bind and listen; raises as :func:`twisted_net.wire.listen.listen`."""
        await self._adopt(listen(self.reactor, self.factory, where, backlog=backlog))

    async def serveSocket(self, skt: Any, backlog: int = BACKLOG) -> None:
        """Listen with a socket that is bound; it is taken over."""
        await self._adopt(serve(self.reactor, self.factory, skt, backlog=backlog))

    async def _adopt(self, starting: Deferred[ListeningPort]) -> None:
        starting.addCallback(self._begun)
        try:
            await outcome(self.reactor, starting)
        except BaseException:
            self._shut()
            if self._port is not None:  # asyncio may cancel who has it already
                self._port.stopListening()
            raise

    def _begun(self, port: ListeningPort) -> None:
        self._port = port
        self.factory.adopt(port)

    def __repr__(self) -> str:
        return f"<Listener {'closed' if self._closed else self.address}>"

    @property
    def address(self) -> Address:
        """Where it listens (LUNE-19); it stays known when it is closed."""
        assert self._port is not None
        return Address.fromTwisted(self._port.getHost())

    def getSockName(self) -> Address | None:
        """Where it listens; None when it is closed (LUAS-43)."""
        return None if self._closed else self.address

    def setTimeout(self, seconds: float | None, mode: Literal["b", "t"] = "b") -> None:
        """
        How long `accept` waits: see :meth:`Stream.setTimeout <twisted_net.streams.stream.Stream.setTimeout>`.

        `serve` waits for ever.
        """
        self._checkOpen("setTimeout")
        self._patience = patienceWith(self._patience, seconds, mode)

    def setOption(self, name: str, value: Any = True) -> None:
        """
        LuaSocket's options (LUAS-47), for the connections that come from now on: see
        :meth:`Stream.setOption <twisted_net.streams.stream.Stream.setOption>`.

        :raises OptionError: the name is unknown, or the value of the wrong type.
        """
        self._checkOpen("setOption")
        options = self._options or SocketOptions()
        options.setOption(name, value)
        self.takeOptions(options)

    def takeOptions(self, options: SocketOptions) -> None:
        """Set *options* on the connections that come from now on."""
        self._options = options

    def _checkOpen(self, what: str) -> None:
        if self._closed:
            raise ClosedError(f"{what}: the listener is closed; only close() may be called again")

    # -- connections

    def _welcome(self, protocol: SocketProtocol) -> Connection:
        connection = Connection(self.reactor, self._bufferLimit, self._arrived)
        connection.protocol = protocol
        return connection

    def _arrived(self, connection: Connection) -> None:
        stream = Stream(connection)
        if self._options is not None:
            stream.takeOptions(copy(self._options))
        self._queue.append(stream)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.fire()
        if self._queue:
            self.factory.acceptance.pause(ACCEPT)
        for watcher in tuple(self._watchers):
            watcher()

    @property
    def readable(self) -> bool:
        """Whether `accept` would not wait."""
        return bool(self._queue) or self._closed

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call *watcher* whenever something has changed."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        self._watchers.discard(watcher)

    async def accept(self) -> Stream:
        """
        The next connection (LUNE-13).

        :raises TimedOutError: none came in the time allowed (LUAS-15).
        :raises BusyError: somebody else is accepting.
        :raises ClosedError: the listener is closed.
        """
        return await self._next(self._patience)

    async def _next(self, patience: Patience) -> Stream:
        if self._accepting:
            raise BusyError("accept: somebody else is accepting from this listener; let one coroutine accept at a time")
        self._accepting = True
        try:
            began = self.reactor.seconds()
            while not self._queue:
                self._checkOpen("accept")
                self._waiter = Waiter(self.reactor, self._forget)
                self.factory.acceptance.resume(ACCEPT)
                await self._waiter.within(patience.left(began, self.reactor.seconds()), _late)
            stream = self._queue.popleft()
            self.factory.acceptance.resume(ACCEPT)
            return stream
        finally:
            self._accepting = False

    def _forget(self, waiter: Waiter) -> None:
        if self._waiter is waiter:
            self._waiter = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except ClosedError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    # -- serving

    async def serve(self, handler: Handler, *, maximum: int | None = None) -> None:
        """
        Run ``handler(stream)`` for every connection, each in a coroutine of its own (LUNE-15), until `close`.

        The coroutines are run by whoever runs this one. When one has returned, its stream is closed, unless it was
        handed over; when one has raised, that is logged with the peer, its stream is aborted, and the others go on.
        They go on, too, when this coroutine is cancelled: `close` ends them.

        :param maximum: how many may run at a time; further clients wait. None: as many as come.
        :raises OptionError: for a maximum below 1.
        :raises BusyError: it is being served already.
        """
        if maximum is not None and maximum < 1:
            raise OptionError(f"maximum is {maximum!r}; it counts handlers, 1 or more, or is None for no limit")
        if self._serving:
            raise BusyError("serve: this listener is being served already; close it first, or make another one")
        self._serving = True
        try:
            await self._serve(handler, math.inf if maximum is None else maximum)
        finally:
            self._serving = False

    async def _serve(self, handler: Handler, maximum: float) -> None:
        driver = await self._driver()
        while not self._closed:
            if len(self._running) >= maximum:
                self._room = Waiter(self.reactor, self._forgetRoom)
                await self._room
                continue
            try:
                stream = await self._next(FOREVER)
            except ClosedError:
                continue
            handling = _Handling(self, stream)
            self._running[handling] = None
            handling.begin(handler, driver)

    async def _driver(self) -> Literal["twisted", "asyncio"]:
        """Who runs this coroutine: told by what it asks of a waiter."""
        waiter = Waiter(self.reactor, lambda waiter: turn.cancel())
        turn = self.reactor.callLater(0, waiter.fire)
        await waiter
        assert waiter.driver is not None
        return waiter.driver

    def _makeRoom(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.fire()

    def _forgetRoom(self, waiter: Waiter) -> None:
        self._room = None

    def ended(self, handling: _Handling) -> None:
        """A handler has ended."""
        del self._running[handling]
        self._makeRoom()
        endings, self._endings = self._endings, []
        for waiter in endings:
            waiter.fire()

    def failed(self, stream: Stream, error: Exception) -> None:
        """A handler has raised: its connection ends with that error, for the factory's journal too."""
        peer = str(stream.address)
        ended = stream.protocol.error
        if type(error) is type(ended) and str(error) == str(ended):
            # The connection's own error, which a stream raises again as a copy, and the handler did not catch.
            self._log.warn("the handler of {peer} ended with its connection: {error}", peer=peer, error=error)
            return
        self._log.failure("the handler of {peer} raised; its stream was aborted", failure=Failure(error), peer=peer)
        if stream.getPeerName() is not None:
            stream.protocol.abort(error)

    @property
    def handlers(self) -> int:
        """How many handlers run."""
        return len(self._running)

    # -- the end

    async def close(self, grace: float | None = None) -> None:
        """
        Stop accepting; `serve` returns, and whoever waits in `accept` is told. Clients that were not accepted yet are
        closed. Returns when the port is closed and every handler has ended (but for the one that calls this, if one
        does). Harmless when it was done.

        :param grace: seconds that the handlers have; then they are cancelled. None: as long as they want.
        """
        limit = limitOf("grace", grace)
        self._shut()
        if self._port is not None:
            await outcome(self.reactor, self._port.stopListening())
        own = _handling.get()
        late = None if limit is None else self.reactor.callLater(limit, self._cancelAll, own)
        try:
            while self._running.keys() - {own}:
                waiter = Waiter(self.reactor, self._forgetEnding)
                self._endings.append(waiter)
                await waiter
        finally:
            if late is not None and late.active():
                late.cancel()

    def _shut(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.factory.stop()
        if self._port is not None:
            self.factory.disown(self._port)
        while self._queue:
            self._queue.popleft().abort()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.fire()
        self._makeRoom()
        for watcher in tuple(self._watchers):
            watcher()

    def _forgetEnding(self, waiter: Waiter) -> None:
        if waiter in self._endings:  # it is not while an ending is being told, and who hears of it cancels another
            self._endings.remove(waiter)

    def _cancelAll(self, own: _Handling | None) -> None:
        for handling in tuple(self._running):
            if handling is not own:
                handling.cancel()

    # -- statistics

    def getStats(self) -> Stats:
        """Bytes received and sent, and the age in seconds (LUAS-45). A listener carries no bytes itself: they are what
        `setStats` has set."""
        received, sent, age = self._stats
        return Stats(received, sent, age + self.reactor.seconds() - self._born)

    def setStats(self, received: int | None = None, sent: int | None = None, age: float | None = None) -> None:
        """Set what `getStats` counts from; None leaves it as it is."""
        self._checkOpen("setStats")
        self._stats = Stats(
            self._stats.received if received is None else received,
            self._stats.sent if sent is None else sent,
            self._stats.age if age is None else age - (self.reactor.seconds() - self._born),
        )


def _late(seconds: float) -> TimedOutError:
    return TimedOutError(f"accept: nobody came within {seconds:g} s; wait longer (setTimeout), or try again")


class _Handling:
    """A handler that runs."""

    def __init__(self, listener: Listener, stream: Stream) -> None:
        self._listener = listener
        self._stream = stream
        self._stop: Callable[[], object]
        self._cancelled = False

    def begin(self, handler: Handler, driver: Literal["twisted", "asyncio"]) -> None:
        """Run the handler the way that its listener is run."""
        running = self._run(handler)
        if driver == "twisted":
            deferred = Deferred.fromCoroutine(running)
            self._stop = deferred.cancel
            deferred.addBoth(self._ended)
        else:
            loop = loopOf(self._listener.reactor)
            assert loop is not None
            task = loop.create_task(running)
            self._stop = task.cancel
            task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel it."""
        self._cancelled = True
        self._stop()

    async def _run(self, handler: Handler) -> None:
        _handling.set(self)
        try:
            await handler(self._stream)
            await self._stream.close()
        except Exception as error:
            if not (self._cancelled and isinstance(error, CancelledError)):
                self._listener.failed(self._stream, error)

    def _ended(self, result: T) -> T:
        # Here, and not in the coroutine: asyncio cancels a task that has not begun without beginning it.
        self._stream.abort()
        self._listener.ended(self)
        return result


#: The handler that is running.
_handling: Final[ContextVar[_Handling | None]] = ContextVar("handling", default=None)
