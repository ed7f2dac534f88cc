"""
Socket objects that may be handed out although libuv owns the descriptor.

libuv keeps the number of a descriptor, and asks the kernel by that number. A descriptor that is closed behind its back
makes it call abort(3): the whole process dies of one ``transport.getHandle().close()``, which on other reactors ends
one connection. So what an application can reach is a :class:`GuardedSocket`. As long as a transport lives on it,
closing it ends the connection through the transport, and detaching it gives away a duplicate.
"""

from __future__ import annotations

import os
import socket
from typing import Any

__all__ = ["GuardedSocket", "LentSocket", "ListeningSocket"]


class GuardedSocket(socket.socket):
    """A connected socket, or one that will be."""

    __slots__ = ("guard",)

    #: The transport that lives on this descriptor, or None.
    guard: Any

    def __init__(self, family: int, kind: int, protocol: int = 0, fileno: int | None = None) -> None:
        self.guard = None
        super().__init__(family, kind, protocol, fileno)

    def close(self) -> None:
        """Close the descriptor, what is unsent dropped; while a transport lives on it, in the next turn."""
        if self.guard is None:
            super().close()
        else:
            self.guard.forsaken()

    def detach(self) -> int:
        """
        Give the descriptor away: a duplicate of it while a transport lives on this one, whose connection is over then.
        """
        if self.guard is None:
            return super().detach()
        duplicate = os.dup(self.fileno())
        self.guard.forsaken()
        return duplicate


class ListeningSocket(socket.socket):
    """A socket whose ``accept`` gives guarded ones."""

    __slots__ = ("_family",)

    _family: int

    def accept(self) -> tuple[socket.socket, Any]:
        """As ``socket.accept``; the descriptor is not inherited by programs that are started."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return GuardedSocket(self._family, socket.SOCK_STREAM, 0, descriptor), address

    @classmethod
    def of(cls, skt: socket.socket) -> ListeningSocket:
        """Take the descriptor of ``skt``, which is closed for whoever still has it."""
        family = skt.family
        listening = cls(family, socket.SOCK_STREAM, 0, skt.detach())
        listening.setblocking(False)
        listening._family = family  # asked of the socket, it is made an enum anew each time
        return listening


class LentSocket:
    """
    What uvloop is given in the place of a socket: as much of one as it asks for.

    uvloop turns TCP_NODELAY on for every TCP socket that it gets, where Twisted leaves it as it is. To a UNIX socket it
    does nothing of the kind; beyond that, libuv treats the two alike (uv_stream_t). So all of them are UNIX ones here.
    """

    __slots__ = ("_socket",)

    family = socket.AF_UNIX
    type = socket.SOCK_STREAM

    def __init__(self, skt: GuardedSocket) -> None:
        self._socket = skt

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """uvloop has closed the descriptor, whose number may be given out again."""
        self._socket.guard = None
        self._socket.detach()
