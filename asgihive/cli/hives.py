"""`asgihive routes APP` and `asgihive graph APP`: what a service consists of."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any

from asgihive.cli.apps import AppError, load, parse_target, search_path
from asgihive.cli.console import STYLE, tell
from asgihive.cli.listing import Application, applications
from asgihive.hive import GraphNode, HiveError, format_graph, format_mermaid, format_routes

_APP_HELP = """\
APP is module:attribute, as uvicorn takes it, or the path of a .py file (with :attribute or
without); the attribute is `app` unless said. It is imported, and so are the components of its
hives, but nothing is started: no hook runs.
"""
_ROUTES_EXAMPLES = """
examples:
  asgihive routes main:app
  asgihive routes src/service/main.py
  asgihive routes service.main:create --factory --app-dir src --json
"""
_GRAPH_EXAMPLES = """
examples:
  asgihive graph main:app
  asgihive graph main.py --mermaid > sort_components.mmd
"""


def add_routes(commands: Any) -> None:
    """Add the command `routes` to argparse's subparsers."""
    parser = commands.add_parser(
        "routes",
        help="list the routes of a service",
        description="List method, URL, tag, handler, file and line of every route of APP.",
        epilog=_APP_HELP + _ROUTES_EXAMPLES,
        **STYLE,
    )
    _add_app(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=_routes, parser=parser)


def add_graph(commands: Any) -> None:
    """Add the command `graph` to argparse's subparsers."""
    parser = commands.add_parser(
        "graph",
        help="show what a hive starts, in which order, and why",
        description="Show the components of APP's hives in start order, and what requires what.",
        epilog=_APP_HELP + _GRAPH_EXAMPLES,
        **STYLE,
    )
    _add_app(parser)
    parser.add_argument(
        "--mermaid", action="store_true", help="as Mermaid flowcharts, one for each hive"
    )
    parser.set_defaults(run=_graph, parser=parser)


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", metavar="APP", help="module:attribute, or a .py file")
    parser.add_argument(
        "--factory", action="store_true", help="call the attribute, and take what it returns"
    )
    parser.add_argument(
        "--app-dir",
        metavar="DIR",
        help="where the search for the module begins (default: the current directory)",
    )


def _routes(options: argparse.Namespace) -> int:
    tell(_shown(options, _routes_as_json if options.json else _routes_as_text))
    return 0


def _graph(options: argparse.Namespace) -> int:
    tell(_shown(options, _graphs_as_mermaid if options.mermaid else _graphs_as_text))
    return 0


def _shown(options: argparse.Namespace, show: Callable[[str, Sequence[Application]], str]) -> str:
    """What `show` makes of the applications in APP; components are imported meanwhile.

    Raises:
        SystemExit: 2 after one line on stderr, behind the end of the traceback of an
            exception that the user's own code raised.
    """
    try:
        target = parse_target(options.app, options.app_dir)
        # What modules print while they are imported is not what a program asked for.
        with search_path(target.folder), redirect_stdout(sys.stderr):
            found = _applications(options.app, load(target, factory=options.factory))
            return show(options.app, found)
    except HiveError as error:
        problem = AppError(str(error), error.__cause__)
    except AppError as error:
        problem = error
    sys.stderr.write(problem.tail)
    parser: argparse.ArgumentParser = options.parser
    return parser.error(problem.message)  # never returns


def _applications(text: str, app: object) -> tuple[Application, ...]:
    found = tuple(applications(app))
    if not found:
        raise AppError(
            f"{text} is of the type {type(app).__name__}, which is no hive and mounts none: "
            "a Hive, an H5App, a Router, and Starlette or FastAPI applications are accepted"
        )
    return found


def _routes_as_json(_: str, found: Sequence[Application]) -> str:
    return json.dumps(
        [
            {**dataclasses.asdict(record), "application": each.name, "hive": each.hive is not None}
            for each in found
            for record in each.records()
        ],
        indent=2,
    )


def _routes_as_text(text: str, found: Sequence[Application]) -> str:
    records = [
        dataclasses.replace(record, file=_near(record.file))
        for each in found
        for record in each.records()
    ]
    table = format_routes(records) if records else f"{text} has no routes"
    return "\n".join([table, *_notes(found)])


def _notes(found: Sequence[Application]) -> Iterator[str]:
    """What the table does not say."""
    lines = []
    for each in found:
        where = f"{each.name} at {each.prefix or '/'}"
        if each.hive is None:
            more = "; routers that it includes are not listed" if each.has_more else ""
            lines.append(f"{where} is not a hive{more}")
            continue
        if each.surrounds:
            lines.append(f"{where} is around the rest: its hooks run, its routes are not served")
        elif len(found) > 1:
            lines.append(f"{where} is a hive")
        if not each.hive.config.router_mount_automated:
            lines.append(f"{where} leaves mounting to its hooks: they add routes when it starts")
    if lines:
        yield ""
        yield from lines


def _hives(text: str, found: Sequence[Application]) -> list[tuple[str, tuple[GraphNode, ...]]]:
    """A headline for each hive, and its components."""
    hives = []
    for each in found:
        if each.hive is not None:
            where = f", {each.name} at {each.prefix or '/'}" if len(found) > 1 else ""
            hives.append((f"{text}{where}", each.hive.graph()))
    if not hives:
        names = ", ".join(dict.fromkeys(each.name for each in found))
        raise AppError(f"{text} has no hive, so nothing that starts in an order: it is {names}")
    return hives


def _graphs_as_mermaid(text: str, found: Sequence[Application]) -> str:
    return "\n\n".join(
        f"%% {headline}\n{format_mermaid(nodes)}" for headline, nodes in _hives(text, found)
    )


def _graphs_as_text(text: str, found: Sequence[Application]) -> str:
    return "\n\n".join(
        format_graph(headline, [dataclasses.replace(node, file=_near(node.file)) for node in nodes])
        for headline, nodes in _hives(text, found)
    )


def _near(file: str) -> str:
    """The path as people at the current directory would write it."""
    here = os.path.join(os.getcwd(), "")
    return file.removeprefix(here)
