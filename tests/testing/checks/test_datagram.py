"""The check of datagrams: what it demands holds on real sockets, and it sees what is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import Flaw, caught, named, subjects
from logs import LoggedErrors
from twisted.internet.protocol import DatagramProtocol

from twisted_net.testing.checks import UDP, Case, Subject, checkDatagram


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # twisted#6108: a socket that cannot be bound
@pytest.mark.parametrize("case", [case for case in checkDatagram if case.needs <= UDP], ids=str)
@pytest_twisted.ensureDeferred
async def test_realSocketsKeepTheRules(case: Case) -> None:
    await case(subjects("udp", ""))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # twisted#6108: a socket that cannot be bound
@pytest.mark.parametrize("case", [case for case in checkDatagram if case.needs <= UDP], ids=str)
@pytest_twisted.ensureDeferred
async def test_theFaithfulScreenIsClean(case: Case) -> None:
    await case(screened(Screen)(subjects("udp", "")))


class Screen(DatagramProtocol):
    """Stands between a protocol and its port, and passes everything on."""

    noisy = False
    transport: Any

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def startProtocol(self) -> None:
        self.protocol.transport = self
        self.protocol.startProtocol()

    def stopProtocol(self) -> None:
        self.protocol.stopProtocol()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.protocol.datagramReceived(datagram, addr)

    def connectionRefused(self) -> None:
        self.protocol.connectionRefused()

    def write(self, data: bytes, addr: Any = None) -> None:
        self.transport.write(data, addr)

    def connect(self, host: str, port: int) -> None:
        self.transport.connect(host, port)

    def getHost(self) -> Any:
        return self.transport.getHost()


class Glues(Screen):
    kept = b""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if not self.kept:
            self.kept = datagram
        else:
            self.protocol.datagramReceived(self.kept + datagram, addr)


class DropsEmptyOnes(Screen):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if datagram:
            self.protocol.datagramReceived(datagram, addr)


class CutsLongOnes(Screen):
    def write(self, data: bytes, addr: Any = None) -> None:
        self.transport.write(data[:8192], addr)


class Swaps(Screen):
    kept: tuple[bytes, Any] | None = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        kept, self.kept = self.kept, (datagram, addr)
        if kept is not None:
            self.protocol.datagramReceived(datagram, addr)
            self.protocol.datagramReceived(*kept)
            self.kept = None


class SaysItIsFromHere(Screen):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        host = self.transport.getHost()
        self.protocol.datagramReceived(datagram, (host.host, host.port))


class DoesNotConnect(Screen):
    def write(self, data: bytes, addr: Any = None) -> None:
        if addr is not None:
            self.transport.write(data, addr)

    def connect(self, host: str, port: int) -> None:
        """It does not."""


class IsAlwaysRefused(Screen):
    def write(self, data: bytes, addr: Any = None) -> None:
        self.transport.write(data, addr)
        self.protocol.connectionRefused()


class DoesNotStop(Screen):
    def stopProtocol(self) -> None:
        """It keeps this for itself."""


class IsNotRefused(Screen):
    def connect(self, host: str, port: int) -> None:
        """It does not."""

    def write(self, data: bytes, addr: Any = None) -> None:
        """Nor does it write."""


def screened(kind: Callable[[Any], Screen]) -> Flaw:
    """A subject with such a screen before each protocol."""

    def broken(subject: Subject) -> Subject:
        listen = subject.listenDatagram
        assert listen is not None
        screened: Any = lambda protocol, number=0: listen(kind(protocol), number)  # noqa: E731
        return replace(subject, listenDatagram=screened)

    return broken


def addressZero(subject: Subject) -> Subject:
    return replace(subject, address=lambda port: ("127.0.0.1", 0))


def anyNumber(subject: Subject) -> Subject:
    listen = subject.listenDatagram
    assert listen is not None
    broken: Any = lambda protocol, number=0: listen(protocol)  # noqa: E731
    return replace(subject, listenDatagram=broken)


def claimingRefusals(flaw: Flaw) -> Flaw:
    return lambda subject: flaw(subject.claiming("refused"))


FLAWS: list[tuple[str, Flaw]] = [
    ("aDatagramComesWhole", screened(Glues)),
    ("anEmptyDatagramComesToo", screened(DropsEmptyOnes)),
    ("theLargestDatagramComes", screened(CutsLongOnes)),
    ("aDatagramThatIsTooLongIsRefused", screened(CutsLongOnes)),
    ("datagramsOfOneSenderKeepTheirOrder", screened(Swaps)),
    ("aDatagramSaysWhereItIsFrom", screened(SaysItIsFromHere)),
    ("aPortHasANumber", addressZero),
    ("aConnectedPortSendsWithoutAnAddress", screened(DoesNotConnect)),
    ("aConnectedPortHearsItsPeerOnly", screened(DoesNotConnect)),
    ("aConnectedPortIsToldThatNobodyListens", claimingRefusals(screened(IsNotRefused))),
    ("whoIsNotConnectedIsNotToldThatNobodyListens", screened(IsAlwaysRefused)),
    ("twoPortsCannotHaveOneAddress", anyNumber),
    ("stopListeningFreesTheAddress", screened(DoesNotStop)),
]


@pytest.mark.leaky("what is broken may leave things behind")
@pytest.mark.parametrize(("name", "flaw"), FLAWS, ids=[name for name, _ in FLAWS])
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, flaw: Flaw, loggedErrors: LoggedErrors) -> None:
    await caught(named(checkDatagram)[name], flaw, subjects("udp", ""))
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert [name for name, _ in FLAWS] == list(named(checkDatagram))


@pytest_twisted.ensureDeferred
async def test_refusalsOnThisReactor() -> None:
    """twisted#5377: the reactors that poll lose a connected port that is refused; the others tell it."""
    from twisted.internet import reactor

    (case,) = [case for case in checkDatagram if "refused" in case.needs]
    subject = replace(subjects("udp", "").claiming("refused"), patience=1)
    if type(reactor).__name__ in ("EPollReactor", "PollReactor"):
        with pytest.raises(AssertionError, match="not told that nobody listens"):
            await case(subject)
    else:
        await case(subject)
