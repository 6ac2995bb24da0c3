"""`asgihive viewer build`: the page in the browser, built where asgihive lies."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asgihive.cli.console import Parser, tell
from asgihive.cli.terminal import is_terminal
from asgihive.viewer.building import BuildFailed, PageSource, Report, build_page, find_npm

_ROOT = Path(__file__).parents[2]


def add_viewer(parser: argparse.ArgumentParser) -> None:
    """Let the command `viewer` take its arguments."""
    parser.description = (
        "Build the page that a browser shows at /view/, in a clone of the repository. It takes\n"
        "npm and Node.js; a wheel of asgihive has the page already. A server that runs shows\n"
        "the new page at the next reload."
    )
    parser.add_argument("action", choices=["build"], help="What to do.")
    parser.add_argument(
        "--if-possible",
        action="store_true",
        help="Where the page cannot be built, say why, and end as if it were.",
    )
    parser.set_defaults(run=_build, parser=parser)


def _build(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    source = PageSource.of_checkout(_ROOT)
    if not source.is_there() and source.is_built():
        tell(f"The page is in {source.dist} already; its sources are not here.")
        return 0
    try:
        npm = find_npm(source)
        with _showing_progress() as report:
            build_page(source, npm, report)
    except BuildFailed as failed:
        if options.if_possible:
            tell(f"There will be no page in the browser: {failed}")
            return 0
        parser.fail_with_lines(f"the page cannot be built: {failed}")
    tell(f"The page is built: {source.dist}")
    return 0


@contextmanager
def _showing_progress() -> Iterator[Report]:
    """Show what is done: as a bar on a terminal, else in a line for each step."""
    if not is_terminal(sys.stderr):
        said: set[str] = set()

        def tell_once(text: str, _: float | None) -> None:
            if text not in said:
                said.add(text)
                tell(f"{text} …")

        yield tell_once
        return
    from rich.console import Console  # noqa: PLC0415  # on a terminal only
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text, part: progress.update(
            task, description=text, total=None if part is None else 1.0, completed=part or 0.0
        )
