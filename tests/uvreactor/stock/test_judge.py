"""The judge is not bribed: each way in which our reactor can be worse than epoll is a complaint."""

from __future__ import annotations

import json

import pytest
from uvreactor.stock import judge
from uvreactor.stock.judge import Record

PASSED = Record("passed")
EPOLL = {"a": PASSED, "b": Record("skipped", "Windows"), "c": Record("failed", "as root"), "d": Record("todo")}


def complaints(ours: dict[str, Record], **exceptions: str) -> list[tuple[str, str]]:
    return [(one.name, one.what) for one in judge.complaints(EPOLL, {**EPOLL, **ours}, exceptions)]


def test_theSame() -> None:
    assert complaints({}) == []


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("b", PASSED),
        ("b", Record("failed")),
        ("c", PASSED),
        ("c", Record("todo")),
        ("d", PASSED),
    ],
)
def test_noWorse(name: str, record: Record) -> None:
    assert complaints({name: record}) == []


@pytest.mark.parametrize(
    ("name", "outcome", "what"),
    [
        ("a", "failed", "passes on epoll and fails on ours"),
        ("a", "ended", "hangs, or ends the program"),
        ("a", "skipped", "passed on epoll and is skipped on ours"),
        ("b", "ended", "hangs, or ends the program"),
        ("c", "ended", "hangs, or ends the program"),
        ("c", "skipped", "failed on epoll and is skipped on ours"),
        ("d", "failed", "passes on epoll and fails on ours"),
        ("d", "skipped", "todo on epoll and is skipped on ours"),
    ],
)
def test_worse(name: str, outcome: judge.Outcome, what: str) -> None:
    assert complaints({name: Record(outcome)}) == [(name, what)]


def test_tracebackIsKept() -> None:
    ours = {**EPOLL, "a": Record("failed", "Traceback")}
    assert [one.text for one in judge.complaints(EPOLL, ours, {})] == ["Traceback"]


@pytest.mark.parametrize("name", EPOLL)
def test_doesNotRun(name: str) -> None:
    ours = {other: record for other, record in EPOLL.items() if other != name}
    (complaint,) = judge.complaints(EPOLL, ours, {})
    assert complaint == judge.Complaint(name, f"{EPOLL[name].outcome} on epoll and does not run on ours")


def test_epollIsNoMeasure() -> None:
    epoll = {"a": Record("failed")}
    assert [one.name for one in judge.complaints(epoll, epoll, {})] == ["epoll"]


@pytest.mark.parametrize("outcome", ["failed", "ended"])
def test_exception(outcome: judge.Outcome) -> None:
    assert complaints({"a": Record(outcome)}, a="known") == []


def test_exceptionIsNoLeaveToSkip() -> None:
    assert complaints({"a": Record("skipped")}, a="known") == [("a", "passed on epoll and is skipped on ours")]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a", "is an exception, and passes: take it off the list"),
        ("c", "is an exception, and does not pass on epoll either: take it off the list"),
        ("z", "is an exception, and there is no such test"),
    ],
)
def test_staleException(name: str, what: str) -> None:
    assert complaints({}, **{name: "known"}) == [(name, what)]


def test_tooManyExceptions() -> None:
    ours = {"a": Record("failed"), "d": Record("failed")}
    assert complaints(ours, a="known", d="known") == [("exceptions", "there are 2, and there may be 1")]


def test_exceptionsAreParsed() -> None:
    assert judge.parse("# why\n\nm.C.test_a: libuv: no\n") == {"m.C.test_a": "libuv: no"}


@pytest.mark.parametrize("text", ["m.C.test_a", "m.C.test_a: ", "a: one\na: two"])
def test_exceptionsNeedReasons(text: str) -> None:
    with pytest.raises(ValueError, match=r"no reason|twice"):
        judge.parse(text)


def lines(*events: tuple[str, str] | tuple[str, str, object]) -> list[str]:
    """Events of a test, as (event, id) or (event, id, text or seconds)."""
    keys = {"stop": "seconds"}
    return [
        json.dumps({"event": event, "id": name, **({keys.get(event, "text"): more[0]} if more else {})})
        for event, name, *more in events
    ]


def test_read() -> None:
    told = lines(("start", "m.B_EPollReactorTests.t"), ("passed", "m.B_EPollReactorTests.t"))
    told += lines(("stop", "m.B_EPollReactorTests.t", 1.5), ("start", "s"), ("skipped", "s", "no"), ("stop", "s", 0.5))
    told.append('{"event": "end"}')
    assert judge.read(told, "EPollReactor") == {
        "m.B_*Tests.t": Record("passed", "", 1.5),
        "s": Record("skipped", "no", 0.5),
    }


def test_readTheWorst() -> None:
    told = lines(
        ("failed", "a", "one"), ("failed", "a", "two"), ("passed", "a"), ("passed", "b"), ("skipped", "b", "x")
    )
    assert judge.read(told, "R") == {"a": Record("failed", "one\ntwo"), "b": Record("skipped", "x")}


def test_readAHang() -> None:
    told = lines(("start", "a"), ("passed", "a"), ("stop", "a", 1), ("start", "b"))
    assert judge.read(told, "R", "stacks")["b"] == Record("ended", "stacks")
    # What has passed, and then hangs in what follows.
    assert judge.read(told[:2], "R", "stacks")["a"].outcome == "ended"


def test_namesAreOurs() -> None:
    assert judge.own(judge.common("m.B_EPollReactorTests.t", "EPollReactor"), "OurReactor") == "m.B_OurReactorTests.t"


def test_doubtful() -> None:
    failed, ended, skipped = Record("failed"), Record("ended"), Record("skipped")
    epoll = {"both": failed, "ours": PASSED, "hang": PASSED, "epoll": failed, "skip": skipped, "known": PASSED}
    ours = dict.fromkeys(("both", "ours", "skip", "known", "new"), failed) | {"hang": ended, "epoll": PASSED}
    assert judge.doubtfulOnEpoll(epoll, ours, {"known": ""}) == ["both"]
    assert judge.doubtfulOnOurs(epoll, ours, {"known": ""}) == ["ours"]


def test_remarks() -> None:
    ours = {**EPOLL, "b": Record("failed", "", 120.0)}
    assert judge.remarks(EPOLL, ours) == [
        ("b", "skipped on epoll, failed on ours in 120 s"),
        ("c", "failed on epoll, failed on ours"),
    ]


def test_totalsAndSkips() -> None:
    assert judge.totals(EPOLL) == "1 passed, 1 todo, 1 skipped, 1 failed"
    assert judge.totals({}) == "nothing"
    assert judge.skips({**EPOLL, "e": Record("skipped", "Windows"), "f": Record("skipped")}) == [
        (2, "Windows"),
        (1, "(no reason is given)"),
    ]


def test_unbuilt() -> None:
    builds = "globals().update(A.makeTestCaseClasses())"
    own = f'class A(ReactorBuilder):\n    _reactors = ["x"]\n{builds}'
    sources = {"m.test_a": builds, "m.test_b": builds, "m.test_c": own, "m.test_d": ""}
    ours = {"m.test_a.A_*Tests.test_x": PASSED, "m.test_b.BTests.test_x": PASSED}
    assert [one.name for one in judge.unbuilt(sources, ours)] == ["m.test_b"]
