"""One node process that a test talks to line by line: thousands of documents, one start."""

import base64
import json  # noqa: TID251 -- lines for node; orjson cannot write ASCII only
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")

_LOOP = """
const lines = require('readline').createInterface({ input: process.stdin });
lines.on('line', (line) => {
  let answer;
  try { answer = 'ok ' + Buffer.from(String(answerTo(JSON.parse(line)))).toString('base64'); }
  catch (error) { answer = 'error ' + Buffer.from(String(error.message)).toString('base64'); }
  process.stdout.write(answer + '\\n');
});
"""


class NodeProcess:
    """Asks a node process for `answerTo(question)`, once per call."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def ask(self, question: object) -> bytes | None:
        """Returns the UTF-8 of the answer, or None where node threw an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        verdict, _, answer = self._process.stdout.readline().partition(b" ")
        assert verdict in {b"ok", b"error"}, "node has died"
        return base64.b64decode(answer) if verdict == b"ok" else None


@contextmanager
def node(program: str) -> Iterator[NodeProcess]:
    """Runs `program`, which defines `answerTo(question)`."""
    assert NODE is not None
    with subprocess.Popen(
        [NODE, "-e", program + _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield NodeProcess(process)
        finally:
            process.kill()
