"""What hooks around each request cost."""

from benchmarks.exchanges import ExchangeQuestion
from benchmarks.question import CEILING_SERVER, STARLETTE, Target
from benchmarks.questions.hive_plain import GREETINGS
from benchmarks.servers import SUBJECT, on_uvicorn

MIDDLEWARE = "BaseHTTPMiddleware"
_TARGETS = {STARLETTE: Target(ratio=0.8), MIDDLEWARE: Target(ratio=3)}
_PEERS = {
    STARLETTE: on_uvicorn("starlette_plain"),
    MIDDLEWARE: on_uvicorn("fastapi_hooks"),
    **CEILING_SERVER,
}

QUESTION = ExchangeQuestion(
    name="hive_hooks",
    asks="one handler with three cornerstones' `async def` hooks before and after; in plain "
    "Starlette without any; in FastAPI with three BaseHTTPMiddleware",
    exchanges=GREETINGS,
    targets=_TARGETS,
    servers={SUBJECT: on_uvicorn("hive_hooks"), **_PEERS},
)

AWAITING = ExchangeQuestion(
    name="hive_hooks_await",
    asks="the same, with an `await` in each of the hooks",
    exchanges=GREETINGS,
    targets=_TARGETS,
    servers={SUBJECT: on_uvicorn("hive_awaiting_hooks"), **_PEERS},
    heavy=True,
)
