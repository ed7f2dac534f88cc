"""
Bytes that have arrived and wait for a reader.

Three things are promised.

**Linear time, whatever the chunking.** A peer decides how its bytes are cut into segments, and must not be able to
decide how much work they cause. Each byte is copied a bounded number of times between :meth:`ReadBuffer.feed` and the
reader, and a search that found nothing goes on where it stopped when more has come: a line that arrives byte by byte
is looked through once. (The place is kept for one separator, the one looked for last. A reader that changes its mind
about the separator of the *same* unfinished piece makes the search start again.)

**No copy where none is needed.** Most pieces that arrive are read whole before the next one comes. So a piece that
comes into an empty buffer is kept as it is, and :meth:`ReadBuffer.take` hands out that very object. Only when a second
piece joins it are they put together in one ``bytearray``. Taken bytes are not cut off but stepped over; when more
arrives and they have become half of the whole, they are dropped, so that each byte is moved at most once on average.
Rejected: a list of pieces. It needs no joining, but a separator can lie across two of them, and a limit in bytes would
say nothing of the memory that pieces of one byte take.

**Bounded.** Every search takes a ``maximum``, and its answer depends on the bytes alone, never on how they came: the
separator must lie wholly within the first ``maximum`` bytes. The buffer itself refuses nothing, since bytes that have
arrived cannot be sent back; it says when it is :attr:`~ReadBuffer.full`, and its owner then stops the flow. A reader
that waits for more than the limit at once is the owner's to know: it has to let bytes come while somebody waits.
"""

from __future__ import annotations

from twisted_net.errors import LimitError, OptionError


class ReadBuffer:
    """
    :param limit: bytes from which on it is :attr:`full`; at least 1.
    :raises OptionError: when the limit is less.
    """

    __slots__ = ("_scanned", "_sought", "_start", "data", "limit")

    # What waits is data[_start:], what was stepped over is before it. An empty buffer holds nothing: then data is b""
    # and _start is 0. No match of _sought lies within data[_start:_scanned], of which there may be nothing.

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise OptionError(f"limit is {limit!r}; it counts bytes and must be at least 1")
        self.limit = limit
        #: Empty when nothing waits, and only then: then ``bytes`` may be put here, instead of being fed. What else is
        #: in it is nobody else's business.
        self.data: bytes | bytearray = b""
        self._start = 0
        self._sought = b""
        self._scanned = 0

    def __len__(self) -> int:
        """How many bytes wait."""
        return len(self.data) - self._start

    @property
    def full(self) -> bool:
        """Whether the limit is reached: unless somebody waits for more, nothing more should come."""
        return len(self.data) - self._start >= self.limit

    # -- in

    def feed(self, data: bytes) -> None:
        """Add what has arrived. Never refuses, see :attr:`full`."""
        held = self.data
        if not held:
            self.data = bytes(data)  # bytes are kept as they are; what its owner may change is copied
            return
        dropped = self._start
        if isinstance(held, bytes):
            held = self.data = bytearray(memoryview(held)[dropped:])
        elif dropped * 2 >= len(held):
            del held[:dropped]
        else:
            dropped = 0
        held += data
        self._start -= dropped
        self._scanned -= dropped

    def unread(self, data: bytes) -> None:
        """
        Put ``data`` in front of what waits.

        Free of charge for what was just taken; else it takes time in proportion to all that waits then.
        """
        held, start = self.data, self._start
        before = start - len(data)
        self._scanned = 0
        if not held:
            self.data = bytes(data)
        elif before >= 0 and held[before:start] == data:
            self._start = before
        else:
            self.data = bytearray(data)
            self.data += memoryview(held)[start:]
            self._start = 0

    # -- out

    def take(self, maximum: int) -> bytes:
        """At most ``maximum`` bytes: what there is, ``b""`` when there is nothing."""
        data, start = self.data, self._start
        if start + maximum < len(data):
            return self._cut(_size(maximum))
        # All of it: the commonest case, written out.
        self.data = b""
        self._start = self._scanned = 0
        return bytes(data[start:])

    def takeExactly(self, n: int) -> bytes | None:
        """Exactly ``n`` bytes; ``None``, and nothing taken, while there are fewer."""
        return None if _size(n) > len(self) else self._cut(n)

    def takeAll(self) -> bytes:
        """All there is; ``b""`` when there is nothing."""
        return self._cut(len(self))

    def takeLine(self, maximum: int = 65536) -> bytes | None:
        """
        A line, without the LF that ends it and without one CR before that, where there is one (LUAS-33). Nothing else
        is removed. ``None``, and nothing taken, while no LF has come.

        :param maximum: how many bytes the line may have, its ending included.
        :raises LimitError: when there is no LF within ``maximum`` bytes; they stay.
        """
        length = self._find(b"\n", maximum)
        if not length:
            return None
        line = self._cut(length)
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def takeUntil(self, separator: bytes, maximum: int) -> bytes | None:
        """
        What comes before ``separator``, and the separator. ``None``, and nothing taken, while it has not come.

        :param maximum: how many bytes that may be, the separator included.
        :raises LimitError: when the separator does not lie within ``maximum`` bytes; they stay.
        :raises OptionError: when the separator is empty.
        """
        if not separator:
            raise OptionError("the separator is empty; name at least one byte, or use takeAll for everything")
        length = self._find(separator, maximum)
        return self._cut(length) if length else None

    def peek(self, n: int) -> bytes:
        """At most ``n`` bytes, which stay."""
        return bytes(self.data[self._start : self._start + _size(n)])

    # -- how

    def _find(self, separator: bytes, maximum: int) -> int:
        """The length up to the end of the first ``separator``; 0 when it may still come."""
        if separator != self._sought:
            self._sought = separator
            self._scanned = 0
        end = min(self._start + _size(maximum), len(self.data))
        # A separator may have begun before the place where the last search stopped, but not have ended there.
        begin = max(self._start, self._scanned - len(separator) + 1)
        found = self.data.find(separator, begin, end)
        if found >= 0:
            return found + len(separator) - self._start
        self._scanned = end
        if end - self._start < maximum:
            return 0
        raise LimitError(f"no {separator!r} within {maximum} bytes; allow more, or close: the peer sends none")

    def _cut(self, length: int) -> bytes:
        """Take ``length`` bytes, of which there are that many."""
        data, start = self.data, self._start
        end = start + length
        if end < len(data):
            self._start = end
            return bytes(data[start:end])
        self.data = b""
        self._start = self._scanned = 0
        return bytes(data[start:])


def _size(n: int) -> int:
    if n < 0:
        raise OptionError(f"{n!r} bytes were asked for; it must be 0 or more (takeAll takes everything)")
    return n
