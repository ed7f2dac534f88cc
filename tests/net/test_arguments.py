"""Arguments: every documented way to call ``listen`` and ``connect``, and what is said of the others."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from twisted_net.address import EndpointTarget, TcpTarget, UnixTarget
from twisted_net.errors import AddressError, OptionError
from twisted_net.net.arguments import Call, checkMark, checkMsecs, encode, mergeOptions, readCall, roundTimeout


def listener() -> None:
    """Stands for a callback."""


def listening(*args: Any, **keywords: Any) -> Call[Any]:
    allowed = {"backlog": 511, "retry": None}
    return readCall("listen", args, keywords, allowed, endpoint=IStreamServerEndpoint, defaultHost="", lowestPort=0)


def connecting(*args: Any, **keywords: Any) -> Call[Any]:
    return readCall(
        "connect",
        args,
        keywords,
        {"family": 0},
        endpoint=IStreamClientEndpoint,
        defaultHost="localhost",
        lowestPort=1,
    )


@pytest.mark.parametrize(
    ("args", "where", "backlog", "callback"),
    [
        ((8124,), TcpTarget("", 8124), 511, None),
        (("8124",), TcpTarget("", 8124), 511, None),
        ((0, listener), TcpTarget("", 0), 511, listener),
        ((8124, "127.0.0.1"), TcpTarget("127.0.0.1", 8124), 511, None),
        ((8124, "127.0.0.1", listener), TcpTarget("127.0.0.1", 8124), 511, listener),
        ((8124, "127.0.0.1", 128, listener), TcpTarget("127.0.0.1", 8124), 128, listener),
        ((8124, "127.0.0.1", 0, listener), TcpTarget("127.0.0.1", 8124), 511, listener),
        ((8124, None, 128), TcpTarget("", 8124), 128, None),
        ((8124, 128), TcpTarget("", 8124), 128, None),
        ((8124, "*"), TcpTarget("", 8124), 511, None),
        ((8124, "", None, None), TcpTarget("", 8124), 511, None),
        (("::1:8124".replace("::1", "[::1]"),), TcpTarget("::1", 8124), 511, None),
        ((":8124",), TcpTarget("", 8124), 511, None),
        (("/tmp/echo.sock", listener), UnixTarget("/tmp/echo.sock"), 511, listener),
        (("echo.sock",), UnixTarget("echo.sock"), 511, None),
        (("./a:b",), UnixTarget("./a:b"), 511, None),
        (("\0name",), UnixTarget("\0name"), 511, None),
        (("unix:@name",), UnixTarget("\0name"), 511, None),
        (("/tmp/echo.sock", 5), UnixTarget("/tmp/echo.sock"), 5, None),
        (("tcp:8124:interface=127.0.0.1",), EndpointTarget("tcp:8124:interface=127.0.0.1"), 511, None),
        (({"port": 8124, "host": "::1", "backlog": 3}, listener), TcpTarget("::1", 8124), 3, listener),
        (({"port": 8124, "hostname": "::1"},), TcpTarget("::1", 8124), 511, None),
        (({"path": "/tmp/x", "mode": 0o660},), UnixTarget("/tmp/x", 0o660), 511, None),
        (({"path": "unix:/tmp/x", "mode": 0o660},), UnixTarget("/tmp/x", 0o660), 511, None),
        (({"endpoint": "tcp:8124"},), EndpointTarget("tcp:8124"), 511, None),
        (({"fd": 3},), 3, 511, None),
    ],
)
def test_waysToListen(args: tuple[Any, ...], where: object, backlog: int, callback: object) -> None:
    call = listening(*args)
    assert call.where == where
    assert call.options == {"backlog": backlog, "retry": None}
    assert call.listener is callback


def test_keywordsSayTheSame() -> None:
    call = listening(port=8124, host="::1", backlog=3, listener=listener)
    assert (call.where, call.options["backlog"], call.listener) == (TcpTarget("::1", 8124), 3, listener)
    assert listening({"port": 8124}, host="::1").where == TcpTarget("::1", 8124)
    assert listening(8124, host="::1").where == TcpTarget("::1", 8124)
    assert listening(None, fd=3).where == 3
    assert listening(8124, backlog=None).options["backlog"] == 511


def test_waysToConnect() -> None:
    assert connecting(8124).where == TcpTarget("localhost", 8124)
    assert connecting(8124, listener).listener is listener
    assert connecting(8124, "").where == TcpTarget("localhost", 8124)
    assert connecting(":8124").where == TcpTarget("localhost", 8124)
    assert connecting("unix:/tmp/x").where == UnixTarget("/tmp/x")
    assert connecting({"port": 8124, "family": 6}).options == {"family": 6}


@pytest_twisted.ensureDeferred
async def test_endpointObjects() -> None:
    from twisted.internet import reactor

    server = TCP4ServerEndpoint(reactor, 0)
    client = TCP4ClientEndpoint(reactor, "127.0.0.1", 8124)
    assert listening(server).where is server
    assert listening(endpoint=server).where is server
    assert connecting(client, listener).where is client
    with pytest.raises(AddressError, match="IStreamServerEndpoint"):
        listening(client)
    with pytest.raises(AddressError, match="IStreamClientEndpoint"):
        connecting(server)


@pytest.mark.parametrize(
    ("args", "keywords", "text"),
    [
        ((), {}, "none of them was given"),
        ((8124,), {"path": "/tmp/x"}, "port and path was given"),
        ((True,), {}, "no whole number"),
        ((65536,), {}, "out of range"),
        ((-1,), {}, "out of range"),
        (("",), {}, "must be a text"),
        ((), {"path": 5}, "must be a text"),
        ((), {"fd": -1}, "open descriptor"),
        ((), {"fd": True}, "open descriptor"),
        ((), {"endpoint": 5}, "IStreamServerEndpoint"),
        ((8124, b"::1"), {}, "the host is"),
        (("udp:127.0.0.1:53",), {}, "datagram address"),
        (("nonsense:",), {}, "nonsense"),
        (("x" * 200,), {}, "107"),
    ],
)
def test_placesThatAreNone(args: tuple[Any, ...], keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(AddressError, match=text) as caught:
        listening(*args, **keywords)
    assert caught.value.code == "EINVAL"


def test_portZeroCannotBeReached() -> None:
    for there in (0, "127.0.0.1:0"):
        with pytest.raises(AddressError, match="out of range"):
            connecting(there)


@pytest.mark.parametrize(
    ("args", "keywords", "text"),
    [
        ((8124, "::1", 5, 6, 7), {}, r"cannot make anything of \[6, 7\]"),
        ((8124,), {"bcklog": 5}, "no option 'bcklog'; there are backlog, endpoint"),
        (({"port": 8124},), {"port": 8125}, "'port' is given as a keyword and in another way"),
        ((8124,), {"port": 8125}, "give it once"),
    ],
)
def test_optionsThatAreNone(args: tuple[Any, ...], keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        listening(*args, **keywords)


def test_optionsAreAMapping() -> None:
    assert mergeOptions("x", None, {"a": None}, {"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert mergeOptions("x", {"a": 3}, {"b": 4}, {"a": 1, "b": 2}) == {"a": 3, "b": 4}
    with pytest.raises(OptionError, match="the options are 5"):
        mergeOptions("x", 5, {}, {})  # type: ignore[arg-type]


def test_marks() -> None:
    assert checkMark("x", 1) == 1
    for wrong in (0, -1, 1.5, True, "1", None):
        with pytest.raises(OptionError, match="highWaterMark"):
            checkMark("x", wrong)


def test_msecs() -> None:
    assert checkMsecs("x", 0) == 0
    assert checkMsecs("x", 1.5) == 1.5
    for wrong in (-1, float("nan"), float("inf"), True, "1", None):
        with pytest.raises(OptionError, match="milliseconds"):
            checkMsecs("x", wrong)


anything = st.one_of(
    st.none(), st.integers(), st.text(max_size=120), st.booleans(), st.binary(max_size=3), st.just(listener)
)


@given(st.lists(anything, max_size=5), st.dictionaries(st.sampled_from(["port", "host", "path", "fd"]), anything))
def test_whateverIsGivenIsUnderstoodOrRefusedInWords(args: list[Any], keywords: dict[str, Any]) -> None:
    for read in (listening, connecting):
        with suppress(AddressError, OptionError):
            assert isinstance(read(*args, **keywords).where, TcpTarget | UnixTarget | EndpointTarget | int)


@pytest.mark.parametrize(
    ("data", "encoding", "raw"),
    [
        (b"bytes", None, b"bytes"),
        (bytearray(b"array"), None, b"array"),
        (memoryview(b"view"), None, b"view"),
        ("t\u00e4xt", None, b"t\xc3\xa4xt"),
        ("t\u00e4xt", "latin-1", b"t\xe4xt"),
        ("2c2C", "hex", b",,"),
        ("LA==", "base64", b","),
    ],
)
def test_encode(data: Any, encoding: str | None, raw: bytes) -> None:
    assert encode(data, encoding) == raw


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (5, None, "neither bytes nor text"),
        ("x", "nonsense", "no encoding 'nonsense'"),
        ("\u00e4", "ascii", "cannot be encoded as 'ascii'"),
        ("xyz", "hex", "cannot be encoded as 'hex'"),
        ("x", "base64", "cannot be encoded as 'base64'"),
    ],
)
def test_encodeWhatCannotBe(data: Any, encoding: str | None, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        encode(data, encoding)


@given(st.floats(0, 1e9), st.integers(1, 5000))
def test_roundTimeout(msecs: float, grain: int) -> None:
    """Mongoose's rule: the nearest multiple, and at least one; 0 is off."""
    rounded = roundTimeout(msecs, grain)
    assert rounded % grain == 0
    assert roundTimeout(msecs, None) == msecs
    if msecs == 0:
        assert rounded == 0
    else:
        assert rounded == grain or abs(rounded - msecs) <= grain / 2
