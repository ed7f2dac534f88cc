"""Handlers of datagrams."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from turning import turns, until
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_net import udp
from twisted_net.address import Address, UdpTarget, UnixTarget
from twisted_net.errors import NetError
from twisted_net.service.datagrams import Coroutines, _nobody, callForEach, forDatagrams
from twisted_net.service.launch import Serving
from twisted_net.udp import DatagramSocket, UdpSocket
from twisted_net.wire import datagram
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import DatagramPort
from twisted_net.wire.waiting import loopOf, outcome


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


HERE = UdpTarget("127.0.0.1", 0)


async def bound(reactor: Any, target: UdpTarget | UnixTarget = HERE) -> DatagramPort:
    return await datagram.bind(reactor, target, DatagramOptions())


def shout(data: bytes, address: Address, own: DatagramSocket) -> None:
    if data == b"boom":
        raise KeyError("theirs")
    own.send(data.upper(), address)


async def shoutAlways(own: UdpSocket) -> None:
    async for packet in own:
        if packet.data == b"boom":
            raise KeyError("theirs")
        await own.sendTo(packet.data.upper(), packet.address)


async def ask(place: Address, data: bytes) -> bytes:
    async with await udp.connect(str(place)) as client:
        client.setTimeout(20)
        await client.send(data)
        return await client.recv()


@pytest.mark.parametrize(
    "target", [HERE, UdpTarget("::1", 0), UnixTarget("/s")], ids=["udp4", "udp6", "unix"]
)
@pytest.mark.parametrize("handler", [shout, shoutAlways])
@pytest_twisted.ensureDeferred
async def test_everyKindOfSocket(target: Any, handler: Any, reactor: Any, tmp_path: Path) -> None:
    if isinstance(target, UnixTarget):
        target = UnixTarget(f"{tmp_path}{target.path}")
    elif target.host == "::1" and not hasIPv6():
        pytest.skip("this machine has no IPv6")
    serving = forDatagrams(handler, None, reactor)  # type: ignore[arg-type]  # nothing is chosen for datagrams
    port = await bound(reactor, target)
    assert serving.receive is not None
    serving.receive(port)
    serving.begin()
    assert await ask(port.address, b"hello") == b"HELLO"
    port.close()
    if serving.finish is not None:
        await serving.finish(20)


def hasIPv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest_twisted.ensureDeferred
async def test_aFunctionThatRaises(reactor: Any, loggedErrors: Any) -> None:
    """It is logged with the sender; the next datagram is served."""
    port = await bound(reactor)
    callForEach(shout)(port)
    async with await udp.connect(str(port.address)) as client:
        await client.send(b"boom")
        await client.send(b"still")
        assert await client.recv() == b"STILL"
        (event,) = loggedErrors.flush(KeyError)
        assert event["peer"] == str(client.address)
    port.close()
    await turns()


@pytest_twisted.ensureDeferred
async def test_aCoroutineThatRaises(reactor: Any, loggedErrors: Any) -> None:
    """It is logged with its place, whose socket is closed; the others go on."""
    coroutines = Coroutines(shoutAlways, reactor)
    ports = [await bound(reactor), await bound(reactor)]
    for port in ports:
        coroutines.receive(port)
    coroutines.begin()
    async with await udp.connect(str(ports[0].address)) as client:
        await client.send(b"boom")
        await until(lambda: ports[0].isClosed)
    (event,) = loggedErrors.flush(KeyError)
    assert event["place"] == str(ports[0].address)
    assert await ask(ports[1].address, b"still") == b"STILL"
    ports[1].close()
    await coroutines.finish(20)


@pytest_twisted.ensureDeferred
async def test_whatComesEarlyIsKept(reactor: Any) -> None:
    """A daemon's ports are bound before it forks; a port may be bound when it runs already."""
    coroutines = Coroutines(shoutAlways, reactor)
    early, late = await bound(reactor), await bound(reactor)
    coroutines.receive(early)
    answer = Deferred.fromCoroutine(ask(early.address, b"early"))
    await turns(5)
    assert not answer.called
    coroutines.begin()
    assert await answer == b"EARLY"
    coroutines.receive(late)
    assert await ask(late.address, b"late") == b"LATE"
    for port in (early, late):
        port.close()
    await coroutines.finish(20)


@pytest_twisted.ensureDeferred
async def test_coroutinesFinish(reactor: Any) -> None:
    """They have the time of grace when their socket is closed."""
    leave: Deferred[None] = Deferred()

    async def wait(own: UdpSocket) -> None:
        async for _ in own:
            pass
        await outcome(reactor, leave)

    coroutines = Coroutines(wait, reactor)
    port = await bound(reactor)
    coroutines.receive(port)
    coroutines.begin()
    await turns()
    port.close()
    finished = coroutines.finish(20)
    await turns(3)
    assert not finished.called
    leave.callback(None)
    await finished


@pytest_twisted.ensureDeferred
async def test_coroutinesAreCancelled(reactor: Any) -> None:
    async def wait(own: UdpSocket) -> None:
        await (Deferred() if loopOf(reactor) is None else asyncio.sleep(3600))

    coroutines = Coroutines(wait, reactor)
    port = await bound(reactor)
    coroutines.receive(port)
    coroutines.begin()
    await deferLater(reactor, 0)
    await coroutines.finish(0.01)
    assert port.isClosed


def test_nobodyConnects(reactor: Any) -> None:
    serving = forDatagrams(shout, None, reactor)  # type: ignore[arg-type]
    assert isinstance(serving, Serving)
    with pytest.raises(AssertionError):
        _nobody(None)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_aSocketThatIsBoundAlready(reactor: Any) -> None:
    port = await bound(reactor)
    own = DatagramSocket("udp4", reactor=reactor)
    heard: list[object] = []
    own.on("listening", lambda: heard.append(own.address()))
    assert own.adopt(port) is own
    assert heard == [port.address]
    with pytest.raises(NetError, match="adopt: this socket is bound already"):
        own.adopt(port)
    own.close()
    await turns()
