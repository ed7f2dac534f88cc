"""Runs tests of Twisted's, as they are, with one reactor as *the* reactor, and writes a line of JSON for each event.

``child.py REACTOR CLASS PATIENCE EVENTS ORDERS``: the reactor's short name, as ``trial --reactor`` takes it; its class,
which those tests that build reactors of their own (``ReactorBuilder``) build in place of all that Twisted knows; the
seconds that a test may take; the file for the events; and a file of JSON, ``{"names": [...], "done": [...]}``: the
packages, modules or tests to run, and tests to leave out. The working directory gets trial's temporary directory.

Events are ``start``, then any of ``passed``, ``failed``, ``skipped`` and ``todo`` (with ``text``), then ``stop`` (with
``seconds``), each with the ``id`` of a test; and ``end`` after the last one. A test that outlives its patience by far
ends the program, with the stacks of all threads on standard error.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.application.reactors import installReactor

# Trial ends a test itself when its time is over, unless the reactor no longer turns; tearDown has a time of its own.
GRACE = 30.0


def main(reactor: str, built: str, patience: float, events: Path, orders: Path) -> None:
    installReactor(reactor)
    from twisted.internet.test import reactormixins
    from twisted.python.failure import Failure
    from twisted.trial import reporter, runner, util

    reactormixins.ReactorBuilder._reactors[:] = [built]
    for module in (util, reactormixins):
        module.__dict__["DEFAULT_TIMEOUT_DURATION"] = patience
    wanted = json.loads(orders.read_text())
    suite = runner.TestLoader().loadByNames(wanted["names"], recurse=True)
    done = set(wanted["done"])
    tests = [test for test in flat(suite) if test.id() not in done]
    since = 0.0
    console = sys.stderr  # trial puts its log in this place

    def tell(event: str, test: Any, **more: object) -> None:
        out.write(json.dumps({"event": event, "id": test.id(), **more}) + "\n")

    def traceback(fault: Any) -> str:
        return (fault if isinstance(fault, Failure) else Failure(fault[1], fault[0], fault[2])).getTraceback()

    class Telling(reporter.TestResult):
        def startTest(self, test: Any) -> None:
            nonlocal since
            faulthandler.dump_traceback_later(patience + GRACE, exit=True, file=console)
            since = time.monotonic()
            tell("start", test)

        def stopTest(self, test: Any) -> None:
            faulthandler.cancel_dump_traceback_later()
            tell("stop", test, seconds=round(time.monotonic() - since, 3))

        def addSuccess(self, test: Any) -> None:
            tell("passed", test)

        def addFailure(self, test: Any, fail: Any) -> None:
            tell("failed", test, text=traceback(fail))

        def addError(self, test: Any, error: Any) -> None:
            tell("failed", test, text=traceback(error))

        def addSkip(self, test: Any, reason: Any) -> None:
            tell("skipped", test, text=str(reason))

        def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
            tell("todo", test)

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            tell("passed", test)

    result: Any = Telling
    with events.open("a", buffering=1) as out:
        runner.TrialRunner(lambda *_: result(), workingDirectory="trial", stream=console).run(runner.TestSuite(tests))
        out.write(json.dumps({"event": "end"}) + "\n")


def flat(suite: Any) -> Iterator[Any]:
    """Its tests, one by one."""
    try:
        members = iter(suite)
    except TypeError:
        yield suite
        return
    for member in members:
        yield from flat(member)


if __name__ == "__main__":
    del sys.path[0]  # Twisted's tests find nothing of ours
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
