"""Writes the alert rules as the Prometheus operator and the Helm chart want them, from rules.yml.

`python -m deploy.prometheus.manifests`. A test compares what is committed with what this makes.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = HERE / "rules.yml"
MANIFEST = HERE.parent / "kubernetes" / "monitoring" / "prometheus-rule.yaml"
CHART = HERE.parent / "helm" / "dispatcher" / "files" / "rules.yml"

HEADER = """\
# Made from deploy/prometheus/rules.yml by `python -m deploy.prometheus.manifests`; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dispatcher
  labels:
    app.kubernetes.io/name: dispatcher
    app.kubernetes.io/instance: dispatcher
spec:
"""


def rules_alone(text: str) -> str:
    """Returns the groups, without the remarks above them."""
    return text[text.index("groups:") :]


def files() -> dict[Path, str]:
    """Returns the text of each file that is made."""
    groups = rules_alone(RULES.read_text(encoding="utf-8"))
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(True))
    return {MANIFEST: HEADER + indented, CHART: groups}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
