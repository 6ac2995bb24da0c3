"""Colour maps and colours by their names, from the tables of the package `cmap`.

That package is imported with the first picture, in a decode lane: it takes half a second.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from asgihive.errors import BadParameter, suggest_name
from asgihive.service.picture_parameters import ACCEPTED_COLOURS

Array = np.ndarray[Any, Any]

LEVELS = 256
"""Colours of a palette, one of which stands for what is no number, if there is any such pixel."""

_REVERSED = "_r"

# Palettes that are kept, 1 KiB each.
_KEPT_PALETTES = 256


@lru_cache(_KEPT_PALETTES)
def find_palette(name: str, levels: int = LEVELS) -> Array:
    """Return the colours of a map, from those of the least values to those of the greatest.

    Args:
        name: as of Matplotlib, or any other that `cmap` knows; with `_r` at its end reversed.
        levels: how many colours.

    Returns:
        Of shape (levels, 4), uint8: red, green, blue, alpha; not to be written to.

    Raises:
        BadParameter: there is no such map; says which may have been meant.
    """
    from cmap import Colormap  # noqa: PLC0415  # see above

    catalog = Colormap.catalog()
    is_reversed = name.endswith(_REVERSED)
    try:
        # The whole name, as cmap would otherwise log which other maps have the short one, too.
        full = catalog.resolve(name.removesuffix(_REVERSED) if is_reversed else name)
    except KeyError:
        near = suggest_name(name, _list_names(catalog))
        accepted = f"the names of Matplotlib's colour maps are accepted, also with _r{near}"
        raise BadParameter("cmap", name, accepted) from None
    colours = Colormap(full + _REVERSED if is_reversed else full)
    # At the middle of each level, since a map of few colours has no more than these.
    palette: Array = colours((np.arange(levels) + 0.5) / levels, N=levels, bytes=True)
    palette.setflags(write=False)
    return palette


def _list_names(catalog: Any) -> list[str]:
    names = sorted(catalog.short_keys())
    return names + [name + _REVERSED for name in names]


def find_colour(name: str) -> Array:
    """Return a colour: a name of CSS, `transparent`, or `#rrggbb` or `#rrggbbaa`.

    Returns:
        Of shape (4,), uint8: red, green, blue, alpha.

    Raises:
        BadParameter: there is no such colour.
    """
    from cmap import Color  # noqa: PLC0415  # see above

    try:
        colour = Color(name)
    except ValueError:
        raise BadParameter("nan", name, ACCEPTED_COLOURS) from None
    return np.array([round(255 * part) for part in colour], np.uint8)
