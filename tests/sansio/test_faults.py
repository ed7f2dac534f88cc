"""Faults: what each does, what all of them leave alone, and that chance is the seed's and not the chunks'."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import accumulate, pairwise
from math import inf, nan, nextafter
from random import Random
from statistics import mean, pstdev
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_net.errors import ClosedError, OptionError
from twisted_net.sansio import faults as room
from twisted_net.sansio.faults import (
    LONGEST,
    MOST,
    STROKE,
    Bandwidth,
    DatagramFaults,
    Delivery,
    Duplicate,
    Fault,
    Faults,
    Glue,
    Latency,
    LimitData,
    Loss,
    Refusals,
    Refuse,
    Reorder,
    Reset,
    Slicer,
    SlowClose,
    StreamFaults,
    Timeout,
)

# -- chains of any kind

shares = st.sampled_from([0.0, 0.05, 0.5, 1.0]) | st.floats(0, 1)
#: Seconds that add up without rounding.
times = st.integers(0, 40).map(lambda eighths: eighths / 8)
sizes = st.integers(0, 300)
distributions = st.sampled_from(["uniform", "normal", "exponential"])
slicers = st.integers(1, 80).flatmap(
    lambda size: st.builds(Slicer, st.just(size), st.integers(0, size - 1), times, probability=shares)
)
bandwidths = st.builds(Bandwidth, st.integers(1, 500) | st.floats(1, 1e6), probability=shares)
slowCloses = st.builds(SlowClose, times, probability=shares)
limits = st.builds(LimitData, sizes, probability=shares)
resetsAt = st.builds(Reset, at=sizes, probability=shares)

#: These cut by position, or not at all.
positional = slicers | bandwidths | slowCloses | limits | resetsAt
#: These let everything through.
harmless = (
    slicers
    | bandwidths
    | slowCloses
    | st.builds(Latency, times, times, distributions, probability=shares)
    | st.builds(Glue, times, st.integers(1, 300), probability=shares)
)
lethal = (
    limits
    | resetsAt
    | st.builds(Reset, after=times, probability=shares)
    | st.builds(Timeout, times, st.booleans(), probability=shares)
)
others = (
    st.builds(Loss, probability=shares)
    | st.builds(Duplicate, probability=shares)
    | st.builds(Reorder, times, probability=shares)
    | st.builds(Refuse, st.integers(0, 5), probability=shares)
)


def chains(faults: st.SearchStrategy[Any]) -> st.SearchStrategy[Faults]:
    return st.lists(faults, max_size=5).map(lambda chain: Faults(*chain))


seeds = st.integers(0, 2**32)

Script: TypeAlias = list[tuple[float, bytes]]
"""What a sender does: moments, and the bytes that are fed then (with none, somebody only ticks)."""

scripts = st.lists(st.tuples(times, st.binary(max_size=120)), max_size=12).map(
    lambda steps: list(zip(accumulate(pause for pause, _ in steps), [data for _, data in steps], strict=True))
)

# -- playing a life


def life(*chain: Fault, seed: int = 0, now: float = 0.0) -> StreamFaults:
    return StreamFaults(Faults(*chain), Random(seed), now)


def finish(stream: StreamFaults) -> list[Delivery]:
    """Tick as often as is asked for, at the time that is asked for."""
    found = []
    while (due := stream.due()) is not None:
        found += stream.tick(due)
        assert stream.due() != due
    return found


def play(faults: Faults, seed: int, script: Script, last: str = "end") -> list[Delivery]:
    """All that arrives when a sender begins at 0, follows the script, and a second later ends or resets."""
    stream, now, found = StreamFaults(faults, Random(seed), 0.0), 0.0, list[Delivery]()
    for now, data in script:
        found += stream.feed(data, now)
    found += stream.end(now + 1) if last == "end" else stream.reset(now + 1)
    return found + finish(stream)


def content(found: Iterable[Delivery]) -> bytes:
    return b"".join(one.data for one in found)


def cuts(pieces: Iterable[bytes]) -> set[int]:
    """The positions at which the pieces end."""
    return set(accumulate(map(len, pieces)))


def chunked(data: bytes, positions: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted({position for position in positions if position < len(data)}), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds)]


# -- what holds for every chain


@given(chains(harmless | lethal | others), seeds, scripts, st.sampled_from(["end", "reset"]))
def test_streamsStayStreams(faults: Faults, seed: int, script: Script, last: str) -> None:
    """Data, then at most one end, then at most one reset; bytes that were sent, in their order; times in order."""
    found = play(faults, seed, script, last)
    words = [one.what for one in found]
    kept = words.count("data")
    assert words[kept:] in ([], ["end"], ["reset"], ["end", "reset"])
    assert "data" not in words[kept:]
    assert b"".join(data for _, data in script).startswith(content(found))
    assert all(bool(one.data) == (one.what == "data") for one in found)
    assert all(before.at <= after.at for before, after in pairwise(found))


@given(chains(harmless | others), seeds, scripts, st.sampled_from(["end", "reset"]))
def test_whatOnlyDelaysLosesNothing(faults: Faults, seed: int, script: Script, last: str) -> None:
    found = play(faults, seed, script, last)
    assert content(found) == b"".join(data for _, data in script)
    assert [one.what for one in found if one.what != "data"] == [last]


@given(chains(harmless | lethal), seeds, scripts)
def test_nothingComesBeforeItWasSent(faults: Faults, seed: int, script: Script) -> None:
    sent = [now for now, data in script for _ in data]
    position = 0
    for one in play(faults, seed, script):
        position += len(one.data)
        assert not one.data or one.at >= sent[position - 1]


@given(chains(harmless | lethal), seeds, scripts)
def test_ticksBetweenChangeNothing(faults: Faults, seed: int, script: Script) -> None:
    """Neither when nobody ticks in time, nor when somebody ticks for nothing."""
    ticked, before = Script(), 0.0
    for now, data in script:
        ticked += [((before + now) / 2, b""), (now, data), (now, b"")]
        before = now
    assert play(faults, seed, ticked) == play(faults, seed, script)


@given(chains(harmless | lethal), seeds, scripts)
def test_equalSeedsGiveEqualResults(faults: Faults, seed: int, script: Script) -> None:
    assert play(faults, seed, script) == play(faults, seed, script)


@given(chains(positional), seeds, st.binary(max_size=400), st.sets(st.integers(1, 399)))
def test_positionsDoNotDependOnChunks(faults: Faults, seed: int, data: bytes, positions: set[int]) -> None:
    """The same bytes get through, cut at the same places and besides where the sender had cut them already."""
    whole = play(faults, seed, [(0, data)])
    chunks = chunked(data, positions)
    found = play(faults, seed, [(0, chunk) for chunk in chunks])
    assert content(found) == content(whole)
    assert [one.what for one in found if not one.data] == [one.what for one in whole if not one.data]
    own = {cut for cut in cuts(chunks) if cut < len(content(whole))}
    assert cuts(one.data for one in found) == cuts(one.data for one in whole) | own


@given(slicers, seeds, st.binary(min_size=1, max_size=300))
def test_whatOneFaultDrawsMovesNoOther(slicer: Slicer, seed: int, data: bytes) -> None:
    """The slices stay where they are, whatever the latencies before and behind them draw."""

    def sliced(latency: Latency) -> set[int]:
        return cuts(one.data for one in play(Faults(latency, slicer, latency), seed, [(0, data)]))

    assert sliced(Latency(1)) == sliced(Latency(1, 1, "normal", probability=0.5))


def test_resultsArePinned() -> None:
    """They are the same on every machine, in every process and with every version of Python."""
    found = play(Faults(Latency(1, 0.5), Slicer(10, 9), Latency(0, 1, "exponential")), 7, [(0, bytes(40))])
    assert [(round(one.at, 6), len(one.data)) for one in found] == [
        (1.483711, 2),
        (1.569718, 16),
        (2.04541, 11),
        (3.768256, 11),
        (3.768256, 0),
    ]


def test_withoutFaultsNothingChanges() -> None:
    stream = life(now=5.0)
    data = b"some bytes"
    (one,) = stream.feed(data, 6.0)
    assert one == Delivery(6.0, "data", data)
    assert one.data is data
    assert stream.due() is None
    assert stream.feed(b"", 7.0) == []
    assert stream.tick(8.0) == []
    assert stream.end(9.0) == [(9.0, "end", b"")]
    assert stream.reset(9.5) == [(9.5, "reset", b"")]


def test_whatIsUnchangedIsTheSameObject() -> None:
    stream = life(
        Latency(1, 1), Bandwidth(1e6), Slicer(1000), SlowClose(1), Timeout(90), Reset(at=900), LimitData(800), Glue(1)
    )
    data = bytes(500)
    (one,) = stream.feed(data, 0.0) + finish(stream)
    assert one.data is data


@pytest.mark.parametrize("what", ["feed", "end", "reset"])
def test_whatTheSenderHasEndedStaysEnded(what: str) -> None:
    def send(stream: StreamFaults) -> object:
        return stream.feed(b"x", 2.0) if what == "feed" else getattr(stream, what)(2.0)

    ended, cut = life(), life()
    ended.end(1.0)
    if what != "reset":
        with pytest.raises(ClosedError, match=f"{'data' if what == 'feed' else what} after this direction's end"):
            send(ended)
    cut.reset(1.0)
    with pytest.raises(ClosedError, match="after this direction's reset; make new StreamFaults"):
        send(cut)


def test_aFaultDecidesOnceForEachDirection() -> None:
    """A toxicity of a third: whole connections are slow or not, never half of one."""
    slow = 0
    random = Random(1)
    for _ in range(900):
        stream = StreamFaults(Faults(Latency(1, probability=1 / 3)), random, 0.0)
        delays = {stream.feed(b"x", 0.0)[0].at for _ in range(5)}
        assert len(delays) == 1
        slow += delays == {1.0}
    assert 250 < slow < 350


# -- time


def test_dueIsTheNextThingThatHappensByItself() -> None:
    stream = life(Reset(after=9), Timeout(8, close=True), Glue(1), now=100.0)
    assert stream.due() == 108.0
    assert stream.feed(b"x", 101.0) == []
    assert stream.due() == 102.0
    assert stream.tick(101.5) == []
    assert stream.tick(102.0) == [(102.0, "data", b"x")]
    assert stream.due() == 108.0
    assert stream.tick(108.0) == [(108.0, "end", b"")]
    assert stream.tick(109.0) == []
    assert stream.due() is None


def test_aLateTickTellsWhenItWas() -> None:
    stream = life(Glue(1), Reset(after=5))
    assert stream.feed(b"x", 0.0) == []
    assert stream.tick(77.0) == [(1.0, "data", b"x"), (5.0, "reset", b"")]


def test_aStageSeesTheTimeOfTheItem() -> None:
    """Behind a latency a reset hits what is on its way; before it, it travels itself."""
    for chain, expected in (
        ((Latency(1), Reset(after=5)), [(4.5, "data", b"a"), (5.0, "reset", b"")]),
        ((Reset(after=5), Latency(1)), [(4.5, "data", b"a"), (5.5, "data", b"b"), (6.0, "reset", b"")]),
    ):
        stream = life(*chain)
        found = stream.feed(b"a", 3.5) + stream.feed(b"b", 4.5) + stream.feed(b"c", 5.5)
        assert found + finish(stream) == expected


@given(st.floats(0, 2e9), st.floats(0, 1e4), st.floats(0, 2e9))
@example(0.1, 0.7, 0.1)
def test_aTimerForDueIsNeverTooEarly(began: float, seconds: float, now: float) -> None:
    """A timer started for ``due() - now`` seconds finds something to do, whatever the clock and rounding have done."""
    stream = life(Reset(after=seconds), now=began)
    found = stream.tick(now)
    if (due := stream.due()) is not None:
        found += stream.tick(now + (due - now))
    assert [one.what for one in found] == ["reset"]
    assert stream.due() is None


def test_whatIsFedARoundingBeforeDueComesAfterIt() -> None:
    stream = life(Glue(1))
    early = nextafter(1.0, 0.0)
    assert stream.tick(early) == []
    assert stream.feed(b"a", early) == []
    assert stream.feed(b"b", nextafter(early + 1, 0.0)) == [(early + 1, "data", b"a")]
    assert stream.feed(b"c", nextafter(early + 1, 0.0)) == []
    assert stream.due() == early + 2


def test_aClockSetBackCountsFromThere() -> None:
    stream = life(Latency(1), Reset(after=100), Glue(2), now=3600.0)
    assert stream.feed(b"a", 3600.0) == []
    assert stream.due() == 3603.0
    assert stream.feed(b"b", 0.0) == []
    assert stream.due() == 3.0
    assert stream.tick(3.0) == [(3.0, "data", b"ab")]
    assert stream.feed(b"c", 4.0) == []
    assert stream.tick(7.0) == [(7.0, "data", b"c")]
    assert stream.due() == 100.0
    assert stream.tick(100.0) == [(100.0, "reset", b"")]


@given(chains(harmless), seeds, st.lists(st.tuples(st.floats(-9, 9), st.binary(max_size=50)), max_size=12))
def test_aClockThatJumpsLosesNothing(faults: Faults, seed: int, script: Script) -> None:
    found = play(faults, seed, script)
    assert content(found) == b"".join(data for _, data in script)
    assert found[-1].what == "end"


# -- each fault, on a stream


def test_latencyDelaysEverything() -> None:
    stream = life(Latency(0.25))
    assert stream.feed(b"x", 1.0) == [(1.25, "data", b"x")]
    assert stream.end(2.0) == [(2.25, "end", b"")]
    assert stream.reset(3.0) == [(3.25, "reset", b"")]


@pytest.mark.parametrize(
    ("distribution", "average", "spread", "least", "most"),
    [
        ("uniform", 5.0, 1 / 3**0.5, 4.0, 6.0),
        ("normal", 5.0, 1.0, 0.0, 11.0),
        ("exponential", 6.0, 1.0, 5.0, 20.0),
    ],
)
def test_jitter(distribution: Any, average: float, spread: float, least: float, most: float) -> None:
    sockets = DatagramFaults(Faults(Latency(5, 1, distribution)), Random(3))
    delays = [sockets.feed(b"", 0.0)[0][0] for _ in range(4000)]
    assert mean(delays) == pytest.approx(average, abs=0.1)
    assert pstdev(delays) == pytest.approx(spread, abs=0.1)
    assert least <= min(delays)
    assert max(delays) <= most


@given(seeds, distributions, st.floats(0, 1), st.floats(0, 10))
def test_jitterIsNeverEarlierThanNow(seed: int, distribution: Any, delay: float, jitter: float) -> None:
    sockets = DatagramFaults(Faults(Latency(delay, jitter, distribution)), Random(seed))
    assert all(sockets.feed(b"", 7.0)[0][0] >= 7.0 for _ in range(20))


@given(bandwidths, scripts)
def test_bandwidthIsNeverExceeded(bandwidth: Bandwidth, script: Script) -> None:
    """Over any window no more than the rate, and the one piece that had been on the line before."""
    found = play(Faults(Bandwidth(bandwidth.rate)), 0, script)
    stroke = max(1.0, bandwidth.rate * STROKE)
    for first in range(len(found)):
        carried = 0
        for one in found[first:]:
            carried += len(one.data)
            assert len(one.data) <= stroke
            assert carried <= (bandwidth.rate * (one.at - found[first].at) + stroke) * (1 + 1e-9) + 1e-6


def test_bandwidthTakesItsTimeAndNoMore() -> None:
    stream = life(Bandwidth(100))
    assert [(round(one.at, 9), len(one.data)) for one in stream.feed(bytes(25), 1.0)] == [
        (1.1, 10),
        (1.2, 10),
        (1.25, 5),
    ]
    assert [round(one.at, 9) for one in stream.feed(bytes(5), 1.1)] == [1.3]
    assert [round(one.at, 9) for one in stream.feed(bytes(10), 9.0)] == [9.1]
    assert [(round(one.at, 9), one.what) for one in stream.end(9.05)] == [(9.1, "end")]


def test_aSlowLineStillMovesWholeBytes() -> None:
    assert life(Bandwidth(2)).feed(b"ab", 0.0) == [(0.5, "data", b"a"), (1.0, "data", b"b")]


@given(slicers, seeds, st.binary(min_size=1, max_size=500))
def test_slicesHaveTheirSizes(slicer: Slicer, seed: int, data: bytes) -> None:
    rule = Slicer(slicer.size, slicer.variation, slicer.delay)
    *found, end = play(Faults(rule), seed, [(0, data)])
    lengths = [len(one.data) for one in found]
    assert all(rule.size - rule.variation <= length <= rule.size + rule.variation for length in lengths[:-1])
    assert 0 < lengths[-1] <= rule.size + rule.variation
    assert [one.at for one in found] == list(accumulate([0.0] + [rule.delay] * (len(found) - 1)))
    assert end.at == max(1.0, found[-1].at)


def test_allSizesOfSlicesHappen() -> None:
    found = life(Slicer(3, 2)).feed(bytes(600), 0.0)
    assert {len(one.data) for one in found[:-1]} == {1, 2, 3, 4, 5}


def test_aSliceThatComesInPiecesPausesOnlyAtItsEnd() -> None:
    stream = life(Slicer(4, delay=1))
    assert stream.feed(b"abc", 0.0) == [(0.0, "data", b"abc")]
    assert stream.feed(b"def", 0.0) == [(0.0, "data", b"d"), (1.0, "data", b"ef")]
    assert stream.feed(b"gh", 0.5) == [(1.0, "data", b"gh")]
    assert stream.feed(b"i", 5.0) == [(5.0, "data", b"i")]
    assert stream.end(5.0) == [(5.0, "end", b"")]


def test_glueJoinsWhatComesWithinItsTime() -> None:
    stream = life(Glue(0.5))
    assert stream.feed(b"a", 1.0) == []
    assert stream.feed(b"b", 1.25) == []
    assert stream.feed(b"c", 1.5) == [(1.5, "data", b"ab")]
    assert stream.due() == 2.0
    assert stream.end(1.75) == [(1.75, "data", b"c"), (1.75, "end", b"")]
    assert stream.due() is None
    assert stream.reset(1.75) == [(1.75, "reset", b"")]


def test_glueHandsOnBeforeItsTimeWhenItHasEnough() -> None:
    stream = life(Glue(10, limit=4))
    assert stream.feed(b"abc", 0.0) == []
    assert stream.feed(b"de", 1.0) == [(1.0, "data", b"abcde")]
    assert stream.due() is None
    assert stream.feed(b"f", 2.0) == []
    assert stream.due() == 12.0


@given(scripts, times, st.integers(1, 99))
def test_glueHoldsLittleAndNotForLong(script: Script, seconds: float, limit: int) -> None:
    stream, fed, came = life(Glue(seconds, limit)), list[float](), list[float]()
    for now, data in script:
        found = stream.feed(data, now)
        fed += [now] * len(data)
        came += [one.at for one in found for _ in one.data]
        assert len(fed) - len(came) < limit
    came += [one.at for one in finish(stream) for _ in one.data]
    assert len(came) == len(fed)
    assert all(at - sent <= seconds for sent, at in zip(fed, came, strict=True))


def test_slowCloseDelaysTheEndAlone() -> None:
    stream = life(SlowClose(2))
    assert stream.feed(b"x", 1.0) == [(1.0, "data", b"x")]
    assert stream.end(1.0) == [(3.0, "end", b"")]
    assert stream.reset(1.5) == [(3.0, "reset", b"")]


def test_timeoutSwallowsEverything() -> None:
    stream = life(Timeout(2), now=10.0)
    assert stream.due() is None
    assert stream.feed(b"a", 11.0) == [(11.0, "data", b"a")]
    assert stream.feed(b"b", 12.0) == []
    assert stream.end(13.0) == []
    assert stream.reset(14.0) == []


def test_timeoutMayClose() -> None:
    stream = life(Timeout(2, close=True))
    assert stream.feed(b"a", 1.0) == [(1.0, "data", b"a")]
    assert stream.due() == 2.0
    assert stream.feed(b"b", 3.0) == [(2.0, "end", b"")]
    assert stream.end(4.0) == []
    assert stream.due() is None


def test_aStreamThatHasEndedDoesNotEndAgain() -> None:
    stream = life(Timeout(2, close=True))
    assert stream.end(1.0) == [(1.0, "end", b"")]
    assert stream.due() is None
    assert stream.tick(3.0) == []
    assert stream.reset(4.0) == []


def test_aResetAtItsTime() -> None:
    stream = life(Reset(after=1))
    assert stream.feed(b"a", 0.5) == [(0.5, "data", b"a")]
    assert stream.due() == 1.0
    assert stream.tick(1.0) == [(1.0, "reset", b"")]
    assert stream.feed(b"b", 2.0) == []
    assert stream.end(3.0) == []


def test_aStreamThatHasEndedIsStillReset() -> None:
    stream = life(Reset(after=2))
    assert stream.end(1.0) == [(1.0, "end", b"")]
    assert stream.tick(2.0) == [(2.0, "reset", b"")]


@pytest.mark.parametrize("fault", [Reset(after=2), Timeout(2, close=True)])
def test_nothingFollowsAReset(fault: Fault) -> None:
    stream = life(fault)
    assert stream.reset(1.0) == [(1.0, "reset", b"")]
    assert stream.due() is None
    assert stream.tick(2.0) == []


@pytest.mark.parametrize(("fault", "what"), [(Reset(at=5), "reset"), (LimitData(5), "end")])
@pytest.mark.parametrize("chunks", [[b"abcde"], [b"abcdefg"], [b"abc", b"de"], [b"abc", b"def"], [b"abcde", b"f"]])
def test_exactlySoManyBytes(fault: Fault, what: str, chunks: Sequence[bytes]) -> None:
    stream = life(fault)
    found = [one for chunk in chunks for one in stream.feed(chunk, 1.0)]
    assert content(found) == b"abcde"
    assert found[-1] == (1.0, what, b"")
    assert stream.feed(b"more", 2.0) == []
    assert stream.end(3.0) == []
    assert stream.reset(4.0) == []


@pytest.mark.parametrize(("fault", "what"), [(Reset(at=0), "reset"), (LimitData(0), "end"), (Reset(after=0), "reset")])
def test_atOnce(fault: Fault, what: str) -> None:
    stream = life(fault, now=8.0)
    assert stream.due() == 8.0
    assert stream.feed(b"x", 8.0) == [(8.0, what, b"")]


@pytest.mark.parametrize("fault", [Reset(at=5), LimitData(5)])
def test_aStreamThatEndsBeforeItsLimitEndsAsItWould(fault: Fault) -> None:
    stream = life(fault)
    assert stream.feed(b"abc", 1.0) == [(1.0, "data", b"abc")]
    assert stream.end(2.0) == [(2.0, "end", b"")]
    assert stream.reset(3.0) == [(3.0, "reset", b"")]


def test_whatConcernsOthersIsPassedOver() -> None:
    stream = life(Loss(), Duplicate(), Reorder(9), Refuse(9))
    assert stream.feed(b"x", 1.0) == [(1.0, "data", b"x")]
    sockets = DatagramFaults(
        Faults(Slicer(1), Glue(1), SlowClose(1), Timeout(), Reset(at=0), LimitData(0), Refuse(9)), Random(0)
    )
    assert sockets.feed(b"xy", 1.0) == [(1.0, b"xy")]
    assert not Refusals(Faults(Loss(), Reset(at=0)), Random(0)).next()


# -- datagrams


def sockets(*chain: Fault, seed: int = 0) -> DatagramFaults:
    return DatagramFaults(Faults(*chain), Random(seed))


def test_datagramsAreLostDoubledAndHeldBack() -> None:
    assert sockets().feed(b"x", 1.0) == [(1.0, b"x")]
    assert sockets(Loss()).feed(b"x", 1.0) == []
    assert sockets(Duplicate(), Duplicate()).feed(b"x", 1.0) == [(1.0, b"x")] * 4
    assert sockets(Reorder(0.5)).feed(b"x", 1.0) == [(1.5, b"x")]
    assert sockets(Loss(probability=0), Duplicate(probability=0)).feed(b"x", 1.0) == [(1.0, b"x")]


def test_aDatagramIsTheSameObject() -> None:
    data = bytes(300)
    assert all(copy is data for _, copy in sockets(Latency(1, 1), Bandwidth(9), Duplicate()).feed(data, 0.0))


def test_anEmptyDatagramIsOne() -> None:
    assert sockets(Bandwidth(5), Latency(1)).feed(b"", 1.0) == [(2.0, b"")]


def test_chanceIsDrawnForEachDatagram() -> None:
    lossy = sockets(Loss(probability=0.3))
    assert 600 < sum(len(lossy.feed(b"x", 0.0)) for _ in range(1000)) < 800


def test_heldBackIsOvertaken() -> None:
    some = sockets(Reorder(1.5, probability=0.5), seed=4)
    sent = [some.feed(bytes([number]), float(number))[0] for number in range(20)]
    arrived = sorted(sent)
    assert [data for _, data in arrived] != [data for _, data in sent]
    assert {at - data[0] for at, data in sent} == {0.0, 1.5}


def test_datagramsWaitForTheLineWhole() -> None:
    line = sockets(Bandwidth(100))
    assert line.feed(bytes(50), 1.0) == [(1.5, bytes(50))]
    assert line.feed(bytes(100), 1.2) == [(2.5, bytes(100))]
    assert line.feed(bytes(100), 9.0) == [(10.0, bytes(100))]


@given(scripts, st.integers(1, 500))
def test_datagramsNeverExceedTheLine(script: Script, rate: int) -> None:
    line, found = sockets(Latency(1, 1), Bandwidth(rate)), list[tuple[float, int]]()
    for now, data in script:
        found += [(at, len(data)) for at, data in line.feed(data, now)]
    for (before, _), (at, size) in pairwise(found):
        assert (at - before) * rate >= size * (1 - 1e-9) - 1e-6


def test_aLineCountsOnWhenTheClockIsSetBack() -> None:
    line = sockets(Bandwidth(100))
    assert line.feed(bytes(100), 3600.0) == [(3601.0, bytes(100))]
    assert line.feed(bytes(100), 0.0) == [(2.0, bytes(100))]


@given(
    chains(others | bandwidths | st.builds(Latency, times, times, distributions, probability=shares)),
    seeds,
    scripts,
)
def test_datagramsStayWhole(faults: Faults, seed: int, script: Script) -> None:
    """Each copy is what was sent and never earlier, no more copies than doublings make, and the seed says all of it."""
    doublings = sum(isinstance(fault, Duplicate) for fault in faults)
    one, other = DatagramFaults(faults, Random(seed)), DatagramFaults(faults, Random(seed))
    for now, data in script:
        copies = one.feed(data, now)
        assert other.feed(data, now) == copies
        assert len(copies) <= 2**doublings
        assert all(copy == data and at >= now for at, copy in copies)


# -- attempts to connect


def test_theFirstAreRefused() -> None:
    refusals = Refusals(Faults(Refuse(2), Refuse(3), Latency(1)), Random(0))
    assert [refusals.next() for _ in range(5)] == [True, True, True, False, False]
    assert not Refusals(Faults(Refuse(0)), Random(0)).next()


def test_refusalsByChance() -> None:
    refusals = Refusals(Faults(Refuse(1000, probability=0.2)), Random(5))
    assert 150 < sum(refusals.next() for _ in range(1000)) < 250
    assert not any(refusals.next() for _ in range(100))


# -- values


def test_faultsAreValues() -> None:
    chain = Faults(Latency(0.1, 0.02), Loss(probability=0.05))
    assert chain == Faults(Latency(0.1, jitter=0.02), Loss(probability=0.05))
    assert chain != Faults(*reversed(chain.chain))
    assert {chain: 1}[Faults(*chain)] == 1
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert len(chain) == 2
    assert bool(chain)
    assert not Faults()
    with pytest.raises(FrozenInstanceError):
        chain.chain = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        chain.chain[0].probability = 0.5  # type: ignore[misc]


def test_nothingHasADictionary() -> None:
    values = [Latency(1), Bandwidth(1), Loss(), Faults(), life(Glue(1), Slicer(1)), sockets(Bandwidth(1))]
    assert [type(value).__name__ for value in values if hasattr(value, "__dict__")] == []
    stages: list[object] = [*life(Latency(1), Bandwidth(1), Slicer(1), Glue(1), Timeout(), LimitData(1))._stages]
    assert len(stages) == 6
    assert [type(stage).__name__ for stage in stages if hasattr(stage, "__dict__")] == []


def test_reprAndTextLeaveOutWhatGoesWithoutSaying() -> None:
    chain = Faults(
        Latency(0.1, distribution="normal", probability=0.5), Timeout(close=True), Timeout(), Loss(), Reset(at=5)
    )
    assert repr(chain) == (
        "Faults(Latency(delay=0.1, distribution='normal', probability=0.5), "
        "Timeout(close=True), Timeout(), Loss(), Reset(at=5))"
    )
    assert str(chain) == (
        "latency:delay=0.1,distribution=normal,probability=0.5;timeout:close=true;timeout;loss;reset_peer:at=5"
    )
    assert str(Faults()) == ""
    assert repr(Faults()) == "Faults()"


@given(chains(harmless | lethal | others))
@example(Faults(Latency(5e-324, LONGEST), Bandwidth(float(MOST)), LimitData(MOST), Loss(probability=1e-05)))
def test_textAndReprMakeAnEqualChain(faults: Faults) -> None:
    assert Faults.parse(str(faults)) == faults
    assert eval(repr(faults), vars(room)) == faults


@given(st.floats(0, LONGEST))
def test_everyNumberIsWrittenExactly(number: float) -> None:
    assert Faults.parse(str(Faults(Latency(number)))) == Faults(Latency(number))


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("", Faults()),
        (" ; ;", Faults()),
        ("latency:delay=100ms,jitter=10ms; loss:probability=5%", Faults(Latency(0.1, 0.01), Loss(probability=0.05))),
        (" latency : delay = 2 s , distribution = normal ;", Faults(Latency(2, distribution="normal"))),
        ("bandwidth:rate=64KiB/s;bandwidth:rate=1.5MB", Faults(Bandwidth(65536), Bandwidth(1.5e6))),
        ("slicer:size=1kb,variation=9,delay=1e-3", Faults(Slicer(1000, 9, 0.001))),
        ("glue:seconds=1m,limit=2MiB", Faults(Glue(60, 2**21))),
        ("slow_close:delay=1", Faults(SlowClose(1))),
        ("timeout:after=5,close=false", Faults(Timeout(5))),
        ("reset_peer:at=1.5KB;reset_peer:after=0", Faults(Reset(at=1500), Reset(after=0))),
        ("limit_data:bytes=0", Faults(LimitData(0))),
        ("refuse:first=3", Faults(Refuse(3))),
        ("duplicate;reorder:delay=0", Faults(Duplicate(), Reorder(0))),
    ],
)
def test_texts(text: str, chain: Faults) -> None:
    assert Faults.parse(text) == chain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lag:delay=1", "'lag' is no fault; there are latency, bandwidth, .*reorder"),
        (":", "'' is no fault"),
        ("x" * 99, f"'{'x' * 56}... is no fault"),
        ("latency", "latency lacks delay; write latency:delay=..."),
        ("loss:", "'' is no field of loss; write field=value, where there are probability"),
        ("latency:100ms", "'100ms' is no field of latency; .* there are delay, jitter, distribution, probability"),
        ("latency:delay", "'delay' is no field of latency; write field=value"),
        ("latency:name=x", "'name=x' is no field of latency"),
        ("latency:delay=1,delay=2", "delay of latency is there twice"),
        ("latency:delay=", "delay of latency is ''; it must be a number of seconds from 0 to 1e9 .*100ms"),
        ("latency:delay=-1", "delay of latency is '-1'; it must be"),
        ("latency:delay=1KB", "delay of latency is '1KB'; it must be"),
        ("latency:delay=nan", "delay of latency is 'nan'; it must be"),
        ("latency:delay=1e999", r"delay of latency is 1000+\.\.\.; it must be"),
        ("latency:delay=1,distribution=pareto", "is 'pareto'; it must be uniform, normal or exponential"),
        ("bandwidth:rate=0.5", "rate of bandwidth is 0.5; it must be bytes a second, 1 or more"),
        ("slicer:size=1.5", "size of slicer is 1.5; it must be a whole number of bytes, 1 or more"),
        ("loss:probability=101%", "probability of loss is 1.01; it must be a number from 0 to 1"),
        ("timeout:close=yes", r"close of timeout is 'yes'; it must be True or False \(in a text: true, false\)"),
        ("reset_peer", "reset_peer has neither of after"),
    ],
)
def test_textsThatDescribeNoChain(text: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Faults.parse(text)


words = st.sampled_from(
    [*room._FAULTS, *room._KINDS, *":=,; ", "1", "0.5", "9" * 30, "1e999", "1e-999", "ms", "KiB", "%", "/s", "normal"]
)


@given(st.text() | st.lists(words).map("".join))
def test_noTextRaisesAnythingElse(text: str) -> None:
    try:
        faults = Faults.parse(text)
    except OptionError:
        return
    assert Faults.parse(str(faults)) == faults


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        (Latency, {"delay": -1}, "delay of latency is -1; it must be a number of seconds from 0 to 1e9"),
        (Latency, {"delay": nan}, "delay of latency is nan"),
        (Latency, {"delay": True}, "delay of latency is True"),
        (Latency, {"delay": Fraction(1)}, "delay of latency is Fraction"),
        (Latency, {"delay": None}, "delay of latency is None"),
        (Latency, {"delay": 1, "jitter": inf}, "jitter of latency is inf"),
        (Latency, {"delay": 1, "distribution": ["normal"]}, "distribution of latency is .*; it must be uniform"),
        (Bandwidth, {"rate": 0}, "rate of bandwidth is 0; it must be bytes a second, 1 or more"),
        (Bandwidth, {"rate": 2 * MOST}, "rate of bandwidth is 18014398509481984"),
        (Slicer, {"size": 0}, "size of slicer is 0; it must be a whole number of bytes, 1 or more"),
        (Slicer, {"size": 1.0}, "size of slicer is 1.0"),
        (Slicer, {"size": 5, "variation": 5}, "variation of slicer is 5; it must be less than its size, which is 5"),
        (Slicer, {"size": 5, "variation": -1}, "variation of slicer is -1; it must be a whole number of bytes"),
        (Glue, {"seconds": "1s"}, "seconds of glue is '1s'"),
        (Glue, {"seconds": 1, "limit": 0}, "limit of glue is 0"),
        (SlowClose, {"delay": 2 * LONGEST}, "delay of slow_close is 2000000000.0"),
        (Timeout, {"close": 1}, "close of timeout is 1; it must be True or False"),
        (Reset, {}, r"reset_peer has neither of after \(seconds\) and at \(bytes\); give one"),
        (Reset, {"after": 1, "at": 1}, "reset_peer has both of after"),
        (Reset, {"at": -1}, "at of reset_peer is -1"),
        (LimitData, {"bytes": -1}, "bytes of limit_data is -1"),
        (Refuse, {"first": -1}, "first of refuse is -1; it must be a whole number, 0 or more"),
        (Reorder, {"delay": "x" * 99}, r"delay of reorder is 'x+\.\.\.; it must be"),
        (Loss, {"probability": 1.5}, "probability of loss is 1.5; it must be a number from 0 to 1"),
    ],
)
def test_refusesWhatBreaksARule(kind: Any, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        kind(**arguments)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        ([Latency(1)], r"\[Latency\(delay=1\)\] is no fault; give some such as Latency\(0.1\)"),
        (Latency, "is no fault; give some"),
        (Fault(), "is no fault; give some"),
        ("loss", "'loss' is no fault; .* or a text to Faults.parse"),
    ],
)
def test_refusesWhatIsNoFault(one: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Faults(Loss(), one)
