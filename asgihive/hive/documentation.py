"""The OpenAPI document of a hive, with those of the applications that it has inside."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from asgihive.asgi import Documentation, list_routes

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class HiveDocumentation(Documentation):
    """Documents the routes of a hive, and of what is mounted and can document itself.

    That is what has a method `openapi()`: a hive and H5App, and FastAPI's applications.
    """

    def document(self) -> dict[str, Any]:
        """Make the OpenAPI document of the routes there are now, without `servers`."""
        document = super().document()
        seen: set[int] = set()
        for path, route in list_routes(self._router):
            app = None if route.is_handler else inspect.unwrap(route.target)
            make = getattr(app, "openapi", None)
            if callable(make) and route.options.include_in_schema and id(app) not in seen:
                seen.add(id(app))
                merge_documents(document, make(), path if route.kind == "mount" else "")
        return document


def merge_documents(document: dict[str, Any], other: Mapping[str, Any], prefix: str) -> None:
    """Add another OpenAPI document to the first one.

    What is there already stays: of a schema of the same name that says something else the other
    document's gets a number, and so does an operation of the same `operationId`.

    Args:
        prefix: before the paths of the other document.
    """
    other = _merge_components(document.setdefault("components", {}), other)
    taken = {each["operationId"] for _, each in _list_operations(document["paths"])}
    for path, item in other.get("paths", {}).items():
        here = document["paths"].setdefault(prefix + path, {})
        for method, operation in _list_operations({path: item}):
            if method in here:
                continue
            added = dict(operation)
            if shared := item.get("parameters"):
                added["parameters"] = [*shared, *added.get("parameters", ())]
            if "security" in other:
                added.setdefault("security", other["security"])
            name = added.get("operationId") or f"{method}_{path.strip('/')}".replace("/", "_")
            added["operationId"] = _find_free(name, lambda each: each not in taken)
            added.setdefault("summary", name.replace("_", " ").strip().capitalize())
            taken.add(added["operationId"])
            here[method] = added
    tags = {each["name"]: each for each in (*other.get("tags", ()), *document.get("tags", ()))}
    for _, each in _list_operations(document["paths"]):
        for tag in each.get("tags", ()):
            tags.setdefault(tag, {"name": tag})
    if tags:
        document["tags"] = [*tags.values()]


def _merge_components(
    components: dict[str, dict[str, Any]], other: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Add the components of another document, and return that with the names they have then."""
    schemas = components.setdefault("schemas", {})
    names = {
        name: _find_free(name, lambda each, schema=schema: schemas.get(each, schema) == schema)
        for name, schema in other.get("components", {}).get("schemas", {}).items()
    }
    renamed: Mapping[str, Any] = _rename_schemas(other, names)
    for kind, found in renamed.get("components", {}).items():
        known = components.setdefault(kind, {})
        for name, each in found.items():
            known.setdefault(names[name] if kind == "schemas" else name, each)
    return renamed


def _find_free(name: str, is_free: Any) -> str:
    found, number = name, 2
    while not is_free(found):
        found, number = f"{name}-{number}", number + 1
    return found


def _list_operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in paths.values():
        yield from ((method, item[method]) for method in _METHODS if method in item)


def _rename_schemas(value: Any, names: Mapping[str, str]) -> Any:
    """Return a copy of a part of a document, whose references go to the new names."""
    if isinstance(value, Mapping):
        return {key: _rename_reference(key, each, names) for key, each in value.items()}
    return [_rename_schemas(each, names) for each in value] if isinstance(value, list) else value


def _rename_reference(key: str, value: Any, names: Mapping[str, str]) -> Any:
    start = "#/components/schemas/"
    if key == "$ref" and isinstance(value, str) and value.startswith(start):
        name = value.removeprefix(start)
        return start + names.get(name, name)
    return _rename_schemas(value, names)
