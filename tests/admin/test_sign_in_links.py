"""Sign-in links: one use, five minutes, the rights of the link alone; sessions that administrators end."""

import asyncio
from datetime import timedelta

import pytest

from dispatcher.admin import auth as auth_module
from dispatcher.admin.auth import LINK_SESSION_SECONDS_MAX, WRONG_BURST, Auth
from dispatcher.admin.operations.access import LINK_SECONDS, Access
from dispatcher.admin.operations.audit import Audit
from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.operations.tokens import Tokens, digest_of
from dispatcher.admin.resources.access import AccessQuery, NewSignInLink
from dispatcher.admin.resources.token import NewToken
from dispatcher.core.errors import ForbiddenError, NotFoundError, TooManyError
from dispatcher.store.sessions import LinkRow
from tests.admin.conftest import ACME, ADMIN_TOKEN, ALL

pytestmark = pytest.mark.postgres

HERE = "192.0.2.1"


async def link_code(deployment, actor=ALL, **fields) -> str:
    link = await Access(deployment).create_link(actor, NewSignInLink.of(**fields))
    return str(link.path).removeprefix("sign-in/")


async def test_link_opens_one_session_with_its_own_rights(deployment, connection):
    code = await link_code(deployment, role="operator", tenant="acme")
    row = await connection.fetchrow("SELECT * FROM dispatcher.sign_in_link")
    assert row["hash"] == digest_of(code)
    assert code not in str(dict(row))
    auth = Auth(deployment)
    opened = await auth.sign_in_by_link(code, HERE)
    assert opened is not None
    assert opened.seconds_max == LINK_SESSION_SECONDS_MAX
    found = await auth.actor_of_session(opened.cookie)
    assert found is not None
    assert found.actor == Actor(name="link:cli:tester", tenant="acme", role=Role.OPERATOR)
    assert await auth.sign_in_by_link(code, HERE) is None
    lines = (await Audit(deployment).page(ALL)).items
    assert [line.action for line in lines] == ["session.open", "link.create"]
    assert lines[0].detail == {"from": HERE, "by": "link"}
    assert code not in str(lines)


async def test_link_used_twice_at_once_opens_one_session(deployment, connection):
    code = await link_code(deployment)
    auths = [Auth(deployment) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(auth.sign_in_by_link(code, HERE)) for auth in auths]
    assert len([task for task in tasks if task.result() is not None]) == 1
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.session") == 1


async def test_control_link_read_before_deletion_opens_two_sessions(
    deployment, connection, monkeypatch
):
    """A link that is read in one statement and deleted in another is used by both of two requests."""
    code = await link_code(deployment)
    both_have_read = asyncio.Barrier(2)

    async def read_then_delete(store, digest):
        row = await store.fetchrow(
            "SELECT created_by, role, tenant FROM dispatcher.sign_in_link WHERE hash = $1", digest
        )
        await both_have_read.wait()
        await store.execute("DELETE FROM dispatcher.sign_in_link WHERE hash = $1", digest)
        return None if row is None else LinkRow(*row)

    monkeypatch.setattr(auth_module, "take_link", read_then_delete)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(Auth(deployment).sign_in_by_link(code, HERE))
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.session") == 2


async def test_link_expires_and_is_swept(deployment, connection):
    code = await link_code(deployment)
    left = await connection.fetchval("SELECT expires_at - now() FROM dispatcher.sign_in_link")
    assert timedelta() < left <= timedelta(seconds=LINK_SECONDS)
    await connection.execute(
        "UPDATE dispatcher.sign_in_link SET expires_at = now() - interval '1 second'"
    )
    auth = Auth(deployment)
    assert await auth.sign_in_by_link(code, HERE) is None
    await auth.flush()
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.sign_in_link") == 0


async def test_wrong_links_are_limited_by_address_apart_from_tokens(deployment):
    auth, code = Auth(deployment), await link_code(deployment)
    for number in range(WRONG_BURST):
        assert await auth.sign_in_by_link(f"wrong{number}", HERE) is None
    with pytest.raises(TooManyError):
        await auth.sign_in_by_link("wrong", HERE)
    assert await auth.actor_of(ADMIN_TOKEN, HERE) is not None
    assert await auth.actor_of("dsp_wrong", HERE) is None
    assert await auth.sign_in_by_link(code, "192.0.2.2") is not None


async def test_link_grants_no_more_than_its_creator_has(deployment):
    with pytest.raises(ForbiddenError):
        await link_code(deployment, Actor(name="x", role=Role.OPERATOR), role="viewer")
    with pytest.raises(NotFoundError):
        await link_code(deployment, ACME, tenant="globex")
    opened = await Auth(deployment).sign_in_by_link(await link_code(deployment, ACME), HERE)
    assert opened is not None
    assert opened.actor.tenant == "acme"


async def test_admin_of_a_tenant_sees_and_ends_its_sessions_alone(deployment):
    auth, access = Auth(deployment), Access(deployment)
    cookies = {}
    for tenant in ("acme", "globex", None):
        made = await Tokens(deployment).create(
            ALL, NewToken.of(name="erp", role="viewer", tenant=tenant)
        )
        opened = await auth.sign_in(made.token, HERE)
        assert opened is not None
        cookies[tenant] = opened.cookie
    assert len((await access.sessions(ALL)).items) == 3
    [own] = (await access.sessions(ACME)).items
    assert (own.actor, own.role, own.source) == ("token:acme/erp", "viewer", "token")
    [other] = (await access.sessions(ALL, AccessQuery.of(tenant="globex"))).items
    with pytest.raises(NotFoundError):
        await access.end_session(ACME, other.id)
    with pytest.raises(NotFoundError):
        await access.sessions(ACME, AccessQuery.of(tenant="globex"))
    await access.end_session(ACME, own.id)
    alive = {name: await auth.actor_of_session(one) is not None for name, one in cookies.items()}
    assert alive == {"acme": False, "globex": True, None: True}
    [line, *_] = (await Audit(deployment).page(ACME)).items
    assert (line.action, line.object, line.detail) == (
        "session.end",
        own.id,
        {"actor": "token:acme/erp"},
    )


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_access_is_for_admins(deployment, role):
    actor, access = Actor(name="x", role=role), Access(deployment)
    for work in (access.sessions(actor), access.people(actor), access.end_session(actor, "ses_x")):
        with pytest.raises(ForbiddenError, match="admin"):
            await work


async def test_sessions_of_a_revoked_token_are_not_listed(deployment):
    made = await Tokens(deployment).create(ALL, NewToken.of(name="erp", role="viewer"))
    assert await Auth(deployment).sign_in(made.token, HERE) is not None
    assert len((await Access(deployment).sessions(ALL)).items) == 1
    await Tokens(deployment).revoke(ALL, made.id)
    assert (await Access(deployment).sessions(ALL)).items == []
