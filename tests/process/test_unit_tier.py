"""The unit tier refuses what it promises to do without, even if the code under test handles the error."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FORBIDDEN = {
    "process": "subprocess.run(['true'])",
    "handled process": "suppress_all(lambda: subprocess.run(['true']))",
    "shell": "os.system('true')",
    "fork": "os.fork() or os._exit(0)",
    "listener": "socket.create_server(('127.0.0.1', 0))",
    "connection": "socket.create_connection(('127.0.0.1', 9))",
    "name": "socket.getaddrinfo('localhost', 80)",
    "event loop": "asyncio.run(asyncio.open_connection('127.0.0.1', 9))",
}
ALLOWED = {
    "event loop": "asyncio.run(asyncio.sleep(0))",
    "socket pair": "[one.close() for one in socket.socketpair()]",
    "file": "os.listdir('.')",
}
HEAD = """
import asyncio, os, socket, subprocess
import pytest
def suppress_all(call):
    try: call()
    except BaseException: pass
"""


def _run(folder: Path, tests: str) -> str:
    path = folder / "test_tier.py"
    path.write_text(HEAD + tests)
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "tests.unit.conftest"]
    command += ["-p", "no:cacheprovider", "-c", str(CHECKOUT / "pyproject.toml"), str(path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout


def _cases(cases: dict[str, str]) -> str:
    return "".join(
        f"def test_{number}():\n    {code}\n" for number, code in enumerate(cases.values())
    )


def test_unit_tier_process_or_connection_fails(tmp_path: Path):
    output = _run(tmp_path, _cases(FORBIDDEN))
    assert f"{len(FORBIDDEN)} failed in" in output, output
    assert output.count("in the unit tier; tests/README.md") >= len(FORBIDDEN)


def test_unit_tier_pure_code_passes(tmp_path: Path):
    output = _run(tmp_path, _cases(ALLOWED))
    assert f"{len(ALLOWED)} passed in" in output, output


@pytest.mark.parametrize("marked", ["@pytest.mark.postgres", "@pytest.mark.e2e"])
def test_unit_tier_test_marked_for_another_tier_fails(tmp_path: Path, marked: str):
    assert "1 error in" in _run(tmp_path, f"{marked}\ndef test_it(): pass\n")


def test_unit_tier_fixture_with_postgres_fails(tmp_path: Path):
    tests = "@pytest.fixture\ndef cluster(): raise ValueError\ndef test_it(cluster): pass\n"
    assert "['cluster'] in the unit tier" in _run(tmp_path, tests)
