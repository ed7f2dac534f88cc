"""Looking for schedules that break a scenario: what counts as a failure, and how small the smallest gets."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any
from unittest import SkipTest

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from lines import Once
from turning import turns
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.errors import OptionError
from twisted_net.testing.choices import Choices, Schedule
from twisted_net.testing.explore import Exploration, ScheduleFound, explore, replay
from twisted_net.testing.network import MemoryNetwork


class Pipe:
    """A network of the least kind: it cuts what is sent, turns two pieces round, and knows what is still open."""

    def __init__(self, *, choices: Choices, odds: int = 4) -> None:
        self.choices = choices
        self.odds = odds
        self.open = 0
        self.closed = 0
        self.trace = ""

    def send(self, data: bytes) -> list[bytes]:
        pieces = []
        while at := self.choices.pick("cut", len(data), self.odds):
            pieces.append(data[:at])
            data = data[at:]
        pieces.append(data)
        if self.choices.pick("turn", 2, self.odds):
            pieces.reverse()
        self.trace += f"delivered {pieces}\n"
        return pieces

    def run(self, what: Coroutine[Deferred[Any], Any, Any] | Deferred[Any]) -> Any:
        ended = what if isinstance(what, Deferred) else Deferred.fromCoroutine(what)
        results: list[Any] = []
        ended.addBoth(results.append)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def close(self) -> None:
        self.closed += 1
        assert self.open == 0, f"{self.open} left open"


def orderly(net: Pipe) -> None:
    """Breaks where one segment is cut and turned round."""
    for _ in range(20):
        if b"".join(net.send(b"abcdefgh")) != b"abcdefgh":
            raise ValueError("out of order")


def found(scenario: Callable[[Any], Any], **more: Any) -> ScheduleFound:
    with pytest.raises(ScheduleFound) as caught:
        explore(scenario, **{"network": Pipe, **more})
    return caught.value


def test_nothingFound() -> None:
    def scenario(net: Pipe) -> None:
        assert sum(map(len, net.send(b"abcdefgh"))) == 8

    explored = explore(scenario, range(50), network=Pipe)
    assert explored.runs == 50
    assert explored.steps > 5
    assert explore(lambda net: None, [1, 2], network=Pipe) == Exploration(2, 0)


def test_theFirstSeedThatFailsIsToldWithTheSmallestSchedule() -> None:
    error = found(orderly, odds=9)
    smallest = error.schedule
    assert [step.site for step in smallest.steps] == ["cut", "turn"]
    assert [step.value for step in smallest.steps] == [1, 1]
    assert smallest.seed == error.seed
    assert explore(orderly, range(error.seed), network=Pipe, odds=9).runs == error.seed > 0
    assert isinstance(error.original, ValueError)
    assert error.__cause__ is error.original
    assert "[b'bcdefgh', b'a']" in error.trace.splitlines()[-1]


def test_theMessageIsAllThatIsNeeded() -> None:
    error = found(orderly, odds=3)
    lines = str(error).splitlines()
    assert lines[:2] == [f"seed {error.seed} breaks orderly", "ValueError: out of order"]
    assert error.schedule.describe() in str(error)
    assert re.fullmatch(r"Steps that are left: 2 of [0-9]+\. Runs to make it smaller: [0-9]+\.", lines[-4])
    line = f'replay(orderly, "{error.schedule}", network=Pipe, odds=3)'
    assert lines[-2:] == ["Run it again:", f"    {line}"]
    with pytest.raises(ValueError, match="out of order"):
        eval(line, {"replay": replay, "orderly": orderly, "Pipe": Pipe})


def test_theSameCallTellsTheSame() -> None:
    assert str(found(orderly)) == str(found(orderly))


def test_aReplayLeavesTheExceptionAsItIs() -> None:
    error = found(orderly)
    with pytest.raises(ValueError, match="out of order"):
        replay(orderly, error.schedule, network=Pipe)
    with pytest.raises(ValueError, match="out of order"):
        replay(orderly, str(error.schedule), network=Pipe)
    replay(orderly, Schedule(error.seed, error.schedule.steps[:1]), network=Pipe)
    with pytest.raises(OptionError, match="a schedule begins with"):
        replay(orderly, "17", network=Pipe)


def test_withoutShrinkingItIsTheWholeSchedule() -> None:
    error = found(orderly, shrink=False)
    assert len(error.schedule.steps) > 2
    assert "Runs to make it smaller" not in str(error)
    with pytest.raises(ValueError, match="out of order"):
        replay(orderly, error.schedule, network=Pipe)


def test_aScenarioThatFailsAnywayHasAnEmptySchedule() -> None:
    def broken(net: Pipe) -> None:
        net.send(b"abcdefgh")
        raise ValueError("always")

    seed = next(seed for seed in range(100) if explore(lambda net: net.send(b"abcdefgh"), [seed], network=Pipe).steps)
    assert found(broken, seeds=[seed]).schedule == Schedule(seed)


@pytest.mark.parametrize("number", range(4))
def test_whateverIsNeededIsAllThatIsLeft(number: int) -> None:
    """Of 40 decisions three are needed, each with a value of at least so much."""
    chance = Random(number)
    needed, least = sorted(chance.sample(range(40), 3)), chance.randint(1, 9)

    def scenario(net: Pipe) -> None:
        values = [net.choices.pick("order", 100) for _ in range(40)]
        assert not all(values[at] >= least for at in needed)

    error = found(scenario)
    assert [step.number for step in error.schedule.steps] == needed
    assert all(least <= step.value <= 2 * least for step in error.schedule.steps)


def explored(scenario: Callable[[Pipe], None], seed: int) -> AssertionError | None:
    """How the scenario fails for a seed, if it does."""
    try:
        explore(scenario, [seed], network=Pipe, shrink=False)
    except AssertionError as error:
        return error
    return None


def test_whatComesLaterIsClosedUp() -> None:
    """A cut makes the network ask once more: without it, the later ones are at an earlier number."""

    def scenario(net: Pipe) -> None:
        pieces = [net.send(b"abcdefgh") for _ in range(10)]
        assert len(pieces[9]) < 3

    (first, second) = found(scenario).schedule.steps
    assert (first.site, first.number, second.number) == ("cut", 9, 10)


def test_onlyTheSameKindOfFailureCounts() -> None:
    """With fewer steps another fault shows: that is not the one that was found."""

    def scenario(net: Pipe) -> None:
        answers = [net.choices.pick("turn", 2) for _ in range(8)]
        if sum(answers) >= 4:
            raise ValueError("four")
        if sum(answers) >= 1:
            raise TypeError("one")

    seed = next(seed for seed in range(100) if sum(map(Choices(seed).pick, ["turn"] * 8, [2] * 8)) > 4)
    assert len(found(scenario, seeds=[seed]).schedule.steps) == 4


def test_runsForShrinkingAreBounded() -> None:
    runs = 0

    def scenario(net: Pipe) -> None:
        nonlocal runs
        runs += 1
        assert sum(net.choices.pick("order", 2) for _ in range(400)) < 150

    error = found(scenario, seeds=[1], shrinkRuns=10)
    # The seed, its steps once more, ten to make them smaller, and the smallest for its trace.
    assert runs == 1 + 1 + 10 + 1
    assert 150 <= len(error.schedule.steps) < 250
    assert "Runs to make it smaller: 10 (all that were allowed)." in str(error)


def test_aLongScheduleCostsFewRuns() -> None:
    def scenario(net: Pipe) -> None:
        values = [net.choices.pick("order", 2) for _ in range(2000)]
        assert not (values[400] and values[1500])

    seed = next(seed for seed in range(100) if explored(scenario, seed))
    error = found(scenario, seeds=[seed])
    assert [step.number for step in error.schedule.steps] == [400, 1500]
    runs = re.search(r"Runs to make it smaller: ([0-9]+)\.", str(error))
    assert runs is not None
    assert int(runs[1]) < 150


def test_aScenarioThatIsNotDeterministicIsToldSo() -> None:
    runs = 0

    def scenario(net: Pipe) -> None:
        nonlocal runs
        runs += 1
        net.send(b"abcdefgh")
        assert runs != 3

    error = found(scenario, odds=1)
    assert error.seed == 2
    assert "THE SCENARIO IS NOT DETERMINISTIC" in str(error)
    assert len(error.schedule.steps) > 0
    assert error.trace.startswith("delivered")
    assert runs == 4


@given(st.just(orderly))
def test_withinAPropertyItIsToldWithoutBeingMadeSmaller(scenario: Callable[[Pipe], None]) -> None:
    """hypothesis has to be told that this is meant (HealthCheck.nested_given), and the text says how."""
    error = found(scenario)
    assert "It was not made smaller, for hypothesis says: Nesting @given" in str(error)
    assert error.schedule == found(scenario, shrink=False).schedule


def test_withoutHypothesisItSaysHowToGetIt(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(orderly, shrink=False).schedule
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.setitem(sys.modules, "hypothesis.errors", None)
    error = found(orderly)
    assert error.schedule == whole
    assert "pip install hypothesis" in str(error)


def test_whatIsLeftOpenIsAFailure() -> None:
    def scenario(net: Pipe) -> None:
        net.open = len(net.send(b"abcdefgh")) - 1

    error = found(scenario)
    assert str(error.original).startswith("1 left open")
    assert [step.site for step in error.schedule.steps] == ["cut"]


def test_theScenariosFailureComesBeforeWhatItLeftOpen() -> None:
    nets = []

    def scenario(net: Pipe) -> None:
        nets.append(net)
        net.open = 1
        raise ValueError("first")

    assert isinstance(found(scenario).original, ValueError)
    assert {net.closed for net in nets} == {1}


async def coroutine(net: Pipe) -> None:
    orderly(net)


@inlineCallbacks
def callbacks(net: Pipe) -> Any:
    yield succeed(None)
    orderly(net)


@pytest.mark.parametrize("scenario", [coroutine, callbacks])
def test_whatCanBeAwaitedIsRunByTheNetwork(scenario: Callable[[Pipe], Any]) -> None:
    assert len(found(scenario).schedule.steps) == 2


def test_aScenarioMayHaveNoName() -> None:
    class Scenario:
        def __call__(self, net: Pipe) -> None:
            orderly(net)

        def __str__(self) -> str:
            return "nameless"

    error = found(Scenario(), network=lambda choices: Pipe(choices=choices))
    assert "breaks nameless\n" in str(error)


def test_aNetworkNeedNotHaveATrace() -> None:
    class Silent:
        def __init__(self, *, choices: Choices) -> None:
            self.choices = choices

        def close(self) -> None:
            pass

    def scenario(net: Silent) -> None:
        assert not net.choices.pick("cut", 2)

    assert found(scenario, network=Silent).trace == ""


class Exit(BaseException):
    """Nobody's failure."""


@pytest.mark.parametrize(
    "word",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        Exit(),
        SkipTest("why"),
        UnsatisfiedAssumption(),
        pytest.skip.Exception("why"),
        pytest.xfail.Exception("why"),
        pytest.exit.Exception("why"),
    ],
    ids=repr,
)
def test_wordsToWhoeverRunsTheTestsPassThrough(word: BaseException) -> None:
    def scenario(net: Pipe) -> None:
        nets.append(net)
        raise word

    nets: list[Pipe] = []
    with pytest.raises(type(word)) as caught:
        explore(scenario, network=Pipe)
    assert caught.value is word
    assert [net.closed for net in nets] == [1]
    with pytest.raises(type(word)):
        replay(scenario, "seed=1", network=Pipe)


def test_anInterruptEndsShrinkingToo() -> None:
    runs = 0

    def scenario(net: Pipe) -> None:
        nonlocal runs
        runs += 1
        if runs > 4:
            raise KeyboardInterrupt
        assert len(net.send(b"abcdefgh")) < 4

    seed = next(seed for seed in range(100) if len(Pipe(choices=Choices(seed), odds=1).send(b"abcdefgh")) > 3)
    with pytest.raises(KeyboardInterrupt):
        explore(scenario, [seed], network=Pipe, odds=1)
    assert runs == 5


def test_aSkipWhileShrinkingIsNotTheFailure() -> None:
    def scenario(net: Pipe) -> None:
        answers = [net.choices.pick("turn", 2) for _ in range(8)]
        if sum(answers) < 3:
            raise SkipTest("too few")
        raise ValueError("three")

    seed = next(seed for seed in range(100) if sum(map(Choices(seed).pick, ["turn"] * 8, [2] * 8)) > 3)
    assert len(found(scenario, seeds=[seed]).schedule.steps) == 3


def test_pytestsFailIsAFailure() -> None:
    def scenario(net: Pipe) -> None:
        pytest.fail("told so")

    assert str(found(scenario).original) == "told so"


def test_withoutPytestNothingOfItIsAskedFor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pytest")
    assert isinstance(found(orderly).original, ValueError)


def test_aNetworkThatCannotBeMadeIsNoFinding() -> None:
    with pytest.raises(TypeError, match="colour"):
        explore(orderly, network=Pipe, colour="red")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"seeds": 100}, "seeds is 100; it must be several whole numbers, such as range"),
        ({"seeds": []}, r"seeds is \[\]; it has no seed"),
        ({"seeds": ["1"]}, "seed is '1'; it must be a whole number"),
        ({"shrinkRuns": 0}, "shrinkRuns is 0; it must be a whole number of at least 1, or say shrink=False"),
        ({"shrinkRuns": 1.5}, r"shrinkRuns is 1\.5; "),
    ],
)
def test_whatIsWrongWithAnArgument(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        explore(orderly, network=Pipe, **arguments)


@pytest_twisted.ensureDeferred
async def test_insideATestThatRunsOnTheReactor() -> None:
    await turns()
    assert len(found(coroutine).schedule.steps) == 2
    await turns()


def test_pythonsOwnGeneratorIsLeftAsItWas() -> None:
    import random

    random.seed(5)
    found(orderly)
    assert random.random() == Random(5).random()


PROGRAM = """
from twisted.trial.unittest import SynchronousTestCase
from twisted_net.testing.explore import ScheduleFound, explore

class Net:
    def __init__(self, *, choices):
        self.choices = choices

    def close(self):
        pass

def scenario(net):
    values = [net.choices.pick("cut", 99) for _ in range(200)]
    assert not (values[50] > 10 and values[150] > 10)

class Explored(SynchronousTestCase):
    def test_found(self):
        error = self.assertRaises(ScheduleFound, explore, scenario, network=Net)
        self.assertEqual([step.number for step in error.schedule.steps], [50, 150])
"""


def test_underTrialAndWithoutAFolderOfHypothesis(tmp_path: Path) -> None:
    """For most of what it draws, hypothesis looks for constants in the modules here, and stores what it finds."""
    (tmp_path / "explored.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "error", "-m", "twisted.trial", "--temp-directory=temporary", "explored"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not list(tmp_path.rglob(".hypothesis"))


@implementer(IHalfCloseableProtocol)
class Careless(Protocol):
    """Says back what it has heard when the peer ends. It takes its time, and holds what comes meanwhile.

    Its fault: when FIN crosses such a pause, what it holds is forgotten.
    """

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.heard = b""
        self.held = b""
        self.pause: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.pause is None:
            self.heard += data
            self.pause = self.factory.reactor.callLater(0.004, self.goOn)
        else:
            self.held += data

    def goOn(self) -> None:
        self.pause = None
        self.heard += self.held
        self.held = b""

    def readConnectionLost(self) -> None:
        self.transport.write(self.heard)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.pause is not None:
            self.pause.cancel()


class Talker(Protocol):
    """Says three words with pauses between them, ends, and keeps what is said back."""

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.answer = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        for number, word in enumerate([b"one", b"two", b"three"]):
            self.reactor.callLater(0.01 * number, self.transport.write, word)
        self.reactor.callLater(0.0245, self.transport.loseWriteConnection)

    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def conversation(net: MemoryNetwork) -> None:
    reactor: Any = net.host("server").reactor
    factory = Factory.forProtocol(Careless)
    factory.reactor = reactor  # type: ignore[attr-defined]
    port = reactor.listenTCP(80, factory)
    away: Any = net.host("client").reactor
    talker = Talker(away)
    away.connectTCP("server", 80, Once(talker))
    await talker.lost
    await maybeDeferred(port.stopListening)
    assert talker.answer == b"onetwothree"


def test_aPlantedRaceIsFoundAndSmall() -> None:
    """Without a seed, and with most seeds, nothing is lost: within a thousand one is, and few steps are why."""
    net = MemoryNetwork()
    net.run(conversation(net))
    net.close()
    with pytest.raises(ScheduleFound) as caught:
        explore(conversation)
    error = caught.value
    assert 1 <= len(error.schedule.steps) <= 4
    assert error.trace.count("\n") > 5
    with pytest.raises(AssertionError, match="onetwothree"):
        replay(conversation, str(error.schedule))
    for at in range(len(error.schedule.steps)):
        fewer = error.schedule.steps[:at] + error.schedule.steps[at + 1 :]
        replay(conversation, Schedule(error.seed, fewer))
