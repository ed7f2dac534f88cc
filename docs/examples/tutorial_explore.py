"""A planted bug, and the schedule that shows it: ``python tutorial_explore.py``."""

from __future__ import annotations

from tutorial_protocol import Total

from twisted_net.testing.explore import ScheduleFound, explore, replay
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.scene import Scene


class HastyTotal(Total):
    """Splits lines by itself, which is quicker."""

    def dataReceived(self, data: bytes) -> None:
        for line in data.splitlines():
            self.lineReceived(line)


async def addsUp(network: MemoryNetwork) -> None:
    scene = Scene(network)
    served = await scene.serve(HastyTotal)
    client = await served.connects()
    client.sends(b"12\n30\n")
    client.ends()
    await client.hears(b"42\n")
    scene.ends()


if __name__ == "__main__":
    replay(addsUp, "seed=0")  # on a calm network all is well
    try:
        explore(addsUp, seeds=range(1000))
    except ScheduleFound as found:
        print(found)
        print()
        print(found.trace)
