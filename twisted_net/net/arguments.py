"""The manuals' ways to call ``listen`` and ``connect``, read in one place.

All of these mean something, and the two manuals mix them freely::

    listen(8124)                listen(8124, "127.0.0.1", listener)     listen(8124, "127.0.0.1", 128, listener)
    listen("/tmp/echo.sock")    listen({"port": 8124, "host": "::1"})   listen(port=8124, host="::1")
    listen("tcp:8124")          listen(endpoint)                        listen(fd=3)

A text is a path unless it says otherwise (LUV-8): digits are a port, and what has a ``:`` and does not begin like a
path is read as an address (``127.0.0.1:8124``, ``unix:@name``) or as a Twisted endpoint text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from twisted_net.address import EndpointTarget, Target, TcpTarget, UdpTarget, UnixTarget, checkPort, parseTarget
from twisted_net.errors import AddressError, OptionError

Listener = Callable[..., object]
Where = Target | IStreamServerEndpoint | IStreamClientEndpoint | int

_PLACE: Final = frozenset({"port", "host", "hostname", "path", "fd", "endpoint", "mode"})


class Call:
    """One call of ``listen`` or ``connect``, understood."""

    __slots__ = ("listener", "options", "where")

    def __init__(self, where: Where, options: dict[str, Any], listener: Listener | None) -> None:
        self.where = where
        #: What else was given by name.
        self.options = options
        self.listener = listener


def mergeOptions(
    verb: str, options: Mapping[str, Any] | None, keywords: Mapping[str, Any], allowed: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a mapping and of keywords in one dictionary, completed by the defaults in *allowed*.

    :raises OptionError: a name is unknown, or given both ways.
    """
    merged = dict(options or {})
    for name, value in keywords.items():
        if name in merged:
            raise OptionError(f"{verb}: the option {name!r} is given in the mapping and as a keyword; give it once")
        merged[name] = value
    for name in merged:
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise OptionError(f"{verb}: there is no option {name!r}; there are {known}")
    return {**allowed, **merged}


def readCall(
    verb: str,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    allowed: Mapping[str, Any],
    *,
    defaultHost: str,
    lowestPort: int,
) -> Call:
    """Read the arguments of *verb*.

    :param allowed: the options besides the place, with their defaults.
    :param defaultHost: the host where none is given.
    :param lowestPort: 0 where a port may be chosen by the system, else 1.
    :raises AddressError: no place, or one that is none.
    :raises OptionError: an option that does not exist.
    """
    rest = list(args)
    listener: Listener | None = None
    if rest and callable(rest[-1]) and not _isEndpoint(rest[-1]):
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
            if rest:
                host = rest.pop(0)
                if host is not None:
                    positional["host"] = host
        if rest and isinstance(rest[0], int) and "backlog" in allowed:
            # Mongoose, and Node: listen(port, hostname, backlog, callback); 0 leaves the default.
            backlog = rest.pop(0)
            if backlog:
                positional["backlog"] = backlog
    while rest and rest[0] is None:
        rest.pop(0)
    if rest:
        raise OptionError(f"{verb}: cannot make anything of {rest[0]!r}; see the documented ways to call it")
    named = mergeOptions(verb, {**named, **positional}, keywords, {**dict.fromkeys(_PLACE), **allowed})
    if "listener" in named:
        listener = named.pop("listener") or listener
    place = {name: named.pop(name) for name in _PLACE}
    return Call(_where(verb, place, defaultHost, lowestPort), named, listener)


def _isEndpoint(thing: object) -> bool:
    return bool(IStreamServerEndpoint.providedBy(thing) or IStreamClientEndpoint.providedBy(thing))


def _where(verb: str, place: dict[str, Any], defaultHost: str, lowestPort: int) -> Where:
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
            return EndpointTarget(value)
        if _isEndpoint(value):
            endpoint: IStreamServerEndpoint | IStreamClientEndpoint = value
            return endpoint
        raise AddressError(f"{verb}: {value!r} is no endpoint; give an endpoint object or a text such as 'tcp:8124'")
    if kind == "path":
        return _path(verb, value, place["mode"])
    host = place["host"] if place["host"] is not None else place["hostname"]
    if host is not None and not isinstance(host, str):
        raise AddressError(f"{verb}: the host is {host!r}; it must be a text such as '127.0.0.1'")
    if host is None or (host == "" and lowestPort):
        host = defaultHost
    return TcpTarget("" if host == "*" else host, checkPort(value, lowest=lowestPort))


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
