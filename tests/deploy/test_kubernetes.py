"""Manifests and chart: valid, careful, and the same thing; no cluster was asked.

The manifests are read as they stand. helm and kustomize are used where they are on the PATH, and
skipped visibly where they are not: neither comes with Debian.
"""

import hashlib
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no types
import kubernetes_validate  # type: ignore[import-untyped]  # has no types
import orjson
import pytest
import yaml

from deploy.prometheus.manifests import files
from dispatcher.config.sections import DeliverySettings
from dispatcher.config.settings import SPECIALS
from dispatcher.config.settings_reader import load_settings
from tests.support.tools import beside_python, need

Manifest = dict[str, Any]

EXAMPLES = {"Secret"}
OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject"}
KUBERNETES_VERSIONS = ("1.37", "1.36", "1.35")
"""The three newest versions, which the Kubernetes project supports."""
RENDERED = Path(__file__).parent / "rendered.yaml"
REFRESH = "with helm on the PATH: RENDER_CHART=1 ./run test tests/deploy/test_kubernetes.py"
ALL_ON = """
podMonitor: {enabled: true}
prometheusRule: {enabled: true}
keda: {enabled: true}
"""


@pytest.fixture(scope="session")
def chart(deploy: Path) -> Path:
    return deploy / "helm" / "dispatcher"


@pytest.fixture
def manifests(deploy: Path) -> dict[tuple[str, str], Manifest]:
    """Every object of the plain manifests by kind and name."""
    found: dict[tuple[str, str], Manifest] = {}
    for path in sorted((deploy / "kubernetes").rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                key = (one["kind"], one["metadata"]["name"])
                assert key not in found
                found[key] = one
    return found


def validate(one: Manifest) -> None:
    """Refuses what Kubernetes, or the operator whose object it is, would refuse, unknown fields included."""
    if one["kind"] in OPERATORS:
        schema = Path(__file__).parent / "schemas" / f"{one['kind'].lower()}.json"
        jsonschema.validate(one["spec"], orjson.loads(schema.read_bytes()))
    else:
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


def test_kubernetes_versions_are_the_newest_three():
    known = {
        kubernetes_validate.utils.major_minor(one)
        for one in kubernetes_validate.utils.all_versions()
    }
    newest = sorted(known, key=lambda one: [int(part) for part in one.split(".")])[-3:]
    assert newest == sorted(KUBERNETES_VERSIONS)


def test_every_manifest_is_valid(manifests):
    assert len(manifests) == 12
    for one in manifests.values():
        validate(one)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (("Deployment", "dispatcher"), ("spec", "template", "spec")),
        (("ScaledObject", "dispatcher"), ("spec",)),
        (("PodMonitor", "dispatcher"), ("spec",)),
    ],
)
def test_a_misspelt_field_is_found(manifests, key, place):
    wrong = orjson.loads(orjson.dumps(manifests[key]))
    inner = wrong
    for name in place:
        inner = inner[name]
    inner["enableServiceLink"] = False
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(wrong)


def test_the_yaml_is_tidy(checkout):
    done = subprocess.run(
        [beside_python("yamllint"), "--strict", "-c", "deploy/yamllint.yaml", "deploy"],
        check=False, capture_output=True, text=True, cwd=checkout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_file_is_in_a_kustomization(deploy):
    folder = deploy / "kubernetes"
    named = set()
    for path in folder.rglob("kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text(encoding="utf-8"))["resources"]:
            target = (path.parent / resource).resolve()
            assert target.exists(), f"{path}: {resource}"
            named.add(target)
    there = {path for path in folder.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert there - named == {folder / "secret.example.yaml"}


def pods(objects: dict[tuple[str, str], Manifest]) -> Iterator[Manifest]:
    """Yields the specification of each pod."""
    for (kind, _), one in objects.items():
        if kind in {"Deployment", "Job"}:
            yield one["spec"]["template"]["spec"]


def test_pods_fulfil_the_restricted_profile_and_see_no_token(manifests):
    assert len(list(pods(manifests))) == 3
    for pod in pods(manifests):
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_the_grace_is_longer_than_the_drain_and_the_probes_are_the_daemons(manifests):
    pod = manifests["Deployment", "dispatcher"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= DeliverySettings().drain_seconds + 10
    container = pod["containers"][0]
    assert "lifecycle" not in container
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "probes"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}
    assert {"name": "probes", "containerPort": 18080} in container["ports"]
    assert {"name": "DISPATCHER_HTTP__PROBE_PORT", "value": "18080"} in container["env"]


def test_settings_and_secrets_are_what_the_program_reads(manifests, tmp_path):
    file = tmp_path / "dispatcher.toml"
    file.write_text(manifests["ConfigMap", "dispatcher"]["data"]["dispatcher.toml"])
    assert tomllib.loads(file.read_text())
    settings = load_settings(config_path=file, environ={})
    assert settings.http.host == "0.0.0.0"  # noqa: S104 -- a pod's own address is not known before
    secret = set(manifests["Secret", "dispatcher"]["stringData"])
    known = {f"{name}_FILE" for name in SPECIALS} | {
        "DISPATCHER_CONFIG",
        "DISPATCHER_HTTP__PROBE_PORT",
    }
    for pod in pods(manifests):
        variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert set(variables) <= known
        mounted = [value.rpartition("/") for value in variables.values() if "/secrets/" in value]
        assert {name for _, _, name in mounted} <= secret
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert {folder for folder, _, _ in mounted} <= mounts
    assert settings.http.port == 8080


def test_metadata_services_are_out_of_reach(manifests):
    rules = manifests["NetworkPolicy", "dispatcher"]["spec"]["egress"]
    for rule in rules:
        for peer in rule["to"]:
            block = peer.get("ipBlock", {})
            if block.get("cidr") == "0.0.0.0/0":
                assert "169.254.0.0/16" in block["except"]
            if block.get("cidr") == "::/0":
                assert {"fc00::/7", "fe80::/10"} <= set(block["except"])


def test_the_rules_for_the_operator_and_the_chart_are_those_of_prometheus():
    for path, text in files().items():
        assert path.read_text(encoding="utf-8") == text, (
            "run: .venv/bin/python -m deploy.prometheus.manifests"
        )


def test_the_chart_is_of_this_version(chart, checkout):
    from dispatcher import __version__  # noqa: PLC0415 -- beside its use

    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    assert about["version"] == about["appVersion"] == __version__
    images = {
        container["image"]
        for path in (checkout / "deploy" / "kubernetes").rglob("*.yaml")
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if one["kind"] in {"Deployment", "Job"}
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"dispatcher:{__version__}"}


def test_the_schema_of_the_values_knows_each_value_and_no_other(chart):
    schema = orjson.loads((chart / "values.schema.json").read_bytes())
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)

    def compare(part: Manifest, knows: Manifest, where: str) -> None:
        for name, value in part.items():
            assert name in knows["properties"], f"{where}{name}"
            inner = knows["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                assert inner["additionalProperties"] is False, f"{where}{name}"
                compare(value, inner, f"{where}{name}.")
        assert set(knows["properties"]) - set(part) <= {"global"}

    compare(values, schema, "")


def helm(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([need("helm"), *arguments], check=check, capture_output=True, text=True)


def rendered(chart: Path, values: Path | None, release: str = "dispatcher") -> Iterator[Manifest]:
    more = ("-f", str(values)) if values else ()
    output = helm(
        "template", release, str(chart), "--kube-version", KUBERNETES_VERSIONS[0], *more
    ).stdout
    return (one for one in yaml.safe_load_all(output) if one)


def test_the_linter_of_helm_has_no_complaint(chart):
    helm("lint", "--strict", "--kube-version", KUBERNETES_VERSIONS[0], str(chart))


def test_a_value_that_does_not_exist_is_refused(chart):
    done = helm("template", "x", str(chart), "--set", "replica=3", check=False)
    assert done.returncode != 0
    assert "replica" in done.stderr


def without_what_helm_adds(one: Manifest) -> Manifest:
    """Takes the release's labels, the hooks and the checksum away."""
    copy: Manifest = orjson.loads(orjson.dumps(one))
    metadata = copy["metadata"]
    for name in ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"):
        metadata["labels"].pop(name, None)
    if copy["kind"] == "Job":
        metadata.pop("annotations")
        for volume in copy["spec"]["template"]["spec"]["volumes"]:
            if volume.get("configMap") == {"name": "dispatcher-migrate"}:
                volume["configMap"]["name"] = "dispatcher"
    if copy["kind"] == "Deployment":
        copy["spec"]["template"]["metadata"].pop("annotations")
    return copy


def digest(chart: Path) -> str:
    """Returns a digest of all files of the chart."""
    found = hashlib.sha256()
    for path in sorted(path for path in chart.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(chart)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def render_all(chart: Path, folder: Path) -> str:
    """Returns what helm makes of the chart with everything on, under the digest of the chart."""
    values = folder / "values.yaml"
    values.write_text(ALL_ON)
    objects = list(rendered(chart, values))
    return f"# {digest(chart)}\n{yaml.safe_dump_all(objects, sort_keys=True, width=150)}"


def test_the_chart_makes_the_objects_of_the_manifests(chart, manifests):
    """By what helm once made of it, so that helm is not needed here; the digest tells a changed chart."""
    text = RENDERED.read_text(encoding="utf-8")
    assert text.partition("\n")[0] == f"# {digest(chart)}", REFRESH
    made = {
        (one["kind"], one["metadata"]["name"]): without_what_helm_adds(one)
        for one in yaml.safe_load_all(text)
    }
    assert made.pop(("ConfigMap", "dispatcher-migrate"))
    expected = {key: one for key, one in manifests.items() if key[0] not in EXAMPLES}
    expected["Deployment", "dispatcher"]["spec"].pop("replicas")  # KEDA's
    assert set(made) == set(expected)
    for key, one in expected.items():
        assert made[key] == one, key


def test_helm_makes_what_is_committed(chart, tmp_path):
    made = render_all(chart, tmp_path)
    if os.environ.get("RENDER_CHART") == "1":
        RENDERED.write_text(made, encoding="utf-8")
    assert RENDERED.read_text(encoding="utf-8") == made, REFRESH


def test_every_object_of_the_chart_is_valid_with_every_value_in_use(chart, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(
        ALL_ON
        + """
image: {repository: registry.example.com/dispatcher, digest: "sha256:%s"}
imagePullSecrets: [{name: pull}]
listenDatabaseUrl: true
environment: {DISPATCHER_DELIVERY__CONCURRENCY_TOTAL: "1000"}
podLabels: {team: wms}
podAnnotations: {note: "yes"}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: wms, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
networkPolicy:
  extraEgress: [{to: [{ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 8443, protocol: TCP}]}]
"""
        % ("0" * 64)
    )
    names = set()
    for one in rendered(chart, values, release="prod"):
        validate(one)
        names.add(one["metadata"]["name"])
    assert names == {
        "prod-dispatcher",
        "prod-dispatcher-migrate",
        "prod-dispatcher-migrate-pre",
        "prod-dispatcher-migrate-post",
    }


def test_without_keda_the_chart_sets_the_replicas(chart):
    kinds = {one["kind"]: one for one in rendered(chart, None)}
    assert kinds["Deployment"]["spec"]["replicas"] == 2
    assert OPERATORS & set(kinds) == set()


def test_kustomize_builds_what_the_files_say(deploy, manifests, tmp_path):
    kustomize = need("kustomize")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    # A folder of its own, since kustomize takes relative paths only.
    subprocess.run(
        ["/bin/cp", "-r", str(deploy / "kubernetes"), str(tmp_path / "base")], check=True
    )
    (overlay / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "resources: [../base]\ncomponents: [../base/monitoring, ../base/keda]\n"
    )
    output = subprocess.run(
        [kustomize, "build", str(overlay)], check=True, capture_output=True, text=True
    ).stdout
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(output)}
    expected = {
        key: one for key, one in manifests.items() if key[0] not in EXAMPLES and key[0] != "Job"
    }
    expected["Deployment", "dispatcher"]["spec"].pop("replicas", None)
    assert made == expected
