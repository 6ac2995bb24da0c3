"""Runs one question: data, servers, verification, then turns A B A B …"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.data import DataFolder
from benchmarks.load import Load
from benchmarks.question import Figure, Question, Turn
from benchmarks.servers import CEILING, Server, running
from benchmarks.table import Row, compute_serial_ceiling


@dataclass(frozen=True, slots=True)
class Effort:
    """How often and how long a question is measured; heavy questions take fewer turns."""

    turns: int
    heavy_turns: int
    seconds: int

    def takes(self, question: Question) -> bool:
        return self._turns(question) > 0

    def list_turns(self, question: Question, load: Load) -> Sequence[Turn]:
        """Return the turns of each server; the first also probes, where that is not too long."""
        probe = self.heavy_turns > 0
        return [
            Turn(load, self.seconds, number, probe=probe and number == 0)
            for number in range(self._turns(question))
        ]

    def _turns(self, question: Question) -> int:
        return self.heavy_turns if question.heavy else self.turns


FULL = Effort(turns=5, heavy_turns=3, seconds=3)
QUICK = Effort(turns=1, heavy_turns=0, seconds=1)


def run_question(
    question: Question, names: Sequence[str], data: DataFolder, load: Load, effort: Effort
) -> list[Row]:
    """Return one row for each figure of the question that was measured.

    Of the question's servers those in `names` are measured. They are started anew for each
    question, so that none meets the memory, the caches or the settings of another.

    Raises:
        BenchmarkError: a server failed or answered wrongly.
    """
    question.prepare(data)
    launches = {name: each for name, each in question.servers.items() if name in names}
    with running(launches, data.root, question.environment) as servers:
        question.verify([server for server in servers if server.name != CEILING])
        measured = [
            (server.name, question.measure(server, turn))
            for turn in effort.list_turns(question, load)
            for server in _alternating(servers, turn.number)
        ]
    rows = []
    for figure in list_shown(question.figures, launches):
        turns = {
            name: [
                values[figure.name]
                for server, values in measured
                if server == name and figure.name in values
            ]
            for name in launches
        }
        if figure.stages:
            turns[figure.peer] = list(compute_serial_ceiling(figure.stages, turns))
        if any(turns.values()):
            rows.append(Row(question.name, figure, turns))
    return rows


def list_shown(figures: Sequence[Figure], names: Container[str]) -> Iterator[Figure]:
    """Return the figures whose peer was there; one of each name where no peer was."""

    def has_peer(figure: Figure) -> bool:
        if figure.stages:
            return all(any(name in names for name in stage) for stage in figure.stages)
        return figure.peer in names

    with_peer = {figure.name for figure in figures if has_peer(figure)}
    alone: set[str] = set()
    for figure in figures:
        if has_peer(figure):
            yield figure
        elif figure.name not in with_peer | alone:
            alone.add(figure.name)
            yield figure


def _alternating(servers: Sequence[Server], turn: int) -> Sequence[Server]:
    # A B, then B A: what drifts with time meets both alike.
    return servers if turn % 2 == 0 else servers[::-1]
