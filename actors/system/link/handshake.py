"""The handshake: two nodes prove to each other that they belong to the same cluster, before either sends a message.

    dialler -> acceptor   Hello       its identity, the id of the node that it means to reach, a nonce
    acceptor -> dialler   Challenge   its identity, a nonce, its proof
    dialler -> acceptor   Proof       its proof
    acceptor -> dialler   Welcome

It proves that each side knows the cluster's secret, now, and has sent exactly these identities. A proof is an
HMAC-SHA256 (RFC 2104) keyed with the secret, over the side that makes it and the whole Hello and Challenge. The nonces
of both sides are fresh, so a recorded handshake can't be replayed; a proof names its side, so it can't be reflected.
The acceptor proves itself first: the dialler sends no proof to a node that does not know the secret. Either side may
send ``Rejected`` instead and close. Nothing here reads or writes a socket.

The handshake authenticates nodes, not the frames after it: the network or a tunnel has to keep out attackers that can
alter packets between nodes. And any dialler gets the acceptor's proof, against which guesses of the secret can be
tested offline, so the secret should be random.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from enum import StrEnum
from struct import Struct
from typing import Annotated, NamedTuple

import msgspec

VERSION = 1
MAGIC = b"RKVL"
PREAMBLE = Struct(">4sHH")
"""Magic, protocol version, length of the body; the same in every version, so that versions can refuse each other."""

ID_BYTES = 64
"""Most bytes of a node's id, of an incarnation, and of the other texts of a handshake."""

RECORD_BYTES = 1024
DETAIL_CHARACTERS = 200

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_BYTES)]
Text = Annotated[str, msgspec.Meta(max_length=ID_BYTES)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


def printable(text: str) -> str:
    """Return ``text``, which may come from an unknown sender, in a form that is safe to log."""
    return "".join(c if c.isprintable() else "?" for c in text[:DETAIL_CHARACTERS])


class Reason(StrEnum):
    """Why a handshake failed. The values are on the wire and name counters; none is ever reused for another reason."""

    VERSION = "wrong protocol version"
    SECRET = "wrong cluster secret"
    CLUSTER = "wrong cluster id"
    TARGET = "wrong node reached"
    UNKNOWN = "unknown node id"
    OWN_ID = "own node id"
    MALFORMED = "malformed handshake"
    DEADLINE = "handshake took too long"
    CROWDED = "too many handshakes"
    ENDED = "connection ended during the handshake"
    OTHER = "refused"


class Refusal(Exception):
    """The handshake has failed. With ``tell_peer`` the other side may know the reason, which gives nothing away."""

    def __init__(self, reason: Reason, detail: str = "", *, tell_peer: bool = True) -> None:
        self.reason = reason
        self.detail = printable(detail)
        super().__init__(f"{reason}: {self.detail}" if detail else str(reason))
        self.tell_peer = tell_peer

    def record(self) -> bytes:
        """Return the bytes that report this refusal to the other side."""
        return _record(Rejected(self.reason, self.detail))


class PeerIdentity(NamedTuple):
    """A node's identity; ``cluster_id`` is empty while it has none. ``initial_cluster_hash`` is informative."""

    node_id: str
    incarnation: str
    cluster_id: str
    initial_cluster_hash: str = ""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The dialler's first record."""

    node_id: Id
    incarnation: Text
    cluster_id: Text
    initial_cluster_hash: Text
    target: Id
    nonce: Hash


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The acceptor's answer to ``Hello``."""

    node_id: Id
    incarnation: Text
    cluster_id: Text
    initial_cluster_hash: Text
    nonce: Hash
    proof: Hash


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The dialler's answer to ``Challenge``."""

    proof: Hash


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The acceptor's last record; frames may follow."""


class Rejected(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The handshake failed; ``reason`` is one of ``Reason``, or one of a later version."""

    reason: Text
    detail: Annotated[str, msgspec.Meta(max_length=DETAIL_CHARACTERS)] = ""


HandshakeRecord = Hello | Challenge | Proof | Welcome | Rejected

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[HandshakeRecord] = msgspec.msgpack.Decoder(HandshakeRecord)


def _record(record: HandshakeRecord) -> bytes:
    body = _encoder.encode(record)
    assert len(body) <= RECORD_BYTES, len(body)
    return PREAMBLE.pack(MAGIC, VERSION, len(body)) + body


class RecordReader:
    """Reads handshake records, and not a byte of the frames that follow them."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(PREAMBLE.size + RECORD_BYTES))
        self._filled = 0
        self._end = PREAMBLE.size

    def room(self) -> memoryview:
        """Return the part of the buffer for the next bytes; never empty."""
        return self._view[self._filled : self._end]

    def record(self, received: int) -> HandshakeRecord | None:
        """Return the record that ``received`` more bytes complete, or None; raises ``Refusal``."""
        self._filled += received
        if self._filled < self._end:
            return None
        magic, version, length = PREAMBLE.unpack_from(self._view)
        if magic != MAGIC or not 0 < length <= RECORD_BYTES:
            raise Refusal(Reason.MALFORMED, tell_peer=False)
        if self._end == PREAMBLE.size:
            self._end += length
            return None
        body = bytes(self._view[PREAMBLE.size : self._end])
        self._filled, self._end = 0, PREAMBLE.size
        if version != VERSION:
            raise Refusal(Reason.VERSION, f"one side speaks version {version}, the other {VERSION}")
        try:
            return _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refusal(Reason.MALFORMED, tell_peer=False) from None


class Dialler:
    """The side that connects to the node ``target``, as ``us``. ``peer`` is set once the acceptor has proved itself."""

    def __init__(self, us: PeerIdentity, target: str, secret: bytes) -> None:
        self._us = us
        self._secret = secret
        self._hello = Hello(
            us.node_id, us.incarnation, us.cluster_id, us.initial_cluster_hash, target, secrets.token_bytes(32)
        )
        self._challenge: Challenge | None = None
        self.peer: PeerIdentity | None = None

    def hello(self) -> bytes:
        """Return the first bytes to send."""
        return _record(self._hello)

    def gets(self, record: HandshakeRecord) -> bytes:
        """Return what to send next; nothing is left to send once ``peer`` is set. Raises ``Refusal``."""
        if isinstance(record, Rejected):
            raise _refusal(record)
        if isinstance(record, Challenge) and self._challenge is None:
            return self._prove(record)
        if isinstance(record, Welcome) and self._challenge is not None:
            self.peer = _identity(self._challenge)
            return b""
        raise Refusal(Reason.MALFORMED, tell_peer=False)

    def _prove(self, challenge: Challenge) -> bytes:
        if not hmac.compare_digest(challenge.proof, _proof(self._secret, "acceptor", self._hello, challenge)):
            raise Refusal(Reason.SECRET)
        if challenge.node_id != self._hello.target:
            raise Refusal(Reason.TARGET, f"{challenge.node_id} answers where {self._hello.target} was expected")
        _check_cluster(self._us.cluster_id, challenge.cluster_id)
        self._challenge = challenge
        return _record(Proof(_proof(self._secret, "dialler", self._hello, challenge)))


class Acceptor:
    """The side that accepts diallers for which ``known`` holds. ``peer`` is set once the dialler has proved itself."""

    def __init__(self, us: PeerIdentity, secret: bytes, known: Callable[[str], bool]) -> None:
        self._us = us
        self._secret = secret
        self._known = known
        self._exchange: tuple[Hello, Challenge] | None = None
        self.peer: PeerIdentity | None = None

    def gets(self, record: HandshakeRecord) -> bytes:
        """Return what to send next; nothing follows once ``peer`` is set. Raises ``Refusal``."""
        assert self.peer is None, self.peer
        if isinstance(record, Rejected):
            raise _refusal(record)
        if isinstance(record, Hello) and self._exchange is None:
            challenge = self._challenge(record)
            self._exchange = record, challenge
            return _record(challenge)
        if isinstance(record, Proof) and self._exchange is not None:
            self._check(record.proof, *self._exchange)
            self.peer = _identity(self._exchange[0])
            return _record(Welcome())
        raise Refusal(Reason.MALFORMED, tell_peer=False)

    def _challenge(self, hello: Hello) -> Challenge:
        us = self._us
        unproven = Challenge(
            us.node_id, us.incarnation, us.cluster_id, us.initial_cluster_hash, secrets.token_bytes(32), bytes(32)
        )
        return msgspec.structs.replace(unproven, proof=_proof(self._secret, "acceptor", hello, unproven))

    def _check(self, proof: bytes, hello: Hello, challenge: Challenge) -> None:
        # The secret is checked first: a dialler without it must not learn which nodes we know.
        if not hmac.compare_digest(proof, _proof(self._secret, "dialler", hello, challenge)):
            raise Refusal(Reason.SECRET)
        if hello.target != self._us.node_id:
            raise Refusal(Reason.TARGET, f"this is {self._us.node_id}, not {hello.target}")
        if hello.node_id == self._us.node_id:
            raise Refusal(Reason.OWN_ID, f"this is {self._us.node_id} already")
        if not self._known(hello.node_id):
            raise Refusal(Reason.UNKNOWN, f"{hello.node_id} is not one of the peers of {self._us.node_id}")
        _check_cluster(self._us.cluster_id, hello.cluster_id)


def clusters_differ(ours: str, theirs: str) -> bool:
    """Whether the nodes belong to two different clusters; a node without a cluster may talk to any."""
    return bool(ours and theirs and ours != theirs)


def _check_cluster(ours: str, theirs: str) -> None:
    if clusters_differ(ours, theirs):
        raise Refusal(Reason.CLUSTER, "the nodes belong to different clusters")


def _proof(secret: bytes, role: str, hello: Hello, challenge: Challenge) -> bytes:
    exchange = (MAGIC, VERSION, role, hello, msgspec.structs.replace(challenge, proof=b""))
    return hmac.digest(secret, _encoder.encode(exchange), "sha256")


def _identity(record: Hello | Challenge) -> PeerIdentity:
    return PeerIdentity(record.node_id, record.incarnation, record.cluster_id, record.initial_cluster_hash)


def _refusal(rejected: Rejected) -> Refusal:
    reason = next((reason for reason in Reason if reason == rejected.reason), Reason.OTHER)
    # A refusal that came from the peer is not sent back to it.
    return Refusal(reason, rejected.detail, tell_peer=False)
