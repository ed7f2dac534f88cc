"""What a byte costs, counted: calls do not depend on how busy the machine is."""

from __future__ import annotations

import json
import subprocess

import pytest
from programs import command, environment


def counted(reactor: str) -> dict[str, int]:
    """Python calls per echoed segment; rounded: a timer or a waker may come in between."""
    words = command("calls", reactor)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {name: round(count) for name, count in json.loads(done.stdout).items()}


def test_callsPerEchoedSegmentOnEpoll() -> None:
    """An echo through either face costs fewer Python calls than a bare Protocol that writes back.

    The bare one's answer waits in its transport until the reactor says that there is room: an event of its own. Ours
    goes straight to the kernel.
    """
    counts = counted("epoll")
    assert counts["net"] - counts["bare"] <= -20, counts
    assert counts["streams"] - counts["bare"] <= -9, counts
    assert counts["net"] > 20, counts
    # There and back: two segments, on two connections.
    assert counts["forward"] < counts["bare"], counts


def test_callsPerEchoedSegmentOnUvloop() -> None:
    """One of the reactor's on the way in, one on the way out."""
    pytest.importorskip("uvloop")
    counts = counted("uvloop")
    assert counts["bare"] == 3, counts
    assert counts["net"] <= 7, counts
    assert counts["streams"] <= 20, counts
    assert counts["forward"] <= 14, counts
