"""Request targets are taken apart strictly: no two readers may understand one differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.http.errors import HttpError
from raftkv.http.target import choice, decode_key, parse_query, split_target, timeout_s


def code_of(failure: pytest.ExceptionInfo[HttpError]) -> tuple[int, str]:
    return failure.value.status, failure.value.code


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/", ("/", "")),
        ("/keys/a/?level=stale", ("/keys/a/", "level=stale")),
        ("/keys/a?x=?y", ("/keys/a", "x=?y")),
        ("http://example.org/keys/a", ("/keys/a", "")),
        ("HTTPS://user@example.org:80/keys/a?b", ("/keys/a", "b")),
        ("http://example.org", ("/", "")),
        ("http://example.org?b", ("/", "b")),
    ],
)
def test_a_target_is_a_path_and_a_query_also_in_its_absolute_form(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["*", "keys/a", "example.org:80", "ftp://example.org/keys/a", "/keys/a#b", "#"])
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(HttpError) as failure:
        split_target(target)
    assert code_of(failure) == (400, "bad_target")


@pytest.mark.parametrize(
    ("segment", "key"),
    [
        ("a", "a"),
        ("a/", "a"),
        ("a%2Fb", "a/b"),
        ("a%2fb/", "a/b"),
        ("%2F/", "/"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("%00", "\0"),
        (".", "."),
        ("..", ".."),
        ("%2e%2E", ".."),
        ("%25", "%"),
        ("%2541", "%41"),
        ("%C3%A9", "é"),
        ("\xc3\xa9", "é"),
        ("%F0%9F%98%80", "😀"),
        ("a;b=c,d:e@f!$&'()*~", "a;b=c,d:e@f!$&'()*~"),
        ('"<>\\^`{|}', '"<>\\^`{|}'),
    ],
)
def test_a_key_is_one_segment_percent_decoded_once(segment: str, key: str) -> None:
    assert decode_key(segment, 4096) == key


@pytest.mark.parametrize(
    ("segment", "wrong"),
    [
        ("", (400, "empty_key")),
        ("/", (400, "empty_key")),
        ("a/b", (404, "not_found")),
        ("a//", (404, "not_found")),
        ("/a", (404, "not_found")),
        ("%", (400, "bad_escape")),
        ("%2", (400, "bad_escape")),
        ("%2G", (400, "bad_escape")),
        ("%%41", (400, "bad_escape")),
        ("a%-1", (400, "bad_escape")),
        ("%u0041", (400, "bad_escape")),
        ("%FF", (400, "bad_encoding")),
        ("%C3", (400, "bad_encoding")),
        ("%C0%80", (400, "bad_encoding")),
        ("%ED%A0%80", (400, "bad_encoding")),
        ("\xff", (400, "bad_encoding")),
        ("\xc3%41", (400, "bad_encoding")),
    ],
)
def test_what_is_no_key_is_refused(segment: str, wrong: tuple[int, str]) -> None:
    with pytest.raises(HttpError) as failure:
        decode_key(segment, 4096)
    assert code_of(failure) == wrong


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
def test_the_limit_of_a_key_counts_bytes_of_utf_8(character: str) -> None:
    size = len(character.encode())
    escaped = "".join(f"%{byte:02X}" for byte in character.encode())

    assert decode_key(escaped * 6, 6 * size) == character * 6
    with pytest.raises(HttpError) as failure:
        decode_key(escaped * 6, 6 * size - 1)
    assert code_of(failure) == (414, "key_too_long")
    assert failure.value.members == {"limit_bytes": 6 * size - 1}


@given(st.text(min_size=1))
def test_every_text_is_a_key_when_all_of_it_is_escaped(key: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in key.encode())

    assert decode_key(escaped, 1 << 20) == decode_key(escaped + "/", 1 << 20) == key


@given(st.text(st.characters(max_codepoint=255)))
def test_whatever_comes_as_a_segment_is_a_key_or_an_error_of_the_client(segment: str) -> None:
    status, key = 200, ""
    try:
        key = decode_key(segment, 16)
    except HttpError as error:
        status = error.status
    assert status in (400, 404, 414) or 0 < len(key.encode()) <= 16


def test_parameters_are_decoded_and_a_plus_stays_a_plus() -> None:
    assert parse_query("", ()) == {}
    assert parse_query("level=stale&timeout=%31.5", ("level", "timeout")) == {"level": "stale", "timeout": "1.5"}
    assert parse_query("l%65vel=a+b=c&verbose", ("level", "verbose")) == {"level": "a+b=c", "verbose": ""}


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("colour=red", "unknown_parameter", "'colour'"),
        ("LEVEL=stale", "unknown_parameter", "'LEVEL'"),
        ("level=stale&", "unknown_parameter", "''"),
        ("&", "unknown_parameter", "''"),
        ("level=stale&level=stale", "repeated_parameter", "'level'"),
        ("level=stale&l%65vel=stale", "repeated_parameter", "'level'"),
        ("level=%", "bad_escape", "query"),
        ("level=%FF", "bad_encoding", "query"),
        ("%FF=1", "bad_encoding", "query"),
    ],
)
def test_parameters_that_are_unknown_repeated_or_badly_written_are_refused(query: str, code: str, named: str) -> None:
    with pytest.raises(HttpError) as failure:
        parse_query(query, ("level",))
    assert code_of(failure) == (400, code)
    assert named in failure.value.message


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.5", 0.5), (".5", 0.5), ("60", 60.0), ("60.000", 60.0)])
def test_a_timeout_is_in_seconds(text: str, seconds: float) -> None:
    assert timeout_s({"timeout": text}, 5.0) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.0",
        "-1",
        "60.1",
        "61",
        "1e1",
        "nan",
        "inf",
        "-inf",
        "1_0",
        " 1",
        "1 ",
        "+1",
        "0x1",
        ".",
        "٣",
        "9" * 999,
    ],
)
def test_other_timeouts_are_refused(text: str) -> None:
    with pytest.raises(HttpError) as failure:
        timeout_s({"timeout": text}, 5.0)
    assert code_of(failure) == (400, "bad_parameter")


def test_without_a_timeout_it_is_the_default() -> None:
    assert timeout_s({}, 5.0) == 5.0


def test_a_choice_is_one_of_its_values() -> None:
    levels = ("linearizable", "stale")

    assert choice({}, "level", levels) is None
    assert choice({"level": "stale"}, "level", levels) == "stale"
    for level in ("", "STALE", "lease", "stale "):
        with pytest.raises(HttpError) as failure:
            choice({"level": level}, "level", levels)
        assert code_of(failure) == (400, "bad_parameter")
