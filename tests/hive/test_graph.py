"""Start order, as a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.hive import ComponentError, GraphNode, Metadata, format_graph, format_mermaid
from asgihive.hive.graph import sort_components


def component(key: str, *requires: str, kind: Any = "cornerstone") -> Metadata:
    container, _, name = key.rpartition(".")
    return Metadata(
        kind=kind,
        container=container,
        name=name,
        module=key,
        file=f"/srv/{container}/{name}.py",
        requires=requires,
    )


def endpoint(key: str, *requires: str) -> Metadata:
    return component(key, *requires, kind="endpoint")


def order(*components: Metadata) -> list[str]:
    return [each.key for each in sort_components(components)]


def refusal(*components: Metadata) -> str:
    with pytest.raises(ComponentError) as raised:
        sort_components(components)
    return str(raised.value)


def test_by_name_cornerstones_first() -> None:
    names = (endpoint("e.a"), component("z.b"), component("a.c"), endpoint("d.a"))
    assert order(*names) == ["z.b", "a.c", "d.a", "e.a"]


def test_what_is_required_comes_first() -> None:
    assert order(component("c.a", "z"), component("c.b"), component("c.z")) == ["c.b", "c.z", "c.a"]
    assert order(endpoint("e.a", "e.b", "c.db"), endpoint("e.b"), component("c.db")) == [
        "c.db",
        "e.b",
        "e.a",
    ]


def test_a_name_means_the_own_container_before_others() -> None:
    found = sort_components([component("x.a", "db"), component("x.db"), component("y.db")])
    assert found[-1].requires == ("x.db",) or found[1].requires == ("x.db",)
    message = refusal(component("z.a", "db"), component("x.db"), component("y.db"))
    assert "may be x.db, y.db" in message


@pytest.mark.parametrize(
    ("components", "words"),
    [
        (
            (component("c.db"), component("c.a", "dbb")),
            ("c.a (/srv/c/a.py)", "'dbb'", "did you mean db?", "c.db, db"),
        ),
        ((component("c.a", "x"),), ("there is nothing else",)),
        ((endpoint("e.a", "auth"), component("c.auth")), ("did you mean c.auth?",)),
        ((component("c.a", "e.b"), endpoint("e.b")), ("starts before the endpoints", "e/b.py")),
        ((component("c.a", "a"),), ("c.a → c.a",)),
        (
            (component("c.x", "a"), component("c.a", "b"), component("c.b", "a")),
            ("c.a → c.b → c.a", "/srv/c/b.py"),
        ),
        ((component("c.a"), component("c.a")), ("another component of this name", "cornerstone")),
        (
            (component("c.a"), endpoint("c.a")),
            ("another component of this name", "the cornerstone"),
        ),
    ],
)
def test_what_cannot_be_ordered(components: Any, words: tuple[str, ...]) -> None:
    message = refusal(*components)
    for each in words:
        assert each in message


@given(st.permutations(range(8)), st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7))))
def test_the_smallest_order_that_respects_every_requirement(
    numbers: list[int], pairs: set[tuple[int, int]]
) -> None:
    """Whatever the order in which components are found."""
    needs: dict[int, set[int]] = {number: set() for number in numbers}
    for one, other in pairs:
        if one != other:
            needs[max(one, other)].add(min(one, other))
    rename = {number: numbers.index(number) for number in numbers}
    components = [
        component(f"c.n{rename[number]}", *(f"n{rename[each]}" for each in needs[number]))
        for number in numbers
    ]
    expected: list[str] = []
    while len(expected) < len(components):
        ready = [
            each.name
            for each in components
            if each.name not in expected and set(each.requires) <= set(expected)
        ]
        expected.append(min(ready))
    assert order(*components) == [f"c.{name}" for name in expected]


NODES = (
    GraphNode(0, "cornerstone", "c.db", "/srv/c/db.py", ()),
    GraphNode(1, "endpoint", 'e.no"tes', "/srv/e/notes.py", ("c.db",)),
)


def test_as_text() -> None:
    assert format_graph("main:app", NODES).splitlines() == [
        "main:app: starts from top to bottom, stops from bottom to top",
        "",
        "cornerstones",
        "  1. c.db                     /srv/c/db.py",
        "",
        "endpoints",
        '  2. e.no"tes  requires c.db  /srv/e/notes.py',
    ]
    assert format_graph("main:app", ()) == "main:app: no components"


def test_as_mermaid() -> None:
    assert format_mermaid(NODES).splitlines() == [
        "flowchart LR",
        "    subgraph cornerstones",
        '        n0["c.db"]',
        "    end",
        "    subgraph endpoints",
        '        n1["e.no#quot;tes"]',
        "    end",
        "    n0 --> n1",
    ]
