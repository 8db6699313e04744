"""The help of every command at 80 columns, and the errors of wrong usage."""

import inspect
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dispatcher.admin.resources.reference import with_table
from dispatcher.cli import reference
from dispatcher.cli.program import program
from tests.test_prose import ANY

COLUMNS = 80
PYTHON_TYPES = re.compile(r"<\w+>|\bstr\b|\bint\b|\bfloat\b|\bbool\b|\bNone\b|list\[")
EXAMPLE = re.compile(r"^  (?! )(\S+)", re.MULTILINE)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command and group with its path."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{path} {name}".strip())

    return walk(typer.main.get_command(program), "")


def help_of(path: str) -> str:
    result = CliRunner().invoke(program, [*path.split(), "--help"], prog_name="dispatcher")
    assert result.exit_code == 0
    return result.output


PATHS = [path for path, _ in commands()]


@pytest.mark.parametrize("path", PATHS)
def test_help_fits_80_columns_and_shows_no_python_types(path: str):
    text = help_of(path)
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []
    assert PYTHON_TYPES.search(text) is None
    assert "..." not in text.partition("\n\n")[2]
    assert "[default" not in text


@pytest.mark.parametrize("path", PATHS)
def test_help_uses_the_fields_terms(path: str):
    text = " ".join(help_of(path).split())
    assert ANY.findall(text) == []


@pytest.mark.parametrize("path", [path for path, one in commands() if hasattr(one, "commands")])
def test_a_list_of_commands_has_one_line_for_each(path: str):
    names = list(dict(commands())[path].commands)
    listed = help_of(path).partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == names


@pytest.mark.parametrize("path", [path for path, one in commands() if not hasattr(one, "commands")])
def test_every_command_has_an_example_and_says_what_it_prints(path: str):
    text = help_of(path)
    assert "Examples:\n" in text, "add an example to the docstring"
    examples = text.partition("Examples:\n")[2].partition("\n\n")[0]
    assert set(EXAMPLE.findall(examples)) <= {"dispatcher", "echo"}
    options = {name for one in dict(commands())[path].params for name in one.opts}
    if path.rsplit(maxsplit=1)[-1] in {"list", "show", "create", "update", "check"}:
        assert {"-o", "--output", "--json"} <= options


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("endpont list", "endpont: no such command. Did you mean endpoint?"),
        ("endpoint lst", "lst: no such command. Did you mean list"),
        ("explain evt_1", "explain: no such command. Did you mean event explain?"),
        ("delivery list --endpont x", "--endpont: no such option. Did you mean --endpoint"),
        ("endpoint create", "--name: this option is required."),
        ("endpoint show", "ENDPOINT: this argument is required."),
        ("endpoint list --limit x", "--limit: "),
        ("delivery list --since tuesday", "--since: 'tuesday' is not a time. Use "),
        ("endpoint list --json -o yaml", "-o: conflicts with --json. Give one of the two."),
        ("endpoint update ERP", "update: nothing to change. Give an option."),
        ("endpoint update ERP --rate-limit x", "--rate-limit: 'x' is not a number."),
    ],
)
def test_wrong_usage_names_field_problem_and_fix(arguments: str, expected: str):
    result = CliRunner().invoke(program, arguments.split(), prog_name="dispatcher")
    first, *rest = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert first.startswith(f"dispatcher: {expected}")
    assert re.fullmatch(r"Run `dispatcher.* --help` for its options\.", "".join(rest))


def test_the_reference_of_the_documentation_is_the_generated_one():
    text = reference.DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text, reference.NAME, reference.commands_text()), (
        "run python -m dispatcher.cli.reference"
    )


def test_a_group_without_a_command_prints_its_help():
    result = CliRunner().invoke(program, ["endpoint"], prog_name="dispatcher")
    assert result.exit_code == 2
    assert result.stderr == inspect.cleandoc(help_of("endpoint")) + "\n"


def test_completion_lists_commands_options_and_words():
    def completed(line: str) -> list[str]:
        environ = {
            "_DISPATCHER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
            "DISPATCHER_HOME": "/nonexistent",
        }
        result = CliRunner(env={**os.environ, **environ}).invoke(
            program, [], prog_name="dispatcher"
        )
        return result.stdout.split()

    assert completed("dispatcher end") == ["endpoint"]
    assert completed("dispatcher endpoint rot") == ["rotate-secret"]
    assert completed("dispatcher delivery list --endp") == ["--endpoint", "--endpoint-id"]
    assert completed("dispatcher endpoint list --state a") == ["active"]
    assert completed("dispatcher endpoint list --profile hum") == ["humansoft"]
    assert "order.created" in completed("dispatcher event publish order.")
    assert completed("dispatcher endpoint list -o ") == ["table", "wide", "json", "yaml"]
