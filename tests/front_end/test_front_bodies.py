"""Values in and out of bodies: exactly what was meant, or an error that says what is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.http.bodies import Form, Value, accepted, body_limit, encode_text, is_octets, read_json, read_octets
from raftkv.http.errors import HttpError

LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"value":"v1"}', "v1"),
        (b'{"value":""}', ""),
        (b' \r\n\t{ "value" : "v1" } \n', "v1"),
        (b'{"value":"\\u00e9\\n\\u0000\\/"}', "é\n\0/"),
        (b'{"value":"\\ud83d\\ude00"}', "😀"),
        ('{"value":"é😀"}'.encode(), "é😀"),
        (b'{"\\u0076alue":"v1"}', "v1"),
        (b'{"value":"{\\"value\\":\\"v\\",\\"value\\":\\"w\\"}"}', '{"value":"v","value":"w"}'),
        (b'{"value":"<&>\x7f"}', "<&>\x7f"),
    ],
)
def test_a_value_is_the_text_of_a_json_object(body: bytes, text: str) -> None:
    assert read_json(body, LIMIT) == Value(text.encode(), encode_text(text))


BAD_BODIES = [
    (b"", "it is empty"),
    (b" \n", "it is empty"),
    (b"{", "not valid JSON"),
    (b"v1", "not valid JSON"),
    (b'{"value":"v1"', "not valid JSON"),
    (b'{"value":"v1"}x', "not valid JSON"),
    (b'{"value":"v1"}{"value":"v2"}', "not valid JSON"),
    (b'{"value":"v1"}\0', "not valid JSON"),
    (b'{"value":"v1",}', "not valid JSON"),
    (b"{'value':'v1'}", "not valid JSON"),
    (b"value=v1", "not valid JSON"),
    (b'{"value":NaN}', "not valid JSON"),
    (b'{"value":-Infinity}', "not valid JSON"),
    (b'{"value":"a\nb"}', "not valid JSON"),
    (b'{"value":"a\0b"}', "not valid JSON"),
    (b'{"value":"\\x41"}', "not valid JSON"),
    (b'\xef\xbb\xbf{"value":"v1"}', "not valid JSON"),
    ('{"value":"v1"}'.encode("utf-16"), "not valid JSON"),
    (b'{"value":"\\ud800"}', "half of a surrogate pair"),
    (b'{"value":"\\uDC00x"}', "half of a surrogate pair"),
    (b'{"value":"\\ud800\\u0041"}', "half of a surrogate pair"),
    (b'{"value":"\xff"}', "not valid UTF-8"),
    (b'{"value":"\xed\xa0\x80"}', "not valid UTF-8"),
    (b'{"value":"\xc0\x80"}', "not valid UTF-8"),
    (b"[]", "Expected `object`, got `array`"),
    (b'["value"]', "Expected `object`, got `array`"),
    (b'"v1"', "Expected `object`, got `str`"),
    (b"null", "Expected `object`, got `null`"),
    (b"1", "Expected `object`, got `int`"),
    (b"{}", "missing required field `value`"),
    (b'{"VALUE":"v1"}', "unknown field `VALUE`"),
    (b'{"Value":"v1"}', "unknown field `Value`"),
    (b'{"value":"v1","ttl":1}', "unknown field `ttl`"),
    (b'{"ttl":1,"value":"v1"}', "unknown field `ttl`"),
    (b'{"value":null}', "Expected `str`, got `null`"),
    (b'{"value":123}', "Expected `str`, got `int`"),
    (b'{"value":true}', "Expected `str`, got `bool`"),
    (b'{"value":["v1"]}', "Expected `str`, got `array`"),
    (b'{"value":{"value":"v1"}}', "Expected `str`, got `object`"),
    (b'{"value":"v1","value":"v1"}', "more than once"),
    (b'{"value":"v1","value":"v2"}', "more than once"),
    (b'{"value":"v1","val\\u0075e":"v2"}', "more than once"),
    (b'{"value":"v1","value":null}', "Expected `str`, got `null`"),
    (b"[" * 100_000, "Expected `object`, got `array`"),
    (b'{"value":' * 100_000, "Expected `str`, got `object`"),
    (b'{"value":' + b"[" * 100_000, "Expected `str`, got `array`"),
    (b'{"x":' + b"[" * 100_000, "unknown field `x`"),
]


@pytest.mark.parametrize(("body", "said"), BAD_BODIES)
def test_anything_else_is_refused_with_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(HttpError) as failure:
        read_json(body, LIMIT)
    assert (failure.value.status, failure.value.code) == (400, "bad_body")
    assert said in failure.value.message
    assert failure.value.message.startswith('the body must be {"value": "text"}: ')
    assert len(failure.value.message) < 400


@pytest.mark.parametrize("text", ["12345678", "éééé", "😀😀", "\0" * 8])
def test_the_limit_of_a_value_counts_its_bytes_not_those_of_the_json(text: str) -> None:
    escaped = json.dumps({"value": text}).encode()

    assert read_json(escaped, 8).data == read_octets(text.encode(), 8).data == text.encode()
    assert len(escaped) <= body_limit(False, 8)
    for read, body in ((read_json, escaped), (read_octets, text.encode())):
        with pytest.raises(HttpError) as failure:
            read(body, 7)
        assert (failure.value.status, failure.value.code) == (413, "value_too_large")
        assert failure.value.members == {"limit_bytes": 7}


def test_octets_are_the_value_and_are_shown_if_they_are_text() -> None:
    assert read_octets(b"", LIMIT) == Value(b"", b'{"value":""}\n')
    assert read_octets("é\n".encode(), LIMIT) == Value("é\n".encode(), '{"value":"é\\n"}\n'.encode())
    assert read_octets(b"\xff\0", LIMIT) == Value(b"\xff\0", b'{"bytes":2}\n')


@given(st.text())
def test_every_text_comes_back_as_the_same_text(text: str) -> None:
    for body in (json.dumps({"value": text}).encode(), encode_text(text)):
        assert read_json(body, LIMIT) == Value(text.encode(), encode_text(text))
    assert json.loads(encode_text(text)) == {"value": text}


@given(st.binary() | st.binary().map(lambda data: b'{"value":"' + data + b'"}'))
def test_whatever_comes_as_a_body_is_a_value_or_an_error_of_the_client(body: bytes) -> None:
    status = 200
    try:
        value = read_json(body, 64)
    except HttpError as error:
        status = error.status
    assert status in (400, 413) or json.loads(body) == {"value": value.data.decode()}


@pytest.mark.parametrize(
    ("content_type", "octets"),
    [
        ("application/octet-stream", True),
        ("Application/Octet-Stream", True),
        (" application/octet-stream ; charset=binary", True),
        ("application/octet-stream,text/plain", False),
        ("application/json", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain; x=application/octet-stream", False),
        ("", False),
    ],
)
def test_only_one_media_type_makes_a_body_the_value_itself(content_type: str, octets: bool) -> None:
    assert is_octets(content_type) == octets


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.JSON),
        ("*/*", Form.JSON),
        ("application/*", Form.JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form.JSON),
        ("text/plain", Form.JSON),
        ("application/octet-stream", Form.OCTETS),
        ("APPLICATION/Octet-Stream", Form.OCTETS),
        ("application/octet-stream;q=0.1", Form.OCTETS),
        ("application/octet-stream, */*", Form.OCTETS),
        ("application/octet-stream, */*;q=0.1", Form.OCTETS),
        ("application/octet-stream;q=0.5, */*", Form.EITHER),
        ("application/json, application/octet-stream", Form.EITHER),
        ("application/json;q=0.5, application/octet-stream;q=0.9", Form.OCTETS),
        ("application/json;q=0, application/octet-stream;q=0.1", Form.OCTETS),
        ("application/octet-stream;q=0", Form.JSON),
        ("application/octet-stream;q=0, */*", Form.JSON),
        ("application/octet-stream;q=rubbish", Form.OCTETS),
        ("application/octet-streams", Form.JSON),
        (";;,,=;q=1,application/octet-stream", Form.OCTETS),
    ],
)
def test_plain_bytes_are_for_those_who_name_them(accept: str, form: Form) -> None:
    assert accepted(accept) is form
