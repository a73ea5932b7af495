"""Simulated clusters: nodes, disks, network, clients."""
