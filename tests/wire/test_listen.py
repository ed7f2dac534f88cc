"""Listening: on everything that can be listened on, and nothing is left of it afterwards."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from certificates import selfSigned
from conditions import Elsewhere, KnowingNames, NameService, folderOfNobody, needsIPv6, noDescriptors, unprivileged
from pairs import Side
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredQueue, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_net.address import EndpointTarget, TcpTarget, UdpTarget, UnixTarget
from twisted_net.errors import AddressError, BusyError, NetError, OptionError
from twisted_net.sansio.backoff import Backoff
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.listen import BACKLOG, ListeningPort, bind, listen, listenRetrying, serve

LOCAL = TcpTarget("127.0.0.1", 0)
EVERY_SECOND = Backoff(initial=1, factor=1, maximum=1, jitter=0, attempts=3)

UNTIL_STOPPED = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted_net.address import UnixTarget
from twisted_net.wire.listen import listen

listen(reactor, ServerFactory(), UnixTarget(sys.argv[1])).addCallback(print)
reactor.callWhenRunning(reactor.stop)
reactor.run()
"""


class Servers(ServerFactory):
    """Hands out a `Side` for each connection, and keeps it."""

    noisy = False

    def __init__(self) -> None:
        self.sides: DeferredQueue[Side] = DeferredQueue()
        self.started = self.stopped = 0

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.stopped += 1

    def buildProtocol(self, addr: object) -> Side:
        side = Side()
        self.sides.put(side)
        return side

    async def meets(self, where: Any, family: int = socket.AF_INET) -> Side:
        """A client connects to ``where``, says something, and goes; what met it here."""
        with socket.socket(family) as client:
            client.settimeout(10)
            client.connect(where)
            client.sendall(b"hello")
            side: Side = await self.sides.get()
            await side.until(lambda: side.received == b"hello")
        await ended(side)
        return side


async def ended(side: Side) -> None:
    """Its client has gone; now it goes too."""
    await side.happened("readEnd")
    side.transport.loseConnection()
    await side.happened("lost")


@asynccontextmanager
async def listening(where: Any, **keywords: Any) -> AsyncIterator[tuple[ListeningPort, Servers]]:
    """A port for the time of a test; its factory has been started once and stopped once afterwards."""
    servers = Servers()
    reactor = keywords.pop("reactor", None) or Elsewhere()
    port = await listen(reactor, servers, where, **keywords)
    try:
        yield port, servers
    finally:
        await port.stopListening()
    assert (servers.numPorts, servers.started, servers.stopped) == (0, 1, 1)


async def refused(where: Any, **keywords: Any) -> NetError:
    """The error; the factory has been left as it was."""
    servers = Servers()
    reactor = keywords.pop("reactor", None) or Elsewhere()
    with pytest.raises(NetError) as caught:
        await listen(reactor, servers, where, **keywords)
    assert (servers.numPorts, servers.started, servers.stopped) == (0, 0, 0)
    return caught.value


def turn() -> Deferred[None]:
    """A turn of the reactor."""
    reactor: Any = Elsewhere()
    return deferLater(reactor, 0)


def addressOf(port: ListeningPort) -> Any:
    return port.port.socket.getsockname()


@contextmanager
def busy() -> Iterator[TcpTarget]:
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        skt.listen()
        yield TcpTarget(*skt.getsockname())


# TCP


@pytest.mark.parametrize(
    ("host", "clients"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("", ["127.0.0.1", "127.0.0.2"]),
        pytest.param("::1", ["::1"], marks=needsIPv6),
        pytest.param("::", ["::1", "127.0.0.1"], marks=needsIPv6),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tcp(host: str, clients: list[str]) -> None:
    async with listening(TcpTarget(host, 0)) as (port, servers):
        number = port.getHost().port  # type: ignore[attr-defined]
        assert number > 0
        assert port.getHost().host == (host or "0.0.0.0")  # type: ignore[attr-defined]
        for client in clients:
            await servers.meets((client, number), socket.AF_INET6 if ":" in client else socket.AF_INET)


@pytest_twisted.ensureDeferred
async def test_aNameOfThisMachine() -> None:
    async with listening(TcpTarget("localhost", 0)) as (port, servers):
        await servers.meets(addressOf(port)[:2], port.port.socket.family)


@pytest_twisted.ensureDeferred
async def test_reuseAddressOnWhatListensAndWhatIsAccepted() -> None:
    async with listening(LOCAL) as (port, servers):
        with socket.create_connection(addressOf(port)):
            side = await servers.sides.get()
            await side.happened("made")
            for skt in (port.port.socket, side.transport.socket):
                assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        await ended(side)


@pytest.mark.parametrize(("asked", "given"), [({}, BACKLOG), ({"backlog": 7}, 7)])
@pytest_twisted.ensureDeferred
async def test_backlog(asked: dict[str, int], given: int) -> None:
    async with listening(LOCAL, **asked) as (port, _):
        # tcpi_sacked of a listening socket is its backlog (tcp_get_info in net/ipv4/tcp.c).
        info = port.port.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert struct.unpack_from("I", info, 28) == (given,)


@pytest.mark.parametrize("backlog", [-1, 2**31, True, "5", None, 1.5])
@pytest_twisted.ensureDeferred
async def test_aBacklogThatIsNone(backlog: Any) -> None:
    error = await refused(LOCAL, backlog=backlog)
    assert isinstance(error, OptionError)
    assert repr(backlog) in str(error)


@pytest_twisted.ensureDeferred
async def test_aBusyPort() -> None:
    with busy() as target:
        error = await refused(target)
    assert (error.code, error.errno, error.syscall, error.address) == (
        "EADDRINUSE",
        errno.EADDRINUSE,
        "listen",
        target,
    )
    assert str(target) in str(error)


@pytest_twisted.ensureDeferred
async def test_anAddressOfAnotherMachine() -> None:
    assert (await refused(TcpTarget("203.0.113.1", 0))).code == "EADDRNOTAVAIL"


@pytest_twisted.ensureDeferred
async def test_aPortForTheSystemAlone() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("here everybody may bind port 80")
    with unprivileged():
        assert (await refused(TcpTarget("127.0.0.1", 80))).code == "EACCES"


@pytest_twisted.ensureDeferred
async def test_noDescriptorLeft() -> None:
    reactor = Elsewhere()
    with noDescriptors():
        error = await refused(LOCAL, reactor=reactor)
    assert (error.code, error.fault) == ("EMFILE", "limit")


# Names


@pytest_twisted.ensureDeferred
async def test_theFirstAddressThatThisMachineHas() -> None:
    names = KnowingNames("203.0.113.1", "127.0.0.2", "127.0.0.1")
    async with listening(TcpTarget("host.test", 0), reactor=Elsewhere(names)) as (port, servers):
        assert addressOf(port)[0] == "127.0.0.2"
        await servers.meets(addressOf(port))


@pytest_twisted.ensureDeferred
async def test_noneOfItsAddressesIsHere() -> None:
    names = KnowingNames("203.0.113.1", "203.0.113.2")
    error = await refused(TcpTarget("host.test", 0), reactor=Elsewhere(names))
    assert error.code == "EADDRNOTAVAIL"
    assert "host.test:0" in str(error)


@pytest_twisted.ensureDeferred
async def test_aBusyAddressIsNotPassedOver() -> None:
    with busy() as target:
        names = KnowingNames(target.host, "127.0.0.2")
        error = await refused(TcpTarget("host.test", target.port), reactor=Elsewhere(names))
    assert error.code == "EADDRINUSE"


@pytest_twisted.ensureDeferred
async def test_aNameWithoutAddress() -> None:
    assert (await refused(TcpTarget("host.test", 0), reactor=Elsewhere(KnowingNames()))).code == "ENOTFOUND"


@pytest_twisted.ensureDeferred
async def test_cancelledDuringTheLookup() -> None:
    names = NameService("127.0.0.1")
    starting = listen(Elsewhere(names), Servers(), TcpTarget("host.test", 0))
    starting.cancel()
    with pytest.raises(NetError) as caught:
        await starting
    assert caught.value.code == "ECANCELED"
    names.answer()


# Bound now, serving later


@pytest_twisted.ensureDeferred
async def test_bindThenServe() -> None:
    servers = Servers()
    skt = await bind(Elsewhere(), LOCAL)
    where = skt.getsockname()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(where)
    port = await serve(Elsewhere(), servers, skt, backlog=5)
    assert addressOf(port) == where
    await servers.meets(where)
    await port.stopListening()
    assert (servers.numPorts, servers.started, servers.stopped) == (0, 1, 1)


@pytest_twisted.ensureDeferred
async def test_boundAndClosed() -> None:
    skt = await bind(Elsewhere(), LOCAL)
    where = skt.getsockname()
    skt.close()
    async with listening(TcpTarget(*where)):
        pass


@pytest_twisted.ensureDeferred
async def test_whatCannotBeBound() -> None:
    with busy() as target:
        with pytest.raises(NetError) as caught:
            await bind(Elsewhere(), target)
        assert caught.value.code == "EADDRINUSE"
        assert str(target) in str(caught.value)
    with pytest.raises(NetError) as caught:
        await bind(Elsewhere(KnowingNames()), TcpTarget("host.test", 0))
    assert caught.value.code == "ENOTFOUND"
    names = NameService("127.0.0.1")
    binding = bind(Elsewhere(names), TcpTarget("host.test", 0))
    binding.cancel()
    with pytest.raises(NetError) as caught:
        await binding
    assert caught.value.code == "ECANCELED"
    names.answer()


@pytest_twisted.ensureDeferred
async def test_servingThatFailsClosesTheSocket() -> None:
    skt = await bind(Elsewhere(), LOCAL)
    with pytest.raises(OptionError, match="backlog is -1"):
        await serve(Elsewhere(), Servers(), skt, backlog=-1)
    assert skt.fileno() == -1
    with pytest.raises(NetError) as caught:
        await serve(Elsewhere(), Servers(), skt)
    assert caught.value.code == "EBADF"


# UNIX


@pytest_twisted.ensureDeferred
async def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(UnixTarget(str(path), 0o620)) as (port, servers):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o620
        assert port.getHost().name == os.fsencode(path)  # type: ignore[attr-defined]
        await servers.meets(str(path), socket.AF_UNIX)
    assert os.listdir(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_abstract() -> None:
    name = f"\0listen{os.getpid()}"
    async with listening(UnixTarget(name)) as (port, servers):
        assert port.getHost().name == name.encode()  # type: ignore[attr-defined]
        await servers.meets(name, socket.AF_UNIX)
        assert (await refused(UnixTarget(name))).code == "EADDRINUSE"


@pytest_twisted.ensureDeferred
async def test_unixBacklog(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with listening(UnixTarget(path), backlog=2) as (port, _):
        port.pauseProducing()
        with ExitStack() as stack:
            answers = []
            for _ in range(4):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                answers.append(client.connect_ex(path))
    assert answers == [0, 0, 0, errno.EAGAIN]  # unix(7) queues one more than asked


@pytest_twisted.ensureDeferred
async def test_aLiveServerIsBusyAndADeadOneIsReplaced(tmp_path: Path) -> None:
    target = UnixTarget(str(tmp_path / "s"))
    async with listening(target) as (_, servers):
        error = await refused(target)
        await ended(await servers.sides.get())  # it was asked whether it lives
    assert (error.code, error.address) == ("EADDRINUSE", target)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(target.path)
    async with listening(target) as (_, servers):
        await servers.meets(target.path, socket.AF_UNIX)


@pytest_twisted.ensureDeferred
async def test_anOldServerLeavesTheNewOnesFile(tmp_path: Path) -> None:
    target = UnixTarget(str(tmp_path / "s"))
    async with listening(target) as (older, _):
        os.unlink(target.path)
        async with listening(target) as (_, servers):
            await older.stopListening()
            await older.stopListening()
            await servers.meets(target.path, socket.AF_UNIX)
    assert os.listdir(tmp_path) == []


def test_theReactorsEndRemovesTheFileToo(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", UNTIL_STOPPED, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ListeningPort" in output.stdout
    assert "Traceback" not in output.stderr
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_noRightToTheFolder() -> None:
    with folderOfNobody(0o500) as folder, unprivileged():
        assert (await refused(UnixTarget(str(folder / "s")))).code == "EACCES"


@pytest_twisted.ensureDeferred
async def test_cancelledWhileAnotherStarts(tmp_path: Path) -> None:
    import fcntl

    reactor = Elsewhere()
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    starting = listen(reactor, Servers(), UnixTarget(str(tmp_path / "s")))
    assert not starting.called
    starting.cancel()
    with pytest.raises(NetError) as caught:
        await starting
    os.close(lock)
    assert caught.value.code == "ECANCELED"
    assert reactor.getDelayedCalls() == []


@pytest.mark.parametrize("path", ["path", f"\0fails{os.getpid()}"])
@pytest_twisted.ensureDeferred
async def test_aFactoryThatCannotStart(path: str, tmp_path: Path) -> None:
    class Unwilling(Servers):
        def doStart(self) -> None:
            raise ZeroDivisionError("not today")

    target = UnixTarget(str(tmp_path / path) if path == "path" else path)
    with pytest.raises(NetError, match="ZeroDivisionError: not today") as caught:
        await listen(Elsewhere(), Unwilling(), target)
    assert caught.value.code == "ERR_INTERNAL"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert os.listdir(tmp_path) == []
    async with listening(target):
        """It is free again."""


# In memory


@pytest.mark.parametrize("where", [TcpTarget("127.0.0.1", 80), UnixTarget("/run/s")])
def test_aReactorThatMakesItsOwnSockets(where: TcpTarget | UnixTarget) -> None:
    servers = Servers()
    with MemoryNetwork() as network:

        async def scene() -> None:
            port = await listen(network.reactor, servers, where)
            assert isinstance(port.getHost(), IPv4Address if isinstance(where, TcpTarget) else UNIXAddress)
            with pytest.raises(NetError) as caught:
                await listen(network.reactor, servers, where)
            assert caught.value.code == "EADDRINUSE"
            await port.stopListening()

        network.run(scene)
    assert (servers.numPorts, servers.started, servers.stopped) == (0, 1, 1)


# Descriptors


@pytest.mark.parametrize("kind", ["IPv4", pytest.param("IPv6", marks=needsIPv6), "path", "abstract"])
@pytest.mark.parametrize("already", [True, False], ids=["listening", "bound"])
@pytest_twisted.ensureDeferred
async def test_inherited(kind: str, already: bool, tmp_path: Path) -> None:
    addresses: dict[str, tuple[int, Any]] = {
        "IPv4": (socket.AF_INET, ("127.0.0.1", 0)),
        "IPv6": (socket.AF_INET6, ("::1", 0)),
        "path": (socket.AF_UNIX, str(tmp_path / "s")),
        "abstract": (socket.AF_UNIX, f"\0inherited{os.getpid()}"),
    }
    family, where = addresses[kind]
    with socket.socket(family) as parents:
        parents.bind(where)
        if kind == "path":
            os.chmod(tmp_path / "s", 0o640)
        if already:
            parents.listen()
        fd = os.dup(parents.fileno())
        async with listening(fd) as (_, servers):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            await servers.meets(parents.getsockname(), family)
        # Stopping did not end the parent's: nobody's clients are refused, and nobody's file is touched.
        with socket.socket(family) as client:
            client.connect(parents.getsockname())
            parents.accept()[0].close()
        if kind == "path":
            assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o640
            (tmp_path / "s").unlink()


@pytest_twisted.ensureDeferred
async def test_aDescriptorThatCannotBeUsedStaysWithItsOwner() -> None:
    reading, writing = os.pipe()
    assert (await refused(reading)).code == "ENOTSOCK"
    os.close(reading)
    os.close(writing)
    assert (await refused(reading)).code == "EBADF"
    with busy() as target, socket.socket() as skt:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            skt.bind((target.host, target.port))
        assert (await refused(skt.fileno())).code == "EINVAL"


@pytest_twisted.ensureDeferred
async def test_aDescriptorAtABusyAddress() -> None:
    with socket.socket() as first, socket.socket() as second:
        for skt in (first, second):
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        assert (await refused(second.fileno())).code == "EADDRINUSE"
        assert os.fstat(second.fileno())


# Endpoints


@pytest_twisted.ensureDeferred
async def test_endpointText() -> None:
    async with listening(EndpointTarget("tcp:0:interface=127.0.0.1")) as (port, servers):
        await servers.meets(addressOf(port))


@implementer(IProtocolNegotiationFactory)
class Speaking(Servers):
    """Knows one protocol to speak under TLS."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


@pytest.mark.tls
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pyOpenSSL would like other certificates of Twisted
@pytest.mark.parametrize(("servers", "chosen"), [(Servers, None), (Speaking, "http/1.1")])
@pytest_twisted.ensureDeferred
async def test_tlsClientsThatOfferProtocols(tmp_path: Path, servers: type[Servers], chosen: str | None) -> None:
    """curl and browsers do; a server that knows none has to take them all the same."""
    from twisted.internet import reactor

    signed = selfSigned()
    (tmp_path / "both.pem").write_bytes(signed.certificate + signed.key)
    text = f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/both.pem:certKey={tmp_path}/both.pem"
    port = await listen(reactor, servers(), EndpointTarget(text))

    def shake() -> str | None:
        context = ssl.create_default_context(cadata=signed.certificate.decode())
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(addressOf(port), 10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as client,
        ):
            return client.selected_alpn_protocol()

    assert await deferToThread(shake) == chosen
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_endpoint() -> None:
    async with listening(TCP4ServerEndpoint(Elsewhere(), 0, interface="127.0.0.1")) as (port, servers):
        await servers.meets(addressOf(port))


@pytest.mark.parametrize("text", ["nonsense:red", "tcp:many", "tcp:80:colour=red", "tcp:", "ssl:443:privateKey=none"])
@pytest_twisted.ensureDeferred
async def test_aTextThatIsNoEndpoint(text: str) -> None:
    if text.startswith("ssl"):
        pytest.importorskip("OpenSSL")
    error = await refused(EndpointTarget(text))
    assert isinstance(error, AddressError)
    assert str(error).startswith(f"{text!r} is no endpoint to listen on: ")
    assert error.address == EndpointTarget(text)


@implementer(IStreamServerEndpoint)
class Answering:
    """An endpoint that does what it was told."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self._answer = answer

    def listen(self, protocolFactory: object) -> Deferred[Any]:
        return self._answer


@pytest_twisted.ensureDeferred
async def test_anEndpointThatFails() -> None:
    error = await refused(Answering(fail(OSError(errno.EADDRINUSE, "taken"))))
    assert error.code == "EADDRINUSE"
    assert isinstance(error.__cause__, OSError)


@pytest_twisted.ensureDeferred
async def test_anEndpointThatIsCancelled() -> None:
    never: Deferred[Any] = Deferred()
    starting = listen(Elsewhere(), Servers(), Answering(never))
    starting.cancel()
    with pytest.raises(NetError) as caught:
        await starting
    assert caught.value.code == "ECANCELED"
    assert never.called


@pytest.mark.parametrize("where", [UdpTarget("127.0.0.1", 0), "127.0.0.1:80", None])
@pytest_twisted.ensureDeferred
async def test_whatCannotBeListenedOn(where: Any) -> None:
    error = await refused(where)
    assert isinstance(error, AddressError)
    assert repr(where) in str(error)


# The port


class Plain:
    """A port that has only what IListeningPort promises."""

    def __init__(self, stopping: Deferred[Any]) -> None:
        self.stopping = stopping
        self.stops = 0

    def getHost(self) -> str:
        return "somewhere"

    def stopListening(self) -> Deferred[Any]:
        self.stops += 1
        return self.stopping


@pytest_twisted.ensureDeferred
async def test_theInterface() -> None:
    async with listening(LOCAL) as (port, _):
        verifyObject(IListeningPort, port)
        assert port.canPause
        assert port.port.getHost() == port.getHost()
        assert repr(port) == f"<ListeningPort {port.getHost()}>"
        with pytest.raises(BusyError) as caught:
            port.startListening()
        assert caught.value.code == "EALREADY"
    assert repr(port) == f"<ListeningPort {port.getHost()}, stopped>"


@pytest.mark.parametrize("unix", [False, True])
@pytest_twisted.ensureDeferred
async def test_pausing(unix: bool, tmp_path: Path) -> None:
    async with listening(UnixTarget(str(tmp_path / "s")) if unix else LOCAL) as (port, servers):
        port.pauseProducing()
        with socket.socket(port.port.socket.family) as client:
            client.connect(addressOf(port))
            waiting = servers.sides.get()
            for _ in range(3):
                await turn()
            assert not waiting.called
            port.resumeProducing()
            side = await waiting
        await ended(side)
        await port.stopListening()
        port.pauseProducing()
        port.resumeProducing()


@pytest_twisted.ensureDeferred
async def test_aPortThatCannotPause() -> None:
    plain = Plain(succeed(None))
    port = await listen(Elsewhere(), Servers(), Answering(succeed(plain)))
    assert not port.canPause
    port.pauseProducing()
    port.resumeProducing()
    assert port.port is plain
    await port.stopListening()
    await port.stopListening()
    assert plain.stops == 1


@pytest_twisted.ensureDeferred
async def test_allWhoStopItWaitForTheSameEnd() -> None:
    plain = Plain(Deferred())
    port = await listen(Elsewhere(), Servers(), Answering(succeed(plain)))
    first, second = port.stopListening(), port.stopListening()
    assert (first.called, second.called) == (False, False)
    plain.stopping.callback("whatever")
    await first
    await second


@pytest_twisted.ensureDeferred
async def test_stoppingThatFailsIsToldOnce() -> None:
    port = await listen(Elsewhere(), Servers(), Answering(succeed(Plain(fail(OSError(errno.EIO, "broken"))))))
    with pytest.raises(NetError) as caught:
        await port.stopListening()
    assert caught.value.code == "EIO"
    await port.stopListening()


# Again and again


class Retries(list[tuple[str, int, float]]):
    """What was told of each attempt that failed."""

    def __call__(self, error: NetError, attempt: int, delay: float) -> None:
        self.append((error.code, attempt, delay))


@pytest_twisted.ensureDeferred
async def test_retryUntilThePortIsFree() -> None:
    reactor, servers, retries = Elsewhere(), Servers(), Retries()
    with busy() as target:
        starting = listenRetrying(reactor, servers, target, EVERY_SECOND, onRetry=retries, backlog=7)
        reactor.advance(0.9)
        assert retries == [("EADDRINUSE", 1, 1.0)]
        reactor.advance(0.1)
        assert retries == [("EADDRINUSE", 1, 1.0), ("EADDRINUSE", 2, 1.0)]
    reactor.advance(1)
    port = await starting
    await servers.meets((target.host, target.port))
    await port.stopListening()
    assert (servers.started, servers.stopped) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_retryEnds() -> None:
    reactor, servers, retries = Elsewhere(), Servers(), Retries()
    with busy() as target:
        starting = listenRetrying(reactor, servers, target, EVERY_SECOND, onRetry=retries)
        reactor.advance(10)
        with pytest.raises(NetError) as caught:
            await starting
    assert caught.value.code == "EADDRINUSE"
    assert len(retries) == 2
    assert servers.started == 0
    assert reactor.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_retryOnlyWhatIsBusy() -> None:
    reactor, retries = Elsewhere(), Retries()
    with pytest.raises(NetError) as caught:
        await listenRetrying(reactor, Servers(), TcpTarget("203.0.113.1", 0), EVERY_SECOND, onRetry=retries)
    assert caught.value.code == "EADDRNOTAVAIL"
    assert retries == []


@pytest_twisted.ensureDeferred
async def test_retryCancelled() -> None:
    reactor, servers, retries = Elsewhere(), Servers(), Retries()
    with busy() as target:
        starting = listenRetrying(reactor, servers, target, EVERY_SECOND, onRetry=retries)
        reactor.advance(1.5)
        starting.cancel()
        with pytest.raises(NetError) as caught:
            await starting
    assert caught.value.code == "ECANCELED"
    assert len(retries) == 2
    assert reactor.getDelayedCalls() == []
