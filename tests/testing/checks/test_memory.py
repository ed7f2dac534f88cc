"""
The network in memory, held against the checks that real sockets are held against: calm, and by seeds; within one host,
and between two that are far apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from certificates import selfSigned
from logs import LoggedErrors
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from twisted_net.sansio.faults import Latency
from twisted_net.testing.checks import checkDatagram, checkHalfOpen, checkPressure, checkServer, checkStream
from twisted_net.testing.checks.conformance import Case
from twisted_net.testing.checks.subject import BACKLOG, CONNECT_TIMEOUT, TCP, TLS, UDP, UNIX, Subject
from twisted_net.testing.network import MemoryNetwork

SEEDS = (None, 0, 1, 2, 3)


def farApart(network: MemoryNetwork) -> Subject:
    """TCP between two hosts, half a second apart, with jitter."""
    here, there = network.host("client"), network.host("server")
    network.link(here, there).setFaults(Latency(delay=0.5, jitter=0.2))

    def server(*, backlog: int = BACKLOG) -> IStreamServerEndpoint:
        return TCP4ServerEndpoint(there.reactor, 0, backlog, there.address)

    def client(port: Any, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(here.reactor, there.address, port.getHost().port, timeout)

    def again(port: Any) -> IStreamServerEndpoint:
        return TCP4ServerEndpoint(there.reactor, port.getHost().port, BACKLOG, there.address)

    return Subject("TCP between two hosts in memory", there.reactor, TCP, server, client, again, patience=3600.0)


def tls(network: MemoryNetwork) -> Subject:
    """TLS on the loopback interface."""
    return Subject.tls(network.reactor, selfSigned().forServer(), selfSigned().forClient())


SUBJECTS: dict[str, tuple[frozenset[str], Callable[[MemoryNetwork], Subject]]] = {
    "tcp": (TCP, lambda network: Subject.tcp(network.reactor)),
    "tcp6": (TCP, lambda network: Subject.tcp(network.reactor, "::1")),
    "unix": (UNIX, lambda network: Subject.unix(network.reactor, "/run")),
    "farApart": (TCP, farApart),
    "tls": (TLS, tls),
    "udp": (UDP, lambda network: Subject.udp(network.reactor)),
}
CHECKS = (checkStream, checkHalfOpen, checkPressure, checkServer, checkDatagram)
PLAYED = [
    pytest.param(kind, case, id=f"{kind}-{case}", marks=[pytest.mark.tls] if kind == "tls" else [])
    for kind, (features, _) in SUBJECTS.items()
    for check in CHECKS
    for case in check
    if case.needs <= features
]


@pytest.mark.parametrize(("kind", "case"), PLAYED)
def test_theNetworkKeepsTheRules(kind: str, case: Case, loggedErrors: LoggedErrors) -> None:
    for seed in SEEDS:
        with MemoryNetwork(seed) as network:
            network.run(partial(case, SUBJECTS[kind][1](network)))
        loggedErrors.flush("DeliberateError")
