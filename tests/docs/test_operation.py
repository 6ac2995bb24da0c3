"""The page about operation: its code is run, its tables and files are compared with the code."""

import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from asgihive import cli
from asgihive.cli import options
from asgihive.cli.options import ServerOptions
from asgihive.concurrency import STAGES
from asgihive.service.access_log import AccessEntry, JSONFormatter
from asgihive.service.operations import TIMEOUT_SECONDS, Instruments
from asgihive.settings import H5Settings, describe_settings
from tests.docs.page import Page

PAGE = Page("docs/operation.md", ("python", "console", "toml", "json"))
DEPLOYMENT = Path(__file__).parents[2] / "examples" / "deployment"

TRACED = """
import anyio, httpx, json
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from traced import app, provider

kept = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(kept))
TRACE = "0af7651916cd43dd8448eb211c80319c"

async def check():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for secret, status in (("open-sesame", 200), ("open-sesame-street", 401)):
            answer = await client.get(
                "/data?file=x.h5&path=/values&token=" + secret,
                headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
            )
            assert answer.status_code == status, answer.text

anyio.run(check)
spans = kept.get_finished_spans()
assert len(spans) == 2, spans
for span, status in zip(spans, (200, 401)):
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.resource.attributes["service.name"] == "asgihive"
    assert status in span.attributes.values(), span.attributes
    text = span.to_json()
    assert "sesame" not in text and "token=***" in text, text
"""

LOGGED = """
import anyio, httpx
from logged import app

async def check():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/data?file=x.h5&path=/values&token=open-sesame")

anyio.run(check)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PAGE.write_files(tmp_path)
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "x.h5", "w") as file:
        file["values"] = [1, 2, 3]
    return tmp_path


def printed(folder: Path, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "ASGIHIVE_TOKEN": "open-sesame"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_traces(folder: Path) -> None:
    pytest.importorskip("opentelemetry.instrumentation.asgi")
    pytest.importorskip("opentelemetry.sdk")
    assert "sesame" not in printed(folder, TRACED)


def test_logs_of_an_application_of_ones_own(folder: Path) -> None:
    entry = json.loads(printed(folder, LOGGED))
    assert (entry["path"], entry["status"]) == ("/data", 200)
    assert entry["query"] == "file=x.h5&path=/values&token=***"


def test_the_fields_of_a_line() -> None:
    (block,) = PAGE.blocks("json")
    stated = json.loads(block)
    entry = AccessEntry(
        *("-", "GET", "/", "", "1.1", 200, 0, 0.0), is_complete=True, timings={"queue": 0.1}
    )
    record = logging.LogRecord("asgihive.access", logging.INFO, "", 0, "%s", (entry,), None)
    record.__dict__["access"] = entry
    assert json.loads(JSONFormatter().format(record)).keys() == stated.keys()


def test_the_commands_and_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps(str(folder / "data"))
    (toml,) = PAGE.blocks("toml")
    (folder / "asgihive.toml").write_text(toml.replace('"/data"', data))
    monkeypatch.chdir(folder)
    lines = [each.line for session in PAGE.sessions() for each in session]
    read = []
    for line in lines:
        program, *words = shlex.split(line.replace(" /data ", f" {data} "))
        if program == "asgihive":
            read.append(options.read_options(cli.parse_arguments(words)).server)
    assert [each.workers for each in read] == [8, 1, 1]
    assert [each.uds for each in read] == ["/run/asgihive/socket", "/run/asgihive/socket", None]
    assert [line for line in lines if not line.startswith("asgihive ")] == [
        "uvicorn logged:app --no-access-log"
    ]


def test_the_settings() -> None:
    rows = PAGE.table("| setting | default | |")
    settings = describe_settings(H5Settings)
    assert [name for name, _, _ in rows] == list(settings)
    for name, default, description in rows:
        setting = settings[name]
        assert description == setting.description
        if default and default != "the cores":
            assert setting.read(default) == setting.default
        else:
            assert setting.default in {None, ()} or name == "decode_lanes"


def test_the_metrics() -> None:
    rows = PAGE.table("| metric | labels | |")
    stated = {name.removesuffix("_total"): labels for name, labels, _ in rows}
    found = {}
    for instrument in vars(Instruments()).values():
        for family in getattr(instrument, "describe", list)():
            found[family.name] = ", ".join(instrument._labelnames)
    assert stated == found


def test_what_the_page_says_of_defaults_stages_and_files() -> None:
    text = PAGE.text
    assert f"`--graceful-seconds`\n({ServerOptions().graceful_seconds})" in text
    assert f"within {TIMEOUT_SECONDS:g} seconds" in text
    for stage in STAGES:
        assert f"`{stage}`" in text
    for each in ("", "/nginx.conf"):
        assert f"(../examples/deployment{each})" in text
        assert Path(f"{DEPLOYMENT}{each}").exists()
