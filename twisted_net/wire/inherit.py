"""
A descriptor that somebody else made: a socket to listen with, or a connection.

It may come from a service manager (``sd_listen_fds(3)``), a parent process, SCM_RIGHTS, or a test. What it must be is
checked here, before anybody else works with it, since the system's own words for a wrong one come late and say
little.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted_net.errors import NetError, forErrno

__all__ = ["connected", "listening"]


def listening(fd: int, backlog: int) -> socket.socket:
    """
    Return a socket with a descriptor of its own for the one behind ``fd``: it listens and does not block.

    ``fd`` stays open, and with the caller. A socket that listens already keeps its backlog.

    :raises NetError: ``EBADF`` for a closed one, ``ENOTSOCK``, ``ESOCKTNOSUPPORT`` when it is no stream socket,
        ``EAFNOSUPPORT`` when it is neither TCP nor UNIX, ``EISCONN`` when it is connected, ``EINVAL`` when it is bound
        to nothing.
    :raises OSError: listen(2) fails: another socket listens at that address.
    """
    skt = _socketOf("listen", fd)
    try:
        if not skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            _checkBound(fd, skt)
            skt.listen(backlog)
        skt.setblocking(False)
    except BaseException:
        skt.close()
        raise
    return skt


def connected(fd: int) -> socket.socket:
    """
    Return a socket with a descriptor of its own for the connection behind ``fd``: it does not block.

    ``fd`` stays open, and with the caller.

    :raises NetError: ``EBADF`` for a closed one, ``ENOTSOCK``, ``ESOCKTNOSUPPORT`` when it is no stream socket,
        ``EAFNOSUPPORT`` when it is neither TCP nor UNIX, ``ENOTCONN``.
    """
    skt = _socketOf("adopt", fd)
    try:
        skt.getpeername()
        skt.setblocking(False)
    except OSError as error:
        skt.close()
        number = error.errno or errno.ENOTCONN
        raise _refusal("adopt", fd, number, "it is not connected", "connect it before handing it over") from error
    return skt


def _socketOf(verb: str, fd: int) -> socket.socket:
    try:
        duplicate = os.dup(fd)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", errno.EBADF)
        what = f"it has no open file ({os.strerror(number)})"
        raise _refusal(verb, fd, number, what, "give one that is open") from error
    try:
        skt = socket.socket(fileno=duplicate)
    except OSError as error:
        os.close(duplicate)
        raise _refusal(verb, fd, errno.ENOTSOCK, "it is no socket", "give that of a socket") from error
    try:
        _checkKind(verb, fd, skt)
    except NetError:
        skt.close()
        raise
    return skt


def _checkKind(verb: str, fd: int, skt: socket.socket) -> None:
    if skt.type != socket.SOCK_STREAM:
        what = f"it is a socket of type {getattr(skt.type, 'name', skt.type)}"
        raise _refusal(verb, fd, errno.ESOCKTNOSUPPORT, what, "give one of type SOCK_STREAM")
    if skt.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        what = f"it is a socket of family {getattr(skt.family, 'name', skt.family)}"
        raise _refusal(verb, fd, errno.EAFNOSUPPORT, what, "give a TCP or a UNIX socket")


def _checkBound(fd: int, skt: socket.socket) -> None:
    try:
        skt.getpeername()
    except OSError:
        name = skt.getsockname()
        # For an unbound TCP socket listen(2) would choose a port, which nobody has been told of.
        if not (name if skt.family == socket.AF_UNIX else name[1]):
            raise _refusal("listen", fd, errno.EINVAL, "it is bound to no address", "bind it first") from None
    else:
        raise _refusal("listen", fd, errno.EISCONN, "it is connected", "give one that is bound and not connected")


def _refusal(verb: str, fd: int, number: int, what: str, remedy: str) -> NetError:
    done = {"listen": "listened on", "adopt": "adopted"}[verb]
    return forErrno(number, f"{verb}: descriptor {fd} cannot be {done}: {what}; {remedy}", syscall=verb)
