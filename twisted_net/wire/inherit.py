"""
A descriptor that somebody else made, as a socket to listen with.

It may come from a service manager (``sd_listen_fds(3)``), a parent process, or a test. It may listen already or be only
bound. What it must be is checked here, before anybody else works with it, since the system's own words for a wrong one
come late and say little.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted_net.errors import NetError, forErrno

__all__ = ["listening"]


def listening(fd: int, backlog: int) -> socket.socket:
    """
    Return a socket with a descriptor of its own for the one behind ``fd``: it listens and does not block.

    ``fd`` stays open, and with the caller. A socket that listens already keeps its backlog.

    :raises NetError: ``EBADF`` for a closed one, ``ENOTSOCK``, ``ESOCKTNOSUPPORT`` when it is no stream socket,
        ``EAFNOSUPPORT`` when it is neither TCP nor UNIX, ``EISCONN`` when it is connected, ``EINVAL`` when it is bound
        to nothing.
    :raises OSError: listen(2) fails: another socket listens at that address.
    """
    skt = _socketOf(fd)
    try:
        _checkKind(fd, skt)
        if not skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            _checkBound(fd, skt)
            skt.listen(backlog)
        skt.setblocking(False)
    except BaseException:
        skt.close()
        raise
    return skt


def _socketOf(fd: int) -> socket.socket:
    try:
        duplicate = os.dup(fd)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", errno.EBADF)
        raise _refusal(fd, number, f"it has no open file ({os.strerror(number)})", "give one that is open") from error
    try:
        return socket.socket(fileno=duplicate)
    except OSError as error:
        os.close(duplicate)
        raise _refusal(fd, errno.ENOTSOCK, "it is no socket", "give that of a socket") from error


def _checkKind(fd: int, skt: socket.socket) -> None:
    if skt.type != socket.SOCK_STREAM:
        what = f"it is a socket of type {getattr(skt.type, 'name', skt.type)}"
        raise _refusal(fd, errno.ESOCKTNOSUPPORT, what, "give one of type SOCK_STREAM")
    if skt.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        what = f"it is a socket of family {getattr(skt.family, 'name', skt.family)}"
        raise _refusal(fd, errno.EAFNOSUPPORT, what, "give a TCP or a UNIX socket")


def _checkBound(fd: int, skt: socket.socket) -> None:
    try:
        skt.getpeername()
    except OSError:
        name = skt.getsockname()
        # For an unbound TCP socket listen(2) would choose a port, which nobody has been told of.
        if not (name if skt.family == socket.AF_UNIX else name[1]):
            raise _refusal(fd, errno.EINVAL, "it is bound to no address", "bind it first") from None
    else:
        raise _refusal(fd, errno.EISCONN, "it is connected", "give one that is bound and not connected")


def _refusal(fd: int, number: int, what: str, remedy: str) -> NetError:
    return forErrno(number, f"listen: descriptor {fd} cannot be listened on: {what}; {remedy}", syscall="listen")
