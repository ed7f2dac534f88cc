"""The check of half-closing: what it demands holds on real sockets, and it sees what is broken."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import pytest_twisted
from flaws import Flaw, Glass, caught, flawed, folder, named, subjects
from logs import LoggedErrors
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.policies import WrappingFactory
from zope.interface import alsoProvides

from twisted_net.testing.checks import TCP, UNIX, Case, DeliberateError, checkHalfOpen

KINDS = [
    *[("tcp", case) for case in checkHalfOpen if case.needs <= TCP],
    *[("unix", case) for case in checkHalfOpen if case.needs <= UNIX],
]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=str)
@pytest_twisted.ensureDeferred
async def test_realSocketsKeepTheRules(kind: str, case: Case, loggedErrors: LoggedErrors) -> None:
    with folder() as where:
        await case(subjects(kind, where))
    loggedErrors.flush("DeliberateError")


@pytest.mark.parametrize("case", [case for case in checkHalfOpen if case.needs <= TCP], ids=str)
@pytest_twisted.ensureDeferred
async def test_theFaithfulWrapperIsClean(case: Case, loggedErrors: LoggedErrors) -> None:
    await case(flawed(Glass)(subjects("tcp", "")))
    loggedErrors.flush("DeliberateError")


class HidesHalfClose(Glass):
    def _offers(self) -> None:
        """What policies.ProtocolWrapper does: nothing."""


class ClaimsHalfClose(Glass):
    def _offers(self) -> None:
        alsoProvides(self, IHalfCloseableProtocol)

    def readConnectionLost(self) -> None:
        """It keeps the end for itself."""


class EndsTwice(Glass):
    def readConnectionLost(self) -> None:
        self.wrappedProtocol.readConnectionLost()
        self.wrappedProtocol.readConnectionLost()


class SaysItEndedAtOnce(Glass):
    def loseWriteConnection(self) -> None:
        self.transport.loseWriteConnection()
        self.wrappedProtocol.writeConnectionLost()

    def writeConnectionLost(self) -> None:
        """It has said so already."""


class SwallowsErrors(Glass):
    def readConnectionLost(self) -> None:
        with suppress(DeliberateError):
            self.wrappedProtocol.readConnectionLost()


class RaisesAfterTheEnd(Glass):
    ended = False

    def writeConnectionLost(self) -> None:
        self.ended = True
        self.wrappedProtocol.writeConnectionLost()

    def write(self, data: bytes) -> None:
        if self.ended:
            raise ValueError("it has ended")
        self.transport.write(data)


class ClosesInsteadOfEnding(Glass):
    def loseWriteConnection(self) -> None:
        self.transport.loseConnection()


class NeverCloses(Glass):
    def loseConnection(self) -> None:
        self.transport.loseWriteConnection()


class HasToBeToldTwice(Glass):
    told = False

    def abortConnection(self) -> None:
        if self.told:
            self.transport.abortConnection()
        self.told = True


class IgnoresPauses(Glass):
    def pauseProducing(self) -> None:
        """It does not."""


class DropsAtTheEnd(Glass):
    def dataReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data[:-1] or data)


class EndsEarly(Glass):
    def loseWriteConnection(self) -> None:
        self.transport.abortConnection()


asItIs: Flaw = lambda subject: subject.claiming("bothEnded")  # noqa: E731

FLAWS: list[tuple[str, Flaw]] = [
    ("theEndComesAfterAllBytes", flawed(DropsAtTheEnd)),
    ("anEndWithoutBytesComesToo", flawed(HidesHalfClose)),
    ("whoHasHeardTheEndCanAnswer", flawed(HidesHalfClose)),
    ("theEndIsToldOnce", flawed(EndsTwice)),
    ("theOwnEndIsToldOnceWhenAllIsSent", flawed(SaysItEndedAtOnce)),
    ("afterTheOwnEndAWriteIsIgnored", flawed(RaisesAfterTheEnd)),
    ("anEndWaitsForTheReader", flawed(IgnoresPauses)),
    ("anEndFromInsideOfDataReceived", flawed(ClosesInsteadOfEnding)),
    ("aProtocolThatKnowsNoHalfCloseIsClosed", flawed(ClaimsHalfClose, client=False)),
    ("whoEndedFirstIsToldOfTheClose", asItIs),
    ("whoEndedLastIsToldOfTheClose", asItIs),
    ("whoEndedTogetherAreToldOfTheClose", asItIs),
    ("afterAnEndLoseConnectionCloses", flawed(NeverCloses)),
    ("afterAnEndAbortConnectionAborts", flawed(HasToBeToldTwice)),
    ("whatReadConnectionLostRaisesEndsTheConnection", flawed(SwallowsErrors)),
    ("anEndAfterAProducerComesAfterItsBytes", flawed(EndsEarly)),
]


@pytest.mark.leaky("what is broken may leave things behind")
@pytest.mark.parametrize(("name", "flaw"), FLAWS, ids=[name for name, _ in FLAWS])
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, flaw: Flaw, loggedErrors: LoggedErrors) -> None:
    await caught(named(checkHalfOpen)[name], flaw, subjects("tcp", ""))
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert [name for name, _ in FLAWS] == list(named(checkHalfOpen))


@pytest.mark.leaky("Twisted forgets these connections")
@pytest.mark.xfail(reason="twisted#5662: Twisted's transports do not add up two ends that are gone", strict=True)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("case", [case for case in checkHalfOpen if "bothEnded" in case.needs], ids=str)
@pytest_twisted.ensureDeferred
async def test_twistedForgetsWhoHasEndedBothWays(kind: str, case: Case) -> None:
    with folder() as where:
        await case(replace(subjects(kind, where).claiming("bothEnded"), patience=1))


UNSEEN = ("aProtocolThatKnowsNoHalfCloseIsClosed", "whatReadConnectionLostRaisesEndsTheConnection")
"""Cases that do not mind when nobody is told of an end."""

TOLD = [case for name, case in named(checkHalfOpen).items() if case.needs <= TCP and name not in UNSEEN]


@pytest.mark.xfail(
    reason="policies.ProtocolWrapper hides IHalfCloseableProtocol, as it hides IHandshakeListener (twisted#12007)",
    strict=True,
)
@pytest.mark.parametrize("case", TOLD, ids=str)
@pytest_twisted.ensureDeferred
async def test_twistedsPoliciesHideHalfClose(case: Case) -> None:
    await case(replace(subjects("tcp", "").wrapped(WrappingFactory, WrappingFactory), patience=1))


@pytest.mark.tls
@pytest.mark.leaky("what TLS has lost")
@pytest.mark.xfail(
    reason="twisted#5341: over TLS loseWriteConnection sends TCP's FIN without close_notify", strict=True
)
@pytest.mark.parametrize("case", TOLD, ids=str)
@pytest_twisted.ensureDeferred
async def test_twistedsTlsCannotHalfClose(case: Case) -> None:
    await case(replace(subjects("tls", "").claiming("halfClose"), patience=1))
