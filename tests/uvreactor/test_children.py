"""Child processes on uvloop, which has the pipe by which Twisted would learn of their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.process import reapProcessHandlers
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from uvreactor.uvworld import Signals, World, ran

from twisted_net.uvreactor.children import ChildSignals


class Child(ProcessProtocol):
    """Keeps what a process says, and how it ends."""

    transport: Any

    def __init__(self, made: Callable[[Any], object] = lambda transport: None) -> None:
        self.made = made
        self.said = b""
        self.ends: list[Failure] = []

    def connectionMade(self) -> None:
        self.made(self.transport)

    def outReceived(self, data: bytes) -> None:
        self.said += data

    def processEnded(self, reason: Any) -> None:
        self.ends.append(reason)

    @property
    def status(self) -> tuple[int | None, int | None]:
        """Exit code and signal."""
        [reason] = self.ends
        error: Any = reason.value
        assert isinstance(error, ProcessDone if error.status == 0 else ProcessTerminated)
        return error.exitCode, error.signal


def sh(world: World, script: str, child: Child, **more: Any) -> Child:
    world.reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], env=dict(os.environ), **more)
    return child


@pytest.fixture
def played(world: World) -> Any:
    """Plays a scene on a reactor that has the signals, which are as before at the end."""

    def play(scene: Any) -> None:
        with Signals():
            before = signal.getsignal(signal.SIGCHLD)
            world.play(scene, signals=True)
            assert signal.getsignal(signal.SIGCHLD) is not before
            world.reactor._uninstallHandler()
            assert signal.getsignal(signal.SIGCHLD) is before
        assert reapProcessHandlers == {}

    return play


@pytest.mark.parametrize("usePTY", [False, True])
def test_exitCodes(world: World, played: Any, usePTY: bool) -> None:
    async def scene() -> None:
        for script, status in (("exit 0", (0, None)), ("exit 7", (7, None)), ("kill -9 $$", (None, 9))):
            child = sh(world, script, Child(), usePTY=usePTY)
            await world.until(lambda child=child: child.ends)  # type: ignore[misc]
            assert child.status == status

    played(scene())


def test_twentyAtOnce(world: World, played: Any) -> None:
    async def scene() -> None:
        children = [sh(world, f"exit {number}", Child()) for number in range(20)]
        await world.until(lambda: all(child.ends for child in children))
        assert [child.status[0] for child in children] == list(range(20))

    played(scene())


def test_theLoopIsWokenWhenItIsIdle(world: World, played: Any) -> None:
    from twisted.internet.defer import Deferred

    ended: Deferred[None] = Deferred()

    class Telling(Child):
        def processEnded(self, reason: Any) -> None:
            super().processEnded(reason)
            ended.callback(None)

    async def scene() -> None:
        # Nothing turns the loop here; the child's pipes are closed long before it ends.
        child = sh(world, "exec >&- 2>&- <&-; sleep 0.1; exit 3", Telling())
        await ended
        assert child.status == (3, None)

    played(scene())


def test_talking(world: World, played: Any) -> None:
    def ask(transport: Any) -> None:
        for _ in range(100):
            transport.write(b"x" * 10_000)
        transport.closeStdin()

    async def scene() -> None:
        child = sh(world, "cat", Child(ask))
        await world.until(lambda: child.ends)
        assert child.status == (0, None)
        assert child.said == b"x" * 1_000_000

    played(scene())


def test_killed(world: World, played: Any) -> None:
    async def scene() -> None:
        child = sh(world, "echo ready; exec sleep 60", Child())
        await world.until(lambda: child.said)
        child.transport.signalProcess("TERM")
        await world.until(lambda: child.ends)
        assert child.status == (None, signal.SIGTERM)

    played(scene())


def test_startedBeforeTheReactor(world: World, played: Any) -> None:
    with Signals():
        child = sh(world, "exit 5", Child())
        if child.transport.pid is not None:  # else it has ended already, and Twisted knows
            os.waitid(os.P_PID, child.transport.pid, os.WEXITED | os.WNOWAIT)

    async def scene() -> None:
        await world.until(lambda: child.ends)
        assert child.status == (5, None)

    played(scene())


def test_othersHaveTheirChildrenThemselves(world: World, played: Any) -> None:
    async def scene() -> None:
        with subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"]) as process:
            child = sh(world, "exit 5", Child())
            await world.until(lambda: child.ends)
            assert process.wait() == 4

    played(scene())


def test_aloneAndUndone() -> None:
    with Signals():
        soon: list[Any] = []
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signals = ChildSignals(soon.append)
        signals.install()
        signal.raise_signal(signal.SIGCHLD)
        assert len(soon) == 1
        soon[0]()
        signals.uninstall()
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN


def test_inAProgram() -> None:
    program = """
        from twisted.internet.utils import getProcessOutputAndValue

        def said(result):
            print(result)
            reactor.stop()

        getProcessOutputAndValue("/bin/sh", ["-c", "echo out; echo err >&2; exit 9"]).addCallback(said)
        reactor.callLater(20, os._exit, 7)
        reactor.run()
    """
    assert ran(program) == "(b'out\\n', b'err\\n', 9)\n"
