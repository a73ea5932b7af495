"""All bytes on disk: the journal's format, writing and recovery, and the data directory."""
