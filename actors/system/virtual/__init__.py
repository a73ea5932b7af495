"""The simulation's system base: production actors in virtual time, deterministic for a given seed."""
