"""Makes docs/vectors.json: requests that every verifier must accept or refuse alike."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from dispatcher.config.profiles import load_profiles
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.envelope import encode
from dispatcher.core.model import Event, EventId
from dispatcher.core.request import RequestTemplate
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer

VECTORS_FILE = Path(__file__).parents[2] / "docs" / "vectors.json"
SHIPPED = load_profiles([shipped_config_directory() / "profiles"]).profiles
PROFILES = {name: profile for name, profile in SHIPPED.items() if profile.text is None}
"""The profiles for programs; those for people have no signature to verify."""

NOW = 1_780_065_131
SECRETS = {
    "wms": "whsec_Vb7qM2xT9cKfR4nHs8LwZy3DpJ6gAe1UoXtQ5iNk",
    "humansoft": "whseVb7qM2xT9cKfR4nHs8LwZy3DpJ6gAe1UoXtQ5799",
    "standard": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "github": "It's a Secret to Everybody",
    "stripe": "whsec_this1is2not3a4key5of6anybody7at8all9zz",
}
OTHER_SECRETS = {
    "standard": "whsec_plJ3nmyCDGBKInavdOK15jsl0123456789abcdef",
    "wms": "whsec_an0ther_secret_that_is_not_theirs",
}
DATA = '{"order_id": "ORD-2026-1234", "customer": "บริษัท ตัวอย่าง จำกัด", "weight": 12.0}'


def event(data: str = DATA, event_type: str = "order.shipped") -> Event:
    """Returns the event that the golden bytes and the vectors are made of."""
    occurred_at = datetime(2026, 5, 29, 14, 32, 11, 987_654, tzinfo=UTC)
    return Event(
        id=EventId("evt_2026_001234"),
        type=event_type,
        data=data,
        tenant="default",
        occurred_at=occurred_at,
        inserted_at=occurred_at,
        labels={},
        traceparent=None,
    )


DELIVERY_ID = "wh_06f9c2kz5v9p3m1q8r7t4y0abc"


def head(profile_name: str, body: bytes, secrets: list[str], timestamp: int = NOW) -> bytes:
    """Returns the head of a request about `event()` to the sample receiver."""
    profile = PROFILES[profile_name]
    template = RequestTemplate(
        profile=profile,
        target="/webhooks/wms",
        host_header="erp.example.com",
        user_agent="dispatcher/1.0.0",
        custom_headers={},
        signer=Signer(profile, [Secret(secret) for secret in secrets]) if secrets else None,
    )
    return template.head(
        event_id="evt_2026_001234",
        delivery_id=DELIVERY_ID,
        event_type="order.shipped",
        timestamp=timestamp,
        body=body,
        traceparent=None,
    )


def headers_of(request_head: bytes) -> dict[str, str]:
    """Returns the headers of a head, their names as on the wire."""
    lines = request_head.decode("latin-1").rstrip("\r\n").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def _vector(name: str, profile: str, headers: dict[str, str], body: str, **fields: Any) -> Any:
    vector = {"name": name, "profile": profile, "secrets": [SECRETS[profile]], "now": NOW}
    vector |= {"headers": headers, "body": body, "valid": False}
    return vector | fields


def make_vectors() -> Iterator[dict[str, Any]]:
    """Makes the vectors anew."""
    for profile in sorted(PROFILES):
        yield from _vectors_of(profile)
    body = encode(PROFILES["standard"], event()).body
    old, new = SECRETS["standard"], OTHER_SECRETS["standard"]
    both = headers_of(head("standard", body, [new, old]))
    for name, secret in (("old", old), ("new", new)):
        yield _vector(
            f"signed with two secrets, the receiver has the {name} one",
            "standard",
            both,
            body.decode(),
            secrets=[secret],
            valid=True,
        )


def _vectors_of(profile: str) -> Iterator[dict[str, Any]]:
    body = encode(PROFILES[profile], event()).body
    text = body.decode()
    headers = headers_of(head(profile, body, [SECRETS[profile]]))
    name = PROFILES[profile].signature.header
    signature = headers[name]
    yield _vector("as sent", profile, headers, text, valid=True)
    two = [OTHER_SECRETS["standard" if profile == "standard" else "wms"], SECRETS[profile]]
    yield _vector("the second of two secrets", profile, headers, text, secrets=two, valid=True)
    yield _vector("another secret", profile, headers, text, secrets=two[:1])
    yield _vector("one character of the body changed", profile, headers, text.replace("ORD", "0RD"))
    spaced = orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode()
    yield _vector("the body parsed and written again", profile, headers, spaced)
    yield _vector("the signature cut short", profile, headers | {name: signature[:-3]}, text)
    bare = signature.rpartition("v1=" if profile == "stripe" else signature[:3])[2]
    bare = bare.removeprefix("256=")
    yield _vector("the signature without its prefix", profile, headers | {name: bare}, text)
    yield _vector("an empty signature", profile, headers | {name: ""}, text)
    without = {key: value for key, value in headers.items() if key != name}
    yield _vector("no signature", profile, without, text)
    if profile in {"wms", "github"}:
        yield _vector(
            "a day old, no timestamp signed", profile, headers, text, now=NOW + 86_400, valid=True
        )
        return
    yield _vector("at the end of the tolerance", profile, headers, text, now=NOW + 300, valid=True)
    yield _vector("too old", profile, headers, text, now=NOW + 301)
    yield _vector("too far in the future", profile, headers, text, now=NOW - 301)
    later = str(NOW + 1)
    changed = {key: value.replace(str(NOW), later) for key, value in headers.items()}
    yield _vector("the timestamp changed", profile, changed, text)
    worded = {key: value.replace(str(NOW), "yesterday") for key, value in headers.items()}
    yield _vector("the timestamp is no number", profile, worded, text)


if __name__ == "__main__":
    VECTORS_FILE.write_bytes(orjson.dumps(list(make_vectors()), option=orjson.OPT_INDENT_2) + b"\n")
