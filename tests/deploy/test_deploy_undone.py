"""What a command created is removed again if it fails or is interrupted, however often."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from requests import ConnectionError

from deploy.engine import in_parallel
from deploy.interrupts import ENDING, interrupted_later, uninterrupted
from deploy.names import Names
from deploy.resources import undone_on_failure, with_remedy

NAMES = Names("raftkv")


class Engine:
    """An engine with volumes only, where each removal of a volume is interrupted by all signals."""

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
        """Raise each signal, then remove the volume."""
        for each in ENDING:
            signal.raise_signal(each)
        self.there.remove(name)


def create_and_fail(engine: Engine, names: list[str], error: BaseException, say: Callable[[str], None]) -> None:
    """Create volumes, then raise ``error``."""
    with undone_on_failure(engine, NAMES, say):
        engine.there += names
        raise error


def test_a_second_interrupt_does_not_stop_the_removal() -> None:
    engine, said = Engine(), list[str]()
    engine.there = ["before"]
    handlers = [signal.getsignal(each) for each in ENDING]

    with pytest.raises(KeyboardInterrupt):
        create_and_fail(engine, ["one", "other"], KeyboardInterrupt(), said.append)

    assert (engine.there, said) == (["before"], ["interrupted; cleaning up"])
    assert [signal.getsignal(each) for each in ENDING] == handlers


def test_after_an_error_what_was_created_is_removed_without_a_word_of_an_interrupt() -> None:
    engine, said = Engine(), list[str]()

    with pytest.raises(ValueError, match="full moon"):
        create_and_fail(engine, ["one"], ValueError("full moon"), said.append)

    assert (engine.there, said) == ([], [])


def test_the_removal_does_not_depend_on_the_terminal() -> None:
    engine = Engine()

    def say(line: str) -> None:
        raise BrokenPipeError(line)

    with pytest.raises(KeyboardInterrupt):
        create_and_fail(engine, ["one"], KeyboardInterrupt(), say)

    assert engine.there == []


def test_a_failing_removal_does_not_hide_the_first_error() -> None:
    class Gone(Engine):
        def remove_volume(self, name: str, **_: object) -> None:
            raise ConnectionError("Connection refused")

    engine, said = Gone(), list[str]()

    with pytest.raises(ValueError, match="full moon"):
        create_and_fail(engine, ["one"], ValueError("full moon"), said.append)

    assert [line[:43] for line in said] == ["the clean-up failed: no Docker Engine answe"]
    assert said[0].endswith("; `down --volumes` removes what is left")


def test_pending_requests_are_awaited_however_often_ctrl_c_is_pressed() -> None:
    """An abandoned request could create something after the clean-up."""
    started, pressed, done = threading.Barrier(3), threading.Event(), list[str]()

    def press() -> None:
        main = threading.main_thread().ident
        assert main is not None
        started.wait()
        for _ in range(20):
            signal.pthread_kill(main, signal.SIGINT)
            # Signals in quick succession are merged into one.
            pressed.wait(0.01)
        pressed.set()

    def work(part: str) -> None:
        started.wait()
        pressed.wait()
        done.append(part)

    def work_while_pressing() -> None:
        presser.start()
        in_parallel(work, ["one", "other"])

    presser = threading.Thread(target=press)
    with pytest.raises(KeyboardInterrupt):
        work_while_pressing()
    presser.join()

    assert sorted(done) == ["one", "other"]


def test_a_delayed_interrupt_is_raised_at_the_end_of_the_context() -> None:
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


def test_for_a_network_with_stale_endpoints_the_remedy_is_a_restart_of_the_engine() -> None:
    why = "error while removing network: network raftkv-peers has active endpoints"

    assert with_remedy(why) == f"{why}; restarting the Docker Engine helps"
    assert with_remedy("volume is in use") == "volume is in use"
