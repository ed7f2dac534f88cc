"""
Looking for the schedules that break a scenario, and telling the smallest one that was found.

A test that passes has seen one order of events. :func:`explore` runs a scenario on a network in memory once for each
seed; each seed cuts, delays and orders otherwise (:mod:`~twisted_net.testing.choices`). The first run that fails is
made smaller, and :class:`ScheduleFound` says which few decisions are enough to break the scenario, and the line that
runs exactly those again (:func:`replay`)::

    def scenario(net): ...

    def test_whateverTheOrder():
        explore(scenario, seeds=range(1000))

Making smaller is hypothesis' trade, and its shrinker does it here, asked in a way that suits schedules: it is handed a
row of *places*, of which each is kept or simplified, and prefers to simplify. A place is first a long stretch of steps
that may be left out, then a shorter one, then one step, then a step's value. So a schedule of a thousand steps costs
some hundred runs and not a thousand. A place is kept when any of a few booleans is true, and is simplified when all
are false, for three reasons: most places are kept in the first rows that hypothesis tries, so one that fails is found
at once; each boolean that becomes false is progress to the shrinker, down to the last; and booleans are all that
hypothesis draws without looking for constants in the user's code, which it would store in a folder ``.hypothesis``.
(``sampled_from`` draws the first element, which must stand for "left out", far more often than any other.)

Leaving out a step can move the later ones of its site: without a cut there is no rest of which the network asks
again. They are tried where they are, and closed up by one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any, Final
from unittest import SkipTest

from twisted_net.errors import OptionError
from twisted_net.testing.choices import Choices, Schedule, Step

__all__ = ["Exploration", "ScheduleFound", "explore", "replay"]

#: How many places hypothesis is asked about at a time, and how many stretches a schedule is cut into at first. Its time
#: grows faster than their number, and what they cost is about a run for each.
_PLACES: Final = 8

#: Booleans for each place: by chance it is simplified once in 2**3 times, and all of 8 are kept in 34 rows of 100.
_BOOLEANS: Final = 3

#: How many rows of places hypothesis may make up for one question. One in which all places are kept is among them.
_ROWS: Final = 100

_UNSTEADY: Final = (
    "THE SCENARIO IS NOT DETERMINISTIC: run again with the same seed and the same decisions, it did not fail in the "
    "same way, so nothing was made smaller, and the line below may or may not fail. Something besides the network "
    "decides: the module random, the time of day, a thread, the order of a set, or what an earlier run left behind."
)
_UNSHRUNK: Final = "It was not made smaller: hypothesis does that, and is not installed (pip install hypothesis)."


@dataclass(frozen=True, slots=True)
class Exploration:
    """
    What was tried when nothing was found.

    :param runs: how many seeds.
    :param steps: how many decisions were not calm, in all runs together; 0 means that nothing was varied.
    """

    runs: int
    steps: int


class ScheduleFound(AssertionError):
    """A schedule that breaks the scenario; its text has all that is needed to run it again."""

    def __init__(self, message: str, *, seed: int, schedule: Schedule, original: BaseException, trace: str) -> None:
        super().__init__(message)
        #: The seed whose run failed first.
        self.seed = seed
        #: The smallest schedule that was found to fail in the same way.
        self.schedule = schedule
        #: What the scenario raised in the run of that schedule; the ``__cause__`` too.
        self.original = original
        #: What happened in that run, as the network tells it (``str(net.trace)``); empty when it does not.
        self.trace = trace


def explore(
    scenario: Callable[[Any], Any],
    seeds: Iterable[int] = range(1000),
    *,
    shrink: bool = True,
    shrinkRuns: int = 500,
    network: Callable[..., Any] | None = None,
    **options: Any,
) -> Exploration:
    """
    Run ``scenario(net)`` once for each seed, until a run fails.

    Each run has a network of its own, which is closed after it: what the scenario left open is a failure, too. Any
    exception is one, but for those that say something to whoever runs the tests: ``KeyboardInterrupt``,
    ``SystemExit``, the skips of unittest, trial and pytest, ``pytest.exit``, and hypothesis' ``assume`` pass through.

    :param scenario: a function, or ``async def``: what can be awaited is handed to ``net.run``. It is run many times,
        so it brings along all that it changes.
    :param shrink: make the schedule that was found smaller.
    :param shrinkRuns: after how many more runs the smallest schedule so far is good enough; at least 1.
    :param network: what makes a network, called as ``network(choices=..., **options)``. Default:
        :class:`~twisted_net.testing.network.MemoryNetwork`.
    :raises ScheduleFound: for the first seed whose run fails.
    :raises OptionError: when there is no seed, or one of them is no whole number.
    """
    if not isinstance(shrinkRuns, int) or shrinkRuns < 1:
        raise OptionError(f"shrinkRuns is {shrinkRuns!r}; it must be a whole number of at least 1, or say shrink=False")
    if not isinstance(seeds, Iterable):
        raise OptionError(f"seeds is {seeds!r}; it must be several whole numbers, such as range(1000)")
    stage = _Stage(scenario, network, options)
    runs = steps = 0
    for seed in seeds:
        run = stage.run(Choices(seed))
        if run.error is not None:
            if not _isFailure(run.error):
                raise run.error
            found = _report(stage, seed, run, shrinkRuns if shrink else 0)
            raise found from found.original
        runs += 1
        steps += len(run.steps)
    if runs == 0:
        raise OptionError(f"seeds is {seeds!r}; it has no seed, so that nothing would be tried: give at least one")
    return Exploration(runs, steps)


def replay(
    scenario: Callable[[Any], Any],
    schedule: Schedule | str,
    *,
    network: Callable[..., Any] | None = None,
    **options: Any,
) -> None:
    """
    Run ``scenario(net)`` once, exactly by a schedule; what it raises comes out as it is.

    The arguments are those of :func:`explore`, and have to be the same for the schedule to mean the same.

    :param schedule: as it was found, or its text.
    :raises OptionError: when the text is no schedule.
    """
    told = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    run = _Stage(scenario, network, options).run(Choices.replay(told))
    if run.error is not None:
        raise run.error


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of one run: what it raised, if anything, its decisions that were not calm, and its network."""

    error: BaseException | None
    steps: tuple[Step, ...]
    net: Any

    def failedAs(self, other: _Run) -> bool:
        """Both failed, and with the same kind of exception: another kind is another fault, or none."""
        return self.error is not None and type(self.error) is type(other.error)


class _Stage:
    """A scenario and the networks that it is run on."""

    def __init__(
        self, scenario: Callable[[Any], Any], network: Callable[..., Any] | None, options: dict[str, Any]
    ) -> None:
        self._scenario = scenario
        self._network = network
        self._options = options

    def run(self, choices: Choices) -> _Run:
        net = self._makeNetwork()(choices=choices, **self._options)
        try:
            _perform(self._scenario, net)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return _Run(error, choices.steps, net)
        return _Run(None, choices.steps, net)

    @property
    def name(self) -> str:
        return str(getattr(self._scenario, "__name__", self._scenario))

    def line(self, schedule: Schedule) -> str:
        """The line of Python that runs a schedule here again."""
        arguments = [self.name, f'"{schedule}"']
        if self._network is not None:
            arguments.append(f"network={getattr(self._network, '__name__', self._network)}")
        arguments += [f"{name}={value!r}" for name, value in self._options.items()]
        return f"replay({', '.join(arguments)})"

    def _makeNetwork(self) -> Callable[..., Any]:
        if self._network is not None:
            return self._network
        from twisted_net.testing.network import MemoryNetwork

        return MemoryNetwork


def _perform(scenario: Callable[[Any], Any], net: Any) -> None:
    try:
        result = scenario(net)
        if isawaitable(result):
            net.run(result)
    except BaseException:
        with suppress(Exception):  # what is open after a failure is open because of it
            net.close()
        raise
    net.close()


def _isFailure(error: BaseException) -> bool:
    """Whether ``error`` tells of a fault in the scenario, and nothing to whoever runs the tests."""
    failures: list[type[BaseException]] = [Exception]
    words: list[type[BaseException]] = [SkipTest]
    if (pytest := sys.modules.get("pytest")) is not None:
        failures.append(pytest.fail.Exception)
        words += [pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception]
    if (hypothesis := sys.modules.get("hypothesis.errors")) is not None:
        words.append(hypothesis.UnsatisfiedAssumption)
    return isinstance(error, tuple(failures)) and not isinstance(error, tuple(words))


def _report(stage: _Stage, seed: int, first: _Run, shrinkRuns: int) -> ScheduleFound:
    """What to raise for the failure of a seed. Runs it again, makes it smaller, and runs the smallest once more."""
    note = ""
    last = stage.run(Choices(seed, first.steps))
    if last.failedAs(first) and shrinkRuns > 0:
        shrinking = _Shrinking(lambda steps: stage.run(Choices(seed, steps)), first, shrinkRuns)
        try:
            note = shrinking.shrink()
        except ImportError:
            note = _UNSHRUNK
        except Exception as error:  # within @given hypothesis wants to be asked; a finding stays one, whatever comes
            note = f"It was not made smaller, for hypothesis says: {error}"
        last = stage.run(Choices(seed, shrinking.smallest))
    if not last.failedAs(first):
        last, note = first, _UNSTEADY
    original = last.error
    assert original is not None
    schedule = Schedule(seed, last.steps)
    told = f"{type(original).__name__}: {original}"
    lines = [f"seed {seed} breaks {stage.name}", told, "", schedule.describe()]
    lines += ["", note] * bool(note) + ["", "Run it again:", f"    {stage.line(schedule)}"]
    trace = str(getattr(last.net, "trace", ""))
    return ScheduleFound("\n".join(lines), seed=seed, schedule=schedule, original=original, trace=trace)


_Change = Callable[[tuple[Step, ...], list[bool]], tuple[Step, ...]]
"""How steps are simplified at those of their places that are not kept."""


class _Shrinking:
    """
    From the steps of a failed run to few that fail in the same way.

    :param run: runs the scenario with these steps.
    :param first: the run that failed.
    :param limit: how many runs may be made; none is made twice.
    """

    def __init__(self, run: Callable[[tuple[Step, ...]], _Run], first: _Run, limit: int) -> None:
        #: The smallest steps so far that failed, as they were made.
        self.smallest = first.steps
        self._run = run
        self._first = first
        self._limit = limit
        self._runs = 0
        self._failed = {first.steps: True}

    def shrink(self) -> str:
        """
        Make :attr:`smallest` as small as it gets, and say what that took.

        :raises ImportError: when hypothesis is not installed.
        """
        before: tuple[Step, ...] = ()
        while self.smallest != before:
            before = self.smallest
            self._leaveOutStretches()
            for change in (_leftOut, _closedUp, _lowered(lambda value: 1), _lowered(lambda value: (value + 1) // 2)):
                self._simplify(len(self.smallest), change)
        allowed = " (all that were allowed)" if self._runs == self._limit else ""
        steps = f"{len(self.smallest)} of {len(self._first.steps)}"
        return f"Steps that are left: {steps}. Runs to make it smaller: {self._runs}{allowed}."

    def _leaveOutStretches(self) -> None:
        length = len(self.smallest) // _PLACES
        while length > 1:
            self._simplify(-(-len(self.smallest) // length), _stretchesLeftOut(length))
            length = min(length // 2, len(self.smallest) // _PLACES)

    def _simplify(self, places: int, change: _Change) -> None:
        """Find as many places as possible at which ``change`` may simplify :attr:`smallest`; a few at a time."""
        steps = self.smallest
        kept = [True] * places
        for at in range(0, places, _PLACES):
            if self._runs == self._limit:
                break
            few = slice(at, at + _PLACES)

            def failsWith(these: list[bool], few: slice = few) -> bool:
                kept[few] = these
                return self._fails(change(steps, kept))

            kept[few] = _fewestKept(len(kept[few]), failsWith)

    def _fails(self, steps: tuple[Step, ...]) -> bool:
        known = self._failed.get(steps)
        if known is not None or self._runs == self._limit:
            return bool(known)
        self._runs += 1
        run = self._run(steps)
        failed = self._failed[steps] = run.failedAs(self._first)
        if failed and _size(run.steps) < _size(self.smallest):
            self.smallest = run.steps
            self._failed[run.steps] = True  # the same run, told without the steps that nobody asked for
        return failed


def _fewestKept(places: int, fails: Callable[[list[bool]], bool]) -> list[bool]:
    """Let hypothesis look for the fewest places that have to be kept for ``fails`` to hold, as it does with all."""
    from hypothesis import Phase, Verbosity, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    rules = settings(
        max_examples=_ROWS,
        phases=(Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
    )
    size = places * _BOOLEANS

    def kept(row: Sequence[bool]) -> list[bool]:
        return [any(row[at : at + _BOOLEANS]) for at in range(0, size, _BOOLEANS)]

    fewest = [True] * places
    with suppress(NoSuchExample):
        fewest = kept(find(st.tuples(*[st.booleans()] * size), lambda row: fails(kept(row)), settings=rules))
    return fewest


def _size(steps: tuple[Step, ...]) -> tuple[int, int, int]:
    """Fewer steps are smaller, then smaller values, then earlier decisions."""
    return len(steps), sum(step.value for step in steps), sum(step.number for step in steps)


def _stretchesLeftOut(length: int) -> _Change:
    return lambda steps, kept: tuple(step for at, step in enumerate(steps) if kept[at // length])


_leftOut: Final = _stretchesLeftOut(1)


def _closedUp(steps: tuple[Step, ...], kept: list[bool]) -> tuple[Step, ...]:
    """Left out, and the later steps of the same site one decision earlier for each."""
    gone: Counter[str] = Counter()
    found = []
    for step, keep in zip(steps, kept, strict=True):
        if keep:
            found.append(replace(step, number=step.number - gone[step.site]))
        else:
            gone[step.site] += 1
    return tuple(found)


def _lowered(lower: Callable[[int], int]) -> _Change:
    def change(steps: tuple[Step, ...], kept: list[bool]) -> tuple[Step, ...]:
        pairs = zip(steps, kept, strict=True)
        return tuple(step if keep else replace(step, value=lower(step.value)) for step, keep in pairs)

    return change
