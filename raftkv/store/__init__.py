"""The replicated state machine: commands, queries, and the keyspace they act on.

Every node applies the same committed commands in the same order to a deterministic state machine, so all nodes pass
through the same states and any of them can answer (dissertation, 2.1). It knows nothing of Raft, actors, files
or clocks: ``state_machine`` is the contract, ``keyspace`` the implementation, ``commands`` the operations on it.
"""
