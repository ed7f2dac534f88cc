"""
Whether somebody who is to be connected to is up: what connections tell in passing, and what checks tell.

There are two books, and who is up is up in both.

**In passing**, as nginx does it (``max_fails``, ``fail_timeout``): the connections that are made anyway are the test::

    WHOLE --maxFails failures within failTimeout--> SUSPENDED --failTimeout later--> ON_TRIAL
      ^                                               |  ^                             |  |
      |                                     a failure +--+-------- a failure ----------+  |
      +--------------------------------------- a success ---------------------------------+

While it is suspended it is not up, and costs no client a failed attempt. On trial it is up again, and the next result
decides: a single failure suspends it anew.

- A success while it is whole does not wipe out the failures before it: who fails every other time is not well.
- A failure while it is suspended puts off the end: the attempt may have begun before, but it does not answer yet.
- A success while it is suspended changes nothing: of ten attempts that began together, one that succeeds shall not undo
  what three that failed have shown.

**By checks**, as HAProxy does it (``rise``, ``fall``): it passes at first; ``fall`` bad checks in a row and it does
not, ``rise`` good ones in a row and it does again.

Neither book is written from the other's events. A check that is good knows only that somebody accepts, not that
connections work; and a failure in passing, which may be the network's for a moment, does not count against a target
that its checks find well for longer than ``failTimeout``.

Time is the caller's. That a clock was set back is noticed at the next call, by questions too; what is noted then moves
along with it, the end of a suspension like the failures before it.

Rejected: a share of failures instead of a number, since 1 of 2 says nothing and 100 of 200 comes too late; a suspension
that becomes longer each time, which keeps a target out for minutes that was restarted twice; nginx's single connection
on trial, since being chosen would have to be told here, and given back when the attempt comes to nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from twisted_net.errors import OptionError

#: Seconds. Less than this is no time left: a timer that was started for the rest must find it over when it fires. A
#: double that counts seconds since 1970 moves in quarters of it.
GRAIN: Final = 1e-6


class Health:
    """
    Whether one target is up. It is at first.

    :param maxFails: how many connections have to fail within ``failTimeout`` to suspend it; ``None`` for never.
    :param failTimeout: seconds, more than 0; also how long it is suspended then.
    :param rise: how many checks in a row have to be good to bring it up.
    :param fall: how many checks in a row have to be bad to take it down.
    :raises OptionError: when a value is out of range.
    """

    __slots__ = (
        "_failures",
        "_last",
        "_onTrial",
        "_streak",
        "_until",
        "failTimeout",
        "fall",
        "maxFails",
        "passesChecks",
        "rise",
    )

    def __init__(self, *, maxFails: int | None = 3, failTimeout: float = 10.0, rise: int = 2, fall: int = 3) -> None:
        if maxFails is not None:
            _count("maxFails", maxFails, ", or None for never")
        if not isinstance(failTimeout, (int, float)) or isinstance(failTimeout, bool) or not 0 < failTimeout < inf:
            raise OptionError(f"failTimeout is {failTimeout!r}; it must be seconds, finite and more than 0")
        _count("rise", rise)
        _count("fall", fall)
        self.maxFails = maxFails
        self.failTimeout = failTimeout
        self.rise = rise
        self.fall = fall
        #: Whether its checks find it well. True as long as nobody checks.
        self.passesChecks = True
        # Checks in a row that say the contrary.
        self._streak = 0
        # When connections failed, less than maxFails of them and none older than failTimeout when the last one did.
        self._failures: deque[float] = deque()
        self._until: float | None = None
        self._onTrial = False
        self._last = -inf

    def failed(self, now: float) -> bool:
        """
        A connection to it has failed, at ``now`` seconds.

        :returns: whether it was up, and is not any more because of this.
        """
        if self.maxFails is None:
            return False
        wasUp = self.isUp(now)
        failures = self._failures
        failures.append(now)
        while now - failures[0] > self.failTimeout:
            failures.popleft()
        if self._until is not None or self._onTrial or len(failures) >= self.maxFails:
            failures.clear()
            self._until = now + self.failTimeout
            self._onTrial = False
        return wasUp and not self.isUp(now)

    def succeeded(self, now: float) -> bool:
        """
        A connection to it has come about, at ``now`` seconds.

        :returns: whether it was on trial, and is whole again because of this. (:meth:`isUp` says so already while it is
            on trial; this is the moment to tell that the outage is over.)
        """
        if self.suspended(now) or not self._onTrial:
            return False
        self._onTrial = False
        return True

    def checked(self, good: bool, now: float) -> bool:
        """
        A check has ended, at ``now`` seconds.

        :returns: whether :meth:`isUp` has changed because of this.
        """
        if good == self.passesChecks:
            self._streak = 0
            return False
        self._streak += 1
        if self._streak < (self.rise if good else self.fall):
            return False
        self._streak = 0
        self.passesChecks = good
        return not self.suspended(now)

    def isUp(self, now: float) -> bool:
        """Whether it may be chosen, at ``now`` seconds."""
        return not self.suspended(now) and self.passesChecks

    def suspended(self, now: float) -> bool:
        """Whether it is out because connections failed, at ``now`` seconds."""
        if now < self._last:
            self._setBack(self._last - now)
        self._last = now
        if self._until is not None and self._until - now <= GRAIN:
            self._until = None
            self._onTrial = True
        return self._until is not None

    def retryAt(self) -> float | None:
        """
        When it ceases to be suspended, in seconds of the clock that the calls go by; a failure meanwhile puts it off.

        :returns: ``None`` when it was not suspended at the last call.
        """
        return self._until

    def _setBack(self, seconds: float) -> None:
        """The clock was: what is noted moves along, so that the time until now counts as no time."""
        self._failures = deque(at - seconds for at in self._failures)
        if self._until is not None:
            self._until -= seconds


def _count(name: str, value: object, other: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{name} is {value!r}; it must be a whole number of at least 1{other}")
