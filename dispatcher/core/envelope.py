"""The envelope: one event in one profile to the bytes of the body, made once and never again.

An encoder is compiled per profile: the literal text between the values becomes one format, the
values become one function each. It adds no space, keeps the profile's order of members, and puts
the producer's data in as it was written, or as JavaScript would write it where the profile asks for it.

What always holds: equal event and profile give equal bytes, whatever the day; what cannot be
encoded raises `EncodingError` with a reason fit for an operator, and nothing else is raised. The
database has proved that the data is JSON, so verbatim data is not parsed here again: that would
cost more than all the rest.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import lru_cache, partial
from typing import NamedTuple, assert_never

import orjson

from dispatcher.core import javascript
from dispatcher.core.errors import EncodingError, InvalidRequestError
from dispatcher.core.masks import Mask
from dispatcher.core.message_text import compose, data_members, value_text
from dispatcher.core.model import Event, EventId, made
from dispatcher.core.problems import problem
from dispatcher.core.profile import (
    BodyField,
    FieldSource,
    FixedField,
    FixedSource,
    JsonMode,
    Profile,
    TimeFormat,
)

NUMBER_CHANGED = "number_changed"
"""Warning: JavaScript reads a number of the data as another one."""

BODY_OVER_100KB = "body_over_100kb"
"""Warning: Express refuses a JSON body of that size unless its limit was raised."""

EXPRESS_BODY_BYTES_MAX = 100 * 1024

_YEAR_MIN = 1970
_SECONDS = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS


class Encoded(NamedTuple):
    """A body fit to be signed and sent, and what a receiver may stumble over."""

    body: bytes
    warnings: tuple[str, ...]


def request_id(profile: Profile, event_id: str, *, is_test: bool = False) -> str | None:
    """Return the request id in the body of that event, None under a profile that has none."""
    for field in profile.fields:
        if field.source is FieldSource.REQUEST_ID:
            prefix = field.test_prefix if is_test else field.prefix
            return prefix + _request_digits(event_id)
    return None


class MadeTestEvent(NamedTuple):
    """An event made up on a person's request, and its body."""

    event: Event
    body: bytes
    warnings: tuple[str, ...]


def encode(profile: Profile, event: Event, mask: Mask | None = None) -> Encoded:
    """Return the body of `event` under `profile`, with the parts of its data that a mask keeps.

    Raises:
        EncodingError: the event cannot be put into this envelope.
    """
    if mask is not None:
        event = event._replace(data=mask.apply(event.data))
    return _encoder(profile, False)(event)


def make_test_event(
    profile: Profile,
    *,
    event_type: str | None,
    data: str | None,
    sample: str | None,
    random_hex: str,
    endpoint_id: str,
    endpoint_name: str,
    tenant: str,
    now: datetime,
    mask: Mask | None = None,
) -> MadeTestEvent:
    """Return the event that a person sends to try an endpoint, and its body with the parts that a mask keeps.

    `data` is the person's own JSON text, `sample` the catalogue's for `event_type`; a profile with
    a fixed test event needs none of the three, and sends that unless other data or another type is
    asked for. `random_hex` is 16 hex digits.

    Raises:
        InvalidRequestError: the type is needed and missing, or there are no data for it.
        EncodingError: the event cannot be put into this envelope.
    """
    fixed = profile.fixed_test
    if fixed is not None and data is None and event_type in {None, fixed.event_type}:
        values = {FixedSource.ENDPOINT_ID: endpoint_id, FixedSource.ENDPOINT_NAME: endpoint_name}
        event_type = fixed.event_type
        data = _fixed_object(fixed.fields, values, now, profile.zone)
    if event_type is None:
        raise InvalidRequestError(
            [problem("event_type", "event_type_required", profile=profile.name)]
        )
    if data is None:
        data = sample
    if data is None:
        raise InvalidRequestError([problem("data", "sample_missing", event_type=event_type)])
    event = Event(
        id=EventId(f"evt_test_{random_hex}"),
        type=event_type,
        data=data,
        tenant=tenant,
        occurred_at=now,
        inserted_at=now,
        labels={},
        traceparent=None,
    )
    sent = event if mask is None else event._replace(data=mask.apply(event.data))
    body, warnings = _encoder(profile, True)(sent)
    return MadeTestEvent(event, body, warnings)


@lru_cache(maxsize=128)
def _encoder(profile: Profile, is_test: bool) -> Callable[[Event], Encoded]:
    """Compiles the profile: a format with a place for each value, and a function for each value."""
    template = "%s"
    values: list[Callable[[Event], str]] = [_data]
    if profile.fields:
        template, values = _object(profile.fields, profile, is_test)

    def verbatim(event: Event) -> Encoded:
        try:
            body = (template % tuple([value(event) for value in values])).encode()
        except UnicodeEncodeError as error:
            raise EncodingError(f"the event holds half a character: {error}") from error
        return made(Encoded, (body, ()))

    def as_javascript(event: Event) -> Encoded:
        data, number_changed = javascript.stringify(event.data)
        body, warnings = verbatim(event._replace(data=data.decode()))
        if number_changed:
            warnings = (NUMBER_CHANGED,)
        if len(body) > EXPRESS_BODY_BYTES_MAX:
            warnings = (*warnings, BODY_OVER_100KB)
        return Encoded(body, warnings)

    return as_javascript if profile.json is JsonMode.JAVASCRIPT else verbatim


_Value = Callable[[Event], str]


def _object(
    fields: tuple[BodyField, ...], profile: Profile, is_test: bool
) -> tuple[str, list[_Value]]:
    """Return the format of an object, and the functions of its values."""
    members: list[str] = []
    values: list[_Value] = []
    for field in fields:
        text = "%s"
        if field.items is not None:
            entries = [_object(entry, profile, is_test) for entry in field.items]
            text = "[" + ",".join(entry for entry, _ in entries) + "]"
            values += [value for _, inner in entries for value in inner]
        elif field.fields:
            text, inner = _object(field.fields, profile, is_test)
            values += inner
        elif field.source is None:
            text = _constant(field.constant).replace("%", "%%")
        else:
            values.append(_value(field, field.source, profile, is_test))
        members.append(f"{javascript.quote(field.name)}:".replace("%", "%%") + text)
    return "{" + ",".join(members) + "}", values


def _constant(value: str | int | bool) -> str:
    return javascript.quote(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _value(field: BodyField, source: FieldSource, profile: Profile, is_test: bool) -> _Value:
    quote, zone = javascript.quote, profile.zone
    match source:
        case FieldSource.EVENT_ID:
            return lambda event: quote(event.id)
        case FieldSource.EVENT_TYPE:
            return lambda event: quote(event.type)
        case FieldSource.DATA:
            return _data
        case FieldSource.REQUEST_ID:
            prefix = field.test_prefix if is_test else field.prefix
            return lambda event: quote(prefix + _request_digits(event.id))
        case FieldSource.OCCURRED_AT:
            time = _time(field.format or TimeFormat.UTC_SECONDS, zone)
            return lambda event: time(event.occurred_at)
        case FieldSource.TEXT:
            rules = profile.text
            assert rules is not None  # noqa: S101 -- the parser requires it
            return lambda event: quote(compose(rules, event))
        case FieldSource.MEMBER:
            return partial(_member, field.member)
        case FieldSource.CONSOLE_LINK:
            raise AssertionError("the parser refuses it in a body")
        case _:
            assert_never(source)


def _member(name: str, event: Event) -> str:
    value = data_members(event).get(name)
    text = "" if value is None else value_text(value)
    if not text:
        raise EncodingError(f"the event's data have no {name!r}, which the profile sends")
    return javascript.quote(text)


def _data(event: Event) -> str:
    return event.data


def _request_digits(event_id: str) -> str:
    return hashlib.sha256(event_id.encode()).hexdigest()[:16]


def _time(form: TimeFormat, zone: tzinfo | None) -> Callable[[datetime], str]:
    """Return the function that writes an instant as a JSON string.

    The parser saw to it that local formats have a zone.
    """
    local = zone or UTC
    match form:
        case TimeFormat.UTC_SECONDS:
            return _utc_seconds
        case TimeFormat.UTC_MICROSECONDS:
            return _utc_microseconds
        case TimeFormat.LOCAL_SECONDS:
            return lambda at: f'"{_in_zone(at, local).isoformat(" ", "seconds")[:19]}"'
        case TimeFormat.LOCAL_SECONDS_OFFSET:
            return lambda at: f'"{_in_zone(at, local).isoformat("T", "seconds")}"'
        case _:
            assert_never(form)


def _utc_seconds(moment: datetime) -> str:
    # Orjson writes a time in a quarter of what isoformat() takes, quotes included.
    return orjson.dumps(_in_zone(moment, UTC), option=_SECONDS).decode()


def _utc_microseconds(moment: datetime) -> str:
    if moment.microsecond:
        return orjson.dumps(_in_zone(moment, UTC), option=orjson.OPT_UTC_Z).decode()
    return _utc_seconds(moment)[:-2] + '.000000Z"'


def _in_zone(moment: datetime, zone: tzinfo) -> datetime:
    if moment.year < _YEAR_MIN:
        raise EncodingError(f"the event's time {moment} lies before {_YEAR_MIN}")
    if moment.tzinfo is zone:
        return moment
    if moment.tzinfo is None:
        raise EncodingError(f"the event's time {moment} has no zone")
    try:
        return moment.astimezone(zone)
    except (OverflowError, ValueError) as error:
        raise EncodingError(f"the event's time {moment} does not exist in {zone}") from error


def _fixed_object(
    fields: tuple[FixedField, ...],
    values: dict[FixedSource, str],
    now: datetime,
    zone: tzinfo | None,
) -> str:
    members = []
    for field in fields:
        if field.fields:
            value = _fixed_object(field.fields, values, now, zone)
        elif field.source is FixedSource.OCCURRED_AT:
            value = _time(field.format or TimeFormat.UTC_SECONDS, zone)(now)
        elif field.source is not None:
            value = javascript.quote(values[field.source])
        else:
            value = javascript.quote(field.text or "")
        members.append(f"{javascript.quote(field.name)}:{value}")
    return "{" + ",".join(members) + "}"
