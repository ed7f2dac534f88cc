"""Options: what the kernel has of them, over every kind of transport."""

from __future__ import annotations

import errno
import math
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pairs import Kind, pair
from twisted.internet.testing import StringTransport

from twisted_net.errors import NetError, OptionError
from twisted_net.wire import layers, options
from twisted_net.wire.options import LONGEST_KEEPALIVE_DELAY, NAMES, SocketOptions

TCP: list[Any] = ["tcp", "tcp6", "policies"]
TCP += [pytest.param(kind, marks=pytest.mark.tls) for kind in ("tls", "startTls")]
UNIX: list[Any] = ["unix", pytest.param("tlsOnUnix", marks=pytest.mark.tls)]


def socketUnder(transport: Any) -> socket.socket:
    skt = layers.socketOf(transport)
    assert skt is not None
    return skt


def noDelay(transport: Any) -> bool:
    return bool(socketUnder(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def keepAlive(transport: Any) -> tuple[bool, int]:
    skt = socketUnder(transport)
    on = bool(skt.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    return on, skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def reuseAddress(transport: Any) -> bool:
    return bool(socketUnder(transport).getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))


def linger(transport: Any) -> tuple[int, int]:
    on, seconds = struct.unpack("ii", socketUnder(transport).getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    return on, seconds


# One by one


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_setNoDelay(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            for on in (True, False, True):
                options.setNoDelay(side.transport, on)
                assert noDelay(side.transport) is on


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_setKeepAlive(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            _, before = keepAlive(side.transport)
            options.setKeepAlive(side.transport, True)
            assert keepAlive(side.transport) == (True, before)
            options.setKeepAlive(side.transport, True, 1.001)
            assert keepAlive(side.transport) == (True, 2)
            options.setKeepAlive(side.transport, False, 7)
            assert keepAlive(side.transport) == (False, 2)
            options.setKeepAlive(side.transport, True, LONGEST_KEEPALIVE_DELAY)
            assert keepAlive(side.transport) == (True, LONGEST_KEEPALIVE_DELAY)


@pytest_twisted.ensureDeferred
async def test_theLongestKeepAliveDelayIsLinuxs() -> None:
    async with pair("tcp") as (client, _):
        with pytest.raises(OSError, match="Invalid argument"):
            socketUnder(client.transport).setsockopt(
                socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, LONGEST_KEEPALIVE_DELAY + 1
            )


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_setReuseAddress(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            for on in (True, False):
                options.setReuseAddress(side.transport, on)
                assert reuseAddress(side.transport) is on


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_setLinger0(kind: Kind) -> None:
    async with pair(kind) as sides:
        for side in sides:
            options.setLinger0(side.transport, True)
            assert linger(side.transport) == (1, 0)
            options.setLinger0(side.transport, False)
            assert linger(side.transport) == (0, 0)


SETTERS: list[Callable[[Any, bool], None]] = [
    options.setNoDelay,
    options.setKeepAlive,
    options.setReuseAddress,
    options.setLinger0,
]


@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("kind", UNIX)
@pytest_twisted.ensureDeferred
async def test_nothingOnUnixSockets(kind: Kind, setter: Callable[[Any, bool], None]) -> None:
    async with pair(kind) as (client, server):
        setter(client.transport, True)
        server.transport.write(b"unharmed")
        await client.until(lambda: client.received == b"unharmed")
        assert not socketUnder(client.transport).getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert linger(client.transport) == (0, 0)


@pytest.mark.parametrize("setter", SETTERS)
@pytest_twisted.ensureDeferred
async def test_nothingInMemoryOrAfterTheEnd(setter: Callable[[Any, bool], None]) -> None:
    setter(StringTransport(), True)
    async with pair("tcp") as (client, _):
        pass
    setter(client.transport, True)


def test_aKernelThatRefuses() -> None:
    class Refusing(socket.socket):
        def setsockopt(self, *args: Any) -> None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    class Transport:
        socket = Refusing()

    with Transport.socket, pytest.raises(NetError, match="setsockopt: Protocol not available") as caught:
        options.setNoDelay(Transport(), True)
    assert caught.value.code == "ENOPROTOOPT"
    assert isinstance(caught.value.__cause__, OSError)


BAD_SECONDS = [-1, -0.001, math.inf, math.nan, "1", None, True]


@pytest.mark.parametrize("delay", [*BAD_SECONDS, LONGEST_KEEPALIVE_DELAY + 1])
def test_badKeepAliveDelays(delay: Any) -> None:
    with pytest.raises(OptionError, match="keep-alive delay is") as caught:
        options.setKeepAlive(StringTransport(), True, delay)
    assert repr(delay) in caught.value.strerror
    wanted = SocketOptions()
    with pytest.raises(OptionError, match="keep-alive delay is"):
        wanted.setKeepAlive(True, delay)
    assert wanted.keepAlive is None


# Remembered


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_nothingWasSet(kind: Kind) -> None:
    looks: list[Callable[[Any], object]] = [noDelay, keepAlive, reuseAddress, linger]
    async with pair(kind) as (client, _):
        before = [look(client.transport) for look in looks]
        SocketOptions().apply(client.transport)
        assert [look(client.transport) for look in looks] == before


@pytest.mark.parametrize("kind", TCP)
@pytest_twisted.ensureDeferred
async def test_everythingWasSet(kind: Kind) -> None:
    wanted = SocketOptions()
    wanted.setKeepAlive(True, 77)
    wanted.setNoDelay(True)
    wanted.setReuseAddress(True)
    wanted.setLinger(True, 0)
    async with pair(kind) as (client, _):
        wanted.apply(client.transport)
        assert keepAlive(client.transport) == (True, 77)
        assert noDelay(client.transport)
        assert reuseAddress(client.transport)
        assert linger(client.transport) == (1, 0)
        wanted.setKeepAlive(False)
        wanted.setNoDelay(False)
        wanted.setReuseAddress(False)
        wanted.setLinger(False, 0)
        wanted.apply(client.transport)
        assert keepAlive(client.transport) == (False, 77)
        assert not noDelay(client.transport)
        assert not reuseAddress(client.transport)
        assert linger(client.transport) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_aLongLingerStaysOutOfTheKernel() -> None:
    wanted = SocketOptions()
    assert wanted.lingerTimeout is None
    wanted.setOption("linger", {"on": True, "timeout": 2.5})
    assert wanted.lingerTimeout == 2.5
    async with pair("tcp") as (client, _):
        wanted.apply(client.transport)
        assert linger(client.transport) == (0, 0)
    wanted.setOption("linger", {"on": False})
    assert wanted.lingerTimeout is None


@pytest.mark.parametrize("timeout", BAD_SECONDS)
def test_badLingerTimeouts(timeout: Any) -> None:
    with pytest.raises(OptionError, match="linger timeout is"):
        SocketOptions().setLinger(True, timeout)


def test_setOption() -> None:
    wanted = SocketOptions()
    wanted.setKeepAlive(False, 7)
    for name in ("keepalive", "reuseaddr", "tcp-nodelay"):
        wanted.setOption(name)
    assert (wanted.keepAlive, wanted.reuseAddress, wanted.noDelay) == (True, True, True)
    assert wanted.keepAliveDelay == 7
    for name in ("keepalive", "reuseaddr", "tcp-nodelay"):
        wanted.setOption(name, False)
    assert (wanted.keepAlive, wanted.reuseAddress, wanted.noDelay) == (False, False, False)


@pytest.mark.parametrize("name", ["", "KEEPALIVE", "tcp_nodelay", "ipv6-v6only", None])
def test_unknownOptions(name: Any) -> None:
    with pytest.raises(OptionError, match="keepalive, linger, reuseaddr, tcp-nodelay") as caught:
        SocketOptions().setOption(name, True)
    assert repr(name) in caught.value.strerror


@pytest.mark.parametrize("value", [1, 0, None, "on", {"on": True, "timeout": 0}])
@pytest.mark.parametrize("name", ["keepalive", "reuseaddr", "tcp-nodelay"])
def test_badSwitches(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"option '{name}' is .*; it takes True or False"):
        SocketOptions().setOption(name, value)


@pytest.mark.parametrize(
    "value",
    [True, 0, None, {}, {"timeout": 1}, {"on": 1, "timeout": 1}, {"on": True}, {"on": True, "timeout": 1, "x": 1}],
)
def test_badLingers(value: object) -> None:
    wanted = SocketOptions()
    with pytest.raises(OptionError, match=r"it takes \{'on': True or False, 'timeout': seconds\}"):
        wanted.setOption("linger", value)
    assert wanted.lingerTimeout is None


@given(st.one_of(st.sampled_from(NAMES), st.text()), st.one_of(st.booleans(), st.dictionaries(st.text(), st.floats())))
def test_onlyWhatIsKnownIsTaken(name: str, value: object) -> None:
    if name in NAMES and name != "linger" and isinstance(value, bool):
        SocketOptions().setOption(name, value)
    else:
        with pytest.raises(OptionError):
            SocketOptions().setOption(name, value)
