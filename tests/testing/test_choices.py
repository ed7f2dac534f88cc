"""Where a run's chance comes from: by seed, by schedule, and calm; and schedules as texts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.testing import choices as room
from twisted_net.testing.choices import Choices, Schedule, Step

sites = (st.text("a#,%=/ é'", max_size=9) | st.text(max_size=9)).map(lambda it: " ".join(it.split())).filter(
    lambda it: it != "" and it.isprintable()
)
decisions = st.integers(2, 10**30).flatmap(lambda count: st.tuples(st.integers(1, count - 1), st.just(count)))
schedules = st.builds(
    lambda seed, found: Schedule(seed, tuple(Step(*name, *decision) for name, decision in found.items())),
    st.integers(),
    st.dictionaries(st.tuples(sites, st.integers(0, 10**30)), decisions, max_size=8),
)
asked = st.lists(st.tuples(st.sampled_from(["cut", "order", "turn"]), st.integers(0, 70), st.integers(1, 3)))

TWO = Schedule(17, (Step("cut a>b", 3, 5, 64), Step("order", 0, 1, 2)))


def picks(choices: Choices, questions: list[tuple[str, int, int]]) -> list[int]:
    return [choices.pick(*question) for question in questions]


def test_calmWhenNothingWasGiven() -> None:
    choices = Choices()
    assert choices.calm
    assert choices.seed is None
    assert [choices.pick("cut", 64) for _ in range(100)] == [0] * 100
    assert choices.steps == ()


def test_notCalmWithASeedOrSteps() -> None:
    assert not Choices(0).calm
    assert not Choices(steps=()).calm
    assert Choices(17).seed == Choices(17, ()).seed == 17


def test_withOddsOfOneEveryAnswerIsAsLikely() -> None:
    choices = Choices(1)
    found = [choices.pick("cut", 4) for _ in range(4000)]
    assert set(found) == {0, 1, 2, 3}
    assert all(900 < found.count(value) < 1100 for value in range(4))


def test_withGreaterOddsMostAreCalm() -> None:
    choices = Choices(1)
    found = [choices.pick("cut", 4, 8) for _ in range(8000)]
    assert 900 < sum(value != 0 for value in found) < 1100
    assert all(270 < found.count(value) < 400 for value in (1, 2, 3))


@given(st.integers(), st.integers(-3, 1), st.integers(1, 9))
def test_oneAnswerIsNoDecision(seed: int, count: int, odds: int) -> None:
    choices = Choices(seed)
    assert choices.pick("cut", count, odds) == 0
    assert Choices(steps=[Step("cut", 0, 5, 6)]).pick("cut", count, odds) == 0
    assert choices.steps == ()


@given(st.integers(), asked)
def test_aSeedIsARunAndItsStepsAreTheSameRun(seed: int, questions: list[tuple[str, int, int]]) -> None:
    first, second = Choices(seed), Choices(seed)
    answers = picks(first, questions)
    assert answers == picks(second, questions)
    assert all(0 <= answer < max(count, 1) for answer, (_, count, _) in zip(answers, questions, strict=True))
    told = Choices.replay(Schedule(seed, first.steps))
    assert picks(told, questions) == answers
    assert told.steps == first.steps
    assert [step.value for step in first.steps] == [answer for answer in answers if answer]


def test_seedsDiffer() -> None:
    questions = [("cut", 64, 1)] * 20
    assert picks(Choices(1), questions) != picks(Choices(2), questions)


def test_sitesAreNoCopiesOfEachOther() -> None:
    choices = Choices(1)
    assert picks(choices, [("cut", 64, 1)] * 20) != picks(choices, [("order", 64, 1)] * 20)


@given(asked, asked)
def test_aSiteIsNotDisturbedByOthers(some: list[tuple[str, int, int]], more: list[tuple[str, int, int]]) -> None:
    """Nor by what was asked before at the same site: the third decision is the third."""
    quiet, busy = Choices(5), Choices(5)
    picks(quiet, [("here", 9, 2)] * len(some))
    for (site, count, odds), _ in zip(more, some, strict=False):
        busy.pick(site, count, odds)
    picks(busy, [("here", count, odds) for _, count, odds in some])
    assert quiet.pick("here", 64) == busy.pick("here", 64)


def test_aStepSpeaksOfOneDecision() -> None:
    choices = Choices(steps=[Step("cut", 2, 5, 64), Step("order", 0, 1, 2)])
    assert [choices.pick("cut", 64) for _ in range(4)] == [0, 0, 5, 0]
    assert [choices.pick("order", 2) for _ in range(2)] == [1, 0]
    assert choices.steps == (Step("cut", 2, 5, 64), Step("order", 0, 1, 2))


def test_aStepIsClippedToWhatThereIs() -> None:
    choices = Choices(steps=[Step("cut", 0, 63, 64)])
    assert choices.pick("cut", 10) == 9
    assert choices.steps == (Step("cut", 0, 9, 10),)


def test_afterTheLimitARunIsCalm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LIMIT", 3)
    choices = Choices(1)
    answers = [choices.pick("cut", 2) for _ in range(100)]
    assert sum(answers) == len(choices.steps) == 3
    told = Choices.replay(Schedule(1, choices.steps))
    assert [told.pick("cut", 2) for _ in range(100)] == answers


def test_generatorsDependOnSeedAndSite() -> None:
    first = Choices(3).random("loss").random()
    assert Choices(3, TWO.steps).random("loss").random() == first
    assert Choices(4).random("loss").random() != first
    assert Choices(3).random("latency").random() != first
    assert Choices().random("loss").random() == Choices(0).random("loss").random()


def test_aSiteHasOneGenerator() -> None:
    choices = Choices(3)
    loss = choices.random("loss")
    assert choices.random("loss") is loss
    assert choices.random("latency") is not loss


def test_generatorsDoNotDisturbDecisions() -> None:
    disturbed = Choices(3)
    disturbed.random("cut").random()
    assert picks(disturbed, [("cut", 64, 1)] * 20) == picks(Choices(3), [("cut", 64, 1)] * 20)


def test_anotherProcessDecidesTheSame() -> None:
    program = "from twisted_net.testing.choices import Choices; it = Choices(3); "
    program += "print([it.pick('cut', 64, 2) for _ in range(20)], it.random('loss').random())"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    choices = Choices(3)
    assert there == f"{[choices.pick('cut', 64, 2) for _ in range(20)]} {choices.random('loss').random()}\n"


def test_aScheduleIsOneLine() -> None:
    assert str(TWO) == "seed=17, cut a>b#3=5/64, order#0=1/2"
    assert str(Schedule(-1)) == "seed=-1"


def test_aScheduleForPeople() -> None:
    assert TWO.describe().splitlines() == [
        "seed 17, and every decision is calm but (numbers count from 0):",
        "  cut a>b, decision 3: 5 of 0 to 63",
        "  order, decision 0: 1 of 0 to 1",
    ]
    assert Schedule(17).describe() == "seed 17, and every decision is calm"


@given(schedules)
def test_aScheduleIsReadBack(schedule: Schedule) -> None:
    text = str(schedule)
    assert text.isascii()
    assert not {"'", '"', "\\", "\n"} & set(text)
    assert Schedule.parse(text) == schedule
    assert hash(Schedule.parse("\n  ".join(text.split(" ")))) == hash(schedule)


@given(st.text() | st.text(alphabet="sed=, cut#/%0123456789-", max_size=40).map("seed=1,".__add__))
def test_badTextIsAnOptionError(text: str) -> None:
    try:
        schedule = Schedule.parse(text)
    except OptionError:
        return
    assert Schedule.parse(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a schedule begins with ''; it must begin with its seed, such as 'seed=17'"),
        ("17", "a schedule begins with '17'; "),
        ("seed=1.5", "a schedule begins with 'seed=1.5'; "),
        ("seed=1, cut#3", "'cut#3' is no step of a schedule; write SITE#NUMBER=VALUE/COUNT, such as 'cut#3=5/64'"),
        ("seed=1, cut#3=0/64", "'cut#3=0/64' is no step of a schedule: value is 0; "),
        ("seed=1, cut#3=64/64", "'cut#3=64/64' is no step of a schedule: value is 64; it must be less than count"),
        ("seed=1, cut%0A#3=1/64", "'cut%0A#3=1/64' is no step of a schedule: site is 'cut\\n'; "),
        ("seed=1, cut#3=1/4, cut#3=2/4", "steps speak twice of decision 3 of 'cut'; leave one of them out"),
        ("seed=" + 5000 * "9", "has a number of 5000 digits; give one that is shorter"),
    ],
)
def test_whatIsWrongWithAText(text: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        Schedule.parse(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Choices("1"), "seed is '1'; it must be a whole number"),  # type: ignore[arg-type]
        (lambda: Choices(True), "seed is True; "),
        (lambda: Choices(steps=[Step("cut", 0, 1, 2), Step("cut", 0, 1, 2)]), "steps speak twice of decision 0"),
        (lambda: Choices(1).pick("", 2), "site is ''; it must be printable words with single spaces between"),
        (lambda: Choices(1, ()).pick("a\tb", 2), "site is 'a\\tb'; "),
        (lambda: Choices(1).pick("a  b", 2), "site is 'a  b'; "),
        (lambda: Choices().random("\ud800"), "site is '\\ud800'; "),
        (lambda: Schedule(1.5), "seed is 1.5; "),  # type: ignore[arg-type]
        (lambda: Step(3, 0, 1, 2), "site is 3; "),  # type: ignore[arg-type]
        (lambda: Step("cut", -1, 1, 2), "number is -1; it must be a whole number of at least 0"),
        (lambda: Step("cut", 0, 1, 1), "count is 1; it must be a whole number of at least 2"),
        (lambda: Step("cut", 0, 0, 2), "value is 0; it must be a whole number from 1 to count - 1"),
        (lambda: Step("cut", 0, 2, 2), "value is 2; it must be less than count, which is 2"),
    ],
)
def test_whatIsWrongWithAnArgument(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert told in str(caught.value)
