"""Thespian system bases: the event loop for production, the simulation for tests."""
