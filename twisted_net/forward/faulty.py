"""
A direction on a bad network: what :mod:`~twisted_net.sansio.faults` says becomes of bytes, done to a real connection.

What a chain of faults makes of a segment are items with times. They wait here, in order, and each goes to the sink when
its time has come; there is one timer, for the first of them or for the faults' own next deed. That is all that a
forwarder holds of bytes, and it is bounded: from `IN_FLIGHT` bytes on the source is paused (owner ``"fault"``). So a
delay of *d* seconds lets at most ``IN_FLIGHT / d`` bytes a second through, as a real road with so much room would.

A sink that takes no more stops the items that are due, and by the same bound the source. An end waits behind the bytes
before it, so a connection whose source has closed stays until the last of them is delivered.

A reset of a fault's is one to both sides: the sink is sent RST where a byte would have been, and the source is aborted
with it, as by a router that has lost its state. A source's own RST travels the road like everything else; that one of
our deadlines has ended the source does not: the sink is ended at once, by FIN, or by RST when bytes are under way.

When a source is gone altogether, its sink is closed as soon as nothing is under way, also if a fault has swallowed the
end: a black hole is for bytes and ends, and nobody would ever come to close what is left of the session.

*Datagrams* (`FaultyDatagrams`) may overtake each other, so they wait in a heap; what comes when `DATAGRAMS_IN_FLIGHT`
of them wait is lost.

**Chance.** Session *n* under the seed *s* has the generator ``Random("s/n/direction")``: the same seed gives the
same faults to the same session, at the same bytes, however many others there are meanwhile.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.errors import ResetError, TimedOutError
from twisted_net.forward.hooks import Direction
from twisted_net.sansio.faults import DatagramFaults, Delivery, Faults, StreamFaults
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import PEER, Way

__all__ = ["IN_FLIGHT", "Faulty", "FaultyDatagrams", "chanceOf", "faultyWay"]

FAULT: Final = "fault"
"""The owner of the pause in the source's reading while enough is under way."""

IN_FLIGHT: Final = 4 * 1024 * 1024
"""Bytes that are under way in one direction at most, and one segment: so that 100 ms of delay still let 40 MB a second
through."""

GRAIN: Final = 1e-6
"""Seconds: what is due within it is due now. A timer for less may not move the clock at all."""

DATAGRAMS_IN_FLIGHT: Final = 4096
"""Datagrams that are under way in one direction of a flow at most; what comes then is lost, as in a router's queue."""


def chanceOf(seed: int, number: int, direction: Direction) -> Random:
    """Return where the chance of one direction of one session comes from."""
    return Random(f"{seed}/{number}/{direction}")  # by text: the same in every process (random.seed, version 2)


def faultyWay(faults: Faults, chance: Random) -> Way:
    """Return what makes the carrier of a direction with *faults*."""
    return lambda source, sink: Faulty(source, sink, faults, chance)


class Faulty:
    """
    The carrier of a direction with faults.

    :param source: where bytes come from.
    :param sink: where they go.
    :param faults: what becomes of them.
    :param chance: where the faults' chance comes from.
    """

    __slots__ = (
        "_closing",
        "_failure",
        "_flying",
        "_full",
        "_items",
        "_life",
        "_over",
        "_reactor",
        "_sink",
        "_source",
        "_timer",
    )

    def __init__(self, source: SocketProtocol, sink: SocketProtocol, faults: Faults, chance: Random) -> None:
        self._source = source
        self._sink = sink
        self._reactor = source.reactor
        self._life = StreamFaults(faults, chance, self._reactor.seconds())
        self._items: deque[Delivery] = deque()
        self._flying = 0
        self._full = False  # the sink takes no more
        self._closing = False  # the source is gone: after the last item the sink is closed
        self._failure: Exception | None = None  # the source's, which travels as a reset
        self._over = False
        self._timer: IDelayedCall | None = None
        self._wait()  # a fault may act before the first byte

    # Carrier

    @property
    def receive(self) -> Callable[[bytes], object]:
        """Sends a segment on its way."""
        return self._receive

    def _receive(self, data: bytes) -> None:
        self._add(self._life.feed(data, self._reactor.seconds()))
        if self._flying >= IN_FLIGHT and not self._over:
            self._source.pause(FAULT)

    def drained(self) -> None:
        """Go on with what is due."""
        self._full = False
        self._source.resume(PEER)
        self._deliver()

    def ended(self) -> None:
        """The end goes the same road."""
        self._add(self._life.end(self._reactor.seconds()))

    def closed(self) -> None:
        """The sink is closed behind the last item."""
        self._closing = True
        self._deliver()

    def failed(self, error: Exception) -> None:
        """A reset goes the same road; but a deadline of ours is no news of the network's."""
        if self._over:
            return
        if isinstance(error, TimedOutError) and error is self._source.verdict:
            lost = bool(self._items or self._sink.outlet.unsent) or self._life.due() is not None
            self.part()
            (self._sink.abort if lost else self._sink.drop)(error)
            return
        self._closing = True
        self._failure = error
        self._add(self._life.reset(self._reactor.seconds()))

    def part(self) -> None:
        """Forget everything that is under way."""
        self._over = True
        self._items.clear()
        self._flying = 0
        self._stopTimer()
        self._source.resume(PEER)
        self._source.resume(FAULT)

    # The road

    def _add(self, items: list[Delivery]) -> None:
        if self._over:
            return
        self._items.extend(items)
        self._flying += sum(len(item.data) for item in items)
        self._deliver()

    def _deliver(self) -> None:
        """Whatever is due, as far as the sink takes it."""
        now = self._reactor.seconds()
        while self._items and self._items[0].at - now <= GRAIN and not self._full and not self._over:
            item = self._items.popleft()
            if item.what == "data":
                self._flying -= len(item.data)
                self._full = not self._sink.write(item.data)
                if self._full:
                    self._source.pause(PEER)
            elif item.what == "end":
                self._sink.end()
            else:
                self._reset()
        if self._over:
            return
        if self._flying < IN_FLIGHT:
            self._source.resume(FAULT)
        if self._closing and not self._items and self._life.due() is None:
            self._over = True
            self._sink.close()
        self._wait()

    def _reset(self) -> None:
        self._over = True
        self._items.clear()
        error = self._failure or ResetError("the connection was reset by a fault that was asked for (reset_peer)")
        # What was delivered before it has got through: to abort now would take it back.
        self._sink.outlet.whenSent(lambda failure: self._sink.abort(error))
        self._source.abort(error)

    def _wait(self) -> None:
        self._stopTimer()
        if self._over or self._full:
            return
        due = self._life.due()
        if self._items:
            due = self._items[0].at if due is None else min(due, self._items[0].at)
        if due is not None:
            self._timer = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._add(self._life.tick(self._reactor.seconds()))

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class FaultyDatagrams:
    """
    One direction of a flow of datagrams, with faults.

    :param reactor: the clock.
    :param faults: what becomes of datagrams.
    :param chance: where the faults' chance comes from.
    :param deliver: called with each one that arrives, when it does.
    """

    __slots__ = ("_count", "_deliver", "_items", "_life", "_reactor", "_timer")

    def __init__(
        self, reactor: IReactorTime, faults: Faults, chance: Random, deliver: Callable[[bytes], object]
    ) -> None:
        self._reactor = reactor
        self._life = DatagramFaults(faults, chance)
        self._deliver = deliver
        self._items: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._timer: IDelayedCall | None = None
    def send(self, data: bytes) -> None:
        """Send a datagram on its way."""
        now = self._reactor.seconds()
        for at, copy in self._life.feed(data, now):
            if len(self._items) < DATAGRAMS_IN_FLIGHT:
                self._count += 1
                heapq.heappush(self._items, (at, self._count, copy))
        self._arrive()

    def stop(self) -> None:
        """Forget everything that is under way."""
        self._items.clear()
        self._stopTimer()

    def _arrive(self) -> None:
        now = self._reactor.seconds()
        while self._items and self._items[0][0] - now <= GRAIN:
            self._deliver(heapq.heappop(self._items)[2])
        self._stopTimer()
        if self._items:
            self._timer = self._reactor.callLater(self._items[0][0] - now, self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._arrive()

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
