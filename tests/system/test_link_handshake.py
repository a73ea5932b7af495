"""The handshake: only nodes of one cluster pass it, and a recording can't be replayed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.actors.system.link.handshake import (
    DETAIL_CHARACTERS,
    ID_BYTES,
    MAGIC,
    PREAMBLE,
    RECORD_BYTES,
    VERSION,
    Acceptor,
    Challenge,
    Dialler,
    HandshakeRecord,
    Hello,
    PeerIdentity,
    Proof,
    Reason,
    RecordReader,
    Refusal,
    Rejected,
    Welcome,
)
from raftkv.raft.names import NAME_LENGTH

ONE = PeerIdentity("n1", "i1", "", "list")
TWO = PeerIdentity("n2", "i2", "", "list")


def read(data: bytes) -> HandshakeRecord:
    """Return the one record in ``data``."""
    reader = RecordReader()
    record = None
    while data:
        assert record is None
        room = reader.room()
        now, data = data[: len(room)], data[len(room) :]
        room[: len(now)] = now
        record = reader.record(len(now))
    assert record is not None
    return record


def dialler(us: PeerIdentity = ONE, target: str = "n2", secret: bytes = b"s") -> Dialler:
    return Dialler(us, target, secret)


def acceptor(us: PeerIdentity = TWO, secret: bytes = b"s", known: tuple[str, ...] = ("n1", "n3")) -> Acceptor:
    return Acceptor(us, secret, known.__contains__)


def shake(left: Dialler, right: Acceptor) -> list[type[HandshakeRecord]]:
    """Run a handshake; return the types of its records, of which the last is the acceptor's."""
    records: list[HandshakeRecord] = []
    data = left.hello()
    while True:
        records.append(read(data))
        records.append(read(right.gets(records[-1])))
        data = left.gets(records[-1])
        if left.peer is not None:
            assert data == b""
            return [type(record) for record in records]


def refusal(left: Dialler, right: Acceptor) -> tuple[str, Refusal]:
    """Return the side that ended a handshake, and its refusal."""
    data = left.hello()
    while True:
        try:
            answer = right.gets(read(data))
        except Refusal as error:
            return "acceptor", error
        try:
            data = left.gets(read(answer))
        except Refusal as error:
            return "dialler", error


def test_every_valid_node_name_fits_into_a_handshake() -> None:
    """The link and Raft each define the limit, since neither may import the other."""
    assert ID_BYTES == NAME_LENGTH


def test_both_sides_prove_themselves_and_learn_each_others_identity() -> None:
    left, right = dialler(), acceptor()

    assert shake(left, right) == [Hello, Challenge, Proof, Welcome]
    assert (left.peer, right.peer) == (TWO, ONE)


@pytest.mark.parametrize(("ours", "theirs"), [("", ""), ("c", ""), ("", "c"), ("c", "c")])
def test_a_node_without_a_cluster_may_connect_to_any(ours: str, theirs: str) -> None:
    left, right = dialler(ONE._replace(cluster_id=ours)), acceptor(TWO._replace(cluster_id=theirs))

    shake(left, right)

    assert left.peer is not None
    assert right.peer is not None
    assert (left.peer.cluster_id, right.peer.cluster_id) == (theirs, ours)


def test_an_empty_secret_works_like_any_other() -> None:
    left, right = dialler(secret=b""), acceptor(secret=b"")
    shake(left, right)
    assert (left.peer, right.peer) == (TWO, ONE)
    assert refusal(dialler(secret=b""), acceptor(secret=b"s"))[1].reason is Reason.SECRET


def test_the_dialler_sends_its_proof_only_after_the_acceptors() -> None:
    """The dialler detects a wrong secret when it has sent nothing but its hello."""
    side, error = refusal(dialler(secret=b"other"), acceptor())
    assert (side, error.reason, error.tell_peer) == ("dialler", Reason.SECRET, True)


def test_a_node_other_than_the_target_is_refused() -> None:
    side, error = refusal(dialler(target="n3"), acceptor())
    assert (side, str(error)) == ("dialler", "wrong node reached: n2 answers where n3 was expected")


def test_another_cluster_is_refused() -> None:
    side, error = refusal(dialler(ONE._replace(cluster_id="c1")), acceptor(TWO._replace(cluster_id="c2")))
    assert (side, str(error)) == ("dialler", "wrong cluster id: the nodes belong to different clusters")


def test_an_unknown_node_is_refused_after_it_has_proved_that_it_knows_the_secret() -> None:
    side, error = refusal(dialler(ONE._replace(node_id="n9")), acceptor())
    assert (side, str(error)) == ("acceptor", "unknown node id: n9 is not one of the peers of n2")


def test_a_node_with_our_own_id_is_refused() -> None:
    side, error = refusal(dialler(ONE._replace(node_id="n2")), acceptor())
    assert (side, str(error)) == ("acceptor", "own node id: this is n2 already")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"target": "n3"}, Reason.TARGET), ({"cluster_id": "c1"}, Reason.CLUSTER)],
)
def test_the_acceptor_checks_everything_that_a_dialler_checks(change: dict[str, str], reason: Reason) -> None:
    """This dialler knows the secret, but sends its proof whatever the challenge says."""
    hello = read(dialler().hello())
    hello = msgspec.structs.replace(hello, **change)
    right = acceptor(TWO._replace(cluster_id="c2"))
    challenge = read(right.gets(hello))
    assert isinstance(challenge, Challenge)
    assert isinstance(hello, Hello)
    with pytest.raises(Refusal) as raised:
        right.gets(Proof(_proof_of(hello, challenge)))
    assert raised.value.reason is reason


def _proof_of(hello: Hello, challenge: Challenge) -> bytes:
    from raftkv.actors.system.link.handshake import _proof

    return _proof(b"s", "dialler", hello, challenge)


@pytest.mark.parametrize("changed", Hello.__struct_fields__)
def test_no_field_of_a_hello_can_be_altered_in_transit(changed: str) -> None:
    left, right = dialler(), acceptor()
    hello = read(left.hello())
    altered = msgspec.structs.replace(hello, **{changed: _other(getattr(hello, changed))})

    with pytest.raises(Refusal) as raised:
        left.gets(read(right.gets(altered)))
    assert raised.value.reason is Reason.SECRET


@pytest.mark.parametrize("changed", Challenge.__struct_fields__)
def test_no_field_of_a_challenge_can_be_altered_in_transit(changed: str) -> None:
    left, right = dialler(), acceptor()
    challenge = read(right.gets(read(left.hello())))
    altered = msgspec.structs.replace(challenge, **{changed: _other(getattr(challenge, changed))})

    with pytest.raises(Refusal) as raised:
        left.gets(altered)
    assert raised.value.reason is Reason.SECRET


def _other(value: str | bytes) -> str | bytes:
    return "x" if isinstance(value, str) else bytes(byte ^ 1 for byte in value)


def test_a_recorded_dialler_can_not_be_replayed() -> None:
    left, right = dialler(), acceptor()
    hello = read(left.hello())
    proof = read(left.gets(read(right.gets(hello))))
    right.gets(proof)

    again = acceptor()
    again.gets(hello)
    with pytest.raises(Refusal) as raised:
        again.gets(proof)
    assert (raised.value.reason, again.peer) == (Reason.SECRET, None)


def test_a_recorded_acceptor_can_not_be_replayed() -> None:
    challenge = read(acceptor().gets(read(dialler().hello())))
    with pytest.raises(Refusal) as raised:
        dialler().gets(challenge)
    assert raised.value.reason is Reason.SECRET


def test_a_proof_can_not_be_reflected() -> None:
    left, right = dialler(), acceptor()
    challenge = read(right.gets(read(left.hello())))
    assert isinstance(challenge, Challenge)
    with pytest.raises(Refusal) as raised:
        right.gets(Proof(challenge.proof))
    assert raised.value.reason is Reason.SECRET


@pytest.mark.parametrize("record", [Proof(bytes(32)), Welcome()])
def test_a_record_out_of_turn_is_malformed(record: HandshakeRecord) -> None:
    with pytest.raises(Refusal) as raised:
        acceptor().gets(record)
    assert (raised.value.reason, raised.value.tell_peer) == (Reason.MALFORMED, False)
    with pytest.raises(Refusal) as raised:
        dialler().gets(record)
    assert (raised.value.reason, raised.value.tell_peer) == (Reason.MALFORMED, False)


def test_a_record_with_text_that_is_not_utf_8_is_malformed() -> None:
    """The decoder raises another exception for it than for all other errors; random bytes at a port found that."""
    body = bytes(dialler().hello())[PREAMBLE.size :].replace(b"n1", b"n\xa3", 1)
    with pytest.raises(Refusal) as raised:
        read(PREAMBLE.pack(MAGIC, VERSION, len(body)) + body)
    assert (raised.value.reason, raised.value.tell_peer) == (Reason.MALFORMED, False)


def test_a_second_hello_or_challenge_is_malformed() -> None:
    left, right = dialler(), acceptor()
    hello = read(left.hello())
    challenge = read(right.gets(hello))
    left.gets(challenge)
    for side, record in ((left, challenge), (right, hello)):
        with pytest.raises(Refusal) as raised:
            side.gets(record)
        assert raised.value.reason is Reason.MALFORMED


def test_another_version_is_refused_in_a_form_that_every_version_understands() -> None:
    with pytest.raises(Refusal) as raised:
        read(PREAMBLE.pack(MAGIC, VERSION + 1, 3) + b"???")
    assert str(raised.value) == "wrong protocol version: one side speaks version 2, the other 1"
    assert raised.value.tell_peer
    assert PREAMBLE.unpack_from(raised.value.record())[:2] == (MAGIC, VERSION)


def test_a_rejection_is_understood_and_not_sent_back() -> None:
    for side in (dialler(), acceptor()):
        with pytest.raises(Refusal) as raised:
            side.gets(read(Refusal(Reason.UNKNOWN, "who are you?").record()))
        assert str(raised.value) == "unknown node id: who are you?"
        assert not raised.value.tell_peer


def test_a_detail_from_the_network_can_not_forge_a_log_line() -> None:
    with pytest.raises(Refusal) as raised:
        acceptor().gets(Rejected("a reason of version 9", "a\nb\x1b[2J"))
    assert str(raised.value) == "refused: a?b?[2J"
    assert len(Refusal(Reason.OTHER, "é" * 1000).detail) == DETAIL_CHARACTERS
    assert isinstance(read(Refusal(Reason.OTHER, "\U0001f600" * 1000).record()), Rejected)


@given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(1, 50), max_size=20))
def test_any_bytes_are_records_or_raise_a_refusal(noise: bytes, begins_well: bool, sizes: list[int]) -> None:
    data = (PREAMBLE.pack(MAGIC, VERSION, len(noise)) if begins_well else b"") + noise
    reader = RecordReader()
    while data:
        room = reader.room()
        size = min(len(room), sizes.pop() if sizes else len(room))
        now, data = data[:size], data[size:]
        room[: len(now)] = now
        try:
            record = reader.record(len(now))
        except Refusal as error:
            assert error.reason in (Reason.MALFORMED, Reason.VERSION)  # noqa: PT017
            return
        assert record is None or isinstance(record, HandshakeRecord)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        PREAMBLE.pack(MAGIC, VERSION, 0),
        PREAMBLE.pack(MAGIC, VERSION, RECORD_BYTES + 1),
        PREAMBLE.pack(MAGIC, VERSION, 1) + b"\xc1",
    ],
)
def test_another_protocol_gets_no_answer(data: bytes) -> None:
    with pytest.raises(Refusal) as raised:
        read(data[: PREAMBLE.size + 1])
    assert (raised.value.reason, raised.value.tell_peer) == (Reason.MALFORMED, False)


def test_the_longest_names_fit_into_a_record() -> None:
    longest = "\U0001f600" * 16
    us = PeerIdentity(longest, longest, longest, longest)
    assert isinstance(read(Dialler(us, longest, b"s").hello()), Hello)
