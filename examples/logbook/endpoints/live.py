"""`/api/live`: new entries as they are written, over a websocket."""

from contextlib import suppress

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgihive import Depends, FromHive, Router

from ..cornerstones.auth import find_user
from ..cornerstones.feed import Feed

requires = ("cornerstones.auth", "cornerstones.feed")
router = Router(dependencies=[Depends(find_user)])


@router.websocket("")
async def follow(websocket: WebSocket, feed: FromHive[Feed]) -> None:
    """Send each entry that is written from now on; who has no token is refused before."""
    with feed.listen() as entries:
        await websocket.accept()

        async def send_entries() -> None:
            async for entry in entries:
                await websocket.send_json(entry)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_entries)
            with suppress(WebSocketDisconnect):
                while True:  # what the client says is not asked for, but that it leaves is
                    await websocket.receive_text()
            tasks.cancel_scope.cancel()
