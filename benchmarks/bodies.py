"""Hostile and ordinary bodies of 1 MiB: how long decoding holds the event loop, and how much memory it takes.

Each body is decoded in a process of its own: `python -m benchmarks.bodies`, figures in docs/adr/0053.
"""

import subprocess
import sys
import time
from pathlib import Path

from dispatcher.admin.api.decoder import decode_body
from dispatcher.admin.api.problems import ProblemError
from dispatcher.core.errors import InvalidRequestError

MIB = 1024 * 1024
ROUNDS = 7


def filled(piece: str, count: int = MIB) -> bytes:
    """Return a body whose data is a list of at most `count` such pieces."""
    count = min(count, (MIB - 20) // (len(piece.encode()) + 1))
    return ('{"data":{"a":[' + ",".join([piece] * count) + "]}}").encode()


BODIES = {
    "ordinary data": filled('{"sku":"ABC-123","qty":5,"name":"น้ำดื่ม","price":12.50}'),
    "lists, `[],`": filled("[]"),
    "lists, 30 deep": filled("[" * 30 + "]" * 30, 233_000 // 30),
    "only `[`": b'{"data":' + b"[" * (MIB - 8),
    'objects, `{"a":{}}`': filled('{"a":{}}'),
    'strings, `"",`': filled('""'),
    "labels": b'{"labels":{' + b",".join(b'"%d":0' % number for number in range(90_000)) + b"}}",
    "one text": b'{"name":"' + b"n" * (MIB - 32) + b'"}',
}


def decode(raw: bytes) -> tuple[float, float]:
    """Return the processor time of the longest step and of all steps, in milliseconds."""
    steps, longest, total, ended = decode_body(raw), 0.0, 0.0, False
    while not ended:
        began_at = time.thread_time()
        try:
            next(steps)
        except (StopIteration, ProblemError, InvalidRequestError):
            ended = True
        seconds = time.thread_time() - began_at
        longest, total = max(longest, seconds), total + seconds
    return longest * 1000, total * 1000


def memory(field: str) -> float:
    """Return a field of this process's memory in MiB: `VmRSS` now, `VmHWM` at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def measure(name: str) -> None:
    """Print one row: the best of the rounds, and the memory that the first of them added."""
    raw = BODIES[name]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again
    before = memory("VmRSS")
    decode(raw)
    mib = memory("VmHWM") - before
    rounds = [decode(raw) for _ in range(ROUNDS)]
    longest, total = min(one[0] for one in rounds), min(one[1] for one in rounds)
    print(f"| {name} | {longest:.1f} ms | {total:.1f} ms | {mib:.1f} MiB |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        print("| body of 1 MiB | longest step | all steps | memory |\n| --- | --- | --- | --- |")
        for each in BODIES:
            subprocess.run([sys.executable, "-m", "benchmarks.bodies", each], check=True)
