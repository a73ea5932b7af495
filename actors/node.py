"""Node: the parent of a node's actors, and the only address that peers, front end, journal and store know."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited, PoisonMessage

from raftkv.actors.journal import Journal
from raftkv.actors.messages.base import RoleName
from raftkv.actors.messages.node import (
    AdvertiseAddress,
    AppliedUpTo,
    Assume,
    Boot,
    FreeBytes,
    NotSent,
    PeerDown,
    PeerUp,
    Recovered,
    RoleChanged,
    Saved,
    Start,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.replying import reply
from raftkv.actors.messages.requests import (
    AskStatus,
    Forward,
    ForwardReply,
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
from raftkv.raft.replica import Replica

ROLES: tuple[type[Role], ...] = (Bootstrap, Follower, Candidate, Leader)


class Node(Actor):
    """Passes messages to the role that holds the replica, and stops the process when an actor of it is lost."""

    retry_failed_messages = False
    role_classes: ClassVar[tuple[type[Role], ...]] = ROLES
    journal_class: ClassVar[type[Actor]] = Journal
    store_class: ClassVar[type[Actor]] = Store

    def __init__(self) -> None:
        super().__init__()
        self.boot: Boot
        self.roles: dict[RoleName, ActorAddress] = {}
        self.active: ActorAddress | None = None
        self.stopping = False
        self.early: list[Any] = []
        """What came before there was a replica."""
        self._handlers: dict[type, Callable[[Any, ActorAddress], None]] = {
            Boot: self.on_boot,
            Recovered: self.on_recovered,
            Assume: self.on_assume,
            Propose: self.on_request,
            Read: self.on_request,
            AskStatus: self.on_request,
            Resign: self.on_request,
            Forward: self.on_forward,
            RoleChanged: self.tell_observer,
            AdvertiseAddress: self.tell_observer,
            PeerUp: self.on_peer_up,
            ChildActorExited: self.on_child_exited,
            PoisonMessage: self.on_poison,
            ActorExitRequest: self.on_exit,
        }
        for passed in (
            RequestVote,
            RequestVoteReply,
            AppendEntries,
            AppendEntriesReply,
            TimeoutNow,
            ForwardReply,
            BootstrapHello,
            PendingRequest,
            Saved,
            AppliedUpTo,
            FreeBytes,
            PeerDown,
            NotSent,
        ):
            self._handlers[passed] = self.pass_on

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Handle one message; a handler that raises is a bug, and stops the node."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return
        try:
            handler(message, sender)
        except Exception as error:
            self.boot.fail(EXIT_BUG, f"bug in node: {error!r} on {message!r:.500}\n{traceback.format_exc()}")

    # --- starting

    def on_boot(self, boot: Boot, sender: ActorAddress) -> None:
        """Create the node's actors and tell each of them of the others; the journal then reports what it has."""
        self.boot = boot
        journal = self.createActor(self.journal_class)
        store = self.createActor(self.store_class)
        self.roles = {role.role: self.createActor(role) for role in self.role_classes}
        start = Start(
            node_id=boot.node_id,
            node=self.myAddress,
            journal=journal,
            store=store,
            peers=boot.peers,
            addresses=dict(boot.initial_cluster),
            initial_cluster_hash=initial_cluster_hash(boot.initial_cluster),
            directory=boot.directory,
            disk=boot.disk,
            clock=boot.clock,
            rng=boot.rng,
            timing=boot.timing,
            limits=boot.limits,
            fail=boot.fail,
        )
        for address in (journal, store, *self.roles.values()):
            self.send(address, start)

    def on_recovered(self, message: Recovered, sender: ActorAddress) -> None:
        """Make the replica from what was on disk, and give it to the role that a node starts in."""
        replica = Replica(
            self.boot.node_id,
            self.boot.incarnation,
            self.boot.rng.getrandbits(63),
            current_term=message.current_term,
            voted_for=message.voted_for,
            entries=message.entries,
            free_bytes=message.free_bytes,
        )
        if message.entries and (why := self._why_not_ours(replica)):
            self.boot.fail(EXIT_UNUSABLE, why)
        elif message.entries:
            self.on_assume(Assume(replica, "follower", "started with the data of an earlier run"), sender)
        else:
            self.on_assume(Assume(replica, "bootstrap", "started without data"), sender)
        early, self.early = self.early, []
        for waiting in early:
            self.pass_on(waiting, sender)

    def _why_not_ours(self, replica: Replica) -> str | None:
        """Say why these data can't be those of the cluster we were started for; None when they are."""
        configuration = replica.configuration
        if set(configuration.ids) == set(dict(self.boot.initial_cluster)):
            return None
        theirs, ours = ", ".join(configuration.ids), ", ".join(sorted(dict(self.boot.initial_cluster)))
        return (
            f"data directory {self.boot.directory} belongs to another cluster: {replica.cluster_id} of {theirs}, "
            f"while --cluster names {ours}"
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

    def on_assume(self, message: Assume, sender: ActorAddress) -> None:
        """Hand the replica to another role; what comes from now on goes there."""
        self.active = self.roles[message.role]
        self.send(self.active, message)

    def pass_on(self, message: Any, sender: ActorAddress) -> None:
        """Give a message to the active role."""
        if self.active is not None:
            self.send(self.active, message)
        elif isinstance(message, PendingRequest) and isinstance(message.request, AskStatus):
            self.send(message.reply_to.address, self._status_while_starting())
        elif isinstance(message, PendingRequest) and len(self.early) >= self.boot.limits.held_requests:
            reply(self, self.boot.node_id, message.reply_to, Refused("overloaded", "this node is reading its journal"))
        elif isinstance(message, PendingRequest | PeerUp | PeerDown):
            self.early.append(message)

    def on_request(self, message: Propose | Read | AskStatus | Resign, sender: ActorAddress) -> None:
        """Take a request of the front end; from here on it has a deadline on our clock."""
        timeout_ms = 0.0 if isinstance(message, AskStatus) else message.timeout_ms
        self.pass_on(PendingRequest(message, ReplyTo(sender), self.boot.clock.now_ms() + timeout_ms), sender)

    def on_forward(self, message: Forward, sender: ActorAddress) -> None:
        """Take a request that a peer passed on; the answer goes back to the peer's Node."""
        peer = self.boot.peers.get(message.sender)
        if peer is not None:
            reply_to = ReplyTo(peer, (message.boot, message.number))
            deadline_ms = self.boot.clock.now_ms() + message.request.timeout_ms
            self.pass_on(PendingRequest(message.request, reply_to, deadline_ms), sender)

    def on_peer_up(self, message: PeerUp, sender: ActorAddress) -> None:
        """Tell a peer that has come where clients reach us, and the role that it is here."""
        if message.peer in self.boot.peers:
            self.send(self.boot.peers[message.peer], AdvertiseAddress(self.boot.node_id, self.boot.http))
        self.pass_on(message, sender)

    def tell_observer(self, message: RoleChanged | AdvertiseAddress, sender: ActorAddress) -> None:
        """Tell the observer, if there is one."""
        if self.boot.observer is not None:
            self.send(self.boot.observer, message)

    # --- failing

    def on_child_exited(self, message: ChildActorExited, sender: ActorAddress) -> None:
        """Stop: no actor of a node ends before the node does."""
        if not self.stopping:
            self.boot.fail(EXIT_BUG, f"an actor of node {self.boot.node_id} has ended: {message.childAddress}")

    def on_exit(self, message: ActorExitRequest, sender: ActorAddress) -> None:
        """Let the children end with us."""
        self.stopping = True

    def on_poison(self, message: PoisonMessage, sender: ActorAddress) -> None:
        """Stop: an actor could not handle a message of ours."""
        self.boot.fail(EXIT_BUG, f"an actor of node {self.boot.node_id} failed on {message.poisonMessage!r:.500}")
