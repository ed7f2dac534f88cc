"""Reasons: what every class of Twisted's errors, of the system's and of TLS's becomes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import socket
import ssl
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from hypothesis import given
from hypothesis import strategies as st
from pairs import pair
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address
from twisted.names import error as names
from twisted.python.failure import Failure

from twisted_net import errors
from twisted_net.address import Address, TcpTarget
from twisted_net.errors import NetError
from twisted_net.wire.reasons import translate

BUSY = OSError(errno.EADDRINUSE, "Address already in use")

# One line for each class of twisted.internet.error: the exception, then class, code and fault of what it becomes.
TWISTED: list[tuple[BaseException, type[NetError], str, str]] = [
    (error.BindError("lo"), NetError, "EADDRNOTAVAIL", "user"),
    (error.CannotListenError("", 80, BUSY), NetError, "EADDRINUSE", "user"),
    (error.MulticastJoinError("a", "b", errno.ENODEV, "No such device"), NetError, "ENODEV", "system"),
    (error.MessageLengthError("message too long"), NetError, "EMSGSIZE", "user"),
    (error.DNSLookupError("no results"), NetError, "ENOTFOUND", "user"),
    (error.ConnectInProgressError(), errors.BusyError, "EALREADY", "user"),
    (error.ConnectError(errno.EHOSTUNREACH, "No route to host"), NetError, "EHOSTUNREACH", "network"),
    (error.ConnectBindError(errno.EADDRINUSE, "in use"), NetError, "EADDRINUSE", "user"),
    (error.UnknownHostError(), NetError, "ENOTFOUND", "user"),
    (error.NoRouteError(errno.ENETUNREACH, "unreachable"), NetError, "ENETUNREACH", "network"),
    (error.ConnectionRefusedError(errno.ECONNREFUSED, "refused"), errors.RefusedError, "ECONNREFUSED", "peer"),
    (error.TCPTimedOutError(errno.ETIMEDOUT, "timed out"), errors.TimedOutError, "ETIMEDOUT", "network"),
    (error.BadFileError("/run/x"), errors.RefusedError, "ECONNREFUSED", "peer"),
    (error.ServiceNameUnknownError(string="service 'x'"), errors.AddressError, "EINVAL", "user"),
    (error.UserError(), NetError, "ECANCELED", "user"),
    (error.TimeoutError(), errors.TimedOutError, "ETIMEDOUT", "network"),
    (error.SSLError(string="no"), NetError, "ERR_TLS", "peer"),
    (error.VerifyError("no"), NetError, "ERR_TLS_CERT", "peer"),
    (error.PeerVerifyError("no"), NetError, "ERR_TLS_CERT", "peer"),
    (error.CertificateError("no"), NetError, "ERR_TLS_CERT", "peer"),
    (error.ConnectionClosed(), errors.ResetError, "ECONNRESET", "peer"),
    (error.ConnectionLost(), errors.ResetError, "ECONNRESET", "peer"),
    (error.ConnectionAborted(), errors.AbortedError, "ECONNABORTED", "user"),
    (error.FileDescriptorOverrun(), NetError, "ERR_DESCRIPTORS", "user"),
    (error.ConnectionFdescWentAway(), NetError, "EBADF", "user"),
    (error.AlreadyCalled(), NetError, "ERR_INTERNAL", "system"),
    (error.AlreadyCancelled(), NetError, "ERR_INTERNAL", "system"),
    (error.ProcessTerminated(3), NetError, "ERR_PROCESS", "peer"),
    (error.ProcessExitedAlready(), NetError, "ERR_INTERNAL", "system"),
    (error.NotConnectingError(), NetError, "ENOTCONN", "user"),
    (error.NotListeningError(), NetError, "ERR_SERVER_NOT_RUNNING", "user"),
    (error.ReactorNotRunning(), NetError, "ERR_INTERNAL", "system"),
    (error.ReactorNotRestartable(), NetError, "ERR_INTERNAL", "system"),
    (error.ReactorAlreadyRunning(), NetError, "ERR_INTERNAL", "system"),
    (error.ReactorAlreadyInstalledError(), NetError, "ERR_INTERNAL", "system"),
    (error.ConnectingCancelledError(IPv4Address("TCP", "127.0.0.1", 1)), NetError, "ECANCELED", "user"),
    (error.NoProtocol(), errors.AbortedError, "ECONNABORTED", "user"),
    (error.UnsupportedAddressFamily(7), NetError, "EAFNOSUPPORT", "user"),
    (error.UnsupportedSocketType(7), NetError, "ESOCKTNOSUPPORT", "user"),
    (error.AlreadyListened(), errors.BusyError, "EALREADY", "user"),
    (error.InvalidAddressError("x", "not an IPv4 address"), errors.AddressError, "EINVAL", "user"),
]
CLEAN: list[BaseException] = [error.ConnectionDone(), error.ProcessDone(0)]

# The same for everybody else.
OTHERS: list[tuple[BaseException, type[NetError], str, str]] = [
    # Twisted without the number that it usually has
    (error.ConnectError(string="odd"), NetError, "ERR_CONNECT", "system"),
    (error.ConnectBindError(), NetError, "EADDRNOTAVAIL", "user"),
    (error.NoRouteError(), NetError, "EHOSTUNREACH", "network"),
    (error.ConnectionRefusedError(), errors.RefusedError, "ECONNREFUSED", "peer"),
    (error.TCPTimedOutError(), errors.TimedOutError, "ETIMEDOUT", "network"),
    (error.MulticastJoinError("a", "b"), NetError, "EADDRNOTAVAIL", "user"),
    (error.CannotListenError(None, b"/run/x", "Cannot acquire lock"), NetError, "EADDRINUSE", "user"),
    (error.CannotListenError("x", 1, socket.gaierror(socket.EAI_NONAME, "x")), NetError, "ENOTFOUND", "user"),
    # Names
    (socket.gaierror(socket.EAI_NONAME, "unknown"), NetError, "ENOTFOUND", "user"),
    (socket.gaierror(socket.EAI_AGAIN, "later"), NetError, "EAI_AGAIN", "network"),
    (names.DNSNameError(), NetError, "ENOTFOUND", "user"),
    (names.AuthoritativeDomainError(), NetError, "ENOTFOUND", "user"),
    (names.ResolverError(), NetError, "ENOTFOUND", "user"),
    (names.DNSQueryTimeoutError(7), NetError, "EAI_AGAIN", "network"),
    # The system
    (OSError(errno.EPIPE, "Broken pipe"), errors.WriteError, "EPIPE", "peer"),
    (OSError(errno.EMFILE, "Too many open files"), NetError, "EMFILE", "limit"),
    (OSError(4711, "odd"), NetError, "ERR_UNKNOWN4711", "system"),
    (BrokenPipeError(), errors.WriteError, "EPIPE", "peer"),
    (ConnectionResetError(), errors.ResetError, "ECONNRESET", "peer"),
    (ConnectionAbortedError(), errors.AbortedError, "ECONNABORTED", "user"),
    (ConnectionRefusedError(), errors.RefusedError, "ECONNREFUSED", "peer"),
    (FileNotFoundError(), NetError, "ENOENT", "user"),
    (PermissionError(), NetError, "EACCES", "user"),
    (TimeoutError(), errors.TimedOutError, "ETIMEDOUT", "network"),
    (OSError("no number"), NetError, "ERR_INTERNAL", "system"),
    # Time and cancellation
    (defer.TimeoutError(), errors.TimedOutError, "ETIMEDOUT", "network"),
    (defer.CancelledError(), NetError, "ECANCELED", "user"),
    (asyncio.CancelledError(), NetError, "ECANCELED", "user"),
    (concurrent.futures.CancelledError(), NetError, "ECANCELED", "user"),
    # TLS by the standard library
    (ssl.SSLError(1, "[SSL] wrong version number"), NetError, "ERR_TLS", "peer"),
    (ssl.SSLError(), NetError, "ERR_TLS", "peer"),
    (ssl.SSLCertVerificationError(1, "certificate verify failed"), NetError, "ERR_TLS_CERT", "peer"),
    (ssl.SSLEOFError(8, "EOF occurred"), errors.ResetError, "ECONNRESET", "peer"),
    # Anything else
    (ZeroDivisionError("division by zero"), NetError, "ERR_INTERNAL", "system"),
    (KeyboardInterrupt(), NetError, "ERR_INTERNAL", "system"),
]


def identify(value: Any) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else ""


@pytest.mark.parametrize(("reason", "kind", "code", "fault"), TWISTED + OTHERS, ids=identify)
def test_translate(reason: BaseException, kind: type[NetError], code: str, fault: str) -> None:
    for either in (reason, Failure(reason)):
        translated = translate(either, address="there:1", syscall="read")
        assert translated is not None
        assert type(translated) is kind
        assert (translated.code, translated.fault) == (code, fault)
        assert translated.__cause__ is reason
        assert (translated.address, translated.syscall) == ("there:1", "read")
        assert translated.strerror.startswith("read there:1: ")
        what, semicolon, remedy = translated.strerror.rpartition("; ")
        assert what
        assert semicolon
        assert remedy


@pytest.mark.parametrize("reason", [*CLEAN, ssl.SSLZeroReturnError(6, "closed")], ids=identify)
def test_aCleanEnd(reason: BaseException) -> None:
    assert translate(reason) is None
    assert translate(Failure(reason)) is None


def test_everyClassOfTwistedHasItsLine() -> None:
    listed = {type(reason) for reason, *_ in TWISTED} | {type(reason) for reason in CLEAN}
    there = {kind for kind in vars(error).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    there = {kind for kind in there if not issubclass(kind, Warning)}
    assert listed == there


def test_ourOwnPassThrough() -> None:
    ours = errors.LimitError("m")
    assert translate(ours, address="x", syscall="y") is ours
    assert translate(Failure(ours)) is ours
    assert ours.__cause__ is None


def test_withoutAnything() -> None:
    translated = translate(error.ConnectionLost())
    assert translated is not None
    assert translated.strerror.startswith("the connection was lost")
    assert (translated.address, translated.syscall) == (None, None)


@pytest.mark.parametrize(
    ("reason", "address", "beginning"),
    [
        (error.CannotListenError("", 80, BUSY), Address("", 80, "IPv4"), "listen :80: the address is in use; "),
        (error.CannotListenError(None, 80, BUSY), Address("", 80, "IPv4"), "listen :80: "),
        (error.CannotListenError("::1", 80, BUSY), Address("::1", 80, "IPv6"), "listen [::1]:80: "),
        (
            error.CannotListenError(None, b"/run/x", "Cannot acquire lock"),
            Address("/run/x", None, "unix"),
            "listen unix:/run/x: the address is in use (Cannot acquire lock); ",
        ),
        (
            error.ConnectingCancelledError(IPv4Address("TCP", "127.0.0.1", 1)),
            Address("127.0.0.1", 1, "IPv4"),
            "connect 127.0.0.1:1: ",
        ),
        (
            error.InvalidAddressError("x", "not an IPv4 or IPv6 address."),
            "x",
            "x: an argument is not valid here (not an IPv4 or IPv6 address); ",
        ),
        (error.ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None, "connect: nobody accepts connections"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), None, "getaddrinfo: the name has no address; "),
        (error.ServiceNameUnknownError(string="service 'x'"), None, "connect: an argument is not valid here (no port "),
        (ZeroDivisionError("division by zero"), None, "an exception ended it (ZeroDivisionError: division by zero); "),
        (KeyboardInterrupt(), None, "an exception ended it (KeyboardInterrupt); "),
        (OSError(errno.ENODEV, "x"), None, f"{os.strerror(errno.ENODEV)}; see errno(3)"),
    ],
    ids=identify,
)
def test_whatTheReasonKnowsItself(reason: BaseException, address: object, beginning: str) -> None:
    translated = translate(reason)
    assert translated is not None
    assert translated.address == address
    assert translated.strerror.startswith(beginning)


@pytest.mark.parametrize("address", [TcpTarget("::1", 80), IPv4Address("TCP", "127.0.0.1", 80), "a:80", None])
def test_addresses(address: object) -> None:
    translated = translate(error.ConnectionLost(), address=address, syscall="read")
    assert translated is not None
    shown = "127.0.0.1:80" if isinstance(address, IPv4Address) else address
    assert str(translated.address) == str(shown)
    assert translated.strerror.startswith("read: " if address is None else f"read {shown}: ")


def test_anExceptionThatCannotBeShown() -> None:
    translated = translate(error.BindError(7))  # its own __str__ wants texts
    assert translated is not None
    assert translated.code == "EADDRNOTAVAIL"


@given(st.sampled_from(sorted(errno.errorcode)))
def test_everyErrno(number: int) -> None:
    translated = translate(OSError(number, os.strerror(number)), syscall="connect")
    assert translated is not None
    assert (translated.errno, translated.code) == (number, errno.errorcode[number])
    assert "; " in translated.strerror


# TLS by OpenSSL


@pytest.mark.tls
def test_openssl() -> None:
    from OpenSSL import SSL, crypto

    cases: list[tuple[BaseException, str, str]] = [
        (SSL.Error([("SSL routines", "", "wrong version number")]), "ERR_TLS", "(wrong version number); "),
        (SSL.Error([("SSL routines", "", "certificate verify failed")]), "ERR_TLS_CERT", "(certificate verify "),
        (SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]), "ERR_TLS_CERT", "(tlsv1 alert unknown ca); "),
        (SSL.Error([("", "", "first"), ("", "", "second")]), "ERR_TLS", "(first, second); "),
        (SSL.Error("text"), "ERR_TLS", "(text); "),
        (SSL.Error(), "ERR_TLS", "TLS failed; "),
        (SSL.WantReadError(), "ERR_TLS", "TLS failed; "),
        (crypto.Error([("", "", "bad decrypt")]), "ERR_TLS", "(bad decrypt); "),
        (SSL.SysCallError(-1, "Unexpected EOF"), "ECONNRESET", "lost"),
        (SSL.SysCallError(errno.EPIPE, "Broken pipe"), "EPIPE", "written"),
        (SSL.SysCallError(), "ECONNRESET", "lost"),
    ]
    for reason, code, text in cases:
        translated = translate(reason)
        assert translated is not None
        assert translated.code == code
        assert text in translated.strerror
    assert translate(SSL.ZeroReturnError()) is None


@pytest.mark.tls
def test_serviceIdentity() -> None:
    from service_identity.exceptions import CertificateError, VerificationError

    for reason in (VerificationError(errors=[]), CertificateError("no name in it")):
        translated = translate(reason)
        assert translated is not None
        assert translated.code == "ERR_TLS_CERT"


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_aCertificateThatIsNotTrusted() -> None:
    async with pair("tcp") as (client, server):
        server.transport.startTLS(selfSigned().forServer())
        client.transport.startTLS(selfSigned(number=2).forClient())
        await client.happened("lost")
        await server.happened("lost")
        assert client.reason is not None
        assert server.reason is not None
        here, there = translate(client.reason), translate(server.reason)
        assert here is not None
        assert there is not None
        assert here.code == "ERR_TLS_CERT"
        assert "certificate verify failed" in here.strerror
        assert there.code == "ERR_TLS_CERT"
        assert "unknown ca" in there.strerror


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_aCertificateForAnotherName() -> None:
    certificate = selfSigned()
    async with pair("tcp") as (client, server):
        server.transport.startTLS(certificate.forServer())
        client.transport.startTLS(replace(certificate, name="example.org").forClient())
        await client.happened("lost")
        assert client.reason is not None
        here = translate(client.reason)
        assert here is not None
        assert here.code == "ERR_TLS_CERT"
        assert "example.org" in here.strerror


@pytest.mark.parametrize(
    ("number", "code", "syscall"),
    [
        (None, "ECONNRESET", "read"),
        (errno.ECONNRESET, "ECONNRESET", "read"),
        (errno.EPIPE, "EPIPE", "write"),
        (errno.ETIMEDOUT, "ETIMEDOUT", "read"),
    ],
)
def test_whatTheTransportKnowsOfTheLoss(number: int | None, code: str, syscall: str) -> None:
    lost = translate(error.ConnectionLost(), address="127.0.0.1:80", syscall="read", number=number)
    assert lost is not None
    assert (lost.code, lost.syscall) == (code, syscall)
    # Only where nothing better is known.
    aborted = translate(error.ConnectionAborted(), number=number)
    assert aborted is not None
    assert aborted.code == "ECONNABORTED"
