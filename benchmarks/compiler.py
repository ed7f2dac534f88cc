"""The C programs among the benchmarks, compiled when somebody needs them."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """For what is compiled; removed when the interpreter ends."""
    return tempfile.TemporaryDirectory(prefix="benchmarks-")


@functools.cache
def program(name: str, *flags: str) -> str:
    """The path of ``name.c``'s program, compiled by gcc with *flags*, once in a run.

    :raises RuntimeError: it cannot be compiled; what gcc says.
    """
    source = Path(__file__).with_name(f"{name}.c")
    binary = Path(folder().name, f"{name}{len(list(Path(folder().name).iterdir()))}")
    command = ["gcc", "-O2", "-Wall", "-o", str(binary), str(source), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} cannot be compiled: {done.stderr}")
    return str(binary)
