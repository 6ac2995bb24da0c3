"""A relative root: in a component it begins at the component's file, else where Python runs."""

import os
import textwrap
from pathlib import Path

import h5py
import httpx
import pytest

from asgihive.hive import ComponentError, Hive, HiveConfig
from asgihive.service import H5App

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service, its data beside its components; the current directory is another one."""
    for name in ("service/data", "service/endpoints/pack/own", "elsewhere/data"):
        (tmp_path / name).mkdir(parents=True)
    for name, value in (
        ("service/data", 1),
        ("service/endpoints/pack/own", 2),
        ("elsewhere/data", 3),
    ):
        with h5py.File(tmp_path / name / "x.h5", "w") as file:
            file["value"] = value
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "service"


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


async def value(hive: Hive, url: str) -> int:
    transport = httpx.ASGITransport(hive)
    async with hive.running(), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        answer = await http.get(f"{url}/data?file=x.h5&path=/value")
        assert answer.status_code == 200, answer.text
        return int(answer.json())


def hive(folder: Path) -> Hive:
    config = HiveConfig(endpoint_package_paths="./endpoints")
    return Hive(config, base=folder, docs=False, entry_points=False)


async def test_in_a_module_of_a_hive(folder: Path) -> None:
    write(folder, "endpoints/files.py", 'from asgihive import H5App\nrouter = H5App("../data")\n')
    assert await value(hive(folder), "/endpoints/files") == 1


async def test_in_a_package_of_a_hive(folder: Path) -> None:
    write(folder, "endpoints/pack/__init__.py", "")
    write(folder, "endpoints/pack/router.py", 'from asgihive import H5App\nrouter = H5App("own")\n')
    assert await value(hive(folder), "/endpoints/pack") == 2


async def test_in_what_a_component_imports_and_in_a_subclass(folder: Path) -> None:
    write(folder, "endpoints/pack/__init__.py", "")
    write(
        folder,
        "endpoints/pack/below/files.py",
        """
        from asgihive import H5App

        class Files(H5App):
            def __init__(self, root):
                super().__init__(root)

        h5 = Files("../own")
        """,
    )
    write(folder, "endpoints/pack/router.py", "from .below.files import h5 as router\n")
    assert await value(hive(folder), "/endpoints/pack") == 2


async def test_an_absolute_one(folder: Path) -> None:
    root = os.fspath(folder.parent / "elsewhere" / "data")
    write(folder, "endpoints/files.py", f"from asgihive import H5App\nrouter = H5App({root!r})\n")
    assert await value(hive(folder), "/endpoints/files") == 3


async def test_elsewhere_it_begins_at_the_current_directory(folder: Path) -> None:
    transport = httpx.ASGITransport(H5App("data"))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        assert (await http.get("/data?file=x.h5&path=/value")).json() == 3


async def test_what_is_missing_is_named_whole(folder: Path) -> None:
    write(folder, "endpoints/files.py", 'from asgihive import H5App\nrouter = H5App("dat")\n')
    with pytest.raises(ComponentError) as failed:
        async with hive(folder).running():
            pass
    assert repr(str(folder / "endpoints" / "dat")) in str(failed.value)
    with pytest.raises(FileNotFoundError, match=str(folder.parent / "elsewhere" / "dat")):
        H5App("dat")
    (folder.parent / "elsewhere" / "file").touch()
    with pytest.raises(NotADirectoryError, match=str(folder.parent / "elsewhere" / "file")):
        H5App("file")
