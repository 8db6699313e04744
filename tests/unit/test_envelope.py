"""The envelope's bytes, its warnings, its test events, and what it refuses."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.envelope import NUMBER_CHANGED, Encoded, encode, make_test_event, request_id
from dispatcher.core.errors import EncodingError, InvalidRequestError
from dispatcher.core.model import Event, EventId
from tests.wire.json_texts import objects
from tests.wire.vectors import PROFILES

WMS, HUMANSOFT, STANDARD = (PROFILES[name] for name in ("wms", "humansoft", "standard"))
AT = datetime(2026, 5, 29, 14, 32, 11, 987_654, tzinfo=UTC)


def event(**fields: Any) -> Event:
    values: dict[str, Any] = {"id": EventId("evt_1"), "type": "a.b", "data": "{}", "tenant": "t"}
    values |= {"occurred_at": AT, "inserted_at": AT, "labels": {}, "traceparent": None}
    return Event(**values | fields)


times = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
    datetime(9999, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001 -- as above
    timezones=st.just(UTC),
)


@given(objects)
def test_data_stands_in_the_body_as_it_was_written(data: str) -> None:
    assert encode(WMS, event(data=data)).body.endswith(b',"data":' + data.encode() + b"}")
    assert encode(PROFILES["github"], event(data=data)) == Encoded(data.encode(), ())


@given(st.text(), st.text(), st.sampled_from(sorted(PROFILES)))
def test_whatever_ids_and_types_hold_the_body_is_json(name: str, kind: str, profile: str) -> None:
    body = orjson.loads(encode(PROFILES[profile], event(id=EventId(name), type=kind)).body)
    sent = {"id": name, "type": kind, "event": kind}
    assert all(body[key] == value for key, value in sent.items() if key in body)


@given(times)
def test_instants_are_written_in_full_and_never_rounded(at: datetime) -> None:
    wms = orjson.loads(encode(WMS, event(occurred_at=at)).body)["timestamp"]
    standard = orjson.loads(encode(STANDARD, event(occurred_at=at)).body)["timestamp"]
    assert wms == at.strftime(f"{at.year:04}-%m-%dT%H:%M:%SZ")
    assert standard == at.strftime(f"{at.year:04}-%m-%dT%H:%M:%S.%fZ")


@given(times, st.integers(-720, 840))
def test_the_zone_of_an_instant_makes_no_difference(at: datetime, minutes: int) -> None:
    try:
        moved = at.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        return
    if moved.year >= 1970:
        for profile in (WMS, STANDARD, HUMANSOFT):
            if at.year < 9999:
                assert encode(profile, event(occurred_at=moved)) == encode(
                    profile, event(occurred_at=at)
                )


def test_local_time_is_that_of_bangkok_and_may_be_the_next_year() -> None:
    at = datetime(2026, 12, 31, 17, 0, 0, 999_999, tzinfo=UTC)
    body = orjson.loads(encode(HUMANSOFT, event(occurred_at=at)).body)
    assert body["event_occurred_at"] == "2027-01-01 00:00:00"


@pytest.mark.parametrize(
    "at",
    [
        datetime(9999, 12, 31, 17, 0, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime(2026, 1, 1),  # noqa: DTZ001 -- without a zone on purpose
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_an_instant_that_cannot_be_written_is_refused(at: datetime) -> None:
    with pytest.raises(EncodingError, match="the event's time"):
        encode(HUMANSOFT, event(occurred_at=at))


def test_the_request_id_is_made_from_the_event_id() -> None:
    body = orjson.loads(encode(HUMANSOFT, event(id=EventId("evt_2026_001234"))).body)
    digits = hashlib.sha256(b"evt_2026_001234").hexdigest()[:16]
    assert body["request_id"] == f"req_{digits}"
    assert request_id(HUMANSOFT, "evt_2026_001234") == f"req_{digits}"
    assert request_id(HUMANSOFT, "evt_2026_001234", is_test=True) == f"test_{digits}"
    assert request_id(WMS, "evt_2026_001234") is None


def test_a_changed_number_is_warned_of_only_where_javascript_reads_it() -> None:
    data = '{"n": 12345678901234567890}'
    assert encode(HUMANSOFT, event(data=data)).warnings == (NUMBER_CHANGED,)
    assert encode(WMS, event(data=data)).warnings == ()


@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize("fields", [{"data": '{"a":"\ud800"}'}, {"data": '{"a":1.0,"b":"\udfff"}'}])
def test_half_a_character_is_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(EncodingError, match="half a character"):
        encode(PROFILES[name], event(**fields))


@pytest.mark.parametrize("name", ["wms", "humansoft", "standard"])
def test_half_a_character_in_the_type_or_id_is_refused(name: str) -> None:
    with pytest.raises(EncodingError):
        encode(PROFILES[name], event(type="a.\ud800", id=EventId("\ud800")))


@pytest.mark.parametrize("data", ["", "{", '{"a":' * 6000 + "1" + "}" * 6000, "[" * 100_000])
def test_what_javascript_could_not_parse_is_refused(data: str) -> None:
    with pytest.raises(EncodingError):
        encode(HUMANSOFT, event(data=data))


def made(profile: str, **fields: Any) -> Any:
    values: dict[str, Any] = {"event_type": None, "data": None, "sample": None, "tenant": "t"}
    values |= {"endpoint_id": "ep_1", "endpoint_name": 'Web"hook', "now": AT}
    values |= {"random_hex": "a90b78b79dadff88"} | fields
    return make_test_event(PROFILES[profile], **values)


def test_the_test_event_of_humansoft_is_a_ping() -> None:
    ping = made("humansoft")
    assert ping.event.id == "evt_test_a90b78b79dadff88"
    assert ping.event.type == "test.ping"
    assert ping.body == (
        b'{"request_id":"test_67896500359326aa","event":"test.ping",'
        b'"event_occurred_at":"2026-05-29 21:32:11","body":'
        b'{"message":"This is a test webhook from HumanSoft API",'
        b'"timestamp":"2026-05-29T21:32:11+07:00",'
        b'"endpoint":{"endpoint_id":"ep_1","endpoint_name":"Web\\"hook"}}}'
    )


def test_the_test_event_of_humansoft_can_be_another_type() -> None:
    body = orjson.loads(made("humansoft", event_type="employee.create", sample='{"a":1}').body)
    assert (body["event"], body["body"]) == ("employee.create", {"a": 1})
    assert body["request_id"] == "test_67896500359326aa"


@pytest.mark.parametrize("name", ["wms", "standard", "github", "stripe"])
def test_the_test_event_of_the_others_is_the_sample_of_the_chosen_type(name: str) -> None:
    test_event = made(name, event_type="order.shipped", sample='{"sample": 1}')
    assert test_event.event.id == "evt_test_a90b78b79dadff88"
    assert b'{"sample": 1}' in test_event.body
    own = made(name, event_type="order.shipped", sample='{"sample": 1}', data='{"own": 2}')
    assert b'{"own": 2}' in own.body


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, "event_type"), ({"event_type": "own.type"}, "data")],
)
def test_a_test_event_without_type_or_data_names_what_is_missing(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        made("wms", **fields)
    assert [name for name, *_ in caught.value.problems] == [field]
