"""The parameters of a database URL: which are honoured, with which values, and why the others are refused.

They are libpq's, by its names, with the environment variables that stand for them.
"""

import re
from collections.abc import Mapping
from typing import Final

CONNECT_SECONDS_MAX: Final = 30
"""A longer `connect_timeout` would hold back a shutdown, and intake, for as long."""

VARIABLES: Final[Mapping[str, str]] = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGREQUIREAUTH": "require_auth",
    "PGCHANNELBINDING": "channel_binding",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLSNI": "sslsni",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGGSSENCMODE": "gssencmode",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGCLIENTENCODING": "client_encoding",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
}
"""The environment variables of libpq that stand for a parameter; the URL takes precedence."""
_CHOICES: Final[Mapping[str, Mapping[str, str | None]]] = {
    # Each accepted value, with the reason for which it cannot be honoured, or None.
    "sslmode": dict.fromkeys(
        ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"), None
    ),
    "sslnegotiation": {"postgres": None, "direct": None},
    "sslcertmode": {
        "disable": None,
        "allow": None,
        "require": "the driver cannot check that the server requests a certificate",
    },
    "sslcompression": {"0": None, "1": "TLS compression is unsafe and disabled"},
    "sslsni": {"1": None, "0": "the server name is always sent"},
    "gssencmode": {
        "disable": None,
        "prefer": None,
        "require": "GSSAPI encryption is not supported",
    },
    "gssdelegation": {"0": None, "1": "GSSAPI is not supported"},
    "channel_binding": {
        "disable": None,
        "prefer": None,
        "require": "the driver has no channel binding. Use sslmode=verify-full to authenticate the server",
    },
    "target_session_attrs": {
        "any": None,
        "read-write": None,
        "primary": None,
        "read-only": "the dispatcher writes",
        "standby": "the dispatcher writes",
        "prefer-standby": "the dispatcher writes",
    },
    "load_balance_hosts": {"disable": None, "random": None},
    "keepalives": {"0": None, "1": None},
    "client_encoding": {"auto": None, "utf8": None, "utf-8": None, "unicode": None},
    "replication": {"false": None, "off": None, "no": None, "0": None},
}
_WHOLE_NUMBERS: Final[Mapping[str, tuple[int, int, str]]] = {
    "connect_timeout": (1, CONNECT_SECONDS_MAX, "seconds"),
    "keepalives_idle": (0, 32_767, "seconds"),
    "keepalives_interval": (0, 32_767, "seconds"),
    "keepalives_count": (0, 127, "probes"),
    "tcp_user_timeout": (0, 2**31 - 1, "milliseconds"),
}
_TEXTS: Final = frozenset(
    {
        "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options",
        "application_name", "fallback_application_name", "sslcert", "sslkey", "sslpassword",
        "sslrootcert", "sslcrl", "sslcrldir",
    }
)  # fmt: skip
VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_REFUSED: Final[Mapping[str, str]] = {
    "service": "connection service files are not read. Write the parameters into the URL",
    "servicefile": "connection service files are not read. Write the parameters into the URL",
    "require_auth": "the driver cannot restrict the authentication method. Restrict it in pg_hba.conf",
    "krbsrvname": "GSSAPI is not supported. Use a password or a client certificate",
    "gsslib": "GSSAPI is not supported. Use a password or a client certificate",
    "requirepeer": "the driver cannot check the owner of the server. Restrict the socket directory",
    "sslkeylogfile": "TLS keys are never written to a file. Remove it",
    "scram_client_key": "the driver needs the password. Use password or passfile",
    "scram_server_key": "the driver needs the password. Use password or passfile",
    "oauth_issuer": "OAuth is not supported. Use a password or a client certificate",
    "oauth_client_id": "OAuth is not supported. Use a password or a client certificate",
    "oauth_client_secret": "OAuth is not supported. Use a password or a client certificate",
    "oauth_scope": "OAuth is not supported. Use a password or a client certificate",
    "min_protocol_version": "the driver uses protocol 3.0. Remove it",
    "max_protocol_version": "the driver uses protocol 3.0. Remove it",
    "pgbouncer": "it is not a parameter of libpq. Set database.pooler = true instead",
}
"""Parameters that libpq or other clients know and that cannot be honoured, with reason and fix."""
_KNOWN: Final = frozenset(
    {*_TEXTS, *_CHOICES, *_WHOLE_NUMBERS, "ssl_min_protocol_version", "ssl_max_protocol_version"}
)


def variable_of(key: str) -> str:
    """Return the environment variable of a parameter."""
    return next((variable for variable, name in VARIABLES.items() if name == key), key)


def value_problem(key: str, value: str) -> str | None:
    """Return why a parameter or its value cannot be honoured; None if it can."""
    if key in _REFUSED:
        return _REFUSED[key]
    if key not in _KNOWN:
        return "unknown parameter of a database URL. Remove it; settings of the session go into options=-c%20name=value"
    if not value:
        return None  # libpq reads an empty value as the default
    if key in _CHOICES:
        choices = _CHOICES[key]
        folded = value.lower() if key in {"client_encoding", "replication"} else value
        if folded not in choices:
            usable = ", ".join(name for name, reason in choices.items() if reason is None)
            return f"{quoted(value)} is not supported. Use one of: {usable}"
        reason = choices[folded]
        return None if reason is None else f"{value} cannot be honoured: {reason}"
    if key in _WHOLE_NUMBERS:
        low, high, unit = _WHOLE_NUMBERS[key]
        if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
            return f"{quoted(value)} is not supported. Use a whole number of {unit} from {low} to {high}"
    if key in {"ssl_min_protocol_version", "ssl_max_protocol_version"} and value not in VERSIONS:
        return f"{quoted(value)} is not supported. Use one of: {', '.join(VERSIONS)}"
    if key == "sslkey" and value.startswith("engine:"):
        return "keys in an OpenSSL engine are not supported. Use a file"
    return None


def quoted(value: str) -> str:
    """Return a value in quotation marks, shortened."""
    return f'"{value[:40]}{"..." if len(value) > 40 else ""}"'  # noqa: PLR2004 -- enough to recognise it
