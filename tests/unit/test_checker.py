"""The checker calls every kind of damage by name, and finds nothing in a clean log."""

import dataclasses

import orjson
import pytest

from tests.support.checker import (
    Answered,
    AttemptFact,
    DeliveryFact,
    Report,
    Seen,
    Subscriber,
    check,
    read_receiver,
    repeats_without_a_kill,
)
from tests.support.ledger import Intent

SUBSCRIBERS = [Subscriber("ep_a", "/a", "standard", 3), Subscriber("ep_b", "/b", "wms", 3)]


class Logs:
    """Three events for two endpoints, the second event refused once by /b; a fourth was rolled back."""

    def __init__(self) -> None:
        self.intents = [Intent(f"m{n}", f"evt{n}", "a.b", "committed") for n in (1, 2, 3)]
        self.intents.append(Intent("m4", "evt4", "a.b", "rolled_back"))
        self.seen, self.answered, self.deliveries, self.attempts = [], [], [], []
        for subscriber in SUBSCRIBERS:
            for n in (1, 2, 3):
                statuses = [500, 200] if (subscriber.path, n) == ("/b", 2) else [200]
                delivery = f"wh{subscriber.path}{n}"
                for number, status in enumerate(statuses, start=1):
                    self.seen.append(
                        Seen(subscriber.path, f"m{n}", f"evt{n}", "", f"sha{n}", "good")
                    )
                    self.answered.append(Answered(subscriber.path, f"m{n}", status))
                    self.attempts.append(
                        AttemptFact(delivery, number, "ok" if status == 200 else "http_error")
                    )
                self.deliveries.append(
                    DeliveryFact(
                        delivery,
                        f"evt{n}",
                        subscriber.endpoint_id,
                        "succeeded",
                        None,
                        len(statuses),
                    )
                )

    def check(self) -> Report:
        return check(
            self.intents, SUBSCRIBERS, self.seen, self.answered, self.deliveries, self.attempts
        )

    def change(self, kind: str, index: int, **fields: object) -> None:
        rows = getattr(self, kind)
        rows[index] = rows[index]._replace(**fields)


def only(report: Report, **expected: list[str]) -> bool:
    """Tells whether these figures are as said and all others empty."""
    return all(getattr(report, name) == expected.get(name, []) for name in report.figures())


@pytest.fixture
def logs() -> Logs:
    return Logs()


def test_a_clean_log_has_no_figures_and_counts_its_pairs(logs):
    report = logs.check()
    assert only(report)
    assert report.pairs == 6
    assert report.problems() == []


def test_a_dropped_answer_is_a_lost_pair_and_a_ghost(logs):
    del logs.answered[0]
    assert only(logs.check(), lost=["/a m1"], ghost=["/a m1"])


def test_a_missing_delivery_row_is_lost_although_the_receiver_said_yes(logs):
    del logs.deliveries[0]
    report = logs.check()
    assert report.lost == ["/a m1"]
    assert report.unrecorded == ["/a m1"]


@pytest.mark.parametrize("state", ["pending", "retrying"])
def test_a_delivery_that_is_still_open_is_lost(logs, state):
    logs.change("deliveries", 2, state=state)
    assert only(logs.check(), lost=["/a m3"])


def test_a_failure_with_a_reason_is_not_lost_and_one_without_is(logs):
    logs.answered = [a for a in logs.answered if (a.path, a.marker) != ("/a", "m1")]
    logs.change("attempts", 0, outcome="http_error")
    logs.change("deliveries", 0, state="failed", reason="gone")
    assert only(logs.check())
    logs.change("deliveries", 0, reason=None)
    assert only(logs.check(), lost=["/a m1"])


def test_a_doubled_answer_is_a_dup_and_its_request_unrecorded(logs):
    logs.seen.append(logs.seen[0])
    logs.answered.append(logs.answered[0])
    report = logs.check()
    assert only(report, dup=["/a m1"], unrecorded=["/a m1"])
    assert report.problems(dup=1, unrecorded=1) == []
    assert report.problems(unrecorded=1) == ["dup 1 > 0: /a m1"]


@pytest.mark.parametrize(
    ("asked_at", "kills_at", "unexplained"),
    [
        ([10.0, 14.0], [12.0], 0),
        ([10.0, 14.0, 18.0], [12.0, 16.0], 0),
        ([10.0, 14.0], [9.9], 0),  # killed before the receiver had read it
        ([10.0, 14.0], [], 1),
        ([10.0, 14.0], [8.0, 15.0], 1),
        ([10.0, 14.0, 14.1], [12.0], 1),
        ([10.0, 10.1, 14.0], [12.0, 13.0], 1),
    ],
)
def test_checker_each_kill_explains_one_repeat_per_delivery(asked_at, kills_at, unexplained):
    answered = [Answered("/a", "m1", 200, at) for at in asked_at]
    bystanders = [Answered("/a", "m2", 200, 10.0), Answered("/b", "m1", 200, 11.0)]
    refused = [Answered("/b", "m1", 503, 10.5)]
    found = repeats_without_a_kill([*answered, *bystanders, *refused], kills_at)
    assert found == ["/a m1"] * unexplained


def test_a_forged_log_is_read_with_the_moment_of_each_request(tmp_path):
    request = {
        "kind": "request",
        "path": "/a",
        "marker": "m1",
        "event_id": "evt1",
        "delivery_id": "wh1",
        "sha256": "sha1",
        "signature": "good",
    }
    answer = {"kind": "answer", "path": "/a", "marker": "m1", "status": 200}
    lines = [
        {**request, "connection": "c1", "number": 1, "at": 1.0},
        {**request, "connection": "c1", "number": 2, "at": 2.0},
        {**answer, "connection": "c1", "number": 2, "at": 2.5},
        {**answer, "connection": "c1", "number": 1, "at": 3.5},
    ]
    log = tmp_path / "receiver.jsonl"
    log.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    _, answered = read_receiver(log)
    assert [answer.asked_at for answer in answered] == [2.0, 1.0]
    assert repeats_without_a_kill(answered, kills_at=[]) == ["/a m1"]
    assert repeats_without_a_kill(answered, kills_at=[1.5]) == []


def test_a_success_row_that_the_receiver_knows_nothing_of_is_a_ghost(logs):
    logs.attempts.append(AttemptFact("wh/a1", 2, "ok"))
    logs.change("deliveries", 0, attempt_count=2)
    assert only(logs.check(), ghost=["/a m1"])


def test_a_request_of_a_rolled_back_or_unheard_of_event_is_a_phantom(logs):
    logs.seen.append(Seen("/a", "m4", "evt4", "", "sha4", "good"))
    logs.seen.append(Seen("/b", "m9", "evt9", "", "sha9", "good"))
    assert only(logs.check(), phantom=["/a m4", "/b m9"])


def test_a_request_to_an_endpoint_that_did_not_subscribe_is_a_phantom(logs):
    logs.seen.append(Seen("/c", "m1", "evt1", "", "sha1", "good"))
    assert only(logs.check(), phantom=["/c m1"])


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "forged"},
        {"event_id": "evt9"},
        {"delivery_id": "other"},
        {"signature": "bad"},
        {"signature": "none"},
    ],
)
def test_an_altered_attempt_is_called_out(logs, change):
    index = next(i for i, seen in enumerate(logs.seen) if (seen.path, seen.marker) == ("/b", "m2"))
    logs.change("seen", index, **change)
    assert only(logs.check(), altered=["/b m2"])


def test_a_schedule_that_was_not_used_up_is_short(logs):
    logs.answered = [a for a in logs.answered if (a.path, a.marker) != ("/a", "m1")]
    logs.change("attempts", 0, outcome="http_error")
    logs.change("deliveries", 0, state="failed", reason="schedule_spent")
    assert only(logs.check(), short=["/a m1"])


@pytest.mark.parametrize("number", [1, 3])
def test_attempt_numbers_that_are_not_one_to_n_are_short(logs, number):
    index = next(
        i for i, a in enumerate(logs.attempts) if (a.delivery_id, a.attempt_number) == ("wh/b2", 2)
    )
    logs.change("attempts", index, attempt_number=number)
    assert only(logs.check(), short=["/b m2"])


def test_a_dropped_attempt_row_is_unrecorded(logs):
    del logs.attempts[0]
    report = logs.check()
    assert report.unrecorded == ["/a m1"]
    assert report.short == ["/a m1"]


def test_a_report_names_what_is_behind_a_figure():
    report = dataclasses.replace(Report(), lost=[f"/a m{n}" for n in range(9)])
    assert report.problems(lost=8) == ["lost 9 > 8: /a m0, /a m1, /a m2, /a m3, /a m4"]
