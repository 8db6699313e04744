"""Ids: a prefix that names the kind, and a UUID in 26 characters whose text order is time order.

The 128 bits of the UUID (RFC 9562) are written most significant first in Crockford's base32, lower
case, as a ULID writes them: ten characters for two zero bits and 48 bits of Unix milliseconds, then
sixteen characters for the other eighty bits. Digits sort before letters, so ids sort by time as
text and as UUIDs.

Ids of endpoints, tokens and jobs are drawn: UUIDs of version 7 with 74 random bits. Ids of
deliveries are derived: UUIDs of version 8 with the time of the event and 74 bits that follow from
the event's id and the endpoint's id. The same event for the same endpoint always has the same id,
so a fan-out that is repeated after a crash repeats its ids.

    48 bits             20 bits                           54 bits
    Unix milliseconds   the start of SHA-256(event id)    the next 54 bits of it, XOR the
                                                          start of SHA-256(endpoint id)

The deliveries of one event differ in the last 54 bits only: they lie next to each other in an
index, and `span_of_event` finds them.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final, NewType, cast

from dispatcher.core.model import DeliveryId

ENDPOINT_PREFIX: Final = "ep_"
DELIVERY_PREFIX: Final = "wh_"
NOTIFICATION_PREFIX: Final = "ntf_"
JOB_PREFIX: Final = "job_"
PERSON_PREFIX: Final = "per_"
PORTAL_LINK_PREFIX: Final = "pl_"
SESSION_PREFIX: Final = "ses_"
TOKEN_PREFIX: Final = "tok_"  # noqa: S105 -- the prefix of a token's id, not a token

RANDOMNESS_BYTES: Final = 10

IdBits = NewType("IdBits", int)
"""The lower eighty bits of an id: version, variant and 74 bits of its own."""

_ALPHABET: Final = b"0123456789abcdefghjkmnpqrstvwxyz"
_VALUE_TO_CHARACTER: Final = _ALPHABET + bytes(256 - len(_ALPHABET))
# int(text, 32) counts 0-9 and then a-v.
_CHARACTER_TO_DIGIT: Final = bytes.maketrans(_ALPHABET, b"0123456789abcdefghijklmnopqrstuv")
_TEN_BITS: Final = tuple(
    bytes((_ALPHABET[value >> 5], _ALPHABET[value & 31])).decode("ascii") for value in range(1024)
)
_HEAD_CHARACTERS: Final = 10
_TAIL_CHARACTERS: Final = 16
_TAIL_BYTES: Final = 10
_TAIL_BITS: Final = 80
_ID_CHARACTERS: Final = _HEAD_CHARACTERS + _TAIL_CHARACTERS
# How much of a wrong id an error message repeats.
_SHOWN_CHARACTERS: Final = 64
_UNIX_MS_MAX: Final = (1 << 48) - 1
_SHA256: Final = sha256()
"""A copy of it costs three quarters of a new one, for which OpenSSL looks its algorithm up."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)

# 4 bits of version, 12 bits, 2 bits of variant (10), 62 bits.
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_OWN_BITS: Final = 74
_OWN_MASK: Final = (1 << _OWN_BITS) - 1
_DRAWN: Final = 7 << 76 | 0b10 << _LOW_BITS
_DERIVED: Final = 8 << 76 | 0b10 << _LOW_BITS
_ENDPOINT_BITS: Final = 54

# The lower half of each group in eight bytes, and how far up the other half moves.
_HALVINGS: Final = (
    (((1 << 20) - 1).to_bytes(8, "big"), 12),
    (((1 << 10) - 1).to_bytes(4, "big") * 2, 6),
    (((1 << 5) - 1).to_bytes(2, "big") * 4, 3),
)

# The first character holds three bits; the version is at the start of the eleventh, the variant in
# the middle of the fourteenth.
_CHARACTER: Final = "[0-9a-hjkmnp-tv-z]"
_FORM: Final = f"[0-7]{_CHARACTER}{{9}}[%s]{_CHARACTER}{{2}}[89abrstv]{_CHARACTER}{{12}}"
_DRAWN_FORM: Final = re.compile(_FORM % "ef")
_DERIVED_FORM: Final = re.compile(_FORM % "gh")
_ANY_FORM: Final = re.compile(_FORM % "efgh")


def new_id(prefix: str, unix_ms: int, randomness: bytes) -> str:
    """Draw one id from a time and ten random bytes, of which 74 bits are used.

    Raises:
        ValueError: the time does not fit 48 bits, or there are not ten bytes.
    """
    if len(randomness) != RANDOMNESS_BYTES:
        raise ValueError(f"an id takes {RANDOMNESS_BYTES} random bytes, not {len(randomness)}")
    bits = _with_form(int.from_bytes(randomness, "big") & _OWN_MASK, _DRAWN)
    return prefix + _head(unix_ms) + _tails([bits])[0]


def event_bits(event_id: str) -> IdBits:
    """Return the part of delivery ids that follows from the event: 74 bits of its hash."""
    digest = _SHA256.copy()
    digest.update(event_id.encode())
    start = int.from_bytes(digest.digest()[:_TAIL_BYTES], "big")
    return _with_form(start >> _TAIL_BITS - _OWN_BITS, _DERIVED)


@lru_cache(maxsize=65_536)
def endpoint_bits(endpoint_id: str) -> int:
    """Return what an endpoint adds to the ids of its deliveries: 54 bits of its hash, for XOR."""
    start = int.from_bytes(sha256(endpoint_id.encode()).digest()[:_TAIL_BYTES], "big")
    return start >> _TAIL_BITS - _ENDPOINT_BITS


def delivery_ids(unix_ms: Sequence[int], bits: Sequence[int]) -> list[DeliveryId]:
    """Write delivery ids in 26 characters; both sequences have one element for each id.

    `unix_ms` comes from `delivery_unix_ms`; `bits` is `event_bits(event) ^ endpoint_bits(endpoint)`.

    Raises:
        ValueError: a time does not fit 48 bits, or the sequences differ in length.
    """
    return [
        cast("DeliveryId", DELIVERY_PREFIX + _head(ms) + tail)
        for ms, tail in zip(unix_ms, _tails(bits), strict=True)
    ]


def delivery_id(unix_ms: int, event_id: str, endpoint_id: str) -> DeliveryId:
    """Return the id of the delivery of one event to one endpoint.

    Raises:
        ValueError: the time does not fit 48 bits.
    """
    return delivery_ids([unix_ms], [event_bits(event_id) ^ endpoint_bits(endpoint_id)])[0]


def delivery_unix_ms(inserted_at: datetime, day: date) -> int:
    """Return the time in the ids of an event's deliveries: its insert, moved into the partition's day.

    An event that waited in the outbox over midnight has the first millisecond of the day on which it
    was accepted. The day of an id is therefore always the day of its partition.
    """
    first = _first_ms(day)
    since = inserted_at - _EPOCH  # its parts: a division of timedeltas costs four times as much
    unix_ms = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    return min(max(unix_ms, first), first + 86_399_999)


@lru_cache(maxsize=64)
def _first_ms(day: date) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // _MS


def span_of_event(unix_ms: int, event_id: str) -> tuple[bytes, bytes]:
    """Return the lowest and the highest UUID, as 16 bytes, that a delivery of this event can have."""
    low = (unix_ms << _TAIL_BITS | event_bits(event_id)) >> _ENDPOINT_BITS << _ENDPOINT_BITS
    return low.to_bytes(16, "big"), (low | (1 << _ENDPOINT_BITS) - 1).to_bytes(16, "big")


def first_of(unix_ms: int) -> bytes:
    """Return 16 bytes that are not above any UUID of this millisecond and above all earlier ones."""
    return (min(max(unix_ms, 0), _UNIX_MS_MAX) << _TAIL_BITS).to_bytes(16, "big")


def to_bytes(identifier: str) -> bytes:
    """Return the 16 bytes of the UUID in an id of this module; other texts have no defined result.

    Raises:
        ValueError: the end of the text is no number in base32.
    """
    digits = identifier[-_ID_CHARACTERS:].encode("ascii").translate(_CHARACTER_TO_DIGIT)
    return int(digits, 32).to_bytes(16, "big")


def delivery_ids_of(uuids: Sequence[bytes]) -> list[DeliveryId]:
    """Return the delivery ids of many UUIDs of 16 bytes each."""
    tails = _texts(b"".join([uuid[6:] for uuid in uuids]))
    return [
        cast("DeliveryId", DELIVERY_PREFIX + _head(int.from_bytes(uuid[:6], "big")) + tail)
        for uuid, tail in zip(uuids, tails, strict=True)
    ]


def unix_ms_of(identifier: str) -> int:
    """Return the Unix milliseconds in an id.

    Raises:
        ValueError: the text does not end in a UUID in this module's form.
    """
    encoded = identifier[-_ID_CHARACTERS:]
    if _ANY_FORM.fullmatch(encoded) is None:
        raise ValueError(f"{identifier[:_SHOWN_CHARACTERS]!r} does not end in a UUID in base32")
    return int(encoded[:_HEAD_CHARACTERS].encode("ascii").translate(_CHARACTER_TO_DIGIT), 32)


def moment_of(identifier: str) -> datetime:
    """Return the moment in an id, aware and UTC, in whole milliseconds.

    Raises:
        ValueError: as `unix_ms_of`, or the moment is after the year 9999.
    """
    unix_ms = unix_ms_of(identifier)
    try:
        return _EPOCH + timedelta(milliseconds=unix_ms)
    except OverflowError:
        raise ValueError(f"{identifier[:_SHOWN_CHARACTERS]!r} is of no year up to 9999") from None


def day_of(identifier: str) -> date:
    """Return the UTC day in an id; of a delivery, that of its partition.

    Raises:
        ValueError: as `moment_of`.
    """
    return moment_of(identifier).date()


def is_id(text: str, prefix: str) -> bool:
    """Return whether the text is the prefix and a UUID of that kind in its one spelling."""
    form = _DERIVED_FORM if prefix == DELIVERY_PREFIX else _DRAWN_FORM
    return text.startswith(prefix) and form.fullmatch(text, len(prefix)) is not None


def _with_form(own: int, form: int) -> IdBits:
    """Spread 74 bits around version and variant."""
    return IdBits(form | own >> _LOW_BITS << 64 | own & _LOW_MASK)


@lru_cache(maxsize=4096)
def _head(unix_ms: int) -> str:
    """Write 48 bits as ten characters. Most ids of a batch share their milliseconds."""
    if not 0 <= unix_ms <= _UNIX_MS_MAX:
        raise ValueError(f"{unix_ms} is no count of Unix milliseconds in 48 bits")
    return "".join([_TEN_BITS[unix_ms >> shift & 1023] for shift in (40, 30, 20, 10, 0)])


def _tails(bits: Sequence[int]) -> list[str]:
    return _texts(b"".join([tail.to_bytes(_TAIL_BYTES, "big") for tail in bits]))


def _texts(tails: bytes) -> list[str]:
    """Write each ten bytes as sixteen characters, all at once.

    Five bits have to become a byte. Instead of one look-up in a table for each, a whole batch is
    one large integer whose every group is halved three times (40 bits to 20, 10, 5) by mask and
    shift, in time linear in its length: a tenth of what base64.b32encode takes for each id.
    """
    count = len(tails) // _TAIL_BYTES
    spaced = bytearray(_TAIL_CHARACTERS * count)
    for place in range(5):
        spaced[3 + place :: 8] = tails[place::5]
    groups = int.from_bytes(spaced, "big")
    for low_mask, shift in _HALVINGS:
        low = groups & int.from_bytes(low_mask * (2 * count), "big")
        groups = (groups ^ low) << shift | low
    text = groups.to_bytes(len(spaced), "big").translate(_VALUE_TO_CHARACTER).decode("ascii")
    return [
        text[place : place + _TAIL_CHARACTERS] for place in range(0, len(text), _TAIL_CHARACTERS)
    ]
