"""The one place where everything of a node is put together, started in order, and stopped in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Coroutine
from operator import attrgetter
from random import Random
from typing import Any

import msgspec
import uvloop
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
from raftkv.exit_status import EXIT_BUG, EXIT_UNFINISHED, EXIT_UNUSABLE
from raftkv.http.operations import Addresses
from raftkv.http.server import FrontEnd
from raftkv.journal.data_directory import DataDirectory, DataDirectoryError, open_data_directory
from raftkv.journal.os_disk import OsDisk
from raftkv.process.clock import SystemClock
from raftkv.process.fail_stop import FailStop
from raftkv.process.log_output import LogOutput
from raftkv.process.signals import StartError, allow_many_files, cannot_listen, check_free, listen_for_stop
from raftkv.process.supervisor import Leaderless, Listening, RoleReport, SupervisorPipe
from raftkv.raft.configuration import initial_cluster_hash
from raftkv.raft.entry import NodeId

logger = logging.getLogger("raftkv.node")

NODE = "node"
CODEC = Codec(encode_peer, decode_peer, is_control, attrgetter("sender"))

# A stop takes these together and some; whoever told us to stop waits for five seconds before it kills.
STOP_S = 4.5
FINISH_REQUESTS_S = 1.5
RESIGN_S = 1.0
END_ACTORS_S = 1.0

# Messages that may wait for the actors before the node stops reading from its peers, and how often it looks again.
MOST_WAITING = 20_000
DRAIN_LOOK_S = 0.005

# How often a node looks whether there is a leader, and how often it repeats why there is none.
LOOK_S, REPEAT_S = 3.0, 60.0


def serve_node(settings: Settings, output: LogOutput, supervisor: SupervisorPipe) -> int:
    """Run a node until it is told to stop; return the exit status."""
    fail_stop = FailStop(output)
    threading.excepthook = fail_stop.on_thread_exception
    # The loop waits for the interpreter as long as another thread keeps it: the journal's checksums, for one.
    sys.setswitchinterval(0.0005)
    allow_many_files()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(run_node(settings, supervisor, fail_stop))
    except (StartError, DataDirectoryError) as error:
        output.line(f"raftkv: {error}")
        status = EXIT_UNUSABLE
    except Exception as error:
        fail_stop.fail(EXIT_BUG, f"bug in the node's start or stop: {error!r}\n{traceback.format_exc()}")
    output.flush_within(1.0)
    return status


async def run_node(settings: Settings, supervisor: SupervisorPipe, fail_stop: FailStop) -> int:
    """Run a node until a signal, or its parent's end; return the exit status.

    Raises ``StartError`` and ``DataDirectoryError``, with everything closed again.
    """
    # Before anything is written: a mistyped port must not leave a new data directory behind.
    for name, endpoint in (("http", settings.http), ("raft", settings.raft)):
        check_free(name, endpoint)
    disk = OsDisk()
    directory = open_data_directory(disk, settings.data_dir, settings.id, new_incarnation=new_incarnation)
    try:
        told_to_stop = listen_for_stop(supervisor, fail_stop)
        node = NodeProcess(settings, disk, directory, supervisor, fail_stop)
        try:
            await first_of(node.start(), told_to_stop.wait())
            await told_to_stop.wait()
            fail_stop.fail_after(
                STOP_S, EXIT_UNFINISHED, f"could not stop within {STOP_S:g} s; what was acknowledged is on disk"
            )
        finally:
            await node.stop()
    finally:
        directory.close()
    return 0


def new_incarnation() -> str:
    """Return a name for a new data directory, later ones greater: nodes tell by it which of two is of the past."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}"


async def first_of(work: Coroutine[Any, Any, None], stop: Coroutine[Any, Any, Any]) -> None:
    """Do ``work`` until it is done, or given up because ``stop`` is; raises what ``work`` raises."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class NodeProcess:
    """The parts of a node: the link to its peers, the actor system, the client that asks it, and the front end."""

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
        """Where clients reach the nodes, as they told us."""
        self._loop = asyncio.get_running_loop()
        self._cluster_id: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._initial_cluster = tuple((node_id, str(endpoint)) for node_id, endpoint in settings.cluster)
        self._link = self._make_link()
        self._system = start_on_loop(node_id=settings.id, transport=self._link, shutdown_timeout_s=END_ACTORS_S)
        self._node: ActorAddress = self._system.createActor(Node, globalName=NODE)
        # The roles look for requests whose time is over at their heartbeats, one that founds at every second.
        answer_grace_s = max(ANSWER_GRACE_S, 3 * settings.timing.heartbeat_ms / 1000)
        self._gateway = Gateway(self._ask, rng=self._rng, answer_grace_s=answer_grace_s)
        self._front = FrontEnd(self._gateway, node_id=settings.id, limits=settings.limits, describe=self._describe)

    # --- Starting and stopping.

    async def start(self) -> None:
        """Listen for clients, let the node begin, and listen for peers; raises ``StartError``."""
        settings = self._settings
        try:
            self._front.listen(*settings.http)
        except OSError as error:
            raise cannot_listen("http", settings.http, error) from None
        # No await from here to the first message: what comes from outside finds a node that has it.
        self._boot()
        http = settings.http._replace(port=self._front.port)
        logger.info("listening at %s for clients", http)
        self._supervisor.tell(Listening(settings.id, str(http), str(settings.raft)))
        # Not before the journal has been read, which tells the cluster: peers of another one would be let in, and
        # their leader would cut off our log.
        await self._recovered.wait()
        try:
            await self._link.start()
        except OSError as error:
            raise cannot_listen("raft", settings.raft, error) from None
        logger.info("listening at %s for peers", settings.raft)
        self._spawn(self._report_waiting())

    def _boot(self) -> None:
        settings = self._settings
        observer = self._system.createActor(Observer)
        self._system.tell(observer, Observe(self._on_event))
        self._system.tell(
            self._node,
            Boot(
                node_id=settings.id,
                incarnation=self._directory.identity.incarnation,
                initial_cluster=self._initial_cluster,
                peers={peer: remote_address(peer, NODE) for peer in dict(settings.cluster) if peer != settings.id},
                observer=observer,
                http=str(settings.advertise_http),
                directory=settings.data_dir,
                disk=self._disk,
                clock=SystemClock(),
                rng=self._rng,
                timing=settings.timing,
                limits=settings.limits,
                fail=self._fail_stop.fail,
            ),
        )
        self._booted = True

    async def stop(self) -> None:
        """Finish what clients asked for, hand leadership over, and end everything, as far as it was started."""
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
            initial_cluster=initial_cluster_hash(self._initial_cluster),
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
        # What comes before the node has begun is lost, as any message may be.
        if self._booted and not self._ending:
            self._system.base.deliver(peer, target, source, message)
            if self._system.base.message_loop.waiting > MOST_WAITING and not self._paused:
                self._paused = True
                self._link.pause_receiving()
                self._loop.call_soon(self._resume_when_drained)

    def _resume_when_drained(self) -> None:
        """Read from the peers again when the actors have caught up: what waits meanwhile, waits at the sender."""
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

    # --- What the node tells.

    def _on_event(self, event: RoleChanged | AdvertiseAddress) -> None:
        if isinstance(event, AdvertiseAddress):
            self._http[event.sender] = event.http
        else:
            self._on_role_changed(event)

    def _on_role_changed(self, event: RoleChanged) -> None:
        logger.info("%s in term %d, leader %s: %s", event.role, event.term, event.leader or "unknown", event.reason)
        self._gateway.on_role_changed(event)
        self._supervisor.tell(RoleReport(event.id, event.role, event.term, event.leader, event.reason))
        self._cluster_id = event.cluster_id
        if not self._recovered.is_set():
            self._recovered.set()
            # What was recovered stays for long: looking through it again and again would make the loop late.
            gc.collect()
            gc.freeze()

    async def _report_waiting(self) -> None:
        """Say why there is no leader: soon, whenever the reason is another one, and once in a while."""
        told, told_s = "", 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            status = await self._status()
            reason = status.reason if status is not None else "the node does not answer"
            now_s = asyncio.get_running_loop().time()
            if reason is None:
                told = ""
            elif reason != told or now_s - told_s > REPEAT_S:
                told, told_s = reason, now_s
                refusals = "; ".join(f"{peer}: {why}" for peer, why in self._link.peer_refusals().items() if why)
                logger.info("no leader: %s%s", reason, f" ({refusals})" if refusals else "")
                self._supervisor.tell(Leaderless(self._settings.id, reason))

    async def _status(self) -> Status | None:
        try:
            return await self._gateway.status()
        except RequestFailed:
            return None

    def _describe(self) -> dict[NodeId, Addresses]:
        """Return where peers and clients reach the nodes of the start list, as far as those have told us."""
        return {node_id: Addresses(raft, self._http.get(node_id)) for node_id, raft in self._initial_cluster}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
