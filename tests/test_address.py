"""Text to address and back: every form, every refusal, and the promise that a target's text parses back."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from twisted_net.address import (
    ENDPOINT_WORDS,
    Address,
    EndpointTarget,
    Target,
    TcpTarget,
    UdpTarget,
    UnixTarget,
    checkPort,
    isIP,
    isIPv4,
    isIPv6,
    parseTarget,
)
from twisted_net.errors import AddressError

# What a socket says of itself


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        (IPv4Address("TCP", "127.0.0.1", 80), Address("127.0.0.1", 80, "IPv4"), "127.0.0.1:80"),
        (IPv4Address("UDP", "127.0.0.1", 80), Address("127.0.0.1", 80, "IPv4"), "127.0.0.1:80"),
        (IPv6Address("TCP", "::1", 80), Address("::1", 80, "IPv6"), "[::1]:80"),
        (IPv6Address("TCP", "::ffff:1.2.3.4", 80), Address("::ffff:1.2.3.4", 80, "IPv6"), "[::ffff:1.2.3.4]:80"),
        (UNIXAddress(b"/run/x"), Address("/run/x", None, "unix"), "unix:/run/x"),
        (UNIXAddress(b"\0name"), Address("\0name", None, "unix"), "unix:@name"),
        (UNIXAddress(None), Address("", None, "unix"), "unix:"),
        (UNIXAddress(b""), Address("", None, "unix"), "unix:"),
        (UNIXAddress(b"/\xff"), Address("/\udcff", None, "unix"), "unix:/\udcff"),
        (None, Address("", None, "endpoint"), ""),
    ],
)
def test_address(theirs: IAddress | None, ours: Address, text: str) -> None:
    assert Address.fromTwisted(theirs) == ours
    assert str(ours) == text


def test_addressOfAnotherKind() -> None:
    theirs = HostnameAddress(b"example.org", 80)
    ours = Address.fromTwisted(theirs)
    assert ours == Address(str(theirs), None, "endpoint")
    assert str(ours) == str(theirs)


# Forms


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:8124", TcpTarget("127.0.0.1", 8124)),
        ("localhost:80", TcpTarget("localhost", 80)),
        ("a-b.example_1.org.:0", TcpTarget("a-b.example_1.org.", 0)),
        ("bücher.example:80", TcpTarget("bücher.example", 80)),
        (":8124", TcpTarget("", 8124)),
        ("*:8124", TcpTarget("", 8124)),
        ("[::1]:8124", TcpTarget("::1", 8124)),
        ("[::]:65535", TcpTarget("::", 65535)),
        ("[fe80::1%eth0.100]:80", TcpTarget("fe80::1%eth0.100", 80)),
        ("localhost:00080", TcpTarget("localhost", 80)),
        ("/run/x.sock", UnixTarget("/run/x.sock")),
        ("./x.sock", UnixTarget("./x.sock")),
        ("run/x:mode=1", UnixTarget("run/x:mode=1")),
        ("unix:/run/x.sock", UnixTarget("/run/x.sock")),
        ("unix:x.sock", UnixTarget("x.sock")),
        ("unix:/run/x.sock:mode=660", UnixTarget("/run/x.sock", 0o660)),
        ("unix:/run/x.sock:mode=0600", UnixTarget("/run/x.sock", 0o600)),
        ("unix:/run/x.sock:mode=0", UnixTarget("/run/x.sock", 0)),
        ("unix:@name", UnixTarget("\0name")),
        (r"unix:\@name", UnixTarget("@name")),
        (r"unix:/a\:b\\c:mode=777", UnixTarget("/a:b\\c", 0o777)),
        ("udp:localhost:53", UdpTarget("localhost", 53)),
        ("udp:[::1]:53", UdpTarget("::1", 53)),
        ("udp::53", UdpTarget("", 53)),
        ("udp:*:53", UdpTarget("", 53)),
        ("udp:tcp:53", UdpTarget("tcp", 53)),
        ("tcp:80", EndpointTarget("tcp:80")),
        ("tcp:8124:interface=127.0.0.1", EndpointTarget("tcp:8124:interface=127.0.0.1")),
        ("ssl:443:privateKey=/etc/key.pem", EndpointTarget("ssl:443:privateKey=/etc/key.pem")),
        ("tls:example.org:443", EndpointTarget("tls:example.org:443")),
        ("systemd:domain=INET:index=0", EndpointTarget("systemd:domain=INET:index=0")),
        ("haproxy:tcp:80", EndpointTarget("haproxy:tcp:80")),
        ("stdio:", EndpointTarget("stdio:")),
        ("my-own:x=1", EndpointTarget("my-own:x=1")),
    ],
)
def test_parse(text: str, target: Target) -> None:
    assert parseTarget(text) == target
    assert parseTarget(str(target)) == target


@pytest.mark.parametrize(
    ("text", "rule", "remedy"),
    [
        ("", "empty", '"localhost:8124"'),
        ("8124", "a port alone", '":8124"'),
        ("localhost", "neither a port", '"localhost:8124" for a host, "./localhost" for a UNIX socket'),
        ("@name", "abstract", '"unix:@name"'),
        ("localhost:", "no whole number", "from 0 to 65535"),
        ("localhost:-1", "no whole number", "from 0 to 65535"),
        ("localhost: 1", "no whole number", "from 0 to 65535"),
        ("localhost:٣", "no whole number", "from 0 to 65535"),
        ("localhost:65536", "out of range", "from 0 to 65535"),
        (f"localhost:{'9' * 5000}", "out of range", "from 0 to 65535"),
        ("example.org:http", "no whole number", "from 0 to 65535"),
        ("[::1]", "no port", '"[::1]:8124"'),
        ("[127.0.0.1]:80", "no IPv6 address", '"[::1]:8124"'),
        ("[::1%]:80", "no IPv6 address", '"[::1]:8124"'),
        ("::1", "more than one colon", '"[::1]:8124"'),
        ("fe80::1", "more than one colon", '"[::1]:8124"'),
        ("fe80::1:80", "more than one colon", '"[::1]:8124"'),
        ("http://localhost:80", "a URL", '"localhost:8124"'),
        ("http://localhost", "a URL", '"localhost:8124"'),
        ("a b:80", "neither an IP address nor a name", "letters, digits"),
        ("a..b:80", "neither an IP address nor a name", "letters, digits"),
        (f"{'a' * 64}:80", "neither an IP address nor a name", "1 to 63"),
        (f"{'a.' * 128}:80", "neither an IP address nor a name", "253"),
        ("256.1.1.1:80", "ends with a number", "four numbers from 0 to 255"),
        ("1:80", "ends with a number", "four numbers from 0 to 255"),
        ("udp:53", "a port alone", '"udp::53"'),
        ("udp:localhost", "no port", '"udp:localhost:8124"'),
        ("udp:", "empty", '"udp:localhost:8124"'),
        ("udp:[::1]", "no port", '"udp:[::1]:8124"'),
        ("unix:", "empty", '"/run/x"'),
        ("unix:@", "empty", '"/run/x"'),
        ("unix:/a\0b", "NUL", "leave it out"),
        ("unix:/a:b", "no option", "':mode=660'"),
        ("unix:/a:mode=660:mode=660", "octal", "':mode=660'"),
        ("unix:/a\\", "no option", r"'\\' for '\'"),
        ("unix:/a:mode=888", "octal", "':mode=660'"),
        ("unix:@name:mode=660", "no file", "leave it out"),
        ("/" + "x" * 107, "108 bytes", "shorter"),
        ("/" + "ü" * 54, "109 bytes", "shorter"),
        ("unix:@" + "x" * 108, "108 bytes", "shorter"),
        ("/\ud800", "encoded", "characters that can be"),
    ],
)
def test_refuse(text: str, rule: str, remedy: str) -> None:
    with pytest.raises(AddressError) as caught:
        parseTarget(text)
    message = caught.value.strerror
    shown = repr(text) if len(text) < 100 else repr(text)[:40]
    assert message.startswith(shown)
    assert rule in message
    assert remedy in message
    assert caught.value.address == text
    assert len(message) < 600


def test_longestPaths() -> None:
    assert parseTarget("/" + "x" * 106) == UnixTarget("/" + "x" * 106)
    assert parseTarget("unix:@" + "x" * 107) == UnixTarget("\0" + "x" * 107)


@pytest.mark.parametrize("value", [None, 8124, b"localhost:80", ("localhost", 80)])
def test_refuseWhatIsNoText(value: object) -> None:
    with pytest.raises(AddressError, match="no text"):
        parseTarget(value)  # type: ignore[arg-type]


# Targets made by hand keep the same rules


@pytest.mark.parametrize("kind", [TcpTarget, UdpTarget])
def test_hostAndPortByHand(kind: type[TcpTarget] | type[UdpTarget]) -> None:
    assert kind("*", "80") == kind("", 80)  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="neither an IP address nor a name"):
        kind("[::1]", 80)
    with pytest.raises(AddressError, match="no text"):
        kind(None, 80)  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="no whole number"):
        kind("a", True)
    with pytest.raises(FrozenInstanceError):
        kind("a", 1).port = 2  # type: ignore[misc]


@pytest.mark.parametrize("host", ["tcp", "ssl", "udp", "unix"])
def test_hostThatIsAKindOfEndpoint(host: str) -> None:
    with pytest.raises(AddressError, match=f'use "tcp:host={host}:port=80"'):
        TcpTarget(host, 80)


@pytest.mark.parametrize("mode", [-1, 0o1000, 660, True, "660"])
def test_modeByHand(mode: object) -> None:
    with pytest.raises(AddressError, match="octal, such as 0o660"):
        UnixTarget("/a", mode)  # type: ignore[arg-type]


def test_pathByHand() -> None:
    with pytest.raises(AddressError, match="no text"):
        UnixTarget(b"/a")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "tcp", "localhost:80", "unix:/a", "udp:a:1", "/a", "fe80::1", "a://b", "a:", 7])
def test_endpointByHand(text: object) -> None:
    with pytest.raises(AddressError, match="no endpoint text"):
        EndpointTarget(text)  # type: ignore[arg-type]


def test_everyEndpointOfTwistedIsKnown() -> None:
    kinds = (IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor)
    parsers: list[Any] = [parser for kind in kinds for parser in getPlugins(kind)]
    words = {parser.prefix for parser in parsers if type(parser).__module__.startswith("twisted.")}
    # These three are parsed without a plugin.
    assert words | {"tcp", "ssl", "unix"} == ENDPOINT_WORDS | {"unix"}


# Small questions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("127.0.0.1", 4),
        ("0.0.0.0", 4),
        ("127.0.0.01", 0),
        ("127.1", 0),
        ("256.0.0.1", 0),
        ("::", 6),
        ("::1", 6),
        ("::ffff:127.0.0.1", 6),
        ("fe80::1%eth0", 6),
        ("fe80::1%", 0),
        ("fe80::1%a b", 0),
        ("127.0.0.1%eth0", 0),
        ("[::1]", 0),
        ("::1\0", 0),
        ("\ud800", 0),
        ("", 0),
        ("localhost", 0),
        (None, 0),
        (b"::1", 0),
        (4, 0),
    ],
)
def test_isIP(text: object, version: int) -> None:
    assert isIP(text) == version
    assert isIPv4(text) is (version == 4)
    assert isIPv6(text) is (version == 6)


@pytest.mark.parametrize(("port", "number"), [(0, 0), (80, 80), (65535, 65535), ("80", 80), ("0000065535", 65535)])
def test_checkPort(port: object, number: int) -> None:
    assert checkPort(port) == number


@pytest.mark.parametrize("port", [-1, 65536, "65536", "", " 80", "+80", "0x50", "\uff18", 80.0, True, None, b"80"])
def test_checkPortRefuses(port: object) -> None:
    with pytest.raises(AddressError, match=r"give one from 0 to 65535") as caught:
        checkPort(port)
    assert repr(port) in caught.value.strerror


def test_checkPortLowest() -> None:
    assert checkPort(1, lowest=1) == 1
    with pytest.raises(AddressError, match="from 1 to 65535"):
        checkPort("0", lowest=1)


# Properties

ports = st.integers(0, 65535)
words = st.text("abcxyz019-_ü", min_size=1, max_size=20)
names = st.builds(".".join, st.lists(words, min_size=1, max_size=4))
hosts = st.one_of(
    st.just(""),
    names,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["tcp", "udp", "localhost.", "fe80::1%lo"]),
)
paths = st.text(st.one_of(st.sampled_from("/:\\@=mode"), st.characters(exclude_categories=["Cs"])), max_size=60)
pieces = ["unix:", "udp:", "tcp:", ":mode=", "fe80", "127.0.0.1", "::1", *"[]:/@\\%*.0189ax-= \0"]
near = st.lists(st.sampled_from(pieces), max_size=8).map("".join)


def made(kind: type[Target], *args: object) -> Target:
    try:
        return kind(*args)  # type: ignore[arg-type]
    except AddressError:
        assume(False)
        raise


targets = st.one_of(
    st.builds(made, st.just(TcpTarget), hosts, ports),
    st.builds(made, st.just(UdpTarget), hosts, ports),
    st.builds(made, st.just(UnixTarget), paths, st.none() | st.integers(0, 0o777)),
    st.builds(made, st.just(UnixTarget), paths.map("\0{}".format)),
    st.builds(made, st.just(EndpointTarget), st.builds("{}:{}".format, words, near)),
)


@given(targets)
def test_textParsesBack(target: Target) -> None:
    assert parseTarget(str(target)) == target


@given(targets)
def test_targetsAreValues(target: Target) -> None:
    again = pickle.loads(pickle.dumps(target))
    assert again == target
    assert hash(again) == hash(target)


@given(st.one_of(st.text(), near, st.text(st.characters())))
def test_garbage(text: str) -> None:
    with contextlib.suppress(AddressError):
        target = parseTarget(text)
        assert parseTarget(str(target)) == target


@given(st.one_of(st.text(), near, st.integers(), st.floats(), st.binary(), st.none()))
def test_garbageForPorts(port: object) -> None:
    with contextlib.suppress(AddressError):
        assert 0 <= checkPort(port) <= 65535
