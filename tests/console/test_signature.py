"""Why is the signature refused? The form on a delivery's page, the API and their rights."""

import logging
from typing import Any

import asyncpg
import pytest

from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.resources.signature_diagnosis import CapturedRequest
from dispatcher.core.errors import ForbiddenError, NotFoundError
from tests.console.conftest import ALL, Client, Page, Served
from tests.support.story import Story

pytestmark = pytest.mark.postgres

SECRET = "whsec_" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
"""Of the profile wms, which is a text key."""


class Case:
    """A delivery with one attempt that was refused, and the form on its page."""

    def __init__(self, client: Client, delivery_id: str, endpoint_id: str) -> None:
        self.client = client
        self.delivery_id = delivery_id
        self.endpoint_id = endpoint_id
        self.path = f"/deliveries/{delivery_id}/signature"

    async def diagnose(self, **fields: str) -> Page:
        return await self.client.submit(self.path, fields)


@pytest.fixture
async def case(admin: Client, story: Story, sql: "asyncpg.Connection[asyncpg.Record]") -> Case:
    endpoint_id = await story.endpoint("erp", profile="wms", secret=SECRET)
    delivery_id = await story.delivery(endpoint_id, "evt_1", "failed", "wms")
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, response_body)"
        " VALUES ($1, $2, 1, 'scheduled', 'http_error', $3, 0.1, false, 'https://example.com/', 401, 'bad signature')",
        story.now.date(), delivery_id, story.now,
    )  # fmt: skip
    return Case(admin, delivery_id, endpoint_id)


async def test_diagnosis_names_each_mistake_and_never_shows_the_secret(
    case: Case, story: Story, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = await case.client.get(f"/deliveries/{case.delivery_id}")
    assert '<details class="diagnosis" open>' in shown.text, "401 suggests the signature"
    other = await story.endpoint("crm", profile="wms", secret="another" + SECRET)
    assert other
    staged = await served.operations.rotation.rotate(ALL, case.endpoint_id)
    for fields, code in (
        ({"secret": SECRET}, "valid"),
        ({"secret": f"'{SECRET}'"}, "secret_in_quotes"),
        ({"secret": f"{SECRET}\r\n"}, "secret_surrounded_by_whitespace"),
        ({"secret": SECRET.removeprefix("whsec_")}, "secret_prefix_missing"),
        ({"secret": staged.secret}, "staged_secret"),
        ({"secret": "another" + SECRET}, "other_endpoints_secret"),
        ({"secret": SECRET + "x"}, "wrong_secret"),
        ({"secret": SECRET, "body": "{ }"}, "body_reserialised"),
        ({"secret": SECRET, "headers": "X-Other: 1"}, "signature_header_missing"),
        (
            {"secret": SECRET, "headers": "POST / HTTP/1.1\r\nX-WMS-Signature: 00"},
            "signature_prefix_missing",
        ),
        ({"secret": SECRET, "computed": "zz"}, "computed_not_a_digest"),
    ):  # fmt: skip -- one mistake a line
        page = await case.diagnose(**fields)
        assert page.status == 200, (code, page.text)
        assert f"<code>{code}</code>" in page.text
        assert fields["secret"].strip() not in page.text, code
    assert "crm" in (await case.diagnose(secret="another" + SECRET)).text
    assert SECRET[10:] not in caplog.text
    thai = await case.client.ask(
        "POST",
        case.path,
        {**await hidden(case), "secret": f"'{SECRET}'"},
        {"Accept_Language": "th"},
    )
    assert "เครื่องหมายคำพูด" in thai.text
    wrong = await case.diagnose(secret=SECRET, headers="no header at all")
    assert wrong.status == 422
    assert 'id="p-headers"' in wrong.text


async def hidden(case: Case) -> dict[str, str]:
    shown = await case.client.get(case.path)
    return {name: shown.hidden(name) for name in ("csrf", "form_id")}


async def test_diagnosis_without_csrf_or_of_a_viewer_is_refused(case: Case, served: Served) -> None:
    assert (await case.client.post(case.path, {"secret": SECRET})).status == 403
    fields = {**await hidden(case), "secret": SECRET}
    assert (await case.client.post(case.path, fields, Sec_Fetch_Site="cross-site")).status == 403
    viewer = await served.as_role("viewer")
    assert (await viewer.get(case.path)).status == 403
    page = await viewer.get(f"/deliveries/{case.delivery_id}")
    assert 'name="secret"' not in page.text
    diagnosis: Any = served.operations.signature_diagnosis
    wanted = CapturedRequest.of(secret=SECRET)
    with pytest.raises(ForbiddenError):
        await diagnosis.diagnose(Actor(name="v", role=Role.VIEWER), case.delivery_id, wanted)
    with pytest.raises(NotFoundError):
        await diagnosis.diagnose(Actor(name="t", tenant="acme"), case.delivery_id, wanted)


async def test_diagnosis_after_an_overlap_recognises_the_previous_secret(
    story: Story, served: Served, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    old = "whsec_" + "QUJD" * 10 + "QUI="
    endpoint_id = await story.endpoint("std", secret=old)
    delivery_id = await story.delivery(endpoint_id, "evt_2", "failed")
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code)"
        " VALUES ($1, $2, 1, 'scheduled', 'http_error', $3, 0.1, false, 'https://example.com/', 401)",
        story.now.date(), delivery_id, story.now,
    )  # fmt: skip
    await served.operations.rotation.rotate(ALL, endpoint_id, overlap_seconds=3600)
    diagnosis = served.operations.signature_diagnosis
    wanted = CapturedRequest.of(secret=old)
    assert (await diagnosis.diagnose(ALL, delivery_id, wanted)).code == "valid"
    await sql.execute(
        "UPDATE dispatcher.endpoint_secret SET expires_at = now() - interval '1 s' WHERE expires_at IS NOT NULL"
    )
    found = await diagnosis.diagnose(ALL, delivery_id, wanted)
    assert (found.code, found.attempt_number) == ("previous_secret", 1)
