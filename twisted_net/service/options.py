"""
What the commands of ``net`` have in common: their options, in one table.

A :class:`Setting` is one option: its name, what it takes, how its text is read, what stands when nobody says anything,
and what ``--help`` says of it. Everything else follows from the table: the command line, the environment variable, the
help text, completion by the shell, and the page of the manual, which a test compares with it.

Where a value comes from, the first that is there: the command line, the environment variable (an empty one counts as
absent, since a compose file or a unit file cannot easily leave one out), the default. ``none`` switches a limit off
that the environment has set.

A mistake ends the program here, with one sentence on stderr and exit status 1. ``usage.UsageError`` would do neither:
``twistd`` prints the whole help text and the error to stdout, where neither people nor supervisors look for it.
"""

from __future__ import annotations

import difflib
import getopt
import importlib.metadata
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NoReturn

from twisted.python import usage

from twisted_net.address import Target, TcpTarget, UdpTarget, UnixTarget, parseTarget
from twisted_net.errors import NetError, OptionError
from twisted_net.service.reactors import VARIABLE, Choice
from twisted_net.service.units import orNone, parseCount, parseFlag, parsePace, parseRate, parseSize, parseTime
from twisted_net.wire.limits import Limits

__all__ = [
    "DEFAULT_ADDRESS",
    "PREFIX",
    "SETTINGS",
    "UNIXGRAM",
    "Choices",
    "CommandOptions",
    "DatagramTarget",
    "ServiceOptions",
    "Setting",
    "fail",
    "readAddress",
]

#: Where a command listens when nobody says where: this machine alone can reach it.
DEFAULT_ADDRESS: Final = "127.0.0.1:8124"

#: How the environment variables begin.
PREFIX: Final = "TWISTED_NET_"

#: Columns of a help text when ``COLUMNS`` does not say.
WIDTH: Final = 80

#: How alike (0 to 1, as :mod:`difflib` counts) a variable's name and an option's are when one was meant for the other.
LIKENESS: Final = 0.85

_FLAG: Final = ""


def fail(where: str, sentence: str) -> NoReturn:
    """End the program with one sentence on stderr and exit status 1; *where* is what was being run, ``"net echo"``."""
    raise SystemExit(f"{where}: {sentence}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One option of a command."""

    name: str
    """As on the command line, without the dashes."""

    placeholder: str
    """What stands for its value in help texts; ``""`` for a flag, which takes none."""

    read: Callable[[str], Any]
    """Text to value; raises :class:`~twisted_net.errors.NetError`."""

    default: str | None
    """The text that stands when nobody says anything; ``None`` is not in force."""

    help: str
    """What it does, in which unit, with an example."""

    many: bool = False
    """May be given repeatedly; a variable has the values separated by blanks."""

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def flag(self) -> bool:
        """Whether it takes no value."""
        return self.placeholder == _FLAG


#: How a UNIX socket for datagrams is written.
UNIXGRAM: Final = "unixgram:"


@dataclass(frozen=True, slots=True)
class DatagramTarget:
    """A place or a peer for datagrams: ``udp:host:port``, ``unixgram:/path``."""

    target: UdpTarget | UnixTarget

    def __str__(self) -> str:
        text = str(self.target)
        return text if isinstance(self.target, UdpTarget) else UNIXGRAM + text.removeprefix("unix:")


def readAddress(text: str) -> Target | DatagramTarget:
    """
    Return what an address means to a command: ``unixgram:/path`` besides all that :func:`parseTarget` knows.

    :raises AddressError: nothing.
    """
    target = parseTarget(f"unix:{text.removeprefix(UNIXGRAM)}" if text.startswith(UNIXGRAM) else text)
    if isinstance(target, UdpTarget) or (text.startswith(UNIXGRAM) and isinstance(target, UnixTarget)):
        return DatagramTarget(target)
    return target


def atLeastOne(otherwise: str) -> Callable[[str], int]:
    """Return a parser that takes a number, 1 or more; *otherwise* says what is wrong with less, and what to write."""

    def read(text: str) -> int:
        count = parseCount(text)
        if count < 1:
            raise OptionError(f"{text!r} {otherwise}")
        return count

    return read


def oneOf(*words: str) -> Callable[[str], str]:
    """Return a parser that takes one of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise OptionError(f"{text!r} is not known; write {' or '.join(words)}")
        return text

    return read


#: Options of every command that listens, in the order of the help text, under their headings.
SETTINGS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "Where to listen": (
        Setting(
            "listen",
            "ADDRESS",
            readAddress,
            DEFAULT_ADDRESS,
            "Where to listen; give it once for each place. TCP: 127.0.0.1:8124, localhost:8124, [::1]:8124, :8124 "
            "(every IPv4 interface), [::]:8124 (every interface); port 0 takes a free one, and the log says which. "
            "UNIX: /run/x.sock, ./x.sock, unix:/run/x.sock:mode=660 (octal), unix:@name (abstract). Or any endpoint "
            "text of Twisted's: systemd:domain=INET:index=0, ssl:8443:privateKey=key.pem:certKey=cert.pem. Datagrams: "
            "udp:127.0.0.1:5353, udp:[::]:5353, unixgram:/run/x.sock.",
            many=True,
        ),
        Setting(
            "backlog",
            "N",
            atLeastOne("leaves no room for anybody; write 1 or more, such as 511"),
            "511",
            "Connections that the kernel keeps for us until they are accepted; more than net.core.somaxconn are cut to "
            "it. Endpoint texts have their own.",
        ),
        Setting(
            "retry-bind",
            "TIME",
            orNone(parseTime),
            None,
            "While an address is in use, try again for this long (30s, 5m) before giving up; the other places are "
            "served meanwhile. Attempts after the start are made without the privileges that --uid gives up. Not for "
            "datagrams.",
        ),
    ),
    "Who may enter": (
        Setting("limit-connections", "N", orNone(parseCount), None, "Connections at once, on all places together."),
        Setting(
            "limit-per-peer",
            "N",
            orNone(parseCount),
            None,
            "Connections at once from one peer: an IPv4 address, an IPv6 /64 network, or the user at the other end of "
            "a UNIX socket.",
        ),
        Setting(
            "limit-accept-rate",
            "N",
            orNone(parsePace),
            None,
            "New connections a second (100, 100/s), a minute (600/m) or an hour (5000/h). After a silence, one "
            "second's worth may come at once.",
        ),
        Setting(
            "limit-mode",
            "MODE",
            oneOf("refuse", "wait"),
            "refuse",
            "What becomes of a connection over one of these limits: refuse (it is closed at once) or wait (it is not "
            "served until there is room).",
        ),
    ),
    "How fast": (
        Setting(
            "rate-read",
            "RATE",
            orNone(parseRate),
            None,
            "Bytes a second that one connection may send us: 64KiB/s, 10MB/s. K, M, G, T with B are powers of 1000, "
            "with iB of 1024. Nothing is dropped: the peer is made to wait.",
        ),
        Setting(
            "rate-read-total",
            "RATE",
            orNone(parseRate),
            None,
            "Bytes a second that all connections together may send us.",
        ),
        Setting("rate-write", "RATE", orNone(parseRate), None, "Bytes a second that one connection is sent."),
        Setting(
            "rate-write-total",
            "RATE",
            orNone(parseRate),
            None,
            "Bytes a second that all connections together are sent.",
        ),
        Setting(
            "limit-burst",
            "SIZE",
            orNone(parseSize),
            None,
            "Bytes that may pass at once after a silence, for each of these rates: 64KiB, 1MB. Without it, one "
            "second's worth.",
        ),
    ),
    "For how long": (
        Setting(
            "timeout-idle",
            "TIME",
            orNone(parseTime),
            None,
            "Close a connection on which no byte has moved, in either direction, for this long: 30s, 5m, 1.5h, 250ms; "
            "a bare number is seconds.",
        ),
        Setting(
            "timeout-handshake",
            "TIME",
            orNone(parseTime),
            None,
            "Close a connection that has not sent its first byte by then.",
        ),
        Setting(
            "timeout-half-open",
            "TIME",
            orNone(parseTime),
            None,
            "Close a connection of which one side has ended and on which no byte has moved since, for this long.",
        ),
        Setting(
            "max-lifetime",
            "TIME",
            orNone(parseTime),
            None,
            "Close a connection after this long, whatever it does.",
        ),
        Setting(
            "half-open",
            _FLAG,
            parseFlag,
            None,
            "When a peer has ended its sending, leave our side open until the handler ends it. Without this our side "
            "ends by itself after everything has been sent. (A Protocol that provides IHalfCloseableProtocol decides "
            "itself.)",
        ),
        Setting(
            "timeout-graceful-shutdown",
            "TIME",
            parseTime,
            "30s",
            "On SIGTERM or SIGINT nobody is accepted any more; connections get this long to finish, then they are "
            "aborted. 0 aborts them at once.",
        ),
    ),
    "The log": (
        Setting("no-access-log", _FLAG, parseFlag, None, "Do not log a line for each connection that has ended."),
        Setting(
            "log-format",
            "FORMAT",
            oneOf("text", "json"),
            "text",
            "text, or json: each line of the log is one JSON object, Twisted's own lines too.",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen for a service, checked, in the units of the house."""

    listen: tuple[Target | DatagramTarget, ...]
    """Where to listen; at least one."""
    backlog: int
    retryBind: float | None
    """Seconds; ``None`` does not try again."""
    limits: Limits
    halfOpen: bool
    grace: float
    """Seconds that connections have to finish when the service stops."""
    accessLog: bool
    logFormat: Literal["text", "json"]


class CommandOptions(usage.Options):
    """
    The options of one command; a subclass says what the command is.

    After ``parseOptions`` the attribute ``chosen`` has the value of each setting by its name.
    """

    #: The command's name, as after ``net``.
    command: ClassVar[str]
    #: What it does: the first lines of its help text.
    purpose: ClassVar[str]
    #: What stands behind the options in the first line of its help text.
    arguments: ClassVar[str] = ""
    #: Lines of the help text, each with what it does: (command line after ``net``, meaning).
    examples: ClassVar[Sequence[tuple[str, str]]] = ()
    #: How ``twistd`` is called in them.
    twistd: ClassVar[str] = "twistd -n --pidfile="
    #: Settings by heading.
    settings: ClassVar[Mapping[str, tuple[Setting, ...]]]

    chosen: dict[str, Any]

    def __init__(self) -> None:
        # usage.Options looks for these on the class.
        cls = type(self)
        if "optParameters" not in cls.__dict__:
            own = [one for one in cls.everySetting() if not one.many]
            cls.optParameters = [  # type: ignore[attr-defined]
                [one.name, None, None, one.help] for one in own if not one.flag
            ]
            cls.optFlags = [[one.name, None, one.help] for one in own if one.flag]  # type: ignore[attr-defined]
        super().__init__()  # type: ignore[no-untyped-call]
        #: What was given for the settings that may be given repeatedly, by their names.
        self.listed: dict[str, list[str]] = {}
        self.chosen = {}
        #: Which reactor runs, once it has been chosen; None without a program that runs one.
        self.reactor: Choice | None = None

    @classmethod
    def everySetting(cls) -> list[Setting]:
        """Every setting of the command, in the order of the help text."""
        return [one for group in cls.settings.values() for one in group]

    @property
    def whole(self) -> str:
        """What is being run, for messages: ``"net echo"``."""
        return f"net {self.command}"

    def opt_version(self) -> NoReturn:
        """Show the version and exit."""
        showVersion()

    def opt_help(self) -> NoReturn:
        """Show this text and exit."""
        print(self)
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse what follows the command's name; options and arguments may come in any order."""
        words = list(options or ())
        if words[-2:-1] != ["--_shell-completion"]:
            try:
                found, rest = getopt.gnu_getopt(words, self.shortOpt, self.longOpt)
            except getopt.GetoptError as error:
                fail(self.whole, self._explain(error))
            words = [f"{name}={value}" if self._takesValue(name) else name for name, value in found]
            words += ["--", *rest]
        try:
            super().parseOptions(words)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            fail(self.whole, f"{str(error).rstrip('.')}; 'net {self.command} --help' says what there is")

    def _takesValue(self, name: str) -> bool:
        return f"{name[2:]}=" in self.longOpt

    def _explain(self, error: getopt.GetoptError) -> str:
        name = error.opt
        shown = f"--{name}" if len(name) > 1 else f"-{name}"
        message = error.msg
        if "requires argument" in message:
            placeholder = next((one.placeholder for one in self.everySetting() if one.name == name), "VALUE")
            return f"{shown} lacks its value; write {shown} {placeholder}"
        if "must not have an argument" in message:
            return f"{shown} takes no value; write {shown} alone"
        if "not a unique prefix" in message:
            those = ", ".join(f"--{one.name}" for one in self.everySetting() if one.name.startswith(name))
            return f"{shown} is the beginning of several options ({those}); write one of them in full"
        before = self.parent
        while before is not None and name not in before.synonyms:
            before = before.parent
        if before is not None:
            return f"{shown} is an option of {program(self)} itself; write it before 'net'"
        near = difflib.get_close_matches(name, [one.name for one in self.everySetting()], 1)
        hint = f"; did you mean --{near[0]}?" if near else f"; '{self.whole} --help' says which there are"
        return f"there is no option {shown}{hint}"

    def parseArgs(self, *arguments: str) -> None:
        """A command takes options only, unless it says otherwise."""
        if arguments:
            fail(self.whole, f"{arguments[0]!r} is one word too many; the command takes options only")

    def postOptions(self) -> None:
        """Read every text that was given, here or in the environment."""
        self.chosen = {one.name: self._valueOf(one, os.environ) for one in self.everySetting()}

    def _valueOf(self, setting: Setting, environment: Mapping[str, str]) -> Any:
        given: Sequence[str] = ()
        where = f"--{setting.name}"
        if setting.many:
            given = self.listed.get(setting.name, ())
        elif setting.flag:
            given = ["on"] if self[setting.name] else ()
        elif self[setting.name] is not None:
            given = [self[setting.name]]
        if not given:
            text = environment.get(setting.variable, "").strip()
            if text:
                given = text.split() if setting.many else [text]
                where = f"the environment variable {setting.variable}"
            elif setting.default is not None:
                given = [setting.default]
        values = []
        for text in given:
            try:
                values.append(setting.read(text))
            except NetError as error:
                fail(self.whole, f"{where}: {error.strerror}")
        if setting.many:
            return tuple(values)
        return values[0] if values else (False if setting.flag else None)

    def misspelt(self, environment: Mapping[str, str]) -> list[str]:
        """A sentence for each variable that is nearly an option: its author believes that a limit is in force."""
        known = [one.removeprefix(PREFIX) for one in (VARIABLE, *(one.variable for one in self.everySetting()))]
        found = []
        for name in sorted(environment):
            word = name.removeprefix(PREFIX)
            near = difflib.get_close_matches(word, known, 1, LIKENESS) if name.startswith(PREFIX) else []
            if near and near[0] != word:
                found.append(f"the environment variable {name} is no option; it may be meant for {PREFIX}{near[0]}")
        return found

    # The help text

    def __str__(self) -> str:
        return self.helpText(int(os.environ.get("COLUMNS") or WIDTH))

    def getUsage(self, width: int | None = None) -> str:
        """The help text; asked for by ``twistd`` when something of its own is wrong."""
        return self.helpText(width or WIDTH)

    def helpText(self, width: int) -> str:
        """What ``--help`` shows, in lines of at most *width* characters where words allow it."""
        width = max(width, 40)
        name = program(self)
        usage = f"Usage: {name} [options of {name}] {self.whole} [options] {self.arguments}"
        lines = [usage.rstrip(), ""]
        for paragraph in self.purpose.split("\n\n"):
            lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
        for heading, settings in self.settings.items():
            lines.append(f"{heading}:")
            for one in settings:
                lines += _describe(one, width)
            lines.append("")
        lines.append("Also:")
        lines += ["  --help", "      Show this text and exit.", "  --version", "      Show the version and exit.", ""]
        lines += textwrap.wrap(
            "The names in brackets are environment variables: they are read when the option is not given. Several "
            "values are separated by blanks, flags are 1 or 0, and 'none' is no limit.",
            width,
        )
        lines += ["", *textwrap.wrap(self._ofReactors(name), width, break_on_hyphens=False)]
        if self.examples:
            lines += ["", "Examples:"]
            run = name if name == "twist" else self.twistd
            for words, meaning in self.examples:
                lines += textwrap.wrap(meaning, width, initial_indent="  # ", subsequent_indent="  # ")
                lines.append(f"  {run} net {words}")
        return "\n".join(lines)

    def _ofReactors(self, name: str) -> str:
        """What the help text of a program says of reactors."""
        which = "--help-reactors" if name == "twistd" else "--help"
        return (
            f"The reactor is uvloop's, where uvloop is installed, unless '{name} --reactor NAME' or the environment "
            f"variable {VARIABLE} names another one; '{name} {which}' says which there are."
        )


class ServiceOptions(CommandOptions):
    """The options of a command that listens; ``choices`` has what was chosen."""

    settings = SETTINGS

    def opt_listen(self, address: str) -> None:
        """Where to listen; give it once for each place."""
        self.listed.setdefault("listen", []).append(address)

    def postOptions(self) -> None:
        """Read every text that was given, here or in the environment."""
        super().postOptions()
        self._refuseTwice(self.chosen["listen"])
        self._refuseToRetry(self.chosen["listen"])
        self._checkLog()

    def _refuseTwice(self, targets: tuple[Target | DatagramTarget, ...]) -> None:
        for index, target in enumerate(targets):
            inner = target.target if isinstance(target, DatagramTarget) else target
            free = isinstance(inner, TcpTarget | UdpTarget) and inner.port == 0
            if target in targets[:index] and not free:
                fail(self.whole, f"{target} is given twice as a place to listen; leave one out")

    def _refuseToRetry(self, targets: tuple[Target | DatagramTarget, ...]) -> None:
        for target in targets:
            if isinstance(target, DatagramTarget) and self.chosen["retry-bind"] is not None:
                fail(self.whole, f"--retry-bind is not for datagrams; leave it out, or serve {target} by itself")

    def _checkLog(self) -> None:
        root = rootOf(self)
        if self.chosen["log-format"] == "json" and root is not None and root.get("syslog"):
            fail(self.whole, "--log-format json writes to stdout or to --logfile; leave out twistd's --syslog")

    @property
    def choices(self) -> Choices:
        """What was chosen of the settings that every service has."""
        value = self.chosen.__getitem__
        return Choices(
            listen=value("listen"),
            backlog=value("backlog"),
            retryBind=value("retry-bind"),
            limits=Limits(
                connections=value("limit-connections"),
                perPeer=value("limit-per-peer"),
                acceptRate=value("limit-accept-rate"),
                readRate=value("rate-read"),
                readRateTotal=value("rate-read-total"),
                writeRate=value("rate-write"),
                writeRateTotal=value("rate-write-total"),
                burst=value("limit-burst"),
                idleTimeout=value("timeout-idle"),
                handshakeTimeout=value("timeout-handshake"),
                halfOpenTimeout=value("timeout-half-open"),
                lifetime=value("max-lifetime"),
                mode=value("limit-mode"),
            ),
            halfOpen=self.chosen.get("half-open", False),
            grace=value("timeout-graceful-shutdown"),
            accessLog=not value("no-access-log"),
            logFormat=value("log-format"),
        )


def _describe(setting: Setting, width: int) -> list[str]:
    head = f"  --{setting.name}"
    if not setting.flag:
        head += f" {setting.placeholder}"
    text = setting.help
    if setting.default is not None:
        text += f" Default: {setting.default}"
    elif not setting.flag:
        text += " Default: none"
    wrapped = textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
    return [f"{head}  [{setting.variable}]", *wrapped]


def rootOf(options: usage.Options) -> usage.Options | None:
    """The options of the program that runs us, ``twistd``'s or ``twist``'s; ``None`` without one."""
    root = options.parent
    while root is not None and root.parent is not None:
        root = root.parent
    return root


def program(options: usage.Options) -> str:
    """The name of the program that runs us: ``"twistd"`` or ``"twist"``."""
    # By name: importing twist's options would import what only twist needs.
    return "twist" if type(rootOf(options)).__name__ == "TwistOptions" else "twistd"


def showVersion() -> NoReturn:
    """Say on stdout which version runs, of us, of Twisted and of Python, and exit with status 0."""
    from twisted import __version__ as twisted

    try:
        ours = importlib.metadata.version("twisted-net")
    except importlib.metadata.PackageNotFoundError:
        ours = "(not installed: run from its sources)"
    print(f"twisted_net {ours}, Twisted {twisted}, Python {sys.version.split()[0]}")
    raise SystemExit(0)
