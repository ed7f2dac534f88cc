"""
A forwarder and load balancer for TCP, UNIX sockets and UDP.

::

    from twisted_net.forward import Forwarder

    forwarder = Forwarder(["10.0.0.1:80", "10.0.0.2:80;weight=3"], balance="least-connections")
    port = await forwarder.listen(":8080")
    ...
    print(forwarder.snapshot())
    await forwarder.close(grace=30)

It passes on what connections are: bytes in their order, pressure, half-close, reset. And it can be the bad network that
a program is to be tested with: ``faultsUpstream=Faults(Latency(0.1), Reset(at=1000))``.

As a command it is ``twistd -n --pidfile= net forward --listen ADDRESS --target ADDRESS``.
"""

from __future__ import annotations

from twisted_net.forward.checks import Check
from twisted_net.forward.forwarder import Forwarder
from twisted_net.forward.hooks import Direction, Hook
from twisted_net.forward.session import Ended, Session
from twisted_net.forward.targets import State, Target, readTarget

__all__ = ["Check", "Direction", "Ended", "Forwarder", "Hook", "Session", "State", "Target", "readTarget"]
