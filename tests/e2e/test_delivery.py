"""A committed event reaches every subscribed endpoint once, signed by its profile; a rolled-back one none."""

import signal

import pytest

from tests.support.certificates import Authority
from tests.support.checker import Subscriber
from tests.support.daemon import SECRETS, add_endpoint, quiet
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


@pytest.mark.shows("G1", "G2")
async def test_delivery_each_profile_is_signed_and_a_rolled_back_event_not_sent(
    bench, sql, tmp_path
):
    authority = Authority(tmp_path)
    authority.server_context("127.0.0.1")
    certificate = next(tmp_path.glob("*.pem"))
    receiver = bench.tls_receiver(certificate)
    receiver.behave(**{profile: {"secret": secret} for profile, secret in SECRETS.items()})
    await add_endpoint(sql, "ep_wms", receiver.url("/wms"), profile="wms", shard=1)
    await add_endpoint(sql, "ep_std", receiver.url("/standard"), profile="standard", shard=2)
    await add_endpoint(
        sql,
        "ep_hum",
        receiver.url("/humansoft", tls=True),
        profile="humansoft",
        shard=63,
        ca_pem=authority.pem,
    )
    daemon = await bench.daemon().started()
    producer = bench.produce(
        Plan(url=bench.url, events_count=60, writers=4, rolled_back_share=0.3, own_id_share=0.3)
    )
    assert await producer.ended(20) == 0
    await quiet(bench.url, seconds=15)
    report = await bench.report(
        "delivered-once",
        [
            Subscriber("ep_wms", "/wms", "wms", 6),
            Subscriber("ep_std", "/standard", "standard", 8),
            Subscriber("ep_hum", "/humansoft", "humansoft", 4),
        ],
    )
    assert 60 < report.pairs < 180
    assert await daemon.metric("dispatcher_attempts_total") == report.pairs
    # The last counts are written on the way down, for each endpoint, its tenant, and all.
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(20) == 0
    rows = await sql.fetch("SELECT subject, ok_count, succeeded_count FROM dispatcher.traffic")
    counted = {row["subject"]: row["ok_count"] for row in rows}
    assert counted["all"] == counted["tenant/default"] == report.pairs
    assert sum(counted[name] for name in ("ep_wms", "ep_std", "ep_hum")) == report.pairs
    assert all(row["ok_count"] == row["succeeded_count"] for row in rows)
    lanes = await sql.fetchval("SELECT figures ->> 'lanes_count' FROM dispatcher.replica_figures")
    assert lanes == "3"
