"""What a check is: cases that can be asked, played one by one or together, and a list of what failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import subjects

from twisted_net.errors import OptionError
from twisted_net.testing import checks
from twisted_net.testing.checks import CHECKS, FEATURES, TCP, UDP, Case, Check, ConformanceError, Subject, cases
from twisted_net.testing.peers import Peer


def made() -> tuple[Check, Subject, list[str]]:
    """A check with four cases: two that hold, one that fails, and one that asks for much."""
    check, played = Check("made", "stream"), []

    @check.case()
    async def holds(subject: Subject) -> None:
        """It holds (RFC 1,
        page 1)."""
        played.append(str(subject))

    @check.case("reset")
    async def holdsToo(subject: Subject) -> None:
        """It holds, too."""

    @check.case()
    async def fails(subject: Subject) -> None:
        """It fails."""
        raise AssertionError("one line\nand another")

    @check.case("datagram")
    async def asksForMuch(subject: Subject) -> None:
        """Who has both?"""

    return check, subjects("tcp", ""), played


def test_aCheckIsItsCases() -> None:
    check, subject, _ = made()
    assert len(check) == 4
    assert all(case in check for case in check)
    assert next(iter(cases())) not in check
    assert [str(case) for case in check] == ["made.holds", "made.holdsToo", "made.fails", "made.asksForMuch"]
    first, second, _, last = check
    assert repr(first) == "<case made.holds>"
    assert first.sentence == "It holds (RFC 1, page 1)."
    assert second.needs == {"stream", "reset"}
    assert [case.applies(subject) for case in check] == [True, True, True, False]
    assert not second.applies(subject.without("reset"))
    with pytest.raises(OptionError, match=r"asksForMuch cannot be played on TCP on .*, which lacks datagram"):
        last(subject).send(None)


@pytest_twisted.ensureDeferred
async def test_allCasesAreToldThatFailed() -> None:
    check, subject, played = made()
    with pytest.raises(ConformanceError) as caught:
        await check(subject)
    assert [str(case) for case, _ in caught.value.failures] == ["made.fails"]
    assert str(caught.value) == (
        "TCP on 127.0.0.1 does not keep 1 of the rules:\n"
        "- made.fails: It fails.\n"
        "  AssertionError: one line\n"
        "  and another"
    )
    assert played == ["TCP on 127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_whatIsLeftOutIsTold() -> None:
    check, subject, _ = made()
    good = Check("good", "stream")
    good._cases = [case for case in check if case.name != "made.fails"]
    verdict = await good(subject)
    assert [str(case) for case in verdict.kept] == ["made.holds", "made.holdsToo"]
    assert [str(case) for case in verdict.leftOut] == ["made.asksForMuch"]


def test_everyCaseHasASentenceWithItsSource() -> None:
    for case in cases():
        assert case.sentence.endswith((".", '").')), case
        assert len(case.sentence) > 40, case


def test_casesByFeatures() -> None:
    assert len(cases()) == sum(len(check) for check in CHECKS) == len({str(case) for case in cases()})
    assert {str(case).partition(".")[0] for case in cases(UDP)} == {"datagram"}
    assert {str(case).partition(".")[0] for case in cases(TCP)} == {"stream", "halfOpen", "pressure", "server"}
    with pytest.raises(OptionError, match="there is no feature 'smell'"):
        cases(["smell"])


def test_everyFeatureIsNeededByACase() -> None:
    assert set[str]().union(*(case.needs for case in cases())) == set(FEATURES)


def test_whatIsPublicIsThere() -> None:
    assert all(hasattr(checks, name) for name in checks.__all__)


@pytest_twisted.ensureDeferred
async def test_aFailedSceneLeavesNothingBehind() -> None:
    """Whatever a scene has begun is ended, and its own failure is the one that is told."""

    class Stubborn(Peer):
        def aborts(self) -> None:
            if "the first time" not in self.name:
                self.name += " the first time"
                return
            super().aborts()

    subject: Any = replace(subjects("tcp", ""), patience=0.1)
    stages: list[Any] = []

    async def scene() -> None:
        async with subject.stage() as stage:
            stages.append(stage)
            await stage.listens()
            await stage.peers.connects(stage.endpoint(), Stubborn(subject.reactor, "client", patience=0.1))
            await stage.peers.accepts()
            raise AssertionError("the scene's own")

    with pytest.raises(AssertionError, match="the scene's own"):
        await scene()
    await stages[0].peers.closes()
    assert all(peer.gone for peer in stages[0].peers.all)


def test_casesAreNotMixedUp() -> None:
    assert all(isinstance(case, Case) for check in CHECKS for case in check)
