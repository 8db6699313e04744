"""The command line: what it loads, what it refuses, what it prints, and what `verify` says."""

import base64
import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dispatcher.cli import values
from dispatcher.cli.output import Column, say_table
from dispatcher.cli.program import program
from dispatcher.core.printable import escape

BODY = b'{"id":"evt_1"}'
WMS_SECRET = "a-secret-of-wms"  # noqa: S105 -- made up
OTHER_SECRET = "another-secret"  # noqa: S105 -- made up
MALFORMED = "whpk_x"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(program, list(arguments), input=stdin)
    return result.exit_code, result.output


def process(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")
    }
    return subprocess.run(
        [sys.executable, "-m", "dispatcher", *arguments],
        env={**clean, "DISPATCHER_HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_loads_neither_http_nor_database():
    code = (
        "import sys; from dispatcher.cli.program import program\n"
        "for words in ([], ['endpoint'], ['endpoint', 'create'], ['event'], ['delivery'], ['token'],"
        " ['audit'], ['dev'], ['run']):\n"
        "    try: program([*words, '--help'], prog_name='dispatcher')\n"
        "    except SystemExit as ended: assert ended.code == 0\n"
        "loaded = {'aiohttp', 'asyncpg', 'uvloop', 'cryptography'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_a_command_loads_its_own_group_only():
    code = (
        "import sys; from dispatcher.cli.program import program\n"
        "def run(*words):\n"
        "    try: program([*words, '--help'], prog_name='dispatcher')\n"
        "    except SystemExit as ended: assert ended.code == 0\n"
        "run(); assert 'pydantic' not in sys.modules\n"
        "run('run'); run('migrate'); run('dev')\n"
        "loaded = {'rich', 'dispatcher.admin', 'dispatcher.cli.job'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "run('job', 'list')\n"
        "assert 'dispatcher.cli.job' in sys.modules and 'dispatcher.cli.token' not in sys.modules"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_a_daemon_without_certificates_loads_no_x509():
    code = "import sys, dispatcher.cli.daemon; assert 'cryptography.x509' not in sys.modules"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_lean_imports_leave_out_authorities_and_rich_and_restore_both():
    code = (
        "import ssl, sys\n"
        "import dispatcher.cli.daemon\n"
        "from aiohttp.connector import _SSL_CONTEXT_VERIFIED as own\n"
        "assert own.verify_mode is ssl.CERT_REQUIRED and own.get_ca_certs() == []\n"
        "assert 'set_default_verify_paths' not in vars(ssl.SSLContext)\n"
        "assert not any(name.partition('.')[0] in {'rich', 'pygments'} for name in sys.modules)\n"
        "import rich.cells"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["endpoint", "create", "--name", "x"],
        ["endpoint", "update", "ep_1"],
        ["migrate", "--phase", "middle"],
        ["delivery", "list", "--since", "yesterday"],
        ["event", "publish", "order.created", "--labels", "nothing"],
        ["event", "publish", "order.created", "--data", "@/no/such/file"],
        ["endpoint", "rotate-secret", "ep_1", "--activate-staged", "--activate"],
        ["listen", "--status", "99"],
        ["verify", "--profile", "x", "--secret", "s", "--header", "a: b", "--body", "-"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]):
    assert run(*arguments)[0] == 2


def test_without_a_database_url_a_command_says_what_to_set():
    finished = process("endpoint", "list")
    assert finished.returncode == 2
    assert "DISPATCHER_DATABASE_URL: required" in finished.stderr
    assert finished.stdout == ""


@pytest.mark.parametrize("command", [["run"], ["migrate"], ["check"]])
@pytest.mark.shows("C1")
def test_a_wrong_configuration_ends_with_2_and_names_every_fault(command: list[str]):
    finished = process(*command, DISPATCHER_HTTP__PORT="x", DISPATCHER_LOG__LEVEL="loud")
    assert finished.returncode == 2
    told = finished.stdout + finished.stderr
    assert "http.port" in told
    assert "log.level" in told


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    "given", [{}, {"DISPATCHER_DATABASE_URL": "bogus"}, {"DISPATCHER_HTTP__PORT": "x"}]
)
def test_what_is_missing_is_told_beside_what_is_wrong(command: str, given: dict[str, str]):
    finished = process(command, **given)
    assert finished.returncode == 2
    told = finished.stdout + finished.stderr
    for name in ("DISPATCHER_DATABASE_URL: ", "DISPATCHER_SECRET_KEYS: required", *given):
        assert name in told
    assert told.count("DISPATCHER_DATABASE_URL: ") == 1


def test_a_database_that_is_not_there_ends_with_1():
    finished = process("endpoint", "list", DISPATCHER_DATABASE_URL="postgresql://a@127.0.0.1:1/x")
    assert finished.returncode == 1
    assert "no connection to Postgres" in finished.stderr


def test_the_version_is_told():
    finished = process("--version")
    assert finished.returncode == 0
    assert finished.stdout.startswith("dispatcher ")


@given(st.text())
def test_nothing_that_is_shown_steers_a_terminal(text: str):
    shown = escape(text)
    assert not any(
        ord(one) < 32 or 127 <= ord(one) < 160 or 0x202A <= ord(one) <= 0x202E for one in shown
    )


def test_columns_are_those_of_a_terminal(capsys: pytest.CaptureFixture[str]):
    rows = [SimpleNamespace(name=text, state="ok") for text in ("abcd", "น้ำ", "倉庫")]
    say_table(rows, [Column("NAME", "name"), Column("STATE", "state")], "")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME  STATE", "abcd  ok", "น้ำ    ok", "倉庫  ok"]


def test_a_name_given_twice_has_a_list():
    assert values.pairs(["a=1", "b=2=3", "a=4"], "--labels") == {"a": ["1", "4"], "b": "2=3"}
    with pytest.raises(typer.BadParameter):
        values.single_pairs(["a=1", "a=2"], "--headers")


def test_times_have_a_zone_or_are_relative():
    at = values.moment("2026-05-29T14:32:11+07:00", "--since")
    assert at is not None
    assert at.isoformat() == "2026-05-29T14:32:11+07:00"
    for text in ("2026-01-01", "2026-05-29T14:32:11"):
        with pytest.raises(typer.BadParameter, match="zone"):
            values.moment(text, "--occurred-at")
    ago = values.moment("2h", "--since")
    assert ago is not None
    assert abs(time.time_ns() / 1e9 - ago.timestamp() - 7200) < 60
    ahead = values.coming_moment("2h", "--expires-at")
    assert ahead is not None
    assert ago is not None
    assert 4 * 3600 <= (ahead - ago).total_seconds() < 4 * 3600 + 60
    with pytest.raises(typer.BadParameter, match="from now"):
        values.coming_moment("tomorrow", "--expires-at")


def verified(
    tmp_path: Path, headers: Sequence[str], *options: str, profile: str, secret: str
) -> tuple[int, str]:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    given_headers = [word for header in headers for word in ("--header", header)]
    return run(
        "verify",
        "--profile",
        profile,
        "--secret",
        secret,
        *given_headers,
        "--body",
        str(body),
        *options,
    )


def test_verify_knows_a_signature_from_a_forged_one(tmp_path: Path):
    digest = hmac.new(WMS_SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    good = verified(
        tmp_path, [f"X-WMS-Signature: sha256={digest}"], profile="wms", secret=WMS_SECRET
    )
    bad = verified(
        tmp_path, [f"X-WMS-Signature: sha256={digest}"], profile="wms", secret=OTHER_SECRET
    )
    assert good[0] == 0
    assert good[1].endswith("valid\n")
    assert bad[0] == 1
    assert "wrong_secret" in bad[1]


def test_verify_with_a_computed_signature_names_the_mistake(tmp_path: Path):
    digest = hmac.new(WMS_SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    header = f"X-WMS-Signature: sha256={digest}"
    code, output = verified(
        tmp_path, [header], "--computed", digest, profile="wms", secret=WMS_SECRET
    )
    assert code == 1
    assert "computed_prefix_missing" in output


def standard_headers(signature: str, timestamp: int) -> list[str]:
    return [
        "webhook-id: evt_1",
        f"webhook-timestamp: {timestamp}",
        f"webhook-signature: {signature}",
    ]


def test_verify_judges_the_age_only_where_it_is_asked_to(tmp_path: Path):
    content = b"evt_1.1000000000." + BODY
    signature = (
        "v1," + base64.b64encode(hmac.new(b"k" * 32, content, hashlib.sha256).digest()).decode()
    )
    headers = standard_headers(signature, 1_000_000_000)
    assert verified(tmp_path, headers, profile="standard", secret=SECRET)[0] == 0
    code, told = verified(
        tmp_path, headers, "--tolerance", "300", profile="standard", secret=SECRET
    )
    assert code == 1
    assert "timestamp_too_old" in told


@pytest.mark.parametrize("kind", ["public", "private"])
def test_verify_knows_ed25519(tmp_path: Path, kind: str):
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    public = "whpk_" + base64.b64encode(key.public_key().public_bytes_raw()).decode()
    secret = public if kind == "public" else "whsk_" + base64.b64encode(b"s" * 32).decode()
    signature = "v1a," + base64.b64encode(key.sign(b"evt_1.1000000000." + BODY)).decode()
    headers = standard_headers(signature, 1_000_000_000)
    assert verified(tmp_path, headers, profile="standard", secret=secret)[0] == 0
    forged = standard_headers(signature, 1_000_000_001)
    assert verified(tmp_path, forged, profile="standard", secret=secret)[0] == 1
    assert (
        verified(tmp_path, headers, "--tolerance", "300", profile="standard", secret=secret)[0] == 1
    )
    assert verified(tmp_path, headers, profile="standard", secret=MALFORMED)[0] == 2


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["evt_1", "--label", "a=b", "--yes"]])
def test_what_to_erase_is_asked_for_before_any_question(arguments: list[str]):
    code, output = run("event", "erase", *arguments, stdin=b"n\n")
    assert code == 2
    assert "either" in output
    assert "for good" not in output


@pytest.mark.parametrize("arguments", [["--help"], ["check"], ["verify", "--help"]], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_error(arguments):
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "dispatcher", *arguments],
            env={**os.environ, "DISPATCHER_HOME": "/nonexistent", "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "dispatcher: cannot write the output: No space left on device\n"


def test_closed_standard_streams_are_not_taken_by_a_connection():
    """Without a standard stream, the first socket gets its number: uvloop then aborts the process."""
    ended = subprocess.run(  # noqa: S602 -- only a shell closes a stream
        f'"{sys.executable}" -m dispatcher token list <&- >&-',
        shell=True,
        env={**os.environ, "DISPATCHER_DATABASE_URL": "postgresql://user@127.0.0.1:1/none"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr.startswith("dispatcher: ")) == (1, True)


@pytest.mark.parametrize(
    ("url", "forward", "named"),
    [
        ("dispatcher.example", "http://localhost:3000/", "--url"),
        ("https://dispatcher.example", "localhost:3000", "--forward"),
        ("https://dispatcher.example", "http://localhost:port/", "--forward"),
    ],
)
def test_poll_rejects_what_is_no_url_instead_of_retrying_forever(url, forward, named):
    arguments = ["--url", url, "--forward", forward, "--token", "env:HOME", "--once"]
    code, output = run("poll", "ep_x", *arguments)
    assert (code, f"{named}: " in output) == (2, True)


def test_listen_rejects_a_server_that_is_no_url():
    code, output = run("listen", "--port", "0", "--forward-to", "localhost")
    assert (code, "--forward-to: " in output) == (2, True)
