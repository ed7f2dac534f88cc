"""
What all sockets share: a number in their host's table of descriptors, options, and readiness.

*Readiness* is what epoll(7) would report, level-triggered: a socket that a reactor watches is put on its host's list of
ready ones when something changes (`Socket.wake`), and again by the reactor when it is still ready after it was served.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zope.interface import implementer

from twisted_net.interfaces import ISimulatedSocket

if TYPE_CHECKING:
    from twisted_net.testing.host import Host

#: An address as the socket module has it: a tuple for TCP and UDP, a path for UNIX.
Place: TypeAlias = Any

POLLIN: Final = select.POLLIN
POLLOUT: Final = select.POLLOUT
POLLERR: Final = select.POLLERR
POLLHUP: Final = select.POLLHUP

_FAMILIES: Final[dict[int, socket.AddressFamily]] = {
    family: family for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
}

#: Hear what is for a group that anybody on the host has joined (ip(7), ipv6(7)); Python has no names for these.
MULTICAST_ALL: Final = {socket.AF_INET: (socket.IPPROTO_IP, 49), socket.AF_INET6: (socket.IPPROTO_IPV6, 29)}

# What getsockopt(2) says of options that nobody has set; 0 where none is named.
_DEFAULTS: Final[dict[tuple[int, int], Any]] = {
    (socket.SOL_SOCKET, socket.SO_LINGER): bytes(8),
    (socket.SOL_SOCKET, socket.SO_PEERCRED): struct.pack("3i", 0, -1, -1),
    (socket.IPPROTO_IP, socket.IP_TTL): 64,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 7200,  # tcp(7)
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 75,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 9,
    (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL): 1,  # ip(7)
    (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP): 1,
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS): 1,  # ipv6(7)
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP): 1,
    **dict.fromkeys(MULTICAST_ALL.values(), 1),
}

# The least that SO_RCVBUF and SO_SNDBUF can be (Linux).
_LEAST: Final = {
    (socket.SOL_SOCKET, socket.SO_RCVBUF): 2304,
    (socket.SOL_SOCKET, socket.SO_SNDBUF): 4608,
}

_READ_ONLY: Final = {
    (socket.SOL_SOCKET, option)
    for option in (socket.SO_ERROR, socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_ACCEPTCONN, socket.SO_PEERCRED)
}


def failure(number: int) -> OSError:
    """What a system call raises with errno *number* (``BlockingIOError``, ``ConnectionResetError`` ...)."""
    return OSError(number, os.strerror(number))


@implementer(ISimulatedSocket)
class Socket:
    """
    A socket of a host in memory, never blocking. It has the methods of :class:`socket.socket` that reactors use, with
    the same exceptions.

    :param host: whose socket it is.
    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :param opened: False for one that gets its descriptor later.
    :raises OSError: ``EMFILE`` when the host's table of descriptors is full.
    """

    kind: socket.SocketKind
    #: SO_RCVBUF and SO_SNDBUF until they are set.
    bufferSize: int
    #: Whether it listens for connections.
    isListening = False

    def __init__(self, host: Host, family: int, *, opened: bool = True) -> None:
        self.host = host
        self.family = _FAMILIES[family]
        #: Where it is bound; None until it is.
        self.place: Place = None
        #: What it is called in traces; known when it is bound.
        self.label = host.name
        #: Who is told of readiness: the reactor's reader and writer of this socket.
        self.reader: Any = None
        self.writer: Any = None
        #: Whether it stands on its host's list of ready sockets.
        self.listed = False
        self.closed = False
        #: A pending error, as SO_ERROR has it.
        self.error = 0
        self._options: dict[tuple[int, int], Any] = {}
        self._number = host.openDescriptor(self) if opened else -1

    @property
    def type(self) -> socket.SocketKind:
        """``SOCK_STREAM`` or ``SOCK_DGRAM``."""
        return self.kind

    @property
    def proto(self) -> int:
        """Always 0: there is one protocol for each kind and family."""
        return 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._number} {self.label}{', closed' if self.closed else ''}>"

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The number in the host's table of descriptors (no descriptor of this process has it); -1 after close."""
        return -1 if self.closed else self._number

    def setblocking(self, flag: bool) -> None:
        """Sockets in memory never block.

        :raises NotImplementedError: asked to block: nothing else could run meanwhile, so it would be for ever.
        """
        if flag:
            raise NotImplementedError("a socket in memory cannot block: leave it non-blocking and use a reactor")

    def gettimeout(self) -> float | None:
        """0.0, as non-blocking sockets have it."""
        return 0.0

    # -- options

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """
        Keep the option; those that mean something here are read when they matter.

        :raises OSError: ``ENOPROTOOPT`` for what can only be read.
        """
        self._alive()
        if (level, option) in _READ_ONLY:
            raise failure(errno.ENOPROTOOPT)
        least = _LEAST.get((level, option))
        # The kernel takes twice the size that it is asked for: its own book-keeping comes out of it (socket(7)).
        self._options[level, option] = value if least is None else max(2 * value, least)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """What was set, or the system's default; with *size*, as bytes."""
        self._alive()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            value: Any = self.takeError()
        elif (level, option) == (socket.SOL_SOCKET, socket.SO_TYPE):
            value = int(self.kind)
        elif (level, option) == (socket.SOL_SOCKET, socket.SO_DOMAIN):
            value = int(self.family)
        elif (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            value = int(self.isListening)
        else:
            value = self.option(level, option)
        packed = value if isinstance(value, bytes) else struct.pack("i", value)
        return packed[:size] if size else int.from_bytes(packed[:4], sys.byteorder, signed=True)

    def option(self, level: int, option: int) -> Any:
        """An option's value for this kernel's own use."""
        default = self.bufferSize if (level, option) in _LEAST else _DEFAULTS.get((level, option), 0)
        return self._options.get((level, option), default)

    # -- addresses

    def bind(self, place: Place) -> None:
        """Take the address, as bind(2).

        :raises OSError: ``EADDRINUSE``, ``EADDRNOTAVAIL``, or what the host was told to fail with.
        """
        self._alive()
        self.host.maybeFail("bind")
        self.place = self.host.ports.bind(self, place)
        self.label = self.host.labelOf(self.place)

    def getsockname(self) -> Place:
        """Where it is bound: as the socket module has it, with ``""``, port 0 or an empty path when it is not."""
        self._alive()
        return self.place if self.place is not None else self.unbound()

    def unbound(self) -> Place:
        """What getsockname(2) says of a socket that was never bound."""
        if self.family == socket.AF_UNIX:
            return ""
        return ("0.0.0.0", 0) if self.family == socket.AF_INET else ("::", 0, 0, 0)

    # -- errors and readiness

    def takeError(self) -> int:
        """The pending error, which is none afterwards."""
        number, self.error = self.error, 0
        return number

    def raiseError(self) -> None:
        """Raise the pending error, if there is one."""
        if self.error:
            raise failure(self.takeError())

    def poll(self) -> int:
        """What poll(2) would report: a mask of POLLIN, POLLOUT, POLLERR and POLLHUP."""
        raise NotImplementedError

    def wake(self) -> None:
        """Something has changed: if somebody watches this socket and it is ready, put it on the host's list."""
        if not self.listed and self.isDue():
            self.listed = True
            self.host.ready.append(self)

    def isDue(self) -> bool:
        """Whether whoever watches it has something to do: read, write, or hear of its end."""
        wanted = 0 if self.reader is None else POLLIN
        if self.writer is not None:
            wanted |= POLLOUT
        return bool(wanted) and bool(self.poll() & (wanted | POLLERR | POLLHUP))

    # -- what a program that has this process' descriptors would ask the system

    def descriptorsLeft(self) -> int:
        """How many more descriptors its host can open."""
        return self.host.descriptorsLeft()

    # -- its end

    def close(self) -> None:
        """Give the descriptor back, and end what hangs on it. Closing twice is harmless."""
        if not self.closed:
            self.closed = True
            self.reader = self.writer = None
            self.host.closeDescriptor(self._number)
            self.release()

    def release(self) -> None:
        """What closing means for this kind of socket; called once."""
        raise NotImplementedError

    def vanish(self) -> None:
        """Its host has died: it is gone, and nobody is told."""
        self.closed = True
        self.reader = self.writer = None

    def _alive(self) -> None:
        if self.closed:
            raise failure(errno.EBADF)
