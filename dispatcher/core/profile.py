"""A profile: one vendor's wire format and delivery policy as data, in a closed vocabulary.

A profile is a TOML file; this module holds the values that `core/profile_parser.py` turns it into.
Everything that a profile can define is below. There is no template language and no code, so that a profile
can be read, compared and trusted. `config/profiles/standard.toml` explains each key.

What always holds for a `Profile` that the parser made: header names are valid and distinct, and
none of them is one that every request has; a signature covers the body, and whatever else it covers
is sent too; a local time has its zone; a body under `javascript` has no field that JavaScript would
move.
"""

import re
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2: what may be the name of a header."""

RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Lower case: headers that every request has, and those that would change how it is framed or read.

Neither a profile nor an endpoint's custom headers may set them.
"""


class JsonMode(StrEnum):
    """What is done to the producer's JSON text."""

    VERBATIM = "verbatim"
    JAVASCRIPT = "javascript"
    """Rewritten as JavaScript's `JSON.stringify(JSON.parse(text))` would."""


class FieldSource(StrEnum):
    """What a field of the body is filled from."""

    EVENT_ID = "event_id"
    REQUEST_ID = "request_id"
    """A prefix and the first 16 hex digits of the SHA-256 of the event id."""
    EVENT_TYPE = "event_type"
    OCCURRED_AT = "occurred_at"
    DATA = "data"
    TEXT = "text"
    """The message that the profile composes; see `TextRules`."""
    MEMBER = "member"
    """A member of the event's data, which must have it."""
    CONSOLE_LINK = "console_link"
    """The console's page about the problem of a notification; only a part of a message."""


class TimeFormat(StrEnum):
    """How an instant is written; fractions of the last unit are cut off, never rounded."""

    UTC_SECONDS = "utc_seconds"
    """`2026-05-29T14:32:11Z`"""
    UTC_MICROSECONDS = "utc_microseconds"
    """`2026-05-29T14:32:11.000000Z`, always six digits."""
    LOCAL_SECONDS = "local_seconds"
    """`2026-05-29 21:32:11` in the profile's zone."""
    LOCAL_SECONDS_OFFSET = "local_seconds_offset"
    """`2026-05-29T21:32:11+07:00` in the profile's zone."""


LOCAL_FORMATS = frozenset({TimeFormat.LOCAL_SECONDS, TimeFormat.LOCAL_SECONDS_OFFSET})


class SignedPart(StrEnum):
    """A part of the signed content; the parts are joined by full stops."""

    EVENT_ID = "event_id"
    DELIVERY_ID = "delivery_id"
    TIMESTAMP = "timestamp"
    BODY = "body"


class SignatureEncoding(StrEnum):
    """How the bytes of a signature are written."""

    HEX = "hex"
    BASE64 = "base64"
    SECRET = "secret"  # noqa: S105 -- a kind
    """No signature: the secret itself, as a bearer token is sent."""


class HeaderSource(StrEnum):
    """What a header, or the beginning of the signature's header, is filled from."""

    DELIVERY_ID = "delivery_id"
    EVENT_ID = "event_id"
    EVENT_TYPE = "event_type"
    TIMESTAMP = "timestamp"
    """Whole seconds since 1970 of this attempt."""


class KeyForm(StrEnum):
    """How the signing key is made from the secret's text."""

    TEXT = "text"
    """The UTF-8 bytes of the whole secret, prefix included."""
    BASE64 = "base64"
    """The decoded base64 after the prefix."""


class SecretPlace(StrEnum):
    """What the secret of an endpoint is used for."""

    KEY = "key"
    """It signs, or it is the token of the signature's header."""
    URL = "url"
    """It is the path and the query of the URL, as chat services give out webhooks."""


class TextEscape(StrEnum):
    """How values are made harmless in a message: they may come from a producer or a receiver."""

    NONE = "none"
    """The receiver shows plain text."""
    SLACK = "slack"
    """`&`, `<` and `>` become entities, so that nothing is a link or a mention."""
    MARKDOWN = "markdown"
    """A backslash precedes each character that formats, links or mentions."""


class FixedSource(StrEnum):
    """What a field of a fixed test event is filled from."""

    OCCURRED_AT = "occurred_at"
    ENDPOINT_ID = "endpoint_id"
    ENDPOINT_NAME = "endpoint_name"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyField:
    """One member of the body's object; `format` is for instants, the prefixes for request ids.

    Without a source it is the object of `fields`, the list of `items`, or else `constant`.
    """

    name: str
    source: FieldSource | None
    constant: str | int | bool = ""
    fields: tuple["BodyField", ...] = ()
    items: tuple[tuple["BodyField", ...], ...] | None = None
    member: str = ""
    format: TimeFormat | None = None
    prefix: str = ""
    test_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A piece of a message: `text`, or a value between `before` and `after` if the event has it."""

    text: str = ""
    member: str = ""
    source: FieldSource | None = None
    """The event's id, type or time, or the console's page; with a member, what is used if the data lack it."""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """How a message for people is composed: its parts follow each other, and it is cut at its length."""

    parts: tuple[TextPart, ...]
    escape: TextEscape
    characters_max: int
    """In UTF-16 units, which services count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderField:
    """One header of every request under the profile."""

    name: str
    source: HeaderSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadPart:
    """A piece of the text before the signatures: a text, or a value where `source` is set."""

    text: str = ""
    source: HeaderSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRules:
    """The signature's header: lead, then for each key its prefix and its signature.

    `separator` stands between signatures; None where the format has room for one alone.
    """

    header: str
    content: tuple[SignedPart, ...]
    encoding: SignatureEncoding
    lead: tuple[LeadPart, ...]
    prefix: str
    separator: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ed25519Rules:
    """How asymmetric keys are recognised, and the prefix of their signatures."""

    secret_prefix: str
    public_key_prefix: str
    signature_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRules:
    """What secrets look like.

    `generated_size` counts letters and digits where the key is text, random bytes where base64.
    `nullable` permits an endpoint without a secret; its requests carry no signature header.
    """

    key: KeyForm
    prefix: str
    generated_size: int
    nullable: bool
    place: SecretPlace = SecretPlace.KEY


NO_SIGNATURE = SignatureRules(
    header="",
    content=(SignedPart.BODY,),
    encoding=SignatureEncoding.HEX,
    lead=(),
    prefix="",
    separator=None,
)
"""Of a profile whose requests carry no signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedField:
    """A member of a fixed test event's data: one of `text`, `source` and `fields` is set."""

    name: str
    text: str | None = None
    source: FixedSource | None = None
    format: TimeFormat | None = None
    fields: tuple["FixedField", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTest:
    """A test event that is the same every time, whatever the endpoint subscribes to."""

    event_type: str
    fields: tuple[FixedField, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """A wire format and its policy; compared by identity, as there is one per name and load."""

    name: str
    description: str
    json: JsonMode
    fields: tuple[BodyField, ...]
    """In the order of the wire; empty where the body is the event's data and nothing else."""
    text: TextRules | None
    """The message; None: the body has none."""
    zone: tzinfo | None
    signature: SignatureRules
    ed25519: Ed25519Rules | None
    secret: SecretRules
    headers: tuple[HeaderField, ...]
    retry_schedule_seconds: tuple[float, ...]
    """One delay per retry: one attempt more than there are delays."""
    jitter: tuple[float, float] | None
    """Each delay is multiplied by a uniform number between these; None: delays are exact."""
    timeout_seconds: float
    """For the whole attempt."""
    https_only: bool
    """No setting of the deployment permits http for it."""
    gone_disables: bool
    """410 ends the delivery and disables the endpoint; otherwise it is retried like any 4xx."""
    fixed_test: FixedTest | None
    """None: test events are the catalogue's samples."""

    @property
    def signs(self) -> bool:
        """Whether requests carry a signature that a receiver can verify."""
        return bool(self.signature.header) and not self.secret_is_given

    @property
    def secret_is_given(self) -> bool:
        """Whether the receiver issues the secret, so that none can be generated here."""
        return (
            self.secret.place is SecretPlace.URL
            or self.signature.encoding is SignatureEncoding.SECRET
        )

    @property
    def several_signatures(self) -> bool:
        """Whether old and new secret can both sign while a rotation is under way."""
        return self.signature.separator is not None
