"""Making the parts of a cluster, and removing them: containers, networks and volumes, and nothing of anybody else."""

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

from deploy.asking import HOST
from deploy.containers import SECRET_FILE, create
from deploy.engine import DeployError, brief, explained, in_parallel, name_taken
from deploy.interrupts import uninterrupted
from deploy.names import CLUSTER_LABEL, NODE_LABEL, NODES_LABEL, Names, in_order
from deploy.waiting import wait_for

USER = 10001
# What the engine answers when something is in use, or is being removed already.
BUSY = (403, 409)
# Below the ports that systems give to whoever asks for any: nobody gets one of these by chance.
FREE_PORTS = range(20000, 30000)


class Part(NamedTuple):
    """Something that the engine keeps for a cluster."""

    kind: str
    """container, network or volume."""
    id: str
    node_id: str | None
    name: str | None = None
    """What people know it by, if that is not its id."""


class ClusterSpec(NamedTuple):
    """What a cluster is to be made of."""

    ids: Sequence[str]
    ports: Mapping[str, int]
    image: str
    settings: Mapping[str, str]


def inventory(client: Any, names: Names) -> set[Part]:
    """Return all parts of a cluster that are there."""
    api, mine = client.api, names.mine
    listed = [
        *(("container", each["Id"], each["Labels"], None) for each in api.containers(all=True, filters=mine)),
        *(("network", each["Id"], each["Labels"], each["Name"]) for each in api.networks(filters=mine)),
        *(("volume", each["Name"], each["Labels"], None) for each in api.volumes(filters=mine)["Volumes"] or ()),
    ]
    return {Part(kind, part_id, labels.get(NODE_LABEL), name) for kind, part_id, labels, name in listed}


def ids_to_be(client: Any, names: Names) -> list[str]:
    """Return the nodes that a cluster is to have, if it has been decided; they need not be there yet."""
    try:
        labels = client.api.inspect_volume(names.secret)["Labels"] or {}
    except NotFound:
        labels = {}
    if labels.get(CLUSTER_LABEL) == names.cluster and NODES_LABEL in labels:
        return str(labels[NODES_LABEL]).split(",")
    return node_ids(inventory(client, names))


def node_ids(parts: set[Part]) -> list[str]:
    """Return the nodes that have a container or data."""
    return sorted({part.node_id for part in parts if part.node_id is not None}, key=in_order)


def remove(client: Any, parts: set[Part]) -> None:
    """Remove these parts; those that are gone already do not matter."""
    # A network or volume cannot be removed as long as a container uses it.
    for kinds in (("container",), ("network", "volume")):
        in_parallel(partial(remove_one, client), [part for part in parts if part.kind in kinds])


def remove_one(client: Any, part: Part) -> None:
    """Remove a part, as soon as whatever else the engine is doing with it has come to its end."""
    api = client.api
    # With the volumes of a container that have no name; data has one.
    act: Callable[[], None] = {
        "container": partial(api.remove_container, part.id, force=True, v=True),
        "network": partial(api.remove_network, part.id),
        "volume": partial(api.remove_volume, part.id, force=True),
    }[part.kind]
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

    wait_for(is_gone, lambda: f"the {part.kind} {part.name or part.id} cannot be removed: {with_help(why)}")


def with_help(why: str) -> str:
    """Return why something cannot be removed, and what would help, where we know."""
    # The engine forgets at times that a container is gone, and remembers when it starts.
    return f"{why}; restarting the Docker Engine helps" if "has active endpoints" in why else why


@contextlib.contextmanager
def undone_on_failure(client: Any, names: Names, say: Callable[[str], None]) -> Iterator[None]:
    """Remove what was made meanwhile, if it did not end well: by an error, by Ctrl-C, or by a signal.

    Whoever presses Ctrl-C again does not interrupt that; ``say`` is told, because it can take some seconds. Nobody
    else may make anything of the cluster meanwhile: it would be removed as well.
    """
    with explained():
        before = inventory(client, names)
    try:
        yield
    except BaseException as error:
        with uninterrupted():
            take_back(client, names, before, isinstance(error, KeyboardInterrupt), say)
        raise


def take_back(client: Any, names: Names, before: set[Part], interrupted: bool, say: Callable[[str], None]) -> None:
    """Remove what was not there ``before``; where that cannot be done, say so, and hide no other error by it."""

    def tell(line: str) -> None:
        # Nobody may be left who listens, and it must be removed all the same.
        with contextlib.suppress(OSError):
            say(line)

    try:
        with explained():
            made = inventory(client, names) - before
            if made and interrupted:
                tell("interrupted; removing what was made")
            remove(client, made)
    except DeployError as error:
        tell(f"what was made may still be there, because {error}; `down --volumes` removes it")


def make(client: Any, names: Names, shape: ClusterSpec, missing: Sequence[str]) -> None:
    """Make the containers of the nodes that are ``missing``, and what they need.

    Whoever is killed on the way leaves something from which the next one can go on: first comes the volume that says
    how many nodes there are to be, and no node has anything before the secret is written.
    """
    parts = inventory(client, names)

    def make_node(node_id: str) -> None:
        make_volume(client, names, names.node(node_id), **{NODE_LABEL: node_id})
        create(client, names, node_id, shape.ids, shape.image, shape.ports[node_id], shape.settings)

    in_parallel(lambda name: make_volume(client, names, name, **{NODES_LABEL: ",".join(shape.ids)}), [names.secret])
    work: list[Callable[[], None]] = [partial(make_networks, client, names)]
    if not node_ids(parts) or names.secret not in {part.id for part in parts}:
        work.append(lambda: write_secret(client, names, shape.image))
    in_parallel(lambda each: each(), work)
    # At the same time, because each takes the engine a while.
    in_parallel(make_node, missing)


def make_volume(client: Any, names: Names, name: str, **labels: str) -> None:
    """Make a volume if it is not there; raises ``DeployError`` if there is one of this name that is not ours.

    The engine gives whoever wants to make a volume the one that is there, with all that somebody else has in it.
    """
    made = client.api.create_volume(name, labels=names.labels(**labels))
    if (made["Labels"] or {}).get(CLUSTER_LABEL) != names.cluster:
        raise DeployError(name_taken("volume", name))


def make_networks(client: Any, names: Names) -> None:
    """Make the networks that are not there."""
    there = {each["Name"] for each in client.api.networks(filters=names.mine)}
    wanted = {names.clients: False, names.peers: True}

    def make_network(name: str) -> None:
        client.api.create_network(
            name, driver="bridge", internal=wanted[name], labels=names.labels(), check_duplicate=True
        )

    in_parallel(make_network, wanted.keys() - there)


def write_secret(client: Any, names: Names, image: str) -> None:
    """Draw the cluster's secret, which only the nodes' user can read.

    It is written through a container that is never started: the engine may be on another machine.
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
    """Return an archive with one file for the nodes' user alone."""
    file = tarfile.TarInfo(name)
    file.size, file.mode, file.uid, file.gid = len(content), 0o400, USER, USER
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(file, io.BytesIO(content))
    return packed.getvalue()


def choose_ports(ids: Sequence[str], taken: Mapping[str, int], base: int | None, default: int | None) -> dict[str, int]:
    """Return where each node is to serve clients: in a row with those that have a port, else from ``base`` on.

    Without a base it is from ``default`` on, and without that, where ports are free.
    """
    if taken:
        node_id, port = next(iter(taken.items()))
        has = port - list(ids).index(node_id)
        if base not in (None, has):
            raise DeployError(f"the cluster serves clients from port {has} on; take it `down` first, to change that")
        base = has
    first = base or default or free_ports(len(ids), Random())
    return {node_id: first + number for number, node_id in enumerate(ids)}


def free_ports(count: int, rng: Random) -> int:
    """Return the first of so many ports in a row on which nobody listens now."""
    for _ in range(100):
        first = rng.randrange(FREE_PORTS.start, FREE_PORTS.stop - count)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise DeployError(f"there are no {count} free ports in a row from {FREE_PORTS.start} to {FREE_PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether one can listen on a port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True
