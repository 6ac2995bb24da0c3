"""The options of a server: where and how it serves, and every setting of the service."""

import argparse
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from asgihive.cli.config import Option, read_config
from asgihive.cli.logs import held_log
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings, parse_host, parse_origin, parse_size

SETTINGS_HELP = f"""\
What is given here wins over environment variables, these over the file of --config, and that
over the defaults. A setting's variable is its name in upper case after {ENVIRONMENT_PREFIX},
such as {ENVIRONMENT_PREFIX}MAX_OPEN_FILES (for --cors, {ENVIRONMENT_PREFIX}CORS_ORIGINS, and for
--allowed-host, {ENVIRONMENT_PREFIX}ALLOWED_HOSTS, both with commas between several).
The file is TOML. Its keys are the names of the options, without the dashes before them:
port = 8080, cors = ["https://viewer.example.org"], follow-symlinks = true. Paths in it begin at
its own directory. A token is read from {ENVIRONMENT_PREFIX}TOKEN or from the file, as anybody
can see a command line.
SIZE is a number of bytes, or ends in K M G T (also KiB MiB GiB TiB: powers of 1024), or
in KB MB GB TB (powers of 1000).
"""

# Settings whose options are named in the singular, as each names one of several.
_SINGULAR = {"cors_origins": "cors", "allowed_hosts": "allowed-host"}
_LISTS = frozenset(_SINGULAR)

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
_ACCESS_LOGS = ("text", "json", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where and how to serve; `uds`, the path of a Unix socket, instead of host and port."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    prefix: str = ""
    workers: int = 1
    graceful_seconds: int = 25
    access_log: str = "off"
    log_level: str = "warning"


@dataclass(frozen=True, slots=True)
class Given:
    """What a command was asked for, from the command line, the environment and a file.

    directory: None where none was named.
    held: what was logged of them, before it is known how and where to log.
    """

    server: ServerOptions
    settings: H5Settings
    directory: str | None = None
    held: tuple[logging.LogRecord, ...] = ()


def add_server_options(
    parser: argparse.ArgumentParser,
    more: Mapping[str, Option] | None = None,
    in_files: Mapping[str, Option] | None = None,
) -> None:
    """Let a command take what `read_options` reads.

    Args:
        more: options that only this command has.
        in_files: what only its files may have.
    """
    server = dict(_server_options()) | dict(more or {})
    groups = {"server": server, "settings": dict(_setting_options())}
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        for name, option in options.items():
            if not option.is_secret:
                option.add_to(group, name)
    help_of_config = "a TOML file with any of these options"
    parser.add_argument("--config", metavar="FILE", help=help_of_config)
    parser.set_defaults(options=server | groups["settings"] | dict(in_files or {}))


def read_options(given: argparse.Namespace) -> Given:
    """The options of the command line, else of the environment, else of the file, or defaults.

    Raises:
        SystemExit: 2 after one line on stderr, when one of them cannot be used.
    """
    parser: argparse.ArgumentParser = given.parser
    options: Mapping[str, Option] = given.options
    with held_log() as held:
        read = _read(parser, given, options)
    return dataclasses.replace(read, held=tuple(held))


def _read(
    parser: argparse.ArgumentParser, given: argparse.Namespace, options: Mapping[str, Option]
) -> Given:
    server = {each.name for each in dataclasses.fields(ServerOptions)}
    settings = {each.name for each in dataclasses.fields(H5Settings)}
    try:
        values = read_config(given.config, options) if given.config else {}
        for name in settings:
            if ENVIRONMENT_PREFIX + name.upper() in os.environ:
                values.pop(name, None)
        for option in options.values():
            if (value := getattr(given, option.dest, None)) is not None:
                values[option.dest] = value
        for name in _LISTS & values.keys():
            values[name] = tuple(values[name])
        return Given(
            ServerOptions(**{name: values[name] for name in server & values.keys()}),
            H5Settings.from_environment(
                **{name: values[name] for name in settings & values.keys()}
            ),
            values.get("directory"),
        )
    except ValueError as error:
        parser.error(str(error))


def _server_options() -> Iterator[tuple[str, Option]]:
    """By their names on the command line."""
    default = ServerOptions()
    port, workers, seconds = _number(0, 65535), _number(1, 1024), _number(0, 86400)
    of_path: dict[str, Any] = {"metavar": "PATH", "is_path": True}
    yield "host", Option("host", f"address to listen at (default: {default.host})")
    text = f"port to listen at, 0 = any free one (default: {default.port})"
    yield "port", Option("port", text, port, "N", short="p")
    text = "serve HTTPS with this certificate chain (PEM)"
    yield "ssl-certfile", Option("ssl_certfile", text, **of_path)
    text = "its private key, if that is in another file"
    yield "ssl-keyfile", Option("ssl_keyfile", text, **of_path)
    yield "prefix", Option("prefix", "path before every route", _prefix, "/PATH")
    text = f"processes, replaced when they crash (default: {default.workers})"
    yield "workers", Option("workers", text, workers, "N")
    text = f"time for answers under way once told to stop (default: {default.graceful_seconds})"
    yield "graceful-seconds", Option("graceful_seconds", text, seconds, "N")
    text = "a line on stdout for every request; json: every log line is JSON (default: off)"
    yield "access-log", Option("access_log", text, choices=_ACCESS_LOGS)
    text = f"of the log on stderr (default: {default.log_level})"
    yield "log-level", Option("log_level", text, choices=_LOG_LEVELS)


def _setting_options() -> Iterator[tuple[str, Option]]:
    for each in dataclasses.fields(H5Settings):
        name = _SINGULAR.get(each.name) or each.name.replace("_", "-")
        parse, metavar, shown = _reading(each)
        option = Option(
            each.name,
            f"{each.metadata['purpose']} (default: {shown})",
            parse,
            metavar,
            choices=get_args(each.type) if get_origin(each.type) is Literal else None,
            is_repeated=each.name in _LISTS,
            is_secret=each.metadata["secret"],
        )
        yield name, option


def _reading(each: dataclasses.Field[Any]) -> tuple[Callable[[str], Any] | None, str | None, str]:
    """How a setting is parsed, what stands for its value, and how its default is shown."""
    default = getattr(H5Settings(), each.name)
    if each.type is bool:
        return None, None, "yes" if default else "no"
    if each.type is float:
        return _real, "SECONDS", f"{default:g}"
    if each.type is int and each.name.endswith("_bytes"):
        return _size, "SIZE", _size_text(default)
    if each.type is int:
        return _whole, "N", str(default)
    if each.name in _LISTS:
        return _READING_OF_LISTS[each.name]
    metavar = None if get_origin(each.type) is Literal else "TEXT"
    return str, metavar, "none" if default is None else str(default)


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r}: a number from {least} to {most} is accepted"
            )
        return int(text)

    return parse


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number is accepted")
    return int(text)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a number is accepted") from None


def _prefix(text: str) -> str:
    # Unreserved characters (RFC 3986, section 2.3); clients resolve the segments `.` and `..`.
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*", prefix):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a path such as /h5 of letters, digits and . _ ~ - is accepted"
        )
    return prefix


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


_READING_OF_LISTS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "cors_origins": (_origin, "ORIGIN", "none; * = all, may be repeated"),
    "allowed_hosts": (
        _host,
        "NAME",
        "none at a loopback address without a token, else all; * = all, may be repeated",
    ),
}


def _size_text(size: int) -> str:
    power = 0
    while size and size % 1024 == 0 and power < 4:
        size, power = size // 1024, power + 1
    return f"{size}{('', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
