"""Which process this is, in a form by which a later process of the same host can prove that it is gone.

A mark names the host's boot with its process and time namespaces (as a digest), the process id and
the moment that it began, in ticks since the boot. A process that reads a mark of its own host may ask the
kernel for that process.

What is always true: `is_gone` is a proof, never a guess. A mark of another host, another boot,
another container, of another form, or a system that does not report enough, proves nothing. A process
that is stopped, frozen, hung or hidden from us (hidepid) exists, and is not gone. A process id that
was given to another process since is recognised by the moment at which that one began. Nothing
here waits, and nothing outlives a crash.
Source: proc_pid_stat(5), pid_namespaces(7), time_namespaces(7), kill(2).
"""

import hashlib
import os
import re
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_MARK = re.compile(r"([0-9a-f]{16})\.([1-9][0-9]{0,9})\.([0-9]{1,20})", re.ASCII)
_STARTED_FIELD = 19
"""Of /proc/PID/stat, counted from behind the command's name, which may hold anything."""


@cache
def _host() -> str | None:
    """Return a digest of what makes process ids and their start comparable; None where that cannot be known."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        spaces = [str((_PROC / "self/ns" / name).readlink()) for name in ("pid", "time")]
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return None  # /proc shows another namespace than the one that we ask about
    except (OSError, UnicodeError):
        return None
    return hashlib.sha256("\n".join([boot, *spaces]).encode()).hexdigest()[:16]


def _started(process_id: int) -> str | None:
    """Return when a process began, in ticks since the boot; None where that cannot be read."""
    try:
        stat = (_PROC / str(process_id) / "stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return fields[_STARTED_FIELD].decode("ascii") if len(fields) > _STARTED_FIELD else None


def mark() -> str:
    """Return this process's mark; empty where the system does not report enough."""
    host, started = _host(), _started(os.getpid())
    return "" if host is None or started is None else f"{host}.{os.getpid()}.{started}"


def is_gone(other: str) -> bool:
    """Return whether the process of this mark has provably ended; False: it may live."""
    found = _MARK.fullmatch(other)
    if found is None or found[1] != _host():
        return False
    process_id = int(found[2])
    try:
        os.kill(process_id, 0)  # signal 0 is a question
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it exists, and is not ours to signal
    started = _started(process_id)
    return started is not None and started != found[3]
