"""What values an annotation stands for: one text, several, a structure; and who converts them."""

import dataclasses
import functools
import numbers
import operator
import sys
import types as builtin_types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum, auto
from inspect import Parameter
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import inspect as types

MISSING = Parameter.empty

_NUMBERS = (types.FloatType, types.DecimalType)
_TIMES = (types.DateTimeType, types.DateType, types.TimeDeltaType, types.TimeType)
_NAMED = (types.EnumType, types.LiteralType, types.BoolType, types.NoneType, types.UUIDType)
_SCALARS = (*_NUMBERS, *_TIMES, *_NAMED, types.BytesType, types.IntType, types.StrType)
_SEQUENCES = (types.FrozenSetType, types.ListType, types.SetType, types.VarTupleType)
# The types that a path convertor's value can be converted to; text can be to any.
_CAPTURED: dict[str, tuple[type[types.Type], ...]] = {
    "int": (*_NUMBERS, types.IntType, types.LiteralType, types.EnumType),
    "float": _NUMBERS,
    "uuid": (types.UUIDType,),
}

_PLAIN = (bool, int, float, str, bytes, Enum, Decimal)
_PLAIN_MODULES = {"datetime", "uuid", "numpy", "ipaddress", "fractions", "zoneinfo"}
_ITEMS = (list, tuple, set, frozenset)
_ALSO_FITTING: dict[Any, Any] = {
    int: numbers.Integral,
    float: numbers.Real,
    Decimal: (Decimal, int),
}


def resolve_alias(annotation: Any) -> Any:
    """Return what an alias of a `type` statement (PEP 695) stands for, else the annotation.

    `numpy.typing.NDArray` is such an alias from NumPy 2.5 on.
    """
    while hasattr(origin := typing.get_origin(annotation) or annotation, "__value__"):
        arguments = dict(zip(origin.__type_params__, typing.get_args(annotation), strict=False))
        annotation = origin.__value__
        if arguments:
            used = getattr(annotation, "__parameters__", ())
            annotation = annotation[tuple(arguments[each] for each in used)] if used else annotation
    return annotation


def is_union(annotation: Any) -> bool:
    """Return whether an annotation is `A | B`, `Union[A, B]` or `Optional[A]`."""
    return typing.get_origin(annotation) in {Union, builtin_types.UnionType}


def replace_arguments(annotation: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a generic annotation, or a union, with other arguments."""
    if arguments == typing.get_args(annotation):
        return annotation
    if is_union(annotation):
        return functools.reduce(operator.or_, arguments)
    origin = typing.get_origin(annotation)
    return origin[arguments] if origin is not None else annotation


def fill_in_arguments(hint: Any, annotation: Any) -> Any:
    """Return a hint inside a generic class for the arguments that an annotation of it has."""
    used = getattr(hint, "__parameters__", ())
    parameters = getattr(typing.get_origin(annotation), "__parameters__", used)
    known = dict(zip(parameters, typing.get_args(annotation), strict=False))
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    return hint[tuple(known.get(each, each) for each in used)] if used and known else hint


def list_hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of the fields of a class; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(typing.get_origin(kind) or kind, include_extras=True)
    except (NameError, TypeError):
        return {}


class Shape(Enum):
    """What a value is for a request: one text, several, or a body."""

    SCALAR = auto()
    SCALARS = auto()
    STRUCTURE = auto()
    ANYTHING = auto()


def find_shape(annotation: Any) -> Shape:
    """Return the shape of the values of an annotation.

    Raises:
        TypeError: `msgspec`, or `pydantic` if that is to convert them, cannot read it.
    """
    if needs_pydantic(annotation):
        annotation = _hide_pydantic(annotation)
    info = types.type_info(annotation)
    for custom in _list_custom_classes(info, set()):
        name = getattr(custom, "__name__", custom)
        raise TypeError(
            f"values of {custom!r} cannot be read from a request; FromHive[{name}] is what a "
            f"cornerstone provides, Annotated[{name}, Depends(f)] what a function returns"
        )
    alternatives = [
        each for each in _list_alternatives(info) if not isinstance(each, types.NoneType)
    ]
    if any(isinstance(each, types.AnyType) for each in alternatives):
        return Shape.ANYTHING
    if all(isinstance(each, _SCALARS) for each in alternatives):
        return Shape.SCALAR
    # A scalar beside a sequence of them: as repeated fields the value is a sequence.
    if all(isinstance(each, _SCALARS) or _is_sequence(each) for each in alternatives):
        return Shape.SCALARS
    return Shape.STRUCTURE


def can_be_captured(annotation: Any, convertor: str) -> bool:
    """Return whether the value of a path's convertor can become one of an annotation."""
    possible = _CAPTURED.get(convertor)
    if needs_pydantic(annotation):
        annotation = _hide_pydantic(annotation)
    alternatives = _list_alternatives(types.type_info(annotation))
    return not possible or any(isinstance(each, possible) for each in alternatives)


def list_accepted_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of enumerations and literals in an annotation; none if it has others."""
    values: list[Any] = []
    for each in _list_alternatives(types.type_info(annotation)):
        if isinstance(each, types.EnumType):
            values.extend(member.value for member in each.cls)
        elif isinstance(each, types.LiteralType):
            values.extend(each.values)
        elif not isinstance(each, types.NoneType):
            return ()
    return tuple(values)


def is_typed_dict(kind: Any) -> bool:
    """Return whether a class is a `TypedDict`, also that of `typing_extensions`."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def is_structure(kind: Any) -> bool:
    """Return whether a class is a `Struct`, a dataclass, or a model of `pydantic`."""
    return isinstance(kind, type) and (
        issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or is_model(kind)
    )


def is_model(kind: Any) -> bool:
    """Return whether a class is a model of `pydantic`, which is never imported here.

    A model exists only where the application imported it.
    """
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def is_of_pydantic(value: object) -> bool:
    """Return whether an object, or a class, is one that only `pydantic` knows how to use."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    return hasattr(value, "__get_pydantic_core_schema__") or any(
        each.__module__.partition(".")[0] in {"pydantic", "pydantic_core", "pydantic_extra_types"}
        for each in kinds
    )


def needs_pydantic(annotation: Any) -> bool:
    """Return whether values of an annotation are for `pydantic` to convert, and not `msgspec`.

    That is where a model, another type of `pydantic`, or metadata that only `pydantic` knows is
    anywhere inside, also in the fields of a dataclass or `TypedDict`.
    """
    return "pydantic" in sys.modules and _needs_pydantic(annotation, set())


def _needs_pydantic(annotation: Any, seen: set[Any]) -> bool:
    annotation = resolve_alias(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return any(map(is_of_pydantic, arguments[1:])) or _needs_pydantic(arguments[0], seen)
    if isinstance(annotation, type) and origin is None:
        if annotation in seen:  # a class may hold itself
            return False
        seen.add(annotation)
        return _is_class_for_pydantic(annotation, seen)
    return origin is not Literal and any(_needs_pydantic(each, seen) for each in arguments)


def _is_class_for_pydantic(kind: type, seen: set[Any]) -> bool:
    if issubclass(kind, msgspec.Struct):
        return False
    if is_of_pydantic(kind):
        return True
    if dataclasses.is_dataclass(kind):
        if any(is_of_pydantic(each.default) for each in dataclasses.fields(kind)):
            return True
    elif not is_typed_dict(kind):
        return False
    return any(_needs_pydantic(each, seen) for each in list_hints(kind).values())


def _hide_pydantic(annotation: Any) -> Any:
    """Return an annotation of the same shape without anything of `pydantic`."""
    annotation = resolve_alias(annotation)
    if typing.get_origin(annotation) is Annotated:
        base, *metadata = typing.get_args(annotation)
        is_json = any(getattr(each, "__name__", type(each).__name__) == "Json" for each in metadata)
        return str if is_json else _hide_pydantic(base)
    if typing.get_origin(annotation) is Literal:
        return annotation
    kind = typing.get_origin(annotation) or annotation
    if is_structure(kind) or is_typed_dict(kind):
        return dict
    if isinstance(kind, type) and is_of_pydantic(kind):
        return str
    arguments = tuple(map(_hide_pydantic, typing.get_args(annotation)))
    return replace_arguments(annotation, arguments)


def fits_annotation(value: Any, annotation: Any) -> bool:
    """Return whether a default is a value of its annotation; None always is.

    Constraints are not looked at. Without an annotation, and of `Any`, only plain values are.
    """
    if value is None:
        return True
    annotation = resolve_alias(annotation)
    while (origin := typing.get_origin(annotation)) is Annotated:
        annotation = resolve_alias(typing.get_args(annotation)[0])
    arguments = typing.get_args(annotation)
    if origin is Literal:
        return value in arguments
    if is_union(annotation):
        return any(fits_annotation(value, each) for each in arguments)
    annotation = getattr(annotation, "__supertype__", annotation)  # of a `NewType`
    return _fits_class(value, origin or annotation, arguments)


def _fits_class(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(kind, type) or kind in {MISSING, object, Any}:
        return _is_plain(value)
    if kind in _ITEMS:
        items = {each for each in arguments if each is not ...}
        return isinstance(value, _ITEMS) and all(
            not items or any(fits_annotation(item, each) for each in items) for item in value
        )
    if is_of_pydantic(kind) and not is_structure(kind) and _is_plain(value):
        return True
    accepted = Mapping if is_typed_dict(kind) else _ALSO_FITTING.get(kind, kind)
    return isinstance(value, accepted)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, _ITEMS):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _PLAIN) or type(value).__module__ in _PLAIN_MODULES


def _list_alternatives(info: types.Type) -> Iterator[types.Type]:
    """Yield the members of a union, of whatever depth, or the one type that it is."""
    if isinstance(info, types.Metadata):
        yield from _list_alternatives(info.type)
    elif isinstance(info, types.UnionType):
        for each in info.types:
            yield from _list_alternatives(each)
    else:
        yield info


def _is_sequence(info: types.Type) -> bool:
    if isinstance(info, types.TupleType):
        items = info.item_types
    elif isinstance(info, _SEQUENCES):
        items = (info.item_type,)
    else:
        return False
    return all(isinstance(each, _SCALARS) for item in items for each in _list_alternatives(item))


def _list_custom_classes(value: Any, seen: set[type]) -> Iterator[Any]:
    """Yield the classes anywhere inside a type that `msgspec` does not know."""
    if isinstance(value, types.CustomType):
        yield value.cls
    if isinstance(value, tuple):
        for each in value:
            yield from _list_custom_classes(each, seen)
    if not isinstance(value, (types.Type, types.Field)):
        return
    owner = getattr(value, "cls", None)
    if isinstance(owner, type):
        if owner in seen:  # a class may hold itself
            return
        seen.add(owner)
    for name in ("type", "types", "fields", "item_type", "item_types", "key_type", "value_type"):
        yield from _list_custom_classes(getattr(value, name, None), seen)
