"""Notifications on the real database and a real SMTP server: each message once, whatever dies in between."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.notifications import NotificationOperations
from dispatcher.admin.resources.notification import NewNotification, NotificationChange
from dispatcher.cli.session import deployment_of
from dispatcher.config.sections import SmtpSettings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConflictError, InvalidRequestError
from dispatcher.core.notifying import Problem
from dispatcher.maintenance.notifications import NotificationLoop
from dispatcher.outbound.mail import Mailer
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.notifications import Notifications, Turn
from dispatcher.store.pool import Database
from tests.support.certificates import Authority
from tests.support.daemon import free_port
from tests.support.endpoints import create_endpoint, update_endpoint
from tests.support.mailbox import PASSWORD, Inbox, smtp_server

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
KEY = "k1:" + "QUJD" * 10 + "QUI="


@pytest.fixture
async def deployment(database: str, pool: Database) -> Deployment:
    environ = {
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_SMTP__HOST": "127.0.0.1",
        "DISPATCHER_SMTP__SENDER": "dispatcher@example.com",
    }
    return deployment_of(load_settings(None, environ), pool)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp_port(inbox: Inbox, authority: Authority) -> Iterator[int]:
    with smtp_server(
        inbox,
        free_port(),
        tls_context=authority.server_context("127.0.0.1"),
        require_starttls=True,
        authenticator=inbox.authenticate,
        auth_required=True,
    ) as port:
        yield port


def mailer(port: int, tmp_path: Path, authority: Authority, **how: Any) -> Mailer:
    ca_file = tmp_path / "smtp-ca.pem"
    ca_file.write_text(authority.pem)
    settings = SmtpSettings(
        host="127.0.0.1", port=port, username="dispatcher", sender="Dispatcher <d@example.com>"
    )
    return Mailer(settings, how.pop("password", PASSWORD), ca_file=str(ca_file), **how)


async def add_endpoint(sql: asyncpg.Connection, endpoint_id: str, profile: str = "wms") -> None:
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ($1, 'acme', $2, 'https://x.test/', $3, '{*}', 5)",
        endpoint_id,
        f"Name of {endpoint_id}",
        profile,
    )


async def happens(sql: asyncpg.Connection, kind: str, endpoint_id: str) -> None:
    """Raise an operational event as the daemon does, with the row of health that it follows from."""
    if kind == "endpoint.failing":
        await sql.execute(
            "INSERT INTO dispatcher.endpoint_health (endpoint_id, first_failure_at, failed_attempts)"
            " VALUES ($1, now(), 9) ON CONFLICT DO NOTHING",
            endpoint_id,
        )
    if kind == "endpoint.recovered":
        await sql.execute(
            "DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = $1", endpoint_id
        )
    data = {"endpoint_id": endpoint_id, "endpoint_name": f"Name of {endpoint_id}", "reason": "down"}
    await sql.execute(
        "INSERT INTO dispatcher.outbox (operational, type, tenant, data)"
        " VALUES (true, $1, 'acme', $2::text::json)",
        f"dispatcher.{kind}",
        orjson.dumps(data).decode(),
    )


async def messages(sql: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await sql.fetch(
        "SELECT data->>'kind', labels->>'endpoint' FROM dispatcher.outbox"
        " WHERE type = 'dispatcher.notification' ORDER BY position"
    )
    return [(row[0], row[1]) for row in rows]


PUBLIC_URL = "https://hooks.example.com"


def loop_of(pool: Database, mail: Mailer | None = None) -> NotificationLoop:
    return NotificationLoop(Notifications(pool), mail, clock=SystemClock(), public_url=PUBLIC_URL)


EP = "ep_" + "0" * 25 + "1"
CHAT = "ep_" + "0" * 25 + "2"


async def test_problem_gives_its_target_two_messages_across_replicas(pool, sql, deployment):
    await add_endpoint(sql, EP)
    await add_endpoint(sql, CHAT, "slack")
    await happens(sql, "endpoint.failing", EP)
    operations = NotificationOperations(deployment)
    made = await operations.create(ALL, NewNotification.of(name="chat", to_endpoint_id=CHAT))
    first, second = loop_of(pool), loop_of(pool)
    assert await first.turn() == [], "what was there before the rule is not its business"
    await happens(sql, "endpoint.failing", EP)
    for _ in range(2):
        async with asyncio.TaskGroup() as group:
            group.create_task(first.turn())
            group.create_task(second.turn())
    assert await messages(sql) == [("started", CHAT)]
    link = await sql.fetchval(
        "SELECT data->>'link' FROM dispatcher.outbox WHERE type = 'dispatcher.notification'"
    )
    assert link == f"{PUBLIC_URL}/webhooks/{EP}"
    assert (await operations.show(ALL, made.id)).open_count == 1
    await happens(sql, "endpoint.recovered", EP)
    await second.turn()
    await first.turn()
    assert await messages(sql) == [("started", CHAT), ("ended", CHAT)]
    inbox = await sql.fetchval("SELECT count(*) FROM dispatcher.notification_inbox")
    assert inbox == 0, "messages themselves are not in it"


async def test_turn_that_dies_is_undone_and_repeated_whole(pool, sql, deployment):
    """A crash between the message and the problem's row would repeat the message, or lose its end."""
    await add_endpoint(sql, EP)
    await add_endpoint(sql, CHAT, "slack")
    await NotificationOperations(deployment).create(
        ALL, NewNotification.of(name="chat", to_endpoint_id=CHAT)
    )
    await happens(sql, "endpoint.failing", EP)

    class DyingTurn(Turn):
        async def save(self, one: Problem) -> None:
            await super().save(one)
            raise ZeroDivisionError

    class Dying(Notifications):
        @asynccontextmanager
        async def turn(self) -> AsyncIterator[Turn | None]:
            async with super().turn() as turn:
                assert turn is not None
                yield DyingTurn(turn._connection)

    dying = NotificationLoop(Dying(pool), None, clock=SystemClock())
    with pytest.raises(ZeroDivisionError):
        await dying.turn()
    assert await messages(sql) == []
    loop = loop_of(pool)
    await loop.turn()
    await loop.turn()
    assert await messages(sql) == [("started", CHAT)]
    await sql.execute("DELETE FROM dispatcher.endpoint_health")
    await loop.turn()
    assert await messages(sql) == [("started", CHAT), ("ended", CHAT)], (
        "without an event of its end"
    )


async def test_mail_arrives_encrypted_once_and_again_after_a_refusal(
    pool, sql, deployment, inbox, smtp_port, tmp_path, authority
):
    await add_endpoint(sql, EP)
    await NotificationOperations(deployment).create(
        ALL, NewNotification.of(name="mail", email="ops@example.com")
    )
    await happens(sql, "endpoint.failing", EP)
    loop = loop_of(pool, mailer(smtp_port, tmp_path, authority))
    await loop.turn()
    inbox.refusals.append("451 try again")
    assert await loop.send_one()
    assert inbox.mails == []
    assert not await loop.send_one(), "it waits for its next attempt"
    await sql.execute("UPDATE dispatcher.notification_mail SET due_at = now()")
    assert await loop.send_one()
    await happens(sql, "endpoint.recovered", EP)
    await loop.turn()
    assert await loop.send_one()
    assert not await loop.send_one()
    subjects = [mail["Subject"] for mail in inbox.mails]
    name = f"Name of {EP}"
    assert subjects == [f"Webhook {name} is failing", f"Webhook {name} has recovered"]
    assert inbox.mails[0]["To"] == "ops@example.com"
    assert f"Webhook: {name} ({EP})" in inbox.mails[0].get_payload()
    assert f"Console: {PUBLIC_URL}/webhooks/{EP}" in inbox.mails[0].get_payload()
    assert inbox.encrypted == [True, True]
    assert set(inbox.logins) == {(b"dispatcher", PASSWORD.encode())}
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.notification_mail") == 0


async def test_server_that_hangs_is_left_after_its_time_and_blocks_no_turn(
    pool, sql, deployment, tmp_path, authority
):
    await add_endpoint(sql, EP)
    await add_endpoint(sql, CHAT, "slack")
    operations = NotificationOperations(deployment)
    await operations.create(ALL, NewNotification.of(name="mail", email="ops@example.com"))
    await operations.create(ALL, NewNotification.of(name="chat", to_endpoint_id=CHAT))
    await happens(sql, "endpoint.failing", EP)
    connected = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = loop_of(pool, mailer(port, tmp_path, authority, seconds_max=1.5))
    await loop.turn()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        sending = group.create_task(loop.send_one())
        await connected.wait()
        await happens(sql, "endpoint.recovered", EP)
        await loop.turn()
        assert await messages(sql) == [("started", CHAT), ("ended", CHAT)]
        assert not sending.done()
    assert sending.result()
    waiting = await sql.fetch("SELECT attempt_count FROM dispatcher.notification_mail ORDER BY id")
    assert [row[0] for row in waiting] == [1, 0], "the mail is kept for another attempt"
    server.close()


async def test_wrong_password_or_certificate_is_an_error_without_the_password(
    pool, sql, deployment, inbox, smtp_port, tmp_path, authority, caplog
):
    await add_endpoint(sql, EP)
    rule = await NotificationOperations(deployment).create(
        ALL, NewNotification.of(name="mail", email="ops@example.com")
    )
    for other in (
        mailer(smtp_port, tmp_path, authority, password="wrong-canary"),  # noqa: S106 -- of the test
        mailer(smtp_port, tmp_path, Authority(tmp_path, name="Another")),
    ):
        await NotificationOperations(deployment).test(ALL, rule.id)
        assert await loop_of(pool, other).send_one()
        await sql.execute("DELETE FROM dispatcher.notification_mail")
    assert inbox.mails == []
    assert "canary" not in caplog.text


async def test_pasted_webhook_url_is_a_sealed_secret(deployment, sql):
    made = await create_endpoint(
        Endpoints(deployment),
        ALL,
        {
            "name": "ops",
            "profile": "slack",
            "url": "https://hooks.slack.com/services/T0/B0/canary",
            "event_types": ["dispatcher.notification"],
        },
    )
    assert made.url == "https://hooks.slack.com/"
    assert made.secret == "/services/T0/B0/canary"  # noqa: S105 -- of the test
    shown = await Endpoints(deployment).show(Actor(name="v", role=Role.VIEWER), made.id)
    assert "canary" not in str(shown)
    rows = [
        str(dict(row))
        for table in ("endpoint", "endpoint_revision", "endpoint_secret", "audit")
        for row in await sql.fetch(f"SELECT * FROM dispatcher.{table}")
    ]
    assert not any("canary" in row for row in rows)
    with pytest.raises(InvalidRequestError) as caught:
        await update_endpoint(
            Endpoints(deployment), ALL, made.id, {"url": "https://hooks.slack.com/services/other"}
        )
    assert [one.code for one in caught.value.problems] == ["url_holds_secret"]
    for profile in ("line", "discord"):
        with pytest.raises(InvalidRequestError) as caught:
            await create_endpoint(
                Endpoints(deployment),
                ALL,
                {"name": "x", "profile": profile, "url": "https://x.test/", "event_types": ["*"]},
            )
        assert [one.code for one in caught.value.problems] == ["secret_issued"]


async def test_rule_that_could_not_send_is_refused_with_every_fault(deployment, sql):
    await add_endpoint(sql, EP)
    await add_endpoint(sql, CHAT, "line")
    create = NotificationOperations(deployment).create

    async def codes(**fields: Any) -> list[tuple[str, str]]:
        with pytest.raises(InvalidRequestError) as caught:
            await create(ALL, NewNotification.of(**({"name": "n"} | fields)))
        return [(one.field, one.code) for one in caught.value.problems]

    assert await codes() == [("to_endpoint_id", "no_target")]
    assert await codes(email="a@b.test", to_endpoint_id=EP) == [("email", "conflicting")]
    assert await codes(to_endpoint_id=CHAT) == [("recipient", "recipient_required")]
    unknown = "ep_" + "0" * 25 + "9"
    assert await codes(to_endpoint_id=unknown, endpoint_ids=[unknown]) == [
        ("endpoint_ids[0]", "endpoint_not_found"),
        ("to_endpoint_id", "target_not_found"),
    ]
    assert await codes(to_endpoint_id=CHAT, tenant="other", recipient="U1") == [
        ("to_endpoint_id", "target_not_found")
    ]
    for address in ("a@b\r\nBcc: c@d.test", "a b@c.test", "@x", "a@b, c@d", "x" * 300 + "@y.test"):
        assert await codes(email=address) == [("email", "invalid_email")], address
    assert await codes(email="a@b.test", event_types=["order.created"], quiet_seconds=-1) == [
        ("event_types[0]", "invalid_problem_type"),
        ("quiet_seconds", "out_of_range"),
    ]
    await create(ALL, NewNotification.of(name="n", to_endpoint_id=EP))
    with pytest.raises(ConflictError) as conflict:
        await create(ALL, NewNotification.of(name="n", to_endpoint_id=EP))
    assert conflict.value.code == "notification_name_in_use"


async def test_changed_rule_reports_to_its_new_target_and_keeps_what_it_follows(
    pool, sql, deployment
):
    await add_endpoint(sql, EP)
    await add_endpoint(sql, CHAT, "slack")
    operations = NotificationOperations(deployment)
    rule = await operations.create(ALL, NewNotification.of(name="n", to_endpoint_id=CHAT))
    await happens(sql, "endpoint.failing", EP)
    await loop_of(pool).turn()
    with pytest.raises(InvalidRequestError) as caught:
        await operations.update(ALL, rule.id, NotificationChange.of(email="a@b.test"))
    assert [one.code for one in caught.value.problems] == ["conflicting"]
    other = EP[:-1] + "3"
    await add_endpoint(sql, other, "teams")
    changed = await operations.update(
        ALL, rule.id, NotificationChange.of(to_endpoint_id=other, quiet_seconds=60)
    )
    assert (changed.name, changed.quiet_seconds, changed.open_count) == ("n", 60, 1)
    await happens(sql, "endpoint.recovered", EP)
    await loop_of(pool).turn()
    assert await messages(sql) == [("started", CHAT), ("ended", other)]
    await operations.create(ALL, NewNotification.of(name="m", to_endpoint_id=CHAT))
    with pytest.raises(ConflictError):
        await operations.update(ALL, rule.id, NotificationChange.of(name="m"))
