"""What the log says, and its form in JSON."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.application.twist._options import TwistOptions
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.scripts._twistd_unix import ServerOptions

from twisted_net import service
from twisted_net.address import Address
from twisted_net.errors import RefusedError, ResetError
from twisted_net.forward import Ended as Forwarded
from twisted_net.service import echo
from twisted_net.service.journal import Journal, jsonLine, useJson, useStderr
from twisted_net.service.reactors import Choice
from twisted_net.wire.factory import Ended

PEER = Address("127.0.0.1", 4711, "IPv4")


class Reactor:
    """Runs at once what comes from a thread, or from a signal's handler."""

    def callFromThread(self, function: Any, *args: Any) -> None:
        function(*args)


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What is logged."""
    found: list[dict[str, Any]] = []
    collect: Any = found.append
    globalLogPublisher.addObserver(collect)
    yield found
    globalLogPublisher.removeObserver(collect)


def test_textAndFacts(events: list[dict[str, Any]], loggedErrors: Any) -> None:
    journal = Journal("echo")
    error = ResetError("the peer reset it")
    journal.listening("127.0.0.1:80", Reactor())
    journal.misspelt("TWISTED_NET_X is no option")
    journal.retry("127.0.0.1:80", error, 2, 0.75)
    journal.closed(Ended(peer=PEER, bytesRead=5, bytesWritten=7, seconds=1.23456789, error=None))
    journal.closed(Ended(peer=PEER, bytesRead=0, bytesWritten=0, seconds=0.0, error=error))
    journal.closed(Ended(peer=PEER, bytesRead=0, bytesWritten=0, seconds=0.0, error=KeyError("theirs")))
    journal.stopping("SIGTERM", 3, 30.0)
    journal.stoppingAlready("SIGINT")
    journal.stopped()
    journal.notClosed("127.0.0.1:80", "why")
    loggedErrors.flush()
    assert [formatEvent(event) for event in events] == [
        "echo is listening on 127.0.0.1:80 (Reactor)",
        "TWISTED_NET_X is no option",
        "127.0.0.1:80 is in use (attempt 2); trying again in 0.8 s",
        "127.0.0.1:4711 closed (ended): 5 bytes in, 7 bytes out, 1.235 s",
        "127.0.0.1:4711 closed (ECONNRESET): 0 bytes in, 0 bytes out, 0.000 s: the peer reset it",
        "127.0.0.1:4711 closed (KeyError): 0 bytes in, 0 bytes out, 0.000 s: 'theirs'",
        "echo is stopping (SIGTERM); open connections: 3, for 30 s at most",
        "echo is stopping already (SIGINT); only SIGKILL is faster",
        "echo has stopped",
        "closing 127.0.0.1:80 failed: why",
    ]
    assert events[3]["net"] == {
        "event": "closed",
        "peer": "127.0.0.1:4711",
        "bytesIn": 5,
        "bytesOut": 7,
        "seconds": 1.234568,
        "reason": "ended",
        "error": None,
    }
    assert events[4]["net"]["error"] == "the peer reset it [ECONNRESET]"
    assert events[3]["log_namespace"] == "twisted_net.access"
    assert {event["log_namespace"] for event in events[:2]} == {"twisted_net.service"}
    for event in events:
        assert json.loads(jsonLine(event))["message"] == formatEvent(event)


def test_forwarded(events: list[dict[str, Any]]) -> None:
    journal = Journal("forward")
    journal.forwarded(Forwarded(PEER, "/run/x.sock", bytesIn=5, bytesOut=7, seconds=1.5, error=None))
    journal.forwarded(Forwarded(PEER, None, bytesIn=0, bytesOut=0, seconds=0.0, error=RefusedError("nobody there")))
    assert [formatEvent(event) for event in events] == [
        "127.0.0.1:4711 -> /run/x.sock closed (ended): 5 bytes in, 7 bytes out, 1.500 s",
        "127.0.0.1:4711 -> nobody closed (ECONNREFUSED): 0 bytes in, 0 bytes out, 0.000 s: nobody there",
    ]
    assert [event["net"] for event in events] == [
        {
            "event": "closed",
            "peer": "127.0.0.1:4711",
            "target": "/run/x.sock",
            "bytesIn": 5,
            "bytesOut": 7,
            "seconds": 1.5,
            "reason": "ended",
            "error": None,
        },
        {
            "event": "closed",
            "peer": "127.0.0.1:4711",
            "target": None,
            "bytesIn": 0,
            "bytesOut": 0,
            "seconds": 0.0,
            "reason": "ECONNREFUSED",
            "error": "nobody there [ECONNREFUSED]",
        },
    ]
    assert {event["log_namespace"] for event in events} == {"twisted_net.access"}


def test_theReactor(events: list[dict[str, Any]]) -> None:
    journal = Journal("echo")
    journal.reactor(None)
    journal.reactor(Choice("uvloop"))
    journal.reactor(Choice("epoll", "uvloop is installed, but cannot be used: no", broken=True))
    assert [formatEvent(event) for event in events] == [
        "reactor: uvloop",
        "reactor: epoll (uvloop is installed, but cannot be used: no)",
    ]
    assert [event["log_level"] for event in events] == [LogLevel.info, LogLevel.warn]
    assert [event["net"]["why"] for event in events] == [None, "uvloop is installed, but cannot be used: no"]


def test_failures(events: list[dict[str, Any]], loggedErrors: Any) -> None:
    journal = Journal("serve")
    try:
        raise ZeroDivisionError("theirs")
    except ZeroDivisionError as error:
        journal.handlerFailed(Failure(error))
    journal.failed("net serve: it\ncannot be")
    loggedErrors.flush()
    theirs, ours = (json.loads(jsonLine(event)) for event in events)
    assert "ZeroDivisionError: theirs" in theirs["traceback"]
    assert (theirs["event"], theirs["level"]) == ("log", "critical")
    assert (ours["event"], ours["level"], ours["error"]) == ("failed", "critical", "net serve: it\ncannot be")


def test_aLine() -> None:
    event = {
        "log_time": 1_700_000_000.25,
        "log_level": LogLevel.warn,
        "log_namespace": "a.b",
        "log_format": "hello {who}",
        "who": "world",
    }
    assert jsonLine(event) == (
        '{"time": "2023-11-14T22:13:20.250000+00:00", "level": "warn", "system": "a.b", "event": "log", '
        '"message": "hello world"}\n'
    )


@given(
    event=st.dictionaries(
        st.sampled_from(["log_format", "log_namespace", "net", "x", "log_failure", "log_system"]),
        st.text() | st.none() | st.dictionaries(st.just("event"), st.text() | st.binary()),
    )
)
def test_everyEventIsOneLine(event: dict[str, Any]) -> None:
    line = jsonLine(event)
    assert line.isascii()
    assert line.index("\n") == len(line) - 1
    assert {"time", "level", "system", "event", "message"} <= set(json.loads(line))


# How it reaches the log


def under(root: Any) -> echo.Options:
    net = service.Options()
    net.parent = root
    options = echo.Options()
    options.parent = net
    return options


def observer(words: list[str], reactor: Any = None) -> Any:
    """What the application has for a twistd with these options."""
    root = ServerOptions()
    for word in words:
        name, _, value = word.partition("=")
        root[name] = value or 1
    application = Application("net")
    useJson(under(root), reactor or Reactor())(application)
    return application.getComponent(ILogObserver, None)


EVENT = {"log_format": "hello", "log_time": 0.0}


@pytest.mark.parametrize("words", [["nodaemon"], ["nodaemon", "logfile=-"]])
def test_stdoutInTheForeground(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    observer(words)(EVENT)
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


@pytest.fixture
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("words", [["logfile=some.log"], ["nodaemon", "logfile=some.log"], []])
def test_aFileThatIsRotated(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = observer(words)
    found(EVENT)
    signal.raise_signal(signal.SIGUSR1)
    found({**EVENT, "log_format": "after"})
    found._outFile.close()
    name = "some.log" if words else "twistd.log"
    assert json.loads((tmp_path / f"{name}.1").read_text())["message"] == "hello"
    assert json.loads((tmp_path / name).read_text())["message"] == "after"


@pytest.mark.usefixtures("signals")
def test_anotherHandlerOfTheSignalStays(tmp_path: Path) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    observer([f"logfile={tmp_path}/some.log"])._outFile.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN


def test_aDaemonHasNoStdout() -> None:
    with pytest.raises(SystemExit, match="a daemon has no stdout"):
        observer(["logfile=-"])


def test_aLoggerOfTheOperatorsComesFirst() -> None:
    assert observer(["nodaemon", "logger=their.own"]) is None


def test_twist() -> None:
    root = TwistOptions()
    useJson(under(root), Reactor())(Application("net"))
    file = io.StringIO()
    root["fileLogObserverFactory"](file)(EVENT)
    assert json.loads(file.getvalue())["message"] == "hello"


# Nothing of it on stdout


QUIET = {"log_level": LogLevel.info, "log_time": 0.0, "log_namespace": "a", "log_format": "a story"}
LOUD = {**QUIET, "log_level": LogLevel.warn, "log_format": "a warning"}


@pytest.mark.parametrize(("level", "told"), [(LogLevel.info, ["a story", "a warning"]), (LogLevel.warn, ["a warning"])])
def test_stderr(level: Any, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    application = Application("net")
    useStderr(under(ServerOptions()), level)(application)
    found: Any = application.getComponent(ILogObserver)
    found(QUIET)
    found(LOUD)
    said = capsys.readouterr()
    assert [line.partition("#")[2].partition("] ")[2] for line in said.err.splitlines()] == told
    assert said.out == ""


def test_stderrThatIsClosed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    application = Application("net")
    useStderr(under(ServerOptions()), LogLevel.warn)(application)
    found: Any = application.getComponent(ILogObserver)
    found(LOUD)
    found._observer._outFile.close()


@pytest.mark.parametrize("where", ["logger", "logfile", "syslog"])
def test_theOperatorSaysWhere(where: str) -> None:
    root = ServerOptions()
    root[where] = "there"
    application = Application("net")
    useStderr(under(root), LogLevel.warn)(application)
    assert application.getComponent(ILogObserver, None) is None


def test_stderrUnderTwist() -> None:
    root = TwistOptions()
    root["logFile"] = sys.stdout
    useStderr(under(root), LogLevel.warn)(object())
    assert (root["logFile"], root["logLevel"]) == (sys.stderr, LogLevel.warn)
    assert root["fileLogObserverFactory"] is textFileLogObserver
    other = TwistOptions()
    other["logFile"] = file = io.StringIO()
    useStderr(under(other), LogLevel.warn)(object())
    assert (other["logFile"], other["logLevel"]) == (file, LogLevel.info)


def test_nobodyRunsUs() -> None:
    useStderr(echo.Options(), LogLevel.warn)(object())
    useStderr(under(ServerOptions()), LogLevel.warn)(object())
    useJson(echo.Options(), Reactor())(object())
    useJson(under(ServerOptions()), Reactor())(object())
    assert sys.stdout is not None
