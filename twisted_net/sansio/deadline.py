"""
An idle clock that needs no timer to be reset.

Segments come by the thousand, deadlines hardly ever. So what happens is only noted (:meth:`Deadline.touch` is one
assignment), and a single timer asks when it fires how much is left: nothing, then the time is over; else it starts
again for exactly that long. A timer is started once per idle period and not once per segment.
"""

from __future__ import annotations

from math import inf
from typing import Final

from twisted_net.errors import OptionError

#: Seconds. Less than this is no time left: rounding of ``now + left`` must not make a timer that just fired start
#: again for 1e-17 seconds. A double that counts seconds since 1970 moves in quarters of it.
GRAIN: Final = 1e-6


class Deadline:
    """
    :param seconds: how long nothing may happen; 0 or more. May be set at any time and then counts from ``last``.
    :param now: the time, in seconds of the clock that the other calls go by.
    :raises OptionError: when seconds is negative or not a finite number.
    """

    __slots__ = ("last", "seconds")

    def __init__(self, seconds: float, now: float) -> None:
        if not 0 <= seconds < inf:
            raise OptionError(f"a deadline of {seconds!r} seconds; it must be finite and not negative, None for none")
        self.seconds = seconds
        #: When something happened last.
        self.last = now

    def touch(self, now: float) -> None:
        """Something happened ``now``."""
        self.last = now

    def due(self, now: float) -> float:
        """
        The seconds that are left; 0.0 when the time is over.

        A timer that is started for that long, and untouched meanwhile, finds 0.0 when it fires.
        """
        if now < self.last:  # the clock was set back: count from there, not from a moment that is to come again
            self.last = now
        left = self.seconds - (now - self.last)
        return left if left > GRAIN else 0.0
