"""Socket: a duplex stream over TCP or UNIX, with events (Luvit, Mongoose, Node).

A Socket *has* a protocol and is none: it exists before it connects, and may connect again after it has closed; each
connection has a :class:`~twisted_net.wire.protocol.SocketProtocol` of its own.  What stands here is translation: the
manuals' calls into the engine's, the engine's news into events, milliseconds into seconds.

The one thing with a mechanism is the binding of bytes (design law 4).  ``_write`` and the protocol's ``receive`` are
callables that are set again when something changes: a listener of 'data' comes or goes, the connection stands, the user
ends it.  Per segment nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProducer,
    IProtocol,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address, TcpTarget, UnixTarget
from twisted_net.errors import AddressError, ClosedError, NetError, OptionError, TimedOutError, WriteError
from twisted_net.interfaces import IConnectionUser
from twisted_net.net.arguments import (
    Call,
    Data,
    Listener,
    checkMark,
    checkMsecs,
    encode,
    mergeOptions,
    readCall,
    roundTimeout,
)
from twisted_net.net.pipe import Pipe
from twisted_net.sansio.emitter import Emitter
from twisted_net.sansio.lifecycle import Input, ReadyState, State, step
from twisted_net.wire.adopt import adoptConnection
from twisted_net.wire.dial import dial
from twisted_net.wire.once import Once
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import SocketProtocol

if TYPE_CHECKING:
    from twisted_net.net.server import Server

SocketType = Literal["tcp4", "tcp6", "unix"]

_SOCKET_OPTIONS: Final[Mapping[str, Any]] = {
    "fd": None,
    "type": None,
    "allowHalfOpen": False,
    "highWaterMark": HIGH_WATER_MARK,
    "timeoutStep": None,
    "reactor": None,
}
_CONNECT_OPTIONS: Final[Mapping[str, Any]] = {
    "connectTimeout": None,
    "localAddress": None,
    "localPort": None,
    "family": 0,
    "timeout": None,
    "noDelay": None,
    "keepAlive": None,
    "keepAliveInitialDelay": 0,
}


def globalReactor() -> Any:
    """The reactor that runs in this process: the default of every ``reactor=``."""
    from twisted.internet import reactor

    return reactor


@implementer(IConnectionUser, IPushProducer, IConsumer)
class Socket(Emitter):
    """A stream socket: to be connected by you, or handed over by a server's 'connection'.

    :param options: the parameters below in one mapping, as the manuals have it.
    :param fd: the descriptor of a connected socket that exists already; it is taken over.
    :param type: ``"tcp4"``, ``"tcp6"`` or ``"unix"``: the only kind of address that `connect` then accepts.
    :param allowHalfOpen: when the peer ends, go on writing until `end`; otherwise its end is answered by ours (LUV-33).
    :param highWaterMark: bytes; unsent ones from which on `write` returns False, and received ones that are kept while
        nobody listens.
    :param timeoutStep: milliseconds; `setTimeout` rounds to multiples of it and never goes below it (Mongoose has
        1000); None is exact.
    :param reactor: a Twisted reactor; None takes the one that is installed.

    Events: 'connect', 'ready', 'data' (bytes), 'end', 'finish' (everything was sent, and then our FIN), 'timeout',
    'drain', 'error' (NetError), 'close' (hadError), 'lookup' (error, address, family, host).  'end' and 'error' come
    before 'close', and there is exactly one 'close' for each connection.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_announcing",
        "_attempt",
        "_closers",
        "_connectors",
        "_lingering",
        "_living",
        "_local",
        "_logged",
        "_options",
        "_peer",
        "_reactor",
        "_refused",
        "_step",
        "_type",
        "_write",
        "allowHalfOpen",
        "connecting",
        "destroyed",
        "highWaterMark",
        "protocol",
        "server",
        "timeout",
    )

    _log = Logger()

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        reactor: Any = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        chosen = mergeOptions(
            "Socket", options, keywords if reactor is None else {**keywords, "reactor": reactor}, _SOCKET_OPTIONS
        )
        if chosen["type"] not in (None, "tcp4", "tcp6", "unix"):
            raise OptionError(f"Socket: type is {chosen['type']!r}; it must be 'tcp4', 'tcp6', 'unix' or None")
        self._type: SocketType | None = chosen["type"]
        self._prepare(chosen["reactor"], chosen["allowHalfOpen"], chosen["highWaterMark"], chosen["timeoutStep"])
        if chosen["fd"] is not None:
            self._adopt(chosen["fd"])

    def _prepare(self, reactor: Any, allowHalfOpen: bool, highWaterMark: int, timeoutStep: float | None) -> None:
        self._reactor = reactor
        #: Whether this side goes on writing after the peer has ended.
        self.allowHalfOpen = bool(allowHalfOpen)
        self.highWaterMark = checkMark("Socket", highWaterMark)
        self._step = None if timeoutStep is None else checkMsecs("timeoutStep", timeoutStep)
        #: The engine's object for the present connection, or None before the first.
        self.protocol: SocketProtocol | None = None
        #: The server that accepted this socket, or None.
        self.server: Server | None = None
        #: True from `destroy` or the end of the connection until it connects again.
        self.destroyed = False
        #: True while an attempt to connect is under way.
        self.connecting = False
        #: The idle time in milliseconds after which 'timeout' comes; 0 when there is none.
        self.timeout: float = 0
        self._options: SocketOptions | None = None
        self._attempt: Deferred[IProtocol] | None = None
        self._announcing: IDelayedCall | None = None
        self._lingering: IDelayedCall | None = None
        self._living = False  # from the first thing that is done for a connection until its 'close'
        self._closers: list[Deferred[bool]] | None = None
        self._connectors: list[Deferred[Socket]] | None = None
        self._peer: Address | None = None
        self._local: Address | None = None
        self._logged: Exception | None = None
        self._refused: list[tuple[NetError, Callable[..., object] | None, bool]] | None = None
        self._write: Callable[[bytes], bool] = self._writeEarly

    @classmethod
    def _accepted(cls, server: Server, protocol: SocketProtocol) -> Self:
        """The socket of a connection that *server* has just admitted."""
        self = cls.__new__(cls)
        Emitter.__init__(self)
        self._type = None
        self._prepare(server.reactor, server.allowHalfOpen, server.highWaterMark, server.timeoutStep)
        self.server = server
        self._take(protocol)
        return self

    @classmethod
    def over(cls, protocol: SocketProtocol, *, allowHalfOpen: bool = False) -> Self:
        """The socket of a connection that another face has handed over: ``Socket.over(stream.handOver())``.

        Nothing is lost: what was received and not delivered is its first 'data'.
        """
        self = cls.__new__(cls)
        Emitter.__init__(self)
        self._type = None
        self._prepare(protocol.reactor, allowHalfOpen, protocol.outlet.highWaterMark, None)
        protocol.user = self
        self._take(protocol)
        if protocol.exhausted:
            self.reactor.callLater(0, self.readEnded)
        return self

    def handOver(self) -> SocketProtocol:
        """Give the connection to another face (``streams.wrap`` calls this): the engine's object for it.

        Nothing is lost: what was received and not delivered goes along. This socket emits nothing more; its server
        does not count it among its clients any more, but the connection still counts against the server's limits.

        :raises ClosedError: there is no connection.
        """
        protocol = self.protocol
        if protocol is None or protocol.transport is None or self.destroyed or self.connecting:
            raise ClosedError("handOver: this socket is not connected; wait for 'connect'")
        self._stopProducer(protocol)
        protocol.setRestClock("timeout", None, self._timedOut)
        protocol.giveBack(b"")
        protocol.resume("user")
        self.protocol = None
        self._living = False
        self._close()
        if self.server is not None:
            self.server.clientClosed(self)
        return protocol

    @property
    def reactor(self) -> Any:
        """The reactor that this socket lives on."""
        if self._reactor is None:
            self._reactor = globalReactor()
        return self._reactor

    # -- connecting

    def connect(self, *args: Any, **keywords: Any) -> Self:
        """Open the connection: ``connect(port, [host], [listener])``, ``connect(path, [listener])``, ``connect(options,
        [listener])``.

        The host is "localhost" unless given.  A client endpoint (an object, or its text) is accepted in the place of a
        path.  The listener is added for 'connect'.  Returns the socket.

        Options: ``connectTimeout`` (**seconds** for the whole attempt), ``localAddress`` and ``localPort`` to bind
        before connecting, ``family`` (0, 4 or 6: the addresses of a name that are tried), ``timeout`` (milliseconds, as
        `setTimeout`), ``noDelay``, ``keepAlive`` and ``keepAliveInitialDelay`` (milliseconds).

        :raises AddressError: what was given is no address.
        :raises NetError: the socket is connected or connecting already (code ``EISCONN``).
        """
        call: Call[IStreamClientEndpoint] = readCall(
            "connect",
            args,
            keywords,
            _CONNECT_OPTIONS,
            endpoint=IStreamClientEndpoint,
            defaultHost="localhost",
            lowestPort=1,
        )
        if isinstance(call.where, int):
            raise AddressError(f"connect: a descriptor is connected already; make a Socket(fd={call.where}) of it")
        family = self._checkType(call.where, call.options["family"])
        if self._living and self.protocol is not None and self.protocol.state is not State.IDLE:
            raise NetError(
                "connect: this socket is connected or connecting already; wait for 'close', or make another Socket",
                code="EISCONN",
                fault="user",
            )
        if call.listener is not None:
            self.once("connect", call.listener)
        self._applyOptions(call.options)
        self.server = None  # whose client it was in an earlier life
        protocol = self._begin()
        protocol.state = step(protocol.state, Input.DIAL)
        self.connecting = True
        local = call.options["localAddress"], call.options["localPort"]
        self._attempt = dial(
            self.reactor,
            Once(protocol),
            call.where,
            timeout=call.options["connectTimeout"],
            family=family,
            localAddress=None if local == (None, None) else (local[0] or "", local[1] or 0),
            options=self._remembered(),
            onLookup=self._lookedUp,
        )
        self._attempt.addErrback(self._attemptFailed)
        return self

    def _checkType(self, where: object, family: Any) -> Literal[0, 4, 6]:
        if family not in (0, 4, 6):
            raise OptionError(f"connect: family is {family!r}; it must be 0 (any), 4 or 6")
        chosen: Literal[0, 4, 6] = family
        if self._type is None or not isinstance(where, TcpTarget | UnixTarget):
            return chosen
        if isinstance(where, UnixTarget) != (self._type == "unix"):
            raise AddressError(
                f"connect: a socket of type {self._type!r} cannot connect to {where}", address=str(where)
            )
        return 4 if self._type == "tcp4" else 6 if self._type == "tcp6" else chosen

    def _applyOptions(self, options: Mapping[str, Any]) -> None:
        if options["timeout"] is not None:
            self.setTimeout(options["timeout"])
        if options["noDelay"] is not None:
            self.setNoDelay(options["noDelay"])
        if options["keepAlive"] is not None:
            self.setKeepAlive(options["keepAlive"], options["keepAliveInitialDelay"])

    def _begin(self) -> SocketProtocol:
        """The protocol of the next connection; what is written before it stands waits in it."""
        protocol = self.protocol
        if protocol is None or not self._living:
            protocol = SocketProtocol(self, self.reactor, highWaterMark=self.highWaterMark)
            self._take(protocol)
        return protocol

    def _take(self, protocol: SocketProtocol) -> None:
        self.protocol = protocol
        self._living = True
        self.destroyed = False
        self._peer = self._local = None
        self._write = protocol.write
        protocol.receive = self._receiver()
        if self.timeout:
            protocol.setRestClock("timeout", self.timeout / 1000.0, self._timedOut)

    def _adopt(self, fd: int) -> None:
        protocol = self._begin()
        adoptConnection(self.reactor, Once(protocol), fd)

    def _lookedUp(self, error: NetError | None, address: str, family: int, host: str) -> None:
        self.emit("lookup", error, address, family, host)

    def _attemptFailed(self, failure: Failure) -> None:
        # Also when nobody waits any more: then destroy() has said so already.
        self._attempt = None
        protocol = self.protocol
        if protocol is None or protocol.state in (State.CLOSED, State.DROPPED):
            return
        error = failure.value
        assert isinstance(error, NetError), failure
        self._announcing = self.reactor.callLater(0, self._failed, error)

    def _failed(self, error: Exception | None) -> None:
        """No connection came of it: 'error', then 'close'."""
        self._announcing = None
        assert self.protocol is not None
        self.protocol.discard(error)
        self._over(error)

    # -- IConnectionUser

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """The engine's news: the connection stands."""
        if self._options is not None:
            self._options.apply(protocol.transport)
        if self.server is not None:
            self.server.welcomed(self)
            return
        if not self.connecting:
            return  # made of a descriptor: it was connected before anybody could listen
        self.connecting = False
        self._attempt = None
        connectors, self._connectors = self._connectors, None
        self.emit("connect")
        if not self.destroyed:
            self.emit("ready")
        for deferred in connectors or ():
            deferred.callback(self)

    def readEnded(self) -> None:
        """The engine's news: the peer has ended, and everything it sent was delivered."""
        self.emit("end")
        self._answerEnd()

    def _answerEnd(self) -> None:
        """FIN for FIN, unless half-open is wanted, or a producer has not yet written all of its answer (LUV-33)."""
        protocol = self.protocol
        if (
            protocol is not None
            and protocol.state is State.WRITE_ONLY
            and not self.allowHalfOpen
            and protocol.outlet.producer is None
        ):
            self._finishWriting()

    def writeEnded(self) -> None:
        """The engine's news: our FIN is with the kernel."""
        self.emit("finish")

    def drained(self) -> None:
        """The engine's news: nothing is unsent any more.  Whoever has ended has nothing to write: no 'drain' (Node)."""
        if self.protocol is not None and self.protocol.state.canWrite:
            self.emit("drain")

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """The engine's news: the connection is gone."""
        self._over(error)

    def limitPassed(self, name: str, action: str) -> None:
        """The engine's news: a limit was met."""
        assert self.server is not None, "nobody limits a client"
        self.server.clientLimited(name, self, action)
        if action == "closed":
            self._close()

    def raised(self, where: str, error: Exception) -> None:
        """The engine's news: a listener of 'data' or a write callback raised."""
        self._logRaised("data" if where == "receive" else where, error)
        self.destroy(error)

    def _close(self) -> None:
        """From now on nothing may be written."""
        self.destroyed = True
        self._write = self._writeClosed

    def _over(self, error: Exception | None) -> None:
        server = self.server
        lingering, self._lingering = self._lingering, None
        if lingering is not None and lingering.active():
            lingering.cancel()
        self.connecting = self._living = False
        self._close()
        self._tellRefused()
        connectors, self._connectors = self._connectors, None
        closers, self._closers = self._closers, None
        for deferred in connectors or ():
            deferred.errback(error or ClosedError("the socket was destroyed before it was connected"))
        if error is not None and (self.listenerCount("error") or not connectors):
            self.emit("error", error)
        self.emit("close", error is not None)
        if server is not None:
            server.clientClosed(self)
        for closer in closers or ():
            closer.callback(error is not None)

    # -- reading

    def listenersChanged(self, event: str) -> None:
        """Bind the byte's road again when the listeners of 'data' change."""
        if event == "data" and self.protocol is not None and not self.destroyed:
            self.protocol.attach(self._receiver())

    def _receiver(self) -> Callable[[bytes], object] | None:
        count = self.listenerCount("data")
        if not count:
            return None
        only = self.soleListener("data")
        return only if only is not None else self._emitData

    def _emitData(self, data: bytes) -> None:
        self.emit("data", data)

    def pause(self) -> Self:
        """No 'data' after this call returned, until `resume`; the kernel stops reading, and the peer's writes back up
        (LUV-22)."""
        if not self.destroyed:
            self._begin().pause("user")
        return self

    def resume(self) -> Self:
        """Take `pause` back."""
        if self.protocol is not None:
            self.protocol.resume("user")
        return self

    def isPaused(self) -> bool:
        """Whether `pause` is in force."""
        return self.protocol is not None and "user" in self.protocol.pressure.owners

    def pipe(self, destination: Any, end: bool = True) -> Any:
        """Write everything that comes into *destination*, as fast as it takes it; returns *destination*.

        *destination* is a Socket (this one, too: an echo), or anything with ``write(data)``; where that returns False
        reading stops until its 'drain'.  With *end*, the peer's end is passed on as ``destination.end()``.  A pipe
        lasts until one of the two has closed.
        """
        if not self.destroyed:
            Pipe(self, self._begin(), destination, end)
        return destination

    # -- writing

    def write(  # type: ignore[override]
        self,
        data: Data,
        encoding: str | Callable[..., object] | None = None,
        callback: Callable[..., object] | None = None,
    ) -> bool:
        """Send *data*; a text is encoded (UTF-8 unless named).

        Returns True while fewer than ``highWaterMark`` bytes are unsent, this chunk included; False means that bytes
        wait in user memory and 'drain' follows.  Before 'connect' everything waits, and the answer is False.

        :param callback: called with None when *data* was handed to the kernel, with a NetError when it never will be.

        After `end` or `destroy` nothing is sent: 'error' (code ``EPIPE`` or ``ERR_STREAM_DESTROYED``), and the callback
        gets it.
        """
        if encoding is None and callback is None and type(data) is bytes:
            return self._write(data)
        if callable(encoding):
            encoding, callback = None, encoding
        raw = encode(data, encoding)
        error = self._writeError()
        if error is not None:
            self._refuse(error, callback)
            return False
        if callback is None:
            return self._write(raw)
        outlet = self._begin().outlet
        # By way of the reactor's flush, which tells the moment at which the kernel has it. What goes straight there is
        # told on a later turn, and the answer to it may be faster.
        outlet.uncork()
        more = self._write(raw)
        outlet.whenSent(callback)
        return more

    def writeSequence(self, data: Any) -> None:
        """As ``ITransport.writeSequence``: the chunks in one write."""
        self.write(b"".join(data))

    def _writeEarly(self, data: bytes) -> bool:
        """Before the first `connect`: what is written waits for it."""
        return self._begin().write(data)

    def _writeClosed(self, data: bytes) -> bool:
        error = self._writeError()
        assert error is not None
        self._refuse(error, None)
        return False

    def _writeError(self) -> NetError | None:
        protocol = self.protocol
        if self.destroyed:
            return ClosedError(
                "write after destroy: the socket is closed; connect it again, or write before destroy()",
                syscall="write",
            )
        if protocol is not None and not protocol.state.canWrite and protocol.state is not State.IDLE:
            return WriteError("write after end: this side has ended; write before end()", syscall="write", fault="user")
        return None

    def _refuse(self, error: NetError, callback: Callable[..., object] | None, *, emit: bool = True) -> None:
        """Tell of a write that cannot be: on a later turn, but before 'close'."""
        if self._refused is None:
            self._refused = []
            self.reactor.callLater(0, self._tellRefused)
        self._refused.append((error, callback, emit))

    def _tellRefused(self) -> None:
        refused, self._refused = self._refused, None
        for error, callback, emit in refused or ():
            if callback is not None:
                try:
                    callback(error)
                except Exception as raised:
                    self.listenerFailed("write callback", raised)
            if emit:
                self.emit("error", error)

    def end(
        self,
        data: Data | Callable[..., object] | None = None,
        encoding: str | Callable[..., object] | None = None,
        callback: Callable[..., object] | None = None,
    ) -> Self:
        """Half-close: FIN after what was written; the peer may still send (LUV-20).  With *data*: `write`, then `end`.

        :param callback: called with None when everything was handed to the kernel, with a NetError when it never will
            be.
        :raises NetError: `connect` was not called yet (code ``ENOTCONN``).
        """
        if callable(data):
            data, callback = None, data
        elif callable(encoding):
            encoding, callback = None, encoding
        if self.pending and not self.connecting and not self.destroyed:
            raise NetError("end: this socket is not connected; connect() first", code="ENOTCONN", fault="user")
        if data is not None:
            self.write(data, encoding, callback)
        elif callback is not None:
            error = self._writeError()
            if error is not None:
                self._refuse(error, callback, emit=False)
            else:
                self._begin().outlet.whenSent(callback)
        self._finishWriting()
        return self

    finish = end

    def _finishWriting(self) -> None:
        if self.destroyed:
            return
        protocol = self._begin()
        self._stopProducer(protocol)
        protocol.end()
        self._write = self._writeClosed

    def _stopProducer(self, protocol: SocketProtocol) -> None:
        producer = protocol.outlet.producer
        if producer is not None:
            protocol.outlet.unregisterProducer()
            producer.stopProducing()

    def destroySoon(self) -> Self:
        """End both ways in good order: everything written is sent, nothing more is delivered, then 'close'.

        With the option ``linger`` and a time, what is unsent by then is dropped and the peer sees RST.
        """
        protocol = self.protocol
        if protocol is None or protocol.transport is None:
            return self.destroy()
        if not self.destroyed:
            self._stopProducer(protocol)
            protocol.close()
            self._write = self._writeClosed
            linger = self._linger()
            if linger is not None and self._lingering is None:
                self._lingering = self.reactor.callLater(linger, self._lingered, linger)
        return self

    def _linger(self) -> float | None:
        return None if self._options is None else self._options.lingerTimeout

    def _lingered(self, seconds: float) -> None:
        unsent = self.writableLength
        self._destroy(
            TimedOutError(f"{unsent} bytes were unsent {seconds:g} s after the socket was closed (linger)"), reset=True
        )

    def destroy(self, error: Exception | None = None) -> Self:
        """No I/O any more: what is unsent is dropped, the peer sees FIN (with the option ``linger`` at 0 seconds: RST);
        'error' (if given), then 'close', on a later turn (LUV-19)."""
        self._destroy(error, reset=self._linger() == 0)
        return self

    def resetAndDestroy(self) -> Self:
        """As `destroy`, but the peer sees RST.

        :raises NetError: not a TCP socket (code ``ERR_INVALID_HANDLE_TYPE``): UNIX sockets know no reset.
        """
        if self.protocol is not None and self.protocol.transport is not None:
            local = self.address()
            if local is not None and local.family == "unix":
                raise NetError(
                    "resetAndDestroy: a UNIX socket cannot be reset; use destroy()",
                    code="ERR_INVALID_HANDLE_TYPE",
                    fault="user",
                )
        self._destroy(None, reset=True)
        return self

    def _destroy(self, error: Exception | None, reset: bool) -> None:
        if self.destroyed:
            return
        protocol = self._begin()
        self._close()
        if protocol.state.readyState != "opening" and protocol.state is not State.IDLE:
            if reset:
                protocol.abort(error)
            else:
                protocol.drop(error)
            return
        if self._announcing is not None:
            self._announcing.cancel()
        protocol.state = step(protocol.state, Input.DROP)
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        self._announcing = self.reactor.callLater(0, self._failed, error)

    # -- IPushProducer and IConsumer: a good Twisted citizen

    def pauseProducing(self) -> None:
        """As `pause`: a consumer that this socket feeds wants no more."""
        self.pause()

    def resumeProducing(self) -> None:
        """As `resume`."""
        self.resume()

    def stopProducing(self) -> None:
        """As `destroy`: nobody wants the data any more."""
        self.destroy()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As ``IConsumer``: a push producer is paused while ``highWaterMark`` bytes or more are unsent, a pull producer
        asked when none is.

        :raises RuntimeError: another producer is registered.
        """
        if self.destroyed:
            producer.stopProducing()
        else:
            self._begin().outlet.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """As ``IConsumer``: the producer has finished.  If the peer has ended meanwhile, its end is answered now."""
        if self.protocol is not None:
            self.protocol.outlet.unregisterProducer()
            self._answerEnd()

    # -- clocks and options

    def setTimeout(self, msecs: float, callback: Listener | None = None) -> Self:
        """Emit 'timeout' after *msecs* milliseconds without a byte in either direction; the connection stays (LUV-26).

        0 switches it off.  *callback* listens once.  Fires once per idle period.

        :raises OptionError: *msecs* is no finite number, or negative.
        """
        self.timeout = roundTimeout(msecs, self._step)
        if callback is not None:
            if self.timeout:
                self.once("timeout", callback)
            else:
                self.off("timeout", callback)
        if self.protocol is not None:
            self.protocol.setRestClock("timeout", self.timeout / 1000.0 if self.timeout else None, self._timedOut)
        return self

    def _timedOut(self) -> None:
        self.emit("timeout")

    def _remembered(self) -> SocketOptions:
        if self._options is None:
            self._options = SocketOptions()
        return self._options

    def _option(self, change: Callable[[SocketOptions], object]) -> Self:
        change(self._remembered())
        if self.protocol is not None and self.protocol.transport is not None:
            self._remembered().apply(self.protocol.transport)
        return self

    def setKeepAlive(self, enable: bool = False, initialDelay: float = 0) -> Self:
        """Switch keep-alive probes; *initialDelay* milliseconds of silence before the first, 0 leaves it as it is
        (LUV-24)."""
        return self._option(lambda options: options.setKeepAlive(enable, initialDelay / 1000.0))

    def setNoDelay(self, noDelay: bool = True) -> Self:
        """Send every write at once instead of gathering small ones (Nagle's algorithm, RFC 9293 section 3.7.4;
        LUV-25)."""
        return self._option(lambda options: options.setNoDelay(noDelay))

    def setOption(self, name: str, value: Any = True) -> Self:
        """LuaSocket's options: ``keepalive``, ``linger``, ``reuseaddr``, ``tcp-nodelay`` (LUAS-47).

        :raises OptionError: the name is unknown, or the value of the wrong type.
        """
        return self._option(lambda options: options.setOption(name, value))

    # -- looking at it

    def address(self) -> Address | None:
        """The bound (local) side, or None when there is no connection (LUV-14)."""
        transport = self.transport
        if transport is not None:
            self._local = Address.fromTwisted(transport.getHost())
        return self._local

    def peerAddress(self) -> Address | None:
        """The other side, or None before there was one; it is still known in 'close'."""
        if self._peer is None and self.protocol is not None:
            peer = self.protocol.getPeer()
            if peer is not None:
                self._peer = Address.fromTwisted(peer)
        return self._peer

    @property
    def remoteAddress(self) -> str | None:
        """The IP address of the other side, or the path of a UNIX socket."""
        peer = self.peerAddress()
        return None if peer is None else peer.address

    @property
    def remotePort(self) -> int | None:
        """The port of the other side."""
        peer = self.peerAddress()
        return None if peer is None else peer.port

    @property
    def remoteFamily(self) -> str | None:
        """``"IPv4"``, ``"IPv6"`` or ``"unix"``."""
        peer = self.peerAddress()
        return None if peer is None else peer.family

    @property
    def localAddress(self) -> str | None:
        """The IP address of this side, or its path."""
        local = self.address()
        return None if local is None else local.address

    @property
    def localPort(self) -> int | None:
        """The port of this side."""
        local = self.address()
        return None if local is None else local.port

    @property
    def localFamily(self) -> str | None:
        """``"IPv4"``, ``"IPv6"`` or ``"unix"``."""
        local = self.address()
        return None if local is None else local.family

    @property
    def transport(self) -> Any:
        """Twisted's own transport while the connection stands, else None."""
        return None if self.protocol is None else self.protocol.transport

    @property
    def bytesRead(self) -> int:
        """Bytes received."""
        return 0 if self.protocol is None else self.protocol.bytesRead

    @property
    def bytesWritten(self) -> int:
        """Bytes written: those handed to the kernel, and those that wait for it."""
        return 0 if self.protocol is None else self.protocol.bytesWritten

    @property
    def writableLength(self) -> int:
        """Bytes that were written and are not yet handed to the kernel."""
        return 0 if self.protocol is None else self.protocol.outlet.unsent

    @property
    def readyState(self) -> ReadyState:
        """Node's word for the state: ``opening``, ``open``, ``readOnly``, ``writeOnly`` or ``closed``."""
        return "closed" if self.protocol is None or self.destroyed else self.protocol.state.readyState

    @property
    def readable(self) -> bool:
        """Whether the peer may still send."""
        return not self.destroyed and self.protocol is not None and self.protocol.state.canRead

    @property
    def writable(self) -> bool:
        """Whether `write` may be called."""
        return not self.destroyed and (self.protocol is None or self._writeError() is None)

    @property
    def pending(self) -> bool:
        """Whether there is no connection yet."""
        return self.protocol is None or self.protocol.state in (State.IDLE, State.DIALLING, State.DIALLING_TO_END)

    def __repr__(self) -> str:
        peer = self.peerAddress()
        return f"<{type(self).__name__} {self.readyState}{'' if peer is None else f' {peer}'}>"

    # -- Deferreds

    def whenConnected(self) -> Deferred[Socket]:
        """A Deferred of this socket: fires at 'connect' (at once when connected), fails with the NetError of the
        attempt."""
        done: Deferred[Socket] = Deferred()
        if self.destroyed:
            done.errback(ClosedError("the socket is closed; connect() it again first"))
        elif not self.pending:
            done.callback(self)
        else:
            self._connectors = [*(self._connectors or ()), done]
        return done

    def whenClosed(self) -> Deferred[bool]:
        """A Deferred that fires after 'close', with its ``hadError``; at once when the socket is closed."""
        done: Deferred[bool] = Deferred()
        if self.protocol is not None and not self._living:
            done.callback(self.protocol.error is not None)
        else:
            self._closers = [*(self._closers or ()), done]
        return done

    # -- when the user's code raises

    def listenerFailed(self, event: str, error: Exception) -> None:
        """A listener raised: log it with the event's name, destroy this connection; others go on."""
        self._logRaised(event, error)
        if event not in ("error", "close"):
            self.destroy(error)

    def errorUnheard(self, error: BaseException) -> None:
        """An 'error' that nobody listens to is logged (once: not what a listener raised, which was logged there)."""
        if error is self._logged:
            return
        self._log.error("{socket!r}: {error} (nobody listens to 'error')", socket=self, error=error)

    def _logRaised(self, event: str, error: Exception) -> None:
        self._logged = error
        self._log.failure(
            "a listener of {event!r} raised, and {socket!r} is destroyed with it",
            failure=Failure(error),
            event=event,
            socket=self,
        )
