"""Texts as numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.service.units import orNone, parseCount, parseFlag, parsePace, parseRate, parseSize, parseTime

PARSERS: list[Callable[[str], Any]] = [parseCount, parseFlag, parsePace, parseRate, parseSize, parseTime]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parseCount, "0", 0),
        (parseCount, " 1000 ", 1000),
        (parseSize, "1", 1),
        (parseSize, "4096", 4096),
        (parseSize, "4096B", 4096),
        (parseSize, "64KiB", 65536),
        (parseSize, "64kib", 65536),
        (parseSize, "64 KiB", 65536),
        (parseSize, "1.5KB", 1500),
        (parseSize, "1MB", 10**6),
        (parseSize, "1MiB", 2**20),
        (parseSize, "2GB", 2 * 10**9),
        (parseSize, "2GiB", 2**31),
        (parseSize, "1TB", 10**12),
        (parseSize, "1TiB", 2**40),
        (parseRate, "4096", 4096.0),
        (parseRate, "10MB/s", 10e6),
        (parseRate, "10MB", 10e6),
        (parseRate, "64KiB/s", 65536.0),
        (parseRate, "0.5B/s", 0.5),
        (parsePace, "100", 100.0),
        (parsePace, "100/s", 100.0),
        (parsePace, "600/m", 10.0),
        (parsePace, "600/min", 10.0),
        (parsePace, "7200/h", 2.0),
        (parseTime, "30", 30.0),
        (parseTime, "30s", 30.0),
        (parseTime, "250ms", 0.25),
        (parseTime, "5m", 300.0),
        (parseTime, "5min", 300.0),
        (parseTime, "1.5h", 5400.0),
        (parseTime, "7d", 604800.0),
        (parseTime, "0", 0.0),
        (parseFlag, "1", True),
        (parseFlag, "On", True),
        (parseFlag, "yes", True),
        (parseFlag, "TRUE", True),
        (parseFlag, "0", False),
        (parseFlag, "off", False),
        (parseFlag, "no", False),
        (parseFlag, "False", False),
    ],
)
def test_value(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == pytest.approx(value)
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (parseCount, "", "no whole number"),
        (parseCount, "-1", "no whole number"),
        (parseCount, "1.5", "such as 1000"),
        (parseCount, "9" * 5000, "..."),
        (parseSize, "big", "such as 64KiB"),
        (parseSize, "64K", "the unit 'k' is unknown"),
        (parseSize, "0.1", "less than one byte"),
        (parseSize, "0", "more than 0"),
        (parseSize, "-5", "no size in bytes"),
        (parseSize, "1e5", "the unit 'e5'"),
        (parseSize, "9" * 400, "too long"),
        (parseRate, "10Mbit/s", "with or without /s"),
        (parseRate, "0/s", "more than 0"),
        (parseRate, "10MB/h", "the unit 'mb/h'"),
        (parsePace, "0", "more than 0"),
        (parsePace, "5/d", "/s, /m or /h"),
        (parseTime, "", "such as 30s"),
        (parseTime, "5 weeks", "the unit 'weeks'"),
        (parseTime, "-1s", "no time"),
        (parseTime, "\u0663s", "no time"),
        (parseTime, "nan", "no time"),
        (parseFlag, "maybe", "neither on nor off"),
        (parseFlag, "", "write 1"),
    ],
)
def test_refusal(parse: Callable[[str], Any], text: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert told in caught.value.strerror
    assert len(caught.value.strerror) < 300


LIKELY = st.from_regex(r"[0-9]{0,4}\.?[0-9]{0,2} ?[a-zA-Z/]{0,3}", fullmatch=True)


@given(parse=st.sampled_from(PARSERS), text=st.text(max_size=20) | LIKELY)
def test_anyText(parse: Callable[[str], Any], text: str) -> None:
    value: float = 0
    with contextlib.suppress(OptionError):
        value = parse(text)
    assert value >= 0


UNITS = ["", "B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]


@given(number=st.integers(1, 10**9), unit=st.sampled_from(UNITS))
def test_sizesAreExact(number: int, unit: str) -> None:
    power = "BKMGT".index(unit[:1] or "B")
    factor = (1024 if "i" in unit else 1000) ** power
    assert parseSize(f"{number}{unit}") == number * factor
    assert parseRate(f"{number}{unit}/s") == float(number * factor)


@given(number=st.integers(0, 10**6))
def test_timesAgree(number: int) -> None:
    assert parseTime(f"{number}m") == parseTime(f"{number * 60}s") == pytest.approx(parseTime(f"{number * 60000}ms"))


def test_orNone() -> None:
    parse = orNone(parseTime)
    assert parse("none") is None
    assert parse(" None ") is None
    assert parse("5m") == 300
    with pytest.raises(OptionError, match="none for no limit"):
        parse("0")
    with pytest.raises(OptionError, match="no time"):
        parse("never")
    assert orNone(parseTime, positive=False)("0") == 0
