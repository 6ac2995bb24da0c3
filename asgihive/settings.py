"""Settings: each is declared once, with its type, its bounds, its default and a sentence.

The declaration gives the checks and their messages, the environment variables, the keys of TOML
files and the options of the command line with their help.
"""

import difflib
import functools
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from asgihive.errors import ConfigurationError

_logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "ASGIHIVE_"


def parse_boolean(text: str) -> bool:
    """Read `1 true yes on` or `0 false no off`, in any case.

    Raises:
        ValueError: any other text.
    """
    word = text.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    message = "true/1/yes/on and false/0/no/off are accepted"
    raise ValueError(message)


_SIZE = re.compile(r"(\d+) ?(?:([KMGT])(iB|B)?|B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Read bytes: `1048576`, `256MiB` or `2G` (powers of 1024), `2GB` (powers of 1000).

    Raises:
        ValueError: any other text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = "a size such as 1048576, 256MiB or 2G is accepted"
        raise ValueError(message)
    number, letter, unit = match.groups()
    base = 1000 if unit and unit.upper() == "B" else 1024
    power = " KMGT".index(letter.upper()) if letter else 0
    return int(number) * int(base**power)


def parse_list(text: str) -> tuple[str, ...]:
    """Split words at commas, without the blanks around them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _parse_integer(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d+\s*", text, re.ASCII):
        message = "a whole number is accepted"
        raise ValueError(message)
    return int(text)


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = "a number is accepted"
        raise ValueError(message) from None


# A scheme, a name or an address in brackets, a port (RFC 6454, section 6.2; RFC 3986, 3.2.2).
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(text: str) -> str:
    """Read an origin as a browser sends it: in lower case, without a port that is implied.

    `*` stands for all. `null`, the origin of every page that has none, is not accepted.

    Raises:
        ValueError: no browser sends that: a bare host, a path, a slash at the end.
    """
    if text == "*":
        return text
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or int(match[3] or 0) > 65535:
        message = (
            "an origin such as https://viewer.example.org or http://localhost:5173, "
            "without a path, or * is accepted"
        )
        raise ValueError(message)
    scheme, host, port = match.groups()
    is_implied = port is None or int(port) == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" if is_implied else f"{scheme}://{host}:{int(port)}"


_HOST = re.compile(r"[a-z0-9_-][a-z0-9._-]*", re.ASCII)  # a name, or an IPv4 address


def parse_host(text: str) -> str:
    """Read the name or address of a host, in lower case, without brackets; `*` stands for all.

    Raises:
        ValueError: it has a port, a scheme, or a character that no name has.
    """
    if text == "*":
        return text
    host = text.lower()
    if _HOST.fullmatch(host):
        return host.rstrip(".")
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        message = "a host such as data.example.org or 192.0.2.7, without a port, or * is accepted"
        raise ValueError(message) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the values of a setting are written; part of its annotation, beside `Meta`."""

    parse: Callable[[str], Any] | None = None
    """Makes a value of text; None = as is usual for the type."""
    normalize: Callable[[Any], Any] | None = None
    """Makes the value that is kept, of a tuple each member; raises ValueError."""
    accepted: str = ""
    """What a message says, if the type and its bounds do not say it."""
    metavar: str = ""
    """Stands for the value in the help of the command line."""
    option: str = ""
    """The name of its option, if that is not the setting's own."""
    short: str = ""
    """A letter that stands for the option."""
    is_path: bool = False
    """Whether a relative path in a file begins at the file's own directory."""
    is_secret: bool = False
    """Whether it is in no `repr`, no message and no option."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as the annotation of its field declares it."""

    name: str
    type: Any
    """The annotation, which msgspec checks."""
    base: Any
    """bool, int, float, str, tuple, or None where `normalize` checks alone."""
    default: Any
    description: str
    choices: tuple[str, ...]
    accepted: str
    """What a message says, up to the word "accepted"."""
    reading: Reading

    @property
    def option(self) -> str:
        """Its name in a TOML file and, after two dashes, on the command line."""
        return self.reading.option or self.name.replace("_", "-")

    def read(self, text: str) -> Any:
        """Return the value that a text stands for.

        Raises:
            ValueError: there is none; the message is what follows the name of its source.
        """
        parse = self.reading.parse or _PARSERS.get(self.base, str)
        try:
            value = parse(text)
        except ValueError as error:
            raise ValueError(self._describe_mistake(text, str(error))) from None
        return self.check(value, text)

    def check(self, value: Any, text: str | None = None) -> Any:
        """Return `value` as it is kept.

        Args:
            value: of whatever type.
            text: what it was read from.

        Raises:
            ValueError: it is not accepted; the message is what follows the name of its source.
        """
        shown = value if text is None else text
        try:
            kept = value if self.base is None else msgspec.convert(value, self.type)
        except msgspec.ValidationError:
            raise ValueError(self._describe_mistake(shown, f"{self.accepted} accepted")) from None
        normalize = self.reading.normalize
        if normalize is None or kept is None:
            return kept
        try:
            if self.base is not tuple:
                return normalize(kept)
            words = []
            for shown in kept:
                words.append(normalize(shown))  # and the message shows this one
            return tuple(words)
        except ValueError as error:
            raise ValueError(self._describe_mistake(shown, str(error))) from None

    def _describe_mistake(self, value: Any, accepted: str) -> str:
        if self.reading.is_secret:
            # An empty secret is a mistake too: its owner would believe that there is one.
            return f"{'is empty' if value == '' else 'cannot be used'}: {accepted}"
        return f"is {value!r}: {accepted}"


_PARSERS: dict[Any, Callable[[str], Any]] = {
    bool: parse_boolean,
    int: _parse_integer,
    float: _parse_number,
    tuple: parse_list,
}


@functools.cache
def describe_settings(cls: type[msgspec.Struct]) -> Mapping[str, Setting]:
    """Return the settings that a class declares, by their names."""
    hints = get_type_hints(cls, include_extras=True)
    return MappingProxyType(
        {
            each.name: _describe_setting(each, hints[each.name])
            for each in msgspec.structs.fields(cls)
        }
    )


def _describe_setting(info: msgspec.structs.FieldInfo, annotation: Any) -> Setting:
    extras: list[Any] = []
    base = annotation
    while (origin := get_origin(base)) in {Annotated, Union, UnionType}:
        members = [each for each in get_args(base) if each is not type(None)]
        if origin is Annotated:
            extras += members[1:]
        elif len(members) > 1:
            members = [object]
        base = members[0]
    metas = [each for each in extras if isinstance(each, Meta)]
    choices: tuple[str, ...] = ()
    if get_origin(base) is Literal:
        base, choices = str, get_args(base)
    base = get_origin(base) or base
    reading = next((each for each in extras if isinstance(each, Reading)), Reading())
    least = next((each.ge for each in metas if each.ge is not None), None)
    most = next((each.le for each in metas if each.le is not None), None)
    number = "a whole number" if base is int else "a number"
    if most is not None:
        number = f"{number} from {least:g} to {most:.15g}"
    elif least is not None:
        number = f"{number} of at least {least:g}"
    usual = {bool: "true or false", str: "a text", tuple: "a list of texts"}.get(base, number)
    if choices:
        usual = f"one of {', '.join(choices)}"
    has_factory = info.default_factory is not msgspec.NODEFAULT
    return Setting(
        name=info.name,
        type=annotation,
        base=base if base in {bool, int, float, str, tuple} else None,
        default=info.default_factory() if has_factory else info.default,
        description=next((each.description for each in metas if each.description), ""),
        choices=choices,
        accepted=reading.accepted or f"{usual} is",
        reading=reading,
    )


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Values that are checked when they are given; each field is annotated as a `Setting`.

    Raises:
        ConfigurationError: a value is not accepted; the message names it and says what is.
    """

    def __post_init__(self) -> None:
        for name, setting in describe_settings(type(self)).items():
            value = getattr(self, name)
            try:
                kept = setting.check(value)
            except ValueError as error:
                raise ConfigurationError(name, str(error)) from None
            if kept is not value:
                msgspec.structs.force_setattr(self, name, kept)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, setting in describe_settings(type(self)).items()
            if not setting.reading.is_secret
        )
        return f"{type(self).__name__}({shown})"


def read_variables(
    cls: type[msgspec.Struct], prefix: str, environment: Mapping[str, str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the variables that are named as the settings of `cls` are.

    Args:
        cls: declares the settings.
        prefix: of the names, which follow it in upper case.
        environment: the variables.
        given: values that win, so that their variables are not looked at.

    Raises:
        ConfigurationError: a text is not accepted; the message names the variable.
    """
    values = dict(given)
    for name, setting in describe_settings(cls).items():
        variable = prefix + name.upper()
        if variable in environment and name not in given:
            try:
                values[name] = setting.read(environment[variable])
            except ValueError as error:
                raise ConfigurationError(variable, str(error)) from None
    return values


def environment_variables(
    prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables whose names begin with `prefix`, by the rest of their names."""
    environment = os.environ if environment is None else environment
    return {
        name.removeprefix(prefix): text
        for name, text in environment.items()
        if name.startswith(prefix) and name != prefix
    }


def _count_available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_CLUSTER = re.compile(r"dask(\+tls)?://([a-z0-9._-]+|\[[0-9a-f:.]+\]):([0-9]{1,5})", re.ASCII)


def parse_cluster(text: str) -> str:
    """Read the address of a scheduler, in lower case.

    Raises:
        ValueError: it is none.
    """
    match = _CLUSTER.fullmatch(text.lower())
    if match is None or not 0 < int(match[3]) <= 65535:
        message = (
            "the address of a dask scheduler, dask://HOST:PORT or, with TLS, "
            "dask+tls://HOST:PORT, is accepted"
        )
        raise ValueError(message)
    return match[0]


def _check_absolute(path: str) -> str:
    if not os.path.isabs(path):
        message = "an absolute path is accepted"
        raise ValueError(message)
    return path


Size = Annotated[int, Reading(parse=parse_size, metavar="SIZE")]
Seconds = Annotated[float, Meta(ge=0.001, le=604_800), Reading(metavar="SECONDS")]


class H5Settings(Settings, frozen=True, kw_only=True):
    """Bounds and policies of an `H5App`.

    Each is also an environment variable (`ASGIHIVE_` and the name in upper case, read by
    `from_environment`) and an option of `asgihive serve`.

    Raises:
        ValueError: a value is not accepted; the message names it and says which are.
    """

    chunk_cache_bytes: Annotated[
        Size, Meta(ge=0, description="Keep at most this much of decoded chunks; 0 keeps none.")
    ] = 256 << 20
    answer_cache_bytes: Annotated[
        Size, Meta(ge=0, description="Keep at most this much of finished answers; 0 keeps none.")
    ] = 32 << 20
    max_open_files: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Keep at most so many files open.")
    ] = 128
    idle_file_seconds: Annotated[
        float,
        Meta(ge=0, le=604_800, description="Close a file that no request has used for so long."),
        Reading(metavar="SECONDS"),
    ] = 30.0
    decode_lanes: Annotated[
        int, Meta(ge=1, le=1024, description="Decode and encode in so many threads.")
    ] = msgspec.field(default_factory=_count_available_cores)
    max_in_flight_bytes: Annotated[
        Size,
        Meta(
            ge=1 << 16,
            description="Read at most this much ahead for all answers together; "
            "beyond it each has one block at a time.",
        ),
    ] = 256 << 20
    max_chunk_bytes: Annotated[
        Size, Meta(ge=1, description="Answer 413 where a decoded chunk, or an element, is larger.")
    ] = 1 << 30
    max_response_bytes: Annotated[
        Size, Meta(ge=1, description="Answer 413 where the selected values are larger.")
    ] = 8 << 30
    read_timeout_seconds: Annotated[
        Seconds, Meta(description="Answer 504 where nothing can be sent within this time.")
    ] = 60.0
    send_timeout_seconds: Annotated[
        Seconds, Meta(description="Leave a client that takes longer for a block of some MiB.")
    ] = 300.0
    follow_symlinks: Annotated[
        bool, Meta(description="Follow symbolic links that lead out of the directory.")
    ] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(description="Let pages of this origin read answers; * stands for all."),
        Reading(normalize=parse_origin, metavar="ORIGIN", option="cors"),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Answer requests for this host name, beside the names of this machine; "
            "* stands for all."
        ),
        Reading(normalize=parse_host, metavar="NAME", option="allowed-host"),
    ] = None
    cache_control: Annotated[
        str,
        # A field value of RFC 9110, section 5.5, without obsolete text.
        Meta(
            pattern=r"^[\x20-\x7e]*\Z",
            description="Send this Cache-Control with answers made of files; empty sends none.",
        ),
        Reading(accepted="ASCII text without control characters is"),
    ] = "no-cache"
    compress_arrays: Annotated[
        bool, Meta(description="Compress bin, npy and tiff, too; they lose their Content-Length.")
    ] = False
    pictures: Annotated[bool, Meta(description="Make pictures of values, at /image and /plot.")] = (
        True
    )
    zarr: Annotated[bool, Meta(description="Serve each file as a Zarr store, below /zarr.")] = True
    zarr_compression: Annotated[
        Literal["zstd", "blosc", "none"],
        Meta(
            description="Compress the chunks of Zarr that are not sent as they are stored; "
            "without the extra codecs, blosc is zstd."
        ),
    ] = "blosc"
    zarr_stored_chunks: Annotated[
        bool,
        Meta(
            description="Send chunks of deflate as stored, too: less work here, more for clients."
        ),
    ] = False
    zarr_cache_bytes: Annotated[
        Size, Meta(ge=0, description="Keep at most this much of chunks of Zarr; 0 keeps none.")
    ] = 64 << 20
    store_cache_bytes: Annotated[
        Size,
        Meta(ge=0, description="Keep at most this much of what is read of object stores."),
    ] = 128 << 20
    store_identity_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Trust for so long that an object in a store has not changed.",
        ),
        Reading(metavar="SECONDS"),
    ] = 1.0
    store_listing_file: Annotated[
        str,
        Meta(
            pattern=r"^[^/\x00-\x1f]*\Z",
            max_length=255,
            description="Look in this file of a web server for the names of its files; empty "
            "looks for none.",
        ),
        Reading(accepted="a name without slashes is"),
    ] = "asgihive-files.jsonl"
    store_timeout_seconds: Annotated[
        Seconds, Meta(description="Wait so long for one request to an object store.")
    ] = 10.0
    store_retries: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Ask an object store so often again that failed."),
    ] = 3
    poll_seconds: Annotated[
        float,
        Meta(
            ge=0.05,
            le=3600,
            description="Look so often whether a file has changed that /events tells of.",
        ),
        Reading(metavar="SECONDS"),
    ] = 0.5
    max_listeners: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Let at most so many clients listen to /events."),
    ] = 2000
    viewer: Annotated[bool, Meta(description="Serve a page that shows the files, at /view/.")] = (
        True
    )
    frame_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Let pages of this origin show the page in a frame, as those of its own "
            "may; * stands for all."
        ),
        Reading(normalize=parse_origin, metavar="ORIGIN", option="frame-origin"),
    ] = ()
    token: Annotated[
        # What `Authorization: Bearer` can carry: the `b64token` of RFC 6750, section 2.1.
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/-]+=*\Z")] | None,
        Meta(description="Require this token of every request."),
        Reading(
            accepted="letters, digits and - . _ ~ + /, with any number of = at the end, are",
            is_secret=True,
        ),
    ] = None
    server_timing: Annotated[bool, Meta(description="Tell in every answer what took how long.")] = (
        True
    )
    docs: Annotated[bool, Meta(description="Serve /openapi.json and /docs.")] = True
    metrics: Annotated[bool, Meta(description="Serve /metrics, for Prometheus.")] = True
    isolation: Annotated[
        Literal["none", "process"],
        Meta(
            description="Read files in this process, or in reader processes, which a damaged "
            "file may crash."
        ),
    ] = "none"

    compute: Annotated[
        str | None,
        Meta(
            description="Compute statistics, histograms and small views of large datasets on this "
            "cluster, dask://HOST:PORT; its workers must see the same files."
        ),
        Reading(normalize=parse_cluster, metavar="ADDRESS"),
    ] = None
    compute_over_bytes: Annotated[
        Size,
        Meta(ge=1, description="Compute on the cluster what is made of more than this."),
    ] = 256 << 20
    compute_root: Annotated[
        str | None,
        Meta(description="Where the cluster's workers find the directory, if elsewhere."),
        Reading(normalize=_check_absolute, metavar="PATH"),
    ] = None
    compute_retry_seconds: Annotated[
        Seconds, Meta(description="Ask for a cluster that is away again after this time.")
    ] = 30.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Return the settings of the `ASGIHIVE_…` variables; values given in code win.

        A variable that is no setting is warned of, once in a process.

        Raises:
            ValueError: a variable cannot be converted; the message names it.
        """
        environment = os.environ if environment is None else environment
        known = tuple(name.upper() for name in describe_settings(cls))
        for name in sorted(environment_variables(ENVIRONMENT_PREFIX, environment).keys() - known):
            _warn_of_unknown(name, known)
        return cls(**read_variables(cls, ENVIRONMENT_PREFIX, environment, given))


@functools.cache  # so once
def _warn_of_unknown(name: str, known: tuple[str, ...]) -> None:
    """Warn only, since a later version, or another program, may have that setting."""
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [each for each in known if each.startswith(name)]
    meant = f" (did you mean {ENVIRONMENT_PREFIX}{near[0]}?)" if near else ""
    variable = f"{ENVIRONMENT_PREFIX}{name}"
    _logger.warning("The environment variable %r is no setting, and ignored%s", variable, meant)
