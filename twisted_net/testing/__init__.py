"""The test kit: shipped, documented, and imported by nobody inside.

:mod:`~twisted_net.testing.network`
    hosts in memory, links that break, and a clock that jumps: ``MemoryNetwork``.
:mod:`~twisted_net.testing.explore`
    many seeds, and the smallest schedule that breaks a scenario: ``explore``, ``replay``.
:mod:`~twisted_net.testing.peers`, :mod:`~twisted_net.testing.scene`
    scripts that read like one: ``Peer``, ``Peers``, ``Scene``.
:mod:`~twisted_net.testing.checks`
    rules that transports, reactors, wrappers and servers are held against.
:mod:`~twisted_net.testing.plugin`, :mod:`~twisted_net.testing.trial`
    fixtures for pytest, and a mixin for trial.
:mod:`~twisted_net.testing.loopback`
    real sockets behind the calls of a network in memory.
:mod:`~twisted_net.testing.clock`
    time that a test moves, over sockets that are real.

Nothing is imported here: pytest imports this package at every start, for the plugin's sake.
"""
