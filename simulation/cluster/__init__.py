"""The simulated cluster: machines with disks and clocks, the network between them, and the trace of what happens."""
