"""The unit tier refuses what it promises to do without, even if the code under test handles the error."""

import re
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
TESTS = """
import asyncio, os, socket, subprocess
import pytest
def suppress_all(call):
    try: call()
    except BaseException: pass
@pytest.fixture
def cluster(): raise ValueError
def test_fixture(cluster): pass
@pytest.mark.postgres
def test_marked_postgres(): pass
@pytest.mark.e2e
def test_marked_e2e(): pass
"""


def _cases(prefix: str, cases: dict[str, str]) -> str:
    return "".join(
        f"def test_{prefix}_{number}():\n    {code}\n" for number, code in enumerate(cases.values())
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run a file of tests under the tier's rules, once for all tests of this module."""
    path = tmp_path_factory.mktemp("tier") / "test_tier.py"
    path.write_text(TESTS + _cases("forbidden", FORBIDDEN) + _cases("allowed", ALLOWED))
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-n0", "-p", "tests.unit.conftest"]
    command += ["-p", "no:cacheprovider", "-c", str(CHECKOUT / "pyproject.toml"), str(path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout


def _count(output: str, outcome: str, prefix: str) -> int:
    return len(re.findall(rf"^{outcome} \S*::test_{prefix}", output, re.MULTILINE))


def test_unit_tier_process_or_connection_fails(output: str):
    assert _count(output, "FAILED", "forbidden") == len(FORBIDDEN), output
    assert output.count("in the unit tier; tests/README.md") >= len(FORBIDDEN)


def test_unit_tier_pure_code_passes(output: str):
    assert _count(output, "PASSED", "allowed") == len(ALLOWED), output
    assert _count(output, "PASSED", "") == len(ALLOWED), output


def test_unit_tier_test_marked_for_another_tier_fails(output: str):
    assert _count(output, "ERROR", "marked") == 2, output


def test_unit_tier_fixture_with_postgres_fails(output: str):
    assert _count(output, "ERROR", "fixture") == 1, output
    assert "['cluster'] in the unit tier" in output
