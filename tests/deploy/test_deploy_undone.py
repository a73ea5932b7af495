"""What was made is removed again when it does not end well, also by whoever is impatient."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from requests import ConnectionError

from deploy.engine import in_parallel
from deploy.interrupts import ENDING, interrupted_later, uninterrupted
from deploy.making import undone_on_failure, with_help
from deploy.names import Names

NAMES = Names("raftkv")


class Engine:
    """An engine with volumes and nothing else, and with somebody who presses Ctrl-C whenever one is removed."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.api = self

    def containers(self, **_: object) -> list[Any]:
        """Return none."""
        return []

    networks = containers

    def volumes(self, **_: object) -> dict[str, Any]:
        """Return the volumes as an engine lists them."""
        return {"Volumes": [{"Name": name, "Labels": NAMES.labels()} for name in self.there]}

    def remove_container(self, *_: object) -> None:
        """Do nothing."""

    remove_network = remove_container

    def remove_volume(self, name: str, **_: object) -> None:
        """Remove a volume, in spite of a Ctrl-C."""
        for each in ENDING:
            signal.raise_signal(each)
        self.there.remove(name)


def make_in_vain(engine: Engine, names: list[str], error: BaseException, say: Callable[[str], None]) -> None:
    """Make volumes, and meet an error then."""
    with undone_on_failure(engine, NAMES, say):
        engine.there += names
        raise error


def test_a_second_interrupt_does_not_leave_half_of_what_was_made() -> None:
    engine, told = Engine(), list[str]()
    engine.there = ["before"]
    handlers = [signal.getsignal(each) for each in ENDING]

    with pytest.raises(KeyboardInterrupt):
        make_in_vain(engine, ["one", "other"], KeyboardInterrupt(), told.append)

    assert (engine.there, told) == (["before"], ["interrupted; removing what was made"])
    assert [signal.getsignal(each) for each in ENDING] == handlers


def test_an_error_takes_back_what_was_made_and_is_not_called_an_interrupt() -> None:
    engine, told = Engine(), list[str]()

    with pytest.raises(ValueError, match="full moon"):
        make_in_vain(engine, ["one"], ValueError("full moon"), told.append)

    assert (engine.there, told) == ([], [])


def test_nobody_has_to_listen_for_it_to_be_removed() -> None:
    engine = Engine()

    def say(line: str) -> None:
        raise BrokenPipeError(line)

    with pytest.raises(KeyboardInterrupt):
        make_in_vain(engine, ["one"], KeyboardInterrupt(), say)

    assert engine.there == []


def test_an_engine_that_does_not_answer_any_more_does_not_hide_what_has_failed() -> None:
    class Gone(Engine):
        def remove_volume(self, name: str, **_: object) -> None:
            raise ConnectionError("Connection refused")

    engine, told = Gone(), list[str]()

    with pytest.raises(ValueError, match="full moon"):
        make_in_vain(engine, ["one"], ValueError("full moon"), told.append)

    assert [line[:53] for line in told] == ["what was made may still be there, because no Docker E"]
    assert told[0].endswith("; `down --volumes` removes it")


def test_what_is_under_way_is_waited_for_however_often_somebody_presses_ctrl_c() -> None:
    """A request to the engine that nobody waits for could make something when all is thought to be removed."""
    begun, pressed, done = threading.Barrier(3), threading.Event(), list[str]()

    def press() -> None:
        main = threading.main_thread().ident
        assert main is not None
        begun.wait()
        for _ in range(20):
            signal.pthread_kill(main, signal.SIGINT)
            # Not to be merged with the next.
            pressed.wait(0.01)
        pressed.set()

    def work(part: str) -> None:
        begun.wait()
        pressed.wait()
        done.append(part)

    def work_while_somebody_presses() -> None:
        impatient.start()
        in_parallel(work, ["one", "other"])

    impatient = threading.Thread(target=press)
    with pytest.raises(KeyboardInterrupt):
        work_while_somebody_presses()
    impatient.join()

    assert sorted(done) == ["one", "other"]


def test_what_must_be_whole_is_interrupted_when_it_is_done() -> None:
    done = []

    def remove() -> None:
        with interrupted_later():
            signal.raise_signal(signal.SIGINT)
            done.append("removed")

    with pytest.raises(KeyboardInterrupt):
        remove()

    assert done == ["removed"]


def test_another_thread_has_no_signals_to_ignore() -> None:
    ended = []

    def work() -> None:
        with uninterrupted():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert ended == [True]


def test_an_engine_that_holds_on_to_a_network_is_to_be_restarted() -> None:
    why = "error while removing network: network raftkv-peers has active endpoints"

    assert with_help(why) == f"{why}; restarting the Docker Engine helps"
    assert with_help("volume is in use") == "volume is in use"
