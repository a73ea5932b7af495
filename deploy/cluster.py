"""A cluster in containers: create and remove it, stop and start its nodes, cut and heal its network.

``Cluster`` is the interface for tests and the command line. Its parts do the work: ``BringUp`` creates nodes, ``Nodes``
starts and stops containers, ``Monitor`` observes nodes over HTTP, ``Upgrade`` replaces images, and ``PacketLoss`` cuts
the network.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from deploy import faults
from deploy.bring_up import BringUp, ClusterOptions
from deploy.containers import NodeContainer
from deploy.engine import connect, explained
from deploy.image import check_name, ensure_image
from deploy.interrupts import interrupted_later, uninterrupted
from deploy.lock import CommandLock
from deploy.monitor import Monitor, ObservedNode
from deploy.names import DEFAULT_IMAGE, Names
from deploy.node_http import NodeAnswer, ask, key_path, require_success
from deploy.nodes import Nodes
from deploy.resources import Resource, inventory, node_ids, remove, undone_on_failure
from deploy.upgrading import Upgrade
from deploy.waiting import PATIENCE_S


def quiet(line: str) -> None:
    """Say nothing."""


class Cluster:
    """The cluster of this ``name``, whether or not it exists; all its state is kept by the engine.

    As a context manager it is brought up, with a random name unless one is given, and removed at the end together with
    its data. ``base_port`` is the port of n1 for clients, n2 has the next one, and so on; by default they are ports
    that are free. ``settings`` are settings of the nodes by name, as in ``{"log-level": "debug"}``. ``image`` is what
    the nodes run, by default the image that is built from this checkout. ``say`` is called with lines on progress.

    All methods raise ``DeployError`` if the operation fails, and its subclass ``UsageError`` if the request is invalid.
    Methods that change nodes return the ids of those that they changed.
    """

    def __init__(
        self,
        nodes: int | None = None,
        *,
        name: str | None = None,
        image: str | None = None,
        base_port: int | None = None,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = quiet,
    ) -> None:
        self.names = Names(f"raftkv-{secrets.token_hex(4)}" if name is None else name)
        options = ClusterOptions(nodes, image, base_port, dict(settings or {}))
        options.check()
        self.client = connect()
        self.say = say
        self.lock = CommandLock(self.names.cluster, say)
        self._nodes = Nodes(self.client, self.names)
        self._monitor = Monitor(self._nodes)
        self._bring_up = BringUp(self._nodes, self._monitor, options, say)
        self._packet_loss = self._nodes.packet_loss

    def __enter__(self) -> Cluster:
        try:
            # On failure, only what is created here is removed: a cluster of this name may have existed before.
            with self.lock, explained(), undone_on_failure(self.client, self.names, self.say):
                self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interrupted_later() if kind is None else uninterrupted(), explained():
            self.down(volumes=True)
            self.close()

    def close(self) -> None:
        """Close the connection to the engine; the cluster stays as it is."""
        self.client.close()

    @property
    def name(self) -> str:
        """Its name."""
        return self.names.cluster

    # --- Up and down.

    def up(self, within_s: float = PATIENCE_S, default_port: int | None = None) -> None:
        """Create and start everything that does not run, and wait until each node answers a linearizable read.

        ``default_port`` is used instead of free ports if the cluster does not have ports yet. If this fails or is
        interrupted, it removes what it created, except when all nodes run but do not get ready: then their logs may
        show why. Blocks while another command on this machine creates, removes or upgrades nodes of the cluster.
        """
        with self.lock:
            self._bring_up.run(within_s, default_port)

    def down(self, volumes: bool = False) -> bool:
        """Remove the containers and networks, and with ``volumes`` the data; return whether anything existed."""
        with self.lock, explained():
            resources = inventory(self.client, self.names)
            # The secret is kept with the data. The record of packet loss is not.
            kept = {self.names.secret, *(self.names.node(node_id) for node_id in node_ids(resources))}
            doomed = {each for each in resources if volumes or each.kind != "volume" or each.id not in kept}
            remove(self.client, doomed)
        return bool(doomed)

    def upgrade(self, image: str, within_s: float = PATIENCE_S) -> list[str]:
        """Make all nodes run another image, one after another, the leader last; see ``deploy/upgrading.py``."""
        check_name(image)
        with self.lock, explained():
            self.there()
            image_id = ensure_image(self.client, image, DEFAULT_IMAGE, self.say)
            return Upgrade(self._nodes, self._monitor, self.say).run(image_id, within_s)

    # --- State.

    def found(self) -> dict[str, NodeContainer]:
        """Return the nodes' containers by node id."""
        return self._nodes.found()

    def there(self) -> dict[str, NodeContainer]:
        """Return the nodes' containers; raises ``DeployError`` if there are none."""
        return self._nodes.there()

    @property
    def resources(self) -> set[Resource]:
        """All resources of the cluster on the engine."""
        with explained():
            return inventory(self.client, self.names)

    @property
    def ids(self) -> list[str]:
        """The ids of all nodes that have a container."""
        return list(self.found())

    @property
    def running(self) -> list[str]:
        """The ids of the nodes that run and are not paused."""
        return self._monitor.running()

    @property
    def ports(self) -> dict[str, int]:
        """The nodes' ports for clients on this machine."""
        return {node_id: container.port for node_id, container in self.found().items()}

    def views(self) -> dict[str, ObservedNode]:
        """Return each node's container and its answer to ``/status``."""
        return self._monitor.views()

    def leader(self, not_in: Sequence[str] = (), within_s: float = PATIENCE_S) -> str:
        """Wait for a leader that is not in ``not_in``; return the one of the highest term."""
        return self._monitor.leader(not_in, within_s)

    def random_follower(self) -> str:
        """Return a node, chosen at random, that runs and does not lead."""
        return self._monitor.random_follower()

    def resolve(self, target: str) -> list[str]:
        """Return the nodes that ``target`` names: a node id, ``leader``, ``random-follower`` or ``all``."""
        return self._monitor.resolve(target)

    def wait_until_ready(self, *ids: str, within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, by default all that run, answers a linearizable read."""
        self._monitor.wait_until_ready(ids, within_s)

    def wait_until_caught_up(self, *ids: str, within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, by default all that run, has applied all that is committed now."""
        self._monitor.wait_until_caught_up(ids, within_s)

    # --- Requests.

    def ask(self, node_id: str, method: str, path: str, body: object = None, timeout_s: float = 10.0) -> NodeAnswer:
        """Send one request to a node; raises ``OSError`` or ``HTTPException`` if it does not answer."""
        return ask(self._nodes.select([node_id])[node_id].port, method, path, body, timeout_s)

    def put(self, node_id: str, key: str, value: str) -> None:
        """Write a key through a node."""
        require_success(node_id, lambda: self.ask(node_id, "PUT", key_path(key), {"value": value}))

    def get(self, node_id: str, key: str) -> str | None:
        """Return the value of a key, or None, by a linearizable read through a node."""
        path = key_path(key) + "?missing=404"
        answer = require_success(node_id, lambda: self.ask(node_id, "GET", path), also=(404,))
        return answer.body["value"] if answer.status == 200 else None

    # --- Faults of nodes.

    def start(self, *ids: str, within_s: float = PATIENCE_S) -> list[str]:
        """Start these nodes, or unpause them, and wait until they answer."""
        changed = self._nodes.start(ids)
        self._monitor.wait_until_alive(changed, within_s)
        return changed

    def stop(self, *ids: str) -> list[str]:
        """Stop these nodes with SIGTERM, so that a leader hands over."""
        return self._nodes.stop(ids)

    def restart(self, *ids: str) -> list[str]:
        """Stop these nodes with SIGTERM, start them again, and wait until they answer."""
        self.stop(*ids)
        return self.start(*ids)

    def kill(self, *ids: str) -> list[str]:
        """Kill these nodes with SIGKILL, all at once; they do not restart by themselves."""
        return self._nodes.kill(ids)

    def pause(self, *ids: str) -> list[str]:
        """Freeze these nodes."""
        return self._nodes.pause(ids)

    def unpause(self, *ids: str) -> list[str]:
        """Let frozen nodes continue, and wait until they answer."""
        changed = self._nodes.unpause(ids)
        self._monitor.wait_until_alive(changed)
        return changed

    # --- Faults of the network.

    def partition(self, *groups: Sequence[str]) -> None:
        """Let nodes communicate only within their group; a node in no group communicates with all."""
        self._packet_loss.set(faults.partition(self.losses(), groups))

    def isolate(self, node_id: str, one_way: faults.OneWay | None = None) -> None:
        """Cut a node off, in addition to earlier faults: what it receives (``in``), sends (``out``), or both."""
        self._packet_loss.set(faults.isolate(self.losses(), node_id, self.ids, one_way))

    def flaky(self, node_id: str, loss: float) -> None:
        """Drop this fraction of all packets to and from a node; 0 ends that."""
        self._packet_loss.set(faults.flaky(self.losses(), node_id, self.ids, loss))

    def heal(self) -> bool:
        """End all faults of the network; return whether there were any."""
        self.there()
        lost = bool(self.losses())
        self._packet_loss.set({})
        return lost

    def losses(self) -> faults.Losses:
        """Return the packet loss in force."""
        return self._packet_loss.read()
