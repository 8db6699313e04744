"""What the text of a search names exactly: an id, a request id, a label, or the value of a label."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from dispatcher.admin.operations.delivery_filter import changed
from dispatcher.admin.resources.delivery import REQUEST_ID, DeliveriesQuery
from dispatcher.admin.resources.event import RESERVED_ID
from dispatcher.core import ids
from dispatcher.core.profile import FieldSource, Profile
from dispatcher.store.delivery_details import find_delivery
from dispatcher.store.events import EventKey, events_of_id
from dispatcher.store.search import TextFilter

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


LABEL: Final = re.compile(r"([a-z0-9_.-]{1,64})=(.+)", re.DOTALL)


class RequestedDeliveries(NamedTuple):
    """What a request id names: its digits, the profiles that have such ids, and whether of a test."""

    digits: bytes
    profiles: list[str]
    test: bool | None


class ExactMatch(NamedTuple):
    """What a text names exactly."""

    wanted: DeliveriesQuery
    """The filter with the id or the label that the text is."""
    named: list[EventKey]
    """The events of which the text is the id."""
    value_path: str | None = None
    """A JSON path for labels with the text as their value."""
    is_all: bool = False
    """Whether nothing else can be meant: the text is an id that the dispatcher made."""


def value_path_of(value: str) -> str:
    """Return the JSON path that labels fulfil of which one has this value."""
    return f"$.* ? (@ == {orjson.dumps(value).decode()})"


def label_path(text: str) -> str:
    """Return the JSON path of labels that the text names exactly, as `name=value` or by a value."""
    label = LABEL.fullmatch(text)
    if label is None:
        return value_path_of(text)
    return f"$.{orjson.dumps(label[1]).decode()} ? (@ == {orjson.dumps(label[2]).decode()})"


async def exact_match(
    connection: "Reach",
    profiles: Mapping[str, Profile],
    tenant: str | None,
    wanted: DeliveriesQuery,
) -> ExactMatch:
    """Return what the text of a filter names exactly: an id, or a label."""
    text = (wanted.q or "").strip()
    if ids.is_id(text, ids.DELIVERY_PREFIX):
        row = await find_delivery(connection, text, tenant)
        if row is not None and (wanted.event_id or row.event_id) == row.event_id:
            endpoint_id = wanted.endpoint_id or row.endpoint_id
            if endpoint_id == row.endpoint_id:
                found = changed(wanted, event_id=row.event_id, endpoint_id=endpoint_id)
                return ExactMatch(found, [], is_all=True)
    requested = REQUEST_ID.fullmatch(text)
    if requested is not None and requested[1] and requested_by(profiles, text) is not None:
        return ExactMatch(changed(wanted, request_id=text), [], is_all=True)
    label = LABEL.fullmatch(text)
    if label is not None:
        labels = {**(wanted.label or {}), label[1]: label[2]}
        return ExactMatch(changed(wanted, label=labels), [])
    named = await events_of_id(connection, text)
    is_all = bool(named) and RESERVED_ID.fullmatch(text) is not None
    return ExactMatch(wanted, named, value_path_of(text), is_all)


def requested_by(profiles: Mapping[str, Profile], text: str) -> RequestedDeliveries | None:
    """Read a request id, with or without its prefix; None: no profile makes such ids."""
    match = REQUEST_ID.fullmatch(text)
    if match is None:
        return None
    prefix, digits = match[1], match[2]
    names, kinds = [], set()
    for profile in profiles.values():
        for field in profile.fields:
            if field.source is not FieldSource.REQUEST_ID:
                continue
            for kind, known in ((False, field.prefix), (True, field.test_prefix)):
                if prefix in {None, known}:
                    names.append(profile.name)
                    kinds.add(kind)
    if not names:
        return None
    return RequestedDeliveries(
        bytes.fromhex(digits), names, kinds.pop() if len(kinds) == 1 else None
    )


def text_filter(text: str) -> TextFilter:
    """Return what a search for a text finds, as a condition on events."""
    text = text.strip()
    return TextFilter(text, label_path(text))
