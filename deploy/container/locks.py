"""Writes the two locks of an installation without a checkout: what the daemon needs, and what builds its wheel.

`python -m deploy.container.locks`. Both are parts of `requirements.lock`, hashes included: a test
compares them. `runtime.lock` has the extra `otel` and neither `embedded` nor anything of
development; `build.lock` has hatchling and what it needs.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ("hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")


def blocks(text: str) -> dict[str, str]:
    """Returns each package's lines by its name."""
    found = {}
    for block in re.split(r"(?m)^(?=\S)", text):
        head = re.match(r"[a-z0-9-]+", block)
        if head:
            found[head[0]] = block
    return found


def runtime_names() -> list[str]:
    """Asks uv, offline, which packages the daemon needs."""
    command = [
        str(Path(sys.executable).parent / "uv"), "export", "--frozen", "--offline", "--extra", "otel",
        "--no-default-groups", "--no-emit-project", "--no-annotate", "--no-header", "--no-hashes",
        "--format", "requirements-txt",
    ]  # fmt: skip
    output = subprocess.run(  # noqa: S603 -- our own arguments
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return list(blocks(output))


def locks() -> dict[str, str]:
    """Returns the text of each file by its name."""
    all_blocks = blocks((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    return {
        "runtime.lock": "".join(all_blocks[name] for name in runtime_names()),
        "build.lock": "".join(all_blocks[name] for name in BUILD),
    }


if __name__ == "__main__":
    for name, text in locks().items():
        (HERE / name).write_text(text, encoding="utf-8")
