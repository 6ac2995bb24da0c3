"""The same hive with three cornerstones that each time the request in their hooks."""

import time

from asgihive.hive import Component, CornerstoneHooks, Hive, ModuleHooks
from benchmarks.apps.hive_plain import CONFIG, endpoint


class Timing(CornerstoneHooks):
    """The hooks of each cornerstone."""

    async def pre_endpoint_call(self) -> None:
        self.begun = time.perf_counter()

    async def post_endpoint_call(self) -> None:
        self.app_state["seconds"] += time.perf_counter() - self.begun


def hive_of(hooks: type[CornerstoneHooks]) -> Hive:
    """Return the hive with three cornerstones of these hooks."""
    cornerstones = [
        Component(
            kind="cornerstone",
            container="cornerstones",
            name=name,
            modules=(ModuleHooks(hooks=(hooks,)),),
            state={"seconds": 0.0},
        )
        for name in ("one", "two", "three")
    ]
    return Hive(CONFIG, cornerstones=cornerstones, endpoints=[endpoint()], entry_points=False)


def create(_directory: str) -> Hive:
    return hive_of(Timing)
