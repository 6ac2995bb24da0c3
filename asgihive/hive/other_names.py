"""What to write for the names that FastAPI's application has and a hive has not."""

from collections.abc import Iterable

_ATTRIBUTES = {
    **{
        each: f"hive.router.{each}, or a `router` in an endpoint"
        for each in ("get", "post", "put", "patch", "delete", "websocket")
    },
    "head": "hive.router.get, which answers HEAD too",
    "options": 'hive.router.route(…, methods=["OPTIONS"])',
    "api_route": "hive.router.route",
    "add_api_route": "hive.router.route",
    "route": "hive.router.route",
    "on_event": "`lifespan(context)` in a cornerstone",
    "add_event_handler": "`lifespan(context)` in a cornerstone",
    "exception_handler": "`statuses` or `answer(context, error)` in a cornerstone",
    "add_exception_handler": "`statuses` or `answer(context, error)` in a cornerstone",
    "middleware": "hive.add_middleware(…) or Hive(middleware=[…]); hooks around requests are "
    "`request(context)` in a cornerstone",
    "dependency_overrides": "hive.router.overrides, or hive.fastapi.dependency_overrides for "
    "APIRouters",
    "routes": "hive.router.registered",
}
_ARGUMENTS = {
    "lifespan": "write `lifespan(context)` in a cornerstone",
    "on_startup": "write `lifespan(context)` in a cornerstone",
    "on_shutdown": "write `lifespan(context)` in a cornerstone",
    "dependencies": "write Router(dependencies=[…]), or `request(context)` in a cornerstone",
    "exception_handlers": "write `statuses` or `answer(context, error)` in a cornerstone",
    "openapi_tags": "write tags={name: description}",
    "docs_url": "write docs=False to leave them out",
    "openapi_url": "write docs=False to leave it out",
    "redirect_slashes": "write optional_trailing_slash=True",
    "root_path": "say it to the server (uvicorn --root-path)",
    "debug": "exceptions are logged with their tracebacks",
}


def describe_attribute(name: str) -> str:
    """Return why a hive has no attribute of a name, and what to write where that is known."""
    instead = _ATTRIBUTES.get(name)
    return f"A Hive has no {name!r}" + (f"; write {instead}" if instead else "")


def describe_arguments(names: Iterable[str], of_configuration: Iterable[str]) -> str:
    """Return why a hive takes no arguments of these names, and what to write instead."""
    fields = set(of_configuration)
    parts = [f"Hive({', '.join(f'{each}=…' for each in names)}) is not accepted"]
    for each in names:
        if each in fields:
            parts.append(f"{each} is a field of the configuration: Hive(HiveConfig({each}=…))")
        elif each in _ARGUMENTS:
            parts.append(f"for {each} {_ARGUMENTS[each]}")
    return "; ".join(parts)
