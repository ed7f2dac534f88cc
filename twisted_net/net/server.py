"""Server: listens, admits, and knows its clients (Luvit, Mongoose, Evo, Node).

A server listens on one place at a time, as the manuals have it, and may listen again after 'error' or 'close'.  Who is
admitted is the business of its :class:`~twisted_net.wire.factory.SocketFactory`; what stands here is the life of the
server itself::

    closed --listen--> starting --bound--> listening --close--> closing --last client gone--> closed ('close')
                          |   ^                 |
                       'error'|retry      'connection' ...
                          v   |
                        closed
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.address import Address
from twisted_net.errors import NetError, OptionError
from twisted_net.net.arguments import Call, Data, Listener, checkMark, checkMsecs, mergeOptions, readCall
from twisted_net.net.socket import Socket, globalReactor
from twisted_net.sansio.backoff import Backoff
from twisted_net.sansio.emitter import Emitter
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.listen import BACKLOG, listen, listenRetrying
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import NO_LIMITS, SocketProtocol

_SERVER_OPTIONS: Final[Mapping[str, Any]] = {
    "allowHalfOpen": False,
    "pauseOnConnect": False,
    "noDelay": False,
    "keepAlive": False,
    "keepAliveInitialDelay": 0,
    "highWaterMark": HIGH_WATER_MARK,
    "timeoutStep": None,
    "limits": NO_LIMITS,
    "maxConnections": None,
    "reactor": None,
}
_LISTEN_OPTIONS: Final[Mapping[str, Any]] = {"backlog": BACKLOG, "retry": None}

Phase = Literal["closed", "starting", "listening", "closing"]


class Server(Emitter):
    """A TCP or UNIX server.  Made by `createServer`, or by itself.

    :param options: the parameters below in one mapping, as the manuals have it.
    :param listener: added for 'connection'.
    :param allowHalfOpen: for each socket: go on writing after the peer has ended (LUV-33).
    :param pauseOnConnect: each socket starts paused.
    :param noDelay: each socket sends small writes at once.
    :param keepAlive: each socket sends keep-alive probes, the first after ``keepAliveInitialDelay`` milliseconds of
        silence.
    :param highWaterMark: for each socket, bytes.
    :param timeoutStep: for each socket, milliseconds (see :class:`~twisted_net.net.socket.Socket`).
    :param limits: a :class:`~twisted_net.wire.limits.Limits`: who may enter, how fast, for how long.
    :param maxConnections: more are refused; None is no limit (LUV-11).
    :param reactor: a Twisted reactor; None takes the one that is installed.

    Events: 'listening', 'connection' (socket), 'close', 'error' (NetError), 'drop' (info: a refused connection),
    'limit' (name, client, action: a limit was met by this Socket, or by this Address, and the connection was
    ``"refused"``, ``"paused"``, ``"closed"`` or ``"waits"``), 'retry' (error, attempt, delay in seconds).
    """

    _log = Logger()

    def __init__(
        self,
        options: Mapping[str, Any] | Listener | None = None,
        listener: Listener | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        if callable(options):
            options, listener = None, options
        chosen = mergeOptions("createServer", options, keywords, _SERVER_OPTIONS)
        self._reactor: Any = chosen["reactor"]
        self.allowHalfOpen: bool = bool(chosen["allowHalfOpen"])
        self.highWaterMark: int = checkMark("createServer", chosen["highWaterMark"])
        self.timeoutStep: float | None = chosen["timeoutStep"]
        self._pauseOnConnect: bool = bool(chosen["pauseOnConnect"])
        self._noDelay: bool = bool(chosen["noDelay"])
        self._keepAlive: bool = bool(chosen["keepAlive"])
        self._keepAliveDelay: float = chosen["keepAliveInitialDelay"]
        limits: Limits = chosen["limits"]
        if not isinstance(limits, Limits):
            raise OptionError(f"createServer: limits is {limits!r}; give a Limits(...)")
        self._limits = limits
        self._factory: SocketFactory | None = None
        self._phase: Phase = "closed"
        self._port: Any = None
        self._address: Address | None = None
        self._beginning: IDelayedCall | None = None
        self._starting: Deferred[Any] | None = None
        self._stopping = False
        self._pausing: IDelayedCall | None = None
        self._welcoming: Socket | None = None
        self._clients: dict[Socket, None] = {}
        self._listenWaiters: list[Deferred[Server]] = []
        self._closeWaiters: list[Deferred[None]] = []
        if chosen["maxConnections"] is not None:
            self.maxConnections = chosen["maxConnections"]
        if listener is not None:
            self.on("connection", listener)

    @property
    def reactor(self) -> Any:
        """The reactor that this server lives on."""
        if self._reactor is None:
            self._reactor = globalReactor()
        return self._reactor

    @property
    def factory(self) -> SocketFactory:
        """The engine's factory: admission, the table of connections, counters."""
        if self._factory is None:
            self._factory = SocketFactory(
                self._welcome, self.reactor, limits=self._limits, watcher=self, highWaterMark=self.highWaterMark
            )
        return self._factory

    # -- listening

    def listen(self, *args: Any, **keywords: Any) -> Self:
        """Begin to accept: ``listen(port, [host], [backlog], [listener])``, ``listen(path, [listener])``,
        ``listen(options, [listener])``, ``listen(fd=)``, ``listen(endpoint or endpoint text)``.

        Without a host: any IPv4 address; port 0: a free one (ask `address`).  The listener is added for 'listening'.
        Returns the server.

        Options: ``backlog``: connections that the kernel keeps until they are accepted (511, as Node); ``mode``: file
        mode of a UNIX socket; ``retry``: a :class:`~twisted_net.sansio.backoff.Backoff`: while the address is in use,
        try again by itself, emitting 'retry' (error, attempt, seconds until the next) each time.

        :raises AddressError: what was given is no address.
        :raises NetError: the server listens already (code ``ERR_SERVER_ALREADY_LISTEN``).
        """
        call: Call[IStreamServerEndpoint] = readCall(
            "listen",
            args,
            keywords,
            _LISTEN_OPTIONS,
            endpoint=IStreamServerEndpoint,
            defaultHost="",
            lowestPort=0,
        )
        if self._phase != "closed":
            raise NetError(
                f"listen: this server is {self._phase} already; close() it and wait for 'close' first",
                code="ERR_SERVER_ALREADY_LISTEN",
                fault="user",
            )
        retry = call.options["retry"]
        if retry is not None and not isinstance(retry, Backoff):
            raise OptionError(f"listen: retry is {retry!r}; give a Backoff(...)")
        if call.listener is not None:
            self.once("listening", call.listener)
        self._phase = "starting"
        self.factory.start()
        # On a later turn: 'listening' and 'error' never come before listen() has returned (LUV-5).
        self._beginning = self.reactor.callLater(0, self._start, call)
        return self

    def _start(self, call: Call[IStreamServerEndpoint]) -> None:
        self._beginning = None
        backlog = call.options["backlog"]
        retry = call.options["retry"]
        where = call.where
        if retry is None:
            self._starting = listen(self.reactor, self.factory, where, backlog=backlog)
        else:
            self._starting = listenRetrying(
                self.reactor, self.factory, where, retry, onRetry=self._retried, backlog=backlog
            )
        self._starting.addCallbacks(self._bound, self._notBound)

    def _retried(self, error: NetError, attempt: int, delay: float) -> None:
        # On a later turn: then the delay has begun, and close() in a listener can cancel it.
        self.reactor.callLater(0, self._sayRetry, error, attempt, delay)

    def _sayRetry(self, error: NetError, attempt: int, delay: float) -> None:
        if self._phase == "starting":
            self.emit("retry", error, attempt, delay)

    def _bound(self, port: Any) -> None:
        self._starting = None
        self._port = port
        self._address = Address.fromTwisted(port.getHost())
        self._phase = "listening"
        self.factory.adopt(port)
        waiters, self._listenWaiters = self._listenWaiters, []
        self.emit("listening")
        for waiter in waiters:
            waiter.callback(self)

    def _notBound(self, failure: Failure) -> None:
        self._starting = None
        if self._phase == "closing":
            return  # close() has cancelled it, and sees to the rest
        self._phase = "closed"
        error = failure.value
        assert isinstance(error, NetError), failure
        waiters, self._listenWaiters = self._listenWaiters, []
        closers, self._closeWaiters = self._closeWaiters, []
        for waiter in waiters:
            waiter.errback(error)
        if self.listenerCount("error") or not waiters:
            self.emit("error", error)
        for closer in closers:
            closer.callback(None)

    def whenListening(self) -> Deferred[Server]:
        """A Deferred of this server: fires when it listens (at once when it does), fails with the NetError when it
        cannot."""
        done: Deferred[Server] = Deferred()
        if self._phase == "listening":
            done.callback(self)
        else:
            self._listenWaiters.append(done)
        return done

    @property
    def listening(self) -> bool:
        """Whether the server accepts connections (also while it is paused)."""
        return self._phase == "listening"

    def address(self) -> Address | None:
        """Where the server listens: known from 'listening' until it is closed (LUV-10)."""
        return self._address

    @property
    def port(self) -> Any:
        """Twisted's own port object, or None (EVO-9)."""
        return None if self._port is None else self._port.port

    # -- accepting

    def pause(self, msecs: float = 1000) -> Self:
        """Stop accepting for *msecs* milliseconds; who comes meanwhile waits in the kernel's backlog (LUV-9)."""
        seconds = checkMsecs("pause", msecs) / 1000.0
        self._stopPausing()
        self.factory.acceptance.pause("user")
        self._pausing = self.reactor.callLater(seconds, self.resume)
        return self

    def resume(self) -> Self:
        """Accept again, before `pause` is over."""
        self._stopPausing()
        self.factory.acceptance.resume("user")
        return self

    def _stopPausing(self) -> None:
        pausing, self._pausing = self._pausing, None
        if pausing is not None and pausing.active():
            pausing.cancel()

    def _welcome(self, protocol: SocketProtocol) -> Socket:
        socket = Socket._accepted(self, protocol)
        self._clients[socket] = None
        return socket

    def welcomed(self, socket: Socket) -> None:
        """The engine's news, through the socket: it is admitted and stands."""
        if self._noDelay:
            socket.setNoDelay(True)
        if self._keepAlive:
            socket.setKeepAlive(True, self._keepAliveDelay)
        if self._pauseOnConnect:
            socket.pause()
        self._welcoming = socket
        self.emit("connection", socket)
        self._welcoming = None

    def clientClosed(self, socket: Socket) -> None:
        """The engine's news, through the socket: it has emitted its 'close'."""
        self._clients.pop(socket, None)
        if self._phase == "closing":
            self._maybeClosed()

    def limitPassed(self, name: str, peer: Address, action: str) -> None:
        """The engine's news: a limit was met at the door."""
        if action == "refused":
            self.emit(
                "drop",
                {
                    "reason": name,
                    "remoteAddress": peer.address,
                    "remotePort": peer.port,
                    "remoteFamily": peer.family,
                    "localAddress": None if self._address is None else self._address.address,
                    "localPort": None if self._address is None else self._address.port,
                    "localFamily": None if self._address is None else self._address.family,
                },
            )
        self.emit("limit", name, peer, action)

    def clientLimited(self, name: str, socket: Socket, action: str) -> None:
        """The engine's news, through the socket: it met a limit."""
        self.emit("limit", name, socket, action)

    # -- clients

    @property
    def limits(self) -> Limits:
        """The limits; assign others to change them (rates and deadlines apply to connections that come after)."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        if self._factory is not None:
            self._factory.limits = limits

    @property
    def maxConnections(self) -> int | None:
        """Connections at a time; more are refused, with 'drop'.  None is no limit (LUV-11)."""
        return self._limits.connections

    @maxConnections.setter
    def maxConnections(self, most: int | None) -> None:
        self.limits = replace(self._limits, connections=most)

    @property
    def connections(self) -> int:
        """How many clients there are (LUV-11)."""
        return len(self._clients)

    def getConnections(self, callback: Callable[..., object]) -> Self:
        """Call ``callback(error, count)`` on a later turn (MON-5)."""
        self.reactor.callLater(0, lambda: callback(None, len(self._clients)))
        return self

    @property
    def clients(self) -> KeysView[Socket]:
        """The sockets of all clients, in the order in which they came: a live view (EVO-3); copy it before you close
        some."""
        return self._clients.keys()

    def broadcast(self, data: Data, but: Socket | None = None) -> int:
        """Write *data* to every client (except *but*) that can still be written to; returns how many (EVO-3)."""
        told = 0
        for client in tuple(self._clients):
            if client is not but and client.writable:
                client.write(data)
                told += 1
        return told

    def find(self, wanted: Callable[[Socket], bool] | Address | str) -> Socket | None:
        """The first client for which *wanted* is true, or whose address it is (``"127.0.0.1:4711"``); None when there
        is none (EVO-3)."""
        for client in self._clients:
            if wanted(client) if callable(wanted) else str(client.peerAddress()) == str(wanted):
                return client
        return None

    def closeClient(self, client: Socket) -> Self:
        """End one client in good order: what was written is sent first (EVO-3)."""
        client.destroySoon()
        return self

    def pauseClient(self, client: Socket) -> Self:
        """As ``client.pause()`` (EVO-7)."""
        client.pause()
        return self

    def resumeClient(self, client: Socket) -> Self:
        """As ``client.resume()`` (EVO-7)."""
        client.resume()
        return self

    # -- closing

    def close(self, callback: Callable[..., object] | None = None) -> Self:
        """Stop accepting; existing connections go on.  'close' comes when the last of them has ended (LUV-1).

        *callback* listens once for it; on a server that does not listen it gets an error (code
        ``ERR_SERVER_NOT_RUNNING``), as in Node. Closing twice is harmless.
        """
        if self._phase == "closed":
            if callback is not None:
                error = NetError("close: this server does not listen", code="ERR_SERVER_NOT_RUNNING", fault="user")
                self.reactor.callLater(0, callback, error)
            return self
        if callback is not None:
            self.once("close", callback)
        if self._phase == "closing":
            return self
        self._phase = "closing"
        self._stopPausing()
        self.factory.stop()
        self.factory.acceptance.resume("user")
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            beginning.cancel()
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        self._stopping = True
        port, self._port = self._port, None
        if port is None:
            self._stopped(None)
        else:
            self.factory.disown(port)
            port.stopListening().addBoth(self._stopped)
        return self

    def _stopped(self, result: object) -> None:
        if isinstance(result, Failure):
            self._log.failure("closing {address} failed", failure=result, address=self._address)
        # On a later turn: 'close' never comes before close() has returned.
        self.reactor.callLater(0, self._gone)

    def _gone(self) -> None:
        self._stopping = False
        self._maybeClosed()

    def _maybeClosed(self) -> None:
        if self._phase != "closing" or self._clients or self._stopping:
            return
        self._phase = "closed"
        self._address = None
        waiters, self._closeWaiters = self._closeWaiters, []
        abandoned, self._listenWaiters = self._listenWaiters, []
        for starter in abandoned:
            starter.errback(NetError("the server was closed before it listened", code="ECANCELED", fault="user"))
        self.emit("close")
        for waiter in waiters:
            waiter.callback(None)

    def whenClosed(self) -> Deferred[None]:
        """A Deferred that fires after 'close'; at once when the server is closed."""
        done: Deferred[None] = Deferred()
        if self._phase == "closed":
            done.callback(None)
        else:
            self._closeWaiters.append(done)
        return done

    def drain(self, seconds: float | None = None) -> Deferred[None]:
        """As `close`, and abort what is left after *seconds* (None: wait for ever).  Fires when the server is
        closed."""
        self.close()
        self.factory.drain(seconds)
        return self.whenClosed()

    # -- when the user's code raises

    def listenerFailed(self, event: str, error: Exception) -> None:
        """A listener raised: logged with the event's name; a connection whose 'connection' listener raised is destroyed
        with it."""
        if self._welcoming is not None and event == "connection":
            self._welcoming.listenerFailed(event, error)
        else:
            self._log.failure("a listener of {event!r} raised", failure=Failure(error), event=event)

    def errorUnheard(self, error: BaseException) -> None:
        """An 'error' that nobody listens to is logged."""
        self._log.error("{error} (nobody listens to 'error' of the server)", error=error)

    def __repr__(self) -> str:
        where = "" if self._address is None else f" on {self._address}"
        return f"<{type(self).__name__} {self._phase}{where}, {len(self._clients)} clients>"
