"""D5: Postgres's errors quote the row that they refuse; the log keeps the rule and none of the data."""

import os
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
import structlog

from dispatcher.admin.api.problems import problem_of
from dispatcher.admin.operations import new_event as module
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.telemetry import logs
from tests.admin.conftest import ALL

pytestmark = pytest.mark.postgres

RULE = "event_bytes"
DATA = "Somchai Jaidee"
BROKEN = """
INSERT INTO dispatcher.event (inserted_at, accepted_at, occurred_at, day, id, type, tenant, data, bytes)
VALUES (now(), now(), now(), (now() AT TIME ZONE 'UTC')::date, 'x', 'order.created', 'default', $1, '')
"""


@pytest.fixture
async def refused(connection) -> asyncpg.CheckViolationError:
    """What Postgres says of a row of history that breaks a CHECK."""
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await connection.execute(BROKEN, f'{{"name": "{DATA}"}}')
    assert DATA in str(caught.value), "what these tests are about"
    return caught.value


async def test_a_rule_of_the_outbox_names_no_data(deployment, monkeypatch):
    monkeypatch.setattr(module, "occurred_at_problems", lambda _: [])
    event = NewEvent(
        type="order.created",
        data=f'{{"name": "{DATA}"}}',
        occurred_at=datetime(1960, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await Events(deployment).publish(ALL, event)
    assert caught.value.constraint_name == "occurred_at_is_in_the_years_1970_to_9999"
    assert "1960-01-01" in str(caught.value.detail)
    assert DATA not in str(caught.value)


def logged(error: Exception, folder: Path, form: str) -> str:
    """Return what the log says of an error, as the API logs it and as other places do."""
    path = folder / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    logs.configure(form=form, level="info", version="test", descriptor=descriptor)
    try:
        assert problem_of(error).status == 500
        log = structlog.get_logger()
        log.warning("batch.refused", error=str(error), problem=error)
        log.warning("batch.refused", problems=[f"x: {error}"])
    finally:
        logs.shut_down()
        os.close(descriptor)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_row_that_postgres_refuses_is_not_logged(refused, tmp_path, form):
    text = logged(refused, tmp_path, form)
    assert text.count(RULE) >= 3
    assert DATA not in text


async def test_d5_control_an_error_that_is_written_whole_shows_the_row(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(logs, "_drop_rows", lambda _, __, record: record)
    assert DATA in logged(refused, tmp_path, "json")
