"""The clocks of a connection: deadlines that end it, or that somebody wants to hear of.

Two kinds.  A *countdown* runs once from when it is set (lifetime, first byte).  A *rest clock* runs while nothing
happens (idle, half-open): bytes only mark the time on a :class:`~twisted_net.sansio.deadline.Deadline`, and the one
timer asks it when it fires, so a busy connection costs no timer resets (a ``callLater`` and a ``cancel`` per segment
would be a fifth of the whole echo).

Beside them stands `limitOf`, which reads a limit of time as callers may give it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.errors import OptionError
from twisted_net.sansio.deadline import Deadline


class RestClock:
    """Calls *fire* when nothing has happened for *seconds*: once per period of rest, again after new activity
    (LUV-26)."""

    __slots__ = ("_call", "_deadline", "_fire", "_reactor", "_stopped")

    def __init__(self, reactor: IReactorTime, seconds: float, fire: Callable[[], object]) -> None:
        self._reactor = reactor
        self._fire = fire
        self._deadline = Deadline(seconds, reactor.seconds())
        self._stopped = False
        self._call: IDelayedCall | None = reactor.callLater(seconds, self._due)

    @property
    def seconds(self) -> float:
        """The length of the rest that is waited for."""
        return self._deadline.seconds

    def touch(self, now: float) -> None:
        """Something happened."""
        self._deadline.touch(now)
        if self._call is None and not self._stopped:
            self._call = self._reactor.callLater(self._deadline.seconds, self._due)

    def cancel(self) -> None:
        """Stop for good; harmless when stopped already."""
        self._stopped = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _due(self) -> None:
        left = self._deadline.due(self._reactor.seconds())
        if left > 0:
            self._call = self._reactor.callLater(left, self._due)
        else:
            self._call = None
            self._fire()


class Clocks:
    """All clocks of one connection, by name.  Made only for a connection that has any."""

    __slots__ = ("_countdowns", "_reactor", "_rests", "_touched")

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._rests: dict[str, RestClock] = {}
        self._touched: tuple[RestClock, ...] = ()
        self._countdowns: dict[str, IDelayedCall] = {}

    def rest(self, name: str, seconds: float | None, fire: Callable[[], object]) -> None:
        """Set (or with None: stop) the rest clock *name*."""
        old = self._rests.pop(name, None)
        if old is not None:
            old.cancel()
        if seconds is not None:
            self._rests[name] = RestClock(self._reactor, seconds, fire)
        self._touched = tuple(self._rests.values())

    def countdown(self, name: str, seconds: float, fire: Callable[[], object]) -> None:
        """Set the countdown *name*."""
        self.stop(name)
        self._countdowns[name] = self._reactor.callLater(seconds, self._countedDown, name, fire)

    def stop(self, name: str) -> None:
        """Stop the countdown *name*; harmless when there is none."""
        old = self._countdowns.pop(name, None)
        if old is not None:
            old.cancel()

    def _countedDown(self, name: str, fire: Callable[[], object]) -> None:
        del self._countdowns[name]
        fire()

    @property
    def resting(self) -> bool:
        """Whether any clock wants to be touched."""
        return bool(self._touched)

    def touch(self) -> None:
        """Bytes moved, in either direction."""
        now = self._reactor.seconds()
        for clock in self._touched:
            clock.touch(now)

    def cancel(self) -> None:
        """Stop all of them."""
        for clock in self._rests.values():
            clock.cancel()
        for call in self._countdowns.values():
            call.cancel()
        self._rests.clear()
        self._countdowns.clear()
        self._touched = ()


def limitOf(name: str, seconds: float | None) -> float | None:
    """A limit of time as everybody may give it: None, a negative number and infinity are no limit.

    :raises OptionError: *seconds*, which is called *name*, is no number.
    """
    isNumber = isinstance(seconds, int | float) and not isinstance(seconds, bool) and not math.isnan(seconds)
    if seconds is not None and not isNumber:
        raise OptionError(f"{name} is {seconds!r}; it must be a number of seconds, or None for no limit")
    return None if seconds is None or seconds < 0 or math.isinf(seconds) else float(seconds)
