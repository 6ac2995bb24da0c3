"""What the server sees of a hive: lifespan messages, its tasks, its headers, its logs."""

import logging
import warnings
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.websockets import WebSocket

from asgihive import H5App
from asgihive.asgi import Router
from asgihive.errors import ComponentError, HookFailed
from asgihive.hive import Component, CornerstoneHooks, Hive, HiveConfig, HiveMiddleware, ModuleHooks
from tests.asgi.exchange import Exchange, http, run, websocket
from tests.hive import services
from tests.hive.services import RecordingHive, config, recording_service, write

pytestmark = pytest.mark.anyio


def lifespan() -> Exchange:
    phases = ("lifespan.startup", "lifespan.shutdown")
    return Exchange({"type": "lifespan"}, incoming=[{"type": each} for each in phases])


def failing_hive(root: Path, failing: str, message: str) -> RecordingHive:
    hive = RecordingHive(config(), base=recording_service(root))
    hive.failing[failing] = ConnectionError(message)
    return hive


async def test_a_server_is_told_when_it_runs_and_when_it_has_stopped(tmp_path: Path) -> None:
    hive = RecordingHive(config(), base=recording_service(tmp_path))
    told = await run(hive, lifespan())
    assert told.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    ("failing", "component", "file"),
    [
        ("a.async.pre_endpoint_setup", "cornerstones.a", "cornerstones/a/__init__.py"),
        ("x.service.sync.setup", "endpoints.x", "endpoints/x/service/__init__.py"),
    ],
)
async def test_a_failing_set_up_names_the_component(
    tmp_path: Path, failing: str, component: str, file: str
) -> None:
    hive = failing_hive(tmp_path, failing, "no such host")
    exchange = lifespan()
    with pytest.raises(HookFailed) as raised:
        await run(hive, exchange)
    (told,) = exchange.sent
    assert told["type"] == "lifespan.startup.failed"
    step = failing.rpartition(".")[2]
    where = f"{component} ({tmp_path / file}): {step}"
    assert str(raised.value) == f"{where} failed with ConnectionError: no such host"
    first, *traceback = told["message"].splitlines()
    assert first == str(raised.value)
    places = [each.split('"')[1] for each in traceback if each.startswith("  File ")]
    assert places == [str(tmp_path / file), services.__file__]


@pytest.mark.parametrize("failing", ["a.sync.pre_endpoint_setup", "a.async.pre_endpoint_setup"])
async def test_a_hook_that_exits_has_failed(tmp_path: Path, failing: str) -> None:
    """Servers would take the application for one without a lifespan, and serve it."""
    hive = RecordingHive(config(), base=recording_service(tmp_path))
    exits: Any = SystemExit("there is no key")
    hive.failing[failing] = exits
    exchange = lifespan()
    with pytest.raises(HookFailed, match="failed with SystemExit: there is no key"):
        await run(hive, exchange)
    assert exchange.types == ["lifespan.startup.failed"]


async def test_a_module_that_exits_cannot_be_imported(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/x.py": "import sys\nsys.exit('there is no key')"})
    hive = Hive(HiveConfig(endpoint_package_paths="./endpoints"), base=tmp_path, docs=False)
    exchange = lifespan()
    with pytest.raises(ComponentError, match=r"x\.py:2 with SystemExit: there is no key"):
        await run(hive, exchange)
    assert exchange.types == ["lifespan.startup.failed"]


async def test_all_failing_teardowns_are_named(tmp_path: Path) -> None:
    hive = failing_hive(tmp_path, "y.sync.teardown", "still busy")
    hive.failing["b.async.post_endpoint_teardown"] = OSError("no disk")
    told = lifespan()
    with pytest.raises(ExceptionGroup):
        await run(hive, told)
    assert told.types == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    first, second = told.sent[1]["message"].splitlines()
    assert first.startswith("endpoints.y (")
    assert second.startswith("cornerstones.b (")


@pytest.mark.parametrize("failing", ["a.async.pre_endpoint_setup", "y.sync.teardown"])
def test_a_test_client_ends_with_what_failed(
    tmp_path: Path, failing: str, anyio_backend_name: Any
) -> None:
    hive = failing_hive(tmp_path, failing, "no such host")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would have another client than httpx
        from starlette.testclient import TestClient  # noqa: PLC0415
    client = TestClient(hive, backend=anyio_backend_name)
    with pytest.raises((HookFailed, ExceptionGroup)) as raised, client:
        pass
    error = raised.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert "failed with ConnectionError: no such host" in str(error)


class Looking(CornerstoneHooks):
    """Keeps the task of each call, and nothing else of the request."""

    async def pre_endpoint_call(self) -> None:
        self.app_state["tasks"] = [anyio.get_current_task().id]

    async def post_endpoint_call(self) -> None:
        self.app_state["tasks"].append(anyio.get_current_task().id)


def looking(router: Router) -> Hive:
    modules = (ModuleHooks(hooks=(Looking,), websockets=True),)
    cornerstone = Component(kind="cornerstone", container="c", name="look", modules=modules)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    none = HiveConfig(cornerstone_package_path=())
    return Hive(none, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)


async def test_a_request_stays_in_its_task_and_gains_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()

    @router.get("/")
    async def show() -> str:
        return str(anyio.get_current_task().id)

    hive = looking(router)
    caplog.set_level(logging.DEBUG)
    async with hive.running():
        answer = await run(hive, http("/e/x/"))
        own = anyio.get_current_task().id
        assert hive.state.cornerstones["c.look"]["tasks"] == [own, own]
    assert answer.body == str(own).encode()
    assert set(answer.headers) == {"content-type", "content-length"}
    assert [each.message for each in caplog.records if each.name.startswith("asgihive")] == []


async def test_a_middleware_gives_hooks_and_states_to_websockets_too() -> None:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        connection = WebSocket(scope, receive, send)
        await connection.accept()
        await connection.send_text(",".join(connection.state.cornerstones))
        await connection.close()

    hive = looking(Router())
    async with hive.running():
        answer = await run(HiveMiddleware(outer, hive), websocket("/anywhere"))
        assert answer.sent[1]["text"] == "c.look"
        assert len(hive.state.cornerstones["c.look"]["tasks"]) == 2


async def test_without_a_configuration_it_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"shared/a.py": "", "more/b.py": "", "features/x.py": ""})
    monkeypatch.setenv("HIVE_CORNERSTONE_PACKAGE_PATH", "./shared, ./more")
    monkeypatch.setenv("HIVE_ENDPOINT_PACKAGE_PATHS", "./features")
    monkeypatch.setenv("HIVE_API_PREFIX", "/api")
    hive = Hive(base=tmp_path, entry_points=False)
    assert hive.config.api_prefix == "/api"
    assert [node.key for node in hive.graph()] == ["shared.a", "more.b", "features.x"]


async def test_the_hdf5_service_is_a_hive_of_two_components(tmp_path: Path) -> None:
    app = H5App(tmp_path)
    assert isinstance(app, Hive)
    assert [(node.kind, node.key) for node in app.graph()] == [
        ("cornerstone", "hdf5.store"),
        ("endpoint", "hdf5.routes"),
    ]
    urls = {record.url for record in app.route_records()}
    assert urls >= {"/", "/meta", "/attr", "/data", "/stats", "/paths"}
