"""The replicated state machine: commands, queries and the keyspace."""
