"""Services in folders that note every call of their hooks, and the hive over them."""

import inspect
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

from asgihive.hive import Hive, HiveConfig

CORNERSTONE_STEPS = (
    "pre_endpoint_setup",
    "post_endpoint_setup",
    "pre_endpoint_teardown",
    "post_endpoint_teardown",
    "pre_endpoint_call",
    "post_endpoint_call",
)
ENDPOINT_STEPS = ("setup", "teardown")

ROUTER = """
from asgihive.asgi import Router

router = Router()


@router.get("/")
async def hello():
    return "hello from NAME"
"""


class Failure(Exception):
    """What a hook raises that was told to."""


class RecordingHive(Hive):
    """Keeps what hooks note, and lets those fail that are named in `failing`."""

    def __init__(self, config: HiveConfig, *, base: Path, **options: Any) -> None:
        super().__init__(config, base=base, entry_points=False, docs=False, **options)
        self.calls: list[str] = []
        self.failing: dict[str, Exception] = {}

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            raise self.failing[call]

    def taken(self) -> list[str]:
        """The calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below `root`, and the folders that they are in."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inspect.cleandoc(text) + "\n")
    return root


def hooks_module(kind: str, owner: str, steps: Iterable[str]) -> str:
    """A module whose sync hooks, async hooks and lifespan note every step."""
    lines = [
        "from contextlib import asynccontextmanager",
        f"from asgihive.hive import {kind}AsyncHooks, {kind}Hooks",
    ]
    for word, define in (("", "def"), ("Async", "async def")):
        lines += ["", f"class {kind}{word}HooksImpl({kind}{word}Hooks):"]
        for step in steps:
            call = f"{owner}.{word.lower() or 'sync'}.{step}"
            lines += [f"    {define} {step}(self):", f"        self.app.note({call!r})"]
    lines += ["", *_manager("lifespan", owner)]
    if kind == "Cornerstone":
        lines += ["", "websockets = True", "", *_manager("request", owner)]
    return "\n".join(lines)


def _manager(name: str, owner: str) -> list[str]:
    return [
        "@asynccontextmanager",
        f"async def {name}(context):",
        f"    context.app.note('{owner}.{name}.enter')",
        "    try:",
        "        yield",
        "    finally:",
        f"        context.app.note('{owner}.{name}.exit')",
    ]


def recording_service(root: Path) -> Path:
    """Cornerstones a and b, where a requires b; endpoints x, with every part, and y."""
    for name, requires in (("a", 'requires = ("b",)\n'), ("b", "")):
        text = hooks_module("Cornerstone", name, CORNERSTONE_STEPS)
        write(root, {f"cornerstones/{name}/__init__.py": requires + text})
    for part in ("x", "x.db", "x.router", "x.service", "y"):
        text = hooks_module("Endpoint", part, ENDPOINT_STEPS)
        router = ROUTER if part in {"x.router", "y"} else ""
        path = part.replace(".", "/")
        write(root, {f"endpoints/{path}/__init__.py": f"{text}\n{router}"})
    return root


def config(**fields: Any) -> HiveConfig:
    """Both folders of the layout, unless a field says otherwise."""
    given = {
        "cornerstone_package_path": "cornerstones",
        "endpoint_package_paths": ("endpoints",),
        **fields,
    }
    return HiveConfig(**given)


@asynccontextmanager
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client in this process, without a lifespan."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as found:
        yield found
