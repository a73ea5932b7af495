"""Raft's data, pure: log, configuration, replication progress, read rounds, and the replica that holds them."""
