"""Source loading is off by default, and Python's import is restored after it (Thespian's own suite tests the rest)."""

from __future__ import annotations

import builtins
import io
import sys
import zipfile
from typing import Any

import pytest
from thespian.actors import ActorTypeDispatcher, InvalidActorSourceHash, LoadedSource, UnloadedSource, ValidatedSource

from raftkv.actors.system.base.eventloop import EventLoopSystem
from raftkv.actors.system.base.sources import ALLOWED
from tests.system.eventloop_tools import Puppet, on_loop, reply, seen, until

MODULE = """
from thespian.actors import Actor
class Greeter(Actor):
    def receiveMessage(self, message, sender):
        from words import greeting
        self.send(sender, greeting)
"""


class Authority(ActorTypeDispatcher):
    """Approves every source."""

    def receiveMsg_str(self, message: str, sender: Any) -> None:
        self.registerSourceAuthority()
        self.send(sender, "registered")

    def receiveMsg_ValidateSource(self, message: Any, sender: Any) -> None:
        self.send(sender, ValidatedSource(message.sourceHash, message.sourceData))


def source() -> io.BytesIO:
    """Return a zip file with two modules."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("greeter.py", MODULE)
        archive.writestr("words.py", "greeting = 'hello'")
    file.seek(0)
    return file


def python_itself() -> tuple[Any, ...]:
    return builtins.__import__, list(sys.meta_path), {name for name in sys.modules if "{{" in name}


@on_loop()
async def test_sources_are_not_loaded_unless_the_system_allows_it(system: EventLoopSystem) -> None:
    before = python_itself()
    await system.ask(system.createActor(Authority), "register", 10)

    source_hash = system.loadActorSource(source())
    await system.ask(system.createActor(Puppet), seen, 10)

    with pytest.raises(InvalidActorSourceHash):
        system.createActor("greeter.Greeter", sourceHash=source_hash)
    assert python_itself() == before


# Thespian's loader has no exec_module(), so Python falls back to load_module().
@pytest.mark.filterwarnings("ignore:HashRootLoader:ImportWarning")
def test_pythons_import_is_restored_after_a_system_that_loaded_sources() -> None:
    before = python_itself()

    @on_loop(capabilities={ALLOWED: True})
    async def load_and_unload(system: EventLoopSystem) -> None:
        watcher = system.createActor(Puppet)
        await system.ask(watcher, reply(lambda me: me.notifyOnSourceAvailability()), 10)
        await system.ask(system.createActor(Authority), "register", 10)
        source_hash = system.loadActorSource(source())
        await until(lambda: system.base.sources.loaded)

        greeter = system.createActor("greeter.Greeter", sourceHash=source_hash)
        system.unloadActorSource(source_hash)
        await until(lambda: not system.base.sources.loaded)

        # An existing actor keeps running, and can still import.
        assert await system.ask(greeter, "hello?", 10) == "hello"
        with pytest.raises(InvalidActorSourceHash):
            system.createActor("greeter.Greeter", sourceHash=source_hash)
        assert await system.ask(watcher, seen, 10) == [
            LoadedSource(source_hash, "None"),
            UnloadedSource(source_hash, "None"),
        ]

    load_and_unload()

    assert python_itself() == before
