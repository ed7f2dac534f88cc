"""A load balancer: who comes gets the target with the most room, and targets that do not answer are left out.

``python forward_balance.py LISTEN TARGET...``, such as ``:8080 10.0.0.1:80 '10.0.0.2:80;weight=3'``. On Ctrl-C nobody
is accepted any more, and who is served has ten seconds to finish.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.forward import Check, Ended, Forwarder, State, Target

WHERE, *TARGETS = sys.argv[1:]


def tell(ended: Ended) -> None:
    print(f"served by {ended.target}: {ended.bytesIn} bytes in, {ended.bytesOut} out, {ended.error or 'in order'}")


def changed(target: Target, state: State) -> None:
    print(f"{target.name} is {state}")


async def main(reactor: Any) -> None:
    check = Check(interval=0.1, rise=1, fall=1)
    forwarder = Forwarder(TARGETS, balance="least-connections", check=check, journal=tell, changed=changed)
    port: Any = await forwarder.listen(WHERE)
    print("listening on port", port.getHost().port)

    async def finish() -> None:
        await forwarder.close(grace=10)
        for target in forwarder.snapshot()["targets"]:
            print(f"{target['target']} is {target['state']} and has served {target['sessions']}")

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(finish()))
    await Deferred()  # until it is stopped


react(main)
