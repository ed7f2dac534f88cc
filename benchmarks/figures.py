"""What every benchmark does alike: its options, and its figures as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("twisted", "uvloop", "trio")


def parse(documentation: str | None) -> argparse.Namespace:
    """The options: ``json`` (a path, or None) and ``smoke``."""
    parser = argparse.ArgumentParser(description=(documentation or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--smoke", action="store_true", help="only see that it works")
    return parser.parse_args()


def about(**more: Any) -> dict[str, Any]:
    """What the figures were measured with."""
    versions: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {**versions, **more}


def present(peers: Mapping[str, str | None]) -> list[str]:
    """Those whose package, if they need one, is installed; says of the others what to do."""
    found = []
    for name, package in peers.items():
        if package is None or about()[package] != "not installed":
            found.append(name)
        else:
            print(f"{name:24} not installed: pip install {package}")
    return found


def ratios(values: Mapping[str, float], against: str) -> dict[str, float]:
    """Each value as a multiple of the one named *against*: what stays true on another machine."""
    return {name: round(value / values[against], 2) for name, value in values.items()}


def write(path: Path | None, about: Mapping[str, Any], figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> None:
    """Write them to *path*, if there is one."""
    if path is not None:
        path.write_text(json.dumps({"about": about, "figures": figures, "ratios": ratios}, indent=2) + "\n")
