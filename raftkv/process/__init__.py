"""A running node: sockets, signals, threads, log output. Nothing here is pure."""
