"""A great many ordering keys with one waiting delivery each: the memory is that of the window, however many wait."""

from collections.abc import Callable
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.support.bench import Bench
from tests.support.daemon import STANDARD_SECRET, Daemon, add_endpoint, until

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

MORE_MEMORY_MIB_MAX = 60.0
"""Of a daemon in front of a million keys over one in front of none."""
SENT_COUNT = 300

_FILL = """
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, ordering_key, position)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'key' || g, 'order.created', 'default', '{}', now(), '{}', now(), now(),
           'key-' || g, g
    FROM generate_series($1::int, $2::int) AS g
), bodies AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'key' || g, 'standard', convert_to('{"n": ' || g || '}', 'UTF8')
    FROM generate_series($1::int, $2::int) AS g
)
INSERT INTO dispatcher.delivery_open
    (id, day, event_id, endpoint_no, event_type_code, next_attempt_at, order_key, position)
SELECT (overlay(lpad(to_hex(extract(epoch FROM now())::bigint * 1000), 12, '0') || '8'
                || lpad(to_hex(g), 19, '0') PLACING '8' FROM 17 FOR 1))::uuid,
       (now() AT TIME ZONE 'UTC')::date, 'key' || g, p.number, 0, now() - interval '1 minute',
       dispatcher.order_key('key-' || g), g
FROM generate_series($1::int, $2::int) AS g, dispatcher.endpoint AS p
WHERE p.id = 'ep_keys'
"""
_FIGURES = """
SELECT f.figures::text FROM dispatcher.replica_figures AS f JOIN dispatcher.replica AS r USING (incarnation)
ORDER BY r.started_at DESC LIMIT 1
"""


def _resident_mib(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.child.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_a_million_keys_cost_the_memory_of_a_window(
    bench: Bench, sql: asyncpg.Connection, say: Callable[[str], None], long_run: bool
) -> None:
    """A million keys with `--long`, 20,000 without. The receiver is slow, so that nearly all of them wait."""
    keys = 1_000_000 if long_run else 20_000
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "delay_seconds": [0.2, 0.2]})
    await add_endpoint(sql, "ep_keys", receiver.url("/hook"), ordering="key", max_concurrency=20)
    empty = await bench.daemon(name="empty").started()
    empty_mib = _resident_mib(empty)
    empty.kill()
    await empty.ended(5)
    for first in range(1, keys + 1, 5_000):
        await sql.execute(_FILL, first, min(first + 4_999, keys))
    await sql.execute("ANALYZE dispatcher.delivery_open")
    daemon = await bench.daemon(name="full").started()
    await receiver.received(SENT_COUNT, kind="request", seconds=120)

    async def published() -> str | None:
        found = await sql.fetchval(_FIGURES)
        return found if found and orjson.loads(found).get("ready_count", 1) else None

    figures = orjson.loads(await until(published, seconds=60, what="figures", pause=0.2))
    more_mib = _resident_mib(daemon) - empty_mib
    waiting = await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open")
    say(
        orjson.dumps(
            {"id": "O2", "waiting": waiting, "more_mib": round(more_mib, 1), "figures": figures}
        ).decode()
    )
    assert waiting > keys * 0.9
    assert more_mib <= MORE_MEMORY_MIB_MAX
