"""A50: a key file that has the daemon's key id and another value."""

import asyncio
import base64
import os
import subprocess

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import KEY, quiet
from tests.support.forking import run_command
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

RIGHT = "k1:" + base64.b64encode(KEY).decode()
WRONG = "k1:" + base64.b64encode(b"w" * 32).decode()


async def command(url: str, keys: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {
        **os.environ,
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": keys,
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.0/8"]',
        "DISPATCHER_HOME": "/nonexistent",
    }
    return await asyncio.to_thread(run_command, arguments, environ)


async def test_commands_with_another_value_of_the_key_exit_with_2(bench, sql, tmp_path):
    """A50: before the first secret and after it; each is refused before it writes."""
    url = bench.receiver.url("/hook")
    create = ["endpoint", "create", "--url", url, "--profile", "wms", "--event-types", "*"]
    file = tmp_path / "endpoints.toml"
    file.write_text(
        f'[[endpoints]]\nname = "c"\nurl = "{url}"\nprofile = "wms"\nevent_types = ["*"]\n'
    )
    await bench.daemon().started()
    first = await command(bench.url, WRONG, *create, "--name", "a")
    assert (first.returncode, first.stdout) == (2, "")
    assert "DISPATCHER_SECRET_KEYS: key 'k1' has another value" in first.stderr
    made = await command(bench.url, RIGHT, *create, "--name", "a", "--secret", "secret-secret")
    assert made.returncode == 0, made.stderr
    for arguments in (
        [*create, "--name", "b"],
        ["endpoint", "rotate-secret", "a"],
        ["endpoint", "secret", "a"],
        ["endpoint", "apply", "--file", str(file)],
        ["endpoint", "test", "a"],
        ["secrets", "rekey"],
        ["portal", "link", "--tenant", "default"],
        ["check"],
    ):
        finished = await command(bench.url, WRONG, *arguments)
        assert finished.returncode == 2, (arguments, finished.stderr)
        assert "has another value" in finished.stdout + finished.stderr, arguments
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint") == 1
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint_secret") == 1
    bench.receiver.behave(hook={"secret": "secret-secret"})
    await bench.produced(Plan(url=bench.url, events_count=5))
    await quiet(bench.url, seconds=30)
    endpoint_id = await sql.fetchval("SELECT id FROM dispatcher.endpoint")
    await bench.report("A50", [Subscriber(endpoint_id, "/hook")])


@pytest.mark.parametrize("arguments", [(), ("--role", "api"), ("--role", "delivery")])
async def test_daemon_with_another_value_of_the_key_exits_with_2(bench, arguments):
    """A50: also while no secret is encrypted yet."""
    await bench.daemon(name="right").started()
    daemon = bench.daemon(name="wrong", arguments=arguments, SECRET_KEYS=WRONG)
    assert await daemon.ended(30) == 2
    assert "key 'k1' has another value" in daemon.log_path.read_text()
