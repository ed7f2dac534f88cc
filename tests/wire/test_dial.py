"""Dialling: every kind of target, the order of addresses, the time it may take, and every way to end it early."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, KnowingNames, NameService, blackHole, deadPort, fullQueue, needsIPv6
from hypothesis import given
from hypothesis import strategies as st
from pairs import Side
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from zope.interface import implementer

from twisted_net.address import Address, EndpointTarget, TcpTarget, UdpTarget, UnixTarget, isIP
from twisted_net.errors import AddressError, EndError, NetError, OptionError, RefusedError, TimedOutError
from twisted_net.wire.dial import dial, interleave
from twisted_net.wire.options import SocketOptions


class Clients(Factory):
    """Builds one `Side` after another."""

    noisy = False
    started = stopped = 0

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.stopped += 1

    def buildProtocol(self, addr: object) -> Side:
        return Side()


@asynccontextmanager
async def server(where: Any = ("127.0.0.1", 0), family: int = socket.AF_INET) -> AsyncIterator[socket.socket]:
    """Somebody who listens and has all the time in the world."""
    with socket.socket(family) as skt:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        skt.bind(where)
        skt.listen()
        yield skt


async def connects(where: Any, *, plainly: bool = True, **keywords: Any) -> None:
    """It does; ``plainly``: without a wrapper. Afterwards the factory was started and stopped once."""
    clients = Clients()
    reactor = keywords.pop("reactor", None) or Elsewhere()
    side: Any = await dial(reactor, clients, where, **keywords)
    assert isinstance(side, Side)
    assert side.events == ["made"]
    assert (side.transport.protocol is side) is plainly
    assert reactor.getDelayedCalls() == []
    side.transport.loseConnection()
    await side.happened("lost")
    await turns(reactor)
    assert (clients.numPorts, clients.started, clients.stopped) == (0, 1, 1)


async def refused(where: Any, **keywords: Any) -> NetError:
    clients = Clients()
    reactor = keywords.pop("reactor", None) or Elsewhere()
    with pytest.raises(NetError) as caught:
        await dial(reactor, clients, where, **keywords)
    await turns(reactor, 1)
    assert clients.started == clients.stopped
    assert clients.numPorts == 0
    return caught.value


async def turns(reactor: Any, number: int = 3) -> None:
    for _ in range(number):
        await deferLater(reactor, 0)


# Where to


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "", pytest.param("::1", marks=needsIPv6)])
@pytest_twisted.ensureDeferred
async def test_tcp(host: str) -> None:
    address, family = (("::1", 0), socket.AF_INET6) if host == "::1" else (("127.0.0.1", 0), socket.AF_INET)
    async with server(address, family) as listening:
        await connects(TcpTarget(host, listening.getsockname()[1]))


@pytest.mark.parametrize("path", ["path", f"\0dial{os.getpid()}"], ids=["path", "abstract"])
@pytest_twisted.ensureDeferred
async def test_unix(path: str, tmp_path: Path) -> None:
    where = str(tmp_path / path) if path == "path" else path
    async with server(where, socket.AF_UNIX):
        await connects(UnixTarget(where), timeout=5)
    Path(tmp_path / "path").unlink(missing_ok=True)


@pytest_twisted.ensureDeferred
async def test_nobodyThere(tmp_path: Path) -> None:
    with deadPort() as where:
        error = await refused(TcpTarget(*where))
    assert isinstance(error, RefusedError)
    assert error.address == Address(*where, "IPv4")
    target = UnixTarget(str(tmp_path / "s"))
    assert (await refused(target)).code == "ENOENT"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(target.path)
    assert (await refused(target)).code == "ECONNREFUSED"
    os.unlink(target.path)


@pytest_twisted.ensureDeferred
async def test_portZeroIsForListening() -> None:
    error = await refused(TcpTarget("127.0.0.1", 0))
    assert isinstance(error, AddressError)
    assert "give one from 1 to 65535" in str(error)


@pytest.mark.parametrize("where", [UdpTarget("127.0.0.1", 53), "127.0.0.1:80", 3, None])
@pytest_twisted.ensureDeferred
async def test_whatCannotBeConnectedTo(where: Any) -> None:
    error = await refused(where)
    assert isinstance(error, AddressError)
    assert repr(where) in str(error)


# Names


@given(st.lists(st.builds("{}{}".format, st.sampled_from(["192.0.2.", "2001:db8::"]), st.integers(0, 9)), unique=True))
def test_interleaved(hosts: list[str]) -> None:
    ordered = interleave(hosts)
    assert sorted(ordered) == sorted(hosts)
    six, four = ([host for host in hosts if isIP(host) == version] for version in (6, 4))
    assert [host for host in ordered if isIP(host) == 6] == six
    assert [host for host in ordered if isIP(host) == 4] == four
    turnsTaken = 2 * min(len(six), len(four))
    assert [isIP(host) for host in ordered[:turnsTaken]] == [6, 4] * (turnsTaken // 2)
    assert not six or isIP(ordered[0]) == 6


@needsIPv6
@pytest_twisted.ensureDeferred
async def test_IPv6First() -> None:
    names = KnowingNames("127.0.0.1", "::1")
    async with server() as four, server(("::1", four.getsockname()[1]), socket.AF_INET6) as six:
        await connects(TcpTarget("host.test", four.getsockname()[1]), reactor=Elsewhere(names))
        accepted, peer = six.accept()
        accepted.close()
        assert peer[0] == "::1"


@needsIPv6
@pytest_twisted.ensureDeferred
async def test_theOtherFamilyWhenNobodyIsThere() -> None:
    names = KnowingNames("127.0.0.1", "::1")
    async with server() as listening:
        await connects(TcpTarget("host.test", listening.getsockname()[1]), reactor=Elsewhere(names))


@pytest.mark.parametrize(
    ("keywords", "accepts"),
    [
        ({"family": 4}, "127.0.0.1"),
        ({"localAddress": ("127.0.0.1", 0)}, "127.0.0.1"),
        pytest.param({"family": 6}, "::1", marks=needsIPv6),
        pytest.param({"localAddress": ("::1", 0)}, "::1", marks=needsIPv6),
        pytest.param({"localAddress": ("", 0), "family": 6}, "::1", marks=needsIPv6),
        pytest.param({"localAddress": ("*", 0)}, "::1", marks=needsIPv6),
    ],
)
@pytest_twisted.ensureDeferred
async def test_oneFamily(keywords: dict[str, Any], accepts: str) -> None:
    news: list[tuple[Any, ...]] = []
    names = KnowingNames("127.0.0.1", "::1")
    family = socket.AF_INET6 if accepts == "::1" else socket.AF_INET
    async with server((accepts, 0), family) as listening:
        target = TcpTarget("host.test", listening.getsockname()[1])
        await connects(target, reactor=Elsewhere(names), onLookup=lambda *args: news.append(args), **keywords)
    assert (None, accepts, isIP(accepts), "host.test") in news


@pytest_twisted.ensureDeferred
async def test_lookupIsTold() -> None:
    news: list[tuple[Any, ...]] = []
    reactor = Elsewhere(KnowingNames("127.0.0.1", "127.0.0.2"))
    async with server() as listening:
        port = listening.getsockname()[1]
        await connects(TcpTarget("host.test", port), reactor=reactor, onLookup=lambda *args: news.append(args))
        assert news == [(None, "127.0.0.1", 4, "host.test"), (None, "127.0.0.2", 4, "host.test")]
        await connects(TcpTarget("127.0.0.1", port), reactor=reactor, onLookup=lambda *args: news.append(args))
        assert len(news) == 2


@pytest_twisted.ensureDeferred
async def test_aNameWithoutAddress() -> None:
    news: list[tuple[Any, ...]] = []
    reactor = Elsewhere(KnowingNames())
    error = await refused(TcpTarget("host.test", 80), reactor=reactor, onLookup=lambda *args: news.append(args))
    assert (error.code, error.address) == ("ENOTFOUND", "host.test")
    assert news == [(error, "", 0, "host.test")]
    assert (await refused(TcpTarget("host.test", 80), reactor=reactor)).code == "ENOTFOUND"


@pytest_twisted.ensureDeferred
async def test_aListenerThatRaises() -> None:
    def unable(*news: object) -> None:
        raise ZeroDivisionError("not today")

    error = await refused(TcpTarget("host.test", 80), reactor=Elsewhere(KnowingNames("127.0.0.1")), onLookup=unable)
    assert error.code == "ERR_INTERNAL"
    assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("host", "keywords", "told"),
    [
        ("127.0.0.1", {"family": 6}, "it is an IPv4 address where IPv6 was asked for"),
        ("::1", {"localAddress": ("127.0.0.1", 0)}, "it is an IPv6 address where IPv4 was asked for"),
        ("localhost", {"localAddress": ("localhost", 0)}, "is no IP address"),
        ("localhost", {"localAddress": ("127.0.0.1", 70000)}, "port 70000"),
        ("localhost", {"localAddress": ("127.0.0.1", 0), "family": 6}, "is no IPv6 address, as family asks for"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_addressesThatDoNotFit(host: str, keywords: dict[str, Any], told: str) -> None:
    error = await refused(TcpTarget(host, 80), **keywords)
    assert isinstance(error, AddressError)
    assert told in str(error)


@pytest_twisted.ensureDeferred
async def test_onlyTcpHasALocalAddress(tmp_path: Path) -> None:
    error = await refused(UnixTarget(str(tmp_path / "s")), localAddress=("127.0.0.1", 0))
    assert isinstance(error, AddressError)
    assert "only TCP has one" in str(error)


@pytest_twisted.ensureDeferred
async def test_localAddressAndOptions() -> None:
    options = SocketOptions()
    options.setKeepAlive(True)
    async with server() as listening:
        clients = Clients()
        side: Any = await dial(
            Elsewhere(),
            clients,
            TcpTarget(*listening.getsockname()),
            localAddress=("127.0.0.2", 0),
            options=options,
        )
        assert side.transport.getHost().host == "127.0.0.2"
        assert side.transport.getTcpKeepAlive()
        side.transport.loseConnection()
        await side.happened("lost")


# Time


@pytest_twisted.ensureDeferred
async def test_timeoutWhileConnecting() -> None:
    reactor = Elsewhere()
    with blackHole() as hole:
        target = TcpTarget(*hole)
        clients = Clients()
        dialling = dial(reactor, clients, target, timeout=3)
        await turns(reactor)
        reactor.advance(2.9)
        assert not dialling.called
        reactor.advance(0.1)
        with pytest.raises(TimedOutError, match="no connection within 3 seconds") as caught:
            await dialling
    assert (caught.value.code, caught.value.address, caught.value.syscall) == ("ETIMEDOUT", target, "connect")
    assert reactor.getDelayedCalls() == []
    assert clients.started == clients.stopped == 1


@pytest_twisted.ensureDeferred
async def test_timeoutDuringTheLookup() -> None:
    names = NameService("127.0.0.1")
    reactor = Elsewhere(names)
    clients = Clients()
    dialling = dial(reactor, clients, TcpTarget("host.test", 80), timeout=0.5)
    reactor.advance(0.5)
    with pytest.raises(TimedOutError):
        await dialling
    names.answer()
    assert clients.started == 0
    assert reactor.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_timeoutInFrontOfAFullQueue(tmp_path: Path) -> None:
    target = UnixTarget(str(tmp_path / "s"))
    reactor = Elsewhere()
    with fullQueue(target.path):
        dialling = dial(reactor, Clients(), target, timeout=1)
        await turns(reactor)
        reactor.advance(1)
        with pytest.raises(TimedOutError):
            await dialling
        await turns(reactor)
    assert reactor.getDelayedCalls() == []
    os.unlink(target.path)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
@pytest_twisted.ensureDeferred
async def test_aTimeoutThatIsNone(timeout: Any) -> None:
    error = await refused(TcpTarget("127.0.0.1", 80), timeout=timeout)
    assert isinstance(error, OptionError)
    assert repr(timeout) in str(error)


# Ending it early


async def cancelled(dialling: Deferred[Any]) -> None:
    dialling.cancel()
    with pytest.raises(NetError) as caught:
        await dialling
    assert caught.value.code == "ECANCELED"


@pytest.mark.parametrize("timeout", [None, 5])
@pytest_twisted.ensureDeferred
async def test_cancelledDuringTheLookup(timeout: float | None) -> None:
    names = NameService("127.0.0.1")
    reactor, clients = Elsewhere(names), Clients()
    await cancelled(dial(reactor, clients, TcpTarget("host.test", 80), timeout=timeout))
    names.answer()
    await turns(reactor)
    assert reactor.getDelayedCalls() == []
    assert clients.started == 0


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("after", [0, 1, 5])
@pytest_twisted.ensureDeferred
async def test_cancelledWhileConnecting(after: int, timeout: float | None) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with blackHole() as hole:
        reactor, clients = Elsewhere(KnowingNames("127.0.0.1", "127.0.0.2")), Clients()
        dialling = dial(reactor, clients, TcpTarget("host.test", hole[1]), timeout=timeout)
        await turns(reactor, after)
        await cancelled(dialling)
        assert reactor.getDelayedCalls() == []
        assert clients.started == clients.stopped == 1
    await turns(reactor)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest_twisted.ensureDeferred
async def test_cancelledWhenItIsDone() -> None:
    async with server() as listening:
        dialling = dial(Elsewhere(), Clients(), TcpTarget(*listening.getsockname()))
        side: Any = await dialling
        dialling.cancel()
        side.transport.loseConnection()
        await side.happened("lost")


# Endpoints


@implementer(IStreamClientEndpoint)
class Answering:
    """An endpoint that does what it was told."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self._answer = answer

    def connect(self, protocolFactory: object) -> Deferred[Any]:
        return self._answer


@pytest_twisted.ensureDeferred
async def test_endpoints() -> None:
    async with server() as listening:
        host, port = listening.getsockname()
        await connects(EndpointTarget(f"tcp:host={host}:port={port}"), plainly=False)
        await connects(TCP4ClientEndpoint(Elsewhere(), host, port), plainly=False, timeout=5)


@pytest_twisted.ensureDeferred
async def test_optionsOfAnEndpointsConnection() -> None:
    options = SocketOptions()
    options.setKeepAlive(True)
    async with server() as listening:
        endpoint = TCP4ClientEndpoint(Elsewhere(), *listening.getsockname())
        side: Any = await dial(Elsewhere(), Clients(), endpoint, options=options)
        assert side.transport.getTcpKeepAlive()
        side.transport.loseConnection()
        await side.happened("lost")


@pytest.mark.parametrize("text", ["nonsense:red", "tcp:host=a:port=many", "tcp:80:colour=red"])
@pytest_twisted.ensureDeferred
async def test_aTextThatIsNoEndpoint(text: str) -> None:
    error = await refused(EndpointTarget(text))
    assert isinstance(error, AddressError)
    assert str(error).startswith(f"{text!r} is no endpoint to connect to: ")


@pytest_twisted.ensureDeferred
async def test_anEndpointThatFails() -> None:
    with deadPort() as where:
        error = await refused(EndpointTarget(f"tcp:host={where[0]}:port={where[1]}"))
    assert isinstance(error, RefusedError)
    assert isinstance(await refused(Answering(fail(ConnectionDone()))), EndError)


@pytest_twisted.ensureDeferred
async def test_anEndpointThatIsCancelled() -> None:
    never: Deferred[Any] = Deferred()
    await cancelled(dial(Elsewhere(), Clients(), Answering(never), timeout=5))
    assert never.called


@pytest_twisted.ensureDeferred
async def test_anEndpointThatIsDoneAsItsTimeIsUp() -> None:
    side = Side()
    late: Deferred[Any] = Deferred(lambda answer: answer.callback(side))
    reactor = Elsewhere()
    dialling = dial(reactor, Clients(), Answering(late), timeout=5)
    reactor.advance(5)
    assert await dialling is side


@pytest_twisted.ensureDeferred
async def test_anEndpointWithAProtocolOfItsOwn() -> None:
    bare = object()
    assert await dial(Elsewhere(), Clients(), Answering(succeed(bare)), options=SocketOptions()) is bare
