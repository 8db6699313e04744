"""The repository lints itself: what no tool checks, and what a reader may rely on everywhere."""

import ast
import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SKIPPED = {"__pycache__", "node_modules", "dist", "htmlcov", "vendor"}
SUFFIXES = {
    ".py",
    ".sql",
    ".toml",
    ".md",
    ".json",
    ".yaml",
    ".yml",
    ".html",
    ".css",
    ".js",
    ".jinja",
    ".lock",
}
BARE = {"run", "LICENSE", "Dockerfile", "Containerfile"}
# Written in pieces, so that this file does not find itself.
MARKS = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")
MACHINE = re.compile(
    r"/wo" + r"rk/|/ro" + r"ot/|/ho" + r"me/[a-z]|/Us" + r"ers/|\.\./sha" + r"red|"
    r"\b(?:con" + r"tract|de" + r"sign|fau" + r"lts|bri" + r"ef)\.md\b"
)  # fmt: skip
SILENCED = re.compile(r"#\s*(?:noqa\b|type:\s*ignore)")
REASONED = re.compile(r"#\s*(?:noqa:\s*[A-Z0-9, ]+|type:\s*ignore\[[a-z-, ]+\])\s*(?:--|#)\s*\S+")


def texts() -> Iterator[Path]:
    for path in sorted(CHECKOUT.rglob("*")):
        parts = path.relative_to(CHECKOUT).parts
        hidden = any(part.startswith(".") and part not in {".ci", ".github"} for part in parts)
        if hidden or SKIPPED & set(parts) or not path.is_file():
            continue
        if path.suffix in SUFFIXES or path.name in BARE:
            yield path


TEXTS = list(texts())
PYTHON = [path for path in TEXTS if path.suffix == ".py" or path == CHECKOUT / "run"]
PACKAGE = [path for path in PYTHON if path.is_relative_to(CHECKOUT / "dispatcher")]
SQL = [path for path in TEXTS if path.suffix == ".sql"]
STATEMENTS = [path for path in SQL if path.parent.name == "sql"]
CONFIG = [
    path for path in TEXTS if path.suffix == ".toml" and path.is_relative_to(CHECKOUT / "config")
]
HAND_WRITTEN = [
    path for path in TEXTS if path.suffix not in {".lock", ".json"} and path != Path(__file__)
]


@functools.cache
def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def findings(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in paths
        if pattern.search(
            read(path)
        )  # most files have none: one search instead of one for each line
        for number, line in enumerate(read(path).splitlines(), 1)
        if pattern.search(line)
    ]


def parse(path: Path) -> ast.Module:
    return ast.parse(read(path), str(path))


def test_nothing_is_left_to_be_done():
    assert findings(HAND_WRITTEN, MARKS) == []


def test_no_path_of_a_machine_is_named():
    assert findings(HAND_WRITTEN, MACHINE) == []


def test_each_silenced_rule_has_its_reason():
    lines = findings(PYTHON, SILENCED)
    assert [line for line in lines if "SILENCED" not in line and not REASONED.search(line)] == []


DOCSTRING = re.compile(r'(?:#[^\n]*\n|\s)*r?"""(.*?)"""', re.DOTALL)
"""The docstring of a module. Parsing all of the repository would take most of this file's time."""


def test_each_module_opens_with_one_sentence():
    found = []
    for path in PYTHON:
        match = DOCSTRING.match(read(path))
        first = "" if match is None else match[1].split("\n\n", maxsplit=1)[0]
        if not first.rstrip().endswith((".", ":")):
            found.append(f"{path.relative_to(CHECKOUT)}: not a sentence: {first!r}")
    assert found == []


def test_nothing_is_printed_but_by_the_command_line():
    found = [
        f"{path.relative_to(CHECKOUT)}:{node.lineno}"
        for path in PACKAGE
        if "cli" not in path.parts and path.name != "verify.py" and "print(" in read(path)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert found == []


def identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.keyword(arg=str(name)) | ast.alias(asname=str(name)):
                yield name
            case _:
                pass


def test_nothing_in_code_is_called_webhook():
    found = {
        f"{path.relative_to(CHECKOUT)}: {name}"
        for path in PACKAGE
        if "webhook" in f"{path.name} {read(path)}".lower()
        for name in (*identifiers(parse(path)), path.name)
        if "webhook" in name.lower()
    }
    assert found == set()


def test_the_hunt_for_identifiers_finds_each_kind():
    code = (
        "import a as webhook1\ndef webhook2(webhook3): f(webhook4=x.webhook5)\n"
        "class Webhook6: webhook7 = 1\n"
    )
    assert {name for name in identifiers(ast.parse(code)) if "ebhook" in name} == {
        "webhook1", "webhook2", "webhook3", "webhook4", "webhook5", "Webhook6", "webhook7",
    }  # fmt: skip


@functools.cache
def strings_of_the_store() -> dict[str, list[str]]:
    """Return where each string constant of the store is written."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in PACKAGE:
        if path.is_relative_to(CHECKOUT / "dispatcher" / "store"):
            for node in ast.walk(parse(path)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found[node.value].append(f"{path.relative_to(CHECKOUT)}:{node.lineno}")
    return found


def test_each_statement_has_a_header_and_one_user():
    used = strings_of_the_store()
    assert [path.name for path in STATEMENTS if not read(path).startswith("-- ")] == []
    users = {path.name: used.get(path.stem, []) for path in STATEMENTS}
    assert {name: places for name, places in users.items() if len(places) != 1} == {}


TESTS = [path for path in PYTHON if path.name.startswith("test_")]
NAME_CHARACTERS_MAX = 70


def test_names_of_tests_are_short_and_used_once_in_a_file():
    found = []
    for path in TESTS:
        functions = re.findall(r"(?m)^(?:async )?def (test_\w+)", read(path))
        where = path.relative_to(CHECKOUT)
        found += [f"{where}: {name}" for name in functions if len(name) > NAME_CHARACTERS_MAX]
        found += [f"{where}: {name} twice" for name in functions if functions.count(name) > 1]
    assert found == []


MIGRATIONS = [path for path in SQL if path.parent.name == "migrations"]


def test_migrations_have_a_number_of_their_own_and_are_named_by_phase():
    matches = [re.fullmatch(r"(\d{4})_(pre|post)_[a-z0-9_]+", path.stem) for path in MIGRATIONS]
    numbers = [int(match[1]) for match in matches if match is not None]
    assert numbers == sorted(set(numbers))


WORD = re.compile(r"\b[A-Z][A-Z0-9_]+\b")


def test_each_limit_is_used():
    limits = CHECKOUT / "dispatcher" / "core" / "limits.py"
    constants = re.findall(r"^([A-Z][A-Z0-9_]+)\b", read(limits), re.MULTILINE)
    others = {word for path in PACKAGE if path != limits for word in WORD.findall(read(path))}
    assert constants
    assert [name for name in constants if name not in others] == []


def test_each_configuration_file_parses():
    for path in CONFIG:
        tomllib.loads(read(path))


def test_the_repository_was_found():
    assert len(PACKAGE) > 20
    assert CHECKOUT / "run" in PYTHON
