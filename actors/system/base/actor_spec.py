"""An actor specification: the class of an actor to create, and what its creation requires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from thespian.actors import InvalidActorSpecification, NoCompatibleSystemForActor
from thespian.system.utilis import actualActorClass, withPossibleInitArgs


@dataclass(slots=True)
class ActorSpec:
    """An actor to create. ``actor_class`` may be a dotted name until ``resolve`` has been called."""

    actor_class: Any
    requirements: Any
    global_name: str | None
    source_hash: Any
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, capabilities: Mapping[str, Any], loader: Callable[[str, str], Any] | None) -> None:
        """Find the class, in a loaded source if ``loader`` is given, and check its requirements.

        Raises ``InvalidActorSpecification``, ``ImportError`` or ``NoCompatibleSystemForActor``.
        """
        self.capabilities = capabilities
        try:
            self.actor_class = actualActorClass(self.actor_class, loader)
        except AttributeError as error:
            raise InvalidActorSpecification(self.actor_class, str(error)) from error
        if not self.fits(capabilities):
            raise NoCompatibleSystemForActor(self.actor_class, "No compatible ActorSystem could be found")

    def fits(self, capabilities: Mapping[str, Any]) -> bool:
        """Whether a system with ``capabilities`` meets the requirements of the class and of its creator."""
        check = getattr(self.actor_class, "actorSystemCapabilityCheck", None)
        return check is None or bool(check(capabilities, self.requirements or {}))

    @property
    def own_thread(self) -> bool:
        """Whether the class asks for a thread of its own, by ``own_thread = True``."""
        return bool(getattr(self.actor_class, "own_thread", False))

    def make(self) -> Any:
        """Create the instance, with ``capabilities`` and ``requirements`` if its ``__init__`` has these parameters."""
        arguments = {"capabilities": self.capabilities, "requirements": self.requirements}
        code = getattr(self.actor_class.__init__, "__code__", None)
        if code is None:
            return withPossibleInitArgs(**arguments).create(self.actor_class)
        # Thespian finds the parameters with inspect.getfullargspec, which takes half the time of creating an actor.
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return self.actor_class(**{name: value for name, value in arguments.items() if name in names})
