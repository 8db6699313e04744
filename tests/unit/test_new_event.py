"""An ordinary event of a request is used as it is, with the same result as the model's validation."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admin.operations.new_event import NewEvent, event_problems
from dispatcher.admin.resources.event import NewEventFields
from dispatcher.admin.resources.serialization import JsonText
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX

TEXT = st.sampled_from(
    ["", "a", "order.created", "Order", "a" * 257, "evt_2026_000001", "acme", "น้ำ"]
)
ANY = TEXT | st.none() | st.just(1) | st.just(["a"]) | st.just({"a": "b"})
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "type": ANY,
        "data": st.sampled_from(
            [
                JsonText("{}"),
                JsonText('{"a": 1.50}'),
                JsonText("[]"),
                JsonText(" {}"),
                JsonText('{"a":"' + "x" * EVENT_DATA_BYTES_MAX + '"}'),
                None,
                {},
            ]
        ),
        "id": ANY,
        "tenant": ANY,
        "occurred_at": st.sampled_from(["2026-05-29T14:32:11Z", "yesterday", None]),
        "ordering_key": ANY,
        "labels": st.none() | TEXT | st.dictionaries(st.sampled_from(["a", "B", "c" * 65]), ANY),
        "traceparent": ANY,
        "unknown": ANY,
    },
)


def outcome_of_reading(members: dict[str, Any]) -> object:
    try:
        event = NewEvent.read(members)
    except InvalidRequestError as error:
        return error.problems
    return event_problems(event, {}) or event


def outcome_by_model(members: dict[str, Any]) -> object:
    try:
        fields = NewEventFields.of(**members)
    except InvalidRequestError as error:
        return error.problems
    values = {**dict(fields), "data": fields.data.text}
    return NewEvent(**values)


@given(MEMBERS)
def test_an_event_is_read_as_its_model_reads_it(members: dict[str, Any]):
    expected = outcome_by_model(members)
    assert outcome_of_reading(members) == expected
