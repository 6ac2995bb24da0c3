"""What the clients ask, and whether the answers are true."""

import time
import zlib
from collections.abc import Callable
from urllib.parse import urlencode

import numpy as np
import orjson

from benchmarks.soak.clients import BROKEN, Answer, Client, Wrong
from benchmarks.soak.files import BIG_SHAPE, SHAPE, SMALL, content

Read = Callable[[Answer], set[int]]


def _numbers(answer: Answer, dtype: str, count: int) -> set[int]:
    values = np.frombuffer(answer.body, dtype)
    if values.size != count:
        raise Wrong(f"{values.size} values, and not {count}")
    return set(np.unique(values).tolist())


def _in_group(answer: Answer) -> set[int]:
    """Its only child has the version in its name and its length."""
    [child] = answer.json["children"]
    length = child["shape"][0]
    return {int(child["name"].rpartition("_")[2]), length // 100 if length % 100 == 0 else -9}


def _in_statistics(answer: Answer) -> set[int]:
    return {int(answer.json[name]) for name in ("min", "max", "mean")}


def _in_histogram(answer: Answer) -> set[int]:
    found = answer.json
    filled = [bin_ for bin_, count in enumerate(found["counts"]) if count]
    if sum(found["counts"]) != SHAPE[0] * SHAPE[1]:
        raise Wrong(f"{sum(found['counts'])} values in a histogram of {SHAPE}")
    return set(filled)


# Route, parameters, and which versions an answer shows: one, when all is well.
_ASKED: dict[str, tuple[str, dict[str, str], Read]] = {
    "meta": ("/meta", {"path": "/group"}, _in_group),
    "attr": ("/attr", {}, lambda answer: {answer.json["version"]}),
    "paths": (
        "/paths",
        {"path": "group"},
        lambda answer: {int(answer.json[1].rpartition("_")[2])},
    ),
    "json": ("/data", {"path": "small"}, lambda answer: set(answer.json)),
    "bin, one chunk": (
        "/data",
        {"path": "chunked", "format": "bin", "selection": "3"},
        lambda answer: _numbers(answer, "u1", SHAPE[1]),
    ),
    "bin, chunked": (
        "/data",
        {"path": "chunked", "format": "bin"},
        lambda answer: _numbers(answer, "u1", SHAPE[0] * SHAPE[1]),
    ),
    "bin, contiguous": (
        "/data",
        {"path": "contiguous", "format": "bin"},
        lambda answer: _numbers(answer, "u1", SHAPE[0] * SHAPE[1]),
    ),
    "npy": (
        "/data",
        {"path": "small", "format": "npy"},
        lambda answer: set(np.frombuffer(answer.body[-4 * SMALL :], "<i4").tolist()),
    ),
    "stats": ("/stats", {"path": "contiguous"}, _in_statistics),
    "histogram": (
        "/histogram",
        {"path": "chunked", "bins": "256", "range": "0,256"},
        _in_histogram,
    ),
    "view": (
        "/data",
        {"path": "chunked", "max_points": "64", "method": "max", "format": "bin"},
        lambda answer: set(np.frombuffer(answer.body, "u1").tolist()),
    ),
}


def ask_about_a_file(client: Client, kind: str) -> None:
    """One of `_ASKED`, of any file, in any of the ways in which a client may ask."""
    route, query, read = _ASKED[kind]
    name = client.chance.choice(client.folder.names)
    target = f"{route}?{urlencode({'file': name, **query})}"
    headers = {}
    known = client.tags.get(target)
    if known is not None and client.chance.random() < 0.4:
        headers["If-None-Match"] = known[0]
    if client.chance.random() < 0.3:
        headers["Accept-Encoding"] = "gzip"
    answer = _asked(client, kind, name, target, headers)
    if answer is None:
        return
    if answer.status == 304:
        if known is None:
            raise Wrong(f"304 of {target}, which was not asked for")
        _check(client, name, {known[1]}, answer)
    else:
        shown = read(answer)
        _check(client, name, shown, answer)
        if "etag" in answer.headers:
            client.tags[target] = (answer.headers["etag"], shown.pop())


def ask_for_a_file(client: Client, kind: str) -> None:
    """The file itself, whole, a range of it, or its headers alone."""
    name = client.chance.choice(client.folder.names)
    target, method = f"/file?{urlencode({'file': name})}", "GET"
    headers = {}
    start = client.chance.randrange(200_000)
    if kind == "file, a range":
        headers["Range"] = f"bytes={start}-{start + 99_999}"
    elif kind == "file, HEAD":
        method = "HEAD"
    answer = _asked(client, kind, name, target, headers, method=method)
    if answer is None:
        return
    there = client.folder.versions(name, answer.began, answer.ended)
    sound = [content(each) for each in there if each > 0]
    if method == "HEAD":
        is_true = int(answer.headers["content-length"]) in map(len, sound)
    elif answer.status == 206:
        is_true = answer.body in {each[start : start + 100_000] for each in sound}
    else:
        is_true = answer.body in sound
    # A file that is cut off is a file as well, unless it does not even have its signature.
    if not is_true and not client.folder.excuses(name, 422, answer.began, answer.ended):
        raise Wrong(f"{len(answer.body)} bytes of {name} that it never was; it was {there}")


def ask_for_many(client: Client, kind: str) -> None:
    """A batch: attributes of all files, each with its own status."""
    names = client.folder.names
    asked = [{"route": "attr", "params": {"file": name}} for name in names]
    began = time.monotonic()
    try:
        headers = {"Content-Type": "application/json"}
        answer = client.ask("/batch", headers, method="POST", body=orjson.dumps(asked))
    except BROKEN as error:
        _broken(client, kind, None, began, error)
        return
    client.record.add(kind, str(answer.status), answer.ended - began, len(answer.body))
    if answer.status != 200:
        raise Wrong(f"a batch is {answer.status}: {answer.message}")
    for name, each in zip(names, answer.json, strict=True):
        if each["status"] == 200:
            _check(client, name, {each["body"]["version"]}, answer)
        elif not client.folder.excuses(name, each["status"], answer.began, answer.ended):
            raise Wrong(f"{each} of {name} in a batch")


def list_files(client: Client, kind: str) -> None:
    """The directory: what does not change is there, as large as it is."""
    answer = _asked(client, kind, None, "/files")
    if answer is None:
        return
    sizes = {each["name"]: each["size"] for each in answer.json["entries"]}
    for name in client.folder.steady:
        [version] = client.folder.versions(name, answer.began, answer.ended)
        if sizes.get(name) != len(content(version)):
            raise Wrong(f"{name} is listed as {sizes.get(name)} bytes")
    if unknown := sizes.keys() - {*client.folder.names, "big.h5"}:
        raise Wrong(f"files that are not there: {unknown}")


def ask_for_health(client: Client, kind: str) -> None:
    """Whether it is well, and what it counts."""
    for target in ("/health", "/metrics"):
        _asked(client, kind, None, target)


def leave(client: Client, kind: str) -> None:
    """In the middle of a long answer."""
    target = f"/data?{urlencode({'file': 'big.h5', 'path': 'rows', 'format': 'bin'})}"
    began = time.monotonic()
    most, pause = client.chance.choice(((1, 0.0), (1 << 20, 0.0), (1 << 19, 0.02)))
    try:
        client.leave_in_the_middle(target, most, pause)
    except OSError as error:
        if not client.record.killed(began, time.monotonic()):
            raise Wrong(f"{type(error).__name__}: {error}") from None
    client.record.add(kind, "left", time.monotonic() - began)


def download(client: Client, kind: str) -> None:
    """All of the big file's values."""
    query = {"file": "big.h5", "path": "rows", "format": "bin"}
    answer = _asked(client, kind, None, f"/data?{urlencode(query)}")
    if answer is not None and zlib.crc32(answer.body) != _BIG_CHECKSUM:
        raise Wrong(f"other bytes, {len(answer.body)} of them")


_BIG_CHECKSUM = 0
for _row in range(BIG_SHAPE[0]):
    _BIG_CHECKSUM = zlib.crc32(bytes([_row]) * BIG_SHAPE[1], _BIG_CHECKSUM)

# How often each is asked, beside the others.
QUESTIONS: dict[str, tuple[int, Callable[[Client, str], None]]] = {
    **dict.fromkeys(_ASKED, (10, ask_about_a_file)),
    "file": (3, ask_for_a_file),
    "file, a range": (6, ask_for_a_file),
    "file, HEAD": (6, ask_for_a_file),
    "batch": (4, ask_for_many),
    "files": (4, list_files),
    "health": (2, ask_for_health),
    "leave": (4, leave),
    "download": (1, download),
}


def _asked(  # noqa: PLR0913  # what is asked, and the file
    client: Client,
    kind: str,
    name: str | None,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
) -> Answer | None:
    """A good answer; None of an error, or of none, that there is a reason for.

    Raises:
        Wrong: there is no reason for it.
    """
    began = time.monotonic()
    try:
        answer = client.ask(target, headers, method=method)
    except BROKEN as error:
        _broken(client, kind, name, began, error)
        return None
    client.record.add(kind, str(answer.status), answer.ended - began, len(answer.body))
    if answer.status in {200, 206, 304}:
        return answer
    message = "" if method == "HEAD" else answer.message
    if name is None or not client.folder.excuses(name, answer.status, began, answer.ended):
        raise Wrong(f"{answer.status} of {target}: {message}")
    return None


def _broken(
    client: Client, kind: str, name: str | None, began: float, error: BaseException
) -> None:
    """Raises Wrong: neither a change of the file nor the end of the worker explains it."""
    ended = time.monotonic()
    client.record.add(kind, "broken off", ended - began)
    changed = name is not None and client.folder.excuses(name, 503, began, ended)
    if not changed and not client.was_killed(ended):
        raise Wrong(f"{type(error).__name__}: {error} ({name})")


def _check(client: Client, name: str, shown: set[int], answer: Answer) -> None:
    there = client.folder.versions(name, answer.began, answer.ended)
    if len(shown) != 1 or not shown <= there:
        raise Wrong(f"version {shown} of {name}, which was {there}")
