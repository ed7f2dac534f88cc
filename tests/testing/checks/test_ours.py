"""Our own engine in the scenes in which Twisted's defects show: it has none of them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from flaws import folder, subjects
from logs import LoggedErrors
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
from twisted_net.testing.checks import TCP, UNIX, Case, Subject, cases, checkProtocolFactory
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.hosting import host
from twisted_net.wire.limits import Limits

WIDE = Limits(reserve=0, readRate=1e9, writeRate=1e9, idleTimeout=3600, halfOpenTimeout=3600)
"""In force, and never felt: the guest's bytes go through our queue."""

BARE = {"bothEnded", "dismissal"}
"""What a hosted protocol gets beyond Twisted's transports while he has the real one."""

SCREENED = BARE | {"waits"}
"""And when his bytes go through our queue."""


def hosted(subject: Subject, limits: Limits | None, *claims: str) -> Subject:
    """The subject with our engine between its transports and its protocols, at both ends."""
    from twisted.internet import reactor

    wrapper: Any = lambda factory: host(factory, reactor, limits=limits or Limits(reserve=0))  # noqa: E731
    return subject.wrapped(wrapper, wrapper, f"our engine on {subject}").claiming(*claims)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # twisted#6108: a socket that cannot be bound
@pytest.mark.parametrize("case", cases(TCP | BARE), ids=str)
@pytest_twisted.ensureDeferred
async def test_bareGuestsOnTcp(case: Case, loggedErrors: LoggedErrors) -> None:
    await case(hosted(subjects("tcp", ""), None, *BARE))
    loggedErrors.flush("DeliberateError")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("case", cases(TCP | SCREENED), ids=str)
@pytest_twisted.ensureDeferred
async def test_screenedGuestsOnTcp(case: Case, loggedErrors: LoggedErrors) -> None:
    await case(hosted(subjects("tcp", ""), WIDE, *SCREENED))
    loggedErrors.flush("DeliberateError")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("case", cases(UNIX | SCREENED), ids=str)
@pytest_twisted.ensureDeferred
async def test_screenedGuestsOnUnixSockets(case: Case, loggedErrors: LoggedErrors) -> None:
    with folder() as where:
        await case(hosted(subjects("unix", where), WIDE, *SCREENED))
    loggedErrors.flush("DeliberateError")


@implementer(IConnectionUser)
class Echo:
    """Sends back what comes, slowly when its peer reads slowly, and ends when its peer has."""

    def connectionOpened(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.attach(self.receive)

    def receive(self, data: bytes) -> None:
        if not self._protocol.write(data):
            self._protocol.pause("echo")

    def drained(self) -> None:
        self._protocol.resume("echo")

    def readEnded(self) -> None:
        self._protocol.end()

    def writeEnded(self) -> None:
        """It has said so itself."""

    def limitPassed(self, name: str, action: str) -> None:
        """There is none."""

    def raised(self, where: str, error: Exception) -> None:
        raise error

    def connectionClosed(self, error: Exception | None, reason: Any) -> None:
        """Nothing is kept of it."""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("limits", [Limits(reserve=0), WIDE], ids=["without", "withLimits"])
@pytest_twisted.ensureDeferred
async def test_aFactoryOfOurs(kind: str, limits: Limits) -> None:
    from twisted.internet import reactor

    def factory() -> Any:
        return SocketFactory(lambda protocol: Echo(), reactor, limits=limits)

    with folder() as where:
        verdict = await checkProtocolFactory(subjects(kind, where).serving(factory))
    assert verdict.kept == tuple(checkProtocolFactory)
