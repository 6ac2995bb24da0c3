"""`GET /api/heart_beat/heartbeat`."""

from msgspec import Struct

from asgihive import Router

router = Router()


class Heartbeat(Struct, frozen=True):
    """That the service answers."""

    is_alive: bool


@router.get("/heartbeat")
async def heartbeat() -> Heartbeat:
    """Whether the service is alive."""
    return Heartbeat(is_alive=True)
