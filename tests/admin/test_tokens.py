"""Tokens and sessions on the real database: made, recognised, limited, ended."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.admin import auth as auth_module
from dispatcher.admin.auth import WRONG_BURST, Auth
from dispatcher.admin.operations.audit import Audit
from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.operations.tokens import Tokens, digest_of
from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.admin.resources.token import CreatedToken, NewToken
from dispatcher.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TooManyError,
)
from dispatcher.store.tokens import Credentials
from tests.admin.conftest import ACME, ADMIN_TOKEN, ALL

pytestmark = pytest.mark.postgres

HERE = "192.0.2.1"


async def test_a_token_is_shown_once_and_only_its_digest_is_stored(deployment, connection):
    made = await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="operator"))
    (listed,) = (await Tokens(deployment).page(ALL)).items
    assert made.token.startswith("dsp_")
    assert len(made.token) == 47
    assert made == CreatedToken(**asdict(listed), token=made.token)
    row = await connection.fetchrow("SELECT * FROM dispatcher.token")
    assert row["hash"] == digest_of(made.token)
    assert made.token not in str(dict(row))


async def test_a_token_is_recognised_with_its_role_and_tenant(deployment):
    made = await Tokens(deployment).create(
        ALL, NewToken.of(name="erp", role="viewer", tenant="acme")
    )
    actor = await Auth(deployment).actor_of(made.token, HERE)
    assert actor == Actor(name="token:acme/erp", tenant="acme", role=Role.VIEWER)


async def test_the_token_of_the_environment_is_an_admin_for_all_tenants(deployment):
    actor = await Auth(deployment).actor_of(ADMIN_TOKEN, HERE)
    assert actor == Actor(name="admin-token", tenant=None, role=Role.ADMIN)


@pytest.mark.parametrize(
    "text", ["", "x", "dsp_" + "A" * 43, ADMIN_TOKEN[:-1], "\ud800", "a" * 513]
)
async def test_any_other_text_is_nobody(deployment, text):
    assert await Auth(deployment).actor_of(text, HERE) is None


async def test_a_revoked_token_ends_at_once_and_its_sessions_with_it(deployment):
    auth = Auth(deployment)
    made = await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))
    signed_in = await auth.sign_in(made.token, HERE)
    assert signed_in is not None
    assert await auth.actor_of_session(signed_in.cookie) is not None
    await Tokens(deployment).revoke(ALL, made.id)
    assert await auth.actor_of(made.token, HERE) is None
    assert await auth.actor_of_session(signed_in.cookie) is None


async def test_an_expired_token_ends_with_its_sessions(deployment, connection):
    auth = Auth(deployment)
    soon = deployment.clock.now() + timedelta(hours=1)
    made = await Tokens(deployment).create(
        ALL, NewToken.of(name="erp", role="viewer", expires_at=soon)
    )
    signed_in = await auth.sign_in(made.token, HERE)
    assert signed_in is not None
    await connection.execute("UPDATE dispatcher.token SET expires_at = now() - interval '1 second'")
    assert await auth.actor_of(made.token, HERE) is None
    assert await auth.actor_of_session(signed_in.cookie) is None


@pytest.mark.parametrize(
    "change", ["ends_at = now()", "used_at = now() - interval '12 hours 1 second'"]
)
async def test_a_session_ends_by_itself_and_is_swept(deployment, connection, change):
    auth = Auth(deployment)
    signed_in = await auth.sign_in(ADMIN_TOKEN, HERE)
    assert signed_in is not None
    await connection.execute(f"UPDATE dispatcher.session SET {change}")
    assert await auth.actor_of_session(signed_in.cookie) is None
    await auth.flush()
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.session") == 0


async def test_a_token_has_only_so_many_sessions(deployment, connection, monkeypatch):
    monkeypatch.setattr(auth_module, "SESSIONS_MAX", 3)
    auth = Auth(deployment)
    cookies = []
    for _ in range(5):
        signed_in = await auth.sign_in(ADMIN_TOKEN, HERE)
        assert signed_in is not None
        cookies.append(signed_in.cookie)
    alive = [await auth.actor_of_session(cookie) is not None for cookie in cookies]
    assert alive == [False, False, True, True, True]
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.session") == 3


async def test_another_admin_token_ends_the_sessions_of_the_one_before(deployment):
    signed_in = await Auth(deployment).sign_in(ADMIN_TOKEN, HERE)
    assert signed_in is not None
    other = Auth(deployment)
    other._admin_digest = digest_of("another-admin-token-0123456789abcdef")
    assert await other.actor_of_session(signed_in.cookie) is None


async def test_signing_out_ends_the_session_and_both_are_audited(deployment):
    auth = Auth(deployment)
    signed_in = await auth.sign_in(ADMIN_TOKEN, HERE)
    assert signed_in is not None
    await auth.sign_out(signed_in.cookie, signed_in.actor)
    assert await auth.actor_of_session(signed_in.cookie) is None
    lines = (await Audit(deployment).page(ALL)).items
    assert [line.action for line in lines] == ["session.close", "session.open"]
    assert lines[1].detail == {"from": HERE, "by": "token"}


async def test_the_csrf_token_is_of_the_session_and_is_no_way_to_its_cookie(deployment):
    auth = Auth(deployment)
    first, second = [await auth.sign_in(ADMIN_TOKEN, HERE) for _ in range(2)]
    assert first is not None
    assert second is not None
    found = [await auth.actor_of_session(one.cookie) for one in (first, second)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].csrf_token != found[1].csrf_token
    assert await auth.actor_of_session(found[0].csrf_token) is None


async def test_wrong_tokens_are_limited_by_address_and_lock_out_nobody_known(deployment):
    auth = Auth(deployment)
    good = (await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))).token
    assert await auth.actor_of(good, HERE) is not None
    for _ in range(WRONG_BURST):
        assert await auth.actor_of("dsp_wrong", HERE) is None
    with pytest.raises(TooManyError) as caught:
        await auth.actor_of("dsp_wrong", HERE)
    assert 0 < caught.value.retry_after_seconds <= 5
    assert await auth.actor_of(good, HERE) is not None
    assert await auth.actor_of(ADMIN_TOKEN, HERE) is not None
    assert await auth.actor_of("dsp_wrong", "192.0.2.2") is None


async def test_a_guesser_locks_nobody_out_after_a_restart(deployment):
    """A new process has seen no token yet: whoever is behind the guesser's address must get in all the same."""
    good = (await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))).token
    ended = await Tokens(deployment).create(ALL, NewToken.of(name="gone", role="viewer"))
    await Tokens(deployment).revoke(ALL, ended.id)
    auth = Auth(deployment)
    for _ in range(WRONG_BURST):
        await auth.actor_of("dsp_wrong", HERE)
    for text in ("dsp_wrong", ended.token):
        with pytest.raises(TooManyError):
            await auth.actor_of(text, HERE)
    actor = await auth.actor_of(good, HERE)
    assert actor is not None
    assert actor.name == "token:*/erp"


async def test_a_flood_of_guesses_reads_the_tokens_once(deployment, monkeypatch):
    auth, count = Auth(deployment), 0
    read = Credentials.living_digests

    async def counted(credentials: Credentials, count_max: int) -> frozenset[bytes]:
        nonlocal count
        count += 1
        return await read(credentials, count_max)

    monkeypatch.setattr(Credentials, "living_digests", counted)
    monkeypatch.setattr(auth_module, "LIVING_SECONDS", 3600.0)
    for number in range(WRONG_BURST):
        assert await auth.actor_of(f"dsp_{number}", HERE) is None
    for number in range(50):
        with pytest.raises(TooManyError):
            await auth.actor_of(f"dsp_wrong_{number}", HERE)
    assert count == 1


async def test_d4_control_a_limit_that_asks_no_table_locks_out_who_is_new(deployment, monkeypatch):
    async def none(*_: object) -> frozenset[bytes]:
        return frozenset()

    good = (await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))).token
    monkeypatch.setattr(Credentials, "living_digests", none)
    auth = Auth(deployment)
    for _ in range(WRONG_BURST):
        await auth.actor_of("dsp_wrong", HERE)
    with pytest.raises(TooManyError):
        await auth.actor_of(good, HERE)


async def test_a_token_ends_before_the_last_day_that_there_is(deployment):
    """The driver writes `datetime.max` as infinity, and reads it back without a zone."""
    last = datetime.max.replace(tzinfo=UTC)
    with pytest.raises(InvalidRequestError):
        await Tokens(deployment).create(
            ALL, NewToken.of(name="erp", role="viewer", expires_at=last)
        )


async def test_the_last_use_is_written_behind_the_requests_once_a_minute(deployment, connection):
    auth = Auth(deployment)
    made = await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))
    used = "SELECT last_used_at FROM dispatcher.token"
    await auth.actor_of(made.token, HERE)
    assert await connection.fetchval(used) is None
    await auth.flush()
    first = await connection.fetchval(used)
    assert first is not None
    await auth.actor_of(made.token, HERE)
    await auth.flush()
    assert await connection.fetchval(used) == first


async def test_a_token_of_one_tenant_makes_and_sees_that_tenants_alone(deployment):
    tokens = Tokens(deployment)
    other = await tokens.create(ALL, NewToken.of(name="all", role="admin"))
    made = await tokens.create(ACME, NewToken.of(name="own", role="admin"))
    assert made.tenant == "acme"
    assert [one.id for one in (await tokens.page(ACME)).items] == [made.id]
    with pytest.raises(NotFoundError):
        await tokens.create(ACME, NewToken.of(name="x", role="viewer", tenant="globex"))
    with pytest.raises(NotFoundError):
        await tokens.revoke(ACME, other.id)
    assert {line.tenant for line in (await Audit(deployment).page(ACME)).items} == {"acme"}


async def test_a_name_is_taken_until_its_token_is_revoked(deployment):
    tokens = Tokens(deployment)
    made = await tokens.create(ALL, NewToken.of(name="erp", role="viewer"))
    with pytest.raises(ConflictError):
        await tokens.create(ALL, NewToken.of(name="erp", role="admin"))
    await tokens.create(ALL, NewToken.of(name="erp", role="viewer", tenant="acme"))
    assert (await tokens.revoke(ALL, made.id)).revoked_at is not None
    await tokens.create(ALL, NewToken.of(name="erp", role="admin"))
    await tokens.revoke(ALL, made.id)
    actions = [line.action for line in (await Audit(deployment).page(ALL)).items]
    assert actions == ["token.create", "token.revoke", "token.create", "token.create"]


async def test_every_fault_of_a_new_token_is_told(deployment):
    with pytest.raises(InvalidRequestError) as caught:
        await Tokens(deployment).create(
            ALL,
            NewToken.of(
                deployment.clock.now(),
                name=" x",
                role="root",
                tenant="Acme",
                expires_at=datetime(2020, 1, 1, tzinfo=UTC),
            ),
        )
    assert [field for field, *_ in caught.value.problems] == [
        "name",
        "role",
        "tenant",
        "expires_at",
    ]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_tokens_and_audit_are_for_admins(deployment, role):
    actor = Actor(name="token:*/x", role=role)
    for work in (
        Tokens(deployment).page(actor),
        Tokens(deployment).create(actor, NewToken.of(name="x", role="viewer")),
        Tokens(deployment).revoke(actor, "tok_x"),
        Audit(deployment).page(actor),
    ):
        with pytest.raises(ForbiddenError, match="admin"):
            await work


async def test_the_audit_log_pages_without_a_gap(deployment):
    for number in range(5):
        await Tokens(deployment).create(ALL, NewToken.of(name=f"t{number}", role="viewer"))
    seen, cursor = [], None
    while True:
        page = await Audit(deployment).page(ALL, AuditQuery.model_construct(limit=2, cursor=cursor))
        seen += [line.id for line in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["5", "4", "3", "2", "1"]
