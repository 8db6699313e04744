"""Settings from the shipped defaults, a file, the environment and flags, in rising order.

The file is the one given, else `DISPATCHER_CONFIG`, else `./config/dispatcher.toml`, else
`/etc/dispatcher/dispatcher.toml`, else none. Any key can be set by `DISPATCHER_<SECTION>__<KEY>`;
what is not a text is written there as in JSON. Six values come from the environment alone and may
lie in a file named by `<VARIABLE>_FILE`: two database URLs, the admin token, the secret keys, the SMTP password
and the OpenID client's secret.

What is always true: all errors are reported together, each with its key path, where the value came from
and what would be right; a secret never appears in such a text nor in a `repr`; an unknown key, in
the file or with `__`, is a fault; a settings object never changes.
"""

import base64
import binascii
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import SecretBytes, SecretStr, ValidationError

from dispatcher.config.database_url import parse_database_url
from dispatcher.config.settings import (
    PREFIX,
    SECTION_TYPES,
    SPECIALS,
    SecretKey,
    Sections,
    Settings,
)
from dispatcher.core.errors import ConfigurationError

ADMIN_TOKEN_CHARACTERS_MIN: Final = 32
SECRET_KEY_BYTES: Final = 32
FILE_BYTES_MAX: Final = 1024 * 1024
SYSTEM_FILE: Final = Path("/etc/dispatcher/dispatcher.toml")
_OTHERS: Final = frozenset({"DISPATCHER_CONFIG", "DISPATCHER_HOME", "DISPATCHER_PG_BIN"})
_KEY_ID: Final = re.compile(r"[a-z0-9]{1,16}")
_SHOWN_CHARACTERS: Final = 60


class _Gathering:
    """The values found so far, where they came from, and every fault."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, str] = {}
        self.specials: dict[str, Any] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def put(self, section: str, key: str, value: object, source: str) -> None:
        """Set one value of any TOML type, if the key exists; the last source wins."""
        path = f"{section}.{key}"
        if section not in SECTION_TYPES:
            known = ", ".join(SECTION_TYPES)
            self.problems.append(f"{path}: no such section (from {source}); there are: {known}")
        elif key not in SECTION_TYPES[section].model_fields:
            known = ", ".join(SECTION_TYPES[section].model_fields)
            self.problems.append(f"{path}: no such key (from {source}); [{section}] has: {known}")
        else:
            self.values.setdefault(section, {})[key] = value
            self.sources[path] = source


def load_settings(
    config_path: Path | None,
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, Any] | None = None,
    working_directory: Path | None = None,
) -> Settings:
    """Return the settings in force.

    `flags` maps key paths (`http.port`) to values given on the command line. Relative paths are
    looked up from `working_directory`, the process's own if it is None.

    Raises:
        ConfigurationError: something is wrong; its problems name everything that is.
    """
    gathering = _Gathering()
    path = _choose_file(config_path, environ, working_directory or Path(), gathering)
    if path is not None:
        _read_file(path, gathering)
    _read_environment(environ, gathering)
    _read_specials(environ, gathering)
    for key_path, value in (flags or {}).items():
        section, _, key = key_path.partition(".")
        gathering.put(section, key, value, f"--{key_path.replace('.', '-').replace('_', '-')}")
    sections = _validate(gathering)
    if gathering.problems or sections is None:
        raise ConfigurationError(gathering.problems)
    return Settings(
        **{name: getattr(sections, name) for name in SECTION_TYPES},
        **gathering.specials,
        config_path=path,
        sources=gathering.sources,
        warnings=tuple(gathering.warnings),
    )


def _choose_file(
    given: Path | None, environ: Mapping[str, str], here: Path, gathering: _Gathering
) -> Path | None:
    named = environ.get("DISPATCHER_CONFIG", "")
    if given is not None or named:
        path = here / (given if given is not None else Path(named))
        source = "--config" if given is not None else "DISPATCHER_CONFIG"
        if not path.is_file():
            gathering.problems.append(f"{source}: {path} is not a file; name a TOML file")
            return None
        return path
    for path in (here / "config" / "dispatcher.toml", SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def _read_file(path: Path, gathering: _Gathering) -> None:
    text = _file_text(str(path), path, gathering)
    if text is None:
        return
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        gathering.problems.append(f"{path}: not valid TOML: {error}")
        return
    for section, table in document.items():
        if not isinstance(table, dict):
            gathering.problems.append(
                f"{section}: no such key (from {path}); keys stand in sections"
            )
            continue
        if not table and section not in SECTION_TYPES:
            gathering.problems.append(f"{section}: no such section (from {path})")
        for key, value in table.items():
            gathering.put(section, key, value, str(path))


def _file_text(name: str, path: Path, gathering: _Gathering) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) <= FILE_BYTES_MAX:
            return data.decode("utf-8-sig")
        reason = "it is larger than 1 MiB"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    gathering.problems.append(f"{name}: {path} cannot be read: {reason}")
    return None


def _read_environment(environ: Mapping[str, str], gathering: _Gathering) -> None:
    known = {*SPECIALS, *(f"{name}_FILE" for name in SPECIALS), *_OTHERS}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable in known:
            continue
        section, separator, key = variable.removeprefix(PREFIX).partition("__")
        if not separator:
            gathering.warnings.append(f"{variable}: unknown variable, ignored")
        elif not section.isupper() or key != key.upper():
            gathering.problems.append(f"{variable}: write it in capitals, as {variable.upper()}")
        else:
            value = _from_text(section.lower(), key.lower(), environ[variable])
            gathering.put(section.lower(), key.lower(), value, variable)


def _from_text(section: str, key: str, text: str) -> Any:  # noqa: ANN401 -- any JSON value
    """Reads a variable: a text as it stands, anything else as JSON, or as it stands."""
    field = SECTION_TYPES[section].model_fields.get(key) if section in SECTION_TYPES else None
    if field is None or isinstance(field.default, str):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _read_specials(environ: Mapping[str, str], gathering: _Gathering) -> None:
    for variable in SPECIALS:
        text = _special_text(variable, environ, gathering)
        if text is None:
            continue
        problem: str | None = None
        if variable.endswith("DATABASE_URL"):
            value: Any = SecretStr(text)
            _read_database_url(variable, text, environ, gathering)
        elif variable == "DISPATCHER_ADMIN_TOKEN":
            value = SecretStr(text)
            problem = _token_problem(text)
        elif variable in {"DISPATCHER_SMTP_PASSWORD", "DISPATCHER_OIDC_CLIENT_SECRET"}:
            value = SecretStr(text)
        else:
            value, problem = _secret_keys(text)
        if problem:
            gathering.problems.append(f"{variable}: {problem}")
        gathering.specials[variable.removeprefix(PREFIX).lower()] = value


def _special_text(variable: str, environ: Mapping[str, str], gathering: _Gathering) -> str | None:
    """Return the value, from the variable or its file; unset and empty are the same: None."""
    text = environ.get(variable, "")
    named = environ.get(f"{variable}_FILE", "")
    if text and named:
        gathering.problems.append(f"{variable}: set it or {variable}_FILE, not both")
        return None
    if named:
        content = _file_text(f"{variable}_FILE", Path(named), gathering)
        if content is None:
            return None
        text = content.rstrip("\r\n")
        if not text:
            gathering.problems.append(f"{variable}_FILE: {named} is empty")
            return None
    if not text:
        return None
    gathering.sources[variable] = f"{variable}_FILE" if named else variable
    return text


def _read_database_url(
    variable: str, text: str, environ: Mapping[str, str], gathering: _Gathering
) -> None:
    """Validates a database URL without repeating it: it may hold a password."""
    try:
        parsed = parse_database_url(text, environ)
    except ConfigurationError as error:
        gathering.problems += [f"{variable}: {problem}" for problem in error.problems]
        return
    gathering.warnings += [f"{variable}: {warning}" for warning in parsed.warnings]
    if environ.get(f"{variable}_FILE"):
        key = variable.removeprefix(PREFIX).lower()
        gathering.specials[f"{key}_file"] = Path(environ[f"{variable}_FILE"])


def _token_problem(text: str) -> str | None:
    if len(text) < ADMIN_TOKEN_CHARACTERS_MIN or not re.fullmatch(r"[!-~]+", text):
        return (
            f"at least {ADMIN_TOKEN_CHARACTERS_MIN} printable ASCII characters without spaces; "
            "`openssl rand -hex 32` makes one"
        )
    return None


def _secret_keys(text: str) -> tuple[tuple[SecretKey, ...], str | None]:
    """Parses `<id>:<base64 of 32 bytes>[,...]`; the problem names an entry by its number, never by its text."""
    keys: list[SecretKey] = []
    for number, entry in enumerate(text.split(","), start=1):
        key_id, separator, encoded = entry.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not separator or not _KEY_ID.fullmatch(key_id) or len(key) != SECRET_KEY_BYTES:
            return (), (
                f"entry {number}: give <id>:<base64 of 32 bytes>, id of a-z and 0-9; "
                '`echo "k1:$(openssl rand -base64 32)"` makes one'
            )
        if key_id in {known.id for known in keys}:
            return (), f"entry {number}: the id {key_id} is there twice"
        keys.append(SecretKey(key_id, SecretBytes(key)))
    return tuple(keys), None


def _validate(gathering: _Gathering) -> Sections | None:
    """Turns the values into sections; through JSON, where a list may become a tuple."""
    try:
        return Sections.model_validate_json(orjson.dumps(gathering.values, default=str))
    except (orjson.JSONEncodeError, TypeError):
        gathering.problems.append("a value is too large for a setting; numbers have 64 bits")
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False):
            gathering.problems.append(
                _describe(fault["loc"], fault["msg"], fault["input"], gathering)
            )
    return None


def _describe(
    location: tuple[int | str, ...], message: str, value: object, gathering: _Gathering
) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    path = path.removeprefix(".")
    source = gathering.sources.get(".".join(str(part) for part in location[:2]))
    text = message.removeprefix("Value error, ")
    if source is None:
        return f"{path}: {text}"
    shown = orjson.dumps(value, default=str).decode()
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "..."
    return f"{path}: {text} (found {shown}, from {source})"
