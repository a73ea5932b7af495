"""ThespianWatch: an actor is notified when one of its files is readable, until a handler returns something else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thespian.actors import ActorExitRequest, ThespianWatch, WatchMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem
from tests.system.eventloop_tools import Puppet, on_loop, reply, seen, seen_by, until


class Reader(Puppet):
    """Watches ``files`` and keeps a byte of each that is readable, until it has ``enough``."""

    files: tuple[int, ...] = ()
    enough = 1000

    def receiveMessage(self, message: Any, sender: Any) -> Any:
        if isinstance(message, WatchMessage):
            self.seen.extend((fileno, os.read(fileno, 1)) for fileno in message.ready)
        else:
            super().receiveMessage(message, sender)
        return ThespianWatch(self.files) if len(self.seen) < self.enough else None


class ThreadReader(Reader):
    """The same on a thread of its own."""

    own_thread = True


def watch(*files: int, enough: int = 1000) -> Any:
    """Return a message that makes a reader watch ``files``."""
    return reply(lambda me: vars(me).update(files=files, enough=enough))


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@on_loop()
async def test_an_actor_is_notified_each_time_its_files_are_readable(system: EventLoopSystem) -> None:
    for kind in (Reader, ThreadReader):
        with pipe() as (first, to_first), pipe() as (second, to_second):
            reader = system.createActor(kind)
            await system.ask(reader, watch(first, second), 10)

            os.write(to_first, b"abc")
            os.write(to_second, b"x")
            got = await seen_by(system, reader, 4)
            assert [byte for fileno, byte in got if fileno == first] == [b"a", b"b", b"c"]
            assert [byte for fileno, byte in got if fileno == second] == [b"x"]
            system.tell(reader, ActorExitRequest())
            await until(lambda reader=reader: reader.number not in system.base.receivers)  # type: ignore[misc]
            await system.ask(system.createActor(Puppet), seen, 10)


@on_loop()
async def test_any_other_result_ends_the_watch(system: EventLoopSystem) -> None:
    for kind in (Reader, ThreadReader):
        with pipe() as (end, to_end):
            reader = system.createActor(kind)
            await system.ask(reader, watch(end, enough=2), 10)

            os.write(to_end, b"abc")
            for _ in range(10):
                assert await seen_by(system, reader, 2) == [(end, b"a"), (end, b"b")]


@on_loop()
async def test_a_regular_file_is_always_readable_and_a_closed_one_never(system: EventLoopSystem) -> None:
    with tempfile.TemporaryFile() as file, pipe() as (closed, _):
        os.write(file.fileno(), b"ab")
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        gone = os.dup(closed)
        os.close(gone)
        reader = system.createActor(Reader)

        await system.ask(reader, watch(gone, file.fileno(), enough=2), 10)
        assert await seen_by(system, reader, 2) == [(file.fileno(), b"a"), (file.fileno(), b"b")]
