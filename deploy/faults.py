"""Faults of the network as values: which packets between nodes are lost, and which rules each node needs for that.

A cut is a loss of 100 %, and is enforced at both ends. Nodes send on connections that they opened and receive on
those of others, so a cut in one direction drops all packets of the connections in that direction, acknowledgements
included, and leaves the connections in the other direction whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from deploy.engine import UsageError

Losses = Mapping[tuple[str, str], float]
"""The probability with which packets are lost, by (sender, receiver) of the messages; 1 is a cut."""

OneWay = Literal["in", "out"]
Drop = tuple[str, str, float]


def read_groups(text: str, ids: Sequence[str]) -> list[list[str]]:
    """Return the groups in ``n1,n2/n3``; raises ``UsageError`` for fewer than two groups or a node named twice."""
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in text.split("/")]
    named = [name for group in groups for name in group]
    unknown = [name for name in named if name not in ids]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is not in this cluster, which has {', '.join(ids)}")
    if len(named) != len(set(named)) or len([group for group in groups if group]) < 2:
        raise UsageError(f"{text!r} is not a partition; give groups of nodes separated by slashes, such as n1,n2/n3")
    return [group for group in groups if group]


def partition(losses: Losses, groups: Sequence[Sequence[str]]) -> Losses:
    """Return the losses when nodes communicate only within their group; replaces earlier cuts."""
    group_of = {node: number for number, group in enumerate(groups) for node in group}
    lossy = {pair: loss for pair, loss in losses.items() if loss < 1}
    return lossy | {(one, other): 1.0 for one in group_of for other in group_of if group_of[one] != group_of[other]}


def isolate(losses: Losses, node: str, ids: Iterable[str], one_way: OneWay | None = None) -> Losses:
    """Return the losses when a node, in addition, receives nothing (``in``), sends nothing (``out``), or both."""
    others = [other for other in ids if other != node]
    incoming = {(other, node): 1.0 for other in others if one_way != "out"}
    outgoing = {(node, other): 1.0 for other in others if one_way != "in"}
    return {**losses, **incoming, **outgoing}


def flaky(losses: Losses, node: str, ids: Iterable[str], loss: float) -> Losses:
    """Return the losses when a node, in addition, loses this fraction of its packets in both directions; 0 ends that.

    Cuts are unchanged.
    """
    both_ways = [pair for other in ids if other != node for pair in ((node, other), (other, node))]
    pairs = [pair for pair in both_ways if losses.get(pair, 0) < 1]
    changed = {**losses, **dict.fromkeys(pairs, loss)}
    return {pair: part for pair, part in changed.items() if part > 0}


def drops_of(node: str, losses: Losses, addresses: Mapping[str, str]) -> list[Drop]:
    """Return the rules of one node, as (address, direction, probability).

    A cut is enforced at both ends, so it holds while one of them restarts. A loss is enforced where the packets
    arrive: at both ends, it would count twice.
    """
    drops = []
    for (source, target), loss in sorted(losses.items()):
        if target == node and source in addresses:
            drops.append((addresses[source], "in", loss))
        elif source == node and target in addresses and loss >= 1:
            drops.append((addresses[target], "out", 1.0))
    return drops


def describe(node: str, losses: Losses) -> str:
    """Return a description of the faults at a node; empty if there are none."""
    not_from = sorted(source for (source, target), loss in losses.items() if target == node and loss >= 1)
    not_to = sorted(target for (source, target), loss in losses.items() if source == node and loss >= 1)
    words = []
    if not_from == not_to and not_from:
        words.append(f"is cut off from {', '.join(not_from)}")
    else:
        words += [f"receives nothing from {', '.join(not_from)}"] if not_from else []
        words += [f"cannot reach {', '.join(not_to)}"] if not_to else []
    for lost in sorted({loss for (_, target), loss in losses.items() if target == node and loss < 1}):
        sources = sorted(source for (source, target), loss in losses.items() if target == node and loss == lost)
        words.append(f"loses {percent(lost)} of the packets from {', '.join(sources)}")
    return "; ".join(words)


def percent(loss: float) -> str:
    """Return a loss as a percentage, such as 30% or 0.5%."""
    return f"{100 * loss:.3g}%"
