"""The suite's own net: what ``leaks``, ``logs`` and ``conftest`` catch, and what they let pass."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import leaks
import pytest
import pytest_twisted
from logs import LoggedErrors
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def test_descriptorsAreSeen(reactor: Any) -> None:
    before = leaks.take(reactor)
    ends = os.pipe()
    lines = leaks.take(reactor).since(before)
    for end in ends:
        os.close(end)
    assert [line.split(":")[0] for line in lines] == [f"descriptor {end}" for end in ends]
    assert leaks.take(reactor).since(before) == []


@pytest_twisted.ensureDeferred
async def test_timersReadersAndSocketFilesAreSeen(reactor: Any, tmp_path: Path) -> None:
    before = leaks.take(reactor, [tmp_path])
    call = reactor.callLater(60, print)
    port = reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1")
    name = tmp_path / "deep" / "x.sock"
    name.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(name))
    (name.parent / "a file").touch()
    lines = leaks.take(reactor, [tmp_path]).since(before)
    call.cancel()
    await port.stopListening()
    name.unlink()
    assert [re.split("[ :]", line)[0] for line in lines] == ["descriptor", "delayed", "reader", "socket"]
    assert str(name) in lines[-1]


def test_childrenAreSeen(reactor: Any) -> None:
    before = leaks.take(reactor)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lines = leaks.take(reactor).since(before)
    child.communicate(b"\n")
    assert any(line.startswith(f"child process {child.pid}: ") for line in lines)
    assert leaks.take(reactor).since(before) == []


def test_whatGoesAwayByItselfIsWaitedFor(reactor: Any) -> None:
    before = leaks.take(reactor)
    ends = list(os.pipe())
    assert leaks.leftovers(reactor, before, [], lambda: os.close(ends.pop()), turns=5) == []
    assert ends == []


@pytest_twisted.ensureDeferred
async def test_aTestMayEndWhileItsConnectionsAreClosing(reactor: Any) -> None:
    port = reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1")
    reactor.callLater(0.05, port.stopListening)
    await deferLater(reactor, 0, lambda: None)


def test_flushTakesWhatFits(loggedErrors: LoggedErrors) -> None:
    log = Logger(namespace="suite")
    log.error("a {word} of warning", word="line")
    try:
        raise KeyError("lost")
    except KeyError:
        log.failure("while looking")
    log.warn("no error")
    assert len(loggedErrors.flush("line of warning")) == 1
    assert loggedErrors.flush(ValueError, "nowhere") == []
    assert len(loggedErrors.flush(ValueError, LookupError)) == 1
    log.critical("the end")
    assert len(loggedErrors.flush()) == 1
    assert loggedErrors.events == []


BAD_SUITE = """
    import os
    import socket

    import pytest
    from twisted.internet import reactor
    from twisted.internet.defer import fail
    from twisted.logger import Logger

    kept = []

    def test_logs():
        Logger().error("something is wrong")

    def test_unheard():
        fail(ValueError("unheard of"))

    def test_descriptor():
        kept.append(os.pipe())

    def test_timer():
        kept.append(reactor.callLater(600, print))

    def test_socketFile(tmp_path):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(tmp_path / "x.sock"))

    def test_failsAndLogs():
        Logger().error("a hint")
        raise AssertionError

    @pytest.mark.live
    def test_live():
        pytest.skip("nothing to talk to")

    @pytest.mark.leaky("shows that a reason is enough")
    def test_onPurpose():
        kept.append(os.pipe())

    def test_fine():
        pass
"""


@pytest.fixture
def suite(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Runs the given tests under this suite's ``conftest``, in a process of their own; returns what pytest said."""
    here = Path(__file__).parent
    for name in ("conftest.py", "leaks.py", "logs.py"):
        shutil.copy(here / name, tmp_path)
    configuration = Path(request.config.rootpath, "setup.cfg").read_text()
    (tmp_path / "setup.cfg").write_text(configuration.replace("pythonpath = tests", "pythonpath = ."))

    def run(body: str, **environment: str) -> str:
        (tmp_path / "test_bad.py").write_text(dedent(body))
        reactor = request.config.getoption("reactor")
        command = [sys.executable, "-m", "pytest", "-q", f"--reactor={reactor}", "--basetemp=temporary", "test_bad.py"]
        inherited = {name: value for name, value in os.environ.items() if name != "TWISTED_NET_LIVE"}
        done = subprocess.run(
            command, cwd=tmp_path, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
        )
        shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # left alone where no test ran
        return done.stdout + done.stderr

    return run


def test_whatTheSuiteCatches(suite: Any) -> None:
    said = suite(BAD_SUITE)
    assert re.findall("^(?:ERROR|FAILED) .*::([a-zA-Z_]+)", said, re.MULTILINE) == [
        "test_logs",
        "test_unheard",
        "test_descriptor",
        "test_timer",
        "test_socketFile",
        "test_failsAndLogs",
    ], said
    for expected in (
        "something is wrong",
        "ValueError: unheard of",
        "left behind: descriptor",
        "left behind: delayed call",
        "left behind: socket file",
        "a hint",
        "1 failed, 7 passed, 1 skipped, 5 errors",
    ):
        assert expected in said


def test_liveTestsMayBeRequired(suite: Any) -> None:
    said = suite(
        """
        import pytest

        @pytest.mark.live
        def test_live():
            pytest.skip("nothing to talk to")
        """,
        TWISTED_NET_LIVE="required",
    )
    assert "test_bad.py::test_live" in said
    assert "TWISTED_NET_LIVE=required allows no skipped live test" in said
    assert "nothing to talk to" in said


def test_aLeakNeedsAReason(suite: Any) -> None:
    said = suite(
        """
        import pytest

        @pytest.mark.leaky
        def test_silent():
            pass
        """
    )
    assert "say why it may leave something behind" in said
