"""What holds for every test: it leaves nothing behind, logs no error that it did not expect, and skips for a reason.

Fixtures for tests: ``loggedErrors`` (see :class:`logs.LoggedErrors`) takes out of Twisted's log the errors that a test
meant to cause. Marker ``leaky("why")``: what this test leaves behind is meant.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from logs import LoggedErrors, text
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import globalLogBeginner

# pytest-twisted knows no reactor of this name; but where one is there already that is an asyncio reactor, as this one
# is, `--reactor=asyncio` is content with it.
if os.environ.get("TWISTED_NET_TESTS_ON") == "uvloop":
    import asyncio
    import socket

    import uvloop

    from twisted_net import uvreactor

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    uvreactor.install(loop)
    # libuv opens /dev/null once for each loop, with its first stream: no test shall be blamed for that.
    near, far = socket.socketpair()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
    transport.close()  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    far.close()

# How often, and how long each time (seconds), a test's last things may be waited for; most need one turn.
SETTLING_TURNS = 200
SETTLING_TURN = 0.01

# A test machine may be busy: how long one example took says nothing about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell's `&` and nohup have everything they start ignore SIGINT, and children inherit that: what a test sends to the
# programs that it started would not arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_REPORT = pytest.StashKey[pytest.TestReport]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("leaky")
        if marker is not None and not (marker.args and isinstance(marker.args[0], str)):
            raise pytest.UsageError(f'{item.nodeid}: say why it may leave something behind: leaky("the reason")')
        if item.get_closest_marker("tls") is not None and importlib.util.find_spec("OpenSSL") is None:
            item.add_marker(pytest.mark.skip(reason="needs pyOpenSSL: pip install twisted[tls]"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    required = os.environ.get("TWISTED_NET_LIVE") == "required"
    if required and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("live") is not None:
        report.outcome = "failed"
        report.longrepr = f"TWISTED_NET_LIVE=required allows no skipped live test. {report.longreprtext}"
    return report


@pytest.fixture(scope="session")
def _errors() -> LoggedErrors:
    errors = LoggedErrors()
    # Without an observer of ours Twisted keeps the last 65,536 events, with the failures and frames they hold.
    globalLogBeginner.beginLoggingTo([errors], discardBuffer=True, redirectStandardIO=False)
    return errors


@pytest.fixture(scope="session")
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this run alone for everything that asks ``tempfile``, so that no other program's files are seen."""
    tmp_path_factory.getbasetemp()  # pytest's own folders stay where people look for them
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="tn") as name:
        tempfile.tempdir = os.environ["TMPDIR"] = name
        yield Path(name)
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


@pytest.fixture(scope="session")
def _reactor(_errors: LoggedErrors) -> Any:
    """The reactor of this run, warmed up: what it opens once and keeps (wakers, a spare descriptor) is open now."""
    from twisted.internet import reactor

    port = reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1")
    pytest_twisted.blockon(maybeDeferred(port.stopListening))
    _turn(reactor)
    # What is alive now stays; the collections between tests need not look at it again.
    gc.collect()
    gc.freeze()
    return reactor


@pytest.fixture(autouse=True)
def _clean(
    request: pytest.FixtureRequest, _reactor: Any, _errors: LoggedErrors, _temporary: Path
) -> Iterator[LoggedErrors]:
    item = request.node
    folders = [_temporary]
    _errors.flush()
    before = leaks.take(_reactor, folders)
    yield _errors
    gc.collect()  # a Deferred that failed unheard says so when it is collected
    if "tmp_path" in item.funcargs:
        folders.append(item.funcargs["tmp_path"])
    complaints = [f"logged, and not expected (see loggedErrors):\n{text(event)}" for event in _errors.flush()]
    if item.get_closest_marker("leaky") is None:
        turns = SETTLING_TURNS
        for line in leaks.leftovers(_reactor, before, folders, lambda: _turn(_reactor), turns=turns):
            complaints.append(f"left behind: {line}")
    report = item.stash.get(_REPORT, None)
    if not complaints:
        return
    if report is not None and report.failed:
        print(*complaints, sep="\n")  # the test has failed already; this may tell why
    else:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def loggedErrors(_clean: LoggedErrors) -> LoggedErrors:
    """Errors in Twisted's log so far; ``loggedErrors.flush(ValueError)`` takes out and returns those expected."""
    return _clean


def _turn(reactor: Any) -> None:
    pytest_twisted.blockon(deferLater(reactor, SETTLING_TURN, lambda: None))
