"""`python -m tests.fuzz`: ask for damaged copies of the zoo, or for one of them again."""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import orjson

from tests import zoo
from tests.fuzz.asking import Asker, Effort, name_of, service, sources, stream_sources
from tests.fuzz.mutations import mutant
from tests.fuzz.runs import fuzz
from tests.zoo import streams


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="asgihive-fuzz-") as folder:
        root = Path(folder)
        (streams if options.about == "values" else zoo).build(root)
        if options.repeat is not None:
            anyio.run(_repeat, root, options)
            return 0
        report = fuzz(root, options.seed, options.mutants, _effort(options), options.jobs)
    print(report)
    return 1 if report.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=2000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (%(default)s)")
    parser.add_argument("--requests", type=int, default=30, help="about each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="for a request (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (%(default)s)")
    parser.add_argument(
        "--about",
        choices=("files", "values"),
        default="files",
        help="values: what shows values, in processes whose memory differs (%(default)s)",
    )
    parser.add_argument("--isolation", choices=("none", "process"), default="none")
    parser.add_argument(
        "--repeat", type=int, metavar="SEED", help="ask for this one alone, here, and say all"
    )
    parser.add_argument("--keep", type=Path, help="with --repeat: keep the damaged file there")
    return parser.parse_args()


def _effort(options: argparse.Namespace) -> Effort:
    return Effort(options.requests, options.seconds, options.isolation, options.about)


async def _repeat(root: Path, options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO)
    is_about_values = options.about == "values"
    known = stream_sources(root) if is_about_values else sources(root)
    found = mutant(known, options.repeat, sound_first=is_about_values)
    print(found)
    for file in filter(None, (root / name_of(found.seed), options.keep)):
        file.write_bytes(found.content)
    effort = _effort(options)
    asker = Asker(service(root, effort), root, known, effort, _show)
    async with asker.running():
        await asker.ask_about(found)


def _show(**what: Any) -> None:
    print(orjson.dumps(what, default=str).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
