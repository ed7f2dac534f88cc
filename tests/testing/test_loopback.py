"""The loopback interface behind the calls of a network in memory: runs, ends, leaks, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import pytest_twisted
from programs import environment
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory

from twisted_net.testing.host import Host
from twisted_net.testing.loopback import LoopbackHost, LoopbackNetwork, MemoryOnlyError
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.runaway import LeakError, RunawayError

REACTORS = ("default", "asyncio")


# The fixture `network` is the kit's own; who has it is not run within the reactor.
pytestmark = pytest.mark.network("loopback")


# -- running


def test_whatCanBeRun(network: LoopbackNetwork) -> None:
    async def body() -> str:
        await network.sleep(0)
        return "awaited"

    assert network.run(body) == "awaited"
    assert network.run(body()) == "awaited"
    assert network.run(succeed("fired")) == "fired"
    assert network.run(lambda: "returned") == "returned"
    assert network.run(lambda: succeed("fired later")) == "fired later"
    network.close()


def test_aFailureIsRaised(network: LoopbackNetwork) -> None:
    async def body() -> None:
        raise ZeroDivisionError("what went wrong")

    with pytest.raises(ZeroDivisionError, match="what went wrong"):
        network.run(body)
    with pytest.raises(TypeError):
        network.run(42)
    network.close()


def test_itsTimeIsTheReactors(network: LoopbackNetwork) -> None:
    before = network.now
    network.run(network.sleep(0.01))
    assert network.seconds() - before >= 0.01
    assert not network.inMemory
    assert network.story() == ""


def test_whatTakesTooLongIsCancelledAndTold(network: LoopbackNetwork) -> None:
    cancelled: list[bool] = []
    never: Deferred[None] = Deferred(lambda result: cancelled.append(True))
    timer = network.reactor.callLater(3600, print)
    with pytest.raises(RunawayError, match=r"it has taken 0\.01 s of real time.*\n  timer .*print"):
        network.run(never, timeout=0.01)
    assert cancelled
    timer.cancel()
    with pytest.raises(RunawayError, match="open or scheduled:\n  nothing"):
        network.run(Deferred(), timeout=0.01)


def test_whoCancelsSaysSo(network: LoopbackNetwork) -> None:
    never: Deferred[None] = Deferred()
    begun = network.begin(never)
    begun.cancel()
    with pytest.raises(CancelledError):
        network.run(begun)
    network.close()


def test_runWithinRunIsRefused(network: LoopbackNetwork) -> None:
    async def body() -> None:
        network.run(inner)

    async def inner() -> None:
        raise AssertionError("it was begun")

    with pytest.raises(RuntimeError, match="make the test `async def`, and await instead"):
        network.run(body)
    network.close()


@pytest_twisted.ensureDeferred
async def test_withinTheReactorOneAwaits(network: LoopbackNetwork) -> None:
    with pytest.raises(RuntimeError, match="within the running reactor"):
        network.run(lambda: None)
    assert await network.begin(lambda: "begun") == "begun"
    await network.ended()
    network.close()


# -- hosts and paths


def test_theReactorMayBeGiven(network: LoopbackNetwork) -> None:
    assert LoopbackNetwork(network.reactor).reactor is network.reactor


def test_everyHostIsThisMachine(network: LoopbackNetwork) -> None:
    host = network.host("server", "10.0.0.1")
    assert network.host("server") is host
    assert network.hosts == {"server": host}
    assert (host.name, host.address, host.addresses) == ("server", "127.0.0.1", ("127.0.0.1",))
    assert host.reactor is network.reactor


def test_pathsAreNewAndTheirFolderGoes(network: LoopbackNetwork) -> None:
    paths = {network.path() for _ in range(3)}
    assert len(paths) == 3
    (folder,) = {os.path.dirname(path) for path in paths}
    assert os.path.isdir(folder)
    network.close()
    assert not os.path.exists(folder)


# -- what only memory can


def public(one: object) -> set[str]:
    return {name for name in dir(one) if not name.startswith("_")}


def test_everythingOfANetworkInMemoryIsThereOrRefused(network: LoopbackNetwork) -> None:
    refused = (public(MemoryNetwork) | {"choices", "names", "trace"}) - public(network)
    assert {"advance", "at", "heal", "link", "partition", "runWhile", "settle"} <= refused
    for name in refused:
        with pytest.raises(MemoryOnlyError, match=f"{name} is not possible on the loopback interface"):
            getattr(network, name)


def test_everythingOfAHostInMemoryIsThereOrRefused(network: LoopbackNetwork) -> None:
    host = network.host("one")
    refused = (public(Host) | {"credentials", "dead", "descriptorLimit", "frozen", "ports"}) - public(host)
    assert {"die", "failing", "freeze", "thaw"} <= refused
    for name in refused:
        with pytest.raises(MemoryOnlyError, match=f'{name} is not possible .*ground = "memory"'):
            getattr(host, name)


def test_askingBeforehandIsHarmless(network: LoopbackNetwork) -> None:
    one: Any = network
    assert not hasattr(one, "partition")
    with pytest.raises(AttributeError, match="LoopbackNetwork has no attribute 'nonsense'"):
        _ = one.nonsense
    with pytest.raises(AttributeError, match="LoopbackHost has no attribute 'nonsense'"):
        _ = LoopbackHost("one", None).nonsense


# -- leaks


class Story(Protocol):
    """Keeps what happens to it."""

    def __init__(self) -> None:
        self.lost = False

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


def test_leaksAreNamedAndEnded(network: LoopbackNetwork, tmp_path: Path) -> None:
    reactor = network.reactor
    timer = reactor.callLater(3600, print)
    reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1")
    reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    reactor.listenUNIX(str(tmp_path / "s"), ServerFactory())
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(LeakError) as caught:
        network.close()
    told = str(caught.value).splitlines()
    assert told[0] == "left behind:"
    assert sum(line.startswith("  reader ") for line in told) == 3
    assert sum(line.startswith("  timer ") and "print" in line for line in told) == 1
    assert len(told) == 5
    assert not timer.active()
    assert len(before - set(os.listdir("/proc/self/fd"))) == 3
    network.close()  # once more is harmless


def test_aConnectionThatIsOpenIsALeak(network: LoopbackNetwork) -> None:
    story = Story()

    async def body() -> None:
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        factory = ServerFactory.forProtocol(Protocol)
        factory.noisy = False
        port = network.reactor.listenTCP(0, factory, interface="127.0.0.1")
        endpoint = TCP4ClientEndpoint(network.reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, story)
        await port.stopListening()

    network.run(body)
    assert [line.split()[0] for line in network.leaks()] == ["reader", "reader"]
    network.shut()
    assert story.lost
    assert network.leaks() == []


def test_whatWasThereBeforeIsNoLeak(network: LoopbackNetwork) -> None:
    timer = network.reactor.callLater(3600, print)
    with LoopbackNetwork() as inner:
        assert inner.leaks() == []
    assert len(network.leaks()) == 1
    assert timer.active()
    timer.cancel()


def test_itsOwnTimeoutIsNoLeak(network: LoopbackNetwork) -> None:
    assert network.run(network.leaks) == []

    async def later() -> list[str]:
        await network.sleep(0)
        return network.leaks()

    assert network.run(later) == []


def test_whatIsOnItsWayToTheEndIsWaitedFor(network: LoopbackNetwork) -> None:
    network.reactor.callLater(0.02, lambda: None)
    network.close()


def test_asAContextManager(network: LoopbackNetwork) -> None:
    def leave() -> None:
        with LoopbackNetwork() as inner:
            inner.reactor.callLater(3600, print)

    def fail() -> None:
        with LoopbackNetwork() as inner:
            inner.reactor.callLater(3600, print)
            raise ZeroDivisionError

    with pytest.raises(LeakError, match="print"):
        leave()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert network.leaks() == []


# -- without pytest-twisted: programs of their own


def ran(folder: Path, source: str, reactor: str = "default") -> str:
    """Run *source* as a program, with ``network`` at hand; what it has printed."""
    start = f"""
        from twisted.internet import {"asyncioreactor" if reactor == "asyncio" else "default"} as kind
        kind.install()
        from twisted_net.testing.loopback import LoopbackNetwork
        network = LoopbackNetwork()
    """
    program = folder / "program.py"
    program.write_text(dedent(start) + dedent(source))
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("reactor", REACTORS)
def test_theReactorIsRunAgainAndAgain(reactor: str, tmp_path: Path) -> None:
    source = """
        async def body():
            await network.sleep(0.001)
            return "slept"
        print([network.run(body), network.run(body), network.run(lambda: "at once"), network.run(body)])
        try:
            network.run(lambda: 1 // 0)
        except ZeroDivisionError as error:
            print(error)
        try:
            network.run(42)
        except Exception as error:
            print(type(error).__name__)
        async def nested():
            network.run(body)
        try:
            network.run(nested)
        except RuntimeError as error:
            print(error)
        network.close()
        print(network.reactor.running)
    """
    assert ran(tmp_path, source, reactor).splitlines() == [
        "['slept', 'slept', 'at once', 'slept']",
        "integer division or modulo by zero",
        "NotACoroutineError",
        "run() was called within the running reactor: make the test `async def`, and await instead",
        "False",
    ]


@pytest.mark.parametrize("reactor", REACTORS)
def test_interrupted(reactor: str, tmp_path: Path) -> None:
    source = """
        import os, signal
        async def body():
            network.reactor.callLater(0.01, os.kill, os.getpid(), signal.SIGINT)
            await network.sleep(3600)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            network.run(body)
        except KeyboardInterrupt:
            print("interrupted", network.reactor.running, signal.getsignal(signal.SIGINT).__name__)
        network.shut()
    """
    assert ran(tmp_path, source, reactor) == "interrupted False default_int_handler\n"


def test_interruptedTwiceItStopsWhereItStands(tmp_path: Path) -> None:
    source = """
        import os, signal
        async def busy():
            os.kill(os.getpid(), signal.SIGINT)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print("where it stands")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            network.run(busy)
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert ran(tmp_path, source).splitlines()[0] == "where it stands"


@pytest.mark.parametrize("decided", ["signal.SIG_IGN", "print"])
def test_aHandlerOfSomebodyElsesStays(decided: str, tmp_path: Path) -> None:
    source = f"""
        import signal
        signal.signal(signal.SIGINT, {decided})
        print(network.run(lambda: signal.getsignal(signal.SIGINT)) == {decided})
    """
    assert ran(tmp_path, source) == "True\n"


def test_inAThreadSignalsAreLeftAlone(tmp_path: Path) -> None:
    source = """
        import threading
        thread = threading.Thread(target=lambda: print(network.run(lambda: "in a thread")))
        thread.start()
        thread.join()
    """
    assert ran(tmp_path, source) == "in a thread\n"
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize("reactor", REACTORS)
def test_aReactorThatWasStoppedIsToldOf(reactor: str, tmp_path: Path) -> None:
    source = """
        async def body():
            network.reactor.callLater(0, network.reactor.stop)
            await network.sleep(3600)
        try:
            network.run(body)
        except RuntimeError as error:
            print(error)
    """
    assert "what a test runs must not call reactor.stop()" in ran(tmp_path, source, reactor)


GREENLET = """
    import pytest

    @pytest.mark.network("loopback", leaks="the reactor that would end them is gone")
    def test_stops(network):
        async def body():
            network.reactor.callLater(0, network.reactor.stop)
            await network.sleep(3600)
        with pytest.raises(RuntimeError, match="must not call reactor.stop"):
            network.run(body)
        with pytest.raises(RuntimeError, match="must not call reactor.stop"):
            network.run(lambda: None)
"""


def test_aGreenletThatWasStoppedIsToldOf(tmp_path: Path) -> None:
    (tmp_path / "test_stopped.py").write_text(dedent(GREENLET))
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    # The error is the fixture's, which cannot end the network any more.
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr


def test_aTestsOwnAssertionErrorsPass(network: LoopbackNetwork) -> None:
    def body() -> None:
        raise AssertionError("of the test's own")

    with pytest.raises(AssertionError, match="of the test's own"):
        network.run(body)


def test_aNetworkWithinANetworksRun(network: LoopbackNetwork) -> None:
    """The timer of the outer run is none of the inner one's leaks."""

    async def body() -> None:
        inner = LoopbackNetwork(network.reactor)
        assert inner.leaks() == []
        await inner.ended()

    network.run(body)
    network.close()
