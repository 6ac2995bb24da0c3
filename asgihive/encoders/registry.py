"""The formats there are: the modules of this package, entry points, and `register`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points

from asgihive import encoders as package
from asgihive.encoders.protocol import DocumentEncoder, Encoder, Values
from asgihive.errors import BadParameter, FormatMismatch

ENTRY_POINTS = "asgihive.encoders"
"""Group of entry points of other distributions, each naming an `Encoder`."""


@cache
def list_encoders() -> dict[str, Encoder]:
    """Return all encoders by name: built-in, then of entry points, then registered.

    A built-in one is the `ENCODER` of a module of `asgihive.encoders`, sorted by module.

    Raises:
        ValueError: two distributions bring a format of the same name.
    """
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    imported = [importlib.import_module(f"{package.__name__}.{name}") for name in modules]
    found: dict[str, Encoder] = {}
    _add(found, (module.ENCODER for module in imported if hasattr(module, "ENCODER")))
    _add(found, (each.load() for each in entry_points(group=ENTRY_POINTS)))
    return found


def list_document_encoders() -> dict[str, DocumentEncoder]:
    """Return the encoders that also hold documents, by name."""
    every = list_encoders().items()
    return {name: each for name, each in every if isinstance(each, DocumentEncoder)}


def register(encoder: Encoder) -> None:
    """Add a format for this process.

    Raises:
        ValueError: there is a format of that name already.
    """
    _add(list_encoders(), (encoder,))


def find_encoder(name: str) -> Encoder:
    """Return the encoder of the format `name`.

    Raises:
        BadParameter: there is none; says which there are.
    """
    known = list_encoders()
    if name not in known:
        raise BadParameter("format", name, f"{', '.join(known)} are accepted")
    return known[name]


def map_media_types() -> Mapping[str, Encoder]:
    """Return which encoder each media type of an `Accept` header (RFC 9110, 12.5.1) chooses.

    Of several, the first one that is shown inline (`bin`), before attachments (`npy`).
    """
    chosen: dict[str, Encoder] = {}
    for encoder in sorted(list_encoders().values(), key=lambda each: each.extension is not None):
        chosen.setdefault(encoder.media_type, encoder)
    return chosen


def map_accepted_types() -> Mapping[str, Encoder]:
    """Return `map_media_types`, and behind them the aliases: all that `Accept` may name."""
    chosen = dict(map_media_types())
    for encoder in list_encoders().values():
        for alias in get_aliases(encoder):
            chosen.setdefault(alias, encoder)
    return chosen


def get_aliases(encoder: object) -> tuple[str, ...]:
    """Return further media types that choose an encoder in `Accept`."""
    return tuple(getattr(encoder, "aliases", ()))


def check_fit(encoder: Encoder, values: Values) -> None:
    """Make sure that a format can hold these values.

    Raises:
        FormatMismatch: it cannot; says why, and which formats can.
    """
    reason = encoder.refusal(values)
    if reason is not None:
        fitting = [name for name, each in list_encoders().items() if each.refusal(values) is None]
        raise FormatMismatch(
            "format",
            encoder.name,
            f"it does not fit the values, because {reason}; "
            f"for these values, use {' or '.join(fitting) or 'a smaller selection'}",
        )


def _add(known: dict[str, Encoder], new: Iterable[Encoder]) -> None:
    for encoder in new:
        if encoder.name in known:
            raise ValueError(f"There is a format named {encoder.name!r} already")
        known[encoder.name] = encoder
