"""Every command that `docs/reference/api.md` prints does what the page says, in the order in which it prints them."""

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.admin.conftest import ADMIN_TOKEN, environment
from tests.admin.test_matrix import make_things

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the commands of the page need curl"),
]
PREAMBLE = """
set -eu
curl() { command curl --fail-with-body --max-time 20 "$@"; }
dispatcher() { "$PYTHON" -m dispatcher "$@"; }
"""


def commands(page: str) -> list[str]:
    """Returns the page's shell blocks; the address and the token that a reader fills in are left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^URL=.*TOKEN=dsp_.*\n", "", block, flags=re.MULTILINE) for block in blocks]


async def test_every_command_of_the_page_works(api, connection, database, checkout: Path):
    things = await make_things(api, connection, "default")
    etag = (await api.ask("GET", f"/endpoints/{things.endpoint}")).headers["ETag"]
    environ = environment(database) | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(checkout),
        "DISPATCHER_HOME": "/nonexistent",
        "URL": f"{api.url}/api/v1",
        "TOKEN": ADMIN_TOKEN,
        "ID": things.endpoint,
        "DELIVERY": things.delivery,
    }
    blocks = commands((checkout / "docs" / "reference" / "api.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 7
    failed = {}
    for block in blocks:
        script = PREAMBLE + re.sub(r'If-Match: "[^"]+"', f"If-Match: {etag}", block)
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=environ,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
        if process.returncode != 0:
            failed[block] = said.decode()
    assert failed == {}
