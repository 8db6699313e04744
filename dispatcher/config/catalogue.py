"""The catalogue: what each event type means, in Thai and English, with a sample of its data.

It documents types and gives test data. An event of an unknown type is delivered. A type may have a JSON Schema, which
marks events that do not fit or, with the policy `reject`, refuses them when they are published over HTTP.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dispatcher.core.errors import ConfigurationError
from dispatcher.core.schemas import Schema, SchemaError, SchemaPolicy, compile_schema

OPERATIONAL_PREFIX = "dispatcher."
"""Types of the dispatcher's own events; producers cannot publish them."""

_TYPE_NAME = re.compile(r"(?=.{1,128}\Z)[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TYPE_KEYS = {"name", "group", "title", "description", "sample", "schema", "schema_policy"}


class Text(NamedTuple):
    """A text in the two languages of the console."""

    th: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Event types that stand together in the console."""

    name: str
    title: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One event type; `sample` is the JSON text of realistic data, an object, without spaces."""

    name: str
    group: str
    title: Text
    description: Text
    sample: str
    schema: Schema | None = None

    @property
    def operational(self) -> bool:
        """Whether the dispatcher raises it itself."""
        return self.name.startswith(OPERATIONAL_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Event types and groups by name, both in the order of their files.

    `replaced` names the types that a later directory took from an earlier one.
    """

    types: Mapping[str, EventType]
    groups: Mapping[str, Group]
    replaced: tuple[str, ...]

    @property
    def schemas(self) -> dict[str, Schema]:
        """The schemas of the types that have one, by type."""
        return {one.name: one.schema for one in self.types.values() if one.schema is not None}


def load_catalogue(directories: Sequence[Path]) -> Catalogue:
    """Return all event types of all `*.toml` in `directories`; a later one replaces its namesake.

    A directory that is not there counts as empty.

    Raises:
        ConfigurationError: with every fault of every file, each with its file and key path.
    """
    problems: list[str] = []
    types: dict[str, EventType] = {}
    groups: dict[str, Group] = {}
    replaced: list[str] = []
    for directory in directories:
        for file in sorted(directory.glob("*.toml")):
            try:
                document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError) as error:
                # tomllib's own error and a wrong encoding are both ValueErrors.
                problems.append(f"{file}: {error}")
                continue
            faults: list[str] = []
            groups |= _groups(document.get("groups", {}), faults)
            for event_type in _types(document.get("types", []), groups, faults):
                if event_type.name in types:
                    replaced.append(event_type.name)
                types[event_type.name] = event_type
            faults += [
                f"{key}: is not a key of a catalogue"
                for key in document.keys() - {"groups", "types"}
            ]
            problems.extend(f"{file}: {fault}" for fault in faults)
    if problems:
        raise ConfigurationError(problems)
    return Catalogue(types=types, groups=groups, replaced=tuple(replaced))


def _groups(tables: object, faults: list[str]) -> dict[str, Group]:
    if not isinstance(tables, dict):
        faults.append("groups: must be a table of groups")
        return {}
    groups = {}
    for name, table in tables.items():
        if _GROUP_NAME.fullmatch(name) is None:
            faults.append(f"groups.{name}: does not match {_GROUP_NAME.pattern}")
        title = table.get("title") if isinstance(table, dict) else None
        groups[name] = Group(name=name, title=_text(title, f"groups.{name}.title", faults))
    return groups


def _types(tables: object, groups: Mapping[str, Group], faults: list[str]) -> list[EventType]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append("types: must be a list of tables")
        return []
    types = [_type(table, f"types[{index}]", groups, faults) for index, table in enumerate(tables)]
    names = [event_type.name for event_type in types]
    faults += [f"types: {name} occurs twice" for name in set(names) if names.count(name) > 1]
    return types


def _type(
    table: Mapping[str, Any], path: str, groups: Mapping[str, Group], faults: list[str]
) -> EventType:
    name, group = str(table.get("name", "")), str(table.get("group", ""))
    if _TYPE_NAME.fullmatch(name) is None:
        faults.append(f"{path}.name: {name!r} does not match {_TYPE_NAME.pattern}")
    if group not in groups:
        faults.append(f"{path}.group: there is no group {group!r}")
    faults += [f"{path}.{key}: is not a key of a type" for key in table.keys() - _TYPE_KEYS]
    sample = _sample(table.get("sample"), f"{path}.sample", faults)
    return EventType(
        name=name,
        group=group,
        title=_text(table.get("title"), f"{path}.title", faults),
        description=_text(table.get("description"), f"{path}.description", faults),
        sample=sample,
        schema=_schema(table, sample, path, faults),
    )


def _schema(table: Mapping[str, Any], sample: str, path: str, faults: list[str]) -> Schema | None:
    """Return the compiled schema of a type; its sample has to fit it."""
    text, policy = table.get("schema"), table.get("schema_policy", SchemaPolicy.WARN)
    if policy not in set(SchemaPolicy):
        faults.append(f"{path}.schema_policy: must be one of {', '.join(SchemaPolicy)}")
    if text is None:
        if "schema_policy" in table:
            faults.append(f"{path}.schema_policy: needs a schema")
        return None
    try:
        schema = compile_schema(text if isinstance(text, str) else "", SchemaPolicy(policy))
    except SchemaError as error:
        faults.append(f"{path}.schema: {error}")
        return None
    except ValueError:  # the policy, which is reported above
        return None
    faults += [
        f"{path}.sample: does not fit the schema: {one.field}: {one.detail}"
        for one in schema.mismatches(sample or "{}")
    ]
    return schema


def _text(value: object, path: str, faults: list[str]) -> Text:
    if isinstance(value, dict) and value.keys() == {"th", "en"}:
        thai, english = value["th"], value["en"]
        if isinstance(thai, str) and isinstance(english, str) and thai and english:
            return Text(thai, english)
    faults.append(f"{path}: must have the texts th and en")
    return Text("", "")


def _sample(value: object, path: str, faults: list[str]) -> str:
    try:
        data = orjson.loads(value if isinstance(value, str) else "")
    except orjson.JSONDecodeError as error:
        faults.append(f"{path}: must be JSON text ({error})")
        return ""
    if not isinstance(data, dict):
        faults.append(f"{path}: must be a JSON object")
    return orjson.dumps(data).decode()
