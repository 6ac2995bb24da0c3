"""The least that an ASGI application does to send files: it reads one at a time and sends it."""

import os
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send


def create(directory: str) -> ASGIApp:
    """Return an application over the files that are in a directory now."""
    root = Path(directory)
    files = {f"/{file.relative_to(root)}": file for file in root.rglob("*") if file.is_file()}
    opened: dict[str, tuple[int, int]] = {}

    async def send_file(scope: Scope, _receive: Receive, send: Send) -> None:
        # Raising at the lifespan's start is how an application says that it has none.
        if scope["type"] != "http":
            raise RuntimeError(scope["type"])
        path, status, body = scope["path"], 404, b""
        if path in files:
            if path not in opened:
                descriptor = os.open(files[path], os.O_RDONLY)
                opened[path] = descriptor, os.fstat(descriptor).st_size
            descriptor, size = opened[path]
            status, body = 200, os.pread(descriptor, size, 0)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return send_file
