"""Programs that nobody here wrote, as clients and servers for tests: always bounded in time, never left behind.

:func:`ask` is for a program that ends by itself, :class:`Stranger` for one to talk to meanwhile, :func:`service` for
the launcher that they talk to. All of them wait; :func:`apart` lets the reactor of the test's own process go on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest
from conditions import needsIPv6
from drivers import reactorName
from launched import PATIENCE, TWISTD, Running, environment
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

T = TypeVar("T")

PLENTY = 20_000_000
"""Bytes: more than kernels, transports and high-water marks of both ends hold together."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """The mark of tests that are skipped where one of *programs* is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def ifIPv6(*values: T) -> Sequence[T]:
    """*values* for tests, or none where the machine has no IPv6: a live test that is skipped is a failure there."""
    return () if needsIPv6.args[0] else values


@functools.cache
def patterned(size: int = PLENTY) -> bytes:
    """That many bytes, no two stretches of which are alike: one that is lost or doubled is seen."""
    return random.Random(size).randbytes(size)


def digest(data: bytes) -> str:
    """A short name for *data*: what pytest shows when two of 20 MB differ."""
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def service(folder: Path, *words: str) -> Running:
    """``twistd net WORDS`` in the foreground, in *folder*, on the reactor that this run of the tests is for."""
    reactor = reactorName()
    return Running(TWISTD, "--reactor", reactor, "-n", "--pidfile=", "net", *words, folder=folder)


def ask(*words: str, given: bytes = b"", status: int = 0) -> bytes:
    """Run a program to its end with *given* on its stdin; returns its stdout.

    Its exit status has to be *status*.
    """
    done = subprocess.run(words, input=given, capture_output=True, timeout=PATIENCE, env=environment(), check=False)
    assert done.returncode == status, (words, done.returncode, done.stdout[-2000:], done.stderr.decode()[-2000:])
    return done.stdout


class Stranger:
    """A program that runs; as a context manager it is killed at the end if it still does."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            bufsize=0,  # communicate() knows nothing of what a buffer holds
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout
        self.stderr: IO[bytes] = self._process.stderr

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):  # what it has not taken of its input
                stream.close()

    def says(self, pattern: str, stream: IO[bytes] | None = None) -> re.Match[str]:
        """The next line of its stdout (or of *stream*) that has *pattern*."""
        seen = []
        for line in self.stdout if stream is None else stream:
            seen.append(line.decode())
            if match := re.search(pattern, seen[-1]):
                return match
        raise AssertionError(f"no line with {pattern!r}: {seen}; stderr: {self.stderr.read()!r}")

    def end(self, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Give it the last of its input and wait until it has ended: exit status, rest of stdout, rest of stderr."""
        out, err = self._process.communicate(given, timeout=PATIENCE)
        return self._process.returncode, out, err


def apart(function: Callable[..., T], *args: Any, **keywords: Any) -> Deferred[T]:
    """Call *function*, which waits for a program, in a thread of its own: the reactor goes on meanwhile."""
    from twisted.internet import reactor

    done: Deferred[T] = deferToThread(function, *args, **keywords)
    return done.addTimeout(PATIENCE, reactor)


def lines(data: bytes) -> Sequence[str]:
    """The lines of a program's output."""
    return data.decode().splitlines()
