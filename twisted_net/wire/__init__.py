"""
The only rooms that touch Twisted's transports.

The law of this folder, checked by ``tests/test_architecture.py``:

* Each file sees only those named before it, in this order: ``reasons``, ``layers``, ``options``, ``limits``,
  ``outlet``, ``clocks``, ``protocol``, ``factory``, ``hosting``, ``relay``, ``listen``, ``dial``. Below them stand
  the words (``errors``, ``address``, ``interfaces``) and ``sansio``; no face is known here.
* **One protocol class meets the transports.** What is promised about the life, the pressure, the clocks, the counts
  and the limits of a connection lives in ``protocol`` once; a face translates and adds nothing of that.
* **The reactor is an argument.** Nothing here imports the global one.
* **Failures become errors in one place**, ``reasons``; what leaves this folder is a
  :class:`~twisted_net.errors.NetError`.
* **What only some transports can do is asked in one place.** Where the descriptor is under TLS, and how to end a
  connection that stock transports would end otherwise, is known to ``layers``; socket options to ``options``.
* Times are seconds, sizes are bytes.

There is nothing to import from the package itself; import from the room: ``from twisted_net.wire.limits import
Limits``.
"""
