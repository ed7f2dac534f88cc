"""
What a kernel does for a program's sockets, without a kernel: the lower half of the network in memory.

Theory
======
A test double of a *transport* has to say again what Twisted's transports do (producers, half-close, the order of
events at the end), and gets it wrong. So the cut is made one layer lower. Twisted's own transports run unchanged, on
sockets from here: what is imitated is only what stands below ``socket.recv``, whose rules are written down in RFC 9293,
tcp(7), udp(7) and unix(7), and can be compared with a real kernel call by call.

:mod:`~twisted_net.testing.kernel.sockets`
    what all sockets share: a number in their host's table of descriptors, options, and readiness.
:mod:`~twisted_net.testing.kernel.stream`
    TCP and UNIX stream sockets: backlog, FIN, RST.
:mod:`~twisted_net.testing.kernel.lane`
    one direction of a connection: buffers, windows.
:mod:`~twisted_net.testing.kernel.handshake`
    how TCP connects: SYN, its answer, and nothing of the kind.
:mod:`~twisted_net.testing.kernel.datagram`
    UDP: queues that overflow, ICMP's "refused", broadcast and multicast groups.
:mod:`~twisted_net.testing.kernel.ports`
    who is bound where.
:mod:`~twisted_net.testing.kernel.link`
    the road between two hosts: latency, faults, partition.

*Time.* Nothing here has a clock of its own. Where nothing delays a byte it is in the other socket's queue before
``send`` has returned, as on the loopback interface of a real machine; where something does, the network is asked to
call again later.

*Chance.* A kernel may cut what it delivers anywhere, take less than it is given, and answer in any order. Each such
freedom is one ``pick`` of the network's :class:`~twisted_net.testing.choices.Choices`, named by what is decided. A calm
network asks for none of them.

Rejected: imitating Twisted's transports (see above); real socketpairs under a virtual clock (no refused connection, no
full backlog, no reset, no partition, and nobody knows when the kernel is done).
"""
