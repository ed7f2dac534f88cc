"""
Where a run's chance comes from: every decision has a name, and what was decided can be written down and said again.

A run in memory meets decisions that a real network leaves to chance: is this segment delivered whole or cut, which of
two events comes first? Whoever meets one asks :meth:`Choices.pick`, and says at which *site* it stands: a short name of
the place in the code, and of the link or host where there are several ("cut client>server"). A site and a number (how
often the site has been asked before) name the decision. Answer 0 is always the calm one: in order, whole, at once. So
a run is told completely by a seed, which rules the faults' generators, and by those decisions that were not calm: its
:class:`Schedule`.

Each site has a stream of chance of its own, and each decision takes exactly one number from it, whatever its count and
its odds. With one stream for all, a decision more at one site would change every later decision of all the others: a
new site in the network would give each seed another meaning. A count over all sites would be as bad for a schedule's
steps: leaving one out while a failure is made smaller would move the others to decisions that they were never meant
for. With names they stay where they are, but for the later ones of the same site.

Nothing here depends on the process or on Python's version: streams are :class:`random.Random` seeded by a text, and of
its methods only ``random`` is used, whose sequence Python promises to keep ("Notes on Reproducibility" in the manual of
:mod:`random`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import quote, unquote

from twisted_net.errors import OptionError

__all__ = ["LIMIT", "Choices", "Schedule", "Step"]

#: How many decisions of one run may be other than calm. Later ones are all calm, so that what was written down is
#: still the whole schedule of that run. Some 10 MB; a thousand times of what a person wants to read.
LIMIT: Final = 100_000

#: The items of a schedule's text, which stand between commas. A site may hold "#" as "%23" only.
_SEED: Final = re.compile(r"seed=(-?[0-9]+)", re.ASCII)
_STEP: Final = re.compile(r"([^#]+)#([0-9]+)=([0-9]+)/([0-9]+)", re.ASCII)

#: What a site's name keeps in a schedule's text, besides letters and digits; all else is percent-encoded.
_SAFE: Final = " :/<>@[]()|*+&!"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One decision that is not calm.

    :param site: who asked: words of printable characters, with single spaces between.
    :param number: how often the site had been asked before, from 0.
    :param value: what was answered: from 1 to ``count - 1``.
    :param count: how many answers there were.
    :raises OptionError: when a value breaks these rules.
    """

    site: str
    number: int
    value: int
    count: int

    def __post_init__(self) -> None:
        _checkSite(self.site)
        _checkWhole("number", self.number, "a whole number of at least 0", 0)
        _checkWhole("count", self.count, "a whole number of at least 2: one answer is no decision", 2)
        _checkWhole("value", self.value, "a whole number from 1 to count - 1; leave out a step that is calm", 1)
        if self.value >= self.count:
            raise OptionError(f"value is {self.value}; it must be less than count, which is {self.count}")

    def __str__(self) -> str:
        return f"{quote(self.site, safe=_SAFE)}#{self.number}={self.value}/{self.count}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    A run told completely: the seed of its faults, and its decisions that are not calm.

    ``str(schedule)`` is one line, such as ``seed=17, cut client>server#3=5/64, order#0=1/2``; :meth:`parse` reads it
    back.

    :raises OptionError: when the seed is no whole number, or two steps speak of the same decision.
    """

    seed: int
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        _checkWhole("seed", self.seed, "a whole number")
        _bySite(self.steps)

    def __str__(self) -> str:
        return ", ".join([f"seed={self.seed}", *map(str, self.steps)])

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """
        Read what ``str(schedule)`` wrote; any white space may stand in place of a space.

        :raises OptionError: when the text is no schedule; it names the part.
        """
        first, *others = (" ".join(part.split()) for part in text.split(","))
        return cls(_parseSeed(first), tuple(map(_parseStep, others)))

    def describe(self) -> str:
        """The schedule as a person reads it: a line for the seed, and one for each step."""
        if not self.steps:
            return f"seed {self.seed}, and every decision is calm"
        title = f"seed {self.seed}, and every decision is calm but (numbers count from 0):"
        lines = [f"  {it.site}, decision {it.number}: {it.value} of 0 to {it.count - 1}" for it in self.steps]
        return "\n".join([title, *lines])


class Choices:
    """
    The decisions of one run: calm, by chance, or as a schedule says. A run has its own; they are not shared.

    There is one entry in memory for each site, so sites are named after what a run has a bounded number of.

    :param seed: decisions by chance, when no steps are given; and the seed of the generators of :meth:`random`.
    :param steps: the decisions that are not calm; all the others are.
    :raises OptionError: when the seed is no whole number, or two steps speak of the same decision.
    """

    def __init__(self, seed: int | None = None, steps: Iterable[Step] | None = None) -> None:
        if seed is not None:
            _checkWhole("seed", seed, "a whole number")
        #: As given; ``None`` when none was.
        self.seed = seed
        #: Neither seed nor steps were given: every answer is 0, and who meets a decision need not ask.
        self.calm = seed is None and steps is None
        self._told = None if steps is None else _bySite(steps)
        self._sites: dict[str, _Chance | _Told] = {}
        self._generators: dict[str, Random] = {}
        self._made: list[tuple[str, int, int, int]] = []

    @classmethod
    def replay(cls, schedule: Schedule) -> Choices:
        """The choices that make a run go by ``schedule``."""
        return cls(schedule.seed, schedule.steps)

    def pick(self, site: str, count: int, odds: int = 1) -> int:
        """
        Decide one thing: a number from 0 to ``count - 1``, of which 0 is the calm one.

        By chance, it is other than 0 once in ``odds`` times, and then each number is as likely as the next; with odds
        of 1 that holds for all numbers, 0 included. By a schedule, it is what the step for this decision says, at most
        ``count - 1``; 0 where none does. A count of 1 or less gives 0; the site has been asked all the same.

        :param odds: 1 or more.
        """
        if self.calm:
            return 0
        here = self._sites.get(site)
        if here is None:
            here = self._open(site)
        value = here.decide(count, odds)
        if value == 0 or len(self._made) == LIMIT:
            return 0
        self._made.append((site, here.asked - 1, value, count))
        return value

    def random(self, site: str) -> Random:
        """
        The generator of this site, for what is no decision: latency, loss. The same one each time that it is asked for.

        It depends on the seed and on the site's name alone, whether or not there are steps. Without a seed it is that
        of seed 0.
        """
        found = self._generators.get(site)
        if found is None:
            _checkSite(site)
            found = self._generators[site] = self._seeded("random", site)
        return found

    @property
    def steps(self) -> tuple[Step, ...]:
        """The decisions so far that were not calm, in the order they were made; at most :data:`LIMIT`."""
        return tuple(Step(*it) for it in self._made)

    def _open(self, site: str) -> _Chance | _Told:
        _checkSite(site)
        told = self._told
        here = _Chance(self._seeded("pick", site)) if told is None else _Told(told.get(site, {}))
        self._sites[site] = here
        return here

    def _seeded(self, purpose: str, site: str) -> Random:
        return Random(f"{self.seed or 0} {purpose} {site}")


class _Chance:
    """The decisions of one site, by chance."""

    __slots__ = ("_draw", "asked")

    def __init__(self, random: Random) -> None:
        self._draw = random.random
        self.asked = 0

    def decide(self, count: int, odds: int) -> int:
        self.asked += 1
        # One number for each decision, also where there is nothing to decide: the next one stays what it is.
        share = self._draw() * odds
        if count <= 1 or share >= 1.0:
            return 0
        return int(share * count) if odds == 1 else 1 + int(share * (count - 1))


class _Told:
    """The decisions of one site, as a schedule says: from a decision's number to its value."""

    __slots__ = ("_values", "asked")

    def __init__(self, values: dict[int, int]) -> None:
        self._values = values
        self.asked = 0

    def decide(self, count: int, odds: int) -> int:
        value = self._values.get(self.asked, 0)
        self.asked += 1
        return min(value, max(count - 1, 0))


def _bySite(steps: Iterable[Step]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for step in steps:
        values = found.setdefault(step.site, {})
        if step.number in values:
            raise OptionError(f"steps speak twice of decision {step.number} of {step.site!r}; leave one of them out")
        values[step.number] = step.value
    return found


def _parseSeed(part: str) -> int:
    if (match := _SEED.fullmatch(part)) is None:
        raise OptionError(f"a schedule begins with {part!r}; it must begin with its seed, such as 'seed=17'")
    return _whole(match[1], part)


def _parseStep(part: str) -> Step:
    if (match := _STEP.fullmatch(part)) is None:
        raise OptionError(f"{part!r} is no step of a schedule; write SITE#NUMBER=VALUE/COUNT, such as 'cut#3=5/64'")
    number, value, count = (_whole(digits, part) for digits in match.groups()[1:])
    try:
        return Step(unquote(match[1]), number, value, count)
    except OptionError as error:
        raise OptionError(f"{part!r} is no step of a schedule: {error.strerror}") from None


def _whole(digits: str, part: str) -> int:
    try:
        return int(digits)
    except ValueError:  # more digits than Python cares to read (sys.set_int_max_str_digits)
        raise OptionError(f"{part[:40]!r}... has a number of {len(digits)} digits; give one that is shorter") from None


def _checkSite(site: object) -> None:
    if not isinstance(site, str) or not site or not site.isprintable() or site != " ".join(site.split()):
        rule = "printable words with single spaces between, such as 'cut client>server'"
        raise OptionError(f"site is {site!r}; it must be {rule}")


def _checkWhole(name: str, value: object, rule: str, least: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
    if not whole:
        raise OptionError(f"{name} is {value!r}; it must be {rule}")
