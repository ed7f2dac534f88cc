"""The check of streams: what it demands holds on real sockets, and it sees what is broken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import Flaw, Glass, caught, flawed, folder, named, subjects
from logs import LoggedErrors
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.testing.checks import TCP, TLS, UNIX, Case, DeliberateError, Subject, cases, checkStream

KINDS = [
    *[("tcp", case) for case in checkStream if case.needs <= TCP],
    *[("tcp6", case) for case in checkStream if case.needs <= TCP],
    *[("unix", case) for case in checkStream if case.needs <= UNIX],
    *[pytest.param("tls", case, marks=pytest.mark.tls) for case in checkStream if case.needs <= TLS],
]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=str)
@pytest_twisted.ensureDeferred
async def test_realSocketsKeepTheRules(kind: str, case: Case, loggedErrors: LoggedErrors) -> None:
    with folder() as where:
        await case(subjects(kind, where))
    loggedErrors.flush("DeliberateError")


class DropsAByte(Glass):
    def dataReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data[:-1])


class Reverses(Glass):
    def dataReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data[::-1])


class FillsEmptyWrites(Glass):
    def write(self, data: bytes) -> None:
        self.transport.write(data or b"\0")


class WritesTheFirstChunkOnly(Glass):
    def writeSequence(self, data: Any) -> None:
        self.transport.write(b"".join(list(data)[:1]))


class IsDumbAtFirst(Glass):
    def write(self, data: bytes) -> None:
        if not self.making:
            self.transport.write(data)


class AbortsInsteadOfClosing(Glass):
    def loseConnection(self) -> None:
        self.transport.abortConnection()


class RaisesAfterClose(Glass):
    def write(self, data: bytes) -> None:
        if self.disconnecting:
            raise ValueError("it is closing")
        self.transport.write(data)


class SaysLost(Glass):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(Failure(ConnectionLost()))


class SaysDone(Glass):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(Failure(ConnectionDone()))


class LosesTwice(Glass):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.wrappedProtocol.connectionLost(reason)
        super().connectionLost(reason)


class TalksAfterTheEnd(Glass):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.wrappedProtocol.dataReceived(b"ghost")


class ClosesInsteadOfAborting(Glass):
    def abortConnection(self) -> None:
        self.transport.loseConnection()


class CutsAndGoesOn(Glass):
    def dataReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data[:10])
        self.wrappedProtocol.dataReceived(data[10:])


class SwallowsErrors(Glass):
    def dataReceived(self, data: bytes) -> None:
        with suppress(DeliberateError):
            self.wrappedProtocol.dataReceived(data)


class BindsEarly(Glass):
    def makeConnection(self, transport: Any) -> None:
        self._receive = self.wrappedProtocol.dataReceived
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._receive(data)


class TakesItsHostForItsPeer(Glass):
    def getPeer(self) -> Any:
        return self.transport.getHost()


class ForgetsOptions(Glass):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """It does not."""


@implementer(IStreamClientEndpoint)
class Fails:
    """An endpoint that fails with its error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def connect(self, protocolFactory: Any) -> Any:
        return fail(self._error)


@implementer(IStreamClientEndpoint)
class IsDeafToCancel:
    """Its Deferreds give up the attempt, and do not say so."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Any:
        attempt = self._endpoint.connect(protocolFactory)

        def cancel(_: object) -> None:
            told.errback(CancelledError())
            attempt.cancel()

        told: Deferred[Any] = Deferred(cancel)
        attempt.addCallbacks(told.callback, lambda failure: None if told.called else told.errback(failure))
        return told


@implementer(IStreamClientEndpoint)
class ClaimsToConnect:
    """An endpoint that says at once that it is connected."""

    def connect(self, protocolFactory: Any) -> Any:
        return succeed(None)


def connecting(change: Callable[[Any, float], Any]) -> Flaw:
    """A subject whose client endpoints are changed."""

    def broken(subject: Subject) -> Subject:
        make = subject.client
        assert make is not None

        def client(port: IListeningPort, *, timeout: float = 30) -> Any:
            return change(make(port, timeout=timeout), timeout)

        return replace(subject, client=client)

    return broken


FLAWS: dict[str, Flaw] = {
    "bytesComeExactlyAndInOrder": flawed(DropsAByte),
    "theSizeOfAWriteDoesNotMatter": flawed(Reverses),
    "manySmallWritesComeInOrder": flawed(Reverses),
    "anEmptyWriteSendsNothing": flawed(FillsEmptyWrites),
    "writeSequenceWritesItsChunks": flawed(WritesTheFirstChunkOnly),
    "whatIsWrittenInConnectionMadeComes": flawed(IsDumbAtFirst),
    "loseConnectionSendsWhatWasWritten": flawed(AbortsInsteadOfClosing),
    "afterLoseConnectionAWriteDoesNoHarm": flawed(RaisesAfterClose),
    "aWriteToAGoneConnectionIsIgnored": flawed(RaisesAfterClose),
    "aCloseInGoodOrderIsConnectionDone": flawed(SaysLost),
    "connectionLostComesOnceAndLast": flawed(LosesTwice),
    "connectionLostComesOnceAfterAnAbort": flawed(TalksAfterTheEnd),
    "anAbortDropsWhatIsUnsent": flawed(ClosesInsteadOfAborting),
    "anAbortIsConnectionAborted": flawed(SaysDone),
    "anAbortReachesThePeerAsReset": flawed(SaysDone),
    "nothingComesAfterAnAbortInDataReceived": flawed(CutsAndGoesOn),
    "nothingComesAfterLoseConnectionInDataReceived": flawed(CutsAndGoesOn),
    "loseConnectionInConnectionMadeSendsWhatWasWritten": flawed(IsDumbAtFirst),
    "whatDataReceivedRaisesEndsThatConnectionOnly": flawed(SwallowsErrors),
    "whatDataReceivedRaisesIsTheReason": flawed(SaysDone),
    "dataReceivedMayBeReplaced": flawed(BindsEarly),
    "thePeerOfTheClientIsThePort": flawed(TakesItsHostForItsPeer),
    "bothEndsTellTheSameAddresses": flawed(TakesItsHostForItsPeer, client=False),
    "theOptionsOfTcpAreKept": flawed(ForgetsOptions),
    "whereNobodyListensConnectingFails": connecting(lambda endpoint, timeout: ClaimsToConnect()),
    "whereNobodyListensConnectingIsRefused": connecting(lambda endpoint, timeout: Fails(ConnectError())),
    "anAttemptCanBeCancelled": connecting(lambda endpoint, timeout: IsDeafToCancel(endpoint)),
    "anAttemptThatNobodyAnswersTimesOut": connecting(
        lambda endpoint, timeout: endpoint if timeout > 1 else Fails(TimeoutError())
    ),
    "anAttemptThatNobodyAnswersCanBeCancelled": connecting(lambda endpoint, timeout: IsDeafToCancel(endpoint)),
}


@pytest.mark.leaky("what is broken may leave things behind")
@pytest.mark.parametrize("name", FLAWS)
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, loggedErrors: LoggedErrors) -> None:
    await caught(named(checkStream)[name], FLAWS[name], subjects("tcp", ""))
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert set(FLAWS) == set(named(checkStream))


@pytest.mark.parametrize("case", [case for case in cases(TCP) if case in set(checkStream)], ids=str)
@pytest_twisted.ensureDeferred
async def test_theFaithfulWrapperIsClean(case: Case, loggedErrors: LoggedErrors) -> None:
    await case(flawed(Glass)(subjects("tcp", "")))
    loggedErrors.flush("DeliberateError")
