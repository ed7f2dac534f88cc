"""Subjects: what they claim, what they must have for it, and how they are wrapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from flaws import Glass, GlassFactory, flawed, folder, subjects
from turning import turns
from twisted.internet.protocol import Factory, Protocol

from twisted_net.errors import OptionError
from twisted_net.testing.checks import FEATURES, TCP, TLS, UDP, UNIX, Subject
from twisted_net.testing.peers import HeardError


def test_whatTheUsualOnesClaim() -> None:
    assert subjects("tcp", "").features == subjects("tcp6", "").features == TCP
    assert subjects("unix", "").features == UNIX < TCP
    assert subjects("udp", "").features == UDP
    assert set(FEATURES) > TCP | UDP | TLS
    assert str(subjects("tcp6", "")) == "TCP on ::1"
    assert str(subjects("udp", "")) == "UDP on 127.0.0.1"


@pytest.mark.tls
def test_whatTlsClaims() -> None:
    assert subjects("tls", "").features == TLS
    assert str(subjects("tls", "")) == "TLS on 127.0.0.1"


def test_claims() -> None:
    subject = subjects("tcp", "")
    assert subject.without("reset", "abort").features == TCP - {"reset", "abort"}
    assert subject.claiming("waits").features == TCP | {"waits"}
    with pytest.raises(OptionError, match="there is no feature 'resett': one of stream, "):
        subject.without("resett")
    with pytest.raises(OptionError, match="claims 'datagram' without listenDatagram, address"):
        subject.claiming("datagram")
    with pytest.raises(OptionError, match="nothing claims 'stream' without server, client, again"):
        Subject("nothing", None, frozenset({"stream"}))
    with pytest.raises(OptionError, match="claims 'factory' without factory"):
        subject.claiming("factory")
    with pytest.raises(OptionError, match="there is no feature 'x'"):
        Subject("nothing", None, frozenset({"x"}))


def test_aServedFactory() -> None:
    subject = subjects("tcp", "").serving(lambda: Factory.forProtocol(Protocol))
    assert subject.features == TCP | {"factory"}
    assert str(subject) == "a factory on TCP on 127.0.0.1"
    assert str(subject.serving(lambda: Factory.forProtocol(Protocol), "mine")) == "mine"


def test_whatCannotBeWrapped() -> None:
    with pytest.raises(OptionError, match="has no streams to wrap"):
        subjects("udp", "").wrapped(None, None)


@pytest.mark.parametrize(("server", "client"), [(True, False), (False, True), (True, True), (False, False)])
@pytest_twisted.ensureDeferred
async def test_wrappersStandWhereTheyWereAskedFor(server: bool, client: bool) -> None:
    subject = flawed(Glass, server=server, client=client)(subjects("tcp", ""))
    assert str(subject) == "Glass"
    assert str(subjects("tcp", "").wrapped(None, None)) == "TCP on 127.0.0.1, wrapped"
    async with subject.stage() as stage:
        await stage.listens()
        here, there = await stage.connects()
        assert isinstance(here.transport, Glass) is client
        assert isinstance(there.transport, Glass) is server
        again = stage.atTheSameAddress()
        await stage.peers.closes()
        await stage.listens(again)
        _, there = await stage.connects()
        assert isinstance(there.transport, Glass) is server


@pytest_twisted.ensureDeferred
async def test_theStageIsCleared() -> None:
    with folder() as where:
        async with subjects("unix", where).connection() as (client, server):
            assert not client.gone
        assert client.gone
        assert server.gone


@pytest_twisted.ensureDeferred
async def test_aConnectionThatStaysIsAFailure() -> None:
    class Stays(Glass):
        told = False

        def abortConnection(self) -> None:
            if self.told:
                self.transport.abortConnection()
            self.told = True

    wrapper: Any = lambda factory: GlassFactory(Stays, factory)  # noqa: E731
    subject = replace(subjects("tcp", "").wrapped(wrapper, None), patience=0.1)
    stages: list[Any] = []

    async def scene() -> None:
        async with subject.stage() as stage:
            stages.append(stage)
            await stage.listens()
            _, server = await stage.connects()
            await turns(3)  # on uvloop, one that pauses before it has begun to read may notice the end all the same
            server.pauses()

    with pytest.raises(HeardError, match="server was to hear 'gone'"):
        await scene()
    await stages[0].peers.closes()
