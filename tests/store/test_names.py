"""Names in place of ids: endpoints, notification rules and tokens that people name."""

import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.names import CANDIDATES_MAX, Names
from dispatcher.admin.operations.notifications import NotificationOperations
from dispatcher.admin.operations.tokens import Tokens
from dispatcher.admin.resources.notification import NewNotification
from dispatcher.admin.resources.token import NewToken
from dispatcher.core.errors import ConflictError, NotFoundError
from tests.support.endpoints import create_endpoint

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
OF_ACME = Actor(name="token", tenant="acme")
GOOD = {"url": "https://example.com/hooks", "event_types": ["order.*"]}


async def create(deployment: Deployment, name: str, tenant: str) -> str:
    fields = {**GOOD, "name": name, "tenant": tenant}
    return (await create_endpoint(Endpoints(deployment), ALL, fields)).id


async def test_id_of_a_name_is_that_of_the_only_endpoint(deployment: Deployment):
    endpoint_id = await create(deployment, "ERP_Order_Sync", "acme")
    names = Names(deployment)
    assert await names.id_of(ALL, "endpoint", "ERP_Order_Sync") == endpoint_id
    assert await names.id_of(OF_ACME, "endpoint", "ERP_Order_Sync") == endpoint_id
    assert await names.id_of(ALL, "endpoint", endpoint_id) == endpoint_id
    with pytest.raises(NotFoundError, match="Did you mean ERP_Order_Sync"):
        await names.id_of(ALL, "endpoint", "ERP_order_sync")
    with pytest.raises(NotFoundError, match="Check the name or the id"):
        await names.id_of(ALL, "endpoint", "%")
    with pytest.raises(NotFoundError, match="Check the name"):
        await names.id_of(ALL, "endpoint", "ERP_Order_Sync", "other")


async def test_id_of_an_ambiguous_name_lists_the_candidates(deployment: Deployment):
    in_acme = await create(deployment, "ERP", "acme")
    in_zeta = await create(deployment, "ERP", "zeta")
    names = Names(deployment)
    with pytest.raises(ConflictError) as caught:
        await names.id_of(ALL, "endpoint", "ERP")
    assert f"{in_acme} (tenant acme), {in_zeta} (tenant zeta)" in str(caught.value)
    assert await names.id_of(ALL, "endpoint", "ERP", "zeta") == in_zeta
    assert await names.id_of(OF_ACME, "endpoint", "ERP") == in_acme
    with pytest.raises(NotFoundError):
        await names.id_of(OF_ACME, "endpoint", "ERP", "zeta")
    assert await names.list(ALL, "endpoint") == ["ERP"]
    for number in range(CANDIDATES_MAX):
        await create(deployment, "ERP", f"tenant-{number}")
    with pytest.raises(ConflictError) as caught:
        await names.id_of(ALL, "endpoint", "ERP")
    assert str(caught.value).count("ep_") == CANDIDATES_MAX


async def test_id_of_a_name_ignores_deleted_and_revoked_objects(deployment: Deployment):
    names, tokens = Names(deployment), Tokens(deployment)
    endpoint_id = await create(deployment, "ERP", "acme")
    rule = await NotificationOperations(deployment).create(
        ALL, NewNotification.of(name="on-call", to_endpoint_id=endpoint_id, tenant="acme")
    )
    token = await tokens.create(ALL, NewToken.of(name="grafana", role="viewer"))
    assert await names.id_of(ALL, "notification", "on-call") == rule.id
    assert await names.id_of(ALL, "token", "grafana") == token.id
    await tokens.revoke(ALL, token.id)
    await Endpoints(deployment).delete(ALL, endpoint_id)
    for kind, name in (("token", "grafana"), ("endpoint", "ERP")):
        with pytest.raises(NotFoundError, match=f"There is no {kind}"):
            await names.id_of(ALL, kind, name)  # type: ignore[arg-type]  # of the tuple
