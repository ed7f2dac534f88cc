"""``net serve MODULE:HANDLER``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import pytest_twisted
from launched import talk
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from twisted_net import udp
from twisted_net.address import Address
from twisted_net.service import serve
from twisted_net.service.launch import Launch
from twisted_net.service.serve import Started

MODULE = """
    from twisted.internet.protocol import Factory, Protocol

    started = []

    def greet(client):
        client.write("welcome ")
        client.pipe(client)

    class Shout(Protocol):
        def dataReceived(self, data):
            self.transport.write(data.upper())
            self.transport.loseConnection()

    class Shouting(Factory):
        protocol = Shout

        def startFactory(self):
            started.append(True)

    def make():
        return Shout

    async def upper(stream):
        async for chunk in stream:
            await stream.write(chunk.upper())

    class Upper:
        async def __call__(self, stream):
            await upper(stream)

    def each(data, address, socket):
        socket.send(data.upper(), address)

    async def whole(socket):
        async for packet in socket:
            await socket.sendTo(packet.data.upper(), packet.address)

    def makeWhole():
        return whole

    def makeUpper():
        return Upper()

    def broken():
        return 1 / 0
"""

NEGOTIATING = """
    from twisted.internet.interfaces import IProtocolNegotiationFactory
    from zope.interface import implementer

    @implementer(IProtocolNegotiationFactory)
    class Negotiating(Shouting):
        def acceptableProtocols(self):
            return [b"http/1.1"]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "tnhandlers.py").write_text(dedent(MODULE))
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("tnhandlers", None)


def options(folder: Path, *words: str) -> serve.Options:
    found = serve.Options()
    found.parseOptions(["--app-dir", str(folder), "--listen=127.0.0.1:0", *words])
    return found


async def answer(launched: Launch) -> bytes:
    address = Address.fromTwisted(launched.places[0].port.getHost())
    return await deferToThread(talk, str(address), b"hello", end=False)


@pytest.mark.parametrize("words", [["tnhandlers:Shout"], ["tnhandlers:Shouting"], ["--factory", "tnhandlers:make"]])
@pytest.mark.parametrize("more", [[], ["--rate-read=1MB", "--timeout-idle=1h", "--half-open"]])
@pytest_twisted.ensureDeferred
async def test_theirsIsServed(tmp_path: Path, words: list[str], more: list[str]) -> None:
    launched = serve.makeService(options(tmp_path, *more, *words))
    handlers: Any = sys.modules["tnhandlers"]
    assert handlers.started == []
    launched.serving.begin()
    assert handlers.started == [True] * ("tnhandlers:Shouting" in words)
    assert await answer(launched) == b"HELLO"
    await launched.stopService()


@pytest_twisted.ensureDeferred
async def test_aFunctionIsServed(tmp_path: Path) -> None:
    launched = serve.makeService(options(tmp_path, "tnhandlers:greet"))
    launched.serving.begin()
    address = Address.fromTwisted(launched.places[0].port.getHost())
    assert await deferToThread(talk, str(address), b"hello") == b"welcome hello"
    await launched.stopService()


@pytest.mark.parametrize("words", [["tnhandlers:upper"], ["--factory", "tnhandlers:makeUpper"]])
@pytest_twisted.ensureDeferred
async def test_aCoroutineIsServed(tmp_path: Path, words: list[str]) -> None:
    launched = serve.makeService(options(tmp_path, *words))
    launched.serving.begin()
    address = Address.fromTwisted(launched.places[0].port.getHost())
    assert await deferToThread(talk, str(address), b"hello") == b"HELLO"
    await launched.stopService()


@pytest.mark.parametrize("words", [["tnhandlers:each"], ["tnhandlers:whole"], ["--factory", "tnhandlers:makeWhole"]])
@pytest_twisted.ensureDeferred
async def test_datagramsAreServed(tmp_path: Path, words: list[str]) -> None:
    found = serve.Options()
    found.parseOptions(["--app-dir", str(tmp_path), "--listen=udp:127.0.0.1:0", *words])
    launched = serve.makeService(found)
    launched.serving.begin()
    async with await udp.connect(f"udp:127.0.0.1:{launched.places[0].port.address.port}") as client:
        await client.send(b"hello")
        assert await client.recv() == b"HELLO"
    await launched.stopService()


def test_connectionsAndDatagramsHaveDifferentHandlers() -> None:
    with pytest.raises(SystemExit, match=r"^net serve: :80 and udp::80 need different handlers"):
        serve.Options().parseOptions(["--listen=:80", "--listen=udp::80", "a:b"])


def test_aHandlerOfTheOtherKind(tmp_path: Path) -> None:
    found = serve.Options()
    found.parseOptions(["--app-dir", str(tmp_path), "--listen=udp:127.0.0.1:0", "tnhandlers:greet"])
    with pytest.raises(SystemExit, match="three arguments: data, address, socket"):
        serve.makeService(found)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tnhandlers:gret"], "net serve: 'tnhandlers' has no 'gret'; did you mean 'greet'?"),
        (["--factory", "tnhandlers:upper"], "net serve: tnhandlers:upper is a coroutine function"),
        (["tnhandlers:make"], "if it makes the handler, add --factory"),
        (["--factory", "tnhandlers:started"], "which --factory cannot call"),
    ],
)
def test_aMistake(tmp_path: Path, words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.makeService(options(tmp_path, *words))
    assert told in str(caught.value.code)
    assert "\n" not in str(caught.value.code)


def test_theirError(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.makeService(options(tmp_path, "--factory", "tnhandlers:broken"))
    lines = str(caught.value.code).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "ZeroDivisionError: division by zero",
        "net serve: --factory: tnhandlers:broken raised: its own error stands above; correct it there",
    ]


@pytest.mark.parametrize(("words", "told"), [([], "which handler?"), (["a:b", "c:d"], "'c:d' is one word too many")])
def test_oneHandler(words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.Options().parseOptions(words)
    assert told in str(caught.value.code)


def test_startedWhenItIsTime() -> None:
    class Counting(Factory):
        protocol = Protocol
        noisy = False

    counting = Counting()
    started = Started(counting)
    assert verifyObject(IProtocolFactory, started)
    started.doStart()
    started.doStart()
    started.doStop()
    assert counting.numPorts == 0
    started.begin()
    assert counting.numPorts == 1
    started.doStart()
    assert counting.numPorts == 2
    started.doStop()
    assert counting.numPorts == 1
    assert isinstance(started.buildProtocol(Address("", None, "unix")), Protocol)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_negotiationOverTlsIsTheirs(tmp_path: Path) -> None:
    (tmp_path / "tnhandlers.py").write_text(dedent(MODULE) + dedent(NEGOTIATING))
    launched = serve.makeService(options(tmp_path, "tnhandlers:Negotiating"))
    assert verifyObject(IProtocolNegotiationFactory, launched.factory)
    assert launched.factory.acceptableProtocols() == [b"http/1.1"]  # type: ignore[attr-defined]
    await launched.stopService()
    other = serve.makeService(options(tmp_path, "tnhandlers:Shout"))
    assert not IProtocolNegotiationFactory.providedBy(other.factory)
    await other.stopService()
