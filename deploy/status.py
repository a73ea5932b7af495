"""The table of a cluster's nodes: what the engine shows of them, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.cluster import ClusterView
from deploy.faults import Losses, describe

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "bright_cyan", "bright_magenta")
UNKNOWN = "–"
NUMBERS = ("term", "commit", "applied", "lag", "port")


class Row(NamedTuple):
    """What is shown of a node, as text."""

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


def rows(views: Mapping[str, ClusterView]) -> list[Row]:
    """Return what to show; a node's lag is how many entries that are committed somewhere it has not applied."""
    committed = max([view.status["commit_index"] for view in views.values() if view.status is not None], default=0)
    return [row(node_id, view, committed) for node_id, view in views.items()]


def row(node_id: str, view: ClusterView, committed: int) -> Row:
    """Return what to show of one node."""
    found, status = view
    container = found.state if found.health is None else f"{found.state}, {found.health}"
    if status is None:
        unknown = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
        return Row(node_id, container, *unknown, str(found.port))
    return Row(
        node_id,
        container,
        status["role"],
        str(status["term"]),
        str(status["commit_index"]),
        str(status["last_applied"]),
        str(committed - status["last_applied"]),
        status["leader"] or "none",
        str(found.port),
    )


def colour(node_id: str) -> str:
    """Return a node's colour, the same in all that is shown."""
    return COLOURS[(int("".join(filter(str.isdigit, node_id)) or 1) - 1) % len(COLOURS)]


def table(shown: list[Row]) -> Table:
    """Return the table."""
    # Without lines, so that it fits into a terminal of 80 columns.
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


def whole(views: Mapping[str, ClusterView], losses: Losses) -> Group:
    """Return the table, and below it what is wrong with the network."""
    told = {node_id: describe(node_id, losses) for node_id in views}
    lines = [Text(f"{node_id} {words}", style="red") for node_id, words in told.items() if words]
    return Group(table(rows(views)), *lines)
