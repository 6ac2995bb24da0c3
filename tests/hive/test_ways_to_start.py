"""One module, one name, in whichever way a service is started."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hive.services import write

MAIN = """
import sys

from asgihive import Hive, HiveConfig
from PACKAGEcornerstones.archive import Archive

PATH = [*sys.path]
config = HiveConfig(cornerstone_package_path="./cornerstones", endpoint_package_paths="./endpoints")
app = Hive(config, docs=False, entry_points=False)
"""
ARCHIVE = """
from contextlib import asynccontextmanager


class Archive:
    pass


@asynccontextmanager
async def lifespan(context):
    context.app_state["archive"] = Archive()
    yield
"""
ROUTER = """
import json
import sys

from asgihive import EndpointHooks, Router
from cornerstones.archive import Archive

from ... import main
from ...cornerstones.archive import Archive as Relative

router = Router()


def count_modules(file):
    return len({id(each) for each in sys.modules.values() if getattr(each, "__file__", "") == file})


class EndpointHooksImpl(EndpointHooks):
    def setup(self):
        import cornerstones.archive

        archive = self.app.state.cornerstones["cornerstones.archive"]["archive"]
        report = {
            "same": Archive is Relative is cornerstones.archive.Archive is main.Archive,
            "instance": isinstance(archive, Archive),
            "archives": count_modules(cornerstones.archive.__file__),
            "mains": count_modules(main.__file__),
            "hive": main.app is self.app,
            "path": main.PATH == sys.path,
        }
        print("report", json.dumps(report), flush=True)
        raise RuntimeError("reported")
"""
RUN = """

if __name__ == "__main__":
    import uvicorn

    uvicorn.run(APP, port=0)
"""
TEST = """
import pytest
from main import app
from asgihive.hive import HookFailed
from cornerstones.archive import Archive
from endpoints.notes.router import Archive as FromEndpoint


@pytest.mark.anyio
async def test_it():
    assert Archive is FromEndpoint
    with pytest.raises(HookFailed, match="reported"):
        async with app.running():
            pass
"""
GOOD = {"same": True, "instance": True, "archives": 1, "mains": 1, "hive": True, "path": True}

# The arguments of Python; PLACE is the folder of main.py, PORT a free one.
WAYS = {
    "uvicorn": "BIN/uvicorn main:app --port 0",
    "-m uvicorn": "-m uvicorn main:app --port 0",
    "-m uvicorn, a package": "-m uvicorn service.main:app --port 0",
    "uvicorn, another directory": "BIN/uvicorn --app-dir PLACE main:app --port 0",
    "uvicorn, a package in another directory": "BIN/uvicorn --app-dir PLACE/.. service.main:app",
    "main.py": "app.py",
    "main.py, another directory": "PLACE/app.py",
    "main.py, by its name": "name.py",
    "hypercorn": "BIN/hypercorn main:app --bind 127.0.0.1:PORT",
    "hypercorn on trio": "-m hypercorn -k trio main:app --bind 127.0.0.1:PORT",
    "granian": "BIN/granian --interface asgi main:app --port PORT",
    "pytest": "-m pytest -q -s -p no:cacheprovider tests",
    "pytest, prepend, with conftest.py": "BIN/pytest -q -s -p no:cacheprovider tests",
    "pytest, prepend": "BIN/pytest -q -s -p no:cacheprovider -o pythonpath=. tests",
    "pytest, importlib": (
        "BIN/pytest -q -s -p no:cacheprovider --import-mode=importlib -o pythonpath=. tests"
    ),
}
QUICK = {"main.py"}


def run_python(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def make_arguments(command: str, place: Path) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    command = command.replace("BIN", str(Path(sys.executable).parent))
    return command.replace("PLACE", str(place)).replace("PORT", str(port)).split()


def start(way: str, place: Path, folder: Path) -> dict[str, Any]:
    """Start a service in a process of its own, and return what it reports."""
    done = run_python(make_arguments(WAYS[way], place), folder)
    reports = [each for each in done.stdout.splitlines() if "report {" in each]
    assert reports, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(reports[0].partition("report ")[2])
    return found


@pytest.mark.parametrize(
    "way", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in WAYS]
)
def test_each_module_is_imported_once(way: str, tmp_path: Path) -> None:
    place = tmp_path / "service"
    is_package = "package" in way
    main = MAIN.replace("PACKAGE", "." if is_package else "")
    write(
        place,
        {
            "main.py": main,
            "app.py": main + RUN.replace("APP", "app"),
            "name.py": main + RUN.replace("APP", "'name:app'"),
            "cornerstones/archive.py": ARCHIVE,
            "endpoints/notes/__init__.py": "",
            "endpoints/notes/router.py": ROUTER,
            "tests/test_it.py": TEST,
            **({"conftest.py": ""} if "conftest" in way else {}),
        },
    )
    file = next((each for each in ("app.py", "name.py") if each in WAYS[way]), "main.py")
    if file != "main.py":
        (place / "main.py").unlink()
        router = place / "endpoints/notes/router.py"
        name = file.removesuffix(".py")
        router.write_text(router.read_text().replace("import main", f"import {name} as main"))
    if is_package:
        write(place, {"__init__.py": ""})
    folder = tmp_path / "elsewhere" if "another" in way else tmp_path if is_package else place
    folder.mkdir(exist_ok=True)
    assert start(way, place, folder) == GOOD


@pytest.mark.parametrize("command", ["graph", "routes"])
def test_the_commands_import_from_any_directory(command: str, tmp_path: Path) -> None:
    files = {"main.py": MAIN.replace("PACKAGE", ""), "cornerstones/archive.py": ARCHIVE}
    write(tmp_path / "service", {**files, "endpoints/notes/router.py": ROUTER})
    arguments = ["-m", "asgihive", command, str(tmp_path / "service/main.py")]
    done = run_python(arguments, tmp_path)
    assert done.returncode == 0, done.stderr


FAILING = """
from asgihive import Hive, HiveConfig

app = Hive(HiveConfig(cornerstone_package_path="./cornerstones"), docs=False, entry_points=False)
"""
FAILING_CORNERSTONE = """
from asgihive import CornerstoneHooks


class CornerstoneHooksImpl(CornerstoneHooks):
    async def pre_endpoint_setup(self):
        raise ConnectionError("no such host")
"""
# The exit code of each: hypercorn 0.18 forgets that of its worker process.
EXIT_CODES = {
    "BIN/uvicorn main:app --port 0": 3,
    "-m hypercorn main:app --bind 127.0.0.1:PORT": 0,
    "-m hypercorn -k trio main:app --bind 127.0.0.1:PORT": 0,
    "-m hypercorn -w 0 main:app --bind 127.0.0.1:PORT": 1,
    "BIN/granian --interface asgi main:app --port PORT": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("command", EXIT_CODES)
def test_a_server_says_what_did_not_start_and_ends(command: str, tmp_path: Path) -> None:
    write(tmp_path, {"main.py": FAILING, "cornerstones/db.py": FAILING_CORNERSTONE})
    done = run_python(make_arguments(command, tmp_path), tmp_path)
    printed = done.stdout + done.stderr
    said = f"cornerstones.db ({tmp_path / 'cornerstones/db.py'}): pre_endpoint_setup failed with"
    assert f"{said} ConnectionError: no such host" in printed
    assert 'db.py", line 6, in pre_endpoint_setup' in printed
    assert "The hive failed" not in printed
    assert done.returncode == EXIT_CODES[command]
