"""A server and a reactor that are held against the checks, for pytest: ``pytest tutorial_checks.py``."""

from __future__ import annotations

import pytest
from tutorial_protocol import Total
from twisted.internet.protocol import Factory

from twisted_net.testing.checks import TCP, Case, Subject, cases, checkProtocolFactory
from twisted_net.testing.network import MemoryNetwork


@pytest.mark.parametrize("case", cases(TCP), ids=str)
async def test_tcpInMemory(case: Case, memoryNetwork: MemoryNetwork) -> None:
    await case(Subject.tcp(memoryNetwork.reactor))


async def test_strangersDoNoHarm(memoryNetwork: MemoryNetwork) -> None:
    subject = Subject.tcp(memoryNetwork.reactor)
    await checkProtocolFactory(subject.serving(lambda: Factory.forProtocol(Total)))
