"""The least that a hive adds to a handler."""

from benchmarks.client import make_request
from benchmarks.exchanges import Exchange, ExchangeQuestion
from benchmarks.question import CEILING_SERVER, STARLETTE, Target
from benchmarks.servers import SUBJECT, on_uvicorn

GREETINGS = [
    Exchange(make_request(f"/greetings/{number}"), {"greeting": str(number)})
    for number in range(100)
]

QUESTION = ExchangeQuestion(
    name="hive_plain",
    asks="one handler in a hive without request hooks, and in plain Starlette",
    exchanges=GREETINGS,
    targets={STARLETTE: Target(ratio=0.95)},
    servers={
        SUBJECT: on_uvicorn("hive_plain"),
        STARLETTE: on_uvicorn("starlette_plain"),
        **CEILING_SERVER,
    },
)
