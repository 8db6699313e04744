"""The simulated warehouse: the same seed gives the same changes, and their order is that of a real warehouse."""

from datetime import UTC, datetime

import orjson
import pytest

from dispatcher.config.catalogue import load_catalogue
from dispatcher.config.settings import Settings
from dispatcher.dev.warehouse import Change, Warehouse

NOW = datetime(2026, 5, 29, 14, 0, tzinfo=UTC)
CHANGES = 3_000
BEFORE = {
    "order.allocated": "order.created",
    "pick.completed": "order.allocated",
    "shipment.shipped": "pick.completed",
    "order.shipped": "shipment.shipped",
    "shipment.delivered": "order.shipped",
    "rma.requested": "shipment.delivered",
}


def changes(seed: int, count: int = CHANGES) -> list[Change]:
    warehouse = Warehouse(seed)
    return [warehouse.next_change(NOW) for _ in range(count)]


def test_warehouse_with_the_same_seed_repeats_its_changes():
    assert changes(7, 500) == changes(7, 500)
    assert changes(7, 500) != changes(8, 500)


@pytest.mark.parametrize("seed", range(3))
def test_warehouse_changes_follow_the_life_of_an_order(seed):
    seen: dict[str, set[str]] = {}
    for change in changes(seed):
        order = change.labels.get("order")
        if order is None:
            continue
        done = seen.setdefault(order, set())
        assert change.type not in done, f"{change.type} of {order} happens once"
        if change.type in BEFORE:
            assert BEFORE[change.type] in done
        done.add(change.type)
    assert any("rma.requested" in done for done in seen.values())


def test_warehouse_stock_adds_up_and_is_never_negative():
    on_hand: dict[str, int] = {}
    lows = 0
    for change in changes(1):
        lows += change.type == "inventory.low_stock"
        if change.type != "stock.changed":
            continue
        sku, before, after = (change.data[k] for k in ("sku", "quantity_before", "quantity_after"))
        assert on_hand.get(sku, before) == before
        assert before + change.data["change"] == after >= 0
        assert change.stock == (sku, after)
        on_hand[sku] = after
    assert lows > 0


def test_warehouse_events_are_of_the_catalogue_in_both_languages():
    catalogue = load_catalogue(Settings().directories_for("catalogue"))
    made = changes(1)
    types = {change.type for change in made}
    assert len(types) == 10
    assert types <= set(catalogue.types)
    texts = [
        orjson.dumps(change.data).decode() for change in made if change.type == "order.created"
    ]
    thai = [text for text in texts if any("\u0e00" <= letter <= "\u0e7f" for letter in text)]
    assert 0 < len(thai) <= len(texts)
    assert any('"Siam Coffee Supply Co., Ltd."' in text for text in texts)
