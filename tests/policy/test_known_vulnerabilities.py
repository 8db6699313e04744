"""No locked dependency has a published vulnerability; asked with `--long` alone, and skipped where nobody answers."""

import subprocess
import sys

import orjson
import pytest

from tests.support.tools import exported_lock


@pytest.mark.slow
def test_no_locked_dependency_has_a_published_vulnerability(long_run, tmp_path):
    if not long_run:
        pytest.skip("asks the advisory service over the network: --long")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(exported_lock("--all-extras", "--all-groups"))
    finished = subprocess.run(
        [
            sys.executable, "-m", "pip_audit", "-r", str(requirements), "--require-hashes",
            "--disable-pip", "--progress-spinner", "off", "--format", "json",
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )  # fmt: skip
    try:
        entries = orjson.loads(finished.stdout)["dependencies"]
    except (orjson.JSONDecodeError, KeyError):
        pytest.skip(f"the advisory service did not answer: {finished.stderr[-300:]}")
    asked = [entry for entry in entries if "skip_reason" not in entry]
    if not asked:
        pytest.skip(
            "the advisory service knows none of the packages: offline, or a mirror without it"
        )
    found = {
        entry["name"]: [fault["id"] for fault in entry["vulns"]]
        for entry in asked
        if entry["vulns"]
    }
    assert found == {}
