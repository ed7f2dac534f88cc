"""
Socket options, on whatever transport there is.

Three things stand between an option and its socket. The socket may be under TLS, where
:mod:`~twisted_net.wire.layers` finds it. It may be no TCP socket: the options here are TCP's, and on a UNIX socket or
in memory each of them does nothing, silently, since whoever serves both should not have to ask. And it may not be there
yet: :class:`SocketOptions` remembers what was set before connecting.

*Lingering* is different. The kernel's ``SO_LINGER`` with a time makes ``close()`` wait even on a non-blocking socket
(socket(7)), and with it the reactor and every other connection. So the kernel is only told of a linger of 0 seconds,
which waits for nothing: what is unsent is dropped and the peer sees RST. A longer one is kept in
:attr:`SocketOptions.lingerTimeout`, for the one who closes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from math import ceil
from typing import Any, Final

from twisted_net.errors import OptionError
from twisted_net.wire import layers, reasons

__all__ = ["SocketOptions", "setKeepAlive", "setLinger0", "setNoDelay", "setReuseAddress"]

#: Seconds: the longest ``TCP_KEEPIDLE`` that Linux takes (MAX_TCP_KEEPIDLE in its include/net/tcp.h).
LONGEST_KEEPALIVE_DELAY: Final = 32767

NAMES: Final = ("keepalive", "linger", "reuseaddr", "tcp-nodelay")
"""What :meth:`SocketOptions.setOption` knows (LUAS-47)."""


def setNoDelay(transport: Any, on: bool) -> None:
    """
    Send small writes at once (True), or let the kernel gather them (False: Nagle's algorithm, RFC 9293, 3.7.4).

    :raises NetError: the kernel refuses.
    """
    skt = _tcpSocket(transport)
    if skt is not None:
        _set(skt, socket.IPPROTO_TCP, socket.TCP_NODELAY, int(on))


def setKeepAlive(transport: Any, on: bool, initialDelay: float = 0.0) -> None:
    """
    Let the kernel ask a silent peer whether it is still there, and end the connection when no answer comes (tcp(7)).

    :param initialDelay: seconds of silence before the first question, rounded up to whole ones; 0 leaves it as it is.
    :raises OptionError: a delay that is negative, or longer than ``LONGEST_KEEPALIVE_DELAY``.
    :raises NetError: the kernel refuses.
    """
    delay = _keepAliveDelay(initialDelay)
    skt = _tcpSocket(transport)
    if skt is None:
        return
    _set(skt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(on))
    if on and delay:
        _set(skt, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, delay)


def setReuseAddress(transport: Any, on: bool) -> None:
    """
    Let a local address be bound while connections of the past are still in TIME_WAIT on it (socket(7)).

    :raises NetError: the kernel refuses.
    """
    skt = _tcpSocket(transport)
    if skt is not None:
        _set(skt, socket.SOL_SOCKET, socket.SO_REUSEADDR, int(on))


def setLinger0(transport: Any, on: bool) -> None:
    """
    Let the kernel's ``close()`` drop what is unsent and send RST (True), or send the rest and FIN (False).

    A stock transport shuts down before it closes, so that the peer has its FIN before the RST and takes it for a good
    end; who wants the peer to see a reset calls ``abortConnection``. This option is for the ends that nobody calls:
    a process that is killed, a transport that closes without shutting down.

    :raises NetError: the kernel refuses.
    """
    skt = _tcpSocket(transport)
    if skt is not None:
        _set(skt, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(on), 0))


class SocketOptions:
    """Options that were set, for a connection that may not be there yet; ``None`` is what was never set."""

    __slots__ = ("_lingers", "keepAlive", "keepAliveDelay", "lingerTimeout", "noDelay", "reuseAddress")

    def __init__(self) -> None:
        #: See :func:`setKeepAlive`.
        self.keepAlive: bool | None = None
        #: Seconds; 0.0 leaves the system's.
        self.keepAliveDelay = 0.0
        #: See :func:`setNoDelay`.
        self.noDelay: bool | None = None
        #: See :func:`setReuseAddress`.
        self.reuseAddress: bool | None = None
        #: How closing treats what is unsent. ``None``: it is sent in the background. 0.0: it is dropped, and the peer
        #: sees RST. More: closing waits so many seconds for it to be sent, then drops it.
        self.lingerTimeout: float | None = None
        self._lingers: bool | None = None

    def setKeepAlive(self, on: bool, initialDelay: float = 0.0) -> None:
        """See :func:`setKeepAlive`; the arguments are checked now."""
        _keepAliveDelay(initialDelay)
        self.keepAlive = bool(on)
        self.keepAliveDelay = initialDelay

    def setNoDelay(self, on: bool) -> None:
        """See :func:`setNoDelay`."""
        self.noDelay = bool(on)

    def setReuseAddress(self, on: bool) -> None:
        """See :func:`setReuseAddress`."""
        self.reuseAddress = bool(on)

    def setLinger(self, on: bool, timeout: float) -> None:
        """
        Set :attr:`lingerTimeout` to ``timeout`` seconds, or with ``on=False``, whatever the timeout, to ``None``.

        :raises OptionError: a timeout that is no number, negative or infinite.
        """
        self.lingerTimeout = _seconds("linger timeout", timeout) if on else None
        self._lingers = bool(on)

    def setOption(self, name: str, value: object = True) -> None:
        """
        Set one of LuaSocket's options (LUAS-47): ``keepalive``, ``reuseaddr`` and ``tcp-nodelay`` take a bool,
        ``linger`` takes ``{"on": bool, "timeout": seconds}``.

        :raises OptionError: an unknown name, or a value of another type.
        """
        if name == "linger":
            self._setLingerFrom(value)
        elif name not in NAMES:
            raise OptionError(f"option {name!r} is unknown; there are {', '.join(NAMES)}")
        elif not isinstance(value, bool):
            raise OptionError(f"option {name!r} is {value!r}; it takes True or False")
        elif name == "keepalive":
            self.keepAlive = value
        elif name == "reuseaddr":
            self.reuseAddress = value
        else:
            self.noDelay = value

    def _setLingerFrom(self, value: Any) -> None:
        on = value.get("on") if isinstance(value, Mapping) else None
        if not isinstance(on, bool) or not set(value) <= {"on", "timeout"} or (on and "timeout" not in value):
            raise OptionError(f"option 'linger' is {value!r}; it takes {{'on': True or False, 'timeout': seconds}}")
        self.setLinger(on, value.get("timeout", 0.0))

    def apply(self, transport: Any) -> None:
        """
        Set on ``transport`` what was set here; what was not stays as the system has it.

        :raises NetError: the kernel refuses.
        """
        if self.keepAlive is not None:
            setKeepAlive(transport, self.keepAlive, self.keepAliveDelay)
        if self.noDelay is not None:
            setNoDelay(transport, self.noDelay)
        if self.reuseAddress is not None:
            setReuseAddress(transport, self.reuseAddress)
        if self._lingers is not None:
            setLinger0(transport, self.lingerTimeout == 0)


def _tcpSocket(transport: Any) -> socket.socket | None:
    skt = layers.socketOf(transport)
    return skt if skt is not None and skt.family in (socket.AF_INET, socket.AF_INET6) else None


def _set(skt: socket.socket, level: int, option: int, value: int | bytes) -> None:
    try:
        skt.setsockopt(level, option, value)
    except OSError as error:
        refusal = reasons.translate(error, syscall="setsockopt")
        assert refusal is not None, "an OSError is no clean end"
        raise refusal from error


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise OptionError(f"{name} is {value!r}; it counts seconds and must be finite and 0 or more")
    return float(value)


def _keepAliveDelay(value: object) -> int:
    delay = ceil(_seconds("keep-alive delay", value))
    if delay > LONGEST_KEEPALIVE_DELAY:
        raise OptionError(f"keep-alive delay is {value!r} seconds; Linux takes up to {LONGEST_KEEPALIVE_DELAY}")
    return delay
