"""Whole clusters in one thread under virtual time: the faults, the clients, what must hold, and what became of it."""
