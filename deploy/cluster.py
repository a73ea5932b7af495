"""A cluster in containers: made and removed, its nodes stopped and started, its network cut and healed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, NamedTuple

from docker.errors import APIError

from deploy import dropping, faults
from deploy.alone import Alone
from deploy.asking import Answer, ask, ask_if_there, complaint, key_path, must_be_done
from deploy.containers import STOP_S, Found, check_settings, find
from deploy.engine import DeployError, PortTakenError, UsageError, connect, explained, in_parallel
from deploy.image import check_name, ensure_image, image_id
from deploy.interrupts import interrupted_later, uninterrupted
from deploy.making import (
    ClusterSpec,
    Part,
    choose_ports,
    ids_to_be,
    inventory,
    make,
    node_ids,
    remove,
    undone_on_failure,
)
from deploy.names import DEFAULT_IMAGE, Names
from deploy.upgrading import upgrade
from deploy.waiting import PATIENCE_S, wait_for

DEFAULT_NODES = 3
# More would make every write slower, and nothing safer.
MOST_NODES = 9
HIGHEST_PORT = 65000
# How often to look for free ports, where others take them before the nodes do.
PORT_TRIES = 3
DONE_ALREADY = re.compile(r"is not running|is already paused")


class ClusterView(NamedTuple):
    """A node as it is seen: its container, and what it says of itself, None while it says nothing."""

    found: Found
    status: Mapping[str, Any] | None


def quiet(line: str) -> None:
    """Tell nobody."""


class Cluster:
    """The cluster of this ``name``, whether it is there or not; all that is known of it, the engine knows.

    As a context manager it is brought up, with a name of its own unless one was given, and removed in the end together
    with its data. ``base_port`` is where n1 serves clients, n2 at the next port, and so on; by default where ports
    are free. ``settings`` are those of the nodes by name, as in ``{"log-level": "debug"}``. ``image`` is what they run,
    by default the one that is built from this checkout. ``say`` is told what is being done. All methods raise
    ``DeployError`` where something cannot be done, and ``UsageError``, which is one, where it cannot be meant.
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
        if nodes is not None and not 1 <= nodes <= MOST_NODES:
            raise UsageError(f"a cluster of {nodes} nodes cannot be made; give 1 to {MOST_NODES}")
        if base_port is not None and not 1 <= base_port <= HIGHEST_PORT:
            raise UsageError(f"nodes cannot serve clients from port {base_port} on; give 1 to {HIGHEST_PORT}")
        if image is not None:
            check_name(image)
        check_settings(settings or {})
        self.client = connect()
        self.say = say
        self.alone = Alone(self.names.cluster, say)
        self._nodes = nodes
        self._image = image
        self._base_port = base_port
        self._settings = dict(settings or {})
        self._rng = Random()

    def __enter__(self) -> Cluster:
        try:
            # Only what is made here: a cluster of this name that was there before is somebody's.
            with self.alone, explained(), undone_on_failure(self.client, self.names, self.say):
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
        """End the connection to the engine; the cluster stays as it is."""
        self.client.close()

    @property
    def name(self) -> str:
        """Its name."""
        return self.names.cluster

    # --- Up and down.

    def up(self, within_s: float = PATIENCE_S, default_port: int | None = None) -> None:
        """Make and start whatever of it does not run, and wait until each node can serve.

        ``default_port`` takes the place of free ports, for a cluster that has none yet.
        What was made is removed again if that fails or is interrupted, unless all of it runs and just does not get
        ready: then there is something to look at. While somebody else on this machine makes, removes or upgrades nodes
        of the cluster, he is waited for.
        """
        with self.alone:
            for _ in range(PORT_TRIES - 1):
                try:
                    self._up(within_s, default_port)
                except PortTakenError:
                    # Others do as well only where it is we who choose them.
                    if self._base_port or default_port or self.found():
                        raise
                else:
                    return
            self._up(within_s, default_port)

    def _up(self, within_s: float, default_port: int | None) -> None:
        with explained(), undone_on_failure(self.client, self.names, self.say):
            there = self._whole()
            ids = self._ids_to_be()
            self._refuse_other_parts(there)
            ports = choose_ports(
                ids, {each.node_id: each.port for each in there.values()}, self._base_port, default_port
            )
            missing = [node_id for node_id in ids if node_id not in there]
            if missing:
                image, settings = self._image_and_settings(there)
                self.say(f"making {', '.join(missing)}")
                make(self.client, self.names, ClusterSpec(ids, ports, image, settings), missing)
            self._start_containers(ids)
            unready = self._unready(ids, within_s)
        if unready:
            raise DeployError(f"{unready}; `logs` may show why, and `down` removes what is there")

    def _whole(self) -> dict[str, Found]:
        """Return the containers of the nodes, without those that somebody who was killed has left half made."""
        there = self.found()
        remove(
            self.client,
            {Part("container", each.container, each.node_id) for each in there.values() if not each.is_whole},
        )
        return {node_id: each for node_id, each in there.items() if each.is_whole}

    def _image_and_settings(self, there: Mapping[str, Found]) -> tuple[str, Mapping[str, str]]:
        """Return what nodes that are missing are made of: what those have that are there."""
        for found in there.values():
            return found.image, found.settings
        wanted = DEFAULT_IMAGE if self._image is None else self._image
        return ensure_image(self.client, wanted, DEFAULT_IMAGE, self.say), self._settings

    def _ids_to_be(self) -> list[str]:
        """Return the nodes that the cluster is to have; its size is a matter of its data, once it has any."""
        had = ids_to_be(self.client, self.names)
        if had and self._nodes not in (None, len(had)):
            raise DeployError(
                f"{self.name} has {len(had)} nodes ({', '.join(had)}), not {self._nodes}: leave --nodes out, give the "
                "new cluster another --name, or remove this one with `down --volumes`"
            )
        return had or [f"n{number}" for number in range(1, (self._nodes or DEFAULT_NODES) + 1)]

    def _refuse_other_parts(self, there: Mapping[str, Found]) -> None:
        """Raise ``DeployError`` if nodes that are there have another image or other settings than were asked for."""
        wanted = None if self._image is None or not there else image_id(self.client, self._image)
        for node_id, found in there.items():
            if self._image is not None and found.image != wanted:
                raise DeployError(
                    f"{node_id} of {self.name} does not run {self._image}: leave --image out, or change it with "
                    f"`upgrade --image {self._image}`"
                )
            for setting, value in self._settings.items():
                if found.settings.get(setting) != value:
                    raise DeployError(
                        f"{node_id} of {self.name} does not have {setting}={value}: leave --set out, or take it `down` "
                        "first, which keeps the data, and bring it `up` with that"
                    )

    def _unready(self, ids: Sequence[str], within_s: float) -> str | None:
        """Return why some node is not ready after so long; None as soon as all are."""
        try:
            self.wait_until_ready(*ids, within_s=within_s)
        except DeployError as error:
            return str(error)
        return None

    def down(self, volumes: bool = False) -> bool:
        """Remove the containers and networks, and the data too if ``volumes``; return whether there was anything."""
        with self.alone, explained():
            parts = inventory(self.client, self.names)
            # The secret belongs to the data, and what was cut is cut no more.
            kept = {self.names.secret, *(self.names.node(node_id) for node_id in node_ids(parts))}
            doomed = {part for part in parts if volumes or part.kind != "volume" or part.id not in kept}
            remove(self.client, doomed)
        return bool(doomed)

    # --- Looking.

    def found(self) -> dict[str, Found]:
        """Return the containers of the nodes."""
        with explained():
            return find(self.client, self.names)

    @property
    def parts(self) -> set[Part]:
        """All that there is of it."""
        with explained():
            return inventory(self.client, self.names)

    def there(self) -> dict[str, Found]:
        """Return the containers of the nodes; raises ``DeployError`` if there is none."""
        found = self.found()
        if not found:
            raise DeployError(f"there is no cluster {self.name} here; `up` makes one")
        return found

    @property
    def ids(self) -> list[str]:
        """The nodes that there are."""
        return list(self.found())

    @property
    def running(self) -> list[str]:
        """The nodes that run, and are not paused."""
        return [node_id for node_id, found in self.found().items() if found.runs]

    @property
    def ports(self) -> dict[str, int]:
        """Where the nodes serve clients on this machine."""
        return {node_id: found.port for node_id, found in self.found().items()}

    def views(self) -> dict[str, ClusterView]:
        """Return what is seen of all nodes."""
        there = self.there()

        def look(found: Found) -> ClusterView:
            answer = ask_if_there(found.port, "/status") if found.runs else None
            return ClusterView(found, answer.body if answer is not None and answer.status == 200 else None)

        return dict(zip(there, in_parallel(look, there.values()), strict=True))

    def leader(self, not_in: Sequence[str] = (), within_s: float = PATIENCE_S) -> str:
        """Return who leads in the highest term, as soon as somebody does who is none of ``not_in``.

        Where too few nodes run to elect anybody, nobody is waited for.
        """
        seen: dict[str, ClusterView] = {}

        def look() -> str | None:
            seen.update(self.views())
            leaders = {
                view.status["term"]: node_id
                for node_id, view in seen.items()
                if view.status is not None and view.status["role"] == "leader" and node_id not in not_in
            }
            able = [view for view in seen.values() if view.found.state in ("running", "restarting")]
            if not leaders and 2 * len(able) <= len(seen):
                raise DeployError(f"{self.name} has no leader: {reasons(seen)}")
            return leaders[max(leaders)] if leaders else None

        return wait_for(look, lambda: f"{self.name} has no leader: {reasons(seen)}", within_s)

    def random_follower(self) -> str:
        """Return some node that runs and does not lead."""
        leader = self.leader()
        followers = [node_id for node_id in self.running if node_id != leader]
        if not followers:
            raise DeployError(f"no follower runs in {self.name}")
        return self._rng.choice(followers)

    def resolve(self, target: str) -> list[str]:
        """Return the nodes that ``target`` means: a node's id, ``leader``, ``random-follower`` or ``all``."""
        there = list(self.there())
        if target == "leader":
            return [self.leader()]
        if target == "random-follower":
            return [self.random_follower()]
        if target != "all" and target not in there:
            raise UsageError(
                f"{target} is not in {self.name}, which has {', '.join(there)}; or say leader, random-follower or all"
            )
        return there if target == "all" else [target]

    def wait_until_ready(self, *ids: str, within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, or all that run, answers a linearizable read."""
        waiting = dict.fromkeys(ids or self.running, "it does not answer")
        ports = self.ports

        def look() -> bool:
            for node_id in list(waiting):
                answer = ask_if_there(ports[node_id], "/readyz", timeout_s=2.0)
                if answer is not None and answer.status == 200:
                    del waiting[node_id]
                elif answer is not None:
                    waiting[node_id] = complaint(answer)
            return not waiting

        def why() -> str:
            return "; ".join(f"{each} ({self._state(each)}): {said}" for each, said in waiting.items())

        wait_for(look, why, within_s)

    def _state(self, node_id: str) -> str:
        """Return in a word what a node's container does, which somebody may have removed."""
        there = self.found()
        return there[node_id].state if node_id in there else "gone"

    def wait_until_caught_up(self, *ids: str, within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, or all that run, has applied what is committed now."""
        waited_for = ids or tuple(self.running)
        # Whoever has answered a linearizable read since knows of all that was committed before.
        self.wait_until_ready(*waited_for, within_s=within_s)
        goal = 0

        def statuses() -> list[Mapping[str, Any]]:
            views = self.views()
            return [status for each in waited_for if each in views and (status := views[each].status) is not None]

        def know_the_goal() -> bool:
            nonlocal goal
            found = statuses()
            goal = max((status["commit_index"] for status in found), default=0)
            return len(found) == len(waited_for)

        def look() -> bool:
            found = statuses()
            return len(found) == len(waited_for) and all(status["last_applied"] >= goal for status in found)

        wait_for(know_the_goal, lambda: f"not all of {', '.join(waited_for)} answer", within_s)
        wait_for(look, lambda: f"not all of {', '.join(waited_for)} have applied entry {goal}", within_s)

    # --- Being a client.

    def ask(self, node_id: str, method: str, path: str, body: object = None, timeout_s: float = 10.0) -> Answer:
        """Do one request at a node; raises ``OSError`` or ``HTTPException`` if it does not answer."""
        return ask(self._these([node_id])[node_id].port, method, path, body, timeout_s)

    def put(self, node_id: str, key: str, value: str) -> None:
        """Write a key through a node."""
        must_be_done(node_id, lambda: self.ask(node_id, "PUT", key_path(key), {"value": value}))

    def get(self, node_id: str, key: str) -> str | None:
        """Return what a key has, by a linearizable read through a node; None if it is not there."""
        path = key_path(key) + "?missing=404"
        answer = must_be_done(node_id, lambda: self.ask(node_id, "GET", path), also=(404,))
        return answer.body["value"] if answer.status == 200 else None

    # --- What can happen to nodes. Each returns the nodes for which it made a difference.

    def start(self, *ids: str, within_s: float = PATIENCE_S) -> list[str]:
        """Start these nodes, or let them go on if they are paused, and wait until they answer."""
        with explained():
            changed = self._start_containers(ids)
            self._wait_until_alive(changed, within_s)
        return changed

    def _these(self, ids: Sequence[str]) -> dict[str, Found]:
        """Return the containers of these nodes; raises ``UsageError`` if one of them is not there."""
        there = self.found()
        for node_id in ids:
            if node_id not in there:
                raise UsageError(f"there is no node {node_id} in {self.name}, which has {', '.join(there) or 'none'}")
        return {node_id: there[node_id] for node_id in ids}

    def _start_containers(self, ids: Sequence[str]) -> list[str]:
        there = self._these(ids)
        changed = [node_id for node_id in ids if there[node_id].state not in ("running", "restarting")]

        def start_one(node_id: str) -> None:
            found = there[node_id]
            act = self.client.api.unpause if found.state == "paused" else self.client.api.start
            act(found.container)

        in_parallel(start_one, changed)
        # They may have other addresses than before, and have lost the rules that they had.
        if changed and (losses := self.losses()):
            self._drop(losses)
        return changed

    def _wait_until_alive(self, ids: Sequence[str], within_s: float = PATIENCE_S) -> None:
        """Return when these nodes answer."""
        waiting, ports = set(ids), self.ports

        def look() -> bool:
            waiting.difference_update([each for each in waiting if ask_if_there(ports[each], "/livez")])
            return not waiting

        def why() -> str:
            return "; ".join(f"{each} does not answer, its container is {self._state(each)}" for each in waiting)

        wait_for(look, why, within_s)

    def stop(self, *ids: str) -> list[str]:
        """Stop these nodes in order, so that they finish what they do, and a leader hands over."""

        def stop_one(found: Found) -> None:
            if found.state == "paused":
                # It could not hear that it is to stop.
                self.client.api.unpause(found.container)
            self.client.api.stop(found.container, timeout=STOP_S)

        return self._change(ids, stop_one, "running", "paused", "restarting")

    def restart(self, *ids: str) -> list[str]:
        """Stop these nodes in order, and start them again."""
        self.stop(*ids)
        return self.start(*ids)

    def kill(self, *ids: str) -> list[str]:
        """Kill these nodes, all at the same moment; they do not come back by themselves."""

        def kill_one(found: Found) -> None:
            if found.state == "paused":
                self.client.api.unpause(found.container)
            self.client.api.kill(found.container)

        return self._change(ids, kill_one, "running", "paused", "restarting")

    def pause(self, *ids: str) -> list[str]:
        """Freeze these nodes where they are."""
        return self._change(ids, lambda found: self.client.api.pause(found.container), "running")

    def unpause(self, *ids: str) -> list[str]:
        """Let frozen nodes go on."""
        changed = self._change(ids, lambda found: self.client.api.unpause(found.container), "paused")
        self._wait_until_alive(changed)
        return changed

    def _change(self, ids: Sequence[str], act: Callable[[Found], object], *states: str) -> list[str]:
        """Do something to those of these nodes that are in one of these states."""
        with explained():
            there = self._these(ids)
            changed = [node_id for node_id in ids if there[node_id].state in states]
            in_parallel(lambda found: unless_done(act, found), [there[node_id] for node_id in changed])
        return changed

    def upgrade(self, image: str, within_s: float = PATIENCE_S) -> list[str]:
        """Let all nodes run another image, one after the other, the leader last; see ``deploy/upgrading.py``."""
        check_name(image)
        with self.alone, explained():
            self.there()
            wanted = ensure_image(self.client, image, DEFAULT_IMAGE, self.say)
            return upgrade(self, wanted, within_s)

    # --- What can happen between nodes.

    def partition(self, *groups: Sequence[str]) -> None:
        """Let only nodes of the same group hear of each other; nodes that are in no group hear all."""
        self._lose(faults.partition(self.losses(), groups))

    def isolate(self, node_id: str, one_way: faults.OneWay | None = None) -> None:
        """Cut a node off as well: it hears nobody (``in``), is heard by nobody (``out``), or both."""
        self._lose(faults.isolate(self.losses(), node_id, self.ids, one_way))

    def flaky(self, node_id: str, loss: float) -> None:
        """Let this part of all packets to and from a node be lost; 0 ends that."""
        self._lose(faults.flaky(self.losses(), node_id, self.ids, loss))

    def heal(self) -> bool:
        """Let everything through again; return whether anything was lost."""
        self.there()
        lost = bool(self.losses())
        self._lose({})
        return lost

    def losses(self) -> faults.Losses:
        """Return what is being lost."""
        with explained():
            return dropping.read(self.client, self.names)

    def _lose(self, losses: faults.Losses) -> None:
        with explained():
            # Written first: whoever starts meanwhile must learn of it.
            dropping.write(self.client, self.names, losses)
            self._drop(losses)

    def _drop(self, losses: faults.Losses) -> None:
        places = {
            node_id: dropping.Place(found.container, found.image, found.address)
            for node_id, found in self.found().items()
            if found.address is not None and found.state in ("running", "paused")
        }
        dropping.apply(self.client, self.names, losses, places)


def unless_done(act: Callable[[Found], object], found: Found) -> None:
    """Do something to a node, unless it has come to that by itself, or by others, since we looked."""
    try:
        act(found)
    except APIError as error:
        if not DONE_ALREADY.search(str(error.explanation)):
            raise


def reasons(views: Mapping[str, ClusterView]) -> str:
    """Return what the nodes say of why there is no leader."""
    said = []
    for node_id, (found, status) in views.items():
        if status is None:
            said.append(f"{node_id} is {found.state}" if not found.runs else f"{node_id} does not answer")
        else:
            said.append(f"{node_id}: {status['reason'] or 'it follows ' + str(status['leader'])}")
    return "; ".join(said)
