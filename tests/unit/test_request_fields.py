"""The fields of requests: times, labels, and every invalid field reported together."""

import pytest
from pydantic import ValidationError

from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.token import NewToken
from dispatcher.admin.resources.validation import problems_of


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-05-29T14:32:11Z", "2026-05-29T14:32:11+00:00"),
        ("2026-05-29t21:32:11.123456789+07:00", "2026-05-29T14:32:11.123456+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_is_read_as_rfc_3339_has_it(text, iso):
    query = DeliveriesQuery.model_validate({"since": text})
    assert query.since is not None
    assert query.since.isoformat() == iso


@pytest.mark.parametrize(
    "text",
    ["2026-05-29", "2026-05-29T14:32:11", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00",
     "2026-05-29 14:32:11Z", "2026-W22-5T14:32:11Z", "20260529T143211Z", "", None, 1,
     "9999-12-31T23:59:59-01:00", "2026-05-29T14:32:11+99:99"],
)  # fmt: skip
def test_any_other_time_is_refused(text):
    with pytest.raises(ValidationError) as caught:
        NewToken.model_validate({"name": "a", "role": "viewer", "expires_at": text or ""})
    (one,) = problems_of(caught.value)
    assert one.field == "expires_at"
    assert one.code in {"invalid_time", "impossible_time"}


def test_every_fault_is_told_in_words():
    with pytest.raises(ValidationError) as caught:
        NewToken.model_validate({"role": "root", "expires_at": 5, "x": 1, "tenant": 7})
    found = {one.field: one.code for one in problems_of(caught.value)}
    assert found.keys() == {"name", "role", "expires_at", "x", "tenant"}
    assert found["name"] == "required"
    assert found["x"] == "unknown_field"
    assert found["tenant"] == "not_a_string"


def test_labels_of_a_query_are_pairs():
    found = DeliveriesQuery.model_validate({"label": ["branch=bkk", "order_id=a=b", "empty="]})
    assert found.label == {"branch": "bkk", "order_id": "a=b", "empty": ""}
    for wrong in (["branch"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(ValidationError):
            DeliveriesQuery.model_validate({"label": wrong})
