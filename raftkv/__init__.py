"""raftkv: a key-value store replicated by Raft, its roles as Thespian actors."""

__version__ = "0.1.0"

if not __debug__:
    # Assertions check invariants of the node; without them a broken one would reach the disk.
    raise SystemExit("raftkv does not run under python -O: its assertions protect the data")
