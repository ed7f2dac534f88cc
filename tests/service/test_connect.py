"""``net connect``: stdin and stdout, joined to a connection."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
import pytest_twisted
from launched import PATIENCE, TWIST, TWISTD, environment
from turning import turns, until
from twisted.application.service import Application, IServiceCollection
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import ILogObserver, LogLevel
from twisted.scripts._twistd_unix import ServerOptions
from zope.interface import implementer

from twisted_net import service, streams, udp
from twisted_net.address import TcpTarget
from twisted_net.errors import NetError, TimedOutError
from twisted_net.service import connect
from twisted_net.service.connect import Connect, converse, dial, exchange
from twisted_net.service.ending import Ending
from twisted_net.service.journal import Journal
from twisted_net.service.standard import Input, Output, UnreadError
from twisted_net.streams import Stream
from twisted_net.udp import UdpSocket
from twisted_net.wire.waiting import outcome

Handler = Callable[[Stream], Any]


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


# The command line


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        connect.Options().parseOptions(words)
    assert isinstance(caught.value.code, str)
    return caught.value.code


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "which address? Write net connect ADDRESS"),
        (["localhost", "80"], "'80' is one word too many behind 'localhost'; write HOST:PORT in one word"),
        (["8124"], "'8124' is no address"),
        (["--timeout-idle", "soon", ":80"], "--timeout-idle: 'soon' is no time"),
    ],
)
def test_refusal(words: list[str], told: str) -> None:
    said = refused(*words)
    assert said.startswith("net connect: ")
    assert told in said
    assert "\n" not in said


def under(root: Any, *words: str) -> connect.Options:
    net = service.Options()
    net.parent = root
    options = connect.Options()
    options.parent = net
    options.parseOptions(words)
    return options


def test_inTheForegroundAndWithoutAPidfile() -> None:
    root = ServerOptions()
    root["pidfile"] = "some.pid"
    assert under(root, "localhost:80").target == TcpTarget("localhost", 80)
    assert root["nodaemon"]
    assert root["pidfile"] == ""


# One conversation


class Strangers:
    """A server, and the program's own ends of stdin and stdout."""

    def __init__(self, reactor: Any, handler: Handler) -> None:
        self._handler = handler
        self.reactor = reactor
        self.kept = ExitStack()
        self.stdin, self.typed = self._pipe()
        self.shown, self.stdout = self._pipe()
        self.listener: Any = None

    def _pipe(self) -> tuple[IO[bytes], IO[bytes]]:
        read, write = os.pipe()
        return (
            self.kept.enter_context(os.fdopen(read, "rb", buffering=0)),
            self.kept.enter_context(os.fdopen(write, "wb", buffering=0)),
        )

    async def begin(self) -> Stream:
        self.listener = await streams.listen("127.0.0.1:0", reactor=self.reactor)
        Deferred.fromCoroutine(self.listener.serve(self._handler))
        return await dial(self.reactor, self.target, 20.0)

    @property
    def target(self) -> TcpTarget:
        return TcpTarget("127.0.0.1", self.listener.address.port)

    async def converse(self, **how: Any) -> bytes:
        """What is on stdout when it is over."""
        stream = await self.begin()
        await converse(stream, Input(self.reactor, self.stdin), Output(self.reactor, self.stdout), **how)
        return self.onStdout()

    def onStdout(self) -> bytes:
        self.stdout.close()
        return self.shown.read()


@asynccontextmanager
async def strangers(reactor: Any, handler: Handler) -> AsyncIterator[Strangers]:
    found = Strangers(reactor, handler)
    try:
        yield found
    finally:
        found.kept.close()
        if found.listener is not None:
            await found.listener.close(0)


async def answer(stream: Stream) -> None:
    """Answers when the peer has ended."""
    await stream.write((await stream.readAll()).upper())


async def greet(stream: Stream) -> None:
    """Says something and ends; hears the peer out."""
    await stream.write(b"welcome")
    await stream.end()
    heard.append(await stream.readAll())


heard: list[bytes] = []


async def reset(stream: Stream) -> None:
    await stream.read()
    stream.abort()


@pytest_twisted.ensureDeferred
async def test_theEndOfStdinIsPassedOn(reactor: Any) -> None:
    async with strangers(reactor, answer) as case:
        case.typed.write(b"hello")
        case.typed.close()
        assert await case.converse() == b"HELLO"


@pytest_twisted.ensureDeferred
async def test_thePeersEndIsNotOurs(reactor: Any) -> None:
    """What stdin has is sent all the same."""
    heard.clear()
    async with strangers(reactor, greet) as case:
        over = Deferred.fromCoroutine(case.converse())
        assert os.read(case.shown.fileno(), 100) == b"welcome" if await shown(case) else False
        assert not over.called
        case.typed.write(b"still here")
        case.typed.close()
        assert await over == b""
        await until(lambda: heard)
        assert heard == [b"still here"]


async def shown(case: Strangers) -> bool:
    """Wait until something is on stdout."""
    await Input(case.reactor, case.shown)._readiness.readable()  # type: ignore[union-attr]  # a pipe has one
    return True


@pytest_twisted.ensureDeferred
async def test_withoutHalfClosing(reactor: Any) -> None:
    """The peer ends it."""
    leave: Deferred[None] = Deferred()

    async def wait(stream: Stream) -> None:
        assert await stream.read() == b"hello"
        await leave
        assert not stream.readable, "our side is open"
        await stream.write(b"bye")

    async with strangers(reactor, wait) as case:
        case.typed.write(b"hello")
        case.typed.close()
        over = Deferred.fromCoroutine(case.converse(halfClose=False))
        await turns(5)
        assert not over.called
        leave.callback(None)
        assert await over == b"bye"


@pytest_twisted.ensureDeferred
async def test_aReset(reactor: Any) -> None:
    async with strangers(reactor, reset) as case:
        case.typed.write(b"hello")
        with pytest.raises(NetError) as caught:
            await case.converse()
        assert caught.value.code == "ECONNRESET"


@pytest_twisted.ensureDeferred
async def test_stdoutIsUnread(reactor: Any) -> None:
    """Although nothing is written, and stdin goes on."""

    async def wait(stream: Stream) -> None:
        with pytest.raises(NetError):
            await stream.read()

    async with strangers(reactor, wait) as case:
        over = Deferred.fromCoroutine(case.converse())
        await turns(3)
        assert not over.called
        case.shown.close()
        with pytest.raises(UnreadError):
            await over


@pytest_twisted.ensureDeferred
async def test_pressure(reactor: Any) -> None:
    """Whoever does not read makes the other end wait; what is in between is bounded."""
    sent = 0

    async def pour(stream: Stream) -> None:
        nonlocal sent
        with suppress(NetError):
            while True:
                await stream.write(bytes(65536))
                sent += 65536

    async with strangers(reactor, pour) as case:
        over = Deferred.fromCoroutine(case.converse())
        before = -1
        while before != sent:
            before = sent
            await turns(100)
        assert 0 < sent < 32 * 1024 * 1024
        case.shown.close()
        with pytest.raises(UnreadError):
            await over


@pytest_twisted.ensureDeferred
async def test_pressureOnTheInput(reactor: Any) -> None:
    """stdin is read as fast as the peer reads, and no faster."""

    async def sleep(stream: Stream) -> None:
        await outcome(reactor, leave)
        stream.abort()

    leave: Deferred[None] = Deferred()
    async with strangers(reactor, sleep) as case:
        stream = await case.begin()
        with open("/dev/zero", "rb") as endless:
            over = Deferred.fromCoroutine(
                converse(stream, Input(reactor, endless), Output(reactor, case.stdout), halfClose=True)
            )
            before = -1
            while before != stream.protocol.outlet.accepted:
                before = stream.protocol.outlet.accepted
                await turns(100)
            assert 0 < before < 32 * 1024 * 1024
            leave.callback(None)
            with pytest.raises(NetError):
                await over


@implementer(IStreamClientEndpoint)
class Never:
    """Nobody ever answers there."""

    def __init__(self) -> None:
        self.given: Deferred[Any] = Deferred()

    def connect(self, factory: Any) -> Deferred[Any]:
        return self.given

    def __str__(self) -> str:
        return "never:land"


@pytest_twisted.ensureDeferred
async def test_theTimeToConnectIsOver(reactor: Any) -> None:
    never: Any = Never()
    with pytest.raises(TimedOutError, match=r"connect never:land: no connection within 0\.01 s; look at"):
        await dial(reactor, never, 0.01)
    assert never.given.called, "the attempt is over"


# Datagrams


async def exchanged(case: Strangers, play: Callable[[UdpSocket], Any], idle: float | None) -> bytes:
    """What is on stdout when an exchange with a peer is over."""
    async with await udp.bind("127.0.0.1:0", reactor=case.reactor) as peer:
        peer.setTimeout(20)
        playing = Deferred.fromCoroutine(play(peer))
        client = await udp.connect(f"udp:{peer.address}", reactor=case.reactor)
        source, sink = Input(case.reactor, case.stdin), Output(case.reactor, case.stdout)
        await exchange(client, source, sink, idle=idle)
        await playing
    return case.onStdout()


@pytest.mark.parametrize("ended", [True, False])
@pytest_twisted.ensureDeferred
async def test_anExchangeEndsInSilence(ended: bool, reactor: Any) -> None:
    """Whether or not stdin has ended; what is sent counts, too."""

    async def play(peer: UdpSocket) -> None:
        packet = await peer.recvFrom()
        assert packet.data == b"question"
        for answer in (b"one ", b"", b"two"):
            await peer.sendTo(answer, packet.address)

    async with strangers(reactor, answer) as case:
        reactor.callLater(0.03, case.typed.write, b"question")
        if ended:
            reactor.callLater(0.04, case.typed.close)
        assert await exchanged(case, play, 0.05) == b"one two"


@pytest_twisted.ensureDeferred
async def test_whatIsSentCounts(reactor: Any) -> None:
    """Silence is when nothing comes and nothing goes."""
    got: list[bytes] = []

    async def play(peer: UdpSocket) -> None:
        while b"".join(got) != b"abcdef":
            got.append((await peer.recvFrom()).data)

    async with strangers(reactor, answer) as case:
        for turn, letter in enumerate(b"abcdef", 1):
            reactor.callLater(0.03 * turn, case.typed.write, bytes([letter]))
        assert await exchanged(case, play, 0.06) == b""
    assert got == [b"a", b"b", b"c", b"d", b"e", b"f"]


@pytest_twisted.ensureDeferred
async def test_nobodyIsThere(reactor: Any) -> None:
    async with strangers(reactor, answer) as case:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            port = gone.getsockname()[1]
        client = await udp.connect(f"udp:127.0.0.1:{port}", reactor=reactor)
        case.typed.write(b"hello")
        with pytest.raises(NetError) as caught:
            await exchange(client, Input(reactor, case.stdin), Output(reactor, case.stdout))
        assert caught.value.code == "ECONNREFUSED"


@pytest_twisted.ensureDeferred
async def test_anExchangeThatNobodyReads(reactor: Any) -> None:
    async with strangers(reactor, answer) as case:
        case.shown.close()
        case.typed.close()
        async with await udp.bind("127.0.0.1:0", reactor=reactor) as peer:
            client = await udp.connect(f"udp:{peer.address}", reactor=reactor)
            with pytest.raises(UnreadError):
                await exchange(client, Input(reactor, case.stdin), Output(reactor, case.stdout))


# The service


class Last(Ending):
    """An end that leaves this process alone."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, Journal("test"))
        self.over: Deferred[str] = Deferred()

    def leaveToSignals(self) -> None:
        """A test's process is not left to them."""

    def stop(self, reason: str) -> None:
        self.over.callback(reason)

    def fail(self, sentence: str) -> None:
        self.over.callback(sentence)


@contextmanager
def standard(case: Strangers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "__stdin__", case.stdin)
        patch.setattr(sys, "__stdout__", case.stdout)
        yield


def serviceFor(case: Strangers, *words: str) -> Connect:
    options = connect.Options()
    options.parseOptions([str(case.target), *words])
    found = Connect(options, case.reactor, Journal("connect"), Last(case.reactor))
    found.startService()
    return found


async def told(found: Connect) -> str:
    ending: Any = found._ending
    return str(await ending.over)


@pytest_twisted.ensureDeferred
async def test_aGoodEnd(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with strangers(reactor, answer) as case:
        (await case.begin()).abort()
        with standard(case, monkeypatch):
            found = serviceFor(case)
            case.typed.write(b"hello")
            case.typed.close()
            assert await told(found) == "it has ended"
            assert case.onStdout() == b"HELLO"
            await found.stopService()


@pytest_twisted.ensureDeferred
async def test_anEndlessSilence(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with strangers(reactor, answer) as case:
        (await case.begin()).abort()
        with standard(case, monkeypatch):
            sentence = await told(serviceFor(case, "--timeout-idle=50ms"))
    assert sentence.startswith(f"net connect: {case.target}: no byte has moved for 0.05 s; allow more with")


@pytest_twisted.ensureDeferred
async def test_stopped(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with strangers(reactor, answer) as case:
        (await case.begin()).abort()
        with standard(case, monkeypatch):
            found = serviceFor(case)
            await turns(5)
            await found.stopService()
            assert await told(found) == "nobody listens any more"


@pytest_twisted.ensureDeferred
async def test_stoppedBeforeItBegan(reactor: Any) -> None:
    options = connect.Options()
    options.parseOptions(["localhost:80"])
    await Connect(options, reactor, Journal("connect"), Last(reactor)).stopService()


@pytest_twisted.ensureDeferred
async def test_aDefect(reactor: Any, monkeypatch: pytest.MonkeyPatch, loggedErrors: Any) -> None:
    async def converse(stream: Stream, *given: Any, **how: Any) -> None:
        stream.abort()
        raise KeyError("ours")

    async with strangers(reactor, answer) as case:
        (await case.begin()).abort()
        monkeypatch.setattr(connect, "converse", converse)
        with standard(case, monkeypatch):
            assert "KeyError('ours') in the program itself; please report it" in await told(serviceFor(case))
    assert len(loggedErrors.flush(KeyError)) == 1


def test_makeService(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TWISTED_NET_TIMEOUT_IDEL", "5")
    options = under(ServerOptions(), "--verbose", "localhost:80")
    found = connect.makeService(options)
    application = Application("net")
    found.setServiceParent(application)
    observer: Any = application.getComponent(ILogObserver)
    assert found.parent is IServiceCollection(application)
    observer({"log_level": LogLevel.info, "log_time": 0.0, "log_namespace": "a", "log_format": "quite a story"})
    assert "quite a story" in capsys.readouterr().err


# As a program


@pytest.fixture(params=["twistd", "twist"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """``twistd net connect``, and ``twist net connect``."""
    return [*(TWISTD if request.param == "twistd" else TWIST), "net", "connect"]


@contextmanager
def server(play: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of a server that plays one connection in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        pid = os.fork()
        if pid == 0:
            try:
                with listening.accept()[0] as client:
                    client.settimeout(PATIENCE)
                    play(client)
            finally:
                os._exit(0)
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def echo(client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data)


def chatter(client: socket.socket) -> None:
    """One line, and then nothing until the peer is gone."""
    client.sendall(b"first\n")
    client.recv(1)


def flood(client: socket.socket) -> None:
    while True:
        client.sendall(b"line\n" * 10_000)


def hangUp(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def ended(command: list[str], folder: Path, **streams: Any) -> tuple[int, bytes | None, bytes]:
    """Exit status, stdout and stderr; nothing is left in the folder."""
    streams = {"stdout": subprocess.PIPE, **streams}
    if "input" not in streams:
        streams.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        command, stderr=subprocess.PIPE, cwd=folder, env=environment(), timeout=PATIENCE, check=False, **streams
    )
    assert list(folder.iterdir()) == []
    return done.returncode, done.stdout, done.stderr


def test_betweenPipes(program: list[str], tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with server(echo) as address:
        assert ended([*program, address], tmp_path, input=data) == (0, data, b"")


def test_betweenFiles(program: list[str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    folder = tmp_path_factory.mktemp("files")
    (folder / "in").write_bytes(data)
    with server(echo) as address, (folder / "in").open("rb") as source, (folder / "out").open("wb") as sink:
        assert ended([*program, address], tmp_path, stdin=source, stdout=sink) == (0, None, b"")
    assert (folder / "out").read_bytes() == data
    for name in ("in", "out"):
        (folder / name).unlink()


def test_onATerminal(program: list[str], tmp_path: Path) -> None:
    user, line = os.openpty()
    with (
        os.fdopen(user, "r+b", buffering=0) as typed,
        os.fdopen(line, "r+b", buffering=0) as terminal,
        server(echo) as address,
        subprocess.Popen(
            [*program, address], stdin=terminal, stdout=terminal, cwd=tmp_path, env=environment()
        ) as one,
    ):
        typed.write(b"hello\n")
        seen = b""
        while seen.count(b"hello\r\n") < 2:  # as it is typed, and as it comes back
            seen += typed.read(100)
        typed.write(b"\x04")
        assert one.wait(PATIENCE) == 0


@pytest.mark.parametrize("reactor", ["", "epoll", "asyncio"])
@pytest.mark.parametrize("kind", ["pipes", "socket", "terminal"])
def test_whatIsSharedStaysAsItIs(tmp_path: Path, kind: str, reactor: str) -> None:
    """stdin and stdout are not made non-blocking for their other users, not even by a program that is killed."""
    with ExitStack() as kept:
        if kind == "pipes":
            source, typed = os.pipe()
            shown, sink = os.pipe()
        elif kind == "socket":
            near, far = (kept.enter_context(one) for one in socket.socketpair())
            source, sink, typed, shown = near.fileno(), near.fileno(), far.fileno(), far.fileno()
        else:
            typed, source = os.openpty()
            sink, shown = source, typed
        if kind != "socket":
            for number in {source, typed, shown, sink}:
                kept.callback(os.close, number)
        with server(echo) as address:
            env = environment({"TWISTED_NET_REACTOR": reactor})
            command = [*TWISTD, "net", "connect", address]
            with subprocess.Popen(command, stdin=source, stdout=sink, cwd=tmp_path, env=env) as one:
                os.write(typed, b"hello\n")
                seen = b""
                while seen.count(b"hello") < (2 if kind == "terminal" else 1):  # as it is typed, and as it comes back
                    seen += os.read(shown, 100)
                assert os.get_blocking(source)
                assert os.get_blocking(sink)
                one.kill()
                one.wait(PATIENCE)
        assert os.get_blocking(source)
        assert os.get_blocking(sink)


CLOSING = "import os, sys; os.close(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.mark.parametrize(("number", "given", "out"), [(0, b"", b""), (1, b"hello", b""), (2, b"hello", b"hello")])
def test_closed(program: list[str], tmp_path: Path, number: int, given: bytes, out: bytes) -> None:
    with server(echo) as address:
        command = [sys.executable, "-c", CLOSING, str(number), *program, address]
        assert ended(command, tmp_path, input=given) == (0, out, b"")


@pytest.mark.parametrize("play", [chatter, flood])
def test_head(program: list[str], tmp_path: Path, play: Callable[[socket.socket], object]) -> None:
    """``| head -1`` ends it, without a word, although stdin goes on and whether or not more comes."""
    with server(play) as address:
        one = subprocess.Popen(
            [*program, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(),
        )
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stderr is not None
        with one, one.stderr:
            assert one.stdout.readline() in (b"first\n", b"line\n")
            one.stdout.close()
            assert one.stderr.read() == b""
            assert one.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(program: list[str], tmp_path: Path, number: signal.Signals) -> None:
    with server(chatter) as address:
        one = subprocess.Popen(
            [*program, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env=environment()
        )
        assert one.stdin is not None
        assert one.stdout is not None
        with one:
            assert one.stdout.readline() == b"first\n"
            one.send_signal(number)
            assert one.wait(PATIENCE) == -number


def test_reset(program: list[str], tmp_path: Path) -> None:
    with server(hangUp) as address:
        code, out, err = ended([*program, address], tmp_path)
    assert (code, out) == (1, b"")
    assert err.startswith(b"net connect: ")
    assert err.count(b"\n") == 1


def test_refusedByThePeer(program: list[str], tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        code, out, err = ended([*program, f"127.0.0.1:{bound.getsockname()[1]}"], tmp_path)
    assert (code, out) == (1, b"")
    assert err.count(b"\n") == 1
    assert b"nobody accepts connections there" in err


@pytest.mark.parametrize("place", ["unix", "abstract", "endpoint"])
def test_otherAddresses(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, place: str) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    name = f"tn{os.getpid()}"
    with socket.socket(socket.AF_INET if place == "endpoint" else socket.AF_UNIX) as listening:
        where: Any = {"unix": str(path), "abstract": f"\0{name}", "endpoint": ("127.0.0.1", 0)}
        listening.bind(where[place])
        listening.listen()
        listening.settimeout(PATIENCE)
        ours = {"unix": str(path), "abstract": f"unix:@{name}"}
        address = ours.get(place) or f"tcp:host=127.0.0.1:port={listening.getsockname()[1]}"
        command = [*TWISTD, "net", "connect", address]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=tmp_path, env=environment()
        ) as one:
            with listening.accept()[0] as client:
                client.sendall(b"hello")
            assert one.communicate(timeout=PATIENCE)[0] == b"hello"
            assert one.returncode == 0
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("place", ["udp", "unixgram"])
def test_datagrams(program: list[str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, place: str) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    with socket.socket(socket.AF_INET if place == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0) if place == "udp" else str(path))
        peer.settimeout(PATIENCE)
        address = f"udp:127.0.0.1:{peer.getsockname()[1]}" if place == "udp" else f"unixgram:{path}"
        with subprocess.Popen(
            [*program, "--timeout-idle", "1s", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(),
        ) as one:
            assert one.stdin is not None
            one.stdin.write(b"hello")
            one.stdin.close()
            one.stdin = None
            data, client = peer.recvfrom(100)
            assert data == b"hello"
            peer.sendto(b"world", client)
            assert one.communicate(timeout=PATIENCE)[0] == b"world"
            assert one.returncode == 0
    path.unlink(missing_ok=True)


def test_verbose(program: list[str], tmp_path: Path) -> None:
    with server(echo) as address:
        code, out, err = ended([*program, "--verbose", address], tmp_path, input=b"hello")
    assert (code, out) == (0, b"hello")
    assert f"connect: connected to {address} from 127.0.0.1:".encode() in err
    assert b"closed (ended): 5 bytes in, 5 bytes out" in err


def test_pidfileAndDaemonAreNotForIt(tmp_path: Path) -> None:
    with server(echo) as address:
        command = [*TWISTD, "--pidfile=net.pid", "net", "connect", address]
        assert ended(command, tmp_path, input=b"hello") == (0, b"hello", b"")
