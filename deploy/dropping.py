"""Losses made true: kept where every command finds them, and set as rules in the networks of the nodes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from docker.errors import APIError, ContainerError, NotFound

from deploy.engine import DeployError, brief, in_parallel
from deploy.faults import Losses, drops_of
from deploy.making import make_volume
from deploy.names import CLUSTER_LABEL, FAULTS_LABEL, RAFT_PORT, Names

FIREWALL = Path(__file__).with_name("firewall.py")


class Place(NamedTuple):
    """Where a node is: its container's id, the image of that, and its address among the nodes."""

    container: str
    image: str
    address: str


def read(client: Any, names: Names) -> Losses:
    """Return what is lost now; it is written on a volume, so that every command sees it."""
    kept = labels_of_ours(client, names).get(FAULTS_LABEL, "[]")
    return {(source, target): loss for source, target, loss in json.loads(kept)}


def labels_of_ours(client: Any, names: Names) -> Mapping[str, str]:
    """Return the labels of that volume; nothing if it is not there, or somebody else's."""
    try:
        labels: Mapping[str, str] = client.api.inspect_volume(names.faults)["Labels"] or {}
    except NotFound:
        return {}
    return labels if labels.get(CLUSTER_LABEL) == names.cluster else {}


def write(client: Any, names: Names, losses: Losses) -> None:
    """Keep what is lost from now on; raises ``DeployError`` if somebody else has a volume of that name."""
    if labels_of_ours(client, names):
        with contextlib.suppress(NotFound):
            client.api.remove_volume(names.faults)
    if losses:
        kept = json.dumps([[source, target, loss] for (source, target), loss in sorted(losses.items())])
        make_volume(client, names, names.faults, **{FAULTS_LABEL: kept})


def apply(client: Any, names: Names, losses: Losses, places: Mapping[str, Place]) -> None:
    """Let these nodes drop what they have to drop, and nothing else.

    A container beside each of them, in its network and gone at once, sets the rules: it needs no tool on this machine
    nor in the image, nothing but a kernel with nf_tables, and the node itself keeps no right to change them.
    """
    addresses = {node: place.address for node, place in places.items()}
    source = FIREWALL.read_text()

    def change(node: str) -> None:
        asked = {"port": RAFT_PORT, "drops": drops_of(node, losses, addresses)}
        try:
            client.containers.run(
                places[node].image,
                ["-I", "-S", "-c", source, json.dumps(asked)],
                entrypoint="python3",
                user="0",
                network_mode=f"container:{places[node].container}",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN"],
                read_only=True,
                # Or the image's volume for data would be made, and left behind.
                tmpfs={"/data": ""},
                labels=names.labels(),
                remove=True,
                stderr=True,
            )
        except ContainerError as error:
            why = brief(error.stderr.decode(errors="replace"))
            raise DeployError(f"no packets can be dropped at {node}: {why}") from None
        except APIError as error:
            # Whoever stopped meanwhile has no network any more, and nothing to drop.
            if "cannot join network" not in str(error) and "not running" not in str(error):
                raise

    in_parallel(change, places)
