"""The fixtures for pytest: with pytest-twisted and without, on both grounds, by seeds; what they refuse and report.

Most tests here run pytest on a small file in a process of its own, as a user does, and read its summary.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from programs import environment
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from twisted_net.testing.loopback import LoopbackNetwork
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.peers import Peer

#: The ways in which pytest is run by those who use the kit.
MANNERS = (
    pytest.param(("--reactor=default",), id="default"),
    pytest.param(("--reactor=asyncio",), id="asyncio"),
    pytest.param(("-p", "no:twisted"), id="alone"),
)
ALONE = ("-p", "no:twisted")

START = """
    import pytest
    from twisted.internet import defer
    from twisted.internet.protocol import Protocol
    from twisted.internet.task import deferLater

    class Echo(Protocol):
        def dataReceived(self, data):
            self.transport.write(data)
"""


@dataclass(frozen=True)
class Run:
    """A run of pytest's: its status, what it has printed, and what became of each test."""

    status: int
    text: str

    @property
    def outcomes(self) -> dict[str, str]:
        """What the summary says, by the test's name: ``passed``, ``failed``, ``error``, ``passed error`` ..."""
        found: dict[str, str] = {}
        for outcome, name in re.findall(r"^([A-Z]+) \S*?test_it\.py::(\S+)", self.text, re.M):
            found[name] = f"{found[name]} {outcome.lower()}" if name in found else outcome.lower()
        return found

    def allPassed(self) -> set[str]:
        """The names of the tests, all of which have passed."""
        assert (self.status, set(self.outcomes.values())) == (0, {"passed"}), self.text
        return set(self.outcomes)


def ran(folder: Path, source: str, *options: str) -> Run:
    """Run pytest on *source*."""
    (folder / "test_it.py").write_text(dedent(START) + dedent(source))
    fixed = ("-rA", "-W", "error", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:randomly")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *fixed, *options, "test_it.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


# -- within this run


@pytest.mark.network("memory", "loopback", transport="unix")
async def test_aMarkSaysWhere(
    network: MemoryNetwork | LoopbackNetwork, socketPair: tuple[Peer, Peer], request: pytest.FixtureRequest
) -> None:
    assert network.inMemory == ("[memory]" in request.node.name)
    client, server = socketPair
    client.sends(b"by UNIX")
    await server.hears(b"by UNIX")
    assert type(server.transport.getPeer()).__name__ == "UNIXAddress"


async def test_withoutAMarkItIsMemory(network: MemoryNetwork, memoryNetwork: MemoryNetwork, memoryClock: Any) -> None:
    assert network is memoryNetwork
    assert memoryClock is memoryNetwork.reactor
    assert IReactorTime.providedBy(memoryClock)
    await deferLater(memoryClock, 3600, lambda: None)
    assert memoryClock.seconds() == 3600


def test_aClockIsMovedByHand(memoryClock: Any) -> None:
    ran: list[float] = []
    memoryClock.callLater(1800, lambda: ran.append(memoryClock.seconds()))
    memoryClock.advance(1799)
    assert ran == []
    memoryClock.advance(1)
    assert ran == [1800.0]


async def test_aServerForATest(netServer: Any) -> None:
    class Greeter(Protocol):
        transport: Any

        def connectionMade(self) -> None:
            self.transport.write(b"hello")

    served = await netServer(Greeter)
    client = await served.connects()
    await client.hears(b"hello")


# -- every manner in which pytest is run

EVERYTHING = """
    import os
    import pytest_twisted  # its plugin need not be loaded for that

    MEMORY = os.environ.get("GROUND", "memory") == "memory"

    async def echo(served, data=b"hello"):
        client = await served.connects()
        client.sends(data)
        await client.hears(data)

    async def test_async(netServer, network):
        assert network.inMemory == (GROUND == "memory")
        await echo(await netServer(Echo))

    def test_plain(netServer, network):
        network.run(lambda: network.run) and network.run(lambda: None)
        served = network.run(netServer(Echo))
        network.run(lambda: echo(served))

    def test_pairOutside(socketPair, network):
        client, server = socketPair
        client.sends(b"hello")
        network.run(lambda: server.hears(b"hello"))

    class TestMethods:
        async def test_async(self, netServer):
            await echo(await netServer(Echo))

        def test_plain(self, network):
            assert network.run(lambda: 5) == 5

    @pytest.mark.parametrize("data", [b"a", b"b" * 100_000], ids=["short", "long"])
    async def test_parametrized(netServer, data):
        await echo(await netServer(Echo), data)

    @pytest.mark.network("memory", "loopback")
    async def test_both(netServer, network, request):
        assert network.inMemory == ("[memory]" in request.node.name)
        await echo(await netServer(Echo))

    @pytest.mark.network("memory", "loopback", transport="unix")
    class TestUnix:
        async def test_it(self, socketPair):
            client, server = socketPair
            client.ends()
            await server.hears("end")
            assert "UNIX" in type(server.transport.getPeer()).__name__

    @pytest.mark.network(transport="unix")
    async def test_transportAlone(socketPair):
        assert "UNIX" in type(socketPair[0].transport.getPeer()).__name__

    async def test_clock(memoryClock, socketPair):
        await deferLater(memoryClock, 3600, lambda: None)  # in memory on every ground: the clock is

    async def test_reactorInPlace(memoryNetwork):
        from twisted.internet import reactor
        assert reactor is memoryNetwork.reactor

    def test_nothingOfTheKit():
        pass
"""

NAMES = {
    "test_async",
    "test_plain",
    "test_pairOutside",
    "TestMethods::test_async",
    "TestMethods::test_plain",
    "test_parametrized[short]",
    "test_parametrized[long]",
    "test_both[memory]",
    "test_both[loopback]",
    "TestUnix::test_it[memory]",
    "TestUnix::test_it[loopback]",
    "test_transportAlone",
    "test_clock",
    "test_reactorInPlace",
    "test_nothingOfTheKit",
}


@pytest.mark.parametrize("ground", ["memory", "loopback"])
@pytest.mark.parametrize("manner", MANNERS)
def test_everyManner(manner: tuple[str, ...], ground: str, tmp_path: Path) -> None:
    source = f'    GROUND = "{ground}"\n' + EVERYTHING
    assert ran(tmp_path, source, *manner, f"--network={ground}").allPassed() == NAMES


def test_testsOfPytestTwistedsAreLeftToIt(tmp_path: Path) -> None:
    source = """
        import pytest_twisted

        @pytest_twisted.ensureDeferred
        async def test_async(memoryNetwork, socketPair):
            from twisted.internet import reactor
            assert reactor is not memoryNetwork.reactor
            await deferLater(reactor, 0, lambda: None)
            client, server = socketPair
            client.sends(b"x")
            memoryNetwork.run(lambda: server.hears(b"x"))

        @pytest_twisted.inlineCallbacks
        def test_generator(memoryNetwork):
            from twisted.internet import reactor
            yield deferLater(reactor, 0, lambda: None)
            memoryNetwork.run(memoryNetwork.sleep(5))

        @pytest.mark.network("loopback")
        @pytest_twisted.ensureDeferred
        async def test_loopback(network, netServer):
            served = await netServer(Echo)
            client = await served.connects()
            client.sends(b"x")
            await client.hears(b"x")
            with pytest.raises(RuntimeError, match="await instead"):
                network.run(lambda: None)

        def test_deferred():
            from twisted.internet import reactor
            return deferLater(reactor, 0, lambda: None)
    """
    assert len(ran(tmp_path, source).allPassed()) == 4


@pytest.mark.parametrize("manner", [("--reactor=default",), ALONE], ids=["default", "alone"])
def test_hypothesis(manner: tuple[str, ...], tmp_path: Path) -> None:
    source = """
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as st

        CALM = settings(
            max_examples=10, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
        )
        examples = []

        @CALM
        @given(data=st.binary(min_size=1))
        def test_plain(memoryNetwork, data):
            assert memoryNetwork.run(lambda: data) == data

        @pytest.mark.parametrize("ground", ["one", "two"])
        @CALM
        @given(data=st.binary(min_size=1))
        async def test_async(memoryNetwork, netServer, ground, data):
            from twisted.internet import reactor
            assert reactor is memoryNetwork.reactor
            client = await (await netServer(Echo)).connects()
            client.sends(data)
            await client.hears(data)
            examples.append(ground)

        class TestMethods:
            @CALM
            @given(number=st.integers())
            async def test_async(self, memoryNetwork, number):
                await memoryNetwork.sleep(1)
                assert isinstance(self, TestMethods)

        @CALM
        @given(number=st.integers())
        async def test_fails(memoryNetwork, number):
            await memoryNetwork.sleep(1)
            assert number < 100

        def test_afterwards():
            assert examples.count("one") == examples.count("two") == 10
    """
    run = ran(tmp_path, source, *manner)
    assert run.outcomes == {
        "test_plain": "passed",
        "test_async[one]": "passed",
        "test_async[two]": "passed",
        "TestMethods::test_async": "passed",
        "test_fails": "failed",
        "test_afterwards": "passed",
    }, run.text
    assert re.search(r"number=100\b", run.text), run.text


# -- by seeds

SHAKEN = """
    @pytest.fixture
    def broken(memoryNetwork):
        raise ZeroDivisionError

    async def test_fails(memoryNetwork, netServer):
        served = await netServer(Echo)
        client = await served.connects()
        client.sends(b"x" * 100_000)
        await client.hears(b"x" * 100_000)
        print("DIGEST", memoryNetwork.trace.digest())
        assert False

    async def test_fixtureFails(broken):
        pass
"""


def digest(run: Run) -> str:
    found = re.search(r"^DIGEST (\w+)$", run.text, re.M)
    assert found is not None, run.text
    return found[1]


def test_theSeedIsShownAndRepeatsTheRun(tmp_path: Path) -> None:
    first = ran(tmp_path, SHAKEN, "--network-seed=random")
    assert first.outcomes == {"test_fails": "failed", "test_fixtureFails": "error"}
    seeds = re.findall(r"network: the same again with --network-seed=(\d+)", first.text)
    assert len(set(seeds)) == 2  # of the test, and of the fixture
    assert f"The network's seed was {seeds[0]}." in first.text
    told = dict(re.findall(r"_ (?:ERROR at setup of )?(test_\w+) _(?s:.*?)--network-seed=(\d+)", first.text))
    again = ran(tmp_path, SHAKEN, f"--network-seed={told['test_fails']}")
    assert digest(again) == digest(first)
    other = ran(tmp_path, SHAKEN, f"--network-seed={int(told['test_fails']) + 1}")
    assert digest(other) != digest(first)


def test_withoutASeedNothingIsLeftToChance(tmp_path: Path) -> None:
    runs = [ran(tmp_path, SHAKEN) for _ in range(2)]
    assert digest(runs[0]) == digest(runs[1])
    assert "network-seed" not in runs[0].text
    assert re.search(r"-+ network -+\nWhat happened on the network:\n", runs[0].text)


def test_aClaimThatFailsIsShownWhereTheScriptSaysIt(tmp_path: Path) -> None:
    source = """
        async def test_bytes(memoryNetwork, netServer):
            client = await (await netServer(Echo)).connects()
            client.sends(b"hello")
            await client.hears(b"hullo")

        async def test_word(memoryNetwork, netServer):
            client = await (await netServer(Echo)).connects()
            await client.hears("end")

        async def test_silence(memoryNetwork, netServer):
            client = await (await netServer(Echo)).connects()
            client.sends(b"hello")
            await client.hearsNothing(1)

        async def test_defect(memoryNetwork, netServer):
            client = await (await netServer(Echo)).connects()
            await client.hears(5)
    """
    run = ran(tmp_path, source, *ALONE, "--tb=short")
    assert set(run.outcomes.values()) == {"failed"}
    shown = dict(re.findall(r"^_+ (test_\w+) _+$\n((?s:.*?))(?=^_+ test_|^=+ )", run.text, re.M))
    assert all("HeardError: client was to hear" in shown[name] for name in ("test_bytes", "test_word", "test_silence"))
    assert [name for name, text in shown.items() if "peers.py" in text] == ["test_defect"]


# -- leaks


@pytest.mark.parametrize("manner", MANNERS)
def test_leaks(manner: tuple[str, ...], tmp_path: Path) -> None:
    source = """
        def leave(network):
            network.reactor.callLater(3600, print)
            network.reactor.listenTCP(0, Factory())

        from twisted.internet.protocol import Factory
        Factory.noisy = False

        pytestmark = pytest.mark.network("memory", "loopback")

        def test_leaks(network):
            leave(network)

        def test_clean(network):
            assert network.leaks() == []

        @pytest.mark.network("memory", "loopback", leaks="to see that it may")
        def test_mayLeak(network):
            leave(network)

        def test_fails(network):
            leave(network)
            assert False

        def test_skips(network):
            leave(network)
            pytest.skip("half-way")

        @pytest.mark.xfail(strict=True)
        def test_expected(network):
            leave(network)
            assert False

        @pytest.fixture
        def broken(network):
            leave(network)
            assert False

        def test_fixtureFails(broken):
            pass

        def test_cleanAgain(network):
            assert network.leaks() == []
    """
    run = ran(tmp_path, source, *manner)
    for ground in ("memory", "loopback"):
        outcomes = {name.split("[")[0]: outcome for name, outcome in run.outcomes.items() if f"[{ground}]" in name}
        assert outcomes == {
            "test_leaks": "passed error",
            "test_clean": "passed",
            "test_mayLeak": "passed",
            "test_fails": "failed",
            "test_expected": "xfail",
            "test_fixtureFails": "error",
            "test_cleanAgain": "passed",
        }, run.text
    assert len(re.findall(r"^E .*LeakError: left behind:$", run.text, re.M)) == 2
    assert re.search(
        r"E +localhost: listening socket localhost:\d+\n.*E? +localhost: timer \w*print in 3600 s", run.text
    )
    assert re.search(r"  reader <.*Factory.* on \d+>\n", run.text)
    assert re.search(r"  timer <DelayedCall .*print\(\)>\n", run.text)
    assert "2 skipped" in run.text


# -- what is told clearly


@pytest.mark.parametrize("manner", MANNERS)
def test_aResultThatNobodyWaitsForFails(manner: tuple[str, ...], tmp_path: Path) -> None:
    source = """
        @defer.inlineCallbacks
        def test_deferred(memoryNetwork):
            yield memoryNetwork.sleep(0)

        def test_value(memoryNetwork):
            return 5
    """
    run = ran(tmp_path, source, *manner)
    assert set(run.outcomes.values()) == {"failed"}
    assert "test_value has returned 5, and nobody waits for it: make the test `async def`, and await" in run.text
    assert "test_deferred has returned <Deferred" in run.text


def test_aLineThatIsNotAwaitedIsWarnedOf(tmp_path: Path) -> None:
    source = """
        async def test_it(socketPair):
            client, server = socketPair
            client.hears(b"what never comes")
    """
    run = ran(tmp_path, source)
    assert run.outcomes == {"test_it": "failed"}
    assert "coroutine 'Peer.hears' was never awaited" in run.text


@pytest.mark.parametrize("manner", MANNERS)
def test_runWithinRun(manner: tuple[str, ...], tmp_path: Path) -> None:
    source = """
        @pytest.mark.network("loopback")
        async def test_it(network):
            network.run(lambda: None)
    """
    run = ran(tmp_path, source, *manner)
    assert run.outcomes == {"test_it[loopback]": "failed"}
    assert "RuntimeError: run() was called within the running reactor: make the test `async def`" in run.text


def test_whatOnlyMemoryCan(tmp_path: Path) -> None:
    source = """
        async def test_it(network):
            network.partition(["client"], ["server"])
    """
    run = ran(tmp_path, source, "--network=loopback")
    assert run.outcomes == {"test_it": "failed"}
    assert "MemoryOnlyError: partition is not possible on the loopback interface; run this test in memory" in run.text


@pytest.mark.parametrize(
    ("mark", "fixture", "complaint"),
    [
        ('"lo"', "network", "network('lo'): there is no such network; one of 'memory', 'loopback'"),
        ('"lo"', "memoryClock", "network('lo'): there is no such network; one of 'memory', 'loopback'"),
        ('transprot="unix"', "network", "network(transprot='unix'): there is no such option; one of transport, leaks"),
        ("leaks=True", "network", "network(leaks=True): say why the test may leave something behind: leaks="),
        ('leaks=""', "network", "network(leaks=''): say why the test may leave something behind: leaks="),
        ('"loopback"', "memoryClock", "network('loopback'): the test, or a fixture of its, uses memoryNetwork, which"),
    ],
)
def test_marksThatSayNothing(mark: str, fixture: str, complaint: str, tmp_path: Path) -> None:
    source = f"""
        @pytest.mark.network({mark})
        def test_it({fixture}):
            pass
    """
    run = ran(tmp_path, source, *ALONE)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert re.search(rf"^ERROR: test_it\.py::test_it\S*: {re.escape(complaint)}", run.text, re.M), run.text


def test_anotherTransport(tmp_path: Path) -> None:
    source = """
        @pytest.mark.network(transport="udp")
        async def test_it(socketPair):
            pass
    """
    run = ran(tmp_path, source, *ALONE)
    assert run.outcomes == {"test_it": "error"}
    assert "transport is 'udp'; it must be one of tcp, unix" in run.text


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--network=lo", "argument --network: invalid choice: 'lo' (choose from "),
        ("--network-seed=x", "argument --network-seed: 'x' is no seed; give a whole number, or random"),
    ],
)
def test_optionsThatSayNothing(option: str, complaint: str, tmp_path: Path) -> None:
    run = ran(tmp_path, "", option, *ALONE)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert complaint in run.text


def test_helpListsTheOptionsAndTheMark(tmp_path: Path) -> None:
    text = ran(tmp_path, "", "--help", *ALONE).text
    assert re.search(r"^networks of twisted_net\.testing:\n +--network=\{memory,loopback\}", text, re.M)
    assert re.search(r"^ +--network-seed=N\|random", text, re.M)
    marks = ran(tmp_path, "", "--markers", *ALONE).text
    assert '@pytest.mark.network(*grounds, transport="tcp", leaks=None): run on each of these networks' in marks


# -- how pytest finds it


def test_theEntryPoint() -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert "twisted_net = twisted_net.testing.plugin" in setup["options.entry_points"]["pytest11"]
    (point,) = importlib.metadata.entry_points(group="pytest11", name="twisted_net")
    assert point.value == "twisted_net.testing.plugin"


def test_loadingItInstallsNoReactor() -> None:
    program = "import sys, twisted_net.testing.plugin; print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "False\n"


def test_aRunWithoutItsFixturesInstallsNoReactor(tmp_path: Path) -> None:
    source = """
        import sys

        def test_it():
            assert "twisted.internet.reactor" not in sys.modules

        def test_inMemory(memoryNetwork, socketPair):
            assert "twisted.internet.reactor" not in sys.modules

        def test_afterwards():
            assert "twisted.internet.reactor" not in sys.modules
    """
    assert len(ran(tmp_path, source, *ALONE).allPassed()) == 3
