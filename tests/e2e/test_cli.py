"""Commands as processes on the real database: exit codes, JSON, and that every example of the help works."""

import asyncio
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
import yaml

from dispatcher.cli import completion
from tests.support.daemon import add_endpoint
from tests.support.forking import run_command

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

KEY = "k1:" + "QUJD" * 10 + "QUI="
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environ(url: str) -> dict[str, str]:
    own = {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_HOME": "/nonexistent",
        "DISPATCHER_SMTP__HOST": "127.0.0.1",
        "DISPATCHER_SMTP__SENDER": "dispatcher@example.com",
    }
    return {**os.environ, **own}


def runner(url: str) -> Run:
    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return run_command(arguments, environ(url), stdin)

    return run


@pytest.fixture
def run(database: str) -> Run:
    return runner(database)


def answer(finished: "subprocess.CompletedProcess[str]") -> Any:
    assert finished.returncode == 0, finished.stderr
    return orjson.loads(finished.stdout)


def test_an_endpoints_life(run: Run):
    made = answer(
        run(
            "endpoint",
            "create",
            "--name",
            "erp",
            "--url",
            "https://example.com/a",
            "--profile",
            "wms",
            "--event-types",
            "order.*",
            "--event-types",
            "stock.changed",
            "--headers",
            "X-A=b",
            "--labels",
            "c=1",
            "--labels",
            "c=2",
            "--retry-schedule-seconds",
            "1",
            "--retry-schedule-seconds",
            "2.5",
            "--json",
        )
    )  # fmt: skip -- as one types it
    assert made["event_types"] == ["order.*", "stock.changed"]
    assert made["headers"] == {"X-A": "b"}
    assert made["labels"] == {"c": ["1", "2"]}
    assert made["retry_schedule_seconds"] == [1.0, 2.5]
    shown = answer(run("endpoint", "show", made["id"], "--json"))
    assert "*" * 8 in shown["secret"]
    assert run("endpoint", "secret", made["id"]).stdout == made["secret"] + "\n"
    assert answer(run("endpoint", "pause", made["id"], "--json"))["state"] == "paused"
    assert answer(run("endpoint", "resume", made["id"], "--json"))["state"] == "active"
    changed = run(
        "endpoint",
        "update",
        made["id"],
        "--retry-schedule-seconds",
        "none",
        "--headers",
        "none",
        "--json",
    )
    assert (answer(changed)["retry_schedule_seconds"], answer(changed)["headers"]) == (None, {})
    assert answer(run("endpoint", "rotate-secret", made["id"], "--json"))["state"] == "staged"
    assert run("endpoint", "delete", made["id"], stdin="n\n").returncode == 1
    assert run("endpoint", "delete", made["id"], "--yes").returncode == 0
    assert run("endpoint", "show", made["id"]).returncode == 1
    assert answer(run("endpoint", "list", "--json")) == {"items": [], "next_cursor": None}


def test_faults_are_told_on_standard_error(run: Run):
    finished = run(
        "endpoint", "create", "--name", "x", "--url", "http://10.0.0.1/", "--event-types", "Bad"
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "url: " in finished.stderr
    assert "event_types[0]: " in finished.stderr


def test_an_endpoint_needs_a_url_unless_it_fetches_its_deliveries(run: Run):
    words = ("endpoint", "create", "--name", "behind", "--event-types", "order.*")
    finished = run(*words)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "url: " in finished.stderr
    assert answer(run(*words, "--delivery", "pull", "--json"))["delivery"] == "pull"


def test_a_type_that_is_none_is_told_whether_or_not_there_are_data(run: Run):
    for data in ([], ["--data", "{}"]):
        finished = run("event", "publish", "Bad Type", *data)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert "type: " in finished.stderr


def test_an_event_is_published_shown_and_explained(run: Run):
    made = answer(
        run(
            "event",
            "publish",
            "order.created",
            "--data",
            "-",
            "--id",
            "a-1",
            "--json",
            stdin='{"a": 1.0}',
        )
    )
    again = run("event", "publish", "order.created", "--id", "a-1", "--json")
    assert answer(again)["id"] == made["id"] == "a-1"
    assert '"data": {"a": 1.0}' in again.stdout
    assert answer(run("event", "show", "a-1", "--json"))["deliveries"] == []
    assert answer(run("event", "explain", "a-1", "--json"))["dispatchers_alive"] == 0
    assert "a-1" in run("event", "list").stdout
    assert "a-1" in run("event", "list", "--search", "a-1").stdout
    assert answer(run("event", "list", "--search", "order=x", "--json"))["items"] == []
    assert run("event", "show", "a-2").returncode == 1
    assert answer(run("delivery", "list", "--json"))["items"] == []


def test_a_filter_is_counted_before_it_is_sent_once_more(run: Run):
    assert run("delivery", "resend").returncode == 2
    assert run("delivery", "resend", "wh_x", "--state", "failed").returncode == 2
    counted = run("delivery", "resend", "--state", "failed", "--dry-run", "--json")
    assert answer(counted) == {
        "count": 0,
        "skipped": {},
        "is_complete": True,
        "counted_until": None,
    }
    declined = run("delivery", "replay", "--state", "failed")
    assert (declined.returncode, declined.stderr.splitlines()[-1]) == (0, "no deliveries")
    asked = answer(run("delivery", "resend", "--search", "ORD-1", "--yes", "--json"))
    assert (asked["kind"], asked["state"], asked["filter"]) == (
        "resend", "pending", {"q": "ORD-1"},
    )  # fmt: skip
    assert answer(run("job", "pause", asked["id"], "--json"))["state"] == "paused"
    assert answer(run("job", "resume", asked["id"], "--json"))["state"] == "pending"
    assert answer(run("job", "cancel", asked["id"], "--yes", "--json"))["state"] == "cancelled"
    assert answer(run("job", "list", "--json"))["items"][0]["id"] == asked["id"]
    assert run("job", "pause", asked["id"]).returncode == 1
    assert run("delivery", "replay", "--state", "failed", "--to", "x", "--yes").returncode == 1
    assert run("delivery", "resend", "--state", "lost", "--yes").returncode == 2


def test_a_tokens_life_and_what_is_written_down(run: Run):
    made = answer(
        run_line(
            run,
            "dispatcher token create --name erp --role operator --tenant acme --expires 365d --json",
        )
    )
    assert made["token"].startswith(made["prefix"])
    assert (made["role"], made["tenant"]) == ("operator", "acme")
    shown = run("token", "create", "--name", "grafana", "--role", "viewer")
    assert "store the token now" in shown.stderr
    never = run(
        "token", "create", "--name", "ever", "--role", "viewer", "--expires", "none", "--json"
    )
    assert answer(never)["expires_at"] is None
    lives = [
        one for one in answer(run("token", "list", "--json"))["items"] if one["name"] == "grafana"
    ]
    days = datetime.fromisoformat(lives[0]["expires_at"]) - datetime.fromisoformat(
        lives[0]["created_at"]
    )
    assert timedelta(days=89) < days <= timedelta(days=90)
    run("token", "revoke", answer(never)["id"], "--yes")
    link = answer(run_line(run, "dispatcher open --role viewer --tenant acme --json"))
    assert link["url"] == f"http://127.0.0.1:8080/{link['path']}"
    assert run("open").stdout.startswith("http://127.0.0.1:8080/sign-in/")
    assert run("open", "--role", "root").returncode == 2
    listed = run("token", "list", "--json")
    assert [one["name"] for one in answer(listed)["items"]] == ["ever", "grafana", "erp"]
    assert made["token"] not in listed.stdout
    assert run("token", "create", "--name", "erp", "--role", "x").returncode == 2
    again = run("token", "create", "--name", "erp", "--role", "viewer", "--tenant", "acme")
    assert again.returncode == 1
    revoked = answer(run("token", "revoke", made["id"], "--yes", "--json"))
    assert revoked["revoked_at"] is not None
    assert run("token", "revoke", "tok_" + "a" * 26, "--yes").returncode == 1
    lines = answer(run("audit", "list", "--json"))["items"]
    assert [line["action"] for line in lines] == [
        "token.revoke", "link.create", "link.create", "token.revoke",
        "token.create", "token.create", "token.create",
    ]  # fmt: skip
    assert lines[0]["object"] == made["id"]
    assert answer(run("audit", "list", "--action", "token.revoke", "--tenant", "x", "--json")) == {
        "items": [],
        "next_cursor": None,
    }
    assert "token.create" in run("audit", "list", "--object", made["id"]).stdout


def test_a_terminal_is_not_steered_by_what_is_shown(run: Run):
    run("event", "publish", "order.created", "--data", '{"a": "\x9b31m\u202e"}', "--id", "a-1")
    for arguments in (
        ("event", "list"),
        ("event", "show", "a-1"),
        ("event", "show", "a-1", "--json"),
    ):
        shown = run(*arguments).stdout
        assert "\x9b" not in shown
        assert "\u202e" not in shown


def test_check_finds_a_migrated_database_good(make_database: Callable[..., str]):
    url = make_database(migrated=False)
    run = runner(url)
    before = run("check")
    assert (before.returncode, "run: dispatcher migrate" in before.stdout) == (1, True)
    pending = run("migrate", "--check")
    assert pending.returncode == 1
    assert pending.stdout.splitlines()[0] == "0001_pre_schema"
    assert run("endpoint", "list").returncode == 2
    assert run("migrate").returncode == 0
    assert run("migrate", "--check").returncode == 0
    after = run("check", "--json")
    assert after.returncode == 0, after.stdout
    found = orjson.loads(after.stdout)
    assert found["problems"] == found["configuration_problems"] == []
    assert KEY.split(":")[1] not in after.stdout
    given = environ(url) | {"DISPATCHER_SEARCH__TRIGRAM_INDEX": "true"}
    with_index = run_command(("check",), given, "")
    assert with_index.returncode == 1
    assert "CREATE EXTENSION pg_trgm" in with_index.stdout


async def test_check_names_an_endpoint_whose_row_cannot_be_read(
    make_database: Callable[..., str],
):
    url = make_database()
    connection = await asyncpg.connect(url)
    await add_endpoint(
        connection, "ep_odd", "https://x.example/", secret=None, headers='{"X-A": 5}'
    )
    await connection.close()
    found = await asyncio.to_thread(runner(url), "check", "--json")
    assert found.returncode == 1
    expected = "endpoint ep_odd (ep_odd): invalid_settings: headers holds something that is no text"
    problems = orjson.loads(found.stdout)["problems"]
    assert any(problem.startswith(expected) for problem in problems)


def test_names_and_their_completion_come_from_the_database(database: str):
    run = runner(database)
    for tenant in ("acme", "zeta"):
        create = (
            f"dispatcher endpoint create --name ERP --tenant {tenant} --url https://example.com/"
        )
        answer(run_line(run, f"{create} --event-types order.created --json"))
    answer(run("token", "create", "--name", "grafana", "--role", "viewer", "--json"))
    ambiguous = run("endpoint", "show", "ERP")
    assert ambiguous.returncode == 1
    assert "(tenant acme), ep_" in ambiguous.stderr
    shown = answer(run("endpoint", "show", "ERP", "--tenant", "zeta", "--json"))
    assert shown["tenant"] == "zeta"
    assert answer(run("delivery", "list", "--endpoint", "ERP", "--tenant", "acme", "--json"))
    mistyped = run("delivery", "list", "--endpoint", "ERQ")
    assert (mistyped.returncode, "Did you mean ERP?" in mistyped.stderr) == (1, True)
    unknown = run("event", "publish", "order.creatd")
    assert (unknown.returncode, "Did you mean order.created?" in unknown.stderr) == (2, True)

    def completed(line: str, url: str = database) -> list[str]:
        own = {"_DISPATCHER_COMPLETE": "complete_bash", "COMP_WORDS": line}
        place = {"COMP_CWORD": str(len(line.split(" ")) - 1)}
        return run_command([], {**environ(url), **own, **place}).stdout.split()

    assert completed("dispatcher endpoint show E") == ["ERP"]
    assert completed("dispatcher delivery list --endpoint ") == ["ERP"]
    assert completed("dispatcher token revoke g") == ["grafana"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_at = time.monotonic()
        url = f"postgresql://a@127.0.0.1:{silent.getsockname()[1]}/x"
        assert completed("dispatcher endpoint show E", url) == []
        assert time.monotonic() - started_at < 4 * completion.SECONDS_MAX


def test_none_clears_a_value_and_omitted_options_keep_theirs(run: Run):
    made = run(
        "notification", "create", "--name", "mail", "--email", "ops@example.com",
        "--quiet-seconds", "60", "--digest-seconds", "3600", "--json",
    )  # fmt: skip
    assert answer(made)["quiet_seconds"] == 60
    changed = answer(run("notification", "update", "mail", "--digest-seconds", "none", "--json"))
    assert (changed["digest_seconds"], changed["quiet_seconds"]) == (None, 60)
    refused = run("notification", "update", "mail", "--email", "none")
    assert (refused.returncode, "to_endpoint_id: " in refused.stderr) == (2, True)


@pytest.mark.parametrize("output", ["wide", "yaml"])
def test_every_list_has_a_wide_table_and_yaml(run: Run, output: str):
    answer(run("event", "publish", "order.created", "--id", "a-1", "--json"))
    for group in (
        "endpoint",
        "event",
        "delivery",
        "schedule",
        "notification",
        "job",
        "token",
        "audit",
    ):
        listed = run(group, "list", "-o", output)
        assert listed.returncode == 0, listed.stderr
        if output == "yaml":
            assert isinstance(yaml.safe_load(listed.stdout)["items"], list)


def test_check_descriptor_limit_too_small_is_reported(database: str):
    command = ["prlimit", "--nofile=512", sys.executable, "-m", "dispatcher", "check", "--json"]
    done = subprocess.run(
        command, env=environ(database), capture_output=True, timeout=60, check=False
    )
    found = orjson.loads(done.stdout)
    assert found["file_descriptors_max"] == 512
    assert any("fewer than delivery.concurrency_total" in one for one in found["warnings"])


def test_portal_links_are_printed_listed_and_revoked(run: Run):
    made = answer(run("portal", "link", "--tenant", "acme", "--color", "#0F7B6C", "--json"))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/portal/link/[\w-]{43}", made["url"])
    assert (made["role"], made["color"], made["state"]) == ("manager", "#0f7b6c", "unused")
    listed = run("portal", "list", "--json")
    assert [one["id"] for one in answer(listed)["items"]] == [made["id"]]
    assert made["url"].rpartition("/")[2] not in listed.stdout
    assert run("portal", "revoke", made["id"], "--yes").returncode == 0
    assert answer(run("portal", "list", "--json"))["items"][0]["state"] == "revoked"
    refused = run("portal", "link", "--tenant", "acme", "--frame-ancestor", "https://a.example")
    assert (refused.returncode, "portal.frame_ancestors" in refused.stderr) == (2, True)


def examples() -> list[str]:
    from dispatcher.cli import (  # noqa: PLC0415 -- only for their texts
        audit,
        console_session,
        delivery,
        endpoint,
        event,
        job,
        notification,
        portal,
        schedule,
        secrets,
        token,
    )

    found = []
    modules = (delivery, endpoint, event, job, notification, schedule, token, console_session)
    for module in (*modules, audit, secrets, portal):
        for command in module.group.registered_commands:
            text = re.sub(r"\\\n\s*", "", str(command.callback.__doc__)) if command.callback else ""
            found += re.findall(r"^\s*((?:echo .*\| )?dispatcher .*)$", text, re.MULTILINE)
    return found


@pytest.mark.timeout(300)  # some thirty processes, one after the other
@pytest.mark.shows("C2")
def test_every_example_of_the_help_works(run: Run, tmp_path):
    for name in ("ERP", "ops-chat"):
        answer(
            run_line(
                run,
                f"dispatcher endpoint create --name {name} --url https://example.invalid/"
                " --event-types '*' --profile wms --json",
            )
        )
    answer(run("endpoint", "rotate-secret", "ERP", "--json"))
    event_id = answer(run("event", "publish", "order.created", "--json"))["id"]
    answer(run("notification", "create", "--name", "on-call", "--to-endpoint-id", "ERP", "--json"))
    answer(run("token", "create", "--name", "grafana", "--role", "viewer", "--json"))
    file = tmp_path / "endpoints.toml"
    file.write_text(run("endpoint", "export").stdout)
    texts = examples()
    assert len(texts) >= 20
    failed = {}
    for text in sorted(texts, key=lambda one: "delete" in one or "revoke" in one):
        if (
            "endpoint test" in text
            or "wh_" in text
            or "event release" in text
            or "job_" in text
            or "ses_" in text
            or "pl_" in text
        ):
            # These need a receiver, a delivery, a quarantined event or a job: below, and in the tests of `dev`.
            continue
        if "--watch" in text:
            continue  # goes on: tests/e2e/test_cli_live.py
        line = re.sub(r"evt_2026_\d+", event_id, text)
        line = re.sub(r"--name (\S+)", r"--name \1-2", line)
        line = line.replace("endpoints.toml", str(file))
        finished = run_line(run, line)
        if finished.returncode != 0:
            failed[line] = finished.stderr
    assert failed == {}


def run_line(run: Run, line: str) -> "subprocess.CompletedProcess[str]":
    words = shlex.split(line)
    if ">" in words:  # into a file
        words = words[: words.index(">")]
    stdin = ""
    if words[0] == "echo":
        stdin, words = words[1], words[3:]
    return run(*words[1:], stdin=stdin)
