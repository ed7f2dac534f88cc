"""twisted.web on a network in memory: Site and Agent, as Twisted ships them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from certificates import selfSigned
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, cooperate, deferLater
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IPolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from weather import inEveryWeather
from zope.interface import implementer

from twisted_net.testing.network import MemoryNetwork

with warnings.catch_warnings():
    # Twisted's own use of what it has deprecated: a class that static.py makes an object of as it is loaded.
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.static import Data, File

# readBody asks for an abortConnection that the transport of its own responses does not have (twisted#8227).
pytestmark = pytest.mark.filterwarnings("ignore:Using readBody:DeprecationWarning")

TEN = bytes(range(256)) * 40_960
"""10 MB."""

#: Seconds without a request after which the server closes a connection, here.
IDLE = 30.0


class Leaf(Resource):
    """Answers every request, whatever its path."""

    isLeaf = True

    def __init__(self, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor


class Echo(Leaf):
    """Answers with what was posted."""

    def render_POST(self, request: Any) -> bytes:
        return bytes(request.content.read())


class Digest(Leaf):
    """Answers with the hash of what was posted."""

    def render_POST(self, request: Any) -> bytes:
        return sha256(request.content.read()).hexdigest().encode()


class Ticking(Leaf):
    """Answers with a line each second: five of them, and nobody is told beforehand how many."""

    def render_GET(self, request: Request) -> int:
        loop = LoopingCall(self._tick, request, list(range(5)))
        loop.clock = self._reactor
        loop.start(1.0).addCallback(lambda _: request.finish())
        self._loop = loop
        return NOT_DONE_YET

    def _tick(self, request: Request, left: list[int]) -> None:
        request.write(b"tick %d\n" % left.pop(0))
        if not left:
            self._loop.stop()


class Silent(Leaf):
    """Never answers."""

    def render_GET(self, request: Request) -> int:
        self.lost: Deferred[None] = request.notifyFinish()
        return NOT_DONE_YET


@implementer(IBodyProducer)
class Pieces:
    """A body that says nothing about its length."""

    length = UNKNOWN_LENGTH

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._task = cooperate(map(consumer.write, self._pieces))
        return self._task.whenDone().addCallback(lambda _: None)

    def pauseProducing(self) -> None:
        self._task.pause()

    def resumeProducing(self) -> None:
        self._task.resume()

    def stopProducing(self) -> None:
        self._task.stop()


class SlowReader(Protocol):
    """Reads a body, and rests for a while after every segment of it."""

    transport: Any

    def __init__(self, reactor: Any, rest: float) -> None:
        self._reactor = reactor
        self._rest = rest
        self._hash = sha256()
        self.size = 0
        self.done: Deferred[str] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)
        self.transport.pauseProducing()
        self._resting = self._reactor.callLater(self._rest, self.transport.resumeProducing)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._resting.cancel()
        assert reason is not None
        assert reason.check(ResponseDone)
        self.done.callback(self._hash.hexdigest())


class Scene:
    """A server on port 80, and an agent that keeps its connections."""

    def __init__(self, network: MemoryNetwork, resource: Callable[[Any], Resource], **options: Any) -> None:
        self.network = network
        self.reactor = network.host("client").reactor
        there = network.host("server").reactor
        self.resource = resource(there)
        self.port = there.listenTCP(80, Site(self.resource, timeout=IDLE, reactor=there))
        self.pool = HTTPConnectionPool(self.reactor)
        self.agent = Agent(self.reactor, pool=self.pool, **options)

    async def __aenter__(self) -> Scene:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.pool.closeCachedConnections()
        await maybeDeferred(self.port.stopListening)

    async def get(self, path: str = "") -> bytes:
        response = await self.agent.request(b"GET", f"http://server/{path}".encode())
        return await readBody(response)

    async def post(self, producer: Any) -> bytes:
        response = await self.agent.request(b"POST", b"http://server/", bodyProducer=producer)
        return await readBody(response)

    def connections(self) -> int:
        return sum(event.what == "connect" for event in self.network.trace.events)

    async def after(self, seconds: float) -> None:
        await deferLater(self.reactor, seconds)


def data(content: bytes) -> Callable[[Any], Resource]:
    """Answers every request with *content*."""

    def make(reactor: Any) -> Resource:
        resource = Data(content, "application/octet-stream")
        resource.isLeaf = True
        return resource

    return make


hello = data(b"hello")


@inEveryWeather()
async def test_aConnectionIsUsedAgain(network: MemoryNetwork) -> None:
    async with Scene(network, hello) as scene:
        for _ in range(3):
            assert await scene.get() == b"hello"
        assert scene.connections() == 1


@inEveryWeather()
async def test_anIdleConnectionIsClosedByItsServer(network: MemoryNetwork) -> None:
    async with Scene(network, hello) as scene:
        assert await scene.get() == b"hello"
        await scene.after(IDLE - 1)
        assert await scene.get() == b"hello"
        assert scene.connections() == 1
        await scene.after(IDLE + 1)
        assert await scene.get() == b"hello"
        assert scene.connections() == 2


@inEveryWeather()
async def test_aCachedConnectionIsClosedByItsClient(network: MemoryNetwork) -> None:
    async with Scene(network, hello) as scene:
        scene.pool.cachedConnectionTimeout = 10
        assert await scene.get() == b"hello"
        await scene.after(11)
        assert all(skt.isListening for skt in network.host("server").sockets())


@inEveryWeather()
async def test_aResponseInChunks(network: MemoryNetwork) -> None:
    async with Scene(network, Ticking) as scene:
        response = await scene.agent.request(b"GET", b"http://server/")
        assert response.length is UNKNOWN_LENGTH
        assert await readBody(response) == b"".join(b"tick %d\n" % number for number in range(5))
        # Four seconds, or three: where a sum of doubles falls short of a whole second, a LoopingCall ticks twice.
        assert 3.0 <= network.now < 5.0
        assert await scene.get() != b""
        assert scene.connections() == 1


@inEveryWeather()
async def test_anUploadInChunks(network: MemoryNetwork) -> None:
    pieces = [b"%d " % number * 500 for number in range(100)]
    async with Scene(network, Echo) as scene:
        assert await scene.post(Pieces(pieces)) == b"".join(pieces)


@inEveryWeather()
async def test_anUploadOfTenMegabytes(network: MemoryNetwork) -> None:
    async with Scene(network, Digest) as scene:
        assert await scene.post(FileBodyProducer(io.BytesIO(TEN))) == sha256(TEN).hexdigest().encode()


@inEveryWeather()
async def test_aDownloadOfTenMegabytesToASlowReader(network: MemoryNetwork) -> None:
    async with Scene(network, data(TEN)) as scene:
        response = await scene.agent.request(b"GET", b"http://server/")
        reader = SlowReader(scene.reactor, 0.01)
        response.deliverBody(reader)
        assert await reader.done == sha256(TEN).hexdigest()
        # No segment is longer than what a transport reads at once, and each has cost its rest.
        assert network.now >= len(TEN) / 65_536 * 0.01


@inEveryWeather()
async def test_files(network: MemoryNetwork, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(TEN[:1_000_000])
    async with Scene(network, lambda reactor: File(str(tmp_path))) as scene:
        assert await scene.get("large.bin") == TEN[:1_000_000]
        part = Headers({"Range": ["bytes=1000-1999"]})
        response = await scene.agent.request(b"GET", b"http://server/large.bin", part)
        assert (response.code, await readBody(response)) == (206, TEN[1000:2000])
        response = await scene.agent.request(b"GET", b"http://server/nothing.bin")
        assert response.code == 404
        await readBody(response)


@inEveryWeather()
async def test_aClientThatLosesItsPatience(network: MemoryNetwork) -> None:
    async with Scene(network, Silent) as scene:
        asked = scene.agent.request(b"GET", b"http://server/")
        asked.addTimeout(20, scene.reactor)
        with pytest.raises(ResponseNeverReceived):
            await asked
        assert network.now == 20
        with pytest.raises(Exception, match="Connection"):
            await scene.resource.lost  # type: ignore[attr-defined]


@inEveryWeather()
async def test_aServerThatIsDead(network: MemoryNetwork) -> None:
    scene = Scene(network, hello, connectTimeout=7)
    network.host("server").die()
    with pytest.raises(ConnectError):
        await scene.get()
    # The second address is tried 0.3 seconds after the first one.
    assert network.now == pytest.approx(7.3)


@implementer(IPolicyForHTTPS)
class Trusting:
    """Trusts one certificate, whoever is asked."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return selfSigned("server").forClient()


@pytest.mark.tls
@inEveryWeather()
async def test_overTls(network: MemoryNetwork) -> None:
    there = network.host("server").reactor
    port = there.listenSSL(443, Site(Echo(there), reactor=there), selfSigned("server").forServer())
    here = network.host("client").reactor
    pool = HTTPConnectionPool(here)
    agent = Agent(here, contextFactory=Trusting(), pool=pool)
    for size in (10, 1_000_000):
        body = FileBodyProducer(io.BytesIO(TEN[:size]))
        response = await agent.request(b"POST", b"https://server/", bodyProducer=body)
        assert await readBody(response) == TEN[:size]
    assert sum(event.what == "connect" for event in network.trace.events) == 1
    await pool.closeCachedConnections()
    await maybeDeferred(port.stopListening)
