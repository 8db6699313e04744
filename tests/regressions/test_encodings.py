"""Outputs that are not UTF-8, files that begin with a BOM, data of any depth: no command ends in a traceback."""

import codecs
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.support.forking import run_command

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

KEY = "k1:" + "QUJD" * 10 + "QUI="
NAME = "คลังสินค้า 📦"
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(database: str) -> Run:
    """Run a command; a process of its own only where its encoding or its bytes are the subject."""

    def command(
        *arguments: str, stdin: bytes = b"", encoding: str = "utf-8"
    ) -> "subprocess.CompletedProcess[bytes]":
        environ = {
            "DISPATCHER_DATABASE_URL": database,
            "DISPATCHER_SECRET_KEYS": KEY,
            "DISPATCHER_HOME": "/nonexistent",
            "PYTHONIOENCODING": encoding,
        }
        if encoding == "utf-8" and all(one.isprintable() for one in arguments):
            done = run_command(arguments, {**os.environ, **environ}, stdin)
            out, err = done.stdout.encode(), done.stderr.encode()
            return subprocess.CompletedProcess(done.args, done.returncode, out, err)
        return subprocess.run(
            [sys.executable, "-m", "dispatcher", *arguments],
            env={**os.environ, **environ}, input=stdin, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return command


def create(run: Run, *more: str) -> "subprocess.CompletedProcess[bytes]":
    return run(
        "endpoint", "create", "--name", NAME, "--url", "https://example.com/", "--profile", "wms",
        "--event-types", "a.b", *more,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "tis-620"])
def test_an_output_that_is_not_utf_8_gets_escapes(run, encoding):
    assert create(run).returncode == 0
    listed = run("endpoint", "list", encoding=encoding)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b"\\U0001f4e6" in listed.stdout
    assert ("คลังสินค้า" in listed.stdout.decode(encoding)) is (encoding == "tis-620")
    page = orjson.loads(run("endpoint", "list", "--json", encoding=encoding).stdout)
    assert page["items"][0]["name"] == NAME


def test_a_file_that_begins_with_a_bom_is_read(run, tmp_path: Path):
    data = tmp_path / "data.json"
    data.write_bytes(codecs.BOM_UTF8 + b'{"order_id": "1"}')
    published = run("event", "publish", "order.created", "--data", f"@{data}", "--json")
    assert published.returncode == 0, published.stderr
    assert orjson.loads(published.stdout)["data"] == {"order_id": "1"}
    assert run("event", "publish", "order.created", "--data", "-", stdin=data.read_bytes()).returncode == 0  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_bytes(codecs.BOM_UTF8 + b"a-secret-of-the-erp\n")
    toml = (
        '[[endpoints]]\nname = "x"\nurl = "https://example.com/"\nprofile = "wms"\n'
        'event_types = ["a.b"]\nsecret = "file:secret"\n'
    )
    fields = {"name": "y", "url": "https://example.com/", "profile": "wms", "event_types": ["a.b"]}
    json = orjson.dumps({"endpoints": [fields]}).decode()
    for name, text in (("a.toml", toml), ("a.json", json)):
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + text.encode())
        applied = run("endpoint", "apply", "-f", str(tmp_path / name), "--json")
        assert applied.returncode == 0, applied.stderr
    endpoint_id = orjson.loads(run("endpoint", "list", "--name", "x", "--json").stdout)["items"][0][
        "id"
    ]
    assert run("endpoint", "secret", endpoint_id).stdout == b"a-secret-of-the-erp\n"


@pytest.mark.parametrize("depth", [300, 1100])
def test_deep_data_is_published_and_printed(run, depth):
    data = '{"a":' + "[" * depth + "]" * depth + "}"
    published = run("event", "publish", "a.b", "--data", data, "--json")
    assert published.returncode == 0, published.stderr
    event_id = published.stdout.partition(b'"id": "')[2].partition(b'"')[0].decode()
    for arguments in (("show",), ("show", "--json"), ("explain",)):
        shown = run("event", arguments[0], event_id, *arguments[1:])
        assert shown.returncode == 0, shown.stderr


def test_an_argument_that_is_not_utf_8_is_wrong_usage(run):
    for arguments in (
        ("endpoint", "list", "--name", "\udcff"),
        ("event", "list", "--type", "\udcff"),
        ("event", "show", "\udcff"),
        ("audit", "list", "--action", "\udcff"),
        ("token", "create", "--name", "\udcff", "--role", "viewer"),
        ("delivery", "show", "\udcff"),
    ):
        done = run(*arguments)
        assert done.returncode in {1, 2}, arguments
        assert b"Traceback" not in done.stderr, arguments
