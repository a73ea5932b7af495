"""The one place where the parts of a node are put together, started in order and stopped in order.

At the start each part finds the ones that it relies on: the front end gets its port, the actors get their first message
before a request can reach them, and peers may connect only once the journal, which tells the cluster id, has been read.
A stop runs backwards: answer the requests that are there, hand leadership over, end the actors, close the connections
to peers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Coroutine
from operator import attrgetter
from random import Random
from typing import Any

import msgspec
from thespian.actors import ActorAddress

from raftkv.actors.gateway import ANSWER_GRACE_S, Gateway, RequestFailed
from raftkv.actors.messages.node import (
    AdvertiseAddress,
    Boot,
    NotSent,
    PeerDown,
    PeerUp,
    RoleChanged,
)
from raftkv.actors.messages.requests import Resign, Status
from raftkv.actors.messages.wire import decode_peer, encode_peer, is_control
from raftkv.actors.node import Node
from raftkv.actors.observer import Observe, Observer
from raftkv.actors.system.base.addresses import remote_address
from raftkv.actors.system.base.eventloop import start_on_loop
from raftkv.actors.system.link.link import Codec, Link, LinkSettings
from raftkv.config.settings import Settings
from raftkv.environment import Environment
from raftkv.http.operations import Addresses
from raftkv.http.server import FrontEnd
from raftkv.journal.data_directory import DataDirectory
from raftkv.journal.os_disk import OsDisk
from raftkv.process.clock import SystemClock
from raftkv.process.fail_stop import FailStop
from raftkv.process.signals import cannot_listen
from raftkv.process.supervisor import Leaderless, Listening, RoleReport, SupervisorPipe
from raftkv.raft.configuration import Member, initial_cluster_hash
from raftkv.raft.entry import NodeId

logger = logging.getLogger("raftkv.node")

NODE = "node"
CODEC = Codec(encode_peer, decode_peer, is_control, attrgetter("sender"))

# The steps of a stop; together they must be less than `STOP_S` in `lifecycle.py`.
FINISH_REQUESTS_S = 1.5
RESIGN_S = 1.0
END_ACTORS_S = 1.0

# Number of messages waiting for the actors at which the node stops reading from its peers, and how often it looks
# whether they have caught up.
MOST_WAITING = 20_000
DRAIN_LOOK_S = 0.005

# How often a node checks whether there is a leader, and how often it repeats why there is none.
LOOK_S, REPEAT_S = 3.0, 60.0


class NodeProcess:
    """The parts of a node: the link to its peers, the actor system, the gateway to its actors, and the front end."""

    def __init__(
        self,
        settings: Settings,
        disk: OsDisk,
        directory: DataDirectory,
        supervisor: SupervisorPipe,
        fail_stop: FailStop,
    ) -> None:
        self._settings = settings
        self._disk = disk
        self._directory = directory
        self._supervisor = supervisor
        self._fail_stop = fail_stop
        seed = int.from_bytes(os.urandom(8))
        logger.debug("random numbers come from seed %d", seed)
        self._rng = Random(seed)
        self._booted = False
        self._ending = False
        self._recovered = asyncio.Event()
        self._paused = False
        self._http: dict[NodeId, str] = {settings.id: str(settings.advertise_http)}
        """The addresses at which nodes serve clients, as far as they have announced them."""
        self._loop = asyncio.get_running_loop()
        self._cluster_id: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._initial_cluster = tuple((node_id, str(endpoint)) for node_id, endpoint in settings.cluster)
        self._raft: dict[NodeId, str] = dict(self._initial_cluster)
        """The Raft addresses of all nodes."""
        self._link = self._make_link()
        self._system = start_on_loop(node_id=settings.id, transport=self._link, shutdown_timeout_s=END_ACTORS_S)
        self._node: ActorAddress = self._system.createActor(Node, globalName=NODE)
        # The roles look for overdue requests at their heartbeats, and a bootstrapping node does so every second.
        answer_grace_s = max(ANSWER_GRACE_S, 3 * settings.timing.heartbeat_ms / 1000)
        self._gateway = Gateway(self._ask, rng=self._rng, answer_grace_s=answer_grace_s)
        self._front = FrontEnd(self._gateway, node_id=settings.id, limits=settings.limits, describe=self._describe)

    # --- Starting and stopping.

    async def start(self) -> None:
        """Listen for clients, start the actors, and listen for peers once the log is read; raises ``StartError``."""
        settings = self._settings
        try:
            self._front.listen(*settings.http)
        except OSError as error:
            raise cannot_listen("http", settings.http, error) from None
        # No await since the port is open: a request from outside must not reach the actors before their first message.
        self._boot()
        http = settings.http._replace(port=self._front.port)
        logger.info("listening at %s for clients", http)
        self._supervisor.report(Listening(settings.id, str(http), str(settings.raft)))
        # The journal tells which cluster this node belongs to. Until it has been read, peers of another cluster would
        # be let in, and their leader could cut off our log.
        await self._recovered.wait()
        try:
            await self._link.start()
        except OSError as error:
            raise cannot_listen("raft", settings.raft, error) from None
        logger.info("listening at %s for peers", settings.raft)
        self._spawn(self._report_leaderless())

    def _boot(self) -> None:
        settings = self._settings
        environment = Environment(
            directory=settings.data_dir,
            disk=self._disk,
            clock=SystemClock(),
            rng=self._rng,
            timing=settings.timing,
            limits=settings.limits,
            fail=self._fail_stop.fail,
        )
        observer = self._system.createActor(Observer)
        self._system.tell(observer, Observe(self._on_event, environment))
        self._system.tell(
            self._node,
            Boot(
                node_id=settings.id,
                incarnation=self._directory.identity.incarnation,
                initial_cluster=self._initial_cluster,
                peer_address=lambda peer: remote_address(peer, NODE),
                observer=observer,
                http=str(settings.advertise_http),
                environment=environment,
            ),
        )
        self._booted = True

    async def stop(self) -> None:
        """Answer the requests that are there, hand leadership over, and end every part that was started."""
        await self._front.stop(FINISH_REQUESTS_S)
        if self._booted:
            await self._ask(Resign(RESIGN_S * 1000), RESIGN_S)
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await self._gateway.close()
        self._system.shutdown()
        await self._system.base.wait_closed()
        await self._link.close()

    def _ask(self, message: object, timeout_s: float) -> Awaitable[object | None]:
        answer: Awaitable[object | None] = self._system.ask(self._node, message, timeout_s)
        return answer

    def _tell(self, message: object) -> None:
        if not self._ending:
            self._system.tell(self._node, message)

    # --- The link.

    def _make_link(self) -> Link:
        settings = self._settings
        bare = LinkSettings(
            node_id=settings.id,
            incarnation=self._directory.identity.incarnation,
            secret=settings.secret.value if settings.secret else b"",
            initial_cluster_hash=initial_cluster_hash(self._initial_cluster),
            listen_host=settings.raft.host,
            listen_port=settings.raft.port,
        )
        limits = settings.limits
        message_bytes = max(bare.message_bytes, 2 * (limits.key_bytes + limits.value_bytes + limits.append_bytes))
        silence_ms = max(bare.silence_ms, round(5 * settings.timing.election_max_ms))
        link_settings = msgspec.structs.replace(
            bare,
            message_bytes=message_bytes,
            bulk_bytes=max(bare.bulk_bytes, 2 * message_bytes),
            silence_ms=silence_ms,
            ping_ms=silence_ms // 6,
        )
        return Link(
            link_settings,
            {peer: address for peer, address in self._initial_cluster if peer != settings.id},
            CODEC,
            receive=self._receive,
            on_up=self._on_up,
            on_down=self._on_down,
            on_refused=self._on_refused,
            cluster_id=lambda: self._cluster_id,
            rng=self._rng,
        )

    def _receive(self, peer: str, target: str, source: str, message: Any) -> None:
        # A message that comes before the actors have started is lost, as any message may be.
        if self._booted and not self._ending:
            self._system.base.deliver(peer, target, source, message)
            if self._system.base.message_loop.waiting > MOST_WAITING and not self._paused:
                self._paused = True
                self._link.pause_receiving()
                self._loop.call_soon(self._resume_when_drained)

    def _resume_when_drained(self) -> None:
        """Read from the peers again when the actors have caught up; until then messages wait at their senders."""
        if self._system.base.message_loop.waiting > MOST_WAITING // 2 and not self._ending:
            self._loop.call_later(DRAIN_LOOK_S, self._resume_when_drained)
        else:
            self._paused = False
            self._link.resume_receiving()

    def _on_up(self, peer: str) -> None:
        self._tell(PeerUp(peer))
        self._system.base.peer_changed(peer, True)

    def _on_down(self, peer: str, reason: str) -> None:
        self._tell(PeerDown(peer, reason))
        self._system.base.peer_changed(peer, False)

    def _on_refused(self, peer: str, target: str, source: str, message: Any, reason: str) -> None:
        self._tell(NotSent(peer, message, reason))

    # --- Reports: to the log, the gateway and the supervisor.

    def _on_event(self, event: RoleChanged | AdvertiseAddress) -> None:
        if isinstance(event, AdvertiseAddress):
            self._http[event.sender] = event.http
        else:
            self._on_role_changed(event)

    def _on_role_changed(self, event: RoleChanged) -> None:
        logger.info("%s in term %d, leader %s: %s", event.role, event.term, event.leader or "unknown", event.reason)
        self._gateway.on_role_changed(event)
        self._supervisor.report(RoleReport(event.id, event.role, event.term, event.leader, event.reason))
        self._cluster_id = event.cluster_id
        self._connect_to(event.members)
        if not self._recovered.is_set():
            self._recovered.set()
            # The recovered data stays in memory: collections that scan it again and again would delay the loop.
            gc.collect()
            gc.freeze()

    def _connect_to(self, members: tuple[Member, ...]) -> None:
        """Keep a connection to every member; an address given by ``--cluster`` is later than the one in the log."""
        for member in members:
            if member.id not in self._raft:
                self._raft[member.id] = member.address
                self._link.add_peer(member.id, member.address)

    async def _report_leaderless(self) -> None:
        """Report why there is no leader: soon, again when the reason changes, and every ``REPEAT_S``."""
        reported, reported_s = "", 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            status = await self._status()
            reason = status.reason if status is not None else "the node does not answer"
            now_s = asyncio.get_running_loop().time()
            if reason is None:
                reported = ""
            elif reason != reported or now_s - reported_s > REPEAT_S:
                reported, reported_s = reason, now_s
                refusals = "; ".join(f"{peer}: {why}" for peer, why in self._link.peer_refusals().items() if why)
                logger.info("no leader: %s%s", reason, f" ({refusals})" if refusals else "")
                self._supervisor.report(Leaderless(self._settings.id, reason))

    async def _status(self) -> Status | None:
        try:
            return await self._gateway.status()
        except RequestFailed:
            return None

    def _describe(self) -> dict[NodeId, Addresses]:
        """Return the Raft addresses of the nodes, and their HTTP addresses as far as they have announced them."""
        return {node_id: Addresses(raft, self._http.get(node_id)) for node_id, raft in self._raft.items()}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
