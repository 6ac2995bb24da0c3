"""What an annotation says about the shape of its values, as `msgspec` understands it."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from msgspec import inspect

from asgihive.asgi import pydantic_models

_SCALARS = (
    inspect.BoolType,
    inspect.BytesType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.NoneType,
    inspect.StrType,
    inspect.TimeDeltaType,
    inspect.TimeType,
    inspect.UUIDType,
)
_SEQUENCES = (
    inspect.FrozenSetType,
    inspect.ListType,
    inspect.SetType,
    inspect.VarTupleType,
)
# What may be made of the value that a path convertor captures.
_CAPTURED: dict[str, tuple[type[inspect.Type], ...]] = {
    "int": (
        inspect.IntType,
        inspect.FloatType,
        inspect.DecimalType,
        inspect.LiteralType,
        inspect.EnumType,
    ),
    "float": (inspect.FloatType, inspect.DecimalType),
    "uuid": (inspect.UUIDType,),
}


class Shape(Enum):
    """What a value is for a request: one text, several, or a body."""

    SCALAR = auto()
    SCALARS = auto()
    STRUCTURE = auto()
    ANYTHING = auto()


def shape_of(annotation: Any) -> Shape:
    """The shape of the values of an annotation.

    Raises:
        TypeError: `msgspec`, or `pydantic` where it has a model, cannot read it.
    """
    if pydantic_models.mentions_model(annotation):
        return Shape.STRUCTURE
    info = _info(annotation)
    if isinstance(info, inspect.AnyType):
        return Shape.ANYTHING
    for custom in _customs(info, set()):
        raise TypeError(f"values of {custom!r} cannot be read from a request")
    alternatives = [each for each in _alternatives(info) if not isinstance(each, inspect.NoneType)]
    if alternatives and all(_is_sequence(each) for each in alternatives):
        return Shape.SCALARS
    if all(isinstance(each, _SCALARS) for each in alternatives):
        return Shape.SCALAR
    return Shape.STRUCTURE


def accepted_values(annotation: Any) -> tuple[Any, ...]:
    """The values of enumerations and literals in an annotation; none where it has others."""
    values: list[Any] = []
    for each in _alternatives(_info(annotation)):
        if isinstance(each, inspect.EnumType):
            values.extend(member.value for member in each.cls)
        elif isinstance(each, inspect.LiteralType):
            values.extend(each.values)
        elif not isinstance(each, inspect.NoneType):
            return ()
    return tuple(values)


def refusal_of_path(annotation: Any, convertor: str) -> str | None:
    """Why a path parameter cannot have this annotation; None where it can.

    Raises:
        TypeError: as `shape_of`.
    """
    shape = shape_of(annotation)
    if shape is Shape.ANYTHING:
        return None
    if shape is not Shape.SCALAR:
        return f"a path parameter is scalar, not {annotation!r}"
    wanted = _CAPTURED.get(convertor)
    if wanted and not any(isinstance(each, wanted) for each in _alternatives(_info(annotation))):
        return f"the path's convertor {convertor!r} never gives {annotation!r}"
    return None


def _info(annotation: Any) -> inspect.Type:
    info = inspect.type_info(annotation)
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def _alternatives(info: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        yield from _alternatives(info.type)
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _alternatives(each)
    else:
        yield info


def _is_sequence(info: inspect.Type) -> bool:
    if isinstance(info, inspect.TupleType):
        items = info.item_types
    elif isinstance(info, _SEQUENCES):
        items = (info.item_type,)
    else:
        return False
    return all(isinstance(each, _SCALARS) for item in items for each in _alternatives(item))


def _customs(value: Any, seen: set[type]) -> Iterator[Any]:
    """The classes anywhere inside a type that `msgspec` does not know."""
    if isinstance(value, inspect.CustomType):
        yield value.cls
    if isinstance(value, tuple):
        for each in value:
            yield from _customs(each, seen)
    if not isinstance(value, (inspect.Type, inspect.Field)):
        return
    owner = getattr(value, "cls", None)
    if isinstance(owner, type):
        if owner in seen:  # a class may hold itself
            return
        seen.add(owner)
    for name in ("type", "types", "fields", "item_type", "item_types", "key_type", "value_type"):
        yield from _customs(getattr(value, name, None), seen)
