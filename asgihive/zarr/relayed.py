"""`/zarr` where reader processes read the files: what the front does of it.

The front knows which file a URL names, so that a file that crashes readers is told from others, and
it has the permission of the application. It asks a reader for the path in the file, where a name
may stand for another one.
"""

from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.request_fields import CONDITIONAL_HEADERS
from asgihive.service.answering import CapturedResponse, begin_in_time
from asgihive.service.gate import find_permission
from asgihive.service.parameters import NAMED_FILE, ZARR_PREFIX
from asgihive.service.requests import Wanted
from asgihive.service.store import Store
from asgihive.zarr.keys import METADATA_KEY, KeyKind
from asgihive.zarr.routes import ASKED_PATH, StoreRequest, ZarrRoute


class RelayedZarr(ZarrRoute):
    """An ASGI application: the route in the front.

    Args:
        store: of the front, where nothing is opened.
        relay: answers as a reader process does.
    """

    def __init__(self, store: Store, relay: ASGIApp) -> None:
        super().__init__(store)
        self._relay = relay

    async def answer(self, scope: Scope, receive: Receive, send: Send, kind: KeyKind) -> None:
        """Let a reader answer what may be answered."""
        rest, version, wanted = self.read_request(scope, kind)
        permission, made = find_permission(scope), None
        # A reader has as long for itself.
        with begin_in_time(self.store.settings.read_timeout_seconds, send):
            asked = await self.find_store(rest, version)
            if permission is not None:
                asked = await self.check_permission(scope, receive, asked, permission)
                if kind is KeyKind.METADATA:
                    made = await self.filter_document(scope, receive, asked, wanted, permission)
        if made is None:
            await self._relay(_make_scope(scope, asked, rest), receive, send)
        else:
            await made(scope, receive, send)

    async def find_real_path(self, scope: Scope, receive: Receive, asked: StoreRequest) -> str:
        """Return the path of a node in its file, by asking a reader where that may be another."""
        if "_" not in asked.path:  # which stands for what a name may not have
            return asked.path
        node = f"{asked.file}{asked.path.rstrip('/')}/{METADATA_KEY}"
        headers = [(ASKED_PATH, b"?")]
        given = {**scope, "method": "HEAD", "query_string": b"", "headers": headers}
        told = CapturedResponse()
        await self._relay(_make_scope(given, asked, node), receive, told.send)
        name = told.headers.get(ASKED_PATH)
        if told.status == 404:
            return asked.path
        if name is None:  # another path might be another answer
            raise told.make_error()
        return unquote(name.decode("latin-1"), errors="surrogateescape")

    async def read_document(
        self, scope: Scope, receive: Receive, asked: StoreRequest, _wanted: Wanted
    ) -> bytes:
        """Return the metadata of a node, as a reader answers with them.

        Raises:
            HTTPException: it answers with an error.
        """
        headers = [each for each in scope["headers"] if each[0] not in CONDITIONAL_HEADERS]
        given = {**scope, "method": "GET", "headers": headers}
        inner = _make_scope(given, asked, asked.rest)
        told = CapturedResponse()
        await self._relay(inner, receive, told.send)
        if told.status == 200:
            return told.body
        raise told.make_error()


def _make_scope(scope: Scope, asked: StoreRequest, rest: str) -> Scope:
    """Return the scope of a request to a reader; surrogates are bytes that are not UTF-8."""
    path = f"{scope.get('root_path', '')}{ZARR_PREFIX}{rest}"
    return {**scope, "path": path, NAMED_FILE: asked.file}
