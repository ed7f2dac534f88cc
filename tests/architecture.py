"""The drawing of the house as rules over its source text; nothing is imported, so nothing can hide behind an import.

``complaints`` takes the sources as a mapping from path to text, so that the rules themselves can be tried on made-up
ones. What each layer may see::

    words (errors, address, interfaces) <- sansio <- wire <- faces (net, streams, udp, forward) <- service

``testing`` sees everything but ``service`` and ``uvreactor`` and is seen by nobody; ``uvreactor`` sees nothing of ours.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

HOUSE = "twisted_net"
WORDS = ("errors", "address", "interfaces")
FACES = ("net", "streams", "udp", "forward")
# Each file of wire/ sees only those before it.
WIRE = (
    "reasons",
    "layers",
    "options",
    "limits",
    "outlet",
    "clocks",
    "protocol",
    "once",
    "seldom",
    "factory",
    "hosting",
    "splice",
    "relay",
    "waiting",
    "lookup",
    "unixpath",
    "destination",
    "casting",
    "datagram",
    "inherit",
    "adopt",
    "listen",
    "race",
    "dial",
)
# What stands at run time below everything but the side rooms.
FOREIGN = frozenset({"twisted", "zope"})
# What a file may import although not everybody has it: who loads that file has it.
GUESTS = {
    "twisted_net/testing/plugin.py": frozenset({"pytest"}),
    "twisted_net/uvreactor/reactor.py": frozenset({"uvloop"}),
}
# sansio is told the time and owns no socket; these could give it either.
UNCLEAN = frozenset({"asyncio", "datetime", "sched", "select", "selectors", "signal", "socket", "threading", "time"})
VAGUE = frozenset({"util", "utils", "common", "helper", "helpers", "manager", "base", "misc"})

Sources = Mapping[str, str]
When = Literal["now", "later", "types"]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, the line that asks for it, and when it does.

    ``now`` is as the file is imported, ``later`` in a function's body, ``types`` only for a type checker.
    """

    module: str
    line: int
    when: When


def read(root: Path) -> dict[str, str]:
    """Every Python file of the house and its plugins, and the names of all test files (their text is not needed)."""
    found = {}
    for folder in (HOUSE, "twisted"):
        for path in sorted((root / folder).rglob("*.py")):
            found[path.relative_to(root).as_posix()] = path.read_text()
    for path in sorted((root / "tests").rglob("*.py")):
        found[path.relative_to(root).as_posix()] = ""
    return found


def complaints(sources: Sources) -> dict[tuple[str, str], list[str]]:
    """What breaks the rules, under (rule, path), each with a line that can be read by whoever broke it."""
    known = frozenset(_moduleOf(path) for path in sources if not path.startswith("tests/"))
    found: dict[tuple[str, str], list[str]] = {}

    def complain(rule: str, path: str, text: str) -> None:
        found.setdefault((rule, path), []).append(f"{path}: {text}")

    for path, text in sources.items():
        if path.startswith("tests/"):
            continue
        for rule, check in RULES.items():
            for line in check(path, text, known, sources):
                complain(rule, path, line)
    return found


def importsOf(path: str, text: str, known: frozenset[str]) -> list[Import]:
    """Every module that *text*, the source of *path*, imports, wherever in the file it does."""
    package = _moduleOf(path) if path.endswith("__init__.py") else _moduleOf(path).rpartition(".")[0]
    found = []
    for node, when in _walk(ast.parse(text, path), "now"):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, when) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                start = ".".join([*parent, start] if start else parent)
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                ours = whole in known or whole == "twisted.internet.reactor"
                found.append(Import(whole if ours else start, node.lineno, when))
    return found


def _walk(node: ast.AST, when: When) -> Iterator[tuple[ast.AST, When]]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = "later"
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and child in node.body:
            inner = "types"
        yield child, inner
        yield from _walk(child, inner)


def _moduleOf(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _room(module: str) -> tuple[str, str]:
    """Layer and file of our *module*: ``wire``, ``dial`` of ``twisted_net.wire.dial``; both are empty for the door."""
    parts = [*module.split("."), "", ""]
    return parts[1], parts[2]


def _layers(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """Who imports whom."""
    module = _moduleOf(path)
    for one in importsOf(path, text, known):
        if not (one.module == HOUSE or one.module.startswith(f"{HOUSE}.")):
            continue
        if not path.startswith(f"{HOUSE}/"):
            yield f"line {one.line} imports {one.module}; a plugin names its target by string"
            continue
        reason = _refused(module, path.endswith("__init__.py"), one.module)
        if reason is not None and not (one.when == "types" and _mayName(module, one.module)):
            yield f"line {one.line} imports {one.module}; {reason}"


def _mayName(importer: str, imported: str) -> bool:
    """Whether *importer* may name *imported* in annotations alone, which no program ever runs.

    Contracts have to name what they speak of, and two files of one room may know each other's types while only the
    later one knows the earlier one's code.
    """
    return importer == f"{HOUSE}.interfaces" or importer.rpartition(".")[0] == imported.rpartition(".")[0] != HOUSE


def _refused(importer: str, isPackage: bool, imported: str) -> str | None:
    layer, room = _room(importer)
    other, otherRoom = _room(imported)
    faces = (*FACES, "wire", "sansio", *WORDS)
    if other == "":
        return "the front door is for those outside"
    if other in ("testing", "uvreactor") and other != layer:
        return f"{other} is a side room: nobody inside imports it"
    if layer == "testing":
        return "testing knows no service" if other == "service" else None
    if layer == "":
        return "the front door opens onto words, sansio, wire and the faces" if other not in faces else None
    if layer in WORDS:
        return "words know only words" if other not in WORDS else None
    if layer == "uvreactor":
        return "uvreactor knows nothing of ours" if other != layer else None
    if layer == "sansio":
        if isPackage and other == "sansio":
            return None
        return "sansio knows only errors, and no sibling" if other != "errors" else None
    if layer == "wire":
        if other not in ("wire", "sansio", *WORDS):
            return "wire knows only words, sansio, and the wire files named before it"
        if other != "wire" or isPackage:
            return None
        if otherRoom in WIRE and room in WIRE and WIRE.index(otherRoom) < WIRE.index(room):
            return None
        return f"the order in wire is {', '.join(WIRE)}: a file sees only those named before it"
    if layer in FACES:
        if other in FACES and other != layer:
            return "faces never import each other"
        return "a face knows only wire, sansio and words" if other not in (layer, "wire", "sansio", *WORDS) else None
    if layer == "service":
        return None if other in ("service", *faces) else "service knows the faces and what is below them"
    return f"{layer or importer} has no place in the drawing: give it one in tests/architecture.py"


def _foreign(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """What comes from outside: the standard library, and where allowed Twisted and zope.interface."""
    layer, _ = _room(_moduleOf(path))
    for one in importsOf(path, text, known):
        top = one.module.partition(".")[0]
        if top == HOUSE or top == "__future__":
            continue
        if layer == "sansio":
            if top in UNCLEAN:
                yield f"line {one.line} imports {one.module}; sansio is told the time and touches no socket"
            elif top not in sys.stdlib_module_names:
                yield f"line {one.line} imports {one.module}; sansio knows the standard library and errors only"
        elif one.when == "now" and top not in sys.stdlib_module_names | FOREIGN | GUESTS.get(path, frozenset()):
            yield f"line {one.line} imports {one.module}, which not everybody has; import it where it is used"


def _reactor(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """The reactor is an argument: importing the global one installs it."""
    for one in importsOf(path, text, known):
        if one.when == "now" and one.module == "twisted.internet.reactor":
            yield f"line {one.line} imports the global reactor as the file is imported; take it as an argument"


def _names(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """A file is named by one lower-case word that says what is in it."""
    if not path.startswith(f"{HOUSE}/"):
        return
    for part in PurePosixPath(path).relative_to(HOUSE).with_suffix("").parts:
        if part in ("__init__", "__main__"):
            continue
        if not re.fullmatch("[a-z]+", part):
            yield f"{part!r} is not one lower-case word"
        elif part in VAGUE:
            yield f"{part!r} says nothing of what is inside"


def _tested(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """Every room has its test file of the same name."""
    place = PurePosixPath(path)
    if path.startswith(f"{HOUSE}/") and place.name != "__init__.py":
        wanted = PurePosixPath("tests", *place.parent.parts[1:], f"test_{place.name}").as_posix()
        if wanted not in sources:
            yield f"has no test file {wanted}"


def _plugins(path: str, text: str, known: frozenset[str], sources: Sources) -> Iterator[str]:
    """twisted/ and twisted/plugins are Twisted's: an __init__.py of ours would hide theirs."""
    if path.startswith("twisted/") and PurePosixPath(path).name == "__init__.py":
        yield "makes a package of its own of a folder of Twisted's; remove it"


RULES: dict[str, Callable[[str, str, frozenset[str], Sources], Iterator[str]]] = {
    "layers": _layers,
    "foreign": _foreign,
    "reactor": _reactor,
    "names": _names,
    "tested": _tested,
    "plugins": _plugins,
}
