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

__all__ = ["GuardedSocket", "ListeningSocket"]


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

    __slots__ = ()

    def accept(self) -> tuple[socket.socket, Any]:
        """As ``socket.accept``; non-blocking, and its descriptor is not inherited by programs that are started."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return GuardedSocket(self.family, self.type, self.proto, descriptor), address

    @classmethod
    def of(cls, skt: socket.socket) -> ListeningSocket:
        """Take the descriptor of ``skt``, which is closed for whoever still has it."""
        listening = cls(skt.family, skt.type, skt.proto, skt.detach())
        listening.setblocking(False)
        return listening
