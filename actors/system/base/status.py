"""Answers to Thespian's status requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thespian.actors import Thespian_ActorStatus, Thespian_SystemStatus
from thespian.system.timing import ExpirationTimer

if TYPE_CHECKING:
    from raftkv.actors.system.base.actor_cell import ActorCell
    from raftkv.actors.system.base.base import EventLoopBase


def actor_status(cell: ActorCell) -> Thespian_ActorStatus:
    """Describe an actor: its class, parent, children and pending wake-ups (each as the time that is left)."""
    status = Thespian_ActorStatus(
        cell.address,
        cell.spec.actor_class,
        cell.base.address,
        cell.parent.address,
        cell.spec.source_hash,
        None if cell.running else True,
    )
    for child in cell.children.values():
        status.addChild(child)
    status.addWakeups([(cell.address, ExpirationTimer(delay)) for delay in cell.wakeup_delays()])
    return status


def system_status(base: EventLoopBase) -> Thespian_SystemStatus:
    """Describe the system: its capabilities, its own actors, the global names and the count of dead letters."""
    status = Thespian_SystemStatus(base.address, capabilities=dict(base.capabilities), inShutdown=base.closing)
    for child in base.guardian.children.values():
        status.addChild(child)
    for name, address in list(base.names.items()):
        status.addGlobalActor(name, address)
    if base.dead_letter_handler is not None:
        status.setDeadLetterHandler(base.dead_letter_handler)
    status.setNotifyHandlers(base.convention.listeners())
    status.setLoadedSources(base.sources.loaded)
    status.sourceAuthority = base.sources.authority
    status.addKeyVal("dead letters", base.dead_letters)
    return status
