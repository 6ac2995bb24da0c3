"""What `Annotated` says of values beside their type: nothing that it says is ever dropped.

Constraints of `annotated_types`, patterns and documentation become `msgspec.Meta`, which checks
and documents them. What only `pydantic` knows makes `pydantic` convert the value; then all else
is said in its words. Anything else is refused.
"""

import copy
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from asgihive.asgi.markers import MARKERS, describe_foreign_marker
from asgihive.asgi.shapes import (
    MISSING,
    is_model,
    is_of_pydantic,
    is_structure,
    is_typed_dict,
    is_union,
    list_hints,
    needs_pydantic,
    replace_arguments,
    resolve_alias,
)

ACCEPTED = (
    "accepted in Annotated are asgihive's Query, Header, Cookie, Form, Body and Depends, "
    "msgspec.Meta, Ge, Gt, Le, Lt, MultipleOf, MinLen, MaxLen, Len and Interval of "
    "annotated_types, a compiled pattern, Doc, and what pydantic knows: Field, "
    "StringConstraints, validators"
)

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of")
_LENGTHS = ("min_length", "max_length")
_CHECKS = (*_BOUNDS, *_LENGTHS, "pattern", "tz")
_TEXTS = ("title", "description", "examples", "extra_json_schema", "extra")
# What a `Meta` and a `Field` of pydantic have in common.
_FIELD = (*_BOUNDS, *_LENGTHS, "pattern", "title", "description", "examples")

# By the name of a class of `annotated_types`: by the name of its attribute that of `Meta`.
_ANNOTATED_TYPES: dict[str, dict[str, str]] = {
    "Ge": {"ge": "ge"},
    "Gt": {"gt": "gt"},
    "Le": {"le": "le"},
    "Lt": {"lt": "lt"},
    "MultipleOf": {"multiple_of": "multiple_of"},
    "MinLen": {"min_length": "min_length"},
    "MaxLen": {"max_length": "max_length"},
    "Len": {"min_length": "min_length", "max_length": "max_length"},
    "Interval": {"gt": "gt", "ge": "ge", "lt": "lt", "le": "le"},
}
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x", re.ASCII: "a"}

Facts = dict[str, Any]
"""What metadata says, by the names of `Meta`."""


class MetadataRefused(TypeError):
    """Metadata that is not understood, or that its type cannot have; says what to write."""


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """What a `pydantic.Field` says beyond constraints."""

    alias: str | None
    default: Any = MISSING
    has_default: bool = False


def find_field(values: Iterable[object]) -> FieldFacts | None:
    """Return what the `pydantic.Field` among some metadata says; None if there is none.

    Raises:
        MetadataRefused: there are two, or an alias that is no text.
    """
    fields = [each for each in values if _is_field(each)]
    if not fields:
        return None
    if len(fields) > 1:
        raise MetadataRefused("only one pydantic.Field is accepted")
    field: Any = fields[0]
    alias = field.validation_alias or field.alias
    if alias is not None and not isinstance(alias, str):
        raise MetadataRefused(f"the alias {alias!r} is no text")
    return FieldFacts(alias, field.default, not field.is_required())


def _is_field(value: object) -> bool:
    # `pydantic` imports its modules when they are first asked for.
    module = sys.modules.get("pydantic.fields")
    return module is not None and isinstance(value, module.FieldInfo)


def translate_annotation(annotation: Any) -> Any:
    """Return an annotation with `Meta` alone as its metadata, or as `pydantic` has it.

    Raises:
        MetadataRefused: see there.
    """
    dropped = next(_list_dropped(annotation), None)
    if dropped is not None:
        raise MetadataRefused(dropped)
    check_examples(annotation)
    if needs_pydantic(annotation):
        return _translate(annotation, _apply_as_field)
    return _translate(annotation, _apply_as_meta)


def check_metadata(annotation: Any) -> None:
    """Refuse metadata that is not understood, of a value that is not read from a request.

    Raises:
        MetadataRefused: see there.
    """
    _translate(annotation, lambda base, _: base)


def _translate(annotation: Any, apply: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
    annotation = resolve_alias(annotation)
    if typing.get_origin(annotation) is Literal:
        return annotation
    if typing.get_origin(annotation) is Annotated:
        base, *found = typing.get_args(annotation)
        metadata = tuple(each for each in found if each is not None)  # as `conint` has it
        for each in metadata:
            if _read_facts(each) is None and not is_of_pydantic(each):
                reason = describe_foreign_marker(each) or f"{each!r} is not understood; {ACCEPTED}"
                raise MetadataRefused(reason)
            if (foreign := describe_foreign_marker(each)) is not None:
                raise MetadataRefused(foreign)
        return apply(_translate(base, apply), metadata)
    arguments = typing.get_args(annotation)
    if not arguments or any(isinstance(each, list) for each in arguments):
        return annotation
    return replace_arguments(annotation, tuple(_translate(each, apply) for each in arguments))


def _read_facts(value: object) -> Facts | None:
    """Return what one piece of metadata says; None if only `pydantic` or nobody knows."""
    if isinstance(value, Meta):
        found = {name: getattr(value, name) for name in (*_CHECKS, *_TEXTS)}
        return {name: each for name, each in found.items() if each is not None}
    if isinstance(value, re.Pattern):
        flags = "".join(letter for flag, letter in _FLAGS.items() if value.flags & flag)
        return {"pattern": f"(?{flags}){value.pattern}" if flags else value.pattern}
    kind = type(value)
    if kind.__name__ == "Doc" and hasattr(value, "documentation"):
        return {"description": value.documentation}
    if kind.__module__ != "annotated_types" or kind.__name__ not in _ANNOTATED_TYPES:
        return None
    names = _ANNOTATED_TYPES[kind.__name__].items()
    found = {ours: getattr(value, theirs) for theirs, ours in names}
    if found.get("min_length") == 0:  # as `Len` has it by default
        del found["min_length"]
    return {name: each for name, each in found.items() if each is not None}


def _apply_as_meta(base: Any, metadata: tuple[Any, ...]) -> Any:
    """Return `base` with one `Meta`, in a union at the members that can have its constraints."""
    if all(isinstance(each, Meta) for each in metadata) and not is_union(base):
        return Annotated[(base, *metadata)] if metadata else base
    facts: Facts = {}
    for each in metadata:
        _merge_facts(facts, _read_facts(each) or {})
    checks = {name: facts.pop(name) for name in _CHECKS if name in facts}
    if checks:
        members = typing.get_args(base) if is_union(base) else (base,)
        fitting = [_find_fitting(each, checks) for each in members]
        for name in checks.keys() - {one for each in fitting for one in each}:
            said = f"{name}={checks[name]!r}"
            reason = f"{said} cannot be checked of {base!r}: use a type of numbers, text or items"
            raise MetadataRefused(
                f"{reason}, or pydantic.Field({said})" if name in _FIELD else reason
            )
        members = tuple(
            _add_meta(each, {name: checks[name] for name in names}) if names else each
            for each, names in zip(members, fitting, strict=True)
        )
        base = replace_arguments(base, members) if is_union(base) else members[0]
    return _add_meta(base, facts) if facts else base


def _find_fitting(base: Any, checks: Facts) -> list[str]:
    """Return the names of the constraints that the values of a type can have."""
    fitting = []
    for name, value in checks.items():
        try:
            msgspec.json.Decoder(_add_meta(base, {name: value}))
        except (TypeError, ValueError):
            continue
        fitting.append(name)
    return fitting


def _add_meta(base: Any, facts: Facts) -> Any:
    """Return an annotation with what else is said of it, beside what it says already."""
    merged: Facts = {}
    if typing.get_origin(base) is Annotated:
        base, *metadata = typing.get_args(base)
        for each in metadata:
            _merge_facts(merged, _read_facts(each) or {})
    _merge_facts(merged, facts)
    try:
        return Annotated[base, Meta(**merged)]
    except (TypeError, ValueError) as error:
        raise MetadataRefused(f"{error}; use pydantic.Field where msgspec cannot check") from error


def _merge_facts(facts: Facts, more: Facts) -> None:
    """Add what more metadata says; of two bounds the stricter one counts."""
    stricter: dict[str, Callable[[Any, Any], bool]] = {
        **dict.fromkeys(("gt", "ge", "min_length"), lambda new, old: new > old),
        **dict.fromkeys(("lt", "le", "max_length"), lambda new, old: new < old),
    }
    for name, value in more.items():
        old = facts.get(name)
        if name in stricter:
            if old is None or stricter[name](value, old):
                facts[name] = value
        elif name in {"multiple_of", "pattern"} and old not in {None, value}:
            raise MetadataRefused(f"only one {name} is accepted, not {old!r} and {value!r}")
        else:
            facts[name] = value
    # A `Meta` has one bound on each side.
    if "gt" in facts and "ge" in facts:
        facts.pop("ge" if facts["gt"] >= facts["ge"] else "gt")
    if "lt" in facts and "le" in facts:
        facts.pop("le" if facts["lt"] <= facts["le"] else "lt")


def _apply_as_field(base: Any, metadata: tuple[Any, ...]) -> Any:
    """Return `base` with metadata that `pydantic` knows."""
    said = []
    for each in metadata:
        if isinstance(each, (Meta, re.Pattern)) or type(each).__name__ == "Doc":
            facts = _read_facts(each) or {}
            for name in facts.keys() - {*_FIELD, "extra_json_schema", "extra"}:
                reason = f"{name}={facts[name]!r} of msgspec.Meta is nothing that pydantic checks"
                raise MetadataRefused(reason)
            known = {name: facts[name] for name in _FIELD if name in facts}
            extra = facts.get("extra_json_schema")
            said.append(sys.modules["pydantic"].Field(**known, json_schema_extra=extra))
        else:
            said.append(_drop_alias(each))
    return Annotated[(base, *said)] if said else base


def _drop_alias(value: Any) -> Any:
    """Return metadata without an alias, which the parameter has, and `pydantic` warns of."""
    if not _is_field(value):
        return value
    field: Any = copy.copy(value)
    field.alias = field.validation_alias = field.serialization_alias = None
    return field


def _list_dropped(annotation: Any) -> Iterator[str]:
    """Say of the constraints in the fields of classes that `msgspec` reads and does not know."""
    for kind, name, hint in _list_fields(annotation, set()):
        if is_model(kind) or (not issubclass(kind, msgspec.Struct) and needs_pydantic(kind)):
            continue
        for each in _list_metadata(hint):
            is_constraint = type(each).__module__ == "annotated_types"
            if is_constraint or is_of_pydantic(each) or isinstance(each, re.Pattern):
                facts = ", ".join(f"{k}={v!r}" for k, v in (_read_facts(each) or {}).items())
                reason = f"msgspec ignores {each!r} of the field {name!r} of {kind.__name__}"
                yield f"{reason}; write msgspec.Meta({facts or '…'})"


def check_examples(annotation: Any) -> None:
    """Refuse examples and parts of schemas that JSON cannot say: they would break the document.

    Raises:
        MetadataRefused: see there.
    """
    fields = (
        (f" of the field {name!r} of {kind.__name__}", hint)
        for kind, name, hint in _list_fields(annotation, set())
    )
    for of_field, hint in (("", annotation), *fields):
        for each in _list_metadata(hint):
            facts = _read_facts(each) or {} if isinstance(each, Meta) else {}
            for name in ("examples", "extra_json_schema"):
                try:
                    msgspec.json.encode(facts.get(name))
                except (TypeError, ValueError, OverflowError, RecursionError) as error:
                    said = f"{name}={facts[name]!r}{of_field}"
                    raise MetadataRefused(f"{said} cannot be written as JSON: {error}") from error


def check_body(annotation: Any) -> None:
    """Refuse markers in the fields of a body, which the client would fill in itself.

    Raises:
        MetadataRefused: see there.
    """
    for kind, name, hint in _list_fields(annotation, set()):
        for each in _list_metadata(hint):
            if isinstance(each, MARKERS) or describe_foreign_marker(each) is not None:
                raise MetadataRefused(
                    f"the field {name!r} of {kind.__name__} has {each!r}, and clients would send "
                    f"it in the body: make it a parameter of the function, beside the body"
                )


def _list_fields(annotation: Any, seen: set[Any]) -> Iterator[tuple[type, str, Any]]:
    """Yield class, name and annotation of the fields of all structures in an annotation."""
    annotation = resolve_alias(annotation)
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    for each in typing.get_args(annotation):
        if typing.get_origin(annotation) is not Literal:
            yield from _list_fields(each, seen)
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in seen:
        return
    seen.add(kind)
    if is_structure(kind) or is_typed_dict(kind):
        for name, hint in list_hints(kind).items():
            yield kind, name, hint
            yield from _list_fields(hint, seen)


def _list_metadata(annotation: Any) -> Iterator[object]:
    if typing.get_origin(annotation) is Annotated:
        yield from typing.get_args(annotation)[1:]
    for each in typing.get_args(annotation):
        yield from _list_metadata(each)
