"""The compose file: valid where a compose program exists, and true to the files and settings that it names."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from dispatcher.config.sections import DeliverySettings
from dispatcher.config.settings import SPECIALS

SERVICE_KEYS = {
    "image", "build", "environment", "volumes", "read_only", "cap_drop", "security_opt", "command", "depends_on",
    "stop_grace_period", "restart", "ports", "healthcheck", "shm_size",
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(deploy: Path) -> Path:
    return deploy / "compose"


@pytest.fixture(scope="session")
def services(folder: Path) -> dict[str, Any]:
    document = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    assert set(document) == {"name", "x-dispatcher", "services", "volumes"}
    found: dict[str, Any] = document["services"]
    return found


def _compose(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Return what a compose program makes of the file, which needs no container engine; skip if there is none."""
    text = (folder / "compose.yaml").read_text("utf-8")
    command: list[str] = []
    if docker := shutil.which("docker"):
        command = [docker, "compose"]
        if subprocess.run([*command, "version"], check=False, capture_output=True).returncode:
            command = []
    if not command and (first := shutil.which("docker-compose")):
        command = [first]
        text = text.replace(
            "\nname: dispatcher\n", "\n"
        )  # version 1 does not know the name of a project
    if not command:
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    return subprocess.run(
        [*command, "--project-directory", str(folder), "-f", "-", "config"],
        check=False, capture_output=True, text=True, input=text,
        env={"PATH": os.environ["PATH"], **variables},
    )  # fmt: skip


def test_compose_program_accepts_the_file(folder):
    names = re.findall(r"(?m)^([A-Z_]+)=", (folder / "example.env").read_text("utf-8"))
    done = _compose(folder, **dict.fromkeys(names, "x"))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"postgres", "migrate", "dispatcher", "prometheus", "grafana"}
    assert services["migrate"]["environment"] == services["dispatcher"]["environment"]
    refused = _compose(folder, **dict.fromkeys(names[1:], "x"))
    assert refused.returncode != 0
    assert names[0] in refused.stderr


def test_compose_services_use_known_keys_and_named_volumes(folder, services):
    document = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    assert set(services) == {"postgres", "migrate", "dispatcher", "prometheus", "grafana"}
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (folder / source).exists(), f"{name} mounts {source}"
                assert volume.endswith(":ro")
            else:
                assert source in document["volumes"]
        for other, how in _dependencies(service).items():
            assert other in services
            if how == "service_healthy":
                assert "healthcheck" in services[other]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} listens on the machine alone"


def _dependencies(service: dict[str, Any]) -> dict[str, str]:
    found = service.get("depends_on", {})
    if isinstance(found, list):
        return dict.fromkeys(found, "service_started")
    return {name: one["condition"] for name, one in found.items()}


def test_compose_daemon_is_hardened_and_reads_these_variables(services, folder):
    program = services["dispatcher"]
    assert _dependencies(program) == {"migrate": "service_completed_successfully"}
    seconds = int(program["stop_grace_period"].removesuffix("s"))
    assert seconds >= DeliverySettings().drain_seconds + 10
    assert (program["read_only"], program["cap_drop"]) == (True, ["ALL"])
    assert set(program["environment"]) <= {*SPECIALS, "DISPATCHER_CONFIG", "PGPASSWORD"}
    context = (folder / program["build"]["context"]).resolve()
    assert (context / program["build"]["dockerfile"]).is_file()


def test_compose_secrets_have_no_defaults_and_are_all_in_the_example(folder):
    text = (folder / "compose.yaml").read_text("utf-8")
    used = set(re.findall(r"\$\{(\w+)", text))
    assert re.findall(r"\$\{\w+(?!\w|:\?)", text) == [], "every one is required"
    lines = (folder / "example.env").read_text("utf-8").splitlines()
    assert {line.partition("=")[0] for line in lines if not line.startswith("#")} == used
    assert all(line.endswith("=") for line in lines if not line.startswith("#"))


def test_compose_scrapes_the_probe_port_and_loads_the_rules(folder, deploy, services):
    config = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))
    [job] = config["scrape_configs"]
    [target] = job["static_configs"]
    host, port = target["targets"][0].split(":")
    assert host in services
    containerfile = (deploy / "container" / "Containerfile").read_text("utf-8")
    assert f"DISPATCHER_HTTP__PROBE_PORT={port}" in containerfile
    assert target["labels"]["namespace"], "rules and dashboards group by it"
    mounted = {
        volume.split(":")[1]: volume.split(":")[0] for volume in services["prometheus"]["volumes"]
    }
    for path in config["rule_files"]:
        assert (folder / mounted[path]).resolve() == deploy / "prometheus" / "rules.yml"


def test_compose_grafana_provisions_both_dashboards(folder, services):
    mounted = {
        volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]
    }
    provisioned: dict[str, Any] = {"apiVersion": 1}
    for kind in ("datasources", "dashboards"):
        [path] = (folder / mounted[f"/etc/grafana/provisioning/{kind}"]).iterdir()
        assert path.suffix == ".yaml", "Grafana reads no other files"
        provisioned |= yaml.safe_load(path.read_text("utf-8"))
    assert provisioned["apiVersion"] == 1
    [provider] = provisioned["providers"]
    dashboards = (folder / mounted[provider["options"]["path"]]).resolve()
    assert {orjson.loads(path.read_bytes())["uid"] for path in dashboards.glob("*.json")} == {
        "dispatcher", "dispatcher-inside",
    }  # fmt: skip
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (dashboards / Path(home).name).is_file()
    [source] = provisioned["datasources"]
    assert source["url"].split("//")[1].split(":")[0] in services
