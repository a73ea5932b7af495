"""The histogram: its error is bounded, and merging equals counting everything in one."""

from __future__ import annotations

from math import ceil

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import Histogram

latencies = st.lists(st.integers(0, 60_000_000_000), min_size=1)


def histogram(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


def test_small_values_are_exact() -> None:
    assert [histogram(list(range(101))).percentile(percent) for percent in (0, 1, 50, 99, 100)] == [0, 1, 50, 99, 100]


def test_without_values_every_percentile_is_zero() -> None:
    assert Histogram().percentile(99) == 0


@given(latencies, st.sampled_from([0.1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_never_too_low_and_at_most_one_part_in_128_too_high(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]

    assert exact <= histogram(values).percentile(percent) <= exact * (1 + 1 / 128)


@given(latencies)
def test_the_highest_value_is_exact(values: list[int]) -> None:
    assert histogram(values).highest == histogram(values).percentile(100) == max(values)


@given(latencies, latencies)
def test_merging_equals_counting_everything_in_one(first: list[int], second: list[int]) -> None:
    merged = histogram(first)
    merged.merge(histogram(second))

    assert merged == histogram(first + second)


@given(latencies)
def test_its_json_form_is_complete(values: list[int]) -> None:
    made = histogram(values)

    assert msgspec.json.decode(msgspec.json.encode(made), type=Histogram) == made


def test_its_size_is_bounded() -> None:
    """From a nanosecond to a minute: 128 buckets for each power of two from 256 on, and those below."""
    assert len(histogram([int(1.001**power) for power in range(24_800)]).counts) <= 128 * (36 - 8) + 256


def test_a_new_histogram_is_empty() -> None:
    """Histograms do not share their counts."""
    histogram([1])

    assert Histogram() == Histogram({}, 0, 0)
