"""Messages to people: when a problem is reported, when its end, and what stays quiet."""

import re
from datetime import UTC, datetime, timedelta
from string import Formatter
from typing import Any

from dispatcher.core.notifying import (
    DISABLED,
    FAILED,
    FAILING,
    PROBLEM_TYPES,
    RECOVERED,
    TEXTS,
    Happening,
    Message,
    Problem,
    Rule,
    decide,
)

START = datetime(2026, 5, 29, 14, 32, tzinfo=UTC)


def rule(**fields: Any) -> Rule:
    values: dict[str, Any] = {
        "id": "ntf_1", "name": "on-call", "tenant": None, "event_types": list(PROBLEM_TYPES),
        "endpoint_ids": [], "to_endpoint_id": "ep_chat", "email": None, "recipient": None,
        "quiet_seconds": 900, "digest_seconds": None, "digested_at": None,
    }  # fmt: skip
    return Rule(**(values | fields))


class People:
    """One rule over time; what a turn saves is all that the next one knows."""

    def __init__(self, **fields: Any) -> None:
        self.rule = rule(**fields)
        self.problems: dict[Any, Problem] = {}

    def turn(self, seconds: float, *types: str, endpoint: str = "ep_erp") -> list[Message]:
        now = START + timedelta(seconds=seconds)
        data = {"endpoint_id": endpoint, "endpoint_name": "ERP", "reason": "down"}
        happenings = [Happening(one, "acme", data) for one in types]
        outcome = decide([self.rule], list(self.problems.values()), happenings, now)
        for one in outcome.saved:
            self.problems[one.key] = one
        for one in outcome.forgotten:
            self.problems.pop(one.key, None)
        if outcome.digested:
            self.rule = self.rule._replace(digested_at=now)
        return outcome.messages

    def kinds(self, seconds: float, *types: str, endpoint: str = "ep_erp") -> list[str]:
        return [one.kind for one in self.turn(seconds, *types, endpoint=endpoint)]


def test_problem_gives_one_message_at_its_start_and_one_at_its_end():
    people = People()
    assert people.kinds(0, FAILING) == ["started"]
    assert people.kinds(5) == []
    assert people.kinds(3600, FAILING) == [], "a further threshold of the same outage"
    (ended,) = people.turn(4000, RECOVERED)
    assert ended.kind == "ended"
    assert ended.summary == "Webhook ERP has recovered"
    assert "Since 2026-05-29 14:32 UTC" in ended.details
    assert people.kinds(4005) == []
    assert people.kinds(5000) == []
    assert people.problems == {}, "after its quiet time nothing is kept"


def test_problem_that_returns_in_its_quiet_time_is_reported_after_it():
    people = People()
    people.turn(0, FAILING)
    assert people.kinds(60, RECOVERED) == ["ended"]
    assert people.kinds(70, FAILING) == []
    assert people.kinds(80, RECOVERED) == [], "its start was not announced"
    assert people.kinds(90, FAILING) == []
    assert people.kinds(959) == []
    assert people.kinds(961) == ["started"]
    assert people.kinds(970, RECOVERED) == ["ended"]


def test_problem_that_starts_and_ends_between_two_turns_is_no_message():
    people = People()
    assert people.kinds(0, FAILING, RECOVERED) == []
    people.turn(10, FAILING)
    assert people.kinds(20, RECOVERED, FAILING) == [], "it goes on"
    assert people.kinds(30, RECOVERED) == ["ended"]


def test_recovery_of_a_disabled_endpoint_is_one_message():
    people = People()
    assert people.kinds(0, FAILING) == ["started"]
    assert people.kinds(60, DISABLED) == ["started"]
    assert people.kinds(120, RECOVERED) == ["ended"]


def test_failed_deliveries_are_one_problem_until_none_fails():
    people = People()
    assert people.kinds(0, FAILED, FAILED, FAILED) == ["started"]
    assert people.kinds(600, FAILED) == []
    assert people.kinds(1400) == []
    (ended,) = people.turn(1501)
    assert (ended.kind, "4 so far" in ended.details) == ("ended", True)


def test_end_that_postgres_knows_is_reported_without_an_event():
    people = People()
    people.turn(0, FAILING)
    next(iter(people.problems.values())).is_over = True
    assert people.kinds(10) == ["ended"]


def test_digest_lists_what_goes_on_at_its_interval():
    people = People(digest_seconds=3600)
    people.turn(0, FAILING)
    people.turn(10, FAILED, endpoint="ep_other")
    for seconds in range(600, 3600, 600):
        people.turn(seconds, FAILED, endpoint="ep_other")
    (digest,) = people.turn(3600, FAILED, endpoint="ep_other")
    assert (digest.kind, len(digest.problems)) == ("digest", 2)
    assert digest.summary == "2 problems of webhooks not resolved"
    assert people.kinds(3605) == []
    assert people.kinds(7200, FAILED, endpoint="ep_other") == ["digest"]
    people.turn(7300, RECOVERED)
    assert people.kinds(10800 - 10, FAILED, endpoint="ep_other") == []


def test_rule_is_about_its_own_endpoints_types_and_tenant_alone():
    assert People(endpoint_ids=["ep_other"]).kinds(0, FAILING) == []
    assert People(tenant="other").kinds(0, FAILING) == []
    assert People(event_types=[FAILED]).kinds(0, FAILING, DISABLED) == []
    assert People(tenant="acme", endpoint_ids=["ep_erp"]).kinds(0, FAILING) == ["started"]


def test_rule_never_reports_about_its_own_target():
    assert People(to_endpoint_id="ep_erp").kinds(0, *PROBLEM_TYPES) == []


def test_message_escapes_a_hostile_name():
    data = {"endpoint_id": "ep_erp", "endpoint_name": "a\r\nBcc: x@y.test\u202e", "reason": "down"}
    (message,) = decide([rule()], [], [Happening(FAILING, "acme", data)], START).messages
    assert "\n" not in message.summary
    assert "\r" not in message.text()
    assert "\u202e" not in message.text()


def test_message_links_to_the_page_of_its_problem():
    people = People(digest_seconds=300)
    (failing,) = people.turn(0, FAILING)
    assert failing.link == ""
    assert "link" not in failing.data()

    def link(message: Message) -> str:
        return message._replace(public_url="https://h.test").link

    assert link(failing) == "https://h.test/webhooks/ep_erp"
    (failed,) = people.turn(10, FAILED)
    assert link(failed) == "https://h.test/webhooks/ep_erp/deliveries?state=failed"
    (digest,) = people.turn(400)
    assert (digest.kind, link(digest)) == ("digest", "https://h.test/")
    ended = [one for one in people.turn(2000, RECOVERED) if one.kind == "ended"]
    assert {link(one) for one in ended} == {"https://h.test/webhooks/ep_erp"}
    sent = failed._replace(public_url="https://h.test")
    assert sent.data()["link"] == link(failed)
    assert f"\nConsole: {link(failed)}\n" in sent.text()


def test_message_in_thai_has_the_same_facts_and_no_english_sentence():
    assert TEXTS["en"].keys() == TEXTS["th"].keys()
    for code, text in TEXTS["en"].items():
        names = [{one[1] for one in Formatter().parse(t)} for t in (text, TEXTS["th"][code])]
        assert names[0] - {None} == names[1] - {None}, code
    people = People(digest_seconds=300)
    messages = [*people.turn(0, FAILING), *people.turn(10, FAILED), *people.turn(400)]
    messages += people.turn(2000, RECOVERED)
    assert {one.kind for one in messages} == {"started", "digest", "ended"}
    for message in messages:
        thai = message._replace(language="th", public_url="https://h.test")
        words = re.findall(r"(?<![/_.\w])[a-z]{3,}(?![/_.\w])", thai.summary + thai.details)
        assert set(words) <= {"erp", "tenant", "default", "acme", "on-call"}, thai.text()
        assert thai.data()["kind"] == message.kind
