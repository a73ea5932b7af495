"""What a node's container is made of, and what the engine says of the containers that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deploy.asking import HOST
from deploy.engine import UsageError
from deploy.names import HTTP_PORT, NODE_LABEL, PORT_LABEL, RAFT_PORT, SETTINGS_LABEL, Names, in_order, peer_name
from raftkv.config.option import SettingsError
from raftkv.config.settings import OPTIONS, check_shared

SECRET_FILE = "/secret/cluster"
MEMORY = "512m"
PROCESSES = 256
HEALTH_INTERVAL_S, HEALTH_TIMEOUT_S, HEALTH_START_S = 2, 3, 10
SECOND_NS = 1_000_000_000
# A node takes five seconds at most.
STOP_S = 10


class Found(NamedTuple):
    """A node's container as the engine shows it."""

    node_id: str
    container: str
    """Its id."""
    state: str
    """created, running, paused, restarting, exited or dead."""
    health: str | None
    image: str
    """The image's id."""
    port: int
    settings: Mapping[str, str]
    address: str | None
    """Its address among the nodes, while it has one."""
    is_whole: bool = True
    """Whether it is in the nodes' network; if not, whoever made it did not come to that."""

    @property
    def runs(self) -> bool:
        """Whether its process is there and not paused."""
        return self.state == "running"


def find(client: Any, names: Names) -> dict[str, Found]:
    """Return the nodes' containers, by node and in order."""
    listed = client.api.containers(all=True, filters=names.mine)
    found = [as_found(each, names) for each in listed if NODE_LABEL in each["Labels"]]
    return {each.node_id: each for each in sorted(found, key=lambda each: in_order(each.node_id))}


def as_found(listed: Mapping[str, Any], names: Names) -> Found:
    """Return a container as we see it; ``listed`` is how the engine lists it."""
    labels = listed["Labels"]
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    health = re.search(r"\((?:health: )?(\w+)\)$", listed["Status"])
    return Found(
        labels[NODE_LABEL],
        listed["Id"],
        listed["State"],
        health[1] if health and listed["State"] == "running" else None,
        listed["ImageID"],
        int(labels[PORT_LABEL]),
        json.loads(labels[SETTINGS_LABEL]),
        (networks.get(names.peers) or {}).get("IPAddress") or None,
        names.peers in networks,
    )


def check_settings(settings: Mapping[str, str]) -> None:
    """Raise ``UsageError`` unless all nodes can have these settings: what differs between them is not to be set."""
    known = {option.name: option for option in OPTIONS}
    for name in settings:
        if name not in known:
            can_be = ", ".join(option.name for option in OPTIONS if not option.per_node)
            raise UsageError(f"{name!r} is no setting of a node; there are {can_be}")
        if known[name].per_node:
            raise UsageError(f"{name} is not to be set: every node gets its own from here")
    try:
        # Nothing of our own environment gets into a container.
        check_shared(settings)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def environment(node_id: str, ids: Sequence[str], port: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return how a node is configured; ``settings`` are further ones by name, as in ``{"log-level": "debug"}``."""
    given = {
        **settings,
        "id": node_id,
        "http": f"0.0.0.0:{HTTP_PORT}",
        "raft": f"0.0.0.0:{RAFT_PORT}",
        "cluster": ",".join(f"{each}={peer_name(each)}:{RAFT_PORT}" for each in ids),
        "cluster-secret-file": SECRET_FILE,
        "advertise-http": f"{HOST}:{port}",
    }
    return {"RAFTKV_" + name.upper().replace("-", "_"): value for name, value in given.items()}


def create(
    client: Any, names: Names, node_id: str, ids: Sequence[str], image: str, port: int, settings: Mapping[str, str]
) -> str:
    """Make a node's container without starting it, and return its id.

    On the network for clients it has its port, on that of the nodes its name: a port that is published goes away with
    the only network of a container, and a node that is cut off from the others must still be reached by clients.
    """
    api = client.api
    volumes = {names.node(node_id): {"bind": "/data", "mode": "rw"}, names.secret: {"bind": "/secret", "mode": "ro"}}
    container: str = api.create_container(
        image,
        name=names.node(node_id),
        hostname=node_id,
        labels=names.labels(**{NODE_LABEL: node_id, PORT_LABEL: str(port), SETTINGS_LABEL: json.dumps(dict(settings))}),
        environment=environment(node_id, ids, port, settings),
        ports=[HTTP_PORT],
        volumes=[place["bind"] for place in volumes.values()],
        networking_config=api.create_networking_config({names.clients: api.create_endpoint_config(aliases=[node_id])}),
        healthcheck={
            "interval": HEALTH_INTERVAL_S * SECOND_NS,
            "timeout": HEALTH_TIMEOUT_S * SECOND_NS,
            "start_period": HEALTH_START_S * SECOND_NS,
            "retries": 2,
        },
        stop_timeout=STOP_S,
        host_config=api.create_host_config(
            binds=volumes,
            port_bindings={HTTP_PORT: (HOST, port)},
            restart_policy={"Name": "unless-stopped"},
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=MEMORY,
            nano_cpus=SECOND_NS,
            pids_limit=PROCESSES,
            log_config={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        ),
    )["Id"]
    api.connect_container_to_network(container, names.peers, aliases=[peer_name(node_id)])
    return container
