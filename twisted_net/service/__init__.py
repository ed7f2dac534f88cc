"""
The launcher: ``twistd -n --pidfile= net echo|discard|serve|forward [options]``, ``twistd net connect ADDRESS``,
and the same under ``twist``.

The plugin (``twisted/plugins/twisted_net_commands.py``) names :class:`Options` and :func:`makeService`. One file for
each command; :mod:`~twisted_net.service.options` has what they share, :mod:`~twisted_net.service.launch` what happens
then.
"""

from __future__ import annotations

import difflib
import getopt
import os
from collections.abc import Sequence
from typing import Final, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from twisted_net.errors import OptionError
from twisted_net.service import connect, discard, echo, forward, serve
from twisted_net.service.options import CommandOptions, fail, program, rootOf, showVersion
from twisted_net.service.reactors import choose

__all__ = ["Options", "makeService"]

COMMANDS: Final = {"connect": connect, "discard": discard, "echo": echo, "forward": forward, "serve": serve}

_SUMMARIES: Final = {
    "connect": "Join stdin and stdout to a connection, as nc does.",
    "discard": "Read everything and answer nothing (RFC 863).",
    "echo": "Send everything back (RFC 862).",
    "forward": "Forward connections and datagrams to targets: balance, health, faults.",
    "serve": "Serve connections with a handler of yours: MODULE:HANDLER.",
}


class Options(usage.Options):
    """The options of ``net`` itself: which command, and nothing else but ``--help`` and ``--version``."""

    subCommands: Final = [[name, None, module.Options, _SUMMARIES[name]] for name, module in COMMANDS.items()]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def opt_version(self) -> NoReturn:
        """Show the version and exit."""
        showVersion()

    def opt_help(self) -> NoReturn:
        """Show this text and exit."""
        print(self)
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse what follows ``net``."""
        words = list(options or ())
        if words[-2:-1] != ["--_shell-completion"]:
            self._checkCommand(words)
        super().parseOptions(words)  # type: ignore[no-untyped-call]

    def postOptions(self) -> None:
        """Everything has been read, the command's options too: choose the reactor, for a program that runs one."""
        root = rootOf(self)
        command = self.subOptions
        if root is None or not isinstance(command, CommandOptions):
            return
        try:
            command.reactor = choose(root, os.environ)
        except OptionError as error:
            fail(command.whole, error.strerror)

    def _checkCommand(self, words: Sequence[str]) -> None:
        try:
            asked, rest = getopt.getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            shown = f"--{error.opt}" if len(error.opt) > 1 else f"-{error.opt}"
            fail("net", f"{shown} stands before the command; options come after it, as in: net echo --listen :8124")
        if asked:
            return  # --help or --version
        known = ", ".join(COMMANDS)
        if not rest:
            fail("net", f"name a command ({known}), as in: {program(self)} net echo; 'net --help' says what they do")
        if rest[0] not in COMMANDS:
            near = difflib.get_close_matches(rest[0], list(COMMANDS), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {known}"
            fail("net", f"there is no command {rest[0]!r}; {hint}")

    def __str__(self) -> str:
        name = program(self)
        lines = [f"Usage: {name} [options of {name}] net COMMAND [options]", ""]
        lines += ["Run a TCP, UNIX or UDP service, or connect to one.", ""]
        lines += ["Commands:", *(f"  {name:<8}  {text}" for name, text in _SUMMARIES.items()), ""]
        lines += ["Options come after the command; 'net COMMAND --help' explains them. net itself has only:"]
        lines += ["  --help     Show this text and exit.", "  --version  Show the version and exit."]
        return "\n".join(lines)

    def getUsage(self, width: int | None = None) -> str:
        """The help text; asked for by ``twistd`` when something of its own is wrong."""
        return str(self)


def makeService(options: Options) -> IService:
    """Return the service of the command that was named; one that listens is bound to its places already."""
    assert options.subCommand is not None, "parseOptions refuses to go without"
    return COMMANDS[options.subCommand].makeService(options.subOptions)  # type: ignore[no-any-return]
