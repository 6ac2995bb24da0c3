"""The page about access: every command of it is run, and its lists are compared with the code."""

from dataclasses import fields
from pathlib import Path

import h5py
import pytest

from asgihive import H5App
from asgihive.service.gate import OPEN_ROUTES, PERMISSION, RequestedEntity
from tests.docs.page import Command, Page
from tests.docs.sessions import run_session

ACCESS = Page("docs/access.md", ("python", "console"))


TOKEN, PERMITTED = ACCESS.sessions()


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(TOKEN, id="token", marks=pytest.mark.slow),
        pytest.param(PERMITTED, id="permission"),
    ],
)
def test_commands_print_what_the_page_says(
    session: list[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ACCESS.write_files(tmp_path)
    for folder in ("shared", "p1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        with h5py.File(tmp_path / "data" / folder / "scan.h5", "w") as file:
            file["counts"] = [3, 1, 4]
            file["entry/user/name"] = "Ada"
    monkeypatch.chdir(tmp_path)
    assert run_session(session, tmp_path) == session


def test_what_is_answered_without_a_token() -> None:
    (line,) = [each for each in ACCESS.text.split("\n- ") if "need no token" in each]
    stated = {
        each.strip("`/") for each in line.partition(" need")[0].replace(" and", ",").split(", ")
    }
    assert stated == OPEN_ROUTES


def test_what_a_permission_gets(tmp_path: Path) -> None:
    rows = dict(ACCESS.table("| attribute | value |"))
    assert list(rows) == [each.name for each in fields(RequestedEntity)]
    routes = {each.url.strip("/").partition("/")[0] for each in H5App(tmp_path).route_records()}
    stated = set(rows["route"].replace(" or", ",").split(", "))
    assert stated == routes - OPEN_ROUTES - {"batch"}
    assert f"request.state.{PERMISSION}" in ACCESS.text
