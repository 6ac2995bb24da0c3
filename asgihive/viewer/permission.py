"""What an application permits of pictures: all datasets that they show, whatever was asked for."""

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import parse_query
from asgihive.errors import FileForbidden
from asgihive.hdf5.file_bytes import decoded
from asgihive.hdf5.sandbox import normalised
from asgihive.service.gate import RequestedEntity, find_permission, is_permitted

PATHS = b"x-asgihive-paths"
"""The header of a picture that says which datasets it shows."""


class PermittedPictures:
    """An ASGI application: a route of pictures, for whose datasets a permission is asked, too.

    The gate asks for what the request names. That may be nothing, or a group, or the first of
    several paths; what is shown of it is known when the picture is there. Reader processes know of
    no permission, so this stands before them as well.

    Args:
        app: answers requests with pictures.
        route: its name.
    """

    def __init__(self, app: ASGIApp, route: str) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        permission = find_permission(scope)
        if permission is None:
            await self._app(scope, receive, send)
            return
        file = normalised(parse_query(scope["query_string"]).get("file", [""])[0])

        async def send_permitted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in {200, 206}:
                paths = _list_paths(message)
                if not paths:  # it cannot be told what is shown
                    raise FileForbidden(file)
                for path in paths:
                    if not await is_permitted(permission, RequestedEntity(self._route, file, path)):
                        raise FileForbidden(file)
            await send(message)

        await self._app(scope, receive, send_permitted)


def _list_paths(message: Message) -> list[str]:
    values = [value for name, value in message["headers"] if name == PATHS]
    return [decoded(unquote_to_bytes(each)) for value in values for each in value.split(b",")]
