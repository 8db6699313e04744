"""Several signatures on one request: each profile's receiver verifies it alone, and nothing collides."""

import dataclasses

import pytest

from dispatcher.core.errors import SecretError
from dispatcher.core.profile import Profile
from dispatcher.core.request import (
    RequestTemplate,
    request_template,
    validate_also_sign,
    validate_headers,
)
from dispatcher.core.secret import Secret, secret_under
from dispatcher.core.url import canonical_url
from dispatcher.verify import VerificationError, verify
from tests.wire.vectors import PROFILES, SECRETS, SHIPPED

BODY = b'{"a":1}'
URL = canonical_url("https://a.example/hook", https_only=True)
TEXT = "a text of some 40 characters, not base64"


def template(profile: str, secrets: list[str], *also: str, **headers: str) -> RequestTemplate:
    return request_template(
        profile=PROFILES[profile],
        url=URL,
        secrets=[Secret(one) for one in secrets],
        user_agent="d/1",
        custom_headers=headers,
        also=[PROFILES[name] for name in also],
    )


def lines(made: RequestTemplate) -> list[tuple[str, str]]:
    head = made.head(
        event_id="evt_1",
        delivery_id="wh_1",
        event_type="a.b",
        timestamp=1_000,
        body=BODY,
        traceparent=None,
    )
    texts = head.decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
    return [(name, value) for name, _, value in (text.partition(": ") for text in texts)]


@pytest.mark.parametrize("profile", ["wms", "humansoft", "standard", "github", "stripe"])
@pytest.mark.parametrize("other", ["wms", "humansoft", "standard", "github", "stripe"])
def test_also_sign_each_pair_of_profiles_verifies_alone(profile: str, other: str):
    if profile == other:
        return
    secret = Secret(SECRETS[profile])
    sent = lines(template(profile, [SECRETS[profile]], other))
    assert len({name.lower() for name, _ in sent}) == len(sent)
    verify(sent, BODY, SECRETS[profile], profile=profile, now=1_000)
    theirs = secret_under(PROFILES[other], PROFILES[profile], secret).reveal()
    verify(sent, BODY, theirs, profile=other, now=1_000)
    with pytest.raises(VerificationError):
        verify(sent, BODY + b" ", theirs, profile=other, now=1_000)


def test_also_sign_three_profiles_keep_the_head_of_one():
    alone, all_three = (
        lines(template("wms", [SECRETS["wms"]], *also)) for also in ((), ("standard", "github"))
    )
    assert all_three[: len(alone)] == alone
    names = [name for name, _ in all_three[len(alone) :]]
    assert names[:3] == ["webhook-id", "webhook-timestamp", "webhook-signature"]


def test_also_sign_a_rotation_signs_with_both_where_there_is_room():
    made = template("standard", [SECRETS["standard"], "whsec_" + "b" * 40], "wms")
    values = dict(lines(made))
    assert len(values["webhook-signature"].split(" ")) == 2
    verify(values, BODY, SECRETS["standard"], profile="wms", now=1_000)


def test_secret_under_another_profile_stays_or_is_encoded():
    wms, standard = PROFILES["wms"], PROFILES["standard"]
    fitting = Secret("whsec_" + "a" * 40)
    assert secret_under(standard, wms, fitting) is fitting
    encoded = secret_under(standard, wms, Secret(TEXT)).reveal()
    assert encoded.startswith("whsec_")
    sent = lines(template("wms", [TEXT], "standard"))
    verify(sent, BODY, encoded, profile="standard", now=1_000)


@pytest.mark.parametrize(
    ("own", "secret", "other", "code"),
    [
        ("wms", "too short", "standard", "also_sign_secret_size"),
        ("standard", "whsk_" + "A" * 43 + "=", "wms", "also_sign_shared_secret"),
    ],
)
def test_secret_under_another_profile_without_a_form_is_refused(
    own: str, secret: str, other: str, code: str
):
    with pytest.raises(SecretError) as caught:
        secret_under(PROFILES[other], PROFILES[own], Secret(secret))
    assert caught.value.code == code
    assert secret not in str(caught.value)


def test_text_that_looks_like_an_ed25519_key_stays_a_shared_key():
    """A private key that the receiver has as well would sign for anyone."""
    text = "whsk_" + "A" * 43 + "="
    theirs = secret_under(PROFILES["standard"], PROFILES["wms"], Secret(text)).reveal()
    assert theirs.startswith("whsec_")


def named(name: str, profile: Profile, header: str) -> Profile:
    signature = dataclasses.replace(profile.signature, header=header)
    return dataclasses.replace(profile, name=name, headers=(), signature=signature)


def test_also_sign_a_common_header_is_refused_and_names_both():
    theirs = named("acme", PROFILES["wms"], "X_WMS-Signature")
    third = named("third", PROFILES["wms"], "x-wms-signature")
    problems = validate_also_sign(PROFILES["wms"], [PROFILES["standard"], theirs])
    assert [(one.field, one.code) for one in problems] == [("also_sign[1]", "also_sign_collision")]
    assert "wms and acme" in problems[0].message
    between = validate_also_sign(PROFILES["standard"], [theirs, third])
    assert [one.field for one in between] == ["also_sign[1]"]
    assert "acme and third" in between[0].message


def test_also_sign_itself_twice_or_without_a_signature_is_refused():
    wms, standard, slack = (SHIPPED[name] for name in ("wms", "standard", "slack"))
    found = validate_also_sign(wms, [wms, standard, standard, slack])
    assert [one.code for one in found] == [
        "duplicate",
        "duplicate",
        "also_sign_without_signature",
    ]
    assert [one.code for one in validate_also_sign(slack, [wms])] == ["also_sign_not_possible"]


def test_also_sign_without_a_secret_is_refused():
    with pytest.raises(SecretError):
        template("wms", [], "standard")


def test_also_sign_reserves_the_names_of_all_profiles():
    headers = {"Webhook_Id": "x", "X-Own": "y"}
    also = [PROFILES["standard"]]
    assert validate_headers(headers, PROFILES["wms"]) == []
    fields = [one.field for one in validate_headers(headers, PROFILES["wms"], also)]
    assert fields == ["headers.Webhook_Id"]
    sent = lines(template("wms", [SECRETS["wms"]], "standard", **headers))
    assert ("Webhook_Id", "x") not in sent
    assert ("X-Own", "y") in sent
