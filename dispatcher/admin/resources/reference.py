"""Tables of the documentation, made from the resources.

`python -m dispatcher.admin.resources.reference` writes them into `docs/`, between the comments that
name them; a test compares.
"""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from dispatcher.admin.resources.endpoint import DEFAULTS
from dispatcher.admin.resources.endpoint_requests import NewEndpoint
from dispatcher.admin.resources.presentation import Option, metadata_of
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.problem_codes import SENTENCES
from dispatcher.core.problems import number_text

DOCUMENTS: Final = Path(__file__).resolve().parents[3] / "docs"
_OTHER_DEFAULTS: Final = {"secret": "generated", "profile": "`endpoints.default_profile`"}
"""Defaults that are not a constant."""
_SECTION: Final = re.compile(r"(?ms)^\[([a-z_.]+)\]\n(.*?)(?=^\[|\Z)")
_KEY: Final = re.compile(r"(?m)((?:^# ?.*\n)+)^#([a-z_]+) = (.*)$")


def endpoint_table() -> str:
    """Return the fields of an endpoint as a Markdown table."""
    schema = NewEndpoint.model_json_schema()["properties"]
    options = metadata_of(NewEndpoint, Option)
    lines = ["| field | value | default | option | |", "| --- | --- | --- | --- | --- |"]
    for name, option in options.items():
        described = schema[name]
        default = "required"
        if not NewEndpoint.model_fields[name].is_required():
            default = _OTHER_DEFAULTS.get(name, f"`{_default(name)}`")
        text = described.get("description", option.help)
        value = _value(described)
        lines.append(
            f"| `{name}` | {value} | {default} | `{option.name_of(name)}` | {_cell(text)} |"
        )
    return "\n".join(lines)


def codes_table() -> str:
    """Return the codes of problems as a Markdown table."""
    lines = ["| code | message | fix |", "| --- | --- | --- |"]
    lines += [
        f"| `{code}` | {_cell(one)} | {_cell(fix)} |" for code, (one, fix) in SENTENCES.items()
    ]
    return "\n".join(lines)


def settings_text() -> str:
    """Return the keys of the shipped settings file, a section each, as Markdown."""
    text = (shipped_config_directory() / "dispatcher.toml").read_text("utf-8")
    parts = []
    for section, body in _SECTION.findall(text):
        parts.append(f"## {section}\n")
        for comment, name, default in _KEY.findall(body):
            words = " ".join(line.removeprefix("#").strip() for line in comment.splitlines())
            parts.append(f"### {section}.{name}\n\nDefault: `{default}`\n\n{_prose(words)}\n")
    return "\n".join(parts).rstrip()


def event_types_table() -> str:
    """Return the shipped catalogue as a Markdown table."""
    lines = ["| type | title | meaning |", "| --- | --- | --- |"]
    for path in sorted((shipped_config_directory() / "catalogue").glob("*.toml")):
        for one in tomllib.loads(path.read_text("utf-8"))["types"]:
            texts = (one["title"]["en"], one["description"]["en"])
            lines.append(f"| `{one['name']}` | " + " | ".join(map(_cell, texts)) + " |")
    return "\n".join(lines)


TABLES: Final = {
    "endpoint fields": ("reference/api.md", endpoint_table),
    "problem codes": ("reference/errors.md", codes_table),
    "settings": ("reference/settings.md", settings_text),
    "event types": ("reference/event-types.md", event_types_table),
}
"""Each table: the document that shows it, and what makes it."""


def with_table(text: str, name: str, table: str) -> str:
    """Return a document with the table of this name replaced.

    Raises:
        ValueError: the document does not have the table's two comments.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"the document has no {begin.strip()} and {end}")
    return f"{head}{begin}\n{table}\n\n{end}{tail}"


def main() -> None:
    """Write every table into its document."""
    for name, (document, make) in TABLES.items():
        path = DOCUMENTS / document
        path.write_text(with_table(path.read_text("utf-8"), name, make()), "utf-8")
        sys.stdout.write(f"docs/{document}: {name}\n")


def _default(name: str) -> str:
    return orjson.dumps(
        DEFAULTS[name] if name in DEFAULTS else NewEndpoint.model_fields[name].default
    ).decode()


def _value(described: Mapping[str, Any]) -> str:
    """Return type and bounds of a field's schema as a person reads them."""
    kinds = described.get("anyOf", [described])
    texts = []
    for one in kinds:
        text = str(one.get("const", one["type"]))
        if "minimum" in one:
            text += f" from {number_text(one['minimum'])} to {one['maximum']}"
        if "items" in one and "minimum" in one["items"]:
            text += f" of numbers from {one['items']['minimum']} to {one['items']['maximum']}"
        for key, unit in (("maxLength", "characters"), ("maxItems", "entries")):
            if key in one:
                text += f", at most {one[key]} {unit}"
        texts.append(text)
    return " or ".join(texts)


def _prose(text: str) -> str:
    """Return a comment as Markdown: characters that would be markup are literal."""
    return re.sub(r"([*_<>\[\]])", r"\\\1", text) if "`" not in text else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    main()
