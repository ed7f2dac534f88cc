"""What a byte costs, counted: calls do not depend on how busy the machine is."""

from __future__ import annotations

import json
import subprocess

from programs import command, environment


def test_callsPerEchoedSegment() -> None:
    """The event face costs at most four Python calls more than a bare Protocol that writes back.

    They are: the listener, ``Socket.write``, ``Outlet.write``, and ``Outlet.resumeProducing`` (the transport is empty).
    """
    done = subprocess.run(command("calls"), env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    # Rounded: a timer or a waker may come in between.
    assert round(counts["net"] - counts["bare"]) <= 4, counts
    assert counts["bare"] > 20, counts
