"""Field masks: which parts of an event's data an endpoint gets, decided before its body is made.

A path is names joined by dots, `customer.email`. `*` stands for any name. A list is passed through: `items.price` is
the price of each item. A backslash before a dot or a backslash makes it a part of the name. With `include` only what
its paths lead to is kept, whole; `exclude` then removes what its paths lead to.

What always holds: a part that no `include` leads to, or that an `exclude` leads to, is not in the result, whatever
the text's escapes, duplicate names, nesting and spaces. Numbers and strings that are kept stay as the producer wrote
them. The work is linear in the text and needs no recursion, so a deep text of Postgres's `json` cannot exhaust
the stack. Spaces between tokens are not kept.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import BodyField, FieldSource, Profile

PATHS_MAX: Final = 50
PATH_CHARACTERS_MAX: Final = 256
_TOKEN: Final = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"|[^\s{}\[\]:,"]+', re.DOTALL)
_PART: Final = re.compile(r"((?:[^.\\]|\\[.\\])+)(?:\.|\Z)")
_ANY: Final = "*"
_END: Final = ""
"""The key of a trie's end: no name of a path is empty."""

_Trie = dict[str, Any]
_Places = tuple[_Trie, ...]
"""The places in a trie that paths have reached; several where `*` and a name both match."""
_ALL: Final = None
"""The state of an include whose path has ended: everything below is kept."""


def mask_problems(paths: Sequence[object], field: str) -> list[Problem]:
    """List the problems of the paths of a mask; the field is `<field>[<index>]` for those of one."""
    if len(paths) > PATHS_MAX:
        return [problem(field, "too_many_items", maximum=PATHS_MAX)]
    problems: list[Problem] = []
    seen: set[object] = set()
    for index, path in enumerate(paths):
        place = f"{field}[{index}]"
        if not isinstance(path, str):
            problems.append(problem(place, "not_a_string"))
        elif len(path) > PATH_CHARACTERS_MAX:
            problems.append(problem(place, "too_long", maximum=PATH_CHARACTERS_MAX))
        elif _names(path) is None or not path.isprintable():
            problems.append(problem(place, "invalid_data_path", value=path))
        elif path in seen:
            problems.append(problem(place, "duplicate"))
        if isinstance(path, str):
            seen.add(path)
    return problems


def embeds_data(profile: Profile) -> bool:
    """Return whether a profile's body contains the event's data, so that they can be masked."""
    return not profile.fields or _has_data(profile.fields)


def _has_data(fields: Sequence[BodyField]) -> bool:
    return any(
        field.source is FieldSource.DATA
        or _has_data(field.fields)
        or any(_has_data(entry) for entry in field.items or ())
        for field in fields
    )


class Mask:
    """A compiled mask; equal masks are the same object if `compile_mask` made them."""

    __slots__ = ("_exclude", "_include")

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include: _Places | None = (_trie(include),) if include else _ALL
        self._exclude: _Places = (_trie(exclude),) if exclude else ()

    def apply(self, data: str) -> str:
        """Return the parts of a JSON object's text that the mask keeps."""
        written: list[str] = []
        write = written.append
        include, exclude = self._include, self._exclude
        is_object, is_first = False, True
        key: str | None = None
        outer: list[tuple[Any, ...]] = []
        skipped_depth = 0
        inner_include: _Places | None = include
        inner_exclude: _Places | None = exclude
        for match in _TOKEN.finditer(data):
            token = match[0]
            begin = token in ("{", "[")
            if skipped_depth:
                skipped_depth += 1 if begin else -1 if token in ("}", "]") else 0
                continue
            if token in ("}", "]"):
                write(token)
                include, exclude, is_object, is_first = outer.pop()
                continue
            if is_object and key is None:
                key = token
                name = orjson.loads(token) if "\\" in token and _is_plain(token) else token[1:-1]
                inner_include = _ALL if include is _ALL else _included(include, name)
                inner_exclude = _excluded(exclude, name) if exclude else exclude
                continue
            if not is_object:
                inner_include, inner_exclude = include, exclude
            is_kept = inner_exclude is not None and (
                inner_include is _ALL or (begin and bool(inner_include))
            )
            if not is_kept:
                skipped_depth = 1 if begin else 0
                key = None
                continue
            if not is_first:
                write(",")
            is_first = False
            if key is not None:
                write(f"{key}:")
                key = None
            write(token)
            if begin:
                outer.append((include, exclude, is_object, is_first))
                include, exclude = inner_include, inner_exclude or ()
                is_object, is_first = token == "{", True  # noqa: S105 -- a bracket
        return "".join(written)


@lru_cache(maxsize=1024)
def compile_mask(include: tuple[str, ...], exclude: tuple[str, ...]) -> Mask | None:
    """Return the mask of these paths; None: everything is kept. Equal paths give the same mask."""
    return Mask(include, exclude) if include or exclude else None


def _is_plain(token: str) -> bool:
    """Return whether a string has no half of a surrogate pair, which orjson refuses."""
    try:
        orjson.loads(token)
    except orjson.JSONDecodeError:
        return False
    return True


def _names(path: str) -> list[str] | None:
    names: list[str] = []
    place = 0
    while place < len(path) or not names:
        match = _PART.match(path, place)
        if match is None:
            return None
        names.append(match[1])
        place = match.end()
        if place == len(path) and path.endswith(".") and not path.endswith("\\."):
            return None
    return [re.sub(r"\\(.)", r"\1", name) if name != _ANY else name for name in names]


def _trie(paths: Sequence[str]) -> _Trie:
    root: _Trie = {}
    for path in paths:
        node = root
        for name in _names(path) or ():
            node = node.setdefault(name, {})
        node[_END] = {}
    return root


def _included(nodes: _Places, name: str) -> _Places | None:
    """Return the places that the paths of an include have reached below a name; `_ALL`: one has ended."""
    found = _below(nodes, name)
    return _ALL if any(_END in node for node in found) else found


def _excluded(nodes: _Places, name: str) -> _Places | None:
    """Return the places that the paths of an exclude have reached below a name; None: one has ended."""
    found = _below(nodes, name)
    return None if any(_END in node for node in found) else found


def _below(nodes: _Places, name: str) -> _Places:
    return tuple(
        node[step]
        for node in nodes
        for step in ((name, _ANY) if name != _ANY else (_ANY,))
        if step and step in node
    )
