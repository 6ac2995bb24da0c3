"""Settings of the HDF5 service: frozen, validated, and the only reader of the environment."""

import dataclasses
import difflib
import functools
import ipaddress
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin

_logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "ASGIHIVE_"


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _setting(
    purpose: str,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    *,
    secret: bool = False,
) -> Any:
    """A field whose purpose is also its help text on the command line.

    What is secret is in no `repr` and no error.
    """
    metadata = {"purpose": purpose, "secret": secret}
    if factory is not dataclasses.MISSING:
        return field(default_factory=factory, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class H5Settings:
    """Bounds and policies of an `H5App`.

    Each is also an environment variable (`ASGIHIVE_` and the name in upper case, read by
    `from_environment`) and an option of `asgihive serve`.

    Raises:
        ValueError: a value is out of range; the message names it and says what is accepted.
    """

    chunk_cache_bytes: int = _setting("decoded chunks kept in memory, 0 = off", 256 << 20)
    answer_cache_bytes: int = _setting(
        "encoded metadata and attributes kept in memory, 0 = off", 32 << 20
    )
    max_open_files: int = _setting("files open at once", 128)
    decode_lanes: int = _setting("threads that decode and encode", factory=_available_cores)
    max_in_flight_bytes: int = _setting(
        "bytes in flight for all answers, over it each has one block at a time", 256 << 20
    )
    max_chunk_bytes: int = _setting(
        "size of a decoded chunk, or of one element, over it 413", 1 << 30
    )
    max_response_bytes: int = _setting("size of the raw selection, over it 413", 8 << 30)
    read_timeout_seconds: float = _setting(
        "how long a request may take before its first byte, over it 504", 60.0
    )
    send_timeout_seconds: float = _setting(
        "longest time that a client takes for a block of some MiB, over it left", 300.0
    )
    follow_symlinks: bool = _setting(
        "let a symbolic link inside the directory lead out of it", default=False
    )
    cors_origins: tuple[str, ...] = _setting("origins whose pages may read answers", ())
    allowed_hosts: tuple[str, ...] | None = _setting(
        "host names that requests may name in `Host`, beside those of this machine", None
    )
    cache_control: str = _setting(
        "the Cache-Control of answers made of files, empty = none", "no-cache"
    )
    compress_arrays: bool = _setting(
        "compress bin, npy and tiff, which then come without their length", default=False
    )
    token: str | None = _setting("what every request must show, None = nothing", None, secret=True)
    server_timing: bool = _setting("say in every answer what took how long", default=True)
    docs: bool = _setting("serve /openapi.json and /docs", default=True)
    metrics: bool = _setting("serve /metrics, for Prometheus", default=True)
    isolation: Literal["none", "process"] = _setting(
        "process: read files in worker processes, which a damaged file may crash", "none"
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata["secret"]:
                _check_secret(each.name, value)
            elif each.type is bool:
                _check(each.name, value, isinstance(value, bool), "True or False")
            elif get_origin(each.type) is Literal:
                choices = get_args(each.type)
                _check(each.name, value, value in choices, " or ".join(map(repr, choices)))
            elif each.type is str:
                _check_field_value(each.name, value)
            elif each.type in {int, float}:
                _check(each.name, value, _is_in_range(each, value), _accepted_number(each))
            elif value is not None or each.type != tuple[str, ...] | None:
                words = isinstance(value, tuple) and all(isinstance(word, str) for word in value)
                _check(each.name, value, words, "a tuple of strings")
        # In the form in which browsers send them, since that is what they are compared with.
        origins = tuple(
            _checked_word("cors_origins", each, parse_origin) for each in self.cors_origins
        )
        object.__setattr__(self, "cors_origins", origins)
        if self.allowed_hosts is not None:
            hosts = tuple(
                _checked_word("allowed_hosts", each, parse_host) for each in self.allowed_hosts
            )
            object.__setattr__(self, "allowed_hosts", hosts)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Settings from `ASGIHIVE_…` variables; what is given in code wins.

        A variable that is no setting is warned of, once in a process.

        Raises:
            ValueError: a variable cannot be converted; the message names it.
        """
        environment = os.environ if environment is None else environment
        known = tuple(each.name.upper() for each in fields(cls))
        for name in sorted(environment_variables(ENVIRONMENT_PREFIX, environment).keys() - known):
            _warn_of_unknown(name, known)
        values: dict[str, Any] = {}
        for each in fields(cls):
            text = environment.get(ENVIRONMENT_PREFIX + each.name.upper())
            if text is not None and each.name not in given:
                values[each.name] = _converted(ENVIRONMENT_PREFIX + each.name.upper(), each, text)
        return cls(**values, **given)


# The smallest value that makes sense, by setting.
_LEAST: dict[str, float] = {
    "chunk_cache_bytes": 0,
    "answer_cache_bytes": 0,
    "max_open_files": 1,
    "decode_lanes": 1,
    "max_in_flight_bytes": 1 << 16,
    "max_chunk_bytes": 1,
    "max_response_bytes": 1,
    "read_timeout_seconds": 0.001,
    "send_timeout_seconds": 0.001,
}

_FIELD_VALUE = re.compile(r"[\x20-\x7e]*")  # of RFC 9110, section 5.5, without obsolete text

# What `Authorization: Bearer` can carry: the `b64token` of RFC 6750, section 2.1.
_SECRET = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def _is_in_range(each: dataclasses.Field[Any], value: object) -> bool:
    kinds = int if each.type is int else int | float
    return (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= _LEAST[each.name]
    )


def _accepted_number(each: dataclasses.Field[Any]) -> str:
    kind = "a whole number" if each.type is int else "a number"
    return f"{kind} of at least {_LEAST[each.name]:g}"


def _check(name: str, value: object, is_good: bool, accepted: str) -> None:
    if not is_good:
        message = f"{name} is {value!r}: {accepted} is accepted"
        raise ValueError(message)


def _check_field_value(name: str, value: object) -> None:
    is_good = isinstance(value, str) and _FIELD_VALUE.fullmatch(value) is not None
    _check(name, value, is_good, "ASCII text without control characters")


def _check_secret(name: str, value: object) -> None:
    if value is None or (isinstance(value, str) and _SECRET.fullmatch(value)):
        return
    # An empty one is a mistake, too: of whoever thinks that there is one.
    what = "is empty" if value == "" else "cannot be used"
    accepted = "letters, digits and - . _ ~ + /, with any number of = at the end, are accepted"
    message = f"{name} {what}: {accepted}"
    raise ValueError(message)


def _checked_word(name: str, word: str, parse: Callable[[str], str]) -> str:
    try:
        return parse(word)
    except ValueError as error:
        message = f"{name} is {word!r}: {error}"
        raise ValueError(message) from None


@functools.cache  # so once
def _warn_of_unknown(name: str, known: tuple[str, ...]) -> None:
    """Not an error: a later version may have that setting, or another program."""
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [each for each in known if each.startswith(name)]
    meant = f" (did you mean {ENVIRONMENT_PREFIX}{near[0]}?)" if near else ""
    variable = f"{ENVIRONMENT_PREFIX}{name}"
    _logger.warning("The environment variable %r is no setting, and ignored%s", variable, meant)


def environment_variables(
    prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables whose names begin with `prefix`, by the rest of their names."""
    environment = os.environ if environment is None else environment
    return {
        name.removeprefix(prefix): text
        for name, text in environment.items()
        if name.startswith(prefix) and name != prefix
    }


def parse_boolean(text: str) -> bool:
    """`1 true yes on` and `0 false no off`, any case.

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
    """Bytes: `1048576`, `256MiB` or `2G` (powers of 1024), `2GB` (powers of 1000); any case.

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
    """Comma-separated words, blanks around them dropped."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


# A scheme, a name or an address in brackets, a port (RFC 6454, section 6.2; RFC 3986, 3.2.2).
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(text: str) -> str:
    """An origin as a browser sends it: in lower case, without the port that its scheme implies.

    `null`, which is the origin of any page without one, is none; `*` stands for all.

    Raises:
        ValueError: what no browser sends, such as a bare host, a path or a slash at the end.
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
    """The name or address of a host, in lower case, without brackets; `*` stands for all.

    Raises:
        ValueError: it has a port, a scheme, or what no name has.
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


_CONVERTERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: parse_boolean,
    tuple[str, ...]: parse_list,
    tuple[str, ...] | None: parse_list,
    str: str,
    str | None: str,
    Literal["none", "process"]: str,
}


def _converted(variable: str, each: dataclasses.Field[Any], text: str) -> Any:
    try:
        if each.name.endswith("_bytes"):
            return parse_size(text)
        return _CONVERTERS[each.type](text)
    except ValueError as error:
        message = f"{variable} is {text!r}: {error}"
        raise ValueError(message) from None
