"""A descriptor of a connected socket that exists already becomes a connection of ours.

The descriptor may come from a parent process, from SCM_RIGHTS, or from code that connects by itself.  It is taken over:
Twisted works on a duplicate, and the one handed in is closed, so that closing the connection really closes it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from twisted_net.errors import AddressError, forErrno


def adoptConnection(reactor: Any, factory: IProtocolFactory, fd: int) -> None:
    """Make a connection of *fd*: *factory* builds its protocol before this returns.

    After an error *fd* is open as before, and still the caller's.

    :param reactor: provides ``IReactorSocket``.
    :raises AddressError: *fd* is no connected stream socket.
    :raises NetError: *fd* is not open (``EBADF``), is no socket (``ENOTSOCK``), or the socket is not connected
        (``ENOTCONN``).
    """
    try:
        duplicate = _socketOf(fd)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", errno.EBADF)
        raise forErrno(
            number, f"descriptor {fd} cannot be adopted: {os.strerror(number)}; give a connected socket"
        ) from error
    with duplicate:
        if duplicate.type != socket.SOCK_STREAM or duplicate.family not in (
            socket.AF_INET,
            socket.AF_INET6,
            socket.AF_UNIX,
        ):
            raise AddressError(
                f"descriptor {fd} is a socket of another kind ({duplicate.family!r}, {duplicate.type!r}); "
                "give a TCP or UNIX stream socket"
            )
        try:
            duplicate.getpeername()
        except OSError as error:
            raise forErrno(
                error.errno or 0, f"descriptor {fd} is not connected; connect it before handing it over"
            ) from error
        duplicate.setblocking(False)
        reactor.adoptStreamConnection(duplicate.fileno(), duplicate.family, factory)
    os.close(fd)


def _socketOf(fd: int) -> socket.socket:
    number = os.dup(fd)
    try:
        return socket.socket(fileno=number)
    except OSError:
        os.close(number)
        raise
