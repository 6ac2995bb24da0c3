"""A hive whose handler takes path, query and body by its annotations."""

from msgspec import Struct

from asgihive.asgi import Router
from asgihive.hive import Component, Hive
from benchmarks.apps.hive_plain import CONFIG

router = Router()


class Order(Struct):
    """What is ordered."""

    item: str
    quantity: int
    prices: list[float]
    note: str | None = None


class Bill(Struct):
    """What it costs."""

    number: int
    item: str
    total: float
    note: str | None


class StoredBill(Bill, kw_only=True):
    """The same as it is stored, with what is not sent."""

    margin: float


@router.post("/orders/{number}")
async def bill(number: int, order: Order, discount: float = 0.0, currency: str = "EUR") -> Bill:
    """Add up an order."""
    total = order.quantity * sum(order.prices) * (1 - discount)
    item = f"{order.item} in {currency}"
    return StoredBill(number=number, item=item, total=total, note=order.note, margin=0.2)


def create(_directory: str) -> Hive:
    endpoint = Component(kind="endpoint", container="endpoints", name="orders", router=router)
    return Hive(CONFIG, endpoints=[endpoint], entry_points=False)
