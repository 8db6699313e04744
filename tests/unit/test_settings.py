"""Settings: precedence, every fault at once, one meaning for each 0 and empty, file = type."""

import base64
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config.settings import SECTION_TYPES, SPECIALS, Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.errors import ConfigurationError

KEY = base64.b64encode(bytes(range(32))).decode()
CANARY = "geheim-canary"
SHIPPED = (shipped_config_directory() / "dispatcher.toml").read_text(encoding="utf-8")
DEFAULTS = Settings()
NUMBERS = [
    (section, key)
    for section, kind in SECTION_TYPES.items()
    for key, field in kind.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]
EMPTIABLE = [
    (section, key)
    for section, kind in SECTION_TYPES.items()
    for key, field in kind.model_fields.items()
    if isinstance(field.default, str | tuple)
]


def load(
    environ: dict[str, str] | None = None, *, here: Path = Path("/nonexistent"), **more: Any
) -> Settings:
    return load_settings(None, environ or {}, working_directory=here, **more)


def problems(environ: dict[str, str], **more: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environ, **more)
    return caught.value.problems


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@cache
def documented() -> dict[tuple[str, str], tuple[str, Any]]:
    """Returns each key of the shipped file with the comment above it and the value it shows."""
    found: dict[tuple[str, str], tuple[str, Any]] = {}
    section, comment = "", ""
    for line in SHIPPED.splitlines():
        if match := re.fullmatch(r"\[([a-z]+)\]", line):
            section, comment = match[1], ""
        elif match := re.fullmatch(r"#([a-z_]+) = .*", line):
            [(key, value)] = tomllib.loads(line[1:]).items()
            assert (section, key) not in found, f"{section}.{key} is there twice"
            found[section, key] = (comment, value)
            comment = ""
        elif line == "#" or line.startswith(("# ", "#   ")):
            comment += line[1:]
        elif not line:
            comment = ""
        else:
            pytest.fail(f"neither comment nor key: {line}")
    return found


def test_file_and_type_have_the_same_keys():
    typed = {(section, key) for section, kind in SECTION_TYPES.items() for key in kind.model_fields}
    assert set(documented()) == typed


@pytest.mark.parametrize(("section", "key"), sorted(documented()))
def test_each_key_shows_its_default_and_says_why(section: str, key: str):
    comment, value = documented()[section, key]
    default = getattr(getattr(DEFAULTS, section), key)
    assert (list(default) if isinstance(default, tuple) else default) == value
    assert type(value) is (list if isinstance(default, tuple) else type(default))
    assert len(comment) > 20


@pytest.mark.parametrize(("section", "key"), NUMBERS)
def test_each_number_tells_its_unit_or_range(section: str, key: str):
    comment = documented()[section, key][0]
    assert "Unit: " in comment or re.search(r"\d", comment)


def test_the_file_with_every_key_taken_as_it_stands_is_the_defaults(tmp_path: Path):
    path = write(tmp_path / "dispatcher.toml", re.sub(r"(?m)^#([a-z_]+ = )", r"\1", SHIPPED))
    settings = load_settings(path, {})
    for section in SECTION_TYPES:
        assert getattr(settings, section) == getattr(DEFAULTS, section)


@pytest.mark.parametrize(("section", "key"), NUMBERS)
@pytest.mark.parametrize("number", [0, -1, -(10**30)])
@pytest.mark.shows("L4")
def test_zero_and_less_are_refused_unless_documented(section: str, key: str, number: int):
    name = f"DISPATCHER_{section}__{key}".upper()
    comment = documented()[section, key][0]
    if number == 0 and re.search(r"\b0(:| cancels)", comment):
        assert getattr(getattr(load({name: "0"}), section), key) == 0
    else:
        assert any(p.startswith(f"{section}.{key}: ") for p in problems({name: str(number)}))


@pytest.mark.parametrize(("section", "key"), EMPTIABLE)
def test_empty_is_refused_unless_documented(section: str, key: str):
    name = f"DISPATCHER_{section}__{key}".upper()
    default = getattr(getattr(DEFAULTS, section), key)
    text, empty = ("", "") if isinstance(default, str) else ("[]", ())
    if "mpty: " in documented()[section, key][0]:
        assert getattr(getattr(load({name: text}), section), key) == empty
    else:
        assert any(p.startswith(f"{section}.{key}: ") for p in problems({name: text}))


@given(
    text=st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", "nan", "", "null", "{}", "[1]"])
)
@pytest.mark.parametrize(("section", "key"), NUMBERS)
def test_what_is_no_number_is_refused(section: str, key: str, text: str):
    name = f"DISPATCHER_{section}__{key}".upper()
    assert any(p.startswith(f"{section}.{key}: ") for p in problems({name: text}))


def test_precedence_is_default_file_environment_flag(tmp_path: Path):
    path = write(
        tmp_path / "d.toml", "[http]\nport = 1\nhost = '10.0.0.1'\n[log]\nlevel = 'error'\n"
    )
    environ = {"DISPATCHER_HTTP__PORT": "2", "DISPATCHER_HTTP__HOST": "10.0.0.2"}
    settings = load_settings(path, environ, flags={"http.port": 3})
    assert (settings.http.port, settings.http.host, settings.log.level) == (3, "10.0.0.2", "error")
    assert settings.source_of("http.port") == "--http-port"
    assert settings.source_of("http.host") == "DISPATCHER_HTTP__HOST"
    assert settings.source_of("log.level") == str(path)
    assert settings.source_of("log.format") == "default"


def test_the_file_is_looked_for_in_order(tmp_path: Path):
    beside = write(tmp_path / "config" / "dispatcher.toml", "[http]\nport = 1\n")
    named = write(tmp_path / "named.toml", "[http]\nport = 2\n")
    given_path = write(tmp_path / "given.toml", "[http]\nport = 3\n")
    environ = {"DISPATCHER_CONFIG": str(named)}
    assert load(here=tmp_path).config_path == beside
    assert load(environ, here=tmp_path).http.port == 2
    assert load_settings(given_path, environ, working_directory=tmp_path).http.port == 3
    assert load().http.port == 8080


@pytest.mark.parametrize("source", ["--config", "DISPATCHER_CONFIG"])
def test_a_named_file_that_is_absent_is_an_error(tmp_path: Path, source: str):
    missing = tmp_path / "no.toml"
    given_path = missing if source == "--config" else None
    with pytest.raises(ConfigurationError, match=f"{source}: .*no.toml is not a file"):
        load_settings(given_path, {"DISPATCHER_CONFIG": str(missing)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[a\n", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (b"#" * 2**21, "1 MiB")],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "d.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason):
        load_settings(path, {})


def test_every_fault_is_told_at_once_with_its_key_path(tmp_path: Path):
    path = write(
        tmp_path / "d.toml",
        """
        stray = 1
        [egress]
        allow_ports = [80, 443, "70000-1"]
        allow_networks = ["10.0.0.1/8"]
        dns_servers = ["ns.example.com", "10.0.0.2:53", "[fd00::2]:5353", "10.0.0.2:0"]
        allow_everything = true
        [replica]
        lease_seconds = 4
        [http]
        port = "8080"
        [colours]
        """,
    )
    environ = {
        "DISPATCHER_LOG__LEVEL": "verbose",
        "DISPATCHER_INTAKE__NOTIFY": "yes",
        "DISPATCHER_INTAKE__SPEED": "1",
        "DISPATCHER_Http__port": "1",
        "DISPATCHER_DATABASE_URL": f"mysql://{CANARY}",
        "DISPATCHER_ADMIN_TOKEN": CANARY,
        "DISPATCHER_SECRET_KEYS": f"k1:{CANARY}",
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ)
    starts = {problem.split(": ")[0] for problem in caught.value.problems}
    assert starts == {
        "stray",
        "egress.allow_ports[2]",
        "egress.allow_networks[0]",
        "egress.dns_servers[0]",
        "egress.dns_servers[3]",
        "egress.allow_everything",
        "replica",
        "http.port",
        "colours",
        "log.level",
        "intake.notify",
        "intake.speed",
        "DISPATCHER_Http__port",
        "DISPATCHER_DATABASE_URL",
        "DISPATCHER_ADMIN_TOKEN",
        "DISPATCHER_SECRET_KEYS",
    }
    assert CANARY not in str(caught.value)


def test_an_unknown_plain_variable_is_only_warned_of():
    settings = load({"DISPATCHER_COLOUR": "1", "DISPATCHER_HOME": "/x", "DISPATCHER_PG_BIN": "/y"})
    assert settings.warnings == ("DISPATCHER_COLOUR: unknown variable, ignored",)


@given(ports=st.lists(st.integers(1, 65_535), min_size=1, max_size=5))
def test_lists_are_given_as_json(ports: list[int]):
    settings = load({"DISPATCHER_EGRESS__ALLOW_PORTS": orjson.dumps(ports).decode()})
    assert settings.egress.allow_ports == tuple(ports)


def test_text_that_looks_like_json_stays_text():
    assert load({"DISPATCHER_REPLICA__NAME": "007"}).replica.name == "007"


def test_specials_are_read_and_never_shown(tmp_path: Path):
    url, token = f"postgresql://u:{CANARY}@h:5432/d", CANARY * 3
    token_file = write(tmp_path / "token", f"{token}\n")
    settings = load(
        {
            "DISPATCHER_DATABASE_URL": url,
            "DISPATCHER_LISTEN_DATABASE_URL": "postgresql:///d?host=/run/postgresql",
            "DISPATCHER_ADMIN_TOKEN_FILE": str(token_file),
            "DISPATCHER_SECRET_KEYS": f"new:{KEY},old:{KEY}",
        }
    )
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == token
    assert [key.id for key in settings.secret_keys] == ["new", "old"]
    assert settings.secret_keys[0].key.get_secret_value() == bytes(range(32))
    assert settings.source_of("DISPATCHER_ADMIN_TOKEN") == "DISPATCHER_ADMIN_TOKEN_FILE"
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert CANARY not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    "text",
    [
        "k1", f"K1:{KEY}", f":{KEY}", "k1:", f"k1:{KEY}AA==", f"k1:{KEY},k1:{KEY}", f"k1:{KEY},",
        f"{'k' * 17}:{KEY}", f"k1:{KEY[:-2]}*=", "k1:ไทย",
    ],
)  # fmt: skip
def test_malformed_secret_keys_are_refused_without_being_shown(text: str):
    [problem] = problems({"DISPATCHER_SECRET_KEYS": text})
    assert problem.startswith("DISPATCHER_SECRET_KEYS: entry ")
    assert KEY not in problem


@pytest.mark.parametrize("url", ["https://hooks.example.com", "http://[fd00::2]:8080"])
def test_public_url_of_scheme_and_host_is_accepted(url: str):
    assert load({"DISPATCHER_HTTP__PUBLIC_URL": url}).http.public_url == url


@pytest.mark.parametrize(
    "url",
    ["hooks.example.com", "https://h/", "https://h/x", "https://u:p@h", "ftp://h", "https://h?q", "https://h h"],
)  # fmt: skip
def test_public_url_with_more_is_refused_with_an_example(url: str):
    [problem] = problems({"DISPATCHER_HTTP__PUBLIC_URL": url})
    assert problem.startswith("http.public_url: ")
    assert "https://webhooks.example.com" in problem


@pytest.mark.parametrize("variable", SPECIALS)
def test_variable_and_file_exclude_each_other(variable: str):
    [problem] = problems({variable: "x", f"{variable}_FILE": "/x"})
    assert problem == f"{variable}: set it or {variable}_FILE, not both"


@pytest.mark.parametrize("variable", SPECIALS)
def test_a_secret_file_that_is_absent_or_empty_is_an_error(variable: str, tmp_path: Path):
    empty = write(tmp_path / "empty", "\n")
    assert "cannot be read" in problems({f"{variable}_FILE": str(tmp_path / "no")})[0]
    assert f"{variable}_FILE: {empty} is empty" in problems({f"{variable}_FILE": str(empty)})


@pytest.mark.parametrize("variable", SPECIALS)
def test_an_empty_special_is_the_same_as_an_unset_one(variable: str):
    assert load({variable: "", f"{variable}_FILE": ""}) == load()


@pytest.mark.parametrize(
    "url",
    ["localhost/db", "http://h/d", "postgresql://h:x/d", "postgresql://h:0/d", "postgresql://h /d"],
)
def test_a_malformed_database_url_is_an_error(url: str):
    assert problems({"DISPATCHER_DATABASE_URL": url})[0].startswith("DISPATCHER_DATABASE_URL: ")


@pytest.mark.parametrize(
    ("environ", "section"),
    [
        ({"DISPATCHER_DELIVERY__CONCURRENCY_TOTAL": "10"}, "delivery"),
        ({"DISPATCHER_REPLICA__RENEW_SECONDS": "4"}, "replica"),
    ],
)
def test_settings_that_contradict_each_other_are_an_error(environ: dict[str, str], section: str):
    [problem] = problems(environ)
    assert problem.startswith(f"{section}: ")


def test_folders_beside_the_file_come_after_the_shipped_ones(tmp_path: Path):
    path = write(tmp_path / "d.toml", "")
    assert load_settings(path, {}).directories_for("profiles") == [
        shipped_config_directory() / "profiles"
    ]
    (tmp_path / "profiles").mkdir()
    assert load_settings(path, {}).directories_for("profiles") == [
        shipped_config_directory() / "profiles",
        tmp_path / "profiles",
    ]


def test_the_shipped_folder_is_not_taken_twice():
    settings = load_settings(shipped_config_directory() / "dispatcher.toml", {})
    assert len(settings.directories_for("profiles")) == 1


def test_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        DEFAULTS.http.port = 1
    with pytest.raises(ValueError, match="frozen"):
        DEFAULTS.http = DEFAULTS.http
