"""The family of errors: what each class is, says and survives."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from twisted_net import errors
from twisted_net.errors import NetError, forErrno

KINDS = [
    (errors.AddressError, ValueError, "EINVAL", "user"),
    (errors.OptionError, ValueError, "EINVAL", "user"),
    (errors.ClosedError, OSError, "ERR_STREAM_DESTROYED", "user"),
    (errors.EndError, EOFError, "ERR_STREAM_PREMATURE_CLOSE", "peer"),
    (errors.TimedOutError, TimeoutError, "ETIMEDOUT", "network"),
    (errors.LimitError, OSError, "ERR_LIMIT", "limit"),
    (errors.BusyError, OSError, "EBUSY", "user"),
    (errors.RefusedError, ConnectionRefusedError, "ECONNREFUSED", "peer"),
    (errors.ResetError, ConnectionResetError, "ECONNRESET", "peer"),
    (errors.AbortedError, ConnectionAbortedError, "ECONNABORTED", "user"),
    (errors.WriteError, BrokenPipeError, "EPIPE", "peer"),
]


@pytest.mark.parametrize(("kind", "builtin", "code", "fault"), KINDS)
def test_kind(kind: type[NetError], builtin: type[Exception], code: str, fault: str) -> None:
    error = kind("what, and what now")
    assert isinstance(error, NetError)
    assert isinstance(error, OSError)
    assert isinstance(error, builtin)
    assert (error.code, error.fault) == (code, fault)
    assert error.errno == getattr(errno, code, None)
    assert error.strerror == "what, and what now"
    assert str(error) == f"what, and what now [{code}]"
    assert (error.address, error.partial, error.sent, error.syscall) == (None, b"", 0, None)


def test_everyPublicNameIsTested() -> None:
    kinds = {kind.__name__ for kind, *_ in KINDS}
    assert set(errors.__all__) == kinds | {"Fault", "NetError", "forErrno"}


def test_plain() -> None:
    error = NetError("too odd", code="ERR_ODD")
    assert (error.code, error.fault, error.errno) == ("ERR_ODD", "system", None)
    assert error.args == (None, "too odd")
    assert repr(error) == "NetError('too odd', code='ERR_ODD', fault='system')"


def test_withoutCode() -> None:
    assert NetError("no name for it").code == "ERR_UNKNOWN"


def test_givenValuesWin() -> None:
    error = errors.ResetError(
        "m", code="EIO", fault="network", address="a:1", partial=b"half", sent=3, syscall="write"
    )
    assert (error.code, error.errno, error.fault) == ("EIO", errno.EIO, "network")
    assert (error.address, error.partial, error.sent, error.syscall) == ("a:1", b"half", 3, "write")
    assert errors.ResetError.code == "ECONNRESET"


def test_codeThatIsANameOfTheModuleButNoNumber() -> None:
    assert NetError("m", code="errorcode").errno is None


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [
        NetError("m", code="ERR_ODD"),
        errors.EndError("m", partial=b"half", address=("::1", 7)),
        errors.WriteError("m", sent=12, syscall="write", fault="network"),
        errors.AddressError("m", code="ENOTFOUND"),
        forErrno(4711, "m"),
    ],
)
def test_copies(again, error: NetError) -> None:  # type: ignore[no-untyped-def]
    error.add_note("seen on the way")
    other = again(error)
    assert type(other) is type(error)
    assert other is not error
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert (other.errno, other.strerror, other.args) == (error.errno, error.strerror, error.args)


@pytest.mark.parametrize(
    ("number", "kind", "fault"),
    [
        (errno.ECONNREFUSED, errors.RefusedError, "peer"),
        (errno.ECONNRESET, errors.ResetError, "peer"),
        (errno.ECONNABORTED, errors.AbortedError, "user"),
        (errno.EPIPE, errors.WriteError, "peer"),
        (errno.ESHUTDOWN, errors.WriteError, "peer"),
        (errno.ETIMEDOUT, errors.TimedOutError, "network"),
        (errno.EADDRINUSE, NetError, "user"),
        (errno.EHOSTUNREACH, NetError, "network"),
        (errno.EMFILE, NetError, "limit"),
        (errno.EIO, NetError, "system"),
    ],
)
def test_forErrno(number: int, kind: type[NetError], fault: str) -> None:
    error = forErrno(number, "m", address="a:1", partial=b"p", sent=2, syscall="connect")
    assert type(error) is kind
    assert (error.errno, error.code, error.fault) == (number, errno.errorcode[number], fault)
    assert (error.address, error.partial, error.sent, error.syscall) == ("a:1", b"p", 2, "connect")


def test_forErrnoTakesAFault() -> None:
    assert forErrno(errno.EMFILE, "m", fault="peer").fault == "peer"


def test_forErrnoWithoutAName() -> None:
    error = forErrno(4711, "m")
    assert (error.errno, error.code) == (4711, "ERR_UNKNOWN4711")


def test_everyErrnoHasAClass() -> None:
    for number, name in errno.errorcode.items():
        error = forErrno(number, "m")
        assert error.code == name
        assert error.errno == number
