"""Models of `pydantic`, where it is installed; nothing else touches that package.

It is never imported here: whoever hands over a model has imported it.
"""

import sys
import typing
from collections.abc import Callable
from typing import Any

from asgihive.asgi.errors import Problem, ProblemsFound, clip_text


def is_model(value: object) -> bool:
    """Whether a value is an instance of a model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def mentions_model(annotation: Any) -> bool:
    """Whether an annotation is a model, or holds one as an argument."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return False
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return True
    return any(mentions_model(each) for each in typing.get_args(annotation))


def plain(model: Any) -> Any:
    """What is encoded of a model."""
    return model.model_dump(mode="json", by_alias=True)


def json_schema(annotation: Any, ref_template: str, mode: str) -> dict[str, Any]:
    """The JSON schema of an annotation, its definitions under `$defs`."""
    adapter = sys.modules["pydantic"].TypeAdapter(annotation)
    schema: dict[str, Any] = adapter.json_schema(ref_template=ref_template, mode=mode)
    return schema


def decoders(annotation: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], Any]]:
    """Functions that make a value of an annotation from JSON, and from plain values.

    Both raise `ProblemsFound`, with places below the value.
    """
    pydantic = sys.modules["pydantic"]
    adapter = pydantic.TypeAdapter(annotation)

    def reading(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read(raw: Any) -> Any:
            try:
                return validate(raw)
            except pydantic.ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
                problems = [Problem(_place(each["loc"]), clip_text(each["msg"])) for each in found]
                raise ProblemsFound(problems) from None

        return read

    return reading(adapter.validate_json), reading(adapter.validate_python)


def _place(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # A key of a mapping is the client's own text.
    return tuple(clip_text(each) if isinstance(each, str) else each for each in location)
