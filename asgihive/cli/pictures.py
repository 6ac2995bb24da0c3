"""`asgihive image` and `asgihive plot`: the pictures of `/image` and `/plot`, without a server.

The options are the parameters of the routes, and a picture is made by the routes themselves.
"""

import argparse
import os
from functools import partial
from typing import Any
from urllib.parse import unquote, urlencode

import anyio
from starlette.types import ASGIApp

from asgihive.cli.console import Parser, tell, tell_bytes
from asgihive.cli.formatting import LONGEST_LINE, printable
from asgihive.cli.inspect import check_file, check_root, explain_outside, find_sandbox
from asgihive.cli.logs import hold_log
from asgihive.encoders.pictures import IMAGE_FORMATS, SVG, PictureFormat
from asgihive.encoders.protocol import list_encoders
from asgihive.errors import AsgihiveError, BadParameter, FileMissing
from asgihive.hdf5.file_bytes import encoded
from asgihive.service.answering import CapturedResponse, make_inner_scope, receive_nothing
from asgihive.service.parameters import PARAMETERS
from asgihive.service.query import QueryParameter
from asgihive.service.routes import ReadRoute, Routes
from asgihive.service.store import Store
from asgihive.settings import H5Settings
from asgihive.viewer.images import answer_image
from asgihive.viewer.plots import answer_plot

STDOUT = "-"

_ANSWERS: dict[str, Any] = {"image": answer_image, "plot": answer_plot}
_FORMATS: dict[str, tuple[PictureFormat, ...]] = {
    "image": tuple(IMAGE_FORMATS.values()),
    "plot": (SVG,),
}
# Of a route, parameters that are no options of its command.
_NO_OPTIONS = frozenset({"file", "path", "format"})

_IMAGE_HELP = """\
Without PATH it is the NeXus default of the file, or the first image that is found; without
--selection the first image of a stack. The first row is at the top.

examples:
  asgihive image scan.nxs -o scan.png
  asgihive image scan.nxs /entry/images/data -o frame.webp --selection 12,:,: --norm log
  asgihive image scan.nxs /entry/images/data -o - --shape 200,200 --cmap gray_r > small.png
"""
_PLOT_HELP = """\
Without PATH it is the NeXus default of the file. Axes, errors, names and units are those that
NeXus has for a dataset.

examples:
  asgihive plot scan.nxs -o scan.svg
  asgihive plot scan.nxs /entry/scan/intensity -o scan.svg --yscale log --theme dark
  asgihive plot scan.nxs /entry/a/y /entry/b/y -o both.svg --selection 100:200
"""


def add_image(parser: argparse.ArgumentParser) -> None:
    """Let the command `image` take its arguments."""
    parser.description = "Make a picture of two dimensions of a dataset, in false colours."
    parser.epilog = _IMAGE_HELP
    parser.usage = "%(prog)s [-h] -o FILE.png [option ...] FILE [PATH]"
    _add_common(parser, "image", "Name an HDF5 file, and a dataset or a group in it.")


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Let the command `plot` take its arguments."""
    parser.description = "Make a plot of one or several curves, each one dimension of a dataset."
    parser.epilog = _PLOT_HELP
    parser.usage = "%(prog)s [-h] -o FILE.svg [option ...] FILE [PATH ...]"
    _add_common(parser, "plot", "Name an HDF5 file, and datasets or groups in it.")


def _add_common(parser: argparse.ArgumentParser, route: str, words: str) -> None:
    parser.add_argument("words", metavar="FILE [PATH]", nargs="+", help=words)
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        required=True,
        help=f"Write to this file, whose name ends in {_list_extensions(route)}; - is stdout.",
    )
    if len(_FORMATS[route]) > 1:
        names = [each.name for each in _FORMATS[route]]
        parser.add_argument("--format", choices=names, help="By default as FILE ends, or png.")
    parser.add_argument(
        "--root", metavar="DIR", help="Let no link leave this directory (default: that of FILE)."
    )
    for parameter in PARAMETERS[route]:
        if parameter.name not in _NO_OPTIONS:
            _add_option(parser, parameter)
    parser.set_defaults(run=partial(_run, route), parser=parser)


def _add_option(parser: argparse.ArgumentParser, parameter: QueryParameter) -> None:
    text = parameter.description.replace("`", "").replace("%", "%%")
    name = f"--{parameter.name.replace('_', '-')}"
    action = "append" if parameter.is_repeated else "store"
    # Their values are looked at as those of a request are.
    parser.add_argument(name, dest=parameter.name, metavar="…", action=action, help=text)


def _list_extensions(route: str) -> str:
    return " or ".join(f".{each.extension}" for each in _FORMATS[route])


def _run(route: str, options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    file, *paths = options.words
    try:
        settings = H5Settings.from_environment()
        check_root(options.root)
        check_file(file)
        picture = _choose_format(route, options)
        if route == "image" and len(paths) > 1:
            message = "an image is of one dataset: name one PATH, or make a picture of each"
            raise ValueError(message)  # noqa: TRY301  # told as the others are
        sandbox, name = find_sandbox(file, options.root, settings)
    except ValueError as error:
        parser.error(printable(str(error), LONGEST_LINE))
    query = [("file", encoded(name)), *(("path", encoded(each)) for each in paths)]
    for parameter in PARAMETERS[route]:
        given = (
            getattr(options, parameter.name, None) if parameter.name not in _NO_OPTIONS else None
        )
        texts = given if isinstance(given, list) else [] if given is None else [given]
        query += [(parameter.name, encoded(each)) for each in texts]
    if len(_FORMATS[route]) > 1:
        query.append(("format", picture.name.encode()))
    try:
        with hold_log():
            list_encoders()  # found and imported now, not on the event loop
            store = Store(sandbox.root, settings)
            body, headers = anyio.run(ask_route, store, route, urlencode(query))
    except FileMissing:
        parser.fail(printable(explain_outside(sandbox, name), LONGEST_LINE))
    except BadParameter as error:
        parser.error(printable(_explain(error), LONGEST_LINE))
    except (AsgihiveError, OSError) as error:
        parser.fail(printable(str(error), LONGEST_LINE))
    return _write(parser, options.output, body, headers)


def _choose_format(route: str, options: argparse.Namespace) -> PictureFormat:
    """Return the format of the picture. Raises ValueError."""
    formats = {each.name: each for each in _FORMATS[route]}
    chosen = getattr(options, "format", None)
    if chosen is not None:
        return formats[chosen]
    extension = os.path.splitext(options.output)[1].removeprefix(".").lower()
    if options.output == STDOUT:
        return next(iter(formats.values()))
    if extension not in formats:
        message = f"argument -o: {options.output!r}: a name that ends in {_list_extensions(route)}"
        raise ValueError(f"{message}, or - for stdout, is accepted")
    return formats[extension]


async def ask_route(store: Store, route: str, query: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that a route answers with, and close the store.

    Args:
        store: that no service uses.
        route: by its name, such as `image`.
        query: its parameters, as in a URL.

    Raises:
        AsgihiveError: as the route does.
    """
    app: ASGIApp = Routes(store).router
    if route in _ANSWERS:
        app = ReadRoute(store, route, partial(_ANSWERS[route], store))
    answer = CapturedResponse()
    try:
        await app(make_inner_scope(f"/{route}", query), receive_nothing, answer.send)
    finally:
        with anyio.CancelScope(shield=True):
            await store.lanes.library.run(store.pool.close, patient=True)
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers.items()}
    return answer.body, headers


def _explain(error: BadParameter) -> str:
    """Return what is wrong with an argument, by the name that it has here."""
    names = {"file": "FILE", "path": "PATH"}
    problems = [
        f"argument {names.get(each.parameter, f'--{each.parameter}')}: {each.value!r}: "
        f"{each.accepted}"
        for each in error.problems
    ]
    return "; ".join(problems)


def _write(parser: Parser, output: str, body: bytes, headers: dict[str, str]) -> int:
    """Write a picture where it is wanted, and tell what it shows."""
    if output == STDOUT:
        tell_bytes(body)
        return 0
    try:
        with open(output, "wb") as file:
            file.write(body)
    except OSError as error:
        parser.fail(printable(f"{output}: {os.strerror(error.errno or 0)}", LONGEST_LINE))
    paths = unquote(headers["x-asgihive-paths"].partition(",")[0], errors="replace")
    told = f"{output}: {paths} [{headers['x-asgihive-selection']}]"
    if "x-asgihive-limits" in headers:
        low, high = (float(each) for each in headers["x-asgihive-limits"].split(","))
        told += f", colours from {low:g} to {high:g}"
    tell(printable(told, LONGEST_LINE))
    return 0
