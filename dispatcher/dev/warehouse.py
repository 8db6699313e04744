"""A small simulated warehouse system: orders, shipments and stock, published through SQL as a real one would.

`Warehouse` is pure: its seed decides every change, and its caller gives the time. `publish_changes` writes each
change and its event in one transaction, as docs/reference/sql.md describes. Some transactions are rolled back and
repeated, as after a deadlock. A rolled-back transaction leaves no event, which the counts at the end show.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from dispatcher.runtime.clock import SystemClock

if TYPE_CHECKING:
    import asyncpg

ROLLED_BACK_SHARE: Final = 0.03
OPEN_ORDERS_MAX: Final = 200
"""Above this the warehouse works on orders instead of taking new ones."""
STOCK_AT_FIRST: Final = 240
STOCK_MINIMUM: Final = 60
REPLENISHED: Final = 480
STATEMENT_SECONDS_MAX: Final = 10.0
_SAVE_ORDER: Final = """
INSERT INTO demo_warehouse.orders (id, customer, status) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, changed_at = now()
"""
_SAVE_STOCK: Final = """
INSERT INTO demo_warehouse.stock (sku, on_hand) VALUES ($1, $2)
ON CONFLICT (sku) DO UPDATE SET on_hand = excluded.on_hand
"""
_PUBLISH: Final = """
INSERT INTO dispatcher.outbox (type, data, occurred_at, labels) VALUES ($1, $2::json, $3, $4::jsonb)
"""


class Product(NamedTuple):
    """An article of the catalogue."""

    sku: str
    name: str
    unit_price: float
    location: str


class Customer(NamedTuple):
    """A buyer, with the address that the order is sent to."""

    id: str
    name: str
    province: str
    postcode: str


PRODUCTS: Final = (
    Product("SKU-10023", "น้ำดื่ม 600 มล. (แพ็ค 12)", 65.0, "A-03-12"),
    Product("SKU-10107", "ข้าวหอมมะลิ 5 กก.", 189.0, "A-01-02"),
    Product("SKU-20417", "นมพาสเจอร์ไรส์ 2 ลิตร", 92.0, "C-01-04"),
    Product("SKU-20888", "กาแฟคั่วบด ดอยช้าง 250 ก.", 210.0, "B-02-07"),
    Product("SKU-30311", "USB-C cable 1 m", 149.0, "D-05-01"),
    Product("SKU-30542", "Wireless mouse, black", 390.0, "D-05-03"),
    Product("SKU-41020", "Stainless bottle 750 ml", 320.0, "B-07-11"),
)
CUSTOMERS: Final = (
    Customer("CUST-001", "บริษัท ตัวอย่าง จำกัด", "เชียงใหม่", "50000"),
    Customer("CUST-014", "ร้านสะดวกซื้อ บ้านสวน", "นนทบุรี", "11000"),
    Customer("CUST-022", "คุณสมหญิง ใจดี", "ขอนแก่น", "40000"),
    Customer("CUST-037", "Siam Coffee Supply Co., Ltd.", "Bangkok", "10110"),
    Customer("CUST-051", "Andaman Resort & Spa", "Phuket", "83000"),
)
CARRIERS: Final = ("FLASH", "KERRY", "THAIPOST", "JT")
CHANNELS: Final = ("web", "shopee", "lazada", "line", "pos")
PICKERS: Final = ("malee", "somchai", "anan", "nok")
WAREHOUSES: Final = ("BKK-01", "CNX-02")


class Change(NamedTuple):
    """One business change with its event."""

    type: str
    data: Mapping[str, Any]
    occurred_at: datetime
    labels: Mapping[str, str]
    order: tuple[str, str, str] | None = None
    """Id, customer and new status of the order that the change saves."""
    stock: tuple[str, int] | None = None
    """Article and its new quantity."""


@dataclass(slots=True)
class Order:
    """An order on its way through the warehouse."""

    id: str
    customer: Customer
    warehouse: str
    channel: str
    lines: Sequence[tuple[Product, int]]
    shipment_id: str
    tracking: str
    carrier: str
    left: deque[str] = field(default_factory=deque)
    """The steps that remain, the next one first."""


class Warehouse:
    """The state of the simulation; the same seed and times give the same changes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- a simulation that can be repeated
        self._orders: deque[Order] = deque()
        self._ready: deque[Change] = deque()
        self._number = 0
        self.on_hand = dict.fromkeys((product.sku for product in PRODUCTS), STOCK_AT_FIRST)

    def next_change(self, now: datetime) -> Change:
        """Return the next change of the warehouse, which happens at `now`."""
        while not self._ready:
            begins = len(self._orders) < OPEN_ORDERS_MAX and self._random.random() < 1 / 5
            if begins or not self._orders:
                self._begin_order(now)
            else:
                self._advance(now)
        return self._ready.popleft()

    def _emit(
        self,
        now: datetime,
        event_type: str,
        data: Mapping[str, Any],
        warehouse: str,
        *,
        order: tuple[str, str, str] | None = None,
        stock: tuple[str, int] | None = None,
    ) -> None:
        labels = {"warehouse": warehouse}
        if "order_id" in data:
            labels["order"] = str(data["order_id"])
        self._ready.append(Change(event_type, data, now, labels, order, stock))

    def _begin_order(self, now: datetime) -> None:
        self._number += 1
        pick = self._random
        lines = [
            (product, pick.randint(1, 6)) for product in pick.sample(PRODUCTS, pick.randint(1, 3))
        ]
        carrier = pick.choice(CARRIERS)
        order = Order(
            id=f"ORD-{now.year}-{self._number:05d}",
            customer=pick.choice(CUSTOMERS),
            warehouse=pick.choice(WAREHOUSES),
            channel=pick.choice(CHANNELS),
            lines=lines,
            shipment_id=f"SHP-{now.year}-{self._number:05d}",
            tracking=f"{carrier}{pick.randrange(10**9):09d}",
            carrier=carrier,
            left=deque(("allocate", "pick", "ship", "deliver")),
        )
        if pick.random() < 1 / 20:
            order.left.append("return")
        self._orders.append(order)
        data = {
            "order_id": order.id,
            "customer": order.customer.id,
            "channel": order.channel,
            "warehouse": order.warehouse,
            "ship_to": {
                "name": order.customer.name,
                "province": order.customer.province,
                "postcode": order.customer.postcode,
            },
            "items": [
                {
                    "sku": one.sku,
                    "product_name": one.name,
                    "quantity": count,
                    "unit_price": one.unit_price,
                }
                for one, count in lines
            ],
            "total": round(sum(one.unit_price * count for one, count in lines), 2),
            "currency": "THB",
        }
        self._emit(now, "order.created", data, order.warehouse, order=self._saved(order, "created"))

    @staticmethod
    def _saved(order: Order, status: str) -> tuple[str, str, str]:
        return order.id, order.customer.name, status

    def _advance(self, now: datetime) -> None:
        """Take one of the oldest orders a step further, so that orders overtake each other a little."""
        index = self._random.randrange(min(len(self._orders), 8))
        order = self._orders[index]
        step = order.left.popleft()
        if not order.left:
            del self._orders[index]
        steps: Mapping[str, Callable[[Order, datetime], None]] = {
            "allocate": self._allocate,
            "pick": self._pick,
            "ship": self._ship,
            "deliver": self._deliver,
            "return": self._request_return,
        }
        steps[step](order, now)

    def _allocate(self, order: Order, now: datetime) -> None:
        for product, count in order.lines:
            if self.on_hand[product.sku] < count:
                self._replenish(product, order.warehouse, now)
        data = {
            "order_id": order.id,
            "customer": order.customer.id,
            "warehouse": order.warehouse,
            "fully_allocated": True,
            "items": [
                {"sku": one.sku, "ordered": count, "allocated": count, "location": one.location}
                for one, count in order.lines
            ],
        }
        saved = self._saved(order, "allocated")
        self._emit(now, "order.allocated", data, order.warehouse, order=saved)

    def _pick(self, order: Order, now: datetime) -> None:
        picker = self._random.choice(PICKERS)
        for product, count in order.lines:
            if self.on_hand[product.sku] < count:
                self._replenish(product, order.warehouse, now)
            self._change_stock(product, -count, "pick", order.id, order.warehouse, now)
        data = {
            "pick_id": order.id.replace("ORD", "PICK"),
            "order_id": order.id,
            "picker": picker,
            "items": [
                {"sku": one.sku, "requested": count, "picked": count, "location": one.location}
                for one, count in order.lines
            ],
        }
        self._emit(now, "pick.completed", data, order.warehouse, order=self._saved(order, "picked"))

    def _change_stock(
        self, product: Product, change: int, reason: str, reference: str, warehouse: str, now: datetime
    ) -> None:  # fmt: skip
        before = self.on_hand[product.sku]
        after = self.on_hand[product.sku] = before + change
        data = {
            "sku": product.sku,
            "product_name": product.name,
            "warehouse": warehouse,
            "location": product.location,
            "quantity_before": before,
            "quantity_after": after,
            "change": change,
            "unit": "PCS",
            "reason": reason,
            "reference": reference,
        }
        self._emit(now, "stock.changed", data, warehouse, stock=(product.sku, after))
        if after < STOCK_MINIMUM <= before:
            low = {
                "sku": product.sku,
                "product_name": product.name,
                "warehouse": warehouse,
                "on_hand": after,
                "available": after,
                "minimum": STOCK_MINIMUM,
                "unit": "PCS",
                "suggested_order_quantity": REPLENISHED,
            }
            self._emit(now, "inventory.low_stock", low, warehouse)

    def _replenish(self, product: Product, warehouse: str, now: datetime) -> None:
        self._number += 1
        number = f"GRN-{now.year}-{self._number:05d}"
        lot = f"L{now:%Y%m%d}"
        data = {
            "grn_id": number,
            "purchase_order": number.replace("GRN", "PO"),
            "warehouse": warehouse,
            "confirmed_by": self._random.choice(PICKERS),
            "items": [
                {
                    "sku": product.sku,
                    "received": REPLENISHED,
                    "damaged": 0,
                    "lot": lot,
                    "unit": "PCS",
                }
            ],
        }
        self._emit(now, "grn.confirmed", data, warehouse)
        self._change_stock(product, REPLENISHED, "receipt", number, warehouse, now)

    def _ship(self, order: Order, now: datetime) -> None:
        parcel = {
            "shipment_id": order.shipment_id,
            "order_id": order.id,
            "carrier": order.carrier,
            "tracking": order.tracking,
            "parcel_count": 1,
            "weight_kg": round(self._random.uniform(0.4, 18.0), 1),
            "shipped_at": now.isoformat(timespec="seconds"),
        }
        self._emit(
            now, "shipment.shipped", parcel, order.warehouse, order=self._saved(order, "shipped")
        )
        data = {
            "order_id": order.id,
            "customer": order.customer.id,
            "tracking": order.tracking,
            "items": [{"sku": one.sku, "quantity": count} for one, count in order.lines],
        }
        self._emit(now, "order.shipped", data, order.warehouse)

    def _deliver(self, order: Order, now: datetime) -> None:
        data = {
            "shipment_id": order.shipment_id,
            "order_id": order.id,
            "carrier": order.carrier,
            "tracking": order.tracking,
            "delivered_at": now.isoformat(timespec="seconds"),
            "received_by": order.customer.name,
        }
        saved = self._saved(order, "delivered")
        self._emit(now, "shipment.delivered", data, order.warehouse, order=saved)

    def _request_return(self, order: Order, now: datetime) -> None:
        product, _ = order.lines[0]
        data = {
            "rma_id": order.id.replace("ORD", "RMA"),
            "order_id": order.id,
            "customer": order.customer.id,
            "reason": "damaged",
            "note": self._random.choice(("กล่องบุบ สินค้าแตก", "The box was wet", "ได้รับสินค้าผิดรุ่น")),
            "items": [{"sku": product.sku, "quantity": 1}],
        }
        self._emit(
            now, "rma.requested", data, order.warehouse, order=self._saved(order, "returning")
        )


@dataclass(slots=True)
class Published:
    """How many changes were committed and rolled back; one writer, `publish_changes`."""

    committed: int = 0
    rolled_back: int = 0


async def create_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Create the warehouse's own tables if they are missing."""
    text = files("dispatcher.dev").joinpath("warehouse.sql").read_text(encoding="utf-8")
    await connection.execute(text, timeout=STATEMENT_SECONDS_MAX)


async def publish_changes(
    connection: "asyncpg.Connection[asyncpg.Record]",
    warehouse: Warehouse,
    *,
    rate_per_second: float,
    dice: random.Random,
    counts: Published,
) -> None:
    """Publish changes at a rate until it is cancelled; a connection error ends it.

    A change that is due while the last one is being committed follows at once, so a slow database lowers the rate
    for a while and no queue grows.
    """
    loop = asyncio.get_running_loop()
    due_at = loop.time()
    while True:
        now = loop.time()
        if due_at > now:
            await asyncio.sleep(due_at - now)
        due_at = max(due_at, now - 1.0) + 1.0 / rate_per_second
        change = warehouse.next_change(SystemClock.now())
        async with asyncio.timeout(STATEMENT_SECONDS_MAX):
            if dice.random() < ROLLED_BACK_SHARE:
                await _publish(connection, change, is_kept=False)
                counts.rolled_back += 1
            await _publish(connection, change, is_kept=True)
        counts.committed += 1


async def _publish(
    connection: "asyncpg.Connection[asyncpg.Record]", change: Change, *, is_kept: bool
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        if change.order is not None:
            await connection.execute(_SAVE_ORDER, *change.order)
        if change.stock is not None:
            await connection.execute(_SAVE_STOCK, *change.stock)
        data, labels = orjson.dumps(change.data).decode(), orjson.dumps(change.labels).decode()
        await connection.execute(_PUBLISH, change.type, data, change.occurred_at, labels)
    except BaseException:
        if not connection.is_closed():
            await transaction.rollback()
        raise
    await (transaction.commit() if is_kept else transaction.rollback())
