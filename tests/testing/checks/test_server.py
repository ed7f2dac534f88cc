"""The check of listening ports: what it demands holds on real sockets, and it sees what is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import Flaw, Glass, GlassFactory, caught, flawed, folder, named, subjects
from logs import LoggedErrors
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer

from twisted_net.testing.checks import TCP, TLS, UNIX, Case, Subject, checkServer

KINDS = [
    *[("tcp", case) for case in checkServer if case.needs <= TCP],
    *[("tcp6", case) for case in checkServer if case.needs <= TCP],
    *[("unix", case) for case in checkServer if case.needs <= UNIX],
    *[pytest.param("tls", case, marks=pytest.mark.tls) for case in checkServer if case.needs <= TLS],
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # twisted#6108: a socket that cannot be bound
@pytest.mark.parametrize(("kind", "case"), KINDS, ids=str)
@pytest_twisted.ensureDeferred
async def test_realSocketsKeepTheRules(kind: str, case: Case, loggedErrors: LoggedErrors) -> None:
    with folder() as where:
        await case(subjects(kind, where))
    loggedErrors.flush("DeliberateError")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # twisted#6108: a socket that cannot be bound
@pytest.mark.parametrize("case", [case for case in checkServer if case.needs <= TCP], ids=str)
@pytest_twisted.ensureDeferred
async def test_theFaithfulWrapperIsClean(case: Case, loggedErrors: LoggedErrors) -> None:
    await case(flawed(Glass)(subjects("tcp", "")))
    loggedErrors.flush("DeliberateError")


class Port:
    """Passes everything on to a port."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)


class SaysZero(Port):
    def getHost(self) -> Any:
        class Address:
            port = 0

        return Address()


class StopsOnce(Port):
    stopped = False

    def stopListening(self) -> Any:
        if self.stopped:
            raise ValueError("it was stopped")
        self.stopped = True
        return maybeDeferred(self.port.stopListening)


class AcceptsInSpite(Port):
    def pauseProducing(self) -> None:
        """It does not."""


@implementer(IStreamServerEndpoint)
class Changed:
    """An endpoint whose ports are changed."""

    def __init__(self, endpoint: Any, kind: type[Port]) -> None:
        self._endpoint = endpoint
        self._kind = kind

    def listen(self, protocolFactory: Any) -> Any:
        return self._endpoint.listen(protocolFactory).addCallback(self._kind)


def ports(kind: type[Port]) -> Flaw:
    """A subject whose ports are of that kind."""

    def broken(subject: Subject) -> Subject:
        make = subject.server
        assert make is not None
        server: Any = lambda *, backlog=50: Changed(make(backlog=backlog), kind)  # noqa: E731
        return replace(subject, server=server)

    return broken


def elsewhere(subject: Subject) -> Subject:
    """Listening again is listening at another address."""
    make = subject.server
    assert make is not None
    return replace(subject, again=lambda port: make())


def factories(kind: Callable[[Any], Any]) -> Flaw:
    """A subject whose servers' factories are wrapped in that."""
    return lambda subject: subject.wrapped(kind, None)


class EndsEverybody(GlassFactory):
    def __init__(self, factory: Any) -> None:
        super().__init__(Glass, factory)

    def doStop(self) -> None:
        self.wrappedFactory.doStop()
        for protocol in list(self.protocols):
            protocol.abortConnection()


class StartsTwice(EndsEverybody):
    def doStart(self) -> None:
        self.wrappedFactory.doStart()
        self.wrappedFactory.doStart()


class ServesFew(EndsEverybody):
    served = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.served += 1
        return super().buildProtocol(addr) if self.served <= 3 else None


class TellsNobody(EndsEverybody):
    def buildProtocol(self, addr: Any) -> Any:
        return super().buildProtocol(None)


asItIs: Flaw = lambda subject: subject.claiming("dismissal")  # noqa: E731

FLAWS: list[tuple[str, Flaw]] = [
    ("aPortThatIsAskedForZeroHasARealNumber", ports(SaysZero)),
    ("aBusyAddressCannotBeListenedAt", elsewhere),
    ("aStoppedPortCanBeListenedAtAgain", elsewhere),
    ("afterStopListeningConnectionsGoOn", factories(EndsEverybody)),
    ("stoppingAStoppedPortDoesNoHarm", ports(StopsOnce)),
    ("whoComesWhileNobodyAcceptsWaits", ports(AcceptsInSpite)),
    ("aCrowdIsServed", factories(ServesFew)),
    ("aFactoryIsStartedAndStoppedWithItsPort", factories(StartsTwice)),
    ("aFactoryIsToldWhoComes", factories(TellsNobody)),
    ("aClientCanBeTurnedAway", factories(WrappingFactory)),
    ("aFactoryThatRaisesLosesThatClientOnly", asItIs),
    ("whoLeavesAtOnceDisturbsNobody", factories(ServesFew)),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # and one for which buildProtocol has raised
@pytest.mark.leaky("what is broken may leave things behind")
@pytest.mark.parametrize(("name", "flaw"), FLAWS, ids=[name for name, _ in FLAWS])
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, flaw: Flaw, loggedErrors: LoggedErrors) -> None:
    await caught(named(checkServer)[name], flaw, subjects("tcp", ""))
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert [name for name, _ in FLAWS] == list(named(checkServer))
