"""The commands of docs/how-to/authenticate-to-receivers.md store and delete credentials."""

import re
import shlex
from pathlib import Path

import orjson
import pytest

from dispatcher.core.secret import MASK
from tests.e2e.test_cli import environ
from tests.support.certificates import Authority
from tests.support.daemon import CHECKOUT
from tests.support.forking import run_command

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

PAGE = CHECKOUT / "docs" / "how-to" / "authenticate-to-receivers.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_commands_of_the_guide_store_and_delete_credentials(database: str, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).client_pair()
    (tmp_path / "client.pem").write_text(certificate)
    (tmp_path / "client.key").write_text(key)
    variables = {**environ(database), "ERP_CLIENT_SECRET": "secret-of-the-client"}

    def run(command: str) -> dict[str, object]:
        program, *arguments = shlex.split(command)
        assert program == "dispatcher"
        finished = run_command([*arguments, "--json"], variables, cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        shown: dict[str, object] = orjson.loads(finished.stdout)
        return shown

    run("dispatcher endpoint create --name ERP --url https://example.com/a --event-types '*'")
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for block in BLOCK.findall(text) for line in block.strip().splitlines()]
    assert len(lines) == 4
    shown = [run(line) for line in lines]
    assert shown[0]["oauth_client_secret"] == MASK
    assert str(shown[1]["client_certificate"]).strip() == certificate.strip()
    assert shown[1]["client_key"] == MASK
    gone = ("oauth_token_url", "oauth_client_id", "oauth_client_secret", "oauth_scope")
    assert [shown[2][name] for name in gone] == [None] * 4
    assert [shown[3][name] for name in ("client_certificate", "client_key")] == [None, None]
