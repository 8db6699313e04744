"""Seen: what is no HTTP made `dispatcher listen` print a traceback of the server's."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_listen_answers_garbage_with_400_and_stays_calm(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "dispatcher", "listen", "--port", "0"],
        env={**os.environ, "DISPATCHER_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        port = int(told.split("://")[1].split("/")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as channel:
            channel.sendall(b"\x16\x03\x01 no request at all\r\n\r\n")
            assert b" 400 " in channel.recv(4096)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as channel:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            channel.sendall(head + b"no chunk\r\n")
            assert b" 400 " in channel.recv(4096)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
    assert "Traceback" not in rest
    assert process.returncode == 0
