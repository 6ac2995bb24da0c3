"""URLs of object stores: which are accepted, and in which form they are kept."""

import os
import re
from urllib.parse import urlsplit

SCHEMES = ("s3", "gs", "az", "http", "https")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(root: str | os.PathLike[str]) -> bool:
    """Return whether a served root is meant as a URL, and not as a directory."""
    return isinstance(root, str) and _URL.match(root) is not None


def parse_url(url: str) -> str:
    """Return the URL of a prefix as it is kept and shown: without a slash at its end.

    Raises:
        ValueError: it is none that can be served; the message says so without the URL, which
            may hold a password.
    """
    try:
        parts = urlsplit(url)
        has_user = parts.username is not None or parts.password is not None
    except ValueError:
        raise ValueError(f"a URL such as {_EXAMPLE} is accepted") from None
    if has_user or "@" in parts.netloc:
        raise ValueError(
            "it has credentials, which would be shown in logs: give them by the environment, "
            "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(f"its scheme is {parts.scheme}://; {known} are accepted")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(
            "it has a query or a fragment; signatures and options are given by the environment"
        )
    if not parts.netloc:
        raise ValueError(f"it names no bucket; {_EXAMPLE} is accepted")
    names = [each for each in parts.path.split("/") if each]
    if any(each in {".", ".."} for each in names):
        raise ValueError(f"its prefix has a name . or ..; {_EXAMPLE} is accepted")
    return "/".join((f"{parts.scheme}://{parts.netloc}", *names))


_EXAMPLE = "s3://bucket/prefix"
