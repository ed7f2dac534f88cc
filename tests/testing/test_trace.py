"""What has happened: as text, as a diagram, as a hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.testing import trace as room
from twisted_net.testing.trace import Event, Trace


class Clock:
    now = 0.0


def made(*events: tuple[float, str, str, str, bytes | None]) -> Trace:
    clock = Clock()
    trace = Trace(clock)
    for now, source, target, what, data in events:
        clock.now = now
        trace.note(source, target, what, data)
    return trace


SOME = (
    (0.0, "server:80", "", "listen", None),
    (0.5, "client:1", "server:80", "connect", None),
    (0.5, "client:1", "server:80", "data", b"hello" * 20),
    (1.25, "server:80", "client:1", "read", b"hello" * 20),
    (2.0, "server:80", "client:1", "reset", None),
)


def test_asText() -> None:
    assert str(made(*SOME)).splitlines() == [
        "   0.000000  server:80  listen",
        "   0.500000  client:1 > server:80  connect",
        "   0.500000  client:1 > server:80  data  100  'hellohellohellohellohellohellohellohello'...",
        "   1.250000  server:80 > client:1  read  100  'hellohellohellohellohellohellohellohello'...",
        "   2.000000  server:80 > client:1  reset",
    ]
    assert str(made()) == ""


def test_asEvents() -> None:
    first = made(*SOME).events[0]
    assert first == Event(0.0, "server:80", "", "listen", None)
    assert (first.time, first.source, first.target, first.what, first.data) == SOME[0]


def test_asADiagram() -> None:
    assert made(*SOME, (3.0, "a", "b", "data", b"#1; 2")).mermaid().splitlines() == [
        "sequenceDiagram",
        "    participant p0 as server:80",
        "    participant p1 as client:1",
        "    participant p2 as a",
        "    participant p3 as b",
        "    Note over p0: 0 s: listen",
        "    p1->>p0: 0.5 s: connect",
        "    p1->>p0: 0.5 s: data  100  'hellohellohellohellohell'...",
        "    p0-xp1: 2 s: reset",
        "    p2->>p3: 3 s: data  5  'no. 1, 2'",
    ]
    assert "read" in made(*SOME).mermaid(reads=True)


def test_theDigestIsOfEverything() -> None:
    digests = {made(*SOME[:count]).digest() for count in range(len(SOME) + 1)}
    assert len(digests) == len(SOME) + 1
    assert made(*SOME).digest() == made(*SOME).digest()
    later = [(SOME[0][0] + 1, *SOME[0][1:])]
    assert made(*later).digest() != made(SOME[0]).digest()


def test_theDigestWithoutContent() -> None:
    one, other = made((0.0, "a", "b", "data", b"abc")), made((0.0, "a", "b", "data", b"xyz"))
    longer = made((0.0, "a", "b", "data", b"wxyz"))
    assert one.digest() != other.digest()
    assert one.digest(content=False) == other.digest(content=False) != longer.digest(content=False)
    assert made((0.0, "a", "b", "data", None)).digest(content=False) != made((0.0, "a", "b", "data", b"")).digest(
        content=False
    )


def test_oldEventsAreForgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [(float(number), "a", "b", "data", bytes([number])) for number in range(25)]
    whole = made(*events)
    monkeypatch.setattr(room, "LIMIT", 10)
    short = made(*events)
    assert short.forgotten == 15
    assert [event.time for event in short.events] == list(range(15, 25))
    assert str(short).splitlines()[0] == "(15 earlier events are not kept)"
    for content in (True, False):
        assert short.digest(content=content) == whole.digest(content=content)


@given(st.binary(max_size=99))
def test_anyBytesAreOneLineOfText(data: bytes) -> None:
    trace = made((0.0, "a", "b", "data", data))
    assert str(trace).isprintable()
    assert trace.mermaid().splitlines()[-1].startswith(f"    p0->>p1: 0 s: data  {len(data)}  ")
    assert ";" not in trace.mermaid()
