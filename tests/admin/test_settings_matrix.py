"""The settings for demanding receivers by tenant and role: who changes them, and which values stay unread."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatcher.admin.operations.context import Role
from tests.admin.conftest import ALL
from tests.admin.serving import Api
from tests.support.certificates import Authority
from tests.support.endpoints import create_endpoint

pytestmark = pytest.mark.postgres

HIDDEN = "secret-of-the-client"
SETTINGS: dict[str, dict[str, Any]] = {
    "order": {"ordering": "key", "skip_after_attempts": 3},
    "filter": {"content_filter": 'data.warehouse == "BKK-1"'},
    "mask": {"include": ["order_id"], "exclude": ["customer.email"]},
    "signatures": {"also_sign": ["wms"]},
    "oauth": {
        "oauth_token_url": "https://auth.example.com/token",
        "oauth_client_id": "client",
        "oauth_client_secret": HIDDEN,
    },
    "pull": {"delivery": "pull"},
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, dict[str, Any]]:
    certificate, key = Authority(tmp_path).client_pair()
    return {**SETTINGS, "mtls": {"client_certificate": certificate, "client_key": key}}


@pytest.fixture
async def endpoint_id(api: Api) -> str:
    fields = {
        "name": "erp", "tenant": "acme", "url": "https://example.com/a", "event_types": ["*"],
        "profile": "standard",
    }  # fmt: skip
    return str((await create_endpoint(api.operations.endpoints, ALL, fields)).id)


async def test_each_setting_is_changed_by_admins_of_its_tenant_alone(
    api: Api, endpoint_id: str, settings: dict[str, dict[str, Any]]
) -> None:
    path = f"/endpoints/{endpoint_id}"
    smaller = [await api.token_of(role, "acme") for role in (Role.VIEWER, Role.OPERATOR)]
    strangers = await api.token_of(Role.ADMIN, "other")
    own = await api.token_of(Role.ADMIN, "acme")
    unlike: dict[tuple[str, str], int] = {}
    for name, fields in settings.items():
        before = (await api.ask("GET", path)).json
        for wanted, token in ((403, smaller[0]), (403, smaller[1]), (404, strangers)):
            for method, target in (("PATCH", path), ("POST", f"{path}/preview")):
                reply = await api.ask(method, target, fields, token=token)
                if reply.status != wanted:
                    unlike[name, f"{method} {wanted}"] = reply.status
        assert (await api.ask("GET", path)).json == before
        preview = await api.ask("POST", f"{path}/preview", fields, token=own)
        assert (await api.ask("GET", path)).json == before, "a preview stores nothing"
        reply = await api.ask("PATCH", path, fields, token=own)
        if (preview.status, reply.status) != (200, 200):
            unlike[name, "own"] = reply.status
        shown = (await api.ask("GET", path, token=own)).json
        assert {f: shown[f] for f in fields if f not in {"oauth_client_secret", "client_key"}} == {
            f: value
            for f, value in fields.items()
            if f not in {"oauth_client_secret", "client_key"}
        }
    assert unlike == {}


async def test_credentials_are_read_by_no_role(
    api: Api, endpoint_id: str, settings: dict[str, dict[str, Any]], connection: asyncpg.Connection
) -> None:
    path = f"/endpoints/{endpoint_id}"
    for name in ("oauth", "mtls"):
        assert (await api.ask("PATCH", path, settings[name])).status == 200
    key = settings["mtls"]["client_key"].splitlines()[1]
    for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
        token = await api.token_of(role, "acme")
        for route in (path, "/endpoints", "/audit", "/events", "/deliveries"):
            reply = await api.ask("GET", route, token=token)
            assert HIDDEN.encode() not in reply.raw, (role, route)
            assert key.encode() not in reply.raw, (role, route)
    stored = await connection.fetch("SELECT sealed FROM dispatcher.endpoint_secret")
    assert len(stored) == 3
    assert not any(HIDDEN.encode() in row["sealed"] for row in stored)
    audit = await connection.fetch("SELECT detail::text FROM dispatcher.audit")
    assert not any(HIDDEN in row["detail"] or key in row["detail"] for row in audit)
