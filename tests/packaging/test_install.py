"""What pip puts on a machine and takes away again: ours, all of ours, and nothing of Twisted's.

These tests build from a copy of the source tree and install into environments of their own; they need a package index.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = {"twisted/plugins/twisted_net_commands.py", "twisted/plugins/twisted_net_reactor.py"}
BUILT = ("build", "dist", "*.egg-info")


def run(*command: str | Path, cwd: Path) -> str:
    """What the program said; a failure shows all of it. The source tree is on nobody's path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [os.fspath(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, for building leaves files in the tree."""
    copy = tmp_path_factory.mktemp("tree") / "twisted-net"
    leave = shutil.ignore_patterns(
        ".git", ".tox", ".venv*", "venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=leave)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """A folder with the sdist, and with the wheel that was built from that sdist."""
    run(sys.executable, "-m", "build", "--outdir", "dist", ".", cwd=tree)
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def newer(tree: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the version after this one."""
    copy = tmp_path_factory.mktemp("newer") / "twisted-net"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(*BUILT))
    configuration = copy / "setup.cfg"
    text, count = re.subn(r"(?m)^version = .*$", "version = 9999.0", configuration.read_text())
    assert count == 1
    configuration.write_text(text)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", "dist", ".", cwd=copy)
    (found,) = (copy / "dist").glob("*.whl")
    return found


class Environment:
    """A virtual environment with Twisted in it and without us."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
        self.pip("install", "twisted", "zope.interface")
        (self.site,) = folder.glob("lib/python*/site-packages")

    def pip(self, *words: str | Path) -> None:
        run(self.folder / "bin" / "pip", *words, cwd=self.folder)

    def commands(self) -> set[str]:
        """The commands that ``twistd --help`` lists."""
        said = run(self.folder / "bin" / "twistd", "--help", cwd=self.folder).partition("Commands:")[2]
        return set(re.findall(r"(?m)^    ([a-z]\S*)", said))

    def reactors(self) -> set[str]:
        """The reactors that ``twistd --help-reactors`` says can be had."""
        said = run(self.folder / "bin" / "twistd", "--help-reactors", cwd=self.folder)
        return set(re.findall(r"(?m)^    ([a-z]\S*)", said))

    def twisted(self) -> dict[str, str]:
        """Every file below ``twisted/`` with its digest, but for what Python and Twisted write there by running."""
        return {
            path.relative_to(self.site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.site / "twisted").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name != "dropin.cache"
        }


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def test_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "twisted_net").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == {*ours, "twisted_net/py.typed", *PLUGINS}
    said = message_from_string(metadata)
    assert said["Name"] == "twisted-net"
    assert said["Requires-Python"] == ">=3.11"
    always = {text for text in said.get_all("Requires-Dist", []) if "extra ==" not in text}
    assert always == {"twisted>=24.11", "zope.interface"}
    assert set(said.get_all("Provides-Extra", [])) == {"test", "docs", "tls", "uvloop"}


def test_sdist(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        *PLUGINS,
        ".ci/run",
        "CHANGES.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "docs/conf.py",
        *(f"docs/examples/{path.name}" for path in (ROOT / "docs" / "examples").glob("*.py")),
        "pyproject.toml",
        "ruff.toml",
        "setup.cfg",
        "tests/conftest.py",
        "tests/packaging/test_install.py",
        "tests/uvreactor/stock/exceptions.txt",
        "tox.ini",
        "twisted_net/py.typed",
    }
    assert wanted <= names
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names


def test_installUpgradeUninstall(environment: Environment, wheel: Path, newer: Path) -> None:
    before, commands, reactors = environment.twisted(), environment.commands(), environment.reactors()
    assert "web" in commands
    assert "net" not in commands
    assert "epoll" in reactors
    assert "uvloop" not in reactors
    for one in (wheel, newer):
        environment.pip("install", "--upgrade", one)
        after = environment.twisted()
        assert set(after) - set(before) == PLUGINS
        assert {name: after[name] for name in before} == before
        assert environment.commands() == commands | {"net"}
        assert environment.reactors() == reactors | {"uvloop"}
    environment.pip("uninstall", "--yes", "twisted-net")
    assert environment.twisted() == before
    assert environment.commands() == commands
    assert environment.reactors() == reactors
    assert not (environment.site / "twisted_net").exists()


def test_theExtraUvloop(environment: Environment, wheel: Path) -> None:
    """Without it, naming the reactor says what to do; with it, it is there."""
    twistd = environment.folder / "bin" / "twistd"
    environment.pip("install", wheel)
    refused = subprocess.run([twistd, "--reactor=uvloop", "--version"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "uvloop is not installed: pip install 'twisted-net[uvloop]'" in refused.stdout
    environment.pip("install", f"{wheel}[uvloop]")
    assert "twistd" in run(twistd, "--reactor=uvloop", "--version", cwd=environment.folder)


def test_editableInstallShowsThePlugins(environment: Environment, tree: Path) -> None:
    before, commands = environment.twisted(), environment.commands()
    environment.pip("install", "--config-settings", "editable_mode=compat", "--editable", tree)
    assert environment.commands() == commands | {"net"}
    assert "uvloop" in environment.reactors()
    assert environment.twisted() == before
    environment.pip("uninstall", "--yes", "twisted-net")
    assert environment.commands() == commands
    assert environment.twisted() == before
