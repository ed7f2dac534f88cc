"""
What can go wrong, in one family.

Every error of this package is a :class:`NetError`, and every :class:`NetError` is an :class:`OSError`: code that was
written against the standard library (``except OSError``, ``except ConnectionResetError``, ``except TimeoutError``)
goes on working. An error answers four questions, each in one place:

- *what happened, and what now?* ``str(error)``: the value, the rule and the remedy, then the code in brackets;
- *what may a program decide by?* ``error.code``: an errno name (``"EADDRINUSE"``) or a name of this package or of
  Node (``"ERR_TLS"``, ``"ENOTFOUND"``). Codes are part of the interface and stay; texts may improve;
- *whose turn is it?* ``error.fault``: ``"user"`` (fix the call), ``"peer"`` (the other end did it), ``"network"``
  (what lies between), ``"system"`` (this machine) or ``"limit"`` (a bound that was set here was passed);
- *how far did it come?* ``error.partial`` (bytes read before it) and ``error.sent`` (how many were written before it).

The classes exist for ``except``; none of them carries behaviour. Where the standard library has a class for the same
case, ours is one of it too: :class:`RefusedError` is a :class:`ConnectionRefusedError`.
"""

from __future__ import annotations

import errno
from typing import Any, Final, Literal

__all__ = [
    "AbortedError",
    "AddressError",
    "BusyError",
    "ClosedError",
    "EndError",
    "Fault",
    "LimitError",
    "NetError",
    "OptionError",
    "RefusedError",
    "ResetError",
    "TimedOutError",
    "WriteError",
    "forErrno",
]

Fault = Literal["user", "peer", "network", "system", "limit"]
"""Whose turn it is to do something about an error."""


class NetError(OSError):
    """
    Something went wrong on a connection, a port or a datagram socket.

    :param message: what happened, naming the value, the rule and the remedy; without the code.
    :param code: an errno name or a name of this package. Each subclass has its own, used when none is given.
    :param fault: whose turn it is; each subclass has its own here too.
    :param address: the address it happened to or with, where there is one: a text, an address object, or ``None``.
    :param partial: the bytes that had been read before it happened and belong to the operation that failed.
    :param sent: how many bytes of the operation had been handed to the operating system.
    :param syscall: the operation that failed, in Node's words: ``"connect"``, ``"listen"``, ``"read"``, ``"write"``.
    """

    code: str = "ERR_UNKNOWN"
    fault: Fault = "system"
    address: object
    partial: bytes
    sent: int
    syscall: str | None

    # OSError declares these for its two-argument form only; here both are always set.
    errno: int | None
    strerror: str

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fault: Fault | None = None,
        address: object = None,
        partial: bytes = b"",
        sent: int = 0,
        syscall: str | None = None,
    ) -> None:
        self.code = type(self).code if code is None else code
        self.fault = type(self).fault if fault is None else fault
        self.address = address
        self.partial = partial
        self.sent = sent
        self.syscall = syscall
        super().__init__(_numbers.get(self.code), message)

    def __str__(self) -> str:
        return f"{self.strerror} [{self.code}]"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strerror!r}, code={self.code!r}, fault={self.fault!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError would hand (errno, strerror) back to our constructor, which takes one argument.
        return type(self), (self.strerror,), {**self.__dict__, "errno": self.errno, "args": self.args}


class AddressError(NetError, ValueError):
    """A text or a value that is no address, port, path or endpoint description."""

    code = "EINVAL"
    fault = "user"


class OptionError(NetError, ValueError):
    """An option with an unknown name, a wrong type or a value out of range."""

    code = "EINVAL"
    fault = "user"


class ClosedError(NetError):
    """Used after it was closed, or before it was open."""

    code = "ERR_STREAM_DESTROYED"
    fault = "user"


class EndError(NetError, EOFError):
    """The peer ended before a read was complete; what had arrived is in its ``partial``."""

    code = "ERR_STREAM_PREMATURE_CLOSE"
    fault = "peer"


class TimedOutError(NetError, TimeoutError):
    """A time that was allowed has passed."""

    code = "ETIMEDOUT"
    fault = "network"


class LimitError(NetError):
    """A documented bound was passed: of a buffer, a line, a queue, a table or a rate."""

    code = "ERR_LIMIT"
    fault = "limit"


class BusyError(NetError):
    """Two operations at once where one is allowed."""

    code = "EBUSY"
    fault = "user"


class RefusedError(NetError, ConnectionRefusedError):
    """Nobody accepts connections at the address."""

    code = "ECONNREFUSED"
    fault = "peer"


class ResetError(NetError, ConnectionResetError):
    """The peer, or something between, cut the connection without ending it in order."""

    code = "ECONNRESET"
    fault = "peer"


class AbortedError(NetError, ConnectionAbortedError):
    """The connection was cut from this side, with or without intent."""

    code = "ECONNABORTED"
    fault = "user"


class WriteError(NetError, BrokenPipeError):
    """Written to a connection whose writing half is gone."""

    code = "EPIPE"
    fault = "peer"


_numbers: Final[dict[str, int]] = {
    name: number for name, number in vars(errno).items() if name.startswith("E") and isinstance(number, int)
}

_classes: Final[dict[int, type[NetError]]] = {
    errno.ECONNREFUSED: RefusedError,
    errno.ECONNRESET: ResetError,
    errno.ECONNABORTED: AbortedError,
    errno.EPIPE: WriteError,
    errno.ESHUTDOWN: WriteError,
    errno.ETIMEDOUT: TimedOutError,
}

_faults: Final[dict[int, Fault]] = {
    # An address, a path or a right that somebody has to put right.
    errno.EACCES: "user",
    errno.EADDRINUSE: "user",
    errno.EADDRNOTAVAIL: "user",
    errno.EAFNOSUPPORT: "user",
    errno.EBADF: "user",
    errno.ECANCELED: "user",
    errno.EINVAL: "user",
    errno.EISCONN: "user",
    errno.EMSGSIZE: "user",
    errno.ENOENT: "user",
    errno.ENOTCONN: "user",
    errno.ENOTSOCK: "user",
    errno.EPERM: "user",
    errno.ESOCKTNOSUPPORT: "user",
    # What lies between the two ends.
    errno.EHOSTDOWN: "network",
    errno.EHOSTUNREACH: "network",
    errno.ENETDOWN: "network",
    errno.ENETRESET: "network",
    errno.ENETUNREACH: "network",
    # Bounds of the process or of the machine (getrlimit(2), socket(7)).
    errno.EMFILE: "limit",
    errno.ENFILE: "limit",
    errno.ENOBUFS: "limit",
    errno.ENOMEM: "limit",
}


def forErrno(
    number: int,
    message: str,
    *,
    fault: Fault | None = None,
    address: object = None,
    partial: bytes = b"",
    sent: int = 0,
    syscall: str | None = None,
) -> NetError:
    """
    Return the error for an errno number: the class that ``except`` looks for, with the number's name as its code.

    :param number: as in :mod:`errno`. One that has no name there becomes code ``"ERR_UNKNOWN"`` with the number
        behind it (``"ERR_UNKNOWN4711"``); ``error.errno`` is the number all the same.
    :param message: see :class:`NetError`; the remaining arguments likewise. Without ``fault`` the number decides.
    """
    kind = _classes.get(number, NetError)
    error = kind(
        message,
        code=errno.errorcode.get(number, f"ERR_UNKNOWN{number}"),
        fault=_faults.get(number) if fault is None else fault,
        address=address,
        partial=partial,
        sent=sent,
        syscall=syscall,
    )
    error.errno = number
    return error
