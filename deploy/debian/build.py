"""Build the Debian package of HEAD's wheel. Run it as `./run deb`.

The package holds a virtual environment under /opt/dispatcher with the packages of `uv.lock`, by hash, and the units,
and /etc/dispatcher/dispatcher.toml as a configuration file. It is built for the Debian release and the
architecture of the machine that builds it, because it uses that release's python3. It creates no user: the units
run under `DynamicUser=`. Installing starts nothing, because the daemon first needs a database URL and a schema.
"""

from __future__ import annotations

import argparse
import email.utils
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = "opt/dispatcher"
PYTHON = "/usr/bin/python3"
CONTROL = """\
Package: outbox-dispatcher
Version: {version}
Architecture: {architecture}
Maintainer: The dispatcher's maintainers <maintainers@example.com>
Installed-Size: {kibibytes}
Depends: python3 (>= {python}~), python3 (<< {next_python}~), libc6, systemd (>= 247)
Section: net
Priority: optional
Description: deliver events from PostgreSQL to webhooks
 An application inserts one row into an outbox table, in the transaction of its
 own work. The daemon signs a request to each subscribed endpoint, retries on a
 schedule, and records every attempt. PostgreSQL is its only dependency.
"""
CHANGES = """\
outbox-dispatcher ({version}) unstable; urgency=medium

  * CHANGELOG.md in this folder lists the changes of each version.

 -- The dispatcher's maintainers <maintainers@example.com>  {date}
"""
OVERRIDES = """\
# The program and its locked packages are one tree under /opt, with the contents of their wheels.
outbox-dispatcher: dir-or-file-in-opt
outbox-dispatcher: unstripped-binary-or-object
outbox-dispatcher: shell-script-fails-syntax-check
outbox-dispatcher: script-not-executable
outbox-dispatcher: unusual-interpreter
"""
POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    install -d -m 0700 /etc/dispatcher/credentials
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # An upgrade restarts what runs; the daemon drains first. Nothing is started by an installation.
        if [ -n "$2" ]; then systemctl try-restart dispatcher.service 'dispatcher@*.service'; fi
    fi
fi
"""
PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now dispatcher.service
    systemctl stop 'dispatcher@*.service'
fi
"""
POSTRM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ] && [ -d /etc/dispatcher/credentials ]; then
    rmdir /etc/dispatcher/credentials 2>/dev/null ||
        echo 'outbox-dispatcher: /etc/dispatcher/credentials is kept, because it holds the secret keys.'
fi
"""


class BuildError(Exception):
    """The package cannot be built; the message states the problem and the fix."""


def run(*command: str | Path, **variables: str) -> str:
    """Run a command in the checkout and return its standard output.

    Raises:
        BuildError: it failed.
    """
    done = subprocess.run(  # noqa: S603 -- the commands are this file's
        command,
        cwd=CHECKOUT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        named = " ".join(str(word) for word in command[:3])
        raise BuildError(f"`{named} ...` failed with {done.returncode}.\n{done.stderr.strip()}")
    return done.stdout.strip()


def install_program(root: Path, flags: list[str], epoch: str, *, is_compiled: bool) -> None:
    """Install the locked packages and the wheel into the root's /opt/dispatcher."""
    uv, target = Path(sys.executable).with_name("uv"), root / PROGRAM
    wheels = root.parent / "wheels"
    run(uv, "build", "--quiet", "--offline", "--wheel", "--no-build-isolation", "--python",
        sys.executable, "--out-dir", wheels, ".", SOURCE_DATE_EPOCH=epoch)  # fmt: skip
    # Relocatable: its scripts find the interpreter next to them, not in the folder of this build.
    run(uv, "venv", "--quiet", "--relocatable", "--no-python-downloads", "--python", PYTHON, target)
    run(uv, "sync", "--quiet", *flags, "--frozen", "--no-default-groups", "--extra", "otel",
        "--no-install-project", "--no-build", "--link-mode", "copy", "--python", PYTHON,
        UV_PROJECT_ENVIRONMENT=str(target))  # fmt: skip
    [wheel] = wheels.glob("*.whl")
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--link-mode", "copy",
        "--python", target / "bin/python", wheel)  # fmt: skip
    for name in ("direct_url.json", "uv_cache.json"):  # name the folder of this build
        for path in target.glob(f"lib/python3*/site-packages/*.dist-info/{name}"):
            path.unlink()
            record = path.with_name("RECORD")
            lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
            record.write_text("".join(line for line in lines if f"/{name}," not in line))
    (target / ".gitignore").unlink()
    if is_compiled:
        run(PYTHON, "-m", "compileall", "-q", "-s", root, "-p", "/",
            "--invalidation-mode", "unchecked-hash", target / "lib")  # fmt: skip


def install_files(root: Path, version: str, epoch: str) -> None:
    """Install the units, the settings, the command's link, the licence and the changes."""
    for source, name in (
        ("deploy/systemd/dispatcher.service", "lib/systemd/system/dispatcher.service"),
        ("deploy/systemd/dispatcher@.service", "lib/systemd/system/dispatcher@.service"),
        ("config/dispatcher.toml", "etc/dispatcher/dispatcher.toml"),
        ("LICENSE", "usr/share/doc/outbox-dispatcher/copyright"),
        ("CHANGELOG.md", "usr/share/doc/outbox-dispatcher/CHANGELOG.md"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / source, root / name)
    date = email.utils.formatdate(int(epoch))
    changes = CHANGES.format(version=version, date=date).encode()
    (root / "usr/share/doc/outbox-dispatcher/changelog.gz").write_bytes(
        gzip.compress(changes, mtime=int(epoch))
    )
    (root / "usr/share/lintian/overrides").mkdir(parents=True)
    (root / "usr/share/lintian/overrides/outbox-dispatcher").write_text(OVERRIDES, encoding="utf-8")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/dispatcher").symlink_to(f"/{PROGRAM}/bin/dispatcher")


def write_control(root: Path, version: str) -> None:
    """Write the package's description and scripts."""
    directory = root / "DEBIAN"
    directory.mkdir()
    python = run(PYTHON, "-c", "import sys; print('%d %d' % sys.version_info[:2])").split()
    text = CONTROL.format(
        version=version,
        architecture=run("dpkg", "--print-architecture"),
        kibibytes=int(run("du", "-sk", "--exclude=DEBIAN", root).split()[0]),
        python=".".join(python),
        next_python=f"{python[0]}.{int(python[1]) + 1}",
    )
    (directory / "control").write_text(text, encoding="utf-8")
    (directory / "conffiles").write_text("/etc/dispatcher/dispatcher.toml\n", encoding="utf-8")
    for name, script in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        (directory / name).write_text(script, encoding="utf-8")


def set_modes(root: Path) -> None:
    """Give every file the mode that it has on the system, whatever the umask here is."""
    for path in [root, *root.rglob("*")]:
        if path.is_symlink():
            continue
        is_script = path.parent == root / "DEBIAN" and path.name in {"postinst", "prerm", "postrm"}
        # Some wheels mark modules and their own descriptions as executable.
        is_program = path.stat().st_mode & 0o100 and path.parent.name == "bin"
        executable = path.is_dir() or is_script or is_program
        path.chmod(0o755 if executable else 0o644)


def build(folder: Path, flags: list[str], *, is_fast: bool) -> Path:
    """Build the package into a folder and return its path.

    Raises:
        BuildError: a program is missing, or a package cannot be installed.
    """
    if shutil.which("dpkg-deb") is None or not Path(PYTHON).exists():
        raise BuildError(f"dpkg-deb and {PYTHON} are needed: build on Debian or Ubuntu.")
    epoch = run("git", "log", "-1", "--format=%ct")
    module = (CHECKOUT / "dispatcher/__init__.py").read_text(encoding="utf-8")
    # A candidate precedes its version: Debian sorts ~ before the end.
    version = module.partition('__version__ = "')[2].partition('"')[0].replace("rc", "~rc")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "root")
        root.mkdir()
        install_program(root, flags, epoch, is_compiled=not is_fast)
        install_files(root, version, epoch)
        write_control(root, version)
        set_modes(root)
        folder.mkdir(parents=True, exist_ok=True)
        compression = ("-Zgzip", "-z1") if is_fast else ("-Zxz",)
        printed = run("dpkg-deb", "--root-owner-group", *compression, "--build", root, folder,
                      SOURCE_DATE_EPOCH=epoch)  # fmt: skip
    return folder / re.findall(r"([^/' ]+\.deb)'", printed)[0]


def main(arguments: list[str]) -> int:
    """Build the package, print its path and return the exit code."""
    parser = argparse.ArgumentParser(prog="./run deb", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist", help="folder; dist/")
    parser.add_argument("--offline", action="store_true", help="use uv's cache alone")
    parser.add_argument(
        "--fast", action="store_true", help="compress little and compile nothing, for tests"
    )
    options = parser.parse_args(arguments)
    try:
        flags = ["--offline"] if options.offline else []
        print(build(options.out.absolute(), flags, is_fast=options.fast))
    except BuildError as error:
        print(f"./run deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
