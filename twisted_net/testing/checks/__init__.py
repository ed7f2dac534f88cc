"""A conformance suite that a transport, a reactor or a wrapper of your own is held against.

::

    from twisted_net.testing.checks import Subject, checkStream

    await checkStream(Subject.tcp(reactor))                 # all cases; one ConformanceError lists what failed

    @pytest.mark.parametrize("case", cases(TCP), ids=str)   # or one by one
    @pytest_twisted.ensureDeferred
    async def test_tcp(case):
        await case(Subject.tcp(reactor))

What is not claimed is not judged: see ``Subject.features`` and `FEATURES`.  A wrapper is judged as
``Subject.tcp(reactor).wrapped(WrappingFactory, WrappingFactory)``, a protocol factory as
``checkProtocolFactory(Subject.tcp(reactor).serving(MyFactory))``.
"""

from collections.abc import Iterable
from typing import Final

from twisted_net.testing.checks.conformance import Case, Check, ConformanceError, Verdict
from twisted_net.testing.checks.datagram import checkDatagram
from twisted_net.testing.checks.factory import checkProtocolFactory
from twisted_net.testing.checks.halfopen import checkHalfOpen
from twisted_net.testing.checks.pressure import checkPressure
from twisted_net.testing.checks.server import checkServer
from twisted_net.testing.checks.stream import checkStream
from twisted_net.testing.checks.subject import FEATURES, TCP, TLS, UDP, UNIX, DeliberateError, Subject, featuresOf

__all__ = [
    "CHECKS",
    "FEATURES",
    "TCP",
    "TLS",
    "UDP",
    "UNIX",
    "Case",
    "Check",
    "ConformanceError",
    "DeliberateError",
    "Subject",
    "Verdict",
    "cases",
    "checkDatagram",
    "checkHalfOpen",
    "checkPressure",
    "checkProtocolFactory",
    "checkServer",
    "checkStream",
]

CHECKS: Final = (checkStream, checkHalfOpen, checkPressure, checkServer, checkDatagram, checkProtocolFactory)
"""All of them."""


def cases(features: Iterable[str] = FEATURES) -> tuple[Case, ...]:
    """The cases of all checks that apply to a subject with these features, in order.

    :raises OptionError: for a word that is no feature.
    """
    claimed = featuresOf(features)
    return tuple(case for check in CHECKS for case in check if case.needs <= claimed)
