"""Access, Activity and System: each role and tenant sees its own, and every text is one person's."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dispatcher.admin
from dispatcher.admin.console import languages
from dispatcher.admin.console.pages.system import checks_of
from dispatcher.admin.resources.system import (
    OutboxBacklog,
    Partition,
    PartitionDay,
    Postgres,
    Replica,
    SystemStatus,
    TextIndex,
)
from dispatcher.admin.resources.token import NewToken
from dispatcher.store.audit import write_audit
from tests.console.conftest import ALL
from tests.support.endpoints import create_endpoint, update_endpoint

pytestmark = pytest.mark.postgres

ADMIN = Path(dispatcher.admin.__path__[0])
ADMIN_PAGES = ("/access", "/access/sessions", "/access/people", "/activity")


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_admin_pages_are_for_admins_of_their_tenant(served, role):
    await served.as_role("viewer", "globex")
    client = await served.as_role(role, "acme")
    for path in ADMIN_PAGES:
        page = await client.get(path)
        assert page.status == (200 if role == "admin" else 403), path
        assert "globex" not in page.text, path
    assert (await client.get("/system")).status == 200
    assert (await client.get("/system/settings")).status == 404


async def test_session_is_listed_and_ended_by_its_tenants_admin_alone(served, sql):
    acme = await served.as_role("admin", "acme")
    globex = await served.as_role("admin", "globex")
    victim = await served.as_role("viewer", "acme")
    page = await acme.get("/access/sessions")
    ids = set(re.findall(r"/access/sessions/(ses_\w+)/end", page.text))
    known = await sql.fetch("SELECT id, role FROM dispatcher.session WHERE tenant = 'acme'")
    assert ids == {row["id"] for row in known}
    [target] = [row["id"] for row in known if row["role"] == "viewer"]
    path = f"/access/sessions/{target}/end"
    assert (await globex.submit(path, {}, page="/access/sessions")).status == 404
    assert (await victim.post(path, {})).status == 403
    assert (await victim.get("/deliveries")).status == 200
    assert (await acme.submit(path, {}, page="/access/sessions")).status == 303
    assert (await victim.get("/deliveries")).status == 303
    assert "The session has ended." in (await acme.get("/access/sessions")).text


async def test_tokens_show_their_state_and_offer_no_second_revocation(served, admin, sql):
    tokens = served.operations.tokens
    made = {
        name: await tokens.create(ALL, NewToken.of(name=name, role="viewer"))
        for name in ("alive", "expired", "revoked")
    }
    await tokens.revoke(ALL, made["revoked"].id)
    await sql.execute(
        "UPDATE dispatcher.token SET expires_at = now() - interval '1 day' WHERE name = 'expired'"
    )
    page = (await admin.get("/access")).text
    rows = {name: page.partition(f">{name}</th>")[2].partition("</tr>")[0] for name in made}
    states = {name: re.search(r'class="dot \w+">([^<]*)<', row) for name, row in rows.items()}
    assert {name: found and found[1] for name, found in states.items()} == {
        "alive": "Active", "expired": "Expired", "revoked": "Revoked",
    }  # fmt: skip
    assert {name: "/revoke" in row for name, row in rows.items()} == {
        "alive": True, "expired": True, "revoked": False,
    }  # fmt: skip
    moved = await admin.get("/tokens")
    assert (moved.status, moved.headers["Location"]) == (303, "/access")


async def test_activity_shows_sentences_names_and_differences(served, admin):
    endpoints = served.operations.endpoints
    fields = {"name": "ERP", "url": "https://example.com/a", "event_types": ["*"]}
    endpoint = await create_endpoint(endpoints, ALL, fields)
    change = {
        "max_concurrency": 3,
        "url": "https://example.com/hook?sig=S3CRET",
        "headers": {"X-Token": "S3CRET"},
        "name": "2026-99-99T99:99:99Z",
    }
    await update_endpoint(endpoints, ALL, endpoint.id, change)
    page = (await admin.get("/activity")).text
    assert re.search(r"<strong>tester \(command line\)</strong> changed a Webhook", page)
    assert f'<a href="/webhooks/{endpoint.id}">2026-99-99T99:99:99Z</a>' in page
    assert "<del>ERP</del>" in page
    assert re.search(r"<ins>3</ins>", page)
    assert "S3CRET" not in page
    entries = (await served.operations.audit.page(ALL)).items
    detail = next(one.detail for one in entries if one.action == "endpoint.update")
    assert set(detail["changed"]) == {"max_concurrency", "url", "headers", "name"}
    assert set(detail["after"]) == {"max_concurrency", "url", "name"}
    assert "S3CRET" not in str(entries)


async def test_activity_folds_sign_ins_and_names_people(served, sql):
    client = await served.client().sign_in()
    for _ in range(3):
        await served.client().sign_in()
    page = (await client.get("/activity")).text
    assert "4 sign-ins and sign-outs" in page
    await sql.execute(
        "INSERT INTO dispatcher.person (id, issuer, subject, name, role)"
        " VALUES ('per_1', 'i', 's', '<b>Ada</b>', 'admin')"
    )
    await write_audit(sql, "oidc:per_1", "*", "token.revoke", "tok_1", {"name": "old"})
    page = (await client.get("/activity?by=oidc:per_1")).text
    assert "<strong>&lt;b&gt;Ada&lt;/b&gt;</strong> revoked a token" in page
    assert "<b>Ada" not in page


def test_activity_every_audited_action_has_its_words():
    source = "\n".join(path.read_text(encoding="utf-8") for path in ADMIN.rglob("*.py"))
    groups = "endpoint|delivery|event|token|session|link|notification|secrets|retention"
    used = {
        found[0] for found in re.findall(rf'"(({groups})\.([a-z_]+))"', source) if found[2] in VERBS
    }
    assert len(used) > 25
    for language in languages.load().values():
        known = {key.removeprefix("action.") for key in language.texts if key.startswith("action.")}
        assert used - known == set(), language.code


VERBS = {
    "create", "update", "delete", "pause", "resume", "test", "retry", "rotate_secret", "stage_secret",
    "activate_secret", "reveal_secret", "resend", "cancel", "erase", "release", "revoke", "open", "close",
    "end", "rekey", "run",
}  # fmt: skip


async def test_settings_show_their_source_and_no_secret(admin):
    page = (await admin.get("/system/settings")).text
    assert "DISPATCHER_EGRESS__ALLOW_HTTP" in page
    assert "oidc.roles" in page
    for secret in ("QUJD", "admin-token-of-the-tests", "postgresql://"):
        assert secret not in page


def status_of(**changes) -> SystemStatus:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    replica = Replica(
        incarnation="i", name="r", version="1", started_at=None, lease_renewed_seconds_ago=1.0,
        lease_expires_at=None, shards_count=64, figures_at=None, figures=None,
    )  # fmt: skip
    days = [(now + timedelta(days=number)).date().isoformat() for number in range(-2, 8)]
    values = {
        "at": now.isoformat(),
        "replicas": [replica],
        "shards_free_count": 0,
        "breakers": [],
        "outbox": OutboxBacklog(backlog_count=0, backlog_capped=False, lag_seconds=0.0),
        "text_index": TextIndex(enabled=False, extension_installed=False, days=[]),
        "hot_tables": [],
        "partitions": [
            PartitionDay(day=day, bytes=1, tables=[Partition(table="event", bytes=1, rows_estimate=1)])
            for day in days
        ],
        "postgres": Postgres(
            version="15", bytes=1, connections_count=10, connections_max=100, notify_queue_usage=0.0,
            oldest_xmin_age=1, oldest_transaction_seconds=None,
        ),
    }  # fmt: skip
    return SystemStatus(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"replicas": []}, {"replicas": "bad"}),
        ({"shards_free_count": 3}, {"shards": "warn"}),
        (
            {"outbox": OutboxBacklog(backlog_count=1, backlog_capped=False, lag_seconds=61.0)},
            {"outbox": "bad"},
        ),
        (
            {
                "postgres": Postgres(
                    version="15", bytes=1, connections_count=95, connections_max=100,
                    notify_queue_usage=0.2, oldest_xmin_age=1, oldest_transaction_seconds=4_000.0,
                )
            },
            {"connections": "bad", "notify": "warn", "transaction": "warn"},
        ),
        ({"partitions": [PartitionDay(day="2026-05-01", bytes=1, tables=[])]}, {"partitions": "bad"}),
        ({"postgres": None, "partitions": []}, {}),
    ],
    ids=["good", "no_replica", "shards", "outbox", "postgres", "partitions", "one_tenant"],
)  # fmt: skip
def test_checks_put_what_is_wrong_first(changes, expected):
    checks = checks_of(status_of(**changes))
    wrong = {check.key: check.tone for check in checks if check.tone != "good"}
    assert wrong == expected
    tones = [check.tone for check in checks]
    assert tones == sorted(tones, key=("bad", "warn", "good").index)
