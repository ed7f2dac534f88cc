"""
The operator's own code: found by name, and recognised for what it is.

``MODULE:HANDLER`` names a module that can be imported and, behind the colon, an attribute of it, with dots for
attributes of attributes. :func:`load` imports and looks it up; :func:`recognise` says what it found: a Twisted factory,
or a function that takes a :class:`~twisted_net.net.Socket`, or a coroutine function that takes a
:class:`~twisted_net.streams.Stream`.

Errors come in two kinds. A mistake in the *name* is ours to explain: one sentence. An exception in the module is
somebody's own, and is shown as theirs: with their part of the traceback and nothing of ours, since whoever is called at
night has to find a line in a file of theirs. Both are a :class:`LoadError`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NoReturn

from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory

import twisted
from twisted_net.errors import OptionError

__all__ = ["LoadError", "call", "isCoroutineFunction", "load", "recognise", "recogniseReceiver", "theirTraceback"]

_KINDS: Final = (
    "a function that takes a Socket, an async def that takes a Stream, a Protocol class, or a Factory class or instance"
)

_RECEIVERS: Final = "a function that takes (data, address, socket), or an async def that takes a UdpSocket"

#: Where nobody's mistakes are theirs: in this package, in Twisted's (which calls a factory's methods), in importing.
_NOT_THEIRS: Final = (
    os.path.dirname(os.path.dirname(__file__)) + os.sep,
    os.path.dirname(twisted.__file__) + os.sep,
    os.path.dirname(importlib.__file__) + os.sep,
    "<frozen importlib",
)


class LoadError(OptionError):
    """A handler cannot be had; ``strerror`` is the sentence."""

    theirs: str = ""
    """Their part of the traceback, to be shown before the sentence; ``""`` when nothing of theirs raised."""


def load(text: str, folder: str) -> Any:
    """
    Import and return what ``MODULE:HANDLER`` names.

    :param folder: comes first on ``sys.path``, from now on.
    :raises LoadError: there is no such module or attribute, or the module raised.
    """
    module, colon, path = text.partition(":")
    if not colon or not module or not path:
        _refuse(f"{text!r} names no handler; write MODULE:HANDLER, such as hello:greet for greet in hello.py")
    if "/" in module or module.endswith(".py"):
        stem = os.path.basename(module).removesuffix(".py")
        place = os.path.dirname(module)
        hint = f" with --app-dir {place}" if place else ""
        _refuse(f"{module!r} is a file; write the name of the module, {stem}:{path}{hint}")
    for part in (*module.split("."), *path.split(".")):
        if not part.isidentifier():
            _refuse(f"{text!r} names no handler: {part!r} is no Python name; write MODULE:HANDLER, such as hello:greet")
    folder = os.path.abspath(folder)
    if not os.path.isdir(folder):
        _refuse(f"--app-dir {folder}: there is no such folder; make it, or name another")
    sys.path.insert(0, folder)
    found = _import(module, folder)
    _checkPlace(found, folder)
    walked = module
    for part in path.split("."):
        found = _attribute(found, part, walked)
        walked += ("." if ":" in walked else ":") + part
    return found


def _import(module: str, folder: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        theirs = _trimmed(error)
        parents = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
        if theirs is None and error.name in parents:
            what = "module" if error.name == module else f"package {error.name!r}, and so no module"
            _refuse(
                f"there is no {what} {module!r} in {folder} or elsewhere on Python's path; "
                "correct the name, or name its folder with --app-dir"
            )
        _refuseTheirs(error, f"the module {module!r} fails to import")
    except (Exception, SystemExit) as error:
        _refuseTheirs(error, f"the module {module!r} fails to import")


def _checkPlace(module: Any, folder: str) -> None:
    """Refuse another module of the same name that was there first: ``site`` and ``test`` are Python's."""
    first = module.__name__.partition(".")[0]
    theirs = [os.path.join(folder, first + end) for end in (".py", "/__init__.py")]
    file = getattr(sys.modules[first], "__file__", None) or "built into Python"
    hidden = [one for one in theirs if os.path.exists(one)]
    if hidden and not any(os.path.exists(file) and os.path.samefile(one, file) for one in hidden):
        _refuse(f"the name {first!r} is taken by another module ({file}), which hides {hidden[0]}; rename yours")


def _attribute(owner: Any, name: str, walked: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        names = [one for one in dir(owner) if not one.startswith("_")]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else "correct the name"
        _refuse(f"{walked!r} has no {name!r}; {hint}")


def call(factory: Any, text: str) -> Any:
    """
    Return what ``factory()`` returns, for ``--factory``.

    :raises LoadError: it is nothing to call without arguments, it is a coroutine function, or it raised.
    """
    if not callable(factory):
        _refuse(f"{text} is {_shown(factory)}, which --factory cannot call; leave out --factory, or name a function")
    if isCoroutineFunction(factory):
        _refuseToWait(f"{text} is a coroutine function")
    if not _accepts(factory):
        _refuse(f"{text} needs arguments, and --factory calls it without any; give each of them a default")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        _refuseTheirs(error, f"--factory: {text} raised")
    if inspect.iscoroutine(made):
        made.close()
        _refuseToWait(f"{text}() returned a coroutine")
    return made


def recognise(thing: Any, text: str) -> IProtocolFactory | Callable[[Any], object]:
    """
    Return a Twisted factory for a Protocol or a Factory, and a function that takes a Socket or a Stream as it is.

    :param text: what it was called on the command line, for messages.
    :raises LoadError: it is none of these.
    """
    if isinstance(thing, type) and IProtocolFactory.implementedBy(thing):
        return _made(thing, text)
    if IProtocolFactory.providedBy(thing):
        factory: IProtocolFactory = thing
        return factory
    if isinstance(thing, type) and IProtocol.implementedBy(thing):
        factory = Factory.forProtocol(thing)  # type: ignore[type-var]
        return factory
    if IProtocol.providedBy(thing):
        _refuse(
            f"{text} is one Protocol, which can serve one connection only; name its class, {type(thing).__name__}, "
            "or a Factory"
        )
    _checkFunction(thing, text, _KINDS)
    if not _accepts(thing, None):
        hint = "; if it makes the handler, add --factory" if _accepts(thing) else ""
        given = "Stream" if isCoroutineFunction(thing) else "Socket"
        _refuse(f"{text} cannot be called with one argument, the {given}{hint}; a handler is {_KINDS}")
    handler: Callable[[Any], object] = thing
    return handler


def recogniseReceiver(thing: Any, text: str) -> Callable[..., Any]:
    """
    Return a handler of datagrams as it is: a function that takes (data, address, socket), or a coroutine function that
    takes a UdpSocket.

    :param text: what it was called on the command line, for messages.
    :raises LoadError: it is neither.
    """
    if isinstance(thing, type) or IProtocolFactory.providedBy(thing) or IProtocol.providedBy(thing):
        _refuse(f"{text} is {_shown(thing)}, which cannot serve datagrams; a handler of datagrams is {_RECEIVERS}")
    _checkFunction(thing, text, _RECEIVERS)
    arguments = (None,) if isCoroutineFunction(thing) else (None, None, None)
    if not _accepts(thing, *arguments):
        given = "one argument, the UdpSocket" if len(arguments) == 1 else "three arguments: data, address, socket"
        hint = "; if it makes the handler, add --factory" if _accepts(thing) else ""
        _refuse(f"{text} cannot be called with {given}{hint}; a handler of datagrams is {_RECEIVERS}")
    receiver: Callable[..., Any] = thing
    return receiver


def _checkFunction(thing: Any, text: str, kinds: str) -> None:
    """Refuse what cannot be called, or does nothing when it is."""
    if not callable(thing):
        _refuse(f"{text} is {_shown(thing)}; a handler is {kinds}")
    if _isAny(inspect.isasyncgenfunction, thing):
        _refuse(f"{text} is an asynchronous generator: calling it runs nothing of it; take out its yield")
    if inspect.isgeneratorfunction(thing):
        _refuse(
            f"{text} is a generator function: calling it runs nothing of it; decorate it with "
            "twisted.internet.defer.inlineCallbacks"
        )


def _made(kind: Any, text: str) -> IProtocolFactory:
    if not _accepts(kind):
        _refuse(
            f"{text} is a Factory class whose constructor needs arguments; write a function that makes one, and name "
            "it with --factory"
        )
    try:
        factory: IProtocolFactory = kind()
    except (Exception, SystemExit) as error:
        _refuseTheirs(error, f"{text}() raised")
    return factory


def isCoroutineFunction(thing: Any) -> bool:
    """Whether calling *thing* makes a coroutine: an ``async def``, or an object whose ``__call__`` is one."""
    return _isAny(inspect.iscoroutinefunction, thing)


def _isAny(kind: Callable[[Any], bool], thing: Any) -> bool:
    """Whether *thing*, or what is called when it is called, is of a *kind* of function."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return kind(thing) or kind(inspect.getattr_static(type(thing), "__call__", None))


def _refuseToWait(what: str) -> NoReturn:
    _refuse(
        f"{what}, and --factory cannot wait: nothing runs yet; leave out --factory if that is the handler itself, or "
        "write a plain function that returns the handler"
    )


def _accepts(thing: Any, *arguments: object) -> bool:
    try:
        inspect.signature(thing).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def _shown(thing: object) -> str:
    return f"of type {type(thing).__name__}"


def _refuse(sentence: str) -> NoReturn:
    raise LoadError(sentence) from None


def _refuseTheirs(error: BaseException, what: str) -> NoReturn:
    failed = LoadError(f"{what}: its own error stands above; correct it there")
    failed.theirs = theirTraceback(error)
    raise failed from None


def theirTraceback(error: BaseException) -> str:
    """The traceback as Python would print it, beginning where their code does."""
    return "".join(traceback.format_exception(type(error), error, _trimmed(error)))


def _trimmed(error: BaseException) -> TracebackType | None:
    """The part of the traceback that begins with the first frame of theirs; ``None`` when there is none."""
    rest = error.__traceback__
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        rest = rest.tb_next
    return rest
