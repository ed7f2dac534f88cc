"""What Twisted's own tests say of our reactor, compared with what they say of epoll's: no input or output here.

The rule: what passes on epoll passes on ours, and what runs on epoll runs on ours. The exceptions are a list that can
only shrink.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["passed", "todo", "skipped", "failed", "ended"]
WORSE: tuple[Outcome, ...] = ("passed", "todo", "skipped", "failed", "ended")
GOOD: frozenset[Outcome] = frozenset({"passed", "todo"})
BAD: frozenset[Outcome] = frozenset({"failed", "ended"})

MAY_DIFFER = 1
"""How many exceptions there may be: the log line about descriptors that were sent to a protocol that takes none."""


@dataclass(frozen=True)
class Record:
    """
    One test on one reactor.

    :param outcome: ``todo`` failed as its authors expect; ``ended`` is a test in which the program came to its end: it
        was killed, it crashed, or the test hung.
    :param text: tracebacks, or the reason of a skip.
    """

    outcome: Outcome
    text: str = ""
    seconds: float = 0.0


Records = Mapping[str, Record]


@dataclass(frozen=True)
class Complaint:
    """One violation of the rule, by the test of this *name*."""

    name: str
    what: str
    text: str = ""


def read(lines: Iterable[str], className: str, ending: str = "") -> dict[str, Record]:
    """
    The records of a run of ``child.py`` under names that are the same for every reactor.

    :param lines: its events.
    :param className: of the reactor, which is part of the names of tests that build one.
    :param ending: what the program said at its end, if that came in the midst of a test.
    """
    found: dict[str, Record] = {}
    running: str | None = None
    for line in lines:
        event = json.loads(line)
        if event["event"] == "end":
            continue
        name = common(event["id"], className)
        if event["event"] == "start":
            running = name
        elif event["event"] == "stop":
            running = None
            if name in found:
                found[name] = replace(found[name], seconds=found[name].seconds + event["seconds"])
        else:
            found[name] = worst(found.get(name), Record(event["event"], event.get("text", "")))
    if running is not None:
        found[running] = worst(found.get(running), Record("ended", ending))
    return found


def worst(one: Record | None, other: Record) -> Record:
    """Both as one: a test may fail more than once, and two classes can share one name."""
    if one is None:
        return other
    lower, upper = sorted((one, other), key=lambda record: WORSE.index(record.outcome))
    same = lower.outcome == upper.outcome and lower.text != upper.text
    return Record(upper.outcome, f"{one.text}\n{other.text}" if same else upper.text, one.seconds + other.seconds)


def common(name: str, className: str) -> str:
    """A test's name without the class of the reactor that it builds."""
    return name.replace(f"_{className}Tests", "_*Tests")


def own(name: str, className: str) -> str:
    """The other way round."""
    return name.replace("_*Tests", f"_{className}Tests")


def parse(text: str) -> dict[str, str]:
    """The exceptions: lines of a test's name, a colon and a space, and the reason; a # begins a comment."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.partition(": ")
        if not reason.strip():
            raise ValueError(f"no reason is given: {line!r}")
        if name in found:
            raise ValueError(f"listed twice: {name}")
        found[name] = reason.strip()
    return found


def complaints(epoll: Records, ours: Records, exceptions: Mapping[str, str]) -> list[Complaint]:
    """All that breaks the rule."""
    found = []
    for name in sorted(epoll):
        before, after = epoll[name], ours.get(name)
        if after is None:
            found.append(Complaint(name, f"{before.outcome} on epoll and does not run on ours"))
        elif after.outcome == "ended":
            if before.outcome != "ended" and name not in exceptions:
                found.append(Complaint(name, "hangs, or ends the program", after.text))
        elif after.outcome == "failed":
            if before.outcome in GOOD and name not in exceptions:
                found.append(Complaint(name, "passes on epoll and fails on ours", after.text))
        elif after.outcome == "skipped" and before.outcome != "skipped":
            found.append(Complaint(name, f"{before.outcome} on epoll and is skipped on ours", after.text))
    if not any(record.outcome in GOOD for record in epoll.values()):
        found.append(Complaint("epoll", "nothing passes on epoll: that is no measure"))
    for name in exceptions:
        if name not in ours or name not in epoll:
            found.append(Complaint(name, "is an exception, and there is no such test"))
        elif ours[name].outcome in GOOD:
            found.append(Complaint(name, "is an exception, and passes: take it off the list"))
        elif epoll[name].outcome not in GOOD:
            found.append(Complaint(name, "is an exception, and does not pass on epoll either: take it off the list"))
    if len(exceptions) > MAY_DIFFER:
        found.append(Complaint("exceptions", f"there are {len(exceptions)}, and there may be {MAY_DIFFER}"))
    return found


def remarks(epoll: Records, ours: Records) -> list[tuple[str, str]]:
    """Tests that break no rule and are no success either, with what there is to say."""
    found = []
    for name in sorted(epoll.keys() & ours.keys()):
        before, after = epoll[name].outcome, ours[name].outcome
        if before in BAD:
            found.append((name, f"{before} on epoll, {after} on ours"))
        elif before == "skipped" and after != "skipped":
            found.append((name, f"skipped on epoll, {after} on ours in {ours[name].seconds:.0f} s"))
    return found


def doubtfulOnEpoll(epoll: Records, ours: Records, exceptions: Mapping[str, str]) -> list[str]:
    """What fails on both, and may have failed on epoll by accident: to be run there once more."""
    return [
        name
        for name, record in sorted(ours.items())
        if record.outcome in BAD and name in epoll and epoll[name].outcome in BAD and name not in exceptions
    ]


def doubtfulOnOurs(epoll: Records, ours: Records, exceptions: Mapping[str, str]) -> list[str]:
    """
    What passes on epoll and may have failed on ours by accident: to be run there once more.

    A hang or a crash is no accident: a machine that is merely slow gives neither.
    """
    return [
        name
        for name, record in sorted(ours.items())
        if record.outcome == "failed" and name in epoll and epoll[name].outcome in GOOD and name not in exceptions
    ]


def totals(records: Records) -> str:
    """How many came out how."""
    counts = Counter(record.outcome for record in records.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in WORSE if counts[outcome]) or "nothing"


def skips(records: Records) -> list[tuple[int, str]]:
    """How many are skipped for which reason, the commonest first."""
    counts = Counter(record.text.strip() for record in records.values() if record.outcome == "skipped")
    return [(count, reason or "(no reason is given)") for reason, count in counts.most_common()]


def unbuilt(sources: Mapping[str, str], ours: Records) -> list[Complaint]:
    """
    Modules of tests that build reactors, of which none built ours.

    :param sources: the text of each module of Twisted's tests.
    """
    found = []
    for module, text in sorted(sources.items()):
        # A class that names the reactors it builds is about those alone.
        if text.count(".makeTestCaseClasses()") <= text.count("    _reactors = ["):
            continue
        if not any(name.startswith(f"{module}.") and "_*Tests." in name for name in ours):
            found.append(Complaint(module, "builds reactors in its tests, and has not built ours"))
    return found
