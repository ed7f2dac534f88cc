"""
What happened on a network in memory: who sent what when, as text, as a Mermaid sequence diagram, and as a hash.

One event for each thing that a program did with a socket, or that the network did on its own. Two runs with the same
seed have the same events, byte by byte; so has their `Trace.digest`.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, Protocol

__all__ = ["LIMIT", "Event", "Trace"]

#: Events that are kept; older ones go into the hash, and out of the text.
LIMIT: Final = 100_000

#: Bytes of data that are shown.
_SHOWN: Final = 40

#: Longer texts than this say nothing more in a diagram.
_DIAGRAM: Final = 24


class Event(NamedTuple):
    """One thing that happened.

    :ivar time: seconds since the network was made.
    :ivar source: who did it: ``"client:49152"``.
    :ivar target: to whom; ``""`` when it concerns nobody else.
    :ivar what: ``listen``, ``unlisten``, ``connect``, ``accept``, ``refuse``, ``data``, ``read``, ``end``, ``reset``,
        ``timeout``, ``datagram``, ``drop``, or what a test has noted.
    :ivar data: the bytes; None where there are none to speak of.
    """

    time: float
    source: str
    target: str
    what: str
    data: bytes | None

    def __str__(self) -> str:
        who = f"{self.source} > {self.target}" if self.target else self.source
        return f"{self.time:11.6f}  {who}  {self.what}{_bytes(self.data, _SHOWN)}"


class Trace:
    """The events of one network, in order.

    :param clock: has the time as its attribute ``now``, in seconds.
    """

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._events: list[tuple[float, str, str, str, bytes | None]] = []
        self._forgotten = 0
        self._full = hashlib.sha256()
        self._sizes = hashlib.sha256()

    def note(self, source: str, target: str, what: str, data: bytes | None = None) -> None:
        """Write down an event, at the present time."""
        self._events.append((self._clock.now, source, target, what, data))
        if len(self._events) > LIMIT:
            self._forget(LIMIT // 2)

    def _forget(self, count: int) -> None:
        for event in self._events[:count]:
            self._full.update(_line(event, True))
            self._sizes.update(_line(event, False))
        del self._events[:count]
        self._forgotten += count

    @property
    def events(self) -> tuple[Event, ...]:
        """The events so far; when there were more than :data:`LIMIT`, the last ones."""
        return tuple(Event(*event) for event in self._events)

    @property
    def forgotten(self) -> int:
        """How many events are no longer among :attr:`events`."""
        return self._forgotten

    def digest(self, *, content: bool = True) -> str:
        """A hash (SHA-256) of every event there was.

        :param content: False leaves the bytes out and keeps their number: what is random in them (TLS) does not matter.
        """
        hashed = (self._full if content else self._sizes).copy()
        for event in self._events:
            hashed.update(_line(event, content))
        return hashed.hexdigest()

    def __str__(self) -> str:
        lines = [str(event) for event in self.events]
        if self._forgotten:
            lines.insert(0, f"({self._forgotten} earlier events are not kept)")
        return "\n".join(lines)

    def mermaid(self, *, reads: bool = False) -> str:
        """The run as a sequence diagram in Mermaid's language (``sequenceDiagram``), for documents.

        :param reads: show also when the bytes were read.
        """
        events = [event for event in self.events if reads or event.what != "read"]
        names: dict[str, str] = {}
        for event in events:
            for name in filter(None, event[1:3]):
                names.setdefault(name, f"p{len(names)}")
        lines = ["sequenceDiagram"]
        lines += [f"    participant {short} as {name}" for name, short in names.items()]
        lines += [f"    {_arrow(event, names)}" for event in events]
        return "\n".join(lines)


class _Clock(Protocol):
    """Whoever has the time."""

    now: float


def _line(event: tuple[float, str, str, str, bytes | None], content: bool) -> bytes:
    time, source, target, what, data = event
    shown = data if content else data and len(data)
    return repr((time, source, target, what, shown)).encode()


def _bytes(data: bytes | None, shown: int) -> str:
    if data is None:
        return ""
    start = repr(data[:shown])[1:]
    return f"  {len(data)}  {start}{'...' if len(data) > shown else ''}"


def _arrow(event: Event, names: dict[str, str]) -> str:
    text = f"{event.what}{_bytes(event.data, _DIAGRAM)}".replace(";", ",").replace("#", "no. ")
    text = f"{event.time:g} s: {text}"
    if not event.target:
        return f"Note over {names[event.source]}: {text}"
    arrow = "-x" if event.what in ("reset", "refuse") else "->>"
    return f"{names[event.source]}{arrow}{names[event.target]}: {text}"
