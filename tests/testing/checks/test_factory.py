"""The check of protocol factories: good ones pass it, and it sees those that do not outlive their clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from flaws import caught, folder, named, subjects
from logs import LoggedErrors
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineReceiver
from twisted.protocols.wire import Chargen, Discard, Echo
from zope.interface import implementer

from twisted_net.testing.checks import TCP, Case, checkProtocolFactory


class Lines(LineReceiver):
    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line)  # type: ignore[no-untyped-call]


@implementer(IHalfCloseableProtocol)
class Polite(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        self.transport.loseConnection()


def serving(kind: Callable[[], Any]) -> Any:
    factory = Factory.forProtocol(kind)
    factory.noisy = False
    return factory


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("protocol", [Echo, Discard, Chargen, Lines, Polite])
@pytest_twisted.ensureDeferred
async def test_goodFactoriesPass(kind: str, protocol: Callable[[], Any]) -> None:
    with folder() as where:
        verdict = await checkProtocolFactory(subjects(kind, where).serving(lambda: serving(protocol)))
    assert len(verdict.kept) == len(checkProtocolFactory)
    assert verdict.leftOut == ()


class Stubborn(Protocol):
    """Half-closeable, and never ends what its peer has ended."""

    def readConnectionLost(self) -> None:
        """It does not care."""

    def writeConnectionLost(self) -> None:
        """It does not care."""


class Wordy(Protocol):
    """Cannot bear more than it knows."""

    def dataReceived(self, data: bytes) -> None:
        if data != b"known":
            raise ValueError("unknown")


class Sore(Protocol):
    """Cannot bear to be left."""

    def connectionLost(self, reason: Any = None) -> None:
        raise ValueError("left")


class Shared(Factory):
    """Has one protocol for everybody."""

    noisy = False

    def __init__(self) -> None:
        self._protocol = Protocol()

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


class Once(Factory):
    """Cannot be started again."""

    noisy = False
    protocol = Protocol
    stopped = False

    def stopFactory(self) -> None:
        self.stopped = True

    def buildProtocol(self, addr: Any) -> Any:
        return None if self.stopped else super().buildProtocol(addr)


class Offended(Factory):
    """Serves nobody any more once somebody has left."""

    noisy = False
    left = False

    def buildProtocol(self, addr: Any) -> Any:
        return None if self.left else Leaving(self)


class Leaving(Protocol):
    def __init__(self, factory: Offended) -> None:
        self._factory = factory

    def connectionLost(self, reason: Any = None) -> None:
        self._factory.left = True


FLAWS: list[tuple[str, Callable[[], Any], str]] = [
    ("eachConnectionHasAProtocolOfItsOwn", Shared, "three connections share 1 protocols"),
    ("aFactoryCanListenAgain", Once, "the client was not served"),
    ("itOutlivesWhoComesAndLeaves", Offended, "the client was not served"),
    ("itOutlivesAReset", lambda: serving(Sore), "has raised"),
    ("itOutlivesNonsenseByteByByte", lambda: serving(Wordy), "has raised"),
    ("itOutlivesNonsenseWithoutEnd", lambda: serving(Wordy), "has raised"),
    ("itOutlivesWhoNeverReads", lambda: serving(Sore), "has raised"),
    ("itEndsWhoHasEnded", lambda: serving(implementer(IHalfCloseableProtocol)(Stubborn)), "keeps its connection"),
]
# Stock reactors do not look at who is half-closed for ever, so that he is collected; uvloop keeps him.
STAYS = pytest.mark.leaky("nobody ends the connection: that is the flaw")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the reactor does not look at who is half-closed for ever
@pytest.mark.parametrize(
    ("name", "factory", "told"),
    [pytest.param(*flaw, marks=[STAYS] if flaw[0] == "itEndsWhoHasEnded" else [], id=flaw[0]) for flaw in FLAWS],
)
@pytest_twisted.ensureDeferred
async def test_eachCaseSeesAFlaw(name: str, factory: Callable[[], Any], told: str, loggedErrors: LoggedErrors) -> None:
    text = await caught(
        named(checkProtocolFactory)[name], lambda subject: subject.serving(factory), subjects("tcp", "")
    )
    assert told in text
    loggedErrors.flush()


def test_noCaseIsWithoutItsFlaw() -> None:
    assert [name for name, *_ in FLAWS] == list(named(checkProtocolFactory))


@pytest.mark.parametrize("case", checkProtocolFactory, ids=str)
def test_aFactoryIsNeeded(case: Case) -> None:
    assert not case.needs <= TCP
    assert case.needs <= TCP | {"factory"}
