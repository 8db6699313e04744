"""Programs that are not Python packages: a test that needs one skips where it is absent, and fails in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def need(name: str, *, package: str | None = None) -> str:
    """Returns the program's path.

    `package` is the Debian package that brings it. CI installs those, so there its absence is a
    failure, unless it could not be had: a check that silently stopped would go unnoticed for years.
    """
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if found:
        return found
    could_be_had = package not in os.environ.get("CI_PACKAGES_ABSENT", "").split()
    if package is not None and os.environ.get("CI") == "true" and could_be_had:
        pytest.fail(f"{name} is not installed; CI has it by the Debian package {package}")
    where = f"; Debian has it in {package}" if package else ""
    pytest.skip(f"{name} is not installed{where}")


def beside_python(name: str) -> str:
    """Returns the path of a program that a Python package of the environment brings."""
    return str(Path(sys.executable).parent / name)


def exported_lock(*flags: str) -> str:
    """Return the part of `uv.lock` that uv's `flags` select, as a pip requirements file with hashes."""
    command = [beside_python("uv"), "export", "--frozen", "--offline", "--no-emit-project", *flags]
    checkout = Path(__file__).resolve().parents[2]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
