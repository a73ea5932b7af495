"""A cell: one actor's place in the system, which Thespian's ``Actor`` calls ``_myRef``."""

from __future__ import annotations

import copy
import logging
import traceback
from typing import TYPE_CHECKING, Any

from thespian.actors import (
    ActorExitRequest,
    ActorSystemMessage,
    ChildActorExited,
    PoisonMessage,
    Thespian_StatusReq,
    ThespianWatch,
    WatchMessage,
)

from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.participant import Participant
from raftkv.actors.system.base.status import actor_status
from raftkv.actors.system.base.watch import Watch

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase

log = logging.getLogger("raftkv.system")


class Begin(ActorSystemMessage):
    """First message of a cell whose actor has to be made on the thread it will live on."""


class ActorCell(Participant):
    """An actor with its children, wake-ups and watched files, from its making to its end.

    Everything here but ``post`` runs on the thread of the actor. Subclasses say which thread that is.
    """

    __slots__ = ("children", "instance", "parent", "running", "spec", "watch")

    def __init__(self, base: EventLoopBase, address: NodeAddress, spec: ActorSpec, parent: Participant) -> None:
        super().__init__(base, address, spec.global_name)
        self.spec = spec
        self.parent = parent
        self.instance: Any = None
        self.running = False
        self.children: dict[int, NodeAddress] = {}
        self.watch: Watch | None = None

    # --- The mailbox

    def handle(self, message: Any, sender: Any) -> None:
        """Let the actor have a message whose turn has come."""
        if not self.running or isinstance(message, ActorSystemMessage):
            self._handle_special(message, sender)
        else:
            self._deliver(message, sender)

    def _handle_special(self, message: Any, sender: Any) -> None:
        """Deal with messages of the system itself, and with any message before the actor's start and after its end."""
        if isinstance(message, Begin):
            self.begin_or_exit()
        elif self.instance is None:
            self.base.dead_letter(self.address, message, sender)
        elif isinstance(message, Thespian_StatusReq):
            self.actor_send(sender, actor_status(self))
        elif not self.running and not isinstance(message, ActorExitRequest | ChildActorExited):
            self.base.dead_letter(self.address, message, sender)
        elif isinstance(message, WatchMessage):
            self._handle_watch(sender)
        else:
            self._deliver(message, sender)
            if isinstance(message, ActorExitRequest):
                self.exit(message.isRecursive)
            elif isinstance(message, ChildActorExited):
                self._child_exited(message.childAddress)

    def _deliver(self, message: Any, sender: Any) -> None:
        try:
            result = self.instance.receiveMessage(message, sender)
        except BaseException as error:
            result = self._failed(message, sender, error)
        if result is not None or self.watch is not None:
            self._set_watch(result)

    def _failed(self, message: Any, sender: Any, error: BaseException) -> Any:
        """Do what Thespian promises when a handler raises: once again with a copy, then back to the sender as poison.

        Classes with ``retry_failed_messages = False`` get no second attempt. Every exception is treated so,
        CancelledError too, or the message would vanish; but SystemExit ends the actor, and KeyboardInterrupt is not
        ours.
        """
        if not self._may_go_on(message, error):
            return None
        if getattr(self.instance, "retry_failed_messages", True):
            log.warning("%s failed on %s, which it gets once more", self, type(message).__name__, exc_info=error)
            try:
                return self.instance.receiveMessage(copy.deepcopy(message), sender)
            except BaseException as second:
                if not self._may_go_on(message, second):
                    return None
                error = second
        log.error("%s failed on %s, which goes back", self, type(message).__name__, exc_info=error)
        if not isinstance(message, PoisonMessage | ChildActorExited):
            self.actor_send(sender, PoisonMessage(message, "".join(traceback.format_exception(error))))
        return None

    def _may_go_on(self, message: Any, error: BaseException) -> bool:
        """Sort out the exceptions and messages after which there is no second attempt and no poison."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, SystemExit):
            log.warning("%s ended itself with SystemExit(%s)", self, error.code)
            self.exit(recursive=True)
            return False
        if isinstance(message, ActorExitRequest):
            log.warning("%s failed on its exit request and exits", self, exc_info=error)
            return False
        return True

    # --- Beginning and end

    def announce(self) -> None:
        """See to it that the actor will be made before it gets its first message."""

    def start(self) -> None:
        """Get the actor made. Raises what its ``__init__`` raises, if that runs on this thread."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Leave the system without the actor's consent. On the loop's thread."""
        self._receivers.pop(self.address.number, None)
        self._set_watch(None)
        self.running = False
        self.instance = None

    def begin(self) -> None:
        """Make the actor, on its own thread."""
        self.instance = self.spec.make()
        self.instance._myRef = self
        self.running = True

    def begin_or_exit(self) -> None:
        """Make the actor; if that fails the parent is told of its exit."""
        try:
            self.begin()
        except KeyboardInterrupt:
            raise
        except BaseException:
            log.exception("%s could not be made", self)
            self.finish()

    def exit(self, recursive: bool) -> None:
        """End the actor: after its children, if ``recursive``; otherwise they become the system's own.

        From here on the actor handles nothing but the exits of its children, whatever is in its mailbox already.
        """
        if not self.running:
            return
        self.running = False
        if recursive and self.children:
            for child in list(self.children.values()):
                self.base.request_exit(child)
            return
        self.base.adopt(self.children.values())
        self.children = {}
        self.finish()

    def _child_exited(self, child: Any) -> None:
        self.children.pop(getattr(child, "number", 0), None)
        if not self.running and not self.children:
            self.finish()

    def finish(self) -> None:
        """Leave the system and tell the parent."""
        if self._receivers.pop(self.address.number, None) is None:
            return
        self.running = False
        self._cancel_wakeups()
        self._set_watch(None)
        self.instance = None
        self.base.forget(self)
        self.parent.post(ChildActorExited(self.address), self.base.address)

    # --- What Thespian's Actor calls

    def createActor(
        self, actor_class: Any, requirements: Any = None, global_name: str | None = None, source_hash: Any = None
    ) -> NodeAddress:
        """Create a child, and return its address at once; a child that can't be made is one that exits at once."""
        existing = self.base.names.get(global_name) if global_name else None
        if existing is not None:
            return existing
        address = NodeAddress(self.base.node_id, new_number())
        if not self.running:
            return address
        spec = ActorSpec(actor_class, requirements, global_name, source_hash or self.spec.source_hash)
        self.children[address.number] = address
        try:
            winner = self.base.start_actor(address, spec, self)
        except Exception:
            log.exception("%s could not create %s", self, actor_class)
            self.post(ChildActorExited(address), self.base.address)
            return address
        if winner is not address:
            del self.children[address.number]
        return winner

    def wakeupAfter(self, period: Any, payload: Any = None) -> None:
        """Send the actor a ``WakeupMessage`` after ``period`` (seconds, or a timedelta)."""
        raise NotImplementedError

    def _cancel_wakeups(self) -> None:
        raise NotImplementedError

    def wakeup_delays(self) -> list[float]:
        """Return in how many seconds each of the pending wake-ups is due."""
        raise NotImplementedError

    def handleDeadLetters(self, address: NodeAddress, enable: bool) -> None:
        """Make the actor the one that gets dead letters, or no longer."""
        self.base.handle_dead_letters(address, enable)

    def notifyOnSystemRegistrationChanges(self, address: NodeAddress, enable: bool) -> None:
        """Tell the actor when peers come and go, or no longer."""
        self.base.message_loop.call(lambda: self.base.convention.register(address, enable))

    def registerSourceAuthority(self, address: NodeAddress) -> None:
        """Make the actor the one that validates sources."""
        self.base.message_loop.call(lambda: self.base.sources.register_authority(address))

    def notifyOnSourceAvailability(self, address: NodeAddress, enable: bool) -> None:
        """Tell the actor when sources come and go, or no longer."""
        self.base.message_loop.call(lambda: self.base.sources.register_listener(address, enable))

    def loadActorSource(self, source: Any) -> str:
        """Load a file of sources; returns its hash."""
        return self.base.loadActorSource(source)

    def unloadActorSource(self, source_hash: str) -> None:
        """Unload sources."""
        self.base.unloadActorSource(source_hash)

    def updateCapability(self, name: str, value: Any) -> None:
        """Set a capability of the system, or take it away (None); actors that needed it exit."""
        self.base.message_loop.call(lambda: self.base.set_capability(name, value))

    def preRegisterRemoteSystem(self, address: Any, capabilities: Any) -> None:
        """Do nothing: which peers there are is the transport's affair."""

    def deRegisterRemoteSystem(self, address: Any) -> None:
        """Do nothing: which peers there are is the transport's affair."""

    def actorSystemShutdown(self) -> None:
        """End the whole system."""
        self.base.begin_shutdown()

    # --- Watched files

    def _set_watch(self, result: Any) -> None:
        """Watch the files of a ``ThespianWatch`` that a handler returned; any other result ends the watch."""
        if isinstance(result, ThespianWatch):
            self.watch = self.watch or Watch(self)
            self.watch.change(list(result.filenos))
        elif self.watch is not None:
            self.watch.change([])
            self.watch = None

    def _handle_watch(self, sender: Any) -> None:
        """Tell the actor which of its files can be read."""
        if self.watch is None:
            return
        ready = self.watch.ready()
        if ready:
            self._deliver(WatchMessage(ready), sender)
        else:
            self.watch.change(self.watch.filenos)

    def __str__(self) -> str:
        return f"{getattr(self.spec.actor_class, '__name__', self.spec.actor_class)} {self.address.actorAddressString}"
