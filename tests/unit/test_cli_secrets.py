"""Secrets on the command line: by reference, because arguments are visible to every user of the machine."""

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dispatcher.cli.program import program
from dispatcher.cli.values import or_referenced, secret_text

BODY = b'{"id":"evt_1"}'
SECRET = "a-secret-of-wms"  # noqa: S105 -- made up
REFERENCES = "-, @FILE or env:NAME"


def options() -> Iterator[tuple[str, Any]]:
    """Yield each option of each command."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield from ((path, parameter) for parameter in command.params)
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{path} {name}")

    return walk(typer.main.get_command(program), "dispatcher")


def test_every_option_for_a_secret_accepts_references():
    found = {
        path: parameter.help
        for path, parameter in options()
        if parameter.name in {"secret", "secrets", "password", "token", "key"}
    }
    assert set(found) == {
        "dispatcher listen",
        "dispatcher verify",
        "dispatcher poll",
        "dispatcher delivery diagnose",
        "dispatcher endpoint create",
        "dispatcher endpoint preview",
        "dispatcher endpoint rotate-secret",
    }
    assert all(REFERENCES in text for text in found.values())


def test_every_url_of_an_endpoint_accepts_references():
    found = {
        path: parameter.help
        for path, parameter in options()
        if parameter.name == "url" and path.startswith("dispatcher endpoint")
    }
    assert set(found) == {
        "dispatcher endpoint create",
        "dispatcher endpoint preview",
        "dispatcher endpoint preview-update",
        "dispatcher endpoint update",
    }
    assert all(REFERENCES in text for text in found.values())


def test_a_reference_is_read_and_no_value_is_warned_of(tmp_path: Path, monkeypatch, capsys):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8-sig")
    monkeypatch.setenv("WMS_SECRET", SECRET)
    assert secret_text(f"@{file}", "--secret") == SECRET
    assert secret_text("env:WMS_SECRET", "--secret") == SECRET
    assert or_referenced("env:WMS_SECRET", "--url") == SECRET
    assert or_referenced("https://example.com/", "--url") == "https://example.com/"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "told"), [("@", "Name a file after @."), ("@none", "none cannot be read")]
)
def test_a_reference_that_cannot_be_read_is_told(text: str, told: str):
    with pytest.raises(typer.BadParameter, match=told):
        secret_text(text, "--secret")


def test_a_secret_as_an_argument_is_warned_of_without_being_repeated(capsys):
    assert secret_text(SECRET, "--secret") == SECRET
    warning = capsys.readouterr().err
    assert "visible in the process list" in warning
    assert SECRET not in warning


@pytest.mark.parametrize("reference", ["@/no/such/file", "env:NO_SUCH_VARIABLE"])
def test_a_reference_to_nothing_is_wrong_usage(reference: str):
    done = CliRunner().invoke(
        program, ["verify", "--profile", "wms", "--secret", reference, "--header", "a: b", "--body", "-"]
    )  # fmt: skip
    assert done.exit_code == 2


def test_a_secret_comes_by_standard_input(tmp_path: Path):
    body = tmp_path / "body"
    body.write_bytes(BODY)
    digest = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    arguments = [
        "verify", "--profile", "wms", "--secret", "-", "--header", f"X-WMS-Signature: sha256={digest}",
    ]  # fmt: skip
    good = CliRunner().invoke(program, [*arguments, "--body", str(body)], input=f"{SECRET}\n")
    assert good.exit_code == 0, good.output
    assert "warning" not in good.output
    assert CliRunner().invoke(program, [*arguments, "--body", "-"], input="x").exit_code == 2
