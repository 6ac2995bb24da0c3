"""zarrita.js, installed by npm once, and what runs it: Node, and Chromium without a window."""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

VERSION = "0.7.5"
PATIENCE = 60.0  # seconds

SCRIPT = Path(__file__).with_name("read_arrays.mjs")

NODE = shutil.which("node")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _BROWSERS)), None)

_IMPORTS = {
    "zarrita": "zarrita/dist/src/index.js",
    "@zarrita/storage": "@zarrita/storage/dist/src/index.js",
    "@zarrita/storage/": "@zarrita/storage/dist/src/",
    "@zarrita/storage/fetch": "@zarrita/storage/dist/src/fetch.js",
    "fflate": "fflate/esm/browser.js",
    "reference-spec-reader": "reference-spec-reader/src/index.js",
    "unzipit": "unzipit/dist/unzipit.module.js",
    "numcodecs": "numcodecs/dist/index.js",
    **{f"numcodecs/{each}": f"numcodecs/dist/{each}.js" for each in ("blosc", "lz4", "zstd")},
}
"""Where a browser finds what modules name; Node knows by itself."""


def install_zarrita() -> Path:
    """Return a directory with `node_modules`, kept for the next run; skip where there is none."""
    npm = shutil.which("npm")
    if NODE is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    place = Path(tempfile.gettempdir()) / f"asgihive-zarrita-{VERSION}-{os.getuid()}"
    if not place.exists():
        fresh = Path(tempfile.mkdtemp(prefix="asgihive-zarrita-"))
        command = [npm, "install", "--no-audit", "--no-fund", f"zarrita@{VERSION}"]
        done = subprocess.run(
            command, cwd=fresh, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            shutil.rmtree(fresh)
            pytest.skip(f"npm cannot install zarrita: {done.stderr[-200:]}")
        try:
            fresh.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return place


def run_in_node(place: Path, call: str) -> Any:
    """Return what an expression of `zarr`, `readArrays` and `listNodes` becomes."""
    assert NODE is not None
    modules = json.dumps((place / "node_modules" / _IMPORTS["zarrita"]).as_uri())
    code = (
        f"import * as zarr from {modules};\n"
        f"import {{ readArrays, listNodes }} from {json.dumps(SCRIPT.as_uri())};\n"
        f"console.log(JSON.stringify(await {call}));\n"
    )
    done = subprocess.run(
        [NODE, "--input-type=module", "-"],
        input=code,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_in_browser(place: Path, call: str) -> Any:
    """As `run_in_node`, by a page of an origin of its own."""
    assert CHROMIUM is not None
    with (
        _serving_page(place, call) as (url, results),
        tempfile.TemporaryDirectory(prefix="chromium-") as profile,
    ):
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={profile}", url]
        with subprocess.Popen(
            [CHROMIUM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                return results.get(timeout=PATIENCE)
            finally:
                browser.terminate()
                browser.wait(PATIENCE)


@contextmanager
def _serving_page(place: Path, call: str) -> Iterator[tuple[str, "queue.Queue[Any]"]]:
    """The URL of a page that runs `call`, and a queue with what it finds."""
    imports = {name: f"/node_modules/{path}" for name, path in _IMPORTS.items()}
    page = (
        f'<script type="importmap">{json.dumps({"imports": imports})}</script>\n'
        '<script type="module">\n'
        "const tell = (found) =>\n"
        '  fetch("/found", { method: "POST", body: JSON.stringify(found) });\n'
        "try {\n"
        '  const zarr = await import("zarrita");\n'
        '  const { readArrays, listNodes } = await import("/read_arrays.mjs");\n'
        f"  await tell(await {call});\n"
        "} catch (error) { await tell(`${error}`); }\n"
        "</script>"
    )
    results: queue.Queue[Any] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        extensions_map = {".js": "text/javascript", ".mjs": "text/javascript"}  # noqa: RUF012

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(place))

        def do_GET(self) -> None:  # as the library has it
            if self.path == "/page":
                self._answer("text/html", page.encode())
            elif self.path == f"/{SCRIPT.name}":
                self._answer("text/javascript", SCRIPT.read_bytes())
            else:
                super().do_GET()

        def do_POST(self) -> None:  # as above
            length = int(self.headers["content-length"])
            results.put(json.loads(self.rfile.read(length)))
            self._answer("text/plain", b"")

        def _answer(self, media_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/page", results
        finally:
            server.shutdown()
            thread.join()
