"""
Networks in memory in every weather: what runs in one of them has to run in all.

::

    @inEveryWeather()
    async def test_echo(network: MemoryNetwork) -> None:
        ...                                     # client and server are hosts of the network

The test is an ordinary function for pytest: the network runs the scenario to its end, and the outer reactor is asked
for nothing. What the scenario leaves open fails it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import pytest

from twisted_net.sansio.faults import Bandwidth, Fault, Latency, Slicer
from twisted_net.testing.network import MemoryNetwork


@dataclass(frozen=True)
class Weather:
    """How a network is: its seed, and what befalls every byte between two of its hosts."""

    seed: int | None = None
    faults: tuple[Fault, ...] = ()

    def network(self, *hosts: str) -> MemoryNetwork:
        """A network in this weather, with these hosts."""
        network = MemoryNetwork(self.seed)
        for name in hosts:
            network.host(name)
        for one, other in combinations(hosts, 2):
            network.link(one, other).setFaults(*self.faults)
        return network


WEATHERS: Final = {
    "calm": Weather(),
    "seed1": Weather(1),
    "seed2": Weather(2),
    "seed3": Weather(3),
    "late": Weather(4, (Latency(0.05, jitter=0.04),)),
    "narrow": Weather(5, (Latency(0.02), Bandwidth(1_000_000))),
    "sliced": Weather(None, (Slicer(1000, variation=900, delay=0.0001),)),
}


def inEveryWeather(*hosts: str) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Run a scenario that takes a ``network`` once in each weather.

    :param hosts: the hosts that there are; ``client`` and ``server``, unless some are named.
    """

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        def run(weather: str, **fixtures: Any) -> None:
            with WEATHERS[weather].network(*hosts or ("client", "server")) as network:
                network.run(lambda: test(network=network, **fixtures))

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        run.__module__ = test.__module__
        run.__dict__.update(test.__dict__)
        others = [one for one in inspect.signature(test).parameters.values() if one.name != "network"]
        first = inspect.Parameter("weather", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("weather", WEATHERS)(run)

    return decorate
