"""Runs one question: data, servers, verification, then turns A B A B …"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.data import DataFolder
from benchmarks.load import Load
from benchmarks.question import Question, Turn
from benchmarks.servers import CEILING, Server, running
from benchmarks.table import Row


@dataclass(frozen=True, slots=True)
class Effort:
    """How often and how long a question is measured; heavy questions take fewer turns."""

    turns: int
    heavy_turns: int
    seconds: int


FULL = Effort(turns=5, heavy_turns=3, seconds=3)
QUICK = Effort(turns=2, heavy_turns=1, seconds=1)


def run_question(
    question: Question, names: Sequence[str], data: DataFolder, load: Load, effort: Effort
) -> list[Row]:
    """One row for each figure of the question.

    Of the question's servers those in `names` are measured. They are started anew for each
    question, so that none meets the memory, the caches or the settings of another.

    Raises:
        BenchmarkError: a server failed or answered wrongly.
    """
    question.prepare(data)
    launches = {name: each for name, each in question.servers.items() if name in names}
    with running(launches, data.root, question.environment) as servers:
        question.verify([server for server in servers if server.name != CEILING])
        turns = effort.heavy_turns if question.heavy else effort.turns
        measured = [
            (server.name, question.measure(server, Turn(load, effort.seconds, turn)))
            for turn in range(turns)
            for server in _alternating(servers, turn)
        ]
    return [
        Row(
            question.name,
            figure,
            {
                name: [
                    values[figure.name]
                    for server, values in measured
                    if server == name and figure.name in values
                ]
                for name in launches
            },
        )
        for figure in question.figures
    ]


def _alternating(servers: Sequence[Server], turn: int) -> Sequence[Server]:
    # A B, then B A: what drifts with time meets both alike.
    return servers if turn % 2 == 0 else servers[::-1]
