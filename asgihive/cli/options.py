"""Reads the options of a server: from the command line, the environment and a TOML file."""

import argparse
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from asgihive.cli.logs import hold_log
from asgihive.errors import suggest_name
from asgihive.object_stores.locations import is_url, parse_url
from asgihive.settings import (
    ENVIRONMENT_PREFIX,
    H5Settings,
    Reading,
    Setting,
    Settings,
    describe_settings,
)

SETTINGS_HELP = f"""\
An option wins over an environment variable, this over the file of --config, and that over the
default. A setting's variable is its name in upper case after {ENVIRONMENT_PREFIX},
such as {ENVIRONMENT_PREFIX}MAX_OPEN_FILES (for --cors, {ENVIRONMENT_PREFIX}CORS_ORIGINS, and for
--allowed-host, {ENVIRONMENT_PREFIX}ALLOWED_HOSTS, both with commas between several).
The file is TOML. Its keys are the names of the options, without the dashes before them:
port = 8080, cors = ["https://viewer.example.org"], follow-symlinks = true. Paths in it begin at
its own directory. A token is read from {ENVIRONMENT_PREFIX}TOKEN or from the file, since other
users of the machine can see a command line.
SIZE is a number of bytes, or ends in K M G T (also KiB MiB GiB TiB: powers of 1024), or
in KB MB GB TB (powers of 1000).
"""


def _parse_prefix(text: str) -> str:
    # Unreserved characters (RFC 3986, section 2.3); clients resolve the segments `.` and `..`.
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*", prefix):
        message = "a path such as /h5 of letters, digits and . _ ~ - is accepted"
        raise ValueError(message)
    return prefix


_PATH = Reading(metavar="PATH", is_path=True)


class ServerOptions(Settings, frozen=True, kw_only=True):
    """The options of a server that are no settings of the service."""

    host: Annotated[
        str, Meta(description="Listen at this address."), Reading(metavar="ADDRESS")
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(ge=0, le=65535, description="Listen at this port; 0 takes any free one."),
        Reading(short="p"),
    ] = 8000
    uds: Annotated[
        str | None,
        Meta(
            description="Listen at this Unix socket instead, which is made, and removed at the end."
        ),
        _PATH,
    ] = None
    ssl_certfile: Annotated[
        str | None, Meta(description="Serve HTTPS with this certificate chain (PEM)."), _PATH
    ] = None
    ssl_keyfile: Annotated[
        str | None, Meta(description="Take its private key from this other file."), _PATH
    ] = None
    prefix: Annotated[
        str,
        Meta(description="Put this path before every route."),
        Reading(normalize=_parse_prefix, metavar="/PATH"),
    ] = ""
    open: Annotated[bool, Meta(description="Open the page in the browser of this machine.")] = False
    workers: Annotated[
        int,
        Meta(ge=1, le=1024, description="Serve with so many processes, replaced when they crash."),
    ] = 1
    graceful_seconds: Annotated[
        int,
        Meta(ge=0, le=86400, description="Give answers under way so long once told to stop."),
    ] = 25
    access_log: Annotated[
        Literal["auto", "text", "json", "off"],
        Meta(
            description="Write a line to stdout for every request: auto, a short one in colours "
            "where stdout is a terminal, else none; with json, every line of the log is JSON."
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["critical", "error", "warning", "info", "debug"],
        Meta(description="Write messages of this level and above to stderr."),
    ] = "warning"


def parse_directory(text: str) -> str:
    """Return the absolute path of a directory, or the URL of a prefix in an object store.

    Raises:
        ValueError: it is none, or cannot be read; the message says so without its name.
    """
    if is_url(text):
        return parse_url(text)
    if not os.path.exists(text):
        problem = "no such directory"
    elif not os.path.isdir(text):
        problem = "it is not a directory"
    elif not os.access(text, os.R_OK | os.X_OK):
        problem = "it cannot be read: permission denied"
    else:
        return os.path.abspath(text)
    raise ValueError(problem)


class _Served(Settings, frozen=True, kw_only=True):
    directory: Annotated[str | None, Reading(normalize=parse_directory, is_path=True)] = None


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """The options of a command, from the command line, the environment and a file."""

    server: ServerOptions
    settings: H5Settings
    directory: str | None = None
    """The directory to serve; None where none was named."""
    held: tuple[logging.LogRecord, ...] = ()
    """Messages from before it is known how and where to log."""


def add_server_options(parser: argparse.ArgumentParser, *, has_directory: bool) -> None:
    """Let a command take what `read_options` reads.

    Args:
        parser: of the command.
        has_directory: whether it serves a directory of the user's, so that it also listens at a
            socket, and its file may name the directory.
    """
    server = dict(describe_settings(ServerOptions))
    if not has_directory:
        del server["uds"]
    settings = describe_settings(H5Settings)
    for title, group in (("server", server), ("settings", settings)):
        arguments = parser.add_argument_group(title)
        for each in group.values():
            if not each.reading.is_secret:
                _add_option(arguments, each)
    help_of_config = "Read any of these options from a TOML file."
    parser.add_argument("--config", metavar="FILE", help=help_of_config)
    known = [*server.values(), *settings.values()]
    if has_directory:
        known += describe_settings(_Served).values()
    parser.set_defaults(settings={each.option: each for each in known})


def _add_option(group: Any, setting: Setting) -> None:
    """Let argparse read a setting; options that are not given stay out of the namespace."""
    rest: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    if setting.base is not bool:
        rest = {
            "action": "append" if setting.base is tuple else "store",
            "type": _reader_of(setting),
            "metavar": setting.reading.metavar or {int: "N", str: "TEXT"}.get(setting.base),
        }
    if setting.choices:
        rest |= {"type": str, "metavar": None, "choices": setting.choices}
    short = setting.reading.short
    text = f"{setting.description} {_describe_default(setting)}"
    group.add_argument(
        *([f"-{short}"] if short else []),
        f"--{setting.option}",
        dest=setting.name,
        default=argparse.SUPPRESS,
        help=text.strip().replace("%", "%%"),
        **rest,
    )


def _reader_of(setting: Setting) -> Any:
    def read(text: str) -> Any:
        try:
            return setting.check((text,))[0] if setting.base is tuple else setting.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("is ")) from None

    return read


def _describe_default(setting: Setting) -> str:
    default = setting.default
    if setting.base is tuple:
        return "(may be repeated)"
    if default in {None, ""} and not isinstance(default, int):
        return ""
    if setting.base is bool:
        return f"(default: {'yes' if default else 'no'})"
    if setting.reading.metavar == "SIZE":
        return f"(default: {format_size(default)})"
    return f"(default: {default:g})" if setting.base is float else f"(default: {default})"


def format_size(size: int) -> str:
    """Write a number of bytes in the largest unit that divides it, as `parse_size` reads it."""
    power = 0
    while size and size % 1024 == 0 and power < 4:
        size, power = size // 1024, power + 1
    return f"{size}{('', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def read_options(given: argparse.Namespace) -> ServerCommand:
    """Return the options of the command line, else the environment, the file, the defaults.

    Raises:
        SystemExit: 2 after one line on stderr, when one of them cannot be used.
    """
    parser: argparse.ArgumentParser = given.parser
    known: Mapping[str, Setting] = given.settings
    settings = describe_settings(H5Settings)
    try:
        with hold_log() as held:
            values = read_config(given.config, known) if given.config else {}
            for name in settings:
                if ENVIRONMENT_PREFIX + name.upper() in os.environ:
                    values.pop(name, None)
            for each in known.values():
                if (value := getattr(given, each.name, None)) is not None:
                    values[each.name] = tuple(value) if each.base is tuple else value
            names = describe_settings(ServerOptions).keys() & values.keys()
            own = {name: values.pop(name) for name in names}
            directory = values.pop("directory", None)
            server = ServerOptions(**own)
            return ServerCommand(
                server, H5Settings.from_environment(**values), directory, tuple(held)
            )
    except ValueError as error:
        parser.error(str(error))


def read_config(path: str, known: Mapping[str, Setting]) -> dict[str, Any]:
    """Return the values in a TOML file, by the names of their settings.

    Args:
        path: of the file.
        known: the settings that it may have, by the names of their options.

    Raises:
        ValueError: the file cannot be read, has an unknown key, or a value that cannot be
            used; the message names the file and the key.
    """
    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        message = f"--config {path}: {os.strerror(error.errno or 0)}"
        raise ValueError(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"--config {path} is no TOML: {error}"
        raise ValueError(message) from None
    folder = os.path.dirname(os.path.abspath(path))
    values = {}
    for name, value in given.items():
        setting = known.get(name)
        if setting is None:
            near = suggest_name(name, known) or f"; there is: {', '.join(known)}"
            message = f"--config {path}: there is no option {name!r}{near}"
            raise ValueError(message)
        try:
            values[setting.name] = _read_value(setting, value, folder)
        except ValueError as error:
            message = f"--config {path}: {name} {error}"
            raise ValueError(message) from None
    return values


def _read_value(setting: Setting, value: object, folder: str) -> Any:
    # A text is read as it is elsewhere; TOML's other types say themselves what they are.
    if not isinstance(value, str) or setting.base in {bool, tuple}:
        return setting.check(value)
    is_relative = setting.reading.is_path and not is_url(value)
    return setting.read(os.path.join(folder, value) if is_relative else value)
