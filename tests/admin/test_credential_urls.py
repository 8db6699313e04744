"""D7: URLs that are credentials: masked for viewers and in the audit log, whole for whoever may send."""

import orjson
import pytest

from dispatcher.admin.operations import endpoints as module
from dispatcher.core.url import masked_url

KEY = "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"
SIG = "aGVsbG8td29ybGQ"
URL = f"https://hooks.example.com/services/{KEY}?api-version=2016&sig={SIG}"
MASKED = "https://hooks.example.com/services/********/********/********?api-version=********&sig=********"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (URL, MASKED),
        ("https://example.com/", "https://example.com/"),
        ("https://example.com", "https://example.com"),
        ("https://example.com:8443/hooks/order-events/v2", "https://example.com:8443/hooks/order-events/v2"),
        ("https://[2001:db8::1]:9/a//b/", "https://[2001:db8::1]:9/a//b/"),
        ("https://x.test/api/webhooks/123456789012345678/aBcD_e", "https://x.test/api/webhooks/********/********"),
        ("https://x.test/workflows/0f8fad5bd9cb469fa16570867728950e/run", "https://x.test/workflows/********/run"),
        ("https://x.test/a%2Fb?k3y", "https://x.test/********?********"),
        ("https://x.test/?a=1&&b=", "https://x.test/?a=********&********&b=********"),
    ],
)  # fmt: skip
def test_a_url_is_masked_but_for_its_plain_parts(url: str, masked: str):
    assert masked_url(url) == masked
    assert masked_url(masked).count("********") == masked.count("********")


FIELDS = {"name": "chat", "url": URL, "event_types": ["*"], "profile": "wms"}


@pytest.mark.postgres
async def test_a_viewer_and_the_audit_log_see_no_credential_in_a_url(api, connection):
    made = await api.ask("POST", "/endpoints", FIELDS)
    path = f"/endpoints/{made.json['id']}"
    sent = await api.ask("POST", f"{path}/test")
    delivery = sent.json["id"]
    viewer = await api.token_of("viewer")
    places = ("/endpoints", path, f"/deliveries/{delivery}", "/deliveries")
    for place in places:
        shown = await api.ask("GET", place, token=viewer)
        assert shown.status == 200
        for secret in (SIG, *KEY.split("/")):
            assert secret.encode() not in shown.raw, (place, secret)
    assert (await api.ask("GET", path, token=viewer)).json["url"] == MASKED
    for role in ("operator", "admin"):
        assert (await api.ask("GET", path, token=await api.token_of(role))).json["url"] == URL
    details = await connection.fetch("SELECT detail::text AS detail FROM dispatcher.audit")
    assert SIG not in str([row["detail"] for row in details])
    created = [orjson.loads(row["detail"]) for row in details if "url" in row["detail"]]
    assert [one["url"] for one in created] == [MASKED]


@pytest.mark.postgres
async def test_d7_control_a_url_that_is_not_masked_is_in_the_audit_log(
    api, connection, monkeypatch
):
    monkeypatch.setattr(module, "masked_url", lambda url: url)
    await api.ask("POST", "/endpoints", FIELDS)
    details = await connection.fetch("SELECT detail::text AS detail FROM dispatcher.audit")
    assert SIG in str([row["detail"] for row in details])
