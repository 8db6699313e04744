"""What the operators' pages tell people to type exists: commands, options, metrics, links, SQL."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer

from dispatcher.cli.program import program
from dispatcher.telemetry import metrics

PAGES = ("operators.md", "runbooks.md", "scaling.md", "cli.md")
METRICS = set(re.findall(r"(?m)^\| `([a-z_]+)` \|", metrics.__doc__ or ""))
DERIVED = {f"{name}_{part}" for name in METRICS for part in ("bucket", "sum", "count")}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, checkout: Path) -> str:
    text: str = (checkout / "docs" / request.param).read_text(encoding="utf-8")
    return text


def typed(text: str) -> Iterator[list[str]]:
    """Yields each dispatcher command of a page: in a shell block, or in the running text."""
    text = re.sub(r"\\\n\s*", "", text)  # a line that goes on
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(dispatcher [^`]+)`", text)
    for line in lines:
        bare = re.sub(r"'[^']*'", "X", re.sub(r"(^|\s)#.*", "", line))
        for part in re.split(r"\||&&|>|;", bare):
            if "dispatcher" not in part:
                continue
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=.*|sudo|-u|exec", words[0]):
                words = words[1:]
            if words and Path(words[0]).name == "dispatcher" and len(words) > 1:
                yield words[1:]


def problem(words: list[str]) -> str | None:
    """Tells what the program would refuse."""
    command: Any = typer.main.get_command(program)
    options = {name for one in command.params for name in one.opts} | {"--help", "-h"}
    words = list(words)
    while words:
        word = words.pop(0).partition("=")[0]
        if word.startswith("-") and word != "-":
            if word not in options:
                return f"no option {word} of {command.name}"
            takes_value = any(
                word in one.opts and not one.is_flag
                for one in command.params
                if one.param_type_name == "option"
            )
            if takes_value and words:
                words.pop(0)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"no command {word} of {command.name}"
            command = command.commands[word]
            options = {
                name for one in command.params for name in (*one.opts, *one.secondary_opts)
            } | {"--help", "-h"}
    return None


@pytest.mark.shows("C3")
def test_every_command_exists_with_its_options(page):
    commands = list(typed(page))
    assert commands
    assert {" ".join(words): problem(words) for words in commands if problem(words)} == {}


def test_a_command_that_does_not_exist_is_found():
    text = "```sh\ndispatcher endpoint lits\nsudo dispatcher check --jsno\n```"
    assert [problem(words) for words in typed(text)] == [
        "no command lits of endpoint",
        "no option --jsno of check",
    ]


def test_every_metric_that_is_named_exists(page):
    named = set(re.findall(r"\bdispatcher_([a-z_]+)", page)) - {"producer", "daemon", "bench"}
    assert named - METRICS - DERIVED == set()


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere(page, checkout):
    missing = []
    for target in re.findall(r"\]\(([^)]+)\)", page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = checkout / "docs" / path if path else None
        if file is not None and not file.exists():
            missing.append(target)
        text = page if file is None else file.read_text() if file.suffix == ".md" else ""
        if anchor and anchor not in _anchors(text):
            missing.append(target)
    assert missing == []


@pytest.mark.postgres
async def test_every_statement_of_runbooks_and_scaling_runs(database, checkout):
    """On an empty database: that names and types fit is what is asked here."""
    connection = await asyncpg.connect(database)
    try:
        for name in ("runbooks.md", "scaling.md"):
            text = (checkout / "docs" / name).read_text(encoding="utf-8")
            for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
                await connection.execute(block)
    finally:
        await connection.close()
