"""Tables of figures, and the file system on which they were measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.machine import BenchError, checked_file_system, file_system
from bench.outage import Outage
from bench.report import comparison_table, figures_table, outages_table
from bench.throughput import Figures

FIGURES = Figures("write-64", 1000.0, 10.0, 50.0, 90.0, 100.4, 5000, {}, 400.0, 200.0, 800.0, 30.0, 0.25, 1.5)

MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /tmp/disk xfs rw 0 0
/dev/vdc /srv ext4 rw 0 0
tmpfs /srv tmpfs rw 0 0
"""


def figures(rate: float, p50_ms: float = 10.0, errors: dict[str, int] | None = None) -> Figures:
    return msgspec.structs.replace(FIGURES, rate=rate, p50_ms=p50_ms, errors=errors or {})


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_figures_are_medians_with_the_lowest_and_highest_and_all_errors() -> None:
    runs = [figures(1000.0, 10.0, {"503 no_leader": 2}), figures(3000.0, 12.0, {"503 no_leader": 1, "404": 1})]

    assert cells(figures_table([*runs, figures(1234.5, 11.0)]))[2:] == [
        [
            *("write-64", "1,234 (1,000–3,000)", "11.00 (10.00–12.00)", "50.0", "90.0", "100"),
            *("1 404, 3 503 no_leader", "400", "200", "30", "0.2 (0.2–0.2)", "1.5 (1.5–1.5)"),
        ]
    ]


def test_a_comparison_takes_the_ratio_of_each_round() -> None:
    there, here = [figures(1000.0), figures(500.0)], [figures(1100.0, 9.0), figures(600.0, 9.5, {"404": 1})]
    alike = ["50.0 (50.0–50.0)", "800 (800–800)", "0.2 (0.2–0.2)"]

    assert cells(comparison_table(here, there, "v1"))[2:] == [
        ["write-64", "v1", "750 (500–1,000)", "", "10.00 (10.00–10.00)", alike[0], "0", alike[1], "", alike[2]],
        [
            *("", "here", "850 (600–1,100)", "1.15 (1.10–1.20)", "9.25 (9.00–9.50)", alike[0], "1 404"),
            *(alike[1], "1.00 (1.00–1.00)", alike[2]),
        ],
    ]


def test_outages_are_listed_by_kind() -> None:
    named = {"after a kill": [Outage(200.0, 300.0, 2, 1.0), Outage(210.0, 250.0, 0, 1.0)], "after nothing": []}

    assert cells(outages_table(named))[2:] == [
        ["after a kill", "2", "205 (200–210)", "275 (250–300)", "1 (0–2)", "1.0 (1.0–1.0)"]
    ]


def test_a_table_is_aligned() -> None:
    assert outages_table({"after a kill": [Outage(1.0, 22.0, 3, 0.0)]}).splitlines() == [
        "| until a write was acknowledged | rounds | by any node, ms | by every node, ms | failed tries | load |",
        "| ------------------------------ | -----: | --------------: | ----------------: | -----------: | ---: |",
        "| after a kill                   |      1 |               1 |                22 |            3 |  0.0 |",
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/a", "ext4"), ("/tmp/a", "tmpfs"), ("/tmp/disk/a", "xfs"), ("/tmpx", "ext4"), ("/srv", "tmpfs")],
)
def test_a_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="needs /proc to identify the file system")
def test_a_file_system_in_memory_is_refused() -> None:
    """Figures from there say nothing about a disk."""
    with pytest.raises(BenchError, match="in memory"):
        checked_file_system(Path("/dev/shm"))
