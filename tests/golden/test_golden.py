"""Two stories of a cluster, message by message, compared with the files next to this one.

The files are for reading, and show what a change of the messages between nodes amounts to.
``pytest tests/golden --rewrite-golden`` writes them again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raftkv.actors.messages.requests import Propose, Read
from raftkv.store.commands import Get, Put
from tests.golden.storyteller import Storyteller

HERE = Path(__file__).parent
MS = 5000.0


def put(key: str, value: str) -> Propose:
    """Return a client's write."""
    return Propose((Put(key, value.encode()),), MS)


def get(key: str) -> Read:
    """Return a client's read."""
    return Read((Get(key),), "linearizable", MS)


def election() -> str:
    """Three nodes elect a leader, serve clients, lose the leader, elect another, and get the first one back."""
    cluster = Storyteller(3, seed=1)
    while any(not box.entries for box in cluster.boxes.values()):
        cluster.step()
    cluster.run_ms(10)
    cluster.is_recording = True
    cluster.chapter(
        "An election",
        "Three nodes have founded their cluster: entry 1, the configuration, is on all their disks. No node leads",
        "yet. The first node whose election timeout expires asks whether it would be elected (9.6), then for votes",
        "(3.4), and starts its term with a no-op (3.6.2).",
    )
    while not cluster.leaders():
        cluster.step()
    cluster.run_ms(120)
    leader = cluster.leaders()[0]
    helper = next(name for name in cluster.names if name != leader)
    cluster.chapter(
        "A write and a read",
        f"A client sends a write to {helper}, a follower, which forwards it. It is committed once it is on the disks",
        "of a majority (3.5). For a read, the follower only needs the index up to which it must have applied; the",
        "leader sends it after a round of heartbeats has confirmed its leadership (6.4).",
    )
    cluster.asks("client", helper, put("colour", "green"))
    cluster.run_ms(60)
    cluster.asks("client", helper, get("colour"))
    cluster.run_ms(60)
    cluster.chapter("The leader stops", "The others notice its silence and elect another leader.")
    cluster.happens(leader, "stops")
    cluster.crash(leader)
    while not cluster.leaders():
        cluster.step()
    cluster.run_ms(60)
    cluster.chapter("It comes back", "Its term, vote and log are on its disk. It becomes a follower.")
    cluster.happens(leader, "starts again")
    cluster.boot(leader)
    cluster.run_ms(120)
    return cluster.story()


def divergence() -> str:
    """A leader that was cut off has appended entries that no other node has; the new leader replaces them."""
    cluster = Storyteller(3, seed=2)
    while not cluster.leaders():
        cluster.step()
    cluster.run_ms(60)
    (old,) = cluster.leaders()
    others = [name for name in cluster.names if name != old]
    cluster.asks("client", old, put("colour", "green"))
    cluster.run_ms(60)
    cluster.is_recording = True
    cluster.chapter(
        "Cut off",
        f"{old} leads, and all have the same log: the configuration, a no-op, and colour=green. Now the network loses",
        f"all messages to and from {old} (-x). It still takes writes, but can't commit them.",
    )
    cluster.cut = {pair for other in others for pair in ((old, other), (other, old))}
    cluster.asks("client a", old, put("colour", "red"))
    cluster.asks("client b", old, put("shape", "round"))
    cluster.run_ms(100)
    cluster.chapter(
        "Two logs",
        "The others elect a new leader and go on: index 4 has another entry now. The old leader hears from no",
        "majority and steps down (6.2). It does not report the waiting writes as failed, because they may have been",
        "replicated.",
    )
    while cluster.leaders() in ([old], []):
        cluster.step()
    (new,) = [name for name in cluster.leaders() if name != old]
    (third,) = [name for name in others if name != new]
    cluster.run_ms(20)
    cluster.asks("client c", new, put("colour", "blue"))
    cluster.run_ms(100)
    cluster.chapter(
        "Who may lead",
        f"{new} stops, and the network is whole again. The logs of {old} and {third} are equally long, but that of",
        f"{third} ends in a later term: only {third}, which has all committed entries, can be elected (3.6.1).",
    )
    cluster.cut = set()
    cluster.happens(new, "stops")
    cluster.crash(new)
    while (cluster.changes[-1].id, cluster.changes[-1].role) != (third, "leader"):
        cluster.step()
    cluster.chapter(
        "One log again",
        f"{third} starts after its own last entry. {old} refuses entries that do not follow its log, and reports where",
        f"the term of its own entry starts; {third} continues after its last entry of that term (3.5). The entries",
        f"that only {old} has are replaced; once others are committed in their places, their clients learn that they",
        "failed.",
    )
    cluster.run_ms(200)
    return cluster.story()


@pytest.mark.parametrize("tell", [election, divergence])
def test_the_story_equals_its_file(tell: Callable[[], str], request: pytest.FixtureRequest) -> None:
    """The same seed, the same story: on every version of Python, with every hash seed."""
    path = HERE / f"{tell.__name__}.txt"
    story = tell()
    if request.config.getoption("--rewrite-golden"):
        path.write_text(story)

    assert story == path.read_text()
