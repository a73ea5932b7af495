"""The simulation's system base: virtual time and seeded scheduling."""
