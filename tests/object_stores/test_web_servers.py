"""Files of plain web servers, which list nothing, with and without a list beside them."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np
import pytest

from asgihive.errors import StoreUnlisted
from asgihive.object_stores.listing_file import parse_listing
from asgihive.service import H5App
from asgihive.settings import H5Settings
from benchmarks.peers.nginx import find_user
from benchmarks.peers.programs import find_free_port
from benchmarks.servers import process, wait_until_answering
from tests.service.asking import ask

pytestmark = pytest.mark.anyio

LIST = "asgihive-files.jsonl"
VALUES = np.random.default_rng(3).integers(0, 1 << 12, (6, 64, 512), "u2")


class Plain(SimpleHTTPRequestHandler):
    """Python's own, which sends whole files alone."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Ranged(Plain):
    """The same, with ranges and entity-tags as web servers have them."""

    def do_GET(self) -> None:
        """Answer with a part of a file where one is asked for."""
        file = Path(self.translate_path(self.path))
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or not file.is_file():
            return super().do_GET()
        content, status = file.read_bytes(), file.stat()
        first, last = int(found[1]), min(int(found[2]), len(content) - 1)
        tag = f'"{status.st_mtime_ns:x}-{len(content):x}"'
        if self.headers.get("If-Match") not in {None, tag}:
            return self.send_error(412)
        if first >= len(content):
            return self.send_error(416)
        self.send_response(206)
        for name, value in {
            "ETag": tag,
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Content-Range": f"bytes {first}-{last}/{len(content)}",
            "Content-Length": str(last - first + 1),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[first : last + 1])
        return None


class WebDav(Ranged):
    """The same, which lists folders as RFC 4918 says, itself first."""

    def do_PROPFIND(self) -> None:  # as the base names them
        """Tell of a folder and what is in it."""
        folder = Path(self.translate_path(self.path))
        if not folder.is_dir():
            return self.send_error(404)
        answers = []
        for each in (folder, *sorted(folder.iterdir())):
            path = "/" + each.relative_to(Path(self.directory)).as_posix()
            kind = "<D:collection/>" if each.is_dir() else ""
            told = (
                f"<D:getcontentlength>{each.stat().st_size}</D:getcontentlength>"
                f"<D:getlastmodified>{formatdate(each.stat().st_mtime, usegmt=True)}"
                f"</D:getlastmodified><D:resourcetype>{kind}</D:resourcetype>"
            )
            answers.append(
                f"<D:response><D:href>{quote(path)}{'/' if kind else ''}</D:href><D:propstat>"
                f"<D:prop>{told}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
                "</D:response>"
            )
        body = f'<D:multistatus xmlns:D="DAV:">{"".join(answers)}</D:multistatus>'.encode()
        self.send_response(207)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None


@contextmanager
def serving(root: Path, handler: type[Plain]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


NGINX = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def serving_by_nginx(root: Path, folder: Path) -> Iterator[str]:
    program, port = shutil.which("nginx"), find_free_port()
    if program is None:
        pytest.skip("nginx is not installed")
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, root=root, port=port, user=find_user()))
    for each in (root, *root.parents[:2]):
        each.chmod(0o755)
    with process([program, "-p", str(folder), "-e", "stderr", "-c", str(file)], {}) as started:
        wait_until_answering("nginx", started, port)
        yield f"http://127.0.0.1:{port}/data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a web server shows: `data`, which is served here, and a secret beside it."""
    root = tmp_path / "www"
    (root / "data" / "scans").mkdir(parents=True)
    for name in ("data/scans/a b.h5", "data/x.h5", "secret.h5"):
        with h5py.File(root / name, "w") as file:
            file.create_dataset("values", data=VALUES, chunks=(1, 64, 512), compression="gzip")
    (root / "data" / "note.txt").write_text("text")
    return root


@pytest.fixture(params=["python", "nginx"])
def url(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[str]:
    """Of the served prefix, by one server and another."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    server = serving(root, Ranged) if request.param == "python" else serving_by_nginx(root, folder)
    with server as url:
        yield url


def write_list(root: Path) -> None:
    """As docs/object-stores.md says."""
    command = 'find . -type f -printf \'{"name":"%P","size":%s,"modified":%T@}\\n\''
    listed = subprocess.run(
        ["sh", "-c", command], cwd=root / "data", capture_output=True, check=True
    ).stdout
    (root / "data" / LIST).write_bytes(listed)


async def test_files_are_listed_by_the_list_beside_them(url: str, root: Path) -> None:
    write_list(root)
    app = H5App(url)
    listed = (await ask(app, "/files")).json
    assert [(each["file"], each["kind"], each["size"]) for each in listed["entries"]] == [
        ("note.txt", "file", 4),
        ("scans", "directory", None),
        ("x.h5", "hdf5", (root / "data/x.h5").stat().st_size),
    ]
    found = (await ask(app, "/files", recursive="true", search="a b")).json["entries"]
    assert [each["file"] for each in found] == ["scans/a b.h5"]
    read = await ask(app, "/data", file=found[0]["file"], path="/values", format="bin")
    assert read.body == VALUES.tobytes()
    assert (await ask(app, "/health")).status == 200
    assert (await ask(app, "/files", dir="nowhere")).status == 404


async def test_without_a_list_files_are_read_by_their_names(url: str) -> None:
    app = H5App(url)
    answer = await ask(app, "/files")
    assert answer.status == 501
    assert answer.message == (
        "The object store cannot be listed: it does not speak WebDAV, and has no " + LIST
    )
    read = await ask(app, "/data", path="/values", selection="4", format="bin")
    assert read.body == VALUES[4].tobytes()
    assert (await ask(app, "/meta", file="../secret.h5")).status == 404
    assert (await ask(app, "/meta", file="none.h5")).status == 404
    assert (await ask(app, "/health")).status == 200


async def test_a_list_that_appears_or_changes_is_seen(url: str, root: Path) -> None:
    app = H5App(url, H5Settings(store_identity_seconds=0))
    assert (await ask(app, "/files")).status == 501
    write_list(root)
    assert len((await ask(app, "/files")).json["entries"]) == 3
    (root / "data" / LIST).write_text('{"name": "x.h5", "size": 1}\n')
    assert len((await ask(app, "/files")).json["entries"]) == 1


async def test_a_server_that_speaks_webdav_is_listed(root: Path) -> None:
    (root / "data" / "scans" / "data").mkdir()
    with serving(root, WebDav) as url:
        app = H5App(url)
        for folder, names in (
            ("", ["note.txt", "scans", "x.h5"]),
            ("scans", ["a b.h5", "data"]),
            ("scans/data", []),
        ):
            listed = (await ask(app, "/files", dir=folder)).json["entries"]
            assert [each["name"] for each in listed] == names
        found = (await ask(app, "/files", recursive="true", search=".h5")).json["entries"]
        assert [each["file"] for each in found] == ["scans/a b.h5", "x.h5"]
        assert (await ask(app, "/files", dir="nowhere")).status == 404


async def test_another_name_of_the_list(root: Path) -> None:
    write_list(root)
    (root / "data" / LIST).rename(root / "data" / "index")
    with serving(root, Ranged) as url:
        assert (await ask(H5App(url), "/files")).status == 501
        named = H5App(url, H5Settings(store_listing_file="index"))
        assert len((await ask(named, "/files")).json["entries"]) == 3
        none = H5App(url, H5Settings(store_listing_file=""))
        assert (await ask(none, "/files")).message.endswith("it does not speak WebDAV")


async def test_a_server_without_ranges_says_so(root: Path) -> None:
    with serving(root, Plain) as url:
        answer = await ask(H5App(url, H5Settings(store_retries=0)), "/meta")
    assert answer.status == 503
    assert "does not send parts of files" in answer.message


def line(**fields: Any) -> bytes:
    return json.dumps({"name": "x.h5", "size": 1, **fields}).encode()


@pytest.mark.parametrize(
    "bad",
    [
        *(b"x.h5", b"[]", b"{", b"\xff", b'{"name": "x.h5"}', line(size="1"), line(size=-1)),
        *(line(name=each) for each in ("", "/x.h5", "../x.h5", "a/../x.h5", "a//x", "a/", "x\0")),
        *(line(name="a/" * 100 + "x"), line(modified=1e300), line(modified="yesterday")),
    ],
)
def test_a_list_that_says_nothing_names_the_line(bad: bytes) -> None:
    with pytest.raises(StoreUnlisted, match=f"line 3 of {LIST}"):
        parse_listing(line(name="good.h5") + b"\n\n" + bad, LIST)


def test_folders_of_a_list() -> None:
    body = b"\n".join(line(name=each) for each in ("a/b/c.h5", "a/d.h5", "e.h5", LIST))
    listed = parse_listing(body, LIST)
    assert {
        path: (found[0], [each["path"] for each in found[1]]) for path, found in listed.items()
    } == {
        "": (["a"], ["e.h5"]),
        "a": (["a/b"], ["a/d.h5"]),
        "a/b": ([], ["a/b/c.h5"]),
    }
