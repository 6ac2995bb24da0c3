"""The model of what a load needs: by hand, and out of the table that is kept."""

import pytest

from benchmarks.model import BYTES, MIB, REPLICA_MIB, Cost, estimate, list_costs
from benchmarks.results import RESULTS, parse_table


def test_costs_are_of_the_rates() -> None:
    rows = [
        {"question": "data_4m", "figure": "requests", "asgihive": "233/s"},
        {"question": "data_4m", "figure": "first, one client", "asgihive": "4.61 ms"},
        {"question": "meta_small", "figure": "requests", "asgihive": "5,000/s"},
        {"question": "data_16k", "figure": "requests", "asgihive": "4,000/s"},
        {"question": "json_1m", "figure": "requests", "asgihive": "11.9/s"},
    ]
    small, _, large = list_costs(rows)
    assert (small.question, large.question) == ("meta_small", "data_4m")
    assert small.seconds == pytest.approx(0.0004)
    assert small.python_seconds == pytest.approx(0.0002)
    assert large.seconds == pytest.approx(2 / 233)
    assert large.python_seconds == pytest.approx(0.00025)
    assert large.bytes == 4 * MIB


def test_every_kind_has_a_row() -> None:
    costs = list_costs(parse_table(RESULTS.read_text(encoding="utf-8")))
    assert [each.question for each in costs] == list(BYTES)


@pytest.mark.parametrize(
    ("requests", "hits", "cores", "busy", "replicas"),
    [
        (500, 0.0, 4, 5.0, 2),  # 5 / (0.7 * 4) = 1.8
        (500, 0.8, 4, 1.0, 1),
        (5000, 0.0, 4, 50.0, 18),  # 17.9
        (500, 1.0, 1, 0.0, 1),
    ],
)
def test_what_a_load_needs(
    requests: float, hits: float, cores: int, busy: float, replicas: int
) -> None:
    need = estimate(Cost("frames", 0.01, 2 * MIB, 0.0002), requests, hits, cores)
    assert need.cores == pytest.approx(busy)
    assert need.replicas == replicas
    assert need.memory == replicas * REPLICA_MIB
    assert need.outer == requests * 2 * MIB
    assert need.inner == pytest.approx(need.outer * (1 - hits))


def test_python_has_one_core_in_each_process() -> None:
    small = Cost("small", 0.0004, 4096, 0.0002)
    assert estimate(small, 10_000, 0.0, 64).replicas == 3  # 2 / 0.7 = 2.9
