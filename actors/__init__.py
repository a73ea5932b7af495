"""The Thespian actors of a node: the Raft roles, the journal and the store."""
