"""The picture of a history: everything is in it, it needs nothing else, and what is wrong stands out."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from random import Random
from typing import Any

import pytest

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.simulation.checks.history import History
from raftkv.simulation.report.timeline import Mark, draw
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Delete,
    DeleteDone,
    DeleteIf,
    Get,
    Item,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
)
from tests.simulation.sequential_store import SequentialStore
from tests.simulation.test_history import shows_an_old_state

VOID = {"meta", "input"}


class Page(HTMLParser):
    """What a page is made of; raises where its elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        """By the element that holds them."""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.elements if name in attributes.get("class", "").split()]

    @property
    def data(self) -> Any:
        """What the script is given."""
        return json.loads(re.sub(r"\s+", " ", self.texts["script"][0]))


def page(history: History, marks: list[Mark] | None = None) -> Page:
    return Page(draw(history, history.verdict(), marks or []))


def small_history() -> History:
    """A write, a read that misses it, an unknown deletion, and a request that is still under way."""
    history = History()
    write = history.begin("c10", "n1", 1.0, Propose((Put("k", b"<1>"),), 100.0))
    history.end(write, 2.0, Applied(2, 1, 1, (PutDone(1),)))
    read = history.begin("c9", "n2", 3.0, Read((Get("k"),), "linearizable", 100.0))
    history.end(read, 4.0, ReadResult(1, 0, (None,)))
    deletion = history.begin("c9", "n1", 5.0, Propose((Delete("k"),), 100.0))
    history.end(deletion, 6.0, None)
    refused = history.begin("c9", "n1", 7.0, Read((Get("k"), Get("l")), "stale", 100.0))
    history.end(refused, 8.0, Refused("no_leader"))
    history.begin("c10", "n1", 9.0, Propose((Put("k", b"2"),), 100.0))
    return history


def test_a_condition_and_that_it_did_not_hold_are_seen() -> None:
    history = History()
    write = history.begin("c1", "n1", 1.0, Propose((PutIf("k", b"1", NOT_THERE), DeleteIf("l", 7)), 100.0))
    history.end(write, 2.0, Applied(2, 1, 1, (PutDone(1), Unmatched(1, 0))))
    history.begin("c1", "n1", 3.0, Propose((PutIf("k", b"2", THERE),), 100.0))

    shown = page(history)

    assert {"k=1 if not there del l if at 7 ✗", "k=2 if there"} <= set(shown.texts["text"])
    assert shown.data["details"][0][1] == "put k = 1 if not there, delete l if at 7 (was not there)"


def test_every_operation_has_a_bar_in_the_lane_of_its_client() -> None:
    shown = page(small_history())
    assert [
        (bar["data-number"], bar["class"], bar["data-from"], bar["data-until"]) for bar in shown.of_class("operation")
    ] == [
        ("1", "operation read ok", "3.0", "4.0"),
        ("2", "operation write unknown", "5.0", "6.0"),
        ("3", "operation stale failed", "7.0", "8.0"),
        ("0", "operation write ok", "1.0", "2.0"),
        ("4", "operation write unknown", "9.0", "9.0"),
    ]
    assert shown.texts["text"] == ["k→∅", "del k", "k→? l→?", "k=<1>", "k=2"]
    assert [name["title"] for name in shown.of_class("name")] == ["c9", "c10"]


def test_faults_have_lanes_of_their_own() -> None:
    marks: list[Mark] = [
        (2.0, None, "n2", "leads in term 2"),
        (1.0, 8.0, "network", 'cut "n1" | n2'),
        (2.0, None, "n2", "x"),
    ]
    shown = page(small_history(), marks)
    assert [name["title"] for name in shown.of_class("name")] == ["n2", "network", "c9", "c10"]
    assert [
        (mark["class"], mark["data-text"], mark["data-from"], mark["data-until"]) for mark in shown.of_class("mark")
    ] == [
        ("mark moment", "leads in term 2", "2.0", "2.0"),
        ("mark moment", "x", "2.0", "2.0"),
        ("mark span", 'cut "n1" | n2', "1.0", "8.0"),
    ]
    first, second, _ = shown.of_class("mark")
    assert first["y"] != second["y"], "one would hide the other"


def test_bars_of_a_client_that_asks_for_several_things_at_once_do_not_hide_each_other() -> None:
    history = History()
    reads = [history.begin("c", "n1", float(number), Read((Get("k"),), "linearizable", 100.0)) for number in range(3)]
    for number, read in enumerate(reads):
        history.end(read, 2.5 + number, ReadResult(1, 0, (None,)))
    later = history.begin("c", "n1", 2.75, Read((Get("k"),), "linearizable", 100.0))
    history.end(later, 3.0, ReadResult(1, 0, (None,)))
    tops = [bar["y"] for bar in page(history).of_class("operation")]
    assert len(tops) == 4
    assert len(set(tops)) == 3


def test_an_operation_without_a_place_is_explained() -> None:
    history = small_history()
    verdict = history.verdict()
    shown = page(history)
    assert shown.of_class("wrong") != []
    assert shown.data["anomalies"][0] == {"culprits": [1], "order": [0], "keys": ["k"]}
    assert len(shown.data["anomalies"]) == len(verdict.anomalies) == len(shown.of_class("anomaly"))
    assert shown.texts["summary"][0] == "k: not linearizable"
    assert {"#0", "#1"} <= set(shown.texts["a"])
    assert shown.data["details"][1] == [
        "#1 read, c9 at n2",
        "k is nothing",
        "ok, index 1, revision 0",
        "3.000 ms to 4.000 ms (1.000 ms)",
    ]


def test_a_good_history_is_drawn_as_one() -> None:
    shown = page(SequentialStore(1, operations=40).history)
    assert (len(shown.of_class("ok")) > 1, shown.of_class("anomaly"), shown.data["anomalies"]) == (True, [], [])


def test_a_violation_stands_above_a_good_history_with_where_it_comes_from() -> None:
    history = SequentialStore(1, operations=40).history
    violation, origin = "n1 <ends> itself", "seed 7, disk: python -m raftkv simulate --seed 7"
    shown = Page(draw(history, history.verdict(), violation=violation, origin=origin))

    assert [attributes["class"] for tag, attributes in shown.elements if tag == "h1"] == ["wrong"]
    assert shown.texts["h1"] == [violation]
    assert shown.texts["title"] == [f"{violation} ({origin})"]
    assert origin in shown.texts["p"]
    assert (shown.data["violated"], page(history).data["violated"]) == (True, False)


def test_a_search_that_gave_up_is_shown() -> None:
    history = History()
    for number in range(2):
        write = history.begin("c", "n1", float(number), Propose((Put("k", b"1"),), 100.0))
        history.end(write, number + 0.5, Applied(2 + number, 1, 1 + number, (PutDone(1 + number),)))
    shown = Page(draw(history, history.verdict(limit=1)))
    assert shown.of_class("undecided") != []
    assert any("k: undecided" in text for text in shown.texts["p"])


def test_an_empty_history_can_be_drawn() -> None:
    assert page(History()).of_class("operation") == []


def test_a_page_loads_nothing() -> None:
    text = draw(small_history(), small_history().verdict(), [(0.0, None, "n1", "crash")])
    allowed = "http://www.w3.org/2000/svg"
    assert re.findall(r"https?://[^\"' ]+", text) == [allowed] * text.count(allowed)
    assert re.search(r"<(link|img|iframe|script src)|@import|url\((?!#)", text) is None


@pytest.mark.parametrize("text", ["</script><b>", "<!--bars-->", "\"&<>'", "\u2028", "‮"])
def test_no_text_of_a_client_becomes_part_of_the_page(text: str) -> None:
    history = History()
    write = history.begin(text, text, 1.0, Propose((Put(text, text.encode()),), 100.0))
    history.end(write, 2.0, Applied(2, 1, 1, (PutDone(1),)))
    read = history.begin(text, text, 3.0, Read((Get(text),), "linearizable", 100.0))
    history.end(read, 4.0, ReadResult(3, 1, (None,)))
    shown = page(history, [(0.0, None, text, text)])
    assert [name["title"] for name in shown.of_class("name")] == [text, text]
    assert len(shown.of_class("operation")) == 2
    assert shown.of_class("mark")[0]["data-text"] == text
    assert text in shown.data["details"][0][1] or "\u2028" in text


def test_five_hundred_operations_make_a_page_of_less_than_a_megabyte() -> None:
    history = SequentialStore(3, operations=500).history
    shows_an_old_state(history, Random(3))
    text = draw(history, history.verdict())
    assert len(Page(text).of_class("operation")) == 500
    assert len(text) < 1_000_000


def test_long_values_and_many_keys_are_cut_short() -> None:
    history = History()
    puts = tuple(Put(f"k{number}", b"x" * 1000) for number in range(9))
    write = history.begin("c", "n1", 1.0, Propose((*puts, Delete("a")), 100.0))
    results: tuple[Result, ...] = (*[PutDone(number + 1) for number in range(9)], DeleteDone(9, False))
    history.end(write, 2.0, Applied(2, 1, 9, results))
    read = history.begin("c", "n1", 3.0, Read((Get("k0"),), "stale", 100.0))
    history.end(read, 4.0, ReadResult(2, 9, (Item(b"\xff\xfe", 1, 1, 1),)))
    labels = page(history).texts["text"]
    assert labels == [" ".join(f"k{number}={'x' * 40}…" for number in range(3)) + " …", "k0→b'\\xff\\xfe'"]
