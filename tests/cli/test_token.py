"""The token of `asgihive serve`: asked for, and shown nowhere."""

from pathlib import Path

import httpx
import pytest

from asgihive import cli
from tests.cli.processes import PATIENCE, complaint, running

TOKEN = "Never-to-be-seen"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, no_settings_in_the_environment: None) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", TOKEN)


@pytest.mark.parametrize("log", ["text", pytest.param("json", marks=pytest.mark.slow)])
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_service_asks_for_it_and_logs_none(directory: Path, log: str, workers: str) -> None:
    arguments = ("--port", "0", "--access-log", log, "--log-level", "debug", "--workers", workers)
    with running("serve", str(directory), *arguments) as server:
        asked = server.url + "data?file=x.h5&path=/values"
        assert httpx.get(asked, timeout=PATIENCE).status_code == 401
        server.read_until(" 401|: 401")
        assert httpx.get(f"{asked}&token={TOKEN}", timeout=PATIENCE).json() == [0, 1, 2, 3, 4]
        server.read_until("token=")
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(asked, headers=header, timeout=PATIENCE).status_code == 200
        server.read_until(" 200|: 200")
        code, complaints = server.stop()
        assert code == 0
    shown = "".join(server.lines) + complaints
    assert "token=***" in shown
    assert TOKEN not in shown


def test_help_does_not_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    assert TOKEN not in capsys.readouterr().out


def test_what_cannot_be_used_is_not_shown_either(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", f"{TOKEN} with blanks")
    line = complaint(capsys, ["serve", str(directory)])
    assert "TOKEN cannot be used" in line
    assert TOKEN not in line
    monkeypatch.setenv("ASGIHIVE_TOKEN", "")
    assert "TOKEN is empty" in complaint(capsys, ["serve", str(directory)])
