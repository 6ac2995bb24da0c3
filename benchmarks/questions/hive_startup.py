"""How long a hive of many endpoints takes until it serves."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import SUBJECT, Launch, Server, process, without_server

ENDPOINTS = 200

_PACKAGE = '''\
"""An endpoint of a benchmark."""

from asgihive.hive import EndpointHooks


class EndpointHooksImpl(EndpointHooks):
    async def setup(self) -> None:
        self.app_state["items"] = {}
'''
_ROUTER = '''\
"""Its routes."""

from msgspec import Struct

from asgihive.asgi import Router

router = Router()


class Item(Struct):
    name: str
    price: float
    tags: list[str] = []


@router.get("/items/{number}")
async def read(number: int, detailed: bool = False) -> Item:
    return Item(str(number), float(detailed))


@router.put("/items/{number}")
async def write(number: int, item: Item) -> Item:
    return item
'''


class HiveStartup:
    """A process each turn: it imports the endpoints, and then starts the hive that has them."""

    name = "hive_startup"
    asks = f"start of a hive of {ENDPOINTS} endpoints from a folder, with a hook and 2 routes each"
    figures = (
        Figure(name="imports", unit="ms", better="lower"),
        Figure(
            name="beyond imports",
            unit="ms",
            better="lower",
            target=Target(below=300),
            turns="worst",
        ),
    )
    servers: Mapping[str, Launch] = {SUBJECT: without_server}
    environment: Mapping[str, str] = {}
    heavy = False

    def prepare(self, data: DataFolder) -> None:
        self._root = data.root
        data.require("startup", _write_endpoints)

    def verify(self, servers: Sequence[Server]) -> None:
        """Do nothing: the measured process counts the routes that the hive has."""

    def measure(
        self,
        server: Server,
        turn: Turn,  # noqa: ARG002  # one start, however long turns are
    ) -> Mapping[str, float]:
        command = [sys.executable, "-m", "benchmarks.startup", str(self._root / "startup")]
        with process(command, self.environment) as started:
            said, _ = started.communicate()
        if started.returncode != 0:
            raise BenchmarkError(f"{server.name}: starting the hive failed")
        found = json.loads(said)
        if found["routes"] != 2 * ENDPOINTS:
            raise BenchmarkError(f"{server.name}: {found['routes']} routes were found")
        return {"imports": found["imports"], "beyond imports": found["beyond_imports"]}


def _write_endpoints(folder: Path, _generator: np.random.Generator) -> None:
    for number in range(ENDPOINTS):
        package = folder / "endpoints" / f"endpoint_{number:03}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(_PACKAGE)
        (package / "router.py").write_text(_ROUTER)
    (folder / "endpoints" / "__init__.py").write_text("")


QUESTION = HiveStartup()
