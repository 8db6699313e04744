"""Endpoints as code: the same twice, everything at fault at once, nothing lost that was not asked to go."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher.admin.operations.apply import UNSIGNED, Configuration
from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ForbiddenError, InvalidRequestError, PreconditionFailedError
from dispatcher.core.problems import problem
from dispatcher.store.pool import Database
from tests.support.endpoints import update_endpoint

pytestmark = pytest.mark.postgres

KEY = "k1:" + "QUJD" * 10 + "QUI="
ALL = Actor(name="cli:tester")
SECRETS = {"env:ERP": "whsec_" + "A" * 44, "env:NEW": "whsec_" + "B" * 44, "env:WMS": "w" * 40}
ERP = {
    "name": "erp",
    "url": "https://example.com/erp",
    "event_types": ["order.*"],
    "profile": "standard",
}
WMS = {
    "tenant": "acme",
    "name": "wms",
    "url": "https://example.com/wms",
    "event_types": ["order.created", "stock.*"],
    "profile": "wms",
    "headers": {"Authorization": "Bearer very-secret"},
    "labels": {"site": ["bkk", "cnx"]},
    "max_concurrency": 4,
    "rate_limit": 2.5,
    "retry_schedule_seconds": [1, 2.5],
}


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=3)
    await pool.open()
    environ = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEYS": KEY}
    yield deployment_of(load_settings(None, environ), pool)
    await pool.close()


def resolve(reference: str) -> str:
    if reference not in SECRETS:
        raise ValueError("is nowhere")
    return SECRETS[reference]


async def applied(deployment: Deployment, *declared: object, **how: Any) -> dict[str, str]:
    """Applies, and returns what became of each name."""
    answer = await Configuration(deployment).apply(ALL, declared, resolve=resolve, **how)
    return {one.name: str(one.action) for one in answer.items}


async def secret_of(deployment: Deployment, name: str) -> Any:
    page = await Endpoints(deployment).page(ALL, EndpointsQuery.of(name=name))
    return (await Rotation(deployment).reveal(ALL, page.items[0].id)).secret


async def test_applied_twice_it_changes_nothing_the_second_time(deployment, sql):
    declared = (ERP | {"secret": "env:ERP"}, WMS | {"secret": "env:WMS"})
    assert await applied(deployment, *declared, dry_run=True) == {"erp": "create", "wms": "create"}
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint") == 0
    assert await applied(deployment, *declared) == {"erp": "create", "wms": "create"}
    version = await sql.fetchval("SELECT version FROM dispatcher.routing")
    assert await applied(deployment, *declared) == {"erp": "unchanged", "wms": "unchanged"}
    assert await sql.fetchval("SELECT version FROM dispatcher.routing") == version
    assert await secret_of(deployment, "erp") == SECRETS["env:ERP"]


async def test_what_was_made_is_told_with_its_id(deployment):
    async def ids(**how: Any) -> list[str | None]:
        answer = await Configuration(deployment).apply(ALL, [ERP], resolve=resolve, **how)
        return [one.id for one in answer.items]

    assert await ids(dry_run=True) == [None]
    made = await ids()
    (there,) = (await Endpoints(deployment).page(ALL)).items
    assert made == [there.id] == await ids()


async def test_a_fault_of_the_file_is_told_with_those_of_its_endpoints(deployment):
    found = [problem("a.toml: owner", "unknown_field")]
    with pytest.raises(InvalidRequestError) as caught:
        await applied(deployment, {"name": "erp"}, problems=found)
    assert caught.value.problems[0] == found[0]
    assert "url: This field is required" in str(caught.value).replace("endpoint 1 ('erp'): ", "")
    with pytest.raises(InvalidRequestError):
        await applied(deployment, ERP, problems=found)
    assert (await Endpoints(deployment).page(ALL)).items == []


async def test_what_is_exported_applies_without_a_change(deployment):
    await applied(
        deployment, ERP, WMS, {**ERP, "name": "bare", "profile": "wms", "secret": "unsigned"}
    )
    declared = await Configuration(deployment).export(ALL)
    exported = [one.model_dump(exclude_unset=True) for one in declared]
    assert [(one["tenant"], one["name"]) for one in exported] == [
        ("acme", "wms"),
        ("default", "bare"),
        ("default", "erp"),
    ]
    assert exported[0] == WMS
    assert exported[1]["secret"] == UNSIGNED
    assert set(exported[2]) == {"tenant", "name", "url", "profile", "event_types"}
    assert set((await applied(deployment, *exported)).values()) == {"unchanged"}


async def test_apply_field_left_out_returns_to_its_default_in_the_diff(deployment):
    await applied(deployment, WMS)
    bare = {k: v for k, v in WMS.items() if k not in {"headers", "labels", "max_concurrency"}}
    answer = await Configuration(deployment).apply(ALL, [bare], resolve=resolve)
    (item,) = answer.items
    assert item.changes == {
        "headers": {"from": {"Authorization": "********"}, "to": {}},
        "labels": {"from": {"site": ["bkk", "cnx"]}, "to": {}},
        "max_concurrency": {"from": 4, "to": None},
    }
    (shown,) = (await Endpoints(deployment).page(ALL)).items
    assert (shown.headers, shown.max_concurrency, shown.rate_limit) == ({}, None, 2.5)


async def test_every_fault_of_every_endpoint_is_told_and_nothing_is_changed(deployment, sql):
    await applied(deployment, ERP)
    faulty = [
        ERP | {"profile": "wms"},
        {"name": "x", "url": "ftp://x", "event_types": [], "colour": "red"},
        {"name": "y", "url": "https://example.com/", "event_types": ["*"], "secret": "short"},
        {"name": "z", "url": "https://example.com/", "event_types": ["*"], "secret": "env:NOWHERE"},
        {"name": "z", "url": "https://example.com/", "event_types": ["*"]},
        "no table",
        {"name": "good", "url": "https://example.com/", "event_types": ["*"]},
    ]
    with pytest.raises(InvalidRequestError) as caught:
        await applied(deployment, *faulty)
    told = [where for where, *_ in caught.value.problems]
    assert sorted(told) == [
        "endpoint 1 ('erp'): profile",
        "endpoint 2 ('x'): colour",
        "endpoint 2 ('x'): event_types",
        "endpoint 2 ('x'): url",
        "endpoint 3 ('y'): secret",
        "endpoint 4 ('z'): secret",
        "endpoint 5 ('z')",
        "endpoint 6",
    ]
    assert "short" not in str(caught.value)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint") == 1


@pytest.mark.parametrize(
    ("base", "first", "second"), [(ERP, "env:ERP", "env:NEW"), (WMS, "env:WMS", "env:NEW")]
)
async def test_another_secret_behind_the_reference_is_rotated_in(
    deployment, sql, base, first, second
):
    await applied(deployment, base | {"secret": first})
    answer = await Configuration(deployment).apply(
        ALL, [base | {"secret": second}], resolve=resolve
    )
    assert list(answer.items[0].changes) == ["secret"]
    assert SECRETS[second] not in str(answer)
    assert await secret_of(deployment, base["name"]) == SECRETS[second]
    assert await applied(deployment, base | {"secret": second}) == {base["name"]: "unchanged"}
    assert await applied(deployment, base) == {base["name"]: "unchanged"}
    previous = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.endpoint_secret WHERE role = 'previous'"
    )
    assert previous == (1 if base is ERP else 0)  # standard goes on signing with both for a day


async def test_apply_unnamed_endpoints_stay_unless_pruned_in_their_tenant(deployment):
    second = ERP | {"name": "second"}
    await applied(deployment, ERP, second, WMS)
    assert await applied(deployment, ERP) == {"erp": "unchanged", "second": "left"}
    assert await applied(deployment, ERP, prune=True, dry_run=True) == {
        "erp": "unchanged",
        "second": "delete",
    }
    assert await applied(deployment, ERP, prune=True) == {"erp": "unchanged", "second": "delete"}
    left = await Endpoints(deployment).page(ALL)
    assert sorted(one.name for one in left.items) == ["erp", "wms"]


async def test_a_paused_endpoint_stays_paused(deployment):
    await applied(deployment, ERP)
    (endpoint,) = (await Endpoints(deployment).page(ALL)).items
    await Endpoints(deployment).pause(ALL, endpoint.id)
    await applied(deployment, ERP | {"url": "https://example.com/other"})
    assert (await Endpoints(deployment).show(ALL, endpoint.id)).state == "paused"


async def test_an_endpoint_that_changed_meanwhile_is_not_overwritten(deployment):
    await applied(deployment, ERP)
    configuration = Configuration(deployment)
    changed = ERP | {"url": "https://example.com/mine"}
    (step,) = await configuration.plan(ALL, [changed], resolve=resolve, prune=False)
    assert step.before is not None
    await update_endpoint(
        Endpoints(deployment), ALL, step.before.id, {"url": "https://example.com/theirs"}
    )
    with pytest.raises(PreconditionFailedError):
        await configuration._take(ALL, step)


async def test_only_an_admin_may_and_within_its_tenant(deployment):
    with pytest.raises(ForbiddenError):
        await Configuration(deployment).export(Actor(name="o", role=Role.OPERATOR))
    acme = Actor(name="a", tenant="acme")
    await Configuration(deployment).apply(acme, [WMS], resolve=resolve)
    with pytest.raises(InvalidRequestError, match="Use one of: acme"):
        await Configuration(deployment).apply(acme, [ERP | {"tenant": "other"}], resolve=resolve)
