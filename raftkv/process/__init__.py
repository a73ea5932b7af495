"""The process of one node: everything that touches sockets, signals, threads, the clock and the output.

Nothing here is pure, so the packages below do not import it: an actor gets a clock, a disk, a random generator
and a way to fail through its first message.

The process starts its parts in the order in which each can rely on the ones before it, and stops them in reverse
(``server``, ``lifecycle``). It is fail-stop (``fail_stop``; Schlichting and Schneider, 1983): on a bug or a failed disk
it ends at once, because Raft masks a node that stops, but not one that continues with wrong data. A process started by
another one reports to it over a socket pair (``supervisor``), which also shows each side that the other has ended.
"""
