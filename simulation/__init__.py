"""Deterministic simulation: whole clusters in one thread and in virtual time, with faults, clients and checks.

The actors are those of a real node, unchanged. ``cluster`` gives them simulated machines, disks and a network, on the
virtual system base (``actors/system/virtual/``); ``faults`` breaks these; ``clients`` write and read; ``checks`` judge
every message and, at the end, the history of the clients. ``run`` puts one run together from a plan that follows from
a seed, ``sweep`` and ``workers`` run many, ``shrink`` makes a failing plan smaller, ``report`` shows results. All
randomness comes from the seed, so that every run can be repeated exactly (as in FoundationDB's simulation).

Imports go one way: command, workers, report, sweep and shrink, run, clients, faults and checks, cluster.
"""
