"""Actor cells: an actor's place in its system, which Thespian's ``Actor`` calls ``_myRef``.

Supervision is Thespian's. When a handler raises, the actor gets a copy of the message once more; when that raises too,
the sender gets the message back in a ``PoisonMessage``, and the actor goes on with its next message. So a handler may
run twice for one message. A class with ``retry_failed_messages = False`` gets no second attempt; a class that must
not go on after an error has to handle the error in its ``receiveMessage``. The parent is notified of an actor's end by
``ChildActorExited``, after the actor's last message.
"""

from __future__ import annotations

import copy
import logging
import traceback
from typing import Any

from thespian.actors import (
    ActorExitRequest,
    ActorSystemMessage,
    ChildActorExited,
    PoisonMessage,
    Thespian_ActorStatus,
    Thespian_StatusReq,
    ThespianWatch,
    WatchMessage,
)
from thespian.system.timing import ExpirationTimer

from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.host import ActorHost
from raftkv.actors.system.base.watch import Watch

log = logging.getLogger("raftkv.system")


class Create(ActorSystemMessage):
    """The first message of a cell whose actor must be created on another thread than its creator's."""


class ActorCell(Addressable):
    """An actor with its children, wake-ups and watched files, from its creation to its end.

    Everything but ``post`` runs on the actor's thread; subclasses decide which thread that is. ``instance`` is None
    before the creation and after the end. ``running`` is cleared as soon as the actor exits, though its children may
    still have to end.
    """

    __slots__ = ("children", "host", "instance", "parent", "running", "spec", "watch")

    def __init__(self, host: ActorHost, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> None:
        super().__init__(host, address, spec.global_name)
        self.host = host
        self.spec = spec
        self.parent = parent
        self.instance: Any = None
        self.running = False
        self.children: dict[int, NodeAddress] = {}
        self.watch: Watch | None = None

    # --- The mailbox

    def handle(self, message: Any, sender: Any) -> None:
        """Handle a message whose turn has come."""
        if not self.running or isinstance(message, ActorSystemMessage):
            self._handle_system_message(message, sender)
        else:
            self._deliver(message, sender)

    def _handle_system_message(self, message: Any, sender: Any) -> None:
        """Handle the system's own messages, and any message before the actor's creation or after its end."""
        if isinstance(message, Create):
            self.create_or_exit()
        elif self.instance is None:
            self.host.dead_letter(self.address, message, sender)
        elif isinstance(message, Thespian_StatusReq):
            self.actor_send(sender, self._status())
        elif not self.running and not isinstance(message, ActorExitRequest | ChildActorExited):
            self.host.dead_letter(self.address, message, sender)
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
        """Try once more with a copy of the message; if that fails too, send it back as a ``PoisonMessage``.

        This holds for every exception, CancelledError included: otherwise the message would vanish. The exceptions are
        SystemExit, which ends the actor, and KeyboardInterrupt, which is not an actor's to handle.
        """
        if not self._may_retry(message, error):
            return None
        if getattr(self.instance, "retry_failed_messages", True):
            log.warning("%s failed on %s and tries once more", self, type(message).__name__, exc_info=error)
            try:
                return self.instance.receiveMessage(copy.deepcopy(message), sender)
            except BaseException as second:
                if not self._may_retry(message, second):
                    return None
                error = second
        log.error("%s failed on %s, which is returned to its sender", self, type(message).__name__, exc_info=error)
        if not isinstance(message, PoisonMessage | ChildActorExited):
            self.actor_send(sender, PoisonMessage(message, "".join(traceback.format_exception(error))))
        return None

    def _may_retry(self, message: Any, error: BaseException) -> bool:
        """Whether a retry or a ``PoisonMessage`` may follow; handles the exceptions and messages for which none may."""
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

    # --- Creation and end

    def enqueue_creation(self) -> None:
        """Queue the actor's creation before its first message, where ``start`` does not create it."""

    def start(self) -> None:
        """Have the actor created. Raises what its ``__init__`` raises, if that runs on this thread."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Remove the actor from the system without its cooperation. On the loop's thread."""
        self._receivers.pop(self.address.number, None)
        self._set_watch(None)
        self.running = False
        self.instance = None

    def create(self) -> None:
        """Create the instance. On the actor's thread."""
        self.instance = self.spec.make()
        self.instance._myRef = self
        self.running = True

    def create_or_exit(self) -> None:
        """Create the instance; if that fails, the actor exits and the parent is notified."""
        try:
            self.create()
        except KeyboardInterrupt:
            raise
        except BaseException:
            log.exception("%s could not be created", self)
            self.finish()

    def exit(self, recursive: bool) -> None:
        """End the actor: after its children if ``recursive``; otherwise the guardian becomes their parent.

        From now on the actor handles only the exits of its children, whatever else is in its mailbox already.
        """
        if not self.running:
            return
        self.running = False
        if recursive and self.children:
            for child in list(self.children.values()):
                self.host.request_exit(child)
            return
        self.host.adopt(self.children.values())
        self.children = {}
        self.finish()

    def _child_exited(self, child: Any) -> None:
        self.children.pop(getattr(child, "number", 0), None)
        if not self.running and not self.children:
            self.finish()

    def finish(self) -> None:
        """Leave the system and notify the parent."""
        if self._receivers.pop(self.address.number, None) is None:
            return
        self.running = False
        self._cancel_wakeups()
        self._set_watch(None)
        self.instance = None
        self.host.forget(self.address, self.spec)
        self.parent.post(ChildActorExited(self.address), self.host.address)

    # --- What Thespian's Actor calls

    def createActor(
        self, actor_class: Any, requirements: Any = None, global_name: str | None = None, source_hash: Any = None
    ) -> NodeAddress:
        """Create a child and return its address at once; a child that can't be created exits at once."""
        existing = self.host.names.get(global_name) if global_name else None
        if existing is not None:
            return existing
        address = NodeAddress(self.host.node_id, new_number())
        if not self.running:
            return address
        spec = ActorSpec(actor_class, requirements, global_name, source_hash or self.spec.source_hash)
        self.children[address.number] = address
        try:
            winner = self.host.start_actor(address, spec, self)
        except Exception:
            log.exception("%s could not create %s", self, actor_class)
            self.post(ChildActorExited(address), self.host.address)
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
        """Return the seconds until each pending wake-up."""
        raise NotImplementedError

    def handleDeadLetters(self, address: NodeAddress, enable: bool) -> None:
        """Make the actor the handler of dead letters, or no longer."""
        self.host.handle_dead_letters(address, enable)

    def notifyOnSystemRegistrationChanges(self, address: NodeAddress, enable: bool) -> None:
        """Notify the actor when peers connect and disconnect, or no longer."""
        self.host.message_loop.call(lambda: self.host.convention.register(address, enable))

    def registerSourceAuthority(self, address: NodeAddress) -> None:
        """Make the actor the source authority."""
        self.host.message_loop.call(lambda: self.host.sources.register_authority(address))

    def notifyOnSourceAvailability(self, address: NodeAddress, enable: bool) -> None:
        """Notify the actor when sources are loaded and unloaded, or no longer."""
        self.host.message_loop.call(lambda: self.host.sources.register_listener(address, enable))

    def loadActorSource(self, source: Any) -> str:
        """Load a source file; returns its hash."""
        return self.host.loadActorSource(source)

    def unloadActorSource(self, source_hash: str) -> None:
        """Unload a source."""
        self.host.unloadActorSource(source_hash)

    def updateCapability(self, name: str, value: Any) -> None:
        """Set a capability of the system or remove it (None); actors that required it exit."""
        self.host.message_loop.call(lambda: self.host.set_capability(name, value))

    def preRegisterRemoteSystem(self, address: Any, capabilities: Any) -> None:
        """Do nothing: the transport knows the peers."""

    def deRegisterRemoteSystem(self, address: Any) -> None:
        """Do nothing: the transport knows the peers."""

    def actorSystemShutdown(self) -> None:
        """Shut the whole system down."""
        self.host.begin_shutdown()

    # --- Watched files

    def _set_watch(self, result: Any) -> None:
        """Watch the files of a ``ThespianWatch`` that a handler returned; any other result ends the watch."""
        if isinstance(result, ThespianWatch):
            self.watch = self.watch or Watch(self, self.host.loop, self.host.message_loop)
            self.watch.change(list(result.filenos))
        elif self.watch is not None:
            self.watch.change([])
            self.watch = None

    def _handle_watch(self, sender: Any) -> None:
        """Pass the actor the files that are readable."""
        if self.watch is None:
            return
        ready = self.watch.ready()
        if ready:
            self._deliver(WatchMessage(ready), sender)
        else:
            self.watch.change(self.watch.filenos)

    def _status(self) -> Thespian_ActorStatus:
        """Return the actor's class, parent, children and pending wake-ups, each with the time that is left."""
        status = Thespian_ActorStatus(
            self.address,
            self.spec.actor_class,
            self.host.address,
            self.parent.address,
            self.spec.source_hash,
            None if self.running else True,
        )
        for child in self.children.values():
            status.addChild(child)
        status.addWakeups([(self.address, ExpirationTimer(delay)) for delay in self.wakeup_delays()])
        return status

    def __str__(self) -> str:
        return f"{getattr(self.spec.actor_class, '__name__', self.spec.actor_class)} {self.address.actorAddressString}"
