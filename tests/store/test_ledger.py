"""The producers' ledger of the fault tests: what became of a commit whose result is unknown."""

import pytest

from tests.support.ledger import Intent, settle

pytestmark = pytest.mark.postgres


async def test_ledger_an_id_that_was_drawn_again_is_no_commit(sql):
    """A crash loses a transaction and its number; a later event has the same id."""
    event_id = await sql.fetchval(
        """INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{"marker": "later"}') RETURNING id"""
    )
    intents = [
        Intent("lost", event_id, "a.b", "unknown"),
        Intent("later", event_id, "a.b", "unknown"),
        Intent("other", "evt_2026_999999", "a.b", "unknown"),
    ]
    settled, unknown = await settle(intents, sql)
    assert [one.outcome for one in settled] == ["rolled_back", "committed", "rolled_back"]
    assert unknown == 3
