"""Reads the tables of a profile document, and notes every fault with its key path."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")

Choice = TypeVar("Choice", bound=StrEnum)


class ProfileTable:
    """A table of the document that notes faults and which keys were read, instead of raising.

    What is missing or wrong is noted once and read as some value of its type.
    """

    def __init__(self, values: Mapping[str, Any], path: str, problems: list[str]) -> None:
        self._values = values
        self._path = path
        self._problems = problems
        self._known: set[str] = set()
        self._children: list[ProfileTable] = []

    def has(self, key: str) -> bool:
        """Return whether the table has a key."""
        return key in self._values

    def fault(self, key: str, message: str) -> None:
        """Note the fault of a key."""
        self._problems.append(f"{self._path}{key}: {message}")

    def _read(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:  # noqa: ANN401 -- TOML
        """Return the value of `key`, or None after noting why there is none of that kind."""
        self._known.add(key)
        value = self._values.get(key)
        if value is None:
            self.fault(key, f"is missing, {expected}")
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fault(key, expected)
        else:
            return value
        return None

    def text(
        self, key: str, pattern: re.Pattern[str] = PRINTABLE, default: str | None = None
    ) -> str:
        """Return a text of a form."""
        if default is not None and not self.has(key):
            return default
        value = self._read(key, str, "must be a text")
        if value is None:
            return ""
        if pattern.fullmatch(value) is None:
            self.fault(key, f"{value!r} does not match {pattern.pattern}")
        return str(value)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        return bool(self._read(key, bool, "must be true or false"))

    def constant(self, key: str) -> str | int | bool:
        """Return a text, a whole number, or true or false."""
        self._known.add(key)
        value = self._values.get(key)
        if isinstance(value, str | int | bool):
            return value
        self.fault(key, "must be a text, a whole number, or true or false")
        return ""

    def choice(self, key: str, choices: type[Choice]) -> Choice:
        """Return one of several texts."""
        return self._chosen(
            key, self._read(key, str, f"must be one of {', '.join(choices)}"), choices
        )

    def choices(self, key: str, choices: type[Choice]) -> tuple[Choice, ...]:
        """Return a list of such texts."""
        values = self._read(key, list, f"must be a list of {', '.join(choices)}") or []
        return tuple(self._chosen(key, value, choices) for value in values)

    def _chosen(self, key: str, value: object, choices: type[Choice]) -> Choice:
        if value in list(choices):
            return choices(str(value))
        if value is not None:
            self.fault(key, f"{value!r} is not one of {', '.join(choices)}")
        return next(iter(choices))

    def number(self, key: str, most: float) -> float:
        """Return a number above 0."""
        value = self._read(key, (int, float), f"must be a number above 0, at most {most}")
        if value is not None and not 0 < value <= most:
            self.fault(key, f"{value} is not above 0 and at most {most}")
        return float(value or 1)

    def whole_number(self, key: str, least: int, most: int) -> int:
        """Return a whole number between two bounds."""
        value = self._read(key, int, f"must be a whole number from {least} to {most}")
        if value is not None and not least <= value <= most:
            self.fault(key, f"{value} is not from {least} to {most}")
        return int(value or least)

    def numbers(self, key: str, most: float, counts: range) -> tuple[float, ...]:
        """Return a list of numbers above 0."""
        values = self._read(key, list, "must be a list of numbers")
        if values is None:
            return ()
        if len(values) not in counts:
            self.fault(key, f"has {len(values)} numbers, not {counts[0]} to {counts[-1]}")
        for value in values:
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= most
            ):
                self.fault(key, f"{value!r} is not a number above 0 and at most {most}")
                return ()
        return tuple(float(value) for value in values)

    def table(self, key: str) -> "ProfileTable":
        """Return a table in this one."""
        return self._child(self._read(key, dict, "must be a table") or {}, key)

    def tables(self, key: str, *, required: bool = True) -> "list[ProfileTable]":
        """Return a list of tables in this one."""
        if not required and not self.has(key):
            return []
        found = []
        for index, value in enumerate(self._read(key, list, "must be a list of tables") or []):
            if isinstance(value, dict):
                found.append(self._child(value, f"{key}[{index}]"))
            else:
                self.fault(f"{key}[{index}]", "must be a table")
        return found

    def _child(self, values: Mapping[str, Any], key: str) -> "ProfileTable":
        child = ProfileTable(values, f"{self._path}{key}.", self._problems)
        self._children.append(child)
        return child

    def refuse_unknown_keys(self) -> None:
        """Note each key that was not read, in this table and those in it."""
        for key in self._values:
            if key not in self._known:
                self.fault(key, "is not a key of a profile here")
        for child in self._children:
            child.refuse_unknown_keys()
