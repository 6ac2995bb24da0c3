"""The parameters of pictures, and the bounds of what may be asked for."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from asgihive.encoders.pictures import IMAGE_FORMATS
from asgihive.hdf5.views import Method
from asgihive.service.query import (
    QueryParameter,
    Schema,
    choose,
    choose_word,
    list_words,
    parse_count,
    parse_number,
)


class ColourScale(StrEnum):
    """How values between the limits are spread over the colours."""

    LINEAR = "linear"
    LOG = "log"
    SQRT = "sqrt"
    SYMLOG = "symlog"


DEFAULT_PERCENTILES = (1.0, 99.0)

DEFAULT_SIDE = 1024
"""Pixels of the longer side of an image that is not told its size, at most."""

MAX_SIDE = 4096
"""Pixels of the longer side of any picture."""

DEFAULT_PLOT = (640, 400)
"""Width and height of a plot, in pixels."""

MAX_PLOT_POINTS = 10_000
"""Points of one curve."""

IMAGE_METHODS = (Method.MEAN, Method.MIN, Method.MAX, Method.NEAREST)

_NAME = re.compile(r"[A-Za-z0-9_.: -]{1,64}")
_COLOUR = re.compile(r"[A-Za-z]{1,32}|#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?")
ACCEPTED_COLOURS = "a name of CSS such as black, transparent, #rrggbb and #rrggbbaa are accepted"


def parse_sides(text: str) -> tuple[int, int]:
    """Return two numbers of pixels.

    Raises:
        ValueError
    """
    accepted = f"two whole numbers from 1 to {MAX_SIDE}, with a comma between them, are accepted"
    sides = [parse_count(each, accepted, MAX_SIDE) for each in text.split(",")]
    if len(sides) != 2:
        raise ValueError(accepted)
    return sides[0], sides[1]


def _parse_percentiles(text: str) -> tuple[float, float]:
    accepted = "two numbers `low,high` from 0 to 100, low below high, are accepted"
    given = [float(parse_number(each, accepted)) for each in text.split(",")]
    if len(given) != 2 or not 0 <= given[0] < given[1] <= 100:
        raise ValueError(accepted)
    return given[0], given[1]


def _parse_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("the names of Matplotlib's colour maps are accepted, such as viridis")
    return text


def _parse_colour(text: str) -> str:
    if not _COLOUR.fullmatch(text):
        raise ValueError(ACCEPTED_COLOURS)
    return text


def _parse_limit(text: str) -> float:
    return parse_number(text, "a finite number is accepted")


def _parse_points(text: str) -> int:
    accepted = f"a whole number from 2 to {MAX_PLOT_POINTS} is accepted"
    count = parse_count(text, accepted, MAX_PLOT_POINTS)
    if count < 2:
        raise ValueError(accepted)
    return count


def _offer_words(name: str, description: str, words: Sequence[str], example: str) -> QueryParameter:
    """Return a parameter that is one of a few words, by default the first one."""
    schema, parse = list_words([str(each) for each in words], str(words[0])), choose_word(words)
    return QueryParameter(name, description, schema, example, parse, words[0])


def _offer_sides(description: str, example: list[int], default: tuple[int, int]) -> QueryParameter:
    """Return the parameter of the size of a picture."""
    return QueryParameter(
        "shape",
        description,
        _describe_pair({"type": "integer", "minimum": 1, "maximum": MAX_SIDE}, default),
        example,
        parse_sides,
        default,
        style={"style": "form", "explode": False},
    )


def _describe_pair(item: Schema, default: tuple[Any, Any]) -> Schema:
    """Return the schema of two values."""
    bounds = {"minItems": 2, "maxItems": 2}
    return {"type": "array", "items": item, **bounds, "default": list(default)}


PICTURED_PATH = QueryParameter(
    "path",
    "The HDF5 path of the dataset, or of a group: then its NeXus default is shown. Without it, "
    "that of the file, or else the largest dataset of the first group that has any to show.",
    {"type": "string", "default": "/"},
    "/entry/images/data",
    default="/",
)
_LIMIT = {"type": "number"}

IMAGE_PARAMETERS = (
    QueryParameter(
        "cmap",
        "The colour map, by the name that Matplotlib has for it; with `_r` at its end reversed.",
        {"type": "string", "default": "viridis", "pattern": f"^{_NAME.pattern}$"},
        "inferno_r",
        _parse_name,
        "viridis",
    ),
    _offer_words("norm", "How the values are spread over the colours.", tuple(ColourScale), "log"),
    QueryParameter(
        "vmin",
        "The value of the first colour, which smaller ones have, too. By default a percentile.",
        _LIMIT,
        1,
        _parse_limit,
    ),
    QueryParameter(
        "vmax",
        "The value of the last colour, which larger ones have, too. By default a percentile.",
        _LIMIT,
        1000,
        _parse_limit,
    ),
    QueryParameter(
        "percentiles",
        "Of the values that are shown: those of the first and the last colour, unless `vmin` and "
        "`vmax` say them.",
        _describe_pair({"type": "number", "minimum": 0, "maximum": 100}, DEFAULT_PERCENTILES),
        [0, 99.9],
        _parse_percentiles,
        DEFAULT_PERCENTILES,
        style={"style": "form", "explode": False},
    ),
    _offer_sides(
        "At most so many pixels, height and width. A larger selection is made smaller, its "
        f"proportions kept; by default to {DEFAULT_SIDE} on its longer side.",
        [512, 512],
        (DEFAULT_SIDE, DEFAULT_SIDE),
    ),
    _offer_words(
        "method",
        "What a pixel shows of the elements that it stands for.",
        IMAGE_METHODS,
        str(Method.MAX),
    ),
    QueryParameter(
        "nan",
        "The colour of what is no number: a name of CSS, `transparent`, `#rrggbb` or `#rrggbbaa`.",
        {"type": "string", "default": "transparent", "pattern": f"^({_COLOUR.pattern})$"},
        "#808080",
        _parse_colour,
        "transparent",
    ),
    QueryParameter(
        "format",
        "The format; without it `Accept` chooses.",
        list_words(list(IMAGE_FORMATS), "png"),
        "webp",
        choose(IMAGE_FORMATS),
    ),
)
"""Of `/image`, beside the dataset and the selection."""

_AXIS_SCALES = ("linear", "log")

PLOT_PARAMETERS = (
    QueryParameter(
        "path",
        "The HDF5 paths of the curves, by repeating it: of datasets, or of groups, whose NeXus "
        "default is shown. Without it, that of the file.",
        {"type": "array", "items": {"type": "string"}},
        ["/entry/scan/intensity"],
        is_repeated=True,
        style={"style": "form", "explode": True},
    ),
    QueryParameter(
        "selection",
        "Integers, and a slice for one dimension, as of `/data`: one for all paths, or one for "
        "each of them. Empty = the last dimension, of all others the first element.",
        {"type": "array", "items": {"type": "string"}},
        [":"],
        is_repeated=True,
        style={"style": "form", "explode": True},
    ),
    _offer_words("xscale", "Of the horizontal axis.", _AXIS_SCALES, "log"),
    _offer_words(
        "yscale",
        "Of the vertical axis. What is not positive is left out of a logarithmic one.",
        _AXIS_SCALES,
        "log",
    ),
    _offer_words("theme", "For a light or a dark ground.", ("light", "dark"), "dark"),
    _offer_sides(
        "Width and height in pixels. A small plot is its curves alone, without axes.",
        [800, 500],
        DEFAULT_PLOT,
    ),
    QueryParameter(
        "max_points",
        "Of each curve: of more values the minima and maxima of equally long parts are drawn. By "
        "default two a pixel.",
        {"type": "integer", "minimum": 2, "maximum": MAX_PLOT_POINTS},
        1000,
        _parse_points,
    ),
)
"""Of `/plot`, beside the file."""
