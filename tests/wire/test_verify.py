"""The file that receivers copy: what it refuses beyond the vectors, and with which words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.envelope import encode
from dispatcher.verify import VerificationError, verify
from tests.wire.vectors import NOW, OTHER_SECRETS, PROFILES, SECRETS, event, head, headers_of

BODY = encode(PROFILES["standard"], event()).body
HEADERS = headers_of(head("standard", BODY, [SECRETS["standard"]]))


def reason(headers: Any = HEADERS, body: bytes = BODY, **fields: Any) -> str | None:
    values: dict[str, Any] = {"secrets": SECRETS["standard"], "profile": "standard", "now": NOW}
    values |= fields
    try:
        verify(headers, body, values.pop("secrets"), **values)
    except VerificationError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"headers": list(HEADERS.items())}, None),
        ({"headers": {name.upper(): value for name, value in HEADERS.items()}}, None),
        ({"secrets": SECRETS["standard"].removeprefix("whsec_")}, None),
        ({"secrets": [OTHER_SECRETS["standard"], SECRETS["standard"]]}, None),
        ({"now": NOW - 300, "tolerance": 300}, None),
        ({"now": NOW + 11, "tolerance": 10}, "wrong_time"),
        ({"now": NOW - 11, "tolerance": 10}, "wrong_time"),
        ({"headers": {}}, "missing_header"),
        ({"headers": [*HEADERS.items(), ("Webhook-Id", "other")]}, "malformed_header"),
        ({"headers": HEADERS | {"webhook-timestamp": "1" * 13}}, "malformed_header"),
        ({"headers": HEADERS | {"webhook-timestamp": "١٢"}}, "malformed_header"),
        ({"headers": HEADERS | {"webhook-signature": "v1,ไทย"}}, "wrong_signature"),
        ({"headers": HEADERS | {"webhook-id": "evt_2026_001235"}}, "wrong_signature"),
        ({"body": BODY + b" "}, "wrong_signature"),
        ({"secrets": OTHER_SECRETS["standard"]}, "wrong_signature"),
        ({"secrets": []}, "unusable_secret"),
        ({"secrets": ""}, "unusable_secret"),
        ({"secrets": [SECRETS["standard"], ""]}, "unusable_secret"),
        ({"secrets": "whsec_***"}, "unusable_secret"),
        ({"secrets": "whsec_ไทย"}, "unusable_secret"),
        ({"profile": "no_such_profile"}, "unknown_profile"),
    ],
)
def test_a_verdict_comes_with_its_reason(fields: dict[str, Any], expected: str | None) -> None:
    assert reason(**fields) == expected


def test_without_a_given_time_the_clock_counts() -> None:
    assert reason(now=None) == "wrong_time"


def test_a_parsed_body_is_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError, match="the bytes as received"):
        verify(HEADERS, BODY.decode(), SECRETS["standard"], profile="standard")  # type: ignore[arg-type] # on purpose


texts = st.text(st.characters(exclude_categories=[]), max_size=20)


@given(st.dictionaries(st.sampled_from(sorted(HEADERS)), texts), st.sampled_from(sorted(PROFILES)))
def test_no_header_makes_it_fail_otherwise(replaced: dict[str, str], profile: str) -> None:
    name = PROFILES[profile].signature.header
    headers = HEADERS | replaced
    headers |= {name: headers["webhook-signature"], "X-Webhook-Timestamp": str(NOW)}
    found = reason(headers, profile=profile, secrets=SECRETS[profile])
    assert found is None or found in VerificationError.__doc__  # type: ignore[operator] # it has one
