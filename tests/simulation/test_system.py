"""The system base in virtual time, with actors that know nothing of it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited, PoisonMessage, WakeupMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem, remote_address
from raftkv.actors.system.virtual.scheduler import VirtualClock
from raftkv.actors.system.virtual.simulation import HANDLING_MS, LATENCY_MS, Simulation

DOCS = Path(__file__).resolve().parents[2] / "docs" / "simulation.md"


class Echo(Actor):
    """Sends back what it gets, with its own name for it."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        self.send(sender, ("echo", message))


class Keeper(Actor):
    """Keeps what it gets; a function is called with the actor and the sender."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if callable(message):
            message(self, sender)
        else:
            self.seen.append(message)


class KeeperOnItsOwn(Keeper):
    """The same with a thread of its own."""

    own_thread = True


def keeper(
    system: EventLoopSystem, actor_class: type[Actor] = Keeper, name: str | None = None
) -> tuple[ActorAddress, Any]:
    """Create one; return its address and, since all is in one thread here, the actor itself."""
    address = system.createActor(actor_class, globalName=name)
    return address, system.base.receivers[address.number].instance


def result(simulation: Simulation, awaitable: Any, within_ms: float = 10_000.0) -> Any:
    """Run until there is a result, and return it."""
    assert simulation.run_until(awaitable.done, within_ms)
    return awaitable.result()


# --- messages


def test_a_request_is_answered_from_machine_to_machine_after_its_latency() -> None:
    simulation = Simulation(seed=1)
    one, two = simulation.start("n1"), simulation.start("n2")
    two.createActor(Echo, globalName="echo")
    address, reply_to = keeper(one, name="asker")

    one.tell(address, lambda me, sender: me.send(remote_address("n2", "echo"), "hello"))
    assert simulation.run_until(lambda: reply_to.seen != [], 100.0)

    assert reply_to.seen == [("echo", "hello")]
    assert 2 * LATENCY_MS[0] < simulation.scheduler.now_ms < 2 * LATENCY_MS[1] + 4 * HANDLING_MS


def test_asks_and_listeners_get_the_next_message_or_none_at_the_timeout() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    echo = system.createActor(Echo)
    mute, _ = keeper(system)

    assert result(simulation, system.ask(echo, "a", 1)) == ("echo", "a")
    before_ms = simulation.scheduler.now_ms
    assert result(simulation, system.ask(mute, "b", 1)) is None
    assert 1000.0 <= simulation.scheduler.now_ms - before_ms < 1001.0

    system.tell(echo, "c")
    assert result(simulation, system.listen(1)) == ("echo", "c")
    assert result(simulation, system.listen(timedelta(seconds=1))) is None


def test_actors_have_children_and_notice_their_exits() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    address, parent = keeper(system)

    system.tell(address, lambda me, sender: me.seen.append(me.createActor(Echo)))
    simulation.run_ms(10.0)
    (child,) = parent.seen
    assert result(simulation, system.ask(child, "x", 1)) == ("echo", "x")
    system.tell(child, ActorExitRequest())
    simulation.run_ms(10.0)

    assert [type(each) for each in parent.seen[1:]] == [ChildActorExited]
    assert parent.seen[1].childAddress == child


def test_a_handler_that_raises_gets_its_message_twice_and_gives_it_back_as_poison() -> None:
    tried = []
    raised = []

    def fail(me: Any, sender: Any) -> None:
        tried.append(me)
        raise ValueError("no")

    simulation = Simulation(seed=1, on_raised=lambda base, error: raised.append((base.node_id, str(error))))
    system = simulation.start("n1")
    address, actor = keeper(system)

    answer = result(simulation, system.ask(address, fail, 1))

    assert isinstance(answer, PoisonMessage)
    assert tried == [actor, actor]
    # The second attempt is a part of what became of the first.
    assert raised == [("n1", "no")]


def test_a_message_without_a_receiver_is_a_dead_letter() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    gone, _ = keeper(system)
    address, collector = keeper(system)
    system.tell(gone, ActorExitRequest())
    system.tell(address, lambda me, sender: me.handleDeadLetters(True))
    simulation.run_ms(10.0)

    system.tell(gone, "too late")
    simulation.run_ms(10.0)

    assert [(letter.deadAddress, letter.deadMessage) for letter in collector.seen] == [(gone, "too late")]


# --- time


def test_hours_pass_in_no_time() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    address, actor = keeper(system)

    system.tell(address, lambda me, sender: me.wakeupAfter(timedelta(hours=5), payload="rise"))
    simulation.run_ms(5 * 3_600_000.0 - 1.0)
    assert actor.seen == []
    simulation.run_ms(2.0)

    assert [(type(each), each.payload) for each in actor.seen] == [(WakeupMessage, "rise")]


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_timers_follow_the_clock_of_their_machine(rate: float) -> None:
    simulation = Simulation(seed=1)
    clock = VirtualClock(simulation.scheduler, start_ms=5000.0)
    clock.run_at(rate)
    system = simulation.start("n1", clock=clock)
    address, actor = keeper(system)

    system.tell(address, lambda me, sender: me.wakeupAfter(timedelta(seconds=1)))
    assert simulation.run_until(lambda: actor.seen != [], 10_000.0)

    assert simulation.scheduler.now_ms == pytest.approx(1000.0 / rate, abs=1.0)
    assert clock.now_ms() == pytest.approx(6000.0, abs=2.0)


def test_a_clock_jumps_forward_and_never_back() -> None:
    simulation = Simulation(seed=1)
    clock = VirtualClock(simulation.scheduler)

    clock.jump(700.0)

    assert clock.now_ms() == 700.0
    with pytest.raises(AssertionError, match="goes back"):
        clock.jump(-1.0)


def test_messages_are_handled_one_by_one_and_each_takes_its_cost() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1", cost=lambda receiver, message: 10.0)
    address, actor = keeper(system)

    for number in range(3):
        system.tell(address, number)
    handled_ms: list[float] = []
    while simulation.step():
        if len(actor.seen) > len(handled_ms):
            handled_ms.append(simulation.scheduler.now_ms)

    assert (actor.seen, handled_ms) == ([0, 1, 2], [10.0, 20.0, 30.0])


# --- lanes


def test_an_actor_with_a_thread_of_its_own_delays_no_other() -> None:
    simulation = Simulation(seed=1)
    slow = lambda receiver, message: 500.0 if message == "slow" else 0.01  # noqa: E731
    system = simulation.start("n1", cost=slow)
    shared, _ = keeper(system)
    own, on_its_own = keeper(system, KeeperOnItsOwn)
    echo = system.createActor(Echo)

    system.tell(own, "slow")
    assert result(simulation, system.ask(echo, 1, 1)) == ("echo", 1)
    assert (simulation.scheduler.now_ms < 10.0, on_its_own.seen) == (True, [])
    system.tell(shared, "slow")
    assert result(simulation, system.ask(echo, 2, 1)) == ("echo", 2)

    assert simulation.scheduler.now_ms > 500.0
    assert on_its_own.seen == ["slow"]


def handled_by_three(seed: int, *, shuffled: bool) -> list[tuple[str, int]]:
    """Send ten messages to each of three actors in turn; return in which order they were handled."""
    order: list[tuple[str, int]] = []
    simulation = Simulation(seed, shuffled=shuffled)
    system = simulation.start("n1")
    actors = {name: keeper(system)[0] for name in "abc"}
    for number in range(10):
        for name, address in actors.items():
            system.tell(address, lambda me, sender, item=(name, number): order.append(item))
    simulation.run_ms(100.0)
    return order


def test_shuffled_actors_take_turns_in_any_order_but_each_gets_its_messages_in_order() -> None:
    orders = [handled_by_three(seed, shuffled=True) for seed in range(5)]

    for order in orders:
        assert [[number for who, number in order if who == name] for name in "abc"] == [list(range(10))] * 3
    assert len({tuple(order) for order in orders}) == 5


def test_without_shuffling_messages_are_handled_in_the_order_in_which_they_were_sent() -> None:
    assert handled_by_three(1, shuffled=False) == [(name, number) for number in range(10) for name in "abc"]


# --- ends


def test_a_killed_machine_does_nothing_and_can_be_started_again() -> None:
    simulation = Simulation(seed=1)
    one, two = simulation.start("n1"), simulation.start("n2")
    two.createActor(Echo, globalName="echo")
    address, reply_to = keeper(one, name="asker")
    ask = lambda me, sender: me.send(remote_address("n2", "echo"), "?")  # noqa: E731
    woken, sleeper = keeper(two)
    two.tell(woken, lambda me, sender: me.wakeupAfter(timedelta(seconds=1)))
    one.tell(address, ask)
    simulation.run_ms(100.0)
    assert reply_to.seen == [("echo", "?")]

    simulation.systems["n2"].kill()
    one.tell(address, ask)
    simulation.run_ms(5000.0)
    assert (reply_to.seen, sleeper.seen) == ([("echo", "?")], [])

    simulation.start("n2").createActor(Echo, globalName="echo")
    one.tell(address, ask)
    simulation.run_ms(100.0)
    assert reply_to.seen == [("echo", "?")] * 2


def test_a_message_in_progress_at_a_crash_was_not_handled() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1", cost=lambda receiver, message: 10.0)
    address, actor = keeper(system)
    simulation.run_ms(100.0)

    system.tell(address, "under way")
    simulation.run_ms(9.0)
    simulation.systems["n1"].kill()
    simulation.run_ms(100.0)

    assert actor.seen == []


def test_a_stopped_machine_catches_up_when_it_resumes() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    base = simulation.systems["n1"]
    address, actor = keeper(system)
    own, on_its_own = keeper(system, KeeperOnItsOwn)
    system.tell(address, lambda me, sender: me.wakeupAfter(timedelta(seconds=1)))
    simulation.run_ms(10.0)

    base.pause()
    system.tell(address, "a")
    system.tell(own, "b")
    simulation.run_ms(60_000.0)
    assert (actor.seen, on_its_own.seen) == ([], [])
    base.resume()
    simulation.run_ms(10.0)

    assert [each if isinstance(each, str) else type(each) for each in actor.seen] == ["a", WakeupMessage]
    assert on_its_own.seen == ["b"]


def test_a_machine_shuts_down_in_order() -> None:
    simulation = Simulation(seed=1)
    system = simulation.start("n1")
    address, actor = keeper(system)
    simulation.run_ms(1.0)

    system.shutdown()
    simulation.run_ms(1000.0)

    assert [type(each) for each in actor.seen] == [ActorExitRequest]
    assert system.base.closing
    assert address.number not in system.base.receivers


# --- chance


def run(seed: int, shuffled: bool = False) -> list[tuple[float, str, str]]:
    """Let three machines pass something around for a while; return what was handled when."""
    handled: list[tuple[float, str, str]] = []

    class Passes(Actor):
        """Passes what it gets on to both others."""

        def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
            if isinstance(message, int) and message > 0:
                for other in ("n1", "n2", "n3"):
                    self.send(remote_address(other, "passes"), message - 1)

    def watch(base: Any, cell: Any, message: Any, sender: Any) -> None:
        handled.append((simulation.scheduler.now_ms, base.node_id, repr(message)))

    simulation = Simulation(seed, shuffled=shuffled, on_handled=watch)
    systems = [simulation.start(name) for name in ("n1", "n2", "n3")]
    addresses = [system.createActor(Passes, globalName="passes") for system in systems]
    systems[0].tell(addresses[0], 5)
    simulation.run_ms(1000.0)
    return handled


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_seed_decides_everything(shuffled: bool) -> None:
    assert run(7, shuffled) == run(7, shuffled)
    assert run(7, shuffled) != run(8, shuffled)
    assert len(run(7, shuffled)) == sum(3**depth for depth in range(6))


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example, output = re.findall(r"```python\n(.+?)```\n\nprints\n\n(.+?)\n\n", DOCS.read_text(), re.S)[0]

    exec(example, {"__name__": "example"})

    assert capsys.readouterr().out.split("\n") == [line.removeprefix("    ") for line in output.split("\n")] + [""]
