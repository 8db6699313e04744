"""A17: secrets are rotated under load, by both ways; no request verifies with neither the old one nor the new one.

Two replicas send; the receiver knows every secret that ever was and writes down which of them each request
verifies with. What a receiver that knows only one of them would have refused is counted from that.
"""

import base64
from typing import Any

import pytest

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.support.checker import Subscriber
from tests.support.daemon import KEY, STANDARD_SECRET, WMS_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

ALL = Actor(name="cli:tester")
OVERLAP_SECONDS = 1.0
FOLLOWED_SECONDS_MAX = 2.5
"""A replica hears of a change by NOTIFY, or by its poll; its attempts in flight are as they were."""
STANDARD = [
    STANDARD_SECRET,
    *("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)),
]
WMS = [WMS_SECRET, "whsec_" + "n" * 40]


def phases(requests: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    """Returns by which secrets the requests were signed, in the order in which that changed."""
    found: list[tuple[int, ...]] = []
    for request in requests:
        keys = tuple(request["keys"])
        if keys not in found:
            found.append(keys)
    return found


def refused_by(requests: list[dict[str, Any]], number: int) -> int:
    """Counts what a receiver would have refused that knows this secret alone."""
    return sum(number not in request["keys"] for request in requests)


@pytest.mark.timeout(600)
async def test_secrets_change_under_load_and_every_request_verifies(bench, sql, long_run):
    """Long: 50,000 events, 100,000 deliveries."""
    events, rate = (50_000, 500) if long_run else (1_500, 200)
    receiver = bench.receiver
    receiver.behave(standard={"secret": STANDARD}, wms={"secret": WMS})
    await add_endpoint(sql, "ep_standard", receiver.url("/standard"), retry_schedule_seconds=[])
    await add_endpoint(
        sql, "ep_wms", receiver.url("/wms"), profile="wms", retry_schedule_seconds=[]
    )
    for name in ("one", "two"):
        await bench.daemon(name=name).started()
    pool = Database(bench.url, connections_max=2)
    await pool.open()
    environ = {
        "DISPATCHER_DATABASE_URL": bench.url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
    }
    rotation = Rotation(deployment_of(load_settings(None, environ), pool))
    producer = bench.produce(Plan(url=bench.url, events_count=events, events_per_second=rate))
    await receiver.received(200)

    async def signs_with(path: str, keys: list[int]) -> None:
        async def look() -> bool:
            requests = receiver.entries("request", path)
            return bool(requests) and requests[-1]["keys"] == keys

        await until(look, seconds=20, what=f"{path} to be signed by {keys}")

    await rotation.rotate(
        ALL, "ep_standard", new_secret=STANDARD[1], overlap_seconds=OVERLAP_SECONDS
    )
    rotated = len(receiver.entries("request", "/standard"))
    staged = await rotation.rotate(ALL, "ep_wms", new_secret=WMS[1])
    assert staged.state == "staged"
    await signs_with("/standard", [0, 1])
    await signs_with("/standard", [1])
    overlapped = len(receiver.entries("request", "/standard"))
    assert phases(receiver.entries("request", "/wms")) == [(0,)], "a staged secret signs nothing"
    await rotation.activate_staged(ALL, "ep_wms")
    await signs_with("/wms", [1])
    # Without an overlap, as after a leak: what a receiver refuses that was not told is the control.
    await rotation.rotate(ALL, "ep_standard", new_secret=STANDARD[2], overlap_seconds=0)
    await signs_with("/standard", [2])
    assert producer.child.poll() is None, "the load ended before the secrets were changed"
    assert await producer.ended(300) == 0
    await quiet(bench.url, seconds=60)
    await pool.close()
    standard, wms = (receiver.entries("request", path) for path in ("/standard", "/wms"))
    neither = sum(not request["keys"] for request in (*standard, *wms))
    too_late = refused_by(standard[overlapped:], 1)
    await bench.report(
        "A17",
        [Subscriber("ep_standard", "/standard"), Subscriber("ep_wms", "/wms", "wms", 1)],
        neither=neither,
        refused_by_the_old_secret_after_no_overlap=too_late,
    )
    assert neither == 0
    assert phases(standard) == [(0,), (0, 1), (1,), (2,)]
    assert phases(wms) == [(0,), (1,)]
    both = [request for request in standard if request["keys"] == [0, 1]]
    assert in_time(both[-1]["at"] - both[0]["at"], OVERLAP_SECONDS + FOLLOWED_SECONDS_MAX)
    assert refused_by(standard[:rotated], 0) == 0
    assert too_late > 0, "dropping the old secret at once refused nothing: this proves nothing"
