"""Starting the programs of ``tests/programs``: with the package that is under test, wherever that was imported from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"


def command(name: str, *arguments: str) -> list[str]:
    """The command line of ``tests/programs/NAME.py``."""
    return [sys.executable, str(FOLDER / f"{name}.py"), *arguments]


def finished(name: str, kind: str, folder: Path) -> str:
    """Run the program NAME over ``tcp``, or ``unix`` with a path in *folder*, to its end; return what it printed."""
    arguments = [str(folder / "s")] if kind == "unix" else []
    done = subprocess.run(
        command(name, *arguments), env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def until(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait for what another program does without telling, such as closing a descriptor.

    :param patience: seconds after which it counts as not done.
    """
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.01)


def environment() -> dict[str, str]:
    """Ours, with the path that modules are imported from here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
