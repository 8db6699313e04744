"""Turns a loaded profile document into a `Profile`, or reports every fault with its key path."""

import re
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Any

from dispatcher.core.errors import ConfigurationError
from dispatcher.core.profile import (
    HEADER_NAME,
    LOCAL_FORMATS,
    NO_SIGNATURE,
    RESERVED_HEADERS,
    BodyField,
    Ed25519Rules,
    FieldSource,
    FixedField,
    FixedSource,
    FixedTest,
    HeaderField,
    HeaderSource,
    JsonMode,
    KeyForm,
    LeadPart,
    Profile,
    SecretPlace,
    SecretRules,
    SignatureEncoding,
    SignatureRules,
    SignedPart,
    TextEscape,
    TextPart,
    TextRules,
    TimeFormat,
)
from dispatcher.core.profile_table import ProfileTable

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_INDEX = re.compile(r"0|[1-9][0-9]*")

_RETRIES_MAX = 100
_DELAY_SECONDS_MAX = 30 * 86_400
_TIMEOUT_SECONDS_MAX = 300
_JITTER_MAX = 10
_FIXED_DEPTH_MAX = 8
_BODY_DEPTH_MAX = 8
_TEXT_PARTS_MAX = 50
_TEXT_CHARACTERS_MAX = 40_000
_ANY = re.compile(".*", re.DOTALL)
_TEXT_SOURCES = (FieldSource.EVENT_ID, FieldSource.EVENT_TYPE, FieldSource.OCCURRED_AT)
_OPTIONAL_SOURCES = (FieldSource.CONSOLE_LINK,)
_GENERATED_SIZES = {KeyForm.TEXT: (20, 200), KeyForm.BASE64: (24, 64)}


def parse(document: Mapping[str, Any], find_zone: Callable[[str], tzinfo]) -> Profile:
    """Return the profile that `document`, a loaded TOML file, describes.

    `find_zone` gives the time zone of a name and raises KeyError or ValueError for an unknown one.

    Raises:
        ConfigurationError: with every fault, each as `key.path: what is wrong`.
    """
    problems: list[str] = []
    root = ProfileTable(document, "", problems)
    body = root.table("body")
    json_mode = body.choice("json", JsonMode)
    fields = _body_fields(body, json_mode)
    text = _text(root.table("text")) if root.has("text") else None
    headers = tuple(
        HeaderField(name=table.text("name"), source=table.choice("source", HeaderSource))
        for table in root.tables("headers", required=False)
    )
    secret = _secret(root.table("secret"))
    is_unsigned = secret.place is SecretPlace.URL and not root.has("signature")
    signature = NO_SIGNATURE if is_unsigned else _signature(root.table("signature"))
    ed25519 = _ed25519(root.table("ed25519")) if root.has("ed25519") else None
    delivery = root.table("delivery")
    test_event = root.table("test_event")
    profile = Profile(
        name=root.text("name", _NAME),
        description=root.text("description"),
        json=json_mode,
        fields=fields,
        text=text,
        zone=_zone(body, find_zone),
        signature=signature,
        ed25519=ed25519,
        secret=secret,
        headers=headers,
        retry_schedule_seconds=delivery.numbers(
            "retry_schedule_seconds", _DELAY_SECONDS_MAX, range(_RETRIES_MAX + 1)
        ),
        jitter=_jitter(delivery),
        timeout_seconds=delivery.number("timeout_seconds", _TIMEOUT_SECONDS_MAX),
        https_only=delivery.boolean("https_only"),
        gone_disables=delivery.boolean("gone_disables"),
        fixed_test=_fixed_test(test_event),
    )
    root.refuse_unknown_keys()
    _check_text(profile, problems)
    _check_headers(profile, problems)
    _check_signed_content(profile, problems)
    _check_zone(profile, problems)
    if problems:
        raise ConfigurationError(problems)
    return profile


def _body_fields(body: ProfileTable, json_mode: JsonMode) -> tuple[BodyField, ...]:
    if body.has("whole"):
        if body.text("whole") != FieldSource.DATA:
            body.fault("whole", 'can only be "data"')
        if body.has("fields"):
            body.fault("fields", "cannot be combined with `whole`")
        return ()
    fields = _members(body, "fields", json_mode, depth=1)
    sources = [field.source for field in flattened(fields)]
    if FieldSource.TEXT not in sources and sources.count(FieldSource.DATA) != 1:
        body.fault("fields", 'must have the event\'s data once, or a text. Add source = "data".')
    return fields


def _members(
    parent: ProfileTable, key: str, json_mode: JsonMode, depth: int
) -> tuple[BodyField, ...]:
    """Return the members of an object of the body."""
    if depth > _BODY_DEPTH_MAX:
        parent.fault(key, f"is nested deeper than {_BODY_DEPTH_MAX} levels. Flatten it.")
        return ()
    fields = [_member(table, json_mode, depth) for table in parent.tables(key)]
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        parent.fault(key, "a name occurs twice")
    return tuple(fields)


def _member(table: ProfileTable, json_mode: JsonMode, depth: int) -> BodyField:
    name = table.text("name", re.compile(".+", re.DOTALL))
    if json_mode is JsonMode.JAVASCRIPT and _INDEX.fullmatch(name):
        table.fault("name", f"JavaScript would move the field {name!r}")
    kinds = [key for key in ("source", "constant", "fields", "items") if table.has(key)]
    if len(kinds) != 1:
        table.fault(
            "source",
            f"the field {name!r} has {' and '.join(kinds) or 'no value'}."
            " Give it one of `source`, `constant`, `fields` and `items`.",
        )
    if kinds == ["constant"]:
        return BodyField(name=name, source=None, constant=table.constant("constant"))
    if kinds == ["fields"]:
        inner = _members(table, "fields", json_mode, depth + 1)
        return BodyField(name=name, source=None, fields=inner)
    if kinds == ["items"]:
        entries = tuple(
            _members(entry, "fields", json_mode, depth + 1) for entry in table.tables("items")
        )
        return BodyField(name=name, source=None, items=entries)
    source = table.choice("source", FieldSource) if kinds == ["source"] else FieldSource.EVENT_ID
    if source in _OPTIONAL_SOURCES:
        table.fault("source", f"{source} is a part of a message only. Move it to [text].")
    is_request_id = source is FieldSource.REQUEST_ID
    if is_request_id and depth > 1:
        table.fault(
            "source", "a request id is found in the body's outermost object. Move it there."
        )
    return BodyField(
        name=name,
        source=source,
        member=table.text("member", re.compile(".+", re.DOTALL))
        if source is FieldSource.MEMBER
        else "",
        format=table.choice("format", TimeFormat) if source is FieldSource.OCCURRED_AT else None,
        prefix=table.text("prefix") if is_request_id else "",
        test_prefix=table.text("test_prefix") if is_request_id else "",
    )


def flattened(fields: tuple[BodyField, ...]) -> list[BodyField]:
    """Return the fields of a body at every depth."""
    found: list[BodyField] = []
    waiting = list(fields)
    while waiting:
        field = waiting.pop()
        found.append(field)
        waiting += [*field.fields, *(inner for entry in field.items or () for inner in entry)]
    return found


def _text(table: ProfileTable) -> TextRules:
    parts = []
    for part in table.tables("parts"):
        if part.has("text"):
            parts.append(TextPart(text=part.text("text", _ANY)))
            continue
        key = "otherwise" if part.has("member") else "source"
        source = None
        if key == "source" or part.has(key):
            source = part.choice(key, FieldSource)
            allowed = _TEXT_SOURCES + (_OPTIONAL_SOURCES if key == "source" else ())
            if source not in allowed:
                part.fault(key, f"{source} cannot be a part. Use one of {', '.join(allowed)}.")
        parts.append(
            TextPart(
                member=part.text("member", _ANY) if key == "otherwise" else "",
                source=source,
                before=part.text("before", _ANY, ""),
                after=part.text("after", _ANY, ""),
            )
        )
    if not 1 <= len(parts) <= _TEXT_PARTS_MAX:
        table.fault("parts", f"has {len(parts)} entries. Give 1 to {_TEXT_PARTS_MAX}.")
    elif not any(part.text.strip() or part.source in _TEXT_SOURCES for part in parts):
        table.fault("parts", "may compose an empty text. Add a part with `text` or `otherwise`.")
    return TextRules(
        parts=tuple(parts),
        escape=table.choice("escape", TextEscape),
        characters_max=table.whole_number("characters_max", 100, _TEXT_CHARACTERS_MAX),
    )


def _check_text(profile: Profile, problems: list[str]) -> None:
    is_used = any(one.source is FieldSource.TEXT for one in flattened(profile.fields))
    if is_used and profile.text is None:
        problems.append("text: is missing, a field of the body needs it. Add [text] with `parts`.")
    elif profile.text is not None and not is_used:
        problems.append('text: is not used. Add a field with source = "text", or remove it.')


def _zone(body: ProfileTable, find_zone: Callable[[str], tzinfo]) -> tzinfo | None:
    if not body.has("zone"):
        return None
    name = body.text("zone")
    try:
        return find_zone(name)
    except (KeyError, ValueError):
        body.fault("zone", f"there is no time zone {name!r} (is its database installed?)")
        return None


def _signature(table: ProfileTable) -> SignatureRules:
    lead = []
    for part in table.tables("lead", required=False):
        if part.has("source"):
            lead.append(LeadPart(source=part.choice("source", HeaderSource)))
        else:
            lead.append(LeadPart(text=part.text("text")))
    encoding = table.choice("encoding", SignatureEncoding)
    if encoding is SignatureEncoding.SECRET:
        if table.has("content"):
            table.fault("content", 'nothing is signed with encoding = "secret". Remove it.')
        return SignatureRules(
            header=table.text("header"),
            content=NO_SIGNATURE.content,
            encoding=encoding,
            lead=(),
            prefix=table.text("prefix"),
            separator=None,
        )
    content = table.choices("content", SignedPart)
    if SignedPart.BODY not in content or len(set(content)) < len(content):
        table.fault("content", "must hold the body, and nothing twice")
    return SignatureRules(
        header=table.text("header"),
        content=content,
        encoding=encoding,
        lead=tuple(lead),
        prefix=table.text("prefix"),
        separator=table.text("separator") if table.has("separator") else None,
    )


def _ed25519(table: ProfileTable) -> Ed25519Rules:
    return Ed25519Rules(
        secret_prefix=table.text("secret_prefix"),
        public_key_prefix=table.text("public_key_prefix"),
        signature_prefix=table.text("signature_prefix"),
    )


def _secret(table: ProfileTable) -> SecretRules:
    key = table.choice("key", KeyForm)
    return SecretRules(
        key=key,
        prefix=table.text("prefix"),
        generated_size=table.whole_number("generated_size", *_GENERATED_SIZES[key]),
        nullable=table.boolean("nullable"),
        place=table.choice("place", SecretPlace) if table.has("place") else SecretPlace.KEY,
    )


def _jitter(delivery: ProfileTable) -> tuple[float, float] | None:
    if not delivery.has("jitter"):
        return None
    bounds = delivery.numbers("jitter", _JITTER_MAX, range(2, 3))
    low, high = bounds if len(bounds) == 2 else (1.0, 1.0)  # noqa: PLR2004 -- low and high
    if low > high:
        delivery.fault("jitter", "the lower bound comes first")
    return low, high


def _fixed_test(table: ProfileTable) -> FixedTest | None:
    kind = table.text("kind")
    if kind == "catalogue":
        return None
    if kind != "fixed":
        table.fault("kind", 'must be "catalogue" or "fixed"')
        return None
    return FixedTest(
        event_type=table.text("event_type", _EVENT_TYPE), fields=_fixed_fields(table, depth=1)
    )


def _fixed_fields(table: ProfileTable, depth: int) -> tuple[FixedField, ...]:
    if depth > _FIXED_DEPTH_MAX:
        table.fault("fields", f"nested deeper than {_FIXED_DEPTH_MAX}")
        return ()
    fields = []
    for entry in table.tables("fields"):
        name = entry.text("name", re.compile(".+", re.DOTALL))
        if [entry.has(key) for key in ("text", "source", "fields")].count(True) != 1:
            entry.fault("name", f"{name!r} needs one of `text`, `source` and `fields`")
        source = entry.choice("source", FixedSource) if entry.has("source") else None
        is_time = source is FixedSource.OCCURRED_AT
        fields.append(
            FixedField(
                name=name,
                text=entry.text("text", re.compile(".*", re.DOTALL)) if entry.has("text") else None,
                source=source,
                format=entry.choice("format", TimeFormat) if is_time else None,
                fields=_fixed_fields(entry, depth + 1) if entry.has("fields") else (),
            )
        )
    return tuple(fields)


def _check_headers(profile: Profile, problems: list[str]) -> None:
    seen: set[str] = set()
    named = [(f"headers[{index}].name", field.name) for index, field in enumerate(profile.headers)]
    if profile.signature is not NO_SIGNATURE:
        named.append(("signature.header", profile.signature.header))
    for path, name in named:
        if HEADER_NAME.fullmatch(name) is None:
            problems.append(f"{path}: {name!r} is no header name")
        if name.lower() in RESERVED_HEADERS:
            problems.append(f"{path}: {name} is set by the dispatcher itself")
        if name.lower() in seen:
            problems.append(f"{path}: {name} occurs twice")
        seen.add(name.lower())


def _check_signed_content(profile: Profile, problems: list[str]) -> None:
    """A receiver can only verify what it is sent."""
    sent: set[str | None] = {field.source.value for field in profile.headers}
    sent |= {part.source.value for part in profile.signature.lead if part.source is not None}
    sent |= {field.source for field in profile.fields}
    problems.extend(
        f"signature.content: {part} is signed but not sent"
        for part in profile.signature.content
        if part is not SignedPart.BODY and part.value not in sent
    )


def _check_zone(profile: Profile, problems: list[str]) -> None:
    formats = {field.format for field in flattened(profile.fields)}
    waiting = list(profile.fixed_test.fields) if profile.fixed_test is not None else []
    while waiting:
        field = waiting.pop()
        formats.add(field.format)
        waiting.extend(field.fields)
    if profile.zone is None and formats & LOCAL_FORMATS:
        problems.append("body.zone: is missing, a local time needs it")
