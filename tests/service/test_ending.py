"""How the process ends."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.application.app import _exitWithSignal
from twisted.internet.error import ReactorNotRunning

from twisted_net.service.ending import Ending
from twisted_net.service.journal import Journal


class Reactor:
    """Counts its stops."""

    def __init__(self, running: bool = True) -> None:
        self.running = running
        self.stops = 0
        self.queued: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._exitSignal: object = None

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        self.queued.append((function, args))

    def turn(self) -> None:
        for function, args in self.queued:
            function(*args)
        self.queued.clear()

    def stop(self) -> None:
        if not self.running:
            raise ReactorNotRunning
        self.stops += 1

    def sigTerm(self, number: int, frame: object) -> None:
        self._exitSignal = number


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Reactor()
    for number, handler in before.items():
        signal.signal(number, handler)


def ending(reactor: Any) -> Ending:
    return Ending(reactor, Journal("echo"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_aSignalStopsOnce(reactor: Reactor, number: signal.Signals) -> None:
    one = ending(reactor)
    assert one.reason == "the reactor was stopped"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    one.watch()
    signal.raise_signal(number)
    assert reactor.stops == 0
    reactor.turn()
    signal.raise_signal(number)
    reactor.turn()
    assert reactor.stops == 1
    assert one.reason == number.name


def test_theReactorsOwnHandlersAreReplaced(reactor: Reactor) -> None:
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.raise_signal(signal.SIGTERM)
    assert reactor._exitSignal == signal.SIGTERM
    ending(reactor).watch()
    assert reactor._exitSignal is None
    signal.raise_signal(signal.SIGTERM)
    reactor.turn()
    assert reactor.stops == 1
    assert reactor._exitSignal is None


def test_othersStay(reactor: Reactor) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ending(reactor).watch()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_leftToSignals(reactor: Reactor) -> None:
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ending(reactor).leaveToSignals()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_aReactorThatHasStoppedAlready() -> None:
    one = ending(Reactor(running=False))
    one.stop("SIGTERM")
    assert one.reason == "SIGTERM"


@pytest.mark.parametrize("stderr", [True, False])
def test_aFailureIsTheExitStatus(
    reactor: Reactor, stderr: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", file if stderr else None)
    one = ending(reactor)
    one.fail("net echo: a sentence")
    assert file.getvalue() == ("net echo: a sentence\n" if stderr else "")
    assert one.reason == "an error"
    assert reactor.stops == 1
    one.watch()  # a failure as early as that is none the less one
    # This is what twistd and twist do in the end.
    with pytest.raises(SystemExit) as caught:
        _exitWithSignal(reactor._exitSignal)
    assert caught.value.code == 1
    assert capsys.readouterr().err == ""
