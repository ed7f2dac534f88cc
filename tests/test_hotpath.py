"""What a byte costs, counted: calls do not depend on how busy the machine is."""

from __future__ import annotations

import json
import subprocess

from programs import command, environment


def test_callsPerEchoedSegment() -> None:
    """On epoll, an echo through either face costs fewer Python calls than a bare Protocol that writes back.

    The bare one's answer waits in its transport until the reactor says that there is room: an event of its own. Ours
    goes straight to the kernel.
    """
    done = subprocess.run(command("calls"), env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    # Rounded: a timer or a waker may come in between.
    assert round(counts["net"] - counts["bare"]) <= -20, counts
    assert round(counts["streams"] - counts["bare"]) <= 0, counts
    assert counts["net"] > 20, counts
