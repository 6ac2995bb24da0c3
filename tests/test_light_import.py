"""The hive is imported without the HDF5 half, and works where that does not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LIGHT = (
    "from asgihive import Hive, Router",
    "import asgihive.hive",
    "import asgihive.asgi",
)
# With what it depends on imported, make unimportable and unknown what Windows does not have.
AS_ON_WINDOWS = """
    import asyncio, importlib.metadata, os, sys
    import anyio, anyio._backends._asyncio, anyio.from_thread, anyio.to_thread
    import msgspec, numpy, orjson, starlette.requests, starlette.responses, starlette.websockets

    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[name] = None
    for name in dir(os):
        if name.startswith(("O_", "RWF_", "POSIX_", "sched_")) and name not in {
            "O_APPEND", "O_CREAT", "O_EXCL", "O_RDONLY", "O_RDWR", "O_TRUNC", "O_WRONLY",
        }:
            delattr(os, name)
    for name in ("fork", "getuid", "geteuid", "preadv", "pread", "register_at_fork"):
        delattr(os, name)
    sys.platform = "win32"
"""


def run(code: str, folder: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder or Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("statement", LIGHT)
def test_a_hive_needs_neither_h5py_nor_numpy_nor_codecs(statement: str) -> None:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    modules = run(code).split()
    loaded = {name.partition(".")[0] for name in modules}
    heavy = "h5py numpy msgpack tifffile zstandard isal imagecodecs hdf5plugin bitshuffle blosc2"
    assert not loaded & {*heavy.split(), "uvicorn", "multiprocessing"}
    own = {name for name in modules if name.startswith("asgihive.")}
    assert not {name for name in own if name.split(".")[1] in {"hdf5", "service", "encoders"}}


def test_arrays_need_no_h5py() -> None:
    code = """
        import sys
        import numpy
        from asgihive import Router
        Router().get("/")(lambda: numpy.zeros(3))
        import asgihive.encoders
        asgihive.encoders.list_encoders()
        print([name for name in sys.modules if name.startswith(("h5py", "asgihive.hdf5"))])
    """
    assert run(code) == "[]\n"


def test_the_service_is_imported_when_it_is_first_read() -> None:
    code = """
        import sys
        import asgihive
        assert "H5App" in dir(asgihive) and "h5py" not in sys.modules
        first = asgihive.H5App
        from asgihive import H5App
        assert first is H5App is asgihive.service.H5App and "h5py" in sys.modules
        try:
            asgihive.H5Ap
        except AttributeError as error:
            print(error)
    """
    assert run(code) == "module 'asgihive' has no attribute 'H5Ap'\n"


def test_a_hive_works_on_windows(tmp_path: Path) -> None:
    """As far as it can be shown without one."""
    (tmp_path / "endpoints" / "notes").mkdir(parents=True)
    (tmp_path / "endpoints" / "notes" / "router.py").write_text(
        "import numpy as np\n"
        "from asgihive import Router\n"
        "router = Router()\n"
        "@router.get('/{number:int}')\n"
        "def show(number: int) -> dict[str, int]:\n"
        "    return {'number': number}\n"
        "@router.get('/zeros')\n"
        "def show_zeros() -> np.ndarray:\n"
        "    return np.zeros(2)\n"
    )
    code = """
        from asgihive import Hive, HiveConfig

        hive = Hive(HiveConfig(endpoint_package_paths="endpoints"), base=".", entry_points=False)

        async def main() -> None:
            async with hive.running():
                for path in ("7", "zeros"):
                    await hive({**scope, "path": f"/endpoints/notes/{path}"}, receive, send)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            print(message.get("status", message.get("body")))

        scope = {
            "type": "http", "method": "GET", "query_string": b"",
            "headers": [], "root_path": "", "http_version": "1.1", "scheme": "http",
        }
        anyio.run(main)
    """
    printed = run(textwrap.dedent(AS_ON_WINDOWS) + textwrap.dedent(code), tmp_path)
    assert printed == """200\nb'{"number":7}'\n200\nb'[0.0,0.0]'\n"""


def test_the_service_says_that_it_needs_posix() -> None:
    code = """
        import asgihive
        for statement in ("asgihive.H5App", "from asgihive import H5App"):
            try:
                exec(statement)
            except ImportError as error:
                print(error)
    """
    sentence = "The HDF5 service (H5App) needs a POSIX system: Linux or macOS\n"
    assert run(textwrap.dedent(AS_ON_WINDOWS) + textwrap.dedent(code)) == sentence * 2


def test_a_service_loads_what_makes_pictures_with_the_first_one(tmp_path: Path) -> None:
    code = f"""
        import sys
        from asgihive import H5App
        H5App({str(tmp_path)!r})
        print(*sys.modules)
    """
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert not loaded & {"PIL", "cmap", "matplotlib", "rich"}


def test_a_service_loads_the_client_of_a_cluster_with_the_first_large_dataset(
    tmp_path: Path,
) -> None:
    code = f"""
        import sys
        from asgihive import H5App, H5Settings
        H5App({str(tmp_path)!r}, H5Settings(compute="dask://localhost:8786"))
        print(*sys.modules)
    """
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert not loaded & {"dask", "distributed", "tornado"}
