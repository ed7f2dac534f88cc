"""Tells ``twistd`` and ``twist`` of the command ``net``, by name only: listing the plugins imports nothing of ours."""

from twisted.application.service import ServiceMaker

twisted_net_commands = ServiceMaker(
    "twisted_net commands",
    "twisted_net.service",
    "Run a TCP, UNIX or UDP service (echo, discard, or a handler of yours), or connect to one.",
    "net",
)
