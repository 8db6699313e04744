"""P19: Postgres refuses for a moment what it took before; the daemon waits, is not ready, and goes on by itself."""

import signal

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

REFUSALS = {
    "outbox": (
        "ALTER TABLE dispatcher.outbox RENAME TO outbox_away",
        "ALTER TABLE dispatcher.outbox_away RENAME TO outbox",
    ),
    "column": (
        "ALTER TABLE dispatcher.outbox RENAME COLUMN position TO away",
        "ALTER TABLE dispatcher.outbox RENAME COLUMN away TO position",
    ),
    "leases": (
        "ALTER TABLE dispatcher.replica RENAME TO replica_away",
        "ALTER TABLE dispatcher.replica_away RENAME TO replica",
    ),
    "schema": (
        "ALTER SCHEMA dispatcher RENAME TO away",
        "ALTER SCHEMA away RENAME TO dispatcher",
    ),
    "rights": (
        "REVOKE ALL ON SCHEMA dispatcher FROM refused",
        "GRANT ALL ON SCHEMA dispatcher TO refused",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_refusals_that_pass_end_nothing_and_lose_nothing(bench, sql):
    """P19: a table, a column and the schema renamed, and rights revoked, for three seconds each."""
    await sql.execute(
        "DROP ROLE IF EXISTS refused;"
        "CREATE ROLE refused LOGIN; GRANT ALL ON SCHEMA dispatcher TO refused;"
        "GRANT ALL ON ALL TABLES IN SCHEMA dispatcher TO refused;"
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA dispatcher TO refused;"
        "GRANT ALL ON ALL FUNCTIONS IN SCHEMA dispatcher TO refused"
    )
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon(url=bench.url.replace("//dispatcher@", "//refused@")).started()

    async def has_status(status: int) -> bool:
        return bool((await daemon.get("/readyz"))[0] == status)

    await until(lambda: has_status(200), seconds=10, what="ready")
    for name, (refuse, allow) in REFUSALS.items():
        await bench.produced(Plan(url=bench.url, prefix=f"{name}-", events_count=5))
        await sql.execute(refuse)
        await until(lambda: has_status(503), seconds=20, what=f"not ready: {name}")
        assert (await daemon.get("/livez"))[0] == 200
        await sql.execute(allow)
        await until(lambda: has_status(200), seconds=20, what=f"ready again: {name}")
        assert daemon.child.poll() is None
    await bench.produced(Plan(url=bench.url, prefix="last-", events_count=5))
    await quiet(bench.url, seconds=20)
    assert daemon.lines("task.died") == []
    assert len(daemon.lines("intake.stalled")) <= 3 * len(REFUSALS), (
        "a line per change, not per try"
    )
    await bench.report("P19", [Subscriber("ep_x", "/hook")])
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(15) == 0
    await sql.execute("DROP OWNED BY refused")
    await sql.execute("DROP ROLE refused")
