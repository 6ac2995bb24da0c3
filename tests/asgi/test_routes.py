"""Path templates and the table that finds them, against the rules they state."""

import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path as get_starlette_path

from asgihive.asgi.router import get_route_path
from asgihive.asgi.routes import PathParameter, RouteTable, parse_template

segment = st.text(st.characters(exclude_characters="/{}", exclude_categories=["Cs"]), min_size=1)
static_path = st.lists(segment, max_size=4).map(lambda each: "/" + "/".join(each))


def table(*templates: str) -> RouteTable[str]:
    made: RouteTable[str] = RouteTable()
    for template in templates:
        made.add([parse_template(template)], ["GET"], template)
    return made


def found(made: RouteTable[str], path: str) -> tuple[str, tuple[Any, ...]] | None:
    return made.find(path, "GET")


@given(st.sets(static_path, max_size=8), static_path)
def test_a_static_path_is_found_iff_it_is_registered(paths: set[str], other: str) -> None:
    made = table(*paths)
    for path in paths:
        assert found(made, path) == (path, ())
    assert (found(made, other) is not None) == (other in paths)


@given(st.sets(static_path, max_size=8), static_path)
def test_static_paths_next_to_parameters_win(paths: set[str], other: str) -> None:
    made = table("/{anything:path}", "/{one}", *paths)
    for path in paths:
        assert found(made, path) == (path, ())
    assert found(made, other) is not None


@given(st.integers())
def test_integers_come_back(number: int) -> None:
    assert found(table("/n/{number:int}/end"), f"/n/{number}/end") == (
        "/n/{number:int}/end",
        (number,),
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert found(table("/{number:float}"), f"/{number!r}") == ("/{number:float}", (number,))


@given(st.uuids())
def test_uuids_come_back(value: UUID) -> None:
    for text in (str(value), str(value).upper()):
        assert found(table("/{id:uuid}"), f"/{text}") == ("/{id:uuid}", (value,))


@given(segment, st.text())
def test_text_is_one_segment_and_path_the_rest(one: str, rest: str) -> None:
    assert found(table("/{one}"), f"/{one}") == ("/{one}", (one,))
    assert found(table("/{one}"), f"/{one}/") is None
    assert found(table("/{one}/{rest:path}"), f"/{one}/{rest}") == (
        "/{one}/{rest:path}",
        (one, rest),
    )


@given(st.text(st.sampled_from("/abh5")).map("/".__add__))
def test_nothing_matches_outside_of_its_prefix(path: str) -> None:
    made = table("/h5/{rest:path}", "/a/{one}/b")
    match found(made, path):
        case ("/h5/{rest:path}", (rest,)):
            assert path == f"/h5/{rest}"
        case ("/a/{one}/b", (one,)):
            assert path == f"/a/{one}/b"
            assert one
            assert "/" not in one
        case other:
            assert other is None
            assert not path.startswith("/h5/")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x/7", "/x/{a:int}"),
        ("/x/7.5", "/x/{a:float}"),
        ("/x/7e400", "/x/{a}"),  # no finite float
        ("/x/\N{ARABIC-INDIC DIGIT SEVEN}", "/x/{a}"),  # a digit, but not of ASCII
        ("/x/12345678-1234-1234-1234-123456789abc", "/x/{a:uuid}"),
        ("/x/seven", "/x/{a}"),
        ("/x/me", "/x/me"),
        ("/x/7/up", "/x/{a:int}/up"),
        ("/x/7/down", "/x/{a}/down"),  # backtracks from int
        ("/x/7/away", "/x/{a:path}"),  # backtracks from both
        ("/x/", "/x/{a:path}"),
        ("/x", None),
        ("x/7", None),
        ("", None),
        ("*", None),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_narrowest_template_wins_in_any_order_of_registration(
    path: str, expected: str | None, order: int
) -> None:
    templates = ["/x/{a:path}", "/x/{a}", "/x/{a:float}", "/x/{a:int}", "/x/{a:uuid}", "/x/me"]
    templates += ["/x/{a:int}/up", "/x/{a}/down"]
    match = found(table(*templates[::order]), path)
    assert (match and match[0]) == expected


def test_a_candidate_without_the_method_is_passed_over() -> None:
    made: RouteTable[str] = RouteTable()
    made.add([parse_template("/items/new")], ["GET"], "form")
    made.add([parse_template("/items/{id}")], ["POST"], "change")
    assert made.find("/items/new", "GET") == ("form", ())
    assert made.find("/items/new", "HEAD") == ("form", ())
    assert made.find("/items/new", "POST") == ("change", ("new",))
    assert made.find("/items/new", "PUT") is None
    assert made.list_methods("/items/new") == ["GET", "HEAD", "POST"]
    assert made.list_methods("/nothing") == []


def test_a_conflict_names_both_and_registers_nothing() -> None:
    made = table("/x/{a:int}")
    with pytest.raises(ValueError, match=r"^second answers the same requests as /x/\{a:int\}$"):
        made.add([parse_template("/y"), parse_template("/x/{b:int}")], ["POST", "GET"], "second")
    assert made.list_methods("/y") == []
    assert made.find("/x/1", "POST") is None


@pytest.mark.parametrize(
    "template",
    ["", "x", "/{a}.json", "/{a", "/a}", "/{}", "/{1}", "/{a:number}", "/{a}/{a}", "/{a:path}/b"],
)
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_template(template)


def test_templates_are_parsed() -> None:
    assert parse_template("/") == ("",)
    assert parse_template("/a/{b}/{c:int}/") == (
        "a",
        PathParameter("b", "str"),
        PathParameter("c", "int"),
        "",
    )


@given(st.text(st.sampled_from("/ab")), st.text(st.sampled_from("/ab")))
def test_route_path_is_that_of_starlette(root_path: str, rest: str) -> None:
    for path in (root_path + rest, rest):
        scope = {"path": path, "root_path": root_path}
        assert get_route_path(scope) == get_starlette_path(scope)
    assert get_route_path({"path": rest}) == rest


def test_an_integer_too_long_to_convert_is_text() -> None:
    assert found(table("/{n:int}", "/{n:float}"), "/" + "9" * 10_000) is None
    assert not math.isfinite(float("9" * 640))
