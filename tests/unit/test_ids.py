"""Ids, checked with decoders that are not ours: uuid, hashlib, and Crockford's alphabet spelled out."""

import hashlib
import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import ids

UNIX_MS = st.integers(0, 2**48 - 1)
RANDOMNESS = st.binary(min_size=10, max_size=10)
NAMES = st.text(min_size=1, max_size=64, alphabet="abcXYZ019_-")
PREFIXES = ("ep_", "job_", "tok_")
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def encode(identifier: uuid.UUID) -> str:
    """Writes a UUID as a ULID does, digit by digit."""
    value, text = identifier.int, ""
    for _ in range(26):
        value, digit = divmod(value, 32)
        text = CROCKFORD[digit] + text
    return text


def decode(identifier: str, prefix: str) -> uuid.UUID:
    value = 0
    for character in identifier.removeprefix(prefix):
        value = value * 32 + CROCKFORD.index(character)
    return uuid.UUID(int=value)


EXAMPLE = "ep_" + encode(uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
DELIVERY = "wh_" + encode(uuid.UUID("017f22e2-79b0-8cc3-98c4-dc0c0c07398f"))


@given(st.sampled_from(PREFIXES), UNIX_MS, RANDOMNESS)
def test_new_id_is_a_uuid_version_7_with_its_time_and_randomness(prefix, unix_ms, randomness):
    decoded = decode(ids.new_id(prefix, unix_ms, randomness), prefix)
    assert decoded.version == 7
    assert decoded.variant == uuid.RFC_4122
    assert decoded.int >> 80 == unix_ms
    own = (decoded.int >> 64 & 0xFFF) << 62 | decoded.int & (1 << 62) - 1
    assert own == int.from_bytes(randomness, "big") & (1 << 74) - 1


@given(st.sampled_from(PREFIXES), UNIX_MS, RANDOMNESS)
def test_new_id_has_one_form_and_returns_its_time(prefix, unix_ms, randomness):
    identifier = ids.new_id(prefix, unix_ms, randomness)
    assert len(identifier) == len(prefix) + 26
    assert ids.is_id(identifier, prefix)
    assert ids.unix_ms_of(identifier) == unix_ms
    assert ids.to_bytes(identifier) == decode(identifier, prefix).bytes


@given(UNIX_MS, NAMES, NAMES)
def test_delivery_id_follows_from_event_and_endpoint_alone(unix_ms, event_id, endpoint_id):
    identifier = ids.delivery_id(unix_ms, event_id, endpoint_id)
    assert identifier == ids.delivery_id(unix_ms, event_id, endpoint_id)
    assert ids.is_id(identifier, "wh_")
    decoded = decode(identifier, "wh_")
    assert decoded.version == 8
    assert decoded.variant == uuid.RFC_4122
    assert decoded.int >> 80 == unix_ms
    own = (decoded.int >> 64 & 0xFFF) << 62 | decoded.int & (1 << 62) - 1
    event = int.from_bytes(hashlib.sha256(event_id.encode()).digest(), "big") >> 256 - 74
    endpoint = int.from_bytes(hashlib.sha256(endpoint_id.encode()).digest(), "big") >> 256 - 54
    assert own == event ^ endpoint


@given(st.lists(st.tuples(UNIX_MS, NAMES, NAMES), max_size=40))
def test_delivery_ids_of_a_batch_equal_those_made_one_by_one(keys):
    bits = [ids.event_bits(event) ^ ids.endpoint_bits(endpoint) for _, event, endpoint in keys]
    batch = ids.delivery_ids([key[0] for key in keys], bits)
    assert batch == [ids.delivery_id(*key) for key in keys]
    uuids = [ids.to_bytes(identifier) for identifier in batch]
    assert ids.delivery_ids_of(uuids) == batch


@given(st.lists(UNIX_MS, min_size=2, max_size=40))
def test_ids_of_later_times_sort_later_as_text_and_as_bytes(times):
    made = [ids.delivery_id(unix_ms, f"event-{unix_ms}", "ep_1") for unix_ms in sorted(times)]
    made = list(dict.fromkeys(made))
    assert made == sorted(made)
    assert made == sorted(made, key=ids.to_bytes)
    assert made == sorted(made, key=ids.unix_ms_of)


def test_span_of_event_holds_its_deliveries_and_no_others():
    low, high = ids.span_of_event(1_790_000_000_000, "evt_2026_000001")
    for number in range(500):
        mine = ids.delivery_id(1_790_000_000_000, "evt_2026_000001", f"ep_{number}")
        other = ids.delivery_id(1_790_000_000_000, f"evt_2026_{number:06}2", f"ep_{number}")
        assert low <= ids.to_bytes(mine) <= high
        assert not low <= ids.to_bytes(other) <= high


def test_delivery_ids_of_many_endpoints_differ():
    made = {ids.delivery_id(0, f"e{n % 200}", f"ep_{n // 200}") for n in range(4_000)}
    assert len(made) == 4_000


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)),
        (datetime(2026, 8, 29, 23, 59, 59, 999_000, tzinfo=UTC), date(2026, 8, 29)),
        (datetime(2026, 8, 30, tzinfo=UTC), date(2026, 8, 30)),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), date(9999, 12, 31)),
    ],
)
def test_the_day_of_an_id_is_that_of_utc(moment, day):
    unix_ms = round(moment.timestamp() * 1_000)
    assert ids.day_of(ids.new_id("ep_", unix_ms, bytes(10))) == day
    assert ids.moment_of(ids.delivery_id(unix_ms, "e", "ep")) == moment


@pytest.mark.parametrize(
    ("inserted_at", "expected"),
    [
        ("2026-11-23T12:00:00.123999+00:00", "2026-11-23T12:00:00.123+00:00"),
        ("2026-11-22T23:59:59.999999+00:00", "2026-11-23T00:00:00+00:00"),
        ("2026-10-01T00:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("2026-11-24T00:00:00+00:00", "2026-11-23T23:59:59.999+00:00"),
    ],
)
def test_the_time_of_a_delivery_id_lies_in_the_day_of_its_partition(inserted_at, expected):
    day = date(2026, 11, 23)
    unix_ms = ids.delivery_unix_ms(datetime.fromisoformat(inserted_at), day)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert epoch + timedelta(milliseconds=unix_ms) == datetime.fromisoformat(expected)
    assert ids.day_of(ids.delivery_id(unix_ms, "e", "ep")) == day


def test_an_id_of_no_year_has_no_day():
    with pytest.raises(ValueError, match="9999"):
        ids.day_of(ids.new_id("ep_", 2**48 - 1, bytes(10)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ep_",
        EXAMPLE.removeprefix("ep_"),
        EXAMPLE.upper(),
        "wh_" + EXAMPLE.removeprefix("ep_"),
        "ep_ep_" + EXAMPLE.removeprefix("ep_"),
        EXAMPLE + "a",
        EXAMPLE + "\n",
        EXAMPLE[:-1],
        EXAMPLE[:-1] + "u",
        EXAMPLE[:-1] + "l",
        EXAMPLE[:-1] + "\u0e01",
        # More than 128 bits, version 4, the other variant, and the version of deliveries.
        "ep_8" + EXAMPLE[4:],
        "ep_" + encode(uuid.UUID(int=0, version=4)),
        EXAMPLE[: 3 + 13] + "c" + EXAMPLE[3 + 14 :],
        "ep_" + DELIVERY.removeprefix("wh_"),
    ],
)
def test_is_id_other_texts_are_rejected(text):
    assert not ids.is_id(text, "ep_")


def test_is_id_the_examples_are_accepted():
    assert ids.is_id(EXAMPLE, "ep_")
    assert ids.is_id(DELIVERY, "wh_")
    assert ids.unix_ms_of(EXAMPLE) == 0x017F22E279B0
    assert ids.day_of(DELIVERY) == date(2022, 2, 22)


@pytest.mark.parametrize("text", ["", "wh_", "evt_2026_001234", "wh_" + "i" * 26, "x" * 100_000])
def test_unix_ms_of_another_text_is_an_error_that_names_it(text):
    with pytest.raises(ValueError, match="UUID in base32") as raised:
        ids.unix_ms_of(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("unix_ms", [-1, 2**48])
def test_a_time_outside_48_bits_is_rejected(unix_ms):
    with pytest.raises(ValueError, match="48 bits"):
        ids.new_id("ep_", unix_ms, bytes(10))
    with pytest.raises(ValueError, match="48 bits"):
        ids.delivery_id(unix_ms, "e", "ep")


@pytest.mark.parametrize("randomness", [bytes(9), bytes(11), b""])
def test_new_id_too_little_or_too_much_randomness_is_rejected(randomness):
    with pytest.raises(ValueError, match="random bytes"):
        ids.new_id("ep_", 0, randomness)
