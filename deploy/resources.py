"""The resources of a cluster on the engine: containers, networks and volumes, listed, created and removed.

A cluster can be created again from any prefix of its creation: first comes the volume whose label lists the nodes,
then the secret, then each node's volume and container. So a command that is killed leaves something that the next
command completes, and a command that fails removes exactly what was not there before.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

from docker.errors import APIError, NotFound

from deploy.containers import SECRET_FILE, create
from deploy.engine import DeployError, brief, explained, in_parallel, name_taken
from deploy.interrupts import uninterrupted
from deploy.names import CLUSTER_LABEL, NODE_LABEL, NODES_LABEL, Names, sort_key
from deploy.node_http import HOST
from deploy.waiting import wait_for

USER = 10001
# The engine's statuses for a resource that is in use or is already being removed.
BUSY = (403, 409)
# Below the range from which systems choose ports, so that no connection takes one of these by chance.
FREE_PORTS = range(20000, 30000)


class Resource(NamedTuple):
    """A container, network or volume of a cluster."""

    kind: str
    """container, network or volume."""
    id: str
    node_id: str | None
    name: str | None = None
    """The name for messages, if it is not the id."""


class ClusterSpec(NamedTuple):
    """What is needed to create the nodes of a cluster."""

    ids: Sequence[str]
    ports: Mapping[str, int]
    image: str
    settings: Mapping[str, str]


def inventory(client: Any, names: Names) -> set[Resource]:
    """Return all resources of a cluster."""
    api, mine = client.api, names.mine
    listed = [
        *(("container", each["Id"], each["Labels"], None) for each in api.containers(all=True, filters=mine)),
        *(("network", each["Id"], each["Labels"], each["Name"]) for each in api.networks(filters=mine)),
        *(("volume", each["Name"], each["Labels"], None) for each in api.volumes(filters=mine)["Volumes"] or ()),
    ]
    return {Resource(kind, part_id, labels.get(NODE_LABEL), name) for kind, part_id, labels, name in listed}


def intended_nodes(client: Any, names: Names) -> list[str]:
    """Return the nodes that a cluster was created for, whether or not they exist yet; empty if there is no cluster."""
    try:
        labels = client.api.inspect_volume(names.secret)["Labels"] or {}
    except NotFound:
        labels = {}
    if labels.get(CLUSTER_LABEL) == names.cluster and NODES_LABEL in labels:
        return str(labels[NODES_LABEL]).split(",")
    return node_ids(inventory(client, names))


def node_ids(resources: set[Resource]) -> list[str]:
    """Return the nodes that have a container or data."""
    return sorted({each.node_id for each in resources if each.node_id is not None}, key=sort_key)


def remove(client: Any, resources: set[Resource]) -> None:
    """Remove these resources; those that are already gone are skipped."""
    # A network or volume cannot be removed while a container uses it.
    for kinds in (("container",), ("network", "volume")):
        in_parallel(partial(remove_one, client), [each for each in resources if each.kind in kinds])


def remove_one(client: Any, resource: Resource) -> None:
    """Remove a resource; retries while the engine is busy with it."""
    api = client.api
    # v=True removes a container's anonymous volumes. The volume with the data has a name, and stays.
    act: Callable[[], None] = {
        "container": partial(api.remove_container, resource.id, force=True, v=True),
        "network": partial(api.remove_network, resource.id),
        "volume": partial(api.remove_volume, resource.id, force=True),
    }[resource.kind]
    why = ""

    def is_gone() -> bool:
        nonlocal why
        try:
            act()
        except NotFound:
            return True
        except APIError as error:
            if error.status_code not in BUSY:
                raise
            why = brief(str(error.explanation))
            return False
        return True

    name = resource.name or resource.id
    wait_for(is_gone, lambda: f"the {resource.kind} {name} cannot be removed: {with_remedy(why)}")


def with_remedy(why: str) -> str:
    """Return the reason why something cannot be removed, with a remedy where one is known."""
    # The engine sometimes keeps the endpoint of a container that is gone until it restarts.
    return f"{why}; restarting the Docker Engine helps" if "has active endpoints" in why else why


@contextlib.contextmanager
def undone_on_failure(client: Any, names: Names, say: Callable[[str], None]) -> Iterator[None]:
    """Remove what was created in this context if it ends with an error, Ctrl-C or a signal.

    A second Ctrl-C does not interrupt the removal, which can take seconds; ``say`` announces it. The caller must hold
    the cluster's lock, or resources that another command creates meanwhile would be removed too.
    """
    with explained():
        before = inventory(client, names)
    try:
        yield
    except BaseException as error:
        with uninterrupted():
            undo(client, names, before, isinstance(error, KeyboardInterrupt), say)
        raise


def undo(client: Any, names: Names, before: set[Resource], interrupted: bool, say: Callable[[str], None]) -> None:
    """Remove what is not in ``before``; report a failure through ``say``, so that it does not hide the first error."""

    def try_to_say(line: str) -> None:
        # The terminal may be gone; the removal must happen all the same.
        with contextlib.suppress(OSError):
            say(line)

    try:
        with explained():
            created = inventory(client, names) - before
            if created and interrupted:
                try_to_say("interrupted; cleaning up")
            remove(client, created)
    except DeployError as error:
        try_to_say(f"the clean-up failed: {error}; `down --volumes` removes what is left")


def create_nodes(client: Any, names: Names, spec: ClusterSpec, missing: Sequence[str]) -> None:
    """Create the containers of the ``missing`` nodes and everything that they need, in the order described above."""
    resources = inventory(client, names)

    def create_node(node_id: str) -> None:
        create_volume(client, names, names.node(node_id), **{NODE_LABEL: node_id})
        create(client, names, node_id, spec.ids, spec.image, spec.ports[node_id], spec.settings)

    in_parallel(lambda name: create_volume(client, names, name, **{NODES_LABEL: ",".join(spec.ids)}), [names.secret])
    work: list[Callable[[], None]] = [partial(create_networks, client, names)]
    if not node_ids(resources) or names.secret not in {each.id for each in resources}:
        work.append(lambda: write_secret(client, names, spec.image))
    in_parallel(lambda each: each(), work)
    # In parallel, because the engine takes a while for each.
    in_parallel(create_node, missing)


def create_volume(client: Any, names: Names, name: str, **labels: str) -> None:
    """Create a volume if it does not exist; raises ``DeployError`` if one of this name is not ours.

    For a name that exists, the engine returns the existing volume with its content, even if another program created it.
    """
    volume = client.api.create_volume(name, labels=names.labels(**labels))
    if (volume["Labels"] or {}).get(CLUSTER_LABEL) != names.cluster:
        raise DeployError(name_taken("volume", name))


def create_networks(client: Any, names: Names) -> None:
    """Create the networks that do not exist."""
    existing = {each["Name"] for each in client.api.networks(filters=names.mine)}
    internal = {names.clients: False, names.peers: True}

    def create_network(name: str) -> None:
        client.api.create_network(
            name, driver="bridge", internal=internal[name], labels=names.labels(), check_duplicate=True
        )

    in_parallel(create_network, internal.keys() - existing)


def write_secret(client: Any, names: Names, image: str) -> None:
    """Generate the cluster secret, readable by the nodes' user only.

    It is copied through a container that is never started, because the engine may be on another machine.
    """
    api = client.api
    container = api.create_container(
        image,
        labels=names.labels(),
        host_config=api.create_host_config(
            binds={names.secret: {"bind": "/secret", "mode": "rw"}}, tmpfs={"/data": ""}
        ),
    )["Id"]
    try:
        directory, name = SECRET_FILE.rsplit("/", 1)
        api.put_archive(container, directory, archive(name, secrets.token_hex(32).encode() + b"\n"))
    finally:
        api.remove_container(container, force=True, v=True)


def archive(name: str, content: bytes) -> bytes:
    """Return a tar archive with one file that only the nodes' user can read."""
    file = tarfile.TarInfo(name)
    file.size, file.mode, file.uid, file.gid = len(content), 0o400, USER, USER
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(file, io.BytesIO(content))
    return packed.getvalue()


def choose_ports(ids: Sequence[str], taken: Mapping[str, int], base: int | None, default: int | None) -> dict[str, int]:
    """Return each node's port for clients: consecutive ports, in the order of ``ids``.

    The ports of existing nodes (``taken``) decide; else ``base``, else ``default``, else ports that are free.
    Raises ``DeployError`` if ``base`` contradicts the existing nodes.
    """
    if taken:
        node_id, port = next(iter(taken.items()))
        current = port - list(ids).index(node_id)
        if base not in (None, current):
            raise DeployError(f"the ports of this cluster start at {current}; to change that, take it `down` first")
        base = current
    first = base or default or free_ports(len(ids), Random())
    return {node_id: first + number for number, node_id in enumerate(ids)}


def free_ports(count: int, rng: Random) -> int:
    """Return the first of ``count`` consecutive ports that are free now."""
    for _ in range(100):
        first = rng.randrange(FREE_PORTS.start, FREE_PORTS.stop - count)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise DeployError(f"there are no {count} consecutive free ports from {FREE_PORTS.start} to {FREE_PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether a process could listen on a port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True
