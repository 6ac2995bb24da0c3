"""The options of a server: where it listens, and every setting of the service."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings, parse_size

SETTINGS_HELP = f"""\
A setting on the command line wins over its environment variable, which is {ENVIRONMENT_PREFIX} and
its name in upper case (for --cors, {ENVIRONMENT_PREFIX}CORS_ORIGINS), and that over its default.
SIZE is a number of bytes, or ends in K M G T (also KiB MiB GiB TiB: powers of 1024), or
in KB MB GB TB (powers of 1000).
"""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Let a command take what `server.run` and `settings_of` read."""
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s)"
    )
    server.add_argument(
        "--port",
        default=8000,
        type=_number(0, 65535),
        metavar="N",
        help="port to listen at, 0 = any free one (default: %(default)s)",
    )
    server.add_argument(
        "--workers",
        default=1,
        type=_number(1, 1024),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    server.add_argument(
        "--prefix", default="", type=_prefix, metavar="/PATH", help="path before every route"
    )
    server.add_argument(
        "--access-log", action="store_true", help="log every request and the server's life"
    )
    settings = parser.add_argument_group("settings")
    for each in dataclasses.fields(H5Settings):
        name = "cors" if each.name == "cors_origins" else each.name.replace("_", "-")
        settings.add_argument(f"--{name}", **_option(each))


def _option(each: dataclasses.Field[Any]) -> dict[str, Any]:
    """How argparse reads one setting; what is not given stays out of the namespace."""
    default = getattr(H5Settings(), each.name)
    option: dict[str, Any] = {"dest": each.name, "default": argparse.SUPPRESS}
    if each.type is bool:
        option |= {"action": argparse.BooleanOptionalAction}
        shown = "yes" if default else "no"
    elif each.type is float:
        option |= {"type": float, "metavar": "SECONDS"}
        shown = f"{default:g}"
    elif each.type is int and each.name.endswith("_bytes"):
        option |= {"type": _size, "metavar": "SIZE"}
        shown = _size_text(default)
    elif each.type is int:
        option |= {"type": int, "metavar": "N"}
        shown = str(default)
    else:
        option |= {"type": _origin, "metavar": "ORIGIN", "action": "append"}
        shown = f"{', '.join(default) or 'none'}; * = all, may be repeated"
    purpose = each.metadata["purpose"].replace("%", "%%")
    return option | {"help": f"{purpose} (default: {shown})"}


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r}: a number from {least} to {most} is accepted"
            )
        return int(text)

    return parse


def _prefix(text: str) -> str:
    # Unreserved characters (RFC 3986, section 2.3); clients resolve the segments `.` and `..`.
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*", prefix):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a path such as /h5 of letters, digits and . _ ~ - is accepted"
        )
    return prefix


def _origin(text: str) -> str:
    # RFC 6454, section 6.2: scheme, host and port, without a path. Browsers send just that.
    try:
        scheme, host, *rest = urlsplit(text)
    except ValueError:
        scheme, host, rest = "", "", []
    if text != "*" and (scheme not in {"http", "https"} or not host or any(rest)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: an origin such as https://viewer.example.org, without a path, or * "
            "is accepted"
        )
    return text.lower()


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _size_text(size: int) -> str:
    power = 0
    while size and size % 1024 == 0 and power < 4:
        size, power = size // 1024, power + 1
    return f"{size}{('', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def settings_of(options: argparse.Namespace) -> H5Settings:
    """The settings: of the command line, else of the environment, else the defaults.

    Raises:
        SystemExit: 2 after one line on stderr, when one of them cannot be used.
    """
    parser: argparse.ArgumentParser = options.parser
    given = {
        each.name: getattr(options, each.name)
        for each in dataclasses.fields(H5Settings)
        if each.name in options
    }
    if "cors_origins" in given:
        given["cors_origins"] = tuple(given["cors_origins"])
    try:
        return H5Settings.from_environment(**given)
    except ValueError as error:
        parser.error(str(error))
