"""The exit statuses of a node's process; 0 is a stop on request."""

EXIT_UNUSABLE = 1
"""Something outside of the program prevents the start: a port in use, a directory of another node, damage on disk."""

EXIT_UNFINISHED = 1
"""The process was asked to stop and did not do so in order and in time; what was acknowledged is on disk."""

EXIT_USAGE = 2
"""A setting is wrong or missing."""

EXIT_BUG = 70
"""A bug, or a disk that failed: going on could do harm (EX_SOFTWARE of sysexits.h)."""
