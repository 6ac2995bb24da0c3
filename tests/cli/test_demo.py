"""`asgihive demo`: every URL and command that it invites to works."""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from asgihive.viewer.page import find_dist
from tests.cli.processes import PATIENCE, Server, complaint, running, taken_port


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with running("demo", "--port", "0") as server:
        server.read_until("external link")
        server.read_until("curl")
        yield server


def urls_to_open(server: Server) -> list[str]:
    return [line.strip() for line in server.lines if line.startswith("  http")]


def test_the_first_url_of_the_demo_works_in_a_browser(demo: Server) -> None:
    answer = httpx.get(demo.url)
    assert answer.status_code == 200
    if find_dist() is None:
        assert "asgihive viewer build" in "".join(demo.lines)
        assert answer.json()["kind"] == "group"
    else:
        assert demo.url.endswith("/view/?file=demo.nxs")
        assert answer.headers["content-type"].startswith("text/html")


def test_every_url_to_open_answers(demo: Server) -> None:
    urls = [each for each in urls_to_open(demo) if "/view/" not in each]
    assert len(urls) >= 3
    for url in urls:
        assert httpx.get(url).raise_for_status().json()


def curl_lines(server: Server) -> list[list[str]]:
    return [shlex.split(line) for line in server.lines if line.lstrip().startswith("curl ")]


def test_the_commands_to_paste_cover_what_the_service_does(demo: Server) -> None:
    urls = " ".join(words[-1] for words in curl_lines(demo))
    for part in (
        "/meta",
        "/attr",
        "selection=",
        "format=npy",
        "format=csv",
        "/stats",
        "/paths",
        "links/external",
    ):
        assert part in urls


def test_every_command_to_paste_works(demo: Server, tmp_path: Path) -> None:
    for words in curl_lines(demo):
        if shutil.which("curl"):
            done = subprocess.run(
                [words[0], "--fail", *words[1:]],
                cwd=tmp_path,
                check=False,
                capture_output=True,
                timeout=PATIENCE,
            )
            assert (done.returncode, done.stderr) == (0, b""), words
        else:
            answer = httpx.get(words[-1]).raise_for_status()
            if "-o" in words:
                (tmp_path / words[words.index("-o") + 1]).write_bytes(answer.content)
    image = np.load(tmp_path / "image.npy")
    assert (image.ndim, image.dtype) == (2, np.uint16)
    assert np.loadtxt(tmp_path / "scan.csv", delimiter=",").size > 100


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_the_demo_removes_its_files_at_the_end(number: signal.Signals) -> None:
    with running("demo", "--port", "0", "--prefix", "/h5") as server:
        directory = Path(re.findall(r"Sample files are in (\S+),", "".join(server.lines))[0])
        assert (directory / "demo.nxs").exists()
        assert httpx.get(server.url).status_code == 200
        assert server.stop(number) == (0, "")
        assert not directory.exists()


@pytest.mark.slow
def test_the_demo_takes_a_free_port_when_the_one_asked_for_is_taken() -> None:
    with taken_port() as port, running("demo", "--port", str(port)) as server:
        assert f"Port {port} is taken" in server.lines[0]
        assert httpx.get(server.url).status_code == 200


def test_the_browser_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = tmp_path / "opened"
    os.mkfifo(opened)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {shlex.quote(str(opened))}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with running("demo", "--port", "0", "--open") as server:
        url = opened.read_text()  # waits for the browser
        base = server.url[: server.url.index("/", 8)]
        assert url == f"{base}/view/?file=demo.nxs"
        assert httpx.get(f"{base}/").text == "ok"


def test_a_socket_is_opened_by_no_browser(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(capsys, ["serve", str(directory), "--uds", "x.socket", "--open"])
    assert "--open needs a port" in line
