"""The names that clients see of the members of a group; pure.

A name that every client can ask for stays as it is. Others are replaced, since clients do not
escape them alike: fsspec cuts a URL off at `#` and `?` and sends `%` as it is, so that `a#1` is
asked for as `a`; zarr-python makes `/` of a backslash; a browser drops control characters, and
takes `..` for the folder above. Zarr gives `zarr.json` to metadata, and asgihive `@` at the begin
of a segment to versions.
"""

import re
from collections.abc import Iterable

from asgihive.concurrency import Portions, run_at_once
from asgihive.hdf5.file_bytes import text

_UNFIT = re.compile("[\x00-\x1f\x7f#?%\\\\:\ufffd]|^@|^\\.+$")


# Names without a break, some milliseconds.
_PUBLISHED_AT_ONCE = 0xFFF


def needs_replacement(name: str) -> bool:
    """Return whether a real name cannot be a published one."""
    return name == "zarr.json" or _UNFIT.search(name) is not None


def publish_names(names: Iterable[bytes]) -> dict[bytes, str]:
    """Return the published name of each member of a group, as `publish_in_portions` does."""
    return run_at_once(publish_in_portions(names))


def publish_in_portions(names: Iterable[bytes]) -> Portions[dict[bytes, str]]:
    """Return the published name of each member of a group; no two are alike.

    In every name that needs it, `_` stands in the place of each character that is not fit, and a
    number behind a name that there is already. It depends on nothing but the set of names.

    Args:
        names: as they are stored. What no path can name is left out: the empty name, `.`, and
            names with a slash, which only a forged group has.
    """
    published: dict[bytes, str] = {}
    replaced = []
    for number, name in enumerate(names, 1):
        if not number & _PUBLISHED_AT_ONCE:
            yield
        if not name or name == b"." or b"/" in name:
            continue
        shown = text(name)
        if needs_replacement(shown):
            replaced.append((name, shown))
        else:
            published[name] = shown
    if replaced:
        taken, counts = set(published.values()), dict[str, int]()
        for number, (name, shown) in enumerate(sorted(replaced), 1):
            if not number & _PUBLISHED_AT_ONCE:
                yield
            candidate = base = _replace(shown)
            while candidate in taken:
                # Counted, since a forged group has thousands of names that become one.
                counts[base] = counts.get(base, 1) + 1
                candidate = f"{base}_{counts[base]}"
            taken.add(candidate)
            published[name] = candidate
    return published


def _replace(name: str) -> str:
    if name == "zarr.json":
        return "zarr_json"
    return _UNFIT.sub(lambda found: "_" * len(found[0]), name)
