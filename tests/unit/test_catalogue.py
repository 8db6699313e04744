"""The catalogue has every event type of the documents, in two languages, with good samples."""

import re
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from dispatcher.config.catalogue import Catalogue, load_catalogue
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.envelope import make_test_event
from dispatcher.core.errors import ConfigurationError
from tests.wire.vectors import PROFILES

SHIPPED = shipped_config_directory() / "catalogue"

TYPES = {
    "inventory": "stock.changed inventory.low_stock inventory.expiring_soon",
    "inbound": "asn.created grn.created grn.confirmed putaway.completed",
    "outbound": "order.created order.allocated order.shipped wave.released pick.completed "
    "shipment.shipped shipment.delivered",
    "returns": "rma.requested rma.approved rma.received",
    "admin": "user.created audit.alert",
    "employee": "employee.create employee.purge employee.structure.change employee.terminate",
    "test": "test.ping",
    "operational": "dispatcher.endpoint.failing dispatcher.endpoint.disabled "
    "dispatcher.endpoint.recovered dispatcher.delivery.failed dispatcher.notification "
    "dispatcher.job.finished",
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue([SHIPPED])


def test_every_type_of_the_documents_is_there(catalogue: Catalogue) -> None:
    found = {group: [] for group in catalogue.groups}  # type: dict[str, list[str]]
    for event_type in catalogue.types.values():
        found[event_type.group].append(event_type.name)
    assert found == {group: names.split() for group, names in TYPES.items()}
    assert catalogue.replaced == ()


def test_thai_is_thai_and_english_is_english(catalogue: Catalogue) -> None:
    texts = [group.title for group in catalogue.groups.values()]
    for event_type in catalogue.types.values():
        texts += [event_type.title, event_type.description]
    for text in texts:
        assert re.search("[ก-๙]", text.th), text
        assert text.en.isascii(), text


def test_operational_types_are_those_of_the_dispatcher(catalogue: Catalogue) -> None:
    operational = {name for name, one in catalogue.types.items() if one.operational}
    assert operational == set(TYPES["operational"].split())


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_sample_makes_a_test_event_without_warnings(
    catalogue: Catalogue, profile: str
) -> None:
    for event_type in catalogue.types.values():
        made = make_test_event(
            PROFILES[profile],
            event_type=event_type.name,
            data=None,
            sample=event_type.sample,
            random_hex="0" * 16,
            endpoint_id="ep_1",
            endpoint_name="Webhook",
            tenant="default",
            now=datetime(2026, 5, 29, tzinfo=UTC),
        )
        orjson.loads(made.body)
        assert made.warnings == ()


GOOD = """
[groups.own]
title = { th = "ของเรา", en = "Own" }
[[types]]
name = "order.shipped"
group = "own"
title = { th = "ก", en = "a" }
description = { th = "ก", en = "a" }
sample = '{"n": 12.0, "s": "ก"}'
"""


def test_a_deployments_type_replaces_a_shipped_one_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD, encoding="utf-8")
    catalogue = load_catalogue([SHIPPED, tmp_path, tmp_path / "absent"])
    assert catalogue.types["order.shipped"].sample == '{"n":12.0,"s":"ก"}'
    assert catalogue.replaced == ("order.shipped",)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"order.shipped"', '"Order"', "types[0].name"),
        ('"order.shipped"', f'"{"a." * 64}b"', "types[0].name"),
        ('group = "own"', 'group = "other"', "types[0].group"),
        ('group = "own"', "", "types[0].group"),
        ("sample = '{", "sample = '[", "types[0].sample"),
        ("""sample = '{"n": 12.0, "s": "ก"}'""", "sample = '[]'", "types[0].sample"),
        ("sample =", "example =", "types[0].example: is not a key"),
        ('description = { th = "ก",', "description = {", "types[0].description"),
        ('title = { th = "ก", en = "a" }', 'title = "a"', "types[0].title"),
        ('title = { th = "ของเรา", en = "Own" }', "", "groups.own.title"),
        ("[groups.own]", "[groups.'O n']", "groups.O n: does not match"),
        ("[[types]]", "[types]", "types: must be a list"),
        ("[groups.own]\n", "groups = 1\n[own]\n", "groups: must be a table"),
        ("[[types]]", "surplus", ""),
        ("group =", 'schema_policy = "warn"\ngroup =', "types[0].schema_policy: needs a schema"),
        ("group =", "schema = '{}'\nschema_policy = 1\ngroup =", "types[0].schema_policy: must be"),
        ("group =", "schema = '[]'\ngroup =", "types[0].schema: must be a JSON object"),
        ("group =", """schema = '{"required":["x"]}'\ngroup =""", "types[0].sample: does not fit"),
        ("[groups.own]", "[surplus]\n[groups.own]", "surplus: is not a key"),
    ],
)
def test_a_fault_is_named_by_file_and_key(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    (tmp_path / "own.toml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue([tmp_path])
    assert any(f"own.toml: {problem}" in found for found in caught.value.problems)
