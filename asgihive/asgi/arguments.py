"""A request → the arguments of a handler: path, query, headers, cookies, and the bounded body."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.cookies import CookieError
from typing import Any

import msgspec
from starlette.background import BackgroundTasks
from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi.errors import (
    HTTPException,
    Problem,
    ProblemsFound,
    clip_text,
    parse_msgspec_message,
)
from asgihive.asgi.forms import FormReader, check_announced_size, take_chunk
from asgihive.asgi.request_fields import find_header, parse_query
from asgihive.asgi.shapes import MISSING, is_model, list_accepted_values, needs_pydantic
from asgihive.asgi.signatures import Argument, ArgumentSource, FieldsOf, Signature
from asgihive.concurrency import run_in_worker
from asgihive.errors import BadParameter

Decode = Callable[[bytes], Any]

JSON = "application/json"
MSGPACK = "application/msgpack"
MSGPACK_TYPES = (MSGPACK, "application/vnd.msgpack", "application/x-msgpack")

INLINE_BYTES = 1 << 16
"""A longer body is decoded in a worker thread."""

# msgspec says this of a text that is no number; it only repeats that a parameter is a text.
_GOT_TEXT = ", got `str`"


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads and decodes the bodies of one handler."""

    max_bytes: int
    decoders: dict[str, Decode] | None = field(repr=False)
    """By media type; None if the body is taken as it is."""

    def find_decoder(self, content_type: str) -> Decode | None:
        """Return what decodes a body; None if nothing has to. No Content-Type means JSON.

        A subtype with the suffix `+json` (RFC 6839) is JSON.

        Raises:
            HTTPException: 415 (RFC 9110 §15.5.16), which says what is accepted.
        """
        if self.decoders is None:
            return None
        media_type = content_type.partition(";")[0].strip().lower() or JSON
        decode = self.decoders.get(JSON if media_type.endswith("+json") else media_type)
        if decode is None:
            accepted = f"{JSON}, {MSGPACK}"
            message = f"The Content-Type {media_type[:100]!r} is not accepted: use {accepted}"
            raise HTTPException(415, message, {"accept": accepted})
        return decode

    async def read(self, receive: Receive, content_length: str | None) -> bytes:
        """Return the whole body.

        Raises:
            HTTPException: 413, the body is longer than `max_bytes`.
            ClientDisconnect: the client is gone before the end.
        """
        check_announced_size(content_length, self.max_bytes, "body")
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            chunk = take_chunk(message, size, self.max_bytes, "body")
            size += len(chunk)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def make_body_reader(annotation: Any, max_bytes: int) -> BodyReader:
    """Return a reader of bodies of a type; `bytes` are taken as they are, of any Content-Type."""
    if annotation is bytes:
        return BodyReader(max_bytes, None)
    from_json: Decode
    from_msgpack: Decode
    if needs_pydantic(annotation):
        adapter = sys.modules["pydantic"].TypeAdapter(annotation)
        from_json = partial(_validate, adapter.validate_json)
        from_msgpack = partial(_validate, adapter.validate_python, decode=msgspec.msgpack.decode)
    else:
        from_json = msgspec.json.Decoder(annotation).decode
        from_msgpack = msgspec.msgpack.Decoder(annotation).decode
    return BodyReader(max_bytes, {JSON: from_json, **dict.fromkeys(MSGPACK_TYPES, from_msgpack)})


def decode_body(decode: Decode, raw: bytes) -> Any:
    """Return the value of a body.

    Raises:
        ProblemsFound: malformed, or of another type.
    """
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise ProblemsFound([parse_msgspec_message(str(error))]) from None
    except UnicodeDecodeError:
        raise ProblemsFound([Problem((), "it has text that is not UTF-8")]) from None
    except RecursionError:
        raise ProblemsFound([Problem((), "it is nested too deeply")]) from None


def _validate(validate: Callable[[Any], Any], raw: bytes, decode: Decode | None = None) -> Any:
    """Return the model of `pydantic` that `validate` makes of a body; raises `ProblemsFound`."""
    value = raw if decode is None else decode(raw)
    return run_validation(validate, value)


def run_validation(validate: Callable[[Any], Any], value: Any) -> Any:
    """Return what `pydantic` makes of a value; raises `ProblemsFound`."""
    try:
        return validate(value)
    except sys.modules["pydantic"].ValidationError as error:
        problems = []
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            # A key of a mapping is the client's own text.
            where = (clip_text(step) if isinstance(step, str) else step for step in each["loc"])
            problems.append(Problem(tuple(where), clip_text(each["msg"])))
        raise ProblemsFound(problems) from None


class Call:
    """One request while it is answered: what was read of it, and the results of dependencies."""

    __slots__ = (
        "_connection",
        "_fields",
        "_replayed",
        "background",
        "form",
        "problems",
        "receive",
        "response",
        "results",
        "scope",
        "send",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.problems: list[Problem] = []
        self.results: list[Any] = []
        """Of the dependencies, in the order of their calls."""
        self.background: BackgroundTasks | None = None
        self.form: FormData | None = None
        self.response: Response | None = None
        """What a handler or dependency says about headers and status."""
        self._connection: HTTPConnection | None = None
        self._fields: dict[str, list[str]] | None = None
        self._replayed: bytes | None = None

    def get_fields(self) -> dict[str, list[str]]:
        """Return the fields of the query string."""
        if self._fields is None:
            try:
                self._fields = parse_query(self.scope["query_string"])
            except BadParameter as error:
                raise HTTPException(422, str(error)) from None
        return self._fields

    def get_cookie(self, name: str) -> str | None:
        """Return a cookie, of all `Cookie` headers; None if there is none, or they are broken."""
        try:
            value: str | None = self.get_connection().cookies.get(name)
        except CookieError:
            return None
        return value

    def get_connection(self) -> Any:
        """Return the `Request` or `WebSocket` of the call; its body can still be read."""
        if self._connection is None:
            if self.scope["type"] == "websocket":
                self._connection = WebSocket(self.scope, self.receive, self.send)
            else:
                self._connection = Request(self.scope, self._receive_again, self.send)
                self._share_form()
        return self._connection

    def get_background_tasks(self) -> BackgroundTasks:
        """Return the tasks that run after the response."""
        if self.background is None:
            self.background = BackgroundTasks()
        return self.background

    def get_response(self, status: int) -> Response:
        """Return the response whose headers and status go into the answer."""
        if self.response is None:
            self.response = Response(status_code=status)
            del self.response.headers["content-length"]
        return self.response

    async def read_form(self, reader: FormReader) -> None:
        """Read the form, once; raises as `FormReader` says."""
        if self.form is None:
            self.form = await reader.read(self.scope, self.receive)
            self._share_form()

    def _share_form(self) -> None:
        """Let `request.form()` return the form that was read, and not wait for another one."""
        if self.form is not None and isinstance(self._connection, Request):
            self._connection._form = self.form  # noqa: SLF001  # where Starlette keeps it

    def list_values(self, source: str) -> dict[str, list[Any]]:
        """Return the values by name of the query or of the form."""
        if source != ArgumentSource.FORM.value or self.form is None:
            return self.get_fields()
        return {name: self.form.getlist(name) for name in self.form}

    async def read_body(self, argument: Argument, reader: BodyReader) -> Any:
        """Return the decoded body, or the argument's default if there is none.

        Raises:
            HTTPException: as `BodyReader` says.
            ClientDisconnect: the client is gone.
        """
        raw = await reader.read(self.receive, find_header(self.scope, b"content-length"))
        self._replayed = raw
        if not raw and not argument.required:
            return argument.copy_default()
        if reader.decoders is None:
            return raw
        if not raw:
            message = f"it is missing; {JSON} and {MSGPACK} are accepted"
            self.problems.append(Problem(("body",), message))
            return None
        decode: Any = reader.find_decoder(find_header(self.scope, b"content-type") or "")
        try:
            if len(raw) > INLINE_BYTES:
                return await run_in_worker(decode_body, decode, raw)
            return decode_body(decode, raw)
        except ProblemsFound as found:
            self.add_problems(found, ("body",))
            return None

    def add_problems(self, found: ProblemsFound, where: tuple[str | int, ...]) -> None:
        """Add the problems of a value, with the place of the value in the request."""
        self.problems.extend(
            Problem((*where, *each.where), each.message) for each in found.problems
        )

    async def _receive_again(self) -> Message:
        if self._replayed is not None:
            body, self._replayed = self._replayed, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self.receive()


Read = Callable[[Call], Any]

LEFT_OUT = object()
"""Stands for an argument that is not handed over: the class knows its default."""


def make_argument_reader(argument: Argument, status: int = 200) -> Read:
    """Return what reads an argument that is neither the body nor a dependency.

    If the request is wrong, the reader adds a problem to the call and returns None.

    Args:
        status: of the response, unless a handler says another one.
    """
    if argument.annotation is Response and argument.source is ArgumentSource.INJECTED:
        return lambda call: call.get_response(status)
    if argument.source is ArgumentSource.INJECTED:
        is_tasks = argument.annotation is BackgroundTasks
        return Call.get_background_tasks if is_tasks else Call.get_connection
    get = _make_getter(argument)
    convert = None if argument.is_raw or argument.is_file else make_converter(argument.annotation)
    where = (argument.source.value, argument.key)
    missing = Problem(where, "it is missing")
    required = argument.required

    def read(call: Call) -> Any:
        try:
            raw = get(call)
            if raw is not None:
                return raw if convert is None else convert(raw)
        except ProblemsFound as found:
            call.add_problems(found, where)
            return None
        if argument.is_left_out:
            return LEFT_OUT
        if not required:
            return argument.copy_default()
        call.problems.append(missing)
        return None

    return read


def _make_getter(argument: Argument) -> Read:
    """Return what gets the text of an argument, or the texts, or None if there is none."""
    key, many = argument.key, argument.many
    name = key.encode("latin-1", "replace")

    def get_headers(call: Call) -> Any:
        found = [value for each, value in call.scope["headers"] if each == name]
        return [each.decode("latin-1") for each in found] or None

    match argument.source:
        case ArgumentSource.PATH:
            return lambda call: call.scope["path_params"][key]
        case ArgumentSource.QUERY:
            return partial(_get_from_query, key, many)
        case ArgumentSource.FORM:
            return partial(_get_from_form, argument)
        case ArgumentSource.COOKIE:
            return lambda call: call.get_cookie(key)
        case _:
            return get_headers if many else lambda call: find_header(call.scope, name)


def _get_from_query(key: str, many: bool, call: Call) -> Any:
    values = call.get_fields().get(key)
    if values is None:
        return None
    texts = values if many else values[:1]
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # the bytes of a query may be any
                raise ProblemsFound([Problem((), "it is not UTF-8")]) from None
    return texts if many else texts[0]


def _get_from_form(argument: Argument, call: Call) -> Any:
    form: Any = call.form
    values = form.getlist(argument.key)
    if argument.is_file:  # as browsers send that no file was chosen
        values = [each for each in values if not _is_empty_file(each)]
    if any(isinstance(each, str) is argument.is_file for each in values):
        what = "text, and not a file" if argument.is_file else "a file, and not text"
        raise ProblemsFound([Problem((), f"it is {what}")])
    if not values:
        return None
    return values if argument.many else values[0]


def _is_empty_file(value: Any) -> bool:
    return isinstance(value, UploadFile) and not value.filename and not value.size


def make_converter(annotation: Any) -> Callable[[Any], Any] | None:
    """Return what makes a value of a text, a list of texts or a captured value; None = nothing.

    The rules are those of `msgspec.convert(…, strict=False)`. The converter raises
    `ProblemsFound`.
    """
    if any(annotation is each for each in (MISSING, Any, str)) or annotation == (str | None):
        return None
    if needs_pydantic(annotation):
        adapter: Any = sys.modules["pydantic"].TypeAdapter(annotation)
        return partial(run_validation, adapter.validate_python)
    # A record of one field is converted several times faster than its field alone.
    holder: Any = msgspec.defstruct("Holder", [("value", annotation)], array_like=True)
    accepted = ", ".join(map(str, list_accepted_values(annotation)))

    def convert(raw: Any) -> Any:
        try:
            return msgspec.convert((raw,), holder, strict=False).value
        except msgspec.ValidationError as error:
            problem = parse_msgspec_message(str(error))
        _, *where = problem.where
        item = raw
        for step in where:
            item = item[step]
        text = problem.message.removesuffix(_GOT_TEXT)
        if accepted:
            text = f"accepted are {clip_text(accepted)}"
        if isinstance(item, (str, int, float)):
            got = str(item)
            text += f", got {got if len(got) <= 100 else f'{got[:99]}…'!r}"
        raise ProblemsFound([Problem(tuple(where), text)])

    return convert


class StructureBuilder:
    """Builds the values of a structure of what was read of a request for its fields.

    Args:
        signature: of the structure, whose arguments are its fields.

    Raises:
        ProblemsFound: the values do not fit together, as the class or its model says.
    """

    def __init__(self, signature: Signature) -> None:
        function = signature.function
        kind: Any = function.kind if isinstance(function, FieldsOf) else function
        self._kind = kind
        self._is_model = is_model(kind)
        self._places = {each.name: (each.source.value, each.key) for each in signature.arguments}
        self._known = {each.key for each in signature.arguments}
        first = next(iter(signature.arguments), None)
        self._source = (first.source.value,) if first is not None else ("query",)
        # What a structure says of other fields than its own counts where all of the query is its.
        is_alone = isinstance(function, FieldsOf) and self._source[0] in {"query", "form"}
        self._others = _find_rule_for_others(kind) if is_alone else "ignore"

    def build(self, call: Call, values: dict[str, Any]) -> Any:
        """Return the structure; raises `ProblemsFound`, with whole places."""
        given = {name: value for name, value in values.items() if value is not LEFT_OUT}
        if self._others != "ignore":
            others = {
                name: each
                for name, each in call.list_values(self._source[0]).items()
                if name not in self._known
            }
            if others and self._others == "forbid":
                message = f"it is not known; known are {', '.join(sorted(self._known))}"
                raise ProblemsFound(
                    [Problem((*self._source, clip_text(name)), message) for name in others]
                )
            given.update(
                (name, each if len(each) > 1 else each[0]) for name, each in others.items()
            )
        try:
            if self._is_model:
                return run_validation(self._kind.model_validate, given)
            return self._kind(**given)
        except ProblemsFound as found:
            problems = found.problems
        except (TypeError, ValueError) as error:  # of `__post_init__`, as msgspec has it
            problems = [Problem((), clip_text(str(error)))]
        raise ProblemsFound([self._place(each) for each in problems]) from None

    def _place(self, problem: Problem) -> Problem:
        first, *rest = problem.where or ("",)
        place = self._places.get(str(first))
        where = (*place, *rest) if place is not None else (*self._source, *problem.where)
        missing = "it is missing" if problem.message == "Field required" else problem.message
        return Problem(where, missing)


def _find_rule_for_others(kind: Any) -> str:
    """Return what a structure says of fields that it does not have: ignore, allow or forbid."""
    if is_model(kind):
        return str(kind.model_config.get("extra") or "ignore")
    is_strict = issubclass(kind, msgspec.Struct) and kind.__struct_config__.forbid_unknown_fields
    return "forbid" if is_strict else "ignore"
