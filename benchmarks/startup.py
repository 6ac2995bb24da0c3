"""The process of one start: `python -m benchmarks.startup DIRECTORY`.

Imports every module of the package `endpoints` in the directory as plain Python does, then
starts a hive that finds them there, and prints as JSON the milliseconds of both and how many
routes its endpoints have. Nothing is left to import at the start: what it takes is the hive's own.
"""

import importlib
import json
import pkgutil
import sys
import time

import anyio

from asgihive.hive import Hive, HiveConfig


def _import_all(package: str) -> None:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        importlib.import_module(module.name)


async def _routes_of_a_start() -> int:
    config = HiveConfig(cornerstone_package_path=(), endpoint_package_paths="endpoints")
    hive = Hive(config, entry_points=False)
    async with hive.running():
        return sum(each.path.startswith("/endpoints/") for each in hive.router.registered)


def main(directory: str) -> None:
    sys.path.insert(0, directory)
    start = time.perf_counter()
    _import_all("endpoints")
    imported = time.perf_counter()
    routes = anyio.run(_routes_of_a_start)
    started = time.perf_counter()
    found = {
        "imports": (imported - start) * 1e3,
        "beyond_imports": (started - imported) * 1e3,
        "routes": routes,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
