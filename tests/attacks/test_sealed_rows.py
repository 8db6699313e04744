"""A18: ciphertext swapped between rows, cut and flipped in Postgres; each holds its own endpoint's deliveries.

While the daemon runs, and again when it starts with such rows. The control is a keyring without associated data:
it opens what was swapped, so that one customer's receiver could be made to verify another's requests.
"""

import signal

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.core.errors import SecretError
from dispatcher.core.sealing import NONCE_BYTES, Keyring
from tests.support.checker import Subscriber
from tests.support.daemon import KEY, STANDARD_SECRET, Daemon, add_endpoint, quiet, until
from tests.support.ledger import Plan

SPOILT = {
    "ep_swapped_1": "SELECT sealed FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_swapped_2'",
    "ep_swapped_2": "SELECT sealed FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_swapped_1'",
    "ep_cut": "SELECT substr(sealed, 1, length(sealed) - 1) FROM dispatcher.endpoint_secret"
    " WHERE endpoint_id = 'ep_cut'",
    "ep_emptied": "SELECT ''::bytea",
    "ep_flipped": "SELECT set_byte(sealed, 20, get_byte(sealed, 20) # 1) FROM dispatcher.endpoint_secret"
    " WHERE endpoint_id = 'ep_flipped'",
}
EVENTS = 40


@pytest.mark.postgres
@pytest.mark.e2e
@pytest.mark.slow
async def test_a_tampered_secret_holds_its_own_deliveries_and_no_others(bench, sql):
    receiver = bench.receiver
    names = [*SPOILT, "ep_sound"]
    receiver.behave(**{name: {"secret": STANDARD_SECRET} for name in names})
    for name in names:
        await add_endpoint(sql, name, receiver.url(f"/{name}"))
    daemon = await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, prefix="before", events_count=10))
    await quiet(bench.url, seconds=10)
    spoilt = {name: await sql.fetchval(query) for name, query in SPOILT.items()}
    sound = dict(await sql.fetch("SELECT endpoint_id, sealed FROM dispatcher.endpoint_secret"))
    for name, sealed in spoilt.items():
        await sql.execute(
            "UPDATE dispatcher.endpoint_secret SET sealed = $2 WHERE endpoint_id = $1", name, sealed
        )
    unusable = 'dispatcher_endpoints_unusable{reason="secret_unreadable"} '

    async def noticed(by: Daemon) -> bool:
        return f"{unusable}{len(SPOILT)}.0" in (await by.get("/metrics"))[1]

    async def held(count: int) -> bool:
        rows = await sql.fetch(
            "SELECT endpoint_id, count(*) FROM dispatcher.delivery WHERE finished_at IS NULL GROUP BY 1 ORDER BY 1"
        )
        return [tuple(row) for row in rows] == [(name, count) for name in sorted(SPOILT)]

    await until(lambda: noticed(daemon), seconds=15, what="each spoilt row to be noticed")
    seen = {name: receiver.count("request", f"/{name}") for name in SPOILT}
    await bench.produced(Plan(url=bench.url, prefix="after", events_count=EVENTS))
    await until(lambda: held(EVENTS), seconds=15, what="the deliveries that wait")
    assert daemon.child.poll() is None
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(10) == 0
    # What was there before it started costs no more.
    again = await bench.daemon(name="again").started()
    await until(lambda: noticed(again), seconds=15, what="each spoilt row to be noticed at a start")
    await bench.produced(Plan(url=bench.url, prefix="again", events_count=EVENTS))
    await until(lambda: held(2 * EVENTS), seconds=15, what="the deliveries that wait")
    assert again.child.poll() is None
    assert {name: receiver.count("request", f"/{name}") for name in SPOILT} == seen
    active = "SELECT count(*) FROM dispatcher.endpoint WHERE state = 'active'"
    assert await sql.fetchval(active) == len(names), "none is disabled"
    for name in SPOILT:
        await sql.execute(
            "UPDATE dispatcher.endpoint_secret SET sealed = $2 WHERE endpoint_id = $1",
            name,
            sound[name],
        )
    await quiet(bench.url, seconds=20)
    await bench.report("A18", [Subscriber(name, f"/{name}") for name in names])


def test_control_a_seal_that_is_not_bound_to_its_row_opens_in_another():
    """Counted: of two swapped secrets, how many open under the other's name."""
    cipher, ours = AESGCM(KEY), Keyring({"k1": KEY})
    owners = ("ep_1", "ep_2")
    nonces = dict(zip(owners, (b"1" * NONCE_BYTES, b"2" * NONCE_BYTES), strict=True))
    unbound = {owner: cipher.encrypt(nonces[owner], owner.encode(), None) for owner in owners}
    bound = {owner: ours.seal(owner, owner=owner, nonce=nonces[owner]) for owner in owners}
    opened = {"theirs": 0, "ours": 0}
    for owner, other in (owners, owners[::-1]):
        try:
            opened["theirs"] += cipher.decrypt(nonces[other], unbound[other], None) != b""
        except InvalidTag:
            opened["theirs"] += 0
        try:
            opened["ours"] += ours.open(bound[other], owner=owner, key_id="k1") != ""
        except SecretError:
            opened["ours"] += 0
    assert opened == {"theirs": 2, "ours": 0}
