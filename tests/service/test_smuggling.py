"""Framing over raw sockets: no byte of a body is taken for a request, no name for a header.

A server that has answered either has read the body of the request, or closes the connection
(RFC 9112 §6.3, §9.3); what is ambiguous is no request (§6.1, §11.2).
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, urlsplit

import h5py
import numpy as np
import orjson
import pytest

from tests.service import servers
from tests.service.bounds import bounded

MARK = b"smuggled-and-answered"
# Whole requests: the hidden one must never be answered, the second one only as itself.
SMUGGLED = b"GET /data?file=marker.h5&path=/mark HTTP/1.1\r\nHost: test\r\n\r\n"
SECOND = b"GET /data?file=x.h5&path=/second HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
SECOND_BODY = b"[2,22,222]"

MAX_BODY_BYTES = 4096


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "marker.h5", "w") as file:
        file["mark"] = MARK.decode()
    with h5py.File(root / "x.h5", "w") as file:
        file["second"] = np.array([2, 22, 222])
        for name in NAMES.values():
            # What is behind a slash in a name is a dataset in a group.
            file[b"/names/" + name] = np.arange(3)
    return root


@pytest.fixture(scope="module", params=servers.SERVERS)
def server(root: Path, request: pytest.FixtureRequest) -> Iterator["Address"]:
    app = bounded(root, max_body_bytes=MAX_BODY_BYTES)
    with servers.serving(app, request.param) as url:
        parts = urlsplit(url)
        yield Address(str(parts.hostname), parts.port or 0)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as its bytes say."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def send(self, *parts: bytes) -> bytes:
        """All bytes that come back until the server closes, which the last request asks for.

        They are sent at once, so that nothing is unread when the server closes, and lost by that.
        """
        received = bytearray()
        with socket.create_connection((self.host, self.port), servers.PATIENCE) as connection:
            connection.sendall(b"".join(parts))
            while block := connection.recv(1 << 16):
                received += block
        return bytes(received)

    def ask(self, *parts: bytes) -> list[Answered]:
        return list(answers(self.send(*parts)))


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([ -~]*)")


def answers(received: bytes) -> Iterator[Answered]:
    """The answers to GET or POST in what was received, strictly parsed."""
    while received:
        head, found, received = received.partition(b"\r\n\r\n")
        assert found, head
        status_line, *lines = head.split(b"\r\n")
        status = _STATUS_LINE.fullmatch(status_line)
        assert status is not None, status_line
        fields = []
        for line in lines:
            match = _FIELD_LINE.fullmatch(line)
            assert match is not None, line
            fields.append((match[1].lower(), match[2]))
        answer = Answered(int(status[1]), fields, b"")
        if answer.values(b"transfer-encoding") == [b"chunked"]:
            assert not answer.values(b"content-length")
            body, received = unchunked(received)
        elif lengths := answer.values(b"content-length"):
            assert len(lengths) == 1
            body, received = received[: int(lengths[0])], received[int(lengths[0]) :]
            assert len(body) == int(lengths[0])
        else:
            assert answer.values(b"connection") == [b"close"] or answer.status == 304
            body, received = received, b""
        yield Answered(answer.status, fields, body)


def unchunked(received: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, found, received = received.partition(b"\r\n")
        assert found
        length = int(size, 16)
        assert received[length : length + 2] == b"\r\n"
        body += received[:length]
        received = received[length + 2 :]
        if not length:
            return body, received


def post(*lines: bytes, body: bytes) -> bytes:
    head = b"\r\n".join((b"POST /batch HTTP/1.1", b"Host: test", *lines))
    return head + b"\r\n\r\n" + body


def chunked(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)


def check_is_not_smuggled(received: bytes, first: set[int]) -> None:
    """One answer to the first request, and then the second request's or none."""
    assert MARK not in received
    one, *others = answers(received)
    assert one.status in first
    assert [each.body for each in others] in ([], [SECOND_BODY])


JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(SMUGGLED)
TOO_MUCH = SMUGGLED.ljust(MAX_BODY_BYTES + 1, b"x")


def test_the_hidden_request_would_be_answered(server: Address) -> None:
    """And so would the second one: else nothing here could fail."""
    hidden, second = server.ask(SMUGGLED, SECOND)
    assert MARK in hidden.body
    assert (second.status, second.body) == (200, SECOND_BODY)


# No request: what is ambiguous, or malformed


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Content-Length: 0", LENGTH], id="two lengths"),
        pytest.param([LENGTH, b"Content-Length: 0"], id="two lengths, the other way round"),
        pytest.param([b"Content-Length: 0, %d" % len(SMUGGLED)], id="a list of lengths"),
        pytest.param([b"Content-Length: -1"], id="negative"),
        pytest.param([b"Content-Length: +0"], id="with a sign"),
        pytest.param([b"Content-Length: 99999999999999999999999"], id="huge"),
        pytest.param([b"Content-Length: 0x0"], id="hexadecimal"),
        pytest.param([b"Content-Length: 0 0"], id="two numbers"),
        pytest.param(["Content-Length: \u0660".encode()], id="another script's digit"),
        pytest.param([b"Content-Length: "], id="empty"),
        pytest.param([b"Content-Length : 0"], id="space before the colon"),
        pytest.param([b"Transfer-Encoding : chunked"], id="coding, space before the colon"),
        pytest.param([b"Transfer-Encoding: xchunked"], id="unknown coding"),
        pytest.param([b"Transfer-Encoding: chunked, identity"], id="chunked is not the last"),
        pytest.param([b"Transfer-Encoding: \x0bchunked"], id="coding behind a control character"),
        pytest.param([b"X-A: a\rContent-Length: 0"], id="CR in a value"),
        pytest.param([b"X-A: a\0b", b"Content-Length: 0"], id="NUL in a value"),
        pytest.param([b"X-A\0: a", b"Content-Length: 0"], id="NUL in a name"),
        pytest.param([b"X-A\r: a", b"Content-Length: 0"], id="CR in a name"),
    ],
)
def test_what_is_no_request_ends_the_connection(server: Address, lines: list[bytes]) -> None:
    received = server.send(post(JSON, *lines, body=b"0\r\n\r\n" + SMUGGLED), SECOND)
    assert MARK not in received
    assert SECOND_BODY not in received
    assert [each.status for each in answers(received)] in ([400], [501])


@pytest.mark.parametrize("size", [b"-1", b"+0", b"0x0", b"f" * 21, b"0;a\n", b" 0", b""])
def test_a_chunk_of_no_size_ends_the_connection(server: Address, size: bytes) -> None:
    received = server.send(post(JSON, CHUNKED, body=size + b"\r\n\r\n" + SMUGGLED), SECOND)
    assert MARK not in received
    assert SECOND_BODY not in received
    assert [each.status for each in answers(received)] == [400]


@pytest.mark.parametrize("char", [b"\r", b"\n", b"\0", b"\x7f", b"\t", b" "])
def test_what_no_target_holds(server: Address, char: bytes) -> None:
    """LF alone may end the line (RFC 9112 §2.2): the rest is then a field, and no request."""
    target = b"/nothing" + char + SMUGGLED.partition(b" HTTP")[0]
    received = server.send(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % target, SECOND)
    check_is_not_smuggled(received, {400, 404})


# Requests with bodies


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        pytest.param([b"Transfer-Encoding:\r\n chunked"], chunked(SMUGGLED), id="folded coding"),
        pytest.param([b"X-A: a\r\n b", LENGTH], SMUGGLED, id="a folded line before the length"),
        pytest.param([b"X-A: a\n" + LENGTH], SMUGGLED, id="a bare LF before the length"),
        pytest.param([LENGTH], SMUGGLED, id="a length"),
        pytest.param([CHUNKED], chunked(SMUGGLED), id="chunks"),
    ],
)
def test_a_body_is_no_request(server: Address, lines: list[bytes], body: bytes) -> None:
    """What was read of the batch is no JSON; where the request is refused, it is the last one."""
    received = server.send(post(JSON, *lines, body=body), SECOND)
    check_is_not_smuggled(received, {400, 422})


@pytest.mark.parametrize("size", [3, 5 + len(SMUGGLED)])
@pytest.mark.parametrize("is_first", [True, False], ids=["length first", "coding first"])
def test_a_length_beside_chunks_ends_the_connection(
    server: Address, size: int, is_first: bool, request: pytest.FixtureRequest
) -> None:
    """A proxy that believes the length sends the hidden request as a part of the body."""
    lines = [b"Content-Length: %d" % size, CHUNKED]
    body = b"0\r\n\r\n" + SMUGGLED if size > 3 else chunked(SMUGGLED)
    received = server.send(post(JSON, *lines[:: 1 if is_first else -1], body=body), SECOND)
    assert MARK not in received
    assert SECOND_BODY not in received
    # Which may break off in the middle of the refusal, if there is something left to read.
    if request.node.callspec.params["server"] != "hypercorn-trio":
        check_is_not_smuggled(received, {400})


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        pytest.param([b"Content-Type: text/plain", LENGTH], SMUGGLED, 415, id="415"),
        pytest.param([b"Content-Type: a/b", CHUNKED], chunked(SMUGGLED), 415, id="415 in chunks"),
        pytest.param([JSON, b"Content-Length: %d" % len(TOO_MUCH)], TOO_MUCH, 413, id="413"),
        pytest.param([JSON, CHUNKED], chunked(TOO_MUCH), 413, id="413 in chunks"),
    ],
)
def test_a_body_that_is_not_read_is_no_request(
    server: Address, lines: list[bytes], body: bytes, status: int
) -> None:
    check_is_not_smuggled(server.send(post(*lines, body=body), SECOND), {status})


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
@pytest.mark.parametrize("target", [b"/meta?file=x.h5", b"/file?file=x.h5", b"/nothing"])
def test_the_body_of_what_has_none(server: Address, method: bytes, target: bytes) -> None:
    head = b"%s %s HTTP/1.1\r\nHost: test\r\n%s\r\n\r\n" % (method, target, LENGTH)
    received = server.send(head + SMUGGLED, SECOND)
    assert MARK not in received
    # One head, or two; the second is that of the second request's answer.
    count = len(re.findall(rb"HTTP/1\.1 \d\d\d ", received))
    assert count == 2 if received.endswith(SECOND_BODY) else count == 1


# Names in answers

NAMES = {
    "CR LF": b"a\r\nset-cookie: b",
    "an answer": b"a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "LF": b"a\nset-cookie: b",
    "CR": b"a\rset-cookie: b",
    "quotes": b'a"; filename="b',
    "CR LF in the low bytes": "a\u010d\u010aset-cookie: b".encode(),
    "not ASCII": "ä€\u2028\x85b".encode(),
    "not UTF-8": b"\xff\r\nset-cookie: b",
}
QUERIES = [
    pytest.param("/data?file=%s", 404, id="a file"),
    pytest.param("/file?file=%s", 404, id="a whole file"),
    pytest.param("/files?dir=%s", 404, id="a directory"),
    pytest.param("/files?after=%s", 422, id="a cursor"),
    pytest.param("/meta?file=x.h5&path=%s", 404, id="a path"),
    pytest.param("/data?file=x.h5&path=second&format=%s", 422, id="a format"),
    pytest.param("/data?file=x.h5&path=second&selection=%s", 422, id="a selection"),
    pytest.param("/attr?file=x.h5&attr_keys=%s", 404, id="an attribute"),
    pytest.param("/paths?file=x.h5&resolve_links=%s", 422, id="a choice"),
    pytest.param("/nothing/%s", 404, id="a route"),
]
FIELDS = {
    *(b"content-type", b"content-length", b"content-disposition", b"cache-control", b"etag"),
    *(b"last-modified", b"accept-ranges", b"server-timing", b"date", b"server"),
    *(b"connection", b"retry-after", b"x-content-type-options"),
}


def one_answer(server: Address, target: str) -> Answered:
    """The only one to a GET, with no field but those that are sent on purpose."""
    line = f"GET {target} HTTP/1.1".encode()
    [answer] = server.ask(line + b"\r\nHost: test\r\nConnection: close\r\n\r\n")
    names = [name for name, _ in answer.fields if name != b"vary"]
    assert {*names} <= FIELDS
    assert len(names) == len({*names})
    return answer


@pytest.mark.parametrize(("query", "status"), QUERIES)
def test_messages_add_no_field(server: Address, query: str, status: int) -> None:
    for name in NAMES.values():
        answer = one_answer(server, query % quote_from_bytes(name, safe=""))
        assert answer.status == status, name
        assert answer.values(b"content-type") == [b"application/json"]
        assert orjson.loads(answer.body).keys() - {"errors"} == {"message"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("format_", ["npy", "csv", "bin"])
def test_names_of_datasets_add_no_field(server: Address, format_: str, name: bytes) -> None:
    path = quote_from_bytes(b"/names/" + name, safe="")
    answer = one_answer(server, f"/data?file=x.h5&path={path}&format={format_}")
    assert answer.status == 200
    disposition = b"; ".join(answer.values(b"content-disposition")).decode()
    if format_ != "bin":
        assert disposition.startswith("attachment; filename=")
    # Two quotes, or none: what the name has of its own is not among them.
    assert disposition.count('"') in {0, 2}
