"""The link: authenticated connections between nodes, with bounded queues in two lanes.

It carries messages between named actors of different nodes. It guarantees that a message is delivered at most once,
that its sender is the node that it names, and that no peer, however slow or hostile, costs more than bounded memory or
delays the others. It does not guarantee delivery: Raft and the clients' deadlines deal with losses. It knows nothing of
actors: ``Link.send`` is what the system base expects of a ``Transport``.
"""
