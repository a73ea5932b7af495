"""`raftkv local`: several nodes on this machine."""
