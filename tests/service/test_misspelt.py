"""Parameters with typing errors are refused, all others that are unknown are ignored."""

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from hypothesis import given

from asgihive.asgi import parse_query
from asgihive.errors import UnknownParameter
from asgihive.service import H5App, parameters
from asgihive.service.parameters import refuse_misspelt
from asgihive.settings import H5Settings
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

PARAMETERS = {
    route: {each.name for each in table} for route, table in parameters.PARAMETERS.items()
}
ROUTES = tuple(route for route in PARAMETERS if route not in {"batch", "zarr"})
HARMLESS = (
    *("_", "t", "q", "v", "ts", "token", "utm_source", "cachebust", "nocache", "timestamp"),
    *("id", "type", "time", "tile", "dpr", "lang", "x-id", "callback", "", "é", "session"),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> H5App:
    root: Path = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = np.arange(10)
        file["image"] = np.eye(2)
    return H5App(root)


def asked(route: str) -> dict[str, str]:
    if route == "files":
        return {}
    path = "/values" if route in {"data", "stats", "histogram", "plot"} else "/"
    return {"file": "x.h5", **({} if route == "file" else {"path": path})}


@pytest.mark.parametrize(
    ("route", "name", "meant"),
    [
        ("data", "selectoin", "selection"),
        ("data", "slection", "selection"),
        ("data", "Selection", "selection"),
        ("data", "max_ponits", "max_points"),
        ("data", "maxPoints", "max_points"),
        ("data", "max-points", "max_points"),
        ("data", "fromat", "format"),
        ("data", "flaten", "flatten"),
        ("data", "haeder", "header"),
        ("data", "compund", "compound"),
        ("stats", "selectoin", "selection"),
        ("histogram", "bin", "bins"),
        ("image", "percentile", "percentiles"),
        ("plot", "theem", "theme"),
        ("attr", "attr_key", "attr_keys"),
        ("meta", "flie", "file"),
        ("meta", "pth", "path"),
        ("meta", "resolve_link", "resolve_links"),
        ("paths", "paths", "path"),
        ("file", "ifle", "file"),
        ("files", "Dir", "dir"),
        ("files", "limits", "limit"),
    ],
)
@pytest.mark.slow_on_trio
async def test_did_you_mean(app: H5App, route: str, name: str, meant: str) -> None:
    """With and without the right one, alone and in a batch."""
    async with client(app) as asker:
        for given in ({name: "1"}, {**asked(route), name: "1"}, {**asked(route), name: ""}):
            answer = await asker.get(f"/{route}", params=given)
            assert answer.status_code == 422, given
            message = answer.json()["message"]
            assert message == f"Parameter `{name}` is unknown: did you mean `{meant}`?"
        parts = [{"route": route, "params": {**asked(route), name: "1"}}]
        answer = await asker.post("/batch?format=msgpack", json=parts)
        (member,) = msgpack.unpackb(answer.content)
        assert (member["status"], member["body"]["message"]) == (422, message)


async def test_a_batch_itself(app: H5App) -> None:
    async with client(app) as asker:
        answer = await asker.post("/batch?fromat=json", json=[])
        message = "Parameter `fromat` is unknown: did you mean `format`?"
        problem = {"where": ["query", "fromat"], "message": message}
        assert answer.json() == {"message": message, "errors": [problem]}
        assert (await asker.post("/batch?t=1", json=[])).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.slow_on_trio
async def test_others_are_ignored(app: H5App, route: str) -> None:
    """Also those of other routes: clients send theirs to all."""
    async with client(app) as asker:
        # An event stream has no end.
        ask = partial(asker.request, "HEAD" if route == "events" else "GET", f"/{route}")
        alone = await ask(params=asked(route))
        assert alone.status_code == 200
        answer = await ask(params={**asked(route), **dict.fromkeys(HARMLESS, "1")})
        assert (answer.status_code, answer.content) == (200, alone.content)
        for name in set().union(*PARAMETERS.values()) - PARAMETERS[route]:
            answer = await ask(params={**asked(route), name: "1"})
            assert answer.status_code == 200, (route, name, answer.text)


@pytest.mark.slow
async def test_in_a_process_of_its_own(app: H5App) -> None:
    isolated = H5App(app.store.sandbox.root, H5Settings(isolation="process"))
    async with isolated.running(), client(isolated) as asker:
        answer = await asker.get("/meta", params={"flie": "x.h5"})
    assert answer.status_code == 422
    assert "did you mean `file`" in answer.json()["message"]


async def test_the_table_is_what_is_documented(app: H5App) -> None:
    async with client(app) as asker:
        paths = (await asker.get("/openapi.json")).json()["paths"]
    for route, names in PARAMETERS.items():
        [operation] = paths["/zarr/{path}" if route == "zarr" else f"/{route}"].values()
        assert names == {each["name"] for each in operation["parameters"] if each["in"] == "query"}


def refused(route: str, name: str) -> Any:
    query = parse_query(b"")
    query[name] = ["1"]
    try:
        refuse_misspelt(query, route)
    except UnknownParameter as error:
        return error.meant
    return None


@given(st.sampled_from(["data", "attr", "meta", "histogram"]), st.data())
def test_every_swap_and_missing_letter_is_found(route: str, data: st.DataObject) -> None:
    known = data.draw(st.sampled_from(sorted(each for each in PARAMETERS[route] if len(each) > 3)))
    place = data.draw(st.integers(1, len(known) - 1))
    dropped = known[:place] + known[place + 1 :]
    swapped = known[: place - 1] + known[place] + known[place - 1] + known[place + 1 :]
    doubled = known[:place] + known[place - 1 :]
    for name in (dropped, swapped, doubled):
        every = set().union(*PARAMETERS.values())
        assert name in every or refused(route, name) in PARAMETERS[route], name


@given(st.text(max_size=3))
def test_very_short_names_resemble_nothing_longer(name: str) -> None:
    meant = refused("data", name)
    assert meant is None or abs(len(meant) - len(name)) <= 1


def test_many_unknown_parameters_cost_little() -> None:
    query = parse_query("&".join(f"selec{i:04}=1" for i in range(1000)).encode())
    refuse_misspelt(query, "data")
