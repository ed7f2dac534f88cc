"""What the manuals let a caller hand over, read in one place: above all the ways to call ``listen`` and ``connect``.

All of these mean something, and the two manuals mix them freely::

    listen(8124)                listen(8124, "127.0.0.1", listener)     listen(8124, "127.0.0.1", 128, listener)
    listen("/tmp/echo.sock")    listen({"port": 8124, "host": "::1"})   listen(port=8124, host="::1")
    listen("tcp:8124")          listen(endpoint)                        listen(fd=3)
    listen(8124, 128)           listen("127.0.0.1:8124")                listen({"path": "/tmp/echo.sock"}, listener)

A text is a path unless it says otherwise (LUV-8): digits are a port, and what has a ``:`` and does not begin like a
path is read as an address (``127.0.0.1:8124``, ``unix:@name``) or as a Twisted endpoint text.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from math import floor, inf
from typing import Any, Final, Generic, TypeVar

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from twisted_net.address import Target, TcpTarget, UdpTarget, UnixTarget, checkPort, parseTarget
from twisted_net.errors import AddressError, OptionError

Listener = Callable[..., object]
Data = bytes | bytearray | memoryview | str
"""What may be written."""

_E = TypeVar("_E")

_PLACE: Final = frozenset({"port", "host", "hostname", "path", "fd", "endpoint", "mode"})


class Call(Generic[_E]):
    """One call of ``listen`` or ``connect``, understood."""

    __slots__ = ("listener", "options", "where")

    def __init__(self, where: Target | _E | int, options: dict[str, Any], listener: Listener | None) -> None:
        #: An address, an endpoint of the kind that was asked for, or the number of a descriptor.
        self.where = where
        #: What else was given by name.
        self.options = options
        self.listener = listener


def mergeOptions(
    verb: str, options: Mapping[str, Any] | None, keywords: Mapping[str, Any], allowed: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a mapping and of keywords in one dictionary, completed by the defaults in *allowed*; None is as
    good as not given.

    :raises OptionError: a name is unknown, or given both ways.
    """
    if options is not None and not isinstance(options, Mapping):
        raise OptionError(f"{verb}: the options are {options!r}; give them in a mapping, or as keywords")
    merged = dict(options or {})
    for name, value in keywords.items():
        if name in merged:
            raise OptionError(f"{verb}: {name!r} is given as a keyword and in another way, too; give it once")
        merged[name] = value
    for name in merged:
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise OptionError(f"{verb}: there is no option {name!r}; there are {known}")
    return {**allowed, **{name: value for name, value in merged.items() if value is not None}}


def checkMark(verb: str, value: object) -> int:
    """The high-water mark *value*.

    :raises OptionError: it is no whole number of bytes, or less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{verb}: highWaterMark is {value!r}; it must be a whole number of bytes, 1 or more")
    return value


def checkMsecs(what: str, value: object) -> float:
    """The milliseconds *value*.

    :raises OptionError: it is no finite number, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise OptionError(f"{what}: {value!r} is no number of milliseconds; give 0 or more")
    return value


def readCall(
    verb: str,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    allowed: Mapping[str, Any],
    *,
    endpoint: Any,
    defaultHost: str,
    lowestPort: int,
) -> Call[Any]:
    """Read the arguments of *verb*.

    :param allowed: the options besides the place, with their defaults.
    :param endpoint: the interface that an endpoint object has to provide.
    :param defaultHost: the host where none is given.
    :param lowestPort: 0 where a port may be chosen by the system, else 1.
    :raises AddressError: no place, or one that is none.
    :raises OptionError: an option that does not exist.
    """
    rest = list(args)
    listener: Listener | None = None
    if rest and callable(rest[-1]):
        listener = rest.pop()
    named: dict[str, Any] = {}
    if rest and isinstance(rest[0], Mapping):
        named.update(rest.pop(0))
    positional: dict[str, Any] = {}
    if rest:
        first = rest.pop(0)
        if _isEndpoint(first):
            positional["endpoint"] = first
        elif isinstance(first, str) and not first.isdigit():
            positional["path"] = first
        elif first is not None:
            positional["port"] = first
            if rest and not isinstance(rest[0], int):
                positional["host"] = rest.pop(0)
        if rest and "backlog" in allowed:
            # Mongoose, and Node: listen(port, hostname, backlog, callback); 0 leaves the default.
            positional["backlog"] = rest.pop(0) or None
    if any(one is not None for one in rest):
        raise OptionError(f"{verb}: cannot make anything of {rest!r}; see the documented ways to call it")
    allowed = {**dict.fromkeys(_PLACE), "listener": None, **allowed}
    named = mergeOptions(verb, {**named, **positional}, keywords, allowed)
    listener = named.pop("listener") or listener
    place = {name: named.pop(name) for name in _PLACE}
    return Call(_where(verb, place, endpoint, defaultHost, lowestPort), named, listener)


def _isEndpoint(thing: object) -> bool:
    return bool(IStreamServerEndpoint.providedBy(thing) or IStreamClientEndpoint.providedBy(thing))


def _where(verb: str, place: dict[str, Any], endpoint: Any, defaultHost: str, lowestPort: int) -> Any:
    kinds = [name for name in ("port", "path", "fd", "endpoint") if place[name] is not None]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none of them"
        raise AddressError(f"{verb}: give one of port, path, fd and endpoint; {given} was given")
    kind = kinds[0]
    value = place[kind]
    if kind == "fd":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise AddressError(f"{verb}: fd is {value!r}; it must be the number of an open descriptor")
        return value
    if kind == "endpoint":
        if isinstance(value, str):
            return parseTarget(value)
        if endpoint.providedBy(value):
            return value
        raise AddressError(
            f"{verb}: {value!r} provides no {endpoint.__name__}; give such an endpoint, or a text such as 'tcp:8124'"
        )
    if kind == "path":
        target = _path(verb, value, place["mode"])
        if not isinstance(target, TcpTarget):
            return target
        place, value = {"host": target.host, "hostname": None}, target.port
    host = place["host"] if place["host"] is not None else place["hostname"]
    if host is not None and not isinstance(host, str):
        raise AddressError(f"{verb}: the host is {host!r}; it must be a text such as '127.0.0.1'")
    return TcpTarget(defaultHost if host in (None, "", "*") else host, checkPort(value, lowest=lowestPort))


def _path(verb: str, value: Any, mode: int | None) -> Target:
    if not isinstance(value, str) or not value:
        raise AddressError(f"{verb}: the path is {value!r}; it must be a text such as '/run/echo.sock'")
    if value[0] not in "/.\0" and ":" in value:
        target = parseTarget(value)
        if isinstance(target, UdpTarget):
            raise AddressError(
                f"{verb}: {value!r} is a datagram address; stream sockets take TCP and UNIX addresses", address=value
            )
        if isinstance(target, UnixTarget) and mode is not None:
            return UnixTarget(target.path, mode)
        return target
    return UnixTarget(value, mode)


def encode(data: Data, encoding: str | None) -> bytes:
    """The bytes of what was given to ``write``: a text in *encoding*, by default UTF-8.

    :raises OptionError: it is neither bytes nor text, there is no such encoding, or the text does not fit it.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        try:
            if encoding == "hex":
                return bytes.fromhex(data)
            if encoding == "base64":
                return b64decode(data, validate=True)
            return data.encode(encoding or "utf-8")
        except LookupError:
            raise OptionError(
                f"write: there is no encoding {encoding!r}; use utf-8, latin-1, ascii, utf-16-le, hex, base64"
            ) from None
        except ValueError as error:
            raise OptionError(f"write: the text cannot be encoded as {encoding or 'utf-8'!r}: {error}") from None
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise OptionError(f"write: {data!r} is neither bytes nor text; encode it first")


def roundTimeout(msecs: object, grain: float | None) -> float:
    """The milliseconds of ``setTimeout``: exact, or the nearest multiple of *grain* and at least one; 0 stays 0.

    :raises OptionError: it is no finite number, or negative.
    """
    exact = checkMsecs("setTimeout", msecs)
    if not grain or not exact:
        return exact
    # Mongoose: "1000ms is the minimum supported and any number given will be rounded to the nearest multiple of 1000."
    return max(1, floor(exact / grain + 0.5)) * grain
