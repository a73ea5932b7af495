"""A full disk: writes are refused before anything is appended, and everything else goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import ANSWER_S, Answer, Cluster, MakeCluster, Node, wait_for

SIZE = 16 << 20
LEFT = 3 << 20
"""Free space that other files leave on each small disk."""

REFUSED = 300
"""More refusals than there is space for elections on a full disk."""

VALUE = "x" * 40_000

Mount = Callable[[Path], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Return a function that mounts a small disk on a directory, until the end of the test."""
    mounted: list[Path] = []

    def make(path: Path) -> None:
        path.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        mounted.append(path)

    yield make
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_disk(node: Node) -> Path:
    """Fill most of a node's disk with a file of another program; return the file."""
    ballast = node.directory / "ballast"
    free = os.statvfs(node.directory)
    with ballast.open("wb") as file:
        file.write(bytes(free.f_bavail * free.f_frsize - LEFT))
    return ballast


def fill(cluster: Cluster, node_id: str) -> tuple[list[str], Answer]:
    """Write large values until one is refused; return the keys that were written, and the refusal."""
    written: list[str] = []

    def write() -> Answer | None:
        key = f"a{len(written)}"
        answer = cluster.put(node_id, key, VALUE)
        if answer.status == 200:
            written.append(key)
            return None
        return answer

    return written, wait_for(write, "the disk is full")


def assert_all_there(cluster: Cluster, keys: list[str]) -> None:
    assert {cluster.get(node_id, key) for node_id in cluster.running for key in keys} == {VALUE}


@pytest.fixture
def cluster(mount: Mount, make_cluster: MakeCluster) -> Cluster:
    """Return three nodes on small disks."""
    cluster = make_cluster()
    for node in cluster.nodes.values():
        mount(node.directory)
    cluster.start()
    cluster.wait_for_leader()
    return cluster


def test_full_disks_refuse_writes_and_lose_nothing(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        fill_disk(node)

    written, refusal = fill(cluster, "n1")
    assert len(written) > 20
    assert (refusal.status, refusal.outcome) == (507, "not_done")
    for node_id in cluster.ids:
        again = cluster.put(node_id, "b", VALUE)
        assert (again.status, again.outcome) == (507, "not_done")

    # Reads, deletes and elections go on: term and vote have space of their own that entries never use.
    assert_all_there(cluster, written)
    assert cluster.ask("n2", "DELETE", f"/keys/{written[0]}/?timeout={ANSWER_S}").body == {"deleted": True}
    leader = cluster.wait_for_leader()
    cluster.kill(leader)
    cluster.wait_for_leader(not_in=(leader,))
    cluster.start(leader)
    cluster.wait_for_leader()
    assert cluster.ask(leader, "DELETE", f"/keys/{written[1]}/?timeout={ANSWER_S}").body == {"deleted": True}

    cluster.kill()
    cluster.start()
    cluster.wait_for_leader()
    assert [cluster.get(node_id, key) for node_id in cluster.ids for key in [*written[:2], "b"]] == [None] * 9
    assert_all_there(cluster, written[2:])


def test_refused_writes_use_no_space(cluster: Cluster) -> None:
    """Refusals, however many, do not use the space reserved for elections and deletes: reads and deletes go on."""
    for node in cluster.nodes.values():
        fill_disk(node)
    written, _ = fill(cluster, "n1")
    for number in range(REFUSED):
        assert cluster.put(cluster.ids[number % 3], "b", VALUE).status in (503, 507)

    assert [cluster.get(node_id, written[0]) for node_id in cluster.ids] == [VALUE] * 3
    assert cluster.ask("n1", "DELETE", f"/keys/{written[0]}/?timeout={ANSWER_S}").body == {"deleted": True}


def test_writes_go_on_when_full_disks_have_space_again(cluster: Cluster) -> None:
    """Without a restart and without a delete first."""
    ballast = [fill_disk(node) for node in cluster.nodes.values()]
    written, refusal = fill(cluster, "n1")
    assert refusal.status == 507

    for path in ballast:
        path.unlink()
    wait_for(lambda: cluster.put("n1", "again", VALUE).status == 200, "a write is accepted again")
    cluster.wait_until_equal()
    assert_all_there(cluster, [*written, "again"])


def test_leadership_moves_away_from_a_full_disk(cluster: Cluster) -> None:
    """The others go on; the full node follows again when it has space."""
    full = cluster.wait_for_leader()
    others = [node_id for node_id in cluster.ids if node_id != full]
    ballast = fill_disk(cluster[full])
    written: list[str] = []

    def write_more_than_fits() -> bool:
        key = f"a{len(written)}"
        answer = cluster.put(cluster.ids[len(written) % 3], key, VALUE)
        # While leadership moves, a write may be refused.
        assert answer.status in (200, 503, 507), answer
        written.extend([key] * (answer.status == 200))
        return len(written) * len(VALUE) > 2 * LEFT

    wait_for(write_more_than_fits, lambda: f"more writes than fit on the full disk: {cluster.statuses()}")
    assert cluster.wait_for_leader() in others
    for node_id in cluster.ids:
        assert cluster.put(node_id, node_id, VALUE).status == 200
    for node_id in others:
        assert cluster.get(node_id, written[-1]) == VALUE

    ballast.unlink()
    cluster.wait_until_equal()
    assert cluster.get(full, written[-1], level="stale") == VALUE
