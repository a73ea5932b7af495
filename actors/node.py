"""Node: the parent of a node's actors, and the only address that peers, front end, journal and store know.

It knows which role holds the replica and passes messages on to it. So a change of role is invisible from outside,
and no other actor has to be notified. If an actor of the node ends, Node stops the process.
"""

from __future__ import annotations

from typing import Any, ClassVar

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited, PoisonMessage

from raftkv.actors.fail_stop import FailStopActor
from raftkv.actors.journal import Journal
from raftkv.actors.messages.base import RoleName
from raftkv.actors.messages.node import (
    AdvertiseAddress,
    Assume,
    Boot,
    PeerDown,
    PeerUp,
    Recovered,
    RoleChanged,
    Start,
)
from raftkv.actors.messages.requests import (
    AskStatus,
    Forward,
    PendingRequest,
    Propose,
    Read,
    Refused,
    ReplyTo,
    Resign,
    Status,
)
from raftkv.actors.roles.bootstrap import Bootstrap
from raftkv.actors.roles.candidate import Candidate
from raftkv.actors.roles.follower import Follower
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.store import Store
from raftkv.exit_status import EXIT_BUG, EXIT_UNUSABLE
from raftkv.raft.configuration import initial_cluster_hash
from raftkv.raft.entry import NodeId
from raftkv.raft.replica import Replica

ROLES: tuple[type[Role], ...] = (Bootstrap, Follower, Candidate, Leader)


class Node(FailStopActor):
    """Passes messages to the role that holds the replica, and stops the process when an actor of it is lost."""

    label = "node"
    # A read index that a role asks for in the name of Node may be refused; the role asks again by itself.
    ignores = frozenset({Refused})
    role_classes: ClassVar[tuple[type[Role], ...]] = ROLES
    journal_class: ClassVar[type[Actor]] = Journal
    store_class: ClassVar[type[Actor]] = Store

    def __init__(self) -> None:
        super().__init__()
        self.boot: Boot
        self.roles: dict[RoleName, ActorAddress] = {}
        self.active: ActorAddress | None = None
        self.stopping = False
        self.peers: frozenset[NodeId] = frozenset()
        """The other members; before there is a configuration, the others of the initial cluster."""
        self.early: list[Any] = []
        """What came before there was a replica."""

    def handle(self, message: Any) -> None:
        """Pass a message on that is for the role, or handle it here."""
        if getattr(message, "for_role", False):
            self.pass_on(message)
        else:
            super().handle(message)

    # --- starting

    def on_Boot(self, boot: Boot) -> None:
        """Create the node's actors and send each the addresses of the others; the journal then reports what it has."""
        self.boot = boot
        self.node_id = boot.node_id
        self.environment = boot.environment
        self.peers = frozenset(dict(boot.initial_cluster)) - {boot.node_id}
        journal = self.createActor(self.journal_class)
        store = self.createActor(self.store_class)
        self.roles = {role.role: self.createActor(role) for role in self.role_classes}
        start = Start(
            node_id=boot.node_id,
            node=self.myAddress,
            journal=journal,
            store=store,
            peer_address=boot.peer_address,
            initial_cluster=boot.initial_cluster,
            initial_cluster_hash=initial_cluster_hash(boot.initial_cluster),
            environment=boot.environment,
        )
        for address in (journal, store, *self.roles.values()):
            self.send(address, start)

    def on_Recovered(self, message: Recovered) -> None:
        """Make the replica from what was on disk, and give it to the role that a node starts in."""
        replica = Replica(
            self.boot.node_id,
            self.boot.incarnation,
            self.environment.rng.getrandbits(63),
            current_term=message.current_term,
            voted_for=message.voted_for,
            entries=message.entries,
            free_bytes=message.free_bytes,
        )
        is_new = not replica.configuration.members
        why = self._why_not_ours(replica)
        if why is not None:
            self.environment.fail(EXIT_UNUSABLE, why)
        elif is_new:
            self.on_Assume(Assume(replica, "bootstrap", "started without data"))
        else:
            self.on_Assume(Assume(replica, "follower", "started with the data of an earlier run"))
        early, self.early = self.early, []
        for waiting in early:
            self.pass_on(waiting)

    def _why_not_ours(self, replica: Replica) -> str | None:
        """Return why this data is not that of the cluster in ``--cluster``; None if it is."""
        configuration = replica.configuration
        if not configuration.members:
            held = replica.log.last_index
            return f"data directory {self.environment.directory} holds {held} entries but no members" if held else None
        if set(configuration.ids) == set(dict(self.boot.initial_cluster)):
            return None
        theirs, ours = ", ".join(configuration.ids), ", ".join(sorted(dict(self.boot.initial_cluster)))
        return (
            f"data directory {self.environment.directory} belongs to another cluster: {replica.cluster_id} of "
            f"{theirs}, while --cluster names {ours}"
        )

    def _status_while_starting(self) -> Status:
        boot = self.boot
        return Status(
            id=boot.node_id,
            role="bootstrap",
            term=0,
            leader=None,
            commit_index=0,
            last_applied=0,
            last_log_index=0,
            durable_index=0,
            cluster_id=None,
            incarnation=boot.incarnation,
            voters=(),
            peers=(),
            reason="this node is reading its journal",
        )

    # --- passing on

    def on_Assume(self, message: Assume) -> None:
        """Hand the replica to another role, which gets all later messages."""
        self.active = self.roles[message.role]
        self.send(self.active, message)

    def pass_on(self, message: Any) -> None:
        """Give a message to the active role."""
        if self.active is not None:
            self.send(self.active, message)
        elif isinstance(message, PendingRequest) and isinstance(message.request, AskStatus):
            self.send(message.reply_to.address, self._status_while_starting())
        elif isinstance(message, PendingRequest) and len(self.early) >= self.environment.limits.held_requests:
            self.reply(message.reply_to, Refused("overloaded", "this node is reading its journal"))
        elif isinstance(message, PendingRequest | PeerUp | PeerDown):
            self.early.append(message)

    def _take_request(self, request: Propose | Read | AskStatus | Resign, timeout_ms: float) -> None:
        """Give a request of the front end a deadline on our clock."""
        deadline_ms = self.environment.clock.now_ms() + timeout_ms
        self.pass_on(PendingRequest(request, ReplyTo(self.sender), deadline_ms))

    def on_Propose(self, message: Propose) -> None:
        """Take commands from the front end."""
        self._take_request(message, message.timeout_ms)

    def on_Read(self, message: Read) -> None:
        """Take queries from the front end."""
        self._take_request(message, message.timeout_ms)

    def on_Resign(self, message: Resign) -> None:
        """Take the request to hand leadership over before this node stops."""
        self._take_request(message, message.timeout_ms)

    def on_AskStatus(self, message: AskStatus) -> None:
        """Handle a request that is answered at once."""
        self._take_request(message, 0.0)

    def on_Forward(self, message: Forward) -> None:
        """Take a request that a peer forwards; the answer goes back to the peer's Node."""
        if message.sender not in self.peers:
            return
        reply_to = ReplyTo(self.boot.peer_address(message.sender), (message.boot_id, message.number))
        deadline_ms = self.environment.clock.now_ms() + message.request.timeout_ms
        self.pass_on(PendingRequest(message.request, reply_to, deadline_ms))

    def on_PeerUp(self, message: PeerUp) -> None:
        """Tell a peer that has connected where clients reach us, and the role that it is here."""
        if message.peer in self.peers:
            self.send(self.boot.peer_address(message.peer), AdvertiseAddress(self.boot.node_id, self.boot.http))
        self.pass_on(message)

    def on_RoleChanged(self, message: RoleChanged) -> None:
        """Report a change of role, term or leader, and take note of the members."""
        if message.members:
            self.peers = frozenset(member.id for member in message.members) - {self.node_id}
        self._report(message)

    def on_AdvertiseAddress(self, message: AdvertiseAddress) -> None:
        """Report where clients reach a peer."""
        self._report(message)

    def _report(self, message: RoleChanged | AdvertiseAddress) -> None:
        if self.boot.observer is not None:
            self.send(self.boot.observer, message)

    # --- failing

    def on_ChildActorExited(self, message: ChildActorExited) -> None:
        """Stop: no actor of a node ends before the node does."""
        if not self.stopping:
            self.environment.fail(EXIT_BUG, f"an actor of node {self.node_id} has ended: {message.childAddress}")

    def on_ActorExitRequest(self, message: ActorExitRequest) -> None:
        """End the children together with Node."""
        self.stopping = True

    def on_PoisonMessage(self, message: PoisonMessage) -> None:
        """Stop: an actor could not handle a message of ours."""
        self.environment.fail(EXIT_BUG, f"an actor of node {self.node_id} failed on {message.poisonMessage!r:.500}")
