"""A return annotation → a function that makes of a result the fields that it names, and no others.

Each class in an annotation has a *twin*: a private `Struct` of the same fields. No value that a
handler returns is an instance of one, so `msgspec.convert` takes every value apart, whatever it is:
a structure, a mapping, or an object with attributes. What the twin does not name, also of a
subclass, stays behind. What `msgspec` cannot convert is left to a function behind a `Projected`.
"""

import dataclasses
import datetime as dt
import functools
import inspect
import operator
import sys
import typing
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
    ValuesView,
)
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta
from msgspec import inspect as types

from asgihive.asgi.shapes import (
    fill_in_arguments,
    is_model,
    is_of_pydantic,
    is_typed_dict,
    is_union,
    resolve_alias,
)

Project = Callable[[Any], Any]

_LISTS = (
    list,
    set,
    frozenset,
    deque,
    Collection,
    Iterable,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
_LEAVES = (str, bytes, bytearray, memoryview, bool, int, float, Enum, UUID, type(None))
_OTHERS = (Decimal, dt.date, dt.time, dt.timedelta)
# By their names, for `typing_extensions` has the last one before Python 3.13.
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly", "Final")


class Projected:
    """A value that is projected already; for `msgspec` an unknown class, which hooks encode."""

    __slots__ = ("value",)
    project: Project

    def __init__(self, value: Any) -> None:
        self.value = value


def make_projection(annotation: Any) -> Project:
    """Return what projects values onto an annotation.

    It raises `TypeError` or `ValueError` for a value that does not fit.

    Raises:
        TypeError, NameError: an annotation that cannot be resolved.
    """
    return _make_conversion(_Twins().make(annotation))


def _make_conversion(twin: Any) -> Project:
    """Return what converts values to a twin; raises as a projection."""
    convert = partial(msgspec.convert, type=twin, from_attributes=True, dec_hook=_project_unknown)

    def project(value: Any) -> Any:
        try:
            return convert(value)
        except msgspec.ValidationError as error:
            try:
                return convert(_normalise(value), strict=False)
            except msgspec.ValidationError:
                # It is no `ValueError` in msgspec 0.19.
                raise TypeError(str(error)) from None

    return project


def is_response_type(annotation: Any) -> bool:
    """Return whether an annotation is a class whose objects can be called.

    Those are responses, or any ASGI application, and are sent as they are.
    """
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and any("__call__" in base.__dict__ for base in kind.__mro__)


def is_array_type(kind: object) -> bool:
    """Return whether a type is of NumPy arrays or scalars; does not import NumPy."""
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and isinstance(kind, type)
        and issubclass(kind, (numpy.ndarray, numpy.generic))
    )


def _project_unknown(kind: type[Projected], value: Any) -> Projected:
    return kind(kind.project(_unwrap(value)))


def _refuse(value: Any) -> Any:
    raise TypeError(f"Expected nothing, got `{type(value).__name__}`")


def _make_projected(project: Project) -> type[Projected]:
    """Return a class that stands, in an annotation, for the values that `project` makes."""
    return type("Projected", (Projected,), {"__slots__": (), "project": staticmethod(project)})


def _find_models(annotation: Any) -> Any:
    """Return an annotation of models in containers as `pydantic` is to have it; else None.

    To leave all items to it at once takes a third of the time.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if is_model(origin or annotation):
        return annotation
    if is_union(annotation):
        others = [each for each in arguments if each is not type(None)]
        model = _find_models(resolve_alias(others[0])) if len(others) == 1 else None
        return model and model | None
    if not isinstance(origin, type) or not arguments:
        return None
    if issubclass(origin, Mapping) and len(arguments) == 2 and arguments[0] is str:
        value = _find_models(resolve_alias(arguments[1]))
        return value and dict[str, value]  # type: ignore[valid-type]
    if origin in _LISTS or (issubclass(origin, tuple) and arguments[1:] == (...,)):
        item = _find_models(resolve_alias(arguments[0]))
        return item and list[item]  # type: ignore[valid-type]
    return None


class _Twins:
    """The twins of the classes of one annotation."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}
        self._begun: set[Any] = set()
        self._owners: list[Any] = []
        """The classes whose fields are being read, the innermost last: what `Self` stands for."""

    def make(self, annotation: Any) -> Any:  # noqa: PLR0911  # one for each form of annotation
        """Return an annotation with twins in the places of classes."""
        annotation = resolve_alias(annotation)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated:
            return self._make_annotated(annotation, *arguments)
        if getattr(origin, "_name", None) in _QUALIFIERS:
            return self.make(arguments[0])
        if (models := _find_models(annotation)) is not None:
            return self._leave_to_pydantic(models)
        if is_union(annotation):
            return self._make_union(arguments)
        if origin is Literal or annotation is Any or annotation is None:
            return annotation
        if isinstance(origin, type) and (container := self._make_container(origin, arguments)):
            return container
        return self._make_class(annotation)

    def _make_annotated(self, annotation: Any, base: Any, *metadata: Any) -> Any:
        if any(map(is_of_pydantic, metadata)):
            return self._leave_to_pydantic(annotation)
        twin = self.make(base)
        known = tuple(each for each in metadata if isinstance(each, Meta))
        constrained = Annotated[(twin, *known)] if known else twin
        return constrained if _is_known(constrained) else twin

    def _make_container(self, origin: type, arguments: tuple[Any, ...]) -> Any:
        """Return a container of twins; None of another class."""
        if issubclass(origin, Mapping):
            key, value = arguments if len(arguments) == 2 else (Any, Any)
            return dict[key, self.make(value)]  # type: ignore[valid-type,misc]
        if issubclass(origin, tuple) and arguments[-1:] != (...,):
            return tuple[tuple(map(self.make, arguments))]  # type: ignore[misc]
        if issubclass(origin, tuple) or origin in _LISTS:
            return list[self.make(arguments[0])]  # type: ignore[misc]
        return None

    def _make_class(self, annotation: Any) -> Any:
        kind = typing.get_origin(annotation) or annotation
        if isinstance(annotation, (str, typing.ForwardRef)):
            raise TypeError(f"{annotation!r} is text, write the class itself")
        if kind is object:
            return Any
        if not isinstance(kind, type):
            return self._make_special(annotation)
        if is_of_pydantic(kind) and not issubclass(kind, msgspec.Struct):
            return self._leave_to_pydantic(annotation)
        if annotation in self._begun:  # a class may hold itself
            late = _make_projected(partial(self._project_late, annotation))
            return self._made.get(annotation, late)
        fields = _list_fields(annotation, kind)
        if fields is None:
            return self._make_plain(annotation, kind)
        self._begun.add(annotation)
        self._owners.append(annotation)
        is_tuple = issubclass(kind, tuple)
        twin = self._make_items(fields) if is_tuple else self._define(kind, fields)
        self._owners.pop()
        self._made[annotation] = twin
        return twin

    def _make_special(self, annotation: Any) -> Any:
        """Return the twin of a form of `typing` that is no class.

        Raises:
            TypeError: nobody knows what its values are, and so what of them is sent.
        """
        if isinstance(annotation, typing.TypeVar):
            if annotation.__constraints__:
                return self._make_union(annotation.__constraints__)
            return self.make(annotation.__bound__ or Any)
        if isinstance(annotation, typing.NewType):
            return self.make(annotation.__supertype__)
        if annotation is typing.Self and self._owners:
            return self.make(self._owners[-1])
        if annotation is typing.LiteralString:
            return str
        if annotation in {typing.NoReturn, typing.Never}:
            return _make_projected(_refuse)
        raise TypeError(f"{annotation!r} does not say which fields are sent, write a class")

    def _make_items(self, fields: "list[_Field]") -> Any:
        return tuple[tuple(self.make(each.annotation) for each in fields)]  # type: ignore[misc]

    def _make_plain(self, annotation: Any, kind: type) -> Any:
        """Return a class that `msgspec` knows as it is.

        A class of items, as `class Users(list[User])`, is what it derives from. Of another one
        all objects pass that have no fields, for it names none.
        """
        for base in getattr(kind, "__orig_bases__", ()):
            if isinstance(origin := typing.get_origin(base), type):
                items = fill_in_arguments(base, annotation)
                if (container := self._make_container(origin, typing.get_args(items))) is not None:
                    return container
        if _is_known(annotation):
            return annotation
        if not self._owners and not _may_be_sent(kind):
            raise TypeError(
                f"{kind.__name__} names no fields, so that its objects have no form in JSON; write "
                "a Struct, dataclass, TypedDict or pydantic model of the attributes that are sent"
            )

        def check_class(value: Any) -> Any:
            if not isinstance(value, kind):
                raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
            if _has_fields(value) and not issubclass(kind, Mapping):
                raise TypeError(f"`{kind.__name__}` names no fields of a `{type(value).__name__}`")
            return value

        return _make_projected(check_class)

    def _define(self, kind: type, fields: "list[_Field]") -> Any:
        names, renamed = [], {}
        for number, each in enumerate(fields):
            name = each.name if each.name.isidentifier() else f"field_{number}"
            twin = self.make(each.annotation)
            names.append((name, twin) if each.default is _NONE else (name, twin, each.default))
            renamed[name] = each.encoded_name
        options: dict[str, Any] = {}
        if issubclass(kind, msgspec.Struct):
            config = kind.__struct_config__
            options = {
                "omit_defaults": config.omit_defaults,
                "array_like": config.array_like,
                "tag": config.tag,
                "tag_field": config.tag_field,
            }
        kw_only = not options.get("array_like", False)
        return msgspec.defstruct(kind.__name__, names, rename=renamed, kw_only=kw_only, **options)

    def _make_union(self, members: tuple[Any, ...]) -> Any:
        twins = tuple(map(self.make, members))
        union = functools.reduce(operator.or_, twins)
        # Of several tags `msgspec` reads the right one in mappings alone: objects have none.
        if _is_known(union) and not any(map(_has_tag, twins)):
            return union
        projections: list[tuple[Any, Project]] = []
        for member, twin in zip(members, twins, strict=True):
            kind = typing.get_origin(member) or member
            projections.append((kind, _make_conversion(twin)))

        def project_first(value: Any) -> Any:
            """Project a value onto its own class, or the first member that it fits."""
            ranks = [_find_rank(value, kind) for kind, _ in projections]
            failures = []
            for rank in sorted({*ranks}):
                for each, (_, project) in zip(ranks, projections, strict=True):
                    if each == rank:
                        try:
                            return project(value)
                        except (TypeError, ValueError) as error:
                            failures.append(str(error))
            raise TypeError("; ".join(dict.fromkeys(failures)))

        return _make_projected(project_first)

    def _leave_to_pydantic(self, annotation: Any) -> Any:
        adapter = sys.modules["pydantic"].TypeAdapter(annotation)
        errors = sys.modules["pydantic_core"]

        def project(value: Any) -> Any:
            # The errors of `pydantic` show values, which belong into no log.
            try:
                found = adapter.validate_python(value, from_attributes=True)
                # A model that was changed, or made without checks, may hold anything.
                return adapter.dump_python(found, mode="json", by_alias=True, warnings="error")
            except errors.ValidationError as error:
                reasons = [
                    f"{each['msg']} - at {'.'.join(map(str, each['loc'])) or 'its top'}"
                    for each in error.errors(include_url=False, include_input=False)
                ]
            except errors.PydanticSerializationError:
                reasons = [f"a field of {annotation!r} holds a value of another type"]
            raise TypeError("; ".join(reasons))

        return _make_projected(project)

    def _project_late(self, annotation: Any, value: Any) -> Any:
        twin = self._made[annotation]
        return msgspec.convert(value, twin, from_attributes=True, dec_hook=_project_unknown)


_NONE = object()


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    encoded_name: str
    annotation: Any
    default: Any = _NONE


def _list_fields(annotation: Any, kind: Any) -> list[_Field] | None:
    """Return the fields of a class that JSON has as an object; None of another class."""
    if issubclass(kind, msgspec.Struct):
        return [
            _Field(each.name, each.encode_name, each.type, _find_struct_default(each))
            for each in msgspec.structs.fields(annotation)
        ]
    if is_typed_dict(kind):
        hints = _list_hints(annotation, kind)
        return [
            _Field(name, name, hint, _NONE if name in kind.__required_keys__ else UNSET)
            for name, hint in hints.items()
        ]
    if dataclasses.is_dataclass(kind):
        hints = _list_hints(annotation, kind)
        said = getattr(kind, "__pydantic_fields__", {})  # of a dataclass of `pydantic`
        return [
            _Field(
                each.name,
                getattr(said.get(each.name), "serialization_alias", None) or each.name,
                hints.get(each.name, Any),
                _find_default(each),
            )
            for each in dataclasses.fields(kind)
            if not getattr(said.get(each.name, each.default), "exclude", None)
        ]
    names = [each.name for each in getattr(kind, "__attrs_attrs__", ())]
    if issubclass(kind, tuple):
        names = list(getattr(kind, "_fields", ()))
    if not names:
        return None
    hints = _list_hints(annotation, kind)
    return [_Field(each, each, hints.get(each, Any)) for each in names]


def _find_struct_default(field: Any) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return _NONE if field.default is msgspec.NODEFAULT else field.default


def _find_default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return msgspec.field(default_factory=field.default_factory)
    return _NONE if field.default is dataclasses.MISSING else field.default


def _list_hints(annotation: Any, kind: Any) -> dict[str, Any]:
    """Return the annotations of a class, of a generic one for the arguments that it has."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: fill_in_arguments(hint, annotation) for name, hint in hints.items()}


def _has_tag(twin: Any) -> bool:
    is_struct = isinstance(twin, type) and issubclass(twin, msgspec.Struct)
    return is_struct and twin.__struct_config__.tag is not None


def _may_be_sent(kind: type) -> bool:
    """Return whether objects of a class without fields may be text, numbers, items or a stream."""
    if inspect.isabstract(kind) or getattr(kind, "_is_protocol", False):
        return True  # they are of another class
    if any(hasattr(kind, name) for name in ("__iter__", "__next__", "__aiter__", "__anext__")):
        return True
    return any(issubclass(kind, leaf) or issubclass(leaf, kind) for leaf in (*_LEAVES, *_OTHERS))


def _has_fields(value: object) -> bool:
    kind = type(value)
    return (
        isinstance(value, (msgspec.Struct, Mapping))
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
        or is_model(kind)
    )


def _is_known(annotation: Any) -> bool:
    """Return whether `msgspec` can convert values to an annotation."""
    try:
        msgspec.json.Decoder(annotation)
        info = types.type_info(annotation)
    except TypeError:
        return False
    return not isinstance(info, types.CustomType) or issubclass(info.cls, Projected)


def _find_rank(value: Any, kind: Any) -> int:
    """Return how far a class is from that of a value: 0 is its own; large where it is no base."""
    bases = type(_unwrap(value)).__mro__
    return bases.index(kind) if kind in bases else len(bases)


class _ConvertibleObject:
    """The attributes of an object, each as `_normalise` has it when it is read."""

    __slots__ = ("_viewed",)

    def __init__(self, viewed: Any) -> None:
        self._viewed = viewed

    def __getattr__(self, name: str) -> Any:
        return _normalise(getattr(self._viewed, name))


class _ArrayItems(list[Any]):
    """The items of a NumPy array."""

    def __init__(self, array: Any) -> None:
        items = array.tolist()
        super().__init__(items if isinstance(items, list) else [items])
        self.array = array


def _unwrap(value: Any) -> Any:
    """Return what `_normalise` has wrapped."""
    if isinstance(value, _ConvertibleObject):
        return object.__getattribute__(value, "_viewed")
    return value.array if isinstance(value, _ArrayItems) else value


def _normalise(value: Any) -> Any:
    """Return a value in the classes that `msgspec` converts; it takes few subclasses of them."""
    if is_array_type(type(value)):
        return value.item() if not value.ndim else _ArrayItems(value)
    if isinstance(value, _LEAVES):
        return value
    if isinstance(value, Mapping):
        return {_normalise(name): _normalise(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, Set, deque, Iterator, KeysView, ValuesView)):
        # A row of a table has its columns as attributes.
        return _ConvertibleObject(value) if hasattr(value, "_fields") else [*map(_normalise, value)]
    return _normalise_number_or_time(value)


def _normalise_number_or_time(value: Any) -> Any:
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, dt.datetime):
        day = dt.date(value.year, value.month, value.day)
        return dt.datetime.combine(day, value.timetz())
    if isinstance(value, (dt.date, dt.time, dt.timedelta)):
        return value
    return _ConvertibleObject(value)
