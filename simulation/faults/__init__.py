"""Faults: which there are, and the schedules that record them."""
