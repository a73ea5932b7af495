"""Whole nodes on one loop: what the link reports to the actors of a node, and how they slow the link down."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import ActorSystemConventionUpdate

from raftkv.actors.messages.node import AdvertiseAddress
from raftkv.actors.messages.raft import RequestVoteReply
from raftkv.actors.system.base.addresses import remote_address
from raftkv.config.settings import Settings
from raftkv.config.values import HostPort
from raftkv.journal.data_directory import open_data_directory
from raftkv.journal.os_disk import OsDisk
from raftkv.process.fail_stop import FailStop
from raftkv.process.lifecycle import new_incarnation
from raftkv.process.log_output import LogOutput
from raftkv.process.server import NodeProcess
from raftkv.process.supervisor import SupervisorPipe
from tests.support.processes import free_ports
from tests.system.eventloop_tools import Puppet, reply, seen_by, until

WITHIN_S = 30.0


class Two:
    """Two nodes of one cluster, by id; neither runs until it is started."""

    def __init__(self, directory: Path) -> None:
        first = free_ports(4)
        self._directory = directory
        self._http, self._raft = (
            {f"n{n + 1}": HostPort("127.0.0.1", at + n) for n in range(2)} for at in (first, first + 2)
        )

    def settings(self, node_id: str) -> Settings:
        """Return the settings of a node."""
        return Settings(
            id=node_id,
            http=self._http[node_id],
            raft=self._raft[node_id],
            advertise_http=self._http[node_id],
            cluster=tuple(self._raft.items()),
            data_dir=str(self._directory / node_id),
        )

    @asynccontextmanager
    async def started(self, node_id: str) -> AsyncIterator[tuple[Any, Any]]:
        """Start a node and stop it again; yields it, and one of its actors, registered for convention updates."""
        settings, disk = self.settings(node_id), OsDisk()
        directory = open_data_directory(disk, settings.data_dir, node_id, new_incarnation=new_incarnation)
        # The actor system of a node has no entrance from outside: its actors are created inside.
        node: Any = NodeProcess(settings, disk, directory, SupervisorPipe(), FailStop(LogOutput(2, "text")))
        try:
            listener = node._system.createActor(Puppet)
            await node._system.ask(listener, reply(lambda me: me.notifyOnSystemRegistrationChanges()), WITHIN_S)
            await node.start()
            yield node, listener
        finally:
            await node.stop()
            directory.close()
            # A node freezes the objects that it has recovered; here it shares the process with other tests.
            gc.unfreeze()


def test_an_actor_of_a_node_is_notified_of_peers(tmp_path: Path) -> None:
    two = Two(tmp_path)

    async def scenario() -> None:
        n1, n2 = (remote_address(name, "") for name in ("n1", "n2"))
        came, went = (ActorSystemConventionUpdate(n2, {"Node": "n2"}, up) for up in (True, False))
        async with asyncio.timeout(2 * WITHIN_S), two.started("n1") as (first, listener):
            for times in (1, 2):
                async with two.started("n2") as (second, other):
                    updates = await seen_by(second._system, other, 1)
                    assert updates == [ActorSystemConventionUpdate(n1, {"Node": "n1"}, True)]
                    await seen_by(first._system, listener, 2 * times - 1)
                assert await seen_by(first._system, listener, 2 * times) == [came, went] * times

    asyncio.run(scenario())


def test_a_node_with_too_many_waiting_messages_stops_reading_from_its_peers_until_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile messages wait in the lanes of the sender, which are bounded."""
    monkeypatch.setattr("raftkv.process.server.MOST_WAITING", 100)
    two = Two(tmp_path)

    async def scenario() -> None:
        async with (
            asyncio.timeout(2 * WITHIN_S),
            two.started("n1") as (first, listener),
            two.started("n2") as (second, other),
        ):
            await seen_by(first._system, listener, 1)
            await seen_by(second._system, other, 1)
            # All in one turn of the loop: none can have been handled.
            for _ in range(101):
                first._receive("n2", "node", "node", RequestVoteReply("n2", 0, False))
            assert (first._paused, first._link._inbound._paused) == (True, True)
            second._link.send("n1", "node", "node", AdvertiseAddress("n2", "elsewhere:1"))

            await until(lambda: first._describe()["n2"].http == "elsewhere:1")
            assert (first._paused, first._link._inbound._paused) == (False, False)

    asyncio.run(scenario())
