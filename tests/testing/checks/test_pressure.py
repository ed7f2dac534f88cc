"""The check of pressure: what it demands holds on real sockets, and it sees what is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import Flaw, Glass, caught, flawed, folder, named, subjects
from logs import LoggedErrors

from twisted_net.testing.checks import TCP, TLS, UNIX, Case, checkPressure

KINDS = [
    *[("tcp", case) for case in checkPressure if case.needs <= TCP],
    *[("unix", case) for case in checkPressure if case.needs <= UNIX],
    *[pytest.param("tls", case, marks=pytest.mark.tls) for case in checkPressure if case.needs <= TLS],
]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=str)
@pytest_twisted.ensureDeferred
async def test_realSocketsKeepTheRules(kind: str, case: Case) -> None:
    with folder() as where:
        await case(subjects(kind, where))


@pytest.mark.parametrize("case", [case for case in checkPressure if case.needs <= TCP], ids=str)
@pytest_twisted.ensureDeferred
async def test_theFaithfulWrapperIsClean(case: Case) -> None:
    await case(flawed(Glass)(subjects("tcp", "")))


class IgnoresPauses(Glass):
    def pauseProducing(self) -> None:
        """It does not."""


class CountsPauses(Glass):
    pauses = 0

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.pauses = max(0, self.pauses - 1)
        if not self.pauses:
            self.transport.resumeProducing()


class CutsAndGoesOn(Glass):
    def dataReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data[:10])
        self.wrappedProtocol.dataReceived(data[10:])


class LosesWhatComesWithAPause(Glass):
    def pauseProducing(self) -> None:
        self.transport.pauseProducing()
        self.transport.doRead()

    def dataReceived(self, data: bytes) -> None:
        if self.making or not self.reading:
            self.reading = True
            self.wrappedProtocol.dataReceived(data)
            self.reading = False

    reading = False


class KnowsNoProducers(Glass):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nobody is registered."""

    def unregisterProducer(self) -> None:
        """Nobody was."""


class PausesForGood(Glass):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Nobody was."""


class AsksOnce(Glass):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        producer.resumeProducing()


class TakesTheLatest(Glass):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.unregisterProducer()
        self.transport.registerProducer(producer, streaming)


class ClosesWithoutTheProducer(Glass):
    def loseConnection(self) -> None:
        self.transport.unregisterProducer()
        self.transport.abortConnection()


class NeverStops(Glass):
    def stopProducing(self) -> None:
        """It does not."""


asItIs: Flaw = lambda subject: subject.claiming("waits")  # noqa: E731

FLAWS: list[tuple[str, Flaw]] = [
    ("aPauseHoldsTheBytes", flawed(IgnoresPauses)),
    ("pausesAreNotCounted", flawed(CountsPauses)),
    ("aPauseInDataReceivedHoldsTheRest", flawed(CutsAndGoesOn)),
    ("aReaderWhoPausesAllTheTimeLosesNothing", flawed(LosesWhatComesWithAPause, client=False)),
    ("aPauseInConnectionMadeHoldsTheFirstByte", flawed(IgnoresPauses)),
    ("aPauseHoldsTheCloseAsWell", flawed(IgnoresPauses)),
    ("aProducerIsPausedWhenThePeerDoesNotRead", flawed(KnowsNoProducers)),
    ("aProducerIsPausedWhenThePeerDoesNotRead", flawed(PausesForGood)),
    ("aPullProducerIsAskedUntilItHasFinished", flawed(AsksOnce)),
    ("aSecondProducerIsRefused", flawed(TakesTheLatest)),
    ("aProducerIsStoppedWhenTheConnectionIsLost", flawed(KnowsNoProducers)),
    ("aProducerOfAGoneConnectionIsStopped", flawed(KnowsNoProducers)),
    ("loseConnectionWaitsForAProducer", asItIs),
    ("loseConnectionWaitsForAPausedProducer", flawed(ClosesWithoutTheProducer)),
    ("stopProducingOfATransportCloses", flawed(NeverStops)),
]


@pytest.mark.leaky("what is broken may leave things behind")
@pytest.mark.parametrize(("name", "flaw"), FLAWS, ids=[name for name, _ in FLAWS])
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, flaw: Flaw, loggedErrors: LoggedErrors) -> None:
    await caught(named(checkPressure)[name], flaw, subjects("tcp", ""))
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert {name for name, _ in FLAWS} == set(named(checkPressure))


@pytest.mark.xfail(reason="twisted#5344: loseConnection does not wait for a producer that is not paused", strict=True)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("case", [case for case in checkPressure if "waits" in case.needs], ids=str)
@pytest_twisted.ensureDeferred
async def test_twistedDoesNotWaitForAProducer(kind: str, case: Case) -> None:
    with folder() as where:
        await case(replace(subjects(kind, where).claiming("waits"), patience=1))
