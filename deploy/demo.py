"""The guided tour: three nodes, some writes, a killed leader, an election, and the old leader back as a follower."""

from __future__ import annotations

import contextlib
import json
import re
import time
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.padding import Padding

from deploy.cluster import Cluster
from deploy.engine import DeployError
from deploy.node_http import NodeAnswer, key_path
from deploy.status import rows, table
from deploy.waiting import wait_for
from deploy.writer import Writer

WIDTH = 96
KEY, VALUE = "greeting", "hello"


class Demo:
    """The tour of one cluster, printed on a console."""

    def __init__(self, cluster: Cluster, console: Console) -> None:
        self._cluster = cluster
        self._console = console
        self._is_first = True

    def run(self) -> None:
        """Run the whole tour; raises ``DeployError`` if anything goes wrong."""
        cluster = self._cluster
        self._say("Three nodes, each in a container of its own, form a cluster and elect a leader:")
        started_s = time.monotonic()
        cluster.up()
        self._show("python -m deploy up", f"{cluster.name} is up, after {time.monotonic() - started_s:.1f} s.")
        self._table()
        self._write_and_read()
        leader, writer = self._kill_leader()
        self._start_again(leader)
        self._nothing_lost(writer)

    def _say(self, text: str) -> None:
        self._console.print(text if self._is_first else f"\n{text}", style="bold", highlight=False)
        self._is_first = False

    def _show(self, command: str, answer: str) -> None:
        self._console.print(Padding(f"[green]$[/] {command}\n{answer}", (0, 0, 0, 4)), highlight=False)

    def _table(self) -> None:
        self._console.print(Padding(table(rows(self._cluster.views())), (1, 0, 0, 4)))

    def _write_and_read(self) -> None:
        cluster = self._cluster
        writer, reader = cluster.ids[0], cluster.ids[-1]
        self._say(f"A write through {writer}, and immediately a read through {reader}:")
        ports = cluster.ports
        body = {"value": VALUE}
        written = self._ask(writer, "POST", key_path(KEY), body)
        url = f"http://127.0.0.1:{ports[writer]}{key_path(KEY)}"
        self._show(f"curl -X POST {url} -d '{json.dumps(body)}'", json.dumps(written.body))
        self._read(reader)

    def _ask(self, node_id: str, method: str, path: str, body: object = None) -> NodeAnswer:
        """Send a request until its status is 200, because an election can happen at any moment; return the answer."""
        answers: list[NodeAnswer] = []

        def is_done() -> bool:
            with contextlib.suppress(OSError, HTTPException, ValueError):
                answers.append(self._cluster.ask(node_id, method, path, body))
            return bool(answers) and answers[-1].status == 200

        wait_for(is_done, lambda: f"{node_id} answers {answers[-1] if answers else 'nothing'}")
        return answers[-1]

    def _read(self, node_id: str, query: str = "") -> None:
        answer = self._ask(node_id, "GET", key_path(KEY) + query)
        url = f"http://127.0.0.1:{self._cluster.ports[node_id]}{key_path(KEY)}{query}"
        self._show(f"curl {url}", json.dumps(answer.body))
        if answer.body != {"value": VALUE}:
            raise DeployError(f"{node_id} answers {answer.body} for {KEY}, not {VALUE}")

    def _kill_leader(self) -> tuple[str, Writer]:
        cluster = self._cluster
        leader = cluster.leader()
        others = [node_id for node_id in cluster.ids if node_id != leader]
        self._say(f"The leader, {leader}, is killed while a client keeps writing through the other nodes:")
        ports = cluster.ports
        with Writer([ports[node_id] for node_id in others], "tour") as writer:
            writer.wait_for_more(20)
            cluster.kill(leader)
            elected = cluster.leader(not_in=[leader])
            writer.wait_for_more(20)
        self._show(
            "python -m deploy kill leader",
            f"{leader} is killed. {elected} is the new leader; "
            f"the client waited [bold]{writer.longest_gap_s():.2f} s[/] for the election.",
        )
        self._table()
        self._read(elected)
        return leader, writer

    def _start_again(self, leader: str) -> None:
        cluster = self._cluster
        self._say(f"{leader} is started again, and comes back as a follower that catches up:")
        cluster.start(leader)
        cluster.wait_until_caught_up()
        self._show(f"python -m deploy start {leader}", f"{leader} is started.")
        self._table()

    def _nothing_lost(self, writer: Writer) -> None:
        """Read every acknowledged write from each node's own copy; raises ``DeployError`` if one is lost."""
        cluster = self._cluster
        lost = [
            (node_id, each.key)
            for node_id in cluster.ids
            for each in writer.written
            if self._ask(node_id, "GET", f"/keys/{each.key}/?level=stale").body != {"value": each.value}
        ]
        if lost:
            raise DeployError(f"acknowledged writes are lost: {lost}")
        self._say(f"All {len(writer.written)} acknowledged writes are on all nodes. Nothing was lost.")


def save_svg(console: Console, path: Path, title: str) -> None:
    """Write the output of a recording console as a picture.

    It contains no web fonts: a picture in a README cannot load any.
    """
    picture = console.export_svg(title=title, unique_id="demo")
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.S))
