"""Tells ``twistd`` and ``trial`` of the reactor ``uvloop``, by name only: listing them imports nothing of ours."""

from twisted.application.reactors import Reactor

twisted_net_reactor = Reactor(
    "uvloop", "twisted_net.uvreactor", "uvloop's own transports (pip install twisted-net[uvloop])"
)
