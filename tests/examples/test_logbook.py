"""The logbook as its README starts it, and against its own OpenAPI document."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate

from tests.cli import processes

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^\$ (.*)$", (ROOT / "examples/logbook/README.md").read_text(), re.MULTILINE)
TOKEN = {"authorization": "Bearer secret"}


@pytest.mark.slow
def test_it_starts_and_is_what_its_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, *asking = (each for each in COMMANDS if "uvicorn" in each or each.startswith("curl"))
    variables, program = start.split(" .venv/bin/uvicorn ")
    name, _, value = variables.partition("=")
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOGBOOK_FOLDER", str(tmp_path))
    with processes.running(*program.split(), "--port", "0", module="uvicorn") as server:
        assert len(asking) == 3
        for command in asking if shutil.which("curl") else ():
            there = command.replace("http://127.0.0.1:8000", server.url)
            answer = subprocess.run(
                there.replace("curl -s ", "curl -s --fail-with-body --noproxy '*' "),
                shell=True,
                cwd=ROOT,
                capture_output=True,
                check=False,
                timeout=processes.PATIENCE,
            )
            assert answer.returncode == 0, (command, answer)
        document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
        validate(document)
        tried = subprocess.run(
            [
                *(sys.executable, "-c", "from schemathesis.cli import schemathesis as run; run()"),
                *("run", f"{server.url}/openapi.json", "--header", "Authorization: Bearer secret"),
                *("--max-examples", "20", "--generation-deterministic"),
            ],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=10 * processes.PATIENCE,
        )
        assert tried.returncode == 0, tried.stdout
        assert re.search(r"Tested:\s+6|Operations:\s+6 selected", tried.stdout), tried.stdout
        assert httpx.get(f"{server.url}/api/entries", headers=TOKEN, trust_env=False).json()
