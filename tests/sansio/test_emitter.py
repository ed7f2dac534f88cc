"""The emitter: Node's promises, a listener that fails, and an idle one that costs next to nothing."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import NetError
from twisted_net.sansio.emitter import Emitter


class Changing(Emitter):
    """Notes every change of listeners."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[str] = []

    def listenersChanged(self, event: str) -> None:
        self.changes.append(event)


class Noting(Emitter):
    """Notes failures where the default raises them."""

    __slots__ = ("failures",)

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[tuple[str, Exception, bool]] = []

    def listenerFailed(self, event: str, error: Exception) -> None:
        self.failures.append((event, error, sys.exc_info()[1] is error))


def noting(log: list[object], name: object) -> Callable[..., None]:
    def listener(*args: object) -> None:
        log.append((name, *args) if args else name)

    return listener


def failing(error: BaseException) -> Callable[..., None]:
    def listener(*args: object) -> None:
        raise error

    return listener


# -- listening and emitting


def test_listenersRunInOrderWithTheArguments() -> None:
    log: list[object] = []
    emitter = Emitter()
    assert emitter.on("data", noting(log, "a")).on("data", noting(log, "b")) is emitter
    emitter.addListener("data", noting(log, "c"))
    assert emitter.emit("data", b"x", 1)
    assert log == [("a", b"x", 1), ("b", b"x", 1), ("c", b"x", 1)]


def test_nobodyListens() -> None:
    emitter = Emitter()
    assert not emitter.emit("data", b"x")
    emitter.on("end", print)
    assert not emitter.emit("data", b"x")


def test_eachFormIsADecoratorToo() -> None:
    log: list[object] = []
    emitter = Emitter()

    @emitter.on("data")
    def second() -> None:
        log.append("second")

    @emitter.once("data")
    def third() -> None:
        log.append("third")

    @emitter.prependListener("data")
    def first() -> None:
        log.append("first")

    @emitter.prependOnceListener("data")
    def zeroth() -> None:
        log.append("zeroth")

    assert emitter.listeners("data") == [zeroth, first, second, third]
    emitter.emit("data")
    emitter.emit("data")
    assert log == ["zeroth", "first", "second", "third", "first", "second"]


def test_prependedRunFirst() -> None:
    log: list[object] = []
    emitter = Emitter().on("x", noting(log, 3))
    emitter.prependListener("x", noting(log, 2)).prependOnceListener("x", noting(log, 1)).once("x", noting(log, 4))
    emitter.emit("x")
    emitter.emit("x")
    assert log == [1, 2, 3, 4, 2, 3]


def test_onceIsGoneBeforeItRuns() -> None:
    log: list[object] = []
    emitter = Emitter()

    def again() -> None:
        log.append(emitter.listenerCount("x"))
        emitter.emit("x")

    emitter.once("x", again)
    assert emitter.emit("x")
    assert not emitter.emit("x")
    assert log == [0]


def test_onceRunsOnceWhenAnEarlierListenerEmitsTheSameEvent() -> None:
    log: list[object] = []
    emitter = Emitter()

    def nesting() -> None:
        if not log:
            log.append("nest")
            emitter.emit("x")

    emitter.on("x", nesting).once("x", noting(log, "once"))
    emitter.emit("x")
    assert log == ["nest", "once"]


def test_theListIsFrozenWhileTheEventRuns() -> None:
    log: list[object] = []
    emitter = Emitter()
    last, added = noting(log, "last"), noting(log, "added")

    def change() -> None:
        emitter.off("x", last).on("x", added)

    emitter.on("x", change).on("x", last)
    emitter.emit("x")
    assert log == ["last"]
    emitter.off("x", change)
    emitter.emit("x")
    assert log == ["last", "added"]


def test_removingAllStillReachesThoseOfTheRunningEvent() -> None:
    log: list[object] = []
    emitter = Changing()
    emitter.on("x", emitter.removeAllListeners).once("x", noting(log, "once")).on("x", noting(log, "on"))
    emitter.changes.clear()
    emitter.emit("x")
    assert log == ["once", "on"]
    assert emitter.eventNames() == []
    assert emitter.changes == ["x"]


def test_anAnswerIsIgnored() -> None:
    assert Emitter().on("x", lambda: False).emit("x")


@pytest.mark.parametrize("form", ["on", "addListener", "once", "prependListener", "prependOnceListener"])
def test_refusesWhatCannotBeCalled(form: str) -> None:
    emitter = Emitter()
    with pytest.raises(TypeError, match="a listener of 'data' must be callable, 5 is not"):
        getattr(emitter, form)("data", 5)
    with pytest.raises(TypeError, match="a listener of 'data' must be callable, 'x' is not"):
        getattr(emitter, form)("data")("x")
    with pytest.raises(TypeError, match="an event is named by a text, not by <built-in function print>"):
        getattr(emitter, form)(print)
    assert emitter.eventNames() == []


# -- removing


def test_offTakesTheNewestOfSeveral() -> None:
    log: list[object] = []
    emitter = Emitter()
    twice, between = noting(log, "twice"), noting(log, "between")
    emitter.on("x", twice).on("x", between).on("x", twice)
    assert emitter.off("x", twice) is emitter
    assert emitter.listeners("x") == [twice, between]
    emitter.removeListener("x", twice)
    assert emitter.listeners("x") == [between]
    emitter.off("x", twice).off("y", twice)
    assert emitter.listeners("x") == [between]


@pytest.mark.parametrize(("older", "newer", "heard"), [("on", "once", [1, 2]), ("once", "on", [1])])
def test_offTakesTheNewestOfEitherKind(older: str, newer: str, heard: list[object]) -> None:
    log: list[object] = []
    emitter = Emitter()
    getattr(emitter, older)("x", log.append)
    getattr(emitter, newer)("x", log.append)
    emitter.off("x", log.append)
    emitter.emit("x", 1)
    emitter.emit("x", 2)
    assert log == heard


def test_offFindsOnceAndBoundMethods() -> None:
    log: list[object] = []
    emitter = Emitter().once("x", log.append).on("x", log.append)
    emitter.off("x", log.append).off("x", log.append)
    assert not emitter.emit("x", 1)
    assert log == []


def test_usingUpOneRegistrationLeavesItsTwin() -> None:
    log: list[object] = []
    emitter = Emitter().once("x", log.append).once("x", log.append).on("x", log.append)
    emitter.emit("x", 1)
    emitter.emit("x", 2)
    assert log == [1, 1, 1, 2]


def test_removeAllListeners() -> None:
    emitter = Changing()
    emitter.on("x", print).on("y", print).once("z", print)
    assert emitter.removeAllListeners("x") is emitter
    assert emitter.eventNames() == ["y", "z"]
    emitter.changes.clear()
    emitter.removeAllListeners("x")
    assert emitter.changes == []
    assert emitter.removeAllListeners() is emitter
    assert emitter.changes == ["y", "z"]
    assert emitter.eventNames() == []
    emitter.removeAllListeners()


def test_theSoleListener() -> None:
    """Only one that may be called in the place of emit: there is no other, and hearing does not use it up."""
    emitter = Emitter()
    sole = [emitter.soleListener("x")]
    for verb, listener in [("on", print), ("on", abs), ("off", print), ("off", abs), ("once", abs)]:
        getattr(emitter, verb)("x", listener)
        sole.append(emitter.soleListener("x"))
    assert sole == [None, print, None, abs, None, None]


def test_everyChangeIsTold() -> None:
    emitter = Changing()
    emitter.on("a", print).once("b", abs).prependListener("a", abs).prependOnceListener("c", abs)
    assert emitter.changes == ["a", "b", "a", "c"]
    emitter.off("a", print).off("a", print)
    assert emitter.changes == ["a", "b", "a", "c", "a"]
    emitter.changes.clear()
    emitter.once("d", lambda: emitter.changes.append("ran"))
    emitter.emit("d")
    assert emitter.changes == ["d", "d", "ran"]


def test_asking() -> None:
    emitter = Emitter().on("x", print).once("x", abs).once("y", abs)
    assert emitter.listenerCount("x") == 2
    assert emitter.listenerCount("z") == 0
    assert emitter.listeners("x") == [print, abs]
    assert emitter.listeners("y") == [abs]
    assert emitter.listeners("z") == []
    assert emitter.eventNames() == ["x", "y"]
    emitter.listeners("x").clear()
    assert emitter.listenerCount("x") == 2


# -- failures


def test_theFailureOfASingleListenerIsRaised() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        Emitter().on("x", failing(error)).emit("x")
    assert caught.value is error


def test_theOthersRunBeforeTheFailureIsRaised() -> None:
    log: list[object] = []
    emitter = Emitter().on("x", failing(ValueError("mine"))).on("x", noting(log, "ran"))
    with pytest.raises(ValueError, match="mine"):
        emitter.emit("x")
    assert log == ["ran"]


def test_severalFailuresAreRaisedTogether() -> None:
    one, other = ValueError("one"), KeyError("other")
    emitter = Emitter().on("x", failing(one)).once("x", failing(other))
    with pytest.raises(ExceptionGroup, match="2 listeners of 'x' failed") as caught:
        emitter.emit("x")
    assert caught.value.exceptions == (one, other)
    assert emitter.listenerCount("x") == 1


@pytest.mark.parametrize("more", [False, True])
def test_aSubclassMayDealWithFailures(more: bool) -> None:
    error = ValueError("mine")
    emitter = Noting()
    emitter.on("x", failing(error))
    if more:
        emitter.on("x", print)
    assert emitter.emit("x")
    assert emitter.failures == [("x", error, True)]


@pytest.mark.parametrize("more", [False, True])
def test_aRequestToStopFliesAtOnce(more: bool) -> None:
    log: list[object] = []
    emitter = Noting()
    emitter.on("x", failing(KeyboardInterrupt()))
    if more:
        emitter.on("x", noting(log, "ran"))
    with pytest.raises(KeyboardInterrupt):
        emitter.emit("x")
    assert log == []
    assert emitter.failures == []


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_failuresLeaveNoCycle(failures: int) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local

    emitter = Emitter()
    for _ in range(failures):
        emitter.on("x", fail)
    gc.collect()
    gc.disable()
    try:
        try:
            emitter.emit("x")
        except* Local as group:
            gone = [weakref.ref(error) for error in group.exceptions]
            del group
        assert [reference() for reference in gone] == [None] * failures
    finally:
        gc.enable()


# -- 'error'


def test_anUnheardErrorIsLogged(caplog: pytest.LogCaptureFixture) -> None:
    error = NetError("the peer is gone", code="ECONNRESET")
    with caplog.at_level(logging.ERROR, "twisted_net"):
        assert not Emitter().emit("error", error)
    [record] = caplog.records
    assert record.name == "twisted_net"
    assert "the peer is gone [ECONNRESET]" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("args", [(), ("text",)])
def test_anErrorThatIsNoExceptionIsToldToo(args: tuple[object, ...]) -> None:
    unheard: list[BaseException] = []

    class Watching(Emitter):
        def errorUnheard(self, error: BaseException) -> None:
            unheard.append(error)

    assert not Watching().emit("error", *args)
    [error] = unheard
    assert isinstance(error, NetError)
    assert (error.code, error.fault) == ("ERR_UNHANDLED_ERROR", "user")
    assert repr(args) in str(error)


def test_aHeardErrorIsNotLogged(caplog: pytest.LogCaptureFixture) -> None:
    log: list[object] = []
    assert Emitter().on("error", log.append).emit("error", 1)
    assert log == [1]
    assert not caplog.records


# -- what it costs


def test_anIdleEmitterIsOneSlot() -> None:
    emitter = Emitter()
    assert not hasattr(emitter, "__dict__")
    assert sys.getsizeof(emitter) <= sys.getsizeof(object()) + 24  # its slot and the collector's two words
    assert emitter._listeners is None
    emitter.on("x", print).once("y", print)
    emitter.off("x", print).off("y", print)
    assert emitter._listeners is None


def test_oneListenerIsKeptAsItIs() -> None:
    emitter = Emitter().on("x", print).on("x", abs).off("x", print)
    assert emitter._listeners == {"x": abs}


def test_oneListenerIsOneCall() -> None:
    """Between emit and a single listener there is no Python function, and one look into the table."""
    calls: list[str] = []

    def listener(data: bytes) -> None:
        pass

    def profile(frame: object, kind: str, argument: object) -> None:
        calls.append(f"{kind} {getattr(argument, '__name__', '')}".strip())

    emitter = Emitter().on("data", listener)
    sys.setprofile(profile)
    try:
        emitter.emit("data", b"x")
    finally:
        sys.setprofile(None)
    assert calls == ["call", "c_call get", "c_return get", "call", "return", "return", "c_call setprofile"]


def test_listenersLeaveNoCycle() -> None:
    class Owned(Emitter):
        __slots__ = ("__weakref__",)

    emitter = Owned()
    emitter.on("x", print).once("x", print).prependOnceListener("y", print)
    gone = weakref.ref(emitter)
    gc.disable()
    try:
        del emitter
        assert gone() is None
    finally:
        gc.enable()


# -- against a model

Step: TypeAlias = tuple[str, str, int]

steps = st.tuples(
    st.sampled_from(["on", "once", "prependListener", "prependOnceListener", "off", "off", "emit", "emit", "clear"]),
    st.sampled_from("xy"),
    st.integers(0, 2),
)


@given(st.lists(steps, max_size=40))
def test_behavesAsListsOfListeners(script: list[Step]) -> None:
    heard: list[object] = []
    listeners = [noting(heard, number) for number in range(3)]
    emitter = Changing()
    model: dict[str, list[tuple[int, bool]]] = {}
    for verb, event, number in script:
        before = {name: list(entries) for name, entries in model.items()}
        entries = model.setdefault(event, [])
        emitter.changes.clear()
        if verb == "emit":
            heard.clear()
            assert emitter.emit(event) == bool(entries)
            assert heard == [each for each, _ in entries]
            entries[:] = [entry for entry in entries if not entry[1]]
        elif verb == "clear":
            emitter.removeAllListeners(event)
            entries.clear()
        elif verb == "off":
            emitter.off(event, listeners[number])
            for index in reversed(range(len(entries))):
                if entries[index][0] == number:
                    del entries[index]
                    break
        else:
            getattr(emitter, verb)(event, listeners[number])
            entries.insert(0 if verb.startswith("prepend") else len(entries), (number, "nce" in verb))
        if not entries:
            del model[event]
        assert emitter.eventNames() == list(model)
        for name in "xy":
            assert emitter.listeners(name) == [listeners[each] for each, _ in model.get(name, [])]
            assert emitter.listenerCount(name) == len(model.get(name, []))
        assert bool(emitter.changes) == (before != model)
