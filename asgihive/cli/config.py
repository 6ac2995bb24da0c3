"""How an option is read: from the command line, and from the TOML file of `--config`."""

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asgihive.errors import suggest_name


@dataclass(frozen=True, slots=True)
class Option:
    """How an option is read.

    Args:
        dest: its name in code.
        purpose: the text of its help.
        parse: from text, raising `ArgumentTypeError`; None of a switch, which is on or off.
        metavar: shown for its value.
        choices: what is accepted, if that is few words.
        is_repeated: whether there may be several, a list in a file.
        is_path: whether a file's own directory is where a relative one begins.
        is_secret: whether it is for files alone.
        short: one letter that stands for it on the command line.
    """

    dest: str
    purpose: str
    parse: Callable[[str], Any] | None = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    is_repeated: bool = False
    is_path: bool = False
    is_secret: bool = False
    short: str = ""

    def add_to(self, group: Any, name: str) -> None:
        """Let argparse read it; what is not given stays out of the namespace."""
        rest: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if self.parse is not None:
            rest = {"type": self.parse, "metavar": self.metavar, "choices": self.choices}
            rest["action"] = "append" if self.is_repeated else "store"
        text = self.purpose.replace("%", "%%")
        flags = [f"-{self.short}"] if self.short else []
        group.add_argument(
            *flags, f"--{name}", dest=self.dest, default=argparse.SUPPRESS, help=text, **rest
        )

    def value_of(self, given: object, folder: str) -> Any:
        """The value that a file in `folder` gives.

        Raises:
            ValueError: it cannot be used; the message says what is accepted, and no secret.
        """
        if self.parse is None:
            if not isinstance(given, bool):
                message = f"{given!r}: true or false is accepted"
                raise ValueError(message)
            return given
        if self.is_repeated:
            if not isinstance(given, list):
                message = f"{given!r}: a list is accepted"
                raise ValueError(message)
            return [self._one(each, folder) for each in given]
        return self._one(given, folder)

    def _one(self, given: object, folder: str) -> Any:
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            shown = "a secret" if self.is_secret else f"{given!r}"
            message = f"{shown}: a text or a number is accepted"
            raise ValueError(message)  # noqa: TRY004  # wrong in a file, as other values are
        text = str(given)
        if self.choices is not None and text not in self.choices:
            message = f"{text!r}: one of {', '.join(self.choices)} is accepted"
            raise ValueError(message)
        if self.is_path:
            text = os.path.join(folder, text)
        assert self.parse is not None  # noqa: S101  # a switch has been dealt with
        try:
            return self.parse(text)
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None


def read_config(path: str, options: Mapping[str, Option]) -> dict[str, Any]:
    """The values in a TOML file, by their names in code.

    Args:
        options: by their names in the file.

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
        option = options.get(name)
        if option is None:
            near = suggest_name(name, options) or f"; there is: {', '.join(options)}"
            message = f"--config {path}: there is no option {name!r}{near}"
            raise ValueError(message)
        try:
            values[option.dest] = option.value_of(value, folder)
        except ValueError as error:
            message = f"--config {path}: {name} is {error}"
            raise ValueError(message) from None
    return values
