"""The formats there are: the modules of this package, entry points, and `register`."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from asgihive import encoders as package
from asgihive.encoders.protocol import Encoder, Values
from asgihive.errors import BadParameter, FormatMismatch

ENTRY_POINTS = "asgihive.encoders"
"""Group of entry points of other distributions, each naming an `Encoder`."""

_registered: dict[str, Encoder] = {}


def encoders() -> Mapping[str, Encoder]:
    """All encoders by name: built-in, then of entry points, then registered.

    A built-in one is the `ENCODER` of a module of `asgihive.encoders`, sorted by module.

    Raises:
        ValueError: two distributions bring a format of the same name.
    """
    return MappingProxyType({**_installed(), **_registered})


def register(encoder: Encoder) -> None:
    """Add a format for this process.

    Raises:
        ValueError: there is a format of that name already.
    """
    _registered.update(_named([encoder], encoders()))


def by_name(name: str) -> Encoder:
    """The encoder of the format `name`.

    Raises:
        BadParameter: there is none; says which there are.
    """
    known = encoders()
    if name not in known:
        raise BadParameter("format", name, f"{', '.join(known)} are accepted")
    return known[name]


def media_types() -> Mapping[str, Encoder]:
    """The encoder that each media type of an `Accept` header (RFC 9110, 12.5.1) chooses.

    Of several, the first one that is shown inline (`bin`), before attachments (`npy`).
    """
    chosen: dict[str, Encoder] = {}
    for encoder in sorted(encoders().values(), key=lambda encoder: encoder.extension is not None):
        chosen.setdefault(encoder.media_type, encoder)
    return MappingProxyType(chosen)


def accepted_types() -> Mapping[str, Encoder]:
    """`media_types`, and behind them the aliases of the encoders: what `Accept` may name."""
    chosen = dict(media_types())
    for encoder in encoders().values():
        for alias in aliases_of(encoder):
            chosen.setdefault(alias, encoder)
    return MappingProxyType(chosen)


def aliases_of(encoder: object) -> tuple[str, ...]:
    """Further media types that choose an encoder in `Accept`."""
    return tuple(getattr(encoder, "aliases", ()))


def check(encoder: Encoder, values: Values) -> None:
    """Make sure that a format can hold these values.

    Raises:
        FormatMismatch: it cannot; says why, and which formats can.
    """
    reason = encoder.refusal(values)
    if reason is not None:
        fitting = [name for name, each in encoders().items() if each.refusal(values) is None]
        raise FormatMismatch(
            "format",
            encoder.name,
            f"it does not fit the values, because {reason}; "
            f"for these values, use {' or '.join(fitting) or 'a smaller selection'}",
        )


@cache
def _installed() -> dict[str, Encoder]:
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    imported = [importlib.import_module(f"{package.__name__}.{name}") for name in modules]
    built_in = [module.ENCODER for module in imported if hasattr(module, "ENCODER")]
    found = _named(built_in, {})
    for entry_point in entry_points(group=ENTRY_POINTS):
        found.update(_named([entry_point.load()], found))
    return found


def _named(new: list[Encoder], known: Mapping[str, Encoder]) -> dict[str, Encoder]:
    named = dict[str, Encoder]()
    for encoder in new:
        if encoder.name in known or encoder.name in named:
            raise ValueError(f"There is a format named {encoder.name!r} already")
        named[encoder.name] = encoder
    return named
