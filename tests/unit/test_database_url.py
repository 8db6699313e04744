"""Database URLs: libpq's grammar, what is honoured, what is reported."""

from pathlib import Path

import pytest

from dispatcher.config.database_url import (
    DatabaseHost,
    DatabaseUrl,
    UrlSource,
    database_addresses,
    parse_database_url,
)
from dispatcher.core.errors import ConfigurationError

CANARY = "cAnArY"


def parse(text: str, **environ: str) -> DatabaseUrl:
    return parse_database_url(text, environ)


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_database_url(text, environ)
    return caught.value.problems


def test_url_of_one_host_has_libpq_defaults():
    url = parse("postgresql://u:p@db/wms")
    assert url.hosts == (DatabaseHost("db", 5432),)
    assert (url.user, url.password, url.database) == ("u", "p", "wms")
    assert (url.target, url.connect_seconds, url.tls.mode) == ("any", None, "prefer")
    assert url.tcp.keepalive
    assert url.application_name == "dispatcher"


def test_url_of_two_hosts_asks_for_the_writable_one():
    url = parse("postgresql://u@a:1,[2001:db8::1]:2,c/wms")
    assert url.hosts == (
        DatabaseHost("a", 1),
        DatabaseHost("2001:db8::1", 2),
        DatabaseHost("c", 5432),
    )
    assert url.target == "read-write"
    assert parse("postgresql://a,b/d?target_session_attrs=any").target == "any"


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgresql://u:a?b#c@h/d", "a?b#c"),
        ("postgresql://u:a+b@h/d", "a+b"),
        ("postgresql://u:%40%2F%3a@h/d", "@/:"),
        ("postgresql://u@h/d?password=a+b%26", "a+b&"),
        ("postgresql://u:%E0%B8%81@h/d", "ก"),
        ("postgresql://u:a:b@h/d", "a:b"),
    ],
)
def test_password_is_read_as_libpq_reads_it(text: str, password: str):
    url = parse(text)
    assert (url.user, url.password, url.hosts[0].host) == ("u", password, "h")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql:///d?host=/run/postgresql", [("/run/postgresql", 5432, "")]),
        ("postgresql://%2Frun%2Fpg:6000/d", [("/run/pg", 6000, "")]),
        ("postgresql:///d?host=a,b&port=1,2", [("a", 1, ""), ("b", 2, "")]),
        ("postgresql:///d?host=a,b&port=7", [("a", 7, ""), ("b", 7, "")]),
        ("postgresql://a/d?hostaddr=10.0.0.1", [("a", 5432, "10.0.0.1")]),
        ("postgresql:///d?hostaddr=10.0.0.1,::1", [("", 5432, "10.0.0.1"), ("", 5432, "::1")]),
        ("postgresql://a:1/d?host=b", [("b", 1, "")]),
        ("postgresql://", [("", 5432, "")]),
    ],
)
def test_hosts_are_read_as_libpq_reads_them(text: str, hosts: list[tuple[str, int, str]]):
    assert [tuple(host) for host in parse(text).hosts] == hosts


def test_addresses_name_every_host_and_hostaddr():
    text = "postgresql://a:1,/d?hostaddr=10.0.0.1,10.0.0.2&port=1,2"
    assert database_addresses(text, {}) == [("a", 1), ("10.0.0.1", 1), ("10.0.0.2", 2)]
    assert database_addresses("postgresql:///d?host=a,b&port=1,2", {}) == [("a", 1), ("b", 2)]
    assert database_addresses("postgresql:///d?host=/run", {}) == []
    assert database_addresses("postgresql:///d", {"PGHOST": "h", "PGPORT": "9"}) == [("h", 9)]


def test_parameters_of_managed_databases_are_honoured():
    url = parse(
        "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=system&channel_binding=prefer"
        "&connect_timeout=10&keepalives=1&keepalives_idle=30&keepalives_interval=5"
        "&keepalives_count=3&tcp_user_timeout=9000&gssencmode=disable&application_name=x"
        "&options=-c%20geqo%3Doff&target_session_attrs=primary&passfile=/p&sslnegotiation=direct"
        "&load_balance_hosts=random&client_encoding=UTF8&ssl_max_protocol_version=TLSv1.3"
    )
    assert (url.tls.mode, url.tls.roots, url.tls.is_direct) == ("verify-full", "system", True)
    assert (url.connect_seconds, url.application_name, url.passfile) == (10, "x", "/p")
    assert url.options == "-c geqo=off"
    assert (url.tcp.idle_seconds, url.tcp.interval_seconds, url.tcp.probes_max) == (30, 5, 3)
    assert url.tcp.user_timeout_milliseconds == 9000
    assert (url.target, url.shuffles) == ("primary", True)


def test_system_roots_alone_verify_the_host():
    assert parse("postgresql://h/d?sslrootcert=system").tls.mode == "verify-full"
    assert parse("postgresql://h/d?ssl=true").tls.mode == "require"
    weak = parse("postgresql://h/d?sslmode=prefer&sslrootcert=system")
    assert weak.warnings == (
        "sslrootcert=system has no effect with sslmode=prefer. Use sslmode=verify-full.",
    )


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("gssencmode=require", "gssencmode: require cannot be honoured"),
        ("channel_binding=require", "channel_binding: require cannot be honoured"),
        ("target_session_attrs=standby", "target_session_attrs: standby cannot be honoured"),
        ("target_session_attrs=x", 'target_session_attrs: "x" is not supported'),
        ("sslmode=on", 'sslmode: "on" is not supported'),
        ("sslmode=require&sslrootcert=system", "sslmode: require is too weak"),
        ("sslnegotiation=direct", "sslnegotiation: direct needs encryption"),
        ("connect_timeout=0", 'connect_timeout: "0" is not supported'),
        ("connect_timeout=300", 'connect_timeout: "300" is not supported'),
        ("service=prod", "service: connection service files are not read"),
        ("require_auth=scram-sha-256", "require_auth: the driver cannot"),
        ("search_path=x", "search_path: unknown parameter"),
        ("pgbouncer=true", "pgbouncer: it is not a parameter of libpq"),
        ("client_encoding=LATIN1", 'client_encoding: "LATIN1" is not supported'),
        ("replication=database", 'replication: "database" is not supported'),
        ("hostaddr=db", 'hostaddr: "db" is not an IP address'),
        ("port=1,2", "port: 2 ports for 1 hosts"),
        ("port=99999", 'port: "99999" is not a port'),
        ("sslkey=engine:x", "sslkey: keys in an OpenSSL engine"),
        ("sslcertmode=require", "sslcertmode: require cannot be honoured"),
        ("ssl_min_protocol_version=SSLv3", 'ssl_min_protocol_version: "SSLv3"'),
        ("dbname", "The query of the URL is malformed"),
        ("dbname=%zz", "dbname: invalid percent encoding"),
    ],
)
def test_parameter_that_cannot_be_honoured_is_named(query: str, named: str):
    [problem] = problems(f"postgresql://u:{CANARY}@h/d?{query}")
    assert problem.startswith(named)
    assert CANARY not in problem


def test_every_problem_of_a_url_is_reported_together():
    assert len(problems("postgresql://h/d?gssencmode=require&x=1&connect_timeout=x")) == 3


def test_variables_of_libpq_fill_in_what_the_url_omits():
    url = parse(
        "postgresql://h/d?sslmode=disable",
        PGSSLMODE="require", PGUSER="u", PGCONNECT_TIMEOUT="7", PGHOST="elsewhere",
    )  # fmt: skip
    assert (url.tls.mode, url.user, url.connect_seconds) == ("disable", "u", 7)
    assert url.hosts == (DatabaseHost("h", 5432),)
    [problem] = problems("postgresql://h/d", PGCHANNELBINDING="require")
    assert problem.startswith("PGCHANNELBINDING: require cannot be honoured")


def test_repr_shows_no_credentials():
    text = f"postgresql://u:{CANARY}@h/d?sslpassword={CANARY}"
    assert CANARY not in repr(parse(text))


def test_source_reads_the_file_again_for_each_connection(tmp_path: Path):
    path = tmp_path / "url"
    path.write_text("postgresql://u:one@h/d\n")
    source = UrlSource("postgresql://u:one@h/d", path)
    warned: list[str] = []
    assert [source.read(warned.append).password] == ["one"]
    path.write_text("postgresql://v:two@h/d\n")
    assert (source.read(warned.append).user, source.read(warned.append).password) == ("v", "two")
    assert warned == []


def test_source_keeps_the_credentials_of_an_unusable_file(tmp_path: Path):
    path = tmp_path / "url"
    path.write_text("postgresql://u:two@h/d\n")
    source = UrlSource("postgresql://u:one@h/d", path)
    assert [source.read().password] == ["two"]
    for spoil in (lambda: path.write_text(""), lambda: path.write_bytes(b"\xff"), path.unlink):
        spoil()
        warned: list[str] = []
        assert [source.read(warned.append).password] == ["two"]
        assert "previous credentials" in warned[0]


def test_source_keeps_the_hosts_that_are_protected(tmp_path: Path):
    path = tmp_path / "url"
    path.write_text("postgresql://u:two@elsewhere/d")
    warned: list[str] = []
    url = UrlSource("postgresql://u:one@h/d", path).read(warned.append)
    assert (url.hosts[0].host, url.password) == ("h", "two")
    assert "Restart" in warned[0]
