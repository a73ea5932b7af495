"""The table of a cluster's nodes: the state of their containers, and their own answers to ``/status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.faults import Losses, describe
from deploy.monitor import ObservedNode

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "bright_cyan", "bright_magenta")
UNKNOWN = "–"
NUMBERS = ("term", "commit", "applied", "lag", "port")


class Row(NamedTuple):
    """The cells of one node, as text."""

    node: str
    container: str
    role: str
    term: str
    commit: str
    applied: str
    lag: str
    leader: str
    port: str


HEADINGS = Row("node", "container", "role", "term", "commit", "applied", "lag", "leader", "port")


def rows(views: Mapping[str, ObservedNode]) -> list[Row]:
    """Return the rows. A node's lag is the number of entries committed on any node that it has not applied."""
    committed = max([view.status["commit_index"] for view in views.values() if view.status is not None], default=0)
    return [row(node_id, view, committed) for node_id, view in views.items()]


def row(node_id: str, node: ObservedNode, committed: int) -> Row:
    """Return the row of one node."""
    container, status = node
    state = container.state if container.health is None else f"{container.state}, {container.health}"
    if status is None:
        unknown = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
        return Row(node_id, state, *unknown, str(container.port))
    return Row(
        node_id,
        state,
        status["role"],
        str(status["term"]),
        str(status["commit_index"]),
        str(status["last_applied"]),
        str(committed - status["last_applied"]),
        status["leader"] or "none",
        str(container.port),
    )


def colour(node_id: str) -> str:
    """Return a node's colour, the same in all output."""
    return COLOURS[(int("".join(filter(str.isdigit, node_id)) or 1) - 1) % len(COLOURS)]


def table(shown: list[Row]) -> Table:
    """Return the table."""
    # Without lines it fits into a terminal of 80 columns.
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for heading in HEADINGS:
        justify: Literal["left", "right"] = "right" if heading in NUMBERS else "left"
        drawn.add_column(heading, justify=justify, no_wrap=True)
    for each in shown:
        drawn.add_row(
            Text(each.node, style=colour(each.node)),
            Text(each.container, style="green" if each.container.startswith("running") else "red"),
            Text(each.role, style="bold" if each.role == "leader" else ""),
            *each[3:],
        )
    return drawn


def overview(views: Mapping[str, ObservedNode], losses: Losses) -> Group:
    """Return the table, and below it the faults of the network."""
    faults = {node_id: describe(node_id, losses) for node_id in views}
    lines = [Text(f"{node_id} {words}", style="red") for node_id, words in faults.items() if words]
    return Group(table(rows(views)), *lines)
