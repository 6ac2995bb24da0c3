"""Annotations → JSON schemas and the components that they share."""

from collections.abc import Iterable
from typing import Any

import msgspec

from asgihive.asgi import pydantic_models
from asgihive.asgi.signature import MISSING

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"


class Schemas:
    """The JSON schemas (2020-12, as OpenAPI 3.1 has them) of a set of annotations.

    `msgspec` makes those of its types, `pydantic` those that hold its models; a type that
    neither knows accepts anything.

    Args:
        read: annotations of what is read from requests.
        written: annotations of what handlers return.
    """

    def __init__(self, read: Iterable[Any], written: Iterable[Any]) -> None:
        self.components: dict[str, Schema] = {}
        # By identity, since annotations need not be hashable; `_kept` keeps the identities.
        self._schemas: dict[tuple[int, bool], Schema] = {}
        self._kept: list[Any] = []
        own: list[tuple[Any, bool]] = []
        models: list[tuple[Any, bool]] = []
        for annotations, is_written in ((read, False), (written, True)):
            for each in annotations:
                listed = models if pydantic_models.mentions_model(each) else own
                listed.append((each, is_written))
        own = [pair for pair in own if _is_known(pair[0])]
        schemas, self.components = msgspec.json.schema_components(
            [annotation for annotation, _ in own], schema_hook=_anything, ref_template=_REFERENCE
        )
        for (annotation, is_written), schema in zip(own, schemas, strict=True):
            self._keep(annotation, schema, written=is_written)
        for annotation, is_written in models:
            schema = self._model(annotation, written=is_written)
            self._keep(annotation, schema, written=is_written)

    def of(self, annotation: Any, *, written: bool = False) -> Schema:
        """A schema of one of the annotations; `{}`, anything, where nobody knows it."""
        return dict(self._schemas.get((id(annotation), written), {}))

    def _keep(self, annotation: Any, schema: Schema, *, written: bool) -> None:
        self._kept.append(annotation)
        self._schemas[id(annotation), written] = schema

    def _model(self, annotation: Any, *, written: bool) -> Schema:
        mode = "serialization" if written else "validation"
        template = _REFERENCE.replace("{name}", "{model}")
        schema = pydantic_models.json_schema(annotation, template, mode)
        definitions = schema.pop("$defs", {})
        suffix = ""
        while any(
            self.components.get(name + suffix, each) != each for name, each in definitions.items()
        ):
            # Another type of that name, or the same one that is written differently than read.
            suffix = f"-{int(suffix[1:] or 1) + 1}"
            schema = pydantic_models.json_schema(annotation, template + suffix, mode)
            definitions = schema.pop("$defs", {})
        self.components.update({name + suffix: each for name, each in definitions.items()})
        return schema


def _anything(kind: type) -> Schema:  # noqa: ARG001  # the signature of a schema hook
    return {}


def _is_known(annotation: Any) -> bool:
    if annotation is MISSING:
        return False
    try:
        msgspec.json.schema_components([annotation], schema_hook=_anything)
    except (TypeError, NameError):
        # As a union of a response and a structure: it is what a handler may well return.
        return False
    return True
