"""Packet loss between the nodes of one cluster: recorded on the engine, and enforced by rules at each node.

The record is the label of an empty volume, so every command sees it. The rules are set by a short-lived container
that joins the network namespace of the node and runs ``firewall.py``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ContainerError, NotFound

from deploy.containers import NodeContainer, find
from deploy.engine import DeployError, brief, explained, in_parallel
from deploy.faults import Losses, drops_of
from deploy.names import CLUSTER_LABEL, FAULTS_LABEL, RAFT_PORT, Names
from deploy.resources import create_volume

FIREWALL = Path(__file__).with_name("firewall.py")


class PacketLoss:
    """The packet loss between the nodes of one cluster."""

    def __init__(self, client: Any, names: Names) -> None:
        self._client = client
        self._names = names

    def read(self) -> Losses:
        """Return the losses in force."""
        with explained():
            recorded = self._labels().get(FAULTS_LABEL, "[]")
        return {(source, target): loss for source, target, loss in json.loads(recorded)}

    def set(self, losses: Losses) -> None:
        """Replace the losses; raises ``DeployError`` if a volume that is not ours has the name of the record."""
        with explained():
            # The record comes first, so that a node that starts meanwhile gets the new rules.
            self._record(losses)
            self._apply(losses)

    def apply_again(self) -> None:
        """Set the rules again after nodes have started: their addresses may differ and their rules are gone."""
        if losses := self.read():
            self._apply(losses)

    def _labels(self) -> Mapping[str, str]:
        """Return the labels of the record; empty if it does not exist or is not ours."""
        try:
            labels: Mapping[str, str] = self._client.api.inspect_volume(self._names.faults)["Labels"] or {}
        except NotFound:
            return {}
        return labels if labels.get(CLUSTER_LABEL) == self._names.cluster else {}

    def _record(self, losses: Losses) -> None:
        if self._labels():
            with contextlib.suppress(NotFound):
                self._client.api.remove_volume(self._names.faults)
        if losses:
            recorded = json.dumps([[source, target, loss] for (source, target), loss in sorted(losses.items())])
            create_volume(self._client, self._names, self._names.faults, **{FAULTS_LABEL: recorded})

    def _apply(self, losses: Losses) -> None:
        nodes = {
            node_id: container
            for node_id, container in find(self._client, self._names).items()
            if container.address is not None and container.state in ("running", "paused")
        }
        addresses = {node_id: container.address for node_id, container in nodes.items() if container.address}
        source = FIREWALL.read_text()
        in_parallel(
            lambda node: self._set_rules(
                node, source, {"port": RAFT_PORT, "drops": drops_of(node.node_id, losses, addresses)}
            ),
            nodes.values(),
        )

    def _set_rules(self, node: NodeContainer, source: str, rules: Mapping[str, object]) -> None:
        """Run ``firewall.py`` beside a node: only this container has the right to change the rules, not the node."""
        try:
            self._client.containers.run(
                node.image,
                ["-I", "-S", "-c", source, json.dumps(rules)],
                entrypoint="python3",
                user="0",
                network_mode=f"container:{node.container_id}",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN"],
                read_only=True,
                # Without this, the engine would create a volume for /data and leave it behind.
                tmpfs={"/data": ""},
                labels=self._names.labels(),
                remove=True,
                stderr=True,
            )
        except ContainerError as error:
            why = brief(error.stderr.decode(errors="replace"))
            raise DeployError(f"{node.node_id} cannot drop packets: {why}") from None
        except APIError as error:
            # A node that has stopped meanwhile has no network, and nothing to drop.
            if "cannot join network" not in str(error) and "not running" not in str(error):
                raise
