"""The API on a real socket and database: each route does what it says."""

import pytest

from dispatcher.core.problem_codes import SENTENCES
from dispatcher.dev.receiver import Behaviour, Receiver, ReceiverRoute

pytestmark = pytest.mark.postgres

GOOD = {
    "name": "ERP",
    "url": "https://example.com/hooks",
    "event_types": ["order.*"],
    "profile": "standard",
}
THAI = '{"z": 1.50, "a":12345678901234567890123, "ชื่อ":"น้ำดื่ม", "a": 1e400 }'


async def test_an_endpoint_is_made_listed_shown_changed_and_deleted(api):
    made = await api.ask("POST", "/endpoints", GOOD | {"profile": "humansoft"})
    assert made.status == 201
    assert made.headers["Location"] == f"/api/v1/endpoints/{made.json['id']}"
    assert made.json["secret"].startswith("whse")
    path = f"/endpoints/{made.json['id']}"
    shown = await api.ask("GET", path)
    assert "********" in shown.json["secret"]
    assert (await api.ask("GET", "/endpoints")).json == {"items": [shown.json], "next_cursor": None}
    changed = await api.ask("PATCH", path, {"rate_limit": 5, "labels": {"branch": "bkk"}})
    assert (changed.json["rate_limit"], changed.json["labels"]) == (5.0, {"branch": "bkk"})
    assert changed.json["name"] == "ERP"
    assert (await api.ask("DELETE", path)).status == 204
    assert (await api.ask("GET", path)).status == 404


async def test_the_same_name_twice_is_refused(api):
    await api.ask("POST", "/endpoints", GOOD)
    again = await api.ask("POST", "/endpoints", GOOD)
    assert again.status == 409
    assert again.headers["Content-Type"].startswith("application/problem+json")
    assert "ERP" in again.json["detail"]


async def test_a_change_is_for_the_version_that_was_read(api):
    made = await api.ask("POST", "/endpoints", GOOD)
    path = f"/endpoints/{made.json['id']}"
    first = {"If-Match": made.headers["ETag"]}
    changed = await api.ask("PATCH", path, {"name": "ERP 2"}, headers=first)
    assert changed.status == 200
    assert changed.headers["ETag"] != made.headers["ETag"]
    assert (await api.ask("PATCH", path, {"name": "ERP 3"}, headers=first)).status == 412
    assert (await api.ask("DELETE", path, headers=first)).status == 412
    both = {"If-Match": f"{first['If-Match']}, {changed.headers['ETag']}"}
    assert (await api.ask("PATCH", path, {"name": "ERP 4"}, headers=both)).status == 200
    assert (await api.ask("PATCH", path, {}, headers={"If-Match": 'W/"x"'})).status == 412
    assert (await api.ask("DELETE", path, headers={"If-Match": "*"})).status == 204


async def test_an_unchanged_endpoint_need_not_be_sent_again(api):
    made = await api.ask("POST", "/endpoints", GOOD)
    path = f"/endpoints/{made.json['id']}"
    same = await api.ask("GET", path, headers={"If-None-Match": f"W/{made.headers['ETag']}"})
    assert (same.status, same.raw) == (304, b"")


@pytest.mark.parametrize("field", ["profile", "tenant"])
async def test_profile_and_tenant_never_change(api, field):
    made = await api.ask("POST", "/endpoints", GOOD)
    path = f"/endpoints/{made.json['id']}"
    assert (await api.ask("PATCH", path, {field: made.json[field]})).status == 200
    assert (await api.ask("PATCH", path, {field: "wms"})).status == 409


async def test_every_field_at_fault_is_told(api):
    refused = await api.ask(
        "POST",
        "/endpoints",
        {"name": "", "url": "ftp://x", "event_types": [], "ordering": "random", "nmae": 1},
    )
    assert refused.status == 422
    assert sorted(refused.faults) == ["event_types", "name", "nmae", "ordering", "url"]


OFTEN_WRONG = [
    ("POST", "/events", {"type": "x"}, ["data", "type"]),
    (
        "POST",
        "/events",
        {"type": "x", "data": [], "id": "a b", "tenant": "XX", "labels": {"A": 1}, "foo": 1},
        ["data", "foo", "id", "labels", "labels.A", "tenant", "type"],
    ),
    (
        "POST",
        "/events",
        {"type": "a.b", "occurred_at": "1960-01-01T00:00:00Z"},
        ["data", "occurred_at"],
    ),
    (
        "POST",
        "/tokens",
        {"name": "", "role": "root", "tenant": "XX", "expires_at": "2020-01-01T00:00:00Z", "x": 1},
        ["expires_at", "name", "role", "tenant", "x"],
    ),
    (
        "GET",
        "/deliveries?limit=0&state=foo&since=x&foo=1",
        None,
        ["foo", "limit", "since", "state"],
    ),
    (
        "GET",
        "/deliveries?limit=501&request_id=x&label=A=1&cursor=zz&state=x",
        None,
        ["cursor", "label", "limit", "request_id", "state"],
    ),
    ("GET", "/endpoints?state=zz&limit=x", None, ["limit", "state"]),
    ("GET", "/events?type=a.b&event_type=a.b&limit=0", None, ["event_type", "limit"]),
    ("GET", "/audit?since=2026-01-01&limit=0&cursor=zz", None, ["cursor", "limit", "since"]),
    (
        "POST",
        "/endpoints/ID/test",
        {"event_type": "BAD", "data": [], "x": 1},
        ["data", "event_type", "x"],
    ),
    (
        "POST",
        "/endpoints/ID/rotate-secret",
        {"secret": "short", "overlap_seconds": -1, "x": 1},
        ["overlap_seconds", "secret", "x"],
    ),
    (
        "POST",
        "/endpoints/ID/rotate-secret",
        {"activate_staged": True, "secret": "short", "x": 1},
        ["secret", "x"],
    ),
    (
        "POST",
        "/jobs",
        {
            "kind": "replay",
            "filter": {"labels": {"A": "1"}, "label": ["a=1"], "state": 1},
            "dry_run": "x",
            "rate_per_second": 0,
            "cursor": "z",
        },
        ["cursor", "dry_run", "filter.labels", "filter.state", "rate_per_second"],
    ),
    (
        "POST",
        "/jobs",
        {"kind": "resend", "to": "erp", "filter": {}, "dry_run": "x"},
        ["dry_run", "filter", "to"],
    ),
    ("POST", "/endpoints/ID/recover", {"since": "2h", "x": 1}, ["since", "x"]),
]


@pytest.mark.parametrize(("method", "path", "fields", "at_fault"), OFTEN_WRONG)
async def test_all_faults_are_told_at_once_and_in_words_of_ours(
    api, method, path, fields, at_fault
):
    if "ID" in path:
        made = await api.ask("POST", "/endpoints", GOOD)
        path = path.replace("ID", made.json["id"])
    refused = await api.ask(method, path, fields)
    assert (refused.status, sorted(refused.faults)) == (422, at_fault)
    for error in refused.json["errors"]:
        assert error["code"] in SENTENCES, error
        assert error["message"].endswith("."), error
        assert error["fix"].endswith("."), error


async def test_an_endpoint_is_paused_and_resumed(api):
    path = f"/endpoints/{(await api.ask('POST', '/endpoints', GOOD)).json['id']}"
    assert (await api.ask("POST", f"{path}/pause")).json["state"] == "paused"
    assert (await api.ask("POST", f"{path}/pause")).json["state"] == "paused"
    assert (await api.ask("POST", f"{path}/resume")).json["state"] == "active"


async def test_a_secret_is_rotated_staged_switched_and_revealed(api):
    made = await api.ask("POST", "/endpoints", GOOD | {"profile": "wms"})
    path = f"/endpoints/{made.json['id']}"
    staged = await api.ask("POST", f"{path}/rotate-secret")
    assert staged.json["state"] == "staged"
    assert (await api.ask("GET", f"{path}/secret")).json == {
        "endpoint_id": made.json["id"],
        "secret": made.json["secret"],
        "also_sign_secrets": {},
        "staged_secret": staged.json["secret"],
        "public_key": None,
    }
    switched = await api.ask("POST", f"{path}/rotate-secret", {"activate_staged": True})
    assert switched.json["staged_secret"] is None
    assert (await api.ask("GET", f"{path}/secret")).json["secret"] == staged.json["secret"]
    both = {"activate_staged": True, "secret": "x" * 40}
    assert (await api.ask("POST", f"{path}/rotate-secret", both)).faults == ["secret"]
    overlap = await api.ask("POST", f"{path}/rotate-secret", {"overlap_seconds": 5})
    assert (overlap.status, overlap.faults) == (422, ["overlap_seconds"])
    lines = (await api.ask("GET", f"/audit?object={made.json['id']}")).json["items"]
    assert [line["action"] for line in lines] == [
        "endpoint.reveal_secret",
        "endpoint.activate_secret",
        "endpoint.reveal_secret",
        "endpoint.stage_secret",
        "endpoint.create",
    ]
    assert {line["actor"] for line in lines} == {"admin-token"}


async def test_each_step_of_a_rotation_is_a_new_version_of_the_endpoint(api):
    made = await api.ask("POST", "/endpoints", GOOD | {"profile": "wms"})
    path, tags = f"/endpoints/{made.json['id']}", [made.headers["ETag"]]
    for fields in ({}, {"activate_staged": True}, {"activate": True}):
        step = await api.ask("POST", f"{path}/rotate-secret", fields)
        shown = await api.ask("GET", path, headers={"If-None-Match": tags[-1]})
        assert shown.status == 200
        assert step.headers.get("ETag", shown.headers["ETag"]) == shown.headers["ETag"]
        tags.append(shown.headers["ETag"])
    assert len(set(tags)) == 4


async def test_rotation_reports_when_the_last_old_secret_stops_signing(api):
    path = f"/endpoints/{(await api.ask('POST', '/endpoints', GOOD)).json['id']}"
    told = []
    for overlap in (600, 60, 0):
        rotated = await api.ask("POST", f"{path}/rotate-secret", {"overlap_seconds": overlap})
        told.append(rotated.json["previous_secret_expires_at"])
        assert told[-1] == (await api.ask("GET", path)).json["previous_secret_expires_at"]
    assert told[0] == told[1] is not None, "the first one's overlap still runs"
    assert told[2] is None


async def test_an_event_keeps_its_bytes(api):
    body = f'{{"type":"order.created","data":{THAI} ,"labels":{{"branch":"bkk"}}}}'.encode()
    made = await api.ask("POST", "/events", raw=body)
    assert made.status == 201
    assert f'"data":{THAI},'.encode() in made.raw
    shown = await api.ask("GET", made.headers["Location"].removeprefix("/api/v1"))
    assert f'"data":{THAI},'.encode() in shown.raw


async def test_a_known_id_answers_the_first_event_and_publishes_nothing(api, connection):
    first = {"type": "order.created", "data": {"n": 1}, "id": "order-1"}
    assert (await api.ask("POST", "/events", first)).status == 201
    again = await api.ask("POST", "/events", first | {"data": {"n": 2}})
    assert (again.status, again.json["data"]) == (200, {"n": 1})
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.outbox") == 1


async def test_event_id_of_another_tenant_conflicts_and_admins_see_its_owner(api):
    first = {"type": "order.created", "data": {}, "id": "order-1", "tenant": "acme"}
    assert (await api.ask("POST", "/events", first)).status == 201
    again = await api.ask("POST", "/events", first | {"tenant": "zen"})
    assert (again.status, "of the tenant acme" in again.json["detail"]) == (409, True)
    fields = {"name": "zen", "role": "operator", "tenant": "zen"}
    token = (await api.ask("POST", "/tokens", fields)).json["token"]
    own = await api.ask("POST", "/events", first | {"tenant": "zen"}, token=token)
    assert (own.status, "acme" in own.json["detail"]) == (409, False)


async def test_an_event_has_all_the_columns_of_the_outbox(api):
    fields = {
        "type": "order.created",
        "data": {},
        "tenant": "acme",
        "occurred_at": "2026-05-29T21:32:11.1234567+07:00",
        "ordering_key": "k",
        "labels": {"branch": "bkk"},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    reply = await api.ask("POST", "/events", fields)
    assert reply.status == 201, reply.raw
    made = reply.json
    assert made["occurred_at"] == "2026-05-29T14:32:11.123456Z"
    same = ("type", "tenant", "ordering_key", "labels", "traceparent")
    assert {name: made[name] for name in same} == {name: fields[name] for name in same}
    found = await api.ask("GET", "/events?label=branch=bkk&tenant=acme")
    assert [one["id"] for one in found.json["items"]] == [made["id"]]


async def test_an_event_is_explained(api):
    await api.ask("POST", "/endpoints", GOOD)
    made = await api.ask("POST", "/events", {"type": "stock.changed", "data": {}})
    told = (await api.ask("GET", f"/events/{made.json['id']}/explain")).json
    assert [one["why"] for one in told["endpoints"]] == ["not_subscribed"]


async def test_a_content_filter_is_stored_tried_and_explained(api):
    expression = 'data.total > 1000 && labels.region == "th"'
    made = await api.ask("POST", "/endpoints", GOOD | {"content_filter": expression})
    assert made.json["content_filter"] == expression
    events = [
        {"type": "order.created", "data": {"total": total}, "labels": labels}
        for total, labels in ((1500, {"region": "th"}), (900, {"region": "th"}), (1500, {}))
    ]
    ids = [(await api.ask("POST", "/events", one)).json["id"] for one in events]
    tried = await api.ask("POST", "/content-filters/test", {"content_filter": expression})
    assert tried.status == 200, tried.raw
    counts = ("checked_count", "matched_count", "error_count")
    assert [tried.json[name] for name in counts] == [3, 1, 1]
    newest = tried.json["events"][0]
    assert (newest["id"], newest["matched"], newest["error"]) == (
        ids[2],
        False,
        "there is no 'region'",
    )
    some = {"content_filter": "true", "type": "stock.*", "limit": 1}
    assert (await api.ask("POST", "/content-filters/test", some)).json["checked_count"] == 0
    told = [(await api.ask("GET", f"/events/{one}/explain")).json["endpoints"][0] for one in ids]
    assert [one["why"] for one in told] == ["waiting_in_outbox", "filtered", "filter_error"]
    assert "data.total is 900" in told[1]["explanation"]
    assert "labels.region is missing" in told[2]["explanation"]
    path = f"/endpoints/{made.json['id']}"
    wrong = await api.ask("PATCH", path, {"content_filter": "data.l.map(x, x) == []"})
    assert wrong.status == 422
    assert [one["code"] for one in wrong.json["errors"]] == ["filter_too_complex"]
    assert (await api.ask("PATCH", path, {"content_filter": None})).json["content_filter"] is None


async def test_the_catalogue_is_listed_with_its_samples(api):
    page = (await api.ask("GET", "/event-types")).json
    found = {one["name"]: one for one in page["items"]}
    assert found["order.created"]["group"] == "outbound"
    assert found["order.created"]["title"].keys() == {"th", "en"}
    assert isinstance(found["order.created"]["sample"], dict)


async def test_a_test_event_answers_with_its_attempt_and_can_be_found(api):
    receiver = Receiver(ReceiverRoute(behaviour=Behaviour(status=500)))
    port = await receiver.start("127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{port}/hook"
        made = await api.ask("POST", "/endpoints", GOOD | {"profile": "wms", "url": url})
        sent = await api.ask("POST", f"/endpoints/{made.json['id']}/test")
    finally:
        await receiver.stop()
    assert (sent.status, sent.json["state"], sent.json["test"]) == (200, "failed", True)
    assert [one["response_code"] for one in sent.json["attempts"]] == [500]
    path = f"/deliveries/{sent.json['id']}"
    shown = (await api.ask("GET", path)).json
    assert shown["attempts"] == sent.json["attempts"]
    assert shown["state"] == "failed"
    assert shown["finished_at"] == sent.json["finished_at"]
    page = await api.ask("GET", f"/deliveries?test=true&endpoint_id={made.json['id']}")
    assert [one["id"] for one in page.json["items"]] == [sent.json["id"]]
    assert (await api.ask("GET", "/deliveries?test=false")).json["items"] == []
    assert (await api.ask("POST", f"{path}/resend")).status == 409
    assert (await api.ask("POST", f"{path}/cancel")).status == 409


async def test_a_job_is_counted_created_and_ended(api):
    fields = {"kind": "resend", "filter": {"state": "failed", "since": "2026-01-01T00:00:00Z"}}
    counted = await api.ask("POST", "/jobs", fields | {"dry_run": True})
    assert counted.status == 200
    assert counted.json == {"count": 0, "skipped": {}, "is_complete": True, "counted_until": None}
    made = await api.ask("POST", "/jobs", fields)
    assert (made.status, made.json["state"], made.json["total_count"]) == (201, "pending", None)
    path = f"/jobs/{made.json['id']}"
    assert (await api.ask("GET", "/jobs")).json["items"] == [made.json]
    assert (await api.ask("POST", f"{path}/resume")).json["code"] == "job_not_paused"
    assert (await api.ask("POST", f"{path}/pause")).json["state"] == "paused"
    assert (await api.ask("POST", f"{path}/pause")).status == 409
    assert (await api.ask("POST", f"{path}/resume")).json["state"] == "pending"
    assert (await api.ask("POST", f"{path}/cancel")).json["state"] == "cancelled"
    assert (await api.ask("POST", f"{path}/cancel")).status == 409
    wrong = await api.ask("POST", "/jobs", fields | {"filter": {"state": "bad", "x": 1}})
    assert sorted(wrong.faults) == ["filter.state", "filter.x"]


async def test_a_filter_names_labels_in_either_form_and_not_in_both(api):
    path, job = "/jobs", {"kind": "resend", "dry_run": True}
    for form in ({"label": ["order_id=1"]}, {"label": "order_id=1"}, {"labels": {"order_id": "1"}}):
        assert (await api.ask("POST", path, job | {"filter": form})).status == 200
    both = {"label": ["order_id=1"], "labels": {"order_id": "1"}}
    assert (await api.ask("POST", path, job | {"filter": both})).faults == ["filter.labels"]
    wrong = await api.ask("POST", path, job | {"filter": {"label": ["order_id"]}})
    assert wrong.faults == ["filter.label"]


async def test_events_are_listed_by_type(api):
    for event_type in ("order.created", "order.shipped"):
        assert (await api.ask("POST", "/events", {"type": event_type, "data": {}})).status == 201
    for query in ("type=order.shipped", "event_type=order.shipped"):
        page = await api.ask("GET", f"/events?{query}")
        assert [one["type"] for one in page.json["items"]] == ["order.shipped"]
    assert (await api.ask("GET", "/events?type=a.b&event_type=a.b")).faults == ["event_type"]


async def test_a_token_is_made_used_and_revoked(api):
    made = await api.ask("POST", "/tokens", {"name": "erp", "role": "viewer", "tenant": "acme"})
    assert made.status == 201
    text = made.json["token"]
    assert (await api.ask("GET", "/endpoints", token=text)).status == 200
    listed = await api.ask("GET", "/tokens")
    assert text not in listed.raw.decode()
    assert listed.json["items"][0]["prefix"] == text[:12]
    assert (await api.ask("DELETE", f"/tokens/{made.json['id']}")).status == 204
    assert (await api.ask("GET", "/endpoints", token=text)).status == 401
    assert (await api.ask("DELETE", f"/tokens/{made.json['id']}")).status == 204


async def test_pages_follow_each_other_without_a_gap(api):
    for number in range(5):
        await api.ask("POST", "/endpoints", GOOD | {"name": f"e{number}"})
    names, cursor = [], ""
    while True:
        page = (await api.ask("GET", f"/endpoints?limit=2{cursor}")).json
        names += [one["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert names == ["e4", "e3", "e2", "e1", "e0"]


@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z"]
)
async def test_an_event_may_occur_in_the_first_and_the_last_second(api, at):
    fields = {"type": "order.created", "data": {"a": 1}, "occurred_at": at}
    made = await api.ask("POST", "/events", fields)
    assert made.status == 201, made.raw
    assert made.json["occurred_at"][:19] == at[:19]
    shown = await api.ask("GET", f"/events/{made.json['id']}")
    assert shown.json["occurred_at"] == made.json["occurred_at"]


async def test_published_keys_need_no_token_and_are_cacheable(api):
    fields = GOOD | {"profile": "standard", "key_type": "ed25519"}
    made = (await api.ask("POST", "/endpoints", fields)).json
    path = f"//.well-known/dispatcher/keys?endpoint={made['id']}"
    found = await api.ask("GET", path, token="")
    assert found.status == 200
    assert found.headers["Content-Type"] == "application/jwk-set+json"
    assert found.headers["Cache-Control"] == "public, max-age=300"
    (key,) = found.json["keys"]
    assert {key["kty"], key["crv"], key["alg"]} == {"OKP", "Ed25519", "EdDSA"}
    known = {"If-None-Match": found.headers["ETag"]}
    assert (await api.ask("GET", path, token="", headers=known)).status == 304
    other = "//.well-known/dispatcher/keys"
    assert (await api.ask("GET", f"{other}?endpoint=ep_none", token="")).status == 404
    for query in (
        "",
        "?endpoint=",
        "?endpoint=%00",
        "?endpoint=a&endpoint=b",
        "?endpoint=" + "x" * 999,
    ):
        refused = await api.ask("GET", other + query, token="")
        assert (refused.status, refused.faults) == (422, ["endpoint"])
        assert refused.json["errors"][0]["fix"].startswith("Add ?endpoint=ID")
    shared = (await api.ask("POST", "/endpoints", GOOD | {"name": "shared"})).json
    assert (await api.ask("GET", f"{other}?endpoint={shared['id']}", token="")).json == {"keys": []}
