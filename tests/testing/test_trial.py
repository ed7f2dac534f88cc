"""The mixin for trial: on both grounds, in both kinds of test case, in trial's own runs and in this one."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from programs import environment
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.trial import NetworkTestCase


class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Bodies(NetworkTestCase):
    """What is played; the names say how it ends."""

    __test__ = False  # not pytest's: trial runs them

    def passing(self) -> Any:
        async def body() -> None:
            served = await self.serve(Echo)
            client = await served.connects()
            client.sends(b"hello")
            await client.hears(b"hello")

        return self.play(body)

    def halfClosing(self) -> Any:
        async def body() -> None:
            client, server = await self.pair()
            client.sends(b"question")
            client.ends()
            await server.hears(b"question")
            await server.hears("end")
            server.sends(b"answer")
            server.closes()
            assert await client.hearsAll() == b"answer"

        return self.play(body)

    def playingTwice(self) -> None:
        self.passing()
        self.halfClosing()

    def failing(self) -> Any:
        async def body() -> None:
            client, server = await self.pair()
            self.network.reactor.callLater(3600, print)
            client.sends(b"hello")
            await server.hears(b"goodbye")

        return self.play(body)

    def leaking(self) -> Any:
        async def body() -> None:
            self.network.reactor.callLater(3600, print)

        return self.play(body)

    def leakingWithoutPlaying(self) -> None:
        self.network.reactor.callLater(3600, print)

    def lasting(self) -> Any:
        return self.play(lambda: self.network.sleep(3600), timeout=0.01)


class Case(Bodies, SynchronousTestCase):
    """The other kind, `TestCase`, runs the reactor, which runs already here: see `test_trialRunsThem`."""


def made(name: str, **attributes: Any) -> Any:
    """A case that runs the body of that name."""
    kind: Any = Case
    case = kind(name)
    for attribute, value in attributes.items():
        setattr(case, attribute, value)
    return case


def problems(case: Any) -> list[str]:
    """What running *case* here has given: the errors and failures, as text."""
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1
    return [text for _, text in [*result.errors, *result.failures]]


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("name", ["passing", "halfClosing"])
def test_inMemory(name: str, transport: str) -> None:
    assert problems(made(name, transport=transport)) == []


def test_itsSeedIsTheNetworks() -> None:
    digests = []
    for seed in (1, 1, 2):
        case = made("passing", seed=seed)
        assert problems(case) == []
        assert isinstance(case.network, MemoryNetwork)
        assert case.network.choices.seed == seed
        digests.append(case.network.trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_aFailureIsToldAloneAndWithItsStory() -> None:
    (text,) = problems(made("failing", seed=5))
    assert "HeardError: server was to hear b'goodbye' next; b'h" in text
    case = made("failing", seed=5)
    case.setUp()
    with pytest.raises(AssertionError) as caught:
        case.failing()
    (note,) = caught.value.__notes__
    assert note.startswith("The network's seed was 5.\nWhat happened on the network:\n")
    assert re.search(r"client:\d+ > server:\d+  data ", note)
    case.network.shut()


@pytest.mark.parametrize("name", ["leaking", "leakingWithoutPlaying"])
def test_aLeakFailsTheTest(name: str) -> None:
    (text,) = problems(made(name))
    assert re.search(r"LeakError: left behind:\n +localhost: timer .*print in 3600 s", text)


def test_itsTimeEnds() -> None:
    (text,) = problems(made("lasting"))
    assert "RunawayError: it has taken until 0 s of virtual time, and goes on." in text


def test_severalPlaysShareANetwork() -> None:
    assert problems(made("playingTwice")) == []


# -- what is refused


def test_anotherGround() -> None:
    (text,) = problems(made("passing", ground="lo"))
    assert "OptionError: ground is 'lo'; it must be one of 'memory', 'loopback'" in text


def test_aSynchronousCaseHasNoLoopback() -> None:
    (text,) = problems(made("passing", ground="loopback"))
    assert "OptionError: ground is 'loopback' in a SynchronousTestCase; derive from twisted.trial.unittest" in text


def test_anotherTransport() -> None:
    (text,) = problems(made("passing", transport="udp"))
    assert "OptionError: transport is 'udp'; it must be one of tcp, unix" in text


# -- in trial's own runs


FILE = """
    from test_trial import Bodies
    from twisted.trial.unittest import SynchronousTestCase, TestCase

    class Cases(Bodies):
        test_passing = Bodies.passing
        test_halfClosing = Bodies.halfClosing
        test_failing = Bodies.failing
        test_leaking = Bodies.leaking
        test_leakingWithoutPlaying = Bodies.leakingWithoutPlaying
        test_lasting = Bodies.lasting

        def test_forgotten(self):
            self.play(lambda: self.network.sleep(0.05))

        def test_deaf(self):
            async def body():
                self.network.reactor.callLater(3600, print)
                try:
                    await self.network.sleep(3600)
                finally:
                    raise AssertionError("the body has been cancelled")
            self.play(body, timeout=7200)

    class Memory(Cases, TestCase):
        pass

    class Synchronous(Cases, SynchronousTestCase):
        pass

    class Loopback(Cases, TestCase):
        ground = "loopback"

    class LoopbackUnix(Cases, TestCase):
        ground = "loopback"
        transport = "unix"

        async def test_awaited(self):
            await self.passing()

        async def test_awaitedAndFails(self):
            await self.failing()
"""

FAILING = {"test_failing", "test_leaking", "test_leakingWithoutPlaying", "test_lasting", "test_deaf"}
NOT_RETURNED = "RuntimeError: the test has ended before what it plays: return what play() gives, or await it"


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_trialRunsThem(reactor: str, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(dedent(FILE))
    there = environment()
    folders = f"{tmp_path}:{Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", f"--reactor={reactor}", "test_cases"],
        cwd=tmp_path,
        env=there | {"PYTHONPATH": f"{folders}:{there['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    text = done.stdout + done.stderr
    assert "Ran 34 tests" in text, text
    assert set(re.findall(r"^test_cases\.(\w+\.\w+)$", text, re.M)) == {
        *(f"{name}.{test}" for name in ("Memory", "Synchronous", "Loopback", "LoopbackUnix") for test in FAILING),
        "Loopback.test_forgotten",  # in memory it has been played all the same
        "LoopbackUnix.test_forgotten",
        "LoopbackUnix.test_awaitedAndFails",
    }, text
    causes = {
        test: cause
        for block in re.split(r"^=+$", text, flags=re.M)[1:]
        for cause in re.findall(r"^[\w.]+\.(\w+Error: .*)", block, re.M)
        for test in re.findall(r"^test_cases\.(Loopback\.\w+)$", block, re.M)
    }
    assert causes == {
        "Loopback.test_failing": "HeardError: server was to hear b'goodbye' next; b'hello' came.",
        "Loopback.test_leaking": "LeakError: left behind:",
        "Loopback.test_leakingWithoutPlaying": "LeakError: left behind:",
        "Loopback.test_lasting": (
            "RunawayError: it has taken 0.01 s of real time, and has not come about; open or scheduled:"
        ),
        "Loopback.test_forgotten": NOT_RETURNED,
        "Loopback.test_deaf": NOT_RETURNED,
    }, text
