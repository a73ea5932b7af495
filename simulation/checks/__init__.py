"""The checks of a run: invariants after each message, linearizability of the clients' history at the end.

``invariants`` watches the actors of all nodes through the hooks of ``SimulatedCluster``. It raises ``Violation`` if one
of Raft's five properties (dissertation, figure 3.2) does not hold, or if a node sends what its disk does not hold.
``history`` judges the requests and answers of the clients: ``linearizability`` searches for an order of them (Wing and
Gong, Lowe), ``positions`` compares the indexes and revisions in the answers. No check changes what a cluster does.
"""
