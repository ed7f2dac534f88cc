"""What every benchmark does alike: its options, and its figures as a table and as JSON."""

from __future__ import annotations

import argparse
import functools
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

PACKAGES = ("twisted", "uvloop", "trio")
PROGRAMS = {
    "gcc": "gcc",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "node": "nodejs",
    "openssl": "openssl",
    "socat": "socat",
    "wrk": "wrk",
}
"""What may be needed, and in which packages Debian has it."""
HEADERS = {"libc6-dev": "stdio.h", "libssl-dev": "openssl/ssl.h"}
FILES = {"libnginx-mod-stream": "/usr/lib/nginx/modules/ngx_stream_module.so"}
"""Packages of Debian's that bring nothing to run, and what they bring."""
WIDTH = 42
"""Of a column of names."""


def options(documentation: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``json`` (a path, or None) and ``smoke``."""
    parser = argparse.ArgumentParser(description=(documentation or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--smoke", action="store_true", help="only see that it works")
    return parser


def parse(documentation: str | None) -> argparse.Namespace:
    """The options, where no more are wanted than `options` knows."""
    return options(documentation).parse_args()


def installed(package: str) -> str | None:
    """The version of a Python package, if it is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def about(**more: Any) -> dict[str, Any]:
    """What the figures were measured with."""
    versions = {package: installed(package) or "not installed" for package in PACKAGES}
    return {"python": platform.python_version(), **versions, **more}


@functools.cache
def remedy(need: str) -> str | None:
    """What to do about a Python package, a program or another package that is missing; None: it is there."""
    if need in HEADERS:
        command = ["gcc", "-E", "-include", HEADERS[need], "-x", "c", "/dev/null"]
        there = which("gcc") and not subprocess.run(command, capture_output=True).returncode
        return None if there else f"apt-get install {need}"
    if need in FILES:
        return None if Path(FILES[need]).exists() else f"apt-get install {need}"
    if need in PROGRAMS:
        return None if which(need) else f"apt-get install {PROGRAMS[need]}"
    return None if installed(need) else f"pip install {need}"


def present(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Those whose packages and programs are all there; says of the others what to do."""
    found = []
    for name, wanted in needs.items():
        remedies = [told for told in map(remedy, wanted) if told is not None]
        if remedies:
            print(f"{name:{WIDTH}} missing: {'; '.join(remedies)}")
        else:
            found.append(name)
    return found


def install(needs: Iterable[str]) -> None:
    """Have pip install those of *needs* that are missing Python packages."""
    packages = [need for need in sorted(needs) if (remedy(need) or "").startswith("pip ")]
    if packages:
        subprocess.run([sys.executable, "-m", "pip", "install", *packages], check=True)
        remedy.cache_clear()


def ratios(values: Mapping[str, float], against: str) -> dict[str, float]:
    """Each value as a multiple of the one named *against*: what stays true on another machine."""
    return {name: round(value / values[against], 2) for name, value in values.items()}


def write(path: Path | None, about: Mapping[str, Any], figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> None:
    """Write them to *path*, if there is one."""
    if path is not None:
        path.write_text(json.dumps({"about": about, "figures": figures, "ratios": ratios}, indent=2) + "\n")
