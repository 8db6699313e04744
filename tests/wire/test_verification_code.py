"""The code that the console shows for each profile gives the verdicts of docs/vectors.json when it runs.

C# has no runtime here: its code is held to the same parts as the others.
"""

import base64
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from dispatcher.admin.console.verification_code import public_key_code, verification_code
from dispatcher.core.profile import LeadPart, SignedPart
from dispatcher.core.secret import generate, public_key
from dispatcher.core.signing import Signer
from tests.support.tools import need
from tests.wire.node_process import needs_node, node
from tests.wire.test_snippets import GO
from tests.wire.vectors import PROFILES, VECTORS_FILE

VECTORS: list[dict[str, Any]] = orjson.loads(VECTORS_FILE.read_bytes())
CODE = {name: verification_code(profile) for name, profile in PROFILES.items()}
LANGUAGES = ["Python", "JavaScript", "PHP", "Java", "Go", "C#"]


def headers_of(vector: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in vector["headers"].items()}


def assert_verdicts(verdicts: list[bool]) -> None:
    assert len(verdicts) == len(VECTORS)
    wrong = [
        f"{vector['profile']}: {vector['name']}"
        for vector, verdict in zip(VECTORS, verdicts, strict=True)
        if verdict != vector["valid"]
    ]
    assert wrong == []


def run(command: list[str], env: dict[str, str] | None = None) -> list[bool]:
    """Run a program on all vectors, a line of base64 fields each, and return its verdicts."""
    lines = []
    for vector in VECTORS:
        headers = [f"{name}:{value}" for name, value in headers_of(vector).items()]
        fields = [vector["profile"], str(vector["now"]), "\n".join(vector["secrets"])]
        fields += ["\n".join(headers), vector["body"]]
        lines.append(b"\t".join(base64.b64encode(field.encode()) for field in fields))
    answer = subprocess.run(
        command,
        input=b"\n".join(lines) + b"\n",
        stdout=subprocess.PIPE,
        check=True,
        env=env,
        timeout=90,
    )
    return [line == b"true" for line in answer.stdout.split()]


def test_every_profile_that_signs_has_code_in_six_languages() -> None:
    for name, code in CODE.items():
        assert list(code) == LANGUAGES, name
        for language, text in code.items():
            assert PROFILES[name].signature.header.lower() in text, (name, language)
            assert "\t\n" not in text
            assert max(map(len, text.splitlines())) <= 120, (name, language)


def test_profile_that_signs_in_another_way_has_no_code() -> None:
    wms = PROFILES["wms"]
    others = {
        "body first": replace(wms.signature, content=(SignedPart.BODY, SignedPart.TIMESTAMP)),
        "id that no header has": replace(wms.signature, content=(SignedPart.EVENT_ID, SignedPart.BODY)),
        "another lead": replace(wms.signature, lead=(LeadPart(text="a"),)),
        "text that ends a string": replace(wms.signature, prefix='x"); evil("'),
    }  # fmt: skip
    for why, signature in others.items():
        assert verification_code(replace(wms, signature=signature)) == {}, why


def test_python_code_gives_the_verdicts_of_the_vectors() -> None:
    spaces: dict[str, dict[str, Any]] = {name: {} for name in CODE}
    for name, space in spaces.items():
        exec(CODE[name]["Python"], space)  # noqa: S102 -- the code under test
    assert_verdicts(
        [
            any(
                spaces[one["profile"]]["verify"](
                    headers_of(one), one["body"].encode(), secret, one["now"]
                )
                for secret in one["secrets"]
            )
            for one in VECTORS
        ]
    )


@needs_node
def test_javascript_code_gives_the_verdicts_of_the_vectors() -> None:
    verifiers = ",".join(
        f"{name}: (() => {{ {code['JavaScript']} return verify; }})()"
        for name, code in CODE.items()
    )
    program = f"""
        const verifiers = {{ {verifiers} }};
        const answerTo = (v) => v.secrets.some((secret) =>
          verifiers[v.profile](v.lower, Buffer.from(v.body), secret, v.now));
        """
    with node(program) as process:
        assert_verdicts(
            [process.ask({**one, "lower": headers_of(one)}) == b"true" for one in VECTORS]
        )


def test_php_code_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    for name, code in CODE.items():
        text = code["PHP"].replace("function verify(", f"function verify_{name}(")
        (tmp_path / f"{name}.php").write_text(text)
    program = tmp_path / "main.php"
    program.write_text(
        "<?php "
        + "".join(f"require '{tmp_path}/{name}.php';" for name in CODE)
        + """
        while (($line = fgets(STDIN)) !== false) {
            [$profile, $now, $secrets, $headers, $body] = array_map('base64_decode', explode("\\t", $line));
            $map = [];
            foreach (explode("\\n", $headers) as $header) {
                [$name, $value] = explode(':', $header, 2);
                $map[$name] = $value;
            }
            $valid = false;
            foreach (explode("\\n", $secrets) as $secret) {
                $valid = ("verify_$profile")($map, $body, $secret, (int) $now) || $valid;
            }
            echo $valid ? "true\\n" : "false\\n";
        }
        """
    )
    assert_verdicts(run([need("php", package="php-cli"), str(program)]))


@pytest.mark.slow
@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_go_code_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    for name, code in CODE.items():
        text = code["Go"].replace("func Verify(", f"func Verify{name}(")
        (tmp_path / f"{name}.go").write_text(text)
    table = ", ".join(f'"{name}": Verify{name}' for name in CODE)
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
            verifiers := map[string]func(func(string) string, []byte, string, time.Time) bool{%s}
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
                valid := false
                for _, secret := range strings.Split(fields[2], "\\n") {
                    valid = verifiers[fields[0]](get, []byte(fields[4]), secret, time.Unix(now, 0)) || valid
                }
                fmt.Println(valid)
            }
        }
        """.replace("%s", table)
    )
    cache = {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    shared_cache = Path.home() / ".cache" / "go-build"
    if shared_cache.is_dir():
        cache["GOCACHE"] = str(shared_cache)
    files = [str(tmp_path / f"{name}.go") for name in [*CODE, "main"]]
    assert_verdicts(run([str(GO), "run", *files], env=os.environ | cache))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed")
def test_java_code_gives_the_verdicts_of_the_vectors(tmp_path: Path) -> None:
    for name, code in CODE.items():
        text = code["Java"].replace("final class Webhook ", f"final class Webhook_{name} ")
        (tmp_path / f"Webhook_{name}.java").write_text(text)
    cases = "".join(
        f'case "{name}" -> Webhook_{name}.verify(headers, body, secret, now);' for name in CODE
    )
    (tmp_path / "Main.java").write_text(
        """
        import java.io.BufferedReader;
        import java.io.InputStreamReader;
        import java.util.Base64;
        import java.util.HashMap;
        import java.util.Map;

        final class Main {
            static boolean verify(String profile, Map<String, String> headers, byte[] body, String secret, long now)
                    throws Exception {
                return switch (profile) { %s default -> throw new IllegalStateException(profile); };
            }

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
                    boolean valid = false;
                    for (String secret : new String(fields[2]).split("\\n")) {
                        valid |= verify(new String(fields[0]), headers, fields[4], secret,
                                Long.parseLong(new String(fields[1])));
                    }
                    System.out.println(valid);
                }
            }
        }
        """.replace("%s", cases)
    )
    sources = [
        str(tmp_path / f"{name}.java") for name in ["Main", *(f"Webhook_{one}" for one in CODE)]
    ]
    subprocess.run(
        [str(shutil.which("javac")), "-J-XX:TieredStopAtLevel=1", "-d", str(tmp_path), *sources],
        check=True,
        timeout=90,
    )
    assert_verdicts(
        run([str(shutil.which("java")), "-XX:TieredStopAtLevel=1", "-cp", str(tmp_path), "Main"])
    )


PAIR = generate(PROFILES["standard"], lambda count: bytes(range(count)), ed25519=True)
PUBLIC_KEY = str(public_key(PROFILES["standard"], PAIR))
KEY_CODE = public_key_code(PROFILES["standard"])


def key_cases() -> list[tuple[dict[str, str], str, int, bool]]:
    """Return requests under an ed25519 key: headers, body, now and whether each is genuine."""
    body = '{"a":1}'
    signature = Signer(PROFILES["standard"], [PAIR]).sign(
        event_id="evt_1", delivery_id="", event_type="a.b", timestamp=1_000, body=body.encode()
    )
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1000", "webhook-signature": signature}
    other = "v1a," + base64.b64encode(bytes(64)).decode()
    return [
        (headers, body, 1_000, True),
        ({**headers, "webhook-signature": f"v1,x {other} {signature}"}, body, 1_299, True),
        (headers, body + " ", 1_000, False),
        (headers, body, 1_301, False),
        ({**headers, "webhook-id": "evt_2"}, body, 1_000, False),
        ({**headers, "webhook-signature": other}, body, 1_000, False),
        ({**headers, "webhook-signature": "v1a,%"}, body, 1_000, False),
        ({**headers, "webhook-timestamp": "x"}, body, 1_000, False),
        ({}, body, 1_000, False),
    ]


def test_public_key_code_python_verifies_ed25519() -> None:
    space: dict[str, Any] = {}
    exec(KEY_CODE["Python"], space)  # noqa: S102 -- the code under test
    for headers, body, now, valid in key_cases():
        assert space["verify"](headers, body.encode(), PUBLIC_KEY, now) is valid, headers
    assert public_key_code(PROFILES["wms"]) == {}
    assert all(max(map(len, text.splitlines())) <= 120 for text in KEY_CODE.values())


@needs_node
def test_public_key_code_javascript_verifies_ed25519() -> None:
    program = (
        KEY_CODE["JavaScript"]
        + f"const answerTo = (v) => verify(v[0], Buffer.from(v[1]), '{PUBLIC_KEY}', v[2]);"
    )
    with node(program) as process:
        for case in key_cases():
            assert (process.ask(case[:3]) == b"true") is case[3], case


def test_public_key_code_php_verifies_ed25519(tmp_path: Path) -> None:
    php = need("php", package="php-cli")
    cases = orjson.dumps([case[:3] for case in key_cases()]).decode()
    program = tmp_path / "main.php"
    program.write_text(
        KEY_CODE["PHP"]
        + f"foreach (json_decode(<<<'X'\n{cases}\nX, true) as [$headers, $body, $now]) {{"
        + f" echo verify($headers, $body, '{PUBLIC_KEY}', $now) ? 'true ' : 'false '; }}"
    )
    answer = subprocess.run([php, str(program)], capture_output=True, check=True, timeout=30)
    assert [one == b"true" for one in answer.stdout.split()] == [one[3] for one in key_cases()]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed")
def test_public_key_code_java_verifies_ed25519(tmp_path: Path) -> None:
    (tmp_path / "Webhook.java").write_text(KEY_CODE["Java"])
    calls = "".join(
        f"System.out.println(Webhook.verify(Map.ofEntries({pairs}), {orjson.dumps(body).decode()}.getBytes(),"
        f' "{PUBLIC_KEY}", {now}L));\n'
        for headers, body, now, _ in key_cases()
        for pairs in [
            ", ".join(f'Map.entry("{name}", "{value}")' for name, value in headers.items())
        ]
    )
    (tmp_path / "Main.java").write_text(
        "import java.util.Map;\nfinal class Main { public static void main(String[] arguments) throws Exception {\n"
        f"{calls}}} }}\n"
    )
    java = ["-XX:TieredStopAtLevel=1"]
    subprocess.run(
        [str(shutil.which("javac")), "-J" + java[0], "-d", str(tmp_path),
         *(str(tmp_path / name) for name in ("Webhook.java", "Main.java"))],
        check=True, timeout=90,
    )  # fmt: skip
    answer = subprocess.run(
        [str(shutil.which("java")), *java, "-cp", str(tmp_path), "Main"],
        capture_output=True, check=True, timeout=90,
    )  # fmt: skip
    assert [one == b"true" for one in answer.stdout.split()] == [one[3] for one in key_cases()]


@pytest.mark.slow
@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_public_key_code_go_verifies_ed25519(tmp_path: Path) -> None:
    (tmp_path / "verify.go").write_text(KEY_CODE["Go"])
    calls = "".join(
        f"fmt.Println(Verify(func(name string) string {{ return map[string]string{{{pairs}}}[name] }},"
        f' []byte(`{body}`), "{PUBLIC_KEY}", time.Unix({now}, 0)))\n'
        for headers, body, now, _ in key_cases()
        for pairs in [", ".join(f"`{name}`: `{value}`" for name, value in headers.items())]
    )
    (tmp_path / "main.go").write_text(
        f'package main\nimport ("fmt"; "time")\nfunc main() {{\n{calls}}}\n'
    )
    cache = {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    shared_cache = Path.home() / ".cache" / "go-build"
    if shared_cache.is_dir():
        cache["GOCACHE"] = str(shared_cache)
    files = [str(tmp_path / name) for name in ("verify.go", "main.go")]
    answer = subprocess.run(
        [str(GO), "run", *files],
        env=os.environ | cache,
        capture_output=True,
        check=True,
        timeout=90,
    )
    assert [one == b"true" for one in answer.stdout.split()] == [one[3] for one in key_cases()]
