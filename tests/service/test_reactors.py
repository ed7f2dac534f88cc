"""Which reactor runs: who may say so, what the log tells, and that it survives becoming a daemon."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from launched import TWIST, TWISTD, Ended, Running, connect, daemon, drained, gone, run, talk
from programs import until
from twisted.application.reactors import NoSuchReactor
from twisted.internet.task import Clock

from twisted_net.service import reactors
from twisted_net.service.reactors import VARIABLE, Choice, choose, nameOf

FOREGROUND = ("-n", "--pidfile=")
ECHO = ("net", "echo", "--listen", "./x.sock")

needsUvloop = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="needs uvloop")

#: What Twisted takes when nobody chooses.
DEFAULT = "epoll"


def hiding(module: str, program: tuple[str, ...]) -> tuple[str, ...]:
    """The program, with a module that cannot be found."""
    python, option, code = program
    return python, option, f"import sys; sys.modules[{module!r}] = None; {code}"


TWIST_CODE = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'twist'; from twisted.application.twist._twist import Twist; Twist.main(sys.argv)",
)


def told(folder: Path, program: tuple[str, ...], *words: str, env: dict[str, str] | None = None) -> str:
    """What the log has about the reactor: the only line, and before the one about listening."""
    with Running(program, *words, folder=folder, env=env) as running:
        line = running.wait("[]] reactor: ")
        running.wait("is listening on")
        running.signal()
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("] reactor: ") == 1
    return line.string.partition("] reactor: ")[2]


# Who is asked


@needsUvloop
def test_uvloopByItself(tmp_path: Path) -> None:
    assert told(tmp_path, TWISTD, *FOREGROUND, *ECHO) == "uvloop"


@needsUvloop
def test_uvloopByItselfUnderTwist(tmp_path: Path) -> None:
    assert told(tmp_path, TWIST, "--log-format=text", *ECHO) == "uvloop"


@pytest.mark.parametrize(
    "program",
    [(*hiding("uvloop", TWISTD), *FOREGROUND), (*hiding("uvloop", TWIST_CODE), "--log-format=text")],
    ids=["twistd", "twist"],
)
def test_withoutUvloop(tmp_path: Path, program: tuple[str, ...]) -> None:
    assert told(tmp_path, program, *ECHO) == f"{DEFAULT} (uvloop is not installed: pip install twisted-net[uvloop])"


def test_uvloopThatDoesNotWork(tmp_path: Path) -> None:
    (tmp_path / "uvloop").mkdir()
    (tmp_path / "uvloop" / "__init__.py").write_text("raise ImportError('undefined symbol:\\n  uv_fork')")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with Running(TWISTD, *FOREGROUND, *ECHO, folder=tmp_path, env=env) as running:
        line = running.wait("#warn[]] reactor: ").string
        running.address()
        running.signal()
        assert running.end().code == 0
    assert line.endswith(f"reactor: {DEFAULT} (uvloop is installed, but cannot be used: undefined symbol: uv_fork)")


@pytest.mark.parametrize("name", ["asyncio", "epoll", "poll", "select"])
def test_named(tmp_path: Path, name: str) -> None:
    assert told(tmp_path, TWISTD, *FOREGROUND, *ECHO, env={VARIABLE: f" {name} "}) == f"{name} ({VARIABLE})"
    words = (f"--reactor={name}", *FOREGROUND, *ECHO)
    # The option wins over everything that the variable may say.
    assert told(tmp_path, TWISTD, *words, env={VARIABLE: "nonsense"}) == f"{name} (named by --reactor)"


def test_namedUnderTwist(tmp_path: Path) -> None:
    words = ("--log-format=text", *ECHO)
    assert told(tmp_path, TWIST, *words, env={VARIABLE: "poll"}) == f"poll ({VARIABLE})"
    assert told(tmp_path, TWIST, "--reactor=select", *words, env={VARIABLE: "poll"}) == "select (named by --reactor)"


def test_theDefaultByName(tmp_path: Path) -> None:
    assert told(tmp_path, TWISTD, *FOREGROUND, *ECHO, env={VARIABLE: "default"}) == f"{DEFAULT} ({VARIABLE})"


@pytest.mark.parametrize(
    ("variable", "late"),
    [("", ""), ("select", ""), ("poll", f", too early for {VARIABLE}=poll")],
    ids=["no", "same", "other"],
)
def test_oneThatIsThereAlready(tmp_path: Path, variable: str, late: str) -> None:
    python, option, code = TWISTD
    early = (python, option, f"from twisted.internet import selectreactor; selectreactor.install(); {code}")
    assert told(tmp_path, early, *FOREGROUND, *ECHO, env={VARIABLE: variable}) == (
        f"select (a reactor was there already{late})"
    )


def test_json(tmp_path: Path) -> None:
    words = (*FOREGROUND, *ECHO, "--log-format=json")
    with Running(TWISTD, *words, folder=tmp_path, env={VARIABLE: "poll"}) as running:
        line = json.loads(running.wait('"event": "reactor"').string)
        running.wait('"event": "listening"')
        running.signal()
        assert running.end().code == 0
    assert {name: line[name] for name in ("level", "system", "reactor", "why", "message")} == {
        "level": "info",
        "system": "twisted_net.service",
        "reactor": "poll",
        "why": VARIABLE,
        "message": f"reactor: poll ({VARIABLE})",
    }


# Mistakes


@pytest.mark.parametrize("program", [TWISTD, TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("epol", "there is no reactor 'epol'; write one of asyncio, default, epoll, poll, select"),
        (
            "kqueue",
            r"the reactor kqueue cannot be used here \(.+\); write one of asyncio, default, epoll, poll, select",
        ),
    ],
)
def test_aMistakeInTheVariable(tmp_path: Path, program: tuple[str, ...], name: str, said: str) -> None:
    ended = run(program, *ECHO, folder=tmp_path, env={VARIABLE: name})
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(f"net echo: the environment variable {VARIABLE}: {said}[^\n]*\n", ended.err)
    assert list(tmp_path.iterdir()) == []


def test_uvloopByNameWithoutUvloop(tmp_path: Path) -> None:
    ended = run(hiding("uvloop", TWISTD), *ECHO, folder=tmp_path, env={VARIABLE: "uvloop"})
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(
        f"net echo: the environment variable {VARIABLE}: the reactor uvloop cannot be used here"
    )
    assert "pip install" in ended.err
    assert "poll, select\n" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [["--help"], ["echo", "--help"], ["--version"], ["shout"], ["echo", "--backlog=x"], ["serve"], ["echo", "word"]],
    ids=" ".join,
)
def test_whatEndsByItselfInstallsNoReactor(tmp_path: Path, words: list[str]) -> None:
    code = dedent("""
        import sys
        from twisted.scripts.twistd import run
        sys.argv[0] = "twistd"
        try:
            run()
        except SystemExit:
            sys.exit("twisted.internet.reactor" in sys.modules)
    """)
    assert run((sys.executable, "-c", code), "net", *words, folder=tmp_path).code == 0


# Before anybody asks for a reactor

HANDLER = """
    from twisted.internet import reactor
    from twisted.internet.utils import getProcessOutput

    def name(client):
        client.end(f"{type(reactor).__name__}\\n")

    def child(client):
        getProcessOutput("/bin/sh", ["-c", "id -u; echo done"]).addCallback(client.end)
"""


@needsUvloop
@pytest.mark.parametrize("program", [(*TWISTD, *FOREGROUND), (*TWIST, "--log-format=text")], ids=["twistd", "twist"])
def test_aHandlerThatImportsTheReactor(tmp_path: Path, program: tuple[str, ...]) -> None:
    (tmp_path / "handler.py").write_text(dedent(HANDLER))
    with Running(program, "net", "serve", "--listen", "./x.sock", "handler:name", folder=tmp_path) as running:
        running.wait("reactor: uvloop$")
        running.address()
        assert talk(f"unix:{tmp_path}/x.sock", b"", end=False) == b"UvloopReactor\n"
        running.signal()
        assert running.end().code == 0


# Daemons


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that whoever the daemon becomes may reach, and change: those of pytest are their owner's alone."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    (folder / "handler.py").write_text(dedent(HANDLER))
    yield folder
    shutil.rmtree(folder)


NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize(
    "uid",
    [
        None,
        pytest.param(NOBODY, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can give up privileges")),
    ],
)
@pytest.mark.parametrize("reactor", [pytest.param("uvloop", marks=needsUvloop), "asyncio", "epoll"])
def test_afterTheForks(everybodys: Path, reactor: str, uid: int | None) -> None:
    words = [
        f"--reactor={reactor}",
        "--pidfile=net.pid",
        "--logfile=net.log",
        *([] if uid is None else [f"--uid={uid}"]),
    ]
    places = ["--listen", "127.0.0.1:0", "--listen", "unix:./x.sock:mode=666"]
    words += ["net", "serve", *places, "--log-format=json", "handler:child"]
    assert run(TWISTD, *words, folder=everybodys) == Ended(0, "", "")
    with daemon(everybodys / "net.pid") as pid:
        log = [json.loads(line) for line in (everybodys / "net.log").read_text().splitlines()]
        address = next(one["address"] for one in log if one["event"] == "listening")
        answer = f"{os.getuid() if uid is None else uid}\ndone\n".encode()
        for _ in range(3):
            assert talk(address, b"", end=False) == answer
            assert talk(f"unix:{everybodys}/x.sock", b"", end=False) == answer
        until(lambda: (everybodys / "net.log").read_text().count('"event": "closed"') == 6)
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    log = [json.loads(line) for line in (everybodys / "net.log").read_text().splitlines()]
    events = [one["event"] for one in log if one["event"] != "log"]
    assert events == ["reactor", "listening", "listening", *["closed"] * 6, "stopping", "stopped"]
    assert (log[0]["reactor"], log[0]["why"]) == (reactor, "named by --reactor")
    assert [one for one in log if one["level"] not in ("info", "debug")] == []
    assert {path.name for path in everybodys.iterdir()} - {"__pycache__"} == {"handler.py", "net.log"}


@pytest.mark.parametrize("reactor", [pytest.param("uvloop", marks=needsUvloop), "asyncio", "epoll"])
def test_everySignalAfterTheForks(tmp_path: Path, reactor: str) -> None:
    words = (f"--reactor={reactor}", "--pidfile=net.pid", "--logfile=net.log", *ECHO)
    assert run(TWISTD, *words, folder=tmp_path) == Ended(0, "", "")
    with daemon(tmp_path / "net.pid") as pid, connect(f"unix:{tmp_path}/x.sock") as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        os.kill(pid, signal.SIGUSR1)
        until((tmp_path / "net.log.1").exists)
        os.kill(pid, signal.SIGINT)
        until(lambda: "is stopping (SIGINT)" in (tmp_path / "net.log").read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: "is stopping already (SIGTERM)" in (tmp_path / "net.log").read_text())
        client.sendall(b"two")
        client.shutdown(socket.SHUT_WR)
        assert drained(client) == b"two"
        gone(pid)
    assert "echo has stopped" in (tmp_path / "net.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"net.log", "net.log.1"}


@pytest.mark.parametrize("variable", ["epoll", pytest.param("", marks=needsUvloop)], ids=["epoll", "uvloop"])
def test_aDaemonWithoutStandardDescriptors(tmp_path: Path, variable: str) -> None:
    closed = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *TWISTD)
    words = ("--pidfile=net.pid", "--logfile=net.log", *ECHO)
    assert run(closed, *words, folder=tmp_path, env={VARIABLE: variable}).code == 0
    with daemon(tmp_path / "net.pid") as pid:
        assert talk(f"unix:{tmp_path}/x.sock", b"hello") == b"hello"
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    assert "echo has stopped" in (tmp_path / "net.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"net.log"}


# Connecting


@pytest.mark.parametrize(
    ("variable", "reactor"),
    [pytest.param("", "uvloop", marks=needsUvloop), ("poll", f"poll ({VARIABLE})")],
    ids=["uvloop", "poll"],
)
def test_connecting(tmp_path: Path, variable: str, reactor: str) -> None:
    with Running(TWISTD, *FOREGROUND, *ECHO, folder=tmp_path) as server:
        server.address()
        words = ("net", "connect", "--verbose", f"{tmp_path}/x.sock")
        ended = run(TWISTD, *words, folder=tmp_path, env={VARIABLE: variable})
        assert ended.code == 0
        assert f"reactor: {reactor}\n" in ended.err
        server.signal()
        assert server.end().code == 0


# In this process, which has a reactor


def test_choosingHere() -> None:
    from twisted.internet import reactor

    name = nameOf(reactor)
    assert choose({}, {}) == choose({"reactor": ""}, {VARIABLE: name}) == Choice(name, "a reactor was there already")
    assert choose({"reactor": name}, {VARIABLE: "x"}) == Choice(name, "named by --reactor")


def test_nameOfAStranger() -> None:
    assert nameOf(Clock()) == "Clock"


def test_causes() -> None:
    assert reactors._cause(NoSuchReactor("uvloop")) == "Twisted finds no plugin for its reactor"
    assert reactors._cause(ValueError()) == "ValueError"
