"""Faults: each one alone does what it says, and is undone when its time is over."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from raftkv.actors.gateway import RequestFailed
from raftkv.actors.messages.node import PeerDown, PeerUp
from raftkv.actors.messages.raft import AppendEntriesReply, RequestVote
from raftkv.actors.node import Node
from raftkv.environment import File
from raftkv.exit_status import EXIT_BUG, EXIT_UNUSABLE
from raftkv.simulation.cluster.cluster import DIRECTORY, NODE, Machine, SimulatedCluster
from raftkv.simulation.faults.faults import CLASSES, EVERYWHERE, KINDS, Fault, Nemesis, draw
from raftkv.store.commands import Put

DOCS = Path(__file__).resolve().parents[2] / "docs" / "simulation.md"

LONG_MS = 3_600_000.0


class Scene:
    """A cluster with a leader, all of whose machines are connected; then faults."""

    def __init__(self, size: int = 3, seed: int = 1) -> None:
        self.cluster = SimulatedCluster(size, seed)
        self.handled: list[tuple[float, str, Any]] = []
        """When which machine's Node handled what."""
        self.busy = Counter[str]()
        """How much the actors of each machine have handled."""
        self.numbers = 0
        self.nemesis = Nemesis(self.cluster, (), 1)
        self.nemesis.may_damage = True
        self.cluster.handled.append(self._on_handled)
        self.cluster.boot()
        self.until(self.is_led)
        self.run(1000.0)

    def _on_handled(self, node: Any, cell: Any, message: Any, sender: Any) -> None:
        self.busy[node.machine.name] += 1
        if isinstance(cell.instance, Node):
            self.handled.append((self.cluster.now_ms, node.machine.name, message))

    def __getitem__(self, name: str) -> Machine:
        return self.cluster.machines[name]

    def is_led(self) -> bool:
        """Whether all follow one leader."""
        replicas = [machine.node.replica if machine.node else None for machine in self.cluster.machines.values()]
        leaders = {(replica.current_term, replica.leader_id) if replica else None for replica in replicas}
        return len(leaders) == 1 and not leaders & {None} and all(leader and leader[1] for leader in leaders)

    def run(self, span_ms: float) -> None:
        self.cluster.simulation.run_ms(span_ms)

    def until(self, condition: Any, within_ms: float = 60_000.0) -> None:
        assert self.cluster.simulation.run_until(condition, within_ms)

    def begin(self, kind: str, target: str = "", for_ms: float = LONG_MS, value: float = 0.0, seed: int = 0) -> None:
        """Inject a fault now."""
        self.nemesis.faults = [Fault(0.0, kind, target, for_ms, value, seed)]
        self.nemesis.start()
        # It is due at once, and so is the end of one that has no duration.
        self.run(0.0)

    def send(self, source: str, target: str, count: int = 1) -> list[AppendEntriesReply]:
        """Send messages of an old term, which change nothing, from one machine to another."""
        sent = []
        for _ in range(count):
            self.numbers += 1
            sent.append(AppendEntriesReply(source, 0, False, self.numbers, 0))
            self.cluster.network.send(source, target, NODE, NODE, sent[-1])
        return sent

    def arrived(self, sent: Iterable[AppendEntriesReply]) -> list[tuple[float, AppendEntriesReply]]:
        """Return which of these were handled, and when."""
        sent = list(sent)
        return [(at_ms, message) for at_ms, _, message in self.handled if message in sent]

    def ways(self) -> set[str]:
        """Return on which ways messages get through."""
        sent = [message for one, other in permutations(self.cluster.names, 2) for message in self.send(one, other)]
        self.run(50.0)
        ways = list(permutations(self.cluster.names, 2))
        there = [message for _, message in self.arrived(sent)]
        return {f"{one}-{other}" for (one, other), message in zip(ways, sent, strict=True) if message in there}

    def write(self, name: str = "n1", size: int = 1, timeout_s: float = 5.0) -> str:
        """Write something through a node; return what came of it."""
        node = self[name].node
        assert node is not None
        write = node.gateway.propose(Put("k", b"." * size), timeout_s)
        self.until(write.done)
        error = write.exception()
        if error is None:
            return "ok"
        assert isinstance(error, RequestFailed)
        return error.refused.code

    def writes_ms(self, name: str = "n1") -> float:
        """Return how long a write takes."""
        before_ms = self.cluster.now_ms
        assert self.write(name, timeout_s=100.0) == "ok"
        return self.cluster.now_ms - before_ms


def all_ways(size: int) -> set[str]:
    return {f"n{one}-n{other}" for one, other in permutations(range(1, size + 1), 2)}


def between(some: str, others: str) -> set[str]:
    """Return the ways in both directions between machines of these numbers."""
    return {way for one in some for other in others for way in (f"n{one}-n{other}", f"n{other}-n{one}")}


# --- the network


def test_messages_are_lost_with_the_given_probability() -> None:
    scene = Scene()
    scene.begin("loss", for_ms=5.0, value=0.3)

    sent = scene.send("n1", "n2", 1000)
    scene.run(100.0)
    assert 600 < len(scene.arrived(sent)) < 800

    sent = scene.send("n1", "n2", 100)
    scene.run(100.0)
    assert len(scene.arrived(sent)) == 100


def test_messages_come_twice() -> None:
    scene = Scene()
    scene.begin("repeat", for_ms=5.0, value=1.0)

    sent = scene.send("n1", "n2", 10)
    scene.run(100.0)
    assert len(scene.arrived(sent)) == 20

    sent = scene.send("n1", "n2", 10)
    scene.run(100.0)
    assert len(scene.arrived(sent)) == 10


def test_the_second_may_come_a_minute_later() -> None:
    scene = Scene()
    scene.begin("replay", for_ms=5.0, value=1.0)

    begun_ms = scene.cluster.now_ms
    sent = scene.send("n1", "n2", 100)
    scene.run(61_000.0)
    arrived = [at_ms - begun_ms for at_ms, _ in scene.arrived(sent)]

    assert len(arrived) == 200
    assert sum(late_ms > 5000.0 for late_ms in arrived) > 80
    assert max(arrived) > 50_000.0


def test_messages_take_long_and_overtake_each_other() -> None:
    scene = Scene()
    scene.begin("latency", for_ms=200.0, value=100.0)

    begun_ms = scene.cluster.now_ms
    sent = scene.send("n1", "n2", 100)
    scene.run(300.0)
    arrived = scene.arrived(sent)
    assert 30.0 < sum(at_ms - begun_ms for at_ms, _ in arrived) / 100 < 70.0
    assert [message for _, message in arrived] != sent

    begun_ms = scene.cluster.now_ms
    sent = scene.send("n1", "n2", 100)
    scene.run(300.0)
    assert max(at_ms - begun_ms for at_ms, _ in scene.arrived(sent)) < 10.0


def test_nothing_overtakes_anything() -> None:
    scene = Scene()
    scene.begin("order", for_ms=5.0)

    sent = scene.send("n1", "n2", 50)
    scene.run(100.0)
    assert [message for _, message in scene.arrived(sent)] == sent

    sent = scene.send("n1", "n2", 50)
    scene.run(100.0)
    assert [message for _, message in scene.arrived(sent)] != sent


def test_one_way_is_slow() -> None:
    scene = Scene()
    scene.begin("slow-way", "n1,n2", for_ms=20.0, value=150.0)

    slow, quick = scene.send("n1", "n2"), [*scene.send("n2", "n1"), *scene.send("n1", "n3")]
    scene.run(10.0)
    assert {message for _, message in scene.arrived(slow + quick)} == set(quick)
    scene.run(145.0)
    assert len(scene.arrived(slow)) == 1

    sent = scene.send("n1", "n2")
    scene.run(10.0)
    assert len(scene.arrived(sent)) == 1


def test_connections_end_and_begin_again() -> None:
    scene = Scene()
    scene.handled.clear()
    scene.begin("disconnect", "n2", for_ms=0.0)
    scene.run(1000.0)

    links = [(name, message) for _, name, message in scene.handled if isinstance(message, PeerDown | PeerUp)]
    changes = {(name, type(message).__name__, message.peer) for name, message in links}
    pairs = {("n1", "n2"), ("n3", "n2"), ("n2", "n1"), ("n2", "n3")}
    assert changes == {(name, kind, peer) for name, peer in pairs for kind in ("PeerDown", "PeerUp")}
    assert scene.ways() == all_ways(3)


# --- partitions


@pytest.mark.parametrize(
    ("kind", "target", "size", "cut"),
    [
        ("halves", "n1", 3, between("1", "23")),
        ("halves", "n2,n5", 5, between("25", "134")),
        ("isolate", "n2", 3, between("2", "13")),
        ("one-way-out", "n2", 3, {"n2-n1", "n2-n3"}),
        ("one-way-in", "n2", 3, {"n1-n2", "n3-n2"}),
        ("ring", "n1,n2,n3,n4,n5", 5, between("1", "34") | between("2", "45") | between("3", "5")),
        ("ring", "n3,n1,n4,n2", 4, between("1", "2") | between("3", "4")),
        ("bridge", "n1,n2,n3", 5, between("23", "45")),
        ("flap", "n3", 3, between("3", "12")),
    ],
)
def test_partitions_cut_the_ways_that_they_say(kind: str, target: str, size: int, cut: set[str]) -> None:
    scene = Scene(size)
    scene.begin(kind, target, for_ms=400.0, value=10_000.0)

    assert scene.ways() == all_ways(size) - cut
    scene.run(200.0)
    assert scene.ways() == all_ways(size) - cut
    scene.run(200.0)
    assert scene.ways() == all_ways(size)


@pytest.mark.parametrize("size", [3, 4, 5, 7])
def test_in_a_ring_each_sees_a_majority_and_in_halves_and_at_a_bridge_some_do_not(size: int) -> None:
    for kind in ("ring", "halves", "bridge"):
        scene = Scene(size)
        scene.begin(kind, "any" if kind == "bridge" else "", seed=size)
        ways = scene.ways()
        seen = [1 + sum(f"{one}-{other}" in ways for other in scene.cluster.names) for one in scene.cluster.names]
        if kind == "ring":
            assert ways == all_ways(size) if size == 3 else min(seen) >= 3
            assert size == 3 or max(seen) < size
        elif kind == "halves":
            assert sorted(seen) == sorted([size // 2] * (size // 2) + [size - size // 2] * (size - size // 2))
        else:
            assert max(seen) == size
            assert min(seen) < size


def test_flapping_cuts_off_and_lets_back_again_and_again() -> None:
    scene = Scene()
    scene.begin("flap", "n1", for_ms=1000.0, value=100.0)

    cut = []
    for _ in range(14):
        cut.append(bool(scene.cluster.network.cut))
        scene.run(100.0)

    assert cut == [True, False] * 5 + [False] * 4


def test_a_cut_that_lasts_ends_connections() -> None:
    scene = Scene()
    scene.handled.clear()
    scene.begin("isolate", "n2", for_ms=2500.0)
    scene.run(2400.0)

    downs = {(name, message.peer) for _, name, message in scene.handled if isinstance(message, PeerDown)}
    assert downs == {("n1", "n2"), ("n3", "n2"), ("n2", "n1"), ("n2", "n3")}
    scene.run(1000.0)
    assert scene.ways() == all_ways(3)


def test_cuts_that_overlap_hold_until_each_is_over() -> None:
    scene = Scene()
    scene.begin("one-way-out", "n1", for_ms=200.0)
    scene.begin("isolate", "n1", for_ms=500.0)

    scene.run(300.0)
    assert scene.ways() == all_ways(3) - between("1", "23")
    scene.run(300.0)
    assert scene.ways() == all_ways(3)


# --- processes


@pytest.mark.parametrize("kind", ["crash", "kill"])
def test_processes_end_and_others_come_after_some_time(kind: str) -> None:
    scene = Scene()
    processes = {name: scene[name].process_number for name in scene.cluster.names}
    scene.begin(kind, "n1,n3", for_ms=500.0)

    scene.run(490.0)
    assert [name for name in scene.cluster.names if scene[name].is_up] == ["n2"]
    scene.run(20.0)
    assert {name: scene[name].process_number for name in scene.cluster.names} == {"n1": 2, "n2": 1, "n3": 2}
    assert processes == {"n1": 1, "n2": 1, "n3": 1}
    scene.until(scene.is_led)
    assert scene.write() == "ok"


def left_of(machine: Machine, kind: str, scene: Scene, seed: int) -> list[bytes]:
    """Write something without syncing it; return what is there after a fault."""
    path = f"{DIRECTORY}/unsynced"
    file: File = machine.disk.open(path, create=True)
    machine.disk.sync_directory(DIRECTORY)
    file.write(0, b"x" * 512)
    scene.begin(kind, machine.name, for_ms=0.0, seed=seed)
    content = machine.disk.files().get(path, b"")
    machine.disk.remove(path)
    return [content]


def test_a_crash_may_lose_unsynced_data_and_a_kill_loses_nothing() -> None:
    scene = Scene()
    left = {
        kind: {bytes(content) for seed in range(12) for content in left_of(scene["n2"], kind, scene, seed)}
        for kind in ("crash", "kill")
    }

    # The size of a file may be there without its content.
    assert left["crash"] - {bytes(512)} == {b"", b"x" * 512}
    assert left["kill"] == {b"x" * 512}


def noticed_after(scene: Scene, since_ms: float) -> dict[str, float]:
    """Return when, since then, the connection of each machine to n2 ended."""
    return {
        name: at_ms - since_ms
        for at_ms, name, message in scene.handled
        if at_ms >= since_ms and isinstance(message, PeerDown) and message.peer == "n2"
    }


def test_a_process_that_ends_closes_its_connections_and_a_machine_that_is_lost_does_not() -> None:
    at_once = silent = 0
    for seed in range(12):
        scene = Scene()
        since_ms = scene.cluster.now_ms
        scene.begin("crash", "n2", seed=seed)
        scene.run(10.0)
        noticed = noticed_after(scene, since_ms)
        scene.run(2500.0)
        if noticed:
            at_once += 1
            assert sorted(noticed) == ["n1", "n3"], seed
        else:
            silent += 1
            noticed = noticed_after(scene, since_ms)
            assert {name: ms > 1000.0 for name, ms in noticed.items()} == {
                "n1": True,
                "n3": True,
            }
    assert at_once > 2
    assert silent > 2

    scene = Scene()
    since_ms = scene.cluster.now_ms
    scene.begin("kill", "n2")
    scene.run(10.0)
    assert sorted(noticed_after(scene, since_ms)) == ["n1", "n3"]


def test_a_machine_that_was_lost_and_comes_back_lets_others_know() -> None:
    """Its system knows no connection of an earlier process."""
    scene = Scene()
    scene["n2"].is_lost = True
    scene["n2"].crash()
    scene.run(300.0)
    since_ms = scene.cluster.now_ms
    assert noticed_after(scene, since_ms - 300.0) == {}
    scene["n2"].boot()
    scene.run(10.0)
    assert sorted(noticed_after(scene, since_ms)) == ["n1", "n3"]
    scene.run(2500.0)
    assert scene.ways() == all_ways(3)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_restart_takes_no_time(power: float) -> None:
    scene = Scene()
    scene.begin("restart", "all", for_ms=0.0, value=power)

    assert [(machine.process_number, machine.is_up) for machine in scene.cluster.machines.values()] == [(2, True)] * 3
    scene.until(scene.is_led)


def test_a_leader_that_resigns_hands_over_ends_and_comes_back() -> None:
    scene = Scene()
    (leader,) = scene.cluster.leaders()
    votes = len([message for _, _, message in scene.handled if isinstance(message, RequestVote)])
    scene.begin("resign", leader, for_ms=3000.0, seed=5)

    scene.until(lambda: not scene[leader].is_up, 1001.0)
    scene.until(lambda: scene[leader].is_up, 3000.0)
    scene.until(scene.is_led)
    assert scene[leader].process_number == 2
    assert len([message for _, _, message in scene.handled if isinstance(message, RequestVote)]) > votes


def test_a_paused_process_handles_nothing_and_then_everything() -> None:
    scene = Scene()
    scene.begin("pause", "n2", for_ms=1000.0)
    scene.busy.clear()

    sent = scene.send("n1", "n2", 5)
    scene.run(990.0)
    assert scene.busy["n2"] == 0
    scene.run(20.0)
    assert len(scene.arrived(sent)) == 5
    assert scene["n2"].process_number == 1


def test_a_process_that_comes_after_a_paused_one_is_not_paused() -> None:
    scene = Scene()
    scene.begin("pause", "n2", for_ms=5000.0)
    scene.begin("restart", "n2", for_ms=0.0)
    scene.busy.clear()

    scene.run(1000.0)
    assert scene.busy["n2"] > 0
    scene.run(5000.0)
    assert scene.is_led()


def test_a_stunned_process_resumes_before_it_hears_from_its_peers() -> None:
    scene = Scene()
    scene.begin("stun", "n2", for_ms=1000.0, value=100.0)
    scene.busy.clear()

    scene.run(990.0)
    assert scene.busy["n2"] == 0
    scene.run(50.0)
    assert scene.busy["n2"] > 0
    assert scene.ways() == all_ways(3) - between("2", "13")
    scene.run(1000.0)
    assert scene.ways() == all_ways(3)


def test_a_starved_process_takes_long_for_each_message() -> None:
    scene = Scene()
    scene.begin("starve", "n2", for_ms=500.0, value=15.0)

    begun_ms = scene.cluster.now_ms
    sent = scene.send("n1", "n2", 20)
    scene.run(2000.0)
    assert max(at_ms for at_ms, _ in scene.arrived(sent)) - begun_ms > 20 * 15.0 / 2

    begun_ms = scene.cluster.now_ms
    sent = scene.send("n1", "n2", 20)
    scene.run(2000.0)
    assert max(at_ms for at_ms, _ in scene.arrived(sent)) - begun_ms < 10.0


# --- clocks


def test_a_clock_runs_at_another_rate_for_some_time() -> None:
    scene = Scene()
    shown_ms = scene["n2"].clock.now_ms()
    scene.begin("rate", "n2", for_ms=1000.0, value=0.5)

    scene.run(1000.0)
    assert scene["n2"].clock.now_ms() - shown_ms == pytest.approx(500.0)
    scene.run(1000.0)
    assert scene["n2"].clock.now_ms() - shown_ms == pytest.approx(1500.0)


def test_a_clock_jumps() -> None:
    scene = Scene()
    others = [scene[name].clock.now_ms() for name in ("n1", "n3")]
    shown_ms = scene["n2"].clock.now_ms()
    scene.begin("jump", "n2", for_ms=0.0, value=500.0)

    assert scene["n2"].clock.now_ms() - shown_ms == pytest.approx(500.0)
    assert [scene[name].clock.now_ms() for name in ("n1", "n3")] == others


# --- disks


def test_a_sync_takes_long_for_some_time() -> None:
    scene = Scene(1)
    assert scene.writes_ms() < 5.0
    scene.begin("slow-sync", "n1", for_ms=1000.0, value=200.0)

    assert 100.0 <= scene.writes_ms() < 700.0
    scene.run(1000.0)
    assert scene.writes_ms() < 5.0


def test_no_sync_ends_for_some_time() -> None:
    scene = Scene(1)
    scene.begin("hang-sync", "n1", for_ms=0.0, value=5000.0)

    assert 5000.0 <= scene.writes_ms() < 5100.0
    assert scene.writes_ms() < 5.0


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_process_whose_disk_fails_stops_and_the_next_one_continues(operation: str) -> None:
    scene = Scene(1)
    ended: list[tuple[str, int]] = []
    scene.cluster.ended.append(lambda machine, status, line: ended.append((machine.name, status)))
    scene.begin(f"{operation}-error", "n1", for_ms=0.0, value=1.0)

    assert scene.write() == "ok"
    assert ended == []
    node = scene["n1"].node
    assert node is not None
    node.gateway.propose(Put("k", b"x"), 5.0)
    scene.until(lambda: ended != [])
    assert ended == [("n1", EXIT_BUG)]
    assert [event.kind for event in scene["n1"].disk.events if event.kind == "failed"] == ["failed"]
    scene.until(scene.is_led)
    assert (scene["n1"].process_number, scene.write()) == (2, "ok")


def test_power_fails_in_the_middle_of_a_write() -> None:
    scene = Scene(1)
    lost: list[str] = []
    scene.cluster.power_lost.append(lambda machine: lost.append(machine.name))
    # The write itself is the first operation of a batch, and the sync after it the second.
    scene.begin("power-cut", "n1", for_ms=0.0, value=2.0)
    node = scene["n1"].node
    assert node is not None
    node.gateway.propose(Put("k", b"x" * 2000), 5.0)

    scene.until(lambda: lost != [])
    (cut,) = [event for event in scene["n1"].disk.events if event.kind == "cut"]
    assert cut.detail == "before sync"
    assert not scene["n1"].is_up
    scene.until(scene.is_led)
    assert (scene["n1"].process_number, scene.write()) == (2, "ok")


def test_a_full_disk_takes_no_writes_until_there_is_room_again() -> None:
    scene = Scene(1)
    scene.begin("full", "n1", for_ms=60_000.0)
    answers = {scene.write(size=3000, timeout_s=0.5) for _ in range(100) if scene["n1"].node is not None}

    assert "no_room" in answers
    assert answers <= {"ok", "no_room", "unknown"}
    scene.run(60_000.0)
    # The first one that is refused makes the node look again.
    scene.write(size=3000)
    scene.run(1000.0)
    assert scene.write(size=3000) == "ok"


# --- damage


def test_a_node_with_a_damaged_journal_does_not_start_again() -> None:
    scene = Scene()
    for _ in range(5):
        assert scene.write(size=2000) == "ok"
    scene.begin("flip", "n2", for_ms=0.0, seed=3)
    assert [event.kind for event in scene["n2"].disk.events if event.kind == "flipped"] == ["flipped"]
    scene.begin("restart", "n2", for_ms=0.0)

    scene.run(60_000.0)
    machine = scene["n2"]
    assert (machine.is_up, machine.ended and machine.ended[0], scene.nemesis.damaged) == (False, EXIT_UNUSABLE, {"n2"})
    assert scene.write("n1") == "ok"


def test_a_misdirected_write_is_noticed_at_the_next_start_only() -> None:
    scene = Scene()
    for _ in range(5):
        assert scene.write(size=2000) == "ok"
    scene.begin("misdirect", "n2", for_ms=0.0, seed=3)
    for _ in range(5):
        assert scene.write(size=2000) == "ok"

    assert [event.kind for event in scene["n2"].disk.events if event.kind == "misdirected"] == ["misdirected"]
    assert (scene["n2"].is_up, scene["n2"].process_number) == (True, 1)
    scene.begin("restart", "n2", for_ms=0.0)
    scene.run(10_000.0)
    assert (scene["n2"].is_up, scene["n2"].ended and scene["n2"].ended[0]) == (False, EXIT_UNUSABLE)
    assert scene.write("n1") == "ok"


def test_a_wiped_machine_comes_back_as_another() -> None:
    scene = Scene()
    scene.begin("wipe", "n2", for_ms=500.0)

    assert (scene["n2"].is_up, scene["n2"].disk.files()) == (False, {})
    scene.run(1000.0)
    assert (scene["n2"].is_up, scene["n2"].incarnations) == (True, 2)
    assert scene.write("n1") == "ok"


@pytest.mark.parametrize("kind", ["flip", "misdirect"])
def test_nothing_is_damaged_before_the_founding(kind: str) -> None:
    scene = Scene()
    scene.nemesis.may_damage = False
    scene.begin(kind, "n1")

    assert scene.nemesis.done == []


@pytest.mark.parametrize("kind", ["flip", "misdirect", "wipe"])
def test_damage_hits_a_minority_at_most(kind: str) -> None:
    scene = Scene()
    scene.nemesis.may_damage = True
    scene.begin(kind, "n1")
    scene.begin(kind, "n2")
    assert [fault.target for fault in scene.nemesis.done] == ["n1"]
    assert scene.nemesis.damaged == {"n1"}


# --- all of them


def test_the_targets_of_a_fault_are_recorded_by_name() -> None:
    scene = Scene(5)
    (leader,) = scene.cluster.leaders()
    for target in ("leader", "follower", "most", "all"):
        scene.begin("rate", target, value=1.1, seed=4)
    for kind in ("halves", "loss"):
        scene.begin(kind, seed=4)

    names = [fault.target.split(",") for fault in scene.nemesis.done]
    assert names[0] == [leader]
    assert (len(names[1]), leader in names[1]) == (1, False)
    assert [len(each) for each in names[2:5]] == [3, 5, 2]
    assert names[5] == [""]


def test_unknown_machines_are_not_hit() -> None:
    scene = Scene(1)
    scene.begin("kill", "n2,n3")

    assert scene.nemesis.done == []


LASTING = [kind for kinds in KINDS.values() for kind in kinds if kind not in ("flip", "misdirect", "wipe")]


@pytest.mark.parametrize("kind", LASTING)
def test_in_the_end_everything_is_undone(kind: str) -> None:
    """Whatever goes on, and whatever was still to come."""
    scene = Scene()
    target = "" if kind in EVERYWHERE | {"halves", "ring"} else "n1"
    values = {"rate": 2.0, "flap": 100.0, "power-cut": 1000.0, "latency": 300.0, "starve": 15.0, "hang-sync": 60_000.0}
    scene.begin(kind, target, value=values.get(kind, 0.6))
    scene.run(500.0)

    scene.nemesis.heal()
    scene.run(2000.0)
    scene.until(scene.is_led, 20_000.0)

    assert scene.ways() == all_ways(3)
    assert [scene.write(name) for name in scene.cluster.names] == ["ok"] * 3
    assert [machine.clock.rate for machine in scene.cluster.machines.values()] == [1.0] * 3
    processes = {name: machine.process_number for name, machine in scene.cluster.machines.items()}
    for _ in range(20):
        assert scene.write("n1", size=5000) == "ok"
    assert {name: machine.process_number for name, machine in scene.cluster.machines.items()} == processes


def test_a_seed_draws_the_same_faults_of_the_classes_that_are_wanted() -> None:
    for seed in range(20):
        assert draw(seed) == draw(seed)
        for name in CLASSES:
            assert {fault.kind for fault in draw(seed, [name])} <= set(KINDS[name])
    drawn = {fault.kind for seed in range(200) for fault in draw(seed)[:50]}

    assert drawn == {kind for kinds in KINDS.values() for kind in kinds}
    assert draw(1, []) == []


def test_the_documentation_lists_each_kind() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| .+ \| .*\|$", DOCS.read_text(), re.M)

    assert rows == [(kind, name) for name, kinds in KINDS.items() for kind in kinds]


def test_errors_of_disks_are_those_of_real_ones() -> None:
    disk = Scene(1)["n1"].disk
    disk.capacity = disk.used()

    with pytest.raises(OSError) as error:
        disk.open(f"{DIRECTORY}/more", create=True).write(0, b"x")
    assert error.value.errno == errno.ENOSPC
