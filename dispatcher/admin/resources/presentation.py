"""How people give a field: the command-line option and the form control of each, as metadata of models."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel


class Reading(StrEnum):
    """How an option's text becomes the API's value."""

    TEXT = "text"
    TEXTS = "texts"
    ENDPOINT = "endpoint"
    """An endpoint's id, or its name, of which the command makes the id."""
    ENDPOINTS = "endpoints"
    EVENT_TYPE = "event_type"
    EVENT_TYPES = "event_types"
    PROFILE = "profile"
    REFERENCE = "reference"
    """A text that may be a credential, or `-`, `@FILE`, `env:NAME`."""
    SECRET = "secret"  # noqa: S105 -- a kind
    FILE = "file"
    """A text, or `@FILE`."""
    NUMBER = "number"
    NUMBERS = "numbers"
    HEADERS = "headers"
    LABELS = "labels"
    SWITCH = "switch"
    """`--name` or `--no-name`."""
    PAST = "past"
    """A time, or `15m` ago."""
    FUTURE = "future"
    """A time, or `90d` from now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The command-line option of a field; its name is the field's, with hyphens, unless it has its own.

    An option with a name of its own also accepts the field's.
    """

    help: str
    metavar: str | None = None
    reads: Reading = Reading.TEXT
    name: str | None = None
    is_optional: bool = False
    """Whether a command runs without it although the field is required: another field can stand for it."""

    def name_of(self, field: str) -> str:
        """Return the name of the option, as people type it."""
        return self.names_of(field)[0]

    def names_of(self, field: str) -> list[str]:
        """Return the names of the option, the one that the help shows first."""
        names = dict.fromkeys((self.name or field.replace("_", "-"), field.replace("_", "-")))
        if self.reads is Reading.SWITCH:
            return [f"--{name}/--no-{name}" for name in names]
        return [f"--{name}" for name in names]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a field that takes one or several of them, separated by commas."""

    allowed: tuple[str, ...]


class ControlKind(StrEnum):
    """What the console's form shows for a field."""

    LINE = "line"
    URL = "url"
    NUMBER = "number"
    WHOLE = "whole"
    DELAYS = "delays"
    HEADERS = "headers"
    LABELS = "labels"
    PEM = "pem"
    EXPRESSION = "expression"
    CHOICE = "choice"
    WORDS = "words"
    LINES = "lines"
    OPTIONAL = "optional"
    """A line that may be empty."""
    SECRET = "secret"  # noqa: S105 -- a kind
    """A text that is never shown again; empty: it stays as it is."""
    OWN = "own"
    """The form's template has markup for this field alone."""


class Section(StrEnum):
    """The part of the form that a control is in."""

    MAIN = "main"
    HEADERS = "headers"
    ADVANCED = "advanced"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class Control:
    """The form control of a field. Translations have its label as `field.<name>`, its hint as `form.<name>_hint`."""

    kind: ControlKind
    section: Section = Section.MAIN
    characters_max: int | None = None
    values: tuple[str, ...] = ()
    """Of a choice; the words for them are `<field>.<value>` of the console's translations."""


_Metadata = TypeVar("_Metadata", Option, Control)


def metadata_of(model: type[BaseModel], kind: type[_Metadata]) -> dict[str, _Metadata]:
    """Return the options or the controls of a model's fields, in order."""
    return {
        name: one
        for name, field in model.model_fields.items()
        for one in field.metadata
        if isinstance(one, kind)
    }
