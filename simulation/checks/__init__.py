"""What a run is judged by: invariants after each message, and linearizability."""
