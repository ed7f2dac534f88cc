"""
DatagramSocket: datagrams as events, in the manner of Node's ``dgram``.

::

    idle --bind, send, connect--> binding --'listening'--> bound --close--> closed ('close')
      ^                              |
      +----------- 'error' ----------+

What is to be sent, or connected, before the socket is bound waits until it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.address import Address, UdpTarget, UnixTarget, checkPort, isIP
from twisted_net.errors import AddressError, ClosedError, LimitError, NetError, OptionError
from twisted_net.sansio.emitter import Emitter
from twisted_net.wire import datagram
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import LONGEST, UNSENT_LIMIT, DatagramPort
from twisted_net.wire.destination import Destination, RawPlace, addressOf, locate, placeOf, targetOf

Listener = Callable[..., object]
Sent = Callable[[NetError | None, int], object]
Bytes = bytes | bytearray | memoryview
Data = Bytes | str
"""What may be sent; a text in UTF-8."""

#: For each type the version of IP that names are to have, and every interface.
_TYPES: Final[dict[str, tuple[Literal[0, 4, 6], str]]] = {"udp4": (4, ""), "udp6": (6, "::"), "unix": (0, "")}

#: Node's names of options.
_NODES: Final = {"reuseAddr": "reuseAddress", "recvBufferSize": "receiveBuffer", "sendBufferSize": "sendBuffer"}


class DatagramSocket(Emitter):
    """
    A datagram socket with events. Made by :func:`twisted_net.udp.createSocket`.

    :param type: ``"udp4"``, ``"udp6"`` or ``"unix"``.
    :param listener: added for 'message'.
    :param reactor: a Twisted reactor; None takes the one that is installed.
    :param options: those of :class:`~twisted_net.wire.casting.DatagramOptions`; Node's names of them (``reuseAddr``,
        ``recvBufferSize``, ``sendBufferSize``) are known, too.
    :raises OptionError: an option is unknown, or has no such value.

    Events: 'listening', 'message' (data, address), 'connect', 'error' (NetError), 'close'. A listener that raises is
    logged.
    """

    _log = Logger()

    def __init__(self, type: str, *, listener: Listener | None = None, reactor: Any = None, **options: Any) -> None:
        super().__init__()
        if type not in _TYPES:
            raise OptionError(f"createSocket: type is {type!r}; it must be one of {', '.join(_TYPES)}")
        self.type = type
        self._options = DatagramOptions.named({_NODES.get(name, name): value for name, value in options.items()})
        self._reactor = reactor
        self._phase: Literal["idle", "binding", "bound", "closed"] = "idle"
        self._port: DatagramPort | None = None
        self._beginning: IDelayedCall | None = None
        self._opening: Deferred[Any] | None = None
        self._waiting: list[Callable[[NetError | None], object]] = []
        if listener is not None:
            self.on("message", listener)

    @property
    def reactor(self) -> Any:
        """The reactor that this socket lives on."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    # -- binding

    def bind(self, *args: Any, port: int = 0, address: str | None = None) -> Self:
        """
        Bind: ``bind([port], [host], [listener])``, ``bind("host:port", [listener])``, ``bind("/path", [listener])``
        for UNIX, ``bind({"port": ..., "address": ...}, [listener])``. Without a host: every interface; without a port:
        a free one. The listener is added for 'listening', which is emitted on a later turn, as 'error' is. Returns the
        socket.

        :raises AddressError: what was given is no address for this type of socket.
        :raises NetError: it is bound already (code ``ERR_SOCKET_ALREADY_BOUND``), or closed.
        """
        rest, listener = _split(args)
        if rest and isinstance(rest[0], Mapping):
            named = rest.pop(0)
            port, address = named.get("port", port), named.get("address", address)
        if rest and isinstance(rest[0], str) and not rest[0].isdigit():
            target = self._fitting(targetOf(rest.pop(0)))
        else:
            port = rest.pop(0) if rest else port
            address = rest.pop(0) if rest else address
            if self.type == "unix":
                raise AddressError(f"bind: a UNIX socket is bound to a path, not to port {port!r}; give it as a text")
            target = self._fitting(UdpTarget(address or _TYPES[self.type][1], port))
        if rest:
            raise OptionError(f"bind: cannot make anything of {rest!r}; see the documented ways to call it")
        self._checkUnbound("bind")
        if listener is not None:
            self.once("listening", listener)
        self._begin(datagram.bind, target)
        return self

    def adopt(self, port: DatagramPort) -> Self:
        """
        Take over *port*, which is bound already and not begun. 'listening' is emitted before this returns. Returns the
        socket.

        :raises NetError: as `bind`.
        """
        self._checkUnbound("adopt")
        self._bound(port)
        return self

    def _checkUnbound(self, what: str) -> None:
        self._checkOpen(what)
        if self._phase != "idle":
            raise NetError(f"{what}: this socket is bound already; make another one", code="ERR_SOCKET_ALREADY_BOUND")

    def _fitting(self, target: UdpTarget | UnixTarget) -> UdpTarget | UnixTarget:
        """*target*, which fits the type of this socket."""
        version, _ = _TYPES[self.type]
        if isinstance(target, UnixTarget) != (self.type == "unix"):
            raise AddressError(f"{target} is no address for a socket of type {self.type}; create another one")
        if isinstance(target, UdpTarget) and target.host and isIP(target.host) not in (0, version):
            raise AddressError(f"{target} is no address for a socket of type {self.type}; create another one")
        return target

    def _begin(self, open: Callable[..., Any], target: UdpTarget | UnixTarget) -> None:
        self._phase = "binding"
        self._beginning = self.reactor.callLater(0, self._open, open, target)

    def _open(self, open: Callable[..., Any], target: UdpTarget | UnixTarget) -> None:
        self._beginning = None
        version, _ = _TYPES[self.type]
        self._opening = Deferred.fromCoroutine(open(self.reactor, target, self._options, version))
        self._opening.addCallbacks(self._bound, self._notBound)

    def _bound(self, port: DatagramPort) -> None:
        self._opening = None
        self._port = port
        self._phase = "bound"
        port.receive = self._message
        port.start(self)
        self.emit("listening")
        if port.peer is not None:
            self._say("connect")
        self._release(None)

    def _notBound(self, failure: Failure) -> None:
        self._opening = None
        if self._phase == "closed":
            return
        self._phase = "idle"
        error = failure.value
        assert isinstance(error, NetError), failure
        self.emit("error", error)
        self._release(error)

    def _release(self, error: NetError | None) -> None:
        """Let go what waited for the socket to be bound."""
        waiting, self._waiting = self._waiting, []
        for go in waiting:
            go(error)

    def _whenBound(self, what: str, go: Callable[[NetError | None], object]) -> None:
        """Call *go* when the socket is bound (None), or cannot be; binds it if nobody has."""
        self._checkOpen(what)
        if self._phase == "idle":
            if self.type == "unix":
                raise NetError(f"{what}: give this UNIX socket a path first: bind() it", code="ENOTCONN", fault="user")
            self.bind()
        if self._phase == "bound":
            go(None)
        elif len(self._waiting) < UNSENT_LIMIT:
            self._waiting.append(go)
        else:
            go(LimitError(f"{what}: {UNSENT_LIMIT} calls wait until this socket is bound; wait too", code="ENOBUFS"))

    def address(self) -> Address | None:
        """Where the socket is bound: known from 'listening' on."""
        return None if self._port is None else self._port.address

    # -- whom to

    def connect(self, *args: Any) -> Self:
        """
        Send to one address, and hear from nobody else: ``connect(port, [host], [listener])``, ``connect(address,
        [listener])``. The listener is added for 'connect'. Binds the socket, if nobody has. Returns the socket.

        :raises AddressError: what was given is no address.
        :raises ClosedError: the socket is closed.
        """
        rest, listener = _split(args)
        destination = _destination("connect", rest)
        if destination is None:
            raise AddressError("connect: say whom to connect to; give a port and a host, or an address")
        target = self._fitting(targetOf(destination))
        self._checkOpen("connect")
        if listener is not None:
            self.once("connect", listener)
        if self._phase == "idle":
            self._begin(datagram.connect, target)
        else:
            self._whenBound("connect", partial(self._connectTo, destination))
        return self

    def _connected(self, place: RawPlace) -> None:
        assert self._port is not None
        self._port.connect(place)
        self.reactor.callLater(0, self._say, "connect")

    def remoteAddress(self) -> Address | None:
        """Whom the socket is connected to; None for nobody."""
        return None if self._port is None else self._port.peer

    def _connectTo(self, destination: Destination, error: NetError | None) -> None:
        if error is None:  # that it could not be bound was emitted
            self._locate(destination, self._connected, partial(self._sent, None, 0))

    def _locate(
        self, destination: Destination, go: Callable[[RawPlace], object], refuse: Callable[[NetError], object]
    ) -> None:
        """Call *go* with the place of *destination*, once a name was looked up; *refuse* with what goes wrong."""

        async def locating(family: int) -> None:
            try:
                go(await locate(self.reactor, family, destination))
            except NetError as error:
                refuse(error)

        assert self._port is not None
        Deferred.fromCoroutine(locating(self._port.family))

    # -- sending

    def send(self, data: Data, *args: Any) -> None:
        """
        Send a datagram: ``send(data, [callback])`` to whom the socket is connected, ``send(data, port, [host],
        [callback])``, ``send(data, address, [callback])``, where the address is a text, or came with a 'message'.
        Without a host: this machine. Binds the socket, if nobody has. A name is looked up each time.

        *callback* is called on a later turn, with (error, bytes): None and how many were sent, or why not. Without one
        an error is emitted as 'error'.

        :raises OptionError: *data* is neither bytes nor text.
        :raises ClosedError: the socket is closed.
        """
        rest, done = _split(args)
        destination = _destination("send", rest)
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes | bytearray | memoryview):
            raise OptionError(f"send: {data!r} is neither bytes nor text; encode it first")
        if self._phase == "bound":
            self._dispatch(data, destination, done, None)
        else:
            # A copy: whose buffer it is may use it again.
            self._whenBound("send", partial(self._dispatch, bytes(data), destination, done))

    def _dispatch(
        self, data: Bytes, destination: Destination | None, done: Sent | None, error: NetError | None
    ) -> None:
        refuse = partial(self._sent, done, 0)
        if error is not None:
            refuse(error)
            return
        port = self._port
        assert port is not None
        try:
            place = None if destination is None else placeOf(port.family, destination)
            if destination is None or place is not None:
                self._give(data, done, place)
            else:
                self._locate(destination, partial(self._give, bytes(data), done), refuse)
        except NetError as refused:
            refuse(refused)

    def _give(self, data: Bytes, done: Sent | None, place: RawPlace) -> None:
        assert self._port is not None
        sent = self._port.send(data, place)
        if sent is None:
            self._port.enqueue(data, place, partial(self._sent, done, len(data)))
        else:
            self._sent(done, sent, None)

    def _sent(self, done: Sent | None, count: int, error: NetError | None) -> None:
        if done is not None:
            self.reactor.callLater(0, done, error, 0 if error is not None else count)
        elif error is not None:
            self.reactor.callLater(0, self._say, "error", error)

    # -- options

    def setOptions(self, **options: Any) -> Self:
        """
        Change options; what is set before the socket is bound holds from then on. Returns the socket.

        :raises OptionError: as for the constructor; and for what can only be set before.
        :raises NetError: the system refuses.
        """
        named = DatagramOptions.named({_NODES.get(name, name): value for name, value in options.items()})
        if self._phase in ("bound", "closed"):
            self._boundPort("setOptions").setOptions(named)
        else:
            self._options = replace(self._options, **named.given())
        return self

    def setBroadcast(self, flag: bool) -> Self:
        """Allow sending to broadcast addresses."""
        return self.setOptions(broadcast=flag)

    def setTTL(self, ttl: int) -> Self:
        """How many routers a datagram may cross, 1 to 255."""
        return self.setOptions(unicastTtl=ttl)

    def setMulticastTTL(self, ttl: int) -> Self:
        """How many networks a datagram to a group may cross, 0 to 255."""
        return self.setOptions(ttl=ttl)

    def setMulticastLoopback(self, flag: bool) -> Self:
        """Whether this machine hears what it sends to a group that it is a member of."""
        return self.setOptions(loop=flag)

    def setMulticastInterface(self, interface: str) -> Self:
        """Where datagrams to groups leave: an interface's name, or its IPv4 address."""
        return self.setOptions(interface=interface)

    def addMembership(self, group: str, interface: str | None = None) -> Self:
        """
        Hear what is sent to *group*; see :meth:`~twisted_net.udp.socket.UdpSocket.joinGroup`.

        :raises ClosedError: the socket is not bound yet, or closed.
        """
        self._boundPort("addMembership").joinGroup(group, interface)
        return self

    def dropMembership(self, group: str, interface: str | None = None) -> Self:
        """Hear it no more."""
        self._boundPort("dropMembership").leaveGroup(group, interface)
        return self

    def _boundPort(self, what: str) -> DatagramPort:
        self._checkOpen(what)
        if self._port is None:
            raise ClosedError(f"{what}: the socket is not bound yet; wait for 'listening'")
        return self._port

    @property
    def port(self) -> DatagramPort | None:
        """The engine's port, with its counts; None until it is bound."""
        return self._port

    # -- the engine's news

    def _message(self, data: bytes, place: RawPlace) -> None:
        assert self._port is not None
        if len(data) > LONGEST:
            # Only UNIX has longer ones.
            self._say(
                "error", LimitError(f"a datagram of more than {LONGEST:,} bytes came; send less", code="EMSGSIZE")
            )
        else:
            self.emit("message", data, addressOf(self._port.family, place))

    def failed(self, error: NetError) -> None:
        """What was sent earlier did not arrive."""
        self._say("error", error)

    def ended(self, error: NetError | None) -> None:
        """The port is closed."""
        self._phase = "closed"
        if error is not None:
            self.emit("error", error)
        # On a later turn: 'close' never comes before close() has returned.
        self.reactor.callLater(0, self.emit, "close")

    def _say(self, event: str, *args: object) -> None:
        """Emit an event, unless the socket was closed meanwhile."""
        if self._phase != "closed":
            self.emit(event, *args)

    # -- its end

    def close(self, listener: Listener | None = None) -> Self:
        """
        Close: the port is free when this returns. *listener* listens once for 'close', which comes on a later turn.
        What waits for room, or to be bound, gets a ClosedError. Closing twice is harmless. Returns the socket.
        """
        if self._phase == "closed":
            if listener is not None:
                self.reactor.callLater(0, listener)
            return self
        if listener is not None:
            self.once("close", listener)
        self._phase = "closed"
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            beginning.cancel()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        if self._port is None:
            self.ended(None)
        else:
            self._port.close()
        self._release(ClosedError("the socket was closed before it was bound"))
        return self

    def _checkOpen(self, what: str) -> None:
        if self._phase == "closed":
            raise ClosedError(f"{what}: the socket is closed; create another one")

    # -- when the user's code raises

    def listenerFailed(self, event: str, error: Exception) -> None:
        """A listener raised: that is logged with the event's name."""
        self._log.failure("a listener of {event!r} raised", failure=Failure(error), event=event)

    def errorUnheard(self, error: BaseException) -> None:
        """An 'error' that nobody listens to is logged."""
        self._log.error("{error} (nobody listens to 'error' of the socket)", error=error)

    def __repr__(self) -> str:
        where = "" if self._port is None else f" {self._port.address}"
        return f"<{type(self).__name__} {self.type}{where} {self._phase}>"


def _split(args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The arguments, and the last of them if it can be called."""
    rest = list(args)
    return rest, rest.pop() if rest and callable(rest[-1]) else None


def _destination(verb: str, rest: list[Any]) -> Destination | None:
    """Whom the arguments of *verb* name: nobody, an address, or a port and perhaps a host."""
    if not rest:
        return None
    first, *others = rest
    if isinstance(first, int) or (isinstance(first, str) and first.isdigit()):
        host = others.pop(0) if others else None
        first = UdpTarget(host or "", checkPort(first, lowest=1))
    if others:
        raise OptionError(f"{verb}: cannot make anything of {others!r}; see the documented ways to call it")
    return first  # type: ignore[no-any-return]
