"""A handler that takes its arguments by annotation, as people know it from FastAPI."""

import orjson

from benchmarks.client import make_request
from benchmarks.exchanges import Exchange, ExchangeQuestion
from benchmarks.question import CEILING_SERVER, Target
from benchmarks.servers import SUBJECT, on_uvicorn

FASTAPI = "FastAPI"


def _order(number: int) -> Exchange:
    prices = [number + 0.5, 2.25, 8.0]
    order = {"item": f"item {number}", "quantity": 2, "prices": prices, "note": None}
    target = f"/orders/{number}?discount=0.5&currency=CHF"
    answer = {
        "number": number,
        "item": f"item {number} in CHF",
        "total": sum(prices),
        "note": None,
    }
    return Exchange(make_request(target, "POST", orjson.dumps(order)), answer)


QUESTION = ExchangeQuestion(
    name="typed_handler",
    asks="a handler with path, query and body by annotation, its result filtered by one, as JSON",
    exchanges=[_order(number) for number in range(100)],
    targets={FASTAPI: Target(ratio=2)},
    servers={
        SUBJECT: on_uvicorn("hive_typed"),
        FASTAPI: on_uvicorn("fastapi_typed"),
        **CEILING_SERVER,
    },
)
