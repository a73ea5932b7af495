"""Benchmarks: throughput, latency and outages of a cluster, measured from outside, and the cost of its parts."""
