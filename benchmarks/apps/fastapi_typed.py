"""The handler of `hive_typed` in FastAPI, with its models."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Order(BaseModel):
    """What is ordered."""

    item: str
    quantity: int
    prices: list[float]
    note: str | None = None


class Bill(BaseModel):
    """What it costs."""

    number: int
    item: str
    total: float
    note: str | None


class StoredBill(Bill):
    """The same as it is stored, with what is not sent."""

    margin: float


@app.post("/orders/{number}")
async def bill(number: int, order: Order, discount: float = 0.0, currency: str = "EUR") -> Bill:
    """Add up an order."""
    total = order.quantity * sum(order.prices) * (1 - discount)
    item = f"{order.item} in {currency}"
    return StoredBill(number=number, item=item, total=total, note=order.note, margin=0.2)


def create(_directory: str) -> FastAPI:
    return app
