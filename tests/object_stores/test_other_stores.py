"""Google's and Azure's protocols, as their emulators speak them, beside a directory.

`npm install azurite` has the one, and `fake-gcs-server` is one program, of which there are releases
and a wheel. Each is searched on the PATH, or by a variable; without it, its tests are skipped.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import anyio.to_thread
import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from benchmarks.peers.programs import find_free_port
from benchmarks.servers import process, wait_until_answering
from tests import zoo
from tests.object_stores.test_reading import make_file
from tests.object_stores.test_zoo import compare, list_questions
from tests.service.asking import ask

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# Of Azurite, which publishes it.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
FILES = ("layouts.h5", "links.h5", "names.h5")


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running one; `put` writes an object of its only bucket."""

    url: str
    put: Callable[[str, bytes], None]


def find_program(variable: str, *names: str) -> str:
    """The first of some programs that is installed, or that a variable names."""
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no {names[0]} on the PATH, nor does {variable} name one")
    return found


def send(method: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    with urllib.request.urlopen(
        urllib.request.Request(url, body, headers, method=method), timeout=30
    ):
        pass


@contextmanager
def running_gcs(patch: pytest.MonkeyPatch, _folder: Path) -> Iterator[Emulator]:
    program = find_program("ASGIHIVE_TEST_FAKE_GCS_SERVER", "fake-gcs-server")
    port = find_free_port()
    base = f"http://127.0.0.1:{port}"
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command = [program, *options, "-external-url", base, "-public-host", base.partition("//")[2]]
    patch.setenv("GOOGLE_BASE_URL", base)
    patch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    kind = {"Content-Type": "application/json"}

    def put(key: str, body: bytes) -> None:
        target = f"{base}/upload/storage/v1/b/zoo/o?uploadType=media&name={quote(key, safe='')}"
        send("POST", target, body, {"Content-Type": "application/octet-stream"})

    with process(command, {}, quiet=True) as started:
        wait_until_answering("fake-gcs-server", started, port)
        send("POST", f"{base}/storage/v1/b?project=p", json.dumps({"name": "zoo"}).encode(), kind)
        yield Emulator("gs://zoo/served", put)


@contextmanager
def running_azure(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[Emulator]:
    program = find_program("ASGIHIVE_TEST_AZURITE", "azurite-blob")
    port = find_free_port()
    base = f"http://127.0.0.1:{port}/{ACCOUNT}"
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    command = [program, *place, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": base,
    }.items():
        patch.setenv(name, value)

    def call(path: str, body: bytes, query: str = "", **fields: str) -> None:
        """Send what is signed as Azure's "Shared Key" is."""
        given = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06", **fields}
        named = "".join(f"{name}:{given[name]}\n" for name in sorted(given))
        asked = f"/{ACCOUNT}/{ACCOUNT}{path}" + (query and f"\n{query.replace('=', ':')}")
        kind, length = "application/octet-stream", str(len(body) or "")
        text = f"PUT\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n{named}{asked}"
        signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        secret = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        target = f"{base}{path}" + (query and f"?{query}")
        headers = {**given, "Content-Type": kind, "Authorization": secret}
        send("PUT", target, body, headers)

    def put(key: str, body: bytes) -> None:
        call(f"/zoo/{quote(key)}", body, **{"x-ms-blob-type": "BlockBlob"})

    with process(command, {}, quiet=True) as started:
        wait_until_answering("azurite-blob", started, port)
        call("/zoo", b"", "restype=container")
        yield Emulator("az://zoo/served", put)


@pytest.fixture(scope="module", params=[running_gcs, running_azure], ids=["gs", "az"])
def emulator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    with (
        pytest.MonkeyPatch.context() as patch,
        request.param(patch, tmp_path_factory.mktemp("emulator")) as emulator,
    ):
        yield emulator


def put_all(emulator: Emulator, root: Path) -> None:
    for each in root.rglob("*"):
        if each.is_file():
            emulator.put(f"served/{each.relative_to(root).as_posix()}", each.read_bytes())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("zoo")
    zoo.build(root)
    return root


async def test_answers_are_those_of_a_directory(emulator: Emulator, root: Path) -> None:
    await anyio.to_thread.run_sync(put_all, emulator, root)
    stored, local = H5App(emulator.url), H5App(root)
    for file in FILES:
        await compare(stored, local, list_questions(root, file, 60))
    here, there = [(await ask(app, "/files")).json["entries"] for app in (local, stored)]
    assert [each["file"] for each in here] == [each["file"] for each in there]
    assert (await ask(stored, "/meta", file="none.h5")).status == 404


async def test_a_replaced_file_is_noticed(emulator: Emulator) -> None:
    emulator.put("served/x.h5", make_file(values=[1, 2, 3]))
    emulator.put("served/empty.h5", b"")
    app = H5App(emulator.url, H5Settings(store_identity_seconds=0))
    first = await ask(app, "/data", path="/values")
    again = await ask(app, "/data", {"If-None-Match": first.headers["etag"]}, path="/values")
    assert (first.json, again.status) == ([1, 2, 3], 304)
    emulator.put("served/x.h5", make_file(values=[4, 5, 6]))
    assert (await ask(app, "/data", path="/values")).json == [4, 5, 6]
    assert (await ask(app, "/meta", file="empty.h5")).status == 422
