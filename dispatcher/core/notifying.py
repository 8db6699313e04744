"""Which messages people get about problems of endpoints: the rules as pure functions over rows.

    event ── problem of a rule (open) ── message "started" ── ... digests ... ── message "ended" ── forgotten

A problem is one event type at one endpoint, as one rule follows it. What always holds: a message of its
end follows exactly one message of its start; after a message the problem is quiet for the rule's quiet time, so that an
endpoint that comes and goes causes at most two messages in that time; a rule never reports about the
endpoint that it sends to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from dispatcher.core.printable import escape

FAILING: Final = "dispatcher.endpoint.failing"
DISABLED: Final = "dispatcher.endpoint.disabled"
FAILED: Final = "dispatcher.delivery.failed"
RECOVERED: Final = "dispatcher.endpoint.recovered"
NOTIFICATION: Final = "dispatcher.notification"
TARGET_LABEL: Final = "endpoint"
"""The label of a notification's event that names the endpoint it is for."""
PROBLEM_TYPES: Final = (FAILING, DISABLED, FAILED)
"""The events that start a problem."""
LISTED_MAX: Final = 20
"""Problems that a digest lists."""
FAILED_SECONDS_MIN: Final = 60.0
"""For how long no delivery must fail until failed deliveries count as over."""

LanguageCode = Literal["en", "th"]
TEXTS: Final[Mapping[LanguageCode, Mapping[str, str]]] = {
    "en": {
        f"started.{FAILING}": "Webhook {name} is failing",
        f"started.{DISABLED}": "Webhook {name} was disabled by the system",
        f"started.{FAILED}": "Deliveries to webhook {name} have failed",
        f"ended.{FAILING}": "Webhook {name} has recovered",
        f"ended.{DISABLED}": "Webhook {name} is enabled again",
        f"ended.{FAILED}": "No further delivery to webhook {name} has failed",
        "test": "Test message of the notification {name}",
        "test_details": "If you can read this, the notification works.",
        "digest_one": "1 problem of webhooks not resolved",
        "digest": "{count} problems of webhooks not resolved",
        "digest_line": "{problem} (tenant {tenant}) since {since}{count}.",
        "more": "and {count} more.",
        "since": "Since {since}{count}.",
        "ended_at": "Ended {at}.",
        "count": ", {count} so far",
        "webhook": "Webhook: {name} ({id})",
        "tenant": "Tenant: {tenant}",
        "reason": "Reason: {reason}",
        "notification": "Notification: {name} ({id})",
        "console": "Console: {link}",
        "first_line": "{summary}.",
    },
    "th": {
        f"started.{FAILING}": "Webhook {name} ส่งไม่สำเร็จต่อเนื่อง",
        f"started.{DISABLED}": "ระบบปิดใช้งาน Webhook {name}",
        f"started.{FAILED}": "การส่งไปยัง Webhook {name} ล้มเหลวหลังลองครบทุกครั้ง",
        f"ended.{FAILING}": "Webhook {name} กลับมาส่งสำเร็จแล้ว",
        f"ended.{DISABLED}": "Webhook {name} เปิดใช้งานอีกครั้งแล้ว",
        f"ended.{FAILED}": "ไม่มีการส่งไปยัง Webhook {name} ที่ล้มเหลวเพิ่ม",
        "test": "ข้อความทดสอบของการแจ้งเตือน {name}",
        "test_details": "หากอ่านข้อความนี้ได้ แสดงว่าการแจ้งเตือนใช้งานได้",
        "digest_one": "มีปัญหาของ Webhook ที่ยังไม่สิ้นสุด 1 รายการ",
        "digest": "มีปัญหาของ Webhook ที่ยังไม่สิ้นสุด {count} รายการ",
        "digest_line": "{problem} (tenant {tenant}) ตั้งแต่ {since}{count}",
        "more": "และอีก {count} รายการ",
        "since": "ตั้งแต่ {since}{count}",
        "ended_at": "สิ้นสุดเมื่อ {at}",
        "count": " จนถึงขณะนี้ {count} รายการ",
        "webhook": "Webhook: {name} ({id})",
        "tenant": "Tenant: {tenant}",
        "reason": "สาเหตุ: {reason}",
        "notification": "การแจ้งเตือน: {name} ({id})",
        "console": "คอนโซล: {link}",
        "first_line": "{summary}",
    },
}
"""The sentences of messages by language and code; both languages have the same codes."""


class Rule(NamedTuple):
    """A notification rule."""

    id: str
    name: str
    tenant: str | None
    event_types: list[str]
    endpoint_ids: list[str]
    to_endpoint_id: str | None
    email: str | None
    recipient: str | None
    quiet_seconds: int
    digest_seconds: int | None
    digested_at: datetime | None

    def covers(self, happening: "Happening") -> bool:
        """Return whether the rule is about the endpoint of an event."""
        return (
            self.tenant in {None, happening.tenant}
            and happening.endpoint_id != self.to_endpoint_id
            and (not self.endpoint_ids or happening.endpoint_id in self.endpoint_ids)
        )


class Happening(NamedTuple):
    """An operational event."""

    type: str
    tenant: str
    data: Mapping[str, Any]

    @property
    def endpoint_id(self) -> str:
        """The endpoint that it is about."""
        return str(self.data.get("endpoint_id", ""))


Key = tuple[str, str, str]


@dataclass(slots=True)
class Problem:
    """One event type at one endpoint, as one rule follows it."""

    notification_id: str
    endpoint_id: str
    event_type: str
    endpoint_name: str
    tenant: str
    reason: str
    started_at: datetime
    seen_at: datetime
    events_count: int
    announced_at: datetime | None = None
    ended_at: datetime | None = None
    quiet_until: datetime | None = None
    is_over: bool = False
    """Postgres has it that the problem is over, without an event of its end."""

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.notification_id, self.endpoint_id, self.event_type

    def values(self) -> list[object]:
        """Return the columns, in order."""
        return [
            *self.key, self.endpoint_name, self.tenant, self.reason, self.started_at, self.seen_at,
            self.events_count, self.announced_at, self.ended_at, self.quiet_until,
        ]  # fmt: skip


class Message(NamedTuple):
    """A message of a rule, about one problem or several."""

    rule: Rule
    kind: str
    """`started`, `ended`, `digest` or `test`."""
    problems: Sequence[Problem]
    at: datetime
    public_url: str = ""
    """The URL under which people open the console; empty: the message has no link."""
    language: LanguageCode = "en"

    def _say(self, code: str, **values: object) -> str:
        return TEXTS[self.language][code].format(**values)

    def _since(self, code: str, one: Problem, **values: object) -> str:
        is_counted = one.event_type == FAILED
        count = self._say("count", count=one.events_count) if is_counted else ""
        return self._say(code, since=_text(one.started_at), count=count, **values)

    @property
    def link(self) -> str:
        """The console's page about the problem, or about all of them; empty if its URL is unknown."""
        if not self.public_url:
            return ""
        if self.kind == "test":
            return f"{self.public_url}/notifications"
        if len(self.problems) != 1:
            return f"{self.public_url}/"
        first = self.problems[0]
        page = f"{self.public_url}/webhooks/{quote(first.endpoint_id, safe='')}"
        is_about_deliveries = first.event_type == FAILED and self.kind != "ended"
        return f"{page}/deliveries?state=failed" if is_about_deliveries else page

    @property
    def summary(self) -> str:
        """One line."""
        if self.kind == "test":
            return self._say("test", name=escape(self.rule.name))
        if self.kind == "digest":
            count = len(self.problems)
            return self._say("digest" if count > 1 else "digest_one", count=count)
        first = self.problems[0]
        kind = "ended" if self.kind == "ended" else "started"
        return self._say(f"{kind}.{first.event_type}", name=escape(first.endpoint_name))

    @property
    def details(self) -> str:
        """Further lines."""
        if self.kind == "test":
            return self._say("test_details")
        if self.kind == "digest":
            lines = []
            for one in self.problems[:LISTED_MAX]:
                name = escape(one.endpoint_name)
                sentence = self._say(f"started.{one.event_type}", name=name)
                lines.append(self._since("digest_line", one, problem=sentence, tenant=one.tenant))
            more = len(self.problems) - LISTED_MAX
            return "\n".join([*lines, *([self._say("more", count=more)] if more > 0 else [])])
        first = self.problems[0]
        since = self._since("since", first)
        if self.kind == "ended" and first.ended_at is not None:
            return f"{since} {self._say('ended_at', at=_text(first.ended_at))}"
        return since

    def data(self) -> dict[str, Any]:
        """Return the data of the event, from which profiles compose their text."""
        one = self.problems[0] if len(self.problems) == 1 else None
        values: dict[str, Any] = {
            "summary": self.summary,
            "details": self.details,
            "kind": self.kind,
            "notification_id": self.rule.id,
            "notification_name": self.rule.name,
            "at": self.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
        if self.link:
            values["link"] = self.link
        if self.rule.recipient is not None:
            values["recipient"] = self.rule.recipient
        if one is not None:
            values |= {
                "problem": one.event_type,
                "endpoint_id": one.endpoint_id,
                "endpoint_name": one.endpoint_name,
                "tenant": one.tenant,
                "reason": one.reason,
            }
        return values

    def text(self) -> str:
        """Return the body of an e-mail."""
        one = self.problems[0] if len(self.problems) == 1 else None
        facts = (
            []
            if one is None
            else [
                self._say("webhook", name=escape(one.endpoint_name), id=one.endpoint_id),
                self._say("tenant", tenant=one.tenant),
                self._say("reason", reason=escape(one.reason)),
            ]
        )
        footer = self._say("notification", name=escape(self.rule.name), id=self.rule.id)
        links = [self._say("console", link=self.link)] if self.link else []
        first = self._say("first_line", summary=self.summary)
        return "\n".join([first, *facts, self.details, *links, "", footer, ""])


class QueuedMail(NamedTuple):
    """An e-mail that is due; `attempt_count` counts the attempt that begins."""

    id: int
    notification_id: str
    address: str
    subject: str
    body: str
    created_at: datetime
    attempt_count: int


@dataclass(slots=True)
class Outcome:
    """What a turn has decided."""

    messages: list[Message] = field(default_factory=list)
    saved: list[Problem] = field(default_factory=list)
    forgotten: list[Problem] = field(default_factory=list)
    digested: list[Rule] = field(default_factory=list)


def decide(
    rules: Sequence[Rule],
    problems: Iterable[Problem],
    happenings: Sequence[Happening],
    now: datetime,
) -> Outcome:
    """Return the messages of a turn and the problems to save; changes the problems in place."""
    known = {one.key: one for one in problems}
    changed: set[Key] = set()
    for happening in happenings:
        for rule in rules:
            if rule.covers(happening):
                changed |= _apply(rule, known, happening, now)
    outcome = Outcome()
    by_rule: dict[str, list[Problem]] = {}
    for one in known.values():
        by_rule.setdefault(one.notification_id, []).append(one)
    for rule in rules:
        own = by_rule.get(rule.id, [])
        for one in own:
            _advance(rule, one, outcome, changed, now)
        _end_together(rule, own, outcome, changed, now)
        _digest(rule, own, outcome, now)
    gone = {one.key for one in outcome.forgotten}
    outcome.saved = [known[key] for key in sorted(changed - gone)]
    return outcome


def _apply(rule: Rule, known: dict[Key, Problem], happening: Happening, now: datetime) -> set[Key]:
    """Open or end the problems of a rule that an event is about; return those that changed."""
    endpoint_id = happening.endpoint_id
    if happening.type == RECOVERED:
        ended = set()
        for event_type in (FAILING, DISABLED):
            one = known.get((rule.id, endpoint_id, event_type))
            if one is not None and one.ended_at is None:
                one.ended_at = now
                ended.add(one.key)
        return ended
    if happening.type not in rule.event_types:
        return set()
    key = (rule.id, endpoint_id, happening.type)
    one = known.get(key)
    if one is None:
        one = known[key] = Problem(
            *key, str(happening.data.get("endpoint_name", "")), happening.tenant, "", now, now, 0
        )
    elif one.ended_at is not None:
        one.ended_at = None
        if one.announced_at is None:
            one.started_at, one.events_count = now, 0
    one.is_over = False
    one.endpoint_name = str(happening.data.get("endpoint_name", one.endpoint_name))
    one.reason = str(happening.data.get("reason", ""))
    one.seen_at = now
    one.events_count += 1
    return {key}


def _advance(rule: Rule, one: Problem, outcome: Outcome, changed: set[Key], now: datetime) -> None:
    """Let time pass for a problem: it ends, is announced, or is forgotten."""
    if one.ended_at is None and (one.is_over or _is_silent(rule, one, now)):
        one.ended_at = now
        changed.add(one.key)
    is_quiet = one.quiet_until is not None and now < one.quiet_until
    if one.announced_at is not None or is_quiet:
        return
    if one.ended_at is not None:
        outcome.forgotten.append(one)
        return
    one.announced_at = now
    one.quiet_until = now + timedelta(seconds=rule.quiet_seconds)
    changed.add(one.key)
    outcome.messages.append(Message(rule, "started", [one], now))


def _is_silent(rule: Rule, one: Problem, now: datetime) -> bool:
    """Return whether failed deliveries are over: an event of their end does not exist."""
    seconds = max(float(rule.quiet_seconds), FAILED_SECONDS_MIN)
    return one.event_type == FAILED and now - one.seen_at >= timedelta(seconds=seconds)


def _end_together(
    rule: Rule, own: Sequence[Problem], outcome: Outcome, changed: set[Key], now: datetime
) -> None:
    """Write one message for each endpoint whose announced problems have ended."""
    ended: dict[tuple[str, bool], list[Problem]] = {}
    for one in own:
        if one.ended_at is not None and one.announced_at is not None:
            ended.setdefault((one.endpoint_id, one.event_type == FAILED), []).append(one)
    for problems in ended.values():
        first = min(problems, key=lambda one: one.started_at)
        outcome.messages.append(Message(rule, "ended", [first], now))
        for one in problems:
            one.announced_at = None
            one.quiet_until = now + timedelta(seconds=rule.quiet_seconds)
            changed.add(one.key)


def _digest(rule: Rule, own: Sequence[Problem], outcome: Outcome, now: datetime) -> None:
    """Write a digest of the problems that go on, if the rule has one and it is due."""
    going_on = sorted(
        (one for one in own if one.announced_at is not None and one.ended_at is None),
        key=lambda one: one.started_at,
    )
    if rule.digest_seconds is None or not going_on:
        return
    first = min(one.announced_at for one in going_on if one.announced_at is not None)
    last = first if rule.digested_at is None else max(first, rule.digested_at)
    if now - last >= timedelta(seconds=rule.digest_seconds):
        outcome.messages.append(Message(rule, "digest", going_on, now))
        outcome.digested.append(rule)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
