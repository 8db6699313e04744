"""The reference of the command line in the documentation, made from the commands.

`python -m dispatcher.cli.reference` writes it into `docs/reference/cli.md`, between two comments; a test compares.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any, Final

import typer
from typer._click.core import Context
from typer.core import TyperArgument, TyperOption

from dispatcher.admin.resources.reference import DOCUMENTS, with_table
from dispatcher.cli.commands import EXAMPLES, Group, help_of, name_of
from dispatcher.cli.program import program

NAME: Final = "commands"
DOCUMENT: Final = DOCUMENTS / "reference" / "cli.md"
_EVERYWHERE: Final = frozenset({"output", "as_json", "help"})
"""Options that the text above the reference describes."""


def commands_text() -> str:
    """Return a section for each command as Markdown."""
    root: Any = typer.main.get_command(program)
    return "\n\n".join("\n\n".join(_section(command, path)) for path, command in _walk(root))


def _walk(command: Any, path: str = "dispatcher") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 -- typer's own
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, f"{path} {name}")


def _section(command: Any, path: str) -> Iterator[str]:  # noqa: ANN401 -- typer's own
    context = Context(command, info_name=path)
    level = "##" if isinstance(command, Group) else "###"
    yield f"{level} {path}"
    text, *examples = EXAMPLES.split(inspect.cleandoc(command.help or ""), maxsplit=1)
    yield _prose(text.strip())
    if examples:
        yield f"```sh\n{inspect.cleandoc(chr(10) + examples[0])}\n```"
    rows = list(_rows(command, context))
    if rows:
        yield "\n".join(("| option | |", "| --- | --- |", *rows))


def _rows(command: Any, context: Context) -> Iterator[str]:  # noqa: ANN401 -- typer's own
    for one in command.params:
        if one.name in _EVERYWHERE or getattr(one, "hidden", False):
            continue
        if isinstance(one, TyperArgument):
            yield f"| `{_cell(one.display_name_raw)}` | {_cell(one.help or '')} |"
        elif isinstance(one, TyperOption):
            yield f"| `{_cell(name_of(one))}` | {_cell(help_of(one, context))} |"


def _prose(text: str) -> str:
    """Return paragraphs, each on one line."""
    return "\n\n".join(" ".join(one.split()) for one in text.split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


def main() -> None:
    """Write the reference into its document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_table(text, NAME, commands_text()), encoding="utf-8")
    sys.stdout.write(f"docs/{DOCUMENT.name}: {NAME}\n")


if __name__ == "__main__":
    main()
