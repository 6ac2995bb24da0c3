"""The hive of `hive_hooks`, whose hooks await what they do, so that they might wait."""

import time

from asgihive.hive import CornerstoneHooks, Hive
from benchmarks.apps.hive_hooks import hive_of


class AwaitingTiming(CornerstoneHooks):
    """The hooks of each cornerstone."""

    async def pre_endpoint_call(self) -> None:
        await self._begin()

    async def post_endpoint_call(self) -> None:
        await self._add(time.perf_counter() - self.begun)

    async def _begin(self) -> None:
        self.begun = time.perf_counter()

    async def _add(self, seconds: float) -> None:
        self.app_state["seconds"] += seconds


def create(_directory: str) -> Hive:
    return hive_of(AwaitingTiming)
