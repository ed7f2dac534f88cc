r"""
Text to address, and back.

Where something listens or connects to is a *target*: one of four small values, made from one text by
:func:`parseTarget`. Where something stands is an :class:`Address`: what a socket says of itself.

==================================  ==================================================================
text                                target
==================================  ==================================================================
``localhost:80``                    :class:`TcpTarget`, host ``"localhost"``
``:80`` or ``*:80``                 :class:`TcpTarget`, host ``""``: every IPv4 interface when listening
``[::1]:80``                        :class:`TcpTarget`, host ``"::1"``; IPv6 stands in brackets (RFC 3986)
``/run/x.sock``, ``./x.sock``       :class:`UnixTarget`: a ``/`` before any colon, taken as it stands
``unix:/run/x.sock:mode=660``       :class:`UnixTarget` with the file's mode, octal
``unix:@name``                      :class:`UnixTarget`, abstract (Linux): path ``"\0name"``
``udp:host:53``, ``udp:[::1]:53``   :class:`UdpTarget`
``tcp:80``, ``ssl:443:...``         :class:`EndpointTarget`: any other ``word:...`` is for Twisted to parse
==================================  ==================================================================

Within ``unix:`` a backslash takes the next character as it is (``\:``, ``\\``, ``\@``), as in Twisted's endpoint texts.

Two promises hold for every target: it was checked when it was made, so that nobody below checks again; and ``str()``
of it is a text that parses back to the same target. What would break the second is refused by the first: a host called
``tcp`` cannot be written as ``tcp:80``, for that is an endpoint text.
"""

from __future__ import annotations

import os
import re
import reprlib
import socket
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from twisted_net.errors import AddressError

__all__ = [
    "Address",
    "EndpointTarget",
    "Target",
    "TcpTarget",
    "UdpTarget",
    "UnixTarget",
    "checkPort",
    "isIP",
    "isIPv4",
    "isIPv6",
    "parseTarget",
]

HIGHEST_PORT: Final = 65535

#: Bytes of a UNIX path: ``sun_path`` has 108, and a path ends with a NUL (unix(7)).
LONGEST_PATH: Final = 107

#: The kinds of endpoint that Twisted itself parses: ``tcp:80`` is one of these and no host called ``tcp``.
ENDPOINT_WORDS: Final = frozenset({"haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "tls"})

_RESERVED_WORDS: Final = ENDPOINT_WORDS | {"udp", "unix"}
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
_DIGITS: Final = re.compile(r"[0-9]+")
_PORT: Final = re.compile(r"0*[0-9]{1,5}")
_MODE: Final = re.compile(r"0?[0-7]{1,3}")
_ZONE: Final = re.compile(r"[0-9A-Za-z_.:~-]+")
_LABEL: Final = re.compile(r"[\w-]{1,63}")
_BRACKETED: Final = re.compile(r"\[([^\[\]]*)\]:(.*)", re.DOTALL)
_UNIX_PART: Final = re.compile(r"(?:[^:\\]|\\.)*", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120


# What a socket says of itself


@dataclass(frozen=True, slots=True)
class Address:
    """
    One end of a connection, a port or a datagram socket.

    ``str()`` of it is ``127.0.0.1:80``, ``[::1]:80``, ``unix:/path``, ``unix:@name`` (abstract) or ``unix:`` (a UNIX
    socket without a name, as most clients have).
    """

    address: str
    """The IP address, or the path: ``""`` when it has no name, ``"\\0name"`` when it is abstract."""

    port: int | None
    """The port; ``None`` where there are none."""

    family: Literal["IPv4", "IPv6", "unix", "endpoint"]
    """What kind of address; ``"endpoint"`` is one of which only its text is known."""

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{_withAt(self.address)}"
        if self.port is None:
            return self.address
        return _hostPort(self.address, self.port)

    @classmethod
    def fromTwisted(cls, addr: IAddress | None) -> Address:
        """
        Return the address for one of Twisted's.

        An IPv4 client on a dual-stack port stays what the socket calls it, ``::ffff:192.0.2.1`` (RFC 4291, 2.5.5.2).
        ``None`` and addresses of other kinds become family ``"endpoint"`` with their text.
        """
        if addr is None:
            return cls("", None, "endpoint")
        if isinstance(addr, IPv4Address):
            return cls(addr.host, addr.port, "IPv4")
        if isinstance(addr, IPv6Address):
            return cls(addr.host, addr.port, "IPv6")
        if isinstance(addr, UNIXAddress):
            return cls(os.fsdecode(addr.name or b""), None, "unix")
        return cls(str(addr), None, "endpoint")


# Where to listen or connect to


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """
    A TCP port on a host.

    :raises AddressError: the host or the port cannot be one.
    """

    host: str
    """A name or an IP address, IPv6 without brackets; ``""`` (also made from ``"*"``) is every IPv4 interface when
    listening and this machine when connecting."""

    port: int
    """0 to 65535; 0 lets the system choose when listening."""

    def __post_init__(self) -> None:
        _checkHostPort(self)
        if self.host in _RESERVED_WORDS:
            raise AddressError(
                f"host {self.host!r} cannot be told from the beginning of an endpoint text; "
                f'use "tcp:host={self.host}:port={self.port}" to connect to it',
                address=self.host,
            )

    def __str__(self) -> str:
        return _hostPort(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UdpTarget:
    """
    A UDP port on a host.

    :raises AddressError: the host or the port cannot be one.
    """

    host: str
    """As in :class:`TcpTarget`."""

    port: int
    """As in :class:`TcpTarget`."""

    def __post_init__(self) -> None:
        _checkHostPort(self)

    def __str__(self) -> str:
        return f"udp:{_hostPort(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class UnixTarget:
    """
    A UNIX socket.

    :raises AddressError: the path is empty, too long or holds a NUL, or the mode is none.
    """

    path: str
    """The path of the file; ``"\\0name"`` is an abstract name (Linux), which has no file."""

    mode: int | None = None
    """The permissions of the file when listening, 0 to 0o777; ``None`` leaves them to the umask."""

    def __post_init__(self) -> None:
        _checkPath(self.path)
        if self.mode is None:
            return
        _checkMode(self.mode)
        if self.path.startswith("\0"):
            raise AddressError(
                f"mode {self.mode:o} is given for the abstract name {self.path[1:]!r}, which has no file; leave it out",
                address=self.path,
            )

    def __str__(self) -> str:
        path = self.path.replace("\\", "\\\\").replace(":", "\\:")
        if path.startswith("@"):
            path = f"\\{path}"
        return f"unix:{_withAt(path)}" if self.mode is None else f"unix:{path}:mode={self.mode:o}"


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """
    A text for :func:`twisted.internet.endpoints.serverFromString` or ``clientFromString``.

    Only its form is checked here (``word:...``): which words there are depends on the plugins that are installed.

    :raises AddressError: it has another form, or one that means something else here.
    """

    description: str

    def __post_init__(self) -> None:
        if not _isEndpointText(self.description):
            raise AddressError(
                f"{_shown.repr(self.description)} is no endpoint text, or would be read as another address; "
                "use parseTarget for other addresses, or hand over the endpoint itself",
                address=self.description,
            )

    def __str__(self) -> str:
        return self.description


Target: TypeAlias = TcpTarget | UnixTarget | UdpTarget | EndpointTarget
"""Where to listen or connect to; all four can be told apart by class and turned to text by ``str()``."""


def parseTarget(text: str) -> Target:
    """
    Return the target that ``text`` names; the forms stand at the top of this module.

    :raises AddressError: it names none. The error says the text, what is wrong with it, and what to write instead.
    """
    if not isinstance(text, str):
        raise AddressError(f'{_shown.repr(text)} is no address: it is no text; write one such as "localhost:8124"')
    try:
        return _parse(text)
    except AddressError as error:
        raise AddressError(f"{_shown.repr(text)} is no address: {error.strerror}", address=text) from None


# Small questions, as in Node's net module


def isIP(text: object) -> Literal[0, 4, 6]:
    """Return 4 or 6 when ``text`` is an IP address of that version, otherwise 0."""
    if isIPv4(text):
        return 4
    return 6 if isIPv6(text) else 0


def isIPv4(text: object) -> bool:
    """Say whether ``text`` is an IPv4 address: four decimal numbers without leading zeros."""
    return isinstance(text, str) and _packs(socket.AF_INET, text)


def isIPv6(text: object) -> bool:
    """Say whether ``text`` is an IPv6 address, with or without a zone (``fe80::1%eth0``, RFC 4007)."""
    if not isinstance(text, str):
        return False
    address, percent, zone = text.partition("%")
    return _packs(socket.AF_INET6, address) and (not percent or _ZONE.fullmatch(zone) is not None)


def checkPort(port: object, *, lowest: int = 0) -> int:
    """
    Return ``port`` as a number. Decimal digits in a text are taken too, as Node does.

    :param lowest: 0, or 1 where no port may be chosen by the system, as in connecting.
    :raises AddressError: it is no whole number, or outside ``lowest`` to 65535.
    """
    number = port
    if isinstance(port, str) and _DIGITS.fullmatch(port):
        # Very long digits are never converted: int() refuses them with an error of its own.
        number = int(port) if _PORT.fullmatch(port) else HIGHEST_PORT + 1
    if isinstance(number, bool) or not isinstance(number, int):
        raise AddressError(f"port {_shown.repr(port)} is no whole number; give one from {lowest} to {HIGHEST_PORT}")
    if not lowest <= number <= HIGHEST_PORT:
        raise AddressError(f"port {_shown.repr(port)} is out of range; give one from {lowest} to {HIGHEST_PORT}")
    return int(number)


# Inside. The errors below speak of the part that is wrong; parseTarget puts the whole text before them.


def _parse(text: str) -> Target:
    head, colon, rest = text.partition(":")
    if colon and head == "unix":
        return _parseUnix(rest)
    if colon and head == "udp":
        return UdpTarget(*_splitHostPort(rest, prefix="udp:"))
    if "/" in head:
        return UnixTarget(text)
    if _isEndpointText(text):
        return EndpointTarget(text)
    return TcpTarget(*_splitHostPort(text))


def _isEndpointText(text: object) -> bool:
    if not isinstance(text, str):
        return False
    word, colon, rest = text.partition(":")
    if not colon or not _WORD.fullmatch(word) or word in ("unix", "udp"):
        return False
    if word in ENDPOINT_WORDS:
        return True
    # "host:80", "host:-1", "host:", "http://host" and "fe80::1" are other things, or mistakes worth an own message.
    return not (rest.strip().lstrip("+-").isdigit() or not rest or rest.startswith("//") or isIPv6(text))


def _splitHostPort(text: str, *, prefix: str = "") -> tuple[str, int]:
    if text.startswith("["):
        match = _BRACKETED.fullmatch(text)
        if match is None:
            raise AddressError(f'after the brackets stands no port; write "{prefix}[::1]:8124"')
        host, port = match.groups()
        if not isIPv6(host):
            raise AddressError(f'{_shown.repr(host)} in brackets is no IPv6 address; write "{prefix}[::1]:8124"')
        return host, checkPort(port)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise AddressError(_withoutColon(text, prefix))
    if "://" in text:
        raise AddressError(f'it is a URL; write host and port alone, such as "{prefix}localhost:8124"')
    if ":" in host:
        raise AddressError(
            f'it has more than one colon; IPv6 stands in brackets, "{prefix}[::1]:8124", '
            'and an endpoint text begins with its kind, "tcp:8124:interface=127.0.0.1"'
        )
    return host, checkPort(port)


def _withoutColon(text: str, prefix: str) -> str:
    if not text:
        return f'it is empty; write "{prefix}localhost:8124"'
    if _DIGITS.fullmatch(text):
        return f'a port alone is ambiguous; write "{prefix}:{text}" for every interface'
    if text.startswith("@"):
        return f'an abstract UNIX socket begins with its kind; write "unix:{text}"'
    if prefix:
        return f'it has no port; write "{prefix}{text}:8124"'
    return f'it has neither a port nor a "/"; write "{text}:8124" for a host, "./{text}" for a UNIX socket'


def _parseUnix(rest: str) -> UnixTarget:
    match = _UNIX_PART.match(rest)
    assert match is not None, "the pattern matches an empty text too"
    part, options = match.group(), rest[match.end() :]
    path = _ESCAPED.sub(r"\1", part)
    if part.startswith("@"):
        path = f"\0{path[1:]}"
    if not options:
        return UnixTarget(path)
    name, _, mode = options[1:].partition("=")
    if options.startswith("\\") or name != "mode":
        raise AddressError(
            f"{_shown.repr(options)} behind the path is no option; the only one is ':mode=660' "
            "(within the path write '\\:' for ':' and '\\\\' for '\\')"
        )
    if not _MODE.fullmatch(mode):
        raise AddressError(f"mode {_shown.repr(mode)} is no octal number from 0 to 777; write ':mode=660'")
    return UnixTarget(path, int(mode, 8))


def _checkHostPort(target: TcpTarget | UdpTarget) -> None:
    host = target.host
    if not isinstance(host, str):
        raise AddressError(f'host {_shown.repr(host)} is no text; give a name or an address, or "" for every interface')
    # Frozen for everybody else: a value is brought to its one form before anybody sees it.
    object.__setattr__(target, "port", checkPort(target.port))
    if host in ("", "*"):
        object.__setattr__(target, "host", "")
    elif not isIP(host):
        _checkName(host)


def _checkName(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if len(host) > 254 or not all(map(_LABEL.fullmatch, labels)):
        raise AddressError(
            f"host {_shown.repr(host)} is neither an IP address nor a name; a name has up to 253 characters in parts "
            "of 1 to 63 letters, digits, '-' or '_' with dots between them (RFC 1035, 2.3.4)",
            address=host,
        )
    if _DIGITS.fullmatch(labels[-1]):
        raise AddressError(
            f"host {_shown.repr(host)} ends with a number as an IPv4 address does, and is none; "
            "write four numbers from 0 to 255, such as 127.0.0.1",
            address=host,
        )


def _checkPath(path: object) -> None:
    if not isinstance(path, str) or path in ("", "\0"):
        raise AddressError(f'path {_shown.repr(path)} is empty or no text; write one such as "/run/x"', address=path)
    abstract = path.startswith("\0")
    if not abstract and "\0" in path:
        raise AddressError(f"path {_shown.repr(path)} holds a NUL, with which a path ends; leave it out", address=path)
    try:
        size = len(os.fsencode(path)) - abstract
    except UnicodeEncodeError:
        raise AddressError(
            f"path {_shown.repr(path)} cannot be encoded for the file system; give it in characters that can be",
            address=path,
        ) from None
    if size > LONGEST_PATH:
        raise AddressError(
            f"path {_shown.repr(path)} has {size} bytes where unix(7) has room for {LONGEST_PATH}; "
            "give a shorter one, or one relative to the current folder",
            address=path,
        )


def _checkMode(mode: object) -> None:
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise AddressError(f"mode {_shown.repr(mode)} is outside 0 to 0o777; it is octal, such as 0o660")


def _packs(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL, or a character that cannot be encoded
        return False
    return True


def _hostPort(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _withAt(path: str) -> str:
    """Return a UNIX path as it is shown: an abstract name begins with ``@`` in place of its NUL (unix(7))."""
    return f"@{path[1:]}" if path.startswith("\0") else path
