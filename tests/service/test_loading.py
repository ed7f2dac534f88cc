"""The operator's own code, found by name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from twisted_net.service.loading import (
    LoadError,
    call,
    isCoroutineFunction,
    load,
    recognise,
    recogniseReceiver,
    theirTraceback,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for modules; what is imported from it is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    place = folder / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(dedent(text))


def refusal(text: str, folder: Path) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(text, str(folder))
    return caught.value


# Finding it


def test_found(folder: Path) -> None:
    write(folder, "tnfound.py", "class Outer:\n    class Inner:\n        def greet(client): pass\nplain = 7\n")
    assert load("tnfound:plain", str(folder)) == 7
    assert load("tnfound:Outer.Inner.greet", str(folder)).__name__ == "greet"
    assert sys.path[0] == str(folder)


def test_relativeFolders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "tnpackage/__init__.py", "")
    write(folder, "tnpackage/tninner.py", "x = 1")
    monkeypatch.chdir(folder)
    assert load("tnpackage.tninner:x", ".") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", "'hello' names no handler; write MODULE:HANDLER"),
        (":greet", "':greet' names no handler"),
        ("hello:", "'hello:' names no handler"),
        ("hello.py:greet", "'hello.py' is a file; write the name of the module, hello:greet"),
        ("/srv/hello.py:greet", "write the name of the module, hello:greet with --app-dir /srv"),
        (".hello:greet", "'' is no Python name"),
        ("hello:gr-eet", "'gr-eet' is no Python name"),
        ("tnmissing:greet", "there is no module 'tnmissing' in "),
        ("tnmissing.inner:greet", "there is no package 'tnmissing', and so no module 'tnmissing.inner' in "),
        ("json.nothing:greet", "there is no module 'json.nothing' in "),
        ("json:decodr", "'json' has no 'decodr'; did you mean 'decoder'?"),
        ("json:zzz", "'json' has no 'zzz'; correct the name"),
        ("json:decoder.JSONDecoder.zzz", "'json:decoder.JSONDecoder' has no 'zzz'"),
    ],
)
def test_notFound(folder: Path, text: str, told: str) -> None:
    error = refusal(text, folder)
    assert told in error.strerror
    assert error.theirs == ""


@pytest.mark.parametrize("name", ["site.py", "sys.py", "json/__init__.py"])
def test_aNameThatIsTaken(folder: Path, name: str) -> None:
    write(folder, name, "handler = print\n")
    module = name.partition("/")[0].removesuffix(".py")
    error = refusal(f"{module}:handler", folder)
    assert error.strerror.startswith(f"the name {module!r} is taken by another module (")
    assert error.strerror.endswith(f", which hides {folder}/{name}; rename yours")


def test_noFolder(tmp_path: Path) -> None:
    assert "there is no such folder; make it, or name another" in refusal("a:b", tmp_path / "x").strerror


@given(text=st.text(st.characters(exclude_characters=":")) | st.text(":.ab1 /", max_size=8))
def test_anyText(text: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(text, "/nowhere")
    assert "; " in caught.value.strerror


# Theirs


def test_theirErrors(folder: Path) -> None:
    write(folder, "tnraises.py", "def compute():\n    1 / 0\n\ncompute()\n")
    error = refusal("tnraises:x", folder)
    assert error.strerror == "the module 'tnraises' fails to import: its own error stands above; correct it there"
    lines = error.theirs.splitlines()
    assert lines[1] == f'  File "{folder}/tnraises.py", line 4, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_theirSyntax(folder: Path) -> None:
    write(folder, "tnsyntax.py", "def compute(:\n")
    theirs = refusal("tnsyntax:x", folder).theirs
    assert theirs.startswith(f'  File "{folder}/tnsyntax.py", line 1')
    assert "Traceback" not in theirs


def test_theirMissingModules(folder: Path) -> None:
    write(folder, "tnneeds.py", "import tnabsent\n")
    assert "No module named 'tnabsent'" in refusal("tnneeds:x", folder).theirs
    write(folder, "tnitself.py", "import tnitself.inner\n")
    assert "'tnitself' is not a package" in refusal("tnitself:x", folder).theirs


def test_theirExit(folder: Path) -> None:
    write(folder, "tnexits.py", "import sys\nsys.exit('bye')\n")
    assert refusal("tnexits:x", folder).theirs.endswith("SystemExit: bye\n")


# Recognising it

ADDRESS = UNIXAddress(None)


def greet(client: object) -> None:
    """A handler."""


class Shout(Protocol):
    """A protocol."""


class Shouting(Factory):
    """A factory."""


class Needy(Factory):
    def __init__(self, argument: object) -> None:
        """It needs something."""


class Raising(Factory):
    def __init__(self) -> None:
        raise KeyError("theirs")


class Session:
    """A class that takes a socket."""

    def __init__(self, client: object) -> None:
        self.client = client


class Waiting:
    async def __call__(self, client: object) -> None:
        """A handler that waits."""


async def wait(client: object) -> None:
    """A handler that waits."""


async def waitFor(client: object) -> Any:
    """An asynchronous generator."""
    yield


async def makeLater() -> type[Shout]:
    return Shout


def generate(client: object) -> Any:
    yield


def make() -> type[Shout]:
    return Shout


@inlineCallbacks
def decorated(client: object) -> Any:
    yield


# The signature of dict is unknown to Python itself.
HANDLERS = [greet, Session, decorated, functools.partial(lambda a, b: None, 1), print, [].append, dict]
COROUTINES = [wait, Waiting(), Waiting().__call__, functools.partial(wait), functools.partial(Waiting())]


@pytest.mark.parametrize("thing", HANDLERS)
def test_handlers(thing: Any) -> None:
    assert recognise(thing, "a:b") is thing
    assert not isCoroutineFunction(thing)


@pytest.mark.parametrize("thing", COROUTINES)
def test_coroutines(thing: Any) -> None:
    assert recognise(thing, "a:b") is thing
    assert isCoroutineFunction(thing)


def test_factories() -> None:
    factory = Shouting()
    assert recognise(factory, "a:b") is factory
    assert isinstance(recognise(Shouting, "a:b"), Shouting)
    made: Any = recognise(Shout, "a:b")
    assert IProtocolFactory.providedBy(made)
    assert isinstance(made.buildProtocol(ADDRESS), Shout)


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (waitFor, "a:b is an asynchronous generator: calling it runs nothing of it"),
        (functools.partial(waitFor), "a:b is an asynchronous generator"),
        (generate, "is a generator function: calling it runs nothing of it"),
        (Shout(), "is one Protocol, which can serve one connection only; name its class, Shout"),
        (Needy, "is a Factory class whose constructor needs arguments"),
        (7, "a:b is of type int; a handler is a function that takes a Socket, an async def that takes a Stream,"),
        (make, "cannot be called with one argument, the Socket; if it makes the handler, add --factory"),
        (lambda a, b: None, "cannot be called with one argument, the Socket; a handler is a function"),
        (makeLater, "cannot be called with one argument, the Stream; if it makes the handler, add --factory"),
    ],
)
def test_noHandler(thing: Any, told: str) -> None:
    with pytest.raises(LoadError) as caught:
        recognise(thing, "a:b")
    assert told in caught.value.strerror


def receive(data: object, address: object, socket: object) -> None:
    """A handler of datagrams."""


@pytest.mark.parametrize("thing", [receive, functools.partial(lambda a, b, c, d: None, 1), *COROUTINES])
def test_receivers(thing: Any) -> None:
    assert recogniseReceiver(thing, "a:b") is thing


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (greet, "a:b cannot be called with three arguments: data, address, socket; a handler of datagrams is a fun"),
        (make, "with three arguments: data, address, socket; if it makes the handler, add --factory"),
        (makeLater, "a:b cannot be called with one argument, the UdpSocket; if it makes the handler, add --factory"),
        (waitFor, "a:b is an asynchronous generator"),
        (generate, "a:b is a generator function"),
        (7, "a:b is of type int; a handler is a function that takes (data, address, socket), or an async def"),
        (Shout, "a:b is of type type, which cannot serve datagrams"),
        (Shouting(), "a:b is of type Shouting, which cannot serve datagrams; a handler of datagrams is a function"),
        (Shout(), "a:b is of type Shout, which cannot serve datagrams"),
    ],
)
def test_noReceiver(thing: Any, told: str) -> None:
    with pytest.raises(LoadError) as caught:
        recogniseReceiver(thing, "a:b")
    assert told in caught.value.strerror


def test_aFactoryThatRaises() -> None:
    with pytest.raises(LoadError) as caught:
        recognise(Raising, "a:b")
    assert caught.value.strerror.startswith("a:b() raised: its own error")
    assert caught.value.theirs.endswith("KeyError: 'theirs'\n")


# --factory


def test_call() -> None:
    assert call(make, "a:make") is Shout


def raises() -> None:
    raise KeyError("theirs")


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (7, "a:b is of type int, which --factory cannot call"),
        (greet, "a:b needs arguments, and --factory calls it without any"),
        (makeLater, "a:b is a coroutine function, and --factory cannot wait"),
        (lambda: makeLater(), "a:b() returned a coroutine"),
        (raises, "--factory: a:b raised: its own error stands above"),
    ],
)
def test_noCall(thing: Any, told: str) -> None:
    with pytest.raises(LoadError) as caught:
        call(thing, "a:b")
    assert told in caught.value.strerror


def test_aTracebackThatIsAllOurs() -> None:
    try:
        load("x", "/")
    except LoadError as error:
        text = theirTraceback(error)
    assert text.splitlines()[1].endswith("in test_aTracebackThatIsAllOurs")
    assert theirTraceback(KeyError("nowhere")) == "KeyError: 'nowhere'\n"
