"""What registration says of a handler that no request can satisfy: who, where, and what helps."""

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import msgspec
import numpy.typing as npt
import pytest
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.websockets import WebSocket

from asgihive.asgi import (
    Body,
    Cookie,
    Depends,
    Form,
    Header,
    Query,
    Router,
    find_location,
    find_name,
)
from asgihive.asgi.signatures import HandlerError


class Note(msgspec.Struct):
    title: str


class Foreign:
    pass


class WithForeign(msgspec.Struct):
    inner: list[Foreign]


class OwnRequest(Request):
    pass


def _handler(annotation: Any, default: Any = inspect.Parameter.empty) -> Callable[..., Any]:
    async def handler(**given: Any) -> None: ...

    parameter = inspect.Parameter(
        "x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
    handler.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return handler


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (inspect.Parameter.empty, "it has no annotation; accepted are path, query, .*Depends"),
        (Foreign, "values of .*Foreign.* cannot be read from a request"),
        (WithForeign, "values of .*Foreign.* cannot be read from a request"),
        (npt.NDArray[Any], "values of .*ndarray.* cannot be read from a request"),
        (Any, "is not scalar; accepted are"),
        (Annotated[list[Note], Query()], "is not scalar; accepted are"),
        (Annotated[Note | None, Header()], "is not scalar"),
        (Annotated[list[int], Cookie()], "a cookie has one value"),
        (Annotated[int, Query(), Header()], "only one of"),
        (Annotated[int, Header], "call the marker"),
        (OwnRequest, "no request gives a OwnRequest; accepted are Request"),
        (WebSocket, "an HTTP request has no WebSocket; HTTPConnection stands for both"),
    ],
)
def test_parameters_that_no_request_can_give(annotation: Any, reason: str) -> None:
    handler = _handler(annotation)
    with pytest.raises(HandlerError, match=reason) as caught:
        Router().get("/")(handler)
    assert caught.value.parameter == "x"
    assert re.match(
        r"_handler\.<locals>\.handler \(.*test_signature\.py:\d+\), parameter 'x': ",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Note, "a websocket's handshake has no body"),
        (Request, "a websocket has no Request"),
        (BackgroundTasks, "a websocket has no BackgroundTasks"),
    ],
)
def test_parameters_that_no_websocket_can_give(annotation: Any, reason: str) -> None:
    with pytest.raises(HandlerError, match=reason):
        Router().websocket("/")(_handler(annotation))


_OBJECT_AS_EXAMPLE = msgspec.Meta(examples=[object()])


class WithExample(msgspec.Struct):
    size: Annotated[int, _OBJECT_AS_EXAMPLE]


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (Annotated[int, _OBJECT_AS_EXAMPLE], ""),
        (list[Annotated[int, _OBJECT_AS_EXAMPLE]], ""),
        (Annotated[int, msgspec.Meta(extra_json_schema={"x": object()})], ""),
        (WithExample, " of the field 'size' of WithExample"),
        (dict[str, list[WithExample]], " of the field 'size' of WithExample"),
    ],
)
def test_examples_that_json_cannot_say(annotation: Any, place: str) -> None:
    """They broke the OpenAPI document, when somebody asked for it."""
    reason = rf"=.*<object object at \w+>.*{place} cannot be written as JSON"
    with pytest.raises(HandlerError, match=rf"parameter 'x': .*{reason}"):
        Router().post("/")(_handler(Annotated[annotation, Body()]))

    async def handler() -> Any: ...

    handler.__annotations__["return"] = annotation
    with pytest.raises(HandlerError, match=reason):
        Router().get("/")(handler)


@pytest.mark.parametrize("marker", [Query, Header, Cookie, Form])
def test_two_parameters_of_one_field(marker: Any) -> None:
    async def handler(
        first: Annotated[int, marker("field-x")], second: Annotated[str, marker("field-x")] = "y"
    ) -> None: ...

    with pytest.raises(HandlerError, match=r"reads the .* parameter 'field-x', as 'first' does"):
        Router().post("/")(handler)


def test_a_handler_and_its_guard_may_read_one_field() -> None:
    async def guard(token: Annotated[str, Header("x-token")]) -> None: ...

    async def handler(
        token: Annotated[str, Header("x-token")], query: Annotated[str, Query("x-token")]
    ) -> None: ...

    Router(dependencies=[Depends(guard)]).get("/")(handler)


@pytest.mark.parametrize(
    ("path", "annotation"),
    [("/{x:int}", str), ("/{x:float}", int), ("/{x:uuid}", int), ("/{x}", Note), ("/{x}", Foreign)],
)
def test_path_parameters_that_never_fit(path: str, annotation: Any) -> None:
    with pytest.raises(HandlerError, match=r"convertor|scalar|cannot be read"):
        Router().get(path)(_handler(annotation))


def test_markers_are_no_defaults() -> None:
    with pytest.raises(HandlerError, match=r"write Annotated\[…, Header\(\)\]"):
        Router().get("/")(_handler(str, Header()))


@pytest.mark.parametrize("marker", [Query, Header, Cookie, Form])
def test_markers_take_a_name_alone(marker: Any) -> None:
    assert marker("x") == marker(name="x") != marker()
    reason = rf"{marker.__name__}\(ge=…, alias=…\): only a name is accepted.*Meta\(ge=1\)"
    with pytest.raises(TypeError, match=reason):
        marker(ge=1, alias="x")
    with pytest.raises(TypeError, match="a name is accepted; the default follows Annotated"):
        marker(10)


def test_a_second_body_is_refused_wherever_it_is() -> None:
    async def dependency(note: Note) -> None: ...

    async def handler(other: dict[str, int], x: None = Depends(dependency)) -> None: ...

    with pytest.raises(HandlerError, match="the parameter 'other' is the body already"):
        Router().post("/")(handler)
    router = Router(dependencies=[dependency])
    with pytest.raises(HandlerError, match="belongs to the application"):
        router.mount("/x", Router())


def test_circles_are_named() -> None:
    async def first(x: int = 0) -> None: ...

    async def second(x: None = Depends(first)) -> None: ...

    first.__signature__ = inspect.signature(second).replace(  # type: ignore[attr-defined]
        parameters=[
            inspect.Parameter(
                "y", inspect.Parameter.KEYWORD_ONLY, annotation=None, default=Depends(second)
            )
        ]
    )
    with pytest.raises(HandlerError, match=r"depends on itself: .*second → .*first → .*second"):
        Router().get("/", dependencies=[second])(_handler(int))


def test_open_signatures_and_unknown_names_are_refused() -> None:
    async def open_ended(**anything: int) -> None: ...

    async def unknown(x: "NoSuchName") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(HandlerError, match=r"parameter '\*\*anything: int': its name says nothing"):
        Router().get("/")(open_ended)
    with pytest.raises(HandlerError, match="'NoSuchName' is not defined: annotations must be"):
        Router().get("/")(unknown)


def test_websocket_handlers_are_coroutines() -> None:
    def handler(socket: WebSocket) -> None: ...

    with pytest.raises(HandlerError, match="`async def`"):
        Router().websocket("/")(handler)


def test_options_are_checked() -> None:
    router = Router()
    with pytest.raises(TypeError, match="No such option: tag; accepted are tags, status, summary"):
        router.get("/", tag="x")(_handler(int))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="for response_model write the return annotation"):
        router.get("/", response_model=int)(_handler(int))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="one text"):
        router.get("/", tags="notes")(_handler(int))
    with pytest.raises(TypeError, match="neither Depends"):
        router.get("/", dependencies=["guard"])(_handler(int))
    with pytest.raises(TypeError, match="a function or a class"):
        Depends(5)  # type: ignore[arg-type]
    assert router.registered == ()


async def _named(x: int) -> AsyncIterator[int]:
    yield x


class _Callable:
    async def __call__(self, x: int) -> None: ...


def test_handlers_are_named_and_found() -> None:
    line = _named.__code__.co_firstlineno
    for each in (_named, functools.partial(_named, x=1), functools.wraps(_named)(lambda: None)):
        assert find_name(each) == "_named"
        assert find_location(each) == f"{__file__}:{line}"
    assert find_name(_Callable()) == "_Callable"
    assert find_location(_Callable()).startswith(f"{__file__}:")
    assert find_location(Body).startswith("asgihive.asgi.markers")
    assert find_location(len) == "builtins"


def test_one_body_may_be_marked() -> None:
    async def handler(x: Annotated[int, Body()]) -> None: ...

    assert Router().post("/")(handler) is handler
