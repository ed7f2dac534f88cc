"""The launcher under twistd and twist, as operators run it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from launched import PATIENCE, TWIST, TWISTD, Ended, Running, connect, daemon, drained, gone, run, talk
from programs import until

FOREGROUND = ("-n", "--pidfile=")
DAEMON = ("--pidfile=net.pid", "--logfile=net.log")
LOCAL = ("--listen", "127.0.0.1:0")

HELLO = '''
    from twisted.internet.protocol import Factory, Protocol

    def greet(client):
        client.write("welcome\\r\\n")
        client.pipe(client)

    class Shout(Protocol):
        def dataReceived(self, data):
            self.transport.write(data.upper())
            self.transport.loseConnection()

    class Shouting(Factory):
        protocol = Shout
        def startFactory(self):
            print("the factory starts")

    class Broken(Factory):
        def startFactory(self):
            raise RuntimeError("the disk is full")

    def make():
        return Shouting()

    class Slow:
        async def serve(stream):
            import asyncio
            from twisted.internet import reactor
            from twisted.internet.task import deferLater
            async for chunk in stream:
                if chunk == b"boom":
                    raise KeyError
                if hasattr(reactor, "_asyncioEventloop"):
                    await asyncio.sleep(0.001)
                await deferLater(reactor, 0.001)
                await stream.write(chunk.upper())

    def leave(client):
        from twisted.internet import reactor
        reactor.stop()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(dedent(HELLO))
    return tmp_path


@pytest.fixture
def busy() -> Iterator[str]:
    """A place where somebody listens already."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


def stopped(program: Running, number: int = signal.SIGTERM) -> Ended:
    program.signal(number)
    return program.end()


# Serving


def test_echoInTheForeground(tmp_path: Path) -> None:
    with Running(TWISTD, *FOREGROUND, "net", "echo", *LOCAL, folder=tmp_path) as program:
        address = program.address()
        assert "Reactor)" in program.lines[-1]
        assert talk(address, b"hello" * 100_000) == b"hello" * 100_000
        peer = program.wait(r"(\S+) closed \(ended\): 500000 bytes in, 500000 bytes out, [0-9.]+ s")
        assert peer[1].startswith("127.0.0.1:")
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")
    assert "echo has stopped" in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reactor", ["epoll", "asyncio", "poll", "select"])
def test_daemon(tmp_path: Path, reactor: str) -> None:
    words = ("--listen", "./echo.sock", "--log-format", "json")
    ended = run(TWISTD, "--reactor", reactor, *DAEMON, "net", "echo", *LOCAL, *words, folder=tmp_path)
    assert ended == Ended(0, "", "")
    with daemon(tmp_path / "net.pid") as pid:
        started = records((tmp_path / "net.log").read_text())
        places = [str(one["address"]) for one in started if one["event"] == "listening"]
        assert talk(places[0], b"hello") == b"hello"
        assert talk(f"unix:{tmp_path}/echo.sock", b"hello") == b"hello"
        assert stat.S_IMODE((tmp_path / "echo.sock").stat().st_mode) == 0o700
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    log = records((tmp_path / "net.log").read_text())
    assert [one["event"] for one in log if one["event"] != "log"] == [
        "reactor",
        "listening",
        "listening",
        "closed",
        "closed",
        "stopping",
        "stopped",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"net.log"}


def test_discard(tmp_path: Path) -> None:
    with Running(TWISTD, *FOREGROUND, "net", "discard", *LOCAL, "--half-open", folder=tmp_path) as program:
        assert talk(program.address(), b"x" * 200_000) == b""
        program.wait(r"closed \(ended\): 200000 bytes in, 0 bytes out")
        assert stopped(program, signal.SIGINT).code == 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["hello:greet"], b"welcome\r\nhello"),
        (["hello:Shout"], b"HELLO"),
        (["hello:Shouting"], b"HELLO"),
        (["--factory", "hello:make"], b"HELLO"),
        (["--limit-connections", "1", "--rate-read", "1MB/s", "--timeout-idle", "1h", "hello:Shout"], b"HELLO"),
    ],
)
def test_serve(folder: Path, words: list[str], answer: bytes) -> None:
    with Running(TWISTD, *FOREGROUND, "net", "serve", *LOCAL, *words, folder=folder) as program:
        address = program.address()
        with connect(address) as client:
            client.sendall(b"hello")
            client.settimeout(60)
            found = b""
            while len(found) < len(answer):
                found += client.recv(100)
        assert found == answer
        program.wait(r"closed \(ended\): 5 bytes in, \d+ bytes out")
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("the factory starts") == ("hello:Shouting" in words or "--factory" in words)


@pytest.mark.parametrize("reactor", ["epoll", "asyncio", "select"])
def test_coroutines(folder: Path, reactor: str) -> None:
    """They wait with Twisted's way to wait, and where asyncio runs them with asyncio's own too."""
    words = ("net", "serve", *LOCAL, "--timeout-graceful-shutdown", "50ms", "hello:Slow.serve")
    with Running(TWISTD, "--reactor", reactor, *FOREGROUND, *words, folder=folder) as program:
        address = program.address()
        assert talk(address, b"hello") == b"HELLO"
        program.wait(r"closed \(ended\): 5 bytes in, 5 bytes out")
        with pytest.raises(ConnectionResetError):
            talk(address, b"boom")
        program.wait(r"the handler of \S+ raised; its stream was aborted")
        program.wait("KeyError")
        program.wait(r"closed \(KeyError\): 4 bytes in, 0 bytes out")
        with connect(address) as client:
            client.sendall(b"stay")
            assert client.recv(4) == b"STAY"
            ended = stopped(program)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert (ended.code, ended.err) == (0, "")
    assert "closed (ECONNABORTED): 4 bytes in, 4 bytes out" in ended.out
    assert "serve has stopped" in ended.out


EXAMPLES = str(Path(__file__).parent.parent.parent / "docs" / "examples")


@pytest.mark.parametrize("handler", ["answer", "answerAll"])
def test_theManualsDatagrams(tmp_path: Path, handler: str) -> None:
    words = ("--listen", "udp:127.0.0.1:0", "--listen", "unixgram:./x.sock", "--app-dir", EXAMPLES)
    program = Running(TWISTD, *FOREGROUND, "net", "serve", *words, f"serve_names:{handler}", folder=tmp_path)
    with program, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        host, _, port = program.address().removeprefix("udp:").rpartition(":")
        assert program.address() == "unixgram:./x.sock"
        client.settimeout(PATIENCE)
        client.sendto(b"hello", (host, int(port)))
        assert client.recv(100) == b"HELLO"
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")
    assert "serve has stopped" in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reactor", ["epoll", "asyncio"])
def test_aCoroutineInADaemon(tmp_path: Path, reactor: str) -> None:
    words = ("net", "serve", "--listen", "./x.sock", "--app-dir", EXAMPLES, "serve_shout:shout")
    assert run(TWISTD, "--reactor", reactor, *DAEMON, *words, folder=tmp_path) == Ended(0, "", "")
    with daemon(tmp_path / "net.pid") as pid:
        assert talk(f"unix:{tmp_path}/x.sock", b"hello") == b"welcome\r\nHELLO"
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    assert "serve has stopped" in (tmp_path / "net.log").read_text()


def test_theManualsCoroutine(tmp_path: Path) -> None:
    words = ("net", "serve", *LOCAL, "--app-dir", EXAMPLES, "serve_shout:shout")
    with Running(TWISTD, *FOREGROUND, *words, folder=tmp_path) as program:
        assert talk(program.address(), b"hello") == b"welcome\r\nHELLO"
        assert stopped(program).code == 0


def test_appDir(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    env = {"TWISTED_NET_APP_DIR": "..", "TWISTED_NET_FACTORY": "yes", "TWISTED_NET_LISTEN": "127.0.0.1:0 ./x.sock"}
    with Running(TWISTD, *FOREGROUND, "net", "serve", "hello:make", folder=elsewhere, env=env) as program:
        assert program.address().startswith("127.0.0.1:")
        assert talk(f"unix:{elsewhere}/x.sock", b"hello", end=False) == b"HELLO"
        assert stopped(program).code == 0


def test_noAccessLog(tmp_path: Path) -> None:
    with Running(TWISTD, *FOREGROUND, "net", "echo", *LOCAL, "--no-access-log", folder=tmp_path) as program:
        assert talk(program.address(), b"hello") == b"hello"
        assert " closed (" not in stopped(program).out


def test_inheritedFromSystemd(tmp_path: Path) -> None:
    place = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(place))
        skt.listen()
        fd = skt.fileno()
        # As sd_listen_fds(3) has it: the descriptors from 3 on, for the process with this number.
        code = (
            f"import os, sys; os.dup2({fd}, 3); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='echo', LISTEN_PID=str(os.getpid())); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        activator = (sys.executable, "-c", code, *TWISTD)
        words = ("net", "echo", "--listen", "systemd:domain=UNIX:name=echo")
        with Running(activator, *FOREGROUND, *words, folder=tmp_path, fds=[fd]) as program:
            address = program.address()
            assert address == f"unix:{place}"
            assert talk(address, b"hello") == b"hello"
            assert stopped(program).code == 0
        assert place.exists()  # it is systemd's
        place.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up privileges")
def test_boundBeforePrivilegesAreGivenUp(tmp_path: Path) -> None:
    words = ("--uid=nobody", "net", "echo", "--listen", LOCAL[1])
    with Running(TWISTD, *FOREGROUND, *words, folder=tmp_path) as program:
        address = program.address()
        owner = Path(f"/proc/{program.pid}/status").read_text().partition("Uid:")[2].split()[0]
        assert owner != "0"
        assert talk(address, b"hello") == b"hello"
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")


def test_rundirAndUmask(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    words = ("--rundir=run", "--umask=027", "net", "echo", "--listen", "./x.sock")
    with Running(TWISTD, *FOREGROUND, *words, folder=tmp_path) as program:
        program.address()
        assert stat.S_IMODE((tmp_path / "run" / "x.sock").stat().st_mode) == 0o750
        assert stopped(program).code == 0
    assert list((tmp_path / "run").iterdir()) == []


# Stopping


def test_connectionsFinish(tmp_path: Path) -> None:
    with Running(TWISTD, *FOREGROUND, "net", "echo", "--listen", "./x.sock", folder=tmp_path) as program:
        program.address()
        with connect(f"unix:{tmp_path}/x.sock") as client:
            client.sendall(b"one")
            assert client.recv(3) == b"one"
            program.signal(signal.SIGTERM)
            program.wait(r"is stopping \(SIGTERM\); open connections: 1, for 30 s at most")
            program.wait("Port .* Closed")
            program.signal(signal.SIGINT)
            program.wait("is stopping already")
            program.signal(signal.SIGTERM)
            program.wait("is stopping already")
            client.sendall(b"two")
            client.shutdown(socket.SHUT_WR)
            assert drained(client) == b"two"
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out
    assert list(tmp_path.iterdir()) == []


def test_connectionsAreAbortedWhenTheGraceIsOver(tmp_path: Path) -> None:
    words = ("net", "echo", *LOCAL, "--timeout-graceful-shutdown", "50ms")
    with Running(TWISTD, *FOREGROUND, *words, folder=tmp_path) as program, connect(program.address()) as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        ended = stopped(program)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert ended.code == 0
    assert "closed (ECONNABORTED): 3 bytes in, 3 bytes out" in ended.out


def test_aHandlerThatStopsTheReactor(folder: Path) -> None:
    words = ("net", "serve", *LOCAL, "--timeout-graceful-shutdown", "0", "hello:leave")
    with Running(TWISTD, *FOREGROUND, *words, folder=folder) as program:
        # It may be over before connect(2) has been asked how it went.
        with contextlib.suppress(ConnectionResetError):
            connect(program.address()).close()
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "is stopping (the reactor was stopped)" in ended.out


# Mistakes

MISTAKES = [
    (["echo", "--listen", "./x.sock", "--listen", "{busy}"], "net echo: listen {busy}: the address is in use"),
    (["echo", "--listen", "8124"], "net echo: --listen: '8124' is no address"),
    (["echo", "--listen", "192.0.2.1:80"], "net echo: listen 192.0.2.1:80: the address is none of this machine"),
    (["echo", "--listen", "/nowhere/x.sock"], "/nowhere"),
    (["echo", "--listen", "tcp:eighty"], "'tcp:eighty' is no endpoint"),
    (["echo", "--listen", "systemd:domain=INET:index=0"], "systemd has handed over no such socket"),
    (["echo", "--listen", "host.invalid:80"], "the name has no address"),
    (["echo", "--listen", "./x.sock", "--listen", "./hello.py"], "./hello.py"),
    (["echo", "--timeout-idle", "soon"], "--timeout-idle: 'soon' is no time"),
    (["serve", "--listen", "./x.sock", "hello:gret"], "did you mean 'greet'?"),
    (["serve", "nothing:greet"], "there is no module 'nothing'"),
    (["serve"], "which handler?"),
    (["shout"], "there is no command 'shout'"),
    ([], "name a command"),
]


@pytest.mark.parametrize("manner", [FOREGROUND, DAEMON], ids=["foreground", "daemon"])
@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[" ".join(words) or "nothing" for words, _ in MISTAKES])
def test_aMistakeIsOneSentence(
    folder: Path, busy: str, manner: tuple[str, ...], words: list[str], told: str
) -> None:
    ended = run(TWISTD, *manner, "net", *(word.format(busy=busy) for word in words), folder=folder)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("net")
    assert ended.err.count("\n") == 1
    assert told.format(busy=busy) in ended.err
    assert {path.name for path in folder.iterdir()} <= {"hello.py", "__pycache__"}


@pytest.mark.parametrize("manner", [FOREGROUND, DAEMON], ids=["foreground", "daemon"])
def test_theirModuleFails(folder: Path, manner: tuple[str, ...]) -> None:
    (folder / "broken.py").write_text("def compute():\n    return 1 // 0\n\ncompute()\n")
    ended = run(TWISTD, *manner, "net", "serve", "broken:handler", folder=folder)
    lines = ended.err.splitlines()
    assert ended.code == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert "broken.py" in lines[1]
    assert "twisted" not in ended.err.replace(str(folder), "")
    assert lines[-2:] == [
        "ZeroDivisionError: integer division or modulo by zero",
        "net serve: the module 'broken' fails to import: its own error stands above; correct it there",
    ]
    assert not (folder / "net.pid").exists()


def test_theirFactoryFailsToStart(folder: Path) -> None:
    words = ("net", "serve", "--listen", "./x.sock", "hello:Broken")
    ended = run(TWISTD, "-n", "--pidfile=net.pid", *words, folder=folder)
    assert ended.code == 1
    assert ended.err.splitlines()[-2:] == [
        "RuntimeError: the disk is full",
        "net serve: the handler fails to start: its own error stands above; correct it there",
    ]
    assert {path.name for path in folder.iterdir()} <= {"hello.py", "__pycache__"}


def test_theirFactoryFailsToStartInADaemon(folder: Path) -> None:
    ended = run(TWISTD, *DAEMON, "net", "serve", "--listen", "./x.sock", "hello:Broken", folder=folder)
    assert ended.code == 1
    assert "the disk is full" in ended.err
    # The parent has answered; the daemon itself is still ending.
    until(lambda: {path.name for path in folder.iterdir()} <= {"hello.py", "__pycache__", "net.log"})


def test_aVariableThatIsNearlyAnOption(tmp_path: Path) -> None:
    env = {"TWISTED_NET_LIMT_CONNECTIONS": "5"}
    with Running(TWISTD, *FOREGROUND, "net", "echo", *LOCAL, folder=tmp_path, env=env) as program:
        program.wait("#warn.*TWISTED_NET_LIMT_CONNECTIONS is no option; it may be meant for TWISTED_NET_LIMIT_CONN")
        program.address()
        assert stopped(program).code == 0


def test_twistdFailsAfterTheBinding(folder: Path) -> None:
    ended = run(TWISTD, "-n", "--pidfile=/nowhere/net.pid", "net", "echo", "--listen", "./x.sock", folder=folder)
    assert ended.code == 1
    assert not (folder / "x.sock").exists()


def test_rundirThatIsNotThere(folder: Path) -> None:
    ended = run(TWISTD, *FOREGROUND, "--rundir=nowhere", "net", "echo", folder=folder)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("net echo: twistd's --rundir nowhere: No such file or directory;")
    assert ended.err.count("\n") == 1


def test_chrootAndAFile(folder: Path) -> None:
    ended = run(TWISTD, *FOREGROUND, "--chroot=/srv", "net", "echo", "--listen", "./x.sock", folder=folder)
    assert ended.code == 1
    assert "outside of twistd's --chroot /srv" in ended.err
    assert not (folder / "x.sock").exists()


# What fails later


def test_retriesUsedUp(folder: Path, busy: str) -> None:
    words = ("net", "echo", "--listen", "./x.sock", "--listen", busy, "--retry-bind", "300ms")
    ended = run(TWISTD, "-n", "--pidfile=net.pid", *words, folder=folder)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert ended.err.startswith(f"net echo: listen {busy}: the address is in use")
    assert "tried again for 0.3 s" in ended.err
    assert f"{busy} is in use (attempt 1); trying again in 0.2" in ended.out
    assert "Traceback" not in ended.out
    assert {path.name for path in folder.iterdir()} == {"hello.py"}


def test_retriesUsedUpInADaemon(folder: Path, busy: str) -> None:
    words = ("net", "echo", "--listen", "./x.sock", "--listen", busy, "--retry-bind", "2s")
    assert run(TWISTD, *DAEMON, *words, folder=folder) == Ended(0, "", "")
    with daemon(folder / "net.pid") as pid:
        assert talk(f"unix:{folder}/x.sock", b"hello") == b"hello"
        gone(pid)
    log = (folder / "net.log").read_text()
    assert f"#critical] net echo: listen {busy}: the address is in use" in log
    assert "Traceback" not in log
    assert {path.name for path in folder.iterdir()} == {"hello.py", "net.log"}


def test_retrySucceeds(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        words = ("net", "echo", "--listen", place, "--retry-bind", "1m")
        program = Running(TWISTD, *FOREGROUND, *words, folder=folder)
        with program:
            program.wait("trying again")
            other.close()
            assert program.address() == place
            assert talk(place, b"hello") == b"hello"
            assert stopped(program).code == 0


def test_stoppedWhileRetrying(folder: Path, busy: str) -> None:
    words = ("net", "echo", "--listen", busy, "--retry-bind", "1h")
    with Running(TWISTD, *FOREGROUND, *words, folder=folder) as program:
        program.wait("trying again")
        program.wait("starting up")
        # Once the signal's handler is ours; before that the reactor's own ends the process by the signal.
        program.wait("attempt 2")
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")


LATE = '''
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
    from twisted.plugin import IPlugin
    from zope.interface import implementer

    @implementer(IStreamServerEndpoint)
    class Endpoint:
        def __init__(self, reactor):
            self.reactor = reactor

        def listen(self, factory):
            answer = Deferred()
            self.reactor.callLater(0.1, answer.errback, OSError(13, "Permission denied"))
            return answer

    @implementer(IPlugin, IStreamServerEndpointStringParser)
    class Parser:
        prefix = "late"

        def parseStreamServer(self, reactor, *args, **kwargs):
            return Endpoint(reactor)

    parser = Parser()
'''


def test_anEndpointThatFailsLate(folder: Path) -> None:
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "late.py").write_text(dedent(LATE))
    words = ("net", "echo", "--listen", "./x.sock", "--listen", "late:now")
    ended = run(TWISTD, "-n", "--pidfile=net.pid", *words, folder=folder, env={"PYTHONPATH": pathWith(folder)})
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("net echo: listen late:now: permission denied;")
    assert not (folder / "net.pid").exists()
    assert not (folder / "x.sock").exists()


def pathWith(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


# The log in JSON


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("program", [(*TWISTD, *FOREGROUND), TWIST], ids=["twistd", "twist"])
def test_json(folder: Path, program: tuple[str, ...]) -> None:
    words = ("net", "serve", *LOCAL, "--log-format=json", "--half-open", "hello:Shouting")
    with Running(program, *words, folder=folder) as service:
        address = service.wait('"event": "listening", "address": "([^"]+)"')[1]
        assert talk(address, b"hello", end=False) == b"HELLO"
        service.wait('"event": "closed"')
        ended = stopped(service)
    assert (ended.code, ended.err) == (0, "")
    log = records(ended.out)
    (closed,) = [one for one in log if one["event"] == "closed"]
    assert {name: closed[name] for name in ("bytesIn", "bytesOut", "reason", "error")} == {
        "bytesIn": 5,
        "bytesOut": 5,
        "reason": "ended",
        "error": None,
    }
    assert {"message": "the factory starts", "system": "stdout"}.items() <= next(
        one for one in log if one["system"] == "stdout"
    ).items()


def test_jsonAndSyslog(folder: Path) -> None:
    ended = run(TWISTD, "--syslog", *FOREGROUND, "net", "echo", "--log-format=json", folder=folder)
    assert ended.code == 1
    assert "leave out twistd's --syslog" in ended.err


# twist


def test_twist(folder: Path) -> None:
    with Running(TWIST, "--log-format=text", "net", "serve", *LOCAL, "hello:greet", folder=folder) as program:
        assert talk(program.address(), b"hello") == b"welcome\r\nhello"
        program.wait("is|closed")
        ended = stopped(program)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[" ".join(words) or "nothing" for words, _ in MISTAKES])
def test_aMistakeUnderTwist(folder: Path, busy: str, words: list[str], told: str) -> None:
    ended = run(TWIST, "net", *(word.format(busy=busy) for word in words), folder=folder)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert told.format(busy=busy) in ended.err
    assert not (folder / "x.sock").exists()


def test_retriesUsedUpUnderTwist(folder: Path, busy: str) -> None:
    ended = run(TWIST, "net", "echo", "--listen", busy, "--retry-bind", "100ms", folder=folder)
    assert ended.code == 1
    assert ended.err.startswith(f"net echo: listen {busy}: the address is in use")


# Asking it


@pytest.mark.parametrize("program", [TWISTD, TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize("command", ["echo", "discard", "forward", "serve"])
def test_help(tmp_path: Path, program: tuple[str, ...], command: str) -> None:
    ended = run(program, "net", command, "--help", folder=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    name = "twist" if program is TWIST else "twistd"
    assert ended.out.startswith(f"Usage: {name} [options of {name}] net {command} [options]")
    assert max(map(len, ended.out.partition("Examples:")[0].splitlines())) <= 80


def test_version(tmp_path: Path) -> None:
    for words in (["net", "--version"], ["net", "echo", "--version"]):
        ended = run(TWISTD, *words, folder=tmp_path)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("twisted_net ")


def test_parsingInstallsNoReactor(tmp_path: Path) -> None:
    code = (
        "import sys; from twisted_net.service import Options; Options().parseOptions(['serve', 'a:b', '--backlog=3']); "
        "sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    assert run((sys.executable, "-c", code), folder=tmp_path) == Ended(0, "", "")


def test_theAddressInTheLogIsTheOneToConnectTo(tmp_path: Path) -> None:
    abstract = f"unix:@{tmp_path.name}"
    words = ("net", "echo", "--listen", "localhost:0", "--listen", "127.0.0.1:0", "--listen", abstract)
    with Running(TWISTD, *FOREGROUND, *words, folder=tmp_path) as program:
        addresses = [program.address() for _ in range(3)]
        assert addresses[2] == abstract
        assert [talk(address, b"hello") for address in addresses] == [b"hello"] * 3
        assert stopped(program).code == 0
