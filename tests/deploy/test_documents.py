"""What the documentation shows exists and is valid: commands, options, metrics, links, SQL, code blocks."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer

from benchmarks.__main__ import BENCHMARKS
from dispatcher.admin.console.help_links import GUIDES
from dispatcher.admin.console.manual import slug
from dispatcher.cli.program import program
from dispatcher.telemetry import metrics

CHECKOUT = Path(__file__).resolve().parents[2]
DECISIONS = CHECKOUT / "docs" / "adr"
PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *sorted(
        one
        for one in CHECKOUT.glob("docs/**/*.md")
        if one.parent.name not in {"adr", "contributing"}
    ),
]
LINKED = [*PAGES, *CHECKOUT.glob("*.md"), *DECISIONS.glob("*.md"), *CHECKOUT.glob("*/*.md")]
METRICS = set(re.findall(r"(?m)^\| `([a-z_]+)` \|", metrics.__doc__ or ""))
FENCED = re.compile(r"(?ms)^ *```.*?^ *```")
ROLES = {"producer", "daemon", "bench"}
"""Names of database roles that begin as metrics do."""
DERIVED = {f"{name}_{part}" for name in METRICS for part in ("bucket", "sum", "count")}


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
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_command_exists_with_its_options(path):
    commands = list(typed(path.read_text(encoding="utf-8")))
    assert {" ".join(words): problem(words) for words in commands if problem(words)} == {}


def test_a_command_that_does_not_exist_is_found():
    text = "```sh\ndispatcher endpoint lits\nsudo dispatcher check --jsno\n```"
    assert [problem(words) for words in typed(text)] == [
        "no command lits of endpoint",
        "no option --jsno of check",
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_metric_that_is_named_exists(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`dispatcher_([a-z_]+)", text)) - ROLES
    assert named - METRICS - DERIVED == set()


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", FENCED.sub("", text))
    found: Counter[str] = Counter()
    anchors = set()
    for heading in headings:
        anchor = slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", ""))
        anchors.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return anchors


def broken_links(path: Path) -> list[str]:
    """Returns the links of a page to files, folders and headings that do not exist."""
    page = FENCED.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        is_page = file.suffix == ".md" and file.is_file()
        if not file.exists() or (anchor and is_page and anchor not in _anchors(file.read_text())):
            broken.append(target)
    return broken


def test_every_link_leads_to_a_file_and_a_heading():
    broken = {str(path.relative_to(CHECKOUT)): broken_links(path) for path in LINKED}
    assert {name: targets for name, targets in broken.items() if targets} == {}


def test_link_to_a_missing_file_or_heading_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A b\n\n# A b\n\n[a](#a-b) [b](#a-b-1) [c](#none) [d](page.md#a-b) [e](other.md)\n"
    )
    assert broken_links(page) == ["#none", "other.md"]


@pytest.mark.postgres
async def test_every_statement_of_runbooks_and_scaling_runs(database, checkout):
    """On an empty database: that names and types fit is what is asked here."""
    connection = await asyncpg.connect(database)
    try:
        for name in ("how-to/runbooks.md", "explanation/scaling.md"):
            text = (checkout / "docs" / name).read_text(encoding="utf-8")
            for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
                await connection.execute(block)
    finally:
        await connection.close()


def test_every_page_is_in_the_help_the_site_and_the_entrance():
    docs = CHECKOUT / "docs"
    pages = {str(path.relative_to(docs)) for path in PAGES if docs in path.parents}
    pages.discard("README.md")
    english = {name for name in pages if not name.startswith("th/")}
    assert {f"{name}.md" for names in GUIDES.values() for name in names} == english
    site = (CHECKOUT / "deploy" / "docs" / "mkdocs.yml").read_text("utf-8")
    navigation = re.findall(r": (\S+\.md)$", site, re.MULTILINE)
    assert set(navigation) - {"README.md", "adr/README.md"} == pages
    assert (
        pages - set(re.findall(r"\]\((\S+\.md)\)", (docs / "README.md").read_text("utf-8")))
        == set()
    )


def test_benchmarks_that_pages_name_have_these_options():
    folder = CHECKOUT / "benchmarks"
    shared = (folder / "harness.py").read_text(encoding="utf-8")
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for command, name in re.findall(r"(?:\./run bench|-m benchmarks) ((\w+)[^`\n]*)`", text):
            if name not in BENCHMARKS:
                wrong.append(f"{page.name}: {command}")
                continue
            source = shared + (folder / f"{name}.py").read_text(encoding="utf-8")
            wrong += [
                f"{page.name}: {command}: --{option}"
                for option in re.findall(r"--([a-z-]+)", command)
                if not re.search(rf"\b{option.replace('-', '[-_]')}\b", source)
            ]
    assert wrong == []
