"""What an application permits: hidden in metadata, refused as chunks, by the names in the file."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.asgi import HTTPException
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange
from tests.isolation.isolated import close
from tests.zarr.serving import ask

pytestmark = pytest.mark.anyio

DATASETS = ("open/a", "open/b#1", "open/b_1", "secret/a", "sec#ret/a", "sec_ret/a")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for name in ("x.h5", "closed.h5"):
        with h5py.File(root / name, "w") as file:
            for number, path in enumerate(DATASETS):
                file[path] = np.full(3, number)
            for group in ("open", "secret"):
                file[group].create_dataset("references", (1,), h5py.ref_dtype)
    return root


BOTH = ["none", pytest.param("process", marks=pytest.mark.slow_on_trio)]


# To start reader processes takes most of the time of a test.
@pytest.fixture(params=["none", pytest.param("process", marks=pytest.mark.slow)])
async def app(root: Path, request: pytest.FixtureRequest) -> AsyncIterator[H5App]:
    app = H5App(root, H5Settings(isolation=request.param))
    async with app.running():
        yield app
    if request.param == "process":
        close(app)


def state(rule: Callable[[RequestedEntity], Any]) -> dict[str, Any]:
    return {PERMISSION: rule}


def list_keys(answer: Exchange) -> set[str]:
    assert answer.status == 200, answer.body
    keys = set()
    for key, node in answer.json["consolidated_metadata"]["metadata"].items():
        if node["node_type"] == "array":
            keys.add(key)
    return keys


PUBLISHED = {"open/a", "open/b_1", "open/b_1_2", "secret/a", "sec_ret/a", "sec_ret_2/a"}


async def test_all_is_permitted(app: H5App) -> None:
    plain = await ask(app, "/zarr/x.h5/zarr.json")
    got = await ask(app, "/zarr/x.h5/zarr.json", state=state(lambda _: True))
    assert list_keys(got) == list_keys(plain) == PUBLISHED
    assert got.json == plain.json
    assert got.headers["cache-control"] == "private, no-cache"
    assert "private" not in plain.headers["cache-control"]


@pytest.mark.parametrize("app", BOTH, indirect=True)
async def test_what_is_refused_is_hidden(app: H5App) -> None:
    def rule(asked: RequestedEntity) -> bool:
        assert (asked.route, asked.file) == ("zarr", "x.h5")
        return not asked.path.startswith("/secret")

    hidden = PUBLISHED - {"secret/a"}
    got = await ask(app, "/zarr/x.h5/zarr.json", state=state(rule))
    assert list_keys(got) == hidden
    assert b"secret" not in got.body
    assert b"references" in got.body
    assert (await ask(app, "/zarr/x.h5/open/zarr.json", state=state(rule))).status == 200
    for method in ("GET", "HEAD"):
        # As what is not there, message and all.
        for node in ("secret", "secret/a"):
            url = f"/zarr/x.h5/{node}/zarr.json"
            refused = await ask(app, url, method, state=state(rule))
            assert refused.status == 404
            assert refused.headers["cache-control"] == "no-store"
            missing = await ask(app, url.replace("secret", "nothin"), method, state=state(rule))
            assert missing.body == refused.body.replace(b"secret", b"nothin")
            probe = await ask(app, f"/zarr/x.h5/{node}/.zgroup", method, state=state(rule))
            assert probe.status == 404
        chunk = await ask(app, "/zarr/x.h5/secret/a/c/0", method, state=state(rule))
        assert chunk.status == 403
        assert chunk.headers["cache-control"] == "private"
    assert (await ask(app, "/zarr/x.h5/secret/no/c/0", state=state(rule))).status == 403
    assert (await ask(app, "/zarr/x.h5/open/a/c/0", state=state(rule))).status == 200
    # What one client may not have another one has.
    assert list_keys(await ask(app, "/zarr/x.h5/zarr.json")) == PUBLISHED


@pytest.mark.parametrize("app", BOTH, indirect=True)
async def test_names_that_stand_for_others(app: H5App) -> None:
    """The permission is asked for the names in the file."""
    asked: list[str] = []

    def rule(requested: RequestedEntity) -> bool:
        asked.append(requested.path)
        return not requested.path.startswith("/sec#ret") and requested.path != "/open/b#1"

    got = await ask(app, "/zarr/x.h5/zarr.json", state=state(rule))
    assert list_keys(got) == PUBLISHED - {"sec_ret_2/a", "open/b_1_2"}
    assert {"/sec#ret", "/sec_ret", "/sec_ret/a", "/open/b#1", "/open/b_1"} <= set(asked)
    for node, status in {
        "sec_ret/a": 200,
        "sec_ret_2/a": 403,
        "open/b_1": 200,
        "open/b_1_2": 403,
    }.items():
        chunk = await ask(app, f"/zarr/x.h5/{node}/c/0", state=state(rule))
        assert chunk.status == status
        document = await ask(app, f"/zarr/x.h5/{node}/zarr.json", state=state(rule))
        assert document.status == (404 if status == 403 else 200)
    values = dict.fromkeys(("sec_ret_2/a",), 4) | {
        "sec_ret/a": 5,
        "open/b_1_2": 1,
        "open/b_1": 2,
    }
    for node, value in values.items():
        body = (await ask(app, f"/zarr/x.h5/{node}/c/0")).body
        assert np.frombuffer(body, "<i8").tolist() == [value] * 3
    only = await ask(
        app, "/zarr/x.h5/sec_ret_2/zarr.json", state=state(lambda each: each.path != "/sec#ret/a")
    )
    assert list_keys(only) == set()


async def test_a_file_that_is_refused(app: H5App) -> None:
    def rule(asked: RequestedEntity) -> bool:
        return asked.file == "x.h5"

    for key, status in {
        "zarr.json": 404,
        ".zgroup": 404,
        "open/a/c/0": 403,
        "open/zarr.json": 404,
    }.items():
        assert (await ask(app, f"/zarr/closed.h5/{key}", state=state(rule))).status == status
        assert (await ask(app, f"/zarr/./closed.h5.zarr/{key}", state=state(rule))).status == status
        assert (
            await ask(app, f"/zarr/closed.h5/{key}?file=x.h5", state=state(rule))
        ).status == status


async def test_permissions_of_other_kinds(app: H5App) -> None:
    async def later(asked: RequestedEntity) -> bool:
        return asked.path != "/secret"

    assert "secret/a" not in list_keys(await ask(app, "/zarr/x.h5/zarr.json", state=state(later)))
    answers: tuple[Any, ...] = (1, "yes", None)
    for answer in answers:

        def rule(_: RequestedEntity, answer: Any = answer) -> Any:
            return answer

        got = await ask(app, "/zarr/x.h5/open/a/c/0", state=state(rule))
        assert got.status == 403

    def refuse(asked: RequestedEntity) -> bool:
        raise HTTPException(451, "Not today")

    for key in ("zarr.json", "open/a/c/0"):
        assert (await ask(app, f"/zarr/x.h5/{key}", state=state(refuse))).status == 451


async def test_what_is_kept_of_a_filtered_answer(app: H5App) -> None:
    """Another entity-tag tells of another permission, so that none is taken for the other."""
    url = "/zarr/x.h5/zarr.json"
    few, all_of_it = state(lambda each: "secret" not in each.path), state(lambda _: True)
    first = await ask(app, url, state=few)
    tag = first.headers["etag"]
    assert (await ask(app, url, state=few, if_none_match=tag)).status == 304
    assert (await ask(app, url, state=all_of_it, if_none_match=tag)).status == 200
    coded = await ask(app, url, state=few, accept_encoding="gzip")
    assert (coded.status, coded.headers["content-encoding"]) == (200, "gzip")
    chunk = await ask(app, "/zarr/x.h5/secret/a/c/0")
    refused = await ask(
        app, "/zarr/x.h5/secret/a/c/0", state=few, if_none_match=chunk.headers["etag"]
    )
    assert refused.status == 403


async def test_versions_and_permissions(app: H5App) -> None:
    allowed = state(lambda _: True)
    version = (await ask(app, "/zarr/x.h5/zarr.json")).json["attributes"]["_asgihive_version"]
    for key in ("zarr.json", "open/a/c/0", "sec_ret/a/c/0"):
        assert (await ask(app, f"/zarr/x.h5/@{version}/{key}", state=allowed)).status == 200
        assert (await ask(app, f"/zarr/x.h5/@{'0' * 32}/{key}", state=allowed)).status == 410


@pytest.mark.slow_on_trio
async def test_a_path_that_is_too_long_for_a_header(root: Path) -> None:
    """It must not be taken for a file that crashes its reader."""
    with h5py.File(root / "deep.h5", "w") as file:
        group = file.create_group("_" * 200)
        for _ in range(60):
            group = group.create_group("_" * 200)
        group["a"] = 1
    path = "/".join(["_" * 200] * 61)
    app = H5App(root, H5Settings(isolation="process"))
    allowed = state(lambda _: True)
    async with app.running():
        assert (await ask(app, f"/zarr/deep.h5/{path}/a/c")).status == 200
        for key in ("a/c", "a/zarr.json", "zarr.json"):
            assert (await ask(app, f"/zarr/deep.h5/{path}/{key}", state=allowed)).status == 422
        assert (await ask(app, "/zarr/deep.h5/zarr.json", state=allowed)).status == 200
    close(app)


async def test_entries_about_omitted_members_name_no_hidden_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["secret/inner/a"] = 1
        file["open/below/again"] = file["secret/inner"]
        file["open/below/soft"] = h5py.SoftLink("/secret/inner")
    app = H5App(tmp_path)
    refuse = state(lambda asked: not asked.path.startswith("/secret"))
    async with app.running():
        answer = await ask(app, "/zarr/x.h5/zarr.json", state=refuse)
        nodes = answer.json["consolidated_metadata"]["metadata"]
        assert "open/below" in nodes
        assert len(nodes["open/below"]["attributes"]["_asgihive_omitted"]) == 2
        assert b"secret" not in answer.body
        answer = await ask(app, "/zarr/x.h5/zarr.json", state=state(lambda _: True))
        assert b"it is /secret/inner again" in answer.body


async def test_a_name_of_very_many_colons_is_hidden_without_a_question_for_each(
    tmp_path: Path,
) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        for name in ("a: b", ": " * 10_000):
            file.create_dataset(name, (1,), h5py.ref_dtype)
    app, asked = H5App(tmp_path), list[str]()

    def permit(entity: RequestedEntity) -> bool:
        asked.append(entity.path)
        return True

    async with app.running():
        answer = await ask(app, "/zarr/x.h5/zarr.json", state=state(permit))
    (entry,) = answer.json["attributes"]["_asgihive_omitted"]
    assert entry.startswith("a: b: ")
    assert len(asked) < 20


@pytest.mark.parametrize(
    "isolation", ["none", pytest.param("process", marks=pytest.mark.slow_on_trio)]
)
async def test_chunks_of_what_has_no_metadata_need_a_permission(
    tmp_path: Path, isolation: Any
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["secret#1"] = np.arange(5)
        file["secret#1"].make_scale("This is a netCDF dimension but not a netCDF variable.")
    app = H5App(tmp_path, H5Settings(isolation=isolation))
    refuse = state(lambda asked: "#" not in asked.path)
    async with app.running():
        for key, status in (("zarr.json", 404), ("c/0", 403)):
            answer = await ask(app, f"/zarr/x.h5/secret_1/{key}", state=refuse)
            assert (answer.status, b"#" in answer.body) == (status, False), answer.body
    if isolation == "process":
        close(app)
