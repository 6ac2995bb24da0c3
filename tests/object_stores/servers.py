"""A real S3 server in a process, and a proxy before it that counts requests and does harm."""

import http.client
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "measured"

Harm = Callable[["Handler", int, list[tuple[str, str]], bytes], bool]
"""Answers a request instead of the proxy, given what the server answered; whether it did."""


@contextmanager
def running_moto() -> Iterator[int]:
    """Run moto's S3 server; yields its port."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", line)
            if found is not None:
                break
        else:
            raise RuntimeError("".join(lines))
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        yield int(found[1])
        process.kill()
        rest.join()
    finally:
        process.kill()
        process.communicate()


@dataclass
class Seen:
    """One request to the store."""

    method: str
    key: str
    range: str | None
    condition: str | None


@dataclass
class Proxy:
    """A proxy before the server."""

    upstream: int
    server: ThreadingHTTPServer = field(init=False)
    seen: list[Seen] = field(default_factory=list)
    harm: Harm | None = None
    lock: Any = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def count(self, method: str = "GET", *, ranged: bool = True) -> int:
        """How many requests there were for bytes, or others."""
        return sum(each.method == method and (not ranged or bool(each.range)) for each in self.seen)

    def harm_once(self, harm: Harm, times: int = 1) -> None:
        """Do harm to the next requests for bytes."""
        left = [times]

        def limited(handler: "Handler", status: int, headers: Any, body: bytes) -> bool:
            with self.lock:
                if not handler.headers.get("Range") or not left[0]:
                    return False
                left[0] -= 1
            return harm(handler, status, headers, body)

        self.harm = limited


class Handler(BaseHTTPRequestHandler):
    """One connection of the proxy."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_GET(self) -> None:
        """Forward a request."""
        proxy = self.proxy
        condition = self.headers.get("If-Match") or self.headers.get("If-None-Match")
        key = self.path.removeprefix(f"/{BUCKET}/").partition("?")[0]
        proxy.seen.append(Seen(self.command, key, self.headers.get("Range"), condition))
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
        length = int(self.headers.get("Content-Length") or 0)
        upstream.request(self.command, self.path, self.rfile.read(length), dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        headers = [
            each
            for each in answer.getheaders()
            if each[0].lower() not in {"transfer-encoding", "connection"}
        ]
        upstream.close()
        if proxy.harm is None or not proxy.harm(self, answer.status, headers, body):
            self.answer(answer.status, headers, body)

    do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815  # as the base names them

    def answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None
    ) -> None:
        """Answer; with `sent`, with only so many bytes of the body, and then the end."""
        self.send_response_only(status)
        named = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in named:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else body[:sent])
        if sent is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    """A server that says nothing of clients that leave."""

    def handle_error(self, *_: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)


@contextmanager
def running_proxy(upstream: int) -> Iterator[Proxy]:
    """Run a proxy before the server at a port."""
    proxy = Proxy(upstream)
    handler = type("Bound", (Handler,), {"proxy": proxy})
    proxy.server = _QuietServer(("127.0.0.1", 0), handler)
    proxy.server.daemon_threads = True
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


# Harm.


def reset(handler: Handler, *_: Any) -> bool:
    """Reset the connection."""
    handler.connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )
    handler.close_connection = True
    handler.connection.close()
    return True


def slow_down(handler: Handler, *_: Any) -> bool:
    """Answer as S3 does when it is asked too much."""
    handler.answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
    return True


def fail(handler: Handler, *_: Any) -> bool:
    """Answer 500."""
    handler.answer(500, [], b"<Error><Code>InternalError</Code></Error>")
    return True


def forbid(handler: Handler, *_: Any) -> bool:
    """Answer 403."""
    handler.answer(403, [], b"<Error><Code>AccessDenied</Code></Error>")
    return True


def cut_off(handler: Handler, status: int, headers: Any, body: bytes) -> bool:
    """End the connection in the middle of a body."""
    handler.answer(status, headers, body, sent=len(body) // 2)
    return True


def find_size(range_field: str) -> int:
    """Return how many bytes a field `Range` asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", range_field)
    assert match is not None
    return int(match[2]) - int(match[1]) + 1
