"""raftkv: a key-value store replicated by Raft, its roles as Thespian actors."""

__version__ = "0.1.0"

if not __debug__:
    # Asserts guard the node's own state; without them a broken invariant would go on to disk.
    raise SystemExit("raftkv does not run under python -O: its assertions are part of its safety")
