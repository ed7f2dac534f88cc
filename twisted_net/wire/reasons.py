"""
Twisted's failures as errors of this package: what happened, where, and what now.

Twisted says why something ended in six dialects: exceptions without a number (``ConnectionLost``), with a number in
``osError`` or in ``socketError``, plain :class:`OSError`, OpenSSL's queues of tuples, the resolver's own classes, and
cancellation. :func:`translate` reads all of them and answers in one.

It goes in two steps, each a table. *What is it?* ``_RULES`` finds, along the class's ancestors, a verdict: above all a
code. *What does that mean?* ``_SENTENCES`` has for each code what to say and what to do about it. So one code reads the
same wherever it came from, and a new class of Twisted's needs one line.

The codes are errno names, and these:

========================== ==========================================================================================
``EAI_AGAIN``              the name server gave no answer for now (as in Node)
``ENOTFOUND``              the name has no address (as in Node)
``ERR_CONNECT``            connecting failed, and Twisted has no number for it
``ERR_DESCRIPTORS``        more descriptors than bytes were passed over a UNIX socket
``ERR_INTERNAL``           an exception that is no failure of the network; it is the error's ``__cause__``
``ERR_PROCESS``            a child process ended badly
``ERR_SERVER_NOT_RUNNING`` a port was stopped that does not listen (as in Node)
``ERR_TLS``                TLS failed; the text has the library's reason
``ERR_TLS_CERT``           a certificate was missing, or one side did not accept the other's
========================== ==========================================================================================

A clean end is no error: ``None``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet import defer, error
from twisted.internet.interfaces import IAddress
from twisted.names.error import AuthoritativeDomainError, DNSQueryTimeoutError, DomainError, ResolverError
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from twisted_net.address import Address
from twisted_net.errors import AddressError, BusyError, Fault, NetError, forErrno

__all__ = ["translate"]


def translate(
    reason: Failure | BaseException,
    *,
    address: object = None,
    syscall: str | None = None,
    number: int | None = None,
) -> NetError | None:
    """
    Return the error for ``reason``, or ``None`` when it is a clean end.

    An error of this package comes back as it is. Any other becomes the ``__cause__`` of the one that is returned.

    :param address: with or at which it happened: a text, a target, or an address, Twisted's or ours. Without it, the
        address that the reason itself has, if any.
    :param syscall: what was being done (``"connect"``, ``"listen"``, ``"read"``, ``"write"``); without it, what the
        reason's class says of that.
    :param number: the errno of what failed, where the transport could tell: ``ConnectionLost`` has none, and is else
        taken for ``ECONNRESET``.
    """
    original = reason.value if isinstance(reason, Failure) else reason
    assert original is not None, "a Failure holds an exception"
    if isinstance(original, NetError):
        return original
    verdict = _ruleFor(type(original))(original)
    if verdict is None:
        return None
    code = verdict.code
    if number is not None and type(original) is error.ConnectionLost:
        code = number
        if number == errno.EPIPE:
            syscall = "write"  # no other call gives it (errno(3))
    where = verdict.address if address is None else address
    if IAddress.providedBy(where):
        where = Address.fromTwisted(where)
    translated = _build(code, verdict, where, verdict.syscall if syscall is None else syscall)
    translated.__cause__ = original
    return translated


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a reason is. ``code`` is an errno number or a name; what is left out follows from it."""

    code: int | str
    kind: type[NetError] = NetError
    syscall: str | None = None
    address: object = None
    detail: str = ""


def _build(code: int | str, verdict: _Verdict, address: object, syscall: str | None) -> NetError:
    name = errno.errorcode.get(code, "") if isinstance(code, int) else code
    what, remedy = _SENTENCES.get(name, ("", ""))
    if not what:
        what, remedy = os.strerror(code) if isinstance(code, int) else name, "see errno(3)"
    subject = " ".join(str(part) for part in (syscall, address) if part not in (None, ""))
    message = f"{subject}: {what}" if subject else what
    if verdict.detail:
        message += f" ({verdict.detail.rstrip('.')})"
    message += f"; {remedy}"
    if isinstance(code, int):
        return forErrno(code, message, address=address, syscall=syscall)
    return verdict.kind(message, code=code, fault=_FAULTS.get(code), address=address, syscall=syscall)


# Whose turn it is, for codes that are no numbers; the numbers are known to forErrno.
_FAULTS: Final[dict[str, Fault]] = {
    "EAI_AGAIN": "network",
    "ENOTFOUND": "user",
    "ERR_DESCRIPTORS": "user",
    "ERR_PROCESS": "peer",
    "ERR_SERVER_NOT_RUNNING": "user",
    "ERR_TLS": "peer",
    "ERR_TLS_CERT": "peer",
}


_SENTENCES: Final[dict[str, tuple[str, str]]] = {
    "EACCES": (
        "permission denied",
        "ports below 1024 need the right to bind them, a UNIX socket needs write permission on its file and folder",
    ),
    "EADDRINUSE": ("the address is in use", "stop the program that has it, or choose another one"),
    "EADDRNOTAVAIL": ("the address is none of this machine", "use one that an interface of this machine has"),
    "EAFNOSUPPORT": ("this kind of address is not supported here", "use a target of another kind"),
    "EAI_AGAIN": ("the name server gave no answer", "try again later, or use an IP address"),
    "EALREADY": ("it is under way or done already", "do it once"),
    "EBADF": ("the descriptor was closed by somebody else", "let only the connection close its descriptor"),
    "ECANCELED": ("it was cancelled from this side", "nothing is left to be done; start it again when it is wanted"),
    "ECONNABORTED": ("the connection was cut from this side", "what was unsent is lost; to have it sent, end or close"),
    "ECONNREFUSED": ("nobody accepts connections there", "start the server, or correct the address"),
    "ECONNRESET": (
        "the connection was lost without an end",
        "the peer reset it or the network failed; connect again, and expect the last bytes to be missing",
    ),
    "EHOSTUNREACH": ("there is no route to the host", "look at the network, or use another address"),
    "EINVAL": ("an argument is not valid here", "correct the address or the option"),
    "EMFILE": ("this process has no descriptors left", "raise its limit (ulimit -n), or admit fewer connections"),
    "EMSGSIZE": ("the message is too long for a datagram", "send at most 65,507 bytes (UDP over IPv4) at a time"),
    "ENETUNREACH": ("there is no route to the network", "look at the network, or use another address"),
    "ENFILE": ("the machine has no descriptors left", "raise its limit (fs.file-max), or admit fewer connections"),
    "ENOENT": ("there is no such file", "start the server that makes it, or correct the path"),
    "ENOTCONN": ("there is no connection and none is being made", "connect first"),
    "ENOTFOUND": ("the name has no address", "correct the name, or use an IP address"),
    "EPIPE": ("nothing can be written any more", "this half is closed, or the peer is gone; connect again to send"),
    "ERR_CONNECT": ("connecting failed", "correct the address, or try again later"),
    "ERR_DESCRIPTORS": ("more descriptors than bytes were sent", "write at least one byte with each descriptor"),
    "ERR_INTERNAL": ("an exception ended it", "its traceback is on the error's __cause__"),
    "ERR_PROCESS": ("the process ended badly", "its own output says why"),
    "ERR_SERVER_NOT_RUNNING": ("it does not listen", "stop a port once, and only after it has begun to listen"),
    "ERR_TLS": ("TLS failed", "use a protocol version and settings that both ends have, and TLS at both ends"),
    "ERR_TLS_CERT": (
        "a certificate was not accepted",
        "use one that is valid now, bears the name that is connected to, and is signed by an authority that is trusted",
    ),
    "ESOCKTNOSUPPORT": ("this kind of socket is not supported by the reactor", "use a socket of another kind"),
    "ETIMEDOUT": ("the time is up and nothing came", "look at the peer and the network, or allow more time"),
}


# What is it? One function for each way in which a reason tells its code.

_Rule = Callable[[Any], _Verdict | None]


def _ruleFor(kind: type[BaseException]) -> _Rule:
    # BaseException has a rule, and everything that can be raised descends from it.
    return next(rule for rule in map(_ownRule, kind.__mro__) if rule is not None)


def _ownRule(kind: type) -> _Rule | None:
    return _RULES.get(kind) or _RULES_BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")


def _always(
    code: int | str,
    *,
    kind: type[NetError] = NetError,
    syscall: str | None = None,
    detail: bool = False,
) -> _Rule:
    def rule(reason: BaseException) -> _Verdict:
        said = safe_str(reason) if detail else ""
        return _Verdict(code, kind, syscall, getattr(reason, "address", None), said)

    return rule


def _cleanEnd(reason: BaseException) -> None:
    return None


def _connecting(fallback: int | str) -> _Rule:
    """ConnectError and its kin: a number in ``osError``, or none."""

    def rule(reason: error.ConnectError) -> _Verdict:
        number = reason.osError
        if isinstance(number, int):
            return _Verdict(number, syscall="connect")
        return _Verdict(fallback, syscall="connect", detail=str(reason.args[0]) if reason.args else "")

    return rule


def _listening(reason: error.CannotListenError) -> _Verdict:
    if isinstance(reason.port, bytes | str):
        where = Address(os.fsdecode(reason.port), None, "unix")
    else:
        interface = reason.interface or ""
        where = Address(interface, reason.port, "IPv6" if ":" in interface else "IPv4")
    cause = reason.socketError
    if isinstance(cause, OSError):
        verdict = _resolving(cause) if isinstance(cause, socket.gaierror) else _system(cause)
        return _Verdict(verdict.code, syscall="listen", address=where, detail=verdict.detail)
    # A UNIX port whose lock another process holds has a text here.
    return _Verdict(errno.EADDRINUSE, syscall="listen", address=where, detail=str(cause))


def _badPortName(reason: error.ServiceNameUnknownError) -> _Verdict:
    return _Verdict("EINVAL", AddressError, syscall="connect", detail=f"no port has this name: {reason.args[0]}")


def _invalidAddress(reason: error.InvalidAddressError) -> _Verdict:
    return _Verdict("EINVAL", AddressError, address=reason.address, detail=reason.message)


def _noProtocol(reason: error.NoProtocol) -> _Verdict:
    return _Verdict(errno.ECONNABORTED, syscall="connect", detail="the factory's buildProtocol returned None")


def _joining(reason: error.MulticastJoinError) -> _Verdict:
    numbers = [arg for arg in reason.args if isinstance(arg, int)]
    return _Verdict(numbers[0] if numbers else errno.EADDRNOTAVAIL, detail="joining a multicast group")


def _system(reason: OSError) -> _Verdict:
    if reason.errno is not None:
        return _Verdict(reason.errno)
    number = next((number for kind, number in _NUMBERS.items() if isinstance(reason, kind)), None)
    return _internal(reason) if number is None else _Verdict(number)


def _resolving(reason: socket.gaierror) -> _Verdict:
    if reason.errno == socket.EAI_AGAIN:
        return _Verdict("EAI_AGAIN", syscall="getaddrinfo")
    return _Verdict("ENOTFOUND", syscall="getaddrinfo")


def _tls(reason: BaseException) -> _Verdict:
    """OpenSSL's error: its last argument is a queue of (library, function, reason)."""
    queue = reason.args[0] if reason.args else ()
    texts = [str(entry[-1]) for entry in queue] if isinstance(queue, list | tuple) else [str(reason)]
    detail = ", ".join(filter(None, texts))
    return _Verdict("ERR_TLS_CERT" if _concernsCertificate(detail) else "ERR_TLS", detail=detail)


def _tlsSystem(reason: BaseException) -> _Verdict:
    """OpenSSL's SysCallError: (number, text); -1 is an end without close_notify."""
    number = reason.args[0] if reason.args else -1
    return _Verdict(number if isinstance(number, int) and number > 0 else errno.ECONNRESET)


def _tlsStandard(reason: OSError) -> _Verdict:
    """The ssl module's error: its number counts in a way of its own."""
    detail = str(reason.args[-1]) if reason.args else ""
    return _Verdict("ERR_TLS_CERT" if _concernsCertificate(detail) else "ERR_TLS", detail=detail)


def _concernsCertificate(text: str) -> bool:
    # "certificate verify failed" here; the other end sends an alert, "bad certificate", "unknown ca" (RFC 8446, 6.2).
    folded = text.casefold()
    return "certificate" in folded or "unknown ca" in folded


def _internal(reason: BaseException) -> _Verdict:
    text = safe_str(reason)
    name = type(reason).__name__
    return _Verdict("ERR_INTERNAL", detail=f"{name}: {text}" if text else name)


_cancelled = _always(errno.ECANCELED)
_nameless = _always("ENOTFOUND", syscall="getaddrinfo")
_timedOut = _always(errno.ETIMEDOUT)
_certificate = _always("ERR_TLS_CERT", detail=True)

_NUMBERS: Final[dict[type[OSError], int]] = {
    BrokenPipeError: errno.EPIPE,
    ConnectionAbortedError: errno.ECONNABORTED,
    ConnectionRefusedError: errno.ECONNREFUSED,
    ConnectionResetError: errno.ECONNRESET,
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}

_RULES: Final[dict[type, _Rule]] = {
    BaseException: _internal,
    # An end
    error.ConnectionDone: _cleanEnd,
    error.ConnectionClosed: _always(errno.ECONNRESET),
    error.ConnectionLost: _always(errno.ECONNRESET),
    error.ConnectionAborted: _always(errno.ECONNABORTED),
    error.ConnectionFdescWentAway: _always(errno.EBADF),
    error.FileDescriptorOverrun: _always("ERR_DESCRIPTORS"),
    error.ProcessTerminated: _always("ERR_PROCESS", detail=True),
    # Connecting
    error.ConnectError: _connecting("ERR_CONNECT"),
    error.ConnectBindError: _connecting(errno.EADDRNOTAVAIL),
    error.NoRouteError: _connecting(errno.EHOSTUNREACH),
    error.ConnectionRefusedError: _connecting(errno.ECONNREFUSED),
    error.TCPTimedOutError: _connecting(errno.ETIMEDOUT),
    error.TimeoutError: _always(errno.ETIMEDOUT, syscall="connect"),
    error.UserError: _always(errno.ECANCELED, syscall="connect"),
    # With checkPID: the server that made the file has gone.
    error.BadFileError: _always(errno.ECONNREFUSED, syscall="connect"),
    error.ServiceNameUnknownError: _badPortName,
    error.ConnectInProgressError: _always("EALREADY", kind=BusyError, syscall="connect"),
    error.NotConnectingError: _always(errno.ENOTCONN, syscall="connect"),
    error.ConnectingCancelledError: _always(errno.ECANCELED, syscall="connect"),
    error.NoProtocol: _noProtocol,
    # Names
    error.DNSLookupError: _nameless,
    error.UnknownHostError: _nameless,
    socket.gaierror: _resolving,
    DomainError: _nameless,
    AuthoritativeDomainError: _nameless,
    ResolverError: _nameless,
    DNSQueryTimeoutError: _always("EAI_AGAIN", syscall="getaddrinfo"),
    # Listening
    error.BindError: _always(errno.EADDRNOTAVAIL, syscall="listen", detail=True),
    error.CannotListenError: _listening,
    error.AlreadyListened: _always("EALREADY", kind=BusyError, syscall="listen"),
    error.NotListeningError: _always("ERR_SERVER_NOT_RUNNING", syscall="listen"),
    error.UnsupportedAddressFamily: _always(errno.EAFNOSUPPORT),
    error.UnsupportedSocketType: _always(errno.ESOCKTNOSUPPORT),
    # Datagrams
    error.MessageLengthError: _always(errno.EMSGSIZE, syscall="send"),
    error.MulticastJoinError: _joining,
    error.InvalidAddressError: _invalidAddress,
    # TLS
    error.SSLError: _connecting("ERR_TLS"),
    error.VerifyError: _certificate,
    error.CertificateError: _certificate,
    # The rest of the world
    OSError: _system,
    defer.TimeoutError: _timedOut,
    defer.CancelledError: _cancelled,
    asyncio.CancelledError: _cancelled,
    concurrent.futures.CancelledError: _cancelled,
}

# Not everybody has these modules, and whoever meets one of these exceptions has loaded it already.
_RULES_BY_NAME: Final[dict[str, _Rule]] = {
    "OpenSSL.SSL.Error": _tls,
    "OpenSSL.SSL.SysCallError": _tlsSystem,
    "OpenSSL.SSL.ZeroReturnError": _cleanEnd,
    "OpenSSL.crypto.Error": _tls,
    "service_identity.exceptions.CertificateError": _certificate,
    "service_identity.exceptions.VerificationError": _certificate,
    "ssl.SSLEOFError": _always(errno.ECONNRESET),
    "ssl.SSLError": _tlsStandard,
    "ssl.SSLZeroReturnError": _cleanEnd,
}
