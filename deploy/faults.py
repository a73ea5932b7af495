"""Which messages between nodes are lost: cuts and losses as values, and what each node has to drop for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from deploy.engine import UsageError

Losses = Mapping[tuple[str, str], float]
"""With which probability the packets of messages from one node to another are lost: 1 is a cut."""

OneWay = Literal["in", "out"]
Drop = tuple[str, str, float]


def read_groups(text: str, ids: Sequence[str]) -> list[list[str]]:
    """Return the groups in ``n1,n2/n3``; raises ``UsageError`` unless each node is named once at most."""
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in text.split("/")]
    named = [name for group in groups for name in group]
    unknown = [name for name in named if name not in ids]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is not in this cluster, which has {', '.join(ids)}")
    if len(named) != len(set(named)) or len([group for group in groups if group]) < 2:
        raise UsageError(f"{text!r} is no partition; give groups of nodes with slashes in between, such as n1,n2/n3")
    return [group for group in groups if group]


def partition(losses: Losses, groups: Sequence[Sequence[str]]) -> Losses:
    """Return what is lost when only members of the same group hear of each other; it takes the place of other cuts."""
    group_of = {node: number for number, group in enumerate(groups) for node in group}
    lossy = {pair: loss for pair, loss in losses.items() if loss < 1}
    return lossy | {(one, other): 1.0 for one in group_of for other in group_of if group_of[one] != group_of[other]}


def isolate(losses: Losses, node: str, ids: Iterable[str], one_way: OneWay | None = None) -> Losses:
    """Return what is lost when a node is cut off as well: hears nobody (``in``), is heard by nobody (``out``)."""
    others = [other for other in ids if other != node]
    hears_nobody = {(other, node): 1.0 for other in others if one_way != "out"}
    heard_by_nobody = {(node, other): 1.0 for other in others if one_way != "in"}
    return {**losses, **hears_nobody, **heard_by_nobody}


def flaky(losses: Losses, node: str, ids: Iterable[str], loss: float) -> Losses:
    """Return what is lost when a node also loses this part of its packets, in both directions; 0 ends that.

    What is cut stays cut.
    """
    both_ways = [pair for other in ids if other != node for pair in ((node, other), (other, node))]
    pairs = [pair for pair in both_ways if losses.get(pair, 0) < 1]
    changed = {**losses, **dict.fromkeys(pairs, loss)}
    return {pair: part for pair, part in changed.items() if part > 0}


def drops_of(node: str, losses: Losses, addresses: Mapping[str, str]) -> list[Drop]:
    """Return what a node has to drop.

    A cut is made at both ends, so that it lasts when one of them starts anew. A loss is made where the packets
    arrive: at both ends, a packet would have to be lucky twice.
    """
    drops = []
    for (source, target), loss in sorted(losses.items()):
        if target == node and source in addresses:
            drops.append((addresses[source], "in", loss))
        elif source == node and target in addresses and loss >= 1:
            drops.append((addresses[target], "out", 1.0))
    return drops


def describe(node: str, losses: Losses) -> str:
    """Return in words what a node does not hear, and what others do not hear of it."""
    deaf = sorted(source for (source, target), loss in losses.items() if target == node and loss >= 1)
    mute = sorted(target for (source, target), loss in losses.items() if source == node and loss >= 1)
    words = []
    if deaf == mute and deaf:
        words.append(f"is cut off from {', '.join(deaf)}")
    else:
        words += [f"does not hear {', '.join(deaf)}"] if deaf else []
        words += [f"is not heard by {', '.join(mute)}"] if mute else []
    for lost in sorted({loss for (_, target), loss in losses.items() if target == node and loss < 1}):
        sources = sorted(source for (source, target), loss in losses.items() if target == node and loss == lost)
        words.append(f"loses {percent(lost)} of what {', '.join(sources)} {'send' if len(sources) > 1 else 'sends'}")
    return "; ".join(words)


def percent(loss: float) -> str:
    """Return a loss as people write it, such as 30% or 0.5%."""
    return f"{100 * loss:.3g}%"
