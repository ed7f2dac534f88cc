"""
The pure rooms: what a connection has to decide, without a connection.

The law of this folder, checked by ``tests/test_architecture.py``:

* A file here imports the standard library and :mod:`twisted_net.errors`, nothing else. No Twisted, and no other
  file of this folder: each room can be read, tested and reused alone.
* **Time is an argument.** Nothing reads a clock or starts a timer. A method that depends on time takes ``now``, in
  seconds of any clock that its caller keeps to; what it answers is a number of seconds, and the caller does the
  waiting. A clock that is set back never makes a room fail or stand still: the time that was lost counts as no time.
* **Nothing is sent and nothing is awaited.** A room that must act is given plain callables.
* Every room has its own test file, of the same name, which covers it wholly and checks it against a model with
  generated input.

There is nothing to import from the package itself; import from the room: ``from twisted_net.sansio.bucket import
TokenBucket``.
"""
