"""The actor system: ``base`` runs Thespian's actors on an event loop, ``link`` connects nodes, ``virtual`` simulates.

It knows nothing of Raft. ``base`` and ``link`` do not know each other: the ``Transport`` protocol of ``base.router`` is
the seam, and the process that owns both connects them. ``virtual`` is a ``base`` in virtual time.
"""
