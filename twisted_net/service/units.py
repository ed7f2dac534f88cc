"""
Texts of a command line or of an environment as numbers: counts, sizes, rates, times, switches.

Every parser takes a text and returns one value in the unit of the house (bytes, seconds, each a second), or raises
:class:`~twisted_net.errors.OptionError`: what was written, what may be written, and an example. None of them knows the
name of the option; who does puts it before the message.

A number has digits and at most one decimal point; no sign, no exponent. Units are read as they are written by people
who mean something by it: ``kB`` and ``KB`` are powers of 1000, ``KiB`` of 1024 (IEC 80000-13), and a bare ``K``, which
means either to somebody, is refused. ``m`` is minutes, ``ms`` milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final, NoReturn, TypeVar

from twisted_net.errors import OptionError

__all__ = ["orNone", "parseCount", "parseFlag", "parsePace", "parseRate", "parseSize", "parseTime"]

T = TypeVar("T")

_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(.*)", re.DOTALL | re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)

#: Bytes in each unit of size, by its name in lower case.
_SIZES: Final[Mapping[str, Fraction | int]] = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}

#: Seconds in each unit of time.
_TIMES: Final[Mapping[str, Fraction | int]] = {
    "": 1,
    "ms": Fraction(1, 1000),
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
}

#: How often a second one of each unit of pace is.
_PACES: Final[Mapping[str, Fraction | int]] = {
    "": 1,
    "/s": 1,
    "/m": Fraction(1, 60),
    "/min": Fraction(1, 60),
    "/h": Fraction(1, 3600),
}

#: More digits than any number needs that means something here; int() refuses thousands of them with a text of its own.
_LONGEST: Final = 30

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})


def parseCount(text: str) -> int:
    """
    Return a whole number, 0 or more: ``1000``.

    :raises OptionError: it is none.
    """
    stripped = text.strip()
    if not _DIGITS.fullmatch(stripped) or len(stripped) > _LONGEST:
        _refuse(text, "no whole number; write one of 0 or more, such as 1000")
    return int(stripped)


def parseSize(text: str) -> int:
    """
    Return bytes, at least one: ``4096``, ``64KiB`` (1024s), ``1.5MB`` (1000s).

    :raises OptionError: it is no size.
    """
    units = "B, KB, MB, GB (1000s) or KiB, MiB, GiB (1024s)"
    size = round(_parse(text, "size in bytes", _fold(text), _SIZES, units, "64KiB"))
    if size < 1:
        _refuse(text, "less than one byte; write a size such as 64KiB")
    return size


def parseRate(text: str) -> float:
    """
    Return bytes a second, more than 0: ``4096``, ``64KiB/s``, ``10MB``; the ``/s`` may be left out.

    :raises OptionError: it is no rate.
    """
    units = "B, KB, MB, GB (1000s) or KiB, MiB, GiB (1024s), with or without /s"
    return float(_parse(text, "rate in bytes a second", _fold(text).removesuffix("/s"), _SIZES, units, "10MB/s"))


def parsePace(text: str) -> float:
    """
    Return how often a second, more than 0: ``100``, ``100/s``, ``600/m``, ``5000/h``.

    :raises OptionError: it is no pace.
    """
    return float(_parse(text, "number a second", _fold(text), _PACES, "/s, /m or /h", "100/s"))


def parseTime(text: str) -> float:
    """
    Return seconds, 0 or more: ``30``, ``30s``, ``250ms``, ``5m``, ``1.5h``, ``7d``.

    :raises OptionError: it is no time.
    """
    return float(_parse(text, "time in seconds", _fold(text), _TIMES, "ms, s, m, h or d", "30s", zero=True))


def parseFlag(text: str) -> bool:
    """
    Return whether something is switched on: ``1``, ``true``, ``yes``, ``on``, or ``0``, ``false``, ``no``, ``off``.

    :raises OptionError: it is neither.
    """
    word = _fold(text)
    if word not in _YES | _NO:
        _refuse(text, "neither on nor off; write 1, true, yes or on, or else 0, false, no or off")
    return word in _YES


def orNone(parse: Callable[[str], T], *, positive: bool = True) -> Callable[[str], T | None]:
    """
    Return a parser that also takes the word ``none``, for "not in force".

    :param positive: refuse 0, with ``none`` as the remedy: whoever writes ``0`` may mean either "none" or "at once".
    """

    def parser(text: str) -> T | None:
        if _fold(text) == "none":
            return None
        value = parse(text)
        if positive and not value:
            _refuse(text, "0, which could mean two things; write a number above 0, or none for no limit")
        return value

    return parser


def _fold(text: str) -> str:
    return text.strip().lower()


def _parse(
    text: str,
    kind: str,
    written: str,
    units: Mapping[str, Fraction | int],
    names: str,
    example: str,
    *,
    zero: bool = False,
) -> Fraction:
    match = _NUMBER.fullmatch(written)
    if match is None:
        _refuse(text, f"no {kind}; write a number, and behind it {names}, such as {example}")
    digits, unit = match.groups()
    if unit not in units:
        _refuse(text, f"no {kind}: the unit {unit!r} is unknown; write {names} behind the number, such as {example}")
    if len(digits) > _LONGEST:
        _refuse(text, f"too long for a {kind}; write one such as {example}")
    value = Fraction(digits) * units[unit]
    if value == 0 and not zero:
        _refuse(text, f"0; a {kind} is more than 0, such as {example}")
    return value


def _refuse(text: str, why: str) -> NoReturn:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    raise OptionError(f"{shown!r} is {why}")
