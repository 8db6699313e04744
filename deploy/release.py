"""Create a release: version, changelog, commit, tag, wheel, sdist, SBOM and checksums. Run it as `./run release 1.2.3`.

Nothing is published and nothing needs the network: the last lines print the commands that publish. Without
`--build-only` the work tree must be clean. The artifacts are built from the commit, with its time as
`SOURCE_DATE_EPOCH`, so that anyone who checks the tag out and runs `./run release 1.2.3 --build-only` gets the same
bytes. The tag is created last: if a step before it fails, there is a commit to remove and no release.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MODULE = "dispatcher/__init__.py"
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## [Unreleased]\n"
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(rc[1-9]\d*)?")
CARRIERS = ("deploy", "docs/how-to/install.md", "tests/deploy/rendered.yaml")
"""Where image tags, the chart and its rendered form name the version."""
MENTIONS = r"((?:dispatcher[:-]|newTag: |[vV]ersion: ))%s\b"


class ReleaseError(Exception):
    """The release cannot be created; the message states the problem and the fix."""


def run(*command: str, **variables: str) -> str:
    """Run a command in the checkout and return its standard output.

    Raises:
        ReleaseError: it failed.
    """
    done = subprocess.run(  # noqa: S603 -- the commands are this file's
        command,
        cwd=CHECKOUT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` failed with {done.returncode}.")
    return done.stdout.strip()


def current_version() -> str:
    """Return the version in the code."""
    text = (CHECKOUT / MODULE).read_text(encoding="utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


def sort_key(version: str) -> tuple[int, int, int, int]:
    """Return what orders versions; a candidate comes before its version.

    Raises:
        ReleaseError: the text is not a version.
    """
    match = VERSION.fullmatch(version)
    if match is None:
        raise ReleaseError(f'"{version}" is not a version. Use 1.2.3, or 1.2.3rc1 for a candidate.')
    candidate = int(match[4][2:]) if match[4] else sys.maxsize
    return int(match[1]), int(match[2]), int(match[3]), candidate


def check(version: str) -> None:
    """Refuse a version that is not newer, a tag that exists, and a work tree with changes.

    Raises:
        ReleaseError: one of these.
    """
    if sort_key(version) < sort_key(current_version()):
        raise ReleaseError(f"{version} is older than {current_version()}, the version in {MODULE}.")
    if run("git", "tag", "--list", f"v{version}"):
        raise ReleaseError(f"The tag v{version} exists. Choose the next version.")
    if run("git", "status", "--porcelain"):
        raise ReleaseError("The work tree has changes. Commit or remove them.")


def check_is_current(version: str) -> None:
    """Refuse to build another version than the one in the code.

    Raises:
        ReleaseError: it is another one.
    """
    if version != current_version():
        raise ReleaseError(f"HEAD has version {current_version()}, not {version}.")


def released_changelog(text: str, version: str, day: str) -> str:
    """Return the changelog with the unreleased entries under the version's heading.

    Raises:
        ReleaseError: there are no unreleased entries.
    """
    before, found, after = text.partition(UNRELEASED)
    after = re.sub(r"\A\nThis will be [^\n]*\n", "", after)
    entries = after.partition("\n## [")[0]
    if not found or not re.search(r"(?m)^\* ", entries):
        raise ReleaseError(f"{CHANGELOG} has no entries below {UNRELEASED.strip()}. Add them.")
    return f"{before}{UNRELEASED}\n## [{version}] - {day}\n{after}"


def write_version(version: str, day: str) -> None:
    """Write the version into the code, the changelog and the deployment files."""
    old = current_version()
    changelog = CHECKOUT / CHANGELOG
    text = released_changelog(changelog.read_text(encoding="utf-8"), version, day)
    changelog.write_text(text, encoding="utf-8")
    mentions = re.compile(MENTIONS % re.escape(old))
    for name in run("git", "ls-files", "--", *CARRIERS).splitlines():
        path = CHECKOUT / name
        text = path.read_text(encoding="utf-8")
        path.write_text(mentions.sub(rf"\g<1>{version}", text), encoding="utf-8")
    module = CHECKOUT / MODULE
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace(f'"{old}"', f'"{version}"'), encoding="utf-8")


def write_sbom(path: Path, version: str, epoch: int) -> None:
    """Write the locked packages of the program and its extra `otel` as CycloneDX.

    uv gives each export a random serial number and the present time. Both would differ between two builds of one
    commit, so the serial number is derived from the contents and the time is that of the commit.
    """
    text = run(
        str(Path(sys.executable).parent / "uv"), "export", "--quiet", "--frozen", "--offline",
        "--no-default-groups", "--extra", "otel", "--format", "cyclonedx1.5",
    )  # fmt: skip
    document = json.loads(text)
    when = dt.datetime.fromtimestamp(epoch, dt.UTC)
    document["metadata"]["timestamp"] = when.isoformat().replace("+00:00", "Z")
    document["metadata"]["component"]["version"] = version
    document.pop("serialNumber", None)
    body = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, body)}"
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def build(version: str, folder: Path) -> list[Path]:
    """Build every artifact of HEAD into an empty folder and return them, the checksums last."""
    epoch = run("git", "log", "-1", "--format=%ct")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    python = sys.executable
    run(
        str(Path(python).parent / "uv"), "build", "--quiet", "--offline", "--no-build-isolation",
        "--python", python, "--out-dir", str(folder), ".",
        SOURCE_DATE_EPOCH=epoch,
    )  # fmt: skip
    (folder / ".gitignore").unlink(missing_ok=True)
    write_sbom(folder / f"outbox-dispatcher-{version}.cdx.json", version, int(epoch))
    artifacts = sorted(folder.iterdir())
    sums = folder / "SHA256SUMS"
    sums.write_text(
        "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in artifacts
        ),
        encoding="ascii",
    )
    return [*artifacts, sums]


def main(arguments: list[str]) -> int:
    """Create the release and print what remains to be done; return the exit code."""
    parser = argparse.ArgumentParser(prog="./run release", description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="for example 1.2.3, or 1.2.3rc1 for a candidate")
    parser.add_argument(
        "--build-only", action="store_true", help="build HEAD, which has this version"
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist", help="emptied first; dist/")
    parser.add_argument("--date", help="of the changelog's heading; today in UTC")
    options = parser.parse_args(arguments)
    version = options.version
    try:
        if options.build_only:
            check_is_current(version)
        else:
            check(version)
            day = options.date or dt.datetime.now(dt.UTC).date().isoformat()
            write_version(version, day)
            run("git", "commit", "--quiet", "--all", "--message", f"Release {version}")
        artifacts = build(version, options.out.absolute())
        if not options.build_only:
            run(
                "git",
                "tag",
                "--annotate",
                f"v{version}",
                "--message",
                f"outbox-dispatcher {version}",
            )
    except ReleaseError as error:
        print(f"./run release: {error}", file=sys.stderr)
        return 1
    for path in artifacts:
        print(path)
    if not options.build_only:
        print(
            "\nNothing has been published. To publish:\n"
            f"  git push origin HEAD v{version}\n"
            f"  ./run uv publish {options.out.name}/*.whl {options.out.name}/*.tar.gz\n"
            "  podman build --format docker --sbom --build-arg REVISION=$(git rev-parse HEAD)"
            f" -f deploy/container/Containerfile -t dispatcher:{version} ."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
