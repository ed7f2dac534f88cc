"""
Which reactor runs.

The first of these that there is:

1. the one that ``--reactor`` of ``twistd`` or ``twist`` names: they install it as soon as they read the word;
2. one that is there already: somebody has imported ``twisted.internet.reactor``, and there can be no other one;
3. the one that the environment variable names;
4. uvloop's, where uvloop is installed and works;
5. Twisted's default.

It is chosen when the last option of the command has been read and found right. That is before the handler's module is
imported, which may import the reactor; before ``twist`` installs the default, as soon as it has parsed its options, and
``twistd``, once the service is made; and after what ends the program by itself, ``--help`` or a mistake.

The reactor of uvloop is named by the short name of its plugin, and never imported from here.

A loop that is made now is a daemon's in the end: ``twistd`` forks twice, later. libuv's loop survives that like
Twisted's own reactors do. Its descriptors are inherited, nothing runs in the two parents any more, and they leave by
``os._exit``, so that nobody closes anything of what they share.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor

from twisted_net.errors import OptionError

__all__ = ["VARIABLE", "Choice", "choose", "nameOf"]

#: The environment variable that names the reactor.
VARIABLE: Final = "TWISTED_NET_REACTOR"

#: The reactor that is taken when nobody names one, and the module that it needs.
PREFERRED: Final = "uvloop"

#: How to get it.
REMEDY: Final = "pip install twisted-net[uvloop]"

_GLOBAL: Final = "twisted.internet.reactor"
_LAST_STANDARD: Final = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """Which reactor runs, for the log."""

    name: str
    """Its short name, as ``twistd --help-reactors`` has it; that of its class when it has none."""
    why: str = ""
    """Why this one; empty when nobody named one, and it is the preferred one."""
    broken: bool = False
    """Whether the preferred one is installed, and does not work."""


def choose(root: Mapping[str, Any], environment: Mapping[str, str]) -> Choice:
    """
    Install a reactor, unless there is one; from now on ``twisted.internet.reactor`` can be imported.

    :param root: the options of ``twistd`` or ``twist``.
    :param environment: where the variable is looked for.
    :raises OptionError: the variable names none that there is, or one that does not work here.
    """
    asked = environment.get(VARIABLE, "").strip()
    if root.get("reactor"):
        return Choice(_running(), "named by --reactor")
    if _GLOBAL in sys.modules:
        name = _running()
        late = f", too early for {VARIABLE}={asked}" if asked not in ("", name) else ""
        return Choice(name, f"a reactor was there already{late}")
    _keepStandard()
    if asked:
        _install(asked)
        return Choice(_running(), VARIABLE)
    if importlib.util.find_spec(PREFERRED) is None:
        return Choice(_running(), f"uvloop is not installed: {REMEDY}")
    try:
        installReactor(PREFERRED)
    except Exception as error:
        return Choice(_running(), f"uvloop is installed, but cannot be used: {_cause(error)}", broken=True)
    return Choice(_running())


def nameOf(reactor: object) -> str:
    """The short name of a reactor, as ``twistd --help-reactors`` has it; that of its class when it has none."""
    module = f"{type(reactor).__module__}."
    for one in getReactorTypes():
        if module.startswith(f"{_moduleOf(one)}."):
            return str(one.shortName)
    return type(reactor).__name__


def _running() -> str:
    """The name of the global reactor; Twisted's default becomes it when there is none."""
    from twisted.internet import reactor

    return nameOf(reactor)


def _install(name: str) -> None:
    """Install the reactor that the variable names."""
    try:
        installReactor(name)
    except NoSuchReactor:
        raise OptionError(
            f"the environment variable {VARIABLE}: there is no reactor {name!r}; write one of {_usable(name)}"
        ) from None
    except Exception as error:
        raise OptionError(
            f"the environment variable {VARIABLE}: the reactor {name} cannot be used here ({_cause(error)}); "
            f"write one of {_usable(name)}"
        ) from error


def _usable(unless: str) -> str:
    """The names of those reactors whose modules can be imported, as ``twistd --help-reactors`` finds them."""
    names = set()
    for one in getReactorTypes():
        # What fails is another system's, or lacks its library.
        with contextlib.suppress(Exception):
            importlib.import_module(_moduleOf(one))
            names.add(str(one.shortName))
    return ", ".join(sorted(names - {unless}))


def _moduleOf(installer: object) -> str:
    """The module of a reactor, which its plugin names where it is of the class that Twisted has for them."""
    return str(getattr(installer, "moduleName", ""))


def _cause(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, NoSuchReactor):
        return "Twisted finds no plugin for its reactor"
    return " ".join(str(error).split()) or type(error).__name__


def _keepStandard() -> None:
    """
    Open ``/dev/null`` in the place of what is closed of stdin, stdout and stderr.

    Otherwise the reactor's first descriptors are made in their places, over which a daemon puts ``/dev/null``: epoll
    then reports for ever that something is wrong, and libuv does not run at all.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        pass
    os.close(number)
