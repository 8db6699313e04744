"""The version, with the commit if the program runs from a checkout."""

from pathlib import Path

import dispatcher

_COMMIT_SHOWN = 12


def version_text(version: str) -> str:
    """Return `dispatcher 1.2.3 (commit 0123456789ab)`."""
    commit = _commit(Path(dispatcher.__file__).resolve().parent.parent)
    return f"dispatcher {version}" + (f" (commit {commit})" if commit else "")


def _commit(checkout: Path) -> str | None:
    """Return the commit from git's files, without running git."""
    git = checkout / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref: "):
            reference = head.removeprefix("ref: ")
            loose = git / reference
            if loose.is_file():
                head = loose.read_text(encoding="utf-8").strip()
            else:
                packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
                head = next(line.split()[0] for line in packed if line.endswith(f" {reference}"))
    except (OSError, StopIteration, UnicodeDecodeError):
        return None
    return head[:_COMMIT_SHOWN] if head and not head.startswith("ref") else None
