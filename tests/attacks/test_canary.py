"""A14, A13: a canary as the secret of an endpoint and as the key; nothing that leaves the daemon holds it.

Looked at: the log of a daemon at its most talkative, through failures, a bad reload and a dump of its tasks;
/metrics, /readyz; what the command line shows; the request as the receiver saw it; a dump of the database.
"""

import base64
import signal
import subprocess
from pathlib import Path

import pytest

from dispatcher.core.sealing import Keyring
from dispatcher.dev.postgres_binaries import find_binaries
from tests.support.daemon import KEY, add_endpoint, quiet
from tests.support.forking import run_command
from tests.support.ledger import Plan
from tests.support.servers import socket_of

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

CANARY = "whsec_" + "canary0geheim0canary0geheim0canary0gehei"
STANDARD_CANARY = "whsec_" + base64.b64encode(b"canary-standard-canary-standard!").decode()


def spellings(secret: str) -> set[bytes]:
    """Returns every form in which a secret could slip out: raw, hex, base64, with and without its prefix."""
    bare = secret.removeprefix("whsec_")
    found: set[bytes] = set()
    for text in (secret.encode(), bare.encode()):
        encoded = base64.b64encode(text).rstrip(b"=")
        found |= {text, text.hex().encode(), encoded, base64.urlsafe_b64encode(text).rstrip(b"=")}
    return found


FORBIDDEN = (
    spellings(CANARY)
    | spellings(STANDARD_CANARY)
    | {b"canary-standard", KEY, KEY.hex().encode(), base64.b64encode(KEY)}
)


def leaks(text: bytes) -> list[bytes]:
    """Returns the forms that stand in a text."""
    return sorted(form for form in FORBIDDEN if form in text)


def test_the_hunt_finds_each_form():
    for form in FORBIDDEN:
        assert leaks(b"{" + form + b"}")
    assert not leaks(b"whse********5799")


async def _saved(sql, name: str, url: str, profile: str, secret: str) -> None:
    await add_endpoint(sql, name, url, profile=profile, secret=secret, retry_schedule_seconds=[0.2])


def _command(url: str, folder: Path, *arguments: str) -> bytes:
    environ = {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
    }
    finished = run_command(arguments, environ, cwd=folder)
    return (finished.stdout + finished.stderr).encode()


def _dump(url: str) -> bytes:
    host, name = socket_of(url)
    program = find_binaries().bin_directory / "pg_dump"
    if not program.exists():
        pytest.skip("pg_dump is not among the binaries")
    return subprocess.run(
        [program, "-h", host, "-U", "dispatcher", name], capture_output=True, check=True, timeout=60
    ).stdout


async def test_a_canary_secret_is_in_nothing_that_leaves_the_daemon(bench, sql, tmp_path):
    receiver = bench.receiver
    receiver.behave(wms={"secret": CANARY, "statuses": [500]}, std={"secret": STANDARD_CANARY})
    await _saved(sql, "ep_wms", receiver.url("/wms"), "wms", CANARY)
    await _saved(sql, "ep_std", receiver.url("/std"), "standard", STANDARD_CANARY)
    await _saved(sql, "ep_gone", "http://127.0.0.1:1024/", "wms", CANARY)
    daemon = await bench.daemon(LOG__LEVEL="debug").started()
    await bench.produced(Plan(url=bench.url, events_count=5))
    await quiet(bench.url, seconds=20)
    daemon.kill(signal.SIGUSR1)  # a dump of its tasks
    await daemon.said("task.dumped")
    # A row that no longer opens: the error must not show what it was.
    sealed = Keyring({"k1": KEY}).seal(CANARY, owner="ep_other", nonce=b"n" * 12)
    await sql.execute(
        "UPDATE dispatcher.endpoint_secret SET sealed = $1 WHERE endpoint_id = 'ep_gone'", sealed
    )

    await daemon.said("endpoint.rejected")
    texts = {
        "log": daemon.log_path.read_bytes(),
        "metrics": (await daemon.get("/metrics"))[1].encode(),
        "readyz": (await daemon.get("/readyz"))[1].encode(),
        "shown": _command(bench.url, tmp_path, "endpoint", "show", "ep_wms", "--json"),
        "listed": _command(bench.url, tmp_path, "endpoint", "list", "--json"),
        "checked": _command(bench.url, tmp_path, "check"),
        "received": receiver.record.read_bytes(),
        "dump": _dump(bench.url),
    }
    assert {name: leaks(text) for name, text in texts.items() if leaks(text)} == {}
    assert b"ep_wms" in texts["listed"], texts["listed"]
    assert len(texts["dump"]) > 10_000
    # The control: where it is asked for, it is found, so the hunt can see it.
    assert leaks(_command(bench.url, tmp_path, "endpoint", "secret", "ep_wms"))
