"""Every code block of the documentation is valid in its language, and every statement runs.

Blocks that are also run as a whole have their own tests: `admin/test_api_page.py` (the API),
`e2e/test_producer_snippets.py` (publishing), `e2e/test_quick_start.py`, `wire/test_snippets.py` (verifying)
and `deploy/test_systemd_boot.py` (installing).
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson
import pytest
import yaml

from dispatcher.store.migrate import grant_producers
from tests.deploy.test_documents import CHECKOUT, PAGES
from tests.support.tools import need

BLOCK = re.compile(r"(?ms)^( *)```([\w#]*)\n(.*?)^ *```$")
ELSEWHERE = {
    "js": "wire/test_snippets.py and e2e/test_producer_snippets.py run or parse each block",
    "php": "the same",
    "go": "the same",
    "java": "the same",
    "ruby": "e2e/test_producer_snippets.py runs it",
    "csharp": "wire/test_snippets.py compares it with its file; no .NET is available",
    "html": "read by people: console/embedding.py serves such a page",
    "": "output of commands, and pictures made of characters",
}
TABLES = "CREATE TEMPORARY TABLE orders (id text PRIMARY KEY, state text)"


SESSION = r"(BEGIN|COMMIT|CREATE DATABASE|GRANT \w+ ON DATABASE|CREATE ROLE dispatcher_producer)\b"
"""Statements that cannot run in a transaction that is rolled back, or whose role or database exists."""


class Block(NamedTuple):
    page: Path
    language: str
    text: str


def blocks(language: str | None = None, pages: list[Path] = PAGES) -> Iterator[Block]:
    """Yields the fenced blocks of the pages."""
    for page in pages:
        for indent, name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in {None, name}:
                yield Block(page, name, re.sub(rf"(?m)^{indent}", "", text))


def test_every_block_has_a_language_that_is_checked():
    checked = {"sh", "sql", "python", "json", "toml", "yaml", "nginx"} | ELSEWHERE.keys()
    assert {str(one.page): one.language for one in blocks() if one.language not in checked} == {}


def test_shell_blocks_are_valid_shell():
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not installed")
    script = "".join(f"f() {{\n{one.text}\n}}\n" for one in blocks("sh"))
    checked = subprocess.run(
        [shell, "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_python_json_toml_and_yaml_blocks_can_be_read():
    readers: dict[str, Callable[[str], object]] = {
        "json": orjson.loads,
        "toml": tomllib.loads,
        "yaml": yaml.safe_load,
    }
    for one in blocks():
        if one.language == "python":
            compile(one.text, str(one.page), "exec")
        elif one.language in readers:
            readers[one.language](one.text)


def nginx_errors(text: str, folder: Path) -> str:
    """Returns what nginx reports about server blocks, with a certificate in the place of the reader's."""
    nginx = need("nginx")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"{need('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    text = re.sub(r"(ssl_certificate) +[^;]+", rf"\1 {certificate}", text)
    text = re.sub(r"(ssl_certificate_key) +[^;]+", rf"\1 {key}", text)
    configuration = folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    configuration.write_text(
        f"events {{}}\npid {folder}/pid;\nerror_log stderr;\n"
        f"http {{\naccess_log off;\n{folders}{text}}}\n"
    )
    checked = subprocess.run(
        [nginx, "-t", "-q", "-p", str(folder), "-c", str(configuration)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return checked.stderr if checked.returncode else ""


def test_nginx_blocks_are_valid(tmp_path: Path):
    found = list(blocks("nginx"))
    assert found
    for one in found:
        assert nginx_errors(one.text, tmp_path) == ""
    wrong = found[0].text.replace("proxy_pass", "proxy_passes")  # the control
    assert 'unknown directive "proxy_passes"' in nginx_errors(wrong, tmp_path)


def test_thai_pages_show_the_code_of_the_english_pages():
    thai = CHECKOUT / "docs" / "th"
    english = [page for page in PAGES if thai not in page.parents]
    known = {(one.language, one.text) for one in blocks(pages=english)}
    found = list(blocks(pages=sorted(thai.rglob("*.md"))))
    assert len(found) > 10
    assert [one.text for one in found if (one.language, one.text) not in known] == []


def statements(text: str) -> Iterator[str]:
    """Yields the statements that can run in a transaction that is rolled back."""
    for statement in re.split(r";\n(?![^$]*\$\$;)", text):
        bare = re.sub(r"(?m)^ *--.*$", "", statement).strip()
        if bare and not re.match(SESSION, bare):
            yield statement


@pytest.mark.postgres
async def test_sql_blocks_run(database):
    """On an empty database: names, types and rights are checked."""
    connection = await asyncpg.connect(database)
    failed = {}
    try:
        await grant_producers(connection)
        for one in blocks("sql"):
            transaction = connection.transaction()
            await transaction.start()
            statement = ""
            try:
                await connection.execute(
                    "DROP ROLE IF EXISTS dispatcher_daemon, wms_app, reporting"
                )
                await connection.execute(f"{TABLES}; CREATE ROLE wms_app")
                for statement in statements(one.text):
                    if "CREATE ROLE wms_app" in statement:
                        await connection.execute("DROP ROLE wms_app")
                    await connection.execute(statement)
            except asyncpg.PostgresError as error:
                failed[f"{one.page.name}: {statement}"] = str(error)
            finally:
                await transaction.rollback()
    finally:
        await connection.close()
    assert failed == {}
