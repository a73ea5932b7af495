"""Bring a cluster up: create what is missing, start what does not run, and wait until each node is ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from deploy.containers import NodeContainer, check_settings
from deploy.engine import DeployError, PortTakenError, UsageError, explained
from deploy.image import check_name, ensure_image, image_id
from deploy.monitor import Monitor
from deploy.names import DEFAULT_IMAGE
from deploy.nodes import Nodes
from deploy.resources import (
    ClusterSpec,
    Resource,
    choose_ports,
    create_nodes,
    intended_nodes,
    remove,
    undone_on_failure,
)

DEFAULT_NODES = 3
# More nodes would make every write slower and nothing safer.
MOST_NODES = 9
HIGHEST_PORT = 65000
# Other processes can take the ports that we found free before the nodes do.
PORT_TRIES = 3


class ClusterOptions(NamedTuple):
    """What the user asks of a cluster; None leaves the choice to the existing cluster, or to the defaults."""

    nodes: int | None = None
    image: str | None = None
    base_port: int | None = None
    settings: Mapping[str, str] = {}

    def check(self) -> None:
        """Raise ``UsageError`` if an option is invalid."""
        if self.nodes is not None and not 1 <= self.nodes <= MOST_NODES:
            raise UsageError(f"a cluster cannot have {self.nodes} nodes; give 1 to {MOST_NODES}")
        if self.base_port is not None and not 1 <= self.base_port <= HIGHEST_PORT:
            raise UsageError(f"the nodes' ports cannot start at {self.base_port}; give 1 to {HIGHEST_PORT}")
        if self.image is not None:
            check_name(self.image)
        check_settings(self.settings)


class BringUp:
    """Brings one cluster up."""

    def __init__(self, nodes: Nodes, monitor: Monitor, options: ClusterOptions, say: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._monitor = monitor
        self._options = options
        self._say = say
        self._client = nodes.client
        self._names = nodes.names

    def run(self, within_s: float, default_port: int | None) -> None:
        """Bring the cluster up, with other ports if those that we chose are taken by then."""
        for _ in range(PORT_TRIES - 1):
            try:
                self.attempt(within_s, default_port)
            except PortTakenError:
                # Trying again helps only if the ports are our choice.
                if self._options.base_port or default_port or self._nodes.found():
                    raise
            else:
                return
        self.attempt(within_s, default_port)

    def attempt(self, within_s: float, default_port: int | None) -> None:
        """Bring the cluster up once; see ``Cluster.up``."""
        with explained(), undone_on_failure(self._client, self._names, self._say):
            there = self._complete_nodes()
            ids = self._ids()
            self._refuse_other_options(there)
            taken = {each.node_id: each.port for each in there.values()}
            ports = choose_ports(ids, taken, self._options.base_port, default_port)
            missing = [node_id for node_id in ids if node_id not in there]
            if missing:
                image, settings = self._image_and_settings(there)
                self._say(f"creating {', '.join(missing)}")
                create_nodes(self._client, self._names, ClusterSpec(ids, ports, image, settings), missing)
            self._nodes.start(ids)
            unready = self._unready(ids, within_s)
        if unready:
            raise DeployError(f"{unready}; `logs` may show why, and `down` removes the containers")

    def _complete_nodes(self) -> dict[str, NodeContainer]:
        """Return the nodes' containers; remove those that a killed command has left incomplete."""
        found = self._nodes.found()
        incomplete = [each for each in found.values() if not each.is_complete]
        remove(self._client, {Resource("container", each.container_id, each.node_id) for each in incomplete})
        return {node_id: each for node_id, each in found.items() if each.is_complete}

    def _image_and_settings(self, there: Mapping[str, NodeContainer]) -> tuple[str, Mapping[str, str]]:
        """Return the image and the settings for missing nodes: those of the existing nodes, if there are any."""
        for container in there.values():
            return container.image, container.settings
        wanted = DEFAULT_IMAGE if self._options.image is None else self._options.image
        return ensure_image(self._client, wanted, DEFAULT_IMAGE, self._say), self._options.settings

    def _ids(self) -> list[str]:
        """Return the ids of the nodes; once a cluster has data, its size is fixed."""
        ids, wanted = intended_nodes(self._client, self._names), self._options.nodes
        if ids and wanted not in (None, len(ids)):
            raise DeployError(
                f"{self._names.cluster} has {len(ids)} nodes ({', '.join(ids)}), not {wanted}: leave --nodes out, give "
                "the new cluster another --name, or remove this one with `down --volumes`"
            )
        return ids or [f"n{number}" for number in range(1, (wanted or DEFAULT_NODES) + 1)]

    def _refuse_other_options(self, there: Mapping[str, NodeContainer]) -> None:
        """Raise ``DeployError`` if existing nodes have another image or other settings than the options ask for."""
        name, wanted = self._names.cluster, self._options.image
        wanted_id = None if wanted is None or not there else image_id(self._client, wanted)
        for node_id, container in there.items():
            if wanted is not None and container.image != wanted_id:
                raise DeployError(
                    f"{node_id} of {name} does not run {wanted}: leave --image out, or change it with "
                    f"`upgrade --image {wanted}`"
                )
            for setting, value in self._options.settings.items():
                if container.settings.get(setting) != value:
                    raise DeployError(
                        f"{node_id} of {name} does not have {setting}={value}: leave --set out, or take the cluster "
                        "`down`, which keeps the data, and bring it `up` with that setting"
                    )

    def _unready(self, ids: Sequence[str], within_s: float) -> str | None:
        """Return why some node is not ready after ``within_s``; None as soon as all are."""
        try:
            self._monitor.wait_until_ready(ids, within_s)
        except DeployError as error:
            return str(error)
        return None
