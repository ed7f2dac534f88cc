"""From options to a service that listens."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from launched import connect, drained
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.systemd import ListenFDs

from twisted.plugins import twisted_core
from twisted_net import udp
from twisted_net.address import EndpointTarget, TcpTarget, UdpTarget, UnixTarget, parseTarget
from twisted_net.errors import NetError, OptionError
from twisted_net.net import Socket
from twisted_net.service.datagrams import forDatagrams
from twisted_net.service.echo import echo
from twisted_net.service.ending import Ending
from twisted_net.service.journal import Journal
from twisted_net.service.launch import TURNS, Launch, Serving, forCoroutine, forHandler, launch, surroundings
from twisted_net.service.options import Choices, DatagramTarget, ServiceOptions
from twisted_net.streams import Stream
from twisted_net.udp import UdpSocket
from twisted_net.wire.factory import Ended
from twisted_net.wire.limits import Limits
from twisted_net.wire.waiting import loopOf, outcome

FREE = TcpTarget("127.0.0.1", 0)
CHOICES = Choices(
    listen=(FREE,),
    backlog=5,
    retryBind=None,
    limits=Limits(),
    halfOpen=False,
    grace=30.0,
    accessLog=True,
    logFormat="text",
)


class Notes(Journal):
    """A journal that can be asked."""

    def __init__(self) -> None:
        super().__init__("test")
        self.said: list[tuple[str, Any]] = []

    def listening(self, address: object, reactor: object) -> None:
        self.said.append(("listening", str(address)))

    def retry(self, address: object, error: NetError, attempt: int, delay: float) -> None:
        self.said.append(("retry", attempt))

    def stopping(self, reason: str, connections: int, grace: float) -> None:
        self.said.append(("stopping", connections))

    def stopped(self) -> None:
        self.said.append(("stopped", None))

    def failed(self, sentence: str) -> None:
        self.said.append(("failed", sentence))

    def notClosed(self, address: object, error: str) -> None:
        self.said.append(("notClosed", error))

    def what(self) -> list[str]:
        return [one for one, _ in self.said]


class Last(Ending):
    """An end that leaves this process alone."""

    def __init__(self, reactor: Any, journal: Journal) -> None:
        super().__init__(reactor, journal)
        self.failed: Deferred[str] = Deferred()
        self.watched = 0

    def watch(self) -> None:
        self.watched += 1

    def fail(self, sentence: str) -> None:
        self.failed.callback(sentence)


class Case:
    """A service and what it says."""

    def __init__(self, reactor: Any, *listen: Any, serve: Any = None, **changes: Any) -> None:
        self.choices = replace(CHOICES, listen=listen or (FREE,), **changes)
        self.journal = Notes()
        self.ending = Last(reactor, self.journal)
        serving = (serve or partial(forHandler, echo))(self.choices, reactor)
        self.service = Launch(serving, self.choices, reactor, self.journal, self.ending, "net test")

    def start(self, **root: Any) -> Case:
        self.service.bind(root)
        self.service.privilegedStartService()
        self.service.startService()
        return self

    @property
    def addresses(self) -> list[str]:
        return [value for what, value in self.journal.said if what == "listening"]


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def resting() -> Iterator[Any]:
    """A reactor that does not run, as while a service is made."""
    other: Any = SelectReactor()
    yield other
    for reader in tuple(other._internalReaders):
        other._removeInternalReader(reader)
        reader.connectionLost(None)


@pytest.fixture
def busy() -> Iterator[TcpTarget]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield TcpTarget("127.0.0.1", other.getsockname()[1])


def talkTo(address: str) -> bytes:
    with connect(address) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        return drained(client)


@pytest_twisted.ensureDeferred
async def test_severalPlaces(reactor: Any, tmp_path: Path) -> None:
    case = Case(reactor, FREE, UnixTarget(f"{tmp_path}/x.sock"), EndpointTarget("tcp:0:interface=127.0.0.1"))
    case.start()
    assert len(case.addresses) == 3
    for address in case.addresses:
        assert await deferToThread(talkTo, address) == b"hello"
    assert case.ending.watched == 2
    await case.service.stopService()
    assert case.journal.what() == ["listening"] * 3 + ["stopping", "stopped"]
    assert not (tmp_path / "x.sock").exists()
    case.service.release()  # harmless


@pytest_twisted.ensureDeferred
async def test_stoppingDrains(reactor: Any) -> None:
    case = Case(reactor, grace=0.05).start()
    with connect(case.addresses[0]) as client:
        client.sendall(b"x")
        assert await deferToThread(client.recv, 1) == b"x"
        await case.service.stopService()
        assert ("stopping", 1) in case.journal.said
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest_twisted.ensureDeferred
async def test_underTwist(reactor: Any) -> None:
    """No privileged start; what has to begin does so with the reactor."""
    case = Case(reactor)
    begun: list[None] = []
    case.service.serving = replace(case.service.serving, begin=lambda: begun.append(None))
    case.service.bind()
    case.service.startService()
    assert begun == [None]
    await case.service.stopService()


def test_theParentIsTold(reactor: Any) -> None:
    case = Case(reactor)
    told: list[object] = []
    case.service.joined = told.append
    parent = MultiService()
    case.service.setServiceParent(parent)
    assert told == [parent]


# Coroutines


async def shout(stream: Stream) -> None:
    async for chunk in stream:
        if chunk == b"boom":
            raise KeyError("theirs")
        await stream.write(chunk.upper())


@pytest_twisted.ensureDeferred
async def test_aCoroutineForEachConnection(reactor: Any) -> None:
    """They may answer after the peer's end, whatever is said of half-open connections."""
    case = Case(reactor, FREE, FREE, serve=partial(forCoroutine, shout)).start()
    ended: list[Ended] = []
    case.service.factory.journal = ended.append
    for address in case.addresses:
        assert await deferToThread(talkTo, address) == b"HELLO"
    assert [(one.bytesRead, one.bytesWritten, one.error) for one in ended] == [(5, 5, None)] * 2
    await case.service.stopService()


@pytest_twisted.ensureDeferred
async def test_aCoroutineThatRaises(reactor: Any, loggedErrors: Any) -> None:
    """It is logged with its peer, and ends its connection alone."""
    case = Case(reactor, serve=partial(forCoroutine, shout)).start()
    ended: list[Ended] = []
    case.service.factory.journal = ended.append
    with connect(case.addresses[0]) as other, connect(case.addresses[0]) as client:
        client.sendall(b"boom")
        with pytest.raises(ConnectionResetError):
            await deferToThread(client.recv, 1)
        (event,) = loggedErrors.flush(KeyError)
        port = client.getsockname()[1]
        assert event["peer"] == f"127.0.0.1:{port}"
        assert [repr(one.error) for one in ended] == ["KeyError('theirs')"]
        other.sendall(b"still")
        assert await deferToThread(other.recv, 5) == b"STILL"
    await case.service.stopService()


@pytest_twisted.ensureDeferred
async def test_limitsHoldForCoroutines(reactor: Any) -> None:
    limits = Limits(connections=1, idleTimeout=0.05)
    case = Case(reactor, serve=partial(forCoroutine, shout), limits=limits).start()
    ended: list[Ended] = []
    case.service.factory.journal = ended.append
    with connect(case.addresses[0]) as client, connect(case.addresses[0]) as other:
        assert await deferToThread(other.recv, 1) == b"", "refused"
        assert await deferToThread(client.recv, 1) == b"", "it was idle"
    assert [getattr(one.error, "code", None) for one in ended] == ["ETIMEDOUT"]
    assert case.service.factory.counters["refused"] == 1
    await case.service.stopService()


@pytest_twisted.ensureDeferred
async def test_coroutinesFinishWhenTheServiceStops(reactor: Any) -> None:
    """Also what they do when their connection is over."""
    going: Deferred[None] = Deferred()
    begun: Deferred[None] = Deferred()

    async def note(stream: Stream) -> None:
        await stream.close()
        begun.callback(None)
        await outcome(reactor, going)

    case = Case(reactor, serve=partial(forCoroutine, note)).start()
    with connect(case.addresses[0]):
        await begun
        stopped = case.service.stopService()
        await deferLater(reactor, 0)
        assert not stopped.called
        going.callback(None)
        await stopped


@pytest_twisted.ensureDeferred
async def test_coroutinesAreCancelledWhenTheGraceIsOver(reactor: Any) -> None:
    cancelled: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))

    async def wait(stream: Stream) -> None:
        await stream.write(b"x")
        await outcome(reactor, cancelled)

    case = Case(reactor, serve=partial(forCoroutine, wait), grace=0.05).start()
    with connect(case.addresses[0]) as client:
        assert await deferToThread(client.recv, 1) == b"x"
        await case.service.stopService()
        assert cancelled.called
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest_twisted.ensureDeferred
async def test_whoRunsCoroutines(reactor: Any) -> None:
    """asyncio where it runs the reactor, so that its libraries work in them; Twisted elsewhere."""

    async def nap(stream: Stream) -> None:
        await stream.readAll()  # closed with something unread, a socket answers with RST
        await (deferLater(reactor, 0) if loopOf(reactor) is None else asyncio.sleep(0))
        await stream.write(b"slept")

    case = Case(reactor, serve=partial(forCoroutine, nap)).start()
    assert await deferToThread(talkTo, case.addresses[0]) == b"slept"
    await case.service.stopService()


# Datagrams


async def beep(own: UdpSocket) -> None:
    async for packet in own:
        await own.sendTo(packet.data * 2, packet.address)


@pytest_twisted.ensureDeferred
async def test_placesForDatagrams(reactor: Any, tmp_path: Path) -> None:
    places = (DatagramTarget(UdpTarget("127.0.0.1", 0)), DatagramTarget(UnixTarget(f"{tmp_path}/x.sock", 0o600)))
    case = Case(reactor, *places, serve=partial(forDatagrams, beep)).start()
    internet, unix = case.addresses
    assert internet.startswith("udp:127.0.0.1:")
    assert unix == f"unixgram:{tmp_path}/x.sock"
    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == 0o600
    for address in (internet, f"{tmp_path}/x.sock"):
        async with await udp.connect(address) as client:
            await client.send(b"hello")
            assert await client.recv() == b"hellohello"
    await case.service.stopService()
    assert case.journal.what() == ["listening"] * 2 + ["stopping", "stopped"]
    assert not (tmp_path / "x.sock").exists()


@pytest_twisted.ensureDeferred
async def test_aPlaceForDatagramsThatIsTaken(reactor: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = DatagramTarget(UdpTarget("127.0.0.1", other.getsockname()[1]))
        unix = DatagramTarget(UnixTarget(f"{tmp_path}/x.sock"))
        case = Case(reactor, unix, taken, serve=partial(forDatagrams, beep))
        with pytest.raises(NetError) as caught:
            case.service.bind()
    assert caught.value.code == "EADDRINUSE"
    assert "--retry-bind" not in case.service.sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


# Places that cannot be had


def test_aBusyPlaceLeavesNothing(resting: Any, busy: TcpTarget, tmp_path: Path) -> None:
    case = Case(resting, UnixTarget(f"{tmp_path}/x.sock"), FREE, busy)
    with pytest.raises(NetError) as caught:
        case.service.bind()
    assert caught.value.code == "EADDRINUSE"
    assert case.service.sentence(caught.value).endswith(", or wait for it with --retry-bind 30s")
    assert list(tmp_path.iterdir()) == []
    assert case.journal.said == []
    assert set(resting.getReaders()) == resting._internalReaders


def test_givingUpTakesNoLongerThanItMust(resting: Any, busy: TcpTarget) -> None:
    case = Case(resting)
    turns: list[float] = []
    resting.iterate = turns.append
    case.service.bind()
    port = case.service.places[0].port
    case.service.release()
    assert len(turns) == TURNS
    del resting.iterate
    while port.port.connected:
        resting.iterate(0.01)


@pytest_twisted.ensureDeferred
async def test_aReactorThatRunsClosesByItself(reactor: Any, busy: TcpTarget) -> None:
    case = Case(reactor, FREE, busy)
    with pytest.raises(NetError):
        case.service.bind()
    await deferLater(reactor, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("systemd:domain=INET:index=0", "listen systemd:domain=INET:index=0: systemd has handed over no such socket"),
        ("192.0.2.1:80", "listen 192.0.2.1:80: the address is none of this machine; use one that an interface"),
        ("host.invalid:80", "the name has no address"),
        ("nosuch:kind", "'nosuch:kind' is no endpoint to listen on"),
    ],
)
def test_aPlaceThatIsNone(resting: Any, text: str, told: str) -> None:
    case = Case(resting, parseTarget(text))
    with pytest.raises(NetError) as caught:
        case.service.bind()
    assert told in case.service.sentence(caught.value)


def test_aPathThatIsTakenByAFile(resting: Any, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    case = Case(resting, UnixTarget(f"{tmp_path}/x"))
    with pytest.raises(NetError) as caught:
        case.service.bind()
    assert caught.value.code == "EADDRINUSE"
    assert "--retry-bind" not in case.service.sentence(caught.value)


def test_aPathThatIsServed(resting: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/x")
        other.listen()
        case = Case(resting, UnixTarget(f"{tmp_path}/x"))
        with pytest.raises(NetError) as caught:
            case.service.bind()
    (tmp_path / "x").unlink()
    assert "or wait for it with --retry-bind 30s" in case.service.sentence(caught.value)


def test_anEndpointThatIsBroken(resting: Any) -> None:
    error = NetError("an exception ended it", code="ERR_INTERNAL", address="late:now")
    error.__cause__ = KeyError("theirs")
    assert Case(resting).service.sentence(error).startswith("listen late:now: KeyError('theirs'); correct")


@pytest_twisted.ensureDeferred
async def test_aPortThatDoesNotClose(reactor: Any) -> None:
    case = Case(reactor).start()
    port = case.service.places[0].port

    class Stubborn:
        def stopListening(self) -> Deferred[None]:
            return fail(NetError("it stays", code="EIO"))

    case.service.places[0].port = Stubborn()
    await case.service.stopService()
    assert ("notClosed", "it stays [EIO]") in case.journal.said
    case.service.factory.disown(port)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_aSocketOfSystemds(reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(path))
        handed = ListenFDs([os.dup(skt.fileno())], ["echo"])
        # Read from the environment as the plugin is imported; this process has none to hand over.
        monkeypatch.setattr(twisted_core.systemdEndpointParser, "_sddaemon", handed)
        case = Case(reactor, parseTarget("systemd:domain=UNIX:name=echo")).start()
        assert case.addresses == [f"unix:{path}"]
        assert await deferToThread(talkTo, case.addresses[0]) == b"hello"
        await case.service.stopService()
        assert path.exists()
    path.unlink()


# What is settled later


@pytest_twisted.ensureDeferred
async def test_aRetryThatSucceeds(reactor: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = TcpTarget("127.0.0.1", other.getsockname()[1])
        case = Case(reactor, FREE, place, retryBind=60.0).start()
    assert case.journal.what() == ["retry", "listening"]
    while len(case.addresses) < 2:
        await deferLater(reactor, 0.01)
    assert case.addresses[1] == str(place)
    assert await deferToThread(talkTo, str(place)) == b"hello"
    await case.service.stopService()


@pytest_twisted.ensureDeferred
async def test_retriesUsedUp(reactor: Any, busy: TcpTarget) -> None:
    case = Case(reactor, FREE, busy, retryBind=0.05).start()
    sentence = await case.ending.failed
    assert sentence.startswith(f"net test: listen {busy}: the address is in use; ")
    assert sentence.endswith("(tried again for 0.05 s)")
    assert ("failed", sentence) in case.journal.said
    await case.service.stopService()


@pytest_twisted.ensureDeferred
async def test_stoppedMeanwhile(reactor: Any, busy: TcpTarget) -> None:
    case = Case(reactor, busy, retryBind=60.0).start()
    await case.service.stopService()
    assert case.journal.what() == ["retry", "stopping", "stopped"]
    assert not case.ending.failed.called


@pytest_twisted.ensureDeferred
async def test_theirsFailsToStart(reactor: Any, loggedErrors: Any) -> None:
    case = Case(reactor)

    def begin() -> None:
        raise RuntimeError("the disk is full")

    case.service.serving = replace(case.service.serving, begin=begin)
    case.service.bind({"nodaemon": True})
    case.service.privilegedStartService()
    case.service.startService()
    said = (await case.ending.failed).splitlines()
    assert said[-2] == "RuntimeError: the disk is full"
    assert said[-1].startswith("net test: the handler fails to start")
    await case.service.stopService()
    assert len(loggedErrors.flush(RuntimeError)) == 1


@pytest_twisted.ensureDeferred
async def test_theirsFailsToStartInADaemon(reactor: Any) -> None:
    case = Case(reactor)

    def begin() -> None:
        raise RuntimeError("the disk is full")

    case.service.serving = replace(case.service.serving, begin=begin)
    case.service.bind({"nodaemon": False, "umask": None})
    with pytest.raises(RuntimeError):
        case.service.privilegedStartService()
    case.service.release()  # as at exit
    await deferLater(reactor, 0)


# What twistd will do to the process


def test_surroundings(tmp_path: Path) -> None:
    before, mask = os.getcwd(), os.umask(0o022)
    os.umask(0o022)
    try:
        cases: list[tuple[dict[str, Any], bool, int]] = [
            ({"rundir": str(tmp_path), "umask": 0o027}, True, 0o750),
            ({"rundir": str(tmp_path), "umask": None}, True, 0o700),
            ({"rundir": str(tmp_path)}, False, 0o755),
        ]
        for root, daemon, expected in cases:
            with surroundings(root, daemon):
                assert os.getcwd() == str(tmp_path)
                os.mkdir("made")
            assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == expected
            (tmp_path / "made").rmdir()
            assert os.getcwd() == before
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)


def test_noSuchFolder(tmp_path: Path) -> None:
    before = os.getcwd()
    with pytest.raises(NetError, match=r"twistd's --rundir .*: No such file"), surroundings({"rundir": "/no"}, False):
        raise AssertionError
    assert os.getcwd() == before


# launch()


class Options(ServiceOptions):
    command = "test"
    purpose = "Be tested."


@pytest.fixture(autouse=True)
def _noVariables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("TWISTED_NET_"):
            monkeypatch.delenv(name)


def options(*words: str, **root: Any) -> Options:
    found = Options()
    if root:
        found.parent = Options()
        found.parent.update(root)
    found.parseOptions(words)
    return found


def ignore(client: Socket) -> None:
    """A handler."""


def build(choices: Choices, reactor: Any) -> Serving:
    return forHandler(ignore, choices, reactor)


@pytest_twisted.ensureDeferred
async def test_launch(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[None] = []

    def beginning(choices: Choices, reactor: Any) -> Serving:
        return replace(build(choices, reactor), begin=lambda: begun.append(None))

    monkeypatch.setenv("TWISTED_NET_LIMT_BURST", "1MB")
    service = launch(options("--listen=127.0.0.1:0", "--log-format=json"), beginning)
    assert service.factory.journal is not None
    service.joined(object())
    service.privilegedStartService()
    assert begun == [None]
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_launchWithoutAnAccessLog(reactor: Any) -> None:
    service = launch(options("--listen=127.0.0.1:0", "--no-access-log"), build)
    assert service.factory.journal is None
    service.release()
    await deferLater(reactor, 0)


@pytest_twisted.ensureDeferred
async def test_launchWhereItCannotListen(busy: TcpTarget) -> None:
    with pytest.raises(SystemExit, match=rf"^net test: listen {busy}: the address is in use;"):
        launch(options(f"--listen={busy}"), build)


@pytest_twisted.ensureDeferred
async def test_chroot(reactor: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"outside of twistd's --chroot /srv"):
        launch(options("--listen", f"{tmp_path}/x.sock", chroot="/srv"), build)
    service = launch(options("--listen", f"unix:@{tmp_path.name}", chroot="/srv"), build)
    service.release()
    await deferLater(reactor, 0)


def test_limitsAreChecked() -> None:
    with pytest.raises(OptionError):
        replace(CHOICES, limits=Limits(connections=-1))
