"""
The read buffer against plain bytes: the same answers under every chunking, and work in proportion to the bytes.

Work is counted, not timed: :func:`counted` puts counting types in the place of ``bytes`` and ``bytearray`` inside the
room, so that every byte that is copied, moved or looked at there is on the bill, by the price of the plainest
implementation (deleting at the front moves all that is left).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any, Self, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import LimitError, OptionError
from twisted_net.sansio import buffer as room
from twisted_net.sansio.buffer import ReadBuffer

# -- the model: bytes, and nothing remembered


class PlainBuffer:
    """What a read buffer should answer, with no thought of how long it takes."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> None:
        self.data += data

    def unread(self, data: bytes) -> None:
        self.data = data + self.data

    def take(self, maximum: int) -> bytes:
        taken, self.data = self.data[:maximum], self.data[maximum:]
        return taken

    def takeExactly(self, n: int) -> bytes | None:
        return self.take(n) if len(self.data) >= n else None

    def takeAll(self) -> bytes:
        return self.take(len(self.data))

    def takeUntil(self, separator: bytes, maximum: int) -> bytes | None:
        found = self.data[:maximum].find(separator)
        if found >= 0:
            return self.take(found + len(separator))
        if len(self.data) >= maximum:
            raise LimitError("too long")
        return None

    def takeLine(self, maximum: int = 65536) -> bytes | None:
        line = self.takeUntil(b"\n", maximum)
        return None if line is None else line[:-1].removesuffix(b"\r")

    def peek(self, n: int) -> bytes:
        return self.data[:n]


# -- the bill


class Work:
    """Bytes that were copied, moved or looked at."""

    total = 0


class CountedBytes(bytes):
    def __new__(cls, source: bytes) -> Self:
        Work.total += len(source)
        return super().__new__(cls, source)

    def __getitem__(self, key: Any) -> Any:
        piece: bytes = super().__getitem__(key)
        Work.total += len(piece)
        return piece

    def find(self, *args: Any) -> int:
        return looked(super().find(*args), *args)


class CountedBytearray(bytearray):
    def __init__(self, source: bytes) -> None:
        Work.total += len(source)
        super().__init__(source)

    def __iadd__(self, more: Any) -> Self:  # type: ignore[misc]
        Work.total += len(more)
        return super().__iadd__(more)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        Work.total += len(self)

    def __getitem__(self, key: Any) -> Any:
        piece: bytearray = super().__getitem__(key)
        Work.total += len(piece)
        return piece

    def find(self, *args: Any) -> int:
        return looked(super().find(*args), *args)


def looked(found: int, separator: bytes, begin: int, end: int) -> int:
    Work.total += max(0, (end if found < 0 else found + len(separator)) - begin)
    return found


@contextmanager
def counted() -> Iterator[type[Work]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "bytes", CountedBytes, raising=False)
        patch.setattr(room, "bytearray", CountedBytearray, raising=False)
        patch.setattr(Work, "total", 0)
        yield Work


# -- each verb


def holding(*pieces: bytes) -> ReadBuffer:
    buffer = ReadBuffer(100)
    for piece in pieces:
        buffer.feed(piece)
    return buffer


@pytest.mark.parametrize("pieces", [(b"abcdef",), (b"ab", b"cdef"), (b"a", b"b", b"c", b"d", b"e", b"f")])
class TestTaking:
    """However the bytes came."""

    def test_take(self, pieces: tuple[bytes, ...]) -> None:
        buffer = holding(*pieces)
        assert buffer.take(4) == b"abcd"
        assert buffer.take(0) == b""
        assert len(buffer) == 2
        assert buffer.take(4) == b"ef"
        assert buffer.take(4) == b""

    def test_takeExactly(self, pieces: tuple[bytes, ...]) -> None:
        buffer = holding(*pieces)
        assert buffer.takeExactly(7) is None
        assert buffer.takeExactly(0) == b""
        assert buffer.takeExactly(5) == b"abcde"
        assert buffer.takeExactly(1) == b"f"
        assert buffer.takeExactly(1) is None
        assert buffer.takeExactly(0) == b""

    def test_takeAll(self, pieces: tuple[bytes, ...]) -> None:
        buffer = holding(*pieces)
        assert buffer.takeAll() == b"abcdef"
        assert buffer.takeAll() == b""

    def test_peek(self, pieces: tuple[bytes, ...]) -> None:
        buffer = holding(*pieces)
        assert buffer.peek(3) == b"abc"
        assert buffer.peek(0) == b""
        assert buffer.peek(99) == b"abcdef"
        assert len(buffer) == 6

    def test_takeUntil(self, pieces: tuple[bytes, ...]) -> None:
        buffer = holding(*pieces)
        assert buffer.takeUntil(b"cd", 6) == b"abcd"
        assert buffer.takeUntil(b"cd", 6) is None
        assert buffer.takeUntil(b"f", 2) == b"ef"

    def test_everyAnswerIsBytes(self, pieces: tuple[bytes, ...]) -> None:
        """Not a bytearray, which has no hash and may change."""
        buffer = holding(*pieces)
        answers = [buffer.peek(1), buffer.take(1), buffer.takeUntil(b"c", 9), buffer.takeExactly(1), buffer.takeAll()]
        assert [type(answer) for answer in answers] == [bytes] * 5


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\n\r\n\n", [b"one", b"", b""]),
        (b"\r\r\n", [b"\r"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"\n\r\n", [b"", b""]),
    ],
)
def test_aLineLosesItsEndingAndNothingElse(data: bytes, lines: list[bytes]) -> None:
    buffer = holding(data, b"rest")
    assert [buffer.takeLine() for _ in lines] == lines
    assert buffer.takeLine() is None
    assert buffer.takeAll() == b"rest"


def test_theLimitOfALine() -> None:
    buffer = holding(b"12345\n")
    with pytest.raises(LimitError, match=r"no b'\\n' within 5 bytes; allow more, or close"):
        buffer.takeLine(5)
    assert len(buffer) == 6
    assert buffer.takeLine(6) == b"12345"


def test_aLineIs64KiBAtMostUnlessSaidOtherwise() -> None:
    buffer = holding(b"x" * 65535)
    assert buffer.takeLine() is None
    buffer.feed(b"x")
    with pytest.raises(LimitError, match="65536"):
        buffer.takeLine()
    buffer.feed(b"\n")
    assert buffer.takeLine(70000) == b"x" * 65536


def test_aSeparatorAcrossPieces() -> None:
    buffer = holding(b"head\r\n\r")
    assert buffer.takeUntil(b"\r\n\r\n", 100) is None
    buffer.feed(b"\nbody")
    assert buffer.takeUntil(b"\r\n\r\n", 100) == b"head\r\n\r\n"
    assert buffer.takeAll() == b"body"


def test_anEmptiedBufferForgetsItsSearch() -> None:
    buffer = holding(b"abc")
    assert buffer.takeLine() is None
    assert buffer.takeAll() == b"abc"
    buffer.feed(b"d\ne")
    assert buffer.takeLine() == b"d"


def test_whatIsDroppedMovesThePlaceOfTheSearch() -> None:
    buffer = holding(b"abcd", b"ef")
    assert buffer.takeLine() is None
    assert buffer.take(5) == b"abcde"
    buffer.feed(b"\n" + b"g" * 9)
    assert buffer.takeLine() == b"f"


def test_anotherSeparatorStartsAgain() -> None:
    buffer = holding(b"a;b,")
    assert buffer.takeLine() is None
    assert buffer.takeUntil(b";", 9) == b"a;"
    assert buffer.takeLine() is None
    assert buffer.takeUntil(b",", 9) == b"b,"


def test_unreadPutsInFront() -> None:
    buffer = holding(b"world")
    buffer.unread(b"hello ")
    assert buffer.takeAll() == b"hello world"
    buffer.unread(b"again\n")
    assert buffer.takeLine() == b"again"
    assert buffer.takeLine() is None
    buffer.unread(b"a")
    buffer.feed(b"b")
    buffer.unread(b"\n")
    assert buffer.takeLine() == b""
    assert buffer.takeAll() == b"ab"


def test_unreadFindsWhatWasSearchedBefore() -> None:
    buffer = holding(b"12", b"34")
    assert buffer.takeLine() is None
    assert buffer.take(2) == b"12"
    buffer.unread(b"1\n")
    assert buffer.takeLine() == b"1"


def test_full() -> None:
    buffer = ReadBuffer(4)
    assert buffer.limit == 4
    seen: list[tuple[int, bool]] = []
    for change in (lambda: buffer.feed(b"abc"), lambda: buffer.feed(b"d"), lambda: buffer.feed(b"e"), buffer.takeAll):
        change()
        seen.append((len(buffer), buffer.full))
    assert seen == [(3, False), (4, True), (5, True), (0, False)]


def test_whatIsReadWholeIsNeverCopied() -> None:
    piece = b"x" * 1000
    buffer = ReadBuffer(1)
    takes: list[Callable[[], bytes | None]] = [
        buffer.takeAll,
        lambda: buffer.take(4096),
        lambda: buffer.takeExactly(1000),
        lambda: buffer.peek(1000),
        buffer.takeAll,
    ]
    buffer.feed(piece)
    for take in takes:
        if not buffer:
            buffer.feed(piece)
        assert take() is piece
    buffer.unread(piece)
    assert buffer.takeAll() is piece


def test_keepsNoHandOnWhatItsOwnerMayChange() -> None:
    buffer = ReadBuffer(100)
    for verb in (buffer.feed, buffer.unread):
        piece = bytearray(b"abc")
        verb(piece)  # type: ignore[arg-type]
        piece[:] = b"xyz"
        assert buffer.takeAll() == b"abc"


@pytest.mark.parametrize("limit", [0, -1])
def test_refusesALimitThatIsNone(limit: int) -> None:
    with pytest.raises(OptionError, match=f"limit is {limit}; it counts bytes and must be at least 1"):
        ReadBuffer(limit)


def test_refusesWhatIsNoSize() -> None:
    buffer = holding(b"abc")
    calls: list[Callable[[int], object]] = [
        buffer.take,
        buffer.takeExactly,
        buffer.takeLine,
        buffer.peek,
        lambda n: buffer.takeUntil(b";", n),
    ]
    for call in calls:
        with pytest.raises(OptionError, match="-1 bytes were asked for; it must be 0 or more"):
            call(-1)
    with pytest.raises(OptionError, match="the separator is empty"):
        buffer.takeUntil(b"", 9)
    assert buffer.takeAll() == b"abc"


def test_isSmall() -> None:
    assert not hasattr(ReadBuffer(1), "__dict__")


# -- every chunking

TEXT = b"ab\r\nc\n\r\nd\r\r\n"


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    """Every way to cut data into pieces."""
    for cuts in product([False, True], repeat=len(data) - 1):
        places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(data)]
        yield [data[begin:end] for begin, end in pairwise(places)]


@pytest.mark.parametrize(
    ("read", "answers"),
    [
        (lambda buffer: buffer.takeLine(), [b"ab", b"c", b"", b"d\r"]),
        (lambda buffer: buffer.takeUntil(b"\r\n", 99), [b"ab\r\n", b"c\n\r\n", b"d\r\r\n"]),
        (lambda buffer: buffer.takeExactly(5), [b"ab\r\nc", b"\n\r\nd\r"]),
    ],
    ids=["lines", "separator", "exact"],
)
def test_everyChunkingGivesTheSameAnswers(read: Callable[[ReadBuffer], bytes | None], answers: list[bytes]) -> None:
    """All 2048 of them, with a reader that asks after each piece."""
    for pieces in chunkings(TEXT):
        buffer = ReadBuffer(100)
        found: list[bytes] = []
        for piece in pieces:
            buffer.feed(piece)
            while (answer := read(buffer)) is not None:
                found.append(answer)
        assert found == answers
        assert b"".join(pieces).endswith(buffer.takeAll())


@pytest.mark.parametrize(("maximum", "fails"), [(3, True), (4, False)])
def test_aLimitIsAQuestionOfBytesAndNotOfChunking(maximum: int, fails: bool) -> None:
    for pieces in chunkings(b"ab\r\n\n"):
        buffer = ReadBuffer(100)
        failed = False
        for piece in pieces:
            buffer.feed(piece)
            try:
                if buffer.takeUntil(b"\r\n", maximum) is not None:
                    break
            except LimitError:
                failed = True
        assert failed == fails


# -- against the model

Step: TypeAlias = tuple[Any, ...]

texts = st.text(alphabet="ab\r\n", max_size=12).map(str.encode)
sizes = st.integers(0, 15)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("feed"), texts),
    st.tuples(st.just("feed"), texts),
    st.tuples(st.just("unread"), texts),
    st.tuples(st.just("take"), sizes),
    st.tuples(st.just("takeExactly"), sizes),
    st.tuples(st.just("takeLine"), sizes),
    st.tuples(st.just("takeLine")),
    st.tuples(st.just("takeUntil"), st.sampled_from([b"a", b"\n", b"\r\n", b"aa", b"aba", b"\r\n\r\n"]), sizes),
    st.tuples(st.just("takeAll")),
    st.tuples(st.just("peek"), sizes),
    st.tuples(st.just("putBack")),
)


def answer(buffer: ReadBuffer | PlainBuffer, verb: str, *args: Any) -> object:
    try:
        return getattr(buffer, verb)(*args)
    except LimitError:
        return LimitError


@given(st.lists(steps, max_size=60))
def test_behavesAsPlainBytes(script: list[Step]) -> None:
    buffer, model = ReadBuffer(10), PlainBuffer()
    last = b""
    for verb, *args in script:
        if verb == "putBack":
            verb, args = "unread", [last]
        found = answer(buffer, verb, *args)
        assert found == answer(model, verb, *args)
        if verb.startswith("take") and isinstance(found, bytes):
            last = found
        assert len(buffer) == len(model.data)
        assert buffer.peek(10**6) == model.data
        assert buffer.full == (len(model.data) >= 10)


# -- the work

# The reader of a line looks at each byte once and copies it at most six times: into the buffer, into the bytearray,
# once when what lies before it is dropped, twice out of it (slice, bytes), and once to lose its ending.
PRICE = 7


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Data in pieces of these sizes, over and over."""
    place = index = 0
    while place < len(data):
        size = sizes[index % len(sizes)]
        yield data[place : place + size]
        place += size
        index += 1


def read(data: bytes, sizes: list[int], verb: Callable[[ReadBuffer], bytes | None]) -> float:
    """The work per byte of a reader that asks after each piece until it gets no more."""
    with counted() as work:
        buffer = ReadBuffer(1)
        for piece in cut(data, sizes):
            buffer.feed(piece)
            while verb(buffer):
                pass
        buffer.takeAll()
        return work.total / len(data)


READERS: dict[str, Callable[[ReadBuffer], bytes | None]] = {
    "takeLine": lambda buffer: buffer.takeLine(10**6),
    "takeUntil": lambda buffer: buffer.takeUntil(b"\r\n\r\n", 10**6),
    "takeExactly": lambda buffer: buffer.takeExactly(1000),
    "takeOne": lambda buffer: buffer.takeExactly(1),
    "take": lambda buffer: buffer.take(7),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("sizes", [[1], [10**6], [1000, 1], [999], [3, 5000]], ids=str)
@pytest.mark.parametrize(
    "data",
    [b"x" * 6000, b"\r\n" * 3000, (b"x" * 998 + b"\r\n") * 6, b"\r\n\r" * 2000],
    ids=["endless", "empty lines", "lines", "almost"],
)
def test_theWorkIsLinear(data: bytes, sizes: list[int], reader: str) -> None:
    # The overlap of a search with the one before is the length of the separator at most, once per piece.
    pieces = sum(1 for _ in cut(data, sizes))
    assert read(data, sizes, READERS[reader]) <= PRICE + 4 * pieces / len(data)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=10), st.sampled_from(sorted(READERS)), st.integers(1, 400))
def test_theWorkIsLinearUnderAnyChunking(sizes: list[int], reader: str, length: int) -> None:
    data = (b"y" * length + b"\r\n\r\n") * (4000 // length + 1)
    assert read(data, sizes, READERS[reader]) <= PRICE + 4


def test_aReaderThatIsAlwaysBehindCostsNoMore() -> None:
    """The buffer never runs empty: what was taken is dropped now and then, and not each time."""
    with counted() as work:
        buffer = ReadBuffer(1)
        buffer.feed(b"x" * 10000)
        for _ in range(20000):
            buffer.feed(b"y")
            buffer.take(1)
            assert len(buffer.data) <= 2 * 10000 + 2
        assert work.total <= PRICE * 30000


def test_puttingBackWhatWasJustTakenIsFree() -> None:
    """A parser that reads a piece and gives the rest back costs what it read, not what waits."""
    for pieces in [(b"x" * 20000,), (b"x" * 10000, b"x" * 10000)]:
        with counted() as work:
            buffer = holding(*pieces)
            while len(buffer) > 100:
                buffer.unread(buffer.take(100)[10:])
            assert work.total <= 10 * 4 * 20000


def test_askingAgainAfterTheLimitLooksNowhereAgain() -> None:
    buffer = holding(b"x" * 5000, b"x" * 5000)
    with pytest.raises(LimitError):
        buffer.takeLine(10000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "total", 0)
        buffer.data = CountedBytearray(bytes(buffer.data))
        Work.total = 0
        for _ in range(100):
            with pytest.raises(LimitError):
                buffer.takeLine(10000)
        assert Work.total == 0
