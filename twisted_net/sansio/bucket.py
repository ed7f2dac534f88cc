"""
A token bucket: how much may pass, at so much a second, with room for a burst.

The bucket holds at most ``burst`` tokens, is full at first, and gains ``rate`` tokens a second. Tokens are whatever is
counted: bytes, accepted connections.

There are two ways to use one. Bytes that have arrived cannot be refused: :meth:`TokenBucket.take` always takes, the
bucket may go below zero, and the answer is the time for which the flow has to be silent until that debt is paid. What
can wait at the door asks :meth:`TokenBucket.wait` first and takes when the answer is 0. Either way, who keeps to the
answers never gets more than ``rate * t + burst`` in any ``t`` seconds; a piece larger than the burst overdraws by what
it is larger, and pays with a longer silence.

Rejected: a bucket that refuses, because then bytes must be held or split, and a piece larger than the burst never
passes; a timer that fills buckets, because idle connections should cost nothing.
"""

from __future__ import annotations

from math import inf
from typing import Final

from twisted_net.errors import OptionError

#: Seconds. Less than this is not waited for: rounding would otherwise leave 1e-17 seconds after every wait, and a
#: timer for those may not move the clock at all. A double that counts seconds since 1970 moves in quarters of it.
GRAIN: Final = 1e-6


class TokenBucket:
    """
    :param rate: tokens a second; more than 0.
    :param burst: tokens that may pass at once after a silence. Default: one second's worth, and at least one token,
        since otherwise one connection at a rate of 0.5 a second could never come in.
    :param now: the time, in seconds of the clock that the other calls go by.
    :raises OptionError: when rate or burst is not a finite number above 0.
    """

    __slots__ = ("_last", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float | None = None, now: float = 0.0) -> None:
        if not 0 < rate < inf:
            raise OptionError(f"rate is {rate!r}; it counts tokens a second and must be finite and more than 0")
        if burst is None:
            burst = max(rate, 1.0)
        elif not 0 < burst < inf:
            raise OptionError(f"burst is {burst!r}; it counts tokens and must be finite and more than 0")
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._last = now

    def take(self, amount: float, now: float) -> float:
        """
        Take ``amount`` tokens (0 or more), at ``now`` seconds, whether they are there or not.

        :returns: the seconds until the debt is paid; 0.0 when there is none.
        """
        self._fill(now)
        self._tokens -= amount
        return self._secondsTo(0)

    def wait(self, amount: float, now: float) -> float:
        """
        The seconds from ``now`` until ``amount`` tokens can be taken without debt, if nobody else takes; takes nothing.

        :returns: 0.0 when they are there; ``math.inf`` when that will never be, the amount being more than the burst.
        """
        self._fill(now)
        return inf if amount > self.burst else self._secondsTo(amount)

    def _fill(self, now: float) -> None:
        if now > self._last:
            self._tokens = min(self.burst, self._tokens + (now - self._last) * self.rate)
        # A clock that was set back counts from there: waiting until it has caught up could take hours.
        self._last = now

    def _secondsTo(self, level: float) -> float:
        seconds = (level - self._tokens) / self.rate
        return seconds if seconds > GRAIN else 0.0
