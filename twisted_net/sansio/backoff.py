"""
How long to wait between attempts: each time longer, up to a limit, and never in step with everybody else.

A :class:`Backoff` is the rule; it is a value that can be written into a configuration and shared. ``begin`` starts one
series of attempts by that rule, and the :class:`Attempts` is told of each failure and answers with the next delay.

The delay starts at ``initial`` and grows by ``factor`` until ``maximum``. Clients that lost the same server would all
come back at the same moment, so a random part of each delay, ``jitter`` of it at most, is taken away. It is taken away
and not added, so that ``maximum`` keeps its word; a jitter of 1 is the "full jitter" of Marc Brooker, "Exponential
Backoff And Jitter" (AWS Architecture Blog, 2015).

The series ends after ``attempts`` attempts, or when ``total`` seconds have passed. The last delay is cut so that the
last attempt is made when that time is over, and not a whole delay earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import Random
from random import random as sharedRandom
from typing import Final

from twisted_net.errors import OptionError

#: Seconds. Less than this is no time left of ``total``: rounding may not make for one more attempt. A double that
#: counts seconds since 1970 moves in quarters of it.
GRAIN: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """
    The rule for delays between attempts.

    :param initial: seconds after the first failure; more than 0.
    :param factor: how much longer each delay is than the one before; 1 or more.
    :param maximum: seconds; no delay is longer. At least ``initial``.
    :param jitter: the share of a delay, 0 to 1, of which a random part is taken away.
    :param attempts: how many attempts are made, the first one included; ``None`` for no end.
    :param total: seconds from the beginning to the last attempt; ``None`` for no end.
    :raises OptionError: when a value breaks these rules.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.1
    attempts: int | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        _check("initial", self.initial, lambda it: 0 < it < inf, "seconds, finite and more than 0")
        _check("factor", self.factor, lambda it: 1 <= it < inf, "a finite number of at least 1; 1 for equal delays")
        _check("maximum", self.maximum, lambda it: self.initial <= it < inf, "seconds, finite and at least initial")
        _check("jitter", self.jitter, lambda it: 0 <= it <= 1, "a share of the delay from 0 to 1; 0 for none")
        if self.attempts is not None:
            whole = "a whole number of at least 1, or None for no end"
            _check("attempts", self.attempts, lambda it: isinstance(it, int) and it >= 1, whole)
        if self.total is not None:
            _check("total", self.total, lambda it: 0 < it < inf, "seconds, finite and more than 0, or None for no end")

    def begin(self, now: float, random: Random | None = None) -> Attempts:
        """
        Start a series of attempts; the first is made ``now``, in seconds of the clock that the failures go by.

        :param random: where the jitter comes from. Default: Python's shared generator.
        """
        return Attempts(self, now, sharedRandom if random is None else random.random)


class Attempts:
    """One series of attempts, made by :meth:`Backoff.begin`."""

    __slots__ = ("_began", "_delay", "_random", "_rule", "count")

    def __init__(self, rule: Backoff, now: float, random: Callable[[], float]) -> None:
        self._rule = rule
        self._random = random
        self._began = now
        self._delay = rule.initial
        #: How many attempts have failed.
        self.count = 0

    def failed(self, now: float) -> float | None:
        """
        An attempt failed ``now``.

        :returns: the seconds until the next one, more than 0; ``None`` when attempts or time are spent.
        """
        rule = self._rule
        self.count += 1
        if rule.attempts is not None and self.count >= rule.attempts:
            return None
        base = self._delay
        # Grown step by step: a power of the count would overflow in a series without end.
        self._delay = min(rule.maximum, base * rule.factor)
        delay = base - base * rule.jitter * self._random()
        if rule.total is not None:
            if now < self._began:  # the clock was set back: the time counts from there
                self._began = now
            left = rule.total - (now - self._began)
            if left <= GRAIN:
                return None
            delay = min(delay, left)
        return delay


def _check(name: str, value: object, good: Callable[[float], bool], rule: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not good(value):
        raise OptionError(f"{name} is {value!r}; it must be {rule}")
