"""`python -m benchmarks`: asgihive beside its peers, same requests, same machine."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.chart import draw_chart
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder
from benchmarks.load import CONNECTIONS, choose_load
from benchmarks.machine import describe
from benchmarks.peers import missing
from benchmarks.questions import QUESTIONS
from benchmarks.run import FULL, QUICK, run_question
from benchmarks.table import Row, render

# In the order in which the questions first name them.
SERVERS = tuple(dict.fromkeys(name for question in QUESTIONS for name in question.servers))


def main() -> int:
    options = _options()
    if options.chart:
        _draw(options.chart)
        return 0
    # So that `kill` unwinds as Ctrl-C does and every server is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    load = choose_load()
    effort = QUICK if options.quick else FULL
    chosen = [each for each in QUESTIONS if not options.only or each.name in options.only]
    asked = [question for question in chosen if effort.takes(question)]
    names = {name for question in asked for name in question.servers}
    absent = {name: why for name, why in missing().items() if name in names}
    servers = [name for name in options.servers if name not in absent]
    skipped = _skipped(absent, [each.name for each in chosen if not effort.takes(each)])
    for line in skipped:
        print(line, file=sys.stderr)
    rows: list[Row] = []
    ended = ""
    try:
        with _data_folder(options.data) as data:
            for question in asked:
                print(f"{question.name}: {question.asks}", file=sys.stderr, flush=True)
                rows += run_question(question, servers, data, load, effort)
    except (BenchmarkError, OSError) as error:
        # What was measured before that took long, and is true.
        ended = f"Ended by {question.name}: {error}"
        print(ended, file=sys.stderr)
        skipped = [*skipped, ended]
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    about = describe(load.name, CONNECTIONS)
    report = "\n\n".join([_markdown(rows, about, options.quick), *skipped])
    print(report)
    _save(options.out, report, _record(rows, about, options.quick, skipped))
    if options.record:
        results.record(rows, _machine(about), [question.name for question in QUESTIONS])
    return 1 if ended else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [question.name for question in QUESTIONS]
    parser.add_argument("--quick", action="store_true", help="short turns: about one minute")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="QUESTION", help=f"of {', '.join(names)}"
    )
    parser.add_argument(
        "--servers", nargs="+", choices=SERVERS, default=SERVERS, help="default: all of them"
    )
    parser.add_argument("--data", type=Path, help="keep the data here and reuse it")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(tempfile.gettempdir(), "asgihive-benchmarks"),
        help="where the table and its JSON are saved (%(default)s)",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="put the rows into benchmarks/RESULTS.md too, in place of the same questions' rows",
    )
    parser.add_argument(
        "--chart",
        type=Path,
        metavar="SVG",
        help="measure nothing; draw what README shows of benchmarks/RESULTS.md, and make "
        "README's table anew from it",
    )
    options = parser.parse_args()
    if options.record and options.quick:
        parser.error("a quick run is too short to be recorded")
    return options


def _draw(chart: Path) -> None:
    table = results.parse_table(results.RESULTS.read_text(encoding="utf-8"))
    chart.write_text(draw_chart(results.list_headlines(table)), encoding="utf-8")
    readme = results.README.read_text(encoding="utf-8")
    results.README.write_text(results.replace_headlines(readme, table), encoding="utf-8")


def _skipped(absent: Mapping[str, str], heavy: Sequence[str]) -> Sequence[str]:
    """Return a line for each peer that is not here, and one for the questions that are left out."""
    lines = [f"Skipped: {name}: {why}." for name, why in absent.items()]
    if heavy:
        lines.append(f"Left out of a quick run: {', '.join(heavy)}.")
    return lines


@contextmanager
def _data_folder(kept: Path | None) -> Iterator[DataFolder]:
    if kept is not None:
        yield DataFolder(kept.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="asgihive-data-") as folder:
        yield DataFolder(Path(folder))


def _markdown(rows: Sequence[Row], about: Mapping[str, str], quick: bool) -> str:
    kind = "Quick run, turns too short to be quoted. " if quick else ""
    return f"{render(rows)}\n\n{kind}{_machine(about)}"


def _machine(about: Mapping[str, str]) -> str:
    return (
        f"{about['machine']}; {about['python']}; {about['packages']}; "
        f"HDF5 {about['hdf5']}; load: {about['load']}. One uvicorn worker each."
    )


def _record(
    rows: Sequence[Row], about: Mapping[str, str], quick: bool, skipped: Sequence[str]
) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        **about,
        "skipped": list(skipped),
        "rows": [
            {
                "question": row.question,
                "figure": row.figure.name,
                "unit": row.figure.unit,
                "better": row.figure.better,
                "peer": row.figure.peer,
                "values": {server: row.value(server) for server in row.turns},
                "turns": row.turns,
                "ratio": row.ratio,
                "met": row.met,
            }
            for row in rows
        ],
    }


def _save(folder: Path, report: str, record: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(report + "\n", encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\nsaved in {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
