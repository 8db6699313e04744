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

RULE = "occurred_at_is_in_the_years_1970_to_9999"
DATA = "Somchai Jaidee"


@pytest.fixture
async def refused(deployment, monkeypatch) -> asyncpg.CheckViolationError:
    """What Postgres says of a row that our own rules let through by mistake."""
    monkeypatch.setattr(module, "occurred_at_problems", lambda _: [])
    event = NewEvent(
        type="order.created",
        data=f'{{"name": "{DATA}"}}',
        occurred_at=datetime(1960, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await Events(deployment).publish(ALL, event)
    assert DATA in str(caught.value), "what these tests are about"
    return caught.value


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
