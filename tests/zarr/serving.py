"""Files and requests for tests of `/zarr`."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import h5py
import numpy as np
from starlette.types import ASGIApp

from tests.asgi.exchange import Exchange, http, run
from tests.service.servers import PATIENCE

VALUES = np.arange(40_000, dtype="<i4").reshape(200, 200)

FILES = ("x.h5", "two words ä.nc", "dir.h5/below/y.h5", "z.nc.zarr")


def write(path: Path, values: Any = VALUES) -> None:
    """One dataset of one chunk of Zarr, one of several, a scalar, and groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["line"] = np.arange(10.0)
        file["number"] = 5
        file.create_dataset(
            "entry/image", data=np.tile(values, (8, 1)), chunks=(1000, 200), compression="gzip"
        )
        file.create_group("empty")
        file.create_group("c").create_group("0")
        file["type"] = np.dtype("<i4")
        file["lost"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("../outside.h5", "/")


def make_root(root: Path) -> Path:
    """A directory with files, one of them beside it, and what is no HDF5."""
    for name in FILES:
        write(root / name)
    write(root.parent / "outside.h5")
    (root / "notes.txt").write_text("not HDF5")
    (root / "folder").mkdir()
    return root


async def ask(app: ASGIApp, path: str, method: str = "GET", /, **more: Any) -> Exchange:
    """The answer to a URL whose query follows a question mark; headers by their names."""
    state = more.pop("state", None)
    root_path = more.pop("root_path", "")
    headers = [(name.replace("_", "-").encode(), text.encode()) for name, text in more.items()]
    exchange = http(path, method, headers=headers, root_path=root_path)
    exchange.scope["raw_path"] = quote(path.partition("?")[0], safe="/@%").encode()
    if state is not None:
        exchange.scope["state"] = state
    # Reader processes may have to start for it, on a busy machine.
    with anyio.fail_after(4 * PATIENCE):
        return await run(app, exchange)
