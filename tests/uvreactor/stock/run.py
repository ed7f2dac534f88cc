"""Runs all of Twisted's own tests on epoll and on the uvloop reactor, and compares test by test.

Exit status 1: something that passes on epoll does not pass on ours. ``judge.py`` has the rules, ``exceptions.txt`` the
exceptions.

    python tests/uvreactor/stock/run.py [--only PACKAGE]... [--keep FOLDER]

Needs Twisted's extras ``test``, ``conch``, ``http2``, ``serial``, ``tls`` and ``websocket``, else tests are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import twisted

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from uvreactor.stock import judge  # noqa: E402

# These take long; the packages that are not named here are one group, whatever Twisted will add.
LARGE = ("conch", "test", "internet", "web", "trial", "mail", "words", "names", "protocols")
AT_ONCE = 2
PATIENCE = 120.0  # trial's own, per test
LIMIT = 900.0  # per group
RESTARTS = 3
ATTEMPTS = 2
SHOWN = 6000  # of a traceback
# Run by root, they change the machine: this one takes away everybody else's leave to write to /dev/null.
NOT_AS_ROOT = ("twisted.test.test_logfile.LogFileTests.test_cantChangeFileMode",)


@dataclass(frozen=True)
class Reactor:
    """As ``trial --reactor`` calls it, and its class."""

    short: str
    path: str

    @property
    def className(self) -> str:
        return self.path.rpartition(".")[2]


EPOLL = Reactor("epoll", "twisted.internet.epollreactor.EPollReactor")
OURS = Reactor("uvloop", "twisted_net.uvreactor.reactor.UvloopReactor")


@dataclass
class Ran:
    """What a group gave, and how long it took."""

    records: dict[str, judge.Record] = field(default_factory=dict)
    ended: bool = False
    said: str = ""


def groups() -> dict[str, list[str]]:
    """All packages of Twisted, as groups that each take one process."""
    found = {name: [f"twisted.{name}"] for name in LARGE}
    found["others"] = [
        f"twisted.{module.name}"
        for module in pkgutil.iter_modules(twisted.__path__)
        if module.ispkg and module.name not in LARGE
    ]
    return found


def sources() -> dict[str, str]:
    """The text of each module of tests, by the module's name."""
    root = Path(twisted.__file__).parent
    paths = sorted(root.rglob("test_*.py"))
    return {".".join(("twisted", *path.relative_to(root).with_suffix("").parts)): path.read_text() for path in paths}


def runGroup(group: str, reactor: Reactor, names: Sequence[str], folder: Path) -> Ran:
    """Run the tests *names*. After a hang, or a crash, go on behind the test in which it happened."""
    ran, since = Ran(), time.monotonic()
    unwanted = NOT_AS_ROOT if os.geteuid() == 0 else ()
    for attempt in range(RESTARTS + 1):
        place = folder / str(attempt)
        (place / "tmp").mkdir(parents=True)
        events, orders = place / "events", place / "orders"
        events.touch()
        done = [*(judge.own(name, reactor.className) for name in ran.records), *unwanted]
        orders.write_text(json.dumps({"names": [*names], "done": done}))
        left = LIMIT - (time.monotonic() - since)
        ran.said = runChild(reactor, events, orders, place, left)
        # The last line is cut off when the program was killed as it wrote.
        lines = events.read_text().split("\n")[:-1]
        ran.records |= judge.read(lines, reactor.className, ran.said)
        ran.ended = bool(lines) and json.loads(lines[-1])["event"] == "end"
        if ran.ended or not lines or time.monotonic() - since > LIMIT:
            break
    print(f"{time.monotonic() - since:6.1f} s  {reactor.short:8} {group}: {judge.totals(ran.records)}", flush=True)
    return ran


def runChild(reactor: Reactor, events: Path, orders: Path, place: Path, limit: float) -> str:
    """Run ``child.py``; return how it ended, with the last of what it wrote."""
    command = [sys.executable, str(HERE / "child.py"), reactor.short, reactor.path, str(PATIENCE)]
    command += [str(events), str(orders)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    # Programs that came with Twisted, such as ckeygen; a locale that is everywhere; and nothing is left lying about.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"LC_ALL": "C", "TMPDIR": str(place / "tmp"), "HOME": str(place)}
    said = place / "said"
    with said.open("wb") as output, open(os.devnull) as nothing:
        child = subprocess.Popen(
            command, cwd=place, env=environment, stdin=nothing, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status: object = child.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"none: ended after {limit:.0f} s"
        finally:
            # Also what tests have started and left.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return f"exit status {status}\n{said.read_text(errors='replace')[-SHOWN:]}"


def again(reactor: Reactor, names: Iterable[str], folder: Path, pool: ThreadPoolExecutor) -> dict[str, judge.Record]:
    """Run each of *names* alone, and once more if it fails; return the records of those that then pass."""

    def alone(name: str) -> judge.Record | None:
        for attempt in range(ATTEMPTS):
            place = folder / f"{re.sub(r'[^A-Za-z0-9.]', '-', name)}-{attempt}"
            record = runGroup(name, reactor, [judge.own(name, reactor.className)], place).records.get(name)
            if record is not None and record.outcome in judge.GOOD:
                return record
        return None

    names = [*names]
    return {name: record for name, record in zip(names, pool.map(alone, names), strict=True) if record is not None}


def main() -> int:
    parser = argparse.ArgumentParser(description="Twisted's own tests on epoll and on the uvloop reactor, compared.")
    parser.add_argument("--only", action="append", metavar="NAME", help="a package, module or test of Twisted's")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave events, logs and trial's folders")
    parser.add_argument("--reactor", default=OURS.short, help="another one to judge: its short name")
    parser.add_argument("--reactor-class", default=OURS.path, help="and its class")
    options = parser.parse_args()
    ours = Reactor(options.reactor, options.reactor_class)
    exceptions = judge.parse((HERE / "exceptions.txt").read_text())
    wanted = {name: [name] for name in options.only} if options.only else groups()
    with tempfile.TemporaryDirectory(prefix="stock", ignore_cleanup_errors=True) as temporary:
        return judged(ours, wanted, exceptions, options.keep or Path(temporary), whole=not options.only)


def judged(ours: Reactor, wanted: dict[str, list[str]], exceptions: dict[str, str], folder: Path, whole: bool) -> int:
    since = time.monotonic()
    reactors = (EPOLL, ours)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        going = {
            (group, reactor): pool.submit(runGroup, group, reactor, names, folder / group / reactor.short)
            for group, names in wanted.items()
            for reactor in reactors
        }
        found: dict[Reactor, dict[str, judge.Record]] = {reactor: {} for reactor in reactors}
        unended = []
        for (group, reactor), future in going.items():
            ran = future.result()
            found[reactor] |= ran.records
            if not ran.ended:
                unended.append(judge.Complaint(f"{group} on {reactor.short}", "did not come to its end", ran.said))
        if not whole:
            exceptions = {name: reason for name, reason in exceptions.items() if name in found[ours]}
        for reactor, doubtful in ((EPOLL, judge.doubtfulOnEpoll), (ours, judge.doubtfulOnOurs)):
            names = doubtful(found[EPOLL], found[ours], exceptions)
            passed = again(reactor, names, folder / "again" / reactor.short, pool)
            for name in passed:
                print(f"\nflaky on {reactor.short}, passes alone: {name}\n{found[reactor][name].text[-SHOWN:]}")
            found[reactor] |= passed
    complaints = unended + judge.complaints(found[EPOLL], found[ours], exceptions)
    if whole:
        complaints += judge.unbuilt(sources(), found[ours])
    tell(found[EPOLL], found[ours], ours.short, exceptions, complaints)
    print(f"{time.monotonic() - since:.0f} s")
    return 1 if complaints else 0


def tell(
    epoll: judge.Records, ours: judge.Records, short: str, exceptions: dict[str, str], complaints: list[judge.Complaint]
) -> None:
    """Print everything that somebody may have to know."""
    if os.geteuid() == 0:
        print(f"not run as root: {', '.join(NOT_AS_ROOT)}")
    for name, line in judge.remarks(epoll, ours):
        print(f"{line}: {name}")
    print("\nSkipped:")
    for count, reason in judge.skips({**epoll, **ours}):
        print(f"{count:5}  {reason}")
    for name, reason in exceptions.items():
        print(f"\nException: {name}\n    {reason}")
    for complaint in complaints:
        print(f"\n===== {complaint.name}\n{complaint.what}\n{complaint.text[-SHOWN:]}")
    print(f"\nepoll: {judge.totals(epoll)}\n{short}: {judge.totals(ours)}")
    print(f"{len(complaints)} violation(s)" if complaints else "What passes on epoll passes on ours.")


if __name__ == "__main__":
    sys.exit(main())
