"""Starting the programs of ``tests/programs``: with the package that is under test, wherever that was imported from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"


def command(name: str, *arguments: str) -> list[str]:
    """The command line of ``tests/programs/NAME.py``."""
    return [sys.executable, str(FOLDER / f"{name}.py"), *arguments]


def environment() -> dict[str, str]:
    """Ours, with the path that modules are imported from here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
