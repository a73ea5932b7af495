"""Raft's state (dissertation, figure 3.1) and the rules that follow from it alone, without messages, time or disk.

The replica is what a node knows as a member of its cluster: its term, its vote, the log with the configuration in
it, the saves on their way to the disk, and the requests that wait. ``Progress`` and ``ReadRounds`` are what a leader
adds. Everything here is plain data: the roles in ``raftkv.actors.roles`` decide when to vote, what to send and what to
commit.
"""
