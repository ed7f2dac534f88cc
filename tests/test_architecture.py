"""The tree is the drawing: who may import whom, and what a file may be called."""

from __future__ import annotations

from pathlib import Path

import architecture
import pytest

ROOT = Path(__file__).parent.parent

# (rule, path) -> why. This list may only shrink: an entry that is no longer needed fails the test below it.
EXEMPT: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], list[str]]:
    return architecture.complaints(architecture.read(ROOT))


@pytest.mark.parametrize("rule", architecture.RULES)
def test_rule(rule: str, found: dict[tuple[str, str], list[str]]) -> None:
    lines = [line for key, lines in found.items() if key[0] == rule and key not in EXEMPT for line in lines]
    assert not lines, "\n" + "\n".join(lines)


def test_exemptionsAreNeeded(found: dict[tuple[str, str], list[str]]) -> None:
    assert set(EXEMPT) <= set(found), "these keep the rules by now: take them off the list"


def test_theTreeIsRead() -> None:
    sources = architecture.read(ROOT)
    assert {"twisted_net/errors.py", "twisted/plugins/twisted_net_commands.py", "tests/test_errors.py"} <= set(sources)


HOUSE = {
    "twisted_net/__init__.py": "from twisted_net.errors import NetError\nfrom twisted_net import net",
    "twisted_net/errors.py": "import errno",
    "twisted_net/address.py": "from twisted_net.errors import AddressError",
    "twisted_net/sansio/__init__.py": "from twisted_net.sansio.bucket import TokenBucket",
    "twisted_net/sansio/bucket.py": "from __future__ import annotations\nimport math\nfrom ..errors import NetError",
    "twisted_net/wire/__init__.py": "from .dial import dial",
    "twisted_net/wire/limits.py": "import socket\nfrom zope import interface\nimport twisted_net.sansio.bucket",
    "twisted_net/wire/dial.py": "import twisted.internet.error\nfrom . import limits\nfrom ..address import Target",
    "twisted_net/net/__init__.py": "from twisted_net.net.server import Server",
    "twisted_net/net/server.py": "from twisted_net.wire.dial import dial\nfrom twisted_net.wire import limits",
    "twisted_net/service/__init__.py": "from twisted_net.service.echo import run",
    "twisted_net/service/echo.py": "import twisted_net.net\ndef f():\n  from twisted.internet import reactor",
    "twisted_net/testing/clock.py": "import twisted_net.net.server",
    "twisted/plugins/twisted_net_commands.py": "from twisted.application.service import ServiceMaker",
    "tests/test_errors.py": "",
    "tests/test_address.py": "",
    "tests/sansio/test_bucket.py": "",
    "tests/wire/test_limits.py": "",
    "tests/wire/test_dial.py": "",
    "tests/net/test_server.py": "",
    "tests/service/test_echo.py": "",
    "tests/testing/test_clock.py": "",
}


def test_aHouseInOrder() -> None:
    assert architecture.complaints(HOUSE) == {}


@pytest.mark.parametrize(
    ("rule", "path", "text", "told"),
    [
        ("layers", "twisted_net/errors.py", "import twisted_net.sansio.bucket", "words know only words"),
        ("layers", "twisted_net/sansio/bucket.py", "from twisted_net.address import Target", "only errors"),
        ("layers", "twisted_net/sansio/bucket.py", "from . import bucket", "no sibling"),
        ("layers", "twisted_net/wire/limits.py", "from twisted_net.wire.dial import dial", "named before it"),
        ("layers", "twisted_net/wire/limits.py", "from twisted_net.wire import dial", "named before it"),
        ("layers", "twisted_net/wire/limits.py", "def f():\n    from . import dial", "line 2 imports"),
        ("layers", "twisted_net/wire/dial.py", "from twisted_net.wire import something", "named before it"),
        ("layers", "twisted_net/wire/dial.py", "from twisted_net.net import Server", "wire knows only"),
        ("layers", "twisted_net/net/server.py", "import twisted_net.streams", "faces never"),
        ("layers", "twisted_net/net/server.py", "import twisted_net.service.echo", "a face knows only"),
        ("layers", "twisted_net/net/server.py", "if TYPE_CHECKING:\n    import twisted_net.testing", "side room"),
        ("layers", "twisted_net/errors.py", "if TYPE_CHECKING:\n    import twisted_net.wire.dial", "only words"),
        (
            "layers",
            "twisted_net/wire/limits.py",
            "if TYPE_CHECKING:\n    0\nelse:\n    from . import dial",
            "before it",
        ),
        ("layers", "twisted_net/net/server.py", "import twisted_net", "front door"),
        ("layers", "twisted_net/net/server.py", "from twisted_net import NetError", "front door"),
        ("layers", "twisted_net/__init__.py", "from twisted_net.service import echo", "front door opens"),
        ("layers", "twisted_net/service/echo.py", "from twisted_net.testing.clock import Clock", "side room"),
        ("layers", "twisted_net/testing/clock.py", "import twisted_net.service", "testing knows no service"),
        ("layers", "twisted/plugins/twisted_net_commands.py", "import twisted_net.service", "by string"),
        (
            "foreign",
            "twisted_net/sansio/bucket.py",
            "from twisted.internet import defer",
            "standard library and errors",
        ),
        ("foreign", "twisted_net/sansio/bucket.py", "def f():\n    import time", "told the time"),
        ("foreign", "twisted_net/wire/dial.py", "from OpenSSL import SSL", "not everybody has"),
        ("reactor", "twisted_net/wire/dial.py", "from twisted.internet import reactor", "as an argument"),
        ("reactor", "twisted_net/wire/dial.py", "class A:\n    import twisted.internet.reactor", "as an argument"),
        (
            "reactor",
            "twisted_net/service/echo.py",
            "try:\n    from twisted.internet import reactor, defer\nfinally: 0",
            "arg",
        ),
    ],
)
def test_aRuleThatIsBroken(rule: str, path: str, text: str, told: str) -> None:
    lines = architecture.complaints({**HOUSE, path: text})[rule, path]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    ("rule", "path", "told"),
    [
        ("layers", "twisted_net/attic/chest.py", "no place in the drawing"),
        ("layers", "twisted_net/uvreactor/loop.py", "nothing of ours"),
        ("names", "twisted_net/wire/util.py", "says nothing"),
        ("names", "twisted_net/wire/dialOut.py", "lower-case word"),
        ("names", "twisted_net/wire/dial_out.py", "lower-case word"),
        ("tested", "twisted_net/wire/relay.py", "tests/wire/test_relay.py"),
        ("tested", "twisted_net/interfaces.py", "tests/test_interfaces.py"),
        ("plugins", "twisted/__init__.py", "remove it"),
        ("plugins", "twisted/plugins/__init__.py", "remove it"),
    ],
)
def test_aFileThatShouldNotBe(rule: str, path: str, told: str) -> None:
    lines = architecture.complaints({**HOUSE, path: "import twisted_net.errors"})[rule, path]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("path", ["twisted_net/wire/limits.py", "twisted_net/interfaces.py"])
def test_annotationsMayNameWhatTheCodeMayNotKnow(path: str) -> None:
    text = "if TYPE_CHECKING:\n    from twisted_net.wire.dial import Dialler"
    assert architecture.complaints({**HOUSE, "tests/test_interfaces.py": "", path: text}) == {}


def test_deferredImportsOfTheReactorAreFine() -> None:
    text = "async def f():\n    from twisted.internet import reactor\n    return lambda: reactor"
    assert architecture.complaints({**HOUSE, "twisted_net/wire/dial.py": text}) == {}
