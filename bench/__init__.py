"""What the cluster can do, measured from outside: throughput, latency, and the time without a leader."""
