"""The first start: how nodes without data become a cluster, and who must stay out (DESIGN, 5)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from raftkv.actors.messages.node import Save, Saved
from raftkv.actors.messages.raft import (
    BootstrapHello,
    RequestVote,
    TimeoutNow,
)
from raftkv.actors.messages.requests import AskStatus, Status
from raftkv.raft.configuration import Configuration, Member, cluster_id, decode_configuration, founding_configuration
from tests.roles.rehearsal import (
    INITIAL_CLUSTER_HASH,
    ROOM,
    Becomes,
    Player,
    append,
    bootstrapping,
    entry,
    follower,
    founding_entry,
    granted,
    introduce,
    log,
    only,
)
from tests.support.in_memory import InMemoryCluster

EVERYONE = ("n1-1", "n2-1", "n3-1")


def reason(player: Player) -> str:
    """Return what a bootstrapping node says it waits for."""
    said: str = player.roles["bootstrap"].reason_for_no_leader()
    return said


# --- one node


def test_a_bootstrapping_node_introduces_itself_to_all_of_its_list_and_goes_on_doing_so() -> None:
    """Messages may be lost, and nodes come late."""
    newcomer = bootstrapping()
    own = introduce("n1")

    assert newcomer.waits_ms(101) == [("n2", own), ("n3", own)]
    assert newcomer.waits_ms(101) == [("n2", own), ("n3", own)]


def test_a_bootstrapping_node_answers_an_introduction_with_whom_it_has_met() -> None:
    """An answer wants no answer, or two nodes would never stop."""
    newcomer = bootstrapping()

    assert newcomer.gets(introduce("n2")) == [("n2", introduce("n1", "n2-1", asks=False))]
    assert newcomer.gets(introduce("n3", asks=False)) == []
    assert newcomer.waits_ms(101) == [(peer, introduce("n1", "n2-1", "n3-1")) for peer in ("n2", "n3")]


def test_the_cluster_is_founded_when_everyone_has_met_everyone() -> None:
    """Entry 1 names all nodes and their incarnations, in the order of their ids."""
    newcomer = bootstrapping()

    assert newcomer.gets(introduce("n3", *EVERYONE, asks=False)) == []
    assert newcomer.gets(introduce("n2", *EVERYONE, asks=False)) == [
        ("journal", Save(1, 1, None, (founding_entry(),))),
        ("node", Becomes("follower")),
        ("node", Saved(1, ROOM)),
    ]
    assert (newcomer.replica.commit_index, newcomer.replica.configuration.ids) == (1, ("n1", "n2", "n3"))


def test_having_met_everyone_is_not_enough() -> None:
    """The others must have met each other too, or they could found another cluster."""
    newcomer = bootstrapping()
    newcomer.gets(introduce("n2", "n1-1"), introduce("n3", *EVERYONE))

    assert newcomer.role == "bootstrap"
    assert reason(newcomer) == "all nodes are connected and exchange their lists"


def test_the_others_must_have_met_the_same_incarnations() -> None:
    """n3 is wiped between the introductions: n2 has met the old one, we have met the new one."""
    newcomer = bootstrapping()
    newcomer.gets(introduce("n2", *EVERYONE), introduce("n3", "n1-1", "n2-1", incarnation="n3-2"))
    assert newcomer.role == "bootstrap"

    newcomer.gets(introduce("n2", "n1-1", "n3-2"))
    assert newcomer.role == "follower"
    assert newcomer.replica.configuration.member("n3") == Member("n3", "n3:5001", "n3-2")


def test_the_others_must_have_met_this_very_incarnation() -> None:
    """This node was wiped: what the others say of its former self does not count."""
    wiped = bootstrapping(incarnation="n1-2")

    wiped.gets(introduce("n2", *EVERYONE), introduce("n3", *EVERYONE))
    assert wiped.role == "bootstrap"

    wiped.gets(introduce("n2", "n1-2", "n3-1"), introduce("n3", "n1-2", "n2-1"))
    assert wiped.role == "follower"


def test_replayed_introductions_of_an_incarnation_that_is_gone_are_ignored() -> None:
    """Very old messages are normal."""
    newcomer = bootstrapping()
    old = introduce("n3", *EVERYONE)
    newcomer.gets(introduce("n2", *EVERYONE), introduce("n3", "n1-1"))
    newcomer.gets(introduce("n3", "n1-1", incarnation="n3-2"))

    assert newcomer.gets(old) == []
    assert newcomer.role == "bootstrap"
    assert newcomer.roles["bootstrap"].met["n3"] == "n3-2"


def test_a_stranger_is_not_met() -> None:
    """Only nodes of the list count."""
    newcomer = bootstrapping()

    assert newcomer.gets(introduce("n9", *EVERYONE)) == []
    assert reason(newcomer) == "waiting for n2, n3: the cluster begins when all its nodes have met"


def test_a_node_with_another_list_is_not_met_and_named() -> None:
    """Someone has to correct one of the two."""
    newcomer = bootstrapping()

    assert newcomer.gets(introduce("n2", *EVERYONE, list_hash="another list")) == []
    newcomer.gets(introduce("n3", *EVERYONE))
    assert newcomer.role == "bootstrap"
    assert reason(newcomer) == "n2 was started with another --cluster list"


def test_a_node_alone_in_its_list_founds_at_once() -> None:
    """It has met everyone; a moment later it leads."""
    alone = bootstrapping(("n1",))
    assert alone.role == "follower"

    alone.waits_ms(301)

    assert (alone.role, alone.replica.commit_index) == ("leader", 2)


def test_entry_1_is_saved_together_with_its_term() -> None:
    """A node that stops in between must not have one without the other."""
    newcomer = bootstrapping()
    newcomer.disk_waits = True
    newcomer.gets(introduce("n2", *EVERYONE))

    assert only(Save, newcomer.gets(introduce("n3", *EVERYONE))) == [
        ("journal", Save(1, 1, None, (founding_entry(),))),
    ]
    assert (newcomer.replica.current_term, newcomer.replica.durable_index) == (1, 0)


@pytest.mark.parametrize(
    "message",
    [
        RequestVote("n2", 5, 9, 4),
        RequestVote("n2", 5, 9, 4, pre_vote=True),
        RequestVote("n2", 5, 9, 4, transfer=True),
        granted("n2", term=5),
        append(entry(2, 1), term=5),
        TimeoutNow("n2", 0),
    ],
)
def test_a_node_without_a_configuration_neither_votes_nor_appends_nor_campaigns(message: object) -> None:
    """It may have forgotten what it promised in an earlier life."""
    newcomer = bootstrapping()

    assert newcomer.gets(message) == []
    assert (newcomer.role, newcomer.replica.current_term, newcomer.replica.log.last_index) == ("bootstrap", 0, 0)


def test_a_bootstrapping_node_never_campaigns() -> None:
    """However long it waits."""
    shown = bootstrapping().waits_ms(5000)

    assert {type(message) for _, message in shown} == {BootstrapHello}


# --- a cluster that exists already


def test_a_member_answers_an_introduction_with_entry_1() -> None:
    """Whoever was founded with it and missed that adopts it."""
    member = follower(term=4, entries=log(2, 3))

    shown = member.gets(introduce("n3", *EVERYONE))

    assert shown == [("n3", BootstrapHello("n1", "n1-1", INITIAL_CLUSTER_HASH, (), founding_entry().data))]


def test_a_member_tells_strangers_nothing() -> None:
    """Only nodes of its list."""
    assert follower().gets(introduce("n9"), introduce("n3", asks=False)) == []


def test_a_member_does_not_tell_of_a_founding_that_is_not_on_its_disk() -> None:
    """It could be another one after a crash."""
    newcomer = bootstrapping()
    newcomer.disk_waits = True
    newcomer.gets(introduce("n2", *EVERYONE), introduce("n3", *EVERYONE))
    assert newcomer.role == "follower"

    assert newcomer.gets(introduce("n3", *EVERYONE)) == []
    newcomer.disk_answers()
    assert len(newcomer.gets(introduce("n3", *EVERYONE))) == 1


def test_the_incarnation_that_is_named_in_entry_1_adopts_it() -> None:
    """It was there when the cluster was founded, and only missed that."""
    newcomer = bootstrapping()

    shown = newcomer.gets(introduce("n2", founding=founding_entry().data, asks=False))

    assert only(Save, shown) == [("journal", Save(1, 1, None, (founding_entry(),)))]
    assert newcomer.role == "follower"


def test_another_incarnation_stays_out_and_says_why() -> None:
    """Its disk was wiped: it has forgotten its votes and what it acknowledged (pitfall 39)."""
    wiped = bootstrapping(incarnation="n1-2")
    cluster = cluster_id(decode_configuration(founding_entry().data))

    assert wiped.gets(introduce("n2", founding=founding_entry().data, asks=False)) == []
    assert wiped.role == "bootstrap"
    assert reason(wiped) == (
        f"cluster {cluster} knows n1 as n1-1, and this is n1-2: its data directory was lost or replaced, "
        "so it can't go on as the same node"
    )


def test_a_node_that_entry_1_does_not_name_stays_out_and_says_why() -> None:
    """It came to somebody else's cluster."""
    newcomer = bootstrapping()
    founding = founding_configuration([Member("n2", "n2:5001", "n2-1"), Member("n3", "n3:5001", "n3-1")])

    assert newcomer.gets(introduce("n2", founding=founding.encode(), asks=False)) == []
    assert reason(newcomer) == f"n2 belongs to cluster {cluster_id(founding)}, which has no n1"


def test_a_founding_that_can_t_be_read_is_not_adopted() -> None:
    """A later release may have another form."""
    newcomer = bootstrapping()

    assert newcomer.gets(introduce("n2", founding=b"?", asks=False)) == []
    assert reason(newcomer) == "n2 describes its cluster in a form that can't be read"


def test_a_founding_that_no_founding_makes_is_not_adopted() -> None:
    """All who found a cluster vote in it: a list that says otherwise was made by something else."""
    newcomer = bootstrapping()
    strange = Configuration(decode_configuration(founding_entry().data).members, frozenset({"n1"}))

    assert newcomer.gets(introduce("n2", founding=strange.encode(), asks=False)) == []
    assert reason(newcomer) == "n2 describes a cluster that can't have been founded so"


def test_a_founding_is_adopted_once() -> None:
    """All members answer an introduction."""
    newcomer = bootstrapping()
    told = [introduce(peer, founding=founding_entry().data, asks=False) for peer in ("n2", "n3")]

    assert len(only(Save, newcomer.gets(*told))) == 1
    assert newcomer.replica.log.last_index == 1


# --- whole clusters


def foundings(cluster: InMemoryCluster) -> dict[str, bytes]:
    """Return the data of entry 1 of each node that has one on its disk."""
    return {name: box.entries[0].data for name, box in cluster.boxes.items() if box.entries}


def status(cluster: InMemoryCluster, name: str) -> Status:
    """Return what a node says of itself."""
    cluster.ask(name, AskStatus(), f"status of {name}")
    cluster.run_ms(5)
    answers = [answer for reply_to, answer in cluster.replies if reply_to == f"status of {name}"]
    assert isinstance(answers[-1], Status)
    return answers[-1]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_all_nodes_write_the_same_bytes(size: int) -> None:
    """Every node writes entry 1 by itself; the cluster's id is its hash."""
    cluster = InMemoryCluster(size, seed=size)
    cluster.run_ms(2000)

    assert sorted(foundings(cluster)) == cluster.names
    assert len(set(foundings(cluster).values())) == 1
    assert {status(cluster, name).cluster_id for name in cluster.names} == {
        cluster_id(decode_configuration(foundings(cluster)["n1"]))
    }
    assert len(cluster.leaders()) == 1


def test_nothing_is_founded_while_one_is_missing() -> None:
    """A majority is not enough: two majorities of different nodes could found two clusters."""
    cluster = InMemoryCluster(5, seed=1, late=["n4"])
    cluster.run_ms(3000)
    assert foundings(cluster) == {}
    assert status(cluster, "n1").reason == "waiting for n4: the cluster begins when all its nodes have met"

    cluster.boot("n4")
    cluster.run_ms(2000)
    assert len(foundings(cluster)) == 5


def test_the_order_in_the_list_does_not_matter() -> None:
    """Everyone may write it differently."""
    cluster = InMemoryCluster(3, seed=2, late=["n3"])
    cluster.boot("n3", ["n3", "n1", "n2"])
    cluster.run_ms(2000)

    assert len(foundings(cluster)) == 3
    assert len(set(foundings(cluster).values())) == 1


def test_a_node_with_another_list_keeps_all_from_founding() -> None:
    """And everyone knows who it is."""
    cluster = InMemoryCluster(3, seed=3, late=["n3"])
    cluster.boot("n3", ["n1", "n2", "n3", "n4"])
    cluster.run_ms(2000)

    assert foundings(cluster) == {}
    assert status(cluster, "n1").reason == "n3 was started with another --cluster list"
    assert status(cluster, "n3").reason == (
        "n1 was started with another --cluster list; n2 was started with another --cluster list"
    )

    cluster.crash("n3")
    cluster.boot("n3")
    cluster.run_ms(2000)
    assert len(foundings(cluster)) == 3


def test_a_node_that_was_wiped_before_the_founding_takes_part_as_what_it_is_then() -> None:
    """Nothing was promised by then."""
    cluster = InMemoryCluster(3, seed=4, late=["n3"])
    cluster.run_ms(500)
    cluster.wipe("n2")
    cluster.boot("n2")
    cluster.run_ms(500)
    cluster.boot("n3")
    cluster.run_ms(2000)

    (founding,) = set(foundings(cluster).values())
    assert [member.incarnation for member in decode_configuration(founding).members] == ["n1-1", "n2-2", "n3-1"]


def test_a_node_that_was_wiped_after_the_founding_stays_out_and_the_others_go_on() -> None:
    """It does not vote, whatever it is asked, and is never counted (pitfalls 23 and 39)."""
    cluster = InMemoryCluster(3, seed=5)
    cluster.run_ms(2000)
    (leader,) = cluster.leaders()
    wiped = next(name for name in cluster.names if name != leader)
    cluster.wipe(wiped)
    cluster.boot(wiped)
    cluster.run_ms(1000)

    assert cluster.leaders() == [leader]
    assert "its data directory was lost or replaced" in (status(cluster, wiped).reason or "")

    cluster.crash(leader)
    cluster.run_ms(3000)
    assert cluster.leaders() == []
    assert sorted(foundings(cluster)) == sorted(set(cluster.names) - {wiped})


def test_a_node_that_missed_the_founding_adopts_it() -> None:
    """Its messages were lost, or it stopped before its disk had entry 1."""
    cluster = InMemoryCluster(3, seed=6)
    while len(foundings(cluster)) < 1:
        cluster.step()
    (first,) = foundings(cluster)
    for name in cluster.names:
        if name != first:
            cluster.crash(name)
    cluster.network.clear()
    for name in cluster.names:
        if name != first:
            cluster.boot(name)
    cluster.run_ms(2000)

    assert len(foundings(cluster)) == 3
    assert len(set(foundings(cluster).values())) == 1
    assert len(cluster.leaders()) == 1


@pytest.mark.parametrize("seed", range(60))
def test_never_are_there_two_clusters(seed: int) -> None:
    """Whoever crashes or loses its disk meanwhile: wherever there is an entry 1, it is the same."""
    random = Random(seed)
    cluster = InMemoryCluster(random.choice([2, 3, 3, 4]), seed, shuffled=random.random() < 0.5)
    cluster.loss = random.choice([0.0, 0.2, 0.5])
    cluster.repeat = random.choice([0.0, 0.3])
    cluster.delay_ms = (0.1, random.choice([1.0, 50.0, 400.0]))
    for _ in range(30):
        cluster.run_ms(random.choice([1.0, 20.0, 100.0]))
        assert len(set(foundings(cluster).values())) <= 1, f"seed {seed}"
        name = random.choice(cluster.names)
        event: Callable[[str], None] = random.choice([cluster.wipe, cluster.crash, cluster.crash, lambda _: None])
        event(name)
        if not cluster.is_up(name):
            cluster.boot(name)
    cluster.loss, cluster.delay_ms = 0.0, (0.1, 1.0)
    cluster.run_ms(3000)

    (founding,) = set(foundings(cluster).values())
    named = {(member.id, member.incarnation) for member in decode_configuration(founding).members}
    assert set(foundings(cluster)) == {
        name for name, box in cluster.boxes.items() if (name, box.incarnation) in named
    }, f"seed {seed}"
