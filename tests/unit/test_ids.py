"""Ids, checked with decoders that are not ours: base64 and uuid."""

import base64
import uuid
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import ids

UNIX_MS = st.integers(0, 2**48 - 1)
RANDOMNESS = st.binary(min_size=10, max_size=10)
PREFIXES = ("ep_", "wh_", "rpl_", "tok_")

EXAMPLE = (
    "wh_"
    + base64.b32encode(uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").bytes)
    .decode()
    .rstrip("=")
    .lower()
)


def decode(identifier: str, prefix: str) -> uuid.UUID:
    text = identifier.removeprefix(prefix).upper() + "======"
    return uuid.UUID(bytes=base64.b32decode(text))


@given(st.sampled_from(PREFIXES), UNIX_MS, RANDOMNESS)
def test_an_id_is_a_uuid_of_version_7_with_its_time_and_its_randomness(prefix, unix_ms, randomness):
    identifier = ids.new_id(prefix, unix_ms, randomness)
    decoded = decode(identifier, prefix)
    assert decoded.version == 7
    assert decoded.variant == uuid.RFC_4122
    assert decoded.int >> 80 == unix_ms
    # The bits that version, variant and padding leave, where the last ten bytes have them.
    mask = (2**12 - 1) << 66 | (2**62 - 1) << 2
    assert decoded.int << 2 & mask == int.from_bytes(randomness, "big") & mask


@given(st.sampled_from(PREFIXES), UNIX_MS, RANDOMNESS)
def test_an_id_has_one_form_and_gives_its_time_back(prefix, unix_ms, randomness):
    identifier = ids.new_id(prefix, unix_ms, randomness)
    assert len(identifier) == len(prefix) + 26
    assert ids.is_id(identifier, prefix)
    assert ids.unix_ms_of(identifier) == unix_ms


def test_the_example_of_the_rfc_is_read_as_the_rfc_reads_it():
    assert ids.is_id(EXAMPLE, "wh_")
    assert ids.unix_ms_of(EXAMPLE) == 0x017F22E279B0
    assert ids.day_of(EXAMPLE) == date(2022, 2, 22)


@given(UNIX_MS, st.lists(RANDOMNESS, max_size=40))
def test_a_batch_has_the_ids_that_would_be_made_one_by_one(unix_ms, randomness):
    batch = ids.delivery_ids(unix_ms, b"".join(randomness), len(randomness))
    assert batch == [ids.new_id("wh_", unix_ms, single) for single in randomness]


def test_all_that_is_random_makes_a_difference():
    bits = [1 << bit for bit in range(80)]
    batch = ids.delivery_ids(0, b"".join(bit.to_bytes(10, "big") for bit in bits), len(bits))
    # Two bits each of version, variant and padding are given, and make the same id as zero does.
    assert len(set(batch)) == 80 - 6 + 1


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
    assert ids.day_of(ids.new_id("wh_", unix_ms, bytes(10))) == day


def test_an_id_of_no_year_has_no_day():
    with pytest.raises(ValueError, match="9999"):
        ids.day_of(ids.new_id("wh_", 2**48 - 1, bytes(10)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wh_",
        EXAMPLE.removeprefix("wh_"),
        EXAMPLE.upper(),
        "ep_" + EXAMPLE.removeprefix("wh_"),
        "wh_wh_" + EXAMPLE.removeprefix("wh_"),
        EXAMPLE + "a",
        EXAMPLE + "\n",
        EXAMPLE[:-1],
        EXAMPLE[:-1] + "b",
        EXAMPLE[:-1] + "1",
        EXAMPLE[:-1] + "\u0e01",
        # Version 4, and the other variant.
        "wh_" + base64.b32encode(uuid.UUID(int=0, version=4).bytes).decode().lower()[:26],
        EXAMPLE[: 3 + 13] + "q" + EXAMPLE[3 + 14 :],
    ],
)
def test_other_texts_are_no_ids(text):
    assert not ids.is_id(text, "wh_")


@pytest.mark.parametrize("text", ["", "wh_", "evt_2026_001234", "wh_" + "1" * 26, "x" * 100_000])
def test_the_time_of_what_is_no_id_is_an_error_that_names_it(text):
    with pytest.raises(ValueError, match="UUIDv7") as raised:
        ids.unix_ms_of(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("unix_ms", [-1, 2**48])
def test_a_time_outside_48_bits_is_refused(unix_ms):
    with pytest.raises(ValueError, match="48 bits"):
        ids.new_id("wh_", unix_ms, bytes(10))


@pytest.mark.parametrize(("randomness", "count"), [(bytes(9), 1), (bytes(20), 1), (b"", 1)])
def test_too_little_or_too_much_randomness_is_refused(randomness, count):
    with pytest.raises(ValueError, match="random bytes"):
        ids.delivery_ids(0, randomness, count)
