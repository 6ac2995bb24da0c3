"""`asgihive new NAME`: the files of a small service that works, to begin with."""

import argparse
import os
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from asgihive import __version__
from asgihive.cli.console import tell

# Of the template's files: so that no tool takes them for modules of asgihive.
_SUFFIX = "-tpl"
_LONGEST_NAME = 64

_EXAMPLES = """\
examples:
  asgihive new notes                          into ./notes
  asgihive new notes --directory ~/services/n into that folder
"""

_COMMANDS = """\
  python -m pip install -r requirements.txt
  python -m pytest
  python -m uvicorn main:app --reload
and open http://127.0.0.1:8000/docs"""


def add_new(parser: argparse.ArgumentParser) -> None:
    """Let the command take its arguments."""
    parser.description = (
        "Write a service of one cornerstone and one endpoint, its test and a README. It works\n"
        "at once. Nothing is overwritten."
    )
    parser.epilog = _EXAMPLES
    parser.add_argument("name", metavar="NAME", type=_parse_name, help="Name the service.")
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="Write into this folder, which is made (default: NAME in the current directory).",
    )
    parser.set_defaults(run=_new, parser=parser)


def make_files(name: str) -> dict[str, str]:
    """Return the files of a new service: path, with slashes, and text."""
    values = {"name": name, "version": __version__}
    return {
        path.removesuffix(_SUFFIX): Template(file.read_text(encoding="utf-8")).substitute(values)
        for path, file in _files_below(files("asgihive.cli") / "template", "")
    }


def _new(options: argparse.Namespace) -> int:
    parser = options.parser
    directory = options.name if options.directory is None else options.directory
    try:
        if os.path.isdir(directory):
            # A repository or an environment may be there before the service.
            there = sorted(each for each in os.listdir(directory) if each[0] != ".")
            if there:
                rest = ", …" if len(there) > 3 else ""
                shown = ", ".join(there[:3]) + rest
                parser.error(f"{directory} is not empty: there is {shown}; nothing was written")
        _write(directory, make_files(options.name))
    except OSError as error:
        parser.error(f"{error.filename or directory}: {error.strerror}")
    tell(_next_steps(options.name, directory))
    return 0


def _parse_name(text: str) -> str:
    # It becomes a folder, and a text in Python, Markdown and TOML.
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: letters, digits, - and _ are accepted, with a letter at the beginning "
            "and a letter or digit at the end"
        )
    if len(text) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"at most {_LONGEST_NAME} characters are accepted")
    return text


def _files_below(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        if each.is_dir():
            yield from _files_below(each, f"{prefix}{each.name}/")
        elif each.name.endswith(_SUFFIX):
            yield prefix + each.name, each


def _write(directory: str, texts: dict[str, str]) -> None:
    for path, text in texts.items():
        file = os.path.join(os.path.abspath(directory), *path.split("/"))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)


def _next_steps(name: str, directory: str) -> str:
    folder = os.path.abspath(directory)
    steps = [] if folder == os.getcwd() else [f"  cd {shlex.quote(directory)}"]
    return "\n".join([f"{name} is in {folder}. Try it:", *steps, _COMMANDS])
