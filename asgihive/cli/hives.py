"""`asgihive routes APP` and `asgihive graph APP`: the parts of a service."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial

from asgihive.cli.applications import (
    AppError,
    Application,
    find_applications,
    importing_from,
    load_app,
    parse_target,
)
from asgihive.cli.console import tell
from asgihive.errors import HiveError
from asgihive.hive import format_graph, format_mermaid, format_routes

_APP_HELP = """\
APP is module:attribute, as uvicorn takes it, or the path of a .py file (with :attribute or
without); the attribute is `app` unless said. It is imported, and so are the components of its
hives, but nothing is started: no hook runs.

examples:
"""
_ROUTES_EXAMPLES = """\
  asgihive routes main:app
  asgihive routes src/service/main.py
  asgihive routes service.main:create --factory --app-dir src --json
"""
_GRAPH_EXAMPLES = """\
  asgihive graph main:app
  asgihive graph main.py --mermaid > start_order.mmd
"""


def add_routes(parser: argparse.ArgumentParser) -> None:
    """Let the command `routes` take its arguments."""
    parser.description = "List method, URL, tag, handler, file and line of every route of APP."
    parser.epilog = _APP_HELP + _ROUTES_EXAMPLES
    _add_app(parser)
    parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")

    def run(options: argparse.Namespace) -> int:
        return _show(options, _format_json if options.json else _format_routes)

    parser.set_defaults(run=run, parser=parser)


def add_graph(parser: argparse.ArgumentParser) -> None:
    """Let the command `graph` take its arguments."""
    parser.description = (
        "Show the components of APP's hives in start order, and what requires what."
    )
    parser.epilog = _APP_HELP + _GRAPH_EXAMPLES
    _add_app(parser)
    parser.add_argument(
        "--mermaid", action="store_true", help="Write a Mermaid flowchart for each hive."
    )

    def run(options: argparse.Namespace) -> int:
        return _show(options, partial(_format_graphs, as_mermaid=options.mermaid))

    parser.set_defaults(run=run, parser=parser)


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", metavar="APP", help="Name a module:attribute, or a .py file.")
    parser.add_argument(
        "--factory", action="store_true", help="Call the attribute, and take what it returns."
    )
    parser.add_argument(
        "--app-dir",
        metavar="DIR",
        help="Begin the search for the module here (default: in the current directory).",
    )


def _show(options: argparse.Namespace, write: Callable[[str, Sequence[Application]], str]) -> int:
    """Tell what `write` makes of the applications in APP; components are imported meanwhile.

    Raises:
        SystemExit: 2 after one line on stderr, behind the end of the traceback of an
            exception that the user's own code raised.
    """
    try:
        target = parse_target(options.app, options.app_dir)
        # What modules print while they are imported is not what a program asked for.
        with importing_from(target.folder), redirect_stdout(sys.stderr):
            app = load_app(target, factory=options.factory)
            found = tuple(find_applications(app))
            text = write(options.app, found) if found else ""
        if found:
            tell(text)
            return 0
        problem = AppError(
            f"{options.app} is of the type {type(app).__name__}, which is no hive and mounts "
            "none: a Hive, an H5App, a Router, and Starlette or FastAPI applications are accepted"
        )
    except HiveError as error:
        problem = AppError(str(error), error.__cause__)
    except AppError as error:
        problem = error
    sys.stderr.write(problem.tail)
    parser: argparse.ArgumentParser = options.parser
    return parser.error(problem.message)  # never returns


def _format_json(_: str, found: Sequence[Application]) -> str:
    return json.dumps(
        [
            {**dataclasses.asdict(route), "application": each.name, "hive": each.hive is not None}
            for each in found
            for route in each.list_routes()
        ],
        indent=2,
    )


def _format_routes(text: str, found: Sequence[Application]) -> str:
    routes = [
        dataclasses.replace(route, file=_shorten(route.file))
        for each in found
        for route in each.list_routes()
    ]
    table = format_routes(routes) if routes else f"{text} has no routes"
    notes = list(_list_notes(found))
    return "\n".join([table, "", *notes] if notes else [table])


def _list_notes(found: Sequence[Application]) -> Iterator[str]:
    """Yield what the table does not say."""
    for each in found:
        where = f"{each.name} at {each.prefix or '/'}"
        if each.hive is None:
            more = "; routers that it includes are not listed" if each.has_more else ""
            yield f"{where} is not a hive{more}"
            continue
        if each.surrounds:
            yield f"{where} is around the rest: its hooks run, its routes are not served"
        elif len(found) > 1:
            yield f"{where} is a hive"
        if not each.hive.config.router_mount_automated:
            yield f"{where} leaves mounting to its hooks: they add routes when it starts"


def _format_graphs(text: str, found: Sequence[Application], *, as_mermaid: bool = False) -> str:
    graphs = []
    for each in found:
        if each.hive is None:
            continue
        where = f", {each.name} at {each.prefix or '/'}" if len(found) > 1 else ""
        nodes = each.hive.graph()
        if as_mermaid:
            graphs.append(f"%% {text}{where}\n{format_mermaid(nodes)}")
        else:
            near = [dataclasses.replace(node, file=_shorten(node.file)) for node in nodes]
            graphs.append(format_graph(f"{text}{where}", near))
    if not graphs:
        names = ", ".join(dict.fromkeys(each.name for each in found))
        raise AppError(f"{text} has no hive, so nothing that starts in an order: it is {names}")
    return "\n\n".join(graphs)


def _shorten(file: str) -> str:
    """Return the path as people at the current directory would write it."""
    return file.removeprefix(os.path.join(os.getcwd(), ""))
