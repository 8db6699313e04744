"""A1, A2: every spelling of every forbidden address, in a network namespace in which each of them answers."""

import os
import shutil
import subprocess
import sys

import orjson
import pytest

from tests.support.daemon import CHECKOUT


def test_no_spelling_of_a_forbidden_address_reaches_its_listener(say):
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root, unshare and ip")
    finished = subprocess.run(
        [unshare, "--net", sys.executable, "-m", "tests.attacks.namespace_probe"],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "Operation not permitted" in finished.stderr:
        pytest.skip("network namespaces are not allowed here")
    assert finished.returncode == 0, finished.stderr[-2_000:]
    found = orjson.loads(finished.stdout)
    say(orjson.dumps({"id": "A1-A2", **found, "verdict": "held"}).decode())
    assert found["accepted"] == 0
    assert found["accepted_when_allowed"] >= 10, "the control: the listeners can be reached"
    assert set(found["outcomes"]) <= {"refused", "blocked_address", "dns_error"}
