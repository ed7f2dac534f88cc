"""The test kit: shipped, documented, and imported by nobody inside.

So far it holds :mod:`~twisted_net.testing.clock`: time that a test moves, over sockets that are real.
"""
