"""What the service opens, as the operating system sees it: nothing outside of its directory.

Whatever an answer says, libhdf5 must not even look: a FIFO would hold up the whole service.
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import h5py
import pytest

from asgihive.hdf5.inspection import inspect_path
from asgihive.hdf5.objects import LINK_ACCESS
from asgihive.hdf5.pool import Lease
from asgihive.service import H5App
from tests.hdf5.serving import leased
from tests.service.test_sandbox_http import ROUTES, assert_no_secret
from tests.zoo import forged
from tests.zoo.client import Asker
from tests.zoo.hostile import Hostile, build

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's"),
]

PATIENCE_SECONDS = 120.0
MANY_PATHS = 100

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")  # inotify(7): watch, mask, cookie, length of the name


class Watch:
    """Says which files of some directories were opened, by whatever process."""

    def __init__(self, directories: list[Path]) -> None:
        libc = ctypes.CDLL(None)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for each in directories:
            assert libc.inotify_add_watch(self._descriptor, os.fsencode(each), _IN_OPEN) >= 0

    def opened(self) -> set[str]:
        """The names since the last time; `` of a directory itself."""
        names = set[str]()
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self._descriptor, 1 << 16):
                while events:
                    length = _EVENT.unpack_from(events)[3]
                    name = events[_EVENT.size : _EVENT.size + length]
                    names.add(os.fsdecode(name.rstrip(b"\0")))
                    events = events[_EVENT.size + length :]
        return names

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    built = build(tmp_path_factory.mktemp("watched"))
    forged.write(built.root, built.outside)
    yield built
    for fifo in (*built.fifos, built.outside / "fifo.h5"):
        # Frees a thread that a failed test has left waiting in `open`.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture
def watch(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Of all that lies outside; names without a directory would be looked for there."""
    monkeypatch.chdir(hostile.outside)
    watch = Watch([hostile.outside, hostile.root.parent / "root-neighbour"])
    yield watch
    watch.close()


FORGED = sorted(f"forged_{kind}" for kind in forged._FORGERIES)
FILES = ["hostile_links.h5", "hostile_virtual.h5", "hostile_storage.h5", "sub/up.h5", *FORGED]
# A sound one; a forged name; a forged place of values. An inspection looks at all.
FAST = {"hostile_links.h5", "forged_slash", "forged_virtual"}


def files_of(hostile: Hostile, name: str) -> list[str]:
    if name.endswith(".h5"):
        return [name]
    labels = ("file", "beside", "fifo", "text")
    return [f"{name}_{label}.h5" for label in labels]


async def paths_of(app: H5App, file: str) -> list[str]:
    """Every path that a listing shows, and some below those."""
    listed = await Asker(app).get("/paths", params={"file": file, "resolve_links": "none"})
    assert listed.status_code == 200, listed.text
    shown = listed.json()
    below = [f"{path.rstrip('/')}/hidden" for path in shown]
    return list(dict.fromkeys([*shown, *below]))[:MANY_PATHS]


ASKED: tuple[tuple[str, dict[str, str]], ...] = (
    *((route, {}) for route in ROUTES),
    ("/meta", {"resolve_links": "all"}),
    ("/paths", {"resolve_links": "all"}),
    ("/data", {"format": "bin", "dtype": "safe"}),
    ("/histogram", {}),
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in FILES],
)
@pytest.mark.slow_on_trio
async def test_nothing_outside_is_opened(hostile: Hostile, watch: Watch, name: str) -> None:
    app = H5App(hostile.root)
    with anyio.fail_after(PATIENCE_SECONDS):
        asker = Asker(app)
        for file in files_of(hostile, name):
            for path in await paths_of(app, file):
                for route, more in ASKED:
                    wanted = {"file": file, "path": path, **more}
                    assert_no_secret(await asker.get(route, params=wanted))
            assert watch.opened() == set(), file
        # The service is alive.
        answer = await asker.get("/data", params={"file": "inside.h5", "path": "/data"})
        assert answer.status_code == 200


def test_nor_by_an_inspection(hostile: Hostile, watch: Watch) -> None:
    for name in FILES:
        for file in files_of(hostile, name):
            with leased(hostile.root) as lease:
                _inspect(lease, file, "/")
            assert watch.opened() == set(), file


def _inspect(lease: Lease, file: str, path: str) -> None:
    found = inspect_path(lease, lease.open_asked(file), path)
    for child in found.children or ():
        if child.kind == "group" and not child.links and "name holds" not in (child.problem or ""):
            _inspect(lease, file, child.path)


def test_the_watch_sees_what_h5py_does(hostile: Hostile, watch: Watch) -> None:
    """Else the tests above would prove nothing; nor would the forgeries."""
    seen = {}
    for kind in ("duplicate", "slash"):
        with h5py.File(hostile.root / f"forged_{kind}_file.h5", "r", locking=False) as file:
            start = file["/"]
            with contextlib.suppress(KeyError, OSError, RuntimeError):
                start.id.links.visit(lambda name: None)
        seen[kind] = watch.opened()
    with h5py.File(hostile.root / "forged_virtual_file.h5", "r", locking=False) as file:
        with contextlib.suppress(OSError, RuntimeError):
            assert file["virtual"].shape is not None
        seen["virtual"] = watch.opened()
    with h5py.File(hostile.root / "forged_storage_file.h5", "r", locking=False) as file:
        with contextlib.suppress(OSError, RuntimeError):
            file["half"][...]
        seen["storage"] = watch.opened()
    assert all("secret.h5" in names for names in seen.values()), seen
    with h5py.File(hostile.root / "forged_slash_file.h5", "r", locking=False) as file:
        for name in (b"e/hidden", b"e/hidden0", b"below/f/x"):
            with contextlib.suppress(KeyError, OSError, RuntimeError):
                h5py.h5o.open(file.id, name, LINK_ACCESS)
        assert watch.opened() == set()
