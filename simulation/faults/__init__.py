"""The faults of a run: their kinds, how a seed draws them, and how each is injected and undone."""
