"""What is found where, and what is said when it is not."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgihive.hive import ComponentError, ConfigurationError, Hive, HiveConfig, HiveError
from tests.asgi.exchange import http, run
from tests.hive.services import RecordingHive, config, write

pytestmark = pytest.mark.anyio

HELLO = """
from asgihive.asgi import Router

router = Router()

@router.get("/")
async def hello():
    return __name__
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {"cornerstones/__init__.py": "", "endpoints/one/__init__.py": HELLO}
    return write(tmp_path / "service", files)


@pytest.fixture(autouse=True)
def _modules_are_forgotten() -> Iterator[None]:
    before = set(sys.modules)
    path = list(sys.path)
    yield
    assert sys.path == path, "an import changed sys.path"
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"endpoints", "cornerstones", "service", "entry", "other"}:
            del sys.modules[name]


def keys(hive: Hive) -> list[str]:
    return [node.key for node in hive.graph()]


def failure(hive: Hive) -> str:
    with pytest.raises(ComponentError) as raised:
        hive.graph()
    return str(raised.value)


@pytest.mark.parametrize("spelling", ["endpoints", "endpoints/", "./endpoints", "./x/../endpoints"])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("directory", [".", "/", "service", "service/endpoints"])
@pytest.mark.slow_on_trio
async def test_folder_paths_from_any_directory(
    root: Path, spelling: str, absolute: bool, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "x").mkdir()
    monkeypatch.chdir(root.parent / directory)
    path = f"{root}/{spelling}" if absolute else spelling
    hive = RecordingHive(config(endpoint_package_paths=path), base=root)
    async with hive.running():
        assert (await run(hive, http("/endpoints/one/"))).status == 200


async def test_paths_are_relative_to_the_file_that_builds_the_hive(root: Path) -> None:
    main = """
    from asgihive.hive import Hive, HiveConfig

    def build():
        return Hive(HiveConfig(endpoint_package_paths="endpoints"), entry_points=False)
    """
    write(root, {"main.py": main})
    space: dict[str, Any] = {"__name__": "main"}
    exec(compile((root / "main.py").read_text(), str(root / "main.py"), "exec"), space)
    assert keys(space["build"]()) == ["endpoints.one"]
    space = {"__name__": "main"}
    exec(compile((root / "main.py").read_text(), "<stdin>", "exec"), space)
    with pytest.raises(ConfigurationError, match="no package that can be imported"):
        space["build"]()


def test_a_relative_path_without_a_file_needs_a_base() -> None:
    space: dict[str, Any] = {"__name__": "nowhere", "Hive": Hive, "HiveConfig": HiveConfig}
    build = 'Hive(HiveConfig(endpoint_package_paths="./endpoints"), entry_points=False)'
    with pytest.raises(ConfigurationError, match="base="):
        exec(compile(build, "<stdin>", "exec"), space)


async def test_names_that_are_skipped_and_found(root: Path) -> None:
    write(
        root / "endpoints",
        {
            "two.py": HELLO,
            "three/router.py": HELLO,
            "_private.py": "raise RuntimeError",
            ".hidden/__init__.py": "raise RuntimeError",
            "_private_too/__init__.py": "raise RuntimeError",
            "templates/page.html": "",
            "old.bak/__init__.py": "raise RuntimeError",
            "notes.txt": "",
        },
    )
    assert keys(RecordingHive(config(), base=root)) == [
        "endpoints.one",
        "endpoints.three",
        "endpoints.two",
    ]


async def test_parts_are_modules_or_packages_and_each_may_be_missing(root: Path) -> None:
    hooks = """
    from asgihive.hive import EndpointHooks

    class EndpointHooksImpl(EndpointHooks):
        def setup(self):
            self.app.note(__name__.rpartition("asgihive_components_")[2].partition(".")[2])
    """
    part = "\n".join(line.removeprefix("    ") for line in hooks.splitlines())
    write(
        root / "endpoints",
        {
            "one/db.py": part,
            "one/router/__init__.py": HELLO + part,
            "two/service.py": part,
            "two/db/schema.sql": "",
        },
    )
    hive = RecordingHive(config(), base=root)
    async with hive.running():
        names = ["one.db", "one.router", "two.service"]
        assert hive.taken() == [f"endpoints.{each}" for each in names]
        assert (await run(hive, http("/endpoints/one/"))).body.endswith(b"endpoints.one.router")


async def test_a_dotted_name_is_imported_by_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root.parent))
    for name in ("service.endpoints", "service/endpoints"):
        fields = {"endpoint_package_paths": name, "cornerstone_package_path": ()}
        write(root, {"__init__.py": ""})
        hive = RecordingHive(config(**fields), base=root.parent)
        async with hive.running():
            answer = await run(hive, http("/endpoints/one/"))
            assert answer.body == b"service.endpoints.one"


@pytest.mark.parametrize("is_found_by_python", [False, True])
def test_components_import_each_other(
    root: Path, is_found_by_python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relatively and by name, and it is the same module."""
    write(
        root,
        {
            "settings.py": "",
            "cornerstones/db.py": "shared = object()",
            "endpoints/one/service.py": """
                from ... import cornerstones
                from ...cornerstones.db import shared
                from ...settings import __name__ as settings
                """,
            "endpoints/one/router/__init__.py": f"""
                {HELLO.replace(chr(10), chr(10) + " " * 16)}
                import cornerstones.db
                import os, cornerstones.db as db
                from cornerstones import db as again
                from settings import __name__ as settings
                """,
        },
    )
    if is_found_by_python:
        monkeypatch.syspath_prepend(str(root))
    hive = RecordingHive(config(), base=root)
    hive.graph()
    first = [each for each in sys.modules if each.endswith("endpoints.one.service")][-1]
    assert first.startswith("endpoints." if is_found_by_python else "asgihive_components_")
    service = vars(sys.modules[first])
    router = vars(sys.modules[first.replace("service", "router")])
    db = sys.modules[first.replace("endpoints.one.service", "cornerstones.db")]
    assert vars(db)["shared"] is service["shared"]
    assert router["cornerstones"].db is router["db"] is router["again"] is db
    assert service["cornerstones"].db is db
    assert (
        service["settings"]
        == router["settings"]
        == db.__name__.replace("cornerstones.db", "settings")
    )


def test_other_names_are_the_same_modules(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under which Python finds them later, or from a folder further out."""
    write(root, {"endpoints/one/service.py": "here = object()", "__init__.py": ""})
    hive = RecordingHive(config(), base=root)
    hive.graph()
    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.syspath_prepend(str(root))
    named = importlib.import_module("endpoints.one.service")
    assert importlib.import_module("service.endpoints.one.service") is named
    assert named.__name__.startswith("asgihive_components_")
    assert named.__spec__ is not None
    assert named.__spec__.name == named.__name__


@pytest.mark.parametrize("is_found_by_python", [False, True])
def test_the_file_that_builds_the_hive_is_one_module_too(
    root: Path, is_found_by_python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under whatever name it was imported."""
    main = """
        from asgihive import Hive, HiveConfig

        app = Hive(HiveConfig(endpoint_package_paths="./endpoints"), entry_points=False)
        """
    write(root, {"built.py": main, "endpoints/one/service.py": "from built import app"})
    if is_found_by_python:
        monkeypatch.syspath_prepend(str(root))
    spec = importlib.util.spec_from_file_location("entry", root / "built.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "entry", module)
    spec.loader.exec_module(module)
    module.app.graph()
    name = [each for each in sys.modules if each.endswith("endpoints.one.service")][-1]
    assert vars(sys.modules[name])["app"] is module.app
    if is_found_by_python:
        assert importlib.import_module("built") is module
        del sys.modules["built"]


async def test_services_with_folders_of_the_same_names(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of them can be imported by its name."""
    monkeypatch.syspath_prepend(str(root))
    text = HELLO.replace("__name__", "f'{__name__} with {mark}'")
    text = "from cornerstones.marks import mark\n" + text
    other = tmp_path / "other"
    for folder, mark in ((root, "its own"), (other, "that of the other")):
        marks = {"cornerstones/marks.py": f"mark = {mark!r}", "endpoints/one/__init__.py": text}
        write(folder, marks)
    hives = [RecordingHive(config(), base=base) for base in (root, other)]
    async with hives[0].running(), hives[1].running():
        bodies = [(await run(hive, http("/endpoints/one/"))).body for hive in hives]
    assert bodies[0] == b"endpoints.one with its own"
    assert bodies[1].endswith(b".endpoints.one with that of the other")


async def test_entry_points(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = write(
        tmp_path / "site",
        {
            "entry/__init__.py": "",
            "entry/auth.py": "",
            "entry/files.py": HELLO,
            "entry/code.py": """
            from asgihive.hive import Component
            component = Component(kind="endpoint", container="lab", name="code")
            """.replace("            ", ""),
            "entry-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: entry\nVersion: 1.0",
            "entry-1.0.dist-info/entry_points.txt": (
                "[asgihive.cornerstones]\nauth = entry.auth\n"
                "[asgihive.endpoints]\nfiles = entry.files\nlab.code = entry.code:component\n"
            ),
        },
    )
    monkeypatch.syspath_prepend(str(site))
    hive = Hive(config(), base=root, docs=False)
    wanted = ["cornerstones.auth", "lab.code", "endpoints.files", "endpoints.one"]
    assert keys(hive) == wanted
    async with hive.running():
        assert (await run(hive, http("/endpoints/files/"))).body == b"entry.files"
    assert keys(RecordingHive(config(), base=root)) == ["endpoints.one"]


@pytest.mark.parametrize(
    ("field", "path", "words"),
    [
        ("endpoint_package_paths", "./endponts", "endpoints"),
        ("cornerstone_package_path", "/no/such/folder", "no folder /no/such/folder"),
        ("endpoint_package_paths", "no_such_package", "no package that can be imported"),
        ("endpoint_package_paths", "json.decoder", "is a module, not a package"),
        ("endpoint_package_paths", "no_such_package.endpoints", "No module named"),
    ],
)
async def test_paths_that_lead_nowhere(root: Path, field: str, path: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        RecordingHive(config(**{field: path}), base=root)
    assert raised.value.field == field


async def test_without_the_default_folder_there_are_no_cornerstones(root: Path) -> None:
    fields = HiveConfig(endpoint_package_paths="endpoints")
    assert keys(RecordingHive(fields, base=root)) == ["endpoints.one"]
    write(root, {"cornerstone/db.py": ""})
    assert keys(RecordingHive(fields, base=root)) == ["cornerstone.db", "endpoints.one"]


@pytest.mark.parametrize("where", ["endpoints/one.py", "other/endpoints/one.py"])
async def test_two_components_of_one_name(root: Path, where: str) -> None:
    write(root, {where: "", "other/endpoints/rest.py": ""})
    paths = ("endpoints", "other/endpoints")
    message = failure(RecordingHive(config(endpoint_package_paths=paths), base=root))
    assert str(root / where) in message
    assert str(root / "endpoints/one/__init__.py") in message


async def test_one_folder_twice(root: Path) -> None:
    hive = RecordingHive(config(endpoint_package_paths=("endpoints", "./endpoints/")), base=root)
    assert "another component of this name" in failure(hive)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise OSError('no disk')", "OSError: no disk"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("requires = ('db')", r"such as ('db',), is accepted"),
        ("router = 3", "a Router, or any ASGI application"),
        ("lifespan = 3", "an async context manager"),
        ("async def lifespan(context): pass", "is no context manager"),
        ("async def lifespan(): yield", "cannot be called"),
        ("EndpointHooksImpl = 3", "a subclass of EndpointHooks is accepted"),
        (
            "from asgihive.hive import CornerstoneHooks\nclass H(CornerstoneHooks): pass",
            "H is a subclass of CornerstoneHooks, but this endpoint",
        ),
        (
            "from asgihive.hive import EndpointHooks\nclass H(EndpointHooks): pass",
            "only EndpointHooksImpl or EndpointAsyncHooksImpl is looked for",
        ),
    ],
)
async def test_a_component_that_cannot_be_used(root: Path, text: str, words: str) -> None:
    file = root / "endpoints/two.py"
    file.write_text(text)
    hive = RecordingHive(config(), base=root)
    message = failure(hive)
    assert words in message
    assert f"endpoints.two ({file})" in message
    exchange = http("/")
    exchange.scope = {"type": "lifespan"}
    exchange.incoming = [{"type": "lifespan.startup"}]
    with pytest.raises(ComponentError):
        await run(hive, exchange)
    (sent,) = exchange.sent
    assert sent["type"] == "lifespan.startup.failed"
    assert sent["message"].startswith(message)


ENDPOINT_CLASS = """
from asgihive import EndpointHooks
class EndpointHooksImpl(EndpointHooks):
    def {}(self): pass
"""
CORNERSTONE_CLASS = ENDPOINT_CLASS.replace("Endpoint", "Cornerstone")
MANAGER = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def {}(context): yield
"""


@pytest.mark.parametrize(
    ("where", "text", "words"),
    [
        ("endpoints", ENDPOINT_CLASS.format("setups"), "did you mean setup?"),
        ("endpoints", ENDPOINT_CLASS.format("tear_down"), "did you mean teardown?"),
        ("endpoints", ENDPOINT_CLASS.format("pre_endpoint_call"), "no hook of an endpoint"),
        (
            "cornerstones",
            CORNERSTONE_CLASS.format("pre_endpoint_setups"),
            (
                "CornerstoneHooksImpl.pre_endpoint_setups is no hook "
                "(did you mean pre_endpoint_setup?); the hooks are before_answer, "
            ),
        ),
        ("cornerstones", CORNERSTONE_CLASS.format("post_endpoint_cal"), "post_endpoint_call?"),
        ("cornerstones", CORNERSTONE_CLASS.format("setup"), "setup is no hook of a cornerstone"),
        ("endpoints", "requirs = ('db',)", "requirs is not looked for (did you mean requires?)"),
        ("cornerstones", "require = ['db']", "did you mean requires?"),
        ("endpoints", "statuse = {KeyError: 404}", "did you mean statuses?"),
        ("cornerstones", MANAGER.format("lifespans"), "did you mean lifespan?"),
        ("cornerstones", MANAGER.format("requests"), "did you mean request?"),
        ("cornerstones", "def before_anser(context): pass", "did you mean before_answer?"),
        ("cornerstones", "websocket = True", "did you mean websockets?"),
        ("endpoints", "from asgihive import Router\nroutr = Router()", "did you mean router?"),
    ],
)
def test_misspelt_names_are_errors(root: Path, where: str, text: str, words: str) -> None:
    (root / where / "two.py").write_text(text)
    message = failure(RecordingHive(config(), base=root))
    assert words in message
    assert f"{where}.two ({root / where / 'two.py'})" in message


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("endpoints", ENDPOINT_CLASS.format("setup_database") + "    async def setup(self): pass"),
        ("cornerstones", CORNERSTONE_CLASS.format("pre_endpoint_setup_pool")),
        ("cornerstones", CORNERSTONE_CLASS.format("_setup")),
        ("cornerstones", "import asgihive as requests\nstatus = 3\ndef requests_of(x): pass"),
        ("endpoints", "def routers(): pass\nrequire = len\nstatuses_of = {'a': 1}"),
    ],
)
def test_names_of_its_own_are_a_components_own(root: Path, where: str, text: str) -> None:
    (root / where / "two.py").write_text(text)
    assert f"{where}.two" in keys(RecordingHive(config(), base=root))


async def test_what_a_cornerstone_imports_is_not_taken_for_a_manager(root: Path) -> None:
    """But what its own package defines, and what it makes, is one."""
    write(
        root,
        {
            "helpers.py": """
                def request(method, url): ...
                def lifespan(seconds, minutes): ...
                """,
            "cornerstones/client.py": "from helpers import lifespan, request as request",
            "cornerstones/inner/__init__.py": "from .manager import lifespan",
            "cornerstones/inner/manager.py": """
                from contextlib import asynccontextmanager

                @asynccontextmanager
                async def lifespan(context):
                    context.app.note(context.cornerstone.container_name)
                    context.app.note(context.cornerstone.package_path.rpartition(".")[2])
                    yield
                """,
            "cornerstones/made.py": """
                from asgihive import compose_lifespans
                from cornerstones.inner.manager import lifespan as of_inner

                lifespan = compose_lifespans(lambda context: of_inner(context))
                """,
        },
    )
    hive = RecordingHive(config(), base=root)
    async with hive.running():
        assert hive.taken() == ["cornerstones", "inner", "cornerstones", "made"]


async def test_an_import_failure_has_its_place_and_its_cause(root: Path) -> None:
    write(root, {"endpoints/two/__init__.py": "from . import inner"})
    write(root, {"endpoints/two/inner.py": "\n\n1 / 0"})
    with pytest.raises(ComponentError, match=r"inner\.py:\d with ZeroDivisionError") as raised:
        RecordingHive(config(), base=root).graph()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_a_router_module_without_a_router(root: Path) -> None:
    text = "from asgihive.asgi import Router\napi = Router()"
    write(root, {"endpoints/two/router.py": text})
    message = failure(RecordingHive(config(), base=root))
    assert "a Router called api" in message


async def test_two_endpoints_of_one_url(root: Path) -> None:
    write(root, {"endpoints/two.py": HELLO})
    hive = RecordingHive(config(hide_endpoint_in_api=True), base=root)
    with pytest.raises(HiveError, match="cannot be mounted at /endpoints") as raised:
        hive.route_records()
    assert os.path.join("endpoints", "two.py") in str(raised.value)
