"""Every verifier that receivers are offered gives the verdicts of docs/vectors.json when it runs.

C# has no runtime here: its snippet is only checked to stand in the documentation, as all are.
"""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from dispatcher.verify import VerificationError, verify
from tests.support.tools import need
from tests.wire.node_process import needs_node, node
from tests.wire.vectors import VECTORS_FILE, make_vectors

SNIPPETS = VECTORS_FILE.parent / "snippets"
VECTORS: list[dict[str, Any]] = orjson.loads(VECTORS_FILE.read_bytes())
THREE = [vector for vector in VECTORS if vector["profile"] in {"wms", "humansoft", "standard"}]
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def test_the_vectors_are_what_is_sent() -> None:
    assert list(make_vectors()) == VECTORS


def test_the_documentation_shows_the_snippets_that_were_run() -> None:
    document = (VECTORS_FILE.parent / "how-to" / "receive-and-verify.md").read_text()
    for file in SNIPPETS.iterdir():
        assert file.read_text().strip() in document, f"the page differs from {file.name}"


@pytest.mark.parametrize(
    "vector", VECTORS, ids=[f"{vector['profile']}: {vector['name']}" for vector in VECTORS]
)
def test_python_gives_the_verdict_of_the_vector(vector: dict[str, Any]) -> None:
    def verdict() -> bool:
        try:
            verify(
                vector["headers"],
                vector["body"].encode(),
                vector["secrets"],
                profile=vector["profile"],
                now=vector["now"],
            )
        except VerificationError:
            return False
        return True

    assert verdict() == vector["valid"]


@needs_node
@pytest.mark.shows("W4")
def test_node_gives_the_verdicts_of_the_vectors() -> None:
    program = (SNIPPETS / "verify.js").read_text() + (
        """
        const lower = (headers) => Object.fromEntries(
          Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
        const answerTo = (v) =>
          verify(v.profile, lower(v.headers), Buffer.from(v.body), v.secrets, v.now);
        """
    )
    with node(program) as process:
        verdicts = [process.ask(vector) == b"true" for vector in THREE]
    assert_verdicts(verdicts)


@pytest.mark.shows("W4")
def test_php_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    program = tmp_path / "main.php"
    program.write_text(
        f"<?php require '{SNIPPETS / 'verify.php'}';"
        """
        while (($line = fgets(STDIN)) !== false) {
            $fields = array_map('base64_decode', explode("\\t", $line));
            [$profile, $now, $secrets, $headers, $body] = $fields;
            $map = [];
            foreach (explode("\\n", $headers) as $header) {
                [$name, $value] = explode(':', $header, 2);
                $map[$name] = $value;
            }
            $valid = verify($profile, $map, $body, explode("\\n", $secrets), (int) $now);
            echo $valid ? "true\\n" : "false\\n";
        }
        """
    )
    assert_verdicts(run([need("php", package="php-cli"), str(program)]))


@pytest.mark.slow
@pytest.mark.skipif(GO is None, reason="go is not installed")
@pytest.mark.shows("W4")
def test_go_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    shutil.copy(SNIPPETS / "verify.go", tmp_path)
    (tmp_path / "main.go").write_text(
        """
        package main

        import (
            "bufio"
            "encoding/base64"
            "fmt"
            "os"
            "strconv"
            "strings"
            "time"
        )

        func main() {
            lines := bufio.NewScanner(os.Stdin)
            for lines.Scan() {
                var fields []string
                for _, field := range strings.Split(lines.Text(), "\\t") {
                    decoded, _ := base64.StdEncoding.DecodeString(field)
                    fields = append(fields, string(decoded))
                }
                headers := map[string]string{}
                for _, header := range strings.Split(fields[3], "\\n") {
                    name, value, _ := strings.Cut(header, ":")
                    headers[name] = value
                }
                get := func(name string) string { return headers[strings.ToLower(name)] }
                now, _ := strconv.ParseInt(fields[1], 10, 64)
                secrets := strings.Split(fields[2], "\\n")
                fmt.Println(Verify(fields[0], get, []byte(fields[4]), secrets, time.Unix(now, 0)))
            }
        }
        """
    )
    cache = {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    command = [GO, "run", str(tmp_path / "verify.go"), str(tmp_path / "main.go")]
    shared_cache = Path.home() / ".cache" / "go-build"
    if shared_cache.is_dir():
        cache["GOCACHE"] = str(shared_cache)
    assert_verdicts(run(command, env=os.environ | cache))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
@pytest.mark.shows("W4")
def test_java_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    snippet = (SNIPPETS / "Verify.java").read_text()
    imports, _, code = snippet.partition("/** Java 17")
    program = tmp_path / "Main.java"
    program.write_text(
        imports
        + """
        import java.io.BufferedReader;
        import java.io.InputStreamReader;
        import java.util.HashMap;

        final class Main {
            public static void main(String[] arguments) throws Exception {
                BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    byte[][] fields = new byte[5][];
                    for (int index = 0; index < 5; index++) {
                        fields[index] = Base64.getDecoder().decode(line.split("\\t", -1)[index]);
                    }
                    Map<String, String> headers = new HashMap<>();
                    for (String header : new String(fields[3]).split("\\n")) {
                        int colon = header.indexOf(':');
                        headers.put(header.substring(0, colon), header.substring(colon + 1));
                    }
                    List<String> secrets = List.of(new String(fields[2]).split("\\n"));
                    long now = Long.parseLong(new String(fields[1]));
                    System.out.println(
                            Verify.verify(new String(fields[0]), headers, fields[4], secrets, now));
                }
            }
        }
        /** Java 17"""
        + code
    )
    assert_verdicts(run([shutil.which("java"), "-XX:TieredStopAtLevel=1", str(program)]))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("profile", ["wms", "humansoft", "standard"])
def test_openssl_computes_the_signature_that_is_sent(profile: str, tmp_path: Path) -> None:
    vector = next(v for v in THREE if v["profile"] == profile and v["name"] == "as sent")
    body = tmp_path / "body"
    body.write_text(vector["body"])
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    timestamp = headers.get("x-webhook-timestamp") or headers.get("webhook-timestamp", "")
    arguments = [profile, vector["secrets"][0], str(body), timestamp, headers.get("webhook-id", "")]
    answer = subprocess.run(
        ["/bin/sh", str(SNIPPETS / "signature.sh"), *arguments], capture_output=True, check=True
    )
    name = next(name for name in headers if name.endswith("signature"))
    assert answer.stdout.decode().strip() == headers[name]


def test_verify_py_needs_nothing_but_the_standard_library() -> None:
    source = (Path(__file__).parents[2] / "dispatcher" / "verify.py").read_text()
    modules = re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE)
    assert set(modules) - sys.stdlib_module_names == set()


def run(command: list[str | None], env: dict[str, str] | None = None) -> list[bool]:
    """Runs a program on all vectors, a line of base64 fields each, and returns its verdicts."""
    lines = []
    for vector in THREE:
        headers = [f"{name.lower()}:{value}" for name, value in vector["headers"].items()]
        fields = [vector["profile"], str(vector["now"]), "\n".join(vector["secrets"])]
        fields += ["\n".join(headers), vector["body"]]
        lines.append(b"\t".join(base64.b64encode(field.encode()) for field in fields))
    answer = subprocess.run(
        [part for part in command if part is not None],
        input=b"\n".join(lines) + b"\n",
        stdout=subprocess.PIPE,
        check=True,
        env=env,
        timeout=60,
    )
    return [line == b"true" for line in answer.stdout.split()]


def assert_verdicts(verdicts: list[bool]) -> None:
    assert len(verdicts) == len(THREE)
    wrong = [
        f"{vector['profile']}: {vector['name']}"
        for vector, verdict in zip(THREE, verdicts, strict=True)
        if verdict != vector["valid"]
    ]
    assert wrong == []
